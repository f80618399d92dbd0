/**
 * Patterns in values: what is found in a text is replaced there, in JSON so that it stays JSON; a value of another
 * type in which one is found is masked whole.
 */
import { CustomPattern, type PatternName, PatternScanner } from "@sallyport/policy";
import { type ColumnType, type MaskMethod, valueMask } from "./value-mask.ts";

/** One masking entry that looks for patterns. */
export interface PatternRule {
  readonly patterns: readonly PatternName[];
  readonly customPatterns: readonly { readonly name: string; readonly regex: string }[];
  readonly method: MaskMethod;
}

/** Types that are text to the reader: text, varchar, bpchar, name, unknown, xml. */
const textOids = new Set([25, 1043, 1042, 19, 705, 142]);
const json = 114;
const jsonb = 3802;
const int8 = 20;
const int4 = 23;

/** A range of bytes that is to be hidden. */
interface Found {
  readonly start: number;
  readonly end: number;
}

/** Told of each match, by the pattern's name. */
export type CountMatch = (pattern: string) => void;

interface CompiledRule {
  readonly scanner: PatternScanner | undefined;
  readonly custom: readonly CustomPattern[];
  readonly method: MaskMethod;
}

/** Masks what patterns find; one for a session, shared by all its columns. */
export class PatternMask {
  readonly #rules: readonly CompiledRule[];
  readonly #key: Buffer;
  readonly #count: CountMatch;

  constructor(rules: readonly PatternRule[], key: Buffer, count: CountMatch = () => undefined) {
    this.#rules = rules.map((rule) => ({
      scanner: rule.patterns.length === 0 ? undefined : new PatternScanner(rule.patterns),
      custom: rule.customPatterns.map(({ name, regex }) => new CustomPattern(name, regex)),
      method: rule.method,
    }));
    this.#key = key;
    this.#count = count;
  }

  /** True where nothing is looked for. */
  get isEmpty(): boolean {
    return this.#rules.length === 0;
  }

  /** The value with what was found hidden; the value itself where nothing was; null for NULL. */
  apply(value: Buffer, type: ColumnType): Buffer | null {
    let current = value;
    for (const rule of this.#rules) {
      const next = this.#applyRule(rule, current, type);
      if (next === null) return null;
      current = next;
    }
    return current;
  }

  /** A text on its own: a notice, a line of COPY that nobody gave types for. */
  applyToText(value: Buffer): Buffer {
    return this.apply(value, { oid: 25, format: 0 }) ?? Buffer.alloc(0);
  }

  #applyRule(rule: CompiledRule, value: Buffer, type: ColumnType): Buffer | null {
    const isJson = type.oid === json || type.oid === jsonb;
    const isText = textOids.has(type.oid) || isJson || type.format === 0;
    const searched = isText ? value : searchable(value, type);
    const found = this.#find(rule, searched);
    if (found.length === 0) return value;
    if (!isText || (!textOids.has(type.oid) && !isJson)) return this.#whole(rule.method, value, type);
    return isJson
      ? inJson(value, found, rule.method, this.#key)
      : inText(value, found, rule.method, this.#key);
  }

  /** A value of a type of its own: masked by its type's rules; parts of it mean nothing. */
  #whole(method: MaskMethod, value: Buffer, type: ColumnType): Buffer | null {
    return valueMask(method.with === "Partial" ? { with: "Redact" } : method, type, this.#key)(value);
  }

  #find(rule: CompiledRule, value: Buffer): readonly Found[] {
    const found = rule.scanner?.scan(value) ?? [];
    for (const { pattern } of found) this.#count(pattern);
    if (rule.custom.length === 0) return found;
    const all: Found[] = [...found];
    for (const pattern of rule.custom) {
      for (const [start, end] of pattern.find(value)) {
        this.#count(pattern.name);
        all.push({ start, end });
      }
    }
    return merged(all);
  }
}

/** Binary values in the form in which people would read them; others as they are. */
function searchable(value: Buffer, type: ColumnType): Buffer {
  if (type.oid === int8 && value.length === 8) return Buffer.from(value.readBigInt64BE().toString());
  if (type.oid === int4 && value.length === 4) return Buffer.from(value.readInt32BE().toString());
  // inet and cidr: family, bits, is_cidr, length, address.
  if ((type.oid === 869 || type.oid === 650) && value.length === 8) {
    return Buffer.from([...value.subarray(4)].join("."));
  }
  if (type.oid === 1700) return Buffer.from(numericText(value));
  return value;
}

/** The integer digits of a binary numeric: groups of four decimal digits. */
function numericText(value: Buffer): string {
  if (value.length < 8) return "";
  const count = Math.min(value.readInt16BE(0), (value.length - 8) / 2);
  const weight = value.readInt16BE(2);
  let text = "";
  for (let index = 0; index < count && index <= weight; index += 1) {
    const group = value.readInt16BE(8 + index * 2).toString();
    text += text === "" ? group : group.padStart(4, "0");
  }
  return text;
}

function merged(matches: Found[]): readonly Found[] {
  matches.sort((left, right) => left.start - right.start || right.end - left.end);
  const result: Found[] = [];
  for (const match of matches) {
    const last = result.at(-1);
    if (last !== undefined && match.start < last.end) {
      if (match.end > last.end) result[result.length - 1] = { ...last, end: match.end };
    } else result.push(match);
  }
  return result;
}

function inText(value: Buffer, found: readonly Found[], method: MaskMethod, key: Buffer): Buffer {
  const mask = valueMask(method, { oid: 25, format: 0 }, key);
  const pieces: Buffer[] = [];
  let done = 0;
  for (const { start, end } of found) {
    pieces.push(value.subarray(done, start));
    // Null of a part of a text leaves nothing of it.
    pieces.push(mask(value.subarray(start, end)) ?? Buffer.alloc(0));
    done = end;
  }
  pieces.push(value.subarray(done));
  return Buffer.concat(pieces);
}

/** In a string of JSON the mask is a string's text; outside one, digits become zeros, which any number may have. */
function inJson(value: Buffer, found: readonly Found[], method: MaskMethod, key: Buffer): Buffer {
  const mask = valueMask(method, { oid: 25, format: 0 }, key);
  const pieces: Buffer[] = [];
  let done = 0;
  let isString = false;
  let scanned = 0;
  for (const { start, end } of found) {
    for (; scanned < start; scanned += 1) {
      if (value[scanned] === 0x5c && isString) scanned += 1;
      else if (value[scanned] === 0x22) isString = !isString;
    }
    pieces.push(value.subarray(done, start));
    const part = value.subarray(start, end);
    pieces.push(isString ? jsonText(mask(part)) : digitsHidden(part));
    done = end;
  }
  pieces.push(value.subarray(done));
  return Buffer.concat(pieces);
}

function jsonText(text: Buffer | null): Buffer {
  if (text === null) return Buffer.alloc(0);
  return Buffer.from(JSON.stringify(text.toString("utf8")).slice(1, -1));
}

/** The first digit becomes 1, so that no number begins with a zero that JSON would not take. */
function digitsHidden(part: Buffer): Buffer {
  const hidden = Buffer.from(part);
  let isFirst = true;
  for (let index = 0; index < hidden.length; index += 1) {
    const byte = hidden[index] ?? 0;
    if (byte < 0x30 || byte > 0x39) continue;
    hidden[index] = isFirst ? 0x31 : 0x30;
    isFirst = false;
  }
  return hidden;
}
