import type { KeyObject } from "node:crypto";
import type { PublishedHead, Recorder, SessionOpening, SessionRecording } from "../recording/model.ts";
import { openNull } from "../recording/null-recorder.ts";
import { createStreamRecorder } from "../recording/recorder.ts";
import type { RecorderLink } from "./recorder-link.ts";

/**
 * Recordings that are kept elsewhere, behind the interface of those on disk: the same journals, chained and signed
 * here, whose bytes go to the recorder.
 */
export async function createRemoteRecorder(link: RecorderLink, key: KeyObject): Promise<Recorder> {
  const required = await createStreamRecorder({ folder: "", key, storage: link.storage(false) });
  const bestEffort = await createStreamRecorder({ folder: "", key, storage: link.storage(true) });
  return new RemoteRecorder(link, required, bestEffort);
}

class RemoteRecorder implements Recorder {
  readonly #link: RecorderLink;
  readonly #required: Recorder;
  readonly #bestEffort: Recorder;
  readonly #nothing = openNull();

  constructor(link: RecorderLink, required: Recorder, bestEffort: Recorder) {
    this.#link = link;
    this.#required = required;
    this.#bestEffort = bestEffort;
  }

  get failure(): Error | undefined {
    return this.#link.failure;
  }

  open(opening: SessionOpening): SessionRecording {
    if (opening.mode !== "BestEffort") return this.#required.open(opening);
    // More cannot be kept: the session goes on unrecorded, as its resource wants it.
    return this.#link.isSpent ? this.#nothing.open(opening) : this.#bestEffort.open(opening);
  }

  /** The recorder publishes the head of its own log. */
  publishedHead(): PublishedHead | undefined {
    return undefined;
  }

  /** The recorder removes what is old. */
  async prune(): Promise<number> {
    return 0;
  }

  async close(): Promise<void> {
    await Promise.all([this.#required.close(), this.#bestEffort.close()]);
  }
}
