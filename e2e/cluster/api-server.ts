/**
 * A real Kubernetes API without a node: etcd, kube-apiserver and, on request, the controller manager. Ready in
 * seconds, on free ports and in a folder of its own, so that several can run beside each other.
 */
import { generateKeyPairSync } from "node:crypto";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { join } from "node:path";
import { type Authority, createAuthority } from "../targets/certificates.ts";
import { freePort } from "../targets/postgres.ts";
import { createKeptFolder, createOwnFolder, removeFolder } from "./folder.ts";
import { writeKubeconfig } from "./kubeconfig.ts";
import { createKubectl, type Kubectl, requestToken } from "./kubectl.ts";
import {
  type ClusterProcess,
  killProcesses,
  livePid,
  processNames,
  startProcess,
  stopProcesses,
  waitFor,
} from "./processes.ts";
import { apiModules, clusterPrograms } from "./programs.ts";

/** How an API server is wanted. */
export interface ApiServerOptions {
  /** Garbage collection, namespace deletion, service account tokens and the like; off unless asked for. */
  readonly controllerManager?: boolean;
  /** A folder that is kept until `down`; without it a temporary one that goes with this process. */
  readonly folder?: string;
  /** Further flags of kube-apiserver. */
  readonly apiServerFlags?: readonly string[];
  /** Further flags of kube-controller-manager. */
  readonly controllerManagerFlags?: readonly string[];
}

/** An API server that runs. */
export interface ApiServer {
  /** Path of a kubeconfig with every right (group system:masters). */
  readonly kubeconfig: string;
  readonly kubectl: Kubectl;
  readonly url: string;
  readonly caPem: string;
  /** Where its etcd is: for what no request to the server itself can bring about. */
  readonly etcdUrl: string;
  readonly folder: string;
  /** Folder of the built programs: kubectl, helm, … */
  readonly bin: string;
  /** A kubectl of a user with a client certificate; it has the rights that RBAC gives to the name and the groups. */
  user(name: string, groups?: readonly string[]): Promise<Kubectl>;
  /** A token as a pod would get it (TokenRequest), made if need be with its namespace and service account. */
  serviceAccountToken(namespace: string, name: string, audiences?: readonly string[]): Promise<string>;
  /** Ends kube-apiserver by force, and starts it again on the same port: what clients see when it crashes. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

/** Where service account tokens say that they are from. */
export const serviceAccountIssuer = "https://kubernetes.default.svc.cluster.local";

/** Whom the service account tokens of a cluster that is not ours name as their issuer. */
export async function issuerOf(kubectl: Kubectl): Promise<string> {
  const answer = await kubectl.try(undefined, "get", "--raw", "/.well-known/openid-configuration");
  return answer.code === 0 ? JSON.parse(answer.stdout).issuer : serviceAccountIssuer;
}

/** Starts an API server and waits until it is ready. */
export async function startApiServer(options: ApiServerOptions = {}): Promise<ApiServer> {
  const bin = await clusterPrograms(apiModules);
  const folder = options.folder ? await createKeptFolder(options.folder) : await createOwnFolder();
  try {
    const plane = await startControlPlane({
      ...options,
      bin,
      folder,
      advertise: "127.0.0.1",
      // Nobody reaches this server through a Service, and endpoints must not be on the loopback.
      apiServerFlags: [
        "--bind-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        ...(options.apiServerFlags ?? []),
      ],
    });
    return {
      ...plane,
      close: async () => {
        // Nothing of what they hold is wanted any more.
        await stopProcesses(folder, processNames(folder), 0);
        await removeFolder(folder);
      },
    };
  } catch (error) {
    killProcesses(folder);
    if (!options.folder) await removeFolder(folder);
    throw error;
  }
}

/** The control plane alone; whoever starts it ends it. */
export interface ControlPlane extends Omit<ApiServer, "close"> {
  readonly authority: Authority;
  readonly port: number;
}

/** Starts etcd, kube-apiserver and perhaps the controller manager in a folder that exists. */
export async function startControlPlane(setup: {
  readonly bin: string;
  readonly folder: string;
  /** The address under which pods reach the server. */
  readonly advertise: string;
  readonly controllerManager?: boolean;
  readonly apiServerFlags?: readonly string[];
  readonly controllerManagerFlags?: readonly string[];
}): Promise<ControlPlane> {
  const { bin, folder, advertise } = setup;
  const authority = await createAuthority("Sallyport test cluster");
  const pki = await writeKeys(folder, authority, advertise);
  const etcdUrl = await startEtcd(bin, folder);
  const serve = async (port: number) => {
    const more = setup.apiServerFlags ?? [];
    const command = apiServerCommand({ bin, pki, etcdUrl, port, advertise, more });
    const server = await startProcess(folder, "api-server", command);
    await ready(server, `https://127.0.0.1:${port}`, authority.caPem);
  };
  const port = await onFreePort(serve);
  const url = `https://127.0.0.1:${port}`;
  const api = { url, caPem: authority.caPem };
  const issueKubeconfig = async (file: string, name: string, groups: readonly string[]) => {
    const certificate = await authority.issue({ commonName: name, organizations: groups, usage: "client" });
    return writeKubeconfig(join(folder, file), api, { certificate });
  };
  const kubeconfig = await issueKubeconfig("admin.kubeconfig", "admin", ["system:masters"]);
  const kubectl = createKubectl(join(bin, "kubectl"), kubeconfig);
  if (setup.controllerManager) {
    const own = await issueKubeconfig("controller-manager.kubeconfig", "system:kube-controller-manager", []);
    await startProcess(folder, "controller-manager", [
      join(bin, "kube-controller-manager"),
      `--kubeconfig=${own}`,
      `--authentication-kubeconfig=${own}`,
      `--authorization-kubeconfig=${own}`,
      `--service-account-private-key-file=${pki.serviceAccountKey}`,
      `--root-ca-file=${pki.ca}`,
      "--use-service-account-credentials",
      "--leader-elect=false",
      "--bind-address=127.0.0.1",
      `--secure-port=${await freePort()}`,
      ...(setup.controllerManagerFlags ?? []),
    ]);
  }
  let users = 0;
  return {
    ...{ kubeconfig, kubectl, url, caPem: authority.caPem, etcdUrl, folder, bin, authority, port },
    user: async (name, groups = []) => {
      users += 1;
      return createKubectl(
        join(bin, "kubectl"),
        await issueKubeconfig(`user-${users}.kubeconfig`, name, groups),
      );
    },
    serviceAccountToken: (namespace, name, audiences = []) =>
      requestToken(kubectl, { namespace, name, audiences }),
    restart: async () => {
      const pid = livePid(folder, "api-server");
      if (pid !== undefined) process.kill(pid, "SIGKILL");
      await waitFor("the API server to end", () => livePid(folder, "api-server") === undefined || undefined);
      await serve(port);
    },
  };
}

interface Keys {
  readonly ca: string;
  readonly serverCert: string;
  readonly serverKey: string;
  readonly serviceAccountKey: string;
  readonly serviceAccountPub: string;
  readonly kubeletClientCert: string;
  readonly kubeletClientKey: string;
  readonly frontProxyCert: string;
  readonly frontProxyKey: string;
}

async function writeKeys(folder: string, authority: Authority, advertise: string): Promise<Keys> {
  const pki = join(folder, "pki");
  await mkdir(pki, { recursive: true, mode: 0o700 });
  const write = async (name: string, text: string) => {
    await writeFile(join(pki, name), text, { mode: 0o600 });
    return join(pki, name);
  };
  const service = "kubernetes.default.svc.cluster.local".split(".");
  const server = await authority.issue({
    commonName: "kube-apiserver",
    usage: "server",
    dnsNames: ["localhost", ...[1, 2, 3, 5].map((parts) => service.slice(0, parts).join("."))],
    ipAddresses: [...new Set(["127.0.0.1", "::1", advertise, "10.96.0.1"])],
  });
  const kubelet = await authority.issue({
    commonName: "apiserver-kubelet-client",
    organizations: ["system:masters"],
    usage: "client",
  });
  const proxy = await authority.issue({ commonName: "front-proxy-client", usage: "client" });
  const tokens = generateKeyPairSync("rsa", {
    modulusLength: 2048,
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs1", format: "pem" },
  });
  return {
    ca: await write("ca.crt", authority.caPem),
    serverCert: await write("server.crt", server.certPem),
    serverKey: await write("server.key", server.keyPem),
    serviceAccountKey: await write("sa.key", tokens.privateKey),
    serviceAccountPub: await write("sa.pub", tokens.publicKey),
    kubeletClientCert: await write("kubelet-client.crt", kubelet.certPem),
    kubeletClientKey: await write("kubelet-client.key", kubelet.keyPem),
    frontProxyCert: await write("front-proxy.crt", proxy.certPem),
    frontProxyKey: await write("front-proxy.key", proxy.keyPem),
  };
}

/** Another process may take a free port before the server binds it, so a few are tried. */
async function onFreePort(serve: (port: number) => Promise<void>): Promise<number> {
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    try {
      await serve(port);
      return port;
    } catch (error) {
      if (attempt === 3 || !String(error).includes("address already in use")) throw error;
    }
  }
}

/** The same for etcd, which needs two. */
async function startEtcd(bin: string, folder: string): Promise<string> {
  const data = join(folder, "etcd");
  await mkdir(data, { recursive: true });
  await chmod(data, 0o700);
  for (let attempt = 1; ; attempt++) {
    const url = `http://127.0.0.1:${await freePort()}`;
    const etcd = await startProcess(folder, "etcd", [
      join(bin, "etcd"),
      `--data-dir=${data}`,
      `--listen-client-urls=${url}`,
      `--advertise-client-urls=${url}`,
      `--listen-peer-urls=http://127.0.0.1:${await freePort()}`,
      // What a test writes need not survive a power cut.
      "--unsafe-no-fsync",
    ]);
    const up = await waitFor("etcd", async () => {
      if (!etcd.isAlive()) return "ended";
      const answer = await fetch(`${url}/health`).catch(() => undefined);
      return answer?.ok ? "ready" : undefined;
    });
    if (up === "ready") return url;
    if (attempt === 3) throw new Error(`etcd did not start:\n${await etcd.log()}`);
  }
}

function apiServerCommand(setup: {
  readonly bin: string;
  readonly pki: Keys;
  readonly etcdUrl: string;
  readonly port: number;
  readonly advertise: string;
  readonly more: readonly string[];
}): readonly [string, ...string[]] {
  const { bin, pki, etcdUrl, port, advertise, more } = setup;
  return [
    join(bin, "kube-apiserver"),
    `--etcd-servers=${etcdUrl}`,
    `--secure-port=${port}`,
    `--advertise-address=${advertise}`,
    `--tls-cert-file=${pki.serverCert}`,
    `--tls-private-key-file=${pki.serverKey}`,
    `--client-ca-file=${pki.ca}`,
    `--service-account-issuer=${serviceAccountIssuer}`,
    `--service-account-key-file=${pki.serviceAccountPub}`,
    `--service-account-signing-key-file=${pki.serviceAccountKey}`,
    "--service-cluster-ip-range=10.96.0.0/16",
    "--authorization-mode=Node,RBAC",
    "--enable-admission-plugins=NodeRestriction",
    "--allow-privileged",
    `--kubelet-client-certificate=${pki.kubeletClientCert}`,
    `--kubelet-client-key=${pki.kubeletClientKey}`,
    `--kubelet-certificate-authority=${pki.ca}`,
    "--kubelet-preferred-address-types=InternalIP",
    `--requestheader-client-ca-file=${pki.ca}`,
    "--requestheader-allowed-names=front-proxy-client",
    "--requestheader-username-headers=X-Remote-User",
    "--requestheader-group-headers=X-Remote-Group",
    "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    `--proxy-client-cert-file=${pki.frontProxyCert}`,
    `--proxy-client-key-file=${pki.frontProxyKey}`,
    ...more,
  ];
}

async function ready(server: ClusterProcess, url: string, caPem: string): Promise<void> {
  await waitFor(
    "the API server to be ready",
    async () => {
      if (!server.isAlive()) throw new Error(`kube-apiserver ended:\n${await server.log()}`);
      return (await isReady(url, caPem)) || undefined;
    },
    { ms: 120_000 },
  );
}

/** /readyz is open to everybody (ClusterRole system:public-info-viewer). */
function isReady(url: string, ca: string): Promise<boolean> {
  return new Promise((resolve) => {
    const asked = request(`${url}/readyz`, { ca, timeout: 2_000, agent: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode === 200);
    });
    asked.once("timeout", () => asked.destroy());
    asked.once("error", () => resolve(false));
    asked.end();
  });
}
