/** A session's journal as the data path sees it: appends are a few bytes into a buffer, everything else waits outside. */
import { isUtf8 } from "node:buffer";
import type { Verdict } from "@sallyport/policy";
import { JournalFile } from "./journal-file.ts";
import {
  closingLine,
  EncodedVerdict,
  openingLine,
  recordLine,
  sessionJournal,
  writeCommand,
  writeResponse,
} from "./journal-format.ts";
import type {
  CommandRecord,
  RecordedStream,
  ResponseRecord,
  SessionCounts,
  SessionOpening,
  SessionRecording,
} from "./model.ts";
import type { Storage } from "./storage.ts";

/** The bounds of a recorder; all have defaults. */
export interface RecordingLimits {
  /** Records that may be unacknowledged under durability Accepted. */
  readonly unacknowledgedRecordsMax: number;
  /** How long a record may be unacknowledged under durability Accepted. */
  readonly unacknowledgedMs: number;
  /** A block is written at the latest when it holds this many records… */
  readonly blockRecords: number;
  /** …or this many bytes… */
  readonly blockLength: number;
  /** …or its first record is this old. */
  readonly flushMs: number;
  /** Bytes that a session may have buffered before commands and rows have to wait. */
  readonly bufferedLengthMax: number;
  /** Recorded bytes of the rows of one command. */
  readonly rowBytesMax: number;
  /** Recorded bytes of each stream of one command. */
  readonly streamBytesMax: number;
  /** Events that may be buffered while storage fails; further ones are counted. */
  readonly bufferedEventsMax: number;
  /** A head is signed every so many blocks… */
  readonly signBlocks: number;
  /** …and signed, synced and noted in the log after so long a time of activity… */
  readonly headMs: number;
  /** …or so many bytes. */
  readonly headBytes: number;
  /** The first and the longest wait between attempts while storage fails. */
  readonly retryMs: number;
  readonly retryMsMax: number;
  /** How long `close` of the recorder tries. */
  readonly closeMs: number;
}

/** What the design and measurements suggest. */
export const defaultRecordingLimits: RecordingLimits = {
  unacknowledgedRecordsMax: 256,
  unacknowledgedMs: 1000,
  blockRecords: 128,
  blockLength: 64 * 1024,
  flushMs: 200,
  bufferedLengthMax: 4 * 1024 * 1024,
  rowBytesMax: 64 * 1024,
  streamBytesMax: 8 * 1024 * 1024,
  bufferedEventsMax: 1024,
  signBlocks: 64,
  headMs: 10_000,
  headBytes: 8 * 1024 * 1024,
  retryMs: 200,
  retryMsMax: 5000,
  closeMs: 5000,
};

/** What a journal asks of its recorder. */
export interface JournalHost {
  readonly limits: RecordingLimits;
  readonly storage: Storage;
  /** A failure that concerns every session. */
  readonly failure: Error | undefined;
  now(): number;
  /** Something was buffered: flush it within `flushMs`. */
  touched(journal: SessionJournal): void;
  /** Flush it now. */
  urgent(journal: SessionJournal): void;
  /** Verdicts as records keep them. */
  readonly encodings: WeakMap<Verdict, EncodedVerdict>;
}

/** Somebody who waits for records to be stored, or for room. */
interface Waiter {
  readonly upTo: number;
  readonly isDurable: boolean;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** The recording of one session as lines of its journal. */
export class SessionJournal implements SessionRecording {
  readonly sessionId: string;
  readonly file: JournalFile;
  /** The recorder's own marks; see recorder.ts. */
  isTouched = false;
  isUrgent = false;
  isPumping = false;
  /** The log has its opening: its file may be made. */
  isAnnounced = false;
  /** The log's opening is synced: the session may be synced and closed. */
  isAnchored = false;
  isFinished = false;
  lastSignedBlock = -1;
  lastSignedAt: number;
  /** The last block that the log knows. */
  notedBlock = -1;
  syncing: Promise<void> | undefined;
  /** An fsync failed: nothing is acknowledged before one succeeds. */
  isSyncOwed = false;
  retryAt = 0;

  readonly #host: JournalHost;
  #failure: Error | undefined;
  #failedAt = 0;
  #failures = 0;
  #taken = 0;
  #sealed = 0;
  #written = 0;
  #synced = 0;
  /** When the oldest record of those buffered, and of those being written, was taken. */
  #bufferedAt = 0;
  #writingAt = 0;
  #waiters: Waiter[] | undefined;
  #commands = 0;
  #refused = 0;
  #rows = 0;
  #bytes = 0;
  /** The verdict encoded last: most sessions repeat one. */
  #lastVerdict: Verdict | undefined;
  #lastEncoding: EncodedVerdict | undefined;
  #rowsCommand = -1;
  #rowsLeft = 0;
  /** Recorded bytes by command and stream; bounded, because few commands of a session stream at once. */
  readonly #streamed = new Map<string, number>();
  #events = 0;
  #droppedEvents = 0;
  #closing: Promise<void> | undefined;
  #finish: { readonly resolve: () => void; readonly reject: (error: Error) => void } | undefined;

  constructor(host: JournalHost, opening: SessionOpening, path: string) {
    this.sessionId = opening.sessionId;
    this.#host = host;
    this.lastSignedAt = host.now();
    this.file = new JournalFile(host.storage, path, sessionJournal(opening.sessionId));
    this.#append(openingLine(opening), this.lastSignedAt);
  }

  get failure(): Error | undefined {
    return this.#failure ?? this.#host.failure;
  }

  get finalHash(): string | undefined {
    return this.isFinished ? this.file.head.hash : undefined;
  }

  get isClosing(): boolean {
    return this.#closing !== undefined;
  }

  get counts(): SessionCounts {
    return { commands: this.#commands, refused: this.#refused, rows: this.#rows, bytes: this.#bytes };
  }

  command(record: CommandRecord): number {
    if (this.#isFull(record.at) || this.isClosing) return -1;
    const n = ++this.#commands;
    if (record.verdict.action !== "Allow") this.#refused++;
    const writer = this.file.begin();
    const start = writer.length;
    try {
      writeCommand(writer, n, record, this.#encoding(record.verdict));
    } catch (error) {
      // Half a line would make the whole block unreadable.
      writer.cut(start);
      throw error;
    }
    this.#took(record.at);
    return n;
  }

  response(commandNumber: number, record: ResponseRecord): void {
    if (this.isClosing) return;
    this.#rows += record.rows;
    this.#bytes += record.bytes;
    const at = this.#host.now();
    const writer = this.file.begin();
    const start = writer.length;
    try {
      writeResponse(writer, commandNumber, at, record);
    } catch (error) {
      writer.cut(start);
      throw error;
    }
    this.#took(at);
  }

  rows(commandNumber: number, chunk: Uint8Array): void {
    if (this.isClosing || chunk.length === 0) return;
    if (commandNumber !== this.#rowsCommand) {
      this.#rowsCommand = commandNumber;
      this.#rowsLeft = this.#host.limits.rowBytesMax;
    }
    if (this.#rowsLeft < 0) return;
    const { bufferedLengthMax } = this.#host.limits;
    const kept = this.file.bufferedLength > bufferedLengthMax ? 0 : Math.min(chunk.length, this.#rowsLeft);
    const isCut = kept < chunk.length;
    this.#rowsLeft = isCut ? -1 : this.#rowsLeft - kept;
    const content = rowContent(chunk.subarray(0, kept));
    this.#append(recordLine({ kind: "rows", n: commandNumber, ...content, ...(isCut && { cut: true }) }));
  }

  stream(commandNumber: number, stream: RecordedStream, chunk: Uint8Array): boolean {
    if (this.isClosing || chunk.length === 0) return !this.isClosing;
    const { streamBytesMax } = this.#host.limits;
    const key = `${commandNumber}${stream}`;
    const before = this.#streamed.get(key) ?? 0;
    // Numbers past the bound have said that they are cut.
    if (before > streamBytesMax) return true;
    const at = this.#host.now();
    if (this.failure !== undefined || this.#isFull(at)) return false;
    const kept = Math.min(chunk.length, streamBytesMax - before);
    const isCut = kept < chunk.length;
    if (this.#streamed.size >= streamsMax) this.#streamed.delete([...this.#streamed.keys()][0] ?? "");
    this.#streamed.set(key, isCut ? streamBytesMax + 1 : before + kept);
    const content = rowContent(chunk.subarray(0, kept));
    this.#append(
      recordLine({ kind: "stream", n: commandNumber, at, stream, ...content, ...(isCut && { cut: true }) }),
      at,
    );
    return true;
  }

  event(name: string, fields: Readonly<Record<string, string | number | boolean>>): void {
    if (this.isClosing) return;
    if (this.#events >= this.#host.limits.bufferedEventsMax) {
      this.#droppedEvents++;
      return;
    }
    this.#events++;
    this.#append(recordLine({ kind: "event", at: this.#host.now(), name, fields }));
  }

  stored(durability: "Accepted" | "Durable"): Promise<void> {
    const isDurable = durability === "Durable";
    if ((isDurable ? this.#synced : this.#written) >= this.#taken) return done;
    return this.#wait(isDurable, this.#taken);
  }

  room(): Promise<void> {
    const { failure } = this;
    if (failure) return Promise.reject(failure);
    if (this.isClosing) return Promise.reject(new Error("the session's recording is closed"));
    if (!this.#isFull(this.#host.now())) return done;
    return this.#wait(false, this.#written + 1);
  }

  close(reason: string): Promise<void> {
    if (this.#closing) return this.#closing;
    const at = this.#host.now();
    this.#append(closingLine(at, reason, this.counts), at);
    this.#closing = new Promise((resolve, reject) => {
      this.#finish = { resolve, reject };
    });
    // Who closes may not wait: the recorder keeps trying either way.
    this.#closing.catch(() => undefined);
    if (this.failure) this.#reject(this.failure);
    this.#host.urgent(this);
    return this.#closing;
  }

  /** True where a block should be written without waiting for the timer. */
  get isDue(): boolean {
    const { blockRecords, blockLength } = this.#host.limits;
    return (
      this.isClosing ||
      this.file.buffered >= blockRecords ||
      this.file.bufferedLength >= blockLength ||
      (this.#waiters?.some(({ upTo }) => upTo > this.#written) ?? false)
    );
  }

  get wantsSync(): boolean {
    if (this.isSyncOwed) return true;
    return this.#waiters?.some(({ isDurable, upTo }) => isDurable && upTo <= this.#written) ?? false;
  }

  /** Its own storage failed, and nothing has succeeded since. */
  get isFailing(): boolean {
    return this.#failure !== undefined;
  }

  get hasUnwritten(): boolean {
    return this.#written < this.#taken;
  }

  /** Nothing that a client did is in it: it may be forgotten where storage fails. */
  get isForgettable(): boolean {
    return this.isClosing && this.#commands === 0 && !this.isAnnounced;
  }

  /** A block is closed: what comes after is younger. */
  seal(): void {
    this.#sealed = this.#taken;
    this.#writingAt = this.#bufferedAt;
    this.#bufferedAt = 0;
  }

  /** The closed block is stored. */
  endWrite(): void {
    this.#written = this.#sealed;
    this.#writingAt = 0;
    if (this.file.buffered === 0) this.#bufferedAt = 0;
    this.#events = 0;
    if (this.#droppedEvents > 0 && !this.isClosing) {
      const dropped = this.#droppedEvents;
      this.#droppedEvents = 0;
      this.event("events dropped", { dropped });
    }
    this.#settle();
  }

  get written(): number {
    return this.#written;
  }

  endSync(upTo: number): void {
    this.#synced = Math.max(this.#synced, upTo);
    this.#settle();
  }

  /** Storage refused: whoever waits is told, what is buffered stays, and the next attempt is set. */
  fail(error: Error): void {
    const { retryMs, retryMsMax } = this.#host.limits;
    const now = this.#host.now();
    if (!this.#failure) this.#failedAt = now;
    this.#failure = recordingFailure(error);
    this.retryAt = now + Math.min(retryMsMax, retryMs * 2 ** Math.min(this.#failures++, 16));
    this.#reject(this.#failure);
  }

  /** Storage works again: says so in the journal, with what it took. */
  recover(): void {
    if (!this.#failure || this.isSyncOwed) return;
    const fields = { reason: this.#failure.message, failedMs: this.#host.now() - this.#failedAt, lost: 0 };
    this.#failure = undefined;
    this.#failures = 0;
    this.retryAt = 0;
    this.event("recording resumed", fields);
  }

  /** Rejects everybody who waits, for a reason that concerns every session. */
  refuse(error: Error): void {
    this.#reject(error);
  }

  /** The closing is stored and in the log. */
  finish(): void {
    this.#finish?.resolve();
    this.#finish = undefined;
  }

  #append(line: string, at = this.#host.now()): void {
    this.file.begin().text(line);
    this.#took(at);
  }

  #took(at: number): void {
    this.file.took();
    this.#taken++;
    if (this.#bufferedAt === 0) this.#bufferedAt = at;
    if (!this.isTouched) this.#host.touched(this);
    const { blockRecords, blockLength } = this.#host.limits;
    if (!this.isUrgent && (this.file.buffered >= blockRecords || this.file.bufferedLength >= blockLength)) {
      this.#host.urgent(this);
    }
  }

  #isFull(now: number): boolean {
    const { unacknowledgedRecordsMax, unacknowledgedMs, bufferedLengthMax } = this.#host.limits;
    if (this.#taken - this.#written >= unacknowledgedRecordsMax) return true;
    if (this.failure !== undefined || this.file.bufferedLength >= bufferedLengthMax) return true;
    const oldestAt = this.#writingAt || this.#bufferedAt;
    return oldestAt !== 0 && now - oldestAt > unacknowledgedMs;
  }

  #encoding(verdict: Verdict): EncodedVerdict {
    if (verdict === this.#lastVerdict && this.#lastEncoding !== undefined) return this.#lastEncoding;
    const { encodings } = this.#host;
    const encoding = encodings.get(verdict) ?? new EncodedVerdict(verdict);
    encodings.set(verdict, encoding);
    this.#lastVerdict = verdict;
    this.#lastEncoding = encoding;
    return encoding;
  }

  #wait(isDurable: boolean, upTo: number): Promise<void> {
    const { failure } = this;
    if (failure) return Promise.reject(failure);
    return new Promise((resolve, reject) => {
      this.#waiters ??= [];
      this.#waiters.push({ upTo, isDurable, resolve, reject });
      this.#host.urgent(this);
    });
  }

  #settle(): void {
    const waiters = this.#waiters;
    if (waiters === undefined) return;
    const left = waiters.filter(({ upTo, isDurable, resolve }) => {
      const isStored = upTo <= (isDurable ? this.#synced : this.#written);
      if (isStored) resolve();
      return !isStored;
    });
    this.#waiters = left.length > 0 ? left : undefined;
  }

  #reject(error: Error): void {
    const waiters = this.#waiters ?? [];
    this.#waiters = undefined;
    for (const { reject } of waiters) reject(error);
    this.#finish?.reject(error);
    this.#finish = undefined;
  }
}

/** Streams whose recorded bytes are counted at once. */
const streamsMax = 4_096;
const done = Promise.resolve();

/** What the data path is told: the system's code, and no path or content. */
export function recordingFailure(error: Error): Error {
  const code = (error as NodeJS.ErrnoException).code ?? error.message;
  return new Error(`recording is not possible: ${code}`, { cause: error });
}

function rowContent(chunk: Uint8Array): { readonly text: string } | { readonly base64: string } {
  const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  const isText = isUtf8(bytes) && !bytes.some((byte) => byte < 0x20 && byte !== 0x09 && byte !== 0x0a);
  return isText ? { text: bytes.toString() } : { base64: bytes.toString("base64") };
}
