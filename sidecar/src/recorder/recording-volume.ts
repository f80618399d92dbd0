import { createPublicKey, type KeyObject } from "node:crypto";
import { mkdir, readFile, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import type { GatewayName } from "@sallyport/control";
import { sessionJournal } from "../recording/journal-format.ts";
import { DamagedJournal, type Scan, scanOrAbsent } from "../recording/journal-scan.ts";
import { foundEnd, isEnded, logNames, readLogs, type SessionEntry } from "../recording/log-history.ts";
import { type LogRecord, logName, logSequence, sessionPath } from "../recording/log-records.ts";
import type { PublishedHead, SessionOpening } from "../recording/model.ts";
import { keyFingerprint } from "../recording/signing-key.ts";
import { type Verification, type VerifyOptions, verifyRecordings } from "../recording/verify.ts";
import { createWhole } from "../recording/whole-file.ts";
import { lockWriter, type WriterLock } from "../recording/writer-lock.ts";
import { ChainFollower } from "./chain-follower.ts";
import type { NamespaceKeys } from "./namespace-keys.ts";
import { readSealed, SealedFile, type SealedReading } from "./sealed-file.ts";
import { SessionLog } from "./session-log.ts";
import {
  Refused,
  type SessionFacts,
  type SessionKeeper,
  type SessionPlace,
  StoredSession,
} from "./stored-session.ts";
import { type VolumeStorage, volumeStorage } from "./volume-storage.ts";

/** What a volume is made of. */
export interface VolumeOptions {
  readonly folder: string;
  /** The recorder's own Ed25519 key: it countersigns. */
  readonly key: KeyObject;
  readonly keys: NamespaceKeys;
  /** Bytes that the recordings of one namespace may take. */
  readonly quotaBytes: number;
  /** Bytes of the volume that stay free for the log and for what is being closed. */
  readonly reserveBytes: number;
  readonly storage?: VolumeStorage;
  readonly now?: () => number;
  readonly limits?: Partial<VolumeLimits>;
}

/** Bounds of a volume. */
export interface VolumeLimits {
  /** Journals that may be open at once. */
  readonly openMax: number;
  /** Those of one namespace among them: its gateways leave the others' their places. */
  readonly openByNamespaceMax: number;
  /** Bytes of openings that are not whole yet; they wait in memory. */
  readonly waitingBytesMax: number;
  /** How long a journal waits for its gateway to come back before it counts as torn. */
  readonly abandonMs: number;
  /** How often what was written is synced where nobody asks. */
  readonly syncMs: number;
  /** How often the log notes how far live sessions got. */
  readonly headMs: number;
  readonly retentionMsMin: number;
}

const defaultVolumeLimits: VolumeLimits = {
  openMax: 50_000,
  openByNamespaceMax: 20_000,
  waitingBytesMax: 64 * 1024 * 1024,
  abandonMs: 600_000,
  syncMs: 1_000,
  headMs: 10_000,
  retentionMsMin: 0,
};

/** A session as the volume's log knows it. */
export interface KeptSession {
  readonly facts: SessionFacts;
  readonly path: string;
  readonly gateway: string;
  readonly retentionMs: number;
  state: "open" | "closed" | "torn" | "missing" | "pruned";
  endedAt: number | undefined;
  finalHash: string | undefined;
  commands: number | undefined;
  refused: number | undefined;
  fileBytes: number;
}

/** Whose journals are written: what a gateway's certificate says. */
export interface GatewayCredential {
  readonly name: GatewayName;
  readonly key: KeyObject;
}

/** A folder of sealed journals, their log and the keys: one process writes it. */
export class RecordingVolume implements SessionKeeper {
  readonly limits: VolumeLimits;
  readonly #options: VolumeOptions;
  readonly #storage: VolumeStorage;
  readonly #now: () => number;
  readonly #lock: WriterLock;
  readonly #log: SessionLog;
  readonly #sessions = new Map<string, KeptSession>();
  readonly #live = new Map<string, StoredSession>();
  readonly #opening = new Map<string, Promise<StoredSession>>();
  readonly #used = new Map<string, number>();
  #waitingBytes = 0;
  #freeBytes = Number.POSITIVE_INFINITY;
  #freeAt = Number.NEGATIVE_INFINITY;
  #timers: NodeJS.Timeout[] = [];
  #isSyncing = false;
  #isNoting = false;

  private constructor(options: VolumeOptions, lock: WriterLock, log: SessionLog) {
    this.#options = options;
    this.limits = { ...defaultVolumeLimits, ...options.limits };
    this.#storage = options.storage ?? volumeStorage;
    this.#now = options.now ?? Date.now;
    this.#lock = lock;
    this.#log = log;
  }

  /** Takes over a folder: reads its logs, looks at every journal that was open, and begins a log of its own. */
  static async open(options: VolumeOptions): Promise<RecordingVolume> {
    const { folder, key } = options;
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const lock = await lockWriter(join(folder, "writer.lock"));
    try {
      const names = await logNames(folder);
      const history = await readLogs(folder, names, key);
      const last = history.logs.at(-1);
      const at = (options.now ?? Date.now)();
      const sequence = (logSequence(names.at(-1) ?? "") ?? 0) + 1;
      const storage = options.storage ?? volumeStorage;
      const log = new SessionLog({ storage, folder, key, name: logName(sequence, at) });
      const volume = new RecordingVolume(options, lock, log);
      const previous = last ? { log: last.name, ...foundEnd(last.scan) } : null;
      if (last?.isStopped === false) await volume.#removePruned(history.sessions);
      const found = await volume.#takeOver(history.sessions, at);
      await log.note({ kind: "start", at, key: keyFingerprint(key), previous }, ...found);
      volume.#start();
      return volume;
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** The log's last place on disk, to be kept elsewhere. */
  get head(): PublishedHead | undefined {
    return this.#log.head;
  }

  get publicKey(): KeyObject {
    return createPublicKey(this.#options.key);
  }

  /** The sessions of a namespace, oldest first. */
  list(namespace: string): readonly KeptSession[] {
    return [...this.#sessions.values()].filter(({ facts }) => facts.namespace === namespace);
  }

  /** The session, where it is the namespace's. */
  find(namespace: string, sessionId: string): KeptSession | undefined {
    const kept = this.#sessions.get(sessionId);
    return kept?.facts.namespace === namespace ? kept : undefined;
  }

  /** Bytes that a namespace's recordings take. */
  used(namespace: string): number {
    return this.#used.get(namespace) ?? 0;
  }

  /** Opens a gateway's journal, new or where it ended, and takes it from whoever held it. */
  async openSession(
    credential: GatewayCredential,
    path: string,
    retentionMs: number,
    owner: object,
  ): Promise<StoredSession> {
    const place = this.#place(credential, path, retentionMs);
    const { sessionId } = place;
    while (this.#opening.has(sessionId)) await this.#opening.get(sessionId)?.catch(() => undefined);
    const opening = this.#openPlace(place);
    this.#opening.set(sessionId, opening);
    try {
      const session = await opening;
      session.owner = owner;
      session.lastActiveMs = performance.now();
      return session;
    } finally {
      this.#opening.delete(sessionId);
    }
  }

  #place({ name, key }: GatewayCredential, path: string, retentionMs: number): SessionPlace {
    const { namespace, resource } = name;
    const [, day = "", sessionId = ""] =
      /\/(\d{4}-\d\d-\d\d)\/([A-Za-z0-9_-]{1,100})\.journal$/.exec(path) ?? [];
    let own = "";
    try {
      own = sessionPath({ sessionId, namespace, resource, startedAt: day } as SessionOpening);
    } catch {
      // Not a path that a gateway of ours would send: refused below.
    }
    // The path follows from the certificate: no gateway names another one's folder.
    if (own === "" || own !== path)
      throw new Refused("forbidden", "the path is not of this gateway's resource");
    const gateway = keyFingerprint(key);
    const kept = Math.max(retentionMs, this.limits.retentionMsMin);
    return { sessionId, namespace, resource, path, gateway, key, retentionMs: kept };
  }

  async #openPlace(place: SessionPlace): Promise<StoredSession> {
    const live = this.#live.get(place.sessionId);
    const kept = this.#sessions.get(place.sessionId);
    const isOther = (gateway: string, path: string) => gateway !== place.gateway || path !== place.path;
    if (
      (live && isOther(live.place.gateway, live.place.path)) ||
      (kept && isOther(kept.gateway, kept.path))
    ) {
      throw new Refused("conflict", "the session is another gateway's");
    }
    if (kept !== undefined && kept.state !== "open" && kept.state !== "closed") {
      throw new Refused("broken", `the session's recording is ${kept.state}`);
    }
    if (live !== undefined && live.broken === undefined) return live;
    if (live?.broken?.code === "broken") throw live.broken;
    if (live === undefined && this.#live.size >= this.limits.openMax) {
      throw new Refused("full", "too many journals are open");
    }
    if (live === undefined && this.#isCrowded(place.namespace)) {
      throw new Refused("full", "the namespace has too many journals open");
    }
    await live?.release();
    this.#live.delete(place.sessionId);
    const resumed = kept === undefined ? undefined : await this.#resume(place, kept);
    const session = new StoredSession(this, place, resumed);
    session.isClosed = kept?.state === "closed";
    this.#live.set(place.sessionId, session);
    return session;
  }

  #isCrowded(namespace: string): boolean {
    const { openByNamespaceMax } = this.limits;
    if (this.#live.size < openByNamespaceMax) return false;
    let open = 0;
    for (const { place } of this.#live.values()) if (place.namespace === namespace) open++;
    return open >= openByNamespaceMax;
  }

  /** Reads a journal from its start, cuts off a piece that was not written whole, and goes on from there. */
  async #resume(
    place: SessionPlace,
    kept: KeptSession,
  ): Promise<{ file: SealedFile; follower: ChainFollower } | undefined> {
    const path = join(this.#options.folder, place.path);
    const key = await this.#options.keys.fileKey(place.namespace, place.sessionId, kept.fileBytes === 0);
    const reading = readSealed(path, key, place.sessionId);
    const follower = new ChainFollower(place.sessionId, place.key);
    try {
      for await (const chunk of reading.chunks) follower.push(chunk);
    } catch (error) {
      const isGone = (error as NodeJS.ErrnoException).code === "ENOENT";
      // Announced, and the file not made: it is made now.
      if (isGone && kept.fileBytes === 0) return undefined;
      throw new Refused("broken", "the journal is not what was written", error);
    }
    if (reading.tail === "damaged") throw new Refused("broken", "the journal is not what was written");
    const file = await SealedFile.resume(this.#storage, path, key, place.sessionId, reading.end);
    return { file, follower };
  }

  async announce({ place }: StoredSession, facts: SessionFacts): Promise<void> {
    if (this.#sessions.has(place.sessionId)) return;
    await this.#keepKey(place);
    const { gateway, path, retentionMs } = place;
    const kept: KeptSession = {
      facts,
      path,
      gateway,
      retentionMs,
      state: "open",
      endedAt: undefined,
      finalHash: undefined,
      commands: undefined,
      refused: undefined,
      fileBytes: 0,
    };
    await this.#log.note({ kind: "opened", ...facts, path, gateway, retentionMs });
    this.#sessions.set(place.sessionId, kept);
  }

  async makeFile({ place }: StoredSession): Promise<SealedFile> {
    const path = join(this.#options.folder, place.path);
    const key = await this.#options.keys.fileKey(place.namespace, place.sessionId, true);
    const file = await SealedFile.create(this.#storage, path, key, place.sessionId);
    const kept = this.#sessions.get(place.sessionId);
    if (kept !== undefined) kept.fileBytes = file.end.raw;
    this.#used.set(place.namespace, this.used(place.namespace) + file.end.raw);
    return file;
  }

  async reserve(namespace: string, bytes: number): Promise<void> {
    const used = this.used(namespace) + bytes;
    if (used > this.#options.quotaBytes)
      throw new Refused("full", "the namespace's quota of recordings is used up");
    if (performance.now() - this.#freeAt > freeEveryMs) {
      this.#freeAt = performance.now();
      this.#freeBytes = await this.#storage.free(this.#options.folder);
    }
    if (this.#freeBytes - bytes < this.#options.reserveBytes) {
      throw new Refused("full", "the recorder's volume is full");
    }
    this.#freeBytes -= bytes;
    this.#used.set(namespace, used);
  }

  giveBack(namespace: string, bytes: number): void {
    this.#freeBytes += bytes;
    this.#used.set(namespace, Math.max(0, this.used(namespace) - bytes));
  }

  wait(bytes: number): void {
    if (bytes > 0 && this.#waitingBytes + bytes > this.limits.waitingBytesMax)
      throw new Refused("full", "too many openings are not whole");
    this.#waitingBytes += bytes;
  }

  async closed(session: StoredSession, counts: { commands?: number; refused?: number }): Promise<void> {
    const { sessionId } = session.place;
    const at = this.#now();
    await this.#log.note({ kind: "closed", at, session: sessionId, ...session.head, ...counts });
    const kept = this.#sessions.get(sessionId);
    if (kept === undefined) return;
    kept.state = "closed";
    kept.endedAt = at;
    kept.finalHash = session.head.hash;
    kept.commands = counts.commands;
    kept.refused = counts.refused;
  }

  /** The connection that wrote it is gone: the journal waits for its gateway to come back. */
  detach(session: StoredSession, owner: object): void {
    if (session.owner === owner) session.owner = undefined;
    session.lastActiveMs = performance.now();
  }

  /** Forgets a journal that is closed on disk and in the log. */
  async drop(session: StoredSession): Promise<void> {
    if (!session.isClosed || this.#live.get(session.place.sessionId) !== session) return;
    this.#live.delete(session.place.sessionId);
    await session.release();
  }

  /** A session's journal in plain text, as its gateway wrote it; throws behind the last piece that is. */
  async read(kept: KeptSession): Promise<AsyncGenerator<Buffer, void, undefined>> {
    const { namespace, session } = kept.facts;
    const key = await this.#options.keys.fileKey(namespace, session, false);
    return undamagedChunks(readSealed(join(this.#options.folder, kept.path), key, session));
  }

  /** Says of every recording on the volume whether it is what was written. */
  verify(options: VerifyOptions = {}): Promise<Verification> {
    return verifyVolume(this.#options.folder, this.publicKey, this.#options.keys, options);
  }

  /** Removes recordings whose retention is over, after the log has said so; returns how many. */
  async prune(): Promise<number> {
    const now = this.#now();
    const over = [...this.#sessions].filter(
      ([, { state, endedAt, retentionMs }]) =>
        (state === "closed" || state === "torn") && endedAt !== undefined && endedAt + retentionMs <= now,
    );
    if (over.length === 0) return 0;
    await this.#log.note(...over.map(([session]): LogRecord => ({ kind: "pruned", at: now, session })));
    for (const [session, kept] of over) {
      await this.#live.get(session)?.release();
      this.#live.delete(session);
      const path = join(this.#options.folder, kept.path);
      const size = await stat(path).then(
        (found) => found.size,
        () => 0,
      );
      await unlink(path).catch(() => undefined);
      this.#used.set(kept.facts.namespace, Math.max(0, this.used(kept.facts.namespace) - size));
      this.#sessions.delete(session);
    }
    return over.length;
  }

  /** Syncs and closes everything, and says in the log that it stopped. */
  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    for (const session of this.#live.values()) {
      await session.inOrder(() => session.sync()).catch(() => undefined);
      await session.release();
    }
    try {
      await this.#log.stop(this.#now());
    } finally {
      await this.#lock.release();
    }
  }

  #start(): void {
    const { syncMs, headMs } = this.limits;
    this.#timers = [
      setInterval(() => void this.#syncAll(), syncMs),
      setInterval(() => void this.#noteHeads(), headMs),
    ];
    for (const timer of this.#timers) timer.unref();
  }

  /** What was written is on disk a moment later, whether somebody asks or not: gateways keep it until then. */
  async #syncAll(): Promise<void> {
    if (this.#isSyncing) return;
    this.#isSyncing = true;
    const dirty = [...this.#live.values()].filter(({ isDirty, broken }) => isDirty && broken === undefined);
    for (let first = 0; first < dirty.length; first += syncsAtOnce) {
      const some = dirty.slice(first, first + syncsAtOnce);
      // Whoever writes to it is told of a failure by the next append.
      await Promise.all(some.map((session) => session.inOrder(() => session.sync()).catch(() => undefined)));
    }
    this.#isSyncing = false;
  }

  async #noteHeads(): Promise<void> {
    if (this.#isNoting) return;
    this.#isNoting = true;
    try {
      const at = this.#now();
      const records: LogRecord[] = [];
      for (const session of [...this.#live.values()]) {
        const { sessionId } = session.place;
        const { head, notedBlock, owner } = session;
        const isSynced = head.bytes <= session.syncedBytes;
        if (head.block > notedBlock && !session.isClosed && isSynced && session.broken === undefined) {
          session.notedBlock = head.block;
          records.push({ kind: "head", at, session: sessionId, ...head });
        }
        const isAway =
          owner === undefined && performance.now() - session.lastActiveMs > this.limits.abandonMs;
        if (isAway) records.push(...(await this.#abandon(session, at)));
      }
      if (records.length > 0) await this.#log.note(...records);
    } catch {
      // The lines stay in the log's buffer; its next note tries again, and appends fail meanwhile.
    } finally {
      this.#isNoting = false;
    }
  }

  /** Its gateway did not come back: what is there is all that there will be. */
  async #abandon(session: StoredSession, at: number): Promise<LogRecord[]> {
    const { sessionId } = session.place;
    const kept = this.#sessions.get(sessionId);
    this.#live.delete(sessionId);
    await session.inOrder(() => session.sync()).catch(() => undefined);
    await session.release();
    if (kept === undefined || kept.state !== "open") return [];
    const scan = await this.#scan(kept).catch(() => undefined);
    if (scan === undefined) {
      kept.state = "missing";
      return [];
    }
    kept.state = "torn";
    kept.endedAt = at;
    return [{ kind: "recovered", at, session: sessionId, ...foundEnd(scan) }];
  }

  /** First said, then done: a crash in between has left files too many. */
  async #removePruned(sessions: ReadonlyMap<string, SessionEntry>): Promise<void> {
    for (const { isPruned, opened } of sessions.values())
      if (isPruned) await unlink(join(this.#options.folder, opened.path)).catch(() => undefined);
  }

  async #takeOver(sessions: ReadonlyMap<string, SessionEntry>, at: number): Promise<LogRecord[]> {
    const records: LogRecord[] = [];
    for (const [sessionId, entry] of sessions) {
      if (entry.isPruned || entry.opened.gateway === undefined) continue;
      const kept = keptOf(entry);
      const path = join(this.#options.folder, kept.path);
      kept.fileBytes = await stat(path).then(
        (found) => found.size,
        () => 0,
      );
      const { namespace } = kept.facts;
      this.#used.set(namespace, this.used(namespace) + kept.fileBytes);
      this.#sessions.set(sessionId, kept);
      if (isEnded(entry)) continue;
      // One journal that cannot be judged, its gateway's key being gone, say, must not keep all others from being written.
      const found = await this.#found(entry, kept, at).catch(() => {
        kept.state = "missing";
        return [];
      });
      records.push(...found);
    }
    return records;
  }

  /** Looks at a journal that was open when the last process ended. */
  async #found(entry: SessionEntry, kept: KeptSession, at: number): Promise<LogRecord[]> {
    const session = kept.facts.session;
    const scan = await this.#scan(kept, entry);
    if (scan === undefined) {
      // Not made yet: its gateway will send it. Made and gone: `verify` says so.
      kept.state = entry.heads.size > 0 ? "missing" : "open";
      return [];
    }
    const isShort = scan.block < Math.max(-1, ...entry.heads.keys());
    if (scan.error !== undefined || isShort) {
      kept.state = "torn";
      kept.endedAt = at;
      return [{ kind: "recovered", at, session, ...foundEnd(scan) }];
    }
    const { block, hash, bytes } = scan;
    if (scan.isFinal) {
      kept.state = "closed";
      kept.endedAt = at;
      kept.finalHash = hash;
      return [{ kind: "closed", at, session, block, hash, bytes, reason: "closed before a crash" }];
    }
    await this.#awaitGateway(kept);
    return block < 0 ? [] : [{ kind: "head", at, session, block, hash, bytes }];
  }

  /** Counts the time from the restart until its gateway is given up. */
  async #awaitGateway(kept: KeptSession): Promise<void> {
    const { facts, gateway, path, retentionMs } = kept;
    const key = await readGatewayKey(this.#options.folder, gateway);
    const { session: sessionId, namespace, resource } = facts;
    const place = { sessionId, namespace, resource, path, gateway, key, retentionMs };
    const session = new StoredSession(this, place);
    // Opened again by its gateway, which reads the file anew.
    session.broken = new Refused("failed", "the journal has to be opened again");
    session.lastActiveMs = performance.now();
    this.#live.set(sessionId, session);
  }

  async #scan(kept: KeptSession, entry?: SessionEntry): Promise<Scan | undefined> {
    const { folder, keys } = this.#options;
    const { namespace, session } = kept.facts;
    const fileKey = await keys.fileKey(namespace, session, true);
    const path = join(folder, kept.path);
    return scanOrAbsent({
      path,
      journal: sessionJournal(session),
      key: await readGatewayKey(folder, kept.gateway),
      ...(entry && { heads: entry.heads }),
      chunks: () => plainChunks(readSealed(path, fileKey, session)),
    });
  }

  /** The gateway's public key is kept beside the journals: they can be checked when the gateway is long gone. */
  async #keepKey({ gateway, key }: SessionPlace): Promise<void> {
    const path = gatewayKeyPath(this.#options.folder, gateway);
    await mkdir(join(this.#options.folder, "gateways"), { recursive: true, mode: 0o700 });
    const pem = key.export({ type: "spki", format: "pem" });
    await createWhole(path, String(pem), 0o600);
  }
}

/** Says of every recording on a volume whether it is what was written; reads only. */
export function verifyVolume(
  folder: string,
  publicKey: KeyObject,
  keys: NamespaceKeys,
  options: VerifyOptions = {},
): Promise<Verification> {
  return verifyRecordings(folder, publicKey, {
    ...options,
    journals: {
      async read({ opened }) {
        const fileKey = await keys.fileKey(opened.namespace, opened.session, false);
        return plainChunks(readSealed(join(folder, opened.path), fileKey, opened.session));
      },
      keyOf: ({ opened }) => readGatewayKey(folder, opened.gateway ?? ""),
    },
  });
}

const tornPiece = Buffer.from('{"kind":"torn');
const freeEveryMs = 1_000;
const syncsAtOnce = 32;

function gatewayKeyPath(folder: string, fingerprint: string): string {
  return join(folder, "gateways", `${fingerprint}.pem`);
}

/** The key must be the one that the signed log names: another file in its place is not believed. */
async function readGatewayKey(folder: string, fingerprint: string): Promise<KeyObject> {
  if (!/^[0-9a-f]{64}$/.test(fingerprint)) throw new Error("the log names no gateway");
  const key = createPublicKey(await readFile(gatewayKeyPath(folder, fingerprint), "utf8"));
  if (keyFingerprint(key) !== fingerprint) throw new Error("the key of a gateway is another one");
  return key;
}

/** The text of a sealed file; it does not end as if it were whole where it is not. */
export async function* undamagedChunks(reading: SealedReading): AsyncGenerator<Buffer, void, undefined> {
  yield* reading.chunks;
  if (reading.tail === "damaged") throw new DamagedJournal("a piece of it does not decrypt");
}

async function* plainChunks(reading: SealedReading): AsyncGenerator<Buffer, void, undefined> {
  yield* undamagedChunks(reading);
  // A piece that was not written whole cannot be read: an unfinished line stands for it, so that it counts as torn.
  if (reading.tail === "torn") yield tornPiece;
}

function keptOf(entry: SessionEntry): KeptSession {
  const { opened, closed, recovered } = entry;
  const { path, gateway = "", retentionMs = 0, at, session, namespace, resource } = opened;
  const { protocol, user, subject, database } = opened;
  return {
    facts: { at, session, namespace, resource, protocol, user, subject, database },
    path,
    gateway,
    retentionMs,
    state: closed ? "closed" : recovered ? "torn" : entry.isAbsent ? "missing" : "open",
    endedAt: closed?.at ?? recovered?.at,
    finalHash: closed?.hash,
    commands: closed?.commands,
    refused: closed?.refused,
    fileBytes: 0,
  };
}
