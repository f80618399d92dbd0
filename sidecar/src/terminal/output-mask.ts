import { CustomPattern, type PatternName, PatternScanner } from "@sallyport/policy";
import { withoutEscapes } from "./escapes.ts";

/** One masking entry that looks for patterns. */
export interface OutputMaskRule {
  readonly patterns: readonly PatternName[];
  readonly customPatterns: readonly { readonly name: string; readonly regex: string }[];
}

/** A match: its bytes, and the pattern that found it. */
interface Match {
  readonly start: number;
  end: number;
  readonly pattern: string;
}

/** What masks look for in output; made once for all streams of a session. */
export class OutputPatterns {
  readonly #scanners: readonly PatternScanner[];
  readonly #custom: readonly CustomPattern[];

  constructor(rules: readonly OutputMaskRule[]) {
    this.#scanners = rules.flatMap(({ patterns }) =>
      patterns.length === 0 ? [] : [new PatternScanner(patterns)],
    );
    this.#custom = rules.flatMap(({ customPatterns }) =>
      customPatterns.map(({ name, regex }) => new CustomPattern(name, regex)),
    );
  }

  /** True where nothing is looked for. */
  get isEmpty(): boolean {
    return this.#scanners.length + this.#custom.length === 0;
  }

  /** What is to be hidden, in order, none overlapping. */
  find(text: Uint8Array): readonly Match[] {
    const found: Match[] = this.#scanners.flatMap((scanner) => [...scanner.scan(text)]);
    for (const pattern of this.#custom) {
      for (const [start, end] of pattern.find(text)) found.push({ start, end, pattern: pattern.name });
    }
    return merged(found);
  }
}

/**
 * Hides what patterns find in a stream of output. Every byte of a match becomes `*`, so that nothing of a terminal's
 * layout moves and archives and windows of bytes stay as they were; escape sequences inside a match do not hide it. A
 * line is held until it ends or `flush` is called; of a long one the end is. Heuristic: a program may print a value in
 * another form, or letter by letter.
 */
export class OutputMask {
  readonly #patterns: OutputPatterns;
  readonly #count: (pattern: string) => void;
  #held: Buffer = Buffer.alloc(0);

  constructor(
    rules: readonly OutputMaskRule[] | OutputPatterns,
    count: (pattern: string) => void = () => undefined,
  ) {
    this.#patterns = rules instanceof OutputPatterns ? rules : new OutputPatterns(rules);
    this.#count = count;
  }

  /** True where nothing is looked for. */
  get isEmpty(): boolean {
    return this.#patterns.isEmpty;
  }

  /** Bytes that wait for what follows them. */
  get heldBytes(): number {
    return this.#held.length;
  }

  /** What may be shown now. */
  push(chunk: Uint8Array): Buffer {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    if (this.isEmpty) return bytes;
    this.#held = this.#held.length === 0 ? bytes : Buffer.concat([this.#held, bytes]);
    const line = this.#held.lastIndexOf(newline) + 1;
    const cut = this.#held.length - line > heldMax ? this.#held.length - overlap : line;
    const shown = cut > 0 ? this.#release(cut) : Buffer.alloc(0);
    // What is kept must not be the reader's buffer, which it may fill again.
    this.#held = Buffer.from(this.#held);
    return shown;
  }

  /** What was held: nothing more comes soon. */
  flush(): Buffer {
    return this.#held.length === 0 ? this.#held : this.#release(this.#held.length);
  }

  #release(wanted: number): Buffer {
    const held = this.#held;
    const { text, places } = withoutEscapes(held);
    const pieces: Buffer[] = [];
    let cut = wanted;
    let done = 0;
    for (const { start: from, end: to, pattern } of this.#matches(text, places)) {
      // A match that goes on behind the cut stays whole, for the rest of it may still come.
      if (to > cut && wanted < held.length) {
        cut = Math.min(cut, from);
        break;
      }
      this.#count(pattern);
      pieces.push(held.subarray(done, from), Buffer.alloc(to - from, star));
      done = to;
    }
    if (cut > done) pieces.push(held.subarray(done, cut));
    this.#held = held.subarray(Math.max(cut, done));
    const [only] = pieces;
    return only !== undefined && pieces.length === 1 ? only : Buffer.concat(pieces);
  }

  /**
   * Where in `#held` something is found: in what a terminal would show, and in the bytes as they are. A terminal shows
   * nothing of a string (`ESC P` and the like), but a program that reads the output does.
   */
  #matches(text: Buffer, places: Uint32Array | undefined): readonly Match[] {
    const held = this.#held;
    if (places === undefined) return this.#patterns.find(text);
    const shown = this.#patterns.find(text).map(({ start, end, pattern }) => ({
      start: places[start] ?? held.length,
      end: (places[end - 1] ?? held.length - 1) + 1,
      pattern,
    }));
    return merged([...shown, ...this.#patterns.find(held)]);
  }
}

/** In order, those that overlap as one. */
function merged(found: Match[]): readonly Match[] {
  found.sort((left, right) => left.start - right.start || right.end - left.end);
  const whole: Match[] = [];
  for (const match of found) {
    const last = whole.at(-1);
    if (last !== undefined && match.start < last.end) last.end = Math.max(last.end, match.end);
    else whole.push({ ...match });
  }
  return whole;
}

const star = 0x2a;
const newline = 0x0a;
/** Longest end of a line that is held whole. */
const heldMax = 4_096;
/** What of a longer one is kept back when the rest goes. */
const overlap = 512;
