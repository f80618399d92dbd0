/** A gateway whose account has the chart's narrower role: constrained impersonation, on a real API server. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { run } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { helmProgram } from "../cluster/programs.ts";
import {
  clusterAdmins,
  type KubernetesGateway,
  startKubernetesGateway,
} from "../targets/kubernetes-gateway.ts";
import { policyDocument } from "../targets/policies.ts";

const chart = join(import.meta.dirname, "../../charts/sallyport");
const users = ["ana", "eve"];
const gatewayAccount = { kind: "ServiceAccount", name: "gateway", namespace: "sallyport-gateway" };

let api: ApiServer;
let gateway: KubernetesGateway;

/** The chart's role for gateways, with these values. */
async function chartRole(values: Readonly<Record<string, unknown>>, version = "1.36.0"): Promise<object> {
  const path = join(api.folder, "values.json");
  const impersonation = { users: ["local:ana"], groups: ["local:devs"], uids: true, ...values };
  await writeFile(path, JSON.stringify({ kubernetes: { namespaces: ["access"], impersonation } }));
  const { code, stdout, stderr } = await run(await helmProgram(), [
    ...["template", "sallyport", chart, "--values", path, "--kube-version", version],
    ...["--show-only", "templates/impersonation.yaml"],
  ]);
  if (code !== 0) throw new Error(stderr);
  return api.kubectl
    .withInput(stdout, "create", "--dry-run=client", "-o", "json", "-f", "-")
    .then((text) => JSON.parse(`[${text.replaceAll(/\}\s*\{/g, "},{")}]`))
    .then((objects) => objects.find(({ kind }: { kind: string }) => kind === "ClusterRole"));
}

beforeAll(async () => {
  api = await startApiServer();
  await api.kubectl.apply([
    ...clusterAdmins(users),
    { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "m", namespace: "default" } },
  ]);
  const policies = users.map((user) => policyDocument("cluster", user, "  profile: Admin", user)).join("");
  gateway = await startKubernetesGateway(api, { policies });
  // Of its rights the chart's role alone is left.
  await api.kubectl("delete", "clusterrolebinding", "sallyport-gateway");
  const role = await chartRole({
    constrained: true,
    rules: [
      { apiGroups: [""], resources: ["configmaps"], verbs: ["get", "list"] },
      {
        apiGroups: ["authentication.k8s.io"],
        resources: ["selfsubjectreviews"],
        verbs: ["create"],
      },
      { nonResourceURLs: ["/api", "/api/*", "/apis", "/apis/*"], verbs: ["get"] },
    ],
  });
  await api.kubectl.apply([
    role,
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRoleBinding",
      metadata: { name: "sallyport-impersonator" },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "sallyport-impersonator" },
      subjects: [gatewayAccount],
    },
  ]);
});
afterAll(async () => {
  await gateway?.stop();
  await api?.close();
});

test("whom the role names is spoken for, with group, uid and mark, and nobody else", async () => {
  const ana = await gateway.user("ana", ["devs"]);
  const shown = await waitFor("the role to bind", async () => {
    const { code, stdout } = await ana.try(undefined, "auth", "whoami", "-o", "json");
    return code === 0 ? stdout : undefined;
  });
  expect(JSON.parse(shown).status.userInfo).toMatchObject({
    username: "local:ana",
    groups: ["local:devs", "system:authenticated"],
    uid: "ana",
    extra: { "sallyport.dev/session": [expect.any(String)] },
  });
  const eve = await gateway.user("eve");
  const asked = await eve.try(undefined, "get", "--raw", "/api/v1/namespaces/default/configmaps/m");
  expect([asked.code, asked.stderr]).toEqual([1, expect.stringContaining("orbidden")]);
});

test("only what the role lists is done in their name, whatever they and the gateway's policy may", async () => {
  const ana = await gateway.user("ana", ["devs"]);
  expect(await ana.try(undefined, "get", "configmap", "m", "-o", "name")).toMatchObject({
    code: 0,
    stdout: "configmap/m\n",
  });
  for (const argv of [
    ["get", "secrets"],
    ["delete", "configmap", "m"],
    ["get", "--raw", "/metrics"],
  ]) {
    const { code, stderr } = await ana.try(undefined, ...argv);
    expect([argv, code, stderr]).toEqual([argv, 1, expect.stringMatching(/Forbidden|forbidden/)]);
  }
});

test("with the account's token itself nobody becomes a component, another user, or does more", async () => {
  const token = await api.kubectl("create", "token", "gateway", "-n", "sallyport-gateway");
  const path = join(api.folder, "stolen.kubeconfig");
  const cluster = {
    server: api.url,
    "certificate-authority-data": Buffer.from(api.caPem).toString("base64"),
  };
  await writeFile(
    path,
    JSON.stringify({
      ...{ apiVersion: "v1", kind: "Config", "current-context": "x" },
      clusters: [{ name: "c", cluster }],
      users: [{ name: "u", user: { token: token.trim() } }],
      contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    }),
    { mode: 0o600 },
  );
  const as = (flags: readonly string[], ...argv: readonly string[]) =>
    run(api.kubectl.program, ["--kubeconfig", path, ...flags, ...argv]);
  const ana = ["--as=local:ana"];
  expect(await as(ana, "get", "configmap", "m")).toMatchObject({ code: 0 });
  for (const flags of [
    [],
    ["--as=system:admin"],
    ["--as=system:kube-controller-manager"],
    ["--as=system:serviceaccount:kube-system:generic-garbage-collector"],
    ["--as=system:node:n"],
    [...ana, "--as-group=system:masters"],
    ["--as=local:eve"],
  ])
    expect([flags, (await as(flags, "get", "configmap", "m")).code]).toEqual([flags, 1]);
  expect((await as(ana, "get", "secrets")).code).toBe(1);
});

test("without rules every request may be made in their name, and still by nobody else", async () => {
  await api.kubectl.apply([await chartRole({ constrained: true })]);
  const ana = await gateway.user("ana", ["devs"]);
  await waitFor("the role to bind", async () => {
    const { code } = await ana.try(undefined, "get", "secrets");
    return code === 0 || undefined;
  });
  expect(await ana.try(undefined, "delete", "configmap", "m")).toMatchObject({ code: 0 });
  expect(await ana.try(undefined, "get", "--raw", "/metrics")).toMatchObject({ code: 0 });
  expect((await (await gateway.user("eve")).try(undefined, "get", "secrets")).code).toBe(1);
});

test("rules that would not bind, and servers too old, are refused by the chart", async () => {
  await expect(
    chartRole({ rules: [{ apiGroups: [""], resources: ["pods"], verbs: ["get"] }] }),
  ).rejects.toThrow("constrained: true alone");
  await expect(chartRole({ constrained: true }, "1.35.9")).rejects.toThrow("from Kubernetes 1.36 on");
  await expect(chartRole({ constrained: true, rules: [{ verbs: ["*"] }] })).rejects.toThrow("pattern");
});
