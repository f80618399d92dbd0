/** Keeps a second recorder out of a folder: it would take the first one's live sessions for torn. */
import { readFileSync } from "node:fs";
import { open, readFile, unlink } from "node:fs/promises";

/** Held for as long as the recorder writes. */
export interface WriterLock {
  release(): Promise<void>;
}

/** Takes the lock or throws, naming the process that has it; a dead process's lock is taken over. */
export async function lockWriter(path: string): Promise<WriterLock> {
  const mine = holderOf(process.pid);
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      const file = await open(path, "wx", 0o600);
      await file.writeFile(`${process.pid} ${mine}\n`);
      await file.close();
      held.add(path);
      return { release: () => release(path) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const [pid = "", ...holder] = (await readFile(path, "utf8").catch(() => "")).trim().split(" ");
    // In a container the dead process often had our own pid: its start time tells the two apart.
    const isAlive = Number(pid) === process.pid ? held.has(path) : isRunning(Number(pid), holder.join(" "));
    if (isAlive) throw new Error(`recordings are being written by process ${pid} (${path})`);
    await unlink(path).catch(() => undefined);
  }
  throw new Error(`the lock ${path} cannot be taken`);
}

/** The locks of this process. */
const held = new Set<string>();

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

async function release(path: string): Promise<void> {
  held.delete(path);
  await unlink(path).catch(() => undefined);
}

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
