const nothing: Buffer = Buffer.alloc(0);

/**
 * Bytes that come in pieces, which a peer may make as small as it likes: together they take at most twice their length.
 * Pieces that were kept as they come take a hundred bytes and more each.
 */
export class GatheredBytes {
  #room = nothing;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** Adds a copy. */
  push(piece: Uint8Array): void {
    const length = this.#length + piece.length;
    if (length > this.#room.length) {
      const room = Buffer.allocUnsafeSlow(Math.max(length, 2 * this.#room.length));
      this.#room.copy(room, 0, 0, this.#length);
      this.#room = room;
    }
    this.#room.set(piece, this.#length);
    this.#length = length;
  }

  /** Everything in order, in memory that is the caller's; none is kept. */
  take(): Buffer {
    const bytes = this.#room.subarray(0, this.#length);
    this.#room = nothing;
    this.#length = 0;
    return bytes;
  }
}
