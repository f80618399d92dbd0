/**
 * Failures counted by key, in constant memory: a window opens with the first failure, and a key that reaches its bound
 * within it is locked out for the same time. The longest unused key makes room for a new one.
 */
import { createHash } from "node:crypto";

/** When failures lock a key out. */
export interface AttemptTableOptions {
  /** Failures within the window that lock a key out; 0 locks nobody out. */
  readonly failuresMax: number;
  /** Length of the window, and of the lock-out behind it. */
  readonly windowMs: number;
  readonly keysMax: number;
  readonly monotonicMs: () => number;
}

interface Attempts {
  failures: number;
  /** When the window, or the lock-out, is over. */
  untilMs: number;
  isLocked: boolean;
}

/** Counts failures by key and says who is locked out. */
export class AttemptTable {
  private readonly options: AttemptTableOptions;
  /** In the order of last use. Keys are hashed: what a client sends as a name does not decide how much is kept. */
  private readonly attempts = new Map<string, Attempts>();

  constructor(options: AttemptTableOptions) {
    this.options = options;
  }

  get size(): number {
    return this.attempts.size;
  }

  /** Milliseconds until the key may try again; 0 where it may now. */
  lockedMs(key: string): number {
    const found = this.attempts.get(digest(key));
    if (found === undefined || !found.isLocked) return 0;
    return Math.max(0, found.untilMs - this.options.monotonicMs());
  }

  /** Counts a failure; true where this one locks the key out. */
  failed(key: string): boolean {
    const { failuresMax, windowMs, keysMax, monotonicMs } = this.options;
    if (failuresMax === 0) return false;
    const name = digest(key);
    const now = monotonicMs();
    let entry = this.attempts.get(name);
    if (entry?.isLocked === true && entry.untilMs > now) return false;
    if (entry === undefined || entry.untilMs <= now) {
      entry = { failures: 0, untilMs: now + windowMs, isLocked: false };
    }
    entry.failures += 1;
    if (entry.failures >= failuresMax) {
      entry.isLocked = true;
      entry.untilMs = now + windowMs;
    }
    this.attempts.delete(name);
    this.attempts.set(name, entry);
    if (this.attempts.size > keysMax) {
      const [oldest] = this.attempts.keys();
      if (oldest !== undefined) this.attempts.delete(oldest);
    }
    return entry.isLocked;
  }

  /** Forgets the failures of a key that has succeeded. */
  succeeded(key: string): void {
    this.attempts.delete(digest(key));
  }
}

const digest = (key: string): string => createHash("sha256").update(key).digest("base64").slice(0, 22);
