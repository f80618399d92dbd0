/** The committed catalog of one upstream database, kept at most `ageMs` old while sessions use it. */
import { randomBytes } from "node:crypto";
import {
  catalogQuery,
  changesQuery,
  changesSince,
  fingerprintQuery,
  isExact,
  likenessOf,
  likenessQuery,
  typeNamesQuery,
} from "./queries.ts";
import { buildSnapshot, type CatalogReading, type KeptCatalog, readCatalog } from "./reading.ts";
import type { CatalogSnapshot } from "./snapshot.ts";

/** What a live catalog needs: a side connection and a clock. */
export interface LiveCatalogOptions {
  /** Runs one statement on a side connection of its own; never on a user's. With `values` its text comes again. */
  readonly query: (
    sql: string,
    values?: readonly (string | null)[],
  ) => Promise<readonly Record<string, unknown>[]>;
  /** An answer older than this is not fresh. */
  readonly ageMs: number;
  readonly monotonicMs: () => number;
  /** Hears of each reading that fails or takes too long, also of those that nobody waits for. */
  readonly onFailure?: (error: Error) => void;
}

/** A reading that takes longer has failed. */
export const readMsMax = 5000;

/** A number that no other version in this process has. */
export function nextVersion(): number {
  versions += 1;
  return versions;
}

let versions = 0;

/** One per upstream database; shared by its sessions. */
export class LiveCatalog {
  private readonly options: LiveCatalogOptions;
  /** Before anything was read no name exists. */
  private current: CatalogSnapshot = buildSnapshot([]);
  /** Of the snapshot; undefined while it is incomplete. */
  private fingerprint: string | undefined;
  /** Nobody else knows it: it goes as a parameter, which the server shows to nobody. */
  private readonly key = randomBytes(8).readBigInt64BE().toString();
  /** What the last reading leaves to the next; undefined: the next reads everything. */
  private kept: { readonly catalog: KeptCatalog; readonly atMs: number } | undefined;
  private readAtMs: number | undefined;
  private expectsChanges = false;
  private generation = 0;
  private running: { readonly generation: number; readonly done: Promise<void> } | undefined;
  private queued: Promise<void> | undefined;
  private snapshotVersion = nextVersion();
  private readonly versionsByKey = new Map<string, number>();
  private retained = 0;
  private timer: NodeJS.Timeout | undefined;
  private failureCount = 0;
  private failure: Error | undefined;

  constructor(options: LiveCatalogOptions) {
    this.options = options;
  }

  get snapshot(): CatalogSnapshot {
    return this.current;
  }

  /** Changes with the snapshot. */
  get version(): number {
    return this.snapshotVersion;
  }

  /** The version of this snapshot as one account sees it: another account may reach other schemas. */
  versionFor(key: string): number {
    const known = this.versionsByKey.get(key);
    if (known !== undefined) return known;
    if (this.versionsByKey.size >= keysMax) this.versionsByKey.clear();
    const made = nextVersion();
    this.versionsByKey.set(key, made);
    return made;
  }

  /** Whether the snapshot is that of a reading, and nothing has been invalidated since it started. */
  get isRead(): boolean {
    return this.readAtMs !== undefined;
  }

  get isFresh(): boolean {
    return this.readAtMs !== undefined && this.options.monotonicMs() - this.readAtMs <= this.options.ageMs;
  }

  /** How often reading has failed. */
  get failures(): number {
    return this.failureCount;
  }

  /** Why the last reading failed; absent once one has succeeded. */
  get lastError(): Error | undefined {
    return this.failure;
  }

  /** From here on only a reading that starts later counts; where a change is likely, it is asked for at once. */
  invalidate(isLikely: boolean): void {
    this.generation += 1;
    this.readAtMs = undefined;
    this.expectsChanges ||= isLikely;
  }

  /** Resolves once the snapshot is fresh; with `force`, once a reading that started after this call is in. */
  refresh(force: boolean): Promise<void> {
    if (!force && this.isFresh) return Promise.resolve();
    const { running } = this;
    if (running === undefined) return this.start();
    if (!force && running.generation === this.generation) return running.done;
    // Whatever runs may have looked too early: one more follows, for everybody who asks meanwhile.
    this.queued ??= running.done
      .catch(() => {})
      .then(() => {
        this.queued = undefined;
        return this.start();
      });
    return this.queued;
  }

  /**
   * Reads now, for somebody who has waited for it: true where the snapshot is that of a reading that started after this call, and
   * nothing has been invalidated since it started. On a busy server that may take longer than others take it for fresh.
   */
  async readAnew(): Promise<boolean> {
    for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
      const isRead = await this.refresh(true).then(
        () => true,
        () => false,
      );
      if (isRead && this.isRead) return true;
    }
    return false;
  }

  /** Schema and name of the types with these ids, an array's as its element's; what is not committed is not there. */
  async typeNames(oids: readonly number[]): Promise<readonly (readonly [schema: string, name: string])[]> {
    const rows = await this.options.query(typeNamesQuery(oids));
    return rows.map(({ schema, name }) => [String(schema), String(name)] as const);
  }

  /** Keeps the catalog fresh in the background until `release` was called as often. */
  retain(): void {
    this.retained += 1;
    if (this.retained === 1) this.schedule();
  }

  release(): void {
    if (this.retained === 0) return;
    this.retained -= 1;
    if (this.retained > 0) return;
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private schedule(): void {
    this.timer = setTimeout(() => {
      // Sessions that need the catalog ask themselves and see the failure; here it is counted in `start`.
      void this.refreshQuietly();
    }, this.options.ageMs * refreshAtAge);
    this.timer.unref();
  }

  private async refreshQuietly(): Promise<void> {
    const { timer, readAtMs } = this;
    const { ageMs, monotonicMs } = this.options;
    // Where sessions have just read it, it is new enough until the next time here.
    const isNew = readAtMs !== undefined && monotonicMs() - readAtMs < ageMs * (1 - refreshAtAge);
    try {
      if (!isNew) await (this.running?.done ?? this.start(true));
    } catch {
      // Kept in lastError.
    }
    if (this.retained > 0 && this.timer === timer) this.schedule();
  }

  /** Where nobody waits for it, the fingerprint is made exact: the next side connection can compare no other. */
  private start(isQuiet = false): Promise<void> {
    if (this.running !== undefined) return this.running.done;
    const { generation } = this;
    const done = this.readInTime(generation, isQuiet).then(
      () => {
        this.running = undefined;
        this.failure = undefined;
      },
      (error: unknown) => {
        this.running = undefined;
        this.failureCount += 1;
        this.failure = error instanceof Error ? error : new Error("the catalog could not be read");
        this.options.onFailure?.(this.failure);
        throw this.failure;
      },
    );
    this.running = { generation, done };
    return done;
  }

  private async readInTime(generation: number, isQuiet: boolean): Promise<void> {
    const attempt = { isOver: false, isQuiet };
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error("reading the catalog took too long")), readMsMax);
    });
    try {
      await Promise.race([this.read(generation, attempt), late]);
    } finally {
      attempt.isOver = true;
      clearTimeout(timer);
    }
  }

  private async read(generation: number, attempt: Attempt): Promise<void> {
    // After a definition there are changes: they tell the fingerprint themselves.
    const { expectsChanges } = this;
    this.expectsChanges = false;
    for (let round = 0; round < roundsMax; round += 1) {
      const startedMs = this.options.monotonicMs();
      const looks = round > 0 || !expectsChanges;
      const isSame = looks && (await this.stillHolds(startedMs, attempt));
      if (attempt.isOver) return;
      if (!isSame) {
        const reading = await this.readChanges(startedMs, looks);
        if (attempt.isOver) return;
        this.replace(reading, startedMs);
      }
      if (generation === this.generation) this.readAtMs = startedMs;
      // A large catalog may take longer to read than it stays fresh: look whether it still holds.
      if (isSame || this.options.monotonicMs() - startedMs < this.options.ageMs / 2) return;
    }
  }

  /** Whether the catalog has stayed as the snapshot has it; false also where only another reading can tell. */
  private async stillHolds(nowMs: number, attempt: Attempt): Promise<boolean> {
    const { kept, fingerprint, key } = this;
    if (kept === undefined || fingerprint === undefined) return false;
    const isWhole = isExact(fingerprint);
    if (!isWhole && attempt.isQuiet) return false;
    if (nowMs - kept.atMs < keptMsMax) {
      const [row] = await this.options.query(likenessQuery, likenessOf(kept.catalog, key));
      if (attempt.isOver || row?.fingerprint === fingerprint) return true;
      // Another server knows nothing of what has changed since, so what does not hold there is no ground for its changes.
      if (textIn(row, "server") !== kept.catalog.moment.server) this.kept = undefined;
    }
    if (!isWhole) return false;
    const [row] = await this.options.query(fingerprintQuery, [key]);
    const seen = textIn(row, "fingerprint");
    if (attempt.isOver || seen !== fingerprint) return false;
    // What is as it was then is known as of now: by this server's count of transactions, if it is another one.
    const moment = { ...kept.catalog.moment, server: textIn(row, "server"), xmin: textIn(row, "xmin") };
    this.kept = { catalog: { ...kept.catalog, moment }, atMs: nowMs };
    return true;
  }

  /** What has changed since the last reading, or everything where that cannot be told. */
  private async readChanges(nowMs: number, isExact: boolean): Promise<CatalogReading> {
    const { kept, key } = this;
    // Whatever goes wrong with changes, the next reading does without.
    this.kept = undefined;
    // Ages of transactions are told apart up to two thousand million of them.
    if (kept !== undefined && nowMs - kept.atMs < keptMsMax) {
      const { catalog } = kept;
      const rows = await this.options.query(changesQuery, changesSince(catalog, { isExact, key }));
      try {
        return readCatalog(rows, catalog);
      } catch {
        // What does not fit what was kept is no answer: everything is read instead.
      }
    }
    return readCatalog(await this.options.query(catalogQuery, [key]), undefined);
  }

  private replace({ snapshot, kept }: CatalogReading, atMs: number): void {
    this.kept = kept === undefined ? undefined : { catalog: kept, atMs };
    const fingerprint = kept?.fingerprint;
    // What was looked for and not found has not changed what names mean, nor what was decided by them.
    if (fingerprint !== undefined && fingerprint === this.fingerprint && isExact(fingerprint)) return;
    this.current = snapshot;
    // What is incomplete is read again each time, until the lock is gone.
    this.fingerprint = snapshot.isComplete ? fingerprint : undefined;
    this.snapshotVersion = nextVersion();
    this.versionsByKey.clear();
  }
}

/** One reading. */
interface Attempt {
  /** True once it has taken too long. */
  readonly isOver: boolean;
  readonly isQuiet: boolean;
}

const roundsMax = 3;
const attemptsMax = 3;
const refreshAtAge = 0.7;
const keysMax = 1024;
const keptMsMax = 3_600_000;

function textIn(row: Record<string, unknown> | undefined, column: string): string {
  const text = row?.[column];
  if (typeof text !== "string" || text === "") throw new Error(`the catalog has no ${column}`);
  return text;
}
