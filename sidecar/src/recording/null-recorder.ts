/** The recorder of a resource whose recording is Off: takes everything, keeps nothing. */
import type { CommandRecord, Recorder, SessionRecording } from "./model.ts";

/** Opens a recorder that keeps nothing. */
export function openNull(): Recorder {
  return {
    open: () => openNullSession(),
    failure: undefined,
    publishedHead: () => undefined,
    prune: () => Promise.resolve(0),
    close: () => Promise.resolve(),
  };
}

function openNullSession(): SessionRecording {
  let commands = 0;
  return {
    command: (_record: CommandRecord) => ++commands,
    response: () => undefined,
    rows: () => undefined,
    event: () => undefined,
    stored: () => Promise.resolve(),
    room: () => Promise.resolve(),
    failure: undefined,
    close: () => Promise.resolve(),
  };
}
