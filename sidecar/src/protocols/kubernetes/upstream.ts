/** The API server behind the gateway: one set of connections an account, and what the gateway itself looks up. */
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Readable } from "node:stream";
import type { Identity } from "@sallyport/policy";
import { GatewayError } from "../../wire/gateway-error.ts";
import { GatheredBytes } from "../../wire/gathered-bytes.ts";
import type { HeaderFields } from "../../wire/http-server.ts";
import { HttpUpstream } from "../../wire/http-upstream.ts";
import type { ProtocolHost, UpstreamAccount } from "../protocol.ts";
import { isRecord } from "./facts.ts";

const lookupMs = 5_000;
const lookupBytesMax = 2 * 1024 * 1024;
const listBytesMax = 16 * 1024 * 1024;
const upstreamsMax = 16;

/** What the API server says of a pod; `missing` with its own words where there is none. */
export type PodLookup =
  | {
      readonly kind: "found";
      readonly labels: Readonly<Record<string, string>>;
      readonly spec: unknown;
      readonly uid: unknown;
    }
  | { readonly kind: "missing"; readonly body: Buffer };

/** What the API server shows of an object to whoever asks for it; `hidden` where they may not read it. */
export type ObjectLookup =
  | { readonly kind: "found"; readonly value: unknown }
  | { readonly kind: "missing" | "hidden" };

/** Which object has a name now, as whoever asks may see it. */
export type UidLookup =
  | { readonly kind: "found"; readonly uid: string }
  | { readonly kind: "missing" | "hidden" };

/** One of the objects that a list holds. */
export interface FoundObject {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/** Which objects a list holds, as whoever asks may see them. */
export type ListLookup =
  | { readonly kind: "found"; readonly objects: readonly FoundObject[] }
  | { readonly kind: "hidden" };

/** All connections of a resource to its API server. */
export class ApiServers {
  readonly #host: ProtocolHost;
  readonly #upstreams = new Map<string, HttpUpstream>();

  constructor(host: ProtocolHost) {
    this.#host = host;
  }

  /** The connections that an account uses; others once its secret or the target has changed. */
  of(account: UpstreamAccount): HttpUpstream {
    const target = this.#host.target(account);
    const key = createHash("sha256").update(JSON.stringify(target)).digest("hex");
    const known = this.#upstreams.get(key);
    if (known !== undefined) return known;
    for (const [old, upstream] of this.#upstreams) {
      if (this.#upstreams.size < upstreamsMax) break;
      this.#upstreams.delete(old);
      upstream.close();
    }
    const made = new HttpUpstream(target, this.#host.limits.upstreamLoginMs);
    this.#upstreams.set(key, made);
    return made;
  }

  /** The account that serves an identity: with one that serves it, nobody needs to name it. */
  account(identity: Identity): UpstreamAccount {
    const { credential } = this.#host.options;
    return this.#host.account(identity, typeof credential === "string" ? credential : identity.user);
  }

  /** Looks a pod up with the gateway's own rights: what it is decides what may be done with it. */
  async pod(account: UpstreamAccount, namespace: string, name: string): Promise<PodLookup> {
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(name)}`;
    const headers =
      account.password === undefined ? {} : { authorization: `Bearer ${account.password.trim()}` };
    const { status, body } = await this.#lookUp(account, path, headers);
    if (status === 404) return { kind: "missing", body: body ?? Buffer.alloc(0) };
    const pod: unknown = status === 200 && body !== undefined ? parsed(body) : undefined;
    if (!isRecord(pod) || !isRecord(pod.metadata)) throw notLookedUp("the pod", status);
    const { labels, uid } = pod.metadata;
    return { kind: "found", labels: textMembers(labels), spec: pod.spec, uid };
  }

  /** Looks an object up with these headers, which say in whose name: a right that they lack is not the gateway's to lend. */
  async object(account: UpstreamAccount, path: string, headers: HeaderFields): Promise<ObjectLookup> {
    const { status, body } = await this.#lookUp(account, path, headers);
    if (status === 404) return { kind: "missing" };
    if (status === 401 || status === 403) return { kind: "hidden" };
    const value: unknown = status === 200 && body !== undefined ? parsed(body) : undefined;
    if (!isRecord(value)) throw notLookedUp("what is changed", status);
    return { kind: "found", value };
  }

  /** Looks up which object it is, without what is in it, with these headers. */
  async uid(account: UpstreamAccount, path: string, headers: HeaderFields): Promise<UidLookup> {
    const accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
    const { status, body } = await this.#lookUp(account, path, headers, accept);
    if (status === 404) return { kind: "missing" };
    if (status === 401 || status === 403) return { kind: "hidden" };
    const value = status === 200 && body !== undefined ? parsed(body) : undefined;
    const uid = isRecord(value) && isRecord(value.metadata) ? value.metadata.uid : undefined;
    if (typeof uid !== "string" || uid === "") throw notLookedUp("what is changed", status);
    return { kind: "found", uid };
  }

  /** Looks up which objects a list holds, without what is in them, with these headers. */
  async uids(account: UpstreamAccount, path: string, headers: HeaderFields): Promise<ListLookup> {
    const accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
    const { status, body } = await this.#lookUp(account, path, headers, accept, listBytesMax);
    if (status === 401 || status === 403) return { kind: "hidden" };
    const value = status === 200 && body !== undefined ? parsed(body) : undefined;
    const items = isRecord(value) && Array.isArray(value.items) ? value.items : undefined;
    const objects = items?.map(foundObject);
    if (objects === undefined || objects.includes(undefined)) throw notLookedUp("what is deleted", status);
    return { kind: "found", objects: objects.filter((one) => one !== undefined) };
  }

  async #lookUp(
    account: UpstreamAccount,
    path: string,
    given: HeaderFields,
    accept = "application/json",
    bytesMax = lookupBytesMax,
  ) {
    const headers = { ...given, accept };
    const signal = AbortSignal.timeout(lookupMs);
    const response = await this.of(account).request({ method: "GET", path, headers, signal });
    return { status: response.statusCode ?? 0, body: await readAll(response, bytesMax) };
  }
}

function foundObject(item: unknown): FoundObject | undefined {
  const metadata = isRecord(item) && isRecord(item.metadata) ? item.metadata : {};
  const { namespace = "", name, uid } = metadata;
  if (typeof namespace !== "string" || typeof name !== "string" || typeof uid !== "string") return undefined;
  return { namespace, name, uid };
}

function notLookedUp(what: string, status: number): GatewayError {
  const cause = new Error(`${what} could not be looked up: status ${status}`);
  return new GatewayError("catalogUnavailable", { detail: `${what} could not be looked up`, cause });
}

/** Reads a stream whole; undefined where it is longer than `max`. */
export async function readAll(stream: Readable | IncomingMessage, max: number): Promise<Buffer | undefined> {
  const read = new GatheredBytes();
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    if (read.length + chunk.length > max) {
      stream.destroy();
      return undefined;
    }
    read.push(chunk);
  }
  return read.take();
}

/** JSON as a value; undefined where it is none. */
export function parsed(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8"));
  } catch {
    // Not JSON: the caller treats it as what it cannot read.
    return undefined;
  }
}

function textMembers(value: unknown): Readonly<Record<string, string>> {
  if (!isRecord(value)) return {};
  const texts = Object.entries(value).filter(
    (entry): entry is [string, string] => typeof entry[1] === "string",
  );
  return Object.fromEntries(texts);
}
