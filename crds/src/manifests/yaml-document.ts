/** YAML text to values that remember where they stand. Never throws, whatever the text. */
import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type Pair,
  parseAllDocuments,
  visit,
} from "yaml";
import type { PathSegment } from "../schema.ts";

/** A place in a file, counted from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** One document of a file: what it says, and where each field of it stands. */
export interface YamlDocument {
  readonly value: unknown;
  /** Unquoted words that are text here and a boolean to `kubectl`, which reads YAML 1.1. */
  readonly ambiguous: readonly (Position & { readonly word: string })[];
  /** The place of a field; of the nearest one above it where the field is not there. */
  locate(path: readonly PathSegment[]): Position;
}

/** Text that is not YAML, or YAML that is not plain data. */
export interface YamlFault extends Position {
  readonly message: string;
}

/** Reads every document of a text. A document with a fault is left out; empty documents are too. */
export function readYaml(text: string): {
  readonly documents: readonly YamlDocument[];
  readonly faults: readonly YamlFault[];
} {
  const lines = new LineCounter();
  // The parser's own search for repeated keys is quadratic: 100,000 keys took minutes. keyFault is linear.
  const options = { lineCounter: lines, prettyErrors: false, uniqueKeys: false };
  const documents: YamlDocument[] = [];
  const faults: YamlFault[] = [];
  try {
    for (const document of parseAllDocuments(text, options)) {
      if (!("errors" in document)) continue;
      for (const { message, pos } of [...document.errors, ...document.warnings]) {
        faults.push({ ...positionAt(lines, pos[0]), message: firstLine(message) });
      }
      if (document.errors.length + document.warnings.length > 0) continue;
      const read = readDocument(document, lines);
      if ("message" in read) faults.push(read);
      else if (read.value !== null) documents.push(read);
    }
  } catch (error) {
    // Nesting deeper than the parser's stack is the only known way here; nothing of the file can be trusted then.
    return { documents: [], faults: [{ line: 1, column: 1, message: `cannot be read: ${reasonOf(error)}` }] };
  }
  return { documents, faults };
}

function readDocument(document: Document.Parsed, lines: LineCounter): YamlDocument | YamlFault {
  const start = document.contents?.range?.[0] ?? document.range[0];
  try {
    const key = keyFault(document);
    if (key !== undefined) return { ...positionAt(lines, key.offset), message: key.message };
    // Through JSON, as an API server would have it: no cycles, and nothing shared between aliases.
    const value: unknown = JSON.parse(JSON.stringify(document.toJS({ maxAliasCount: 100 })) ?? "null");
    return {
      value,
      ambiguous: ambiguousWords(document, lines),
      locate: (path) => positionAt(lines, offsetOf(document, path) ?? start),
    };
  } catch (error) {
    // An alias without its anchor, or too many of them.
    return { ...positionAt(lines, start), message: `cannot be read: ${reasonOf(error)}` };
  }
}

/** See https://yaml.org/type/bool.html: what YAML 1.1 had beside true and false. */
function ambiguousWords(document: Document.Parsed, lines: LineCounter): YamlDocument["ambiguous"] {
  const words: (Position & { readonly word: string })[] = [];
  visit(document, {
    Scalar: (_, { value, type, range }) => {
      if (type !== "PLAIN" || typeof value !== "string" || !/^(y|n|yes|no|on|off)$/i.test(value)) return;
      words.push({ ...positionAt(lines, range?.[0] ?? 0), word: value });
    },
  });
  return words;
}

/** The first key that JSON has no room for: a list, a mapping, or one that is there already. */
function keyFault(
  document: Document.Parsed,
): { readonly offset: number; readonly message: string } | undefined {
  let found: { offset: number; message: string } | undefined;
  visit(document, {
    Map: (_, { items }) => {
      const seen = new Set<string>();
      for (const { key } of items) {
        const text = isScalar(key) ? String(key.value) : undefined;
        if (text !== undefined && !seen.has(text)) seen.add(text);
        else {
          const message = text === undefined ? "a key must be text" : "keys must be unique";
          found = { offset: (isNode(key) ? key.range?.[0] : undefined) ?? 0, message };
          return visit.BREAK;
        }
      }
      return undefined;
    },
  });
  return found;
}

/** Walks down the nodes as far as the path goes; a mapping's field is found at its key. */
function offsetOf(document: Document.Parsed, path: readonly PathSegment[]): number | undefined {
  let node: Node | null | undefined = document.contents;
  let offset = node?.range?.[0];
  for (const segment of path) {
    if (isAlias(node)) node = node.resolve(document);
    if (isMap(node)) {
      const pair: Pair | undefined = node.items.find(
        ({ key }) => isScalar(key) && String(key.value) === String(segment),
      );
      if (pair === undefined) return offset;
      offset = isNode(pair.key) ? (pair.key.range?.[0] ?? offset) : offset;
      node = isNode(pair.value) ? pair.value : null;
    } else if (isSeq(node) && typeof segment === "number") {
      const item: unknown = node.items[segment];
      if (!isNode(item)) return offset;
      offset = item.range?.[0] ?? offset;
      node = item;
    } else return offset;
  }
  return offset;
}

function positionAt(lines: LineCounter, offset: number): Position {
  const { line, col } = lines.linePos(offset);
  return { line: Math.max(line, 1), column: Math.max(col, 1) };
}

const firstLine = (text: string): string => text.split("\n", 1)[0] ?? "";
const reasonOf = (error: unknown): string =>
  firstLine(error instanceof Error ? error.message : String(error));
