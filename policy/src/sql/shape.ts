/**
 * The shape of a text: the text with its plain literals taken out, so that one verdict serves all texts that differ in
 * values only. A security boundary: two texts of one shape must parse to trees that differ in constants alone. Whatever
 * this scanner does not know for certain has no shape. One pass over character codes, no backtracking.
 */

const quote = 0x27;
const doubleQuote = 0x22;
const textMax = 64 * 1024;

/** Takes the literals out, or says by undefined that the text is to be parsed as it is. */
export function shapeOf(sql: string): { readonly shape: string } | undefined {
  const length = sql.length;
  if (length > textMax) return undefined;
  let shape = "";
  let kept = 0;
  let at = 0;
  // The lexer glues `'a' <newline> 'b'` together, so a string straight after a string has no shape.
  let isAfterString = false;
  while (at < length) {
    const code = sql.charCodeAt(at);
    if (code === 0x20 || code === 0x0a || code === 0x09 || code === 0x0d) {
      at += 1;
      continue;
    }
    if (code === quote) {
      const end = stringEnd(sql, at);
      if (end < 0 || isAfterString) return undefined;
      shape += `${sql.slice(kept, at)}?s`;
      at = end;
      kept = end;
      isAfterString = true;
      continue;
    }
    isAfterString = false;
    if (isDigit(code)) {
      const end = numberEnd(sql, at);
      if (end < 0) return undefined;
      // A decimal point makes another node of it than an integer, and keeps a placeholder of its own.
      shape += `${sql.slice(kept, at)}${sql.slice(at, end).includes(".") ? "?d" : "?i"}`;
      at = end;
      kept = end;
    } else if (isNameStart(code)) {
      const end = nameEnd(sql, at);
      if (end < 0) return undefined;
      at = end;
    } else if (code === doubleQuote) {
      const end = quotedNameEnd(sql, at);
      if (end < 0) return undefined;
      at = end;
    } else if (code === 0x24) {
      const end = parameterEnd(sql, at);
      if (end < 0) return undefined;
      at = end;
    } else if (isPunctuation(code)) {
      const next = at + 1 < length ? sql.charCodeAt(at + 1) : 0;
      // `--` and `/*` begin comments; `.5` would be a number that began before we saw it.
      if (code === 0x2d && next === 0x2d) return undefined;
      if (code === 0x2f && next === 0x2a) return undefined;
      if (code === 0x2e && isDigit(next)) return undefined;
      at += 1;
    } else return undefined;
  }
  return { shape: shape + sql.slice(kept) };
}

/** After the closing quote, or -1 for a string with anything in it that could mean more than itself. */
function stringEnd(sql: string, start: number): number {
  for (let at = start + 1; at < sql.length; at += 1) {
    const code = sql.charCodeAt(at);
    if (code === quote) return mayFollow(sql, at + 1, true) ? at + 1 : -1;
    if (code === 0x5c || code < 0x20 || code === 0x7f) return -1;
    // Lone surrogates would change on their way to UTF-8.
    if (code >= 0xd800 && code <= 0xdfff) return -1;
  }
  return -1;
}

/** Up to nine digits and a decimal part: always int4 or numeric, whatever the digits are. */
function numberEnd(sql: string, start: number): number {
  let at = start;
  while (at < sql.length && isDigit(sql.charCodeAt(at))) at += 1;
  if (at - start > 9) return -1;
  if (sql.charCodeAt(at) === 0x2e) {
    const fraction = at + 1;
    at = fraction;
    while (at < sql.length && isDigit(sql.charCodeAt(at))) at += 1;
    if (at === fraction || at - fraction > 30 || sql.charCodeAt(at) === 0x2e) return -1;
  }
  return mayFollow(sql, at, false) ? at : -1;
}

/** What stands right behind a literal must be something that cannot belong to it. */
function mayFollow(sql: string, at: number, isString: boolean): boolean {
  if (at >= sql.length) return true;
  const code = sql.charCodeAt(at);
  if (code === quote || code === doubleQuote || code === 0x24 || isNameStart(code) || isDigit(code))
    return false;
  return isString || code !== 0x2e;
}

/** A plain word; with a quote right behind it, it is the prefix of a string of another kind (E'', U&'', B''). */
function nameEnd(sql: string, start: number): number {
  let at = start + 1;
  while (at < sql.length) {
    const code = sql.charCodeAt(at);
    if (!isNameStart(code) && !isDigit(code)) break;
    at += 1;
  }
  const next = at < sql.length ? sql.charCodeAt(at) : 0;
  if (next === quote || next === doubleQuote || next === 0x24) return -1;
  if (next === 0x26 && at === start + 1 && (sql.charCodeAt(start) | 0x20) === 0x75) return -1;
  return at;
}

/** "name" of plain printable characters. */
function quotedNameEnd(sql: string, start: number): number {
  for (let at = start + 1; at < sql.length; at += 1) {
    const code = sql.charCodeAt(at);
    if (code === doubleQuote) {
      const next = at + 1 < sql.length ? sql.charCodeAt(at + 1) : 0;
      return at === start + 1 || next === doubleQuote || next === quote ? -1 : at + 1;
    }
    // A `?` in a name would look like one of our placeholders.
    if (code < 0x20 || code > 0x7e || code === 0x3f || code === 0x5c) return -1;
  }
  return -1;
}

/** `$1`, never `$tag$`. */
function parameterEnd(sql: string, start: number): number {
  let at = start + 1;
  while (at < sql.length && isDigit(sql.charCodeAt(at))) at += 1;
  if (at === start + 1 || at - start > 6) return -1;
  return mayFollow(sql, at, false) ? at : -1;
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39;
}

function isNameStart(code: number): boolean {
  return (code >= 0x61 && code <= 0x7a) || (code >= 0x41 && code <= 0x5a) || code === 0x5f;
}

/** ( ) * + , - . / : ; < = > [ ] ! % & | ^ ~ # @ and no `?`, backslash, backquote or brace. */
function isPunctuation(code: number): boolean {
  return (
    (code >= 0x28 && code <= 0x2f) ||
    (code >= 0x3a && code <= 0x3e) ||
    code === 0x5b ||
    code === 0x5d ||
    code === 0x21 ||
    code === 0x23 ||
    code === 0x25 ||
    code === 0x26 ||
    code === 0x40 ||
    code === 0x5e ||
    code === 0x7c ||
    code === 0x7e
  );
}
