/**
 * asciicast v2 (https://docs.asciinema.org/manual/asciicast/v2/): a header line, then one line for each event.
 *
 *     {"version": 2, "width": 80, "height": 24, "timestamp": 1700000000}
 *     [0.25, "o", "hello\r\n"]
 *     [1.5, "r", "120x40"]
 *
 * Codes of our own, which players ignore: `e` for standard error, `b` and `eb` for bytes that are no UTF-8 (base64).
 */

/** What an event shows: standard output or error, or a new size. */
export type AsciicastEvent = "o" | "e" | "r";

/** The streams of one command as lines of an asciicast; never what was typed. */
export class AsciicastWriter {
  readonly #startedMs: number;
  readonly #header: string;
  /** The beginning of a character whose rest has not come yet, by stream. */
  readonly #rest = new Map<AsciicastEvent, Buffer>();
  #hasHeader = false;

  constructor(options: {
    readonly width: number;
    readonly height: number;
    /** Milliseconds since the epoch. */
    readonly nowMs: number;
    readonly term?: string;
    readonly command?: string;
  }) {
    this.#startedMs = options.nowMs;
    this.#header = JSON.stringify({
      version: 2,
      width: options.width,
      height: options.height,
      timestamp: Math.floor(options.nowMs / 1000),
      ...(options.command === undefined ? {} : { command: options.command }),
      env: { TERM: options.term ?? "" },
    });
  }

  /** Lines for a chunk of output, the header before the first; empty where no character is whole yet. */
  output(kind: "o" | "e", chunk: Uint8Array, nowMs: number): string {
    const before = this.#rest.get(kind);
    const bytes = before === undefined ? Buffer.from(chunk) : Buffer.concat([before, chunk]);
    const end = wholeCharacters(bytes);
    this.#rest.delete(kind);
    if (end < bytes.length) this.#rest.set(kind, Buffer.from(bytes.subarray(end)));
    return end === 0 ? "" : this.#line(kind, bytes.subarray(0, end), nowMs);
  }

  /** A line for a new size of the terminal. */
  resized(width: number, height: number, nowMs: number): string {
    return this.#event("r", `${width}x${height}`, nowMs);
  }

  /** What was left of a character that never became whole. */
  end(nowMs: number): string {
    let lines = "";
    for (const [kind, bytes] of this.#rest) lines += this.#line(kind, bytes, nowMs);
    this.#rest.clear();
    return lines;
  }

  #line(kind: AsciicastEvent, bytes: Buffer, nowMs: number): string {
    const text = bytes.toString("utf8");
    if (Buffer.byteLength(text) === bytes.length && !text.includes("\ufffd")) {
      return this.#event(kind, text, nowMs);
    }
    return this.#event(kind === "e" ? "eb" : "b", bytes.toString("base64"), nowMs);
  }

  #event(code: string, data: string, nowMs: number): string {
    const seconds = Math.max(0, nowMs - this.#startedMs) / 1000;
    const header = this.#hasHeader ? "" : `${this.#header}\n`;
    this.#hasHeader = true;
    return `${header}${JSON.stringify([Number(seconds.toFixed(6)), code, data])}\n`;
  }
}

/** Where the last whole character of UTF-8 ends; bytes that can never become one count as whole. */
function wholeCharacters(bytes: Buffer): number {
  const last = bytes.length;
  for (let back = 1; back <= Math.min(3, last); back += 1) {
    const byte = bytes[last - back] ?? 0;
    if (byte < 0x80) return last;
    if (byte >= 0xc0) {
      const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
      return length > back ? last - back : last;
    }
  }
  return last;
}
