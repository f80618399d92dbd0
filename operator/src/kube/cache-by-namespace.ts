import type { Cache, Change } from "./cache.ts";
import { compareVersions, type KubeObject, type ObjectRef } from "./objects.ts";

/** What several namespaces hold, each watched for itself: as one cache, for who may not list the whole cluster. */
export class CacheByNamespace<T extends KubeObject> implements Cache<T> {
  readonly #parts: ReadonlyMap<string, Cache<T>>;

  constructor(parts: ReadonlyMap<string, Cache<T>>) {
    this.#parts = parts;
  }

  get isSynced(): boolean {
    return [...this.#parts.values()].every(({ isSynced }) => isSynced);
  }

  async whenSynced(signal: AbortSignal): Promise<void> {
    await Promise.all([...this.#parts.values()].map((part) => part.whenSynced(signal)));
  }

  /** Of the namespace that was heard from last. */
  get heard(): string {
    return [...this.#parts.values()].reduce(
      (last, { heard }) => (compareVersions(heard, last) > 0 ? heard : last),
      "0",
    );
  }

  heardOf(namespace: string): string {
    return this.#parts.get(namespace)?.heard ?? "0";
  }

  get(ref: ObjectRef): T | undefined {
    return this.#parts.get(ref.namespace ?? "")?.get(ref);
  }

  list(namespace?: string): readonly T[] {
    if (namespace !== undefined) return this.#parts.get(namespace)?.list() ?? [];
    return [...this.#parts.values()].flatMap((part) => part.list());
  }

  byIndex(index: string, key: string): readonly T[] {
    return [...this.#parts.values()].flatMap((part) => part.byIndex(index, key));
  }

  onChange(listener: (change: Change<T>) => void): () => void {
    const ends = [...this.#parts.values()].map((part) => part.onChange(listener));
    return () => {
      for (const end of ends) end();
    };
  }
}
