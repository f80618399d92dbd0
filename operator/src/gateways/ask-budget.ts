import { Allowance, type AllowedRate } from "@sallyport/control";

const knownMax = 10_000;

/** Counts asks by whom they are from. Of very many, those that asked longest ago are forgotten: they have most left. */
export class AskBudget {
  readonly #rate: AllowedRate;
  readonly #allowances = new Map<string, Allowance>();

  constructor(rate: AllowedRate) {
    this.#rate = rate;
  }

  /** Takes one ask off what is left; false where nothing is. */
  take(key: string): boolean {
    const allowance = this.#allowances.get(key) ?? new Allowance(this.#rate);
    if (!allowance.take()) return false;
    this.#allowances.delete(key);
    this.#allowances.set(key, allowance);
    const [oldest] = this.#allowances.keys();
    if (this.#allowances.size > knownMax && oldest !== undefined) this.#allowances.delete(oldest);
    return true;
  }
}
