/** Calls to the API server as the rest of the operator sees them. */
import type { ApplyObject, KubeObject, ObjectRef, ResourceType } from "./objects.ts";

/** How one call is made. */
export interface CallOptions {
  /** Ends the call; a call without one ends at its deadline. */
  readonly signal?: AbortSignal;
  /** The deadline of one try, 15 s where absent. */
  readonly timeoutMs?: number;
  /** Further tries after a failure that allows them, 3 where absent. */
  readonly retries?: number;
}

/** Which objects a list or a watch means; no namespace means all of them. */
export interface Selection {
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
}

/** How a list is read. */
export interface ListOptions extends Selection, CallOptions {
  /** Objects a page; all pages are read. 500 where absent. */
  readonly pageSize?: number;
  /** `"0"` takes what the API server has in memory; absent asks for the newest. */
  readonly resourceVersion?: string;
}

/** All the objects of a list, and the version that a watch goes on from. */
export interface ObjectList<T> {
  readonly items: readonly T[];
  readonly resourceVersion: string;
}

/** How an object is written. */
export interface WriteOptions extends CallOptions {
  /** Who owns the fields; each controller has its own name, and another one for status. */
  readonly fieldManager?: string;
  readonly subresource?: string;
  readonly dryRun?: boolean;
}

/** How server-side apply is done. */
export interface ApplyOptions extends WriteOptions {
  readonly fieldManager: string;
  /** Takes fields over from other managers: only for fields that are ours by design. */
  readonly force?: boolean;
}

/** A change of an existing object. */
export type Patch =
  | { readonly kind: "merge"; readonly merge: object }
  | { readonly kind: "json"; readonly operations: readonly JsonPatchOperation[] };

/** One step of RFC 6902. */
export type JsonPatchOperation =
  | { readonly op: "add" | "replace" | "test"; readonly path: string; readonly value: unknown }
  | { readonly op: "remove"; readonly path: string };

/** How an object is deleted: only if it is still the one that was looked at, where that is said. */
export interface DeleteOptions extends CallOptions {
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly propagation?: "Background" | "Foreground" | "Orphan";
  readonly gracePeriodSeconds?: number;
  readonly dryRun?: boolean;
}

/** One change as a watch tells it. */
export type WatchEvent<T> =
  | { readonly type: "ADDED" | "MODIFIED" | "DELETED"; readonly object: T }
  | { readonly type: "BOOKMARK"; readonly resourceVersion: string };

/** How a watch is held. */
export interface WatchOptions extends Selection {
  readonly resourceVersion: string;
  readonly signal: AbortSignal;
  /** The API server ends the watch after this long; 5 to 10 minutes, at random, where absent. */
  readonly timeoutMs?: number;
  /** A watch that says nothing for so long, bookmarks included, is given up as dead. 90 s where absent. */
  readonly silenceMs?: number;
}

/** A call that the others do not cover, such as a TokenReview's or a subresource's. */
export interface RawRequest extends CallOptions {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** With the query, such as `/apis/sallyport.dev/v1alpha1?timeout=5s`. */
  readonly path: string;
  readonly body?: unknown;
  readonly contentType?: string;
  /** Whether a lost answer allows another try; absent: for GET, PUT and DELETE. */
  readonly isRepeatable?: boolean;
}

/**
 * The API server. Every call has a deadline, is tried again with jittered backoff where that is safe, obeys Retry-After,
 * and fails with a KubeError. Writes are checked strictly: an unknown field is an error.
 */
export interface KubeClient {
  /** Reads one object, live. */
  get<T extends KubeObject>(type: ResourceType<T>, ref: ObjectRef, options?: CallOptions): Promise<T>;
  /** Reads one object, live; undefined where there is none. */
  find<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    options?: CallOptions,
  ): Promise<T | undefined>;
  /** Reads all pages of a list. */
  list<T extends KubeObject>(type: ResourceType<T>, options?: ListOptions): Promise<ObjectList<T>>;
  create<T extends KubeObject>(type: ResourceType<T>, object: T, options?: WriteOptions): Promise<T>;
  /** Writes a whole object; its resourceVersion makes the write conditional. */
  replace<T extends KubeObject>(type: ResourceType<T>, object: T, options?: WriteOptions): Promise<T>;
  patch<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    patch: Patch,
    options?: WriteOptions,
  ): Promise<T>;
  /** Server-side apply: creates or changes, and removes the fields that we no longer apply. */
  apply<T extends KubeObject>(type: ResourceType<T>, object: ApplyObject, options: ApplyOptions): Promise<T>;
  /** Deletes; an object that is gone already counts as deleted (false). */
  delete<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    options?: DeleteOptions,
  ): Promise<boolean>;
  /** Follows changes until the API server ends the watch; throws a KubeError where it breaks. */
  watch<T extends KubeObject>(type: ResourceType<T>, options: WatchOptions): AsyncIterable<WatchEvent<T>>;
  request(request: RawRequest): Promise<unknown>;
  /** Tells what each write to a kind was answered with, so that caches see it at once; answers what ends that. */
  onWritten?<T extends KubeObject>(type: ResourceType<T>, listener: (object: T) => void): () => void;
  /** Closes the kept connections. */
  close(): void;
}
