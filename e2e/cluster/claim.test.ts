import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { claim } from "./claim.ts";
import { startedAt } from "./processes.ts";

let folder = "";
let file = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "sallyport-claim-"));
  file = join(folder, "claim");
  vi.spyOn(console, "error").mockImplementation(() => {});
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true });
});

test("a claim is one's own until it is released", async () => {
  const first = await claim(file);
  await expect(claim(file, { ms: 300 })).rejects.toThrow("waited");
  const second = claim(file, { ms: 10_000 });
  first.release();
  (await second).release();
  expect(existsSync(file)).toBe(false);
});

test("a process that has ended holds nothing, nor does another with its number", async () => {
  await writeFile(file, "4194304 1\n");
  (await claim(file, { ms: 2_000 })).release();
  await writeFile(file, `${process.pid} ${Number(startedAt(process.pid)) + 1}\n`);
  (await claim(file, { ms: 2_000 })).release();
});
