/** What the README tells a newcomer to call does what it says, and leaves nothing behind. */
import { spawn } from "node:child_process";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { hasCommand } from "../drivers/toolchains.ts";

const main = join(import.meta.dirname, "../demo/main.ts");

afterAll(async () => {
  for (const run of ["test-0", "test-1"]) {
    await rm(join(import.meta.dirname, "../../.demo", run), { recursive: true, force: true });
  }
});

function demo(...args: string[]) {
  const child = spawn(process.execPath, ["--import", "tsx", main, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, SALLYPORT_DEMO_RUN: `test-${args.length}` },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  return { child, ended, output: () => output };
}

test("the tour ends by itself, and every step did what it says", async () => {
  const { ended, output } = demo("--tour");
  expect(await ended, output()).toBe(0);
  expect(output()).not.toContain("✗");
  expect(output().match(/^✓/gm)).toHaveLength(12);
});

test("the demo stays up with a psql line for each identity, and Ctrl-C leaves nothing running", async () => {
  const { child, ended, output } = demo();
  await expect.poll(output, { timeout: 60_000, interval: 100 }).toContain("Ctrl-C stops everything.");
  const lines = output().match(/^PGPASSWORD=.*$/gm) ?? [];
  expect(lines).toHaveLength(3);
  for (const line of lines) expect(line).toContain("sslmode=verify-full sslrootcert=");
  if (await hasCommand("psql", ["--version"])) {
    const psql = spawn("bash", ["-c", `${lines[0]} -AtXc 'SELECT count(*) FROM customers'`]);
    let printed = "";
    psql.stdout.on("data", (text) => {
      printed += text;
    });
    expect(await new Promise((resolve) => psql.once("close", resolve))).toBe(0);
    expect(printed.trim()).toBe("200");
  }
  const [, server, gateway] = /PostgreSQL 18 on port (\d+), gateway on port (\d+)/.exec(output()) ?? [];
  child.kill("SIGINT");
  expect(await ended, output()).toBe(0);
  for (const port of [server, gateway]) {
    const refused = await fetch(`http://127.0.0.1:${port}`).catch((error: Error) => error.cause);
    expect(refused).toMatchObject({ code: "ECONNREFUSED" });
  }
});
