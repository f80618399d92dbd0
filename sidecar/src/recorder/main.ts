import { pino } from "pino";
import { type RecorderConfiguration, readRecorderConfiguration } from "./configuration.ts";
import { RecorderProcess } from "./recorder-process.ts";
import { inClusterReviews, kubeReviews } from "./reviews.ts";

export { NamespaceKeys } from "./namespace-keys.ts";
export { RecordingVolume, type VolumeOptions } from "./recording-volume.ts";
export { type ReplayApiOptions, serveReplay } from "./replay-api.ts";
export { kubeReviews, type Reviews, type ReviewsOptions } from "./reviews.ts";

/** Runs the recorder until SIGTERM or SIGINT; resolves with the process's exit code. */
export async function runRecorder(flags: Readonly<Record<string, string | undefined>>): Promise<number> {
  let configuration: RecorderConfiguration;
  try {
    configuration = readRecorderConfiguration(flags, process.env);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return 2;
  }
  const log = pino({ level: configuration.logLevel, base: null });
  const reviews = kubeReviews(inClusterReviews(process.env));
  const recorder = new RecorderProcess(configuration, { log, reviews });
  const stopped = new Promise<void>((resolve) => {
    process.once("SIGTERM", resolve);
    process.once("SIGINT", resolve);
  });
  try {
    await recorder.start();
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    // What is open by then would keep the process alive, and the volume from the next one.
    await recorder.stop();
    return 1;
  }
  await stopped;
  await recorder.stop();
  return 0;
}
