/** What a scenario that fails leaves behind for who has to find out why: its objects, events and logs, and how long it took. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type CommandResult, run } from "../cluster/kubectl.ts";
import { resultsVariable, timesPath } from "../reporters.ts";
import { install } from "./installed.ts";
import { openScenario } from "./scenario.ts";

const { cluster } = openScenario("failing");
const config = join(import.meta.dirname, "failing/vitest.config.ts");
const vitest = join(import.meta.dirname, "../../node_modules/.bin/vitest");
let folder: string;
let failed: CommandResult;

beforeAll(async () => {
  await install(cluster);
  folder = await mkdtemp(join(tmpdir(), "sallyport-failing-"));
  // Where this run keeps what failed, these are to go all the same: they were to fail.
  const environment = { [resultsVariable]: join(folder, "results.json"), SALLYPORT_E2E_KEEP: "", CI: "" };
  failed = await run(vitest, ["--config", config, "run"], undefined, environment);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** What was printed of one scenario, by kubectl's words. */
const printed = (name: string) => {
  const parts = failed.stdout.split(`--- e2e-${name}: kubectl `).slice(1);
  return parts.map((part) => part.split("\n--- ")[0] ?? "");
};
const shown = (name: string, command: string) => {
  const found = printed(name).filter((part) => part.startsWith(command));
  // However many of its tests fail, once.
  expect([command, found.length]).toEqual([command, 1]);
  return found.join();
};

test("objects, what became of pods, events, our own kinds and logs are printed, once, and nothing of a Secret", () => {
  const name = "failing-at-a-test";
  expect(failed.code).toBe(1);
  expect(failed.stdout).toMatch(/Tests .*2 failed/);
  expect(shown(name, "get all")).toContain("pod/speaker");
  expect(shown(name, "describe pods")).toMatch(/Image: +\S+/);
  expect(shown(name, "get events")).toMatch(/Started +pod\/speaker/);
  expect(shown(name, "get accesspolicies")).toMatch(/kind: ProtectedResource[\s\S]* name: protected\n/);
  expect(shown(name, "logs pod/speaker")).toContain("words of the container");
  expect(failed.stdout + failed.stderr).not.toMatch(
    new RegExp(`words-of-the-secret|${Buffer.from("words-of-the-secret").toString("base64")}`),
  );
});

test("a scenario that could not be set up prints the same", () => {
  expect(failed.stderr).toContain("it cannot be set up");
  expect(shown("failing-at-set-up", "get all")).toContain("configmap/half-way");
});

test("neither leaves its namespace", async () => {
  const left = await cluster.kubectl("get", "namespaces", "-o", "name");
  expect(left).not.toMatch(/e2e-failing-at/);
});

test("the time of a suite is told with its set-up", async () => {
  const text = await readFile(timesPath(join(folder, "results.json")), "utf8");
  const times = Object.entries(JSON.parse(text) as Readonly<Record<string, number>>);
  const [, took = 0] = times.find(([path]) => path.endsWith("failing/at-a-test.ts")) ?? [];
  const [, setUp] = /set up in (\d+)/.exec(failed.stdout) ?? [];
  expect(took).toBeGreaterThan(Number(setUp));
});
