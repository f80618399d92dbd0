/** What a resource says of ways around its gateway, with a kubelet that is played by the test. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { ApiServer } from "../cluster/api-server.ts";
import { waitFor } from "../cluster/processes.ts";
import { databaseService, oktaProvider, ordersResource } from "../targets/manifests.ts";
import {
  startApiServerWithKinds,
  startOperator,
  systemNamespace,
  type TestOperator,
} from "../targets/operator.ts";

interface Observed {
  readonly metadata: { readonly uid: string };
  readonly spec: { readonly containers: readonly { readonly command?: readonly string[] }[] };
  readonly status?: {
    readonly conditions?: readonly {
      readonly type: string;
      readonly status: string;
      readonly reason: string;
    }[];
  };
}

let api: ApiServer;
let running: TestOperator;
const namespace = "shop";

beforeAll(async () => {
  api = await startApiServerWithKinds();
  await api.kubectl.apply([
    {
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name: namespace, labels: { "sallyport.dev/protection": "enabled" } },
    },
    // Nobody else makes them where no controller manager runs.
    ...[namespace, systemNamespace].map((one) => ({
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { name: "default", namespace: one },
    })),
    databaseService("orders-db", namespace, "pg"),
    oktaProvider,
  ]);
  running = await startOperator(api);
});
afterAll(async () => {
  await running?.stop();
  await api?.close();
});

const resource = (listen: object = {}) => ordersResource(namespace, { listen });

async function startPod(name: string, labels: object, address: string): Promise<void> {
  const ports = [{ name: "pg", containerPort: 15_000 }];
  await api.kubectl.apply([
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, namespace, labels },
      spec: { containers: [{ name: "main", image: "main", ports }] },
    },
  ]);
  await setStatus(namespace, name, {
    phase: "Running",
    podIP: address,
    podIPs: [{ ip: address }],
    conditions: [{ type: "Ready", status: "True" }],
  });
}

async function setStatus(inNamespace: string, name: string, status: object): Promise<void> {
  await api.kubectl(
    ...["patch", "pod", name, "-n", inNamespace, "--subresource=status", "--type=merge"],
    ...["-p", JSON.stringify({ status })],
  );
}

/** Waits for the next probe's pod, and lets it end with these last words. */
async function probeSays(words: string, exitCode = 0): Promise<readonly string[]> {
  const pod = await waitFor(
    "the probe's pod",
    async () => {
      const flags = ["get", "pod", "sallyport-probe", "-n", systemNamespace, "-o", "json"];
      const { code, stdout } = await api.kubectl.try(undefined, ...flags);
      return code === 0 ? (JSON.parse(stdout) as Observed) : undefined;
    },
    { ms: 30_000 },
  );
  const now = new Date().toISOString();
  const terminated = { exitCode, message: words, startedAt: now, finishedAt: now };
  await setStatus(systemNamespace, "sallyport-probe", {
    phase: exitCode === 0 ? "Succeeded" : "Failed",
    containerStatuses: [
      { name: "probe", image: "", imageID: "", ready: false, restartCount: 0, state: { terminated } },
    ],
  });
  await waitFor("that pod to be removed", async () => {
    const flags = ["get", "pod", "sallyport-probe", "-n", systemNamespace, "-o", "jsonpath={.metadata.uid}"];
    const { code, stdout } = await api.kubectl.try(undefined, ...flags);
    return code !== 0 || stdout.trim() !== pod.metadata.uid || undefined;
  });
  return pod.spec.containers[0]?.command?.slice(3) ?? [];
}

async function bypass(reason: string, status: string): Promise<void> {
  await waitFor(`BypassProtected ${reason}`, async () => {
    const { status: all } = await api.kubectl.json<Observed>("protectedresource", "orders", "-n", namespace);
    const found = all?.conditions?.find(({ type }) => type === "BypassProtected");
    return (found?.reason === reason && found.status === status) || undefined;
  });
}

test("nothing is said before a gateway and a server run that could be tried", async () => {
  await api.kubectl.apply([resource()]);
  await bypass("NotProbed", "Unknown");
  await startPod("orders-db-0", { app: "orders-db" }, "10.9.0.1");
  await startPod("gateway-0", { "sallyport.dev/gateway": "orders" }, "10.9.0.2");
});

test("a pod without any right that is not let in makes it True", async () => {
  const dialled = await probeSays("ct");
  expect(dialled).toEqual(["10.9.0.2 5432", "10.9.0.1 15000"]);
  await bypass("Refused", "True");
});

test("a change of the resource is tried anew, and whoever gets in makes it False", async () => {
  await api.kubectl.apply([resource({ port: 6000 })]);
  await bypass("NotProbed", "Unknown");
  expect(await probeSays("cc")).toEqual(["10.9.0.2 6000", "10.9.0.1 15000"]);
  await bypass("NetworkPolicyNotEnforced", "False");
});

test("a probe that could not run, or was kept from everything, leaves it Unknown", async () => {
  await api.kubectl.apply([resource({ port: 6001 })]);
  await bypass("NotProbed", "Unknown");
  await probeSays("", 1);
  await bypass("NotProbed", "Unknown");
  await api.kubectl.apply([resource({ port: 6002 })]);
  await probeSays("tt");
  await bypass("NotProbed", "Unknown");
});

test("a server that was replaced while it was tried was not tried", async () => {
  await api.kubectl.apply([resource({ port: 6003 })]);
  await waitFor(
    "the probe's pod",
    async () => {
      const flags = ["get", "pod", "sallyport-probe", "-n", systemNamespace];
      return (await api.kubectl.try(undefined, ...flags)).code === 0 || undefined;
    },
    { ms: 30_000 },
  );
  await setStatus(namespace, "orders-db-0", { podIP: "10.9.0.7", podIPs: [{ ip: "10.9.0.7" }] });
  await probeSays("ct");
  await bypass("NotProbed", "Unknown");
});
