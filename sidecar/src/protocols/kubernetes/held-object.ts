/**
 * An approval of a change is for one object. People take minutes to decide, and whoever asks may have another take its name
 * meanwhile: what waits is looked up before it is asked about and before it runs, and it goes to the server naming the object by
 * its uid, so that the server answers with a conflict where that is another by then.
 */
import { isRecord } from "./facts.ts";
import { readJsonBody, withFirst } from "./json-body.ts";
import { type ApiRequest, isStreaming, targetOf } from "./request.ts";
import type { FoundObject, ListLookup, UidLookup } from "./upstream.ts";

/** A request and its body as they go to the server. */
export interface Sent {
  readonly request: ApiRequest;
  readonly body: Buffer | undefined;
}

/** The object that a request changes, as it was looked up. */
export interface HeldObject {
  /** Its uid; of what is not there one that no object has. */
  readonly uid: string;
  /** The request for this object and for no other. */
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

/** What may be asked about, of what was looked up; `isJson` where the body says that it is JSON. */
export function heldObject({ request, body }: Sent, isJson: boolean, found: UidLookup): HeldObject {
  if (found.kind === "hidden") return { uid: "hidden", unfit: unread };
  const uid = found.kind === "found" ? found.uid : noObject;
  const given = body ?? Buffer.alloc(0);
  if (request.verb === "delete" || request.verb === "deletecollection") {
    const sent = boundDeletion(request, given, uid);
    if (sent !== undefined) return { uid, sent };
    return {
      uid,
      unfit: "this needs approval: give the options of the deletion in JSON, and no other object's uid",
    };
  }
  // What is not there is created, or not found: nothing is there to be named. What others' subresources take is not known.
  if (found.kind === "missing" || !naming.has(request.subresource)) return { uid };
  const bound = isJson ? boundChange(request, given, uid) : undefined;
  if (bound !== undefined) return { uid, sent: { request, body: bound } };
  return { uid, unfit: "this needs approval: send it in JSON, and with no other object's uid" };
}

const unread = "this needs approval, and whoever may not read an object cannot have a change of it approved";

/** Whose bodies name the object that they are about: the object itself, its subresources of its own form, and those of pods and accounts. */
const naming = new Set([
  "",
  ..."approval binding ephemeralcontainers eviction finalize resize scale status token".split(" "),
]);

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
  const bound = boundOptions(readJsonBody(body), uid);
  return bound === undefined ? undefined : { request, body: Buffer.from(JSON.stringify(bound)) };
}

function boundOptions(options: unknown, uid: string): Readonly<Record<string, unknown>> | undefined {
  const preconditions = isRecord(options) ? (options.preconditions ?? {}) : undefined;
  if (!isRecord(options) || !isRecord(preconditions) || (preconditions.uid ?? uid) !== uid) return undefined;
  return { ...options, preconditions: { ...preconditions, uid } };
}

/**
 * A change of the object with this uid alone; undefined where it cannot be read, or means another. What is created below an
 * object names it in a way of its own.
 */
export function boundChange(request: ApiRequest, body: Buffer, uid: string): Buffer | undefined {
  const value = readJsonBody(body);
  const own = `"uid":${JSON.stringify(uid)}`;
  if (Array.isArray(value))
    return withFirst(body, `{"op":"test","path":"/metadata/uid","value":${JSON.stringify(uid)}}`);
  if (!isRecord(value)) return undefined;
  if (request.subresource === "eviction") return boundEviction(value, uid);
  const { metadata } = value;
  if (metadata === undefined) return withFirst(body, `"metadata":{${own}}`);
  if (!isRecord(metadata)) return undefined;
  if (metadata.uid === undefined) return withFirst(body, own, "metadata");
  return metadata.uid === uid ? body : undefined;
}

function boundEviction(eviction: Readonly<Record<string, unknown>>, uid: string): Buffer | undefined {
  const deleteOptions = boundOptions(eviction.deleteOptions ?? {}, uid);
  return deleteOptions === undefined
    ? undefined
    : Buffer.from(JSON.stringify({ ...eviction, deleteOptions }));
}

/** Most objects that people are asked about at once. */
const foundMax = 500;
/** By these a server deletes what had a name once, and by that name. */
const ofThePast = ["continue", "resourceVersion", "resourceVersionMatch"];

/** What a deletion of many was found to delete when it was first looked at, which is when it is asked about. */
export class HeldCollection {
  /** Where that is listed; undefined for every other request. */
  readonly path: string | undefined;
  readonly #isOfThePast: boolean;
  #asked: readonly FoundObject[] | undefined;

  constructor(request: ApiRequest) {
    const { verb, name, query } = request;
    this.#isOfThePast = ofThePast.some((key) => query.getAll(key).some((value) => value !== ""));
    if (verb !== "deletecollection" || name !== "") return;
    const listed = new URLSearchParams();
    for (const key of ["labelSelector", "fieldSelector", "limit"])
      for (const value of query.getAll(key)) listed.append(key, value);
    const limit = Number(query.get("limit"));
    if (!(limit > 0 && limit <= foundMax)) listed.set("limit", String(foundMax + 1));
    this.path = targetOf({ ...request, query: listed });
  }

  /** What it is about now: the same while nothing has come to what was asked about. What has gone meanwhile is no loss. */
  look(found: ListLookup): { readonly about: string; readonly unfit?: string } {
    if (found.kind === "hidden") return { about: "hidden", unfit: unread };
    if (this.#isOfThePast)
      return { about: "past", unfit: `this needs approval: leave out ${ofThePast.join(", ")}` };
    if (found.objects.length > foundMax) return { about: "many", unfit: tooMany };
    this.#asked ??= found.objects;
    const known = new Set(this.#asked.map(({ uid }) => uid));
    return { about: JSON.stringify(found.objects.map(({ uid }) => uid).filter((uid) => !known.has(uid))) };
  }

  /** For the approvers: a selector does not say what it finds. */
  get explained(): string {
    if (this.#asked === undefined) return "";
    const names = this.#asked.map(({ namespace, name }) =>
      namespace === "" ? name : `${namespace}/${name}`,
    );
    return [
      `-- deletes what its selector finds when it runs; ${names.length} found now, and void should others have come by then:`,
      ...names.map((name) => `-- ${/^[\w.:/-]+$/.test(name) ? name : JSON.stringify(name)}`),
    ].join("\n");
  }
}

const tooMany = `this needs approval, and its selector finds more than ${foundMax} objects: select fewer, or give a limit`;
