/**
 * Masks of single values: bytes of a column in, bytes of the same type out, in text and in binary. NULL stays NULL.
 * What no valid value can be made for becomes NULL, which every type has.
 */
import { createHmac } from "node:crypto";

/** How a policy hides a value. */
export interface MaskMethod {
  readonly with: "Null" | "Redact" | "Replace" | "Hash" | "Partial";
  /** Of Replace: the text; of Partial: a text with `{firstN}` and `{lastN}`. */
  readonly format?: string;
}

/** A column as RowDescription tells of it. */
export interface ColumnType {
  /** The type's oid; domains come as what they are made of. */
  readonly oid: number;
  /** 0 text, 1 binary. */
  readonly format: number;
}

/** Masks one value that is not NULL; null makes it NULL. */
export interface ValueMask {
  (value: Buffer): Buffer | null;
  /** What every value becomes, where that is always the same. */
  readonly constant?: Buffer | null;
}

function always(constant: Buffer | null): ValueMask {
  return Object.assign(() => constant, { constant });
}

const toNull = always(null);

/** The mask of a column; `key` makes hashes that nobody without it can test guesses against. */
export function valueMask(method: MaskMethod, type: ColumnType, key: Buffer): ValueMask {
  if (method.with === "Null") return toNull;
  const codec = codecs.get(type.oid);
  if (codec === undefined) return toNull;
  const encode = (text: string | undefined): Buffer | null => {
    if (text === undefined) return null;
    return type.format === 1 ? codec.binary(text) : Buffer.from(text);
  };
  if (method.with === "Hash" && codec.hash !== undefined) {
    const { hash } = codec;
    return (value) => encode(hash(digest(key, canonical(codec, type, value))));
  }
  if (method.with === "Partial" && codec.isText) {
    const format = partialFormat(method.format ?? "");
    return (value) => encode(partial(format, value.toString("utf8")));
  }
  if (method.with === "Replace" && method.format !== undefined && codec.accepts(method.format)) {
    return always(encode(method.format));
  }
  return always(encode(codec.redacted));
}

/** The same value hashes alike in text and in binary: hashes go over the text form where both are known. */
function canonical(codec: Codec, type: ColumnType, value: Buffer): Buffer {
  if (type.format === 0 || codec.isText || codec.toText === undefined) return value;
  return Buffer.from(codec.toText(value));
}

function digest(key: Buffer, value: Buffer): Buffer {
  return createHmac("sha256", key).update(value).digest();
}

/** A type that masked values can be made for. */
interface Codec {
  /** The value that Redact shows, as text. */
  readonly redacted: string;
  readonly isText: boolean;
  /** True for a text that is a valid value. */
  readonly accepts: (text: string) => boolean;
  /** The binary form of a text that `accepts`; null where none is known. */
  readonly binary: (text: string) => Buffer | null;
  /** The text form of a binary value, as the server prints it. */
  readonly toText?: (value: Buffer) => string;
  /** A value out of 32 random bytes; absent: Hash redacts. */
  readonly hash?: (digest: Buffer) => string;
}

const codecs = new Map<number, Codec>();

const textCodec: Codec = {
  redacted: "***",
  isText: true,
  accepts: () => true,
  binary: (text) => Buffer.from(text),
  hash: (bytes) => bytes.toString("hex", 0, 16),
};
// text, varchar, bpchar, name, unknown; "char" holds one byte only.
for (const oid of [25, 1043, 1042, 19, 705]) codecs.set(oid, textCodec);
codecs.set(18, {
  ...textCodec,
  redacted: "*",
  accepts: (text) => /^[\x20-\x7e]$/.test(text),
  hash: () => "*",
});

function integerCodec(bytes: 2 | 4 | 8): Codec {
  const limit = 1n << BigInt(bytes * 8 - 1);
  const write = (value: bigint): Buffer => {
    const buffer = Buffer.alloc(bytes);
    if (bytes === 8) buffer.writeBigInt64BE(value);
    else buffer.writeIntBE(Number(value), 0, bytes);
    return buffer;
  };
  const accepts = (text: string): boolean => {
    if (!/^-?\d{1,19}$/.test(text)) return false;
    const value = BigInt(text);
    return value >= -limit && value < limit;
  };
  return {
    redacted: "0",
    isText: false,
    accepts,
    binary: (text) => write(BigInt(text)),
    toText: (value) =>
      value.length !== bytes
        ? value.toString("hex")
        : bytes === 8
          ? value.readBigInt64BE().toString()
          : value.readIntBE(0, bytes).toString(),
    hash: (bytes32) => (bytes32.readBigUInt64BE() % limit).toString(),
  };
}
codecs.set(21, integerCodec(2));
codecs.set(23, integerCodec(4));
codecs.set(20, integerCodec(8));

/** A type of which only some constants are known in binary. */
function constantCodec(redacted: string, binary: Buffer): Codec {
  return {
    redacted,
    isText: false,
    accepts: (text) => text === redacted,
    binary: (text) => (text === redacted ? binary : null),
  };
}

const epoch = 10_957; // days from 1970 to 2000, PostgreSQL's own zero
const days = Buffer.alloc(4);
days.writeInt32BE(-epoch);
const microseconds = Buffer.alloc(8);
microseconds.writeBigInt64BE(BigInt(-epoch) * 86_400_000_000n);

codecs.set(16, constantCodec("f", Buffer.from([0])));
codecs.set(700, constantCodec("0", Buffer.alloc(4)));
codecs.set(701, constantCodec("0", Buffer.alloc(8)));
codecs.set(1700, constantCodec("0", Buffer.alloc(8)));
codecs.set(26, constantCodec("0", Buffer.alloc(4)));
codecs.set(1082, dateCodec());
codecs.set(1083, constantCodec("00:00:00", Buffer.alloc(8)));
codecs.set(1266, constantCodec("00:00:00+00", Buffer.alloc(12)));
codecs.set(1114, constantCodec("1970-01-01 00:00:00", microseconds));
codecs.set(1184, constantCodec("1970-01-01 00:00:00+00", microseconds));
codecs.set(1186, constantCodec("00:00:00", Buffer.alloc(16)));
codecs.set(869, constantCodec("0.0.0.0", Buffer.from([2, 32, 0, 4, 0, 0, 0, 0])));
codecs.set(650, constantCodec("0.0.0.0/32", Buffer.from([2, 32, 1, 4, 0, 0, 0, 0])));
codecs.set(17, constantCodec("\\x", Buffer.alloc(0)));
codecs.set(2950, uuidCodec());
codecs.set(114, jsonCodec(Buffer.alloc(0)));
codecs.set(3802, jsonCodec(Buffer.from([1])));

function dateCodec(): Codec {
  const dayMs = 86_400_000;
  const write = (text: string): Buffer => {
    const buffer = Buffer.alloc(4);
    buffer.writeInt32BE(Math.round(Date.parse(`${text}T00:00:00Z`) / dayMs) - epoch);
    return buffer;
  };
  const iso = (day: number): string => new Date(day * dayMs).toISOString().slice(0, 10);
  return {
    redacted: "1970-01-01",
    isText: false,
    accepts: (text) => /^\d{4}-\d\d-\d\d$/.test(text) && !Number.isNaN(Date.parse(`${text}T00:00:00Z`)),
    binary: write,
    toText: (value) =>
      value.length === 4 ? printedDate(value.readInt32BE() + epoch, iso) : value.toString("hex"),
    // Between 1900 and 2100.
    hash: (bytes) => iso((bytes.readUInt32BE() % 73_049) - 25_567),
  };
}

/** A date as the server prints it in ISO style; far ones only need to be told apart. */
function printedDate(day: number, iso: (day: number) => string): string {
  return Math.abs(day) > 2_000_000 ? `day ${day}` : iso(day);
}

function uuidCodec(): Codec {
  const dashed = (hex: string): string =>
    `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`;
  return {
    redacted: "00000000-0000-0000-0000-000000000000",
    isText: false,
    accepts: (text) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text),
    binary: (text) => Buffer.from(text.replaceAll("-", ""), "hex"),
    toText: (value) => dashed(value.toString("hex")),
    // Version 8 is for values of one's own making (RFC 9562).
    hash: (bytes) => {
      const hex = bytes.toString("hex", 0, 16);
      return dashed(`${hex.slice(0, 12)}8${hex.slice(13, 16)}8${hex.slice(17)}`);
    },
  };
}

function jsonCodec(prefix: Buffer): Codec {
  return {
    redacted: '"***"',
    isText: false,
    accepts: isJson,
    binary: (text) => Buffer.concat([prefix, Buffer.from(text)]),
    toText: (value) => value.toString("utf8", prefix.length),
    hash: (bytes) => `"${bytes.toString("hex", 0, 16)}"`,
  };
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Array types and what they hold: a masked array is an empty one. */
const arrays: readonly (readonly [array: number, element: number])[] = [
  [1000, 16],
  [1001, 17],
  [1003, 19],
  [1005, 21],
  [1007, 23],
  [1016, 20],
  [1009, 25],
  [1015, 1043],
  [1014, 1042],
  [1021, 700],
  [1022, 701],
  [1231, 1700],
  [1182, 1082],
  [1115, 1114],
  [1185, 1184],
  [2951, 2950],
  [199, 114],
  [3807, 3802],
  [1041, 869],
];
for (const [array, element] of arrays) {
  const empty = Buffer.alloc(12);
  empty.writeUInt32BE(element, 8);
  codecs.set(array, constantCodec("{}", empty));
}

/** A Partial format cut into literal text and what is kept of the value. */
interface PartialFormat {
  readonly pieces: readonly (string | { readonly side: "first" | "last"; readonly count: number })[];
  /** Characters kept in all. */
  readonly kept: number;
}

function partialFormat(format: string): PartialFormat {
  const pieces: (string | { side: "first" | "last"; count: number })[] = [];
  let kept = 0;
  let done = 0;
  for (const match of format.matchAll(/\{(first|last)(\d{1,2})\}/g)) {
    if (match.index > done) pieces.push(format.slice(done, match.index));
    const count = Number(match[2]);
    pieces.push({ side: match[1] === "first" ? "first" : "last", count });
    kept += count;
    done = match.index + match[0].length;
  }
  if (done < format.length) pieces.push(format.slice(done));
  return { pieces, kept };
}

/** A value that is shorter than twice what would be kept of it keeps nothing. */
function partial(format: PartialFormat, value: string): string {
  const characters = Array.from(value);
  const isLongEnough = characters.length >= 2 * format.kept;
  return format.pieces
    .map((piece) => {
      if (typeof piece === "string") return piece;
      if (!isLongEnough) return "*".repeat(piece.count);
      return (
        piece.side === "first" ? characters.slice(0, piece.count) : characters.slice(-piece.count)
      ).join("");
    })
    .join("");
}
