/** What watches keep in memory, looked up by name or by index. Reads never wait and never call the API server. */
import type { KubeObject, ObjectRef } from "./objects.ts";

/** One change of a cache; on a relist each difference is one. */
export type Change<T> =
  | { readonly kind: "added"; readonly object: T }
  | { readonly kind: "changed"; readonly object: T; readonly before: T }
  | { readonly kind: "removed"; readonly object: T };

/** The keys under which an index finds an object. */
export type IndexKeys<T> = (object: T) => readonly string[];

/** A read-only view of the objects of one kind. Objects are frozen in spirit: nobody may change them. */
export interface Cache<T extends KubeObject> {
  /** Whether the first list is complete; until then nothing may be concluded from what is missing. */
  readonly isSynced: boolean;
  /** Waits for the first complete list. */
  whenSynced(signal: AbortSignal): Promise<void>;
  /** The resource version up to which it has followed the API server; "0" before the first list. */
  readonly heard: string;
  /** The same of one namespace, where each is watched for itself. */
  heardOf?(namespace: string): string;
  get(ref: ObjectRef): T | undefined;
  /** All objects, or those of one namespace. */
  list(namespace?: string): readonly T[];
  /** The objects that an index files under a key. */
  byIndex(index: string, key: string): readonly T[];
  /** Calls back on each change, after the cache has it; answers what ends that. A listener that throws is logged. */
  onChange(listener: (change: Change<T>) => void): () => void;
}
