/**
 * The recorder: owns a folder of journals and the log over them. Sessions append; one timer and one loop a session
 * store what they appended; the log notes each session before its file is made and after it is closed.
 */
import type { KeyObject } from "node:crypto";
import { access, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { JournalFile } from "./journal-file.ts";
import { logJournal } from "./journal-format.ts";
import { logNames, readLogs } from "./log-history.ts";
import { type LogRecord, logFolder, logLine, logName, sessionPath } from "./log-records.ts";
import type { PruneSelection, PublishedHead, Recorder, SessionOpening, SessionRecording } from "./model.ts";
import { recoverRecordings } from "./recovery.ts";
import {
  defaultRecordingLimits,
  type JournalHost,
  type RecordingLimits,
  recordingFailure,
  SessionJournal,
} from "./session-journal.ts";
import { keyFingerprint } from "./signing-key.ts";
import { diskStorage, type Storage } from "./storage.ts";
import { lockWriter, type WriterLock } from "./writer-lock.ts";

/** What a recorder is made of. */
export interface RecorderOptions {
  /** The folder of recordings; made where it is missing. */
  readonly folder: string;
  /** The Ed25519 private key; see `loadSigningKey`. */
  readonly key: KeyObject;
  readonly limits?: Partial<RecordingLimits>;
  readonly storage?: Storage;
  readonly now?: () => number;
  /** Which process of several records here; absent for the first or only one. */
  readonly chain?: number;
}

/** A recorder that can vouch for those of other processes below its folder; see chains.ts. */
export interface FirstRecorder extends Recorder {
  /** Says in the log that a process records below the folder; resolves when that is stored. */
  announceChain(chain: number): Promise<void>;
}

/** Takes over a folder, notes what a dead process left open, and records from there on. */
export async function createRecorder(options: RecorderOptions): Promise<FirstRecorder> {
  const { folder, key } = options;
  const now = options.now ?? Date.now;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const lock = await lockWriter(join(folder, "writer.lock"));
  try {
    const at = now();
    const { sequence, previous, records } = await recoverRecordings(folder, key, at);
    const recorder = new FolderRecorder(options, lock, logName(sequence, at));
    const chain = options.chain === undefined ? {} : { chain: options.chain };
    await recorder.start([{ kind: "start", at, key: keyFingerprint(key), previous, ...chain }, ...records]);
    return recorder;
  } catch (error) {
    await lock.release();
    throw error;
  }
}

/** Records to a storage elsewhere: nobody else writes there under our names, and nothing is left from before. */
export async function createStreamRecorder(options: RecorderOptions): Promise<Recorder> {
  const at = (options.now ?? Date.now)();
  const recorder = new FolderRecorder(options, { release: async () => undefined }, logName(1, at));
  await recorder.start([{ kind: "start", at, key: keyFingerprint(options.key), previous: null }]);
  return recorder;
}

class FolderRecorder implements FirstRecorder, JournalHost {
  readonly limits: RecordingLimits;
  readonly storage: Storage;
  readonly encodings: JournalHost["encodings"] = new WeakMap();
  readonly now: () => number;
  readonly #folder: string;
  readonly #key: KeyObject;
  readonly #lock: WriterLock;
  readonly #logName: string;
  readonly #log: JournalFile;
  readonly #sessions = new Map<string, SessionJournal>();
  /** Sessions with something to store; the timer runs while there are any. */
  #touched: SessionJournal[] = [];
  #urgent: SessionJournal[] = [];
  #timer: NodeJS.Timeout | undefined;
  #isSoon = false;
  /** Sessions whose opening, and closed sessions whose closing, the next log block will hold. */
  #opened: { readonly journal: SessionJournal; readonly line: string }[] = [];
  #closed: SessionJournal[] = [];
  #isLogPumping = false;
  #isLogUnsynced = false;
  #logRetryAt = 0;
  #logFailures = 0;
  #failure: Error | undefined;
  #isClosing = false;
  #isStopped = false;
  #sweeper: NodeJS.Timeout | undefined;
  #isSweeping = false;
  readonly #settling = new Set<() => void>();

  constructor(options: RecorderOptions, lock: WriterLock, name: string) {
    this.limits = { ...defaultRecordingLimits, ...options.limits };
    this.storage = options.storage ?? diskStorage;
    this.now = options.now ?? Date.now;
    this.#folder = options.folder;
    this.#key = options.key;
    this.#lock = lock;
    this.#logName = name;
    this.#log = new JournalFile(
      this.storage,
      join(options.folder, logFolder, `${name}.journal`),
      logJournal(name),
    );
  }

  get failure(): Error | undefined {
    return this.#failure;
  }

  /** Stores the first block of the log: all that the last process left open is settled in it. */
  async start(records: readonly LogRecord[]): Promise<void> {
    for (const record of records) this.#log.append(logLine(record));
    await this.#log.write(() => ({ key: this.#key }));
    await this.#log.sync();
    this.#sweeper = setInterval(() => void this.#sweep(), this.limits.headMs).unref();
  }

  open(opening: SessionOpening): SessionRecording {
    if (this.#isClosing) throw new Error("the recorder is closed");
    const path = sessionPath(opening);
    if (this.#sessions.has(opening.sessionId)) throw new Error("a session id was used twice");
    const journal = new SessionJournal(this, opening, join(this.#folder, path));
    this.#sessions.set(opening.sessionId, journal);
    const line = logLine({
      kind: "opened",
      at: Date.parse(opening.startedAt),
      session: opening.sessionId,
      path,
      namespace: opening.namespace,
      resource: opening.resource,
      protocol: opening.protocol,
      user: opening.identity.user,
      subject: opening.identity.kind,
      database: opening.database,
    });
    this.#opened.push({ journal, line });
    return journal;
  }

  publishedHead(): PublishedHead | undefined {
    const { block, hash } = this.#log.syncedHead;
    return block < 0 ? undefined : { log: this.#logName, block, hash };
  }

  touched(journal: SessionJournal): void {
    journal.isTouched = true;
    this.#touched.push(journal);
    this.#arm();
  }

  urgent(journal: SessionJournal): void {
    if (journal.isUrgent) return;
    journal.isUrgent = true;
    this.#urgent.push(journal);
    this.#soon();
  }

  async prune(selection: PruneSelection): Promise<number> {
    const before = this.now() - selection.olderThanMs;
    const { sessions } = await readLogs(this.#folder, await logNames(this.#folder), this.#key);
    const paths: string[] = [];
    for (const [session, entry] of sessions) {
      const { opened, closed, recovered, isPruned } = entry;
      const endedAt = closed?.at ?? recovered?.at;
      if (endedAt === undefined || endedAt > before || this.#sessions.has(session)) continue;
      if (selection.namespace !== undefined && selection.namespace !== opened.namespace) continue;
      if (selection.resource !== undefined && selection.resource !== opened.resource) continue;
      const path = join(this.#folder, opened.path);
      const isThere = await access(path).then(
        () => true,
        () => false,
      );
      if (!isThere) continue;
      if (!isPruned) this.#log.append(logLine({ kind: "pruned", at: this.now(), session }));
      paths.push(path);
    }
    // First said, then done: a crash in between leaves a file too many, and the next run removes it.
    await this.#drainLog();
    if (this.#failure) throw this.#failure;
    for (const path of paths) await this.storage.remove(path);
    return paths.length;
  }

  async announceChain(chain: number): Promise<void> {
    if (this.#isClosing) throw new Error("the recorder is closed");
    this.#log.append(logLine({ kind: "chain", at: this.now(), chain }));
    await this.#drainLog();
    if (this.#failure) throw this.#failure;
  }

  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    const deadline = this.now() + this.limits.closeMs;
    for (const journal of this.#sessions.values())
      journal.close("the recorder was closed").catch(() => undefined);
    try {
      while (this.#sessions.size > 0) {
        await this.#nextSettled(deadline);
        if (this.now() >= deadline && this.#sessions.size > 0) break;
      }
      const failed = this.#failure ?? [...this.#sessions.values()].find(({ failure }) => failure)?.failure;
      if (this.#sessions.size > 0) throw failed ?? new Error("recordings could not be closed in time");
      await this.#drainLog();
      if (this.#failure) throw this.#failure;
      this.#log.append(logLine({ kind: "stopped", at: this.now() }));
      await this.#log.write(() => ({ key: this.#key, final: true }));
      await this.#log.sync();
      await this.#log.close();
    } finally {
      // After a failure files stay open: a write may still be on its way, and its descriptor must not be another's.
      this.#isStopped = true;
      clearTimeout(this.#timer);
      clearInterval(this.#sweeper);
      await this.#lock.release();
    }
  }

  readonly #tick = (): void => {
    const touched = this.#touched;
    this.#touched = [];
    this.#timer = undefined;
    const now = this.now();
    if (this.#hasLogWork && now >= this.#logRetryAt) void this.#pumpLog();
    for (const journal of touched) {
      journal.isTouched = false;
      if (journal.isFinished) continue;
      if (now >= journal.retryAt) void this.#pump(journal, true);
      const isUnsettled = journal.hasUnwritten || journal.isClosing || journal.isFailing;
      if (!journal.isTouched && !journal.isFinished && isUnsettled) this.touched(journal);
    }
    if (this.#hasLogWork) this.#arm();
  };

  #arm(): void {
    if (!this.#isStopped) this.#timer ??= setTimeout(this.#tick, this.limits.flushMs);
  }

  #soon(): void {
    if (this.#isSoon) return;
    this.#isSoon = true;
    setImmediate(() => {
      this.#isSoon = false;
      const urgent = this.#urgent;
      this.#urgent = [];
      let isUnannounced = this.#closed.length > 0;
      for (const journal of urgent) {
        journal.isUrgent = false;
        isUnannounced ||= !journal.isAnchored;
        if (this.now() >= journal.retryAt) void this.#pump(journal, false);
      }
      if (isUnannounced && this.now() >= this.#logRetryAt) void this.#pumpLog();
    });
  }

  /** Stores what a session has buffered; never rejects. One runs for a session at a time. */
  async #pump(journal: SessionJournal, isTimed: boolean): Promise<void> {
    if (journal.isPumping || journal.isFinished) return;
    if (!journal.isAnnounced) {
      if (this.#failure && journal.isForgettable) this.#forget(journal);
      return;
    }
    journal.isPumping = true;
    try {
      let isFirst = isTimed;
      const { isFailing } = journal;
      let hasStored = false;
      while (journal.hasUnwritten && (isFirst || journal.isDue)) {
        isFirst = false;
        await this.#write(journal);
        hasStored = true;
      }
      if (journal.isAnchored && journal.wantsSync) {
        await this.#sync(journal);
        hasStored = true;
      }
      if (isFailing && hasStored) journal.recover();
      if (journal.isAnchored && journal.isClosing && !journal.hasUnwritten) await this.#finish(journal);
    } catch (error) {
      journal.fail(error as Error);
      if (!journal.isTouched) this.touched(journal);
    } finally {
      journal.isPumping = false;
    }
    this.#settled();
    if (journal.isFinished || journal.failure) return;
    const unsynced = journal.file.head.bytes - journal.file.syncedHead.bytes;
    if (unsynced >= this.limits.headBytes) void this.#noteHead(journal);
    if ((journal.hasUnwritten && journal.isDue) || (journal.isAnchored && journal.wantsSync))
      this.urgent(journal);
  }

  async #write(journal: SessionJournal): Promise<void> {
    const { file } = journal;
    await file.write(() => {
      journal.seal();
      // The closing record is the last one: a block sealed after it was appended holds it.
      const final = journal.isClosing;
      const isOld = this.now() - journal.lastSignedAt >= this.limits.headMs;
      const isSigned =
        final || isOld || file.head.block + 1 - journal.lastSignedBlock >= this.limits.signBlocks;
      if (!isSigned) return {};
      journal.lastSignedBlock = file.head.block + 1;
      journal.lastSignedAt = this.now();
      const { block, hash } = this.#log.syncedHead;
      return { final, log: `${this.#logName}:${block}:${hash}`, key: this.#key };
    });
    journal.endWrite();
  }

  async #sync(journal: SessionJournal): Promise<void> {
    // Only the pump waits here, and there is one: a head that is being noted does not.
    if (journal.syncing) await journal.syncing.catch(() => undefined);
    const upTo = journal.written;
    journal.syncing = journal.file.sync();
    try {
      await journal.syncing;
      journal.isSyncOwed = false;
    } catch (error) {
      journal.isSyncOwed = true;
      throw error;
    } finally {
      journal.syncing = undefined;
    }
    journal.endSync(upTo);
  }

  /** Syncs a session whose closing is written, and has the log say so. */
  async #finish(journal: SessionJournal): Promise<void> {
    await this.#sync(journal);
    await journal.file.close();
    journal.isFinished = true;
    const { block, hash, bytes } = journal.file.head;
    const { commands, refused } = journal.counts;
    const session = journal.sessionId;
    this.#log.append(
      logLine({ kind: "closed", at: this.now(), session, block, hash, bytes, commands, refused }),
    );
    this.#closed.push(journal);
    this.#soon();
  }

  /** Notes how far each live session got, one after the other: an fsync each must not crowd out the rest. */
  async #sweep(): Promise<void> {
    if (this.#isSweeping || this.#failure) return;
    this.#isSweeping = true;
    for (const journal of this.#sessions.values()) {
      if (journal.file.head.block > journal.notedBlock && !journal.isFailing) await this.#noteHead(journal);
    }
    this.#isSweeping = false;
  }

  /** Syncs a live session beside its writes and notes how far it got; never rejects. */
  async #noteHead(journal: SessionJournal): Promise<void> {
    if (journal.syncing || !journal.isAnchored || journal.isClosing || this.#isStopped) return;
    try {
      await this.#sync(journal);
    } catch (error) {
      journal.fail(error as Error);
      if (!journal.isTouched) this.touched(journal);
      return;
    }
    if (journal.isFinished) return;
    const { block, hash, bytes } = journal.file.syncedHead;
    journal.notedBlock = block;
    this.#log.append(
      logLine({ kind: "head", at: this.now(), session: journal.sessionId, block, hash, bytes }),
    );
    this.#arm();
  }

  get #hasLogWork(): boolean {
    return this.#log.unacknowledged > 0 || this.#isLogUnsynced || this.#opened.length > 0;
  }

  /** Stores the log's next blocks; never rejects. */
  async #pumpLog(): Promise<void> {
    if (this.#isLogPumping) return;
    this.#isLogPumping = true;
    try {
      while (this.#hasLogWork) await this.#writeLogBlock();
      this.#failure = undefined;
      this.#logFailures = 0;
    } catch (error) {
      this.#failLog(error as Error);
    } finally {
      this.#isLogPumping = false;
    }
    this.#settled();
  }

  async #writeLogBlock(): Promise<void> {
    if (!this.#log.isBehind) {
      for (const { journal, line } of this.#opened.splice(0)) {
        this.#log.append(line);
        this.#announcing.push(journal);
      }
      this.#noting.push(...this.#closed.splice(0));
    }
    this.#isLogUnsynced = true;
    await this.#log.write(() => ({ key: this.#key }));
    this.#failure = undefined;
    for (const journal of this.#announcing) journal.isAnnounced = true;
    // The next block of the log may come only when these have their first one: `verify` builds on that.
    await Promise.all(this.#announcing.map((journal) => this.#pump(journal, true)));
    for (const { file, sessionId } of this.#announcing) {
      if (file.head.block >= 0) continue;
      this.#log.append(logLine({ kind: "unwritten", at: this.now(), session: sessionId }));
    }
    await this.#log.sync();
    this.#isLogUnsynced = false;
    const announced = this.#announcing.splice(0);
    const noted = this.#noting.splice(0);
    for (const journal of announced) {
      journal.isAnchored = true;
      if (journal.wantsSync || journal.isClosing) this.urgent(journal);
    }
    for (const journal of noted) {
      this.#sessions.delete(journal.sessionId);
      journal.finish();
    }
  }

  /** In the block that is being written. */
  readonly #announcing: SessionJournal[] = [];
  readonly #noting: SessionJournal[] = [];

  #failLog(error: Error): void {
    const { retryMs, retryMsMax } = this.limits;
    this.#failure = recordingFailure(error);
    this.#logRetryAt = this.now() + Math.min(retryMsMax, retryMs * 2 ** Math.min(this.#logFailures++, 16));
    for (const journal of this.#sessions.values()) {
      journal.refuse(this.#failure);
      if (journal.isForgettable) this.#forget(journal);
    }
    this.#arm();
  }

  /** A session that was opened and closed while nothing could be stored, and did nothing. */
  #forget(journal: SessionJournal): void {
    // One whose opening is in a block already is in the log, and has to be closed there.
    if (!this.#opened.some((opened) => opened.journal === journal)) return;
    journal.isFinished = true;
    this.#sessions.delete(journal.sessionId);
    this.#opened = this.#opened.filter((opened) => opened.journal !== journal);
  }

  async #drainLog(): Promise<void> {
    while (this.#isLogPumping) await this.#nextSettled(this.now() + this.limits.closeMs);
    if (this.#hasLogWork) await this.#pumpLog();
  }

  #settled(): void {
    for (const resolve of [...this.#settling]) resolve();
  }

  /** Resolves when some loop has come to rest, at the latest at the deadline. */
  #nextSettled(deadline: number): Promise<void> {
    return new Promise((resolve) => {
      const settle = () => {
        clearTimeout(timer);
        this.#settling.delete(settle);
        resolve();
      };
      const timer = setTimeout(settle, Math.max(1, deadline - this.now()));
      this.#settling.add(settle);
    });
  }
}
