/**
 * What gateway and recorder say to each other. A file is a session's journal; its bytes are the gateway's, signed by
 * it, and the recorder appends them only where they follow on from what it has.
 */
import { fieldsOf, oneOf, text, whole } from "./shape.ts";

/** From a gateway. `file` is a number of the gateway's choice, valid on this connection. */
export type RecordingRequest =
  /** Begins a journal, or goes on with one: `sessions/<namespace>/<resource>/<day>/<session>.journal`. */
  | { readonly kind: "open"; readonly file: number; readonly path: string; readonly retentionMs: number }
  /** The body stands at this place of the file. */
  | { readonly kind: "append"; readonly file: number; readonly at: number }
  /** Asks to be told when all that was appended so far is synced. */
  | { readonly kind: "sync"; readonly file: number }
  | { readonly kind: "close"; readonly file: number };

/** Why the recorder does not take a file. `full` and `failed` pass; the others never will. */
export type RecordingFailure = "full" | "failed" | "forbidden" | "conflict" | "broken" | "protocol";

/** From the recorder. */
export type RecordingAnswer =
  /** So many bytes of the file are stored already. */
  | { readonly kind: "opened"; readonly file: number; readonly bytes: number }
  /** Written: a crash of the recorder does not lose them. */
  | { readonly kind: "stored"; readonly file: number; readonly bytes: number }
  /** On disk: a loss of power does not lose them. */
  | { readonly kind: "synced"; readonly file: number; readonly bytes: number }
  | {
      readonly kind: "failed";
      readonly file: number;
      readonly code: RecordingFailure;
      readonly message: string;
    };

/** Bounds of a recording stream. */
export const recordingStreamLimits = {
  /** The longest piece of a journal in one message. */
  appendBytesMax: 256 * 1024,
  frameBytesMax: 320 * 1024,
  filesMax: 8192,
  /** How often both sides say something; a gateway waits four times as long before it believes the recorder gone. */
  heartbeatMs: 1_000,
} as const;

/** Reads a gateway's message; throws a MessageError on anything that was not agreed. */
export function parseRecordingRequest(header: unknown): RecordingRequest {
  const fields = fieldsOf(header);
  const kind = oneOf(fields, "kind", ["open", "append", "sync", "close"]);
  const file = whole(fields, "file");
  switch (kind) {
    case "open":
      return { kind, file, path: text(fields, "path", 1024), retentionMs: whole(fields, "retentionMs") };
    case "append":
      return { kind, file, at: whole(fields, "at") };
    default:
      return { kind, file };
  }
}

const failures: readonly RecordingFailure[] = [
  "full",
  "failed",
  "forbidden",
  "conflict",
  "broken",
  "protocol",
];

/** Reads the recorder's message; throws a MessageError on anything that was not agreed. */
export function parseRecordingAnswer(header: unknown): RecordingAnswer {
  const fields = fieldsOf(header);
  const kind = oneOf(fields, "kind", ["opened", "stored", "synced", "failed"]);
  const file = whole(fields, "file");
  if (kind !== "failed") return { kind, file, bytes: whole(fields, "bytes") };
  return { kind, file, code: oneOf(fields, "code", failures), message: text(fields, "message", 1024) };
}
