/** Patterns that a policy brings itself: on a linear-time engine, so that no pattern can stop the gateway. */
import { RE2JS } from "re2js";

/** A pattern of a policy, behind the longest literal that every match of it must hold. */
export class CustomPattern {
  readonly name: string;
  readonly #regex: ReturnType<typeof RE2JS.compile>;
  readonly #literal: Buffer | undefined;

  constructor(name: string, regex: string) {
    this.name = name;
    this.#regex = RE2JS.compile(regex);
    const literal = literalOf(regex);
    this.#literal = literal === undefined ? undefined : Buffer.from(literal);
  }

  /** Byte ranges of all matches. */
  find(value: Uint8Array): readonly (readonly [start: number, end: number])[] {
    const bytesOf = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    if (this.#literal !== undefined && !bytesOf.includes(this.#literal)) return [];
    const text = bytesOf.toString("utf8");
    const matcher = this.#regex.matcher(text);
    const found: [number, number][] = [];
    let bytes = 0;
    let characters = 0;
    while (matcher.find()) {
      const start = matcher.start();
      const end = matcher.end();
      if (end === start) continue;
      bytes += Buffer.byteLength(text.slice(characters, start));
      const length = Buffer.byteLength(text.slice(start, end));
      found.push([bytes, bytes + length]);
      bytes += length;
      characters = end;
    }
    return found;
  }
}

/** The longest run of plain characters that every match must hold; undefined where none of two or more is certain. */
function literalOf(regex: string): string | undefined {
  // Groups, alternatives and flags may make any character optional: no prefilter.
  if (/[|()]/.test(regex)) return undefined;
  let longest = "";
  let current = "";
  for (let index = 0; index < regex.length; index += 1) {
    const character = regex.charAt(index);
    const next = regex.charAt(index + 1);
    const isPlain = /[\p{L}\p{N}_:@#%&=<>~`"' ,;!/-]/u.test(character);
    const isOptional = next === "?" || next === "*" || next === "{";
    if (isPlain && !isOptional) {
      current += character;
      continue;
    }
    if (current.length > longest.length) longest = current;
    current = "";
    if (character === "\\") index += 1;
    else if (character === "[") {
      index = classEnd(regex, index);
    } else if (character === "{") {
      while (index < regex.length && regex.charAt(index) !== "}") index += 1;
    }
  }
  if (current.length > longest.length) longest = current;
  return longest.length >= 2 ? longest : undefined;
}

/** The index of the `]` that ends the class that begins at `start`. */
function classEnd(regex: string, start: number): number {
  let index = start + 1;
  if (regex.charAt(index) === "^") index += 1;
  if (regex.charAt(index) === "]") index += 1;
  for (; index < regex.length; index += 1) {
    if (regex.charAt(index) === "\\") index += 1;
    else if (regex.charAt(index) === "]") return index;
  }
  return index;
}
