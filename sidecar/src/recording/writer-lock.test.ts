import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { lockWriter } from "./writer-lock.ts";

test("one of those who come at once has the lock, and the next one when it is given back", async () => {
  const folder = await mkdtemp(join(tmpdir(), "whole-file-"));
  try {
    const path = join(folder, "writer.lock");
    const tries = await Promise.allSettled(Array.from({ length: 20 }, () => lockWriter(path)));
    const [first, ...others] = tries.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
    expect(others).toEqual([]);
    await expect(lockWriter(path)).rejects.toThrow(`recordings are being written by process ${process.pid}`);
    await first?.release();
    const next = await lockWriter(path);
    await next.release();
    expect(await readdir(folder)).toEqual([]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("of several that find a dead process's lock, or a torn one, one has it", async () => {
  const dead = spawnSync("true").pid;
  const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  // The last three: our own pid in an earlier life, one that a crash tore, and one from before it had a start time.
  for (const left of [`${dead} ${boot} 1\n`, `${process.pid} ${boot} 1\n`, "", `${dead} \n`]) {
    for (let round = 0; round < 5; round++) {
      const folder = await mkdtemp(join(tmpdir(), "whole-file-"));
      try {
        const path = join(folder, "writer.lock");
        await writeFile(path, left);
        const tries = await Promise.allSettled(Array.from({ length: 8 }, () => lockWriter(path)));
        const taken = tries.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
        expect(taken).toHaveLength(1);
        expect(await readdir(folder)).toEqual(["writer.lock"]);
        expect(await readFile(path, "utf8")).toMatch(new RegExp(`^${process.pid} ${boot} [0-9]+\n$`));
      } finally {
        await rm(folder, { recursive: true });
      }
    }
  }
});

test("who died while taking over is taken over from", async () => {
  const folder = await mkdtemp(join(tmpdir(), "whole-file-"));
  try {
    const path = join(folder, "writer.lock");
    const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
    const left = `${spawnSync("true").pid} ${boot} 1\n`;
    await writeFile(path, left);
    const claim = `${path}.${createHash("sha256").update(left).digest("hex").slice(0, 16)}`;
    await writeFile(claim, `${spawnSync("true").pid} ${boot} 2\n`);
    const lock = await lockWriter(path);
    expect(await readdir(folder)).toEqual(["writer.lock"]);
    await lock.release();
  } finally {
    await rm(folder, { recursive: true });
  }
});
