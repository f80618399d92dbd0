import type { Approval } from "@sallyport/crds";
import { expect, test } from "vitest";
import { decideApproval } from "./decide.ts";

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
const facts = { now, isHeld: true, mayApprove: () => true };
const phaseOf = (one: Approval, change: Partial<typeof facts> = {}) =>
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
  expect(phaseOf(one, { mayApprove: ((_: string, place: number) => place === 0) as never })).toBe("Pending");
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

test("access for a while is never approved by this release, and says so", () => {
  const { status } = decideApproval(approval([yes("bob")], { type: "Access" }), facts) ?? {};
  expect(status?.phase).toBe("Pending");
  expect(status?.conditions?.find(({ type }) => type === "Validated")).toMatchObject({
    status: "False",
    reason: "NotEnforceable",
  });
});
