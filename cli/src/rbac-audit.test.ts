import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { auditRbac, type RbacObject } from "./rbac-audit.ts";
import { sallyport } from "./testing.ts";

const role = (
  name: string,
  resources: readonly string[],
  verbs: readonly string[],
  group = "",
): RbacObject => ({
  kind: "ClusterRole",
  metadata: { name },
  rules: [{ apiGroups: [group], resources, verbs }],
});
const bind = (role: string, subject: { kind: string; name: string; namespace?: string }): RbacObject => ({
  kind: "ClusterRoleBinding",
  metadata: { name: `${role}:${subject.name}` },
  roleRef: { kind: "ClusterRole", name: role },
  subjects: [subject],
});
const ana = { kind: "User", name: "ana" };
const rightsOf = (...objects: readonly RbacObject[]) =>
  auditRbac(objects, "sallyport-impersonator")
    .filter(({ isExpected }) => !isExpected)
    .map(({ right, subject }) => `${right}: ${subject}`);

describe("who goes past a gateway", () => {
  test("nodes/proxy is found with any verb, by name, by * and by */proxy", () => {
    for (const resource of ["nodes/proxy", "*", "*/proxy"]) {
      for (const verb of ["get", "create", "*"]) {
        const found = rightsOf(role("r", [resource], [verb]), bind("r", ana));
        expect(found).toContain("nodes/proxy: User ana");
      }
    }
    expect(rightsOf(role("r", ["nodes", "nodes/metrics", "pods/proxy"], ["get"]), bind("r", ana))).toEqual(
      [],
    );
    expect(rightsOf(role("r", ["nodes/proxy"], ["get"], "apps"), bind("r", ana))).toEqual([]);
  });

  test("impersonation, tokens of accounts, the gateway's mark and the policies themselves are found", () => {
    expect(rightsOf(role("r", ["users"], ["impersonate"]), bind("r", ana))).toEqual([
      "impersonate: User ana",
    ]);
    expect(rightsOf(role("r", ["serviceaccounts/token"], ["create"]), bind("r", ana))).toHaveLength(1);
    const mark = role("r", ["userextras/sallyport.dev/session"], ["impersonate"], "authentication.k8s.io");
    expect(rightsOf(mark, bind("r", ana))).toEqual(["impersonate the gateway's mark: User ana"]);
    const policies = role("r", ["validatingadmissionpolicies"], ["delete"], "admissionregistration.k8s.io");
    expect(rightsOf(policies, bind("r", ana))).toEqual(["admission policies: User ana"]);
    expect(rightsOf(role("r", ["users"], ["get"]), bind("r", ana))).toEqual([]);
  });

  test("constrained impersonation is impersonation, of the gateway's mark too", () => {
    const own = "authentication.k8s.io";
    for (const [resource, mode] of [
      ["users", "user-info"],
      ["groups", "user-info"],
      ["serviceaccounts", "serviceaccount"],
      ["nodes", "arbitrary-node"],
    ] as const) {
      const found = rightsOf(role("r", [resource], [`impersonate:${mode}`], own), bind("r", ana));
      expect([resource, ...found]).toEqual([resource, "impersonate: User ana"]);
    }
    const mark = role("r", ["userextras/sallyport.dev/session"], ["impersonate:user-info"], own);
    expect(rightsOf(mark, bind("r", ana))).toEqual(["impersonate the gateway's mark: User ana"]);
    expect(rightsOf(role("r", ["pods"], ["impersonate-on:user-info:get"]), bind("r", ana))).toEqual([]);
  });

  test("a RoleBinding gives what namespaces hold, of its own Role or a ClusterRole", () => {
    const roles: readonly RbacObject[] = [
      role("all", ["*"], ["*"]),
      { ...role("all", ["pods"], ["get"]), kind: "Role", metadata: { name: "all", namespace: "shop" } },
    ];
    const binding = (kind: string): RbacObject => ({
      kind: "RoleBinding",
      metadata: { name: "b", namespace: "shop" },
      roleRef: { kind, name: "all" },
      subjects: [{ kind: "ServiceAccount", name: "ci" }],
    });
    expect(rightsOf(...roles, binding("Role"))).toEqual([]);
    expect(rightsOf(...roles, binding("ClusterRole"))).toEqual([
      "impersonate: ServiceAccount shop/ci",
      "serviceaccounts/token: ServiceAccount shop/ci",
    ]);
  });

  test("the cluster's own are expected, everybody's groups and look-alikes are not", () => {
    const all = role("all", ["*"], ["*"]);
    const group = (name: string) => bind("all", { kind: "Group", name });
    expect(rightsOf(all, group("system:masters"))).toEqual([]);
    for (const name of ["system:authenticated", "system:serviceaccounts:shop", "ops", "my-system:masters"]) {
      expect(rightsOf(all, group(name)).length).toBeGreaterThan(0);
    }
    const impersonator = role("sallyport-impersonator", ["users"], ["impersonate"]);
    const account = (name: string) =>
      bind("sallyport-impersonator", { kind: "ServiceAccount", name, namespace: "access" });
    expect(rightsOf(impersonator, account("cluster-gateway"))).toEqual([]);
    expect(rightsOf(impersonator, account("other"))).toEqual(["impersonate: ServiceAccount access/other"]);
    expect(rightsOf(impersonator, bind("sallyport-impersonator", ana))).toEqual(["impersonate: User ana"]);
    // A Role that somebody has given the same name is not the chart's.
    const namespaced = { kind: "Role", metadata: { name: "sallyport-impersonator", namespace: "access" } };
    const rules = [{ apiGroups: [""], resources: ["serviceaccounts/token"], verbs: ["create"] }];
    const binding = {
      ...{ kind: "RoleBinding", metadata: { name: "b", namespace: "access" } },
      roleRef: { kind: "Role", name: "sallyport-impersonator" },
      subjects: [{ kind: "ServiceAccount", name: "other-gateway" }],
    };
    expect(rightsOf({ ...namespaced, rules }, binding)).toEqual([
      "serviceaccounts/token: ServiceAccount access/other-gateway",
    ]);
  });

  test("a binding to a role that is not there gives nothing", () => {
    expect(rightsOf(bind("gone", ana))).toEqual([]);
  });
});

describe("sallyport audit rbac", () => {
  let cwd = "";
  /** As `kubectl get` prints a table, nothing, or something else. */
  const unreadable = {
    ...{ "other.json": "{}", "table.txt": "NAME  AGE\n", "empty.json": "", "null.json": "null" },
    "items.json": '{"items": [null, 7, {"kind": "Role"}]}',
  };
  beforeAll(async () => {
    cwd = await mkdtemp(join(tmpdir(), "sallyport-audit-"));
    const items = [role("r", ["nodes/proxy"], ["get"]), bind("r", ana)];
    await writeFile(join(cwd, "found.json"), JSON.stringify({ items }));
    await writeFile(join(cwd, "clean.json"), JSON.stringify({ items: [role("r", ["pods"], ["get"])] }));
    for (const [name, text] of Object.entries(unreadable)) await writeFile(join(cwd, name), text);
  });
  afterAll(() => rm(cwd, { recursive: true }));

  test("ends with 1 where somebody is found, with 0 where nobody is, with 2 where nothing could be read", async () => {
    const found = await sallyport(["audit", "rbac", "--from", "found.json"], { cwd });
    expect(found).toMatchObject({ code: 1, out: expect.stringContaining("User ana") });
    expect(found.out).toContain("asks no admission");
    expect(await sallyport(["audit", "rbac", "--from", "clean.json"], { cwd })).toMatchObject({ code: 0 });
    for (const from of [...Object.keys(unreadable), "missing.json"]) {
      const { code, err } = await sallyport(["audit", "rbac", "--from", from], { cwd });
      expect([from, code, err]).toEqual([from, 2, expect.not.stringContaining("defect")]);
    }
  });
});
