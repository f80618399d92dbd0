/** What is wrong with a manifest, and where. No message ever holds a value of the manifest that could be a secret. */
import type { PathSegment } from "../schema.ts";

/** Whether the document counts all the same (a warning), or not (an error). */
export type Severity = "error" | "warning";

/** Something wrong with one document, before its place in the file is known. */
export interface Finding {
  readonly severity: Severity;
  /** The field, as `spec.rules[0].action`; empty for the document itself. */
  readonly path: string;
  readonly message: string;
}

/** A finding with its place, as an editor opens it. */
export interface Problem extends Finding {
  readonly file: string;
  /** Counted from 1. */
  readonly line: number;
  /** Counted from 1. */
  readonly column: number;
  /** `Kind namespace/name`, as far as the document says. */
  readonly document: string;
}

/** Writes a problem as one line: `shop.yaml:12:7: error: spec.rules[0].action: must be one of …`. */
export function formatProblem({ file, line, column, severity, path, message }: Problem): string {
  return `${file}:${line}:${column}: ${severity}: ${path === "" ? "" : `${path}: `}${message}`;
}

/** Writes a field path; keys that are no plain words are quoted: `metadata.labels["a/b"]`. */
export function formatPath(segments: readonly PathSegment[]): string {
  let path = "";
  for (const segment of segments) {
    if (typeof segment === "number") path += `[${segment}]`;
    else if (/^[A-Za-z_$][\w$-]*$/.test(segment)) path += path === "" ? segment : `.${segment}`;
    else path += `[${JSON.stringify(segment)}]`;
  }
  return path;
}

/** Reads what formatPath writes; what it cannot read ends the path there, which still points near the place. */
export function parsePath(path: string): readonly PathSegment[] {
  const segments: PathSegment[] = [];
  const step = /\.?([A-Za-z_$][\w$-]*)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]/y;
  for (let match = step.exec(path); match !== null; match = step.exec(path)) {
    const [, word, index, quoted] = match;
    if (word !== undefined) segments.push(word);
    else if (index !== undefined) segments.push(Number(index));
    else if (quoted !== undefined) {
      const key = unquote(quoted);
      if (key === undefined) break;
      segments.push(key);
    }
  }
  return segments;
}

function unquote(text: string): string | undefined {
  try {
    return String(JSON.parse(text));
  } catch {
    // Not written by formatPath.
    return undefined;
  }
}
