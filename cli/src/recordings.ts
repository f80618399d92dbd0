/** A folder of recordings on the command line: one place that says what to do when it cannot be read. */
import { stat } from "node:fs/promises";
import { CliFailure } from "./failure.ts";
import type { Terminal } from "./terminal.ts";
import { inFolder } from "./values.ts";

type Sidecar = typeof import("@sallyport/sidecar");

/** Runs a reader on a folder that is there; what it cannot read becomes a failure with a next step. */
export async function readRecordings<Result>(
  dir: string,
  terminal: Terminal,
  read: (sidecar: Sidecar, folder: string) => Promise<Result>,
): Promise<Result> {
  const folder = inFolder(terminal.cwd, dir);
  const next = "Name the gateway's folder of recordings, the one that holds `log` and `sessions`.";
  const found = await stat(folder).catch((cause: unknown) => {
    throw new CliFailure(`cannot read ${dir}`, { next, cause });
  });
  if (!found.isDirectory()) throw new CliFailure(`${dir} is not a folder`, { next });
  try {
    return await read(await import("@sallyport/sidecar"), folder);
  } catch (cause) {
    if (cause instanceof CliFailure) throw cause;
    throw new CliFailure(`the recordings in ${dir} cannot be read`, { next, cause });
  }
}
