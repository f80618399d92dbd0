/** How names are matched: globs, command words and label selectors. All linear in the length of the input. */

import type { LabelSelector } from "./documents.ts";
import type { ObjectRef } from "./model.ts";

/** Whether a name fits a pattern. */
export type NameMatcher = (name: string) => boolean;

/**
 * Compiles a pattern in which `*` stands for any run of characters and everything else for itself. Case counts:
 * PostgreSQL has folded the names before they come here. Greedy left-to-right search of the pieces between stars
 * never backtracks, so no pattern makes matching slow.
 */
export function globMatcher(pattern: string): NameMatcher {
  const pieces = pattern.split("*");
  const first = pieces[0] ?? "";
  if (pieces.length === 1) return (name) => name === pattern;
  const last = pieces.at(-1) ?? "";
  const middle = pieces.slice(1, -1).filter((piece) => piece !== "");
  return (name) => {
    const end = name.length - last.length;
    if (end < first.length || !name.startsWith(first) || !name.endsWith(last)) return false;
    let from = first.length;
    for (const piece of middle) {
      const at = name.indexOf(piece, from);
      if (at < 0 || at + piece.length > end) return false;
      from = at + piece.length;
    }
    return from <= end;
  };
}

/** Matches any of several patterns; exact names are looked up, not scanned. */
export function anyGlob(patterns: readonly string[]): NameMatcher {
  const exact = new Set(patterns.filter((pattern) => !pattern.includes("*")));
  const globs = patterns.filter((pattern) => pattern.includes("*")).map(globMatcher);
  return (name) => exact.has(name) || globs.some((glob) => glob(name));
}

/** Matches protocol words, whatever their case: exact, or by a trailing `*`. */
export function wordMatcher(patterns: readonly string[]): NameMatcher {
  const upper = patterns.map((pattern) => pattern.toUpperCase());
  const exact = new Set(upper.filter((pattern) => !pattern.endsWith("*")));
  const prefixes = upper.filter((pattern) => pattern.endsWith("*")).map((pattern) => pattern.slice(0, -1));
  return (word) => {
    const folded = word.toUpperCase();
    return exact.has(folded) || prefixes.some((prefix) => folded.startsWith(prefix));
  };
}

/** Matches objects by their name, whatever their kind, and trees also by what may be in them. */
export function objectMatcher(patterns: readonly string[]): (object: ObjectRef) => boolean {
  const matches = anyGlob(patterns);
  return (object) =>
    matches(object.name) ||
    (object.isTree === true && patterns.some((pattern) => mayMatchBelow(pattern, object.name)));
}

/** Whether a pattern fits some path below a folder; `.` is one that nobody has named, of which no path from the root is known. */
export function mayMatchBelow(pattern: string, folder: string): boolean {
  if (folder === ".") return !pattern.startsWith("/");
  const below = folder.endsWith("/") ? folder : `${folder}/`;
  const star = pattern.indexOf("*");
  // What comes behind a star may be anywhere below.
  const certain = star < 0 ? pattern : pattern.slice(0, star);
  return certain.startsWith(below) || (star >= 0 && below.startsWith(certain));
}

/**
 * The same for Allow rules, which must not be widened by a name that can be read two ways: `public.x.t` is table
 * `x.t` of `public`, or table `t` of a schema named `public.x`. Only an exact name or `*` covers such a name.
 */
export function coveringMatcher(patterns: readonly string[]): (object: ObjectRef) => boolean {
  const matches = anyGlob(patterns);
  const exactly = new Set(patterns);
  return (object) =>
    hasOneReading(object) ? matches(object.name) : exactly.has("*") || exactly.has(object.name);
}

function hasOneReading({ kind, name }: ObjectRef): boolean {
  if (kind !== "relation" && kind !== "function" && kind !== "type") return true;
  return name.indexOf(".") === name.lastIndexOf(".");
}

/** Labels of an object or a namespace. */
export type Labels = Readonly<Record<string, string>>;

/** Says what is wrong with a selector, as a path under it and a sentence. */
export function selectorProblem(selector: LabelSelector): { path: string; message: string } | undefined {
  if (typeof selector !== "object" || selector === null) return { path: "", message: "must be an object" };
  for (const key of Object.keys(selector)) {
    if (key !== "matchLabels" && key !== "matchExpressions") {
      return { path: `.${key}`, message: `unknown field ${JSON.stringify(key)}` };
    }
  }
  for (const [index, { operator, values }] of (selector.matchExpressions ?? []).entries()) {
    const path = `.matchExpressions[${index}]`;
    if (!selectorOperators.has(operator)) {
      return { path: `${path}.operator`, message: "must be In, NotIn, Exists or DoesNotExist" };
    }
    const wantsValues = operator === "In" || operator === "NotIn";
    if (wantsValues !== (values ?? []).length > 0) {
      return { path: `${path}.values`, message: `${operator} takes ${wantsValues ? "values" : "no values"}` };
    }
  }
  return undefined;
}

const selectorOperators = new Set(["In", "NotIn", "Exists", "DoesNotExist"]);
