/** The setting search_path: its value read as PostgreSQL reads it (SplitIdentifierString), and what it is right now. */
import { Overlay } from "./overlay.ts";

/** The names of a search_path value, unquoted and folded; undefined where PostgreSQL would not take the value. */
export function parseSearchPath(value: string): readonly string[] | undefined {
  if (/^[\s]*$/.test(value)) return [];
  const names: string[] = [];
  const element = /\s*(?:"((?:[^"]|"")*)"|([^\s,"]+))\s*(,|$)/y;
  for (;;) {
    const found = element.exec(value);
    if (found === null) return undefined;
    const [, quoted, bare, end] = found;
    const name = quoted?.replaceAll('""', '"') ?? bare?.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
    if (name === undefined) return undefined;
    names.push(truncated(name));
    if (end === "") return names;
    // A comma must be followed by another name.
    if (element.lastIndex >= value.length) return undefined;
  }
}

/** The schema names behind a search_path: `"$user"` stands for the account. */
export function withAccount(names: readonly string[], account: string): readonly string[] {
  return names.map((name) => (name === "$user" ? account : name));
}

/** True where both list the same names in the same order; an unknown path is like no other. */
export function samePath(a: readonly string[] | undefined, b: readonly string[] | undefined): boolean {
  if (a === undefined || b === undefined) return false;
  return a === b || (a.length === b.length && a.every((name, index) => name === b[index]));
}

/** Follows the setting through a session; undefined while nobody can tell. */
export interface PathTracker {
  readonly current: readonly string[] | undefined;
  set(path: readonly string[] | undefined, local: boolean): void;
  /** RESET, or SET … TO DEFAULT: to what the session began with. */
  setInitial(local: boolean): void;
  /** DISCARD ALL. */
  reset(): void;
  savepoint(name: string): void;
  release(name: string): void;
  rollbackTo(name: string): void;
  /** These answer whether the path is another one now. */
  end(isCommitted: boolean): boolean;
  ready(): boolean;
  report(path: readonly string[] | undefined): boolean;
}

/** Servers before 18 say nothing: the setting is what the session's own SET statements made it. */
export class TrackedPath implements PathTracker {
  private readonly initial: readonly string[] | undefined;
  private readonly values = new Overlay<{ readonly path: readonly string[] | undefined }>(
    (key) => key === "session",
  );

  constructor(initial: readonly string[] | undefined) {
    this.initial = initial;
  }

  get current(): readonly string[] | undefined {
    if (this.values.isOverflown) return undefined;
    const value = this.values.get("local") ?? this.values.get("session");
    return value === undefined ? this.initial : value.path;
  }

  set(path: readonly string[] | undefined, local: boolean): void {
    this.values.set(local ? "local" : "session", { path });
    if (!local && this.values.get("local") !== undefined) this.values.set("local", undefined);
  }

  // What a session begins with is the server's to change by a reload alone, which no session is told of here.
  setInitial(local: boolean): void {
    this.set(this.initial, local);
  }

  reset(): void {
    this.values.clear();
  }

  savepoint(name: string): void {
    this.values.savepoint(name);
  }

  release(name: string): void {
    this.values.release(name);
  }

  rollbackTo(name: string): void {
    this.values.rollbackTo(name);
  }

  end(isCommitted: boolean): boolean {
    const before = this.current;
    if (isCommitted) this.values.commit();
    else this.values.rollback();
    return before !== this.current;
  }

  ready(): boolean {
    return false;
  }

  // A server that does not report cannot have sent this: take it as the truth for want of a better one.
  report(path: readonly string[] | undefined): boolean {
    this.set(path, false);
    return true;
  }
}

/** PostgreSQL 18 reports every change before it is ready; effects fill the time until then. */
export class ReportedPath implements PathTracker {
  private readonly initial: readonly string[] | undefined;
  private reported: readonly string[] | undefined;
  private expected: { readonly path: readonly string[] | undefined } | undefined;
  private isTouched = false;

  constructor(initial: readonly string[] | undefined) {
    this.initial = initial;
    this.reported = initial;
  }

  get current(): readonly string[] | undefined {
    return this.expected === undefined ? this.reported : this.expected.path;
  }

  set(path: readonly string[] | undefined): void {
    this.expected = { path };
    this.isTouched = true;
  }

  // The server says in a moment what it is, and may have been told to begin with another by then.
  setInitial(): void {
    this.set(undefined);
  }

  reset(): void {
    this.set(this.initial);
  }

  savepoint(): void {}

  release(): void {}

  rollbackTo(): void {
    if (this.isTouched) this.expected = { path: undefined };
  }

  end(): boolean {
    const before = this.current;
    // What it falls back to is reported in a moment; until then nobody can tell.
    if (this.isTouched) this.expected = { path: undefined };
    this.isTouched = false;
    return before !== this.current;
  }

  ready(): boolean {
    const before = this.current;
    this.expected = undefined;
    return before !== this.current;
  }

  report(path: readonly string[] | undefined): boolean {
    const before = this.current;
    this.isTouched = true;
    this.reported = path;
    this.expected = undefined;
    return before !== this.current;
  }
}

const nameBytesMax = 63;

// Longer names are cut at a character, as the server does.
function truncated(name: string): string {
  if (Buffer.byteLength(name) <= nameBytesMax) return name;
  let cut = "";
  let bytes = 0;
  for (const character of name) {
    bytes += Buffer.byteLength(character);
    if (bytes > nameBytesMax) break;
    cut += character;
  }
  return cut;
}
