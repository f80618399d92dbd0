import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Endpoint, UpstreamCredential } from "@sallyport/crds";
import type { UpstreamAccount } from "../protocols/protocol.ts";
import { GatewayError } from "../wire/gateway-error.ts";
import { KubeconfigError, readKubeconfig } from "./kubeconfig.ts";

/** Where secrets come from: a folder `<name>/<key>` (as Kubernetes mounts them), or Secret manifests beside it. */
export class Secrets {
  private readonly folder: string;
  private manifests: ReadonlyMap<string, ReadonlyMap<string, string>> = new Map();

  constructor(folder: string) {
    this.folder = folder;
  }

  /** Takes the Secret manifests of a load, by namespace/name. */
  replace(manifests: ReadonlyMap<string, ReadonlyMap<string, string>>): void {
    this.manifests = manifests;
  }

  /** A value, read at the moment of use, so that a rotated secret counts at once; undefined where there is none. */
  read(namespace: string, name: string, key: string): string | undefined {
    const given = this.manifests.get(`${namespace}/${name}`)?.get(key);
    if (given !== undefined) return given;
    if (!safeName.test(name) || !safeName.test(key)) return undefined;
    try {
      return readFileSync(join(this.folder, name, key), "utf8");
    } catch {
      // Missing or unreadable: the caller refuses with credentialMissing, naming no path.
      return undefined;
    }
  }

  /** The account behind a credential, for the server that the resource names. */
  account(namespace: string, credential: UpstreamCredential, endpoint: Endpoint): UpstreamAccount {
    const { name } = credential.secretRef;
    const value = (key: string) => this.read(namespace, name, key);
    const kubeconfig = value("kubeconfig");
    if (kubeconfig !== undefined) return accountOf(credential, kubeconfig, serverOf(namespace, endpoint));
    const username = value("username")?.trim();
    const password = value("password")?.replace(/\r?\n$/, "");
    const certificate = value("tls.crt");
    const key = value("tls.key");
    // The name that Kubernetes gives it in secrets of the type kubernetes.io/ssh-auth.
    const sshKey = value("ssh-privatekey");
    const hasProof = password !== undefined || certificate !== undefined || sshKey !== undefined;
    if (username === undefined || username === "" || !hasProof) {
      throw new GatewayError("credentialMissing", {
        hint: `The secret ${name} needs the keys username and password (or tls.crt and tls.key, or ssh-privatekey).`,
      });
    }
    return {
      name: credential.name,
      username,
      ...(password === undefined ? {} : { password }),
      ...(certificate === undefined ? {} : { certificate }),
      ...(key === undefined ? {} : { key }),
      ...(sshKey === undefined ? {} : { sshKey }),
    };
  }
}

/** An account of another cluster; what is wrong with it is said without a word of what it holds. */
function accountOf(
  { name, secretRef }: UpstreamCredential,
  kubeconfig: string,
  wanted: { readonly host: string; readonly port: number | undefined },
): UpstreamAccount {
  try {
    const { server, authorities, username, token, certificate, key } = readKubeconfig(kubeconfig);
    if (server.host !== wanted.host.toLowerCase() || server.port !== wanted.port)
      throw new KubeconfigError("it is for another server than the resource's endpoint");
    return {
      ...{ name, username, authorities },
      ...(token !== undefined && { password: token }),
      ...(certificate !== undefined && { certificate }),
      ...(key !== undefined && { key }),
    };
  } catch (error) {
    if (!(error instanceof KubeconfigError)) throw error;
    throw new GatewayError("credentialMissing", {
      hint: `The kubeconfig in the secret ${secretRef.name} is not used: ${error.message}.`,
    });
  }
}

/** Where a resource's endpoint leads. */
export function serverOf(namespace: string, { serviceRef, host = "", port }: Endpoint) {
  return serviceRef === undefined
    ? { host, port }
    : { host: `${serviceRef.name}.${namespace}.svc`, port: serviceRef.port };
}

const safeName = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
