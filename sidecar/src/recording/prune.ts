/** Removes recordings whose retention has ended while no recorder runs; a running one has `prune` itself. */
import type { PruneSelection } from "./model.ts";
import { createRecorder, type RecorderOptions } from "./recorder.ts";

/** Takes the folder over for as long as it takes, and says in the log what was removed. */
export async function prune(options: RecorderOptions, selection: PruneSelection): Promise<number> {
  const recorder = await createRecorder(options);
  try {
    return await recorder.prune(selection);
  } finally {
    await recorder.close();
  }
}
