/**
 * Patterns in what a terminal shows. Bytes are held back until their line ends, at most 20 ms, so that a match that is
 * spread over frames is found; escape sequences inside a match do not hide it.
 */
import { CustomPattern, PatternScanner, type SessionMasking } from "@sallyport/policy";

/** Longest time that bytes are held back. */
export const holdBackMs = 20;
const heldMax = 4_096;
/** What of a long line is kept back when the rest goes. */
const overlap = 512;
const star = 0x2a;

/** Finds what a session's masks name in a text. */
export class TextPatterns {
  readonly #scanners: readonly PatternScanner[];
  readonly #custom: readonly CustomPattern[];

  constructor(masking: SessionMasking) {
    this.#scanners = masking.patterns
      .filter(({ patterns }) => patterns.length > 0)
      .map(({ patterns }) => new PatternScanner(patterns));
    this.#custom = masking.patterns.flatMap(({ customPatterns }) =>
      customPatterns.map(({ name, regex }) => new CustomPattern(name, regex)),
    );
  }

  get isEmpty(): boolean {
    return this.#scanners.length + this.#custom.length === 0;
  }

  /** Ranges of bytes that are to be hidden, in order, none overlapping. */
  find(text: Uint8Array): readonly (readonly [start: number, end: number])[] {
    const found: [number, number][] = [];
    for (const scanner of this.#scanners) {
      for (const { start, end } of scanner.scan(text)) found.push([start, end]);
    }
    for (const pattern of this.#custom)
      for (const [start, end] of pattern.find(text)) found.push([start, end]);
    found.sort((left, right) => left[0] - right[0] || right[1] - left[1]);
    const merged: [number, number][] = [];
    for (const [start, end] of found) {
      const last = merged.at(-1);
      if (last !== undefined && start < last[1]) last[1] = Math.max(last[1], end);
      else merged.push([start, end]);
    }
    return merged;
  }
}

/** Masks one stream; `emit` gets what may be shown, in order. */
export class StreamMask {
  readonly #patterns: TextPatterns;
  readonly #emit: (bytes: Buffer) => void;
  #held: Buffer = Buffer.alloc(0);
  #timer: NodeJS.Timeout | undefined;

  constructor(patterns: TextPatterns, emit: (bytes: Buffer) => void) {
    this.#patterns = patterns;
    this.#emit = emit;
  }

  push(bytes: Buffer): void {
    if (this.#patterns.isEmpty) {
      this.#emit(bytes);
      return;
    }
    this.#held = this.#held.length === 0 ? bytes : Buffer.concat([this.#held, bytes]);
    const line = this.#held.lastIndexOf(0x0a) + 1;
    const cut = this.#held.length - line > heldMax ? this.#held.length - overlap : line;
    if (cut > 0) this.#release(cut);
    if (this.#held.length > 0) this.#timer ??= setTimeout(() => this.flush(), holdBackMs);
  }

  /** Lets everything go that is held back: its time is over, or the stream is. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#held.length > 0) this.#release(this.#held.length);
  }

  #release(wanted: number): void {
    const held = this.#held;
    const { text, places } = withoutEscapes(held);
    const pieces: Buffer[] = [];
    let cut = wanted;
    let done = 0;
    for (const [start, end] of this.#patterns.find(text)) {
      const from = places[start] ?? held.length;
      const to = (places[end - 1] ?? held.length - 1) + 1;
      // A match that goes on behind the cut stays whole, for the rest of it may still come.
      if (to > cut && wanted < held.length) {
        cut = Math.min(cut, from);
        break;
      }
      // As long as what it hides: archives and layouts stay whole.
      pieces.push(held.subarray(done, from), Buffer.alloc(to - from, star));
      done = to;
    }
    if (cut > done) pieces.push(held.subarray(done, cut));
    this.#held = held.subarray(Math.max(cut, done));
    const shown = Buffer.concat(pieces);
    if (shown.length > 0) this.#emit(shown);
  }
}

/** A text without escape sequences, and where each of its bytes stood. */
function withoutEscapes(bytes: Buffer): { readonly text: Buffer; readonly places: Uint32Array } {
  const text = Buffer.allocUnsafe(bytes.length);
  const places = new Uint32Array(bytes.length);
  let length = 0;
  for (let at = 0; at < bytes.length; ) {
    if (bytes[at] === 0x1b) {
      at = endOfEscape(bytes, at);
      continue;
    }
    text[length] = bytes[at] ?? 0;
    places[length] = at;
    length += 1;
    at += 1;
  }
  return { text: text.subarray(0, length), places };
}

function endOfEscape(bytes: Buffer, start: number): number {
  const kind = bytes[start + 1];
  let at = start + 2;
  if (kind === 0x5b) {
    // CSI: parameters and intermediates, then one final byte.
    while (at < bytes.length && (bytes[at] ?? 0) < 0x40) at += 1;
    return Math.min(at + 1, bytes.length);
  }
  if (kind === 0x5d || kind === 0x50 || kind === 0x5f || kind === 0x5e) {
    // OSC, DCS and their like end with BEL or ESC \.
    while (at < bytes.length && bytes[at] !== 0x07 && bytes[at] !== 0x1b && bytes[at] !== 0x0a) at += 1;
    if (bytes[at] === 0x1b) return Math.min(at + 2, bytes.length);
    return bytes[at] === 0x0a ? at : Math.min(at + 1, bytes.length);
  }
  return Math.min(at, bytes.length);
}
