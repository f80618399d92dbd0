/**
 * An approval of a change is for one object. People take minutes to decide, and whoever asks may have another take its name
 * meanwhile: what waits is looked up before it is asked about and before it runs, and a deletion names it by its uid.
 */
import { isRecord } from "./facts.ts";
import { readJsonBody } from "./json-body.ts";
import { type ApiRequest, isStreaming } from "./request.ts";
import type { UidLookup } from "./upstream.ts";

/** A request and its body as they go to the server. */
export interface Sent {
  readonly request: ApiRequest;
  readonly body: Buffer | undefined;
}

/** The object that a request changes, as it was looked up. */
export interface HeldObject {
  /** Its uid; of what is not there one that no object has. */
  readonly uid: string;
  /** A deletion of this object and of no other. */
  readonly sent?: Sent;
  /** Why nobody can be asked about it. */
  readonly unfit?: string;
}

const changing = new Set(["update", "patch", "delete"]);

/** The path of the object that a request changes; undefined where it names none. */
export function pathOfChanged(request: ApiRequest): string | undefined {
  const { isResource, name, verb, subresource } = request;
  const path = request.rawPath.replace(/\/$/, "");
  if (!isResource || name === "" || isStreaming(request)) return undefined;
  if (verb === "deletecollection") return `${path}/${encodeURIComponent(name)}`;
  // What is created below an object that is there changes that: an eviction, a token.
  if (!changing.has(verb) && (verb !== "create" || subresource === "")) return undefined;
  return subresource === "" ? path : path.slice(0, path.lastIndexOf("/"));
}

/** What may be asked about, of what was looked up. */
export function heldObject({ request, body }: Sent, found: UidLookup): HeldObject {
  if (found.kind === "hidden")
    return {
      uid: "hidden",
      unfit: "this needs approval, and whoever may not read an object cannot have a change of it approved",
    };
  const uid = found.kind === "found" ? found.uid : noObject;
  if (request.verb !== "delete" && request.verb !== "deletecollection") return { uid };
  const sent = boundDeletion(request, body ?? Buffer.alloc(0), uid);
  if (sent !== undefined) return { uid, sent };
  const unfit = "this needs approval: give the options of the deletion in JSON, and no other object's uid";
  return { uid, unfit };
}

/** API servers give uids themselves, and none like this one. */
const noObject = "none-when-it-was-asked-for";

/**
 * A deletion of the object with this uid alone, which the server itself answers with a conflict where that is another;
 * undefined where its options cannot be read, or want another uid.
 */
export function boundDeletion(request: ApiRequest, body: Buffer, uid: string): Sent | undefined {
  if (body.length === 0) {
    // Options that a body gives are not read from the query, and the other way round.
    const query = new URLSearchParams(request.query);
    if ((query.get("uid") || uid) !== uid) return undefined;
    query.set("uid", uid);
    return { request: { ...request, query }, body };
  }
  const options = readJsonBody(body);
  const preconditions = isRecord(options) ? (options.preconditions ?? {}) : undefined;
  if (!isRecord(options) || !isRecord(preconditions) || (preconditions.uid ?? uid) !== uid) return undefined;
  const bound = { ...options, preconditions: { ...preconditions, uid } };
  return { request, body: Buffer.from(JSON.stringify(bound)) };
}
