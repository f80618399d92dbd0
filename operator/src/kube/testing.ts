/**
 * An API server in memory that fails on demand: what a real one does only on its bad days. It keeps objects, versions and
 * watches well enough for clients, and knows nothing of validation or field ownership; those are tried on a real one.
 */
import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { JsonPatchOperation } from "./client.ts";
import type { KubeConnection } from "./connection.ts";
import type { ObjectMeta } from "./objects.ts";

/** One request as it came. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly isWatch: boolean;
  readonly authorization: string | undefined;
  readonly contentType: string | undefined;
  readonly body: unknown;
}

/** What goes wrong with one request. */
export type Fault =
  /** A metav1.Status, perhaps with Retry-After. */
  | {
      readonly kind: "status";
      readonly status: number;
      readonly retryAfterSeconds?: number;
      readonly reason?: string;
    }
  /** The connection is reset before an answer. */
  | { readonly kind: "reset" }
  /** The connection is reset within the answer. */
  | { readonly kind: "reset-in-body" }
  /** The answer ends, in due form, within its JSON. */
  | { readonly kind: "truncated" }
  /** No answer ever: a half-open connection, or a process that hangs. */
  | { readonly kind: "no-answer" }
  /** A watch that is accepted and then tells nothing. */
  | { readonly kind: "silent" }
  /** A watch that tells of an ERROR and ends. */
  | { readonly kind: "error-event"; readonly code: number }
  /** A watch that begins with these lines, then goes on as usual. */
  | { readonly kind: "lines"; readonly lines: readonly object[] }
  /** The answer, late. */
  | { readonly kind: "slow"; readonly ms: number };

/** An object as the fake keeps it. */
export interface StoredObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: ObjectMeta;
  readonly [field: string]: unknown;
}

/** The fake. */
export interface FakeApi {
  readonly url: string;
  readonly connection: KubeConnection;
  readonly requests: SeenRequest[];
  /** Asked for each request; undefined lets it through. */
  fault: (request: SeenRequest) => Fault | undefined;
  /** Who is let in; everybody where undefined. */
  token: string | undefined;
  /** Writes an object from outside, as another client would. */
  put(path: string, object: StoredObject): StoredObject;
  remove(path: string): void;
  get(path: string): StoredObject | undefined;
  /** Forgets what happened so far: watches and pages of before are answered 410. */
  compact(): void;
  /** Ends all watches that are open. */
  endWatches(): void;
  readonly watches: number;
  close(): Promise<void>;
}

/** Starts a fake on a free port of the loopback. */
export async function startFakeApi(): Promise<FakeApi> {
  const api = new Api();
  await api.listen();
  return api;
}

/** Counts calls of a fault: the first ones fail, then all is well. */
export function firstTimes(
  times: number,
  fault: Fault,
  matches: (request: SeenRequest) => boolean = () => true,
): (request: SeenRequest) => Fault | undefined {
  let left = times;
  return (request) => {
    if (left <= 0 || !matches(request)) return undefined;
    left -= 1;
    return fault;
  };
}

interface Watch {
  readonly folder: string;
  readonly response: ServerResponse;
}

interface Happening {
  readonly version: number;
  readonly folder: string;
  readonly type: "ADDED" | "MODIFIED" | "DELETED";
  readonly object: StoredObject;
}

class Api implements FakeApi {
  readonly requests: SeenRequest[] = [];
  fault: (request: SeenRequest) => Fault | undefined = () => undefined;
  token: string | undefined;
  url = "";
  readonly #objects = new Map<string, StoredObject>();
  readonly #watches = new Set<Watch>();
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((request, response) => void this.#answer(request, response));
  /** Lists of which not all pages were asked for, by version and path. */
  readonly #listed = new Map<string, readonly StoredObject[]>();
  #history: Happening[] = [];
  #version = 100;
  #compacted = 0;

  async listen(): Promise<void> {
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get connection(): KubeConnection {
    return { server: new URL(this.url), namespace: "default", credentials: () => Promise.resolve({}) };
  }

  get watches(): number {
    return this.#watches.size;
  }

  put(path: string, object: StoredObject): StoredObject {
    const before = this.#objects.get(path);
    const spec = JSON.stringify([object.spec]) !== JSON.stringify([before?.spec]);
    this.#version += 1;
    const stored = {
      ...object,
      metadata: {
        ...object.metadata,
        uid: before?.metadata.uid ?? randomUUID(),
        generation: (before?.metadata.generation ?? 0) + (spec || before === undefined ? 1 : 0),
        resourceVersion: String(this.#version),
      },
    };
    this.#objects.set(path, stored);
    this.#happen(path, before === undefined ? "ADDED" : "MODIFIED", stored);
    return stored;
  }

  remove(path: string): void {
    const object = this.#objects.get(path);
    if (object === undefined) return;
    this.#version += 1;
    this.#objects.delete(path);
    const metadata = { ...object.metadata, resourceVersion: String(this.#version) };
    this.#happen(path, "DELETED", { ...object, metadata });
  }

  get(path: string): StoredObject | undefined {
    return this.#objects.get(path);
  }

  compact(): void {
    this.#history = [];
    this.#listed.clear();
    this.#compacted = this.#version;
  }

  endWatches(): void {
    for (const { response } of this.#watches) response.end();
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #happen(path: string, type: Happening["type"], object: StoredObject): void {
    const folder = path.slice(0, path.lastIndexOf("/"));
    this.#history.push({ version: this.#version, folder, type, object });
    for (const watch of this.#watches) {
      if (isWithin(folder, watch.folder)) watch.response.write(`${JSON.stringify({ type, object })}\n`);
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on("error", () => {});
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString("utf8");
    const { pathname, searchParams } = new URL(request.url ?? "/", this.url);
    const seen: SeenRequest = {
      method: request.method ?? "",
      path: pathname,
      query: searchParams,
      isWatch: searchParams.get("watch") === "true",
      authorization: request.headers.authorization,
      contentType: request.headers["content-type"],
      body: text === "" ? undefined : JSON.parse(text),
    };
    this.requests.push(seen);
    const fault = this.fault(seen);
    if (fault !== undefined && !(await this.#fail(fault, request, response))) return;
    if (this.token !== undefined && seen.authorization !== `Bearer ${this.token}`) {
      sendStatus(response, 401, "Unauthorized");
      return;
    }
    if (seen.isWatch) this.#watch(seen, response, fault?.kind === "lines" ? fault.lines : []);
    else this.#serve(seen, response);
  }

  /** True where the request goes on all the same. */
  async #fail(fault: Fault, request: IncomingMessage, response: ServerResponse): Promise<boolean> {
    switch (fault.kind) {
      case "status": {
        const { status, retryAfterSeconds, reason } = fault;
        if (retryAfterSeconds !== undefined) response.setHeader("retry-after", String(retryAfterSeconds));
        sendStatus(response, status, reason ?? "");
        return false;
      }
      case "reset":
        request.socket.resetAndDestroy();
        return false;
      case "reset-in-body":
        response.writeHead(200, { "content-type": "application/json" });
        response.write('{"kind":"List","metadata":{"resourceVersion":"1"},"items":[{"metadata":', () =>
          request.socket.resetAndDestroy(),
        );
        return false;
      case "truncated":
        response.writeHead(200, { "content-type": "application/json" });
        response.end('{"type":"ADDED","object":{"metadata":{"na');
        return false;
      case "no-answer":
        return false;
      case "silent":
        response.writeHead(200, { "content-type": "application/json" });
        response.flushHeaders();
        return false;
      case "error-event": {
        response.writeHead(200, { "content-type": "application/json" });
        response.end(`${JSON.stringify({ type: "ERROR", object: statusOf(fault.code, "Expired") })}\n`);
        return false;
      }
      case "slow":
        await new Promise((resolve) => setTimeout(resolve, fault.ms));
        return true;
      case "lines":
        return true;
    }
  }

  #watch({ path, query }: SeenRequest, response: ServerResponse, lines: readonly object[]): void {
    const from = Number(query.get("resourceVersion"));
    if (from < this.#compacted) {
      sendStatus(response, 410, "Expired");
      return;
    }
    response.writeHead(200, { "content-type": "application/json" });
    response.flushHeaders();
    for (const line of lines) response.write(`${JSON.stringify(line)}\n`);
    for (const { version, folder, type, object } of this.#history) {
      if (version > from && isWithin(folder, path)) response.write(`${JSON.stringify({ type, object })}\n`);
    }
    const watch = { folder: path, response };
    this.#watches.add(watch);
    response.on("close", () => this.#watches.delete(watch));
  }

  #serve(seen: SeenRequest, response: ServerResponse): void {
    const { method, path, query, body } = seen;
    const target = path.replace(/\/status$/, "");
    const found = this.#objects.get(target);
    if (method === "POST") {
      const object = body as StoredObject;
      const address = `${path}/${object.metadata.name}`;
      if (this.#objects.has(address)) sendStatus(response, 409, "AlreadyExists");
      else send(response, 201, this.put(address, object));
      return;
    }
    if (method === "GET" && found === undefined && isCollection(path)) {
      this.#list(path, query, response);
      return;
    }
    if (method === "PATCH" && found === undefined && seen.contentType === "application/apply-patch+yaml") {
      if (path === target) send(response, 201, this.put(target, body as StoredObject));
      else sendStatus(response, 404, "NotFound");
      return;
    }
    if (found === undefined) {
      sendStatus(response, 404, "NotFound");
      return;
    }
    switch (method) {
      case "GET":
        send(response, 200, found);
        return;
      case "PUT": {
        const object = body as StoredObject;
        const version = object.metadata.resourceVersion;
        if (version !== undefined && version !== found.metadata.resourceVersion)
          sendStatus(response, 409, "Conflict");
        else send(response, 200, this.put(target, object));
        return;
      }
      case "PATCH": {
        const isJson = seen.contentType === "application/json-patch+json";
        const patched = isJson ? jsonPatched(found, body as JsonPatchOperation[]) : merged(found, body);
        if (patched === undefined)
          sendStatus(
            response,
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
          );
        else if (JSON.stringify(patched) === JSON.stringify(found)) send(response, 200, found);
        else send(response, 200, this.put(target, patched as StoredObject));
        return;
      }
      case "DELETE": {
        const { preconditions } = (body ?? {}) as { preconditions?: { uid?: string } };
        if (preconditions?.uid !== undefined && preconditions.uid !== found.metadata.uid) {
          sendStatus(response, 409, "Conflict");
          return;
        }
        this.remove(target);
        send(response, 200, statusOf(200, ""));
        return;
      }
      default:
        sendStatus(response, 405, "MethodNotAllowed");
    }
  }

  #list(path: string, query: URLSearchParams, response: ServerResponse): void {
    const limit = Number(query.get("limit") ?? Number.POSITIVE_INFINITY);
    const [version = String(this.#version), offset = "0"] = query.get("continue")?.split(":") ?? [];
    if (Number(version) < this.#compacted && Number(offset) > 0) {
      sendStatus(response, 410, "Expired");
      return;
    }
    // All pages are of what was there with the first.
    const at = `${version} ${path}`;
    const all =
      this.#listed.get(at) ??
      [...this.#objects]
        .filter(([key]) => isWithin(key.slice(0, key.lastIndexOf("/")), path))
        .map(([, object]) => object);
    const end = Math.min(all.length, Number(offset) + limit);
    const items = all.slice(Number(offset), end).map(({ apiVersion: _, kind: __, ...object }) => object);
    const token = end < all.length ? { continue: `${version}:${end}` } : {};
    if (end < all.length) this.#listed.set(at, all);
    send(response, 200, { kind: "List", metadata: { resourceVersion: version, ...token }, items });
  }
}

/** `/api/v1/namespaces/a/pods` lies within `/api/v1/pods` too. */
function isWithin(folder: string, asked: string): boolean {
  return folder === asked || folder.replace(/\/namespaces\/[^/]+(?=\/)/, "") === asked;
}

const isCollection = (path: string): boolean =>
  /^\/(api\/[^/]+|apis\/[^/]+\/[^/]+)(\/namespaces\/[^/]+)?\/[^/]+$/.test(path);

function send(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

function sendStatus(response: ServerResponse, status: number, reason: string, message?: string): void {
  send(response, status, { ...statusOf(status, reason), ...(message === undefined ? {} : { message }) });
}

const statusOf = (code: number, reason: string): object => ({
  apiVersion: "v1",
  kind: "Status",
  status: code < 300 ? "Success" : "Failure",
  reason,
  code,
});

/** RFC 7386, which is also near enough to server-side apply for tests of faults. */
function merged(before: unknown, patch: unknown): unknown {
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
  const base = typeof before === "object" && before !== null && !Array.isArray(before) ? before : {};
  const result: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = merged(result[key], value);
  }
  return result;
}

/** RFC 6902, as far as it is used; undefined where a test does not hold. */
function jsonPatched(before: StoredObject, operations: readonly JsonPatchOperation[]): object | undefined {
  const result = structuredClone(before) as Record<string, unknown>;
  for (const operation of operations) {
    const steps = operation.path
      .slice(1)
      .split("/")
      .map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
    const last = steps.pop() ?? "";
    let parent: unknown = result;
    for (const step of steps) parent = (parent as Record<string, unknown> | undefined)?.[step];
    if (typeof parent !== "object" || parent === null) return undefined;
    const holder = parent as Record<string, unknown>;
    if (operation.op === "test") {
      if (JSON.stringify(holder[last]) !== JSON.stringify(operation.value)) return undefined;
    } else if (operation.op === "remove") {
      if (Array.isArray(parent)) parent.splice(Number(last), 1);
      else delete holder[last];
    } else if (Array.isArray(parent) && last === "-") parent.push(operation.value);
    else holder[last] = operation.value;
  }
  return result;
}
