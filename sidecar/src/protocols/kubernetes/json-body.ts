/** JSON as a rule may trust it: what two readers could take for two things is not read. */
import { parsed } from "./upstream.ts";

/**
 * The value of a body; undefined where it is no JSON, or names a member twice. Of members with one name this reader
 * keeps the last, where a server that decodes into typed fields keeps parts of both.
 */
export function readJsonBody(body: Buffer): unknown {
  const value = parsed(body);
  return value === undefined || hasTwins(body.toString("utf8")) ? undefined : value;
}

/**
 * A body with a member put into its object `within`, or a step before those of a list; everything else stays as it was sent,
 * since numbers would not survive being read and written. The body must be one that `readJsonBody` reads.
 */
export function withFirst(body: Buffer, added: string, within?: string): Buffer {
  // Byte by byte: what is looked for is ASCII.
  const text = body.toString("latin1");
  const at = within === undefined ? text.search(/[[{]/) : startOfMember(text, within);
  const isEmpty = /^\s*[\]}]/.test(text.slice(at + 1));
  const addition = Buffer.from(`${added}${isEmpty ? "" : ","}`);
  return Buffer.concat([body.subarray(0, at + 1), addition, body.subarray(at + 1)]);
}

/** Where the object begins that is a member of the outermost one. */
function startOfMember(text: string, name: string): number {
  let depth = 0;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === "{" || character === "[") depth += 1;
    else if (character === "}" || character === "]") depth -= 1;
    else if (character === '"') {
      const end = endOfString(text, at);
      if (depth === 1 && isName(text, end) && JSON.parse(text.slice(at, end + 1)) === name)
        return text.indexOf("{", end);
      at = end;
    }
  }
  throw new Error("the body has no such member");
}

/** Whether any object of a well-formed text has two members of one name. */
function hasTwins(text: string): boolean {
  /** Names of the objects around the place; undefined for a list. */
  const around: (Set<string> | undefined)[] = [];
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === "{") around.push(new Set());
    else if (character === "[") around.push(undefined);
    else if (character === "}" || character === "]") around.pop();
    else if (character === '"') {
      const end = endOfString(text, at);
      const names = around.at(-1);
      if (names !== undefined && isName(text, end)) {
        const raw = text.slice(at, end + 1);
        const name = raw.includes("\\") ? (JSON.parse(raw) as string) : raw.slice(1, -1);
        if (names.has(name)) return true;
        names.add(name);
      }
      at = end;
    }
  }
  return false;
}

function endOfString(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at;
}

function isName(text: string, end: number): boolean {
  let at = end + 1;
  while (/[ \t\r\n]/.test(text[at] ?? "")) at += 1;
  return text[at] === ":";
}
