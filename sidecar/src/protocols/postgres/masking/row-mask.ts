/**
 * Rows of one result: RowDescription says what the columns are, each DataRow is rewritten with its masks. The text's
 * lineage is the first witness, the origin that the server names for a column the second; where either says that a
 * column is masked, it is.
 */
import type { MaskDecision, SessionMasking, ValueMaskChoice } from "@sallyport/policy";
import { GatewayError } from "../../../wire/gateway-error.ts";
import type { PatternMask } from "./pattern-mask.ts";
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
  /** True where no value of the result is looked at, so that rows may pass unread. */
  readonly isIdle: boolean;
  /** How many columns are masked as a whole. */
  readonly maskedColumns: number;
  /** The masks in force, for the record: by column, undefined for none. */
  readonly choices: readonly (ValueMaskChoice | undefined)[];

  constructor(columns: readonly DescribedColumn[], decision: MaskDecision, context: MaskingContext) {
    this.#columns = columns;
    this.#patterns = context.patterns;
    this.choices = columns.map((column, index) => choiceFor(column, index, { columns, decision, context }));
    this.#masks = columns.map((column, index) => {
      const choice = this.choices[index];
      return choice === undefined ? undefined : valueMask(choice, column, context.key);
    });
    this.maskedColumns = this.#masks.filter((mask) => mask !== undefined).length;
    this.isIdle = this.#patterns.isEmpty && this.#masks.every((mask) => mask === undefined);
  }

  /** One whole DataRow message, masked; throws for one that does not fit its description. */
  apply(message: Buffer): Buffer {
    const end = message.length;
    if (end < 7 || message.readUInt16BE(5) !== this.#columns.length) throw malformed("DataRow");
    const pieces: Buffer[] = [];
    let done = 0;
    let at = 7;
    let size = end;
    for (let index = 0; index < this.#columns.length; index += 1) {
      if (at + 4 > end) throw malformed("DataRow");
      const length = message.readInt32BE(at);
      const start = at + 4;
      if (length < -1 || start + Math.max(length, 0) > end) throw malformed("DataRow");
      at = start + Math.max(length, 0);
      if (length < 0) continue;
      const value = message.subarray(start, at);
      const masked = this.#value(index, value);
      if (masked === value) continue;
      const header = Buffer.allocUnsafe(4);
      header.writeInt32BE(masked === null ? -1 : masked.length);
      pieces.push(message.subarray(done, start - 4), header);
      if (masked !== null) pieces.push(masked);
      size += (masked === null ? 0 : masked.length) - length;
      done = at;
    }
    if (at !== end) throw malformed("DataRow");
    if (pieces.length === 0) return message;
    pieces.push(message.subarray(done));
    const row = Buffer.concat(pieces, size);
    row.writeInt32BE(size - 1, 1);
    return row;
  }

  #value(index: number, value: Buffer): Buffer | null {
    const mask = this.#masks[index];
    if (mask !== undefined) return mask(value);
    const column = this.#columns[index];
    return column === undefined || this.#patterns.isEmpty ? value : this.#patterns.apply(value, column);
  }
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
  if (isOdd && choice !== undefined) return { ...choice, with: choice.with === "Null" ? "Null" : "Redact" };
  return choice ?? seen;
}

function malformed(what: string): GatewayError {
  return new GatewayError("upstreamProtocol", { detail: `the server sent a malformed ${what}` });
}
