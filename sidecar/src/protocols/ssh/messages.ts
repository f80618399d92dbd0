/**
 * SSH's wire types (RFC 4251, section 5) and the messages that the gateway itself makes.
 *
 *     byte   1 octet         uint32  4 octets, big-endian      boolean  1 octet
 *     string uint32 length, then that many octets              mpint    string, two's complement
 */

/** Message numbers (RFC 4250, section 4.1). */
export const message = {
  disconnect: 1,
  unimplemented: 3,
  serviceRequest: 5,
  serviceAccept: 6,
  extInfo: 7,
  userauthRequest: 50,
  userauthFailure: 51,
  userauthSuccess: 52,
  userauthBanner: 53,
  userauthPkOk: 60,
  userauthInfoRequest: 60,
  userauthInfoResponse: 61,
  globalRequest: 80,
  requestSuccess: 81,
  requestFailure: 82,
  channelOpen: 90,
  channelOpenConfirmation: 91,
  channelOpenFailure: 92,
  channelWindowAdjust: 93,
  channelData: 94,
  channelExtendedData: 95,
  channelEof: 96,
  channelClose: 97,
  channelRequest: 98,
  channelSuccess: 99,
  channelFailure: 100,
} as const;

/** SSH_EXTENDED_DATA_STDERR, the one type of extended data (RFC 4254, section 5.2). */
export const standardError = 1;

/** A message that does not hold what its number promises. */
export class MalformedMessage extends Error {}

/** A string that should be a text; the message around it may still be whole. */
export class NotText extends MalformedMessage {}

/** Reads a message field by field; every length is checked before it is used. */
export class Reader {
  readonly #bytes: Buffer;
  #at: number;

  constructor(bytes: Buffer, at = 0) {
    this.#bytes = bytes;
    this.#at = at;
  }

  byte(): number {
    this.#need(1);
    return this.#bytes[this.#at++] ?? 0;
  }

  boolean(): boolean {
    return this.byte() !== 0;
  }

  uint32(): number {
    this.#need(4);
    this.#at += 4;
    return this.#bytes.readUInt32BE(this.#at - 4);
  }

  uint64(): bigint {
    this.#need(8);
    this.#at += 8;
    return this.#bytes.readBigUInt64BE(this.#at - 8);
  }

  /** A view, not a copy. */
  string(): Buffer {
    const length = this.uint32();
    this.#need(length);
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  /** A string that must be text; invalid UTF-8 and NUL are refused, so that no two readers see different names. */
  text(): string {
    const bytes = this.string();
    const text = bytes.toString("utf8");
    if (text.includes("\0") || !Buffer.from(text).equals(bytes)) throw new NotText("not a text");
    return text;
  }

  get rest(): Buffer {
    return this.#bytes.subarray(this.#at);
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  #need(count: number): void {
    if (this.#at + count > this.#bytes.length) throw new MalformedMessage("the message is cut");
  }
}

/** A field of a message: a number of 32 bits, a truth value, a string, or bytes as they are. */
export type Field = number | boolean | string | Uint8Array | { readonly raw: Uint8Array };

/** Makes a message of its number and fields. */
export function made(type: number, ...fields: readonly Field[]): Buffer {
  return Buffer.concat([Buffer.of(type), encoded(...fields)]);
}

/** Fields one after the other. */
export function encoded(...fields: readonly Field[]): Buffer {
  const pieces: Uint8Array[] = [];
  for (const field of fields) {
    if (typeof field === "number") pieces.push(uint32(field));
    else if (typeof field === "boolean") pieces.push(Buffer.of(field ? 1 : 0));
    else if (typeof field === "object" && "raw" in field) pieces.push(field.raw);
    else {
      const bytes = typeof field === "string" ? Buffer.from(field) : field;
      pieces.push(uint32(bytes.length), bytes);
    }
  }
  return Buffer.concat(pieces);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
