import { CustomPattern, type PatternName, PatternScanner } from "@sallyport/policy";

/** One masking entry that looks for patterns. */
export interface OutputMaskRule {
  readonly patterns: readonly PatternName[];
  readonly customPatterns: readonly { readonly name: string; readonly regex: string }[];
}

/**
 * Hides what patterns find in a stream of output. Every byte of a match becomes `*`, so that nothing of a terminal's
 * layout moves and windows of bytes stay as they were. The end of a chunk that may be the beginning of a match is held
 * until more comes or `flush` is called. Heuristic: a program may print a value in another form, or letter by letter.
 */
export class OutputMask {
  readonly #scanners: readonly PatternScanner[];
  readonly #custom: readonly CustomPattern[];
  readonly #count: (pattern: string) => void;
  #held: Buffer = Buffer.alloc(0);

  constructor(rules: readonly OutputMaskRule[], count: (pattern: string) => void = () => undefined) {
    this.#scanners = rules.flatMap(({ patterns }) =>
      patterns.length === 0 ? [] : [new PatternScanner(patterns)],
    );
    this.#custom = rules.flatMap(({ customPatterns }) =>
      customPatterns.map(({ name, regex }) => new CustomPattern(name, regex)),
    );
    this.#count = count;
  }

  /** True where nothing is looked for. */
  get isEmpty(): boolean {
    return this.#scanners.length === 0 && this.#custom.length === 0;
  }

  /** Bytes that wait for what follows them. */
  get heldBytes(): number {
    return this.#held.length;
  }

  /** What may be shown now. */
  push(chunk: Uint8Array): Buffer {
    const bytes = this.#held.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#held, chunk]);
    this.#hide(bytes);
    const end = bytes.length - tailLength(bytes);
    this.#held = Buffer.from(bytes.subarray(end));
    return bytes.subarray(0, end);
  }

  /** What was held: nothing more comes soon. */
  flush(): Buffer {
    const bytes = this.#held;
    this.#held = Buffer.alloc(0);
    return bytes;
  }

  #hide(bytes: Buffer): void {
    for (const scanner of this.#scanners) {
      for (const { start, end, pattern } of scanner.scan(bytes)) {
        this.#count(pattern);
        bytes.fill(star, start, end);
      }
    }
    for (const pattern of this.#custom) {
      for (const [start, end] of pattern.find(bytes)) {
        this.#count(pattern.name);
        bytes.fill(star, start, end);
      }
    }
  }
}

const star = 0x2a;
/** Longest end of a chunk that is held: longer values than this are found whole or not at all. */
const heldBytesMax = 256;

/** The length of the last run without white space, which the next chunk may continue; single blanks stay inside it. */
function tailLength(bytes: Buffer): number {
  let length = 0;
  while (length < bytes.length && length < heldBytesMax) {
    const byte = bytes[bytes.length - 1 - length] ?? 0;
    if (byte === 0x0a || byte === 0x0d || byte === 0x1b) break;
    // Card and phone numbers have single blanks in them; two end anything.
    if (byte === 0x20 && bytes[bytes.length - 2 - length] === 0x20) break;
    length += 1;
  }
  return length;
}
