/** The committed catalog of one upstream database, kept at most `ageMs` old while sessions use it. */
import { randomBytes } from "node:crypto";
import { catalogQuery, changesQuery, changesSince, fingerprintQuery, typeNamesQuery } from "./queries.ts";
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
  private fingerprint: string | undefined;
  /** Nobody else knows it: it goes as a parameter, which the server shows to nobody. */
  private readonly key = randomBytes(8).readBigInt64BE().toString();
  /** What the last reading leaves to the next; undefined: the next reads everything. */
  private kept: { readonly catalog: KeptCatalog; readonly atMs: number } | undefined;
  private readAtMs: number | undefined;
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

  /** From here on only a reading that starts later counts. */
  invalidate(): void {
    this.generation += 1;
    this.readAtMs = undefined;
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
      if (!isNew) await (this.running?.done ?? this.start());
    } catch {
      // Kept in lastError.
    }
    if (this.retained > 0 && this.timer === timer) this.schedule();
  }

  private start(): Promise<void> {
    if (this.running !== undefined) return this.running.done;
    const { generation } = this;
    const done = this.readInTime(generation).then(
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

  private async readInTime(generation: number): Promise<void> {
    const attempt = { isOver: false };
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

  private async read(generation: number, attempt: { readonly isOver: boolean }): Promise<void> {
    for (let round = 0; round < roundsMax; round += 1) {
      const startedMs = this.options.monotonicMs();
      // After a definition there are changes: they tell the fingerprint themselves.
      const expectsChanges = round === 0 && this.readAtMs === undefined && this.kept !== undefined;
      // So they do where columns have changed and their hash was left out: it is asked for with what has changed since.
      const isUnknown = this.kept !== undefined && this.kept.catalog.fingerprint === undefined;
      const fingerprint =
        expectsChanges || isUnknown
          ? undefined
          : fingerprintOf(await this.options.query(fingerprintQuery, [this.key]));
      if (attempt.isOver) return;
      const isSame = fingerprint !== undefined && fingerprint === this.fingerprint;
      if (!isSame) {
        const reading = await this.readChanges(startedMs, !expectsChanges);
        if (attempt.isOver) return;
        this.replace(reading, reading.kept?.fingerprint ?? fingerprint, startedMs);
      }
      if (generation === this.generation) this.readAtMs = startedMs;
      // A large catalog may take longer to read than it stays fresh: look whether it still holds.
      if (isSame || this.options.monotonicMs() - startedMs < this.options.ageMs / 2) return;
    }
  }

  /** What has changed since the last reading, or everything where that cannot be told. */
  private async readChanges(nowMs: number, isExact: boolean): Promise<CatalogReading> {
    const { kept } = this;
    // Whatever goes wrong with changes, the next reading does without.
    this.kept = undefined;
    // Ages of transactions are told apart up to two thousand million of them.
    if (kept !== undefined && nowMs - kept.atMs < keptMsMax) {
      const { catalog } = kept;
      const rows = await this.options.query(changesQuery, changesSince(catalog, { isExact, key: this.key }));
      try {
        return readCatalog(rows, catalog);
      } catch {
        // What does not fit what was kept is no answer: everything is read instead.
      }
    }
    return readCatalog(await this.options.query(catalogQuery, [this.key]), undefined);
  }

  private replace({ snapshot, kept }: CatalogReading, fingerprint: string | undefined, atMs: number): void {
    const isSame = fingerprint !== undefined && fingerprint === this.fingerprint;
    this.kept = kept === undefined ? undefined : { catalog: kept, atMs };
    // What was looked for and not found has not changed what names mean, nor what was decided by them.
    if (isSame) return;
    this.current = snapshot;
    // What is incomplete is read again each time, until the lock is gone.
    this.fingerprint = snapshot.isComplete ? fingerprint : undefined;
    this.snapshotVersion = nextVersion();
    this.versionsByKey.clear();
  }
}

const roundsMax = 3;
const attemptsMax = 3;
const refreshAtAge = 0.7;
const keysMax = 1024;
const keptMsMax = 3_600_000;

function fingerprintOf(rows: readonly Record<string, unknown>[]): string {
  const fingerprint = rows[0]?.fingerprint;
  if (typeof fingerprint !== "string" || fingerprint === "")
    throw new Error("the catalog has no fingerprint");
  return fingerprint;
}
