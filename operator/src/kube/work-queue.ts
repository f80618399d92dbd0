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
