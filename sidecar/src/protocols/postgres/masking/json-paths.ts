/**
 * Parts of a JSON value by their paths: what lies there is replaced where it stands, everything else keeps its bytes.
 * Strings take the mask's text, numbers become 0 or a number made of their hash, booleans false; objects and arrays
 * become one string. Null stays null.
 */

/** One path and the mask of what lies there; `*` stands for any key or index. */
export interface JsonPathMask {
  readonly path: readonly string[];
  readonly mask: JsonMask;
}

/** Makes JSON of the JSON that lies at a path. */
export type JsonMask = (kind: "string" | "number" | "boolean" | "other", json: string) => string;

/** Deeper values are hidden whole by whoever asks. */
const depthMax = 200;

/** The text with its masked parts replaced; undefined where it is no JSON, or too deep to be read. */
export function maskedJson(text: string, masks: readonly JsonPathMask[]): string | undefined {
  const walk: Walk = { text, at: 0, done: 0, pieces: [] };
  const isRead = value(walk, masks, 0);
  space(walk);
  if (!isRead || walk.at !== text.length) return undefined;
  return walk.pieces.join("") + text.slice(walk.done);
}

interface Walk {
  readonly text: string;
  at: number;
  /** Up to where the text has been copied. */
  done: number;
  readonly pieces: string[];
}

/** Reads one value; `wanted` are the masks whose paths lead here, each with what is left of its path. */
function value(walk: Walk, wanted: readonly JsonPathMask[], depth: number): boolean {
  space(walk);
  const here = wanted.find(({ path }) => path.length === 0);
  const start = walk.at;
  if (!anyValue(walk, here === undefined ? wanted : [], depth)) return false;
  if (here === undefined) return true;
  const json = walk.text.slice(start, walk.at);
  if (json === "null") return true;
  walk.pieces.push(walk.text.slice(walk.done, start), here.mask(kindOf(json), json));
  walk.done = walk.at;
  return true;
}

function kindOf(json: string): Parameters<JsonMask>[0] {
  if (json.startsWith('"')) return "string";
  if (json === "true" || json === "false") return "boolean";
  return /^[-\d]/.test(json) ? "number" : "other";
}

function anyValue(walk: Walk, wanted: readonly JsonPathMask[], depth: number): boolean {
  if (depth > depthMax) return false;
  switch (walk.text[walk.at]) {
    case "{":
      return members(walk, "}", () => member(walk, wanted, depth));
    case "[":
      return members(walk, "]", (index) => value(walk, below(wanted, String(index)), depth + 1));
    case '"':
      return string(walk) !== undefined;
    default:
      return scalar(walk);
  }
}

function members(walk: Walk, end: "}" | "]", read: (index: number) => boolean): boolean {
  walk.at += 1;
  space(walk);
  if (walk.text[walk.at] === end) {
    walk.at += 1;
    return true;
  }
  for (let index = 0; ; index += 1) {
    if (!read(index)) return false;
    space(walk);
    const next = walk.text[walk.at];
    walk.at += 1;
    if (next === end) return true;
    if (next !== ",") return false;
  }
}

function member(walk: Walk, wanted: readonly JsonPathMask[], depth: number): boolean {
  space(walk);
  const key = string(walk);
  if (key === undefined) return false;
  space(walk);
  if (walk.text[walk.at] !== ":") return false;
  walk.at += 1;
  return value(walk, below(wanted, key), depth + 1);
}

function below(wanted: readonly JsonPathMask[], step: string): readonly JsonPathMask[] {
  if (wanted.length === 0) return wanted;
  return wanted
    .filter(({ path }) => path[0] === step || path[0] === "*")
    .map(({ path, mask }) => ({ path: path.slice(1), mask }));
}

/** Reads a string; undefined where there is none. */
function string(walk: Walk): string | undefined {
  if (walk.text[walk.at] !== '"') return undefined;
  for (let at = walk.at + 1; at < walk.text.length; at += 1) {
    const letter = walk.text[at];
    if (letter === "\\") at += 1;
    else if (letter === '"') {
      const json = walk.text.slice(walk.at, at + 1);
      walk.at = at + 1;
      return parsed(json);
    }
  }
  return undefined;
}

function parsed(json: string): string | undefined {
  try {
    const text: unknown = JSON.parse(json);
    return typeof text === "string" ? text : undefined;
  } catch {
    return undefined;
  }
}

const scalars = /true|false|null|-?\d[\d.eE+-]*/y;

function scalar(walk: Walk): boolean {
  scalars.lastIndex = walk.at;
  const found = scalars.exec(walk.text);
  if (found === null) return false;
  walk.at += found[0].length;
  return true;
}

function space(walk: Walk): void {
  while (/[ \t\n\r]/.test(walk.text[walk.at] ?? "")) walk.at += 1;
}
