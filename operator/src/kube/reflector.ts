/** Keeps a cache like the API server has it: a list in pages, then a watch, and never an end before its signal. */
import { type BackoffBounds, backoffMs, pause } from "./backoff.ts";
import type { Cache, Change, IndexKeys } from "./cache.ts";
import type { KubeClient, Selection, WatchEvent } from "./client.ts";
import { isExpired, KubeError } from "./error.ts";
import type { Log } from "./log.ts";
import type { KubeMetrics } from "./metrics.ts";
import { compareVersions, type KubeObject, keyOf, type ObjectRef, type ResourceType } from "./objects.ts";
import { Store } from "./store.ts";

/** What a reflector needs; the selection keeps the cache to the objects that are ours. */
export interface ReflectorOptions<T extends KubeObject> {
  readonly client: KubeClient;
  readonly type: ResourceType<T>;
  readonly selection?: Selection;
  readonly indexes?: Readonly<Record<string, IndexKeys<T>>>;
  /** What is kept of an object; managedFields are dropped anyway. */
  readonly reduce?: (object: T) => T;
  /** Lists anew this often, whatever the watch says: 10 to 30 minutes, at random, where absent. */
  readonly relistMs?: number;
  /** A watch that says nothing for so long is begun again. */
  readonly silenceMs?: number;
  readonly pageSize?: number;
  readonly backoff?: BackoffBounds;
  readonly log: Log;
  readonly metrics?: KubeMetrics;
}

/** A cache that `run` fills. */
export class Reflector<T extends KubeObject> implements Cache<T> {
  readonly #options: ReflectorOptions<T>;
  readonly #store: Store<T>;
  readonly #listeners = new Set<(change: Change<T>) => void>();
  readonly #synced = Promise.withResolvers<void>();
  #isSynced = false;
  #heardAt = Number.NEGATIVE_INFINITY;
  #version: string | undefined;
  #heard = "0";

  constructor(options: ReflectorOptions<T>) {
    this.#options = options;
    this.#store = new Store(options.indexes);
  }

  get isSynced(): boolean {
    return this.#isSynced;
  }

  get heard(): string {
    return this.#heard;
  }

  /** Milliseconds since the API server last said something of these objects; bookmarks come about once a minute. */
  get silentMs(): number {
    return performance.now() - this.#heardAt;
  }

  async whenSynced(signal: AbortSignal): Promise<void> {
    if (this.#isSynced) return;
    signal.throwIfAborted();
    const aborted = Promise.withResolvers<never>();
    const abort = (): void => aborted.reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    try {
      await Promise.race([this.#synced.promise, aborted.promise]);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  get(ref: ObjectRef): T | undefined {
    return this.#store.get(keyOf(ref));
  }

  list(namespace?: string): readonly T[] {
    return this.#store.list(namespace);
  }

  byIndex(index: string, key: string): readonly T[] {
    return this.#store.byIndex(index, key);
  }

  onChange(listener: (change: Change<T>) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Takes what a write of ours was answered with, so that the next look does not see the state before it. Only a
   * newer state of an object that is known: what was deleted meanwhile must not come back.
   */
  learn(object: T): void {
    const before = this.#store.get(keyOf(object.metadata));
    if (before === undefined || before.metadata.uid !== object.metadata.uid) return;
    if (isNewer(object, before)) this.#put(object);
  }

  /** Lists and watches until the signal. Every failure is waited out; none ends it. */
  async run(signal: AbortSignal): Promise<void> {
    const { client, type } = this.#options;
    const forget = client.onWritten?.(type, (object) => this.learn(object));
    try {
      await this.#listAndWatch(signal);
    } finally {
      forget?.();
    }
  }

  async #listAndWatch(signal: AbortSignal): Promise<void> {
    const { type, log, metrics, backoff = { firstMs: 200, mostMs: 30_000 } } = this.#options;
    const { kind } = type;
    let relistAt = 0;
    let failures = 0;
    while (!signal.aborted) {
      const begunAt = performance.now();
      try {
        if (this.#version === undefined || begunAt >= relistAt) {
          this.#version = await this.#relist(signal);
          relistAt = performance.now() + (this.#options.relistMs ?? (10 + 20 * Math.random()) * 60_000);
        }
        const heard = await this.#follow(this.#version, relistAt, signal);
        metrics?.watchRestarts.inc({ kind, reason: "ended" });
        // A watch that ends as soon as it begins would otherwise be begun again without a pause.
        failures = heard > 0 || performance.now() - begunAt > 5000 ? 0 : failures + 1;
      } catch (error) {
        if (signal.aborted) break;
        failures = performance.now() - begunAt > 60_000 ? 1 : failures + 1;
        const reason = error instanceof KubeError ? error.reason : "Unexpected";
        metrics?.watchRestarts.inc({ kind, reason });
        if (isExpired(error)) {
          this.#version = undefined;
          log.debug({ kind }, "the watch's version is no longer kept: listing anew");
        } else if (error instanceof KubeError) {
          log.warn({ kind, reason, failures, problem: error.message }, "a watch broke; trying again");
        } else {
          log.error({ kind, failures, err: error }, "a watch failed unexpectedly; trying again");
        }
        const retryAfterMs = error instanceof KubeError ? (error.retryAfterMs ?? 0) : 0;
        const isFirstExpiry = isExpired(error) && failures === 1;
        await pause(isFirstExpiry ? 0 : Math.max(retryAfterMs, backoffMs(backoff, failures)), signal);
        continue;
      }
      if (failures > 0) await pause(backoffMs(backoff, failures), signal);
    }
  }

  async #relist(signal: AbortSignal): Promise<string> {
    const { client, type, selection, pageSize, metrics } = this.#options;
    const { items, resourceVersion } = await client.list(type, {
      ...selection,
      ...(pageSize === undefined ? {} : { pageSize }),
      signal,
    });
    metrics?.lists.inc({ kind: type.kind });
    this.#hear(resourceVersion);
    const gone = new Set(this.#store.keys());
    for (const object of items) {
      const key = keyOf(object.metadata);
      gone.delete(key);
      const before = this.#store.get(key);
      if (before?.metadata.resourceVersion !== object.metadata.resourceVersion) this.#put(object);
    }
    for (const key of gone) this.#remove(key);
    metrics?.cached.set({ kind: type.kind }, this.#store.size);
    this.#heardAt = performance.now();
    if (!this.#isSynced) {
      this.#isSynced = true;
      this.#synced.resolve();
    }
    return resourceVersion;
  }

  async #follow(from: string, relistAt: number, signal: AbortSignal): Promise<number> {
    const { client, type, selection, silenceMs, metrics } = this.#options;
    let heard = 0;
    const events = client.watch(type, {
      ...selection,
      resourceVersion: from,
      signal,
      ...(silenceMs === undefined ? {} : { silenceMs }),
    });
    for await (const event of events) {
      heard += 1;
      this.#heardAt = performance.now();
      this.#take(event);
      metrics?.cached.set({ kind: type.kind }, this.#store.size);
      if (performance.now() >= relistAt) break;
    }
    return heard;
  }

  #take(event: WatchEvent<T>): void {
    if (event.type === "BOOKMARK") {
      this.#advance(event.resourceVersion);
      return;
    }
    const { object } = event;
    this.#advance(object.metadata.resourceVersion ?? "");
    const key = keyOf(object.metadata);
    if (event.type === "DELETED") {
      this.#remove(key);
      return;
    }
    const before = this.#store.get(key);
    // What `learn` took may be ahead of the watch.
    if (before === undefined || before.metadata.uid !== object.metadata.uid || isNewer(object, before)) {
      this.#put(object);
    }
  }

  /** The watch goes on from the newest version heard; one that is behind would bring old events again. */
  #advance(version: string): void {
    if (this.#version === undefined || compareVersions(version, this.#version) > 0) this.#version = version;
    this.#hear(version);
  }

  #hear(version: string): void {
    if (compareVersions(version, this.#heard) > 0) this.#heard = version;
  }

  #put(object: T): void {
    const kept = this.#options.reduce?.(withoutManagedFields(object)) ?? withoutManagedFields(object);
    const before = this.#store.set(kept);
    this.#tell(
      before === undefined ? { kind: "added", object: kept } : { kind: "changed", object: kept, before },
    );
  }

  #remove(key: string): void {
    const object = this.#store.delete(key);
    if (object !== undefined) this.#tell({ kind: "removed", object });
  }

  #tell(change: Change<T>): void {
    for (const listener of this.#listeners) {
      try {
        listener(change);
      } catch (error) {
        this.#options.log.error({ kind: this.#options.type.kind, err: error }, "a listener of a cache threw");
      }
    }
  }
}

/** They are half of an object and nobody here reads them. */
function withoutManagedFields<T extends KubeObject>(object: T): T {
  if (!("managedFields" in object.metadata)) return object;
  const { managedFields: _, ...metadata } = object.metadata as T["metadata"] & { managedFields?: unknown };
  return { ...object, metadata };
}

const isNewer = (a: KubeObject, b: KubeObject): boolean =>
  compareVersions(a.metadata.resourceVersion ?? "", b.metadata.resourceVersion ?? "") > 0;
