/** KubeClient over HTTP: addresses, retries, Retry-After, pages and watches. */
import type { IncomingMessage } from "node:http";
import { type BackoffBounds, backoffMs, pause } from "./backoff.ts";
import type {
  ApplyOptions,
  CallOptions,
  DeleteOptions,
  KubeClient,
  ListOptions,
  ObjectList,
  Patch,
  RawRequest,
  Selection,
  WatchEvent,
  WatchOptions,
  WriteOptions,
} from "./client.ts";
import type { KubeConnection } from "./connection.ts";
import { isExpired, isNotFound, KubeError } from "./error.ts";
import type { KubeMetrics } from "./metrics.ts";
import type { ApplyObject, KubeObject, ObjectRef, ResourceType } from "./objects.ts";
import { statusError } from "./status-error.ts";
import { readJson, Transport } from "./transport.ts";
import { watchLines } from "./watch-lines.ts";

const CALL_MS = 15_000;
const LIST_MS = 60_000;
const TRIES_MAX = 4;
const PAGE_SIZE = 500;
const PAGES_MAX = 10_000;
const WATCH_SILENCE_MS = 90_000;

/** Longer waits than this are the caller's to schedule; the error carries them. */
const RETRY_AFTER_MS_MAX = 10_000;

const backoff: BackoffBounds = { firstMs: 100, mostMs: 5000 };

/** Opens a client; nothing is sent before the first call. */
export function kubeClient(options: {
  readonly connection: KubeConnection;
  readonly metrics?: KubeMetrics;
}): KubeClient {
  return new RestClient(options.connection, options.metrics);
}

class RestClient implements KubeClient {
  readonly #transport: Transport;
  readonly #metrics: KubeMetrics | undefined;

  readonly #writeListeners = new Map<string, Set<(object: KubeObject) => void>>();

  constructor(connection: KubeConnection, metrics: KubeMetrics | undefined) {
    this.#transport = new Transport(connection);
    this.#metrics = metrics;
  }

  async get<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    options: CallOptions = {},
  ): Promise<T> {
    return asObject<T>(await this.request({ method: "GET", path: addressOf(type, ref), ...options }));
  }

  async find<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    options: CallOptions = {},
  ): Promise<T | undefined> {
    try {
      return await this.get(type, ref, options);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  async list<T extends KubeObject>(type: ResourceType<T>, options: ListOptions = {}): Promise<ObjectList<T>> {
    try {
      return await this.#pages(type, options, options.pageSize ?? PAGE_SIZE);
    } catch (error) {
      // The version that the pages belong to was compacted between two of them: all in one piece, then.
      if (!isExpired(error)) throw error;
      return this.#pages(type, options, undefined);
    }
  }

  async #pages<T extends KubeObject>(
    type: ResourceType<T>,
    options: ListOptions,
    pageSize: number | undefined,
  ): Promise<ObjectList<T>> {
    const items: T[] = [];
    let token: string | undefined;
    for (let page = 0; page < PAGES_MAX; page += 1) {
      const query = selectionQuery(options);
      if (pageSize !== undefined) query.set("limit", String(pageSize));
      if (token !== undefined) query.set("continue", token);
      else if (options.resourceVersion !== undefined) query.set("resourceVersion", options.resourceVersion);
      const answer = await this.request({
        method: "GET",
        path: withQuery(addressOf(type, { ...namespaceOf(options), name: "" }), query),
        timeoutMs: options.timeoutMs ?? LIST_MS,
        ...signalOf(options),
      });
      const { metadata, items: found } = listOf(answer);
      for (const item of found) items.push({ ...header(type), ...(item as T) });
      token = metadata.continue === "" ? undefined : metadata.continue;
      if (token === undefined) return { items, resourceVersion: metadata.resourceVersion };
    }
    throw new KubeError({ status: 0, reason: "TooLarge", message: "the list does not end" });
  }

  async create<T extends KubeObject>(
    type: ResourceType<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<T> {
    const { namespace } = object.metadata;
    const ref = { ...(namespace === undefined ? {} : { namespace }), name: "" };
    const path = withQuery(subresource(addressOf(type, ref), options), writeQuery(options));
    const body = { ...header(type), ...object };
    const answer = await this.request({ method: "POST", path, body, ...callOf(options) });
    return this.#written(type, asObject<T>(answer), options);
  }

  async replace<T extends KubeObject>(
    type: ResourceType<T>,
    object: T,
    options: WriteOptions = {},
  ): Promise<T> {
    const path = withQuery(subresource(addressOf(type, object.metadata), options), writeQuery(options));
    const body = { ...header(type), ...object };
    const answer = await this.request({ method: "PUT", path, body, ...callOf(options) });
    return this.#written(type, asObject<T>(answer), options);
  }

  async patch<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    patch: Patch,
    options: WriteOptions = {},
  ): Promise<T> {
    const path = withQuery(subresource(addressOf(type, ref), options), writeQuery(options));
    const isJson = patch.kind === "json";
    try {
      const answer = await this.request({
        method: "PATCH",
        path,
        body: isJson ? patch.operations : patch.merge,
        contentType: isJson ? "application/json-patch+json" : "application/merge-patch+json",
        isRepeatable: !isJson,
        ...callOf(options),
      });
      return this.#written(type, asObject<T>(answer), options);
    } catch (error) {
      throw isJson && isFailedTest(error) ? testFailed(error) : error;
    }
  }

  async apply<T extends KubeObject>(
    type: ResourceType<T>,
    object: ApplyObject,
    options: ApplyOptions,
  ): Promise<T> {
    const query = writeQuery(options);
    if (options.force === true) query.set("force", "true");
    const answer = await this.request({
      method: "PATCH",
      path: withQuery(subresource(addressOf(type, object.metadata), options), query),
      body: object,
      contentType: "application/apply-patch+yaml",
      isRepeatable: true,
      ...callOf(options),
    });
    return this.#written(type, asObject<T>(answer), options);
  }

  async delete<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    options: DeleteOptions = {},
  ): Promise<boolean> {
    const { uid, resourceVersion, propagation = "Background", gracePeriodSeconds } = options;
    const preconditions =
      uid === undefined && resourceVersion === undefined ? {} : { preconditions: { uid, resourceVersion } };
    const body = {
      apiVersion: "v1",
      kind: "DeleteOptions",
      propagationPolicy: propagation,
      gracePeriodSeconds,
      ...preconditions,
      ...(options.dryRun === true ? { dryRun: ["All"] } : {}),
    };
    try {
      await this.request({ method: "DELETE", path: addressOf(type, ref), body, ...callOf(options) });
      return true;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }

  async *watch<T extends KubeObject>(
    type: ResourceType<T>,
    options: WatchOptions,
  ): AsyncGenerator<WatchEvent<T>, void, undefined> {
    const { signal, timeoutMs = (300 + 300 * Math.random()) * 1000, silenceMs = WATCH_SILENCE_MS } = options;
    const query = selectionQuery(options);
    query.set("watch", "true");
    query.set("allowWatchBookmarks", "true");
    query.set("resourceVersion", options.resourceVersion);
    query.set("timeoutSeconds", String(Math.max(1, Math.round(timeoutMs / 1000))));
    const silence = new Silence(signal, silenceMs);
    try {
      const response = await this.#transport
        .send({
          method: "GET",
          path: withQuery(addressOf(type, { ...namespaceOf(options), name: "" }), query),
          signal: silence.signal,
          isWatch: true,
        })
        .catch((error: unknown) => {
          this.#count("WATCH", "<error>");
          throw error;
        });
      this.#count("WATCH", String(response.statusCode));
      if (response.statusCode !== 200) throw await failure(response, silence.signal);
      for await (const event of watchLines<T>(response, silence.signal)) {
        silence.heard();
        yield event.type === "BOOKMARK" ? event : typed(type, event);
      }
    } finally {
      silence.end();
    }
  }

  async request(request: RawRequest): Promise<unknown> {
    const { method, signal, timeoutMs = CALL_MS, retries = TRIES_MAX - 1 } = request;
    const body = request.body === undefined ? undefined : JSON.stringify(request.body);
    const isRepeatable =
      request.isRepeatable ?? (method === "GET" || method === "PUT" || method === "DELETE");
    const stop = signal ?? never;
    for (let failures = 1; ; failures += 1) {
      try {
        return await this.#try(request, body, timeoutMs, stop);
      } catch (error) {
        if (!(error instanceof KubeError) || stop.aborted || failures > retries) throw error;
        const waitMs = waitBefore(error, failures, isRepeatable);
        if (waitMs === undefined || !(await pause(waitMs, stop))) throw error;
      }
    }
  }

  async #try(
    request: RawRequest,
    body: string | undefined,
    timeoutMs: number,
    stop: AbortSignal,
  ): Promise<unknown> {
    const { method, path, contentType } = request;
    // Not AbortSignal.timeout: its timer lives on after the call, one for each call.
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(new DOMException("late", "TimeoutError")), timeoutMs);
    const abort = (): void => deadline.abort(stop.reason);
    if (stop.aborted) abort();
    else stop.addEventListener("abort", abort, { once: true });
    const { signal } = deadline;
    try {
      const response = await this.#transport.send({
        method,
        path,
        signal,
        ...(body === undefined ? {} : { body }),
        ...(contentType === undefined ? {} : { contentType }),
      });
      this.#count(method, String(response.statusCode));
      if ((response.statusCode ?? 0) >= 300) throw await failure(response, signal);
      return await readJson(response, signal);
    } catch (error) {
      if (error instanceof KubeError && error.status === 0) this.#count(method, "<error>");
      throw error;
    } finally {
      clearTimeout(timer);
      stop.removeEventListener("abort", abort);
    }
  }

  close(): void {
    this.#transport.close();
  }

  onWritten<T extends KubeObject>(type: ResourceType<T>, listener: (object: T) => void): () => void {
    const key = kindKey(type);
    const listeners = this.#writeListeners.get(key) ?? new Set();
    this.#writeListeners.set(key, listeners);
    listeners.add(listener as (object: KubeObject) => void);
    return () => listeners.delete(listener as (object: KubeObject) => void);
  }

  #written<T extends KubeObject>(type: ResourceType<T>, object: T, options: WriteOptions): T {
    // Other subresources are answered with something else than the object.
    if (options.dryRun !== true && (options.subresource ?? "status") === "status") {
      for (const listener of this.#writeListeners.get(kindKey(type)) ?? []) listener(object);
    }
    return object;
  }

  #count(method: string, code: string): void {
    this.#metrics?.requests.inc({ method, code });
  }
}

const kindKey = ({ apiVersion, plural }: ResourceType<KubeObject>): string => `${apiVersion}/${plural}`;

const never = new AbortController().signal;

/** How long to wait before another try; undefined where there must be none. */
function waitBefore(error: KubeError, failures: number, isRepeatable: boolean): number | undefined {
  const { status, retryAfterMs } = error;
  // Answered with "later": nothing was done, so that any call may come again.
  if (status === 429 || (status === 503 && retryAfterMs !== undefined)) {
    const waitMs = Math.max(retryAfterMs ?? 0, backoffMs(backoff, failures));
    return waitMs > RETRY_AFTER_MS_MAX ? undefined : waitMs;
  }
  // A new token may have been mounted meanwhile.
  if (status === 401) return failures === 1 ? 0 : undefined;
  if (!isRepeatable || error.reason === "TooLarge") return undefined;
  return status === 0 || status >= 500 ? backoffMs(backoff, failures) : undefined;
}

/** Ends a watch that says nothing: a half-open connection never fails by itself. */
class Silence {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal;
  readonly #timer: NodeJS.Timeout;
  readonly #abort = (): void => this.#controller.abort(this.#outer.reason);

  constructor(outer: AbortSignal, silenceMs: number) {
    this.#outer = outer;
    const late = (): void => this.#controller.abort(new DOMException("silent", "TimeoutError"));
    this.#timer = setTimeout(late, silenceMs);
    if (outer.aborted) this.#abort();
    else outer.addEventListener("abort", this.#abort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  heard(): void {
    this.#timer.refresh();
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener("abort", this.#abort);
    this.#controller.abort(new DOMException("over", "AbortError"));
  }
}

async function failure(response: IncomingMessage, signal: AbortSignal): Promise<KubeError> {
  const status = response.statusCode ?? 0;
  const body = await readJson(response, signal).catch((error: unknown) => {
    if (signal.aborted) throw error;
    // The status line alone says enough.
    return undefined;
  });
  const header = response.headers["retry-after"];
  return statusError(body, status, header === undefined ? undefined : Number(header));
}

/**
 * Where a patch's `test` does not hold, or its path is gone, the API server answers 422 and blames no field, which it
 * does where the schema refuses: somebody was there before us.
 */
const isFailedTest = (error: unknown): error is KubeError =>
  error instanceof KubeError && error.status === 422 && error.causes.length === 0;

const testFailed = (cause: KubeError): KubeError =>
  new KubeError({ status: 409, reason: "Conflict", message: "the object is not as it was seen", cause });

function addressOf(type: ResourceType<KubeObject>, { namespace, name }: ObjectRef): string {
  const root = type.apiVersion.includes("/") ? `/apis/${type.apiVersion}` : `/api/${type.apiVersion}`;
  const scope =
    type.isNamespaced && namespace !== undefined && namespace !== ""
      ? `/namespaces/${encodeURIComponent(namespace)}`
      : "";
  return `${root}${scope}/${type.plural}${name === "" ? "" : `/${encodeURIComponent(name)}`}`;
}

const subresource = (path: string, options: WriteOptions): string =>
  options.subresource === undefined ? path : `${path}/${options.subresource}`;

function withQuery(path: string, query: URLSearchParams): string {
  const text = query.toString();
  return text === "" ? path : `${path}?${text}`;
}

function writeQuery({ fieldManager, dryRun }: WriteOptions): URLSearchParams {
  const query = new URLSearchParams({ fieldValidation: "Strict" });
  if (fieldManager !== undefined) query.set("fieldManager", fieldManager);
  if (dryRun === true) query.set("dryRun", "All");
  return query;
}

function selectionQuery({ labelSelector, fieldSelector }: Selection): URLSearchParams {
  const query = new URLSearchParams();
  if (labelSelector !== undefined) query.set("labelSelector", labelSelector);
  if (fieldSelector !== undefined) query.set("fieldSelector", fieldSelector);
  return query;
}

const namespaceOf = ({ namespace }: Selection): { namespace?: string } =>
  namespace === undefined ? {} : { namespace };

const signalOf = ({ signal }: CallOptions): { signal?: AbortSignal } =>
  signal === undefined ? {} : { signal };

function callOf({ signal, timeoutMs, retries }: CallOptions): CallOptions {
  return {
    ...(signal === undefined ? {} : { signal }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(retries === undefined ? {} : { retries }),
  };
}

const header = ({ apiVersion, kind }: ResourceType<KubeObject>): { apiVersion: string; kind: string } => ({
  apiVersion,
  kind,
});

function typed<T extends KubeObject>(
  type: ResourceType<T>,
  event: Exclude<WatchEvent<T>, { type: "BOOKMARK" }>,
): WatchEvent<T> {
  return { type: event.type, object: { ...header(type), ...event.object } };
}

function asObject<T extends KubeObject>(answer: unknown): T {
  const metadata = (answer as { metadata?: unknown } | undefined)?.metadata;
  if (typeof metadata !== "object" || metadata === null) {
    // Reviews and evictions answer without a name; only what is no object at all is refused.
    if (typeof answer === "object" && answer !== null) return answer as T;
    throw new KubeError({ status: 0, reason: "Unreachable", message: "the answer is no object" });
  }
  return answer as T;
}

function listOf(answer: unknown): {
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string };
  readonly items: readonly unknown[];
} {
  const { metadata, items } = (answer ?? {}) as {
    readonly metadata?: { readonly resourceVersion?: unknown; readonly continue?: unknown };
    readonly items?: unknown;
  };
  if (typeof metadata?.resourceVersion !== "string" || !(Array.isArray(items) || items === null)) {
    throw new KubeError({ status: 0, reason: "Unreachable", message: "the answer is no list" });
  }
  const token = typeof metadata.continue === "string" ? { continue: metadata.continue } : {};
  return { metadata: { resourceVersion: metadata.resourceVersion, ...token }, items: items ?? [] };
}
