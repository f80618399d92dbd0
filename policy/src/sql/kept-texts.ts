/** What was made of texts that statements come back to: definitions of views, bodies of functions. */

/** Longer texts are made anew each time: one must not push out all others. */
const textMax = 20_000;

/** A memo by text that lets go of what was used longest ago; what it gives is shared, and nobody's to change. */
export class KeptTexts<Value> {
  readonly #kept = new Map<string, Value>();
  readonly #charactersMax: number;
  #characters = 0;

  /** `charactersMax`: of all texts together. A tree takes some hundred bytes for each. */
  constructor(charactersMax: number) {
    this.#charactersMax = charactersMax;
  }

  /** What `make` gives for the text; what it throws is not kept. */
  get(text: string, make: (text: string) => Value): Value {
    const known = this.#kept.get(text);
    if (known !== undefined) {
      this.#kept.delete(text);
      this.#kept.set(text, known);
      return known;
    }
    const value = make(text);
    if (value === undefined || text.length > textMax) return value;
    // Making it may have made others, and itself.
    if (!this.#kept.has(text)) this.#characters += text.length;
    this.#kept.set(text, value);
    for (const [oldest] of this.#kept) {
      if (this.#characters <= this.#charactersMax) break;
      this.#kept.delete(oldest);
      this.#characters -= oldest.length;
    }
    return value;
  }
}
