import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  killProcesses,
  livePid,
  processNames,
  startedAt,
  startProcess,
  stopProcesses,
  waitFor,
} from "./processes.ts";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "sallyport-processes-"));
});
afterEach(async () => {
  killProcesses(folder);
  await rm(folder, { recursive: true });
});

const node = (script: string) => [process.execPath, "-e", script] as const;

test("a process is found by its pid file and ended by name, its output kept", async () => {
  const started = await startProcess(
    folder,
    "echo",
    node("console.log('here'); setInterval(() => {}, 1000)"),
  );
  await waitFor("its output", async () => (await started.log()).includes("here") || undefined);
  expect(processNames(folder)).toEqual(["echo"]);
  expect(livePid(folder, "echo")).toBe(started.pid);
  await stopProcesses(folder, ["echo"]);
  expect(startedAt(started.pid)).toBeUndefined();
  expect(processNames(folder)).toEqual([]);
  expect(await readFile(join(folder, "log/echo.log"), "utf8")).toBe("here\n");
});

test("a process that does not listen is ended by force", async () => {
  const stubborn = node("process.on('SIGTERM', () => {}); console.log('up'); setInterval(() => {}, 1000)");
  const started = await startProcess(folder, "stubborn", stubborn);
  await waitFor("it to be up", async () => (await started.log()).includes("up") || undefined);
  await stopProcesses(folder, ["stubborn"], 50);
  expect(startedAt(started.pid)).toBeUndefined();
});

test("a pid file never ends another process that got the number later", async () => {
  await writeFile(join(folder, "other.pid"), `${process.pid} 1\n`);
  expect(livePid(folder, "other")).toBeUndefined();
  await stopProcesses(folder, ["other"]);
  expect(startedAt(process.pid)).toBeDefined();
});

test("a program that is not there is said so", async () => {
  await expect(startProcess(folder, "nothing", ["/no/such/program"])).rejects.toThrow(
    /nothing did not start/,
  );
});

test("a wait says at its deadline what it waited for", async () => {
  await expect(waitFor("a wonder", () => undefined, { ms: 20, pauseMs: 5 })).rejects.toThrow("a wonder");
});
