import type { Approval } from "@sallyport/crds";
import type { ApprovalTerms } from "@sallyport/policy";
import { expect, test } from "vitest";
import { type ApprovalFacts, decideApproval } from "./decide.ts";
import { decideRetention } from "./retention.ts";

const now = new Date("2026-01-01T00:00:00Z");
type Decisions = Approval["spec"]["decisions"];

function approval(
  decisions: Decisions,
  more: {
    readonly phase?: "Approved" | "Denied";
    readonly required?: readonly number[];
    readonly type?: "Access";
  } = {},
): Approval {
  const { required = [1], phase, type = "Statement" } = more;
  return {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "Approval",
    metadata: { name: "a", namespace: "shop", generation: 1 },
    spec: {
      request: {
        type,
        requester: "alice",
        resource: "orders",
        policies: required.map((count, place) => ({
          kind: "AccessPolicy" as const,
          policy: `p${place}`,
          rule: "r",
          ...(type === "Statement" ? { ruleHash: "sha256:asked" } : {}),
          required: count,
        })),
        expiresAt: "2026-01-01T00:01:00Z",
      },
      decisions,
    },
    ...(phase && { status: { phase } }),
  };
}
const yes = (approver: string) => ({ approver, decision: "Approved" as const });
const facts: ApprovalFacts = { now, isHeld: true, isGuarded: true, mayApprove: () => true, rules: [] };
const phaseOf = (one: Approval, change: Partial<ApprovalFacts> = {}) =>
  decideApproval(one, { ...facts, ...change })?.status.phase;

test("waits for every rule's approvals, and says how far it is", () => {
  const half = decideApproval(approval([yes("bob")], { required: [2] }), facts);
  expect(half?.status).toMatchObject({ phase: "Pending", progress: "1/2" });
  expect(half?.againAfterMs).toBe(60_000);
  expect(phaseOf(approval([yes("bob"), yes("carol")], { required: [2] }))).toBe("Approved");
});

test("a decision counts only for the policies that its author may approve under", () => {
  const both = approval([yes("bob")], { required: [1, 1] });
  const mayApprove = (_: string, place: number) => place === 0;
  const decided = decideApproval(both, { ...facts, mayApprove });
  expect(decided?.status).toMatchObject({ phase: "Pending", progress: "1/2" });
  expect(decided?.status.rules?.map(({ approvedBy }) => approvedBy)).toEqual([["bob"], []]);
});

test("more approvals of one rule do not stand in for another's", () => {
  const one = approval([yes("bob"), yes("carol")], { required: [1, 1] });
  expect(phaseOf(one, { mayApprove: (_, place) => place === 0 })).toBe("Pending");
});

test("one denial ends it, also beside approvals", () => {
  const denied = [yes("bob"), { approver: "carol", decision: "Denied" as const }];
  expect(phaseOf(approval(denied))).toBe("Denied");
});

test("expires on time, and an approval that is too late does not count", () => {
  const late = new Date("2026-01-01T00:01:00Z");
  expect(phaseOf(approval([]), { now: late })).toBe("Expired");
  expect(phaseOf(approval([yes("bob")]), { now: late })).toBe("Expired");
});

test("is cancelled where nobody holds the command any more, whatever was decided", () => {
  expect(phaseOf(approval([yes("bob")]), { isHeld: false })).toBe("Cancelled");
  expect(phaseOf(approval([yes("bob")], { phase: "Approved" }), { isHeld: false })).toBe("Cancelled");
});

test("what is approved can be taken back; what is closed stays as it is", () => {
  const approved = approval([yes("bob")], { phase: "Approved" });
  const revoked = { ...approved, spec: { ...approved.spec, revocation: { by: "alice" } } };
  expect(phaseOf(revoked)).toBe("Revoked");
  expect(decideApproval(approval([yes("bob")], { phase: "Denied" }), facts)).toBeUndefined();
});

test.each([
  ["their own request", "alice", {}],
  ["their own request, under a name in another case", "Alice", {}],
  ["for an agent that acts for them", "bob", { onBehalfOf: "bob" }],
  ["for an agent that acts for them, by their provider's name", "bob", { onBehalfOf: "okta:bob" }],
  ["as a machine", "system:serviceaccount:argocd:argo", {}],
])("nobody decides %s, whatever admission let in", (_, approver, request) => {
  const made = approval([yes(approver)]);
  const asked = { ...made, spec: { ...made.spec, request: { ...made.spec.request, ...request } } };
  expect(decideApproval(asked, facts)?.status).toMatchObject({ phase: "Pending", progress: "0/1" });
});

test("one person under names in two cases counts once", () => {
  expect(phaseOf(approval([yes("bob"), yes("Bob")], { required: [2] }))).toBe("Pending");
});

test.each([
  ["nobody's decision", []],
  ["fewer decisions than were asked for", [yes("bob")]],
  ["the requester's own decision", [yes("bob"), yes("alice")]],
  ["a denial", [yes("bob"), yes("carol"), { approver: "dave", decision: "Denied" as const }]],
])("a status that says Approved over %s is cancelled", (_, decisions) => {
  expect(phaseOf(approval(decisions, { phase: "Approved", required: [2] }))).toBe("Cancelled");
});

test("what two people approved stays approved", () => {
  const kept = approval([yes("bob"), yes("carol")], { phase: "Approved", required: [2] });
  expect(phaseOf(kept)).toBe("Approved");
});

const terms: ApprovalTerms = {
  kind: "AccessPolicy",
  policy: "p0",
  rule: "r",
  ruleText: "text",
  required: 1,
  timeoutMs: 60_000,
  grant: "Window",
  windowMs: 3_600_000,
  reasonRequired: false,
};
const inForce = (more: Partial<ApprovalTerms> = {}, ruleHash = "sha256:one") => ({
  terms: { ...terms, ...more },
  ruleHash,
});
const access = (decisions: Decisions, status?: Approval["status"], reason?: string): Approval => {
  const made = approval(decisions, { type: "Access" });
  const { expiresAt: _, ...request } = made.spec.request;
  const asked = { ...request, duration: "10m", ...(reason === undefined ? {} : { reason }) };
  return { ...made, spec: { ...made.spec, request: asked }, ...(status && { status }) };
};

test("access is approved for as long as was asked, and ends then", () => {
  const rules = [inForce()];
  const seen = decideApproval(access([]), { ...facts, rules });
  expect(seen?.status).toMatchObject({
    phase: "Pending",
    expiresAt: "2026-01-01T00:01:00Z",
    rules: [{ ruleHash: "sha256:one" }],
  });
  const approved = decideApproval(access([yes("bob")], seen?.status), { ...facts, rules });
  expect(approved).toMatchObject({
    status: { phase: "Approved", grantedUntil: "2026-01-01T00:10:00Z" },
    againAfterMs: 600_000,
  });
  const over = { ...facts, rules, now: new Date("2026-01-01T00:10:00Z") };
  expect(phaseOf(access([yes("bob")], approved?.status), over)).toBe("Expired");
});

test("a window is as short as the shortest of its rules", () => {
  const rules = [inForce({ windowMs: 1_000 })];
  const seen = decideApproval(access([yes("bob")]), { ...facts, rules })?.status;
  expect(seen?.phase).toBe("Pending");
  const { status } = decideApproval(access([yes("bob")], seen), { ...facts, rules }) ?? {};
  expect(status?.grantedUntil).toBe("2026-01-01T00:00:01Z");
});

test.each([
  ["the rule is not there", [undefined], "RuleNotFound"],
  ["the rule approves each command by itself", [inForce({ grant: "Once" })], "NotAWindow"],
  ["the rule wants a reason", [inForce({ reasonRequired: true })], "ReasonMissing"],
] as const)("access is not approved where %s", (_, rules, reason) => {
  const { status } = decideApproval(access([yes("bob")]), { ...facts, rules }) ?? {};
  expect(status?.phase).toBe("Pending");
  expect(status?.conditions?.find(({ type }) => type === "Validated")).toMatchObject({
    status: "False",
    reason,
  });
});

test("access for a rule that is another one since is not approved", () => {
  const seen = decideApproval(access([]), { ...facts, rules: [inForce()] })?.status;
  const { status } =
    decideApproval(access([yes("bob")], seen), {
      ...facts,
      rules: [inForce({}, "sha256:two")],
    }) ?? {};
  expect(status?.phase).toBe("Pending");
  expect(status?.conditions?.find(({ type }) => type === "Validated")?.reason).toBe("RuleChanged");
});

test("whoever asks cannot want fewer approvals than the rule does", () => {
  const rules = [inForce({ required: 2 })];
  expect(decideApproval(access([yes("bob")]), { ...facts, rules })?.status).toMatchObject({
    phase: "Pending",
    progress: "1/2",
  });
});

test("a command whose rule opens a window outlives the pod that asked", () => {
  const rules = [inForce({}, "sha256:asked")];
  const made = approval([yes("bob")]);
  const { status } = decideApproval(made, { ...facts, rules }) ?? {};
  expect(status?.grantedUntil).toBe("2026-01-01T01:00:00Z");
  const later = { ...made, ...(status && { status }) };
  expect(phaseOf(later, { isHeld: false, rules })).toBe("Approved");
});

test("what was decided while admission did not check is void, and nothing can be decided then", () => {
  expect(phaseOf(approval([yes("bob")]), { isGuarded: false })).toBe("Cancelled");
  const waiting = decideApproval(approval([]), { ...facts, isGuarded: false });
  expect(waiting?.status.phase).toBe("Pending");
  expect(waiting?.status.conditions?.[0]).toMatchObject({ status: "False", reason: "AdmissionMissing" });
  expect(waiting?.againAfterMs).toBe(5_000);
});

test("a decision that counts for none of several policies says why", () => {
  const { status } =
    decideApproval(approval([yes("bob")], { required: [1, 1] }), {
      ...facts,
      mayApprove: () => false,
    }) ?? {};
  expect(status?.conditions?.[1]?.message).toMatch(
    /0 of 2 approvals; bob named none of the policies \(p0, p1\)/,
  );
});

test("what is closed goes when its retention is over, and what is open stays", () => {
  const closed = (status: Approval["status"]) => ({ ...approval([]), ...(status && { status }) });
  const day = 86_400_000;
  const decidedAt = "2025-12-31T12:00:00Z";
  expect(decideRetention(closed({ phase: "Denied", decidedAt }), now, day)).toMatchObject({
    kind: "later",
    afterMs: day / 2,
  });
  expect(decideRetention(closed({ phase: "Denied", decidedAt }), now, day / 4).kind).toBe("remove");
  expect(decideRetention(closed({ phase: "Pending", decidedAt }), now, 1).kind).toBe("keep");
  expect(decideRetention(closed({ phase: "Approved", decidedAt }), now, 1).kind).toBe("keep");
  expect(decideRetention(closed({ phase: "Used" }), now, 1).kind).toBe("keep");
});
