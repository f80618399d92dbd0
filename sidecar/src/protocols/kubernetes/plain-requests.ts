/** Requests that are answered with a body: everything but exec, attach and port-forward. */
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { pipeline, type Readable, Transform, type Writable } from "node:stream";
import type { Command, SessionMasking } from "@sallyport/policy";
import type { Permit } from "../../guard/index.ts";
import { OutputMask, OutputPatterns } from "../../terminal/index.ts";
import { GatewayError } from "../../wire/gateway-error.ts";
import type { HttpExchange } from "../../wire/http-server.ts";
import type { ProtocolHost } from "../protocol.ts";
import { sendStatus, statusOfError, statusOfRefusal } from "./answer.ts";
import { commandOf, noFacts, type RequestFacts, unreadSecret } from "./command.ts";
import { type ClientConnection, correlationId, type OpenSession } from "./connection.ts";
import { addedTo, type Debugger, debuggersIn, debuggingSecurity } from "./debugging.ts";
import {
  aboutOf,
  isRecord,
  opaquePod,
  type PodSecurity,
  plainPod,
  reachingAlso,
  securityOf,
  securityOfContainer,
  securityOfVolume,
  writtenBy,
} from "./facts.ts";
import { clientHeaders, upstreamHeaders } from "./headers.ts";
import { HeldCollection, heldObject, pathOfChanged, type Sent } from "./held-object.ts";
import { marksOf } from "./impersonation.ts";
import { readJsonBody } from "./json-body.ts";
import { ask, mayGoOn } from "./judge.ts";
import { maskingTransform } from "./masking-answer.ts";
import { type HiddenFields, hiddenFields, maskableAccept, selectsByHidden } from "./object-mask.ts";
import { readProtobuf } from "./protobuf.ts";
import { type ApiRequest, readRequest, resourceName, targetOf } from "./request.ts";
import { failure } from "./status.ts";
import { type ApiServers, type PodLookup, readAll } from "./upstream.ts";
import { memberAt, patchedPodSpec } from "./workloads.ts";

/** The API server itself takes no more than 3 MiB. */
const bodyBytesMax = 4 * 1024 * 1024;
const writing = new Set(["create", "update", "patch"]);
const streaming = new Set(["exec", "attach", "portforward"]);

/** What serving a request needs. */
export interface Serving {
  readonly host: ProtocolHost;
  readonly servers: ApiServers;
  readonly connection: ClientConnection;
}

/** Answers one request; never throws. */
export async function answerRequest(exchange: HttpExchange, serving: Serving): Promise<void> {
  let isAnswered = false;
  const judged = serving.connection.judging();
  try {
    const session = await serving.connection.session(exchange);
    const request = readRequest(exchange.method, exchange.url);
    if ("refused" in request) {
      isAnswered = true;
      sendStatus(exchange, failure(400, request.refused));
      return;
    }
    if (streaming.has(request.subresource)) {
      isAnswered = true;
      sendStatus(exchange, failure(400, `${request.subresource} needs an upgrade of an HTTP/1.1 connection`));
      return;
    }
    session.touch();
    exchange.continue();
    await serve(exchange, serving, session, request, () => {
      judged();
      isAnswered = true;
    });
  } catch (error) {
    const id = correlationId();
    serving.host.report(error, id);
    if (isAnswered || exchange.closed.aborted) exchange.abort();
    else sendStatus(exchange, statusOfError(error, id));
  } finally {
    judged();
  }
}

async function serve(
  exchange: HttpExchange,
  { host, servers }: Serving,
  session: OpenSession,
  request: ApiRequest,
  answering: () => void,
): Promise<void> {
  const { guard } = session.admitted;
  const isWrite = writing.has(request.verb) && request.subresource !== "proxy";
  const isRead = exchange.method === "GET" || exchange.method === "HEAD";
  let body: Buffer | undefined;
  if (!isRead && request.subresource !== "proxy") {
    body = await readAll(exchange.body, bodyBytesMax);
    if (body === undefined) throw new GatewayError("tooLarge", { detail: "the body is larger than 4 MiB" });
  }
  const written = isWrite ? writtenOf(exchange, body ?? Buffer.alloc(0)) : undefined;
  const own = isWrite ? factsOfBody(request, exchange, body ?? Buffer.alloc(0), written) : noFacts;
  const isDebug = isWrite && request.subresource === "ephemeralcontainers";
  const debug = isDebug ? debuggersIn(written) : [];
  const patched = isWrite ? patchedPodSpec(request, bodyOf(exchange, body ?? Buffer.alloc(0))) : undefined;
  const lookUp = () =>
    patched === undefined
      ? factsOfPod(servers, session, request, own, debug ?? [])
      : factsOfPatched({ host, servers }, session, request, own.security, patched);
  const { targets, ...found } = await lookUp();
  const facts = { ...own, ...found, dryRun: dryRunIn(request, body) };
  const command = commandOf(request, facts);
  const review = selfReview(request, body);
  const changed = pathOfChanged(request);
  const isJson =
    exchange.headers["content-encoding"] === undefined && jsonTypes.test(typeOf(exchange.headers));
  const collection = new HeldCollection(request);
  let sent: Sent = { request, body };
  let notice: string | undefined;
  const judged = await ask({
    session,
    host,
    command,
    bytes: [Buffer.from(`${request.method} ${targetOf(request)}`), body ?? Buffer.alloc(0)],
    ...(body === undefined || body.length === 0 || command.parts[0]?.objects[0]?.isSecret === true
      ? {}
      : { parameters: [`sha256:${createHash("sha256").update(body).digest("hex")}`] }),
    closed: exchange.closed,
    again: async () => {
      const { targets: _, ...now } = await lookUp();
      const looked = { command: commandOf(request, { ...facts, ...now }), about: now.about ?? "" };
      if (collection.path !== undefined) {
        // Approvers would read what the selector finds, where nobody is to be told of what it asks for.
        const hidden = hiddenFields(guard.masking, request);
        if (hidden !== undefined && selectsByHidden(request, hidden))
          return { ...looked, unfit: selectsMasked };
        const found = await servers.uids(session.account, collection.path, headersInName(host, session));
        return { ...looked, ...collection.look(found) };
      }
      if (changed === undefined) return looked;
      const found = await servers.uid(session.account, changed, headersInName(host, session));
      const object = heldObject({ request, body }, isJson, found);
      sent = object.sent ?? sent;
      return { ...looked, about: aboutOf(object.uid, looked.about), unfit: object.unfit };
    },
    explained: () => collection.explained,
    tell: ({ message }) => {
      notice = message;
    },
  });
  if (exchange.closed.aborted) return;
  answering();
  if (judged.kind === "refused") {
    sendStatus(exchange, statusOfRefusal(judged.refusal, request, judged.id));
    return;
  }
  const { permit } = judged;
  // As it is now: while the request waited, policy may have come to hide more.
  const hidden = hiddenFields(guard.masking, request);
  const local =
    refusedDebugging(debug, targets ?? 0) ??
    refusedLocally(exchange, request, hidden) ??
    denialOfReview(review, guard.isObserving, session);
  if (local !== undefined) {
    if ("code" in local && local.kind === "Status") sendStatus(exchange, local as ReturnType<typeof failure>);
    else sendJson(exchange, local);
    guard.response(permit.number, { tag: "answered by the gateway", rows: 0, bytes: 0, ms: 0 });
    return;
  }
  await forward(exchange, { host, servers, session, ...sent, command, permit, hidden, notice });
}

interface Forwarded {
  readonly host: ProtocolHost;
  readonly servers: ApiServers;
  readonly session: OpenSession;
  readonly request: ApiRequest;
  readonly command: Command;
  readonly permit: Permit;
  readonly hidden: HiddenFields | undefined;
  readonly body: Buffer | undefined;
  /** What the client is told of having waited. */
  readonly notice: string | undefined;
}

async function forward(exchange: HttpExchange, to: Forwarded): Promise<void> {
  const { host, servers, session, request, permit, hidden, body } = to;
  const begun = host.clock.monotonicMs();
  const { guard } = session.admitted;
  const ended = new AbortController();
  const end = () => ended.abort();
  const { masking } = guard;
  const running = {
    end,
    mayGoOn: () =>
      mayGoOn(session, to.command) && hiddenBy(guard.masking, request) === hiddenBy(masking, request),
  };
  session.running.add(running);
  exchange.closed.addEventListener("abort", end, { once: true });
  let bytes = 0;
  let tag = "failed";
  try {
    const { account, identity, admitted } = session;
    const headers = {
      ...upstreamHeaders(exchange.headers, account, identity, marksOf(host, identity, admitted.id)),
    };
    if (hidden !== undefined) {
      headers.accept = maskableAccept(exchange.headers.accept) ?? "application/json";
      headers["accept-encoding"] = "identity";
    }
    const patterns = request.subresource === "log" ? new OutputPatterns(guard.masking.patterns) : undefined;
    if (patterns?.isEmpty === false) headers["accept-encoding"] = "identity";
    if (body !== undefined) headers["content-length"] = String(body.length);
    const isStreamed = body === undefined && exchange.method !== "GET" && exchange.method !== "HEAD";
    const response = await servers.of(account).request({
      method: request.method,
      path: targetOf(request),
      headers,
      signal: ended.signal,
      ...(body === undefined ? (isStreamed ? { body: exchange.body } : {}) : { body }),
    });
    tag = String(response.statusCode);
    bytes = await answerWith(exchange, response, {
      request,
      hidden,
      patterns,
      session,
      notice: to.notice,
    });
  } finally {
    session.running.delete(running);
    guard.response(permit.number, { tag, rows: 0, bytes, ms: host.clock.monotonicMs() - begun });
  }
}

/** What is hidden from a request's answer, as a text to compare. */
function hiddenBy(masking: SessionMasking, request: ApiRequest): string {
  const patterns = request.subresource === "log" ? masking.patterns : [];
  return JSON.stringify([hiddenFields(masking, request), patterns]);
}

async function answerWith(
  exchange: HttpExchange,
  response: IncomingMessage,
  by: {
    readonly request: ApiRequest;
    readonly hidden: HiddenFields | undefined;
    readonly patterns: OutputPatterns | undefined;
    readonly session: OpenSession;
    readonly notice: string | undefined;
  },
): Promise<number> {
  const headers = clientHeaders(response.headers);
  if (by.hidden?.mayBeQuoted === true && headers.warning !== undefined) headers.warning = withheldWarning;
  if (by.notice !== undefined) headers.warning = [headers.warning ?? [], warningOf(by.notice)].flat();
  const masks = by.hidden !== undefined || by.patterns?.isEmpty === false;
  if (masks) {
    delete headers["content-length"];
    delete headers.etag;
    if (response.headers["content-encoding"] !== undefined)
      throw new GatewayError("upstreamProtocol", {
        detail: "the answer came in a form that cannot be masked",
      });
  }
  let bytes = 0;
  response.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    by.session.touch();
  });
  response.pause();
  const isJson = /^application\/json\b/.test(response.headers["content-type"] ?? "");
  if (by.hidden !== undefined && !isJson && response.statusCode !== 304) {
    response.destroy();
    sendStatus(
      exchange,
      failure(406, `${resourceName(by.request)} can be shown as JSON only, since parts are masked`),
    );
    return 0;
  }
  const out = exchange.respond(response.statusCode ?? 502, headers);
  await new Promise<void>((resolve, reject) => {
    const done = (error?: Error | null) => (error ? reject(error) : resolve());
    if (by.hidden !== undefined)
      pipeline(response, maskingTransform(by.hidden, by.request.verb === "watch"), out, done);
    else if (by.patterns?.isEmpty === false)
      maskLog(response, out, new OutputMask(by.patterns), {
        isCut: by.request.query.has("limitBytes"),
        done,
      });
    else pipeline(response, out, done);
  });
  return bytes;
}

/** Admission policies quote what an object holds in their warnings, too. */
const withheldWarning =
  '299 sallyport "the server warns of this, in words that could show what is masked for you"';

/** RFC 9111, 5.5: what kubectl shows as `Warning: …`. */
function warningOf(notice: string): string {
  const text = notice.replaceAll(/[^\x20-\x7e]/g, " ").replaceAll(/["\\]/g, "\\$&");
  return `299 sallyport "${text.slice(0, 500)}; approved"`;
}

/**
 * Logs are lines: what is held back waits for the rest of its line, however slowly the client reads. A log that the
 * client has cut may end within a value, which is none then: the last line is not shown.
 */
function maskLog(
  source: Readable,
  out: Writable,
  mask: OutputMask,
  { isCut, done }: { readonly isCut: boolean; readonly done: (error?: Error | null) => void },
): void {
  const masking = new Transform({
    transform(chunk: Buffer, _encoding, next) {
      next(null, mask.push(chunk));
    },
    flush(next) {
      next(null, isCut ? Buffer.alloc(mask.heldBytes, "*") : mask.flush());
    },
  });
  pipeline(source, masking, out, done);
}

const protobufType = "application/vnd.kubernetes.protobuf";
const jsonTypes =
  /^application\/(json|json-patch\+json|merge-patch\+json|strategic-merge-patch\+json|apply-patch\+yaml)$/;

function writtenValue(type: string, body: Buffer): unknown {
  if (type === protobufType) return readProtobuf(body);
  return jsonTypes.test(type) ? readJsonBody(body) : undefined;
}

/** What a body says; undefined where it cannot be read. */
function bodyOf({ headers }: HttpExchange, body: Buffer): unknown {
  return headers["content-encoding"] === undefined ? writtenValue(typeOf(headers), body) : undefined;
}

/** What a body writes; undefined where it cannot be read. */
function writtenOf(exchange: HttpExchange, body: Buffer): unknown {
  const value = bodyOf(exchange, body);
  return typeOf(exchange.headers) === "application/json-patch+json" ? writtenBy(value) : value;
}

function typeOf(headers: HttpExchange["headers"]): string {
  return (headers["content-type"] ?? "application/json").split(";")[0]?.trim().toLowerCase() ?? "";
}

/** What rules may know of a body. A body that cannot be read says the worst of itself. */
function factsOfBody(
  request: ApiRequest,
  { headers }: HttpExchange,
  body: Buffer,
  written: unknown,
): RequestFacts {
  if (body.length === 0) return noFacts;
  const type = typeOf(headers);
  const isApply = type.startsWith("application/apply-patch+");
  const isUpsert = isApply || (request.verb === "update" && madeByUpdate.has(resourceName(request)));
  const mayCreate = isUpsert && request.subresource === "" && !isSure(written);
  if (written === undefined) return { ...noFacts, security: opaquePod, secretType: unreadSecret, mayCreate };
  const holdsPods = !(request.group === "" && ["secrets", "configmaps", "events"].includes(request.resource));
  const isVolume = request.group === "" && request.resource === "persistentvolumes";
  const security = isVolume ? securityOfVolume(written) : holdsPods ? securityOf(written) : plainPod;
  const secretType =
    request.group === "" &&
    request.resource === "secrets" &&
    isRecord(written) &&
    typeof written.type === "string"
      ? written.type
      : "";
  return {
    ...noFacts,
    security,
    secretType,
    mayCreate,
  };
}

/** What an API server creates where a PUT finds none. */
const madeByUpdate = new Set([
  ..."endpoints events limitranges services events.events.k8s.io runtimeclasses.node.k8s.io".split(" "),
  ..."leases leasecandidates".split(" ").map((name) => `${name}.coordination.k8s.io`),
  ...["roles", "rolebindings", "clusterroles", "clusterrolebindings"].map(
    (name) => `${name}.rbac.authorization.k8s.io`,
  ),
]);

/** Whether an update or a server-side apply names by its uid an object that is there: no other is then created. */
function isSure(written: unknown): boolean {
  const metadata = isRecord(written) ? written.metadata : undefined;
  return isRecord(metadata) && typeof metadata.uid === "string" && metadata.uid !== "";
}

/** What is reached through a pod, or debugged in it, is the pod's: rules ask for its labels, and what it reaches. */
async function factsOfPod(
  servers: ApiServers,
  session: OpenSession,
  { group, resource, subresource, namespace, name }: ApiRequest,
  own: RequestFacts,
  debug: readonly Debugger[],
): Promise<Partial<RequestFacts> & { readonly targets?: number }> {
  const isReached = subresource === "proxy" || subresource === "ephemeralcontainers";
  if (group !== "" || resource !== "pods" || !isReached) return {};
  const found = await servers.pod(session.account, namespace, name);
  const spec = found.kind === "found" ? found.spec : undefined;
  if (subresource === "proxy")
    return found.kind === "missing" ? {} : podFacts(found, securityOfContainer(spec, ""));
  const targets = new Set(addedTo(spec, debug).map((one) => one.target));
  const [target = ""] = targets;
  if (found.kind === "missing") return { target, targets: targets.size };
  return {
    ...podFacts(found, debuggingSecurity(own.security, spec, target)),
    target,
    targets: targets.size,
  };
}

function podFacts({ labels, uid }: Extract<PodLookup, { kind: "found" }>, security: PodSecurity) {
  return { labels, security, about: aboutOf(uid, [labels, security]) };
}

/** What is patched reaches what the patch writes, and what it did before: of an image alone nobody sees where it will run. */
async function factsOfPatched(
  { host, servers }: Pick<Serving, "host" | "servers">,
  session: OpenSession,
  request: ApiRequest,
  own: PodSecurity,
  podSpec: readonly string[],
): Promise<Partial<RequestFacts> & { readonly targets?: number }> {
  if (own.opaque) return {};
  const found = await servers.object(session.account, request.rawPath, headersInName(host, session));
  if (found.kind === "missing") return {};
  const value = found.kind === "found" ? found.value : undefined;
  const spec = memberAt(value, podSpec);
  // Who may write what they may not read is not told of what it is, nor trusted to leave it so.
  return {
    security: reachingAlso(own, spec === undefined ? opaquePod : securityOf(spec)),
    about: aboutOf(memberAt(value, ["metadata", "uid"]), spec),
  };
}

/** What a look-up in the name of whoever asks is sent with. */
function headersInName(host: ProtocolHost, { account, identity, admitted }: OpenSession) {
  return upstreamHeaders({}, account, identity, marksOf(host, identity, admitted.id));
}

/** A server that gets options in the body of a deletion reads none in its query. */
function dryRunIn({ verb }: ApiRequest, body: Buffer | undefined): boolean | undefined {
  if (verb !== "delete" && verb !== "deletecollection") return undefined;
  if (body === undefined || body.length === 0) return undefined;
  const options = readJsonBody(body);
  const given = isRecord(options) ? options.dryRun : undefined;
  return Array.isArray(given) && given.length === 1 && given[0] === "All";
}

/** Rules know one target: what they cannot be told of is not passed on. */
function refusedDebugging(debug: readonly Debugger[] | undefined, targets: number) {
  if (debug === undefined)
    return failure(415, "a debugging container is added in JSON or protobuf that can be read in one way");
  return targets > 1 ? failure(400, "add one debugging container at a time") : undefined;
}

/** Who sees a field masked does not write it, and forms that cannot be masked are not shown. */
function refusedLocally(exchange: HttpExchange, request: ApiRequest, hidden: HiddenFields | undefined) {
  if (hidden === undefined) return undefined;
  const what = resourceName(request);
  if (hidden.deniesWrites && (request.verb === "update" || request.verb === "patch"))
    return failure(
      403,
      `${what} is forbidden: parts of it are masked for you, so that writing it could save the mask`,
    );
  if (selectsByHidden(request, hidden)) return failure(403, `${what} is forbidden: ${selectsMasked}`);
  // A JSON patch tests and copies what its author may not see; the others only write.
  if (request.verb === "patch" && !plainPatches.test(exchange.headers["content-type"] ?? ""))
    return failure(403, `${what} is forbidden: a patch of this type could show what is masked for you`);
  if (request.subresource === "proxy" || maskableAccept(exchange.headers.accept) === undefined)
    return failure(406, `${what} can be shown as JSON only, since parts of it are masked for you`);
  return undefined;
}

const selectsMasked = "a selector of what is masked for you would tell of it";
const plainPatches =
  /^application\/(merge-patch\+json|strategic-merge-patch\+json|apply-patch\+yaml)\s*(;|$)/i;

/** The command that a SelfSubjectAccessReview asks about; undefined where the request is none that can be read. */
function selfReview(request: ApiRequest, body: Buffer | undefined) {
  const isReview =
    request.isResource &&
    request.verb === "create" &&
    resourceName(request) === "selfsubjectaccessreviews.authorization.k8s.io";
  const value = isReview && body !== undefined ? (readProtobuf(body) ?? readJsonBody(body)) : undefined;
  const spec = isRecord(value) && isRecord(value.spec) ? value.spec : undefined;
  if (spec === undefined) return undefined;
  const text = (from: Readonly<Record<string, unknown>>, key: string) =>
    typeof from[key] === "string" ? (from[key] as string) : "";
  const asked = isRecord(spec.resourceAttributes) ? spec.resourceAttributes : undefined;
  const path = isRecord(spec.nonResourceAttributes) ? spec.nonResourceAttributes : {};
  const about: ApiRequest = {
    ...request,
    query: new URLSearchParams(),
    isResource: asked !== undefined,
    path: text(path, "path"),
    verb: text(asked ?? path, "verb"),
    group: asked === undefined ? "" : text(asked, "group"),
    version: asked === undefined ? "" : text(asked, "version"),
    resource: asked === undefined ? "" : text(asked, "resource"),
    subresource: asked === undefined ? "" : text(asked, "subresource"),
    namespace: asked === undefined ? "" : text(asked, "namespace"),
    name: asked === undefined ? "" : text(asked, "name"),
  };
  return { spec, command: commandOf(about) };
}

/** `kubectl auth can-i` hears of the gateway's policy first; what it allows is for the API server to say. */
function denialOfReview(
  review: { readonly spec: unknown; readonly command: Command } | undefined,
  isObserving: boolean,
  session: OpenSession,
): Readonly<Record<string, unknown>> | undefined {
  if (review === undefined || isObserving) return undefined;
  const verdict = session.admitted.guard.decide(review.command);
  if (verdict.action !== "Deny") return undefined;
  return {
    kind: "SelfSubjectAccessReview",
    apiVersion: "authorization.k8s.io/v1",
    metadata: { creationTimestamp: null },
    spec: review.spec,
    status: { allowed: false, denied: true, reason: verdict.message },
  };
}

function sendJson(exchange: HttpExchange, value: unknown): void {
  const body = Buffer.from(JSON.stringify(value));
  const out = exchange.respond(201, {
    "content-type": "application/json",
    "content-length": String(body.length),
  });
  out.end(body);
}
