/**
 * A journal as it lies on the recorder's volume, encrypted piece by piece:
 *
 *   "sallyport sealed journal v1\n"
 *   ┌───────────────┬─────────────────────────────────────┐
 *   │ u32 BE: bytes │ nonce (12) ‖ ciphertext ‖ tag (16)  │   one a write
 *   └───────────────┴─────────────────────────────────────┘
 *
 * A piece is bound to its session and to its place in the plain text, so that none can be moved, dropped or repeated
 * unnoticed. Nonces are drawn at random under a key of the file's own.
 */
import { createReadStream } from "node:fs";
import { open256, seal256, sealBytes } from "./namespace-keys.ts";
import type { VolumeStorage } from "./volume-storage.ts";

/** Where a sealed file ends: so many bytes of plain text in so many of the file. */
export interface SealedEnd {
  readonly plain: number;
  readonly raw: number;
}

/** What stands where the pieces end: nothing, a piece that was not written whole, or bytes that are no piece. */
export type SealedTail = "none" | "torn" | "damaged";

/** A reading of a sealed file; `end` and `tail` count once the chunks are read. */
export interface SealedReading {
  readonly chunks: AsyncGenerator<Buffer, void, undefined>;
  end: SealedEnd;
  tail: SealedTail;
}

const magic = Buffer.from("sallyport sealed journal v1\n");
const lengthBytes = 4;
/** What a piece takes on the disk beside its text. */
export const pieceBytes = lengthBytes + sealBytes;
/** Writers seal at most a quarter of this at once. */
const pieceBytesMax = 1024 * 1024;

/** Appends to one file; calls must not overlap. */
export class SealedFile {
  readonly #storage: VolumeStorage;
  readonly #key: Buffer;
  readonly #sessionId: string;
  readonly #fd: number;
  #end: SealedEnd;
  #synced: SealedEnd;

  private constructor(storage: VolumeStorage, key: Buffer, sessionId: string, fd: number, end: SealedEnd) {
    this.#storage = storage;
    this.#key = key;
    this.#sessionId = sessionId;
    this.#fd = fd;
    this.#end = end;
    this.#synced = end;
  }

  /** Begins a file that must not exist yet. */
  static async create(
    storage: VolumeStorage,
    path: string,
    key: Buffer,
    sessionId: string,
  ): Promise<SealedFile> {
    const fd = await storage.create(path);
    try {
      await writeWhole(storage, fd, magic, 0);
      await storage.syncFolder(path.slice(0, path.lastIndexOf("/")));
    } catch (error) {
      await storage.close(fd);
      await storage.remove(path).catch(() => undefined);
      throw error;
    }
    const end = { plain: 0, raw: magic.length };
    return new SealedFile(storage, key, sessionId, fd, end);
  }

  /** Goes on with a file that was read up to `end`; what follows there is cut off. */
  static async resume(
    storage: VolumeStorage,
    path: string,
    key: Buffer,
    sessionId: string,
    end: SealedEnd,
  ): Promise<SealedFile> {
    const fd = await storage.open(path);
    try {
      await storage.truncate(fd, end.raw);
      if (end.raw < magic.length) await writeWhole(storage, fd, magic, 0);
      await storage.sync(fd);
    } catch (error) {
      await storage.close(fd);
      throw error;
    }
    return new SealedFile(storage, key, sessionId, fd, { ...end, raw: Math.max(end.raw, magic.length) });
  }

  get end(): SealedEnd {
    return this.#end;
  }

  get synced(): SealedEnd {
    return this.#synced;
  }

  /** Seals and writes a piece; where that fails the file ends where it did. */
  async append(plain: Uint8Array): Promise<void> {
    const { plain: at, raw } = this.#end;
    const sealed = seal256(this.#key, plain, aadOf(this.#sessionId, at));
    const length = Buffer.allocUnsafe(lengthBytes);
    length.writeUInt32BE(sealed.length);
    try {
      await writeWhole(this.#storage, this.#fd, Buffer.concat([length, sealed]), raw);
    } catch (error) {
      // What was written of it would read as a torn end; the next piece goes to the same place either way.
      await this.#storage.truncate(this.#fd, raw).catch(() => undefined);
      throw error;
    }
    this.#end = { plain: at + plain.length, raw: raw + lengthBytes + sealed.length };
  }

  /** Makes what is written survive a loss of power. */
  async sync(): Promise<void> {
    const target = this.#end;
    await this.#storage.sync(this.#fd);
    if (target.raw > this.#synced.raw) this.#synced = target;
  }

  /** After a failed sync nobody knows what the disk holds beyond the last good one: that is cut off. */
  async rewind(): Promise<void> {
    this.#end = this.#synced;
    await this.#storage.truncate(this.#fd, this.#synced.raw);
  }

  close(): Promise<void> {
    return this.#storage.close(this.#fd);
  }
}

/** Reads a sealed file's plain text, as far as it is whole; a file that is not there rejects with ENOENT. */
export function readSealed(path: string, key: Buffer, sessionId: string): SealedReading {
  const reading: SealedReading = {
    chunks: chunksOf(path, (raw) => step(reading, key, sessionId, raw)),
    end: { plain: 0, raw: 0 },
    tail: "none",
  };
  return reading;
}

async function* chunksOf(path: string, next: (raw: Buffer) => Step): AsyncGenerator<Buffer, void, undefined> {
  let pending: Buffer = Buffer.alloc(0);
  let isOver = false;
  for await (const chunk of createReadStream(path, { highWaterMark: 256 * 1024 }) as AsyncIterable<Buffer>) {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    for (;;) {
      const { plain, taken } = next(pending);
      pending = pending.subarray(taken);
      if (taken === 0) break;
      if (plain.length > 0) yield plain;
    }
    // Past damage nothing can be read; past a piece that is too long to wait for neither.
    isOver = pending.length > pieceBytesMax + lengthBytes;
    if (isOver) break;
  }
}

interface Step {
  readonly plain: Buffer;
  /** 0: no further whole piece is there. */
  readonly taken: number;
}

const nothing: Step = { plain: Buffer.alloc(0), taken: 0 };

function step(reading: SealedReading, key: Buffer, sessionId: string, raw: Buffer): Step {
  const { plain: at, raw: rawAt } = reading.end;
  if (reading.tail === "damaged") return nothing;
  if (rawAt === 0) {
    if (raw.length === 0) return nothing;
    const isWhole = raw.length >= magic.length;
    const isMagic = raw.subarray(0, magic.length).equals(magic.subarray(0, raw.length));
    reading.tail = isMagic ? (isWhole ? "none" : "torn") : "damaged";
    if (!isWhole || !isMagic) return nothing;
    reading.end = { plain: 0, raw: magic.length };
    return { plain: Buffer.alloc(0), taken: magic.length };
  }
  reading.tail = raw.length === 0 ? "none" : "torn";
  if (raw.length < lengthBytes) return nothing;
  const length = raw.readUInt32BE(0);
  if (length <= sealBytes || length > pieceBytesMax) {
    // A file system may leave zeros where a write did not get through.
    reading.tail = raw.every((byte) => byte === 0) ? "torn" : "damaged";
    return nothing;
  }
  if (raw.length < lengthBytes + length) return nothing;
  const sealed = raw.subarray(lengthBytes, lengthBytes + length);
  const plain = open256(key, sealed, aadOf(sessionId, at));
  if (plain === undefined) {
    reading.tail = "damaged";
    return nothing;
  }
  reading.end = { plain: at + plain.length, raw: rawAt + lengthBytes + length };
  reading.tail = "none";
  return { plain, taken: lengthBytes + length };
}

function aadOf(sessionId: string, at: number): Buffer {
  return Buffer.from(`sallyport sealed journal v1\n${sessionId}\n${at}`);
}

async function writeWhole(storage: VolumeStorage, fd: number, bytes: Buffer, at: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const taken = await storage.write(fd, bytes.subarray(done), at + done);
    if (taken <= 0) throw new Error("storage took no bytes");
    done += taken;
  }
}
