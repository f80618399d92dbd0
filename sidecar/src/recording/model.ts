/**
 * What a recording holds and how the gateway writes one. The guard is the only writer: it appends before it permits.
 * Implementations live beside this file; the data path sees only these types.
 */
import type { Identity, Verdict } from "@sallyport/policy";

/** Opens a session's journal. */
export interface SessionOpening {
  readonly sessionId: string;
  readonly namespace: string;
  readonly resource: string;
  readonly protocol: string;
  readonly identity: Identity;
  readonly account: string;
  readonly database: string;
  readonly clientAddress: string;
  readonly startedAt: string;
}

/** One decided command, written before it may run. */
export interface CommandRecord {
  readonly text: string;
  /** Parameters of an extended-protocol command: text as text, binary as base64 with its type; NULL is null. */
  readonly parameters?: readonly (string | null | { readonly binary: string })[];
  readonly verdict: Verdict;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

/** What came back for a command, written after it ended. */
export interface ResponseRecord {
  readonly tag?: string;
  readonly sqlstate?: string;
  readonly rows: number;
  readonly bytes: number;
  /** Wall time from permit to end, in milliseconds. */
  readonly ms: number;
}

/** A session's open journal. Synchronous appends go to a bounded buffer; promises resolve when they are stored. */
export interface SessionRecording {
  /**
   * Takes a command into the journal and returns its number, or -1 when the buffer is full or storage fails:
   * then await `room()` and try again, or refuse the command.
   */
  command(record: CommandRecord): number;
  response(commandNumber: number, record: ResponseRecord): void;
  /** Rows as the client saw them, where the resource asks for them; cut at `rowBytesMax` a command. */
  rows(commandNumber: number, chunk: Uint8Array): void;
  /** A note that is not a command: a reload, a limit, a refusal at login, a notice. */
  event(name: string, fields: Readonly<Record<string, string | number | boolean>>): void;
  /** Resolves when everything appended so far is stored (Durable: fsynced); rejects when storage failed. */
  stored(durability: "Accepted" | "Durable"): Promise<void>;
  /** Resolves when the buffer has room again; rejects when storage failed. */
  room(): Promise<void>;
  /** Why nothing can be recorded now; undefined while it can. */
  readonly failure: Error | undefined;
  /** Writes the closing record with its signature; nothing can be appended afterwards. */
  close(reason: string): Promise<void>;
}

/** Where recordings go; one for the process. */
export interface Recorder {
  open(opening: SessionOpening): SessionRecording;
  readonly failure: Error | undefined;
  close(): Promise<void>;
}
