/** A kubeconfig as a credential: what it holds inline, and nothing that it points to. */
import { parse } from "yaml";

/** What a gateway takes from a kubeconfig. */
export interface KubeconfigAccount {
  /** Where it leads; a resource that names another place does not use it. */
  readonly server: { readonly host: string; readonly port: number };
  readonly authorities: string;
  readonly username: string;
  readonly token?: string;
  readonly certificate?: string;
  readonly key?: string;
}

/** A kubeconfig that is not used; the message is public and quotes no value. */
export class KubeconfigError extends Error {}

const bytesMax = 256 * 1024;
const clusterKeys = new Set(["server", "certificate-authority-data"]);
const userKeys = new Set(["token", "client-certificate-data", "client-key-data"]);

/**
 * Reads the current context. Only inline data is taken: a command (exec, auth-provider) would run in the gateway, a file
 * or a proxy would be one of the gateway's own choosing by whoever wrote the Secret.
 */
export function readKubeconfig(text: string): KubeconfigAccount {
  if (Buffer.byteLength(text) > bytesMax) throw new KubeconfigError("it is longer than 256 KiB");
  const config = record(parsed(text), "it is no mapping");
  const contextName = config["current-context"];
  if (typeof contextName !== "string" || contextName === "")
    throw new KubeconfigError("it has no current-context");
  const context = named(config.contexts, contextName, "context");
  const cluster = named(config.clusters, context.cluster, "cluster");
  const user = named(config.users, context.user, "user");
  only(cluster, clusterKeys, "cluster");
  only(user, userKeys, "user");
  const authorities = decoded(cluster["certificate-authority-data"], "certificate-authority-data");
  if (authorities === undefined) throw new KubeconfigError("its cluster has no certificate-authority-data");
  const certificate = decoded(user["client-certificate-data"], "client-certificate-data");
  const key = decoded(user["client-key-data"], "client-key-data");
  const { token } = user;
  if (token !== undefined && (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token)))
    throw new KubeconfigError("its token is no token");
  if ((certificate === undefined) !== (key === undefined) || (token === undefined && key === undefined)) {
    throw new KubeconfigError(
      "its user needs a token, or client-certificate-data with client-key-data, and nothing else",
    );
  }
  return {
    server: serverOf(cluster.server),
    authorities,
    username: String(context.user),
    ...(typeof token === "string" && { token }),
    ...(certificate !== undefined && { certificate }),
    ...(key !== undefined && { key }),
  };
}

type Fields = Readonly<Record<string, unknown>>;

function parsed(text: string): unknown {
  try {
    return parse(text, { maxAliasCount: 0, uniqueKeys: true });
  } catch {
    // The parser's message quotes lines, and lines hold tokens.
    throw new KubeconfigError("it is no YAML");
  }
}

function record(value: unknown, problem: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new KubeconfigError(problem);
  return value as Fields;
}

/** The entry of a list by its name; the first, as clients take it. */
function named(list: unknown, name: unknown, kind: string): Fields {
  const entries = Array.isArray(list) ? list : [];
  const found = entries.find((one) => typeof name === "string" && (one as Fields | null)?.name === name);
  if (found === undefined) throw new KubeconfigError(`its current ${kind} is not in it`);
  return record((found as Fields)[kind], `its ${kind} is no mapping`);
}

function only(fields: Fields, allowed: ReadonlySet<string>, kind: string): void {
  const found = Object.keys(fields).find((key) => !allowed.has(key));
  if (found === undefined) return;
  const shown = /^[a-z-]{1,40}$/.test(found) ? found : "a key";
  throw new KubeconfigError(`its ${kind} has ${shown}: only ${[...allowed].join(", ")} are taken`);
}

function decoded(value: unknown, key: string): string | undefined {
  if (value === undefined) return undefined;
  const text = typeof value === "string" ? Buffer.from(value, "base64").toString("utf8") : "";
  if (!text.includes("-----BEGIN ")) throw new KubeconfigError(`its ${key} is no PEM in base64`);
  return text;
}

function serverOf(value: unknown): KubeconfigAccount["server"] {
  const url = typeof value === "string" && URL.canParse(value) ? new URL(value) : undefined;
  const isPlain =
    url?.protocol === "https:" &&
    url.pathname === "/" &&
    [url.username, url.password, url.search, url.hash].every((part) => part === "");
  if (url === undefined || !isPlain)
    throw new KubeconfigError("its server is not of the form https://host:port");
  return { host: url.hostname.replace(/^\[|\]$/g, ""), port: Number(url.port) || 443 };
}
