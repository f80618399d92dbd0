/** Processes that belong to a cluster's folder: one pid file and one log each, so that anybody can end them later. */
import { spawn } from "node:child_process";
import { existsSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** A process of a cluster. */
export interface ClusterProcess {
  readonly name: string;
  readonly pid: number;
  isAlive(): boolean;
  /** The end of its log. */
  log(): Promise<string>;
}

/** Starts a process that outlives this one; its pid file is there before this resolves. */
export async function startProcess(
  folder: string,
  name: string,
  command: readonly [string, ...string[]],
  environment: Readonly<Record<string, string>> = {},
): Promise<ClusterProcess> {
  await mkdir(join(folder, "log"), { recursive: true });
  const logFile = join(folder, "log", `${name}.log`);
  const log = openSync(logFile, "a");
  const [program, ...argv] = command;
  const child = spawn(program, argv, {
    // A group of its own: Ctrl-C at a terminal must not end the API server before who uses it.
    detached: true,
    stdio: ["ignore", log, log],
    cwd: folder,
    env: { ...process.env, ...environment },
  });
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) => reject(new Error(`${name} did not start: ${error.message}`)));
  });
  const pid = child.pid ?? 0;
  writeFileSync(pidFile(folder, name), `${pid} ${startedAt(pid) ?? ""}\n`);
  child.unref();
  return {
    name,
    pid,
    isAlive: () => child.exitCode === null && child.signalCode === null,
    log: async () => (await readFile(logFile, "utf8").catch(() => "")).slice(-4000),
  };
}

/** Ends the named processes of a folder in this order, each with time to clean up, and then by force. */
export async function stopProcesses(folder: string, names: readonly string[], graceMs = 10_000) {
  for (const name of names) {
    const pid = livePid(folder, name);
    if (pid !== undefined) {
      signal(pid, "SIGTERM");
      const ended = () => livePid(folder, name) === undefined || undefined;
      const inTime = waitFor(`${name} to end`, ended, { ms: graceMs, pauseMs: 20 });
      await inTime.catch(() => signal(pid, "SIGKILL"));
      await waitFor(`${name} to be killed`, ended, { pauseMs: 20 });
    }
    rmSync(pidFile(folder, name), { force: true });
  }
}

/** Ends everything of a folder at once; for the last moment of a process, when nothing can be awaited. */
export function killProcesses(folder: string): void {
  for (const name of processNames(folder)) {
    const pid = livePid(folder, name);
    if (pid !== undefined) signal(pid, "SIGKILL");
  }
}

/** The names of the processes that a folder has pid files of. */
export function processNames(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.endsWith(".pid"))
    .map((name) => name.slice(0, -".pid".length))
    .sort();
}

/** The pid of a process of this folder, if it still runs and is not another one that got its number. */
export function livePid(folder: string, name: string): number | undefined {
  if (!existsSync(pidFile(folder, name))) return undefined;
  const [pid, started] = readFileSync(pidFile(folder, name), "utf8").trim().split(" ");
  const now = startedAt(Number(pid));
  return now !== undefined && (started === undefined || started === now) ? Number(pid) : undefined;
}

/** When a process started, which tells it from a later one with the same number; undefined once it has ended. */
export function startedAt(pid: number): string | undefined {
  if (!Number.isInteger(pid) || pid <= 1) return undefined;
  try {
    // proc(5): the name in brackets may hold spaces; state is the 3rd field, the start time the 22nd.
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1")
      .replace(/^.*\) /s, "")
      .split(" ");
    // A zombie whose other threads are still ending holds its ports.
    const isGone = fields[0] === "Z" && readdirSync(`/proc/${pid}/task`).length <= 1;
    return isGone ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** Asks until the answer is not undefined; the error at the deadline says what was waited for. */
export async function waitFor<T>(
  what: string,
  ask: () => Promise<T | undefined> | T | undefined,
  options: { readonly ms?: number; readonly pauseMs?: number } = {},
): Promise<T> {
  const deadline = Date.now() + (options.ms ?? 30_000);
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > deadline) throw new Error(`waited ${options.ms ?? 30_000} ms for ${what}`);
    await delay(options.pauseMs ?? 50);
  }
}

const pidFile = (folder: string, name: string) => join(folder, `${name}.pid`);

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It ended by itself in between.
  }
}
