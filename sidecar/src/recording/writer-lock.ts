/** Keeps a second writer out of a folder: it would take what the first one is writing for torn. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readFile, unlink } from "node:fs/promises";
import { createWhole, replaceWhole } from "./whole-file.ts";

/** Held for as long as its holder writes. */
export interface WriterLock {
  release(): Promise<void>;
}

/**
 * Takes the lock or throws, naming the process that has it and what it writes; a dead process's lock is taken over.
 *
 * Of several that find the same dead holder one may replace its lock: the one that holds a lock beside it, which is
 * named after that holder and is taken in the same way.
 */
export async function lockWriter(path: string, what = "recordings"): Promise<WriterLock> {
  const mine = `${process.pid} ${holderOf(process.pid)}\n`;
  const lock = { release: () => unlink(path).catch(() => undefined) };
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    if (await createWhole(path, mine, 0o600)) return lock;
    const found = await readFile(path, "utf8").catch(() => undefined);
    if (found === undefined) continue;
    refuseLiving(found, path, what);
    const name = createHash("sha256").update(found).digest("hex").slice(0, 16);
    const claim = await lockWriter(`${path}.${name}`, what);
    try {
      // Another may have taken over since, and have given back its claim.
      if ((await readFile(path, "utf8").catch(() => undefined)) !== found) continue;
      await replaceWhole(path, mine, 0o600);
      return lock;
    } finally {
      await claim.release();
    }
  }
  throw new Error(`the lock ${path} cannot be taken`);
}

function refuseLiving(found: string, path: string, what: string): void {
  const [pid = "", ...holder] = found.trim().split(" ");
  if (isRunning(Number(pid), holder.join(" "))) {
    throw new Error(`${what} are being written by process ${pid} (${path})`);
  }
}

/** In a container the dead process often had the pid of one that lives: its start time tells the two apart. */
function isRunning(pid: number, holder: string): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  if (holder !== "") return holderOf(pid) === holder;
  // Without /proc the id alone has to do.
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

const attemptsMax = 3;

/** A process's boot and start time, which no later process shares; empty where there is no such process. */
function holderOf(pid: number): string {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return `${boot} ${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]}`;
  } catch {
    return "";
  }
}
