/**
 * Frames on a control or recording connection, inside TLS:
 *
 *   ┌────────────────┬────────────────┬───────────────┬──────────────┐
 *   │ u32 BE: length │ u32 BE: header │ header: JSON  │ body: bytes  │
 *   │ of what follows│ length in bytes│ {"kind":"…",…}│ may be empty │
 *   └────────────────┴────────────────┴───────────────┴──────────────┘
 *
 * A frame longer than the reader's bound is an error before a byte of it is kept.
 */

/** One message with the bytes that it carries. */
export interface Frame {
  readonly header: unknown;
  readonly body: Buffer;
}

/** What the other side sent is no frame, or is longer than agreed. */
export class FrameError extends Error {
  override readonly name = "FrameError";
}

const lengthBytes = 4;
const noBytes = Buffer.alloc(0);

/** Encodes one frame; the body is not copied. */
export function encodeFrame(header: object, body?: Uint8Array): readonly Uint8Array[] {
  const text = Buffer.from(JSON.stringify(header));
  const head = Buffer.allocUnsafe(2 * lengthBytes);
  head.writeUInt32BE(lengthBytes + text.length + (body?.length ?? 0), 0);
  head.writeUInt32BE(text.length, lengthBytes);
  const first = Buffer.concat([head, text]);
  return body === undefined || body.length === 0 ? [first] : [first, body];
}

/** Splits a byte stream into frames, wherever its chunks are cut. */
export class FrameReader {
  /** May be raised once the other side has said who it is. */
  frameBytesMax: number;
  #chunks: Buffer[] = [];
  #buffered = 0;

  constructor(frameBytesMax: number) {
    this.frameBytesMax = frameBytesMax;
  }

  /** Takes a chunk and yields the frames that it completes; throws a FrameError on what is none. */
  *push(chunk: Buffer): Generator<Frame, void, undefined> {
    this.#chunks.push(chunk);
    this.#buffered += chunk.length;
    for (;;) {
      if (this.#buffered < lengthBytes) return;
      const length = this.#joined(lengthBytes).readUInt32BE(0);
      if (length < lengthBytes || length > this.frameBytesMax) throw new FrameError("a frame is too long");
      if (this.#buffered < lengthBytes + length) return;
      const bytes = this.#joined(lengthBytes + length);
      const frame = decode(bytes.subarray(lengthBytes, lengthBytes + length));
      const rest = bytes.subarray(lengthBytes + length);
      this.#chunks = rest.length > 0 ? [rest] : [];
      this.#buffered = rest.length;
      yield frame;
    }
  }

  /** The buffered bytes in one piece, once at least so many are there; a long frame is joined once. */
  #joined(atLeast: number): Buffer {
    const [first] = this.#chunks;
    if (first !== undefined && first.length >= atLeast && this.#chunks.length === 1) return first;
    if (first !== undefined && first.length >= atLeast && atLeast === lengthBytes) return first;
    const joined = Buffer.concat(this.#chunks);
    this.#chunks = [joined];
    return joined;
  }
}

function decode(bytes: Buffer): Frame {
  const headerLength = bytes.readUInt32BE(0);
  const bodyAt = lengthBytes + headerLength;
  if (bodyAt > bytes.length) throw new FrameError("a frame's header is longer than the frame");
  try {
    const header: unknown = JSON.parse(bytes.toString("utf8", lengthBytes, bodyAt));
    return { header, body: bodyAt === bytes.length ? noBytes : bytes.subarray(bodyAt) };
  } catch {
    // The parser's message would quote what was sent.
    throw new FrameError("a frame's header is not JSON");
  }
}
