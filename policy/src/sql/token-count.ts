/**
 * How many tokens a text has, before the parser sees it: a tree costs a hundred times its text, and while it grows no
 * other session is served. Only a bound on cost: a text that this scan misreads is parsed and judged all the same.
 */

/** Whether a text has more tokens than `max`; literals, names and comments count once however long they are. */
export function hasMoreTokensThan(max: number, sql: string): boolean {
  // Each token is a character at least.
  if (sql.length <= max) return false;
  let tokens = 0;
  let at = 0;
  while (at < sql.length) {
    const code = sql.charCodeAt(at);
    if (code <= 0x20) at += 1;
    else {
      tokens += 1;
      if (tokens > max) return true;
      at = tokenEnd(sql, at, code);
    }
  }
  return false;
}

function tokenEnd(sql: string, start: number, code: number): number {
  if (isWordPart(code)) return wordEnd(sql, start);
  if (code === quote || code === doubleQuote) return quotedEnd(sql, start, code, false);
  if (code === dollar) return dollarQuotedEnd(sql, start);
  // `::` is one; of the longer operators each character counts, which only refuses sooner.
  if (code === colon && sql.charCodeAt(start + 1) === colon) return start + 2;
  if (code === dash && sql.charCodeAt(start + 1) === dash) return after(sql, "\n", start + 2);
  // Nested comments end later than this says: what is left of them counts as tokens, which only refuses sooner.
  if (code === slash && sql.charCodeAt(start + 1) === star) return after(sql, "*/", start + 2);
  return start + 1;
}

function wordEnd(sql: string, start: number): number {
  let at = start + 1;
  // A dollar inside a name begins no quote; behind a number it does.
  const isName = sql.charCodeAt(start) > 0x39;
  const isMore = (code: number) => isWordPart(code) || (isName && code === dollar);
  while (at < sql.length && isMore(sql.charCodeAt(at))) at += 1;
  const isEscapeString = at === start + 1 && (sql[start] === "E" || sql[start] === "e");
  return isEscapeString && sql.charCodeAt(at) === quote ? quotedEnd(sql, at, quote, true) : at;
}

function quotedEnd(sql: string, start: number, mark: number, hasEscapes: boolean): number {
  for (let at = start + 1; at < sql.length; at += 1) {
    const code = sql.charCodeAt(at);
    if (code === mark) return at + 1;
    if (hasEscapes && code === backslash) at += 1;
  }
  return sql.length;
}

function dollarQuotedEnd(sql: string, start: number): number {
  parameter.lastIndex = start;
  if (parameter.test(sql)) return parameter.lastIndex;
  dollarTag.lastIndex = start;
  const tag = dollarTag.exec(sql)?.[0];
  return tag === undefined ? start + 1 : after(sql, tag, start + tag.length);
}

function after(sql: string, mark: string, from: number): number {
  const found = sql.indexOf(mark, from);
  return found < 0 ? sql.length : found + mark.length;
}

function isWordPart(code: number): boolean {
  return (
    (code >= 0x61 && code <= 0x7a) ||
    (code >= 0x41 && code <= 0x5a) ||
    (code >= 0x30 && code <= 0x39) ||
    code === 0x5f ||
    code >= 0x80
  );
}

// PostgreSQL's own tags have 63 bytes at most.
const dollarTag = /\$(?:[A-Za-z_\x80-\uffff][A-Za-z_0-9\x80-\uffff]{0,62})?\$/y;
const parameter = /\$\d+/y;
const quote = 0x27;
const doubleQuote = 0x22;
const dollar = 0x24;
const colon = 0x3a;
const dash = 0x2d;
const slash = 0x2f;
const star = 0x2a;
const backslash = 0x5c;
