/**
 * Built-in patterns, found in bytes by one linear pass without backtracking: every scan is bounded by the length of
 * what it looks for. Ranges are of bytes and never overlap.
 */

/** The patterns that a policy may name. */
export const patternNames = [
  "email",
  "creditCard",
  "ssn",
  "phone",
  "ipv4",
  "ipv6",
  "jwt",
  "privateKey",
  "awsKey",
] as const;

/** The name of a built-in pattern. */
export type PatternName = (typeof patternNames)[number];

/** Where a pattern was found: bytes from `start` up to `end`. */
export interface PatternMatch {
  readonly start: number;
  readonly end: number;
  readonly pattern: PatternName;
}

// Classes of bytes, as bits.
const digit = 1;
const alpha = 2;
const local = 4;
const domain = 8;
const hex = 16;
const base64url = 32;
const trigger = 64;

const classes = new Uint8Array(256);

function mark(characters: string, bits: number): void {
  for (const character of characters) {
    const code = character.charCodeAt(0);
    classes[code] = (classes[code] ?? 0) | bits;
  }
}

const digits = "0123456789";
const letters = "abcdefghijklmnopqrstuvwxyz";
mark(digits, digit | local | domain | hex | base64url | trigger);
mark(letters + letters.toUpperCase(), alpha | local | domain | base64url);
mark("abcdefABCDEF", hex);
mark("!#$%&'*+-/=?^_`{|}~.", local);
mark("-.", domain);
mark("-_", base64url);
mark("@:-eA+(", trigger);
// Letters of other scripts in UTF-8 may stand in addresses.
for (let code = 0x80; code <= 0xff; code += 1) classes[code] = local | domain;

const at = (bytes: Uint8Array, index: number): number => classes[bytes[index] ?? 0] ?? 0;
const isWord = (bits: number): boolean => (bits & (digit | alpha)) !== 0;

/** Finds some of the built-in patterns. */
export class PatternScanner {
  readonly #email: boolean;
  readonly #creditCard: boolean;
  readonly #ssn: boolean;
  readonly #phone: boolean;
  readonly #ipv4: boolean;
  readonly #ipv6: boolean;
  readonly #jwt: boolean;
  readonly #privateKey: boolean;
  readonly #awsKey: boolean;

  constructor(patterns: Iterable<PatternName>) {
    const wanted = new Set(patterns);
    this.#email = wanted.has("email");
    this.#creditCard = wanted.has("creditCard");
    this.#ssn = wanted.has("ssn");
    this.#phone = wanted.has("phone");
    this.#ipv4 = wanted.has("ipv4");
    this.#ipv6 = wanted.has("ipv6");
    this.#jwt = wanted.has("jwt");
    this.#privateKey = wanted.has("privateKey");
    this.#awsKey = wanted.has("awsKey");
  }

  /** All matches between `start` and `end`, in order. */
  scan(bytes: Uint8Array, start = 0, end = bytes.length): readonly PatternMatch[] {
    let found: PatternMatch[] | undefined;
    let index = start;
    while (index < end) {
      if (((classes[bytes[index] as number] as number) & trigger) === 0) {
        index += 1;
        continue;
      }
      const match = this.#matchAt(bytes, index, { start, end });
      if (match === undefined) {
        index = this.#next(bytes, index, end);
        continue;
      }
      found ??= [];
      add(found, match);
      index = Math.max(index + 1, match.end);
    }
    return found ?? none;
  }

  /** Where to look next after nothing began at `index`: a run of digits is looked at once. */
  #next(bytes: Uint8Array, index: number, end: number): number {
    let next = index + 1;
    if ((at(bytes, index) & digit) === 0) return next;
    while (next < end && (at(bytes, next) & digit) !== 0) next += 1;
    return next;
  }

  #matchAt(bytes: Uint8Array, index: number, range: Range): PatternMatch | undefined {
    switch (bytes[index]) {
      case 0x40:
        return this.#email ? email(bytes, index, range) : undefined;
      case 0x3a:
        return this.#ipv6 ? ipv6(bytes, index, range) : undefined;
      case 0x2d:
        return this.#privateKey ? privateKey(bytes, index, range) : undefined;
      case 0x65:
        return this.#jwt ? jwt(bytes, index, range) : undefined;
      case 0x41:
        return this.#awsKey ? awsKey(bytes, index, range) : undefined;
      case 0x2b:
      case 0x28:
        return this.#phone ? phone(bytes, index, range) : undefined;
      default:
        return this.#number(bytes, index, range);
    }
  }

  /** What begins with a digit; longer forms first, so that a card number is not taken for a phone's. */
  #number(bytes: Uint8Array, index: number, range: Range): PatternMatch | undefined {
    if (index > range.start && isWord(at(bytes, index - 1))) return undefined;
    return (
      (this.#creditCard ? creditCard(bytes, index, range) : undefined) ??
      (this.#ssn ? ssn(bytes, index, range) : undefined) ??
      (this.#ipv4 ? ipv4(bytes, index, range) : undefined) ??
      (this.#phone ? phone(bytes, index, range) : undefined)
    );
  }
}

interface Range {
  readonly start: number;
  readonly end: number;
}

const none: readonly PatternMatch[] = [];

/** Adds a match; one that overlaps what was found before makes that longer. */
function add(found: PatternMatch[], match: PatternMatch): void {
  let { start, end } = match;
  for (let last = found.at(-1); last !== undefined && last.end > start; last = found.at(-1)) {
    found.pop();
    start = Math.min(start, last.start);
    end = Math.max(end, last.end);
  }
  found.push({ start, end, pattern: match.pattern });
}

const localMax = 64;
const domainMax = 255;

function email(bytes: Uint8Array, index: number, range: Range): PatternMatch | undefined {
  let start = index;
  const first = Math.max(range.start, index - localMax);
  while (start > first && (at(bytes, start - 1) & local) !== 0) start -= 1;
  while (start < index && (bytes[start] === 0x2e || bytes[start] === 0x27)) start += 1;
  if (start === index) return undefined;
  let end = index + 1;
  const last = Math.min(range.end, index + 1 + domainMax);
  while (end < last && (at(bytes, end) & domain) !== 0) end += 1;
  while (end > index + 1 && (bytes[end - 1] === 0x2e || bytes[end - 1] === 0x2d)) end -= 1;
  let dot = end - 1;
  while (dot > index && bytes[dot] !== 0x2e) dot -= 1;
  // A top-level domain has two characters at least and no digit at its start.
  if (dot <= index + 1 || end - dot < 3 || (at(bytes, dot + 1) & digit) !== 0) return undefined;
  return { start, end, pattern: "email" };
}

/** Reads digits with single separators between them; gives the digits' count by way of `buffer`. */
const buffer = new Uint8Array(20);

function creditCard(bytes: Uint8Array, index: number, range: Range): PatternMatch | undefined {
  let count = 0;
  let end = index;
  let scan = index;
  let separator = 0;
  while (scan < range.end && count < buffer.length) {
    const byte = bytes[scan] as number;
    if (byte >= 0x30 && byte <= 0x39) {
      buffer[count] = byte - 0x30;
      count += 1;
      scan += 1;
      end = scan;
      continue;
    }
    const isSeparator = byte === 0x20 || byte === 0x2d;
    if (!isSeparator || scan !== end || (separator !== 0 && byte !== separator)) break;
    separator = byte;
    scan += 1;
  }
  if (count < 13 || count > 19 || (end < range.end && isWord(at(bytes, end)))) return undefined;
  // Issuers begin with 2 to 6; all zeros would pass the checksum too.
  const first = buffer[0] ?? 0;
  if (first < 2 || first > 6 || !luhn(count)) return undefined;
  return { start: index, end, pattern: "creditCard" };
}

function luhn(count: number): boolean {
  let sum = 0;
  for (let index = count - 1, isDoubled = false; index >= 0; index -= 1, isDoubled = !isDoubled) {
    let value = buffer[index] ?? 0;
    if (isDoubled) {
      value *= 2;
      if (value > 9) value -= 9;
    }
    sum += value;
  }
  return sum % 10 === 0;
}

/** A US social security number: three, two and four digits with the same separator between them. */
function ssn(bytes: Uint8Array, index: number, range: Range): PatternMatch | undefined {
  const end = index + 11;
  const separator = bytes[index + 3];
  if (end > range.end || (separator !== 0x2d && separator !== 0x20) || bytes[index + 6] !== separator) {
    return undefined;
  }
  for (const offset of [0, 1, 2, 4, 5, 7, 8, 9, 10]) {
    if ((at(bytes, index + offset) & digit) === 0) return undefined;
  }
  if (end < range.end && isWord(at(bytes, end))) return undefined;
  const area = number(bytes, index, 3);
  if (area === 0 || area === 666 || area >= 900) return undefined;
  if (number(bytes, index + 4, 2) === 0 || number(bytes, index + 7, 4) === 0) return undefined;
  return { start: index, end, pattern: "ssn" };
}

function number(bytes: Uint8Array, index: number, length: number): number {
  let value = 0;
  for (let offset = 0; offset < length; offset += 1) value = value * 10 + (bytes[index + offset] ?? 0) - 0x30;
  return value;
}

function ipv4(bytes: Uint8Array, index: number, range: Range): PatternMatch | undefined {
  const end = ipv4End(bytes, index, range.end);
  if (end === undefined || (end < range.end && isWord(at(bytes, end)))) return undefined;
  // A fifth part makes it a version or an object identifier.
  if (bytes[end] === 0x2e && (at(bytes, end + 1) & digit) !== 0 && end + 1 < range.end) return undefined;
  if (index > range.start && bytes[index - 1] === 0x2e) return undefined;
  return { start: index, end, pattern: "ipv4" };
}

/** The end of an IPv4 address that begins at `index`, or undefined. */
function ipv4End(bytes: Uint8Array, index: number, limit: number): number | undefined {
  let scan = index;
  for (let part = 0; part < 4; part += 1) {
    if (part > 0) {
      if (bytes[scan] !== 0x2e || scan >= limit) return undefined;
      scan += 1;
    }
    const first = scan;
    while (scan < limit && scan - first < 4 && (at(bytes, scan) & digit) !== 0) scan += 1;
    const length = scan - first;
    if (length === 0 || length > 3 || number(bytes, first, length) > 255) return undefined;
    if (length > 1 && bytes[first] === 0x30) return undefined;
  }
  return scan;
}

const ipv6Max = 45;

function ipv6(bytes: Uint8Array, index: number, range: Range): PatternMatch | undefined {
  let start = index;
  const first = Math.max(range.start, index - 4);
  while (start > first && (at(bytes, start - 1) & hex) !== 0) start -= 1;
  if (start > range.start && (isWord(at(bytes, start - 1)) || bytes[start - 1] === 0x3a)) return undefined;
  const last = Math.min(range.end, start + ipv6Max);
  let groups = 0;
  let isShortened = false;
  let scan = start;
  let end = start;
  while (scan < last) {
    const groupStart = scan;
    while (scan < last && scan - groupStart < 5 && (at(bytes, scan) & hex) !== 0) scan += 1;
    const length = scan - groupStart;
    if (length > 4) return undefined;
    if (length > 0) {
      if (bytes[scan] === 0x2e) {
        const tail = ipv4End(bytes, groupStart, last);
        if (tail === undefined) break;
        groups += 2;
        end = tail;
        break;
      }
      groups += 1;
      end = scan;
    }
    if (bytes[scan] !== 0x3a || scan >= last) break;
    if (bytes[scan + 1] === 0x3a && scan + 1 < last) {
      if (isShortened) return undefined;
      isShortened = true;
      scan += 2;
      end = scan;
    } else if (length > 0) scan += 1;
    else break;
  }
  const isWhole = isShortened ? groups >= 1 && groups <= 7 : groups === 8;
  if (!isWhole || (end < range.end && isWord(at(bytes, end)))) return undefined;
  return { start, end, pattern: "ipv6" };
}

/** Digits of each group of the number being read, as decimal places: 3-3-4 reads as 334. */
const national = 334;
const nationalLong = 1334;

/** A telephone number: `+` and 8 to 15 digits, or the North American form in its groups. */
function phone(bytes: Uint8Array, index: number, range: Range): PatternMatch | undefined {
  const isInternational = bytes[index] === 0x2b;
  let scan = isInternational ? index + 1 : index;
  let count = 0;
  let groups = 0;
  let group = 0;
  let end = scan;
  let isOpen = false;
  while (scan < range.end && count < 16) {
    const byte = bytes[scan] as number;
    if (byte >= 0x30 && byte <= 0x39) {
      count += 1;
      group += 1;
      end = scan + 1;
    } else if (byte === 0x28 && !isOpen && (group === 0 || bytes[scan - 1] === 0x20)) isOpen = true;
    else if (byte === 0x20 || byte === 0x2d || byte === 0x2e || byte === 0x29) {
      const before = bytes[scan - 1] as number;
      if (before === 0x20 || before === 0x2d || before === 0x2e) break;
      if (group > 0) groups = groups * 10 + group;
      group = 0;
    } else break;
    scan += 1;
  }
  if (end < range.end && isWord(at(bytes, end))) return undefined;
  if (group > 0) groups = groups * 10 + group;
  const isPhone = isInternational
    ? count >= 8 && count <= 15
    : groups === national || groups === nationalLong;
  return isPhone ? { start: index, end, pattern: "phone" } : undefined;
}

const jwtMax = 16_384;

/** A JSON web token: three parts of base64url, the first two of which begin as JSON objects do. */
function jwt(bytes: Uint8Array, index: number, range: Range): PatternMatch | undefined {
  if (!startsJson(bytes, index, range.end)) return undefined;
  if (index > range.start && (at(bytes, index - 1) & base64url) !== 0) return undefined;
  const last = Math.min(range.end, index + jwtMax);
  let scan = run(bytes, index, last);
  if (bytes[scan] !== 0x2e || !startsJson(bytes, scan + 1, range.end)) return undefined;
  scan = run(bytes, scan + 1, last);
  if (bytes[scan] !== 0x2e || scan >= last) return undefined;
  // An unsecured token has an empty third part.
  return { start: index, end: run(bytes, scan + 1, last), pattern: "jwt" };
}

const startsJson = (bytes: Uint8Array, index: number, end: number): boolean =>
  index + 3 <= end && bytes[index] === 0x65 && bytes[index + 1] === 0x79 && bytes[index + 2] === 0x4a;

function run(bytes: Uint8Array, index: number, last: number): number {
  let scan = index;
  while (scan < last && (at(bytes, scan) & base64url) !== 0) scan += 1;
  return scan;
}

const begin = new TextEncoder().encode("-----BEGIN ");
const privateKeyTail = new TextEncoder().encode("PRIVATE KEY");
const endMark = new TextEncoder().encode("-----END ");

/** A PEM private key of any kind, up to its end or, where that is missing, the end of the value. */
function privateKey(bytes: Uint8Array, index: number, range: Range): PatternMatch | undefined {
  if (!startsWith(bytes, index, begin, range.end)) return undefined;
  const label = index + begin.length;
  let isPrivate = false;
  for (let scan = label; scan < Math.min(label + 40, range.end); scan += 1) {
    if (bytes[scan] === 0x50 && startsWith(bytes, scan, privateKeyTail, range.end)) isPrivate = true;
  }
  if (!isPrivate) return undefined;
  for (let scan = label; scan < range.end; scan += 1) {
    if (bytes[scan] !== 0x2d || !startsWith(bytes, scan, endMark, range.end)) continue;
    let end = scan + endMark.length;
    while (end < range.end && end < scan + 60 && bytes[end] !== 0x2d) end += 1;
    while (end < range.end && bytes[end] === 0x2d) end += 1;
    return { start: index, end, pattern: "privateKey" };
  }
  return { start: index, end: range.end, pattern: "privateKey" };
}

function startsWith(bytes: Uint8Array, index: number, wanted: Uint8Array, end: number): boolean {
  if (index + wanted.length > end) return false;
  for (let offset = 0; offset < wanted.length; offset += 1) {
    if (bytes[index + offset] !== wanted[offset]) return false;
  }
  return true;
}

const awsKinds = ["KIA", "SIA", "GPA", "IDA", "ROA", "NPA", "NVA"].map((text) =>
  new TextEncoder().encode(text),
);
const awsLength = 20;

/** An AWS access key or principal id: four letters of its kind and sixteen of base32. */
function awsKey(bytes: Uint8Array, index: number, range: Range): PatternMatch | undefined {
  const end = index + awsLength;
  if (end > range.end || (index > range.start && isWord(at(bytes, index - 1)))) return undefined;
  if (!awsKinds.some((kind) => startsWith(bytes, index + 1, kind, range.end))) return undefined;
  for (let scan = index + 4; scan < end; scan += 1) {
    const byte = bytes[scan] ?? 0;
    const isUpper = byte >= 0x41 && byte <= 0x5a;
    if (!isUpper && (at(bytes, scan) & digit) === 0) return undefined;
  }
  if (end < range.end && isWord(at(bytes, end))) return undefined;
  return { start: index, end, pattern: "awsKey" };
}
