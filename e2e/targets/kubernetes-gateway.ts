/** A gateway in front of an API server, and kubectl as its users have it. */
import { rmSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createKubectl, type Kubectl } from "../cluster/kubectl.ts";
import { atExit } from "./at-exit.ts";
import type { GatewayProcess } from "./gateway.ts";
import { spawnGateway, writeInOneStep } from "./gateway.ts";
import { localProvider, type SpecChange, writeSecret } from "./manifests.ts";
import { freePort } from "./postgres.ts";
import { LocalIssuer } from "./tokens.ts";

/** The API server that a gateway stands before. */
export interface ProtectedCluster {
  readonly url: string;
  readonly caPem: string;
  /** A kubectl with every right there. */
  readonly kubectl: Kubectl;
}

/** A gateway: resource `cluster` in namespace `default`, provider `local`. */
export interface KubernetesGateway extends GatewayProcess {
  readonly url: string;
  readonly issuer: LocalIssuer;
  /** kubectl of a user, with a token of the local provider. */
  user(name: string, groups?: readonly string[], lifetimeSeconds?: number): Promise<Kubectl>;
  token(name: string, groups?: readonly string[], lifetimeSeconds?: number): string;
  /** Writes a file into the folder of manifests, which the gateway watches. */
  write(name: string, text: string): Promise<void>;
}

/** What the gateway's own account may do: speak for users and groups of the provider, and look pods up. */
const gatewayRole = [
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRole",
    metadata: { name: "sallyport-gateway" },
    rules: [
      { apiGroups: [""], resources: ["users", "groups"], verbs: ["impersonate"] },
      {
        apiGroups: ["authentication.k8s.io"],
        resources: ["uids", "userextras/sallyport.dev/session"],
        verbs: ["impersonate"],
      },
      { apiGroups: [""], resources: ["pods"], verbs: ["get"] },
    ],
  },
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRoleBinding",
    metadata: { name: "sallyport-gateway" },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "sallyport-gateway" },
    subjects: [{ kind: "ServiceAccount", name: "gateway", namespace: "sallyport-gateway" }],
  },
];

/** Bindings by which users of the local provider may do everything in the cluster. */
export const clusterAdmins = (users: readonly string[], prefix = "") =>
  users.map((name) => ({
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRoleBinding",
    metadata: { name: `${prefix}${name}` },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "cluster-admin" },
    subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: `local:${name}` }],
  }));

/** Makes the gateway's own account with its rights, and writes what it logs in with as Secret `cluster` is mounted. */
export async function writeGatewayAccount(
  { kubectl, caPem }: ProtectedCluster,
  folder: string,
): Promise<void> {
  await kubectl.apply([
    { apiVersion: "v1", kind: "Namespace", metadata: { name: "sallyport-gateway" } },
    {
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { name: "gateway", namespace: "sallyport-gateway" },
    },
    ...gatewayRole,
  ]);
  const account = ["create", "token", "gateway", "--namespace", "sallyport-gateway", "--duration=2h"];
  const token = (await kubectl(...account)).trim();
  await writeSecret(folder, { username: "gateway", password: token, "ca.crt": caPem });
}

/** The ProtectedResource `cluster` in front of an API server. */
export function clusterResource({ url }: ProtectedCluster, change: SpecChange = {}) {
  const upstream = new URL(url);
  return {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "ProtectedResource",
    metadata: { name: "cluster", namespace: "default" },
    spec: {
      protocol: "kubernetes",
      endpoint: { host: upstream.hostname, port: Number(upstream.port || 443) },
      tls: { upstream: { mode: "verify-full", caRef: { name: "cluster" } } },
      credentials: [{ name: "gateway", secretRef: { name: "cluster" } }],
      identity: { providers: ["local"] },
      options: { impersonate: ["uid", "extra"] },
      ...change,
    },
  };
}

/** Starts a gateway with policies, and gives its account the rights that it needs. */
export async function startKubernetesGateway(
  cluster: ProtectedCluster,
  options: {
    readonly policies: string;
    readonly resource?: SpecChange;
    /** Put over the IdentityProvider's spec, key by key. */
    readonly provider?: SpecChange;
    readonly args?: readonly string[];
    /** What Node runs as the command line; its sources where absent. */
    readonly program?: readonly string[];
  },
): Promise<KubernetesGateway> {
  const home = await mkdtemp(join(tmpdir(), "sallyport-kubernetes-"));
  const forgetExit = atExit(() => rmSync(home, { recursive: true, force: true }));
  const { kubectl } = cluster;
  const configDir = join(home, "config");
  await writeGatewayAccount(cluster, join(configDir, "secrets/cluster"));
  const issuer = new LocalIssuer("sallyport-test", "sallyport:default/cluster");
  const port = await freePort();
  const documents = [
    clusterResource(cluster, { listen: { port }, ...options.resource }),
    localProvider(issuer, { kubernetesUsername: "claims.sub", ...options.provider }),
  ];
  await writeFile(
    join(configDir, "resource.yaml"),
    documents.map((one) => JSON.stringify(one)).join("\n---\n"),
  );
  await writeFile(join(configDir, "policies.yaml"), options.policies);
  const place = {
    configDir,
    port,
    stateDir: join(home, "state"),
    args: ["--drain", "2", ...(options.args ?? [])],
    ...(options.program === undefined ? {} : { program: options.program }),
  };
  const gateway = await spawnGateway(place);
  const url = `https://localhost:${port}`;
  const signed = (name: string, groups: readonly string[] = [], lifetimeSeconds = 600) =>
    issuer.token({ user: name, groups, lifetimeSeconds });
  return {
    ...gateway,
    url,
    issuer,
    token: signed,
    user: async (name, groups = [], lifetimeSeconds = 600) => {
      const kubeconfig = join(home, `${name}-${lifetimeSeconds}.kubeconfig`);
      const ca = Buffer.from(await readFile(gateway.caFile)).toString("base64");
      await writeFile(kubeconfig, JSON.stringify(configOf(url, ca, signed(name, groups, lifetimeSeconds))), {
        mode: 0o600,
      });
      return createKubectl(kubectl.program, kubeconfig);
    },
    write: (name, text) => writeInOneStep(join(configDir, name), text),
    stop: async () => {
      const code = await gateway.stop();
      forgetExit();
      await rm(home, { recursive: true, force: true });
      return code;
    },
  };
}

function configOf(server: string, ca: string, token: string) {
  return {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "c", cluster: { server, "certificate-authority-data": ca } }],
    users: [{ name: "u", user: { token } }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u", namespace: "default" } }],
    "current-context": "x",
  };
}
