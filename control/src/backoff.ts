import { setTimeout } from "node:timers/promises";

/** Waits between attempts: doubled from the first to the longest, each drawn at random between half and whole. */
export class Backoff {
  readonly #firstMs: number;
  readonly #longestMs: number;
  #attempt = 0;

  constructor(firstMs: number, longestMs: number) {
    this.#firstMs = firstMs;
    this.#longestMs = longestMs;
  }

  /** The next wait: many that lost the same server do not come back at the same moment. */
  nextMs(): number {
    const whole = Math.min(this.#longestMs, this.#firstMs * 2 ** Math.min(this.#attempt++, 20));
    return whole / 2 + Math.random() * (whole / 2);
  }

  /** Waits for that long, or until the signal says that no more attempt is wanted. */
  async pause(signal: AbortSignal): Promise<void> {
    if (!signal.aborted) await setTimeout(this.nextMs(), undefined, { signal }).catch(() => undefined);
  }

  /** After a success. */
  reset(): void {
    this.#attempt = 0;
  }
}
