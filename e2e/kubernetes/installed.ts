/** The product as a user installs it: the chart, on the live cluster, in its own namespace. */
import { chown, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { ClusterAccess } from "../cluster/access.ts";
import { run } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { gatewayImageName } from "../image/gateway.ts";
import type { KubernetesObject, Scenario } from "./scenario.ts";

/** Where operator and recorder run. */
export const systemNamespace = "sallyport-system";

const chart = join(import.meta.dirname, "../../charts/sallyport");
const [repository, tag] = gatewayImageName.split(":") as [string, string];
const apiVersion = "sallyport.dev/v1alpha1";

/** helm, for the cluster of a scenario. */
export async function helm(cluster: ClusterAccess, ...argv: readonly string[]): Promise<string> {
  // It is built beside kubectl; a given cluster's user has it on the path.
  const beside = join(cluster.kubectl.program, "../helm");
  const program = (await run("test", ["-x", beside])).code === 0 ? beside : "helm";
  const flags = ["--kubeconfig", cluster.kubeconfig, "--namespace", systemNamespace];
  return waitFor(`helm ${argv[0]} to reach the cluster`, async () => {
    const { code, stdout, stderr } = await run(program, [...flags, ...argv]);
    if (code === 0) return stdout;
    const error = new Error(`helm ${argv.join(" ")}: ${stderr}`);
    // It says so before it has done anything, and nothing else may be tried twice.
    if (!stderr.includes("cluster unreachable")) throw error;
    return undefined;
  });
}

/** Installs the chart where it is not, and waits until operator and recorder are ready. */
export async function install(cluster: ClusterAccess, ...more: readonly string[]): Promise<void> {
  await cluster.kubectl.apply([
    {
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name: systemNamespace, labels: { "pod-security.kubernetes.io/enforce": "restricted" } },
    },
  ]);
  if ((await cluster.kubectl("get", "storageclass", "-o", "name")).trim() === "") await storage(cluster);
  await helm(
    cluster,
    ...["upgrade", "--install", "sallyport", chart],
    ...["--set", `image.repository=${repository},image.tag=${tag},image.pullPolicy=Never`],
    ...["--set", "recorder.storage.size=1Gi,recorder.reserveBytes=1048576,gateway.drainSeconds=2"],
    ...["--set", `networkPolicy.egress.apiServerPorts={443,${await apiServerPort(cluster)}}`],
    ...more,
  );
  const rollout = ["-n", systemNamespace, "rollout", "status", "--timeout=120s"];
  await cluster.kubectl(...rollout, "deployment/sallyport-operator");
  await cluster.kubectl(...rollout, "statefulset/sallyport-recorder");
  // A webhook's bundle and the policies bind some moments after they were written.
  await waitFor("admission to answer", async () => {
    const bundle = await cluster.kubectl(
      ...[
        "get",
        "mutatingwebhookconfiguration",
        "sallyport",
        "-o",
        "jsonpath={.webhooks[0].clientConfig.caBundle}",
      ],
    );
    return bundle === "" ? undefined : true;
  });
}

/** Where the API server listens behind its Service: a node of ours takes any port that is free. */
async function apiServerPort({ kubectl }: ClusterAccess): Promise<number> {
  const slice = ["-n", "default", "get", "endpointslice", "kubernetes"];
  return Number(await kubectl(...slice, "-o", "jsonpath={.ports[0].port}"));
}

/** Does something while no operator runs, and waits until both are back, whatever became of it. */
export async function withoutOperators<T>({ kubectl }: ClusterAccess, work: () => Promise<T>): Promise<T> {
  const system = (...argv: readonly string[]) => kubectl("-n", systemNamespace, ...argv);
  const scale = (replicas: number) =>
    system("scale", "deployment/sallyport-operator", `--replicas=${replicas}`);
  await scale(0);
  try {
    const operators = ["-l", "app.kubernetes.io/component=operator"];
    await system("wait", "--for=delete", "pod", "--timeout=60s", ...operators);
    return await work();
  } finally {
    await scale(2);
    await system("rollout", "status", "deployment/sallyport-operator", "--timeout=120s");
  }
}

/** The node has no storage of its own: folders that recorders' user may write to, one for each of two recorders. */
async function storage(cluster: ClusterAccess): Promise<void> {
  for (const name of ["sallyport-recordings", "sallyport-recordings-1"]) {
    const path = `/var/tmp/${name}`;
    const found = await cluster.kubectl.try(undefined, "get", "pv", name);
    if (found.code === 0) continue;
    // What an earlier cluster's recorder wrote no key of this one opens.
    await rm(path, { recursive: true, force: true });
    await mkdir(path, { recursive: true });
    await chown(path, 65532, 65532);
    await cluster.kubectl.apply([
      {
        apiVersion: "v1",
        kind: "PersistentVolume",
        metadata: { name },
        spec: {
          capacity: { storage: "1Gi" },
          accessModes: ["ReadWriteOnce"],
          persistentVolumeReclaimPolicy: "Retain",
          hostPath: { path },
        },
      },
    ]);
  }
}

/** A ProtectedResource for a database of `objects.ts`. */
export function protectedResource(
  name: string,
  provider: string,
  spec: Readonly<Record<string, unknown>> = {},
): KubernetesObject {
  return {
    ...{ apiVersion, kind: "ProtectedResource", metadata: { name } },
    spec: {
      protocol: "postgres",
      endpoint: { serviceRef: { name, port: 5432 } },
      tls: { upstream: { mode: "disable" } },
      credentials: [{ name: "main", secretRef: { name: `${name}-credential` } }],
      identity: { providers: [provider] },
      ...spec,
    },
  };
}

/** An AccessPolicy. */
export function accessPolicy(name: string, spec: Readonly<Record<string, unknown>>): KubernetesObject {
  return { apiVersion, kind: "AccessPolicy", metadata: { name }, spec };
}

/** Waits until a resource's condition is what it should be. */
export async function condition(
  scenario: Scenario,
  resource: string,
  type: string,
  status: string,
  reason?: string,
  ms?: number,
): Promise<void> {
  const wanted = reason === undefined ? `${type}=${status}` : `${type}=${status}/${reason}`;
  let last = "";
  try {
    const options = ms === undefined ? {} : { ms };
    const ask = async () => {
      last = await scenario.kubectl(
        ...["get", resource, "-o"],
        "jsonpath={range .status.conditions[*]}{.type}={.status}/{.reason} {end}",
      );
      return last.split(" ").some((one) => one === wanted || one.startsWith(`${wanted}/`)) || undefined;
    };
    await waitFor(`${resource} to have ${wanted}`, ask, options);
  } catch (error) {
    throw new Error(`${wanted} was waited for; there is ${last}`, { cause: error });
  }
}

/** Where each gateway of a Shared resource is: the Service leads a client to the same one again and again. */
export async function gatewayAddresses(scenario: Scenario, resource: string): Promise<readonly string[]> {
  const { items } = await scenario.kubectl.json<{
    readonly items: readonly {
      readonly metadata: { readonly deletionTimestamp?: string };
      readonly status: { readonly podIP?: string };
    }[];
  }>("pods", "-l", `sallyport.dev/gateway=${resource}`);
  return items
    .filter(({ metadata }) => metadata.deletionTimestamp === undefined)
    .flatMap(({ status }) => status.podIP ?? []);
}
