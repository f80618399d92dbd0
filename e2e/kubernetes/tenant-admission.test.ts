/** What admission keeps from who may do everything in a namespace, or with one: on a real API server without a node. */
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { type Kubectl, run } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { helmProgram } from "../cluster/programs.ts";

const root = join(import.meta.dirname, "../..");
const systemNamespace = "sallyport-system";
const namespace = "team";
const guarded = ["sallyport.dev/protection", "sallyport.dev/protect-exec"] as const;

let api: ApiServer;
/** Somebody with every right, and no break-glass. */
let admin: Kubectl;
let rescuer: Kubectl;
/** Somebody with every right in the namespace. */
let tenant: Kubectl;

beforeAll(async () => {
  api = await startApiServer({ controllerManager: true });
  for (const kind of ["protectedresources", "sessions"])
    await api.kubectl("apply", "--server-side", "-f", join(root, `crds/${kind}.yaml`));
  await api.kubectl("wait", "--for=condition=Established", "crd", "--all");
  const rendered = await run(await helmProgram(), [
    ...["template", "sallyport", join(root, "charts/sallyport"), "--namespace", systemNamespace],
    ...["-s", "templates/admission.yaml", "-s", "templates/exec.yaml"],
  ]);
  expect(rendered.stderr).toBe("");
  const labels = { "sallyport.dev/protection": "enabled", "sallyport.dev/protect-exec": "true" };
  await api.kubectl.apply([{ apiVersion: "v1", kind: "Namespace", metadata: { name: namespace, labels } }]);
  await api.kubectl.apply(rendered.stdout);
  const rbac = "rbac.authorization.k8s.io";
  const everything = [{ apiGroups: ["*"], resources: ["*"], verbs: ["*"] }];
  const user = (name: string) => ({ apiGroup: rbac, kind: "User", name });
  await api.kubectl.apply([
    {
      ...{ apiVersion: `${rbac}/v1`, kind: "ClusterRoleBinding", metadata: { name: "admins" } },
      roleRef: { apiGroup: rbac, kind: "ClusterRole", name: "cluster-admin" },
      subjects: [user("admin"), user("rescuer")],
    },
    {
      ...{ apiVersion: `${rbac}/v1`, kind: "Role", metadata: { name: "everything", namespace } },
      rules: everything,
    },
    {
      ...{ apiVersion: `${rbac}/v1`, kind: "RoleBinding", metadata: { name: "everything", namespace } },
      roleRef: { apiGroup: rbac, kind: "Role", name: "everything" },
      subjects: [user("tenant")],
    },
  ]);
  [admin, rescuer, tenant] = await Promise.all([
    api.user("admin", []),
    api.user("rescuer", ["sallyport:break-glass"]),
    api.user("tenant", []),
  ]);
  // Policies bind some moments after they were made.
  await waitFor("the policies to bind", async () => {
    const tries = guarded.map((label) =>
      admin.try(undefined, "label", "ns", namespace, `${label}-`, "--dry-run=server"),
    );
    const made = await tenant.try(JSON.stringify(session), "create", "--dry-run=server", "-f", "-");
    const told = [...(await Promise.all(tries)), made].map(({ stderr }) => stderr);
    return told.every((text) => /can take the label|only the operator/.test(text)) || undefined;
  });
});
afterAll(() => api?.close());

const session = {
  ...{ apiVersion: "sallyport.dev/v1alpha1", kind: "Session", metadata: { name: "s", namespace } },
  spec: {
    sessionId: "s",
    resource: "orders",
    protocol: "postgres",
    subject: { user: "okta:alice", kind: "Human" },
    startedAt: "2026-01-01T00:00:00Z",
  },
};

test.each(guarded.flatMap((label) => ["status", "finalize"].map((way) => [label, way] as const)))(
  "the label %s is not taken away by the namespace's %s either",
  async (label, way) => {
    const found = await api.kubectl.json<{ metadata: { labels: Record<string, string> } }>("ns", namespace);
    const { [label]: _, ...labels } = found.metadata.labels;
    const without = JSON.stringify({ ...found, metadata: { ...found.metadata, labels } });
    const path = `/api/v1/namespaces/${namespace}/${way}?dryRun=All`;
    const { code, stderr } = await admin.try(without, "replace", "--raw", path, "-f", "-");
    expect([code, stderr]).toEqual([1, expect.stringContaining("only the break-glass group can take")]);
    const same = JSON.stringify(found);
    expect(await admin.try(same, "replace", "--raw", path, "-f", "-")).toMatchObject({ code: 0 });
    expect(await rescuer.try(without, "replace", "--raw", path, "-f", "-")).toMatchObject({ code: 0 });
  },
);

test("a debugging container gets no token of the gateways' audience", async () => {
  const token = { serviceAccountToken: { audience: "control.sallyport.dev", path: "token" } };
  const pod = {
    ...{ apiVersion: "v1", kind: "Pod", metadata: { name: "web", namespace: "default" } },
    spec: {
      containers: [{ name: "web", image: "web" }],
      automountServiceAccountToken: false,
      volumes: [
        { name: "token", projected: { sources: [token] } },
        { name: "tmp", emptyDir: {} },
      ],
    },
  };
  await api.kubectl.apply([pod]);
  const debug = (volume: string) =>
    admin.try(
      undefined,
      ...["patch", "pod", "web", "-n", "default", "--subresource=ephemeralcontainers", "--dry-run=server"],
      "-p",
      JSON.stringify({
        spec: {
          ephemeralContainers: [
            { name: "debug", image: "x", volumeMounts: [{ name: volume, mountPath: "/x" }] },
          ],
        },
      }),
    );
  expect(await debug("tmp")).toMatchObject({ code: 0 });
  const { code, stderr } = await debug("token");
  expect([code, stderr]).toEqual([1, expect.stringContaining("mounted in the gateway alone")]);
});

test("what clients believe of a resource is written by the operator alone", async () => {
  const resource = {
    ...{ apiVersion: "sallyport.dev/v1alpha1", kind: "ProtectedResource" },
    metadata: { name: "orders", namespace },
    spec: {
      protocol: "postgres",
      endpoint: { host: "db.example.com", port: 5432 },
      credentials: [{ name: "app", secretRef: { name: "app" } }],
      identity: { providers: [] },
    },
  };
  expect(await tenant.try(JSON.stringify(resource), "create", "-f", "-")).toMatchObject({ code: 0 });
  const patch = JSON.stringify({ status: { address: "mine.example.com:5432", caBundle: "mine" } });
  const { code, stderr } = await tenant.try(
    undefined,
    ...["patch", "protectedresource", "orders", "-n", namespace],
    ...["--subresource=status", "--type=merge", "-p", patch],
  );
  expect([code, stderr]).toEqual([1, expect.stringContaining("only the operator writes this")]);
});
