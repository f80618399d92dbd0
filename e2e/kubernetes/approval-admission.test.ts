/** What the API server lets through about Approvals: every rule of the chart by the attack that it refuses. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { type CommandResult, type Kubectl, run } from "../cluster/kubectl.ts";
import { waitFor } from "../cluster/processes.ts";
import { helmProgram } from "../cluster/programs.ts";
import { systemNamespace } from "../targets/operator.ts";

const root = join(import.meta.dirname, "../..");
const namespace = "shop";
const operatorName = `system:serviceaccount:${systemNamespace}:sallyport-operator`;

let api: ApiServer;
/** Holds what the API server writes down of each write of an Approval. */
let audit: string;
const users: Record<"alice" | "bob" | "carol" | "owner" | "shouting", Kubectl> = {} as typeof users;
let count = 0;
let name = "";

const admin = (as: string, input: string | undefined, ...argv: readonly string[]) =>
  api.kubectl.try(input, "--as", as, ...groupsOf(as), "-n", namespace, ...argv);
const groupsOf = (as: string) => (as === operatorName ? ["--as-group", "system:masters"] : []);
const operator = (input: string | undefined, ...argv: readonly string[]) =>
  admin(operatorName, input, ...argv);

beforeAll(async () => {
  audit = await mkdtemp(join(tmpdir(), "sallyport-audit-"));
  const rules = [{ level: "Metadata", resources: [{ group: "sallyport.dev", resources: ["approvals"] }] }];
  const auditPolicy = {
    apiVersion: "audit.k8s.io/v1",
    kind: "Policy",
    omitStages: ["RequestReceived"],
    rules,
  };
  await writeFile(join(audit, "policy.yaml"), JSON.stringify(auditPolicy));
  api = await startApiServer({
    controllerManager: true,
    apiServerFlags: [
      `--audit-policy-file=${join(audit, "policy.yaml")}`,
      `--audit-log-path=${join(audit, "audit.log")}`,
    ],
  });
  await api.kubectl("apply", "--server-side", "-f", join(root, "crds/approvals.yaml"));
  await api.kubectl("wait", "--for=condition=Established", "crd/approvals.sallyport.dev");
  const rendered = await run(await helmProgram(), [
    ...["template", "sallyport", join(root, "charts/sallyport"), "--namespace", systemNamespace],
    ...["-s", "templates/approvals.yaml", "-s", "templates/admission.yaml"],
  ]);
  expect(rendered.stderr).toBe("");
  // The other policies ask for kinds that are not here; those about Approvals are.
  const wanted = rendered.stdout
    .split(/^---$/m)
    .filter((text) => /name: sallyport-(approvals|operator-only)/.test(text));
  await api.kubectl.apply([{ apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } }]);
  await api.kubectl.apply(wanted.join("\n---\n"));
  const role = (roleName: string, rules: readonly object[], subjects: readonly object[]) => [
    { ...rbac("Role", roleName), rules },
    { ...rbac("RoleBinding", roleName), roleRef: { ...roleRef, name: roleName }, subjects },
  ];
  const rule = (resources: string, verbs: readonly string[], resourceNames?: readonly string[]) => ({
    apiGroups: ["sallyport.dev"],
    resources: [resources],
    verbs,
    ...(resourceNames && { resourceNames }),
  });
  const group = { apiGroup: "rbac.authorization.k8s.io", kind: "Group", name: "okta:dba" };
  const everybody = { ...group, name: "system:authenticated" };
  const all = ["get", "list", "watch", "create", "patch", "update", "delete", "deletecollection"];
  await api.kubectl.apply([
    ...role(
      "anybody",
      [rule("approvals", all), rule("approvals/status", ["get", "patch", "update"])],
      [everybody],
    ),
    ...role(
      "dba",
      [rule("accesspolicies", ["approve"], ["prod"])],
      [group, { kind: "ServiceAccount", name: "robot", namespace }],
    ),
  ]);
  users.alice = await api.user("alice", ["okta:dba"]);
  users.bob = await api.user("bob", ["okta:dba"]);
  users.carol = await api.user("carol", ["okta:others"]);
  users.owner = await api.user("owner", ["okta:dba"]);
  users.shouting = await api.user("ALICE", ["okta:dba"]);
  // Policies bind some moments after they were made: a decision inside a new one must be refused even to the operator.
  await waitFor("the policies to bind", async () => {
    const probe = { ...statement("probe"), spec: { ...statement("probe").spec, decisions: [approved("x")] } };
    const { code, stderr } = await operator(JSON.stringify(probe), "create", "--dry-run=server", "-f", "-");
    return code !== 0 && stderr.includes("created without decisions") ? true : undefined;
  });
});
afterAll(async () => {
  await api?.close();
  if (audit) await rm(audit, { recursive: true, force: true });
});

beforeEach(async () => {
  count += 1;
  name = `a${count}`;
  expect(await operator(JSON.stringify(statement(name)), "create", "-f", "-")).toMatchObject({ code: 0 });
  await status({ phase: "Pending", conditions: [condition] });
});

const rbac = (kind: string, roleName: string) => ({
  apiVersion: "rbac.authorization.k8s.io/v1",
  kind,
  metadata: { name: roleName, namespace },
});
const roleRef = { apiGroup: "rbac.authorization.k8s.io", kind: "Role" };
const condition = {
  type: "Validated",
  status: "True",
  reason: "Asked",
  message: "",
  lastTransitionTime: "2026-01-01T00:00:00Z",
};
const approved = (approver: string) => ({ approver, decision: "Approved" });

function statement(approval: string, request: object = {}) {
  return {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "Approval",
    metadata: { name: approval, namespace },
    spec: {
      request: {
        type: "Statement",
        requester: "alice",
        onBehalfOf: "owner",
        resource: "shop",
        policies: [{ policy: "prod", rule: "schema", ruleHash: `sha256:${"0".repeat(64)}` }],
        command: "DROP TABLE t",
        digest: `hmac-sha256:${"0".repeat(64)}`,
        sessionId: "s1",
        expiresAt: "2030-01-01T00:00:00Z",
        ...request,
      },
    },
  };
}

function access(approval: string, request: object = {}) {
  const policies = [{ policy: "prod", rule: "schema" }];
  const spec = {
    request: { type: "Access", requester: "alice", resource: "shop", policies, duration: "30m", ...request },
  };
  return { ...statement(approval), spec };
}

interface AuditEvent {
  readonly user: { readonly username: string };
  readonly impersonatedUser?: { readonly username: string };
  readonly objectRef: { readonly name?: string };
  readonly annotations?: Readonly<Record<string, string>>;
}

async function status(value: object): Promise<void> {
  const patch = JSON.stringify({ status: value });
  const argv = ["patch", "approval", name, "--subresource=status", "--type=merge", "-p", patch];
  expect(await operator(undefined, ...argv)).toMatchObject({ code: 0 });
}

const patch = (who: Kubectl, type: "json" | "merge", value: unknown): Promise<CommandResult> =>
  who.try(
    undefined,
    "-n",
    namespace,
    "patch",
    "approval",
    name,
    `--type=${type}`,
    "-p",
    JSON.stringify(value),
  );
const decide = (who: Kubectl, approver: string, decision = "Approved") =>
  patch(who, "json", [{ op: "add", path: "/spec/decisions/-", value: { approver, decision } }]);
const revoke = (who: Kubectl, by: string) => patch(who, "merge", { spec: { revocation: { by } } });
const create = (who: Kubectl, object: object) =>
  who.try(JSON.stringify(object), "-n", namespace, "create", "-f", "-");

function refused({ code, stderr }: CommandResult, words: RegExp): void {
  expect(code, stderr).not.toBe(0);
  expect(stderr).toMatch(words);
}

test("an approver with the verb decides, once, and it stays as it was made", async () => {
  expect(await decide(users.bob, "bob")).toMatchObject({ code: 0 });
  refused(await decide(users.bob, "bob", "Denied"), /Duplicate value/);
  refused(await patch(users.bob, "merge", { spec: { decisions: [] } }), /decisions are final/);
  refused(
    await patch(users.bob, "json", [{ op: "replace", path: "/spec/decisions/0/decision", value: "Denied" }]),
    /decisions are final/,
  );
  refused(await patch(users.bob, "json", [{ op: "remove", path: "/spec/decisions" }]), /decisions are final/);
});

describe("the API server's audit log says", () => {
  /** The annotations of a write of this test's Approval by a user, once the log holds one with this key. */
  const annotations = (user: string, key: string) =>
    waitFor(`${key} in the audit log`, async () => {
      const events = (await readFile(join(audit, "audit.log"), "utf8"))
        .split("\n")
        .filter((line) => line.endsWith("}"))
        .map((line) => JSON.parse(line) as AuditEvent);
      return events.find(
        (event) =>
          event.objectRef.name === name &&
          (event.impersonatedUser ?? event.user).username === user &&
          event.annotations?.[key],
      )?.annotations;
    });
  const key = (of: string) => `sallyport-approvals/${of}`;
  const digest = `hmac-sha256:${"0".repeat(64)}`;

  test("who asked, for what, and who decided", async () => {
    expect(await decide(users.bob, "bob")).toMatchObject({ code: 0 });
    const decided = await annotations("bob", key("decision"));
    expect(decided).toMatchObject({
      [key("requester")]: "alice for owner",
      [key("request")]: `Statement shop ${digest}`,
      [key("decision")]: "bob=Approved",
    });
    expect(decided).not.toHaveProperty([key("revocation")]);
    const asked = await annotations(operatorName, key("request"));
    expect(asked).toMatchObject({ [key("requester")]: "alice for owner" });
    expect(asked).not.toHaveProperty([key("decision")]);
  });

  test("who took an approval back", async () => {
    expect(await decide(users.bob, "bob")).toMatchObject({ code: 0 });
    await status({ phase: "Approved" });
    expect(await revoke(users.bob, "bob")).toMatchObject({ code: 0 });
    const revoked = await annotations("bob", key("revocation"));
    expect(revoked).toMatchObject({ [key("revocation")]: "bob", [key("requester")]: "alice for owner" });
    expect(revoked).not.toHaveProperty([key("decision")]);
  });

  test("who tried to decide without the right to, and why that was refused", async () => {
    refused(await decide(users.carol, "carol"), /needs the verb approve/);
    const failure = "validation.policy.admission.k8s.io/validation_failure";
    const tried = await annotations("carol", failure);
    expect(tried?.[failure]).toContain("carol needs the verb approve on accesspolicies");
  });
});

describe("nobody decides", () => {
  test("their own request, nor one of an agent that acts for them", async () => {
    refused(await decide(users.alice, "alice"), /cannot decide your own request/);
    refused(await decide(users.owner, "owner"), /cannot decide your own request/);
  });

  test("their own request, because a directory wrote their name in another case", async () => {
    refused(await decide(users.shouting, "ALICE"), /cannot decide your own request/);
  });

  test("for an agent of theirs whose provider names them with its prefix", async () => {
    name = `${name}-agent`;
    const agent = JSON.stringify(
      statement(name, { requester: "robot@example.com", onBehalfOf: "Okta:Owner" }),
    );
    expect(await operator(agent, "create", "-f", "-")).toMatchObject({ code: 0 });
    await status({ phase: "Pending", conditions: [condition] });
    refused(await decide(users.owner, "owner"), /cannot decide your own request/);
    expect(await decide(users.bob, "bob")).toMatchObject({ code: 0 });
  });

  test("under another's name", async () => {
    refused(await decide(users.bob, "dave"), /approver must be your own username: bob/);
    refused(await decide(users.alice, "bob"), /approver must be your own username: alice/);
    refused(await decide(api.kubectl, "bob"), /approver must be your own username/);
    refused(await admin(operatorName, undefined, ...decision("bob")), /approver must be your own username/);
  });

  test("without the verb approve on the policy that asks", async () => {
    refused(await decide(users.carol, "carol"), /needs the verb approve on accesspolicies.*prod/);
  });

  test("for a policy of several that they may not approve under, and counts for those they name (groups count)", async () => {
    name = `${name}-two`;
    const ruleHash = `sha256:${"0".repeat(64)}`;
    const floor = { kind: "ClusterAccessPolicy", policy: "floor", rule: "schema", ruleHash };
    const policies = [{ policy: "prod", rule: "schema", ruleHash }, floor];
    const both = JSON.stringify(statement(name, { policies }));
    expect(await operator(both, "create", "-f", "-")).toMatchObject({ code: 0 });
    await status({ phase: "Pending", conditions: [condition] });
    const decideFor = (who: Kubectl, approver: string, named: readonly string[]) => {
      const value = { approver, decision: "Approved", policies: named };
      return patch(who, "json", [{ op: "add", path: "/spec/decisions/-", value }]);
    };
    const words = /bob may not approve under every policy that the decision names/;
    refused(await decideFor(users.bob, "bob", ["prod", "cluster/floor"]), words);
    refused(await decideFor(users.bob, "bob", ["cluster/floor"]), words);
    refused(await decideFor(users.bob, "bob", ["floor"]), words);
    refused(await decideFor(users.bob, "bob", ["another"]), words);
    expect(await decideFor(users.bob, "bob", ["prod"])).toMatchObject({ code: 0 });
    const more = [{ op: "add", path: "/spec/decisions/0/policies/-", value: "cluster/floor" }];
    refused(await patch(users.bob, "json", more), /decisions are final/);
  });

  test("as a service account, whatever rights it has", async () => {
    const robot = `system:serviceaccount:${namespace}:robot`;
    refused(await admin(robot, undefined, ...decision(robot)), /service accounts/);
  });

  test.each(["Approved", "Denied", "Expired", "Cancelled"])("what is %s already", async (phase) => {
    await status({ phase });
    refused(await decide(users.bob, "bob"), new RegExp(`no longer pending: it is ${phase}`));
  });

  test("before the operator has found out which rules ask", async () => {
    const fresh = `${name}-fresh`;
    expect(await create(users.alice, access(fresh))).toMatchObject({ code: 0 });
    name = fresh;
    refused(await decide(users.bob, "bob"), /has not found out yet/);
  });
});

const decision = (approver: string) => [
  ...["patch", "approval", name, "--type=json", "-p"],
  JSON.stringify([{ op: "add", path: "/spec/decisions/-", value: approved(approver) }]),
];

describe("nobody asks", () => {
  test("for a statement but the operator, nor for access in another's name", async () => {
    refused(await create(users.alice, statement("forged")), /asked for by the gateway/);
    refused(await create(users.alice, access("forged", { requester: "bob" })), /must be your own username/);
    refused(await create(api.kubectl, access("forged")), /must be your own username/);
  });

  test("with decisions, or with what the operator fills in, inside", async () => {
    const whole = access("forged");
    const decided = { ...whole, spec: { ...whole.spec, decisions: [approved("bob")] } };
    refused(await create(users.alice, decided), /created without decisions/);
    const revoked = { ...whole, spec: { ...whole.spec, revocation: { by: "alice" } } };
    refused(await create(users.alice, revoked), /created without decisions/);
    refused(await create(users.alice, access("forged", { onBehalfOf: "x" })), /filled in by the operator/);
    const hashed = [{ policy: "prod", rule: "schema", ruleHash: `sha256:${"1".repeat(64)}` }];
    refused(await create(users.alice, access("forged", { policies: hashed })), /filled in by the operator/);
  });

  test("with a status, labels, owners or finalizers of their own", async () => {
    const given = { ...access(`${name}-s`), status: { phase: "Approved", conditions: [condition] } };
    expect(await create(users.alice, given)).toMatchObject({ code: 0 });
    const { status: kept } = await api.kubectl.json<{ status?: object }>(
      "approval",
      `${name}-s`,
      "-n",
      namespace,
    );
    expect(kept).toBeUndefined();
    const more = (metadata: object) => ({ ...access("m"), metadata: { name: "m", namespace, ...metadata } });
    refused(await create(users.alice, more({ labels: { "sallyport.dev/x": "y" } })), /set by the operator/);
    refused(await create(users.alice, more({ finalizers: ["x.y/z"] })), /finalizers .* set by the operator/);
    const owner = { apiVersion: "v1", kind: "Pod", name: "p", uid: "u" };
    refused(await create(users.alice, more({ ownerReferences: [owner] })), /ownerReferences/);
  });
});

test("a request is never changed, not by the operator either", async () => {
  const change = { spec: { request: { command: "SELECT 1" } } };
  refused(await patch(users.alice, "merge", change), /cannot be changed/);
  const argv = ["patch", "approval", name, "--type=merge", "-p", JSON.stringify(change)];
  refused(await operator(undefined, ...argv), /cannot be changed/);
});

test("a status is the operator's, and goes in one direction", async () => {
  const argv = [
    "patch",
    "approval",
    name,
    "--subresource=status",
    "--type=merge",
    "-p",
    '{"status":{"phase":"Approved"}}',
  ];
  refused(await users.bob.try(undefined, "-n", namespace, ...argv), /only the operator writes this/);
  refused(await api.kubectl.try(undefined, "-n", namespace, ...argv), /only the operator writes this/);
  await status({ phase: "Expired" });
  refused(await operator(undefined, ...argv), /phase only moves/);
});

describe("a revocation", () => {
  test("is the requester's or an approver's, in their own name, once, of what is approved", async () => {
    refused(await revoke(users.bob, "bob"), /only what is approved can be taken back: it is Pending/);
    await status({ phase: "Approved" });
    refused(await revoke(users.carol, "carol"), /everybody who may approve it/);
    refused(await revoke(users.bob, "alice"), /by must be your own username: bob/);
    const robot = `system:serviceaccount:${namespace}:robot`;
    const argv = [
      "patch",
      "approval",
      name,
      "--type=merge",
      "-p",
      JSON.stringify({ spec: { revocation: { by: robot } } }),
    ];
    refused(await admin(robot, undefined, ...argv), /everybody who may approve it/);
    expect(await revoke(users.alice, "alice")).toMatchObject({ code: 0 });
    refused(await revoke(users.bob, "bob"), /a revocation is final/);
    refused(await patch(users.alice, "json", [{ op: "remove", path: "/spec/revocation" }]), /final/);
  });

  test("by an approver", async () => {
    await status({ phase: "Approved" });
    expect(await revoke(users.bob, "bob")).toMatchObject({ code: 0 });
  });
});

describe("deleting", () => {
  const remove = (who: Kubectl) =>
    who.try(undefined, "-n", namespace, "delete", "approval", name, "--wait=false");

  test("is for the requester, while nothing is decided", async () => {
    refused(await remove(users.bob), /only the requester/);
    expect(await remove(users.alice)).toMatchObject({ code: 0 });
  });

  test("is for nobody once it is decided", async () => {
    expect(await decide(users.bob, "bob")).toMatchObject({ code: 0 });
    refused(await remove(users.alice), /a decided Approval is a record/);
    refused(await remove(api.kubectl), /a decided Approval is a record/);
    const all = await users.alice.try(
      undefined,
      "-n",
      namespace,
      "delete",
      "approvals",
      "--all",
      "--wait=false",
    );
    refused(all, /a decided Approval is a record/);
  });

  test("the kind is refused until the guard is taken away; a namespace with records goes", async () => {
    expect(await decide(users.bob, "bob")).toMatchObject({ code: 0 });
    const crd = ["delete", "crd", "approvals.sallyport.dev", "--wait=false"];
    refused(await api.kubectl.try(undefined, ...crd), /would delete every Approval/);
    refused(
      await api.kubectl.try(undefined, "delete", "crd", "--all", "--wait=false"),
      /would delete every Approval/,
    );
    await api.kubectl("delete", "namespace", namespace, "--timeout=60s");
    await api.kubectl("delete", "validatingadmissionpolicybinding", "sallyport-approvals-kept");
    await waitFor("the kind to go", async () => {
      const { code } = await api.kubectl.try(undefined, ...crd);
      return code === 0 ? true : undefined;
    });
  });
});
