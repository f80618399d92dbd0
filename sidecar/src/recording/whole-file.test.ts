import files, { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { createWhole, NewestWhole, replaceWhole } from "./whole-file.ts";

/** What a file system without hard links does. */
function linkFails(code: string): void {
  vi.spyOn(files, "link").mockRejectedValue(Object.assign(new Error("no links here"), { code }));
}

/** Long enough to take many writes. */
const long = "0123456789abcdef".repeat(1 << 18);

test("of several at once one makes the file, and nobody reads a part of it", async () => {
  const folder = await mkdtemp(join(tmpdir(), "whole-file-"));
  try {
    const path = join(folder, "f");
    const read = new Set<string>();
    let isDone = false;
    const reader = (async () => {
      while (!isDone) read.add(await readFile(path, "utf8").catch(() => "none"));
      read.add(await readFile(path, "utf8"));
    })();
    const made = await Promise.all(["a", "b", "c", "d"].map((name) => createWhole(path, name + long, 0o640)));
    isDone = true;
    await reader;
    expect(made.filter(Boolean)).toHaveLength(1);
    const [whole, ...others] = [...read].filter((text) => text !== "none");
    expect(others).toEqual([]);
    expect(whole).toHaveLength(long.length + 1);
    expect((await stat(path)).mode & 0o777).toBe(0o640);
    expect(await readdir(folder)).toEqual(["f"]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("a file is replaced for whoever reads at that moment by the whole other one", async () => {
  const folder = await mkdtemp(join(tmpdir(), "whole-file-"));
  try {
    const path = join(folder, "f");
    await replaceWhole(path, `a${long}`, 0o600);
    const read = new Set<string>();
    let isDone = false;
    const reader = (async () => {
      while (!isDone) read.add(await readFile(path, "utf8"));
    })();
    for (const name of ["b", "c", "d"]) await replaceWhole(path, name + long, 0o644);
    isDone = true;
    await reader;
    expect(new Set([...read].map((text) => text.length))).toEqual(new Set([long.length + 1]));
    expect((await readFile(path, "utf8"))[0]).toBe("d");
    expect((await stat(path)).mode & 0o777).toBe(0o644);
    expect(await readdir(folder)).toEqual(["f"]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("without hard links a file is made, and none is overwritten", async () => {
  const folder = await mkdtemp(join(tmpdir(), "whole-file-"));
  try {
    for (const code of ["EPERM", "EOPNOTSUPP", "ENOSYS"]) {
      linkFails(code);
      const path = join(folder, code);
      expect(await createWhole(path, "one", 0o600)).toBe(true);
      expect(await createWhole(path, "two", 0o600)).toBe(false);
      expect(await readFile(path, "utf8")).toBe("one");
    }
    // Another process was quicker, between the look and the making.
    const late = join(folder, "late");
    const both = await Promise.all(["one", "two"].map((text) => createWhole(late, text, 0o600)));
    expect(both.filter(Boolean)).toHaveLength(1);
    linkFails("EIO");
    await expect(createWhole(join(folder, "f"), "x", 0o600)).rejects.toThrow("no links here");
    expect((await readdir(folder)).sort()).toEqual(["ENOSYS", "EOPNOTSUPP", "EPERM", "late"]);
  } finally {
    vi.restoreAllMocks();
    await rm(folder, { recursive: true });
  }
});

test("a folder that cannot be written to fails, and leaves nothing", async () => {
  const folder = await mkdtemp(join(tmpdir(), "whole-file-"));
  try {
    const file = join(folder, "f");
    await writeFile(file, "x");
    await expect(createWhole(join(file, "g"), "x", 0o600)).rejects.toThrow("ENOTDIR");
    await expect(replaceWhole(join(folder, "none", "g"), "x", 0o600)).rejects.toThrow("ENOENT");
    expect(await readdir(folder)).toEqual(["f"]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("of texts that come while others are being written the last one stays", async () => {
  const folder = await mkdtemp(join(tmpdir(), "whole-file-"));
  try {
    const path = join(folder, "f");
    const file = new NewestWhole(path, 0o644);
    // The earlier, the longer: written at once the shorter ones would be done first.
    const texts = Array.from({ length: 8 }, (_, at) => `${at}${long.slice(0, long.length >> (at * 2))}`);
    await Promise.all(texts.map((text) => file.replace(text)));
    expect((await readFile(path, "utf8"))[0]).toBe("7");
    expect(await readdir(folder)).toEqual(["f"]);
    await rm(folder, { recursive: true });
    await expect(file.replace("lost")).rejects.toThrow("ENOENT");
    await mkdir(folder);
    await file.replace("again");
    expect(await readFile(path, "utf8")).toBe("again");
  } finally {
    await rm(folder, { recursive: true });
  }
});
