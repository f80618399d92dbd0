/** A cluster's folder: made for one process and removed with it, or kept until somebody says `down`. */
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { killProcesses, livePid, processNames, startedAt } from "./processes.ts";

const prefix = "sallyport-cluster-";

/** Makes a folder that belongs to this process: whatever happens, its processes do not outlive it for long. */
export async function createOwnFolder(): Promise<string> {
  await removeAbandoned();
  const folder = await mkdtemp(join(tmpdir(), prefix));
  writeFileSync(join(folder, "owner"), `${process.pid} ${startedAt(process.pid) ?? ""}\n`);
  const atExit = () => {
    killProcesses(folder);
    rmSync(folder, { recursive: true, force: true });
  };
  process.once("exit", atExit);
  atExitOf.set(folder, atExit);
  return folder;
}

/** Makes a folder that stays, at a given place; nothing may run in it. */
export async function createKeptFolder(folder: string): Promise<string> {
  const running = processNames(folder).filter((name) => livePid(folder, name) !== undefined);
  if (running.length > 0)
    throw new Error(`a cluster runs in ${folder} (${running.join(", ")}): take it down`);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  return folder;
}

/** Removes a folder whose processes have ended. */
export async function removeFolder(folder: string): Promise<void> {
  const atExit = atExitOf.get(folder);
  if (atExit) process.off("exit", atExit);
  atExitOf.delete(folder);
  await rm(folder, { recursive: true, force: true, maxRetries: 5 });
}

const atExitOf = new Map<string, () => void>();

/** A test process that was killed could not end its API server: the next one does. */
async function removeAbandoned(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const folder = join(tmpdir(), name);
    if (!name.startsWith(prefix) || !existsSync(join(folder, "owner"))) continue;
    const [pid, started] = readFileSync(join(folder, "owner"), "utf8").trim().split(" ");
    if (startedAt(Number(pid)) === started) continue;
    killProcesses(folder);
    await rm(folder, { recursive: true, force: true }).catch(() => {});
  }
}
