/** A gateway that the operator places before its own cluster's API server: kubectl with sallyport as credential plugin. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createKubectl, type Kubectl, run } from "../cluster/kubectl.ts";
import { postgresImageName } from "../image/postgres/image.ts";
import { LocalIssuer } from "../targets/tokens.ts";
import { accessPolicy, condition, install, localProvider } from "./installed.ts";
import { restrictedContainer, restrictedPod } from "./objects.ts";
import { openScenario } from "./scenario.ts";

const scenario = openScenario("placed-kubernetes");
const apps = openScenario("placed-kubernetes-apps", { "sallyport.dev/protect-exec": "true" });
const { namespace } = scenario;
const issuer = new LocalIssuer("placed-kubernetes", `sallyport:${namespace}/cluster`);
const prefix = "placed-kubernetes";
const sallyport = join(import.meta.dirname, "../../cli/bin/sallyport.mjs");
const values = `kubernetes.namespaces={${namespace}},kubernetes.impersonation.users={${prefix}:ana}`;

let folder = "";
let ana: Kubectl;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "sallyport-placed-kubernetes-"));
  await install(scenario.cluster, "--set", values);
  await scenario.cluster.kubectl.apply([localProvider(prefix, issuer, prefix)]);
  await scenario.apply(
    {
      apiVersion: "sallyport.dev/v1alpha1",
      kind: "ProtectedResource",
      metadata: { name: "cluster" },
      spec: {
        protocol: "kubernetes",
        endpoint: { host: "kubernetes.default.svc", port: 443 },
        tls: { upstream: { mode: "verify-full", caRef: { name: "own" } } },
        credentials: [{ name: "gateway", secretRef: { name: "own" } }],
        identity: { providers: [prefix] },
        options: { ownCluster: true },
      },
    },
    accessPolicy("operators", {
      resources: { names: ["cluster"] },
      subjects: [{ user: `${prefix}:ana` }],
      profile: "Admin",
      rules: [
        {
          name: "no-environment",
          match: { commands: ["pods/exec"], cel: '"env" in command.argv' },
          action: "Deny",
          message: "the environment is not shown",
        },
      ],
    }),
  );
  await apps.apply(
    {
      ...{ apiVersion: "v1", kind: "Pod", metadata: { name: "web" } },
      spec: {
        automountServiceAccountToken: false,
        securityContext: restrictedPod,
        terminationGracePeriodSeconds: 0,
        containers: [
          {
            name: "web",
            image: postgresImageName,
            imagePullPolicy: "Never",
            args: ["sleep", "86400"],
            securityContext: restrictedContainer,
          },
        ],
      },
    },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "RoleBinding",
      metadata: { name: "ana" },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "admin" },
      subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: `${prefix}:ana` }],
    } as never,
  );
  await scenario.ready("deployment/cluster-gateway");
  await apps.ready("pod/web");
  await condition(scenario, "protectedresource/cluster", "Ready", "True");
  ana = await contextOf();
  // The API server counts a new binding some moments after it was made.
  await scenario.eventually("the gateway to speak for people", async () => {
    const { code } = await ana.try(undefined, "auth", "whoami");
    return code === 0 || undefined;
  });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** What a person does: the bundle of authorities from the status, and one call of sallyport. */
async function contextOf(): Promise<Kubectl> {
  const [file, ca, token] = ["config", "ca.pem", "token"].map((name) => join(folder, name)) as [
    ...[string, string, string],
  ];
  const status = (path: string) =>
    scenario.kubectl("get", "protectedresource/cluster", "-o", `jsonpath={.status.${path}}`);
  await writeFile(ca, await status("caBundle"));
  await writeFile(token, issuer.token({ user: "ana" }), { mode: 0o600 });
  const address = await scenario.kubectl("get", "svc/cluster-gateway", "-o", "jsonpath={.spec.clusterIP}");
  const { code, stderr } = await run(process.execPath, [
    ...[sallyport, "kubeconfig", "--resource", `${namespace}/cluster`, "--server", `https://${address}:6443`],
    ...["--tls-server-name", `cluster-gateway.${namespace}.svc`, "--ca", ca, "--token-file", token],
    ...["--kubeconfig", file, "--folder", join(folder, "tokens"), "--namespace", apps.namespace],
    ...["--command", sallyport],
  ]);
  expect([code, stderr]).toEqual([0, ""]);
  return createKubectl(scenario.cluster.kubectl.program, file);
}

test("kubectl works by the credential plugin, as the person that the token names", async () => {
  expect(await ana("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")).toBe(`${prefix}:ana`);
  expect(await ana("get", "pods", "-o", "name")).toContain("pod/web");
  // RBAC goes on to decide: the gateway's own account is never who asks.
  const { stderr } = await ana.try(undefined, "get", "pods", "-n", "kube-system");
  expect(stderr).toContain(`User "${prefix}:ana" cannot list`);
});

test("exec is decided at the gateway, and runs where the way around it is closed", async () => {
  const allowed = await ana.try(undefined, "exec", "web", "--", "id", "-u");
  expect(allowed).toEqual({ code: 0, stdout: "999\n", stderr: "" });
  const denied = await ana.try(undefined, "exec", "web", "--", "env");
  expect(denied.code).not.toBe(0);
  expect(denied.stderr).toContain("the environment is not shown");
  const around = await apps.exec("web", "true");
  expect(around.code).not.toBe(0);
  expect(around.stderr).toContain("connect through the Sallyport gateway");
});

test("the gateway's account reads nothing for itself", async () => {
  const as = `--as=system:serviceaccount:${namespace}:cluster-gateway`;
  for (const what of ["secrets", "configmaps", "pods"]) {
    const argv = ["get", what, "-n", apps.namespace, as];
    expect((await scenario.cluster.kubectl.try(undefined, ...argv)).stderr).toContain("Forbidden");
  }
});

test("nobody steps into the gateway's pods", async () => {
  const { code, stderr } = await scenario.exec("deployment/cluster-gateway", "true");
  expect(code).not.toBe(0);
  expect(stderr).toContain("holds a gateway");
});

test("without the resource the account speaks for nobody", async () => {
  await scenario.kubectl("delete", "protectedresource", "cluster", "--timeout=30s");
  await scenario.eventually("the binding to go", async () => {
    const argv = ["get", "clusterrolebindings", "-l", "sallyport.dev/impersonation", "-o", "name"];
    return (await scenario.cluster.kubectl(...argv)) === "" || undefined;
  });
});
