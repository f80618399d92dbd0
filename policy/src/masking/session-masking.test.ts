import { beforeAll, expect, test } from "vitest";
import { compilePolicies } from "../compile.ts";
import type { AccessPolicySpec, PolicyDocument, ResourceDocument } from "../documents.ts";
import { forSession, type MaskLift } from "../evaluate.ts";
import type { Identity, ResourceFacts } from "../model.ts";
import { analyseSql } from "../sql/analyse.ts";
import { loadSqlParser, parseStatements } from "../sql/parser.ts";
import { testNames, testRelation } from "../sql/testing.ts";
import { lineageOf } from "./lineage.ts";
import type { MaskDecision, SessionMasking } from "./session-masking.ts";

beforeAll(loadSqlParser);

const names = testNames({
  relations: [testRelation("public.cust", "id name ssn email"), testRelation("public.ord", "id note")],
});
const resource: ResourceDocument = {
  namespace: "shop",
  name: "orders",
  labels: {},
  spec: {
    protocol: "postgres",
    classification: [{ tag: "pii", columns: ["public.cust.ssn", "public.cust.email"] }],
  },
};
const facts: ResourceFacts = { ...resource, namespaceLabels: {}, protocol: "postgres" };
const alice: Identity = { provider: "p", user: "alice", groups: ["oncall"], kind: "Human", claims: {} };

function maskingOf(
  specs: readonly Partial<AccessPolicySpec>[],
  lifts: readonly MaskLift[] = [],
): SessionMasking {
  const documents = specs.map(
    (spec, index): PolicyDocument => ({
      kind: "AccessPolicy",
      namespace: "shop",
      name: `p${index}`,
      generation: 1,
      spec: { resources: { names: ["orders"] }, subjects: [{ user: "alice" }], profile: "Admin", ...spec },
    }),
  );
  const features = { masking: true, approvals: true };
  const { set, problems } = compilePolicies(documents, [resource], { features });
  expect(problems).toEqual([]);
  const session = { database: "d", account: "a", applicationName: "", clientAddress: "" };
  return forSession(set, { resource: facts, identity: alice, session }).masking(lifts);
}

function decide(masking: SessionMasking, sql: string): MaskDecision {
  const analysis = analyseSql(sql, names);
  if (analysis.kind === "rejected") throw new Error(analysis.message);
  const [statement] = parseStatements(sql);
  const parts = analysis.statements[0]?.parts ?? [];
  return masking.decide(lineageOf(statement?.node ?? {}, parts, names, masking.columns));
}

/** The method for each column, `.` for none. */
function methods(decision: MaskDecision): string {
  if (decision.kind === "deny")
    return `deny ${decision.ref.policy}/${decision.ref.rule}: ${decision.message}`;
  if (decision.kind === "plain") return "plain";
  const rest = decision.rest === undefined ? [] : [`rest ${decision.rest.with}`];
  return [...decision.columns.map((choice) => choice?.with ?? "."), ...rest].join(" ");
}

const redactPii = { masking: [{ tags: ["pii"], with: "Redact" }] };

test("a tag masks the columns that the resource classifies so", () => {
  const masking = maskingOf([redactPii]);
  expect(methods(decide(masking, "SELECT * FROM cust"))).toBe(". . Redact Redact");
  expect(methods(decide(masking, "SELECT id FROM cust"))).toBe("plain");
});

test("of several masks on a value the strictest holds, whatever their order", () => {
  const partial = { masking: [{ columns: ["public.cust.ssn"], with: "Partial", format: "{last4}" }] };
  const hash = { masking: [{ columns: ["public.*.ssn"], with: "Hash" }] };
  const nulls = { masking: [{ columns: ["*.cust.*"], with: "Null" }] };
  expect(methods(decide(maskingOf([partial]), "SELECT ssn FROM cust"))).toBe("Partial");
  expect(methods(decide(maskingOf([partial, hash]), "SELECT ssn FROM cust"))).toBe("Hash");
  expect(methods(decide(maskingOf([hash, nulls, partial]), "SELECT ssn FROM cust"))).toBe("Null");
});

test("what is computed from a masked value keeps no part of it", () => {
  const masking = maskingOf([{ masking: [{ tags: ["pii"], with: "Partial", format: "{last4}" }] }]);
  expect(methods(decide(masking, "SELECT ssn, upper(ssn) FROM cust"))).toBe("Partial Redact");
});

test("inference is denied unless every policy that masks allows it", () => {
  const sql = "SELECT id FROM cust WHERE ssn = 'x'";
  expect(methods(decide(maskingOf([redactPii]), sql))).toMatch(/^deny p0\/masking\[0\]: .*public\.cust\.ssn/);
  expect(methods(decide(maskingOf([{ ...redactPii, inference: "Allow" }]), sql))).toBe("plain");
  expect(methods(decide(maskingOf([{ ...redactPii, inference: "Allow" }, redactPii]), sql))).toMatch(/^deny/);
});

test("a refusal names columns and never a value", () => {
  const decision = decide(maskingOf([redactPii]), "SELECT id FROM cust WHERE ssn = '123-45-6789'");
  expect(JSON.stringify(decision)).not.toContain("6789");
});

test("who sees a column masked does not write it, unless the policy lets them", () => {
  const sql = "UPDATE cust SET ssn = 'x' WHERE id = 1";
  expect(methods(decide(maskingOf([redactPii]), sql))).toMatch(/^deny .*would write public\.cust\.ssn/);
  expect(methods(decide(maskingOf([{ ...redactPii, maskedWrites: "Allow" }]), sql))).toBe("plain");
});

test("copying a masked value elsewhere is denied whatever else is allowed", () => {
  const masking = maskingOf([{ ...redactPii, inference: "Allow", maskedWrites: "Allow" }]);
  expect(methods(decide(masking, "INSERT INTO ord (note) SELECT ssn FROM cust"))).toMatch(
    /^deny .*would store/,
  );
});

test("only what is marked liftable is lifted", () => {
  const specs = [
    {
      masking: [
        { columns: ["public.cust.ssn"], with: "Redact" },
        { columns: ["public.cust.email"], with: "Redact", liftable: true },
      ],
    },
  ];
  const lifts: readonly MaskLift[] = [{ policy: "p0", by: "approval", rule: "see", ruleText: "rule" }];
  expect(methods(decide(maskingOf(specs), "SELECT ssn, email FROM cust"))).toBe("Redact Redact");
  expect(methods(decide(maskingOf(specs, lifts), "SELECT ssn, email FROM cust"))).toBe("Redact .");
});

test("SchemaOnly with MaskAll reads everything and sees nothing", () => {
  const masking = maskingOf([{ profile: "SchemaOnly", schemaOnlyReads: "MaskAll" }]);
  expect(methods(decide(masking, "SELECT * FROM cust"))).toBe("Redact Redact Redact Redact");
  expect(methods(decide(masking, "SELECT count(*) FROM cust"))).toBe("plain");
  expect(methods(decide(masking, "SELECT relname FROM pg_catalog.pg_class"))).toBe("plain");
});

test("columns whose number is not known are hidden alike", () => {
  const masking = maskingOf([redactPii]);
  expect(methods(decide(masking, "SELECT c.*, g.* FROM cust c, json_each('{}') g"))).toBe("rest Redact");
});

test("of a JSON column a part may be masked, where the value is the column's own and no other mask takes all of it", () => {
  const part = { columns: ["public.cust.email->contact->*"], with: "Redact" } as const;
  const choiceOf = (masking: SessionMasking, sql: string) => {
    const decision = decide(masking, sql);
    return decision.kind === "mask" ? decision.columns[0] : undefined;
  };
  const parts = maskingOf([{ masking: [part, { columns: ["*.cust.email->id"], with: "Null" }] }]);
  expect(choiceOf(parts, "SELECT email FROM cust")?.paths).toEqual([
    { path: ["id"], with: "Null" },
    { path: ["contact", "*"], with: "Redact" },
  ]);
  const computed = choiceOf(parts, "SELECT email || '' FROM cust");
  expect(computed).toMatchObject({ with: "Null", isExact: false });
  expect(computed?.paths).toBeUndefined();
  expect(parts.maskOf("public.cust.email").paths).toHaveLength(2);
  const whole = maskingOf([{ masking: [part] }, { masking: [{ tags: ["pii"], with: "Hash" }] }]);
  expect(choiceOf(whole, "SELECT email FROM cust")).toMatchObject({ with: "Redact", isExact: true });
  expect(choiceOf(whole, "SELECT email FROM cust")?.paths).toBeUndefined();
  expect(decide(parts, "SELECT id FROM cust WHERE email = 'x'").kind).toBe("deny");
});
