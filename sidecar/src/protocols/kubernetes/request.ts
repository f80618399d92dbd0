/** What a request to an API server asks for, read from its method and target as the API server itself reads them. */

/** A request in the API server's own terms. */
export interface ApiRequest {
  readonly method: string;
  /** get, list, watch, create, update, patch, delete, deletecollection. */
  readonly verb: string;
  /** False for paths such as /version, which name no resource. */
  readonly isResource: boolean;
  readonly group: string;
  readonly version: string;
  readonly resource: string;
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
  /** Of a proxied server: its port, where the request names one by its number; else 0. */
  readonly port: number;
  /** The decoded path. */
  readonly path: string;
  /** The path as it goes to the server. */
  readonly rawPath: string;
  /** The query as it was read; what goes to the server is written anew from it. */
  readonly query: URLSearchParams;
}

/** Why a target is not taken. */
export interface RefusedTarget {
  readonly refused: string;
}

const targetMax = 24 * 1024;
const wordForm = /^[a-z0-9][a-z0-9.-]*$/;
/** A map, since HTTP/2 lets a client name its method `constructor`. */
const verbs: ReadonlyMap<string, string> = new Map([
  ["GET", "get"],
  ["HEAD", "get"],
  ["POST", "create"],
  ["PUT", "update"],
  ["PATCH", "patch"],
  ["DELETE", "delete"],
]);
/** Subresources of namespaces; what else follows a namespace's name is a resource in it. */
const ofNamespaces = new Set(["status", "finalize"]);
/** What opens a stream or reaches through to another server: always `create`, whatever the method says. */
const connects = new Set(["exec", "attach", "portforward", "proxy"]);

/** Reads a request's target; refuses what could be read in two ways. */
export function readRequest(method: string, target: string): ApiRequest | RefusedTarget {
  const verb = verbs.get(method);
  if (verb === undefined) return { refused: `the method ${method.slice(0, 20)} is not served` };
  if (!target.startsWith("/") || target.length > targetMax)
    return { refused: "the request's target is not a path" };
  if (/[#\\\s]/.test(target)) return { refused: "the request's target holds characters that it must not" };
  const at = target.indexOf("?");
  const rawPath = at < 0 ? target : target.slice(0, at);
  const query = new URLSearchParams(at < 0 ? "" : target.slice(at + 1));
  const segments = segmentsOf(rawPath);
  if (segments === undefined) return { refused: "the path could be read in more than one way" };
  const path = `/${segments.join("/")}`;
  const plain = { method, rawPath, path, query };
  const [root = "", first = "", second = ""] = segments;
  const isCore = root === "api" && segments.length > 2;
  if (!isCore && !(root === "apis" && segments.length > 3)) return { ...plain, ...nothing, verb };
  const [group, version, rest] = isCore ? ["", first, segments.slice(2)] : [first, second, segments.slice(3)];
  return readResource({ ...plain, verb }, { group, version }, rest);
}

const nothing = {
  isResource: false,
  group: "",
  version: "",
  resource: "",
  subresource: "",
  namespace: "",
  name: "",
  port: 0,
} as const;

function readResource(
  request: Pick<ApiRequest, "method" | "rawPath" | "path" | "query" | "verb">,
  api: Pick<ApiRequest, "group" | "version">,
  given: readonly string[],
): ApiRequest | RefusedTarget {
  let parts = given;
  let { verb } = request;
  // /api/v1/watch/… is an old way to say ?watch=1.
  const isOldWatch = parts[0] === "watch";
  // To the server it is one whatever the method says.
  if (isOldWatch && verb !== "get") return { refused: "a watch is asked for with GET" };
  if (isOldWatch) parts = parts.slice(1);
  if (parts[0] === "proxy") return { refused: "the old proxy paths are not served" };
  let namespace = "";
  if (parts[0] === "namespaces" && parts[1] !== undefined) {
    namespace = parts[1];
    if (parts.length > 2 && !ofNamespaces.has(parts[2] ?? "")) parts = parts.slice(2);
  }
  const [resource = "", name = "", subresource = "", ...rest] = parts;
  const words = [api.version, resource, ...(api.group === "" ? [] : [api.group])];
  if (subresource !== "") words.push(subresource);
  if (!words.every((word) => wordForm.test(word))) return { refused: "the path names no resource" };
  if (rest.length > 0 && subresource !== "proxy") return { refused: "the path names no resource" };
  const isNamed = name !== "";
  if (isOldWatch && connects.has(subresource)) return { refused: "the path names no resource" };
  if (connects.has(subresource)) verb = "create";
  else if (verb === "get" && (isOldWatch || (!isNamed && isTrue(request.query.get("watch"))))) verb = "watch";
  else if (verb === "get" && !isNamed) verb = "list";
  else if (verb === "delete" && !isNamed) verb = "deletecollection";
  // Only where many are meant does a selector name the one.
  const isOfMany = verb === "list" || verb === "watch" || verb === "deletecollection";
  const selected = isNamed || !isOfMany ? name : namedBySelector(request.query.get("fieldSelector"));
  const whole = { ...request, ...api, isResource: true, verb, resource, subresource, namespace } as const;
  if (subresource !== "proxy") return { ...whole, name: selected, port: 0 };
  const proxied = proxiedServer(name);
  return proxied === undefined ? { refused: "the path names no server" } : { ...whole, ...proxied };
}

/** `https:web:8443`, `web:8443` and `web` are all a way to reach `web`: rules name it. */
function proxiedServer(text: string): Pick<ApiRequest, "name" | "port"> | undefined {
  const parts = text.split(":");
  const [scheme, name, port] = parts.length === 3 ? parts : ["", ...parts];
  const isKnown = parts.length <= 3 && (scheme === "" || scheme === "http" || scheme === "https");
  if (!isKnown || name === undefined || name === "") return undefined;
  return { name, port: /^\d{1,5}$/.test(port ?? "") ? Number(port) : 0 };
}

/** True for what opens a stream or reaches through to another server. */
export function isStreaming({ subresource }: ApiRequest): boolean {
  return connects.has(subresource);
}

/** `pods/exec`, `deployments.apps`: how rules name a resource. */
export function resourceName({ group, resource, subresource }: ApiRequest): string {
  const full = group === "" ? resource : `${resource}.${group}`;
  return subresource === "" ? full : `${full}/${subresource}`;
}

/** The target as it goes to the server: what was judged, written anew. */
export function targetOf({ rawPath, query }: ApiRequest): string {
  const text = query.toString();
  return text === "" ? rawPath : `${rawPath}?${text}`;
}

function segmentsOf(rawPath: string): readonly string[] | undefined {
  const trimmed = rawPath.length > 1 && rawPath.endsWith("/") ? rawPath.slice(0, -1) : rawPath;
  if (trimmed === "/") return [];
  const segments: string[] = [];
  for (const raw of trimmed.slice(1).split("/")) {
    const segment = decoded(raw);
    if (segment === undefined || segment === "" || segment === "." || segment === "..") return undefined;
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    if (/[/\\\u0000-\u001f\u007f]/.test(segment)) return undefined;
    segments.push(segment);
  }
  return segments;
}

function decoded(raw: string): string | undefined {
  try {
    return decodeURIComponent(raw);
  } catch {
    // Not UTF-8, or a broken escape: there is no one reading of it.
    return undefined;
  }
}

/** How Kubernetes reads a boolean of a query: given without a value, it is true. */
export function isTrue(value: string | null): boolean {
  return value !== null && value.toLowerCase() !== "false" && value !== "0";
}

function namedBySelector(selector: string | null): string {
  const match = /^metadata\.name==?([^,=!]+)$/.exec(selector ?? "");
  return match?.[1] ?? "";
}
