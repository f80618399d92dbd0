/**
 * Record lines as bytes, written straight into one growing buffer: at ten thousand commands a second, strings that are
 * joined, hashed over and encoded later cost more than everything else that a recording does.
 */
export class LineWriter {
  private bytes: Buffer;
  private end = 0;

  constructor(capacity: number) {
    this.bytes = Buffer.allocUnsafeSlow(capacity);
  }

  get length(): number {
    return this.end;
  }

  /** Everything written so far; the bytes do not change any more, whatever is written after them. */
  written(from = 0): Buffer {
    return this.bytes.subarray(from, this.end);
  }

  /** Takes back what was written behind `length`. */
  cut(length: number): void {
    this.end = Math.min(this.end, length);
  }

  /** Bytes as they are. */
  literal(literal: Uint8Array): void {
    const { length } = literal;
    const bytes = this.room(length);
    if (length > loopedLength) bytes.set(literal, this.end);
    else for (let at = 0, to = this.end; at < length; at += 1, to += 1) bytes[to] = literal[at] ?? 0;
    this.end += length;
  }

  /** Any text, as UTF-8. */
  text(text: string): void {
    // Three bytes for a character are more than any needs; for a long text that is too much to allocate.
    const bytes = this.room(text.length > shortLength ? Buffer.byteLength(text) : 3 * text.length);
    this.end += bytes.write(text, this.end, "utf8");
  }

  /** A whole number from 0. */
  number(value: number): void {
    // The common ones without a string; what is no such number is printed as JavaScript does.
    if (!(value >= 0 && value < 1e9) || value !== (value | 0)) {
      this.text(String(value));
      return;
    }
    const bytes = this.room(10);
    let at = this.end;
    for (let bound = 10; bound <= value; bound *= 10) at += 1;
    this.end = at + 1;
    let rest = value | 0;
    do {
      bytes[at--] = 0x30 + (rest % 10);
      rest = (rest / 10) | 0;
    } while (rest > 0);
  }

  /** A JSON string, byte for byte what JSON.stringify gives. */
  json(text: string): void {
    const { length } = text;
    if (length > shortLength) {
      this.text(JSON.stringify(text));
      return;
    }
    const bytes = this.room(2 * length + 2);
    const start = this.end;
    let at = start;
    bytes[at++] = quote;
    for (let index = 0; index < length; index += 1) {
      const code = text.charCodeAt(index);
      if (code < 0x20 || code > 0x7e) {
        this.text(JSON.stringify(text));
        return;
      }
      if (code === quote || code === backslash) bytes[at++] = backslash;
      bytes[at++] = code;
    }
    bytes[at++] = quote;
    this.end = at;
  }

  /** The buffer, with room for so many bytes more. */
  private room(length: number): Buffer {
    const needed = this.end + length;
    if (needed > this.bytes.length) {
      const bytes = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.bytes.length));
      this.bytes.copy(bytes, 0, 0, this.end);
      this.bytes = bytes;
    }
    return this.bytes;
  }
}

const quote = 0x22;
const backslash = 0x5c;
/** Up to here a loop is faster than calls out of JavaScript. */
const shortLength = 512;
const loopedLength = 32;
