/** How often somebody may ask: so many at once, and one more every while. */
export interface AskRate {
  readonly burst: number;
  readonly perSecond: number;
}

const knownMax = 10_000;

/** Counts asks by whom they are from. Of very many, those that asked longest ago are forgotten: they have most left. */
export class AskBudget {
  readonly #rate: AskRate;
  readonly #monotonicMs: () => number;
  readonly #left = new Map<string, { readonly tokens: number; readonly at: number }>();

  constructor(rate: AskRate, monotonicMs: () => number = () => performance.now()) {
    this.#rate = rate;
    this.#monotonicMs = monotonicMs;
  }

  /** Takes one ask off what is left; false where nothing is. */
  take(key: string): boolean {
    const { burst, perSecond } = this.#rate;
    const now = this.#monotonicMs();
    const known = this.#left.get(key) ?? { tokens: burst, at: now };
    const tokens = Math.min(burst, known.tokens + ((now - known.at) / 1000) * perSecond);
    if (tokens < 1) return false;
    this.#left.delete(key);
    this.#left.set(key, { tokens: tokens - 1, at: now });
    const [oldest] = this.#left.keys();
    if (this.#left.size > knownMax && oldest !== undefined) this.#left.delete(oldest);
    return true;
  }
}
