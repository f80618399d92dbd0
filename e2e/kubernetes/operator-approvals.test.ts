/**
 * Approvals as a user has them: the chart on the live cluster with two operators, two gateways that they placed, psql in a
 * pod, and people who decide with `kubectl patch`.
 */
import { beforeAll, expect, test } from "vitest";
import type { Kubectl } from "../cluster/kubectl.ts";
import { LocalIssuer } from "../targets/tokens.ts";
import {
  accessPolicy,
  condition,
  gatewayAddresses,
  install,
  localProvider,
  protectedResource,
  systemNamespace,
} from "./installed.ts";
import { clientPod, database } from "./objects.ts";
import { openScenario } from "./scenario.ts";

const scenario = openScenario("operator-approvals");
const { namespace, kubectl, eventually } = scenario;
const issuer = new LocalIssuer("operator-approvals", `sallyport:${namespace}/orders`);
const service = `orders-gateway.${namespace}.svc`;
const manyHolds = scenario.full ? 200 : 40;
const decisionsTimed = scenario.full ? 60 : 10;

interface Approval {
  readonly metadata: { readonly name: string; readonly labels: Readonly<Record<string, string>> };
  readonly spec: { readonly request: { readonly command: string } };
  readonly status?: {
    readonly phase?: string;
    readonly progress?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

const people = {} as Record<"alice" | "bob" | "carol" | "argo", Kubectl>;
const argo = `system:serviceaccount:${namespace}:argo`;

const asking = (name: string, operation: string, table: string, required: number) => ({
  name,
  match: { operations: [operation], objects: [table] },
  action: "RequireApproval",
  approval: { required, timeout: "5m" },
});

beforeAll(async () => {
  const { cluster } = scenario;
  await install(cluster);
  const provider = localProvider("operator-approvals", issuer, "operator-approvals");
  const spec = { ...(provider.spec as object), kubernetesUsername: "claims.mail" };
  await cluster.kubectl.apply([{ ...provider, spec }]);
  await scenario.apply(
    ...database("orders", "ALTER SYSTEM SET max_connections = 500; CREATE TABLE orders (n int);"),
    protectedResource("orders", "operator-approvals", { placement: { mode: "Shared", replicas: 2 } }),
    accessPolicy("prod", {
      resources: { names: ["orders"] },
      subjects: [{ group: "operator-approvals:dev" }],
      profile: "Admin",
      rules: [asking("schema", "define", "public.*", 2), asking("writes", "write", "public.orders", 1)],
      limits: { concurrentSessions: 500 },
    }),
    {
      ...{ apiVersion: "rbac.authorization.k8s.io/v1", kind: "RoleBinding" },
      metadata: { name: "approvers" },
      roleRef: {
        apiGroup: "rbac.authorization.k8s.io",
        kind: "ClusterRole",
        name: "sallyport-approver",
      },
      subjects: [
        { apiGroup: "rbac.authorization.k8s.io", kind: "Group", name: "okta:dba" },
        { kind: "ServiceAccount", name: "argo", namespace },
      ],
    },
    clientPod("client", { ca: "orders-gateway-ca" }),
  );
  for (const name of ["alice", "bob", "carol"] as const)
    people[name] = await cluster.user(`${name}@example.com`, ["okta:dba"]);
  people.argo = await cluster.user(argo, ["system:serviceaccounts"]);
  await scenario.ready("statefulset/orders", "deployment/orders-gateway", "pod/client");
  await condition(scenario, "protectedresource/orders", "Ready", "True");
  await condition(scenario, "protectedresource/orders", "ApprovalsGuarded", "True");
  await scenario.reachable("client", service, 5432);
});

const token = () => issuer.token({ user: "alice", groups: ["dev"], claims: { mail: "alice@example.com" } });
const target = (address = "") =>
  `host=${service} user=main dbname=postgres sslmode=verify-full sslrootcert=/ca/ca.crt ` +
  `connect_timeout=10 password=${token()}${address && ` hostaddr=${address}`}`;
const psql = (sql: string, address?: string) =>
  scenario.exec("client", "psql", target(address), "-X", "-At", "-v", "VERBOSITY=verbose", "-c", sql);

const approvals = async () =>
  (await kubectl.json<{ readonly items: readonly Approval[] }>("approvals")).items;
const isReady = ({ status }: Approval) =>
  status?.phase === "Pending" &&
  status.conditions?.some(({ type, status: is }) => type === "Validated" && is === "True") === true;

/** The request for a command, once it can be decided. */
const requestFor = (command: string) =>
  eventually(`the request for ${command}`, async () =>
    (await approvals()).find((one) => one.spec.request.command === command && isReady(one)),
  );
const phaseOf = (name: string, phase: string) =>
  eventually(`${name} to be ${phase}`, async () => {
    const found = await kubectl.json<Approval>("approval", name);
    return found.status?.phase === phase ? found : undefined;
  });
const decide = (who: Kubectl, names: readonly string[], value: object) => {
  const patch = JSON.stringify([{ op: "add", path: "/spec/decisions/-", value }]);
  return who.try(undefined, "-n", namespace, "patch", "approval", ...names, "--type=json", "-p", patch);
};
const approve = (person: "alice" | "bob" | "carol", ...names: readonly string[]) =>
  decide(people[person], names, { approver: `${person}@example.com`, decision: "Approved" });
const done = { code: 0 };

/** Whether the table has the column, as the database says. */
const hasColumn = async (column: string) => {
  const sql = `SELECT count(*) FROM information_schema.columns WHERE column_name = '${column}'`;
  // A Service leads to a gateway that ends for a moment longer.
  const count = await eventually("the database's answer", async () => {
    const { code, stdout } = await psql(sql);
    return code === 0 ? stdout : undefined;
  });
  return count === "1\n";
};

/** Deletes operators' pods, and does not wait until others have taken their place. */
async function deleteOperators(count: number): Promise<void> {
  const inSystem = ["-n", systemNamespace];
  const selected = ["pods", ...inSystem, "-l", "app.kubernetes.io/component=operator", "-o", "name"];
  const pods = (await scenario.cluster.kubectl("get", ...selected)).trim().split("\n");
  await scenario.cluster.kubectl("delete", ...inSystem, ...pods.slice(0, count), "--wait=false");
}

test("a held ALTER TABLE runs once two people have patched it, none of them who asked nor a machine", async () => {
  const sql = "ALTER TABLE orders ADD COLUMN note text";
  const altered = psql(sql);
  const { name } = (await requestFor(sql)).metadata;
  const own = await approve("alice", name);
  expect(own).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("you cannot decide your own request"),
  });
  const machine = await decide(people.argo, [name], { approver: argo, decision: "Approved" });
  expect(machine.stderr).toContain("service accounts cannot decide");
  expect(await approve("bob", name)).toMatchObject(done);
  await eventually("one of two", async () => {
    const { status } = await kubectl.json<Approval>("approval", name);
    return status?.progress === "1/2" || undefined;
  });
  expect(await hasColumn("note")).toBe(false);
  const row = (await people.bob("-n", namespace, "get", "approvals", name, "--no-headers")).split(/\s+/);
  expect(row.slice(0, 6)).toEqual([name, "alice@example.com", "orders", "Statement", "Pending", "1/2"]);
  const flags = ["--for=condition=Approved", "--timeout=60s"];
  const waited = people.bob.try(undefined, "-n", namespace, "wait", `approval/${name}`, ...flags);
  expect(await approve("carol", name)).toMatchObject(done);
  expect(await waited).toMatchObject({ code: 0, stdout: expect.stringContaining("condition met") });
  const { code, stdout, stderr } = await altered;
  expect({ code, stdout }, stderr).toEqual({ code: 0, stdout: "ALTER TABLE\n" });
  expect(stderr).toContain(`held for approval ${name}`);
  expect(stderr).toContain(`kubectl -n ${namespace} patch approval ${name} --type=json`);
  expect(await hasColumn("note")).toBe(true);
  await phaseOf(name, "Used");
});

test("a denial and its comment reach psql, and the table stays as it was", async () => {
  const sql = "ALTER TABLE orders ADD COLUMN denied text";
  const altered = psql(sql);
  const { name } = (await requestFor(sql)).metadata;
  const value = { approver: "bob@example.com", decision: "Denied", comment: "not on a Friday" };
  expect(await decide(people.bob, [name], value)).toMatchObject(done);
  const { code, stderr } = await altered;
  expect(code).toBe(1);
  expect(stderr).toMatch(/ERROR: +42501: .*denied by bob@example.com: not on a Friday/);
  expect(await hasColumn("denied")).toBe(false);
});

test("what a gateway's pod held is Cancelled when it is deleted, and never runs; the other pod's hold goes on", async () => {
  interface Pods {
    readonly items: readonly {
      readonly metadata: { readonly name: string; readonly uid: string };
      readonly status: { readonly podIP: string };
    }[];
  }
  const { items } = await kubectl.json<Pods>("pods", "-l", "sallyport.dev/gateway=orders");
  const [lost, kept] = items;
  if (lost === undefined || kept === undefined) throw new Error("there are not two gateways");
  const [lostSql, keptSql] = ["lost", "kept"].map((name) => `ALTER TABLE orders ADD COLUMN ${name} text`);
  const [losing, keeping] = [psql(lostSql ?? "", lost.status.podIP), psql(keptSql ?? "", kept.status.podIP)];
  const first = await requestFor(lostSql ?? "");
  const second = await requestFor(keptSql ?? "");
  expect(first.metadata.labels["sallyport.dev/gateway-pod"]).toBe(lost.metadata.uid);
  expect(await approve("bob", first.metadata.name, second.metadata.name)).toMatchObject(done);
  await kubectl("delete", "pod", lost.metadata.name, "--wait=false");
  expect((await losing).code).not.toBe(0);
  await phaseOf(first.metadata.name, "Cancelled");
  const late = await approve("carol", first.metadata.name);
  expect(late.stderr).toContain("no longer pending: it is Cancelled");
  expect(await approve("carol", second.metadata.name)).toMatchObject(done);
  expect((await keeping).stdout).toBe("ALTER TABLE\n");
  expect(await hasColumn("lost")).toBe(false);
  expect(await hasColumn("kept")).toBe(true);
  await scenario.ready("deployment/orders-gateway");
  // It listens before it has its policy.
  for (const address of await gatewayAddresses(scenario, "orders"))
    await eventually(`the gateway at ${address} to serve`, async () => {
      return (await psql("SELECT 1", address)).code === 0 || undefined;
    });
});

test("a hold survives that both operators are deleted meanwhile", async () => {
  const sql = "ALTER TABLE orders ADD COLUMN survived text";
  const altered = psql(sql);
  const { name } = (await requestFor(sql)).metadata;
  expect(await approve("bob", name)).toMatchObject(done);
  await deleteOperators(2);
  // Decided while nobody is there, or by then again: it counts once somebody is.
  expect(await approve("carol", name)).toMatchObject(done);
  expect((await altered).stdout).toBe("ALTER TABLE\n");
  expect(await hasColumn("survived")).toBe(true);
});

test("of two approvers who disagree at once either counts, and the statement goes by the same", async () => {
  const rounds = 6;
  const sqlOf = (n: number) => `INSERT INTO orders (n) VALUES (${-n})`;
  for (let n = 1; n <= rounds; n += 1) {
    const inserted = psql(sqlOf(n));
    const { name } = (await requestFor(sqlOf(n))).metadata;
    const denial = { approver: "carol@example.com", decision: "Denied" };
    await Promise.all([approve("bob", name), decide(people.carol, [name], denial)]);
    const { stdout, stderr } = await inserted;
    const hasRun = stdout === "INSERT 0 1\n";
    if (!hasRun) expect(stderr).toMatch(/42501: .* was denied by carol@example\.com/);
    await phaseOf(name, hasRun ? "Used" : "Denied");
    expect((await psql(`SELECT count(*) FROM orders WHERE n = ${-n}`)).stdout).toBe(hasRun ? "1\n" : "0\n");
  }
});

test("a decision lets its statement run, and how long that took is told", async () => {
  const times: { readonly asked: number; readonly answered: number; readonly ran: number }[] = [];
  for (let at = 1; at <= decisionsTimed; at += 1) {
    const sql = `INSERT INTO orders VALUES (-${at}) RETURNING 'at ' || extract(epoch FROM clock_timestamp())`;
    const answer = psql(sql);
    const { name } = (await requestFor(sql)).metadata;
    const asked = Date.now();
    expect(await approve("bob", name)).toMatchObject(done);
    const answered = Date.now();
    const ran = Number(/^at ([0-9.]+)$/m.exec((await answer).stdout)?.[1]) * 1_000;
    expect(ran).toBeGreaterThan(asked);
    times.push({ asked, answered, ran });
  }
  // kubectl takes a while to start, and the statement may run before it has ended: the truth lies between.
  const p95 = (since: "asked" | "answered") => {
    const sorted = times.map((one) => one.ran - one[since]).toSorted((a, b) => a - b);
    return sorted[Math.ceil(sorted.length * 0.95) - 1]?.toFixed(0);
  };
  console.log(`decision to run, p95 of ${times.length}: ${p95("answered")} to ${p95("asked")} ms`);
}, 300_000);

test(`of ${manyHolds} holds at once on both gateways each gets its own outcome, once`, async () => {
  const script =
    'for n in $(seq "$1"); do host=$2; [ $((n % 2)) = 0 ] || host=$3; ' +
    'psql "$0 hostaddr=$host" -X -At -v VERBOSITY=verbose -c "INSERT INTO orders (n) VALUES ($n)" ' +
    '>"/tmp/many-$n" 2>&1 & done; wait; ' +
    'for n in $(seq "$1"); do echo "$n $(grep -oE "^INSERT 0 1|ERROR: .*" "/tmp/many-$n")"; done';
  const addresses = await gatewayAddresses(scenario, "orders");
  expect(addresses).toHaveLength(2);
  const argv = ["sh", "-c", script, target(), String(manyHolds), ...addresses];
  const all = scenario.exec("client", ...argv);
  const numberOf = ({ spec }: Approval) => Number(/VALUES \((\d+)\)$/.exec(spec.request.command)?.[1]);
  const held = await eventually(
    "all to be held",
    async () => {
      const open = (await approvals()).filter(isReady);
      return open.length === manyHolds ? open.toSorted((a, b) => numberOf(a) - numberOf(b)) : undefined;
    },
    { ms: scenario.full ? 180_000 : 60_000 },
  );
  const isDenied = (n: number) => n % 4 === 0;
  const names = (these: readonly Approval[], denied: boolean) =>
    these.filter((one) => isDenied(numberOf(one)) === denied).map(({ metadata }) => metadata.name);
  const half = manyHolds / 2;
  for (const [at, these] of [held.slice(0, half), held.slice(half)].entries()) {
    expect(await approve("bob", ...names(these, false))).toMatchObject(done);
    const denial = { approver: "carol@example.com", decision: "Denied" };
    expect(await decide(people.carol, names(these, true), denial)).toMatchObject(done);
    // One of the two goes in the middle: its gateways turn to the other and find what they asked for.
    if (at === 0) await deleteOperators(1);
  }
  const { stdout } = await all;
  const wanted = Array.from({ length: manyHolds }, (_, at) => at + 1);
  const outcomes = stdout.trim().split("\n");
  const denied = /ERROR: +42501: .* was denied by carol@example\.com$/;
  expect(outcomes.map((line) => line.replace(denied, "denied"))).toEqual(
    wanted.map((n) => `${n} ${isDenied(n) ? "denied" : "INSERT 0 1"}`),
  );
  const rows = await psql("SELECT n FROM orders WHERE n > 0 ORDER BY n");
  expect(rows.stdout.trim().split("\n").map(Number)).toEqual(wanted.filter((n) => !isDenied(n)));
}, 300_000);

test("a namespace with open and decided Approvals goes, and what was held in it with it", async () => {
  const sql = "ALTER TABLE orders ADD COLUMN never text";
  const altered = psql(sql);
  const { name } = (await requestFor(sql)).metadata;
  expect(await approve("bob", name)).toMatchObject(done);
  await scenario.cluster.kubectl("delete", "namespace", namespace, "--timeout=90s");
  expect((await altered).code).not.toBe(0);
});
