/** What scenarios on the live cluster share: a namespace of their own, and what is printed when one fails. */
import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach } from "vitest";
import { accessCluster, type ClusterAccess } from "../cluster/access.ts";
import { type CommandResult, type Kubectl, passes } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";

/** A scenario's part of the cluster. */
export interface Scenario {
  readonly cluster: ClusterAccess;
  readonly namespace: string;
  /** True where heavy scenarios run at their full size (`--full`), not the one that CI has time for. */
  readonly full: boolean;
  /** kubectl in the scenario's namespace, as the administrator. */
  readonly kubectl: Kubectl;
  /** Applies objects into the scenario's namespace. */
  apply(...objects: readonly KubernetesObject[]): Promise<void>;
  /** Waits until a workload is rolled out (`deployment/gateway`) or a pod is ready (`pod/client`). */
  ready(...workloads: readonly string[]): Promise<void>;
  /** Waits until a pod with a shell reaches a port: a Service follows its pods, but some moments later. */
  reachable(from: string, host: string, port: number): Promise<void>;
  /** Runs a command in a pod. */
  exec(pod: string, ...command: readonly string[]): Promise<CommandResult>;
  /** Asks until the answer is not undefined; an API server that could not answer is asked again. */
  eventually: typeof waitFor;
}

const eventually: typeof waitFor = (what, ask, options) =>
  waitFor(
    what,
    async () => {
      try {
        return await ask();
      } catch (error) {
        if (!passes.test(String(error))) throw error;
        return undefined;
      }
    },
    options,
  );

/** An object as it is applied; its namespace is filled in. */
export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly [key: string]: unknown };
  readonly [key: string]: unknown;
}

/** Opens a scenario for the tests of a file: call it once, at the top; its namespace meets Pod Security `restricted`. */
export function openScenario(name: string, labels: Readonly<Record<string, string>> = {}): Scenario {
  const kubeconfig = process.env.SALLYPORT_E2E_KUBECONFIG ?? "";
  const program = process.env.SALLYPORT_E2E_KUBECTL ?? "kubectl";
  const namespace = `e2e-${name}`;
  // Kubeconfigs of users hold the administrator's credential.
  const folder = mkdtempSync(join(tmpdir(), "sallyport-users-"));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  const cluster = accessCluster(program, kubeconfig, folder);
  const kubectl = inNamespace(cluster.kubectl, namespace);
  let failed = 0;
  let isAlone = false;

  beforeAll(async () => {
    if (kubeconfig === "") throw new Error("scenarios run with `make e2e`, which starts a cluster");
    // What a run before this one left would be taken for what this one made.
    await cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=60s");
    await cluster.kubectl.apply([
      {
        apiVersion: "v1",
        kind: "Namespace",
        metadata: {
          name: namespace,
          labels: { "pod-security.kubernetes.io/enforce": "restricted", ...labels },
        },
      },
    ]);
  });
  beforeEach(async ({ onTestFailed }) => {
    onTestFailed(async () => {
      failed += 1;
      // One picture is enough: the tests after the first failure mostly show the same.
      if (failed === 1) await printState(kubectl, namespace);
    });
    // What the scenario before this one left goes while this one is set up; what is tested has the cluster for itself.
    if (!isAlone) await nothingGoing(cluster.kubectl);
    isAlone = true;
  });
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the names of fixtures from the pattern, and none is wanted
  afterAll(async ({}, suite) => {
    const broken = suite.result?.state === "fail";
    if (broken && failed === 0) await printState(kubectl, namespace);
    if (process.env.SALLYPORT_E2E_KEEP && (broken || failed > 0)) return;
    await cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false");
  });

  const exec = (pod: string, ...command: readonly string[]) =>
    kubectl.try(undefined, "exec", pod, "--", ...command);
  return {
    ...{ cluster, namespace, kubectl, exec, eventually },
    full: process.env.SALLYPORT_E2E_FULL !== undefined,
    reachable: async (from, host, port) => {
      await waitFor(`${host}:${port} to be reachable from ${from}`, async () => {
        const { code } = await exec(from, "nc", "-w", "2", host, String(port));
        return code === 0 || undefined;
      });
    },
    apply: async (...objects) => {
      await cluster.kubectl.apply(
        objects.map((object) => ({ ...object, metadata: { namespace, ...object.metadata } })),
      );
    },
    ready: async (...workloads) => {
      for (const workload of workloads) {
        // What the operator makes may not be there yet, which `rollout status` does not wait for.
        await waitFor(`${workload} to be made`, async () => {
          const { code } = await kubectl.try(undefined, "get", workload);
          return code === 0 || undefined;
        });
        const argv = workload.startsWith("pod/")
          ? ["wait", "--for=condition=Ready", workload]
          : ["rollout", "status", workload];
        await kubectl(...argv, "--timeout=90s");
      }
    },
  };
}

/** Waits for namespaces that scenarios have deleted: twelve seconds for each, mostly of waiting. */
async function nothingGoing(kubectl: Kubectl): Promise<void> {
  let left = "";
  const ask = async () => {
    const going = ["--field-selector", "status.phase=Terminating", "-o", "name"];
    left = await kubectl("get", "namespaces", ...going);
    return !left.includes("namespace/e2e-") || undefined;
  };
  await eventually("the namespaces of earlier scenarios to be gone", ask, { ms: 90_000 }).catch((cause) => {
    throw new Error(`there still is ${left.trim()}`, { cause });
  });
}

function inNamespace(kubectl: Kubectl, namespace: string): Kubectl {
  const flags = ["--namespace", namespace];
  return Object.assign((...argv: readonly string[]) => kubectl(...flags, ...argv), {
    ...kubectl,
    withInput: (input: string, ...argv: readonly string[]) => kubectl.withInput(input, ...flags, ...argv),
    try: (input: string | undefined, ...argv: readonly string[]) => kubectl.try(input, ...flags, ...argv),
    json: <T>(...argv: readonly string[]) => kubectl.json<T>(...flags, ...argv),
  });
}

/** Objects, events and logs; no Secrets. */
async function printState(kubectl: Kubectl, namespace: string): Promise<void> {
  const show = async (...argv: readonly string[]) => {
    const { stdout, stderr } = await kubectl.try(undefined, ...argv);
    console.log(
      `--- ${namespace}: kubectl ${argv.join(" ")}\n${stdout.trim()}${stderr && `\n${stderr.trim()}`}`,
    );
  };
  await show("get", "all,networkpolicies,pvc,configmaps", "-o", "wide");
  await show("describe", "pods");
  await show("get", "events", "--sort-by=.lastTimestamp");
  const kinds = await kubectl.try(undefined, "api-resources", "--api-group=sallyport.dev", "-o", "name");
  const own = kinds.stdout.trim().split("\n").filter(Boolean);
  if (own.length > 0) await show("get", own.join(","), "-o", "yaml", "--ignore-not-found");
  const pods = (await kubectl.try(undefined, "get", "pods", "-o", "name")).stdout.trim().split("\n");
  for (const pod of pods.filter(Boolean)) {
    await show("logs", pod, "--all-containers", "--prefix", "--tail=60");
  }
}
