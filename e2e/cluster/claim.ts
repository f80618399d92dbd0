import { existsSync, linkSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { startedAt, waitFor } from "./processes.ts";

/** Something that only one process has at a time. */
export interface Claim {
  release(): void;
}

/**
 * Waits until no living process has the claim of this file, and takes it. A process that was killed holds nothing: the
 * file names its owner by pid and start time.
 */
export async function claim(file: string, options: { readonly ms?: number } = {}): Promise<Claim> {
  let told: number | undefined;
  await waitFor(
    `the process that holds ${file}`,
    () => {
      const owner = ownerOf(file);
      if (owner !== undefined && owner !== told)
        console.error(`waiting for process ${owner}, which has ${file}`);
      told = owner;
      return (owner === undefined && take(file)) || undefined;
    },
    { ms: options.ms ?? 20 * 60_000, pauseMs: 250 },
  );
  const release = () => {
    process.off("exit", release);
    if (ownerOf(file) === process.pid) rmSync(file, { force: true });
  };
  process.once("exit", release);
  return { release };
}

/** The living process that has a claim. */
function ownerOf(file: string): number | undefined {
  try {
    const [pid, started] = readFileSync(file, "utf8").trim().split(" ");
    return started !== undefined && startedAt(Number(pid)) === started ? Number(pid) : undefined;
  } catch {
    return undefined;
  }
}

/** A link is made at once or not at all, and with its content: nobody sees a claim without an owner. */
function take(file: string): boolean {
  const mine = `${file}.${process.pid}`;
  try {
    writeFileSync(mine, `${process.pid} ${startedAt(process.pid)}\n`);
    if (existsSync(file)) setAside(file);
    linkSync(mine, file);
    return true;
  } catch {
    // Another was faster.
    return false;
  } finally {
    rmSync(mine, { force: true });
  }
}

/** Removes what a dead process left; where another has taken its place meanwhile, that is put back. */
function setAside(file: string): void {
  const aside = `${file}.${process.pid}.old`;
  renameSync(file, aside);
  if (ownerOf(aside) !== undefined) linkSync(aside, file);
  rmSync(aside, { force: true });
}
