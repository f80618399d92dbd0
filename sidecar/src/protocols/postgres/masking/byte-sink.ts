/** Bytes that are put together piece by piece: one buffer for all rows of a chunk, in place of one for each. */
export class ByteSink {
  length = 0;
  #bytes: Buffer;

  /** `size`: how many bytes are expected; more may come. */
  constructor(size: number) {
    this.#bytes = Buffer.allocUnsafeSlow(Math.max(64, size));
  }

  /** Adds a range of another buffer. */
  range(from: Buffer, start: number, end: number): void {
    const count = end - start;
    if (count <= 0) return;
    const at = this.#room(count);
    const bytes = this.#bytes;
    // A call out of JavaScript costs more than a few bytes.
    if (count > shortBytes) from.copy(bytes, at, start, end);
    else for (let index = 0; index < count; index += 1) bytes[at + index] = from[start + index] ?? 0;
  }

  /** Adds a whole buffer. */
  bytes(piece: Buffer): void {
    this.range(piece, 0, piece.length);
  }

  /** Adds four bytes. */
  int32(value: number): void {
    this.setInt32(this.#room(4), value);
  }

  /** Adds one byte. */
  byte(value: number): void {
    this.#bytes[this.#room(1)] = value;
  }

  /** Writes over four bytes that are there already. */
  setInt32(at: number, value: number): void {
    const bytes = this.#bytes;
    bytes[at] = value >>> 24;
    bytes[at + 1] = value >>> 16;
    bytes[at + 2] = value >>> 8;
    bytes[at + 3] = value;
  }

  /** What was added since `from`; a view that later additions leave alone. */
  since(from: number): Buffer {
    return this.#bytes.subarray(from, this.length);
  }

  /** Takes back what was added behind `length`. */
  cutTo(length: number): void {
    this.length = length;
  }

  #room(count: number): number {
    const at = this.length;
    this.length = at + count;
    if (this.length > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(this.length, this.#bytes.length * 2));
      this.#bytes.copy(larger, 0, 0, at);
      this.#bytes = larger;
    }
    return at;
  }
}

const shortBytes = 24;
