/** Definitions as the server prints them, without their literals. */

const name = String.raw`(?:"(?:[^"]|"")*"|[\p{L}_][\p{L}\p{N}_$]*)`;
const cast = String.raw`::\s*(?:(?:character|bit) varying|${name}(?:\.${name})?)(?:\(\d+(?:,-?\d+)?\))?(?:\[\])*`;
/** What literals have to be told from: quoted names, casts with their modifiers, words that have digits in them. */
const others = String.raw`"(?:[^"]|"")*"?|${cast}|[\p{L}_][\p{L}\p{N}_$]*`;
/** A string, of a text that was cut perhaps without its end. */
const string = String.raw`(?<prefix>[eE])?'(?<value>(?:[^'\\]|''|\\[^]?)*)(?:'|$)(?<named>::regclass\b)?`;
const number = String.raw`(?<number>\.?\d[\d.]*(?:[eE][+-]?\d+)?[\p{L}\p{N}_.]*)`;
const tokens = new RegExp(`(?:${string}|${number})(?:${cast})?|${others}`, "gu");

/**
 * The text with `'***'` in place of all literals but those that say nothing, and names of sequences and tables. The type of
 * a literal goes with it: whether the server prints one depends on the value.
 */
export function withoutLiterals(definition: string): string {
  let shown = "";
  let done = 0;
  for (const found of definition.matchAll(tokens)) {
    const { value, prefix, named, number: digits } = found.groups ?? {};
    const isName = named !== undefined && prefix === undefined;
    const isHidden =
      value === undefined ? digits !== undefined && !zero.test(digits) : !isName && !empties.has(value);
    if (!isHidden) continue;
    shown += `${definition.slice(done, found.index)}'***'`;
    done = found.index + found[0].length;
  }
  return shown + definition.slice(done);
}

const zero = /^0+(?:\.0+)?$/;
const empties: ReadonlySet<string> = new Set(["", "{}", "[]", "0", "f", "t", "false", "true"]);
