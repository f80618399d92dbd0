/** The memory of a cache: objects by key, and indexes that are kept with each change. */
import type { IndexKeys } from "./cache.ts";
import { type KubeObject, keyOf } from "./objects.ts";

/** Objects of one kind. */
export class Store<T extends KubeObject> {
  readonly #objects = new Map<string, T>();
  readonly #namespaces = new Map<string, Map<string, T>>();
  readonly #indexes: ReadonlyMap<
    string,
    { readonly keys: IndexKeys<T>; readonly found: Map<string, Map<string, T>> }
  >;

  constructor(indexes: Readonly<Record<string, IndexKeys<T>>> = {}) {
    this.#indexes = new Map(
      Object.entries(indexes).map(([name, keys]) => [
        name,
        { keys, found: new Map<string, Map<string, T>>() },
      ]),
    );
  }

  get size(): number {
    return this.#objects.size;
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  keys(): readonly string[] {
    return [...this.#objects.keys()];
  }

  list(namespace?: string): readonly T[] {
    const objects = namespace === undefined ? this.#objects : this.#namespaces.get(namespace);
    return objects === undefined ? [] : [...objects.values()];
  }

  byIndex(index: string, key: string): readonly T[] {
    const entry = this.#indexes.get(index);
    // A misspelt index would look like "nothing there", and something be deleted for it.
    if (entry === undefined) throw new TypeError(`there is no index ${index}`);
    return [...(entry.found.get(key)?.values() ?? [])];
  }

  set(object: T): T | undefined {
    const key = keyOf(object.metadata);
    const before = this.#objects.get(key);
    if (before !== undefined) this.#unfile(key, before);
    this.#objects.set(key, object);
    file(this.#namespaces, object.metadata.namespace ?? "", key, object);
    for (const { keys, found } of this.#indexes.values()) {
      for (const indexKey of keys(object)) file(found, indexKey, key, object);
    }
    return before;
  }

  delete(key: string): T | undefined {
    const before = this.#objects.get(key);
    if (before === undefined) return undefined;
    this.#objects.delete(key);
    this.#unfile(key, before);
    return before;
  }

  #unfile(key: string, object: T): void {
    unfile(this.#namespaces, object.metadata.namespace ?? "", key);
    for (const { keys, found } of this.#indexes.values()) {
      for (const indexKey of keys(object)) unfile(found, indexKey, key);
    }
  }
}

function file<T>(groups: Map<string, Map<string, T>>, group: string, key: string, object: T): void {
  const objects = groups.get(group);
  if (objects === undefined) groups.set(group, new Map([[key, object]]));
  else objects.set(key, object);
}

function unfile<T>(groups: Map<string, Map<string, T>>, group: string, key: string): void {
  const objects = groups.get(group);
  objects?.delete(key);
  if (objects?.size === 0) groups.delete(group);
}
