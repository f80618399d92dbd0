/** Which keys are to be worked on, and when. */
import { type BackoffBounds, backoffMs, TIMER_MAX } from "./backoff.ts";
import type { KubeMetrics } from "./metrics.ts";

/** Keys to be worked on. A key waits once, however often it is added, and is never handed to two workers at once. */
export interface WorkQueue {
  /** Keys that are ready and wait for a worker. */
  readonly depth: number;
  add(key: string): void;
  addAfter(key: string, delayMs: number): void;
  /** Adds after this key's backoff (5 ms doubling to 1000 s, with jitter) and the bucket of all keys' failures. */
  addRateLimited(key: string): void;
  /** Ends the backoff of a key that succeeded. */
  forget(key: string): void;
  /** How often a key failed in a row. */
  failuresOf(key: string): number;
  /** The next key; undefined once the queue is shut down. The taker must call `done`. */
  take(): Promise<string | undefined>;
  done(key: string): void;
  /** Takes no more keys and hands out no more. */
  shutDown(): void;
}

/** How a queue is bounded and measured. */
export interface WorkQueueOptions {
  readonly name: string;
  readonly backoff?: BackoffBounds;
  /** Failures of all keys together: 10 a second, 100 at once, where absent. */
  readonly bucket?: { readonly perSecond: number; readonly burst: number };
  readonly metrics?: KubeMetrics;
  readonly random?: () => number;
}

/** Makes an empty queue. */
export function workQueue(options: WorkQueueOptions): WorkQueue {
  return new Queue(options);
}

class Queue implements WorkQueue {
  readonly #name: string;
  readonly #backoff: BackoffBounds;
  readonly #bucket: TokenBucket;
  readonly #metrics: KubeMetrics | undefined;
  readonly #random: () => number;
  /** Ready keys in the order of their coming, with when that was. */
  readonly #ready = new Map<string, number>();
  /** Keys in work, with since when. */
  readonly #working = new Map<string, number>();
  /** Keys that came again while they were worked on. */
  readonly #again = new Set<string>();
  readonly #delayed = new Map<string, { readonly at: number; readonly timer: NodeJS.Timeout }>();
  readonly #failures = new Map<string, number>();
  readonly #takers: ((key: string | undefined) => void)[] = [];
  #isShutDown = false;

  constructor({ name, backoff, bucket, metrics, random = Math.random }: WorkQueueOptions) {
    this.#name = name;
    this.#backoff = backoff ?? { firstMs: 5, mostMs: 1_000_000 };
    this.#bucket = new TokenBucket(bucket ?? { perSecond: 10, burst: 100 });
    this.#metrics = metrics;
    this.#random = random;
    metrics?.queueDepth.set({ name }, 0);
    metrics?.samplers.add(this.#sample);
  }

  get depth(): number {
    return this.#ready.size;
  }

  add(key: string): void {
    if (this.#isShutDown) return;
    this.#undelay(key);
    if (this.#working.has(key)) {
      if (!this.#again.has(key)) this.#metrics?.queueAdds.inc({ name: this.#name });
      this.#again.add(key);
      return;
    }
    if (this.#ready.has(key)) return;
    this.#metrics?.queueAdds.inc({ name: this.#name });
    this.#makeReady(key);
  }

  addAfter(key: string, delayMs: number): void {
    if (this.#isShutDown) return;
    if (delayMs <= 0) {
      this.add(key);
      return;
    }
    // Ready already, or due earlier: the earlier time stands.
    if (this.#ready.has(key) || this.#again.has(key)) return;
    const at = performance.now() + delayMs;
    const pending = this.#delayed.get(key);
    if (pending !== undefined && pending.at <= at) return;
    this.#undelay(key);
    const isTooLong = delayMs > TIMER_MAX;
    const due = (): void => {
      this.#delayed.delete(key);
      if (isTooLong) this.addAfter(key, at - performance.now());
      else this.add(key);
    };
    const timer = setTimeout(due, Math.min(delayMs, TIMER_MAX));
    this.#delayed.set(key, { at, timer });
  }

  addRateLimited(key: string): void {
    const failures = this.failuresOf(key) + 1;
    this.#failures.set(key, failures);
    this.#metrics?.queueRetries.inc({ name: this.#name });
    this.addAfter(key, Math.max(backoffMs(this.#backoff, failures, this.#random), this.#bucket.takeMs()));
  }

  forget(key: string): void {
    this.#failures.delete(key);
  }

  failuresOf(key: string): number {
    return this.#failures.get(key) ?? 0;
  }

  take(): Promise<string | undefined> {
    if (this.#isShutDown) return Promise.resolve(undefined);
    const next = this.#ready.entries().next();
    if (next.done === true) return new Promise((resolve) => this.#takers.push(resolve));
    const [key, since] = next.value;
    this.#ready.delete(key);
    this.#start(key, since);
    return Promise.resolve(key);
  }

  done(key: string): void {
    const since = this.#working.get(key);
    if (since === undefined) return;
    this.#working.delete(key);
    this.#metrics?.workSeconds.observe({ name: this.#name }, (performance.now() - since) / 1000);
    if (this.#again.delete(key) && !this.#isShutDown) this.#makeReady(key);
  }

  shutDown(): void {
    this.#isShutDown = true;
    for (const { timer } of this.#delayed.values()) clearTimeout(timer);
    this.#delayed.clear();
    this.#ready.clear();
    this.#again.clear();
    for (const give of this.#takers.splice(0)) give(undefined);
    this.#metrics?.queueDepth.set({ name: this.#name }, 0);
    this.#metrics?.samplers.delete(this.#sample);
  }

  #makeReady(key: string): void {
    const now = performance.now();
    const give = this.#takers.shift();
    if (give !== undefined) {
      this.#start(key, now);
      give(key);
      return;
    }
    this.#ready.set(key, now);
    this.#metrics?.queueDepth.set({ name: this.#name }, this.#ready.size);
  }

  #start(key: string, since: number): void {
    const now = performance.now();
    this.#working.set(key, now);
    this.#metrics?.queueSeconds.observe({ name: this.#name }, (now - since) / 1000);
    this.#metrics?.queueDepth.set({ name: this.#name }, this.#ready.size);
  }

  #undelay(key: string): void {
    clearTimeout(this.#delayed.get(key)?.timer);
    this.#delayed.delete(key);
  }

  readonly #sample = (): void => {
    const now = performance.now();
    const seconds = [...this.#working.values()].map((since) => (now - since) / 1000);
    const name = this.#name;
    this.#metrics?.unfinishedSeconds.set(
      { name },
      seconds.reduce((sum, value) => sum + value, 0),
    );
    this.#metrics?.longestRunningSeconds.set({ name }, Math.max(0, ...seconds));
  };
}

/** Tokens may be owed: the wait grows with the debt, so that many failures spread evenly. */
class TokenBucket {
  readonly #perMs: number;
  readonly #burst: number;
  #tokens: number;
  #at = performance.now();

  constructor({ perSecond, burst }: { readonly perSecond: number; readonly burst: number }) {
    this.#perMs = perSecond / 1000;
    this.#burst = burst;
    this.#tokens = burst;
  }

  takeMs(): number {
    const now = performance.now();
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) * this.#perMs) - 1;
    this.#at = now;
    return this.#tokens >= 0 ? 0 : -this.#tokens / this.#perMs;
  }
}
