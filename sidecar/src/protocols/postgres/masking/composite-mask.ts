/**
 * Composite values field by field, in text and in binary. Fields that are NULL stay NULL; a value that is not of the
 * shape that the catalog tells becomes NULL as a whole.
 *
 *     text    (a,"b, with ""quotes""",,"")            no quotes and no letters: NULL
 *     binary  int32 fields | for each: int32 oid | int32 length or -1 | bytes
 *
 * https://www.postgresql.org/docs/18/rowtypes.html#ROWTYPES-IO-SYNTAX, and record_send in src/backend/utils/adt/rowtypes.c
 */
import type { FieldType } from "./type-shape.ts";

/** Masks one value that is not NULL; null makes it NULL. */
type FieldMask = (value: Buffer) => Buffer | null;

/** The mask of a composite: `masks` are those of its fields, in their order, for the same format. */
export function compositeMask(
  fields: readonly FieldType[],
  masks: readonly FieldMask[],
  format: number,
): FieldMask {
  return format === 1
    ? (value) => maskedBinary(value, fields, masks)
    : (value) => maskedText(value.toString("utf8"), masks);
}

function maskedText(text: string, masks: readonly FieldMask[]): Buffer | null {
  const fields = fieldsOf(text);
  if (fields === undefined || fields.length !== masks.length) return null;
  const shown = fields.map((field, index) => {
    const masked = field === undefined ? null : (masks[index]?.(Buffer.from(field)) ?? null);
    return masked === null ? "" : quoted(masked.toString("utf8"));
  });
  return Buffer.from(`(${shown.join(",")})`);
}

/** The fields of a composite as the server prints it, undefined for NULL; undefined where it is none. */
function fieldsOf(text: string): readonly (string | undefined)[] | undefined {
  if (text[0] !== "(") return undefined;
  const fields: (string | undefined)[] = [];
  let at = 1;
  for (;;) {
    const end = text[at] === '"' ? quotedEnd(text, at) : bareEnd(text, at);
    const next = text[end];
    if (next !== "," && next !== ")") return undefined;
    fields.push(end === at ? undefined : unquoted(text.slice(at, end)));
    at = end + 1;
    if (next === ")") return at === text.length ? fields : undefined;
  }
}

const ends = /[",()\\]/g;

/** Where a field without quotes ends: before the next letter that would have been quoted. */
function bareEnd(text: string, from: number): number {
  ends.lastIndex = from;
  return ends.exec(text)?.index ?? text.length;
}

const specials = /["\\]/g;

/** Behind the quote that ends a field; the server doubles quotes and backslashes within. */
function quotedEnd(text: string, from: number): number {
  specials.lastIndex = from + 1;
  for (let found = specials.exec(text); found !== null; found = specials.exec(text)) {
    const isDouble = text[found.index + 1] === found[0];
    if (!isDouble) return found[0] === '"' ? found.index + 1 : text.length;
    specials.lastIndex = found.index + 2;
  }
  return text.length;
}

function unquoted(field: string): string {
  return field[0] === '"' ? field.slice(1, -1).replace(/""|\\\\/g, (pair) => pair[0] ?? "") : field;
}

function quoted(text: string): string {
  return text === "" || /["\\(),\s]/.test(text) ? `"${text.replace(/["\\]/g, "$&$&")}"` : text;
}

function maskedBinary(
  value: Buffer,
  fields: readonly FieldType[],
  masks: readonly FieldMask[],
): Buffer | null {
  if (value.length < 4 || value.readInt32BE(0) !== fields.length) return null;
  const pieces: Buffer[] = [value.subarray(0, 4)];
  let at = 4;
  for (const [index, { declared }] of fields.entries()) {
    if (at + 8 > value.length || value.readUInt32BE(at) !== declared) return null;
    const length = value.readInt32BE(at + 4);
    const start = at + 8;
    const end = start + Math.max(length, 0);
    if (length < -1 || end > value.length) return null;
    const masked = length < 0 ? null : (masks[index]?.(value.subarray(start, end)) ?? null);
    const header = Buffer.alloc(8);
    header.writeUInt32BE(declared);
    header.writeInt32BE(masked?.length ?? -1, 4);
    pieces.push(header, ...(masked === null ? [] : [masked]));
    at = end;
  }
  return at === value.length ? Buffer.concat(pieces) : null;
}
