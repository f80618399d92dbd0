import { describe, expect, test } from "vitest";
import { compilePolicies } from "./compile.ts";
import type { AccessPolicySpec, PolicyDocument, PolicyRule, ResourceDocument } from "./documents.ts";
import { forSession, type SessionPolicy } from "./evaluate.ts";
import type { DecisionFacts } from "./judge.ts";
import type { Command, Identity, Verdict } from "./model.ts";

const resource: ResourceDocument = {
  namespace: "shop",
  name: "orders",
  labels: {},
  spec: { protocol: "postgres" },
};
const identity: Identity = { provider: "p", user: "alice", groups: ["oncall"], kind: "Human", claims: {} };
const alter: Command = {
  protocol: "postgres",
  text: "ALTER TABLE t ADD c int",
  parts: [
    {
      operation: "define",
      words: ["ALTER TABLE"],
      objects: [{ name: "public.t", kind: "relation", direct: true }],
      unbounded: false,
      enforcement: "authoritative",
    },
  ],
};

function asking(name: string, more: Partial<PolicyRule> = {}): PolicyRule {
  return { name, match: { operations: ["define"] }, action: "RequireApproval", ...more };
}

function decide(specs: readonly Partial<AccessPolicySpec>[], facts: Partial<DecisionFacts> = {}): Verdict {
  return policyOf(specs).decide(alter, { nowMs: 0, ...facts });
}

function policyOf(specs: readonly Partial<AccessPolicySpec>[]): SessionPolicy {
  const documents = specs.map(
    (spec, index): PolicyDocument => ({
      kind: "AccessPolicy",
      namespace: "shop",
      name: `p${index}`,
      generation: 1,
      spec: { resources: { names: ["orders"] }, subjects: [{ user: "alice" }], ...spec },
    }),
  );
  const { set, problems } = compilePolicies(documents, [resource], {
    features: { masking: true, approvals: true },
  });
  expect(problems).toEqual([]);
  return forSession(set, {
    resource: { ...resource, namespaceLabels: {}, protocol: "postgres" },
    identity,
    session: { database: "d", account: "a", applicationName: "", clientAddress: "" },
  });
}

const texts = (verdict: Verdict): readonly string[] => (verdict.asks ?? []).map(({ ruleText }) => ruleText);

test("every rule that asks is named, each with its own terms", () => {
  const verdict = decide([
    { rules: [asking("one", { approval: { required: 2, timeout: "5m" } })] },
    { profile: "Admin", rules: [asking("two")] },
  ]);
  expect(verdict.action).toBe("RequireApproval");
  expect(verdict.asks).toMatchObject([
    { policy: "p0", rule: "one", required: 2, timeoutMs: 300_000, grant: "Once" },
    { policy: "p1", rule: "two", required: 1, timeoutMs: 600_000 },
  ]);
});

test("an approval of one rule leaves the other one asking; of both, the command may run", () => {
  const specs = [{ rules: [asking("one")] }, { rules: [asking("two")] }];
  const [one = "", two = ""] = texts(decide(specs));
  const half = decide(specs, { approved: new Set([one]) });
  expect(half.action).toBe("RequireApproval");
  expect(texts(half)).toEqual([two]);
  const whole = decide(specs, { approved: new Set([one, two]) });
  expect(whole.action).toBe("Allow");
  expect(whole.satisfied).toMatchObject([{ by: "approval" }, { by: "approval" }]);
  expect(whole.cacheable).toBe(false);
});

test("an approval lifts no Deny", () => {
  const specs = [
    { rules: [asking("one"), { ...asking("no"), match: { commands: ["ALTER TABLE"] }, action: "Deny" }] },
  ];
  const [text = ""] = texts(decide([{ rules: [asking("one")] }]));
  expect(decide(specs, { approved: new Set([text]) }).action).toBe("Deny");
});

test("a rule that changed is another rule: what was approved before does not count", () => {
  const [before = ""] = texts(decide([{ rules: [asking("one")] }]));
  const changed = [{ rules: [asking("one", { approval: { required: 2 } })] }];
  expect(decide(changed, { approved: new Set([before]) }).action).toBe("RequireApproval");
  const unrelated = [
    { rules: [asking("one"), { name: "other", match: { operations: ["read"] }, action: "Deny" }] },
  ];
  expect(decide(unrelated, { approved: new Set([before]) }).action).toBe("Allow");
});

test("break-glass lets its group through with a reason, and nobody else, and not without one", () => {
  const specs = [{ rules: [asking("one", { approval: { breakGlass: { group: "oncall" } } })] }];
  expect(decide(specs).action).toBe("RequireApproval");
  expect(decide(specs, { reason: "  " }).action).toBe("RequireApproval");
  const through = decide(specs, { reason: "incident 7" });
  expect(through.action).toBe("Allow");
  expect(through.satisfied).toMatchObject([{ by: "breakGlass", terms: { rule: "one" } }]);
  const others = [{ rules: [asking("one", { approval: { breakGlass: { group: "dba" } } })] }];
  expect(decide(others, { reason: "incident 7" }).action).toBe("RequireApproval");
});

describe("liftable masks", () => {
  const masking = [
    { columns: ["public.cust.email"], with: "Redact" as const, liftable: true },
    { columns: ["public.cust.ssn"], with: "Redact" as const },
  ];
  const window = { grant: "Window" as const, window: "1h", breakGlass: { group: "oncall" } };
  const policy = policyOf([
    { rules: [asking("see", { approval: window })], masking },
    { rules: [asking("other", { approval: { grant: "Window", window: "1h" } })], masking },
    { rules: [asking("once")], masking },
  ]);
  const [see = "", other = "", once = ""] = policy.approvalTerms.map(({ ruleText }) => ruleText);
  const lifted = (facts: Parameters<SessionPolicy["lifts"]>[0]) =>
    policy.lifts(facts).map((lift) => `${lift.policy} ${lift.by}`);

  test("are lifted by a window of a rule of their own policy, or by break-glass with a reason", () => {
    expect(lifted({ approved: new Set([see]) })).toEqual(["p0 approval"]);
    expect(lifted({ approved: new Set([other]) })).toEqual(["p1 approval"]);
    expect(lifted({ reason: "incident" })).toEqual(["p0 breakGlass"]);
  });

  test("are lifted by nothing else: not by one command's approval, a blank reason or another rule's text", () => {
    expect(lifted({})).toEqual([]);
    expect(lifted({ approved: new Set([once]) })).toEqual([]);
    expect(lifted({ approved: new Set(["another rule"]), reason: "  " })).toEqual([]);
  });

  test("alone are lifted, and of that policy alone", () => {
    const masks = (specs: readonly Partial<AccessPolicySpec>[]) => {
      const own = policyOf(specs);
      const [first = ""] = own.approvalTerms.map(({ ruleText }) => ruleText);
      return own.masking(own.lifts({ approved: new Set([first]) }));
    };
    const one = { rules: [asking("see", { approval: window })], masking };
    expect(masks([one]).columns.names("public.cust.email")).toBe(false);
    expect(masks([one]).columns.names("public.cust.ssn")).toBe(true);
    expect(masks([one, { rules: [], profile: "Admin", masking }]).columns.names("public.cust.email")).toBe(
      true,
    );
    expect(policy.masking([])).toBe(policy.masking());
  });
});

test.each([
  [{}, "one person other than who asks, within 10m, for this one command"],
  [
    { required: 2, timeout: "90s", grant: "Window", window: "1h", reasonRequired: true },
    "2 people other than who asks, within 90s, for 1h from then on, with a reason (SET sallyport.reason = '...')",
  ],
  [
    { breakGlass: { group: "oncall" } },
    "for this one command; members of oncall pass with a reason and without approval",
  ],
] as const)("explain says what a rule asks of approvers, and what they give: %o", (approval, words) => {
  const explained = policyOf([{ profile: "Admin", rules: [asking("schema", { approval })] }]).explain(alter, {
    nowMs: 0,
  });
  expect(explained.parts[0]?.why).toContain(`rule schema of p0 asks for approval: `);
  expect(explained.parts[0]?.why).toContain(words);
});
