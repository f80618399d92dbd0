import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { loadMaskingKey } from "./masking-key.ts";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "masking-key-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test("the key is made once, for its owner alone, and is the same for all who start at once", async () => {
  const keys = await Promise.all([1, 2, 3].map(() => loadMaskingKey("", folder)));
  expect(new Set([...keys, await loadMaskingKey("", folder)].map((key) => key.toString("hex"))).size).toBe(1);
  expect((await stat(join(folder, "masking.key"))).mode & 0o777).toBe(0o600);
});

test("a key file of the operator's is read, and one that is missing or short ends the start", async () => {
  const file = join(folder, "key");
  await expect(loadMaskingKey(file, folder)).rejects.toThrow(/cannot be read/);
  await writeFile(file, "short\n");
  await expect(loadMaskingKey(file, folder)).rejects.toThrow(/fewer than 32 bytes/);
  await writeFile(file, `${"k".repeat(32)}\n`);
  expect(await loadMaskingKey(file, folder)).toEqual(Buffer.from("k".repeat(32)));
});
