/** `watchNamespaces` on a real API server: what is listed is served by the chart's Roles alone, and nothing else is seen. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { run } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { helmProgram } from "../cluster/programs.ts";
import { startOperator, systemNamespace, type TestOperator, testImage } from "../targets/operator.ts";

const chart = join(import.meta.dirname, "../../charts/sallyport");
const [repository, digest] = testImage.split("@") as [string, string];
const account = `system:serviceaccount:${systemNamespace}:sallyport-operator`;
const apiVersion = "sallyport.dev/v1alpha1";

let api: ApiServer;
let running: TestOperator;
/** What the operator complained of. */
const complaints: string[] = [];

beforeAll(async () => {
  api = await startApiServer({ controllerManager: true });
  await api.kubectl.apply(
    ["shop", "store", "elsewhere"].map((name) => ({
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name },
    })),
  );
  const { code, stderr } = await run(await helmProgram(), [
    ...["--kubeconfig", api.kubeconfig, "--namespace", systemNamespace],
    ...["install", "sallyport", chart, "--create-namespace"],
    ...["--set", `image.repository=${repository},image.digest=${digest}`],
    ...["--set", "watchNamespaces={shop,store}"],
  ]);
  if (code !== 0) throw new Error(stderr);
  await api.kubectl("wait", "--for=condition=Established", "crd", "--all");
  await api.kubectl.apply([
    {
      apiVersion,
      kind: "IdentityProvider",
      metadata: { name: "okta" },
      spec: { type: "oidc", prefix: "okta:", oidc: { issuer: "https://example.okta.com" } },
    },
    ...["shop", "store", "elsewhere"].flatMap((namespace) => [
      {
        apiVersion: "v1",
        kind: "Service",
        metadata: { name: "orders-db", namespace },
        spec: { selector: { app: "orders-db" }, ports: [{ port: 5432 }] },
      },
      {
        apiVersion,
        kind: "ProtectedResource",
        metadata: { name: "orders", namespace },
        spec: {
          protocol: "postgres",
          endpoint: { serviceRef: { name: "orders-db", port: 5432 } },
          credentials: [{ name: "main", secretRef: { name: "orders-login" } }],
          identity: { providers: ["okta"] },
        },
      },
    ]),
    { apiVersion, kind: "AccessPolicy", metadata: { name: "readers", namespace: "shop" }, spec: readers },
    { apiVersion, kind: "ClusterAccessPolicy", metadata: { name: "floor" }, spec: readers },
  ]);
  const note = (fields: object, message: string) =>
    complaints.push(
      `${message} ${String((fields as { problem?: unknown; err?: unknown }).problem ?? (fields as { err?: unknown }).err)}`,
    );
  const quiet = () => undefined;
  running = await startOperator(
    { kubeconfig: await accountKubeconfig() },
    { SALLYPORT_WATCH_NAMESPACES: "shop,store" },
    { debug: quiet, info: quiet, warn: note, error: note } as never,
  );
});
afterAll(async () => {
  await running?.stop();
  await api?.close();
});

const readers = {
  resources: { names: ["orders"] },
  subjects: [{ group: "okta:analysts" }],
  profile: "ReadOnly",
};

/** The operator's own service account, with the rights of the chart and no others. */
async function accountKubeconfig(): Promise<string> {
  const token = await api.serviceAccountToken(systemNamespace, "sallyport-operator");
  const certificate = Buffer.from(api.caPem).toString("base64");
  const path = join(api.folder, "operator.kubeconfig");
  const config = {
    ...{ apiVersion: "v1", kind: "Config", "current-context": "x" },
    clusters: [{ name: "c", cluster: { server: api.url, "certificate-authority-data": certificate } }],
    users: [{ name: "u", user: { token } }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
  };
  await writeFile(path, JSON.stringify(config), { mode: 0o600 });
  return path;
}

const can = async (...argv: readonly string[]) =>
  (await api.kubectl.try(undefined, "auth", "can-i", ...argv, `--as=${account}`)).stdout.trim();
const conditions = (kind: string, name: string, namespace: string) =>
  api.kubectl("get", kind, name, "-n", namespace, "-o", "jsonpath={.status.conditions[*].reason}");

test("O57 with watchNamespaces the operator has no right to what is in other namespaces", async () => {
  for (const [verb, what] of [
    ["list", "pods"],
    ["create", "deployments.apps"],
    ["create", "secrets"],
    ["list", "protectedresources.sallyport.dev"],
    ["patch", "networkpolicies.networking.k8s.io"],
    ["create", "approvals.sallyport.dev"],
  ] as const) {
    expect([what, await can(verb, what, "-n", "elsewhere")]).toEqual([what, "no"]);
    expect([what, await can(verb, what, "--all-namespaces")]).toEqual([what, "no"]);
    expect([what, await can(verb, what, "-n", "shop")]).toEqual([what, "yes"]);
  }
  expect(await can("create", "deployments.apps", "-n", systemNamespace)).toBe("no");
  expect(await can("list", "secrets", "-n", systemNamespace)).toBe("no");
});

test("O57 it serves the listed namespaces, and says nothing of the others", async () => {
  await waitFor("the operator to be ready", () => running.operator.notReady() === undefined || undefined);
  for (const namespace of ["shop", "store"])
    await waitFor(`the gateway's objects in ${namespace}`, async () => {
      const objects = ["deploy/orders-gateway", "svc/orders-gateway", "networkpolicy/orders-server"];
      const { code } = await api.kubectl.try(undefined, "get", ...objects, "-n", namespace);
      return code === 0 || undefined;
    });
  await waitFor("the policies", async () => {
    const { code } = await api.kubectl.try(
      undefined,
      ...["get", "controllerrevision/readers-policy-1", "-n", "shop"],
    );
    const cluster = await api.kubectl("get", "controllerrevisions", "-n", systemNamespace, "-o", "name");
    return (code === 0 && cluster.includes("floor-cluster-policy-1")) || undefined;
  });
  await waitFor(
    "status",
    async () => (await conditions("pres", "orders", "shop")).includes("Progressing") || undefined,
  );
  await waitFor("an event", async () => {
    const events = await api.kubectl("get", "events", "-n", "shop", "-o", "name");
    return events.includes("event/") || undefined;
  });
  expect(await conditions("pres", "orders", "elsewhere")).toBe("");
  expect(await api.kubectl("get", "deploy,networkpolicy", "-n", "elsewhere", "-o", "name")).toBe("");
});

test("O57 a change in one of them is heard of, and a deletion leaves nothing there", async () => {
  const merge = JSON.stringify({ spec: { subjects: [{ group: "okta:auditors" }] } });
  await api.kubectl("patch", "accesspolicy", "readers", "-n", "shop", "--type=merge", "-p", merge);
  await waitFor("the next generation", async () => {
    const kept = ["get", "controllerrevision/readers-policy-2", "-n", "shop"];
    return (await api.kubectl.try(undefined, ...kept)).code === 0 || undefined;
  });
  await api.kubectl("delete", "pres", "orders", "-n", "store", "--timeout=30s");
  await waitFor("what was made for it to go", async () => {
    const left = await api.kubectl("get", "deploy,networkpolicy", "-n", "store", "-o", "name");
    return left === "" || undefined;
  });
  // No list, watch or write was asked for that the Roles do not give.
  expect(complaints.filter((one) => /forbidden/i.test(one))).toEqual([]);
});

test("O41 the webhooks are asked in the listed namespaces alone, while the policies bind everywhere", async () => {
  const path = 'jsonpath={range .webhooks[*]}{.name} {.namespaceSelector.matchExpressions}{"\\n"}{end}';
  for (const kind of ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"]) {
    const selectors = (await api.kubectl("get", kind, "sallyport", "-o", path)).split("\n");
    for (const line of selectors.filter((one) => /^(pods|connect)\./.test(one)))
      expect(line).toContain('"operator":"In","values":["shop","store"]');
  }
  const bare = {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "bare", namespace: "elsewhere", labels: { app: "orders-db" } },
    spec: { containers: [{ name: "postgres", image: "postgres:18" }] },
  };
  const sidecar = {
    placement: { mode: "Sidecar", podSelector: { matchLabels: { app: "orders-db" } } },
  };
  await api.kubectl("label", "namespace", "elsewhere", "sallyport.dev/protection=enabled");
  await api.kubectl(
    "patch",
    "pres",
    "orders",
    "-n",
    "elsewhere",
    "--type=merge",
    "-p",
    JSON.stringify({ spec: sidecar }),
  );
  await waitFor("the refusal", async () => {
    const argv = ["create", "-f", "-", "--dry-run=server"];
    const { stderr } = await api.kubectl.try(JSON.stringify(bare), ...argv);
    return stderr.includes("selects this pod, and it has no gateway") || undefined;
  });
});
