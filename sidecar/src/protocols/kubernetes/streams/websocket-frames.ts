/** WebSocket frames (RFC 6455) as they pass: payload comes out in slices as it arrives, so that no frame is held whole. */

/** A slice of a message, or a whole control frame. */
export interface Piece {
  /** 1 text, 2 binary, 8 close, 9 ping, 10 pong. */
  readonly opcode: number;
  readonly bytes: Buffer;
  /** Of a message: its first slice, its last one. */
  readonly isFirst: boolean;
  readonly isLast: boolean;
}

/** A peer broke the framing. */
export class FrameError extends Error {}

const lengthMax = 1n << 40n;

/** Reads the frames of one side; chunks are its own from then on, and unmasked where they stand. */
export class FrameReader {
  readonly #isMasked: boolean;
  #head: Buffer = Buffer.alloc(0);
  #left = 0;
  #isFin = false;
  #opcode = 0;
  #message = 0;
  #isFirst = false;
  #mask: Buffer | undefined;
  #maskAt = 0;
  #control: Buffer[] = [];
  #isInFrame = false;

  /** `isMasked`: frames of a client are, those of a server are not. */
  constructor(isMasked: boolean) {
    this.#isMasked = isMasked;
  }

  *read(chunk: Buffer): Generator<Piece, void, undefined> {
    let rest = chunk;
    while (rest.length > 0 || (this.#isInFrame && this.#left === 0)) {
      if (!this.#isInFrame) {
        this.#head = this.#head.length === 0 ? rest : Buffer.concat([this.#head, rest]);
        const length = this.#begin(this.#head);
        if (length === undefined) return;
        rest = this.#head.subarray(length);
        this.#head = Buffer.alloc(0);
        this.#isInFrame = true;
      }
      const taken = rest.subarray(0, Math.min(rest.length, this.#left));
      rest = rest.subarray(taken.length);
      this.#left -= taken.length;
      const bytes = this.#unmasked(taken);
      const isEnd = this.#left === 0;
      if (isEnd) this.#isInFrame = false;
      if (this.#opcode >= 8) {
        this.#control.push(bytes);
        if (isEnd) {
          yield { opcode: this.#opcode, bytes: Buffer.concat(this.#control), isFirst: true, isLast: true };
          this.#control = [];
        } else if (rest.length === 0) return;
        continue;
      }
      const isLast = isEnd && this.#isFin;
      if (bytes.length > 0 || isLast) {
        yield { opcode: this.#message, bytes, isFirst: this.#isFirst, isLast };
        this.#isFirst = false;
      }
      if (isLast) this.#message = 0;
      if (!isEnd && rest.length === 0) return;
    }
  }

  /** Reads a frame's head; its length, or undefined where more is needed. */
  #begin(head: Buffer): number | undefined {
    if (head.length < 2) return undefined;
    const first = head[0] ?? 0;
    const second = head[1] ?? 0;
    const opcode = first & 0x0f;
    const isControl = opcode >= 8;
    if ((first & 0x70) !== 0) throw new FrameError("reserved bits are set");
    if (![0, 1, 2, 8, 9, 10].includes(opcode)) throw new FrameError("an unknown opcode");
    if (((second & 0x80) !== 0) !== this.#isMasked) throw new FrameError("a frame is masked the wrong way");
    let length = second & 0x7f;
    let at = 2;
    if (length === 126) {
      if (head.length < 4) return undefined;
      length = head.readUInt16BE(2);
      at = 4;
    } else if (length === 127) {
      if (head.length < 10) return undefined;
      const long = head.readBigUInt64BE(2);
      if (long > lengthMax) throw new FrameError("a frame is too long");
      length = Number(long);
      at = 10;
    }
    const isFin = (first & 0x80) !== 0;
    if (isControl && (length > 125 || !isFin))
      throw new FrameError("a control frame is too long or in parts");
    if (this.#isMasked) {
      if (head.length < at + 4) return undefined;
      this.#mask = Buffer.from(head.subarray(at, at + 4));
      at += 4;
    }
    this.#maskAt = 0;
    this.#opcode = opcode;
    this.#left = length;
    if (isControl) return at;
    this.#isFin = isFin;
    if (opcode === 0 ? this.#message === 0 : this.#message !== 0) throw new FrameError("frames out of order");
    if (opcode !== 0) {
      this.#message = opcode;
      this.#isFirst = true;
    }
    return at;
  }

  #unmasked(bytes: Buffer): Buffer {
    const mask = this.#mask;
    if (mask === undefined || bytes.length === 0) return bytes;
    const start = this.#maskAt;
    this.#maskAt = (start + bytes.length) & 3;
    if (mask.readUInt32LE(0) === 0) return bytes;
    // In place, four bytes at a time: what was read is ours, and memory for each slice would keep the collector busy.
    const key = (at: number) => mask[(start + at) & 3] ?? 0;
    let at = 0;
    for (; at < bytes.length && ((bytes.byteOffset + at) & 3) !== 0; at += 1)
      bytes[at] = (bytes[at] ?? 0) ^ key(at);
    const count = (bytes.length - at) >> 2;
    // A view of no words may still not begin where no word can.
    if (count > 0) {
      const words = new Int32Array(bytes.buffer, bytes.byteOffset + at, count);
      const word =
        new Int32Array(Uint8Array.of(key(at), key(at + 1), key(at + 2), key(at + 3)).buffer)[0] ?? 0;
      for (let index = 0; index < count; index += 1) words[index] = (words[index] ?? 0) ^ word;
    }
    for (at += count * 4; at < bytes.length; at += 1) bytes[at] = (bytes[at] ?? 0) ^ key(at);
    return bytes;
  }
}

/**
 * One whole frame. Toward a server it is masked, as a client's must be, with a key of zeros: the connection is ours and
 * encrypted, and no proxy between could take the bytes for something else.
 */
export function frame(opcode: number, payload: readonly Buffer[], isMasked: boolean): Buffer[] {
  const length = payload.reduce((sum, { length: one }) => sum + one, 0);
  const mask = isMasked ? 0x80 : 0;
  const first = 0x80 | opcode;
  const key = isMasked ? [0, 0, 0, 0] : [];
  if (length < 126) return [Buffer.from([first, mask | length, ...key]), ...payload];
  if (length < 65_536)
    return [Buffer.from([first, mask | 126, length >> 8, length & 0xff, ...key]), ...payload];
  const head = Buffer.alloc(10 + key.length);
  head[0] = first;
  head[1] = mask | 127;
  head.writeBigUInt64BE(BigInt(length), 2);
  return [head, ...payload];
}
