/** A request as policy judges it: its operation, its object, and every fact that rules may read. */
import type { Command, CommandPart, FactValue, ObjectRef, Operation } from "@sallyport/policy";
import { type CopyDirection, copyOf, copyTargetOf, wholePath } from "./copying.ts";
import { type PodSecurity, plainPod } from "./facts.ts";
import { type ApiRequest, isStreaming, isTrue, resourceName } from "./request.ts";
import { readArgv } from "./shell.ts";

/** What was looked up or read beside the request's target. */
export interface RequestFacts {
  readonly security: PodSecurity;
  /** Labels of the pod that the request is about. */
  readonly labels: Readonly<Record<string, string>>;
  /** The port that a tunnel forwards; 0 where it is only being opened. */
  readonly port: number;
  /** Of an ephemeral container: the container whose processes it sees. */
  readonly target: string;
  /** The `type` of a Secret that is written. */
  readonly secretType: string;
  /** The container that is entered, where the request leaves it to the server to choose the only one. */
  readonly container: string;
  /** What a body says of whether it is a dry run; undefined: the query says it. */
  readonly dryRun: boolean | undefined;
  /** True where what is patched is created if it is not there. */
  readonly mayCreate: boolean;
  /** What was looked up, as a text to compare: which object it is, and what of it counts. */
  readonly about: string;
  /** The file that a copy is about to move; undefined: the command itself is meant. */
  readonly file?: { readonly direction: CopyDirection; readonly path: string; readonly size: number };
}

/** The type of a Secret that nobody could read: it may let its holder act as another. */
export const unreadSecret = "unread";

/** Nothing was looked up. */
export const noFacts: RequestFacts = {
  security: plainPod,
  labels: {},
  port: 0,
  target: "",
  secretType: "",
  container: "",
  dryRun: undefined,
  mayCreate: false,
  about: "",
};

/** What every client asks before anything else, and what an API server tells anybody that it knows. */
const discovery =
  /^\/(api|apis|version|healthz|livez|readyz|api\/[a-z0-9]+|apis\/[a-z0-9.-]+(\/[a-z0-9]+)?|openapi\/v[23](\/.*)?|\.well-known\/openid-configuration|openid\/v1\/jwks)?$/;

const selfReviews = new Set([
  "selfsubjectaccessreviews.authorization.k8s.io",
  "selfsubjectrulesreviews.authorization.k8s.io",
  "selfsubjectreviews.authentication.k8s.io",
]);
const reviews = new Set([
  "subjectaccessreviews.authorization.k8s.io",
  "localsubjectaccessreviews.authorization.k8s.io",
  "tokenreviews.authentication.k8s.io",
]);
const shaping = new Set([
  "customresourcedefinitions.apiextensions.k8s.io",
  "apiservices.apiregistration.k8s.io",
  "namespaces",
]);
const shapingGroups = new Set(["admissionregistration.k8s.io"]);
const privilegeGroups = new Set(["rbac.authorization.k8s.io", "certificates.k8s.io"]);
/** Sallyport's own kinds that say who may do what, and by whose word. */
const privileged = new Set(
  [
    "accesspolicies",
    "clusteraccesspolicies",
    "identityproviders",
    "protectedresources",
    "resourcegrants",
  ].map((kind) => `${kind}.sallyport.dev`),
);
const executing = new Set(["exec", "attach", "portforward", "proxy", "ephemeralcontainers"]);
const reading = new Set(["get", "list", "watch"]);
/** Kinds of Secret that let whoever holds them act as another. */
const tokenSecrets = new Set([
  unreadSecret,
  "kubernetes.io/service-account-token",
  "bootstrap.kubernetes.io/token",
]);

/** The request as a command; one without parts asks for nothing that a policy could withhold. */
export function commandOf(request: ApiRequest, facts: RequestFacts = noFacts): Command {
  const { query } = request;
  const isExec = request.subresource === "exec";
  const argv = isExec ? query.getAll("command") : undefined;
  const shell = readArgv(argv ?? []);
  const { security } = facts;
  const all: Record<string, FactValue> = {
    verb: request.verb,
    method: request.method,
    group: request.group,
    version: request.version,
    resource: request.resource,
    subresource: request.subresource,
    namespace: request.namespace,
    name: request.name,
    path: request.path,
    dryRun: facts.dryRun ?? isDryRun(request),
    container: (query.get("container") ?? "") || facts.container,
    tty: isTrue(query.get("tty")),
    stdin: isTrue(query.get("stdin")),
    shell: shell.kind,
    programs: shell.programs,
    labels: facts.labels,
    port: facts.port || request.port,
    target: facts.target,
    file: facts.file?.path ?? "",
    fileSize: facts.file?.size ?? 0,
    privileged: security.privileged,
    hostNetwork: security.hostNetwork,
    hostPID: security.hostPID,
    hostIPC: security.hostIPC,
    hostPath: security.hostPath,
    hostAccess: security.hostAccess,
    capabilities: security.capabilities,
    images: security.images,
    opaque: security.opaque,
  };
  const part = withFiles(partOf(request, facts, shell.kind === "opaque"), argv ?? [], facts.file);
  // A server-side apply needs the right to create, too, as the API server itself has it.
  const created = facts.mayCreate ? partOf({ ...request, verb: "create" }, facts, false) : undefined;
  return {
    protocol: "kubernetes",
    text: textOf(request, argv, facts),
    parts: [part, created].filter((one) => one !== undefined),
    ...(argv === undefined ? {} : { argv }),
    facts: all,
  };
}

/**
 * What `kubectl cp` runs has words and objects as transfers over SSH have them. A path is no object that Allow rules must
 * cover: who may run the command may, but for what is denied. It is the one that is named, whatever links lead from it.
 */
function withFiles(
  part: CommandPart | undefined,
  argv: readonly string[],
  file: RequestFacts["file"],
): CommandPart | undefined {
  const copying = copyOf(argv);
  const target = copyTargetOf(argv);
  if (part === undefined) return part;
  const named = (word: string, path: string | undefined): CommandPart => ({
    ...part,
    words: [...part.words, word],
    objects: [...part.objects, ...(path === undefined ? [] : [fileObject(path)])],
    enforcement: "heuristic",
  });
  if (file !== undefined) return named(copyWords[file.direction], file.path);
  if (target !== undefined) return named("cp.stat", wholePath(target));
  if (copying?.isKubectls !== true) return part;
  const { direction, place } = copying;
  // Whatever is copied into a folder is below it.
  const below = place === undefined || direction === "out" || place === "/" ? place : `${place}/`;
  return named(copyWords[direction], below);
}

const copyWords = { out: "cp.get", in: "cp.put" } as const;

function fileObject(name: string): ObjectRef {
  return { name, kind: "file", direct: false };
}

function partOf(request: ApiRequest, facts: RequestFacts, isOpaque: boolean): CommandPart | undefined {
  if (!request.isResource) {
    if (discovery.test(request.path) && request.verb === "get") return undefined;
    return part("read", request.verb, request.path, { isSecret: true, unbounded: false, isOpaque: false });
  }
  const resource = resourceName(request);
  if (selfReviews.has(resource) && request.verb === "create") return undefined;
  return part(operationOf(request, resource, facts), request.verb, resource, {
    isSecret: showsSecrets(request),
    unbounded: request.verb === "deletecollection" && !isSelective(request.query),
    isOpaque,
  });
}

function part(
  operation: Operation,
  verb: string,
  name: string,
  { isSecret, unbounded, isOpaque }: { isSecret: boolean; unbounded: boolean; isOpaque: boolean },
): CommandPart {
  const object: ObjectRef = {
    name: `${verb}:${name}`,
    kind: "resource",
    direct: true,
    ...(isSecret ? { isSecret: true } : {}),
  };
  const enforcement = isOpaque ? "heuristic" : "authoritative";
  return { operation, words: [verb, name], objects: [object], unbounded, enforcement };
}

/** Whether a selector asks for something to be there: `!none`, `a!=b` and `a notin (b)` select all that have no such label. */
function isSelective(query: URLSearchParams): boolean {
  // Commas between parentheses belong to a list of values.
  const terms = (name: string) => (query.get(name) ?? "").replaceAll(/\([^)]*\)/g, "()").split(",");
  return (
    terms("labelSelector").some((term) => term.trim() !== "" && !/!|\snotin\s*\(/.test(term)) ||
    terms("fieldSelector").some((term) => /^\s*(?!metadata\.namespace\s*=)[^=!]+==?[^=]/.test(term))
  );
}

function operationOf(request: ApiRequest, resource: string, facts: RequestFacts): Operation {
  const { group, subresource, verb } = request;
  if (resource === "nodes/proxy" || resource === "serviceaccounts/token") return "privilege";
  if (executing.has(subresource)) return "execute";
  if (reading.has(verb) || (reviews.has(resource) && verb === "create")) return "read";
  if (privilegeGroups.has(group) || tokenSecrets.has(facts.secretType)) return "privilege";
  if (privileged.has(`${request.resource}.${group}`)) return "privilege";
  if (shaping.has(request.group === "" ? request.resource : `${request.resource}.${group}`)) return "define";
  if (shapingGroups.has(group)) return "define";
  if (request.resource === "nodes" || ["eviction", "binding"].includes(subresource)) return "control";
  return request.resource === "bindings" ? "control" : "write";
}

/** Whether nothing is kept of it: what opens a stream, reaches through or hands out a token knows no dry run. */
function isDryRun(request: ApiRequest): boolean {
  const keeps = ["create", "update", "patch", "delete", "deletecollection"].includes(request.verb);
  if (!keeps || isStreaming(request) || request.subresource === "token") return false;
  return request.query.get("dryRun") === "All";
}

/** Secrets, and what reads the files and the memory of a node. */
function showsSecrets({ group, resource, subresource }: ApiRequest): boolean {
  return (
    (group === "" && resource === "secrets") ||
    (resource === "nodes" && subresource !== "" && subresource !== "status")
  );
}

const queryTextMax = 1_000;

/** A request in a line, for messages, recordings and rules. */
function textOf(request: ApiRequest, argv: readonly string[] | undefined, facts: RequestFacts): string {
  if (!request.isResource) return `${request.verb} ${request.path}`;
  const place = [request.namespace, request.name].filter((part) => part !== "").join("/");
  const words = [request.verb, resourceName(request), ...(place === "" ? [] : [place])];
  if (request.subresource === "exec" || request.subresource === "attach") {
    const container = request.query.get("container");
    if (container !== null && container !== "") words.push("-c", container);
    if (isTrue(request.query.get("stdin"))) words.push("-i");
    if (isTrue(request.query.get("tty"))) words.push("-t");
    if (argv !== undefined) words.push("--", ...argv.map(quoted));
    const { file } = facts;
    if (file !== undefined) words.push(`(file ${JSON.stringify(file.path)}, ${file.size} bytes)`);
    return words.join(" ");
  }
  if (request.subresource === "portforward") return [...words, `port ${facts.port}`].join(" ");
  const query = request.subresource === "proxy" ? "" : request.query.toString();
  // What the server behind it is asked to do, its method says: the verb is always `create`.
  if (request.subresource === "proxy") words.push(request.method, request.path.slice(0, queryTextMax));
  return query === "" ? words.join(" ") : `${words.join(" ")} ?${query.slice(0, queryTextMax)}`;
}

function quoted(word: string): string {
  return /^[A-Za-z0-9_./:@%+,=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
