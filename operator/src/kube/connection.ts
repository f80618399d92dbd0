/** Where the API server is and who we are to it: the pod's own service account, or a kubeconfig. */
import { readFile } from "node:fs/promises";
import type { RequestOptions } from "node:https";
import { join } from "node:path";

/** An address, the trust in it, and credentials that may change while we run. */
export interface KubeConnection {
  readonly server: URL;
  /** The namespace that the credentials stand for. */
  readonly namespace: string;
  /** TLS options and headers of the next call; `isRefused` after a 401 makes a kept token be read anew. */
  credentials(isRefused: boolean): Promise<CallCredentials>;
}

/** What one call needs to be let in. */
export interface CallCredentials {
  readonly authorization?: string;
  readonly tls?: Pick<RequestOptions, "ca" | "cert" | "key" | "servername" | "rejectUnauthorized">;
}

/** A kubeconfig where one is named; else the pod's service account; else the kubeconfig of the user. */
export async function connectionFrom(environment: NodeJS.ProcessEnv): Promise<KubeConnection> {
  const { KUBECONFIG, KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port = "443" } = environment;
  if (KUBECONFIG === undefined && host !== undefined) {
    return serviceAccountConnection({ host, port, folder: SERVICE_ACCOUNT_FOLDER });
  }
  return kubeconfigConnection(KUBECONFIG === undefined ? undefined : { file: KUBECONFIG });
}

const SERVICE_ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount";

/** The kubelet renews the token's file well before the token ends; it is read again this often. */
const TOKEN_KEPT_MS = 30_000;

/** The service account whose files the kubelet mounts; its token is read again as it is rotated. */
export async function serviceAccountConnection(at: {
  readonly host: string;
  readonly port: string;
  readonly folder: string;
  readonly scheme?: "https" | "http";
}): Promise<KubeConnection> {
  const read = async (name: string): Promise<string> =>
    (await readFile(join(at.folder, name), "utf8")).trim();
  const namespace = await read("namespace");
  const host = at.host.includes(":") && !at.host.startsWith("[") ? `[${at.host}]` : at.host;
  let kept: { readonly token: string; readonly ca: string; readonly readAt: number } | undefined;
  return {
    server: new URL(`${at.scheme ?? "https"}://${host}:${at.port}`),
    namespace,
    async credentials(isRefused) {
      if (kept === undefined || isRefused || performance.now() - kept.readAt > TOKEN_KEPT_MS) {
        const [token, ca] = await Promise.all([read("token"), read("ca.crt")]);
        kept = { token, ca, readAt: performance.now() };
      }
      return { authorization: `Bearer ${kept.token}`, tls: { ca: kept.ca } };
    },
  };
}

/**
 * A kubeconfig's current context. The package is loaded only here: it holds 90 MB, which a pod does not need.
 */
export async function kubeconfigConnection(
  source: { readonly file: string } | { readonly text: string } | undefined,
): Promise<KubeConnection> {
  const { KubeConfig } = await import("@kubernetes/client-node");
  const config = new KubeConfig();
  if (source === undefined) config.loadFromDefault();
  else if ("file" in source) config.loadFromFile(source.file);
  else config.loadFromString(source.text);
  const cluster = config.getCurrentCluster();
  if (cluster === null) throw new Error("the kubeconfig has no current cluster");
  const context = config.getContextObject(config.getCurrentContext());
  return {
    server: new URL(cluster.server),
    namespace: context?.namespace ?? "default",
    async credentials() {
      const options: RequestOptions = { headers: {} };
      await config.applyToHTTPSOptions(options);
      const { ca, cert, key, servername, rejectUnauthorized } = options;
      const headers = options.headers as Record<string, string | undefined>;
      const authorization = headers.Authorization ?? headers.authorization ?? basic(options.auth);
      return {
        ...(authorization === undefined ? {} : { authorization }),
        tls: defined({ ca, cert, key, servername, rejectUnauthorized }),
      };
    },
  };
}

const basic = (auth: string | null | undefined): string | undefined =>
  typeof auth === "string" ? `Basic ${Buffer.from(auth).toString("base64")}` : undefined;

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

function defined<T extends object>(values: T): Defined<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Defined<T>;
}
