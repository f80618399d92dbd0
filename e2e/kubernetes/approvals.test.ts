/**
 * A held ALTER TABLE, from psql's side to `kubectl patch`: the chart's operator with its own rights on a real API server, a
 * real gateway that it placed (run beside, with the token of its pod), a real PostgreSQL.
 */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { type Kubectl, run } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { type GatewayProcess, spawnGateway } from "../targets/gateway.ts";
import { startOperator, systemNamespace, type TestOperator, testImage } from "../targets/operator.ts";
import { freePort, type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { LocalIssuer } from "../targets/tokens.ts";

const chart = join(import.meta.dirname, "../../charts/sallyport");
const namespace = "shop";
const [repository, digest] = testImage.split("@") as [string, string];
const issuer = new LocalIssuer("sallyport-test", `sallyport:${namespace}/orders`);
const users: Record<"alice" | "bob" | "carol", Kubectl> = {} as typeof users;

let api: ApiServer;
let server: PostgresServer;
let operator: TestOperator;
let gateway: GatewayProcess;
let folder: string;
let port: number;
let pod = "";

beforeAll(async () => {
  [api, server] = await Promise.all([
    startApiServer({ controllerManager: true }),
    startPostgres({ tls: false, initSql: "CREATE TABLE orders (n int)" }),
  ]);
  folder = await mkdtemp(join(tmpdir(), "sallyport-approvals-"));
  const helm = await run(join(api.bin, "helm"), [
    ...["--kubeconfig", api.kubeconfig, "--namespace", systemNamespace],
    ...["install", "sallyport", chart, "--create-namespace"],
    ...["--set", `image.repository=${repository},image.digest=${digest}`],
  ]);
  expect(helm.code, helm.stderr).toBe(0);
  await api.kubectl("wait", "--for=condition=Established", "crd", "--all");
  operator = await startOperator({ kubeconfig: await operatorKubeconfig() });
  await api.kubectl.apply([
    { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } },
    service,
    provider,
    resource,
    policy("prod", 2),
    ...approvers,
  ]);
  users.alice = await api.user("alice@example.com", ["okta:dba"]);
  users.bob = await api.user("bob@example.com", ["okta:dba"]);
  users.carol = await api.user("carol@example.com", ["okta:dba"]);
  pod = await waitFor("a gateway's pod", async () => {
    const selected = ["pod", "-n", namespace, "-l", "sallyport.dev/gateway", "-o", "name"];
    const names = (await api.kubectl("get", ...selected)).trim().split("\n");
    return names[0] || undefined;
  });
  gateway = await startGateway();
}, 240_000);
afterAll(async () => {
  await gateway?.stop();
  await operator?.stop();
  await api?.close();
  await server?.stop();
  await rm(folder, { recursive: true, force: true });
}, 60_000);

test("runs once two people have patched it, and not before; nobody may who asks", async () => {
  const { client, notices } = await connect();
  const altered = client.query("ALTER TABLE orders ADD COLUMN note text");
  altered.catch(() => undefined);
  const name = await heldName(notices);
  await waitFor("the request to be validated", async () => {
    const conditions = await approval(name);
    return conditions.status?.conditions?.some(
      ({ type, status }) => type === "Validated" && status === "True",
    );
  });
  const { spec } = await approval(name);
  expect(spec.request).toMatchObject({
    type: "Statement",
    requester: "alice@example.com",
    command: "ALTER TABLE orders ADD COLUMN note text",
    policies: [{ policy: "prod", rule: "schema", required: 2 }],
  });
  const own = await patch(users.alice, name, "alice@example.com");
  expect(own.stderr).toContain("you cannot decide your own request");
  expect(await patch(users.bob, name, "bob@example.com")).toMatchObject({ code: 0 });
  await waitFor("one of two", async () => (await approval(name)).status?.progress === "1/2" || undefined);
  expect(await hasColumn("note")).toBe(false);
  expect(await patch(users.carol, name, "carol@example.com")).toMatchObject({ code: 0 });
  expect((await altered).command).toBe("ALTER");
  expect(await hasColumn("note")).toBe(true);
  await waitFor("Used", async () => (await approval(name)).status?.phase === "Used" || undefined);
  await client.end();
});

test("one denial ends it, and its comment reaches the client", async () => {
  const { client, notices } = await connect();
  const altered = client.query("ALTER TABLE orders ADD COLUMN denied text").catch((error: unknown) => error);
  const name = await heldName(notices);
  await validated(name);
  const value = { approver: "bob@example.com", decision: "Denied", comment: "not today" };
  const denied = await append(users.bob, name, value);
  expect(denied, denied.stderr).toMatchObject({ code: 0 });
  expect(await altered).toMatchObject({
    code: "42501",
    message: expect.stringContaining("denied by bob@example.com: not today"),
  });
  expect(await hasColumn("denied")).toBe(false);
  await client.end();
});

test("whoever leaves cancels it, and it cannot be approved any more", async () => {
  const { client, notices } = await connect();
  client.query("ALTER TABLE orders ADD COLUMN gone text").catch(() => undefined);
  const name = await heldName(notices);
  await validated(name);
  await client.end();
  await waitFor("Cancelled", async () => (await approval(name)).status?.phase === "Cancelled" || undefined);
  expect((await patch(users.bob, name, "bob@example.com")).stderr).toContain("no longer pending");
  expect(await hasColumn("gone")).toBe(false);
});

test("the hold survives an operator that is started again", async () => {
  const { client, notices } = await connect();
  const altered = client.query("ALTER TABLE orders ADD COLUMN again text");
  altered.catch(() => undefined);
  const name = await heldName(notices);
  await validated(name);
  const { SALLYPORT_CONTROL_PORT, SALLYPORT_WEBHOOK_PORT } = ports();
  await operator.stop();
  operator = await startOperator(
    { kubeconfig: join(api.folder, "operator.kubeconfig") },
    { SALLYPORT_CONTROL_PORT, SALLYPORT_WEBHOOK_PORT },
  );
  expect(await patch(users.bob, name, "bob@example.com")).toMatchObject({ code: 0 });
  expect(await patch(users.carol, name, "carol@example.com")).toMatchObject({ code: 0 });
  expect((await altered).command).toBe("ALTER");
  await client.end();
}, 120_000);

test("where the gateway's pod is gone, what it held is cancelled", async () => {
  const { client, notices } = await connect();
  client.on("error", () => undefined);
  const altered = client.query("ALTER TABLE orders ADD COLUMN lost text").catch((error: unknown) => error);
  const name = await heldName(notices);
  await validated(name);
  await gateway.kill9();
  await api.kubectl("-n", namespace, "delete", pod, "--force", "--grace-period=0");
  await waitFor("Cancelled", async () => (await approval(name)).status?.phase === "Cancelled" || undefined);
  expect(await altered).toBeInstanceOf(Error);
  expect(await hasColumn("lost")).toBe(false);
});

interface Observed {
  readonly spec: { readonly request: object };
  readonly status?: {
    readonly phase?: string;
    readonly progress?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

const approval = (name: string) => api.kubectl.json<Observed>("approval", name, "-n", namespace);
const validated = (name: string) =>
  waitFor("the request to be validated", async () => {
    const { status } = await approval(name);
    return (
      status?.conditions?.some(({ type, status: is }) => type === "Validated" && is === "True") || undefined
    );
  });
const append = (who: Kubectl, name: string, value: object) =>
  who.try(
    undefined,
    ...["-n", namespace, "patch", "approval", name, "--type=json", "-p"],
    JSON.stringify([{ op: "add", path: "/spec/decisions/-", value }]),
  );
const patch = (who: Kubectl, name: string, approver: string) =>
  append(who, name, { approver, decision: "Approved" });

async function hasColumn(column: string): Promise<boolean> {
  const sql = `SELECT 1 FROM information_schema.columns WHERE column_name = '${column}'`;
  return (await server.query(sql)).length > 0;
}

async function connect() {
  const client = new pg.Client({
    host: "127.0.0.1",
    port,
    user: "main",
    database: server.database,
    password: issuer.token({ user: "alice", groups: ["dev"], claims: { mail: "alice@example.com" } }),
    ssl: { rejectUnauthorized: false },
  });
  const notices: string[] = [];
  client.on("notice", ({ message = "" }) => notices.push(message));
  await client.connect();
  return { client, notices };
}

const heldName = (notices: readonly string[]) =>
  waitFor("the notice", async () => /^held for approval (\S+):/.exec(notices[0] ?? "")?.[1]);

const ports = () => ({
  SALLYPORT_CONTROL_PORT: String(operator.configuration.controlPort),
  SALLYPORT_WEBHOOK_PORT: String(operator.configuration.webhookPort),
});

/** The gateway as its pod would run it; names of the cluster lead to this machine. */
async function startGateway(): Promise<GatewayProcess> {
  port = await freePort();
  const control = `sallyport-control.${systemNamespace}.svc:${operator.configuration.controlPort}`;
  const account = (
    await api.kubectl("-n", namespace, "get", pod, "-o", "jsonpath={.spec.serviceAccountName}")
  ).trim();
  const token = await api.kubectl(
    ...["--as", "kubelet", "--as-group", "system:masters", "--as-group", "system:nodes"],
    ...["-n", namespace, "create", "token", account, "--audience=control.sallyport.dev"],
    ...["--bound-object-kind=Pod", `--bound-object-name=${pod.replace("pod/", "")}`],
  );
  await writeFile(join(folder, "token"), token.trim());
  const bundle = await api.kubectl.json<{ readonly data: Readonly<Record<string, string>> }>(
    ...["configmap", "orders-gateway-ca", "-n", namespace],
  );
  await writeFile(join(folder, "ca.crt"), Object.values(bundle.data).join("\n"));
  const secret = join(folder, "secrets/orders");
  await mkdir(secret, { recursive: true });
  await writeFile(join(secret, "username"), server.superuser);
  await writeFile(join(secret, "password"), server.password);
  const resolver = `import dns from "node:dns"; const real = dns.lookup; dns.lookup = (host, options, done) =>
    real(host.endsWith(".svc") ? "127.0.0.1" : host, options, done);`;
  return spawnGateway({
    configDir: folder,
    stateDir: join(folder, "state"),
    port,
    environment: { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(resolver)}` },
    args: [
      ...["--secrets", join(folder, "secrets"), "--control", control],
      ...["--control-ca", join(folder, "ca.crt"), "--control-token", join(folder, "token")],
      ...["--resource", `${namespace}/orders`, "--listen-port", String(port)],
      ...["--upstream", `127.0.0.1:${server.port}`, "--drain", "1"],
    ],
  });
}

async function operatorKubeconfig(): Promise<string> {
  const token = await api.serviceAccountToken(systemNamespace, "sallyport-operator");
  const path = join(api.folder, "operator.kubeconfig");
  const ca = Buffer.from(api.caPem).toString("base64");
  const config = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "c", cluster: { server: api.url, "certificate-authority-data": ca } }],
    users: [{ name: "u", user: { token } }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u", namespace: systemNamespace } }],
    "current-context": "x",
  };
  await writeFile(path, JSON.stringify(config), { mode: 0o600 });
  return path;
}

const ours = "sallyport.dev/v1alpha1";
const service = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "orders-db", namespace },
  spec: { selector: { app: "orders-db" }, ports: [{ port: 5432 }] },
};
const provider = {
  apiVersion: ours,
  kind: "IdentityProvider",
  metadata: { name: "local" },
  spec: {
    type: "local",
    prefix: "local:",
    local: { issuer: "sallyport-test", publicKeys: [issuer.publicKeyPem] },
    kubernetesUsername: "claims.mail",
  },
};
const resource = {
  apiVersion: ours,
  kind: "ProtectedResource",
  metadata: { name: "orders", namespace },
  spec: {
    protocol: "postgres",
    endpoint: { serviceRef: { name: "orders-db", port: 5432 } },
    tls: { upstream: { mode: "disable" } },
    credentials: [{ name: "main", secretRef: { name: "orders" } }],
    identity: { providers: ["local"] },
    recording: { mode: "BestEffort" },
  },
};
const policy = (name: string, required: number) => ({
  apiVersion: ours,
  kind: "AccessPolicy",
  metadata: { name, namespace },
  spec: {
    resources: { names: ["orders"] },
    subjects: [{ group: "local:dev" }],
    profile: "Admin",
    rules: [
      {
        name: "schema",
        match: { operations: ["define"], objects: ["public.*"] },
        action: "RequireApproval",
        approval: { required, timeout: "2m" },
      },
    ],
  },
});
const rbac = { apiVersion: "rbac.authorization.k8s.io/v1", metadata: { name: "dba", namespace } };
const approvers = [
  {
    ...rbac,
    kind: "RoleBinding",
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "sallyport-approver" },
    subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "Group", name: "okta:dba" }],
  },
];
