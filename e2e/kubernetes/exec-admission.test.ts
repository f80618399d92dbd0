/** What the chart closes around gateways of protocol kubernetes, on a real API server without a node. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { type Kubectl, run } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { helmProgram } from "../cluster/programs.ts";
import { type KubernetesGateway, startKubernetesGateway } from "../targets/kubernetes-gateway.ts";
import { startOperator, systemNamespace, type TestOperator, testImage } from "../targets/operator.ts";

const chart = join(import.meta.dirname, "../../charts/sallyport");
const [repository, digest] = testImage.split("@") as [string, string];
const apiVersion = "sallyport.dev/v1alpha1";

let api: ApiServer;
let gateway: KubernetesGateway;
let operator: TestOperator;
/** A cluster administrator with a certificate of the API server's own. */
let root: Kubectl;
let rescuer: Kubectl;

const bind = (name: string, subject: object) => ({
  apiVersion: "rbac.authorization.k8s.io/v1",
  kind: "ClusterRoleBinding",
  metadata: { name },
  roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "cluster-admin" },
  subjects: [{ apiGroup: "rbac.authorization.k8s.io", ...subject }],
});
const namespaceNamed = (name: string, labels: Readonly<Record<string, string>> = {}) => ({
  ...{ apiVersion: "v1", kind: "Namespace", metadata: { name, labels } },
});
const pod = (namespace: string) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "web", namespace },
  spec: { containers: [{ name: "web", image: "web" }], automountServiceAccountToken: false },
});
const ownCluster = (name: string, namespace: string) => ({
  ...{ apiVersion, kind: "ProtectedResource", metadata: { name, namespace } },
  spec: {
    protocol: "kubernetes",
    endpoint: { host: "kubernetes.default.svc", port: 443 },
    tls: { upstream: { mode: "verify-full", caRef: { name: "own" } } },
    credentials: [{ name: "gateway", secretRef: { name: "own" } }],
    identity: { providers: ["local"] },
    options: { ownCluster: true },
  },
});

beforeAll(async () => {
  api = await startApiServer({ controllerManager: true });
  const { code, stderr } = await run(await helmProgram(), [
    ...["--kubeconfig", api.kubeconfig, "--namespace", systemNamespace],
    ...["install", "sallyport", chart, "--create-namespace"],
    ...["--set", `image.repository=${repository},image.digest=${digest}`],
    ...["--set", "kubernetes.namespaces={access},kubernetes.impersonation.users={local:ana}"],
    ...["--set", "kubernetes.impersonation.groups={local:devs},admission.closeNodeProxy=true"],
  ]);
  if (code !== 0) throw new Error(`helm: ${stderr}`);
  await api.kubectl("wait", "--for=condition=Established", "crd", "--all");
  await api.kubectl.apply([
    namespaceNamed("closed", { "sallyport.dev/protect-exec": "true" }),
    ...[namespaceNamed("open"), namespaceNamed("access"), namespaceNamed("tenant")],
    bind("root", { kind: "User", name: "root" }),
    bind("rescuer", { kind: "User", name: "rescuer" }),
    bind("ana", { kind: "User", name: "local:ana" }),
    pod("closed"),
    pod("open"),
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "web", namespace: "closed" },
      spec: { ports: [{ port: 80 }] },
    },
    {
      ...{ apiVersion, kind: "IdentityProvider", metadata: { name: "local" } },
      spec: { type: "oidc", prefix: "local:", oidc: { issuer: "https://issuer.example.com" } },
    },
  ]);
  root = await api.user("root", []);
  rescuer = await api.user("rescuer", ["sallyport:break-glass"]);
  gateway = await startKubernetesGateway(api, {
    policies: `
apiVersion: ${apiVersion}
kind: AccessPolicy
metadata: {name: admins, namespace: default}
spec: {resources: {names: [cluster]}, subjects: [{user: "local:ana"}], profile: Admin}
`,
  });
  operator = await startOperator(
    { kubeconfig: await operatorKubeconfig() },
    {
      SALLYPORT_KUBERNETES_NAMESPACES: "access",
      SALLYPORT_EXEC_PROBE_INTERVAL: "1s",
    },
  );
  // Policies bind some moments after they were made.
  await waitFor("the policy to bind", async () => {
    const { stderr } = await root.try(undefined, "-n", "closed", "exec", "web", "--", "true");
    return stderr.includes("is closed in namespace closed") || undefined;
  });
});
afterAll(async () => {
  await operator?.stop();
  await gateway?.stop();
  await api?.close();
});

/** The operator's own service account, with the rights of the chart and no others. */
async function operatorKubeconfig(): Promise<string> {
  const token = await api.serviceAccountToken(systemNamespace, "sallyport-operator");
  const path = join(api.folder, "operator.kubeconfig");
  const cluster = {
    server: api.url,
    "certificate-authority-data": Buffer.from(api.caPem).toString("base64"),
  };
  const config = {
    ...{ apiVersion: "v1", kind: "Config", "current-context": "x" },
    clusters: [{ name: "c", cluster }],
    users: [{ name: "u", user: { token } }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u", namespace: systemNamespace } }],
  };
  await writeFile(path, JSON.stringify(config), { mode: 0o600 });
  return path;
}

/** Past admission the API server looks for the node, and there is none. */
const pastAdmission = /does not have a host assigned|no endpoints available|no service port|not found/;

describe("in a namespace labelled sallyport.dev/protect-exec=true", () => {
  const ways: readonly (readonly string[])[] = [
    ["exec", "web", "--", "true"],
    ["attach", "web"],
    ["cp", "web:/etc/passwd", "/dev/null"],
    ["get", "--raw", "/api/v1/namespaces/closed/pods/web/proxy/"],
    ["get", "--raw", "/api/v1/namespaces/closed/services/web/proxy/"],
    ["debug", "web", "--image=busybox", "--profile=general"],
  ];
  test.each(ways.map((way) => [way.slice(0, 3).join(" "), way] as const))(
    "%s past the gateway is closed, to cluster administrators too",
    async (_name, way) => {
      const { code, stderr } = await root.try(undefined, "-n", "closed", ...way);
      expect(code).not.toBe(0);
      expect(stderr).toContain("is closed in namespace closed; connect through the Sallyport gateway");
    },
  );

  test("port-forward past the gateway is closed", async () => {
    const path = "/api/v1/namespaces/closed/pods/web/portforward?ports=80";
    const { stderr } = await root.try(undefined, "create", "--raw", path, "-f", "/dev/null");
    expect(stderr).toContain("is closed in namespace closed");
  });

  test("what comes through the gateway, and who breaks the glass, is let through", async () => {
    const ana = await gateway.user("ana");
    for (const user of [ana, rescuer]) {
      const { stderr } = await user.try(undefined, "-n", "closed", "exec", "web", "--", "true");
      expect(stderr).toMatch(pastAdmission);
      expect(stderr).not.toContain("is closed");
    }
  });

  test("other namespaces are as they were", async () => {
    const { stderr } = await root.try(undefined, "-n", "open", "exec", "web", "--", "true");
    expect(stderr).toMatch(pastAdmission);
  });

  test("nobody but the break-glass group takes the label away", async () => {
    for (const value of ["sallyport.dev/protect-exec-", "sallyport.dev/protect-exec=false"]) {
      const argv = ["label", "namespace", "closed", value, "--overwrite", "--dry-run=server"];
      expect((await root.try(undefined, ...argv)).stderr).toContain("only the break-glass group");
      expect(await rescuer.try(undefined, ...argv)).toMatchObject({ code: 0 });
    }
  });

  test("nodes/proxy is closed but for metrics, where the chart says so", async () => {
    await api.kubectl.apply([{ apiVersion: "v1", kind: "Node", metadata: { name: "n1" } }]);
    const ask = (path: string) => root.try(undefined, "get", "--raw", `/api/v1/nodes/n1/proxy${path}`);
    expect((await ask("/pods")).stderr).toContain("nodes/proxy is closed");
    expect((await ask("/metrics/../run/ns/pod/c")).stderr).toContain("nodes/proxy is closed");
    expect((await ask("/metrics")).stderr).not.toContain("nodes/proxy is closed");
  });
});

describe("a ProtectedResource of protocol kubernetes", () => {
  const condition = async (name: string, namespace: string, type: string) =>
    api.kubectl(
      ...["get", "pres", name, "-n", namespace, "-o"],
      `jsonpath={.status.conditions[?(@.type=="${type}")].reason}`,
    );
  const bindings = async () => {
    const argv = ["-l", "sallyport.dev/impersonation", "-o", "jsonpath={.items[*].metadata.name}"];
    return api.kubectl("get", "clusterrolebindings", ...argv);
  };

  test("of a tenant's own is refused outside the listed namespaces, and gets no right", async () => {
    await api.kubectl.apply([ownCluster("mine", "tenant")]);
    await waitFor("the refusal", async () =>
      (await condition("mine", "tenant", "Accepted")) === "NamespaceNotListed" ? true : undefined,
    );
    expect(await api.kubectl("get", "deployments", "-n", "tenant", "-o", "name")).toBe("");
    expect(await bindings()).not.toContain("tenant");
  });

  test("in a listed namespace is placed, its account bound to the chart's role, and unbound with it", async () => {
    await api.kubectl.apply([ownCluster("cluster", "access")]);
    const argv = ["-n", "access", "get", "deploy/cluster-gateway", "svc/cluster-gateway"];
    await waitFor("the objects", async () => {
      const more = ["pdb/cluster-gateway", "networkpolicy/cluster-gateway", "secret/cluster-gateway-key"];
      const { code } = await api.kubectl.try(undefined, ...argv, ...more);
      return code === 0 || undefined;
    });
    const name = "sallyport-impersonator:access:cluster-gateway";
    await waitFor("the binding", async () => ((await bindings()) === name ? true : undefined));
    expect(await condition("cluster", "access", "Accepted")).toBe("Accepted");
    const can = async (...words: readonly string[]) => {
      const as = "--as=system:serviceaccount:access:cluster-gateway";
      return (await api.kubectl.try(undefined, "auth", "can-i", ...words, as)).stdout.trim();
    };
    expect(await can("impersonate", "users/local:ana")).toBe("yes");
    expect(await can("impersonate", "groups/local:devs")).toBe("yes");
    expect(await can("impersonate", "users/system:admin")).toBe("no");
    expect(await can("impersonate", "groups/system:masters")).toBe("no");
    expect(await can("get", "secrets", "-n", "access")).toBe("no");
    const key = ["get", "secret", "cluster-gateway-key", "-n", "access", "-o", "jsonpath={.data}"];
    const before = await api.kubectl(...key);
    await api.kubectl("delete", "pres", "cluster", "-n", "access");
    await waitFor("the binding to go", async () => ((await bindings()) === "" ? true : undefined));
    expect(before).toContain("masking.key");
  });

  test("says whether exec is closed as it was tried, not as the policies read", async () => {
    const binding = ["validatingadmissionpolicybinding", "sallyport-exec-through-gateway"];
    const { apiVersion, kind, metadata, spec } = JSON.parse(
      await api.kubectl("get", ...binding, "-o", "json"),
    );
    const { name, labels } = metadata;
    const told = async () => {
      const { stdout } = await api.kubectl.try(
        undefined,
        ...["get", "pres", "told", "-n", "access", "-o"],
        'jsonpath={range .status.conditions[?(@.type=="BypassProtected")]}{.status} {.reason} {.message}{end}',
      );
      return stdout;
    };
    const until = (start: string) =>
      waitFor(start, async () => ((await told()).startsWith(start) ? true : undefined), { ms: 60_000 });
    await api.kubectl.apply([ownCluster("told", "access")]);
    const ways = "Exec, attach, port-forward and proxies";
    await until(`True ExecClosed ${ways} past the gateway are closed in 1 namespace (closed).`);
    expect(await told()).toContain("sallyport audit rbac");
    await api.kubectl("delete", ...binding);
    try {
      const open = "pods/exec, pods/attach, pods/portforward, pods/proxy, services/proxy";
      await until(`False ExecOpen The way past the gateway by ${open} is open in 1 namespace (closed)`);
    } finally {
      await api.kubectl.apply([{ apiVersion, kind, metadata: { name, labels }, spec }]);
    }
    await until("True ExecClosed");
    // A policy that somebody has thinned out is not the whole one.
    const policy = ["validatingadmissionpolicy", "sallyport-exec-through-gateway"];
    const rules = "/spec/matchConstraints/resourceRules/0/resources";
    const resources = JSON.parse(
      await api.kubectl(
        "get",
        ...policy,
        "-o",
        "jsonpath={.spec.matchConstraints.resourceRules[0].resources}",
      ),
    );
    const patched = (value: readonly string[]) =>
      api.kubectl(
        "patch",
        ...policy,
        "--type=json",
        "-p",
        JSON.stringify([{ op: "replace", path: rules, value }]),
      );
    await patched(resources.filter((one: string) => one !== "pods/attach"));
    try {
      await until("False ExecOpen The way past the gateway by pods/attach is open in 1 namespace (closed)");
    } finally {
      await patched(resources);
    }
    await until("True ExecClosed");
    await api.kubectl("delete", "pres", "told", "-n", "access");
  });

  test("the operator binds that role to accounts of listed namespaces alone, and reads no key that it made", async () => {
    const own = await operatorKubeconfig();
    const as = (...words: readonly string[]) =>
      run(api.kubectl.program, ["--kubeconfig", own, ...words, "--dry-run=server"]);
    const make = (role: string, account: string) =>
      as("create", "clusterrolebinding", "x", `--clusterrole=${role}`, `--serviceaccount=${account}`);
    expect((await make("cluster-admin", "access:x")).stderr).toMatch(/forbidden/);
    expect((await make("sallyport-impersonator", "tenant:x")).stderr).toContain(
      "binds gateways of the listed",
    );
    expect((await make("sallyport-impersonator", "access:x")).code).toBe(0);
    expect((await as("delete", "clusterrolebinding", "root")).stderr).toContain(
      "binds gateways of the listed",
    );
    const read = ["get", "secrets", "-n", "tenant"];
    expect((await run(api.kubectl.program, ["--kubeconfig", own, ...read])).stderr).toContain("forbidden");
  });
});
