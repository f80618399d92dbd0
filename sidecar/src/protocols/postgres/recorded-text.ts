import type { Verdict } from "@sallyport/policy";
import type { Judged } from "./statement-judge.ts";

/** Words with which a statement may carry a secret: a password, a connection string, a mapping's options. */
const maySecrets = /\b(password|connection|options|secret)\b/i;

/**
 * Text and verdict as recordings keep them. Statements that set credentials (and texts that cannot be parsed, where
 * nobody can tell) are kept without their string literals: a typed secret is never an event.
 */
export function recorded(judged: Judged): { readonly text: string; readonly verdict: Verdict } {
  const { text, needsDisk, rejection, verdict } = judged;
  if ((!needsDisk && rejection === undefined) || !maySecrets.test(text)) return judged;
  // The server's words for a syntax error quote what stands at the error.
  const message = rejection === undefined ? verdict.message : "the statement cannot be parsed or resolved";
  return { text: withoutLiterals(text), verdict: { ...verdict, message } };
}

const replacement = "'***'";

/** Replaces every string literal, dollar-quoted ones included; what does not end is replaced up to the end. */
export function withoutLiterals(text: string): string {
  let out = "";
  let at = 0;
  while (at < text.length) {
    const character = text[at] ?? "";
    const tag = character === "$" ? dollarTag(text, at) : undefined;
    if (character !== "'" && tag === undefined) {
      out += character;
      at += 1;
      continue;
    }
    const hasEscapes = /[eE]$/.test(out);
    const end = tag === undefined ? quoteEnd(text, at, hasEscapes) : dollarEnd(text, at, tag);
    out += replacement;
    at = end;
  }
  return out;
}

function quoteEnd(text: string, start: number, hasEscapes: boolean): number {
  for (let at = start + 1; at < text.length; at += 1) {
    if (hasEscapes && text[at] === "\\") at += 1;
    else if (text[at] === "'" && text[at + 1] === "'") at += 1;
    else if (text[at] === "'") return at + 1;
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
