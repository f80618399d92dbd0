/**
 * Held commands and windows from the client's side to `kubectl patch`: the chart's operator with its own rights on a real API
 * server, a real gateway that it placed, a real PostgreSQL. The numbers are those of the cases for PostgreSQL, G.
 */
import { execFile, spawn } from "node:child_process";
import { promisify } from "node:util";
import type { Session } from "@sallyport/crds";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Kubectl } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { ApprovalCluster, approvalNamespace, approvalPolicy, asking } from "../targets/approval-cluster.ts";
import { sallyportCommand } from "../targets/gateway.ts";

const tables = ["orders", "windowed", "shared", "edited", "secrets", "glass"];
const windowed = { required: 2, timeout: "10m", grant: "Window", window: "1h" };
const clusterRole = { apiVersion: "rbac.authorization.k8s.io/v1", kind: "ClusterRole" };
/** Approves under the policy `floor` alone. */
const floorApprovers = [
  {
    ...clusterRole,
    metadata: { name: "floor-approvers" },
    rules: [
      { apiGroups: ["sallyport.dev"], resources: ["approvals"], verbs: ["get", "list", "patch"] },
      {
        apiGroups: ["sallyport.dev"],
        resources: ["accesspolicies"],
        resourceNames: ["floor"],
        verbs: ["approve"],
      },
    ],
  },
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "RoleBinding",
    metadata: { name: "floor-approvers", namespace: approvalNamespace },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "floor-approvers" },
    subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "Group", name: "okta:security" }],
  },
];
/** Who may ask, with the chart's own role. */
const requesters = [
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "RoleBinding",
    metadata: { name: "requesters", namespace: approvalNamespace },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "sallyport-requester" },
    subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "Group", name: "okta:dev" }],
  },
];
/** Approves under the policy `prod` alone. */
const prodApprovers = JSON.parse(
  JSON.stringify(floorApprovers).replaceAll("floor", "prod").replaceAll("okta:security", "okta:prod"),
);
/** May write to Approvals by name, and approve under `prod` by the group alone. */
const temporaryApprovers = [
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "RoleBinding",
    metadata: { name: "patchers", namespace: approvalNamespace },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "floor-approvers" },
    subjects: ["nora", "omar"].map((user) => ({
      apiGroup: "rbac.authorization.k8s.io",
      kind: "User",
      name: `${user}@example.com`,
    })),
  },
  {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "RoleBinding",
    metadata: { name: "temporary", namespace: approvalNamespace },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "prod-approvers" },
    subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "Group", name: "okta:temporary" }],
  },
];
const editedPolicy = (required: number, more: object = {}) =>
  approvalPolicy(
    "edited",
    [asking("edits", ["write"], ["public.edited"], { required, timeout: "10m" })],
    more,
  );

let cluster: ApprovalCluster;
const users = {} as Record<"alice" | "bob" | "carol" | "dana" | "sven" | "pia", Kubectl>;

beforeAll(async () => {
  cluster = await ApprovalCluster.start({
    // One drains and one is killed at the end.
    replicas: 2,
    initSql: tables.map((name) => `CREATE TABLE ${name} (n int);`).join("\n"),
    objects: [
      approvalPolicy("prod", [
        asking("schema", ["define"], ["public.*"], { required: 2, timeout: "10m" }),
        asking("window", ["read", "write"], ["public.windowed"], windowed),
        asking("short", ["privilege"], ["public.windowed"], { ...windowed, required: 1, window: "2s" }),
        asking("both", ["write"], ["public.shared"], { required: 1, timeout: "10m" }),
        asking("glass", ["write"], ["public.glass"], { required: 1, breakGlass: { group: "local:dev" } }),
      ]),
      approvalPolicy("floor", [
        asking("both", ["write"], ["public.shared"], { required: 1, timeout: "10m" }),
      ]),
      editedPolicy(1),
      ...floorApprovers,
      ...prodApprovers,
      ...temporaryApprovers,
      ...requesters,
    ],
  });
  users.alice = await cluster.person("alice@example.com", ["okta:dba"]);
  users.bob = await cluster.person("bob@example.com");
  users.carol = await cluster.person("carol@example.com");
  users.dana = await cluster.person("dana@example.com", ["okta:dev"]);
  users.sven = await cluster.person("sven@example.com", ["okta:security"]);
  users.pia = await cluster.person("pia@example.com", ["okta:prod"]);
}, 240_000);
afterAll(() => cluster?.close(), 60_000);

const held = (promise: Promise<unknown>) => promise.catch((error: unknown) => error);
const count = async (table: string) =>
  (await cluster.server.query(`SELECT count(*)::int AS n FROM ${table}`))[0]?.n;

describe("a held command", () => {
  test("G1 G2 runs once two people have patched it, and not before; nobody may who asks", async () => {
    const one = await cluster.connect();
    const altered = one.client.query("ALTER TABLE orders ADD COLUMN note text");
    altered.catch(() => undefined);
    const name = await cluster.heldName(one);
    await cluster.validated(name);
    const { spec } = await cluster.approval(name);
    expect(spec.request).toMatchObject({
      type: "Statement",
      requester: "alice@example.com",
      command: expect.stringMatching(
        /^ALTER TABLE orders ADD COLUMN note text\n-- Touches: ALTER TABLE: .*\bpublic\.orders\b.*\n-- Session: schemas /,
      ),
      policies: [{ policy: "prod", rule: "schema", required: 2 }],
    });
    const own = await cluster.approve(users.alice, name, "alice@example.com");
    expect(own.stderr).toContain("you cannot decide your own request");
    // What the client was told to hand on is what works, word for word but for the name.
    const line = /^An approver runs: kubectl (.*)$/.exec(one.hints[0] ?? "")?.[1] ?? "";
    const [, words = "", patch = ""] = /^(.*) -p '(.*)'$/.exec(line) ?? [];
    const argv = [...words.split(" "), "-p", patch.replace("YOU", "bob@example.com")];
    expect(await users.bob.try(undefined, ...argv)).toMatchObject({ code: 0 });
    await waitFor(
      "one of two",
      async () => (await cluster.approval(name)).status?.progress === "1/2" || undefined,
    );
    expect(await cluster.hasColumn("note")).toBe(false);
    expect(await cluster.approve(users.carol, name, "carol@example.com")).toMatchObject({ code: 0 });
    expect((await altered).command).toBe("ALTER");
    expect(await cluster.hasColumn("note")).toBe(true);
    await cluster.phase(name, "Used");
  });

  test("G2 an approval is used up: the same text asks again, and the old one takes no decision", async () => {
    const one = await cluster.connect();
    const first = held(one.client.query("INSERT INTO edited VALUES (1)"));
    const name = await cluster.heldName(one);
    await cluster.validated(name);
    await cluster.approve(users.bob, name, "bob@example.com");
    expect(await first).toMatchObject({ rowCount: 1 });
    await cluster.phase(name, "Used");
    const again = held(one.client.query("INSERT INTO edited VALUES (1)"));
    const next = await cluster.heldName(one, name);
    expect(next).not.toBe(name);
    const replayed = await cluster.approve(users.carol, name, "carol@example.com");
    expect(replayed.stderr).toContain("no longer pending: it is Used");
    await cluster.validated(next);
    await cluster.decide(users.bob, next, { approver: "bob@example.com", decision: "Denied" });
    expect(await again).toMatchObject({ code: "42501" });
  });

  test("G3 one denial ends it, and its comment reaches the client", async () => {
    const one = await cluster.connect();
    const altered = held(one.client.query("ALTER TABLE orders ADD COLUMN denied text"));
    const name = await cluster.heldName(one);
    await cluster.validated(name);
    const value = { approver: "bob@example.com", decision: "Denied", comment: "not today" };
    const denied = await cluster.decide(users.bob, name, value);
    expect(denied, denied.stderr).toMatchObject({ code: 0 });
    expect(await altered).toMatchObject({
      code: "42501",
      message: expect.stringContaining("denied by bob@example.com: not today"),
    });
    expect(await cluster.hasColumn("denied")).toBe(false);
  });

  test("G4 whoever leaves cancels it, and it cannot be approved any more", async () => {
    const one = await cluster.connect();
    void held(one.client.query("ALTER TABLE orders ADD COLUMN gone text"));
    const name = await cluster.heldName(one);
    await cluster.validated(name);
    await one.client.end();
    await cluster.phase(name, "Cancelled");
    expect((await cluster.approve(users.bob, name, "bob@example.com")).stderr).toContain("no longer pending");
    expect(await cluster.hasColumn("gone")).toBe(false);
  });

  test("G5 of two policies each wants its own approver, whose right may come from a group", async () => {
    const one = await cluster.connect();
    const inserted = held(one.client.query("INSERT INTO shared VALUES (1)"));
    const name = await cluster.heldName(one);
    expect(one.hints[0]).toMatch(/"policies":\["(prod","floor|floor","prod)"\]/);
    await cluster.validated(name);
    const decide = (who: Kubectl, approver: string, policies?: readonly string[]) =>
      cluster.decide(who, name, { approver, decision: "Approved", ...(policies && { policies }) });
    const greedy = await decide(users.pia, "pia@example.com", ["prod", "floor"]);
    expect(greedy.stderr).toContain("may not approve under every policy");
    // One that names none, whose right comes from a group: it counts for nothing, and the object says why.
    expect(await decide(users.pia, "pia@example.com")).toMatchObject({ code: 0 });
    await waitFor("the reason", async () => {
      const { status } = await cluster.approval(name);
      return (
        status?.conditions?.some(({ message }) => /pia@example.com named none/.test(message)) || undefined
      );
    });
    expect(await decide(users.bob, "bob@example.com", ["prod"])).toMatchObject({ code: 0 });
    await waitFor("one of two", async () => {
      return (await cluster.approval(name)).status?.progress === "1/2" || undefined;
    });
    expect(await count("shared")).toBe(0);
    expect(await decide(users.sven, "sven@example.com", ["floor"])).toMatchObject({ code: 0 });
    expect(await inserted).toMatchObject({ rowCount: 1 });
  });

  test("G4 survives an operator that is started again", async () => {
    const one = await cluster.connect();
    const altered = one.client.query("ALTER TABLE orders ADD COLUMN again text");
    altered.catch(() => undefined);
    const name = await cluster.heldName(one);
    await cluster.validated(name);
    const [operator] = cluster.operators;
    if (operator !== undefined) await cluster.stopOperator(operator);
    await cluster.startOperator(operator);
    expect(await cluster.approve(users.bob, name, "bob@example.com")).toMatchObject({ code: 0 });
    expect(await cluster.approve(users.carol, name, "carol@example.com")).toMatchObject({ code: 0 });
    expect((await altered).command).toBe("ALTER");
  }, 120_000);

  test("G4 is void where its rule was edited meanwhile, and untouched by another edit", async () => {
    const one = await cluster.connect();
    const first = held(one.client.query("INSERT INTO edited VALUES (2)"));
    const name = await cluster.heldName(one);
    await cluster.validated(name);
    await cluster.api.kubectl.apply([editedPolicy(1, { limits: { idle: "2h" } })]);
    expect(await cluster.approve(users.bob, name, "bob@example.com")).toMatchObject({ code: 0 });
    expect(await first).toMatchObject({ rowCount: 1 });
    const second = held(one.client.query("INSERT INTO edited VALUES (3)"));
    const next = await cluster.heldName(one, name);
    await cluster.validated(next);
    await cluster.api.kubectl.apply([editedPolicy(2)]);
    expect(await second).toMatchObject({ code: "42501", message: expect.stringContaining("is void") });
    await cluster.phase(next, "Cancelled");
    await cluster.api.kubectl.apply([editedPolicy(1)]);
  });
});

describe("psql", () => {
  const psql = (sql: string) => {
    const argv = ["-X", "-v", "VERBOSITY=verbose", "-c", sql];
    const child = spawn("psql", argv, { env: { ...process.env, ...cluster.psqlEnvironment("alice") } });
    let told = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => {
        told += text;
      });
    const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
    const name = () =>
      waitFor("psql's notice", async () => /NOTICE: .*held for approval (\S+):/.exec(told)?.[1]);
    return { told: () => told, ended, name, kill: () => child.kill("SIGINT") };
  };

  test("G1 G3 shows who is asked, and the answer once both have patched; a denial with its comment", async () => {
    const altered = psql("ALTER TABLE orders ADD COLUMN by_psql text");
    const name = await altered.name();
    await cluster.validated(name);
    expect(altered.told()).toMatch(/HINT: .*kubectl -n shop patch approval/);
    await cluster.approve(users.bob, name, "bob@example.com");
    await cluster.approve(users.carol, name, "carol@example.com");
    expect(await altered.ended).toBe(0);
    expect(altered.told()).toContain("ALTER TABLE");
    expect(await cluster.hasColumn("by_psql")).toBe(true);
    const dropped = psql("ALTER TABLE orders DROP COLUMN by_psql");
    const next = await dropped.name();
    await cluster.validated(next);
    await cluster.decide(users.bob, next, {
      approver: "bob@example.com",
      decision: "Denied",
      comment: "keep it",
    });
    expect(await dropped.ended).toBe(1);
    expect(dropped.told()).toMatch(/ERROR: +42501: .*denied by bob@example.com: keep it/);
    expect(await cluster.hasColumn("by_psql")).toBe(true);
  }, 60_000);

  test("G4 Ctrl-C ends the request, and it can be approved no more", async () => {
    const altered = psql("ALTER TABLE orders ADD COLUMN stopped text");
    const name = await altered.name();
    await cluster.validated(name);
    altered.kill();
    await altered.ended;
    await cluster.phase(name, "Cancelled");
    const late = await cluster.approve(users.bob, name, "bob@example.com");
    expect(late.stderr).toContain("no longer pending: it is Cancelled");
    expect(await cluster.hasColumn("stopped")).toBe(false);
  }, 60_000);
});

describe("windows", () => {
  let asked = 0;
  const access = (policies: readonly object[], duration = "10m", requester = "alice@example.com") => ({
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "Approval",
    metadata: { name: `wish-${++asked}`, namespace: approvalNamespace },
    spec: { request: { type: "Access", requester, resource: "orders", policies, duration } },
  });
  const ask = async (object: ReturnType<typeof access>) => {
    const made = await cluster.api.kubectl.try(
      JSON.stringify(object),
      ...["--as", object.spec.request.requester, "--as-group", "system:masters", "create", "-f", "-"],
    );
    expect(made, made.stderr).toMatchObject({ code: 0 });
    return object.metadata.name;
  };

  test("opens for whoever asked once enough have approved, closes within a second when taken back", async () => {
    // Fewer approvals than the rule wants are asked for: the rule's own count holds.
    const name = await ask(access([{ policy: "prod", rule: "window", required: 1 }]));
    await cluster.validated(name);
    await cluster.approve(users.bob, name, "bob@example.com");
    await waitFor(
      "one of two",
      async () => (await cluster.approval(name)).status?.progress === "1/2" || undefined,
    );
    await cluster.approve(users.carol, name, "carol@example.com");
    await cluster.phase(name, "Approved");
    const one = await cluster.connect();
    const insert = () => one.client.query("INSERT INTO windowed VALUES (1)");
    await waitFor("the window", async () => {
      const other = await cluster.connect();
      const passed = held(other.client.query("INSERT INTO windowed VALUES (1)"));
      const outcome = await Promise.race([passed, cluster.heldName(other)]);
      await other.client.end();
      return typeof outcome === "string" ? undefined : true;
    });
    expect(await insert()).toMatchObject({ rowCount: 1 });
    const stranger = await cluster.connect("dave");
    const waits = held(stranger.client.query("INSERT INTO windowed VALUES (2)"));
    expect(await cluster.heldName(stranger)).toMatch(/^orders-/);
    await stranger.client.end();
    await waits;
    const running = held(one.client.query("SELECT pg_sleep(30) FROM windowed"));
    await waitFor("it to run", async () => {
      const sql =
        "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(30)%' AND state = 'active'";
      return (await cluster.server.query(sql)).length > 0 || undefined;
    });
    const begun = performance.now();
    const revocation = JSON.stringify({ spec: { revocation: { by: "carol@example.com", reason: "done" } } });
    const revoked = await users.carol.try(
      undefined,
      ...["-n", approvalNamespace, "patch", "approval", name, "--type=merge", "-p", revocation],
    );
    const patchedMs = performance.now() - begun;
    expect(revoked, revoked.stderr).toMatchObject({ code: 0 });
    expect(await running).toMatchObject({ code: "57014" });
    expect(performance.now() - begun - patchedMs).toBeLessThan(1_000);
    await cluster.phase(name, "Revoked");
    const late = held(insert());
    await cluster.heldName(one);
    await one.client.end();
    await late;
  }, 60_000);

  test("end by the clock, and what runs on them with them", async () => {
    const name = await ask(access([{ policy: "prod", rule: "short" }]));
    await cluster.validated(name);
    const one = await cluster.connect();
    await cluster.approve(users.bob, name, "bob@example.com");
    const granted = await waitFor(
      "an outcome",
      async () => (await cluster.approval(name)).status?.grantedUntil,
    );
    expect(Date.parse(granted) - Date.now()).toBeLessThan(3_000);
    expect((await cluster.phase(name, "Expired")).status?.grantedUntil).toBe(granted);
    const late = held(one.client.query("GRANT SELECT ON windowed TO PUBLIC"));
    await cluster.heldName(one);
    await one.client.end();
    await late;
  });

  test.each([
    ["a rule that approves each command by itself", [{ policy: "prod", rule: "schema" }], "NotAWindow"],
    ["a rule that is not there", [{ policy: "prod", rule: "lax" }], "RuleNotFound"],
    ["a policy that is not there", [{ policy: "lax", rule: "window" }], "RuleNotFound"],
  ])("cannot be had of %s, whoever approves", async (_, policies, reason) => {
    const name = await ask(access(policies));
    await waitFor(reason, async () => {
      const { status } = await cluster.approval(name);
      return (
        status?.conditions?.some((one) => one.type === "Validated" && one.reason === reason) || undefined
      );
    });
    const refused = await cluster.approve(users.bob, name, "bob@example.com");
    expect(refused.code).not.toBe(0);
    expect((await cluster.approval(name)).status?.phase).toBe("Pending");
  });

  test("cannot be asked for in another's name, nor approved by whoever asked", async () => {
    const object = access([{ policy: "prod", rule: "short" }]);
    const forged = await cluster.api.kubectl.try(JSON.stringify(object), "create", "-f", "-");
    expect(forged.stderr).toContain("must be your own username");
    const name = await ask(object);
    await cluster.validated(name);
    const own = await cluster.approve(users.alice, name, "alice@example.com");
    expect(own.stderr).toContain("you cannot decide your own request");
  });
});

test("the command line asks, lists, approves, denies, waits and takes back as kubectl would", async () => {
  const sallyport = async (who: Kubectl, ...args: readonly string[]) => {
    const argv = [...sallyportCommand, ...args, "--kubeconfig", who.kubeconfig];
    const options = { timeout: 60_000, env: { PATH: process.env.PATH } };
    return promisify(execFile)(process.execPath, argv, options)
      .then(({ stdout, stderr }) => ({ code: 0, stdout, stderr }))
      .catch((error: { code: number; stdout: string; stderr: string }) => error);
  };
  const there = ["-n", approvalNamespace];
  const one = await cluster.connect();
  const inserted = held(one.client.query("INSERT INTO shared VALUES (7)"));
  const name = await cluster.heldName(one);
  await cluster.validated(name);
  expect((await sallyport(users.bob, "approvals", ...there)).stdout).toContain(name);
  const own = await sallyport(users.alice, "approve", name, ...there);
  expect(own).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("you cannot decide your own request"),
  });
  // It says by itself for which of the two policies each of them decides.
  expect(await sallyport(users.pia, "approve", name, ...there)).toMatchObject({ code: 0 });
  expect(await sallyport(users.sven, "approve", name, ...there, "--comment", "go")).toMatchObject({
    code: 0,
  });
  expect(await inserted).toMatchObject({ rowCount: 1 });
  const second = held(one.client.query("INSERT INTO edited VALUES (7)"));
  const next = await cluster.heldName(one, name);
  await cluster.validated(next);
  const denied = await sallyport(users.bob, "deny", next, ...there, "--reason", "ask tomorrow");
  expect(denied, denied.stderr).toMatchObject({ code: 0 });
  expect(await second).toMatchObject({ code: "42501", message: expect.stringContaining("ask tomorrow") });
  // A denial says how the window is asked for, word for word.
  const late = await cluster.connect("dana");
  const third = held(late.client.query("INSERT INTO windowed VALUES (7)"));
  const last = await cluster.heldName(late);
  await cluster.validated(last);
  await cluster.decide(users.bob, last, { approver: "bob@example.com", decision: "Denied" });
  const { hint = "" } = (await third) as { readonly hint?: string };
  const [, wish = ""] = /^Ask for it first: sallyport (request \S+ --rule \S+)$/.exec(hint) ?? [];
  const asked = await sallyport(users.dana, ...wish.split(" "), "--duration", "5m", "--reason", "release");
  expect(asked, asked.stderr).toMatchObject({ code: 0 });
  const access = asked.stdout.trim();
  await cluster.validated(access);
  const asOwn = await cluster.approve(users.dana, access, "dana@example.com");
  expect(asOwn.stderr).toContain("you cannot decide your own request");
  expect(await cluster.approve(users.bob, access, "bob@example.com")).toMatchObject({ code: 0 });
  expect(await cluster.approve(users.pia, access, "pia@example.com")).toMatchObject({ code: 0 });
  await cluster.phase(access, "Approved");
  expect(await sallyport(users.dana, "wait", access, ...there)).toMatchObject({ code: 0 });
  expect(await sallyport(users.dana, "revoke", access, ...there, "--reason", "done")).toMatchObject({
    code: 0,
  });
  await cluster.phase(access, "Revoked");
}, 240_000);

test("kubectl shows who asks, for what and how far it is, tells of each change under -w, and waits for the condition", async () => {
  const there = ["-n", approvalNamespace];
  const one = await cluster.connect();
  const sql = "INSERT INTO edited VALUES (11)";
  const inserted = held(one.client.query(sql));
  const name = await cluster.heldName(one);
  await cluster.validated(name);
  const table = async (...flags: readonly string[]) => {
    const lines = (await users.bob(...there, "get", "approval", name, ...flags)).trimEnd().split("\n");
    return lines.map((line) => line.split(/ {2,}/));
  };
  const columns = ["NAME", "REQUESTER", "RESOURCE", "TYPE", "PHASE", "APPROVALS"];
  const cells = [name, "alice@example.com", "orders", "Statement", "Pending", "0/1"];
  const age = expect.stringMatching(/^\d+[sm]/);
  expect(await table()).toEqual([
    [...columns, "AGE"],
    [...cells, age],
  ]);
  const expires = expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  expect(await table("-o", "wide")).toEqual([
    [...columns, "RULE", "EXPIRES", "COMMAND", "AGE"],
    // kubectl prints a first line and says that there are more: what the text means in its session.
    [...cells, "edits", expires, `${sql}...`, age],
  ]);
  const argv = ["--kubeconfig", users.bob.kubeconfig, ...there, "get", "approvals", "-w"];
  const watch = spawn(users.bob.program, argv);
  try {
    let printed = "";
    watch.stdout.setEncoding("utf8").on("data", (text: string) => {
      printed += text;
    });
    const row = (phase: string, progress: string) =>
      waitFor(`a line that says ${phase}`, async () => {
        const told = [name, "alice@example.com", "orders", "Statement", phase, progress];
        return printed.replaceAll(/ {2,}/g, " ").includes(`${told.join(" ")} `) || undefined;
      });
    await row("Pending", "0/1");
    const flags = ["--for=condition=Approved", "--timeout=60s"];
    const waited = users.bob.try(undefined, ...there, "wait", `approval/${name}`, ...flags);
    expect(await cluster.approve(users.bob, name, "bob@example.com")).toMatchObject({ code: 0 });
    const { code, stdout } = await waited;
    expect([code, stdout.trim()]).toEqual([0, `approval.sallyport.dev/${name} condition met`]);
    expect(await inserted).toMatchObject({ rowCount: 1 });
    await row("Used", "1/1");
  } finally {
    watch.kill();
  }
}, 60_000);

test("G5 whose right to approve is taken away in mid-hold, by group or by binding, decides no more; what is decided stays", async () => {
  const one = await cluster.connect();
  const altered = held(one.client.query("ALTER TABLE orders ADD COLUMN removed text"));
  const name = await cluster.heldName(one);
  await cluster.validated(name);
  const [nora, norasLater, omar] = [
    await cluster.person("nora@example.com", ["okta:temporary"]),
    await cluster.person("nora@example.com", ["okta:guests"]),
    await cluster.person("omar@example.com", ["okta:temporary"]),
  ];
  const refusal = (who: string) => `${who} needs the verb approve on accesspolicies.sallyport.dev/prod`;
  const left = await cluster.approve(norasLater, name, "nora@example.com");
  expect(left.stderr).toContain(refusal("nora@example.com"));
  expect(await cluster.decide(nora, name, prodDecision("nora"))).toMatchObject({ code: 0 });
  const progress = async () => (await cluster.approval(name)).status?.progress;
  await waitFor("one of two", async () => (await progress()) === "1/2" || undefined);
  await cluster.api.kubectl("-n", approvalNamespace, "delete", "rolebinding", "temporary");
  await waitFor("the right to be gone", async () => {
    const asked = ["auth", "can-i", "approve", "accesspolicies.sallyport.dev/prod"];
    const { stdout } = await omar.try(undefined, "-n", approvalNamespace, ...asked);
    return stdout.trim() === "no" || undefined;
  });
  const refused = await cluster.decide(omar, name, prodDecision("omar"));
  expect(refused.stderr).toContain(refusal("omar@example.com"));
  expect(await progress()).toBe("1/2");
  expect(await cluster.hasColumn("removed")).toBe(false);
  expect(await cluster.approve(users.bob, name, "bob@example.com")).toMatchObject({ code: 0 });
  expect(await altered).toMatchObject({ command: "ALTER" });
}, 60_000);
const prodDecision = (who: string) => ({ approver: `${who}@example.com`, decision: "Approved" });

test("break-glass is a warning on the resource: who, by which rule, in which session and why, counted, and never what ran", async () => {
  interface Told {
    readonly note: string;
    readonly series?: { readonly count: number };
    readonly [field: string]: unknown;
  }
  const told = async () => {
    const asked = ["events.events.k8s.io", "-n", approvalNamespace, "--field-selector", "reason=BreakGlass"];
    return (await cluster.api.kubectl.json<{ readonly items: readonly Told[] }>(...asked)).items;
  };
  const toldOf = (user: string) =>
    waitFor(`the event about ${user}`, async () =>
      (await told()).find(({ note }) => note.startsWith(`local:${user} `)),
    );
  const sessionOf = ({ note }: Told) => /session-[0-9a-f-]+/.exec(note)?.[0] ?? "";
  const observed = (session: string) =>
    cluster.api.kubectl.json<Session>("session", session, "-n", approvalNamespace);
  const passes = async (user: string, reason: string) => {
    const one = await cluster.connect(user);
    await one.client.query(`SET sallyport.reason = '${reason}'`);
    await one.client.query("INSERT INTO glass VALUES (4711) /* confidential */");
    return one.client;
  };
  const client = await passes("erin", "incident\u001b[2J7");
  const first = await toldOf("erin");
  expect(first).toMatchObject({
    ...{ type: "Warning", reason: "BreakGlass", action: "PassApproval" },
    regarding: { kind: "ProtectedResource", namespace: approvalNamespace, name: "orders" },
    reportingController: "sallyport.dev/operator",
  });
  expect(first.note).toMatch(
    /^local:erin went past the approval that prod\/glass asks for, by break-glass, in session-[0-9a-f-]{36}: incident \[2J7$/,
  );
  for (const n of [4712, 4713]) await client.query(`INSERT INTO glass VALUES (${n}) /* confidential */`);
  await client.end();
  await waitFor("all three", async () => (await toldOf("erin")).series?.count === 3 || undefined);
  await waitFor("the session's count", async () => {
    const { status } = await observed(sessionOf(first));
    return (status?.state === "Ended" && status.counts?.brokeGlass === 3) || undefined;
  });
  // An operator that is started again hears of the live session again, and tells nothing twice.
  const live = await passes("frank", "incident 8");
  const session = sessionOf(await toldOf("frank"));
  const before = await waitFor("the session", async () => (await observed(session)).status?.observedAt);
  const [operator] = cluster.operators;
  if (operator !== undefined) await cluster.stopOperator(operator);
  await cluster.startOperator(operator);
  await waitFor("the session to be heard of again", async () => {
    return (await observed(session)).status?.observedAt !== before || undefined;
  });
  const later = await passes("gina", "incident 9");
  // Events are written in turn: one about the live session would be there before this one.
  await toldOf("gina");
  const all = await told();
  expect(all.map(({ note }) => note.split(" ")[0]).sort()).toEqual([
    "local:erin",
    "local:frank",
    "local:gina",
  ]);
  expect(JSON.stringify(all)).not.toMatch(/confidential|INSERT/);
  await Promise.all([live.end(), later.end()]);
}, 120_000);

/** Does something while a policy of admission is not bound, and binds it again whatever became of it. */
async function withoutBinding(name: string, work: () => Promise<void>): Promise<void> {
  const { kubectl } = cluster.api;
  const saved = await kubectl("get", "validatingadmissionpolicybinding", name, "-o", "json");
  const { metadata, ...kept } = JSON.parse(saved) as { readonly metadata: { readonly labels: object } };
  await kubectl("delete", "validatingadmissionpolicybinding", name);
  try {
    await work();
  } finally {
    await kubectl.apply([{ ...kept, metadata: { name, labels: metadata.labels } }]);
  }
}

test("G5 while admission does not check who decides, nothing is approved, and the resource says so", async () => {
  const guarded = (status: string) =>
    waitFor(`ApprovalsGuarded=${status}`, async () => {
      const { status: found } = await cluster.api.kubectl.json<{
        readonly status?: {
          readonly conditions?: readonly { readonly type: string; readonly status: string }[];
        };
      }>("protectedresource", "orders", "-n", approvalNamespace);
      return (
        found?.conditions?.some((one) => one.type === "ApprovalsGuarded" && one.status === status) ||
        undefined
      );
    });
  await guarded("True");
  const one = await cluster.connect();
  const altered = held(one.client.query("ALTER TABLE orders ADD COLUMN forged text"));
  const name = await cluster.heldName(one);
  await cluster.validated(name);
  await withoutBinding("sallyport-approvals", async () => {
    await waitFor("decisions to be forged", async () => {
      const value = { approver: `forged-${Math.random()}`, decision: "Approved" };
      const { code } = await cluster.decide(users.alice, name, value);
      return code === 0 || undefined;
    });
    expect(await altered).toBeInstanceOf(Error);
    await cluster.phase(name, "Cancelled");
    expect(await cluster.hasColumn("forged")).toBe(false);
    const refused = await held(one.client.query("ALTER TABLE orders ADD COLUMN forged text"));
    expect(String(refused)).toMatch(/admission policies for Approvals are not in force/);
    await guarded("False");
    const metrics = await cluster.operators[0]?.registry.metrics();
    expect(metrics).toMatch(/^sallyport_approvals_guarded 0$/m);
  });
  await guarded("True");
}, 90_000);

test("G5 a status that somebody forged lets nothing run, nor opens a window", async () => {
  const one = await cluster.connect();
  const altered = held(one.client.query("ALTER TABLE orders ADD COLUMN forged text"));
  const name = await cluster.heldName(one);
  await cluster.validated(name);
  expect(await cluster.approve(users.bob, name, "bob@example.com")).toMatchObject({ code: 0 });
  await withoutBinding("sallyport-operator-only", async () => {
    const status = JSON.stringify({ status: { phase: "Approved", grantedUntil: "2099-01-01T00:00:00Z" } });
    await waitFor("the status to be forged", async () => {
      const { code } = await cluster.api.kubectl.try(
        undefined,
        ...["-n", approvalNamespace, "patch", "approval", name],
        ...["--subresource=status", "--type=merge", "-p", status],
      );
      return code === 0 || undefined;
    });
    expect(await altered).toBeInstanceOf(Error);
    await cluster.phase(name, "Cancelled");
    expect(await cluster.hasColumn("forged")).toBe(false);
  });
}, 90_000);

test("G4 a gateway that drains in mid-hold cancels, and nothing runs", async () => {
  const one = await cluster.connect();
  const altered = held(one.client.query("ALTER TABLE orders ADD COLUMN drained text"));
  const name = await cluster.heldName(one);
  await cluster.validated(name);
  const [gateway] = cluster.gateways;
  void gateway?.process.stop();
  expect(await altered).toBeInstanceOf(Error);
  await cluster.phase(name, "Cancelled");
  expect(await cluster.hasColumn("drained")).toBe(false);
});

test("G4 where the gateway's pod is gone, what it held is Cancelled, and never runs", async () => {
  const [, gateway] = cluster.gateways;
  const one = await cluster.connect("alice", gateway);
  const altered = held(one.client.query("ALTER TABLE orders ADD COLUMN lost text"));
  const name = await cluster.heldName(one);
  await cluster.validated(name);
  await gateway?.process.kill9();
  await cluster.api.kubectl(
    ...["-n", approvalNamespace, "delete", gateway?.pod ?? "", "--force", "--grace-period=0"],
  );
  expect(await altered).toBeInstanceOf(Error);
  await cluster.phase(name, "Cancelled");
  expect((await cluster.approve(users.bob, name, "bob@example.com")).stderr).toContain("no longer pending");
  expect(await cluster.hasColumn("lost")).toBe(false);
});
