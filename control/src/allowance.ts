/** How often something may be done: `burst` times at once, and again as time goes by. */
export interface AllowedRate {
  readonly burst: number;
  readonly perSecond: number;
}

/** A token bucket: full at first, refilled evenly. */
export class Allowance {
  readonly #rate: AllowedRate;
  readonly #monotonicMs: () => number;
  #left: number;
  #at: number;

  constructor(rate: AllowedRate, monotonicMs: () => number = () => performance.now()) {
    this.#rate = rate;
    this.#monotonicMs = monotonicMs;
    this.#left = rate.burst;
    this.#at = monotonicMs();
  }

  /** Takes one; false where nothing is left. */
  take(): boolean {
    const { burst, perSecond } = this.#rate;
    const now = this.#monotonicMs();
    this.#left = Math.min(burst, this.#left + ((now - this.#at) / 1000) * perSecond);
    this.#at = now;
    if (this.#left < 1) return false;
    this.#left -= 1;
    return true;
  }
}
