import type { Verdict } from "@sallyport/policy";
import type { RecordedParameter } from "./bind.ts";
import type { Judged } from "./statement-judge.ts";

/** A keyed hash of a value: the same for the same value, and of no use without the key. */
export type HashOf = (value: string) => string;

/** Words with which a statement may carry a secret: a password, a connection string, a mapping's options. */
const maySecrets = /\b(password|connection|options|secret)\b|:\/\/[^\s/:@]{0,40}:[^\s@]{1,80}@/i;
/** The same in code that nobody can read: a body that is put together at run time, a function of an extension. */
const maySecretsInCode = /\b(password|secret)\b|:\/\/[^\s/:@]{0,40}:[^\s@]{1,80}@/i;

/**
 * Text and verdict as recordings keep them. Statements that set credentials (and texts that cannot be parsed, where
 * nobody can tell) are kept without their string literals: a typed secret is never an event.
 */
export function recorded(
  judged: Judged,
  hashOf: HashOf,
): { readonly text: string; readonly verdict: Verdict } {
  const { text, needsDisk, rejection, verdict } = judged;
  if (judged.hidesLiterals) {
    // The server's words may quote what stands in the text.
    const message = rejection === undefined ? verdict.message : "the statement cannot be parsed or resolved";
    return { text: withHashedLiterals(text, hashOf), verdict: { ...verdict, message } };
  }
  const isCode = judged.command.parts.some(({ operation }) => operation === "execute");
  const maySet = (needsDisk || rejection !== undefined) && maySecrets.test(text);
  if (!maySet && !(isCode && maySecretsInCode.test(text))) return judged;
  // The server's words for a syntax error quote what stands at the error.
  const message = rejection === undefined ? verdict.message : "the statement cannot be parsed or resolved";
  // Where a text cannot be parsed, nobody knows which quotes belong together.
  const shown = rejection?.sqlstate === "42601" ? upToLiterals(text) : withoutLiterals(text);
  return { text: shown, verdict: { ...verdict, message } };
}

function upToLiterals(text: string): string {
  const at = text.search(/['"$]|--|\/\*/);
  return at < 0 ? text : `${text.slice(0, at)}${replacement}`;
}

const replacement = "'***'";

/** A parameter that may be a masked value. */
export function hashedParameter(value: RecordedParameter, hashOf: HashOf): RecordedParameter {
  if (value === null) return null;
  return `#${hashOf(typeof value === "string" ? value : value.binary)}`;
}

/** Every literal, string or number, as a keyed hash; comments, which nobody can follow, are left out. */
export function withHashedLiterals(text: string, hashOf: HashOf): string {
  let out = "";
  let at = 0;
  while (at < text.length) {
    const character = text[at] ?? "";
    const tag = character === "$" ? dollarTag(text, at) : undefined;
    let end: number;
    const comment = commentEnd(text, at);
    if (comment !== undefined) {
      // What stood on both sides of it stays apart; behind `--` the end of the line does that.
      if (character === "/") out += " ";
      at = comment;
      continue;
    }
    if (character === '"') {
      end = quoteEnd(text, at, false, '"');
      out += text.slice(at, end);
      at = end;
      continue;
    }
    if (character === "'") end = quoteEnd(text, at, hasPrefix(text, at));
    else if (tag !== undefined) end = dollarEnd(text, at, tag);
    else {
      const word = /[\p{L}\p{N}_.$]+/uy;
      word.lastIndex = at;
      const found = word.exec(text)?.[0];
      end = at + (found?.length ?? 1);
      if (found === undefined || !/^\.?\d/.test(found)) {
        out += text.slice(at, end);
        at = end;
        continue;
      }
    }
    out += `'#${hashOf(text.slice(at, end).replace(/^'|'$/g, ""))}'`;
    at = end;
  }
  return out;
}

/** Where a comment ends that begins here; undefined where none does. */
function commentEnd(text: string, start: number): number | undefined {
  if (text.startsWith("--", start)) {
    const newline = text.slice(start).search(/[\n\r]/);
    return newline < 0 ? text.length : start + newline;
  }
  if (!text.startsWith("/*", start)) return undefined;
  let depth = 0;
  for (let at = start; at < text.length; at += 1) {
    if (text.startsWith("/*", at)) {
      depth += 1;
      at += 1;
    } else if (text.startsWith("*/", at)) {
      depth -= 1;
      at += 1;
      if (depth === 0) return at + 1;
    }
  }
  return text.length;
}

/** True behind the `E` of a string with escapes, which is not the end of a word. */
function hasPrefix(text: string, at: number): boolean {
  return /^(?:[^\w$\u0080-\uffff]|)[eE]$/.test(text.slice(Math.max(0, at - 2), at));
}

/**
 * Replaces every string literal, dollar-quoted ones included; what does not end is replaced up to the end. Quotes in
 * comments, which are left out, and in quoted names begin no literal: what follows them would be taken for its end.
 */
export function withoutLiterals(text: string): string {
  let out = "";
  let at = 0;
  while (at < text.length) {
    const character = text[at] ?? "";
    const comment = commentEnd(text, at);
    if (comment !== undefined) {
      // What stood on both sides of it stays apart; behind `--` the end of the line does that.
      if (character === "/") out += " ";
      at = comment;
      continue;
    }
    if (character === '"') {
      const end = quoteEnd(text, at, false, '"');
      const isWhole = end > at + 1 && text[end - 1] === '"';
      out += isWhole ? text.slice(at, end) : replacement;
      at = end;
      continue;
    }
    const tag = character === "$" ? dollarTag(text, at) : undefined;
    if (character !== "'" && tag === undefined) {
      out += character;
      at += 1;
      continue;
    }
    const hasEscapes = hasPrefix(text, at);
    const end = tag === undefined ? quoteEnd(text, at, hasEscapes) : dollarEnd(text, at, tag);
    out += replacement;
    at = end;
  }
  return out;
}

function quoteEnd(text: string, start: number, hasEscapes: boolean, quote = "'"): number {
  for (let at = start + 1; at < text.length; at += 1) {
    if (hasEscapes && text[at] === "\\") at += 1;
    else if (text[at] === quote && text[at + 1] === quote) at += 1;
    else if (text[at] === quote) return at + 1;
  }
  return text.length;
}

function dollarTag(text: string, at: number): string | undefined {
  const end = text.indexOf("$", at + 1);
  if (end < 0 || end - at > 64) return undefined;
  const tag = text.slice(at, end + 1);
  return /^\$([A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$$/.test(tag) ? tag : undefined;
}

function dollarEnd(text: string, start: number, tag: string): number {
  const end = text.indexOf(tag, start + tag.length);
  return end < 0 ? text.length : end + tag.length;
}
