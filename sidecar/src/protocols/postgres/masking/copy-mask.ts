/**
 * COPY TO STDOUT: rows in text, CSV or binary are cut out of the stream, whatever the messages' borders, and their
 * masked columns rewritten. Rows that are longer than a bound end the copy: nothing leaves unread.
 * https://www.postgresql.org/docs/18/sql-copy.html
 */
import { GatewayError } from "../../../wire/gateway-error.ts";
import type { ByteSink } from "./byte-sink.ts";
import type { PatternMask } from "./pattern-mask.ts";
import type { TypeShape } from "./type-shape.ts";
import { type ColumnType, type MaskMethod, type ValueMask, valueMask } from "./value-mask.ts";

/** How COPY writes rows: the options of the statement, with the server's defaults. */
export interface CopyFormat {
  readonly kind: "text" | "csv" | "binary";
  readonly delimiter: string;
  readonly null: string;
  readonly quote: string;
  readonly escape: string;
  readonly header: boolean;
  /** CSV columns, from 0, that are quoted whatever they hold; `all`: every one. */
  readonly forceQuote: readonly number[] | "all";
}

/** A column of the copy and its mask. */
export interface CopyColumn {
  /** The type's oid where the catalog told it; undefined: no value but NULL is sure to be of it. */
  readonly oid: number | undefined;
  readonly shape?: TypeShape | undefined;
  readonly mask: MaskMethod | undefined;
}

const rowMax = 256 * 1024 * 1024;
const newline = 0x0a;
const backslash = 0x5c;

/** Rewrites the payloads of CopyData messages. */
export class CopyMask {
  readonly #cutter: (bytes: Buffer, from: number) => number;
  readonly #rows: CopyRows;
  readonly #format: CopyFormat;
  #rest: Buffer[] = [];
  #restLength = 0;
  #isHeaderDue: boolean;
  #isTrailerSeen = false;
  /** How many columns are masked as a whole. */
  readonly maskedColumns: number;

  constructor(
    format: CopyFormat,
    columns: readonly CopyColumn[],
    parts: { readonly patterns: PatternMask; readonly key: Buffer },
  ) {
    this.#format = format;
    this.maskedColumns = columns.filter(({ mask }) => mask !== undefined).length;
    this.#isHeaderDue = format.kind === "binary" || format.header;
    this.#rows = new CopyRows(format, columns, parts);
    if (format.kind === "text") this.#cutter = textEnd;
    else if (format.kind === "csv") this.#cutter = csvCutter(format);
    else this.#cutter = binaryEnd;
  }

  /**
   * Adds a payload that is one whole row to the sink, masked; false where it is anything else, which `push` takes.
   * The server sends each row in a message of its own.
   */
  pushRow(chunk: Buffer, start: number, end: number, sink: ByteSink): boolean {
    if (this.#isHeaderDue || this.#isTrailerSeen || this.#restLength > 0) return false;
    switch (this.#format.kind) {
      case "text":
        return this.#rows.textInto(chunk, start, end, sink);
      case "csv":
        return this.#rows.csvInto(chunk, start, end, sink);
      case "binary":
        return this.#rows.binaryInto(chunk, start, end, sink);
    }
  }

  /** What may be sent on of this payload and what was kept before; undefined: nothing yet. */
  push(payload: Buffer): Buffer | undefined {
    this.#rest.push(payload);
    this.#restLength += payload.length;
    if (this.#restLength > rowMax) {
      throw new GatewayError("tooLarge", { detail: "a row of the copy is too large to be masked" });
    }
    // A row of many messages is joined once it may be whole: text and CSV rows end with a newline.
    if (this.#format.kind !== "binary" && payload.indexOf(newline) < 0) return undefined;
    const bytes = this.#rest.length === 1 ? payload : Buffer.concat(this.#rest);
    const pieces: Buffer[] = [];
    let done = 0;
    for (;;) {
      const end = this.#next(bytes, done);
      if (end < 0) break;
      pieces.push(this.#row(bytes.subarray(done, end)));
      done = end;
      if (done >= bytes.length) break;
    }
    const rest = bytes.subarray(done);
    this.#rest = rest.length === 0 ? [] : [rest];
    this.#restLength = rest.length;
    return pieces.length === 0 ? undefined : Buffer.concat(pieces);
  }

  /** Ends the copy; throws where half a row is left, which must never be sent unmasked. */
  finish(): void {
    if (this.#restLength > 0) throw broken("the copy ended in the middle of a row");
  }

  #next(bytes: Buffer, from: number): number {
    if (from >= bytes.length) return -1;
    if (this.#isHeaderDue && this.#format.kind === "binary") return binaryHeaderEnd(bytes, from);
    return this.#cutter(bytes, from);
  }

  #row(row: Buffer): Buffer {
    if (this.#isTrailerSeen) throw broken("data after the end of the copy");
    if (this.#isHeaderDue) {
      this.#isHeaderDue = false;
      return row;
    }
    if (this.#format.kind === "binary" && row.readInt16BE(0) === -1) {
      this.#isTrailerSeen = true;
      return row;
    }
    return this.#rows.rewrite(row);
  }
}

function broken(detail: string): GatewayError {
  return new GatewayError("upstreamProtocol", { detail });
}

function textEnd(bytes: Buffer, from: number): number {
  const end = bytes.indexOf(newline, from);
  return end < 0 ? -1 : end + 1;
}

/** The end of a CSV row: a newline outside quotes. */
function csvCutter(format: CopyFormat): (bytes: Buffer, from: number) => number {
  const quote = format.quote.charCodeAt(0);
  const escapeByte = format.escape.charCodeAt(0);
  return (bytes, from) => {
    let isQuoted = false;
    for (let at = from; at < bytes.length; at += 1) {
      const byte = bytes[at];
      if (isQuoted && byte === escapeByte && escapeByte !== quote) at += 1;
      else if (byte === quote) isQuoted = !isQuoted;
      else if (byte === newline && !isQuoted) return at + 1;
    }
    return -1;
  };
}

const signature = Buffer.from("PGCOPY\n\xff\r\n\0", "latin1");

function binaryHeaderEnd(bytes: Buffer, from: number): number {
  const length = signature.length + 8;
  if (bytes.length - from < length) return -1;
  if (!bytes.subarray(from, from + signature.length).equals(signature))
    throw broken("no signature of a binary copy");
  const extension = bytes.readInt32BE(from + signature.length + 4);
  if (extension < 0) throw broken("a binary copy with a header of negative length");
  return bytes.length - from < length + extension ? -1 : from + length + extension;
}

function binaryEnd(bytes: Buffer, from: number): number {
  if (bytes.length - from < 2) return -1;
  const count = bytes.readInt16BE(from);
  let at = from + 2;
  if (count === -1) return at;
  if (count < 0) throw broken("a binary copy's row with a negative number of fields");
  for (let index = 0; index < count; index += 1) {
    if (bytes.length - at < 4) return -1;
    const length = bytes.readInt32BE(at);
    if (length < -1) throw broken("a binary copy's field of negative length");
    at += 4 + Math.max(length, 0);
    if (at > bytes.length) return -1;
  }
  return at;
}

/** Rewrites single rows. */
class CopyRows {
  readonly #format: CopyFormat;
  readonly #columns: readonly CopyColumn[];
  readonly #masks: readonly (ValueMask | undefined)[];
  readonly #types: readonly ColumnType[];
  readonly #patterns: PatternMask;
  readonly #null: Buffer;
  readonly #delimiter: number;
  readonly #quote: number;
  readonly #escape: number;
  /** Masked fields of the text format, where they are the same in every row. */
  readonly #constants: readonly (Buffer | undefined)[];

  constructor(
    format: CopyFormat,
    columns: readonly CopyColumn[],
    { patterns, key }: { readonly patterns: PatternMask; readonly key: Buffer },
  ) {
    this.#format = format;
    this.#columns = columns;
    const wire = format.kind === "binary" ? 1 : 0;
    this.#types = columns.map(({ oid, shape }) => ({ oid: oid ?? 0, format: wire, shape }));
    this.#masks = columns.map(({ mask }, index) => {
      const type = this.#types[index];
      return mask === undefined || type === undefined ? undefined : valueMask(mask, type, key);
    });
    this.#patterns = patterns;
    this.#null = Buffer.from(format.null);
    this.#delimiter = format.delimiter.charCodeAt(0);
    this.#quote = format.quote.charCodeAt(0);
    this.#escape = format.escape.charCodeAt(0);
    this.#constants = this.#masks.map((mask) => {
      if (mask?.constant === undefined) return undefined;
      return mask.constant === null ? this.#null : this.#escaped(mask.constant);
    });
  }

  rewrite(row: Buffer): Buffer {
    if (this.#format.kind === "binary") return this.#binary(row);
    return this.#format.kind === "text" ? this.#text(row) : this.#csv(row);
  }

  /** The masked value, or null for NULL; the value itself where nothing hides it. */
  #value(index: number, value: Buffer): Buffer | null {
    const mask = this.#masks[index];
    const type = this.#types[index];
    if (mask !== undefined) {
      const masked = mask(value);
      // Of JSON that is masked in parts the rest is a value like any other.
      const isWhole =
        this.#columns[index]?.mask?.paths === undefined || masked === null || type === undefined;
      return isWhole ? masked : this.#patterns.apply(masked, type);
    }
    if (type === undefined || this.#patterns.isEmpty) return value;
    // What the catalog did not name is looked at as text.
    return this.#patterns.apply(value, type.oid === 0 ? { ...type, oid: type.format === 0 ? 25 : 0 } : type);
  }

  /** Adds the row between `start` and `end` to the sink; false, and nothing added, where that is not one whole row. */
  textInto(chunk: Buffer, start: number, end: number, sink: ByteSink): boolean {
    const begin = sink.length;
    const count = this.#columns.length;
    const delimiter = this.#delimiter;
    const last = end - 1;
    if (chunk[last] !== newline) return false;
    let done = start;
    let from = start;
    let index = 0;
    for (let at = start; ; at += 1) {
      const byte = chunk[at];
      if (at < last) {
        if (byte === backslash) {
          at += 1;
          continue;
        }
        if (byte === newline) {
          sink.cutTo(begin);
          return false;
        }
        if (byte !== delimiter) continue;
      } else if (at > last) {
        // The newline itself was escaped: the row goes on.
        sink.cutTo(begin);
        return false;
      }
      if (index >= count) throw broken("a row of the copy with more columns than it has");
      if (this.#needs(index) && !isSame(chunk, from, at, this.#null)) {
        let field = this.#constants[index];
        if (field === undefined) {
          const plain = unescaped(chunk.subarray(from, at));
          const masked = this.#value(index, plain);
          if (masked !== plain) field = masked === null ? this.#null : this.#escaped(masked);
        }
        if (field !== undefined) {
          sink.range(chunk, done, from);
          sink.bytes(field);
          done = at;
        }
      }
      index += 1;
      from = at + 1;
      if (at >= last) break;
    }
    this.#counted(index);
    sink.range(chunk, done, end);
    return true;
  }

  /** As `textInto`, for CSV. */
  csvInto(chunk: Buffer, start: number, end: number, sink: ByteSink): boolean {
    const last = end - 1;
    if (chunk[last] !== newline) return false;
    const begin = sink.length;
    const count = this.#columns.length;
    const [delimiter, quoteByte, escapeByte] = [this.#delimiter, this.#quote, this.#escape];
    let isQuoted = false;
    let done = start;
    let from = start;
    let index = 0;
    for (let at = start; at < end; at += 1) {
      const byte = chunk[at];
      if (isQuoted && byte === escapeByte && escapeByte !== quoteByte) {
        at += 1;
        continue;
      }
      if (byte === quoteByte) {
        isQuoted = !isQuoted;
        continue;
      }
      if (isQuoted || (byte !== delimiter && byte !== newline)) continue;
      if (byte === newline && at < last) break;
      if (index >= count) throw broken("a row of the copy with more columns than it has");
      if (this.#needs(index) && !isSame(chunk, from, at, this.#null)) {
        const plain = this.#csvPlain(chunk.subarray(from, at));
        const masked = this.#value(index, plain);
        if (masked !== plain) {
          sink.range(chunk, done, from);
          sink.bytes(this.#csvField(masked, index));
          done = at;
        }
      }
      index += 1;
      from = at + 1;
    }
    // Quotes that go on, or more than one row: nothing of it has been sent.
    if (from !== end) {
      sink.cutTo(begin);
      return false;
    }
    this.#counted(index);
    sink.range(chunk, done, end);
    return true;
  }

  /** As `textInto`, for binary. */
  binaryInto(chunk: Buffer, start: number, end: number, sink: ByteSink): boolean {
    const count = this.#columns.length;
    if (end - start < 2 || chunk.readInt16BE(start) !== count) return false;
    const begin = sink.length;
    let done = start;
    let at = start + 2;
    for (let index = 0; index < count; index += 1) {
      const length = at + 4 > end ? -2 : chunk.readInt32BE(at);
      const from = at + 4;
      at = from + Math.max(length, 0);
      if (length < -1 || at > end) {
        sink.cutTo(begin);
        return false;
      }
      if (length < 0 || !this.#needs(index)) continue;
      const value = chunk.subarray(from, at);
      const masked = this.#value(index, value);
      if (masked === value) continue;
      sink.range(chunk, done, from - 4);
      sink.int32(masked === null ? -1 : masked.length);
      if (masked !== null) sink.bytes(masked);
      done = at;
    }
    if (at !== end) {
      sink.cutTo(begin);
      return false;
    }
    sink.range(chunk, done, end);
    return true;
  }

  #needs(index: number): boolean {
    return this.#masks[index] !== undefined || !this.#patterns.isEmpty;
  }

  #text(row: Buffer): Buffer {
    const end = row.length - 1;
    const pieces: Buffer[] = [];
    let done = 0;
    let start = 0;
    for (let index = 0; ; index += 1) {
      let stop = start;
      for (; stop < end && row[stop] !== this.#delimiter; stop += 1) if (row[stop] === backslash) stop += 1;
      stop = Math.min(stop, end);
      if (index >= this.#columns.length) throw broken("a row of the copy with more columns than it has");
      const field = row.subarray(start, stop);
      if (this.#needs(index) && !field.equals(this.#null)) {
        const plain = unescaped(field);
        const masked = this.#value(index, plain);
        if (masked !== plain) {
          pieces.push(row.subarray(done, start), masked === null ? this.#null : this.#escaped(masked));
          done = stop;
        }
      }
      if (stop >= end) {
        this.#counted(index + 1);
        break;
      }
      start = stop + 1;
    }
    if (pieces.length === 0) return row;
    pieces.push(row.subarray(done));
    return Buffer.concat(pieces);
  }

  #counted(fields: number): void {
    if (fields !== this.#columns.length) throw broken("a row of the copy with another number of columns");
  }

  #escaped(value: Buffer): Buffer {
    const bytes: number[] = [];
    for (const byte of value) {
      const letter = escapes.get(byte);
      if (letter !== undefined) bytes.push(backslash, letter);
      else if (byte === this.#delimiter || byte === backslash) bytes.push(backslash, byte);
      else bytes.push(byte);
    }
    return Buffer.from(bytes);
  }

  #csv(row: Buffer): Buffer {
    const end = row.length - 1;
    const pieces: Buffer[] = [];
    let done = 0;
    let start = 0;
    for (let index = 0; ; index += 1) {
      if (index >= this.#columns.length) throw broken("a row of the copy with more columns than it has");
      const stop = this.#csvFieldEnd(row, start, end);
      const field = row.subarray(start, stop);
      if (this.#needs(index) && !field.equals(this.#null)) {
        const plain = this.#csvPlain(field);
        const masked = this.#value(index, plain);
        if (masked !== plain) {
          pieces.push(row.subarray(done, start), this.#csvField(masked, index));
          done = stop;
        }
      }
      if (stop >= end) {
        this.#counted(index + 1);
        break;
      }
      start = stop + 1;
    }
    if (pieces.length === 0) return row;
    pieces.push(row.subarray(done));
    return Buffer.concat(pieces);
  }

  #csvFieldEnd(row: Buffer, start: number, end: number): number {
    let isQuoted = false;
    for (let at = start; at < end; at += 1) {
      const byte = row[at];
      if (isQuoted && byte === this.#escape && this.#escape !== this.#quote) at += 1;
      else if (byte === this.#quote) isQuoted = !isQuoted;
      else if (byte === this.#delimiter && !isQuoted) return at;
    }
    return end;
  }

  #csvPlain(field: Buffer): Buffer {
    if (field[0] !== this.#quote) return field;
    const bytes: number[] = [];
    for (let at = 1; at < field.length - 1; at += 1) {
      const isEscape = field[at] === this.#escape && at + 1 < field.length - 1;
      const next = field[at + 1];
      if (isEscape && (next === this.#quote || next === this.#escape)) at += 1;
      bytes.push(field[at] ?? 0);
    }
    return Buffer.from(bytes);
  }

  /** Quoted as the server would: where it must be, and where it would read as NULL. */
  #csvField(value: Buffer | null, index: number): Buffer {
    if (value === null) return this.#null;
    const { forceQuote } = this.#format;
    const isForced = forceQuote === "all" || forceQuote.includes(index);
    const isSpecial = (byte: number): boolean =>
      byte === this.#quote || byte === this.#delimiter || byte === newline || byte === 0x0d;
    const isBare = !isForced && !value.some(isSpecial) && !value.equals(this.#null) && !value.equals(endMark);
    if (isBare) return value;
    const bytes: number[] = [this.#quote];
    for (const byte of value) {
      if (byte === this.#quote || byte === this.#escape) bytes.push(this.#escape);
      bytes.push(byte);
    }
    bytes.push(this.#quote);
    return Buffer.from(bytes);
  }

  #binary(row: Buffer): Buffer {
    const count = row.readInt16BE(0);
    this.#counted(count);
    const pieces: Buffer[] = [];
    let done = 0;
    let at = 2;
    for (let index = 0; index < count; index += 1) {
      const length = row.readInt32BE(at);
      const start = at + 4;
      at = start + Math.max(length, 0);
      if (length < 0 || !this.#needs(index)) continue;
      const value = row.subarray(start, at);
      const masked = this.#value(index, value);
      if (masked === value) continue;
      const header = Buffer.allocUnsafe(4);
      header.writeInt32BE(masked === null ? -1 : masked.length);
      pieces.push(row.subarray(done, start - 4), header);
      if (masked !== null) pieces.push(masked);
      done = at;
    }
    if (pieces.length === 0) return row;
    pieces.push(row.subarray(done));
    return Buffer.concat(pieces);
  }
}

function isSame(chunk: Buffer, from: number, end: number, other: Buffer): boolean {
  if (end - from !== other.length) return false;
  for (let index = 0; index < other.length; index += 1)
    if (chunk[from + index] !== other[index]) return false;
  return true;
}

const endMark = Buffer.from("\\.");

/** Bytes that COPY's text format writes as a backslash and a letter. */
const escapes: ReadonlyMap<number, number> = new Map(
  (["b\b", "f\f", "n\n", "r\r", "t\t", "v\v"] as const).map((pair) => [
    pair.charCodeAt(1),
    pair.charCodeAt(0),
  ]),
);
const letters: ReadonlyMap<number, number> = new Map([...escapes].map(([byte, letter]) => [letter, byte]));

/** Undoes the text format's backslashes; the field itself where there are none. */
function unescaped(field: Buffer): Buffer {
  if (field.indexOf(backslash) < 0) return field;
  const bytes: number[] = [];
  for (let at = 0; at < field.length; at += 1) {
    if (field[at] !== backslash) {
      bytes.push(field[at] ?? 0);
      continue;
    }
    at += 1;
    const byte = field[at] ?? backslash;
    bytes.push(letters.get(byte) ?? byte);
  }
  return Buffer.from(bytes);
}
