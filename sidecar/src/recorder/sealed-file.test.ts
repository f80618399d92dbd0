import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { NamespaceKeys } from "./namespace-keys.ts";
import { readSealed, SealedFile } from "./sealed-file.ts";
import { volumeStorage } from "./volume-storage.ts";

let folder: string;
const key = randomBytes(32);
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "sealed-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function written(pieces: readonly string[], name = "s-1"): Promise<string> {
  const path = join(folder, `${name}.journal`);
  const file = await SealedFile.create(volumeStorage, path, key, name);
  for (const piece of pieces) await file.append(Buffer.from(piece));
  await file.sync();
  await file.close();
  return path;
}

async function read(path: string, session = "s-1", fileKey = key) {
  const reading = readSealed(path, fileKey, session);
  let text = "";
  for await (const chunk of reading.chunks) text += chunk.toString();
  return { text, tail: reading.tail, end: reading.end };
}

test("what was appended is read again, and is not in the file", async () => {
  const path = await written(["one secret", "two"]);
  expect(await read(path)).toMatchObject({ text: "one secrettwo", tail: "none", end: { plain: 13 } });
  expect((await readFile(path)).includes("secret")).toBe(false);
});

test("no byte can be changed unnoticed", async () => {
  const path = await written(["one", "two"]);
  const bytes = await readFile(path);
  for (let at = 0; at < bytes.length; at++) {
    const changed = Buffer.from(bytes);
    changed.writeUInt8(changed.readUInt8(at) ^ 1, at);
    await writeFile(path, changed);
    const { text, tail } = await read(path);
    expect(tail).not.toBe("none");
    expect("onetwo".startsWith(text)).toBe(true);
  }
});

test("a file that ends anywhere within a piece is torn, and whole up to there", async () => {
  const path = await written(["one", "two"]);
  const bytes = await readFile(path);
  for (let length = 1; length < bytes.length; length++) {
    await writeFile(path, bytes.subarray(0, length));
    const { text, tail } = await read(path);
    expect(["", "one"]).toContain(text);
    expect(["torn", "none"]).toContain(tail);
    if (tail === "none") expect([28, 28 + 4 + 28 + 3]).toContain(length);
  }
});

test("a piece belongs to its session, its place and its key", async () => {
  const one = await readFile(await written(["one", "two"]));
  const [header, first, second] = [one.subarray(0, 28), one.subarray(28, 63), one.subarray(63)];
  const path = join(folder, "s-1.journal");
  for (const pieces of [[second, first], [first, first], [second]]) {
    await writeFile(path, Buffer.concat([header, ...pieces]));
    expect((await read(path)).tail).toBe("damaged");
  }
  await writeFile(path, one);
  expect((await read(path, "s-2")).tail).toBe("damaged");
  expect((await read(path, "s-1", randomBytes(32))).tail).toBe("damaged");
});

test("going on after a crash cuts off what was not written whole", async () => {
  const path = await written(["one", "two"]);
  await writeFile(path, (await readFile(path)).subarray(0, -5));
  const { end, tail } = await read(path);
  expect(tail).toBe("torn");
  const file = await SealedFile.resume(volumeStorage, path, key, "s-1", end);
  await file.append(Buffer.from("2"));
  await file.close();
  expect(await read(path)).toMatchObject({ text: "one2", tail: "none" });
});

test("namespaces have keys of their own, which outlive a change of the wrapping key", async () => {
  const [old, next] = [randomBytes(32), randomBytes(32)];
  const first = await new NamespaceKeys(folder, [old]).fileKey("shop", "s-1", true);
  expect(await new NamespaceKeys(folder, [old]).fileKey("other", "s-1", true)).not.toEqual(first);
  await expect(new NamespaceKeys(folder, [next]).fileKey("shop", "s-1", true)).rejects.toThrow(
    "no wrapping key",
  );
  expect(await new NamespaceKeys(folder, [next, old]).fileKey("shop", "s-1", false)).toEqual(first);
  // It was wrapped anew: the old key is not needed any more.
  expect(await new NamespaceKeys(folder, [next]).fileKey("shop", "s-1", false)).toEqual(first);
  await expect(new NamespaceKeys(folder, [next]).fileKey("nobody", "s-1", false)).rejects.toThrow("gone");
  expect((await readFile(join(folder, "shop.json"))).includes(first)).toBe(false);
});
