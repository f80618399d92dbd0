/** The log: which sessions there were and how each ended. One file a start of the recorder, each naming the last. */

import { recordLine } from "./journal-format.ts";
import type { SessionOpening } from "./model.ts";

/** The end of an earlier log or of a session's journal as its successor found it. */
export interface FoundEnd {
  readonly block: number;
  readonly hash: string;
  readonly bytes: number;
  readonly size: number;
  readonly tailSha256: string;
}

/** One line of a log. */
export type LogRecord =
  | {
      readonly kind: "start";
      readonly at: number;
      /** Fingerprint of the key that signs from here on. */
      readonly key: string;
      readonly previous: ({ readonly log: string } & FoundEnd) | null;
      /** Which process of several writes here; absent for the first. */
      readonly chain?: number;
    }
  /** Another process has begun to record below this folder; written by the first before the other takes sessions. */
  | { readonly kind: "chain"; readonly at: number; readonly chain: number }
  | {
      readonly kind: "opened";
      readonly at: number;
      readonly session: string;
      readonly path: string;
      readonly namespace: string;
      readonly resource: string;
      readonly protocol: string;
      readonly user: string;
      readonly subject: string;
      readonly database: string;
      /** On a recorder's volume: the fingerprint of the key that the session's gateway signs with… */
      readonly gateway?: string;
      /** …and how long the recording is kept after its end. */
      readonly retentionMs?: number;
    }
  | {
      readonly kind: "head" | "closed";
      readonly at: number;
      readonly session: string;
      readonly block: number;
      readonly hash: string;
      readonly bytes: number;
      readonly reason?: string;
      readonly commands?: number;
      readonly refused?: number;
    }
  | ({ readonly kind: "recovered"; readonly at: number; readonly session: string } & FoundEnd)
  | { readonly kind: "unwritten" | "absent" | "pruned"; readonly at: number; readonly session: string }
  | { readonly kind: "stopped"; readonly at: number };

/** The line of a log record. */
export function logLine(record: LogRecord): string {
  return recordLine({ ...record });
}

/** Reads a log line; undefined for one that is none, which only a log whose signatures nobody checked can hold. */
export function parseLogRecord(line: string): LogRecord | undefined {
  let record: unknown;
  try {
    record = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof record !== "object" || record === null || !("kind" in record)) return undefined;
  if (record.kind === "start" || record.kind === "stopped") return record as LogRecord;
  if (record.kind === "chain")
    return "chain" in record && Number.isSafeInteger(record.chain) ? (record as LogRecord) : undefined;
  if (!("session" in record) || !sessionIdForm.test(String(record.session))) return undefined;
  // A path is followed by whoever lists or replays: it never leads out of the folder.
  if (record.kind === "opened" && !("path" in record && pathForm.test(String(record.path)))) return undefined;
  return record as LogRecord;
}

const pathForm = /^sessions\/[^/.\0]+\/[^/.\0]+\/\d{4}-\d\d-\d\d\/[A-Za-z0-9_-]+\.journal$/;

const sessionIdForm = /^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$/;

/** Where a session's journal lies below the folder of recordings; throws where the id cannot name a file. */
export function sessionPath(opening: SessionOpening): string {
  if (!sessionIdForm.test(opening.sessionId)) throw new Error("a session id is letters, digits, - and _");
  const started = Date.parse(opening.startedAt);
  if (Number.isNaN(started)) throw new Error("a session's start must be a time");
  const day = new Date(started).toISOString().slice(0, 10);
  const folders = [opening.namespace, opening.resource].map(folderName);
  return ["sessions", ...folders, day, `${opening.sessionId}.journal`].join("/");
}

/** Names from manifests are DNS labels; anything else is encoded so that it stays one plain folder. */
function folderName(name: string): string {
  const encoded = encodeURIComponent(name).replaceAll(".", "%2E").slice(0, 200);
  return encoded === "" ? "%" : encoded;
}

/** Where the logs lie below the folder of recordings. */
export const logFolder = "log";

/** The file name of a log: its place in the order, then when it was started. */
export function logName(sequence: number, startedAt: number): string {
  return `log-${String(sequence).padStart(8, "0")}-${startedAt}`;
}

/** The place of a log in the order; undefined where the name is not a log's. */
export function logSequence(name: string): number | undefined {
  const match = /^log-(\d{8,})-\d+$/.exec(name);
  return match ? Number(match[1]) : undefined;
}
