/**
 * Rows of one result: RowDescription says what the columns are, each DataRow is rewritten with its masks. The text's
 * lineage is the first witness, the origin that the server names for a column the second; where either says that a
 * column is masked, it is.
 */
import { type MaskDecision, ofWhole, type SessionMasking, type ValueMaskChoice } from "@sallyport/policy";
import { GatewayError } from "../../../wire/gateway-error.ts";
import { ByteSink } from "./byte-sink.ts";
import type { PatternMask } from "./pattern-mask.ts";
import { shapeShown, type TypeShape } from "./type-shape.ts";
import { type ColumnType, type ValueMask, valueMask } from "./value-mask.ts";

/** Names the masked column that (table oid, attribute number) stands for; undefined where it is none. */
export type OriginOf = (table: number, attribute: number) => string | undefined;

/** A column of RowDescription. */
export interface DescribedColumn extends ColumnType {
  readonly table: number;
  readonly attribute: number;
}

/** What a session's masks rest on, the same for all its results. */
export interface MaskingContext {
  readonly masking: SessionMasking;
  readonly patterns: PatternMask;
  readonly originOf: OriginOf;
  /** True for a column of a table, which shows what is stored there and nothing else; absent: none is known to be one. */
  readonly isStored?: (table: number, attribute: number) => boolean;
  /** What a type of users' own making consists of; absent, or undefined for a type: nobody knows. */
  readonly shapeOf?: (type: number) => TypeShape | undefined;
  readonly key: Buffer;
}

/** Reads the columns of a whole RowDescription message; throws for one that is cut or lies about its length. */
export function describedColumns(message: Buffer): readonly DescribedColumn[] {
  const end = message.length;
  let at = 5;
  if (end < at + 2) throw malformed("RowDescription");
  const count = message.readUInt16BE(at);
  at += 2;
  const columns: DescribedColumn[] = [];
  for (let index = 0; index < count; index += 1) {
    const zero = message.indexOf(0, at);
    at = zero + 1;
    if (zero < 0 || at + 18 > end) throw malformed("RowDescription");
    columns.push({
      table: message.readUInt32BE(at),
      attribute: message.readInt16BE(at + 4),
      oid: message.readUInt32BE(at + 6),
      format: message.readUInt16BE(at + 16),
    });
    at += 18;
  }
  if (at !== end) throw malformed("RowDescription");
  return columns;
}

/** The columns with the formats that Bind asked for, which a Describe before it could not know. */
export function withFormats(
  columns: readonly DescribedColumn[],
  formats: readonly number[],
): readonly DescribedColumn[] {
  if (formats.length === 0) return columns.map((column) => ({ ...column, format: 0 }));
  const [only = 0] = formats;
  return columns.map((column, index) => ({
    ...column,
    format: formats.length === 1 ? only : (formats[index] ?? 0),
  }));
}

/** Masks the rows of one result. */
export class RowMask {
  readonly #columns: readonly DescribedColumn[];
  readonly #masks: readonly (ValueMask | undefined)[];
  readonly #patterns: PatternMask;
  /** Masked fields, their lengths in front, where they are the same in every row. */
  readonly #constants: readonly (Buffer | undefined)[];
  /** What a NULL becomes, where it would tell of a value. */
  readonly #nulls: readonly (Buffer | undefined)[];
  /** True where values that no mask is for are searched. */
  readonly #isRead: boolean;
  /** True where no value of the result is looked at, so that rows may pass unread. */
  readonly isIdle: boolean;
  /** How many columns are masked as a whole. */
  readonly maskedColumns: number;
  /** The masks in force, for the record: by column, undefined for none. */
  readonly choices: readonly (ValueMaskChoice | undefined)[];

  constructor(columns: readonly DescribedColumn[], decision: MaskDecision, context: MaskingContext) {
    this.#columns = columns;
    this.#patterns = context.patterns;
    const shown = columns.map((column, index) => choiceFor(column, index, { columns, decision, context }));
    this.choices = withShifts(shown, { columns, decision, context });
    this.#masks = columns.map((column, index) => {
      const choice = this.choices[index];
      if (choice === undefined) return undefined;
      const shape = shapeShown(context.shapeOf?.(column.oid), choice);
      return valueMask(choice, { ...column, shape }, context.key);
    });
    this.#constants = this.#masks.map((mask) =>
      mask?.constant === undefined ? undefined : withLength(mask.constant),
    );
    this.#nulls = this.#constants.map((constant, index) =>
      this.choices[index]?.hidesNull === true ? constant : undefined,
    );
    this.#isRead = !this.#patterns.isEmpty;
    this.maskedColumns = this.#masks.filter((mask) => mask !== undefined).length;
    this.isIdle = this.#patterns.isEmpty && this.#masks.every((mask) => mask === undefined);
  }

  /** One whole DataRow message, masked; throws for one that does not fit its description. */
  apply(message: Buffer): Buffer {
    const sink = new ByteSink(message.length + 64);
    return this.rewrite(message, 0, message.length, sink) ? sink.since(0) : message;
  }

  /** Adds the message between `at` and `end` to the sink, masked; false where nothing is changed, and nothing added. */
  rewrite(chunk: Buffer, at: number, end: number, sink: ByteSink): boolean {
    const constants = this.#constants;
    const count = constants.length;
    if (end - at < 7 || (((chunk[at + 5] ?? 0) << 8) | (chunk[at + 6] ?? 0)) !== count)
      throw malformed("DataRow");
    const begin = sink.length;
    let done = at;
    let next = at + 7;
    for (let index = 0; index < count; index += 1) {
      if (next + 4 > end) throw malformed("DataRow");
      const length =
        ((chunk[next] ?? 0) << 24) |
        ((chunk[next + 1] ?? 0) << 16) |
        ((chunk[next + 2] ?? 0) << 8) |
        (chunk[next + 3] ?? 0);
      const start = next + 4;
      if (length < -1 || start + length > end) throw malformed("DataRow");
      if (length < 0) {
        next = start;
        const shown = this.#nulls[index];
        if (shown === undefined) continue;
        sink.range(chunk, done, start - 4);
        sink.bytes(shown);
        done = next;
        continue;
      }
      next = start + length;
      let field = constants[index];
      if (field === undefined) {
        if (!this.#isRead && this.#masks[index] === undefined) continue;
        const value = chunk.subarray(start, next);
        const masked = this.#value(index, value);
        if (masked === value) continue;
        field = withLength(masked);
      }
      sink.range(chunk, done, start - 4);
      sink.bytes(field);
      done = next;
    }
    if (next !== end) throw malformed("DataRow");
    if (done === at) return false;
    sink.range(chunk, done, end);
    sink.setInt32(begin + 1, sink.length - begin - 1);
    return true;
  }

  #value(index: number, value: Buffer): Buffer | null {
    const mask = this.#masks[index];
    const column = this.#columns[index];
    if (mask !== undefined) {
      const masked = mask(value);
      // Of JSON that is masked in parts the rest is a value like any other.
      const isWhole = this.choices[index]?.paths === undefined || masked === null || column === undefined;
      return isWhole ? masked : this.#patterns.apply(masked, column);
    }
    return column === undefined || this.#patterns.isEmpty ? value : this.#patterns.apply(value, column);
  }
}

/** A field of a row: its length and its bytes. */
function withLength(value: Buffer | null): Buffer {
  const header = Buffer.alloc(4);
  header.writeInt32BE(value === null ? -1 : value.length);
  return value === null ? header : Buffer.concat([header, value]);
}

interface Witnesses {
  readonly columns: readonly DescribedColumn[];
  readonly decision: MaskDecision;
  readonly context: MaskingContext;
}

function choiceFor(
  column: DescribedColumn,
  index: number,
  { columns, decision, context }: Witnesses,
): ValueMaskChoice | undefined {
  const { masking, originOf } = context;
  const origin = column.table === 0 ? undefined : originOf(column.table, column.attribute);
  const seen = origin === undefined ? undefined : masking.maskOf(origin);
  if (decision.kind !== "mask") return seen;
  // A result of another width than the text says: nobody knows which column is which, so all are hidden.
  const isOdd = decision.rest === undefined && decision.columns.length !== columns.length;
  const told = isOdd ? decision.columns.find((choice) => choice !== undefined) : decision.columns[index];
  const choice = told ?? decision.rest;
  if (isOdd && choice !== undefined) return { ...ofWhole(choice), isExact: choice.isExact };
  return choice ?? seen;
}

/**
 * Where columns may have changed places, a value that was computed from a masked one may stand anywhere but in columns that the
 * server says to be stored ones: those show themselves.
 */
function withShifts(
  choices: readonly (ValueMaskChoice | undefined)[],
  { columns, decision, context }: Witnesses,
): readonly (ValueMaskChoice | undefined)[] {
  if (decision.kind !== "mask" || decision.mayShift !== true) return choices;
  const { originOf, isStored } = context;
  const unseen = columns.findIndex(
    ({ table, attribute }, index) =>
      decision.columns[index] !== undefined && (table === 0 || originOf(table, attribute) === undefined),
  );
  const choice = decision.columns[unseen];
  if (choice === undefined) return choices;
  return choices.map((found, index) => {
    const { table = 0, attribute = 0 } = columns[index] ?? {};
    return found ?? (table !== 0 && isStored?.(table, attribute) === true ? undefined : ofWhole(choice));
  });
}

function malformed(what: string): GatewayError {
  return new GatewayError("upstreamProtocol", { detail: `the server sent a malformed ${what}` });
}
