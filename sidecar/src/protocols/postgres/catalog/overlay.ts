/** What a session has changed and the committed catalog does not show: a map of names with transactions. */

/** Changes are undone to a savepoint or to the start; what is committed stays only where `isKept` says so. */
export class Overlay<Value> {
  private readonly entries = new Map<string, Value>();
  private readonly undo: (readonly [key: string, before: Value | undefined])[] = [];
  private readonly savepoints: { readonly name: string; readonly at: number }[] = [];
  private readonly isKept: (key: string, value: Value) => boolean;
  private overflown = false;

  constructor(isKept: (key: string, value: Value) => boolean) {
    this.isKept = isKept;
  }

  get size(): number {
    return this.entries.size;
  }

  /** True once more has changed than is remembered: nothing here may be trusted until the transaction ends. */
  get isOverflown(): boolean {
    return this.overflown;
  }

  get(key: string): Value | undefined {
    return this.entries.get(key);
  }

  /** True where the transaction has changed something. */
  get hasChanges(): boolean {
    return this.undo.length > 0;
  }

  /** What has changed, by its key. */
  keys(): Iterable<string> {
    return this.entries.keys();
  }

  set(key: string, value: Value | undefined): void {
    if (this.undo.length >= changesMax || (this.entries.size >= entriesMax && !this.entries.has(key))) {
      this.overflown = true;
      return;
    }
    this.undo.push([key, this.entries.get(key)]);
    this.put(key, value);
  }

  savepoint(name: string): void {
    if (this.savepoints.length >= changesMax) this.overflown = true;
    else this.savepoints.push({ name, at: this.undo.length });
  }

  /** The savepoint and those after it are forgotten; their changes stay. */
  release(name: string): void {
    const index = this.indexOf(name);
    if (index >= 0) this.savepoints.length = index;
  }

  /** Changes since the savepoint are undone; the savepoint itself remains. */
  rollbackTo(name: string): void {
    const index = this.indexOf(name);
    // The server said that it exists: not to know it means that a change was missed.
    if (index < 0) {
      this.overflown = true;
      return;
    }
    this.savepoints.length = index + 1;
    this.undoTo(this.savepoints[index]?.at ?? 0);
  }

  rollback(): void {
    this.undoTo(0);
    this.end();
  }

  commit(): void {
    this.end();
    if (this.entries.size === 0) return;
    for (const [key, value] of this.entries) if (!this.isKept(key, value)) this.entries.delete(key);
  }

  /** Forgets everything, committed or not. */
  clear(): void {
    this.end();
    this.entries.clear();
  }

  private end(): void {
    // Setting the length costs a call of the runtime, and most transactions have changed nothing.
    if (this.undo.length > 0) this.undo.length = 0;
    if (this.savepoints.length > 0) this.savepoints.length = 0;
    this.overflown = false;
  }

  private undoTo(length: number): void {
    while (this.undo.length > length) {
      const change = this.undo.pop();
      if (change !== undefined) this.put(change[0], change[1]);
    }
  }

  private put(key: string, value: Value | undefined): void {
    if (value === undefined) this.entries.delete(key);
    else this.entries.set(key, value);
  }

  private indexOf(name: string): number {
    return this.savepoints.findLastIndex((savepoint) => savepoint.name === name);
  }
}

const entriesMax = 4096;
const changesMax = 65_536;
