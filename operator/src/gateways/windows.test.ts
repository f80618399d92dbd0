import type { Approval } from "@sallyport/crds";
import type { ApprovalTerms } from "@sallyport/policy";
import { expect, test } from "vitest";
import { isOfThis, windowsOf } from "./windows.ts";

const now = Date.parse("2026-01-01T00:00:00Z");
const ruleHash = "sha256:one";
const terms: ApprovalTerms = {
  kind: "AccessPolicy",
  policy: "prod",
  rule: "fixes",
  ruleText: "the rule",
  required: 1,
  timeoutMs: 60_000,
  grant: "Window",
  windowMs: 3_600_000,
  reasonRequired: false,
};
const rule = { terms, ruleHash };
const opened = (status: Approval["status"] = {}, spec: Partial<Approval["spec"]> = {}): Approval => ({
  apiVersion: "sallyport.dev/v1alpha1",
  kind: "Approval",
  metadata: { name: "a", namespace: "shop" },
  spec: {
    request: {
      type: "Access",
      requester: "alice",
      resource: "orders",
      policies: [{ kind: "AccessPolicy", policy: "prod", rule: "fixes", required: 1 }],
      duration: "10m",
    },
    decisions: [{ approver: "bob", decision: "Approved" }],
    ...spec,
  },
  status: {
    phase: "Approved",
    grantedUntil: "2026-01-01T00:10:00Z",
    rules: [
      { kind: "AccessPolicy", policy: "prod", rule: "fixes", ruleHash, required: 1, approvedBy: ["bob"] },
    ],
    ...status,
  },
});

test("what was approved is open for its requester, under the rule's own text, until its time", () => {
  expect(windowsOf(opened(), [rule], now)).toEqual([
    {
      approval: "a",
      requester: "alice",
      approvedBy: ["bob"],
      ruleText: "the rule",
      until: Date.parse("2026-01-01T00:10:00Z"),
    },
  ]);
});

test.each([
  ["is over by the clock, whatever its object says", opened({ grantedUntil: "2026-01-01T00:00:00Z" }), rule],
  ["is not approved", opened({ phase: "Pending" }), rule],
  ["was taken back, before its status says so", opened({}, { revocation: { by: "alice" } }), rule],
  ["is of a rule that is another one now", opened(), { ...rule, ruleHash: "sha256:two" }],
  ["is of a rule that is gone", opened(), undefined],
  ["is called approved, and nobody has decided", opened({}, { decisions: [] }), rule],
  [
    "is of a rule that approves each command by itself",
    opened(),
    { ...rule, terms: { ...terms, grant: "Once" } },
  ],
] as const)("nothing is open of what %s", (_, approval, found) => {
  expect(windowsOf(approval, [found], now)).toEqual([]);
});

test("what was approved of a resource that is gone opens nothing of another one of its name", () => {
  const at = (creationTimestamp: string) => ({ creationTimestamp });
  expect(isOfThis(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:01Z"))).toBe(true);
  expect(isOfThis(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"))).toBe(true);
  expect(isOfThis(at("2026-01-01T00:00:01Z"), at("2026-01-01T00:00:00Z"))).toBe(false);
  expect(isOfThis({}, at("2026-01-01T00:00:00Z"))).toBe(false);
});
