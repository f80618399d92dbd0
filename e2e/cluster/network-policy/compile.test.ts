import { describe, expect, test } from "vitest";
import { compileRules } from "./compile.ts";
import type { ClusterState, NetworkPolicy, Pod } from "./objects.ts";
import { selects } from "./objects.ts";

const pod = (namespace: string, name: string, ip: string, more: Partial<Pod["spec"]> = {}): Pod => ({
  metadata: { name, namespace, labels: { app: name } },
  spec: { containers: [{ ports: [{ name: "sql", containerPort: 5432 }] }], ...more },
  status: { podIP: ip, phase: "Running" },
});
const policy = (spec: NetworkPolicy["spec"], namespace = "shop"): NetworkPolicy => ({
  metadata: { name: "p", namespace },
  spec,
});
const state = (...policies: readonly NetworkPolicy[]): ClusterState => ({
  namespaces: [
    { metadata: { name: "shop", labels: { team: "shop" } } },
    { metadata: { name: "ops", labels: { team: "ops" } } },
  ],
  pods: [
    pod("shop", "db", "10.0.0.1"),
    pod("shop", "web", "10.0.0.2"),
    pod("ops", "backup", "10.0.0.3"),
    pod("ops", "node-agent", "192.168.0.1", { hostNetwork: true }),
  ],
  policies,
});
const db = { podSelector: { matchLabels: { app: "db" } } };

/** The rules of one chain, without the names of policies. */
function rules(chain: "ingress" | "egress", ...policies: readonly NetworkPolicy[]): string[] {
  const text = compileRules(state(...policies));
  const body =
    new RegExp(`chain ${chain} \\{\\n([^}]*(?:\\{[^}]*\\}[^}]*)*?)\\n {2}\\}`).exec(text)?.[1] ?? "";
  return body
    .split("\n")
    .map((line) => line.trim().replace(/ comment ".*"$/, ""))
    .filter(Boolean);
}

describe("who is closed", () => {
  test("without a policy nothing is closed", () => {
    expect(rules("ingress")).toEqual([]);
    expect(rules("egress")).toEqual([]);
  });
  test("an empty selector and no rules close every pod of the namespace, and no other", () => {
    const all = policy({ podSelector: {}, policyTypes: ["Ingress", "Egress"] });
    expect(rules("ingress", all)).toEqual(["ip daddr != { 10.0.0.1, 10.0.0.2 } return", "drop"]);
    expect(rules("egress", all)).toEqual(["ip saddr != { 10.0.0.1, 10.0.0.2 } return", "drop"]);
  });
  test("policyTypes that are left out mean ingress, and egress only where it has rules", () => {
    expect(rules("egress", policy({ ...db, ingress: [{}] }))).toEqual([]);
    expect(rules("ingress", policy({ ...db, egress: [{}] }))).toEqual([
      "ip daddr != { 10.0.0.1 } return",
      "drop",
    ]);
    expect(rules("egress", policy({ ...db, egress: [{}] }))).toHaveLength(3);
  });
  test("pods on the node's network and pods that have ended have no rules", () => {
    const ended = { ...pod("shop", "job", "10.0.0.9"), status: { podIP: "10.0.0.9", phase: "Succeeded" } };
    const world = state(policy({ podSelector: {} }), policy({ podSelector: {} }, "ops"));
    const text = compileRules({ ...world, pods: [...world.pods, ended] });
    expect(text).not.toContain("192.168.0.1");
    expect(text).not.toContain("10.0.0.9");
  });
});

describe("who is let in", () => {
  const only = (ingress: NetworkPolicy["spec"]["ingress"]) =>
    rules("ingress", policy({ ...db, ingress: ingress ?? [] })).slice(1, -1);

  test("a rule with nothing in it lets everybody in", () => {
    expect(only([{}])).toEqual(["ip daddr { 10.0.0.1 } return"]);
    expect(only([{ from: [], ports: [] }])).toEqual(["ip daddr { 10.0.0.1 } return"]);
  });
  test("a podSelector alone speaks of the policy's own namespace", () => {
    expect(only([{ from: [{ podSelector: {} }] }])).toEqual([
      "ip daddr { 10.0.0.1 } ip saddr { 10.0.0.1, 10.0.0.2 } return",
    ]);
    expect(only([{ from: [{ podSelector: { matchLabels: { app: "backup" } } }] }])).toEqual([]);
  });
  test("a namespaceSelector reaches the pods of the namespaces that it selects, and their own name is a label", () => {
    const ops = ["ip daddr { 10.0.0.1 } ip saddr { 10.0.0.3 } return"];
    expect(only([{ from: [{ namespaceSelector: { matchLabels: { team: "ops" } } }] }])).toEqual(ops);
    const byName = { matchLabels: { "kubernetes.io/metadata.name": "ops" } };
    expect(only([{ from: [{ namespaceSelector: byName }] }])).toEqual(ops);
  });
  test("both selectors in one entry must hold; in two entries one is enough", () => {
    const namespaceSelector = { matchLabels: { team: "ops" } };
    const podSelector = { matchLabels: { app: "web" } };
    expect(only([{ from: [{ namespaceSelector, podSelector }] }])).toEqual([]);
    expect(only([{ from: [{ namespaceSelector }, { podSelector }] }])).toHaveLength(2);
  });
  test("an ipBlock has exceptions", () => {
    expect(only([{ from: [{ ipBlock: { cidr: "10.0.0.0/8", except: ["10.1.0.0/16"] } }] }])).toEqual([
      "ip daddr { 10.0.0.1 } ip saddr 10.0.0.0/8 ip saddr != { 10.1.0.0/16 } return",
    ]);
    expect(only([{ from: [{ ipBlock: { cidr: "0.0.0.0/0" } }] }])).toEqual([
      "ip daddr { 10.0.0.1 } meta nfproto ipv4 return",
    ]);
  });
  test("ports are numbers, ranges, names and whole protocols", () => {
    expect(only([{ ports: [{ port: 80 }] }])).toEqual(["ip daddr { 10.0.0.1 } tcp dport 80 return"]);
    expect(only([{ ports: [{ port: 80, endPort: 90, protocol: "UDP" }] }])).toEqual([
      "ip daddr { 10.0.0.1 } udp dport 80-90 return",
    ]);
    expect(only([{ ports: [{ port: "sql" }] }])).toEqual(["ip daddr 10.0.0.1 tcp dport 5432 return"]);
    expect(only([{ ports: [{ port: "no-such-name" }] }])).toEqual([]);
    expect(only([{ ports: [{ protocol: "UDP" }] }])).toEqual([
      "ip daddr { 10.0.0.1 } meta l4proto udp return",
    ]);
  });
  test("policies add up", () => {
    const lines = rules(
      "ingress",
      policy({ ...db, ingress: [{ ports: [{ port: 1 }] }] }),
      policy({ ...db, ingress: [{ ports: [{ port: 2 }] }] }),
    );
    expect(lines).toHaveLength(4);
    expect(lines.at(-1)).toBe("drop");
  });
});

test("egress speaks of the other end, names of ports included", () => {
  const lines = rules(
    "egress",
    policy({
      ...db,
      egress: [{ to: [{ namespaceSelector: { matchLabels: { team: "ops" } } }], ports: [{ port: "sql" }] }],
    }),
  );
  expect(lines).toEqual([
    "ip saddr != { 10.0.0.1 } return",
    "ip saddr { 10.0.0.1 } ip daddr 10.0.0.3 tcp dport 5432 return",
    "drop",
  ]);
});

test("an egress rule by a port's name and a block stays inside the block", () => {
  const lines = rules(
    "egress",
    policy({ ...db, egress: [{ to: [{ ipBlock: { cidr: "10.9.0.0/16" } }], ports: [{ port: "sql" }] }] }),
  );
  expect(lines[1]).toBe("ip saddr { 10.0.0.1 } ip daddr 10.9.0.0/16 ip daddr 10.0.0.1 tcp dport 5432 return");
});

test.each([
  [{ matchExpressions: [{ key: "app", operator: "In", values: ["db"] }] }, true],
  [{ matchExpressions: [{ key: "app", operator: "NotIn", values: ["db"] }] }, false],
  [{ matchExpressions: [{ key: "tier", operator: "NotIn", values: ["db"] }] }, true],
  [{ matchExpressions: [{ key: "app", operator: "Exists" }] }, true],
  [{ matchExpressions: [{ key: "app", operator: "DoesNotExist" }] }, false],
  [{ matchLabels: { app: "db" }, matchExpressions: [{ key: "x", operator: "Exists" }] }, false],
])("selector %j selects app=db: %s", (selector, answer) => {
  expect(selects(selector, { app: "db" })).toBe(answer);
});
