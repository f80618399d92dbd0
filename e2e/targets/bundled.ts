/**
 * Bundles the command line once for all scenarios of a run: a gateway is ready for a third of the processor time that
 * its sources take, and who edits them meanwhile does not change what runs.
 */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeBundle } from "@sallyport/cli/build";
import { startedAt } from "../cluster/processes.ts";

const prefix = "sallyport-bundle-";

/** Names the bundle to whoever takes `sallyportCommand` in this run; resolves to what removes it. */
export async function setup(): Promise<() => Promise<void>> {
  if (process.env.SALLYPORT_PROGRAM !== undefined) return async () => undefined;
  await removeAbandoned();
  const folder = await mkdtemp(join(tmpdir(), `${prefix}${process.pid}-`));
  process.env.SALLYPORT_PROGRAM = await writeBundle(folder);
  return async () => {
    delete process.env.SALLYPORT_PROGRAM;
    await rm(folder, { recursive: true, force: true });
  };
}

/** A run that was killed leaves its folder. */
async function removeAbandoned(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = new RegExp(`^${prefix}(\\d+)-`).exec(name)?.[1];
    if (pid === undefined || startedAt(Number(pid)) !== undefined) continue;
    await rm(join(tmpdir(), name), { recursive: true, force: true });
  }
}
