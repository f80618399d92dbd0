import type { KeyObject } from "node:crypto";
import type { RecordingFailure } from "@sallyport/control";
import { BrokenJournal, ChainFollower, type Followed } from "./chain-follower.ts";
import { pieceBytes, type SealedFile } from "./sealed-file.ts";

/** Why the recorder does not take a journal or a piece of one; the message is for the gateway's log. */
export class Refused extends Error {
  override readonly name = "Refused";
  readonly code: RecordingFailure;

  constructor(code: RecordingFailure, message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}

/** What a gateway's journal says of itself in its first line, as far as the log repeats it. */
export interface SessionFacts {
  readonly at: number;
  readonly session: string;
  readonly namespace: string;
  readonly resource: string;
  readonly protocol: string;
  readonly user: string;
  readonly subject: string;
  readonly database: string;
}

/** What a stored session asks of its volume. */
export interface SessionKeeper {
  /** Puts a session into the log before its file is made. */
  announce(session: StoredSession, facts: SessionFacts): Promise<void>;
  /** Throws a Refused where the namespace or the volume has no room for so many more bytes. */
  reserve(namespace: string, bytes: number): Promise<void>;
  /** What was reserved and is not written. */
  giveBack(namespace: string, bytes: number): void;
  /** Throws a Refused where too much waits in memory for openings to be whole; below zero: so much waits no more. */
  wait(bytes: number): void;
  makeFile(session: StoredSession): Promise<SealedFile>;
  /** The closing block is on disk: the log says so. */
  closed(
    session: StoredSession,
    counts: { readonly commands?: number; readonly refused?: number },
  ): Promise<void>;
}

/** Where a session is kept and whose it is. */
export interface SessionPlace {
  readonly sessionId: string;
  readonly namespace: string;
  readonly resource: string;
  readonly path: string;
  /** Fingerprint of the key that its gateway signs with. */
  readonly gateway: string;
  readonly key: KeyObject;
  readonly retentionMs: number;
}

/** One session's journal while it is being written: checked, sealed, appended, in order. */
export class StoredSession {
  readonly place: SessionPlace;
  /** Changes hands when a gateway comes back on another connection: who held it before can write no more. */
  owner: object | undefined;
  /** Fails once for good: the journal cannot go on. */
  broken: Refused | undefined;
  lastActiveMs = 0;
  /** The last block that the log knows. */
  notedBlock = -1;
  isClosed = false;
  readonly #keeper: SessionKeeper;
  #follower: ChainFollower;
  #file: SealedFile | undefined;
  /** Bytes before the opening line is whole: the log comes before the file. */
  #early: Buffer[] = [];
  /** What was reserved of the namespace's quota and is not in the file. */
  #reserved = 0;
  #syncing: Promise<void> | undefined;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(
    keeper: SessionKeeper,
    place: SessionPlace,
    resumed?: { file: SealedFile; follower: ChainFollower },
  ) {
    this.#keeper = keeper;
    this.place = place;
    this.#file = resumed?.file;
    this.#follower = resumed?.follower ?? new ChainFollower(place.sessionId, place.key);
  }

  /** Bytes written: a crash of this process loses none of them. */
  get bytes(): number {
    return this.#file?.end.plain ?? 0;
  }

  /** Bytes on disk. */
  get syncedBytes(): number {
    return this.#file?.synced.plain ?? 0;
  }

  get isDirty(): boolean {
    return this.syncedBytes < this.bytes;
  }

  get head(): Followed {
    return this.#follower.head;
  }

  get isFinal(): boolean {
    return this.#follower.isFinal;
  }

  /** Runs steps on this session one after the other. */
  inOrder<T>(step: () => Promise<T>): Promise<T> {
    const next = this.#queue.then(step);
    this.#queue = next.catch(() => undefined);
    return next;
  }

  /** Appends a piece that must stand where the journal ends; call within `inOrder`. */
  async append(at: number, piece: Buffer): Promise<void> {
    if (this.broken) throw this.broken;
    const taken = this.#follower.bytes;
    // Sent twice because an answer was lost: what is there stays as it is.
    if (at + piece.length <= taken) return;
    if (at > taken) throw new Refused("protocol", `bytes ${at} came where ${taken} were due`);
    const bytes = at < taken ? piece.subarray(taken - at) : piece;
    // Counted as it will lie on the disk: many small pieces are mostly what seals them.
    const cost = costOf(bytes);
    await this.#keeper.reserve(this.place.namespace, cost);
    this.#reserved += cost;
    try {
      await this.#take(bytes);
    } catch (error) {
      this.#forgetEarly();
      this.#giveBack();
      throw error;
    }
  }

  async #take(bytes: Buffer): Promise<void> {
    try {
      this.#follower.push(bytes);
    } catch (error) {
      if (!(error instanceof BrokenJournal)) throw error;
      this.broken = new Refused("broken", error.message, error);
      throw this.broken;
    }
    try {
      if (this.#file === undefined) {
        this.#keeper.wait(bytes.length);
        this.#early.push(Buffer.from(bytes));
        const line = this.#follower.openingLine;
        if (line === undefined) return;
        await this.#keeper.announce(this, readOpening(line, this.place));
        this.#file = await this.#keeper.makeFile(this);
        for (const early of this.#forgetEarly()) await this.#write(this.#file, early);
      } else {
        await this.#write(this.#file, bytes);
      }
    } catch (error) {
      // What was followed and could not be written has to come again, from where the file ends.
      this.broken = new Refused("failed", "the journal has to be opened again");
      throw error instanceof Refused ? error : storageFailure(error);
    }
  }

  async #write(file: SealedFile, piece: Buffer): Promise<void> {
    await file.append(piece);
    this.#reserved -= costOf(piece);
  }

  #giveBack(): void {
    this.#keeper.giveBack(this.place.namespace, this.#reserved);
    this.#reserved = 0;
  }

  #forgetEarly(): readonly Buffer[] {
    const early = this.#early.splice(0);
    this.#keeper.wait(-early.reduce((sum, { length }) => sum + length, 0));
    return early;
  }

  /** Syncs what is written, once for all who ask meanwhile; a failed sync takes the file back to the last good one. */
  async sync(): Promise<void> {
    if (this.#syncing) await this.#syncing.catch(() => undefined);
    if (!this.isDirty) return;
    this.#syncing ??= this.#sync().finally(() => {
      this.#syncing = undefined;
    });
    await this.#syncing;
  }

  async #sync(): Promise<void> {
    try {
      await this.#file?.sync();
    } catch (error) {
      // After a failed fsync Linux forgets which pages it could not store: what is not synced is sent again.
      await this.#file?.rewind().catch(() => undefined);
      this.broken = new Refused("failed", "the journal has to be opened again", error);
      throw storageFailure(error);
    }
  }

  /** Closes the file; with a closing block in it the log is told. */
  async finish(): Promise<void> {
    await this.sync();
    if (this.isFinal && !this.isClosed) {
      await this.#keeper.closed(this, this.#follower.counts);
      this.isClosed = true;
    }
  }

  async release(): Promise<void> {
    await this.#file?.close().catch(() => undefined);
    this.#file = undefined;
    this.#forgetEarly();
    this.#giveBack();
    this.broken ??= new Refused("failed", "the journal has to be opened again");
  }
}

/** What a piece takes on the disk. */
const costOf = ({ length }: Buffer): number => length + pieceBytes;

function storageFailure(error: unknown): Refused {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENOSPC" || code === "EDQUOT")
    return new Refused("full", "the recorder's volume is full", error);
  return new Refused("failed", `the recorder cannot write: ${code ?? "failed"}`, error);
}

/** What is told of a session stays in memory as long as its recording is kept; the journal has it whole. */
const factCharactersMax = 1024;

/** The opening must be of the session, resource and namespace that the gateway's certificate lets it write. */
function readOpening(line: string, place: SessionPlace): SessionFacts {
  let opening: Readonly<Record<string, unknown>> = {};
  try {
    opening = JSON.parse(line) as typeof opening;
  } catch {
    // Judged below: nothing in it is as it must be.
  }
  const text = (name: string) =>
    typeof opening[name] === "string" ? (opening[name] as string).slice(0, factCharactersMax) : "";
  const isOwn =
    opening.kind === "opening" &&
    text("sessionId") === place.sessionId &&
    text("namespace") === place.namespace &&
    text("resource") === place.resource &&
    typeof opening.at === "number";
  if (!isOwn) throw new Refused("forbidden", "the journal opens another session");
  return {
    at: opening.at as number,
    session: place.sessionId,
    namespace: place.namespace,
    resource: place.resource,
    protocol: text("protocol"),
    user: text("user"),
    subject: text("subject"),
    database: text("database"),
  };
}
