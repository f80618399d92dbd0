import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compilePolicies, type PolicyFeatures } from "./compile.ts";
import type { AccessPolicySpec, PolicyDocument, PolicyRule, ResourceDocument } from "./documents.ts";
import { forSession, ruleStatuses, type SessionPolicy } from "./evaluate.ts";
import type { Command, CommandPart, Identity, ResourceFacts, VerdictAction } from "./model.ts";

const resource: ResourceFacts = {
  namespace: "shop",
  name: "orders",
  labels: {},
  namespaceLabels: {},
  protocol: "postgres",
};
const documents: readonly ResourceDocument[] = [{ ...resource, spec: { protocol: "postgres" } }];
const identity: Identity = {
  provider: "okta",
  user: "okta:alice",
  groups: [],
  kind: "Human",
  claims: { level: 3 },
};
const session = { database: "app", account: "app", applicationName: "psql", clientAddress: "192.0.2.1" };
const facts = { nowMs: Date.UTC(2026, 0, 5, 12) };

function policy(name: string, spec: AccessPolicySpec): PolicyDocument {
  const base = { resources: { names: ["orders"] }, subjects: [{ user: "okta:alice" }] };
  return { kind: "AccessPolicy", namespace: "shop", name, generation: 1, spec: { ...base, ...spec } };
}

function floor(name: string, spec: AccessPolicySpec): PolicyDocument {
  const base = { resources: { selector: {} }, subjects: [{ kind: "Human" }] };
  return { kind: "ClusterAccessPolicy", name, generation: 1, spec: { ...base, ...spec } };
}

function sessionOf(
  policies: readonly PolicyDocument[],
  features: PolicyFeatures = { masking: false, approvals: true },
): SessionPolicy {
  const { set, problems } = compilePolicies(policies, documents, { features });
  expect(problems).toEqual([]);
  return forSession(set, { resource, identity, session });
}

const part = (given: Partial<CommandPart> = {}): CommandPart => ({
  operation: "read",
  words: ["SELECT"],
  objects: [],
  unbounded: false,
  enforcement: "authoritative",
  ...given,
});
const relation = (name: string, direct = true) => ({ name, kind: "relation", direct }) as const;
const command = (...parts: readonly CommandPart[]): Command => ({
  protocol: "postgres",
  text: "SELECT 1",
  parts,
});

const strictness: Readonly<Record<VerdictAction, number>> = { Allow: 0, RequireApproval: 1, Deny: 2 };

/** Rules and commands drawn from a world so small that they meet often. */
const operations = ["read", "write", "define"] as const;
const names = ["a.x", "a.y", "b.x"];
const cels = [
  "identity.claims.level > 2",
  "identity.claims.absent == 1",
  "command.text == 'SELECT 1'",
  "time.getHours() == 12",
];
const anyMatch = fc.record(
  {
    operations: fc.uniqueArray(fc.constantFrom(...operations), { minLength: 1 }),
    objects: fc.uniqueArray(fc.constantFrom("a.*", "b.x", "a.x", "*"), { minLength: 1 }),
    commands: fc.uniqueArray(fc.constantFrom("SELECT", "DELETE", "D*"), { minLength: 1 }),
    cel: fc.constantFrom(...cels),
  },
  { requiredKeys: [] },
);
const anyRule = (actions: readonly VerdictAction[]): fc.Arbitrary<Omit<PolicyRule, "name">> =>
  fc.record({ match: anyMatch, action: fc.constantFrom(...actions) });
const anyActions = ["Allow", "Deny", "RequireApproval"] as const;
/** One rule a policy, so that no two rules of one policy contradict each other. */
const anyRules = fc.array(anyRule(anyActions), { maxLength: 8 });
const anyPart: fc.Arbitrary<CommandPart> = fc.record({
  operation: fc.constantFrom(...operations),
  words: fc.constantFrom(["SELECT"], ["DELETE"], ["DROP TABLE"]),
  objects: fc.array(
    fc.record({
      name: fc.constantFrom(...names),
      direct: fc.boolean(),
      kind: fc.constant("relation" as const),
    }),
    { maxLength: 3 },
  ),
  unbounded: fc.boolean(),
  enforcement: fc.constantFrom("authoritative" as const, "heuristic" as const),
});
const anyCommand = fc.array(anyPart, { maxLength: 3 }).map((parts) => command(...parts));
const asPolicies = (rules: readonly Omit<PolicyRule, "name">[]) =>
  rules.map((rule, index) => policy(`p${index}`, { rules: [{ name: `r${index}`, ...rule }] }));

describe("whatever the policies and the command", () => {
  test("the order of policies never changes the verdict, nor the rule that it names", () => {
    fc.assert(
      fc.property(anyRules, anyCommand, fc.infiniteStream(fc.nat(100)), (rules, asked, keys) => {
        const policies = asPolicies(rules);
        const shuffled = policies
          .map((one) => ({ one, key: keys.next().value }))
          .sort((a, b) => a.key - b.key)
          .map(({ one }) => one);
        expect(sessionOf(shuffled).decide(asked, facts)).toEqual(sessionOf(policies).decide(asked, facts));
      }),
      { numRuns: 200 },
    );
  });

  test("the order of the rules of a policy never changes the verdict, nor the rule that it names", () => {
    const distinct = fc.uniqueArray(anyRule(anyActions), {
      maxLength: 6,
      selector: ({ match }) =>
        JSON.stringify(
          Object.entries(match ?? {})
            .map(([key, value]) => [key, [value].flat().sort()])
            .sort(),
        ),
    });
    fc.assert(
      fc.property(distinct, anyCommand, (rules, asked) => {
        const named = rules.map((rule, index) => ({ name: `r${index}`, ...rule }));
        const forwards = sessionOf([policy("p", { rules: named })]).decide(asked, facts);
        expect(sessionOf([policy("p", { rules: named.toReversed() })]).decide(asked, facts)).toEqual(
          forwards,
        );
      }),
      { numRuns: 200 },
    );
  });

  test.each([
    ["policy", policy],
    ["cluster floor", floor],
  ] as const)("another Deny rule in a %s never loosens", (_, document) => {
    fc.assert(
      fc.property(anyRules, anyRule(["Deny"]), anyCommand, (rules, stricter, asked) => {
        const before = sessionOf(asPolicies(rules)).decide(asked, facts);
        const more = document("more", { rules: [{ name: "more", ...stricter }] });
        const after = sessionOf([...asPolicies(rules), more]).decide(asked, facts);
        expect(strictness[after.action]).toBeGreaterThanOrEqual(strictness[before.action]);
      }),
      { numRuns: 200 },
    );
  });

  test("what a floor denies no policy allows", () => {
    fc.assert(
      fc.property(anyRules, anyRule(["Deny"]), anyCommand, (rules, stricter, asked) => {
        const deny = floor("floor", {
          rules: [
            { name: "deny", ...stricter },
            { name: "rest", match: { cel: "true" }, action: "Allow" },
          ],
        });
        if (sessionOf([deny]).decide(asked, facts).action !== "Deny") return;
        expect(sessionOf([deny, ...asPolicies(rules)]).decide(asked, facts).action).toBe("Deny");
      }),
      { numRuns: 200 },
    );
  });

  test("another object or part never loosens", () => {
    fc.assert(
      fc.property(anyRules, anyPart, anyPart, (rules, one, other) => {
        const policies = sessionOf(asPolicies(rules));
        const alone = policies.decide(command(one), facts);
        const together = policies.decide(command(one, other), facts);
        expect(strictness[together.action]).toBeGreaterThanOrEqual(strictness[alone.action]);
      }),
      { numRuns: 200 },
    );
  });

  test("explain agrees with the verdict", () => {
    fc.assert(
      fc.property(anyRules, anyCommand, (rules, asked) => {
        const policies = sessionOf(asPolicies(rules));
        const { verdict, parts } = policies.explain(asked, facts);
        if (policies.mayConnect.action === "Deny" || parts.length === 0) return;
        const strictest = parts.map(({ action }) => strictness[action]).reduce((a, b) => Math.max(a, b));
        expect(strictness[verdict.action]).toBe(strictest);
      }),
      { numRuns: 200 },
    );
  });
});

describe("an attacker with a valid account", () => {
  const limited = () =>
    sessionOf([
      policy("p", {
        rules: [{ name: "reads", match: { operations: ["read"], objects: ["public.*"] }, action: "Allow" }],
      }),
    ]);

  test("does not pass by a schema whose name holds a dot", () => {
    const asked = command(part({ objects: [relation("public.evil.t")] }));
    expect(limited().decide(asked, facts).action).toBe("Deny");
  });

  test("does not pass by a group or user that differs in case or by a prefix", () => {
    const { set } = compilePolicies([policy("p", { profile: "Admin" })], documents);
    for (const user of ["okta:Alice", "okta:alice ", "okta:alic", "alice", "okta:alice2"]) {
      const policies = forSession(set, { resource, identity: { ...identity, user }, session });
      expect(policies.mayConnect.action).toBe("Deny");
      expect(policies.decide(command(part()), facts).action).toBe("Deny");
    }
  });

  test("does not reach a resource of the same name in another namespace", () => {
    const { set } = compilePolicies([policy("p", { profile: "Admin" })], documents);
    const elsewhere = forSession(set, { resource: { ...resource, namespace: "lab" }, identity, session });
    expect(elsewhere.mayConnect.action).toBe("Deny");
  });

  test("a cursor's name needs no rule, the relation behind it does", () => {
    const fetch = part({ words: ["FETCH"], objects: [{ name: "c", kind: "other", direct: true }] });
    expect(limited().decide(command(fetch), facts).action).toBe("Allow");
    expect(limited().decide(command(part({ objects: [relation("private.t")] })), facts).action).toBe("Deny");
  });

  test("a message never holds the text of the command", () => {
    const asked: Command = {
      protocol: "postgres",
      text: "SELECT 'hunter2'",
      parts: [part({ operation: "export" })],
    };
    const verdict = limited().decide(asked, facts);
    expect(JSON.stringify(verdict)).not.toContain("hunter2");
  });
});

test("a policy that was removed is no longer in force, whatever was in force before", () => {
  const previous = compilePolicies([policy("p", { profile: "Admin" })], documents).set;
  const { set } = compilePolicies([], documents, { previous });
  expect(forSession(set, { resource, identity, session }).mayConnect.action).toBe("Deny");
});

test("a broken policy that only observes closes nothing", () => {
  const broken = policy("broken", {
    mode: "Audit",
    rules: [{ name: "r", match: { cel: "(" }, action: "Deny" }],
  });
  const { set, problems } = compilePolicies([broken, policy("p", { profile: "ReadOnly" })], documents);
  expect(problems.map(({ reason }) => reason)).toEqual(["InvalidCel"]);
  expect(forSession(set, { resource, identity, session }).mayConnect.action).toBe("Allow");
});

test("two policies of one name are a problem, and the resources deny", () => {
  const twice = [policy("p", { profile: "ReadOnly" }), policy("p", { profile: "Admin" })];
  const { set, problems } = compilePolicies(twice, documents);
  expect(problems.map(({ reason }) => reason)).toEqual(["Duplicate"]);
  expect(forSession(set, { resource, identity, session }).mayConnect.message).toMatch(/PolicyInvalid/);
});

test("a clock that has no time fails closed", () => {
  const policies = sessionOf([
    policy("p", {
      rules: [
        { name: "reads", match: { operations: ["read"] }, action: "Allow" },
        { name: "day", match: { operations: ["write"], cel: "time.getHours() >= 0" }, action: "Allow" },
        { name: "night", match: { objects: ["a.x"], cel: "time.getHours() > 23" }, action: "Deny" },
      ],
    }),
  ]);
  const noTime = { nowMs: Number.NaN };
  expect(policies.decide(command(part({ operation: "write" })), noTime).action).toBe("Deny");
  expect(policies.decide(command(part({ objects: [relation("a.x")] })), noTime).rule?.rule).toBe("night");
  expect(policies.decide(command(part({ objects: [relation("a.x")] })), facts).action).toBe("Allow");
});

test.each([
  ["limits that are a list", { profile: "ReadOnly", limits: [1] }, "spec.limits"],
  [
    "a message that is a number",
    { rules: [{ name: "r", match: {}, action: "Deny", message: 4 }] },
    "spec.rules[0].message",
  ],
  [
    "a mask whose columns are one text",
    { masking: [{ columns: "a.b.c", with: "Blur" }] },
    "spec.masking[0].columns",
  ],
])("%s is a problem at its field", (_, spec, path) => {
  const features = { masking: true, approvals: true };
  const { problems } = compilePolicies([policy("p", spec as unknown as AccessPolicySpec)], documents, {
    features,
  });
  expect(problems.map((problem) => problem.path)).toContain(path);
});

test.each([
  ["a spec that is no object", 5],
  [
    "lists that are none",
    { resources: { names: "orders" }, subjects: "all", rules: "none", masking: 1, limits: [] },
  ],
  [
    "entries that are none",
    { resources: { names: ["orders", 4] }, subjects: [null], rules: [null], masking: [null] },
  ],
  [
    "keys that are none",
    { resources: 7, subjects: [{ user: 4 }], rules: [{ name: 4, match: 4, action: 4, approval: 4 }] },
  ],
  ["selectors that are none", { resources: { selector: { matchExpressions: [{}] } }, namespaceSelector: 4 }],
])("%s is a problem and no exception, and what it names denies", (_, spec) => {
  const broken: PolicyDocument = { ...policy("p", {}), spec: spec as unknown as AccessPolicySpec };
  const { set, problems } = compilePolicies([broken, policy("admin", { profile: "Admin" })], documents);
  expect(problems.length).toBeGreaterThan(0);
  expect(forSession(set, { resource, identity, session }).mayConnect.action).toBe("Deny");
});

test("each rule's strength is told for the status", () => {
  const { set } = compilePolicies(
    [
      policy("p", {
        profile: "ReadOnly",
        rules: [{ name: "u", match: { unbounded: true }, action: "Deny" }],
      }),
    ],
    documents,
  );
  const statuses = [
    { policy: "p", rule: "u", enforcement: "heuristic" },
    { policy: "p", rule: "profile/ReadOnly", enforcement: "authoritative" },
    { policy: "p", rule: "profile/ReadOnly", enforcement: "authoritative" },
  ];
  expect(ruleStatuses(set, resource)).toEqual(statuses);
  expect(forSession(set, { resource, identity, session }).ruleStatuses).toEqual(statuses);
});

test("explain says which policies applied, which rules matched, and why", () => {
  const policies = sessionOf([
    policy("readers", { profile: "ReadOnly" }),
    policy("others", { subjects: [{ user: "okta:bob" }], profile: "Admin" }),
    policy("guard", { rules: [{ name: "no-secrets", match: { objects: ["secret.*"] }, action: "Deny" }] }),
  ]);
  const {
    verdict,
    policies: told,
    parts,
  } = policies.explain(command(part({ objects: [relation("secret.a")] })), facts);
  expect(verdict.action).toBe("Deny");
  expect(told.map((one) => [one.policy, one.applies, one.why])).toEqual([
    ["guard", true, "it names orders and okta:alice"],
    ["others", false, "its subjects do not name okta:alice"],
    ["readers", true, "it names orders and okta:alice"],
  ]);
  expect(parts[0]?.why).toBe("rule no-secrets of guard denies it, and any Deny wins");
  expect(parts[0]?.rules.map((rule) => [rule.rule, rule.matched, rule.why])).toEqual([
    ["no-secrets", true, "every key matches"],
    ["profile/ReadOnly", true, "every key matches"],
    ["profile/ReadOnly", false, "another operation; it is for session"],
  ]);
});

test("ten policies decide a command in a few microseconds", () => {
  const policies = Array.from({ length: 10 }, (_, index) =>
    policy(`p${index}`, {
      profile: "ReadWrite",
      rules: [
        { name: "no-unbounded", match: { operations: ["write"], unbounded: true }, action: "Deny" },
        { name: "no-secrets", match: { objects: [`secret${index}.*`, "hr.salaries"] }, action: "Deny" },
        {
          name: "level",
          match: { operations: ["define"], cel: "identity.claims.level > 2" },
          action: "Deny",
        },
      ],
    }),
  );
  const asked = command(part({ objects: [relation("public.pgbench_accounts")] }));
  const decided = sessionOf(policies);
  const rounds = 20_000;
  for (let round = 0; round < rounds; round++) decided.decide(asked, facts);
  const started = process.cpuUsage();
  for (let round = 0; round < rounds; round++) decided.decide(asked, facts);
  const micros = process.cpuUsage(started).user / rounds;
  // Three is the target on an idle machine (measured: see the commit); the bound here leaves room for a busy one.
  expect(micros).toBeLessThan(30);
});
