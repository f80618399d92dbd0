/**
 * SPDY/3.1 as Kubernetes uses it: control frames come out whole with their headers in plain, data in slices. Headers
 * are compressed with one dictionary and one state for each direction, so that whoever leaves one out must write all
 * others anew: they go on as stored blocks, which any inflater reads.
 */
import { createInflate, type Inflate } from "node:zlib";
import { FrameError } from "./websocket-frames.ts";

/** A control frame, with its headers in plain where it has any. */
export interface ControlFrame {
  readonly kind: "control";
  readonly type: number;
  readonly flags: number;
  readonly body: Buffer;
}

/** A slice of a stream's data. */
export interface DataSlice {
  readonly kind: "data";
  readonly stream: number;
  readonly bytes: Buffer;
  /** True for the last slice of a stream's direction. */
  readonly isFin: boolean;
}

/** The control frames that Kubernetes uses. */
export const frameTypes = {
  synStream: 1,
  synReply: 2,
  rstStream: 3,
  ping: 6,
  goAway: 7,
  headers: 8,
} as const;
/** On the last frame of a side of a stream. */
export const finFlag = 1;
const controlMax = 64 * 1024;

/** Splits one direction into frames; headers stay compressed. */
export class SpdyReader {
  #head: Buffer = Buffer.alloc(0);
  #left = 0;
  #stream = 0;
  #isFin = false;

  *read(chunk: Buffer): Generator<ControlFrame | DataSlice, void, undefined> {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#left > 0) {
        const bytes = rest.subarray(0, Math.min(rest.length, this.#left));
        rest = rest.subarray(bytes.length);
        this.#left -= bytes.length;
        yield { kind: "data", stream: this.#stream, bytes, isFin: this.#isFin && this.#left === 0 };
        continue;
      }
      const held = this.#head.length === 0 ? rest : Buffer.concat([this.#head, rest]);
      this.#head = Buffer.alloc(0);
      if (held.length < 8) {
        this.#head = held;
        return;
      }
      const word = held.readUInt32BE(0);
      const flags = held[4] ?? 0;
      const length = held.readUIntBE(5, 3);
      if (word >>> 31 === 0) {
        this.#stream = word;
        this.#isFin = (flags & finFlag) !== 0;
        this.#left = length;
        rest = held.subarray(8);
        if (length === 0) yield { kind: "data", stream: word, bytes: Buffer.alloc(0), isFin: this.#isFin };
        continue;
      }
      if (((word >>> 16) & 0x7fff) !== 3) throw new FrameError("a frame of another version of SPDY");
      if (length > controlMax) throw new FrameError("a control frame is too long");
      if (held.length < 8 + length) {
        this.#head = held;
        return;
      }
      yield { kind: "control", type: word & 0xffff, flags, body: Buffer.from(held.subarray(8, 8 + length)) };
      rest = held.subarray(8 + length);
    }
  }
}

/** A control frame as bytes. */
export function controlFrame(type: number, flags: number, body: Buffer): Buffer[] {
  const head = Buffer.alloc(8);
  head.writeUInt32BE((0x8003_0000 | type) >>> 0, 0);
  head[4] = flags;
  head.writeUIntBE(body.length, 5, 3);
  return [head, body];
}

/** Data of a stream as bytes. */
export function dataFrame(stream: number, bytes: Buffer, isFin: boolean): Buffer[] {
  const pieces: Buffer[] = [];
  let rest = bytes;
  do {
    const part = rest.subarray(0, dataMax);
    rest = rest.subarray(part.length);
    const head = Buffer.alloc(8);
    head.writeUInt32BE(stream, 0);
    head[4] = isFin && rest.length === 0 ? finFlag : 0;
    head.writeUIntBE(part.length, 5, 3);
    pieces.push(head, part);
  } while (rest.length > 0);
  return pieces;
}
const dataMax = 0xff_ffff;

/** Where the compressed headers begin in the body of a frame of that type; undefined: it has none. */
export function headersAt(type: number): number | undefined {
  if (type === frameTypes.synStream) return 10;
  if (type === frameTypes.synReply || type === frameTypes.headers) return 4;
  return undefined;
}

const plainHeadersMax = 64 * 1024;

/** Inflates the header blocks of one direction, in order. */
export class HeaderInflater {
  readonly #inflate: Inflate = createInflate({ dictionary });
  #failure: Error | undefined;
  #isClosed = false;

  constructor() {
    this.#inflate.on("error", (error) => {
      this.#failure ??= error;
    });
  }

  /** The block in plain. */
  read(block: Buffer): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      let length = 0;
      const onData = (chunk: Buffer) => {
        length += chunk.length;
        if (length <= plainHeadersMax) chunks.push(chunk);
        else fail(new FrameError("headers are too long"));
      };
      const fail = (error: Error) => {
        this.#inflate.off("data", onData);
        this.close();
        reject(error);
      };
      if (this.#isClosed) {
        reject(this.#failure ?? new FrameError("the headers are closed"));
        return;
      }
      this.#inflate.on("data", onData);
      this.#inflate.once("error", fail);
      this.#inflate.write(block, (error) => {
        // What was inflated is handed out before this is called, or in the same turn.
        setImmediate(() => {
          this.#inflate.off("data", onData);
          this.#inflate.off("error", fail);
          if (error || this.#failure) reject(error ?? this.#failure ?? new FrameError("headers"));
          else resolve(Buffer.concat(chunks));
        });
      });
    });
  }

  close(): void {
    this.#isClosed = true;
    this.#inflate.destroy();
  }
}

/** Writes header blocks of one direction, each as a stored block with a flush behind it. */
export class HeaderStorer {
  #isBegun = false;

  write(plain: Buffer): Buffer {
    if (plain.length > 0xffff) throw new FrameError("headers are too long");
    const length = Buffer.from([0, 0, 0, 0, 0]);
    length.writeUInt16LE(plain.length, 1);
    length.writeUInt16LE(plain.length ^ 0xffff, 3);
    const begun = this.#isBegun;
    this.#isBegun = true;
    return Buffer.concat([...(begun ? [] : [zlibHead]), length, plain, emptyBlock]);
  }
}

/** Reads a block of names and values. */
export function readHeaders(plain: Buffer): ReadonlyMap<string, string> {
  const headers = new Map<string, string>();
  let at = 0;
  const number = () => {
    if (at + 4 > plain.length) throw new FrameError("headers end too early");
    const value = plain.readUInt32BE(at);
    at += 4;
    return value;
  };
  const text = () => {
    const length = number();
    if (at + length > plain.length) throw new FrameError("headers end too early");
    const value = plain.toString("utf8", at, at + length);
    at += length;
    return value;
  };
  const count = number();
  if (count > 100) throw new FrameError("too many headers");
  for (let index = 0; index < count; index += 1) {
    const name = text().toLowerCase();
    if (headers.has(name)) throw new FrameError("a header is given twice");
    headers.set(name, text());
  }
  if (at !== plain.length) throw new FrameError("bytes behind the headers");
  return headers;
}

const dictionary = spdyDictionary();
/** Deflate with a dictionary, and the dictionary's check sum. */
const zlibHead = Buffer.from([0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2]);
const emptyBlock = Buffer.from([0, 0, 0, 0xff, 0xff]);

/** The dictionary of SPDY/3: header words with their lengths, then values without. */
function spdyDictionary(): Buffer {
  const words = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow " +
    "authorization cache-control connection content-base content-encoding content-language content-length " +
    "content-location content-md5 content-range content-type date etag expect expires from host if-match " +
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma " +
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade " +
    "user-agent vary via warning www-authenticate method get status"
  ).split(" ");
  words.push("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin");
  const values =
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505" +
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized" +
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable" +
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT" +
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain," +
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
  const pieces = words.map((word) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(word.length);
    return Buffer.concat([length, Buffer.from(word)]);
  });
  return Buffer.concat([...pieces, Buffer.from(values)]);
}
