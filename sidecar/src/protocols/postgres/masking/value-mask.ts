/**
 * Masks of single values: bytes of a column in, bytes of the same type out, in text and in binary. NULL stays NULL.
 * What no valid value can be made for becomes NULL, which every type has.
 */
import { createHmac } from "node:crypto";
import { compositeMask } from "./composite-mask.ts";
import { type JsonMask, maskedJson } from "./json-paths.ts";
import { withoutLiterals } from "./literals.ts";
import type { TypeShape } from "./type-shape.ts";

/** How a policy hides a value. */
export interface MaskMethod {
  readonly with: "Null" | "Redact" | "Replace" | "Hash" | "Partial";
  /** Of Replace: the text; of Partial: a text with `{firstN}` and `{lastN}`. */
  readonly format?: string;
  /** Of JSON: the parts that are hidden, where not all of it is. */
  readonly paths?: readonly (MaskMethod & { readonly path: readonly string[] })[];
  /** Set for a definition that the server has printed: its literals alone are hidden. */
  readonly hidesLiterals?: true;
}

/** A column as RowDescription tells of it. */
export interface ColumnType {
  /** The type's oid; domains come as what they are made of. */
  readonly oid: number;
  /** 0 text, 1 binary. */
  readonly format: number;
  /** Of a type of users' own making, what masked values of it may show. */
  readonly shape?: TypeShape | undefined;
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
const literalMask: ValueMask = (value) => Buffer.from(withoutLiterals(value.toString("utf8")));

/** The mask of a column; `key` makes hashes that nobody without it can test guesses against. */
export function valueMask(method: MaskMethod, type: ColumnType, key: Buffer): ValueMask {
  const prefix = jsonPrefixes.get(type.oid);
  if (method.paths !== undefined && prefix !== undefined) {
    return jsonMask(method.paths, { prefix: type.format === 1 ? prefix : noBytes, key });
  }
  if (method.hidesLiterals === true) return textOids.has(type.oid) ? literalMask : toNull;
  if (method.with === "Null") return toNull;
  if (type.shape !== undefined) return shapedMask(method, { ...type, shape: type.shape }, key);
  const codec = codecs.get(type.oid);
  if (codec === undefined) return toNull;
  const encode = (text: string | undefined): Buffer | null => {
    if (text === undefined) return null;
    return type.format === 1 ? codec.binary(text) : Buffer.from(text);
  };
  if (method.with === "Hash" && codec.hash !== undefined) {
    const { hash } = codec;
    return (value) => {
      const same = canonical(codec, type, value);
      return encode(same === undefined ? codec.redacted : hash(digest(key, same)));
    };
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

/** An array is empty, an enumeration NULL or the label of Replace; of a composite each field is masked as a column of its type would be. */
function shapedMask(
  { paths: _, ...method }: MaskMethod,
  { shape, format }: ColumnType & { readonly shape: TypeShape },
  key: Buffer,
): ValueMask {
  if (shape.kind === "array")
    return always(format === 1 ? emptyArray(shape.element) : Buffer.from(emptyArrayText));
  if (shape.kind === "enum") {
    // A label stands for itself in both formats; what is none of them is no value of the type.
    const label = method.with === "Replace" ? method.format : undefined;
    return label !== undefined && shape.labels.includes(label) ? always(Buffer.from(label)) : toNull;
  }
  const masks = shape.fields.map((field) =>
    valueMask(method, { oid: field.oid, format, shape: field.shape }, key),
  );
  return compositeMask(shape.fields, masks, format);
}

/** The same value hashes alike in text and in binary: hashes go over the text form where both are known. */
function canonical(codec: Codec, type: ColumnType, value: Buffer): Buffer | undefined {
  if (codec.isText || (codec.canonical === undefined && (type.format === 0 || codec.toText === undefined))) {
    return value;
  }
  const text = type.format === 0 ? value.toString("utf8") : (codec.toText?.(value) ?? "");
  const same = codec.canonical === undefined ? text : codec.canonical(text);
  return same === undefined ? undefined : Buffer.from(same);
}

const noBytes = Buffer.alloc(0);
/** What stands before the text of JSON in binary. */
const jsonPrefixes: ReadonlyMap<number, Buffer> = new Map([
  [114, noBytes],
  [3802, Buffer.from([1])],
]);

/** Masks parts of JSON; what cannot be read as JSON is NULL. */
function jsonMask(
  paths: NonNullable<MaskMethod["paths"]>,
  { prefix, key }: { readonly prefix: Buffer; readonly key: Buffer },
): ValueMask {
  const masks = paths.map(({ path, ...method }) => ({ path, mask: jsonPartMask(method, key) }));
  return (value) => {
    if (!value.subarray(0, prefix.length).equals(prefix)) return null;
    const masked = maskedJson(value.toString("utf8", prefix.length), masks);
    return masked === undefined ? null : Buffer.concat([prefix, Buffer.from(masked)]);
  };
}

function jsonPartMask(method: MaskMethod, key: Buffer): JsonMask {
  const asText = valueMask(method, { oid: 25, format: 0 }, key);
  const asNumber = valueMask(
    method.with === "Hash" ? method : { with: "Redact" },
    { oid: 20, format: 0 },
    key,
  );
  return (kind, json) => {
    if (method.with === "Null") return "null";
    if (kind === "boolean") return "false";
    if (kind === "number") return asNumber(Buffer.from(json))?.toString() ?? "null";
    if (kind === "other") return '"***"';
    const text: unknown = JSON.parse(json);
    const masked = asText(Buffer.from(typeof text === "string" ? text : json));
    return masked === null ? "null" : JSON.stringify(masked.toString("utf8"));
  };
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
  /** One spelling of what may be written in several ways; undefined for what is in none that is known. */
  readonly canonical?: (text: string) => string | undefined;
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
const textOids: ReadonlySet<number> = new Set([25, 1043, 1042, 19, 705]);
for (const oid of textOids) codecs.set(oid, textCodec);
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
const epochMicros = BigInt(epoch) * 86_400_000_000n;

codecs.set(16, constantCodec("f", Buffer.from([0])));
codecs.set(700, floatCodec(4));
codecs.set(701, floatCodec(8));
codecs.set(1700, numericCodec());
codecs.set(26, constantCodec("0", Buffer.alloc(4)));
codecs.set(1082, dateCodec());
codecs.set(1083, timeCodec());
codecs.set(1266, constantCodec("00:00:00+00", Buffer.alloc(12)));
codecs.set(1114, timestampCodec(""));
codecs.set(1184, timestampCodec("+00"));
// Ranges are empty, multiranges have no ranges.
for (const oid of [3904, 3906, 3908, 3910, 3912, 3926]) {
  codecs.set(oid, constantCodec("empty", Buffer.from([1])));
}
for (const oid of [4451, 4532, 4533, 4534, 4535, 4536]) codecs.set(oid, constantCodec("{}", Buffer.alloc(4)));
codecs.set(1186, constantCodec("00:00:00", Buffer.alloc(16)));
codecs.set(869, constantCodec("0.0.0.0", Buffer.from([2, 32, 0, 4, 0, 0, 0, 0])));
codecs.set(650, constantCodec("0.0.0.0/32", Buffer.from([2, 32, 1, 4, 0, 0, 0, 0])));
codecs.set(17, constantCodec("\\x", Buffer.alloc(0)));
codecs.set(2950, uuidCodec());
codecs.set(114, jsonCodec(Buffer.alloc(0)));
codecs.set(3802, jsonCodec(Buffer.from([1])));

/** Numbers below two to the 31st, which every width of float holds apart far enough. */
function floatCodec(bytes: 4 | 8): Codec {
  const write = (value: number): Buffer => {
    const buffer = Buffer.alloc(bytes);
    if (bytes === 4) buffer.writeFloatBE(value);
    else buffer.writeDoubleBE(value);
    return buffer;
  };
  return {
    redacted: "0",
    isText: false,
    accepts: (text) => /^-?\d{1,15}(\.\d{1,6})?$/.test(text),
    binary: (text) => write(Number(text)),
    toText: (value) => {
      if (value.length !== bytes) return value.toString("hex");
      return String(bytes === 4 ? value.readFloatBE() : value.readDoubleBE());
    },
    // Text is the shortest that is read back as the same number; as a number it is the same in both forms.
    canonical: (text) => String(bytes === 4 ? Math.fround(Number(text)) : Number(text)),
    hash: (digest32) => String(digest32.readUInt32BE() % 10_000_000),
  };
}

function numericCodec(): Codec {
  return {
    redacted: "0",
    isText: false,
    accepts: (text) => /^\d{1,15}$/.test(text),
    binary: (text) => {
      // Groups of four digits: their count, the weight of the first, sign and scale, then the groups.
      const padded = text.padStart(Math.ceil(text.length / 4) * 4, "0");
      const groups = (padded.match(/\d{4}/g) ?? []).map(Number);
      while (groups.length > 0 && groups[0] === 0) groups.shift();
      const buffer = Buffer.alloc(8 + groups.length * 2);
      buffer.writeInt16BE(groups.length, 0);
      buffer.writeInt16BE(Math.max(0, groups.length - 1), 2);
      for (const [index, group] of groups.entries()) buffer.writeInt16BE(group, 8 + index * 2);
      return buffer;
    },
    toText: printedNumeric,
    // 1.0 and 1.00 are equal, and so are their hashes.
    canonical: (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text),
    hash: (digest32) => String(digest32.readUInt32BE() % 1_000_000_000),
  };
}

/** A binary numeric as the server prints it, or bytes that only equal those of the same value. */
function printedNumeric(value: Buffer): string {
  if (value.length < 8) return value.toString("hex");
  const count = value.readInt16BE(0);
  const weight = value.readInt16BE(2);
  const sign = value.readUInt16BE(4);
  if (sign !== 0 && sign !== 0x4000)
    return sign === 0xc000 ? "NaN" : sign === 0xd000 ? "Infinity" : "-Infinity";
  if (value.length !== 8 + count * 2 || Math.abs(weight) > 1000) return value.toString("hex");
  const group = (at: number): string =>
    (at >= 0 && at < count ? value.readInt16BE(8 + at * 2) : 0).toString().padStart(4, "0");
  let whole = "";
  for (let at = 0; at <= weight; at += 1) whole += group(at);
  let fraction = "";
  for (let at = weight + 1; at < count; at += 1) fraction += group(at);
  const scale = value.readInt16BE(6);
  const digits = whole.replace(/^0+(?=\d)/, "") || "0";
  const shown = scale > 0 ? `${digits}.${fraction.slice(0, scale).padEnd(scale, "0")}` : digits;
  return sign === 0 ? shown : `-${shown}`;
}

const dayMicros = 86_400_000_000n;

function timeCodec(): Codec {
  return {
    redacted: "00:00:00",
    isText: false,
    accepts: (text) => /^([01]\d|2[0-3]):[0-5]\d:[0-5]\d$/.test(text),
    binary: (text) => int64((microsOfDay(text) ?? 0n) % dayMicros),
    toText: (value) => (value.length === 8 ? `${value.readBigInt64BE()} us` : value.toString("hex")),
    canonical: (text) => (text.endsWith(" us") ? text : told(microsOfDay(text))),
    hash: (digest32) => clock(digest32.readUInt32BE() % 86_400),
  };
}

/** `zone` is what follows the time: nothing, or `+00`. */
function timestampCodec(zone: "" | "+00"): Codec {
  const shape = /^(\d{4})-(\d\d)-(\d\d) ([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\+00)?$/;
  return {
    redacted: `1970-01-01 00:00:00${zone}`,
    isText: false,
    accepts: (text) => shape.test(text) && text.endsWith(zone) && microsOf(text) !== undefined,
    binary: (text) => int64((microsOf(text) ?? 0n) - epochMicros),
    toText: (value) =>
      value.length === 8 ? `${value.readBigInt64BE() + epochMicros} us` : value.toString("hex"),
    // The text depends on the session's time zone; the moment does not.
    canonical: (text) => (text.endsWith(" us") ? withinYears(text) : told(microsOf(text))),
    hash: (digest32) => {
      const day = new Date(((digest32.readUInt32BE() % 73_049) - 25_567) * 86_400_000)
        .toISOString()
        .slice(0, 10);
      return `${day} ${clock(digest32.readUInt32BE(4) % 86_400)}${zone}`;
    },
  };
}

const year1 = Date.parse("0001-01-01T00:00:00Z");
const year10000 = Date.parse("+010000-01-01T00:00:00Z");

/** Moments of the years 1 to 9999, which text tells in one way. */
function withinYears(text: string): string | undefined {
  const moment = Number(text.slice(0, -3)) / 1000;
  return moment >= year1 && moment < year10000 ? text : undefined;
}

function told(micros: bigint | undefined): string | undefined {
  return micros === undefined ? undefined : `${micros} us`;
}

function int64(value: bigint): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeBigInt64BE(value);
  return buffer;
}

function clock(seconds: number): string {
  const two = (value: number): string => String(value).padStart(2, "0");
  return `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}

/** Microseconds since midnight of a time as the server prints it. */
function microsOfDay(text: string): bigint | undefined {
  const found = /^(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?$/.exec(text);
  if (found === null) return undefined;
  const [, hours = "", minutes = "", seconds = "", part = ""] = found;
  const whole = BigInt(hours) * 3600n + BigInt(minutes) * 60n + BigInt(seconds);
  return whole * 1_000_000n + BigInt(part.padEnd(6, "0"));
}

/** Microseconds since 1970 of a moment as the server prints it in ISO style; undefined for other styles and years. */
function microsOf(text: string): bigint | undefined {
  const found = /^(\d{4}-\d\d-\d\d) ([\d:.]+?)(?:([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?)?$/.exec(text);
  if (found === null) return undefined;
  const [, date = "", time = "", sign = "+", hours = "0", minutes = "0", seconds = "0"] = found;
  const day = Date.parse(`${date}T00:00:00Z`);
  const ofDay = microsOfDay(time);
  if (Number.isNaN(day) || ofDay === undefined) return undefined;
  const offset = (BigInt(hours) * 3600n + BigInt(minutes) * 60n + BigInt(seconds)) * 1_000_000n;
  return BigInt(day) * 1000n + ofDay - (sign === "-" ? -offset : offset);
}

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
const emptyArrayText = "{}";
for (const [array, element] of arrays) codecs.set(array, constantCodec(emptyArrayText, emptyArray(element)));

/** No dimensions, no NULLs, the element's type. */
function emptyArray(element: number): Buffer {
  const empty = Buffer.alloc(12);
  empty.writeUInt32BE(element, 8);
  return empty;
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
