/** The setting search_path: what it is right now. */
import { Overlay } from "./overlay.ts";

/** True where both list the same names in the same order; an unknown path is like no other. */
export function samePath(a: readonly string[] | undefined, b: readonly string[] | undefined): boolean {
  if (a === undefined || b === undefined) return false;
  return a === b || (a.length === b.length && a.every((name, index) => name === b[index]));
}

/** Follows the setting through a session; undefined while nobody can tell. */
export interface PathTracker {
  readonly current: readonly string[] | undefined;
  /** True where something that is left to run in this transaction may change it. */
  readonly isLate: boolean;
  /** True where the transaction has changed it. */
  readonly hasChanges: boolean;
  set(path: readonly string[] | undefined, local: boolean): void;
  /** Until the transaction ends anything may change it, and for longer unless that is `local`. */
  becomeLate(local: boolean): void;
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

  isLate = false;
  private staysUnknown = false;

  get current(): readonly string[] | undefined {
    if (this.values.isOverflown || this.isLate) return undefined;
    const value = this.values.get("local") ?? this.values.get("session");
    return value === undefined ? this.initial : value.path;
  }

  get hasChanges(): boolean {
    return this.isLate || this.values.hasChanges || this.values.isOverflown;
  }

  set(path: readonly string[] | undefined, local: boolean): void {
    this.values.set(local ? "local" : "session", { path });
    if (!local && this.values.get("local") !== undefined) this.values.set("local", undefined);
  }

  becomeLate(local: boolean): void {
    this.isLate = true;
    this.staysUnknown ||= !local;
  }

  // What a session begins with is the server's to change by a reload alone, which no session is told of here.
  setInitial(local: boolean): void {
    this.set(this.initial, local);
  }

  reset(): void {
    this.isLate = false;
    this.staysUnknown = false;
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
    if (this.staysUnknown && isCommitted) this.set(undefined, false);
    this.isLate = false;
    this.staysUnknown = false;
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
  isLate = false;

  constructor(initial: readonly string[] | undefined) {
    this.initial = initial;
    this.reported = initial;
  }

  get current(): readonly string[] | undefined {
    if (this.isLate) return undefined;
    return this.expected === undefined ? this.reported : this.expected.path;
  }

  get hasChanges(): boolean {
    return this.isLate || this.isTouched;
  }

  set(path: readonly string[] | undefined): void {
    this.expected = { path };
    this.isTouched = true;
  }

  becomeLate(): void {
    this.isLate = true;
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
    this.isLate = false;
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
