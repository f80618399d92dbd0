/**
 * The operator at the size of a large cluster, on etcd and API server alone: nobody starts pods there, so Deployments'
 * status is written by the measurement. The operator is the bundle, in a process of its own.
 */
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type KubeClient,
  type KubeObject,
  kubeClient,
  kubeconfigConnection,
  type ResourceType,
  resourceType,
} from "@sallyport/operator/kube";
import type { ApiServer } from "../cluster/api-server.ts";
import type { Kubectl } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { createAuthority } from "../targets/certificates.ts";
import { startApiServerWithKinds, systemNamespace, testImage } from "../targets/operator.ts";
import { freePort } from "../targets/postgres.ts";
import { bundle } from "./bundle.ts";
import { processorMicroseconds, residentKilobytes } from "./process-cost.ts";
import type { Row } from "./report.ts";

const policiesOfResource = 5;
const perNamespace = 50;
/** Eight objects around two gateways, the key that they share and the status; a policy's kept generation and its status. */
const objectsOfResource = 10;
const objectsOfPolicy = 2;
const limits = { megabytes: 400, webhookMs: 50 };
const webhookCalls = 500;
const quietMs = 15_000;

interface Conditioned extends KubeObject {
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}
interface Written extends KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
}
const resources = resourceType<Conditioned>(
  "sallyport.dev/v1alpha1",
  "ProtectedResource",
  "protectedresources",
);
const policies = resourceType<Conditioned>("sallyport.dev/v1alpha1", "AccessPolicy", "accesspolicies");
const deployments = resourceType("apps/v1", "Deployment", "deployments");
const webhookConfigurations = resourceType<Written & { readonly webhooks: readonly object[] }>(
  "admissionregistration.k8s.io/v1",
  "MutatingWebhookConfiguration",
  "mutatingwebhookconfigurations",
  "Cluster",
);

/** Makes so many resources with five policies each, and measures what the operator takes for it. */
export async function operatorAtSize(count: number): Promise<Row[]> {
  const api = await startApiServerWithKinds();
  const over = new AbortController();
  const client = kubeClient({ connection: await kubeconfigConnection({ file: api.kubeconfig }) });
  let stopOperator: () => Promise<void> = async () => undefined;
  try {
    const operator = await startOperator(api);
    stopOperator = operator.stop;
    await prepare(client, Math.ceil(count / perNamespace));
    const kubelet = playDeployments(client, over.signal);
    const programmed = follow(client, resources, "Programmed", over.signal);
    const accepted = follow(client, policies, "Accepted", over.signal);
    const cpuBefore = (await processorMicroseconds(operator.pid)) / 1e6;
    const begun = performance.now();
    await inParallel(count, (at) => createResource(client, at));
    const createdMs = performance.now() - begun;
    const ms = 1_500_000;
    const total = count * policiesOfResource;
    await waitFor("all to be Programmed", () => programmed.size >= count || undefined, { ms });
    await waitFor("all to be Accepted", () => accepted.size >= total || undefined, { ms });
    const seconds = (performance.now() - begun) / 1000;
    const cpuSeconds = (await processorMicroseconds(operator.pid)) / 1e6 - cpuBefore;
    const spent = await counted(operator.admin);
    const quiet = await callsInQuiet(operator.admin, client, api.kubectl, count);
    const webhook = await webhookMs(client, operator);
    const megabytes = (await residentKilobytes(operator.pid)) / 1024;
    over.abort();
    await kubelet;
    const size = `${count} resources, ${total} policies`;
    return [
      {
        work: "operator: all Programmed",
        against: "making the objects",
        ratio: createdMs / 1000 / seconds,
        detail: `${seconds.toFixed(1)} s, of which ${(createdMs / 1000).toFixed(1)} s to make them; ${size}`,
      },
      {
        work: "operator: processor time until all are Programmed",
        against: "the time it took",
        ratio: seconds / cpuSeconds,
        detail: `${((cpuSeconds * 1000) / count).toFixed(1)} ms a resource; ${size}`,
      },
      {
        work: "operator: calls until all are Programmed",
        against: "one for each object that is made or told of",
        ratio: (count * objectsOfResource + total * objectsOfPolicy) / spent.calls,
        detail: `${(spent.calls / count).toFixed(1)} calls and ${(spent.looks / count).toFixed(1)} looks a resource; ${size}`,
      },
      {
        work: "operator: resident memory",
        against: "limit",
        ratio: limits.megabytes / megabytes,
        atLeast: 1,
        detail: `${megabytes.toFixed(0)} MB; ${size}`,
      },
      {
        work: "operator: calls of a look that changes nothing",
        against: "none",
        ratio: quiet.calls === 0 ? 1 : 0,
        atLeast: 1,
        detail: `${(quiet.calls / quiet.looks).toFixed(2)} calls a look beyond the lease's; ${size}${quiet.told}`,
      },
      {
        work: "webhook through the API server, p99",
        against: "limit",
        ratio: limits.webhookMs / webhook.p99,
        atLeast: 1,
        detail:
          `${webhook.p99.toFixed(1)} ms, median ${webhook.median.toFixed(1)} ms, for a pod that gets a gateway (dry run); ` +
          `${webhook.own.toFixed(2)} ms of it in the webhook, on average`,
      },
    ];
  } finally {
    over.abort();
    await stopOperator();
    client.close();
    await api.close();
  }
}

interface OperatorProcess {
  readonly pid: number;
  readonly admin: string;
  readonly webhookPort: number;
  readonly caPem: string;
  readonly stop: () => Promise<void>;
}

/** The webhook gets a certificate for 127.0.0.1, as cert-manager would give it one for its Service. */
async function startOperator(api: ApiServer): Promise<OperatorProcess> {
  const [webhook, control, admin] = await Promise.all([freePort(), freePort(), freePort()]);
  const folder = await mkdtemp(join(tmpdir(), "sallyport-bench-operator-"));
  const authority = await createAuthority();
  const issued = await authority.issue({
    ...{ commonName: "webhook", ipAddresses: ["127.0.0.1"], usage: "server" as const },
  });
  await writeFile(join(folder, "tls.crt"), issued.certPem);
  await writeFile(join(folder, "tls.key"), issued.keyPem, { mode: 0o600 });
  const child = spawn(process.execPath, [join(bundle.file, "../operator.mjs")], {
    stdio: ["ignore", "ignore", "inherit"],
    env: {
      PATH: process.env.PATH,
      KUBECONFIG: api.kubeconfig,
      SALLYPORT_NAMESPACE: systemNamespace,
      SALLYPORT_POD_NAME: "operator-0",
      SALLYPORT_GATEWAY_IMAGE: testImage,
      SALLYPORT_WEBHOOK_PORT: String(webhook),
      SALLYPORT_WEBHOOK_CERTIFICATES: "cert-manager",
      SALLYPORT_WEBHOOK_CERTIFICATE_FOLDER: folder,
      SALLYPORT_CONTROL_PORT: String(control),
      SALLYPORT_ADMIN: `127.0.0.1:${admin}`,
      SALLYPORT_LOG_LEVEL: "warn",
    },
  });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const url = `http://127.0.0.1:${admin}`;
  await waitFor("the operator to be ready", async () => {
    const answer = await fetch(`${url}/readyz`).catch(() => undefined);
    return answer?.ok || undefined;
  });
  return {
    ...{ pid: child.pid ?? 0, admin: url, webhookPort: webhook, caPem: authority.caPem },
    stop: async () => {
      child.kill("SIGTERM");
      await ended;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

const namespaceOf = (at: number) => `team-${Math.floor(at / perNamespace)}`;

async function prepare(client: KubeClient, namespaces: number): Promise<void> {
  for (let at = 0; at < namespaces; at += 1) {
    const name = namespaceOf(at * perNamespace);
    const labels = { "sallyport.dev/protection": "enabled" };
    await client.create(resourceType("v1", "Namespace", "namespaces", "Cluster"), {
      ...{ apiVersion: "v1", kind: "Namespace", metadata: { name, labels } },
    });
    // Nobody else makes them where no controller manager runs; pods need one.
    await client.create(resourceType("v1", "ServiceAccount", "serviceaccounts"), {
      ...{ apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default", namespace: name } },
    });
    await client.create(resourceType("v1", "Service", "services"), {
      ...{ apiVersion: "v1", kind: "Service", metadata: { name: "db", namespace: name } },
      spec: { selector: { app: "db" }, ports: [{ port: 5432 }] },
    });
  }
  await client.create(
    resourceType("sallyport.dev/v1alpha1", "IdentityProvider", "identityproviders", "Cluster"),
    {
      ...{ apiVersion: "sallyport.dev/v1alpha1", kind: "IdentityProvider", metadata: { name: "okta" } },
      spec: { type: "oidc", prefix: "okta:", oidc: { issuer: "https://example.okta.com" } },
    },
  );
}

const resourceSpec = {
  protocol: "postgres",
  endpoint: { serviceRef: { name: "db", port: 5432 } },
  credentials: [{ name: "default", secretRef: { name: "db" } }],
  identity: { providers: ["okta"] },
};

async function createResource(client: KubeClient, at: number): Promise<void> {
  const metadata = { name: `db-${at}`, namespace: namespaceOf(at) };
  const apiVersion = "sallyport.dev/v1alpha1";
  await client.create<KubeObject & { apiVersion: string; kind: string; spec: object }>(
    resources as unknown as ResourceType<KubeObject & { apiVersion: string; kind: string; spec: object }>,
    {
      ...{ apiVersion, kind: "ProtectedResource", metadata },
      spec: resourceSpec,
    },
  );
  for (let policy = 0; policy < policiesOfResource; policy += 1) {
    await client.create<KubeObject & { apiVersion: string; kind: string; spec: object }>(
      policies as unknown as ResourceType<KubeObject & { apiVersion: string; kind: string; spec: object }>,
      {
        ...{ apiVersion, kind: "AccessPolicy" },
        metadata: { name: `db-${at}-${policy}`, namespace: metadata.namespace },
        spec: {
          resources: { names: [metadata.name] },
          subjects: [{ group: `okta:team-${policy}` }],
          profile: "ReadOnly",
          rules: [
            {
              name: "none",
              match: { operations: ["define"], objects: ["public.*"] },
              action: "Deny",
            },
          ],
        },
      },
    );
  }
}

async function inParallel(count: number, work: (at: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < count) {
      const at = next;
      next += 1;
      await work(at);
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
}

/** Does what a cluster with nodes would: every Deployment's pods are ready at once. */
async function playDeployments(client: KubeClient, signal: AbortSignal): Promise<void> {
  await each(client, deployments, signal, async ({ metadata }) => {
    const { name, namespace, generation } = metadata;
    const status = { replicas: 2, readyReplicas: 2, updatedReplicas: 2, availableReplicas: 2 };
    await client.patch(
      deployments,
      { name, ...(namespace !== undefined && { namespace }) },
      { kind: "merge", merge: { status: { ...status, observedGeneration: generation ?? 1 } } },
      { subresource: "status", signal },
    );
  });
}

/** The names of the objects whose condition is True. */
function follow(
  client: KubeClient,
  type: ResourceType<Conditioned>,
  condition: string,
  signal: AbortSignal,
): ReadonlySet<string> {
  const found = new Set<string>();
  const note = async ({ metadata, status }: Conditioned) => {
    const isTrue = status?.conditions?.some((one) => one.type === condition && one.status === "True");
    if (isTrue === true) found.add(`${metadata.namespace}/${metadata.name}`);
  };
  void each(client, type, signal, note);
  return found;
}

/** Looks at every object of a kind, and again where it changed; Deployments whose status is written are left alone. */
async function each<T extends KubeObject>(
  client: KubeClient,
  type: ResourceType<T>,
  signal: AbortSignal,
  work: (object: T) => Promise<void>,
): Promise<void> {
  const done = new Set<string>();
  const isOnce = type.kind === "Deployment";
  while (!signal.aborted) {
    try {
      const { resourceVersion, items } = await client.list(type, { signal });
      for (const item of items) await once(item);
      for await (const event of client.watch(type, { resourceVersion, signal })) {
        if (event.type === "ADDED" || event.type === "MODIFIED") await once(event.object);
      }
    } catch (error) {
      if (!signal.aborted) process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
    }
  }
  async function once(object: T): Promise<void> {
    const key = `${object.metadata.namespace}/${object.metadata.name}`;
    if (isOnce && done.has(key)) return;
    await work(object);
    done.add(key);
  }
}

/** The calls that the operator has made so far, and the looks that it has taken at objects. */
async function counted(admin: string): Promise<{ readonly calls: number; readonly looks: number }> {
  const text = await (await fetch(`${admin}/metrics`)).text();
  const sumOf = (name: string) =>
    [...text.matchAll(new RegExp(`^${name}\\{[^}]*\\} (\\d+)$`, "gm"))].reduce(
      (sum, [, value]) => sum + Number(value),
      0,
    );
  return { calls: sumOf("rest_client_requests_total"), looks: sumOf("controller_runtime_reconcile_total") };
}

/** What one look costs where nothing is to be done: resources are touched, and the calls beyond those at rest counted. */
async function callsInQuiet(
  admin: string,
  client: KubeClient,
  kubectl: Kubectl,
  count: number,
): Promise<{ readonly calls: number; readonly looks: number; readonly told: string }> {
  const calls = async () => (await counted(admin)).calls;
  const reconciles = async () => (await counted(admin)).looks;
  // First it comes to rest: two readings that differ by the lease's calls alone.
  let last = await calls();
  await waitFor(
    "the operator to rest",
    async () => {
      await pause(5_000);
      const now = await calls();
      const isQuiet = now - last < 10;
      last = now;
      return isQuiet || undefined;
    },
    { ms: 300_000 },
  );
  const touched = Math.min(count, 100);
  const first = await served(kubectl);
  await pause(quietMs);
  const [second, looksBefore] = [await served(kubectl), await reconciles()];
  for (let at = 0; at < touched; at += 1) {
    await client.patch(
      resources,
      { name: `db-${at}`, namespace: namespaceOf(at) },
      { kind: "merge", merge: { metadata: { labels: { touched: "yes" } } } },
    );
  }
  await pause(quietMs);
  const looks = (await reconciles()) - looksBefore;
  if (looks < touched) throw new Error(`only ${looks} looks at ${touched} changed resources`);
  const third = await served(kubectl);
  const between = (what: string, from: ReadonlyMap<string, number>, to: ReadonlyMap<string, number>) =>
    (to.get(what) ?? 0) - (from.get(what) ?? 0);
  const beyond = [...third.keys()]
    .map((what) => [what, between(what, second, third) - between(what, first, second)] as const)
    .map(
      ([what, times]) => [what, what === "PATCH protectedresources 200" ? times - touched : times] as const,
    )
    .filter(([what, times]) => !what.includes(" leases ") && times > slack);
  return {
    looks,
    calls: beyond.reduce((sum, [, times]) => sum + times, 0),
    told: beyond.map(([what, times]) => `; ${times} ${what}`).join(""),
  };
}

/** What the API server has served so far, to anybody, by verb and kind. */
async function served(kubectl: Kubectl): Promise<ReadonlyMap<string, number>> {
  const found = new Map<string, number>();
  for (const line of (await kubectl("get", "--raw", "/metrics")).split("\n")) {
    const [, labels = "", times] = /^apiserver_request_total\{(.*)\} (\d+)$/.exec(line) ?? [];
    if (times === undefined) continue;
    const of = (name: string) => new RegExp(`\\b${name}="([^"]*)"`).exec(labels)?.[1] ?? "";
    const what = [of("verb"), of("resource"), of("subresource"), of("code")]
      .filter((part) => part !== "")
      .join(" ");
    found.set(what, (found.get(what) ?? 0) + Number(times));
  }
  return found;
}

/** The two times differ by what patching took, and each kind's watch ends now and then; a look's calls are a hundred. */
const slack = 4;

/** What all answers of the webhook to pods have taken so far. */
async function webhookSeconds(admin: string): Promise<number> {
  const text = await (await fetch(`${admin}/metrics`)).text();
  const sum = /^sallyport_webhook_seconds_sum\{path="\/pods",result="allowed"\} (\S+)$/m.exec(text);
  return Number(sum?.[1] ?? Number.NaN);
}

/** The creation of a pod in a protected namespace, asked of the API server, the webhook's answer included. */
async function webhookMs(
  client: KubeClient,
  { admin, webhookPort, caPem }: OperatorProcess,
): Promise<{ readonly p99: number; readonly median: number; readonly own: number }> {
  await client.create(webhookConfigurations, {
    apiVersion: "admissionregistration.k8s.io/v1",
    kind: "MutatingWebhookConfiguration",
    metadata: { name: "sallyport" },
    webhooks: [
      {
        name: "pods.sallyport.dev",
        admissionReviewVersions: ["v1"],
        clientConfig: {
          url: `https://127.0.0.1:${webhookPort}/pods`,
          caBundle: Buffer.from(caPem).toString("base64"),
        },
        rules: [{ apiGroups: [""], apiVersions: ["v1"], operations: ["CREATE"], resources: ["pods"] }],
        namespaceSelector: { matchLabels: { "sallyport.dev/protection": "enabled" } },
        failurePolicy: "Fail",
        sideEffects: "NoneOnDryRun",
      },
    ],
  });
  const metadata = { name: "beside", namespace: "team-0" };
  await client.create<Written>(
    resources as unknown as ResourceType<Written>,
    {
      ...{ apiVersion: "sallyport.dev/v1alpha1", kind: "ProtectedResource", metadata },
      spec: {
        ...resourceSpec,
        placement: { mode: "Sidecar", podSelector: { matchLabels: { app: "beside" } } },
      },
    } as Written,
  );
  const create = async (call: number) => {
    const begun = performance.now();
    const labels = { app: "beside" };
    const pod = await client.create<Written>(
      resourceType<Written>("v1", "Pod", "pods"),
      {
        ...{ apiVersion: "v1", kind: "Pod", metadata: { name: `pod-${call}`, namespace: "team-0", labels } },
        spec: { containers: [{ name: "app", image: "app" }] },
      } as Written,
      { dryRun: true },
    );
    const { initContainers = [] } =
      (pod as { readonly spec?: { readonly initContainers?: object[] } }).spec ?? {};
    return initContainers.length > 0 ? performance.now() - begun : undefined;
  };
  await waitFor("pods to get a gateway", () => create(0));
  const before = await webhookSeconds(admin);
  const times: number[] = [];
  for (let call = 0; call < webhookCalls; call += 1) {
    const took = await create(call);
    if (took === undefined) throw new Error("a pod got no gateway");
    times.push(took);
  }
  const ownMs = (((await webhookSeconds(admin)) - before) * 1000) / webhookCalls;
  times.sort((a, b) => a - b);
  const at = (share: number) => times[Math.ceil(times.length * share) - 1] ?? Number.NaN;
  return { p99: at(0.99), median: at(0.5), own: ownMs };
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
