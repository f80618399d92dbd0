/**
 * What a recording holds and how the gateway writes one. The guard is the only writer: it appends before it permits.
 * Implementations live beside this file; the data path sees only these types.
 */
import type { Enforcement, Identity, Verdict, VerdictAction } from "@sallyport/policy";

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
  /** What the resource asks of its recording; only a recorder that is not on this machine cares. */
  readonly mode?: "Required" | "BestEffort" | "Off";
}

/** One decided command, written before it may run. */
export interface CommandRecord {
  readonly text: string;
  /** Parameters of an extended-protocol command: text as text, binary as base64 with its type; NULL is null. */
  readonly parameters?: readonly (string | null | { readonly binary: string })[];
  readonly verdict: Verdict;
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** True where the verdict came from the decision cache. */
  readonly cached?: boolean;
}

/** What a command prints (out, error), and what is typed into it. */
export type RecordedStream = "o" | "e" | "i";

/** What came back for a command, written after it ended. */
export interface ResponseRecord {
  readonly tag?: string | undefined;
  readonly sqlstate?: string | undefined;
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
  /**
   * Bytes of an interactive or long-running command as they pass: `o` and `e` are what it prints, `i` is what is typed.
   * False where the buffer is full or storage fails: await `room()` before the next ones, or end the command.
   */
  stream?(commandNumber: number, stream: RecordedStream, chunk: Uint8Array): boolean;
  /** A note that is not a command: a reload, a limit, a refusal at login, a notice. */
  event(name: string, fields: Readonly<Record<string, string | number | boolean>>): void;
  /**
   * Resolves when everything appended so far is stored (Durable: fsynced); rejects when storage failed. What was taken
   * stays and is stored when storage comes back: after a rejection, refuse the command and append its response with
   * the sqlstate of the refusal, so that the recording does not read as if it had run.
   */
  stored(durability: "Accepted" | "Durable"): Promise<void>;
  /** Resolves when the buffer has room again; rejects when storage failed. */
  room(): Promise<void>;
  /** Why nothing can be recorded now; undefined while it can. */
  readonly failure: Error | undefined;
  /**
   * Writes the closing record with its signature; nothing can be appended afterwards. Resolves when the file is synced
   * and the log says closed; rejects where storage fails, and the recorder goes on trying.
   */
  close(reason: string): Promise<void>;
  /** The hash of the closing block, once the session is closed. */
  readonly finalHash?: string | undefined;
}

/** Where recordings go; one for the process. */
export interface Recorder {
  /** Announces a session and returns its journal; throws where the session id cannot name a file. */
  open(opening: SessionOpening): SessionRecording;
  /** Why no session can be recorded now; undefined while sessions can. */
  readonly failure: Error | undefined;
  /** The log's latest stored head: kept elsewhere, it makes the removal of the newest sessions detectable. */
  publishedHead(): PublishedHead | undefined;
  /** Removes closed sessions that ended before, after saying so in the log; returns how many. */
  prune(selection: PruneSelection): Promise<number>;
  /** Closes what is open and says in the log that it stopped; rejects when that could not be stored. */
  close(): Promise<void>;
}

/** A place in the log: what was there once must still be there. */
export interface PublishedHead {
  readonly log: string;
  readonly block: number;
  readonly hash: string;
  /** The heads of the other processes that record below the same folder, by their number. */
  readonly chains?: Readonly<Record<string, PublishedHead>>;
}

/** Which closed sessions have outlived their retention. */
export interface PruneSelection {
  readonly olderThanMs: number;
  readonly namespace?: string;
  readonly resource?: string;
}

/** The part of a verdict that a recording keeps. */
export interface RecordedVerdict {
  readonly action: VerdictAction;
  readonly policy?: string;
  readonly rule?: string;
  readonly enforcement: Enforcement;
  readonly message?: string;
  readonly audit?: readonly {
    readonly policy: string;
    readonly action: VerdictAction;
    readonly rule?: string;
  }[];
}

/** One line of a session's journal, as replay reads it. */
export type Recorded =
  | {
      readonly kind: "opening";
      readonly at: number;
      readonly sessionId: string;
      readonly namespace: string;
      readonly resource: string;
      readonly protocol: string;
      readonly user: string;
      readonly groups: readonly string[];
      readonly subject: string;
      readonly provider: string;
      readonly serviceAccount?: { readonly namespace: string; readonly name: string };
      readonly onBehalfOf?: string;
      readonly tokenId?: string;
      readonly account: string;
      readonly database: string;
      readonly clientAddress: string;
    }
  | {
      readonly kind: "command";
      readonly n: number;
      readonly at: number;
      readonly sql: string;
      readonly verdict: RecordedVerdict;
      readonly cached?: boolean;
      readonly parameters?: readonly (string | null | { readonly binary: string })[];
    }
  | ({ readonly kind: "response"; readonly n: number; readonly at: number } & ResponseRecord)
  | {
      readonly kind: "rows";
      readonly n: number;
      /** The bytes as text where they are printable UTF-8, else as base64. */
      readonly text?: string;
      readonly base64?: string;
      /** True where the bound on recorded rows was met and the rest is missing. */
      readonly cut?: boolean;
    }
  | {
      /** Bytes of a terminal or of a command's own streams, with the time at which they passed. */
      readonly kind: "stream";
      readonly n: number;
      readonly at: number;
      readonly stream: RecordedStream;
      readonly text?: string;
      readonly base64?: string;
      /** True where the bound on recorded bytes was met and the rest is missing. */
      readonly cut?: boolean;
    }
  | {
      readonly kind: "event";
      readonly at: number;
      readonly name: string;
      readonly fields: Readonly<Record<string, string | number | boolean>>;
    }
  | ({ readonly kind: "closing"; readonly at: number; readonly reason: string } & SessionCounts);

/** What went through a session, as its closing record says. */
export interface SessionCounts {
  readonly commands: number;
  /** Commands that were not allowed, the held ones among them. */
  readonly refused: number;
  readonly rows: number;
  readonly bytes: number;
}
