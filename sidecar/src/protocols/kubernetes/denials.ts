/**
 * kubectl answers a refused WebSocket by asking again with SPDY, and shows the second refusal only. Both are one
 * decision: the second gets the first one's id and no record of its own.
 */
interface Denial {
  readonly id: string;
  readonly method: string;
  readonly message: string;
  readonly untilMs: number;
}

const rememberedMs = 10_000;
const rememberedMax = 1_000;

/** What was refused a moment ago, by whom and for what. */
export class Denials {
  readonly #denials = new Map<string, Denial>();

  remember(key: string, method: string, message: string, id: string): void {
    if (this.#denials.size >= rememberedMax) this.#denials.delete([...this.#denials.keys()][0] ?? "");
    this.#denials.set(key, { id, method, message, untilMs: performance.now() + rememberedMs });
  }

  /** The id of the same denial over the other method, once. */
  take(key: string, method: string, message: string): string | undefined {
    const known = this.#denials.get(key);
    this.#denials.delete(key);
    if (known === undefined || known.method === method || known.untilMs < performance.now()) return undefined;
    return known.message === message ? known.id : undefined;
  }
}
