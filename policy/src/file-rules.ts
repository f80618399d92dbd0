/**
 * Which rules tell one file that a copy moves from another. Where there is none, nobody need look into what is copied; so
 * what cannot be told counts as one that does.
 */
import type { PolicyRule } from "./documents.ts";

/** Anything but a fact by another name: a file's, one that is looked up, all of them by a macro. */
const readsFile = /\bfacts\b(?!\s*\.\s*(?!file\b|fileSize\b)[A-Za-z_]\w*\b(?!\s*\())|\bobjects\b/;

/** Whether a rule names files. An Allow rule need not cover them by name: only its CEL can tell them apart. */
export function namesFiles({ action, match }: Pick<PolicyRule, "action" | "match">): boolean {
  if (match?.cel !== undefined && readsFile.test(match.cel)) return true;
  return action !== "Allow" && (match?.objects ?? []).some(isPath);
}

/** `/etc/*`, `*.pem`: no name of a table, nor `verb:resource`, looks like that. `*` alone tells nothing apart. */
function isPath(pattern: string): boolean {
  return pattern.startsWith("/") || (pattern.startsWith("*") && pattern !== "*" && !pattern.includes(":"));
}
