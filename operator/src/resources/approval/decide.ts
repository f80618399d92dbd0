import type { Approval } from "@sallyport/crds";
import { mergedConditions } from "../../reconcile/index.ts";

/** Carries the uid of the pod whose gateway holds the command. */
export const gatewayPodLabel = "sallyport.dev/gateway-pod";

/** What is known beside the object. */
export interface ApprovalFacts {
  readonly now: Date;
  /** False where the pod that holds the command is gone: nobody is left to run it. */
  readonly isHeld: boolean;
  /** Whether an author of a decision may approve under the policy of that place. */
  readonly mayApprove: (approver: string, place: number) => boolean;
}

type Status = NonNullable<Approval["status"]>;
type Phase = NonNullable<Status["phase"]>;

/** The status that an Approval should have, and when to look again; undefined: what is closed stays as it is. */
export function decideApproval(
  approval: Approval,
  { now, isHeld, mayApprove }: ApprovalFacts,
): { readonly status: Status; readonly againAfterMs?: number } | undefined {
  const { spec, status, metadata } = approval;
  const before = status?.phase ?? "Pending";
  if (before !== "Pending" && before !== "Approved") return undefined;
  const { request, decisions = [], revocation } = spec;
  const isStatement = request.type === "Statement";
  const rules = request.policies.map(({ kind = "AccessPolicy", policy, rule, required = 1 }, place) => ({
    kind,
    policy,
    rule,
    required,
    approvedBy: decisions
      .filter(({ decision, approver }) => decision === "Approved" && mayApprove(approver, place))
      .map(({ approver }) => approver),
  }));
  const expiresAt = request.expiresAt ?? status?.expiresAt;
  const leftMs = expiresAt === undefined ? undefined : Date.parse(expiresAt) - now.getTime();
  const isComplete = rules.every(({ required, approvedBy }) => approvedBy.length >= required);
  const isDenied = decisions.some(({ decision }) => decision === "Denied");
  const phase = phaseOf({
    before,
    isStatement,
    isHeld,
    isDenied,
    isComplete,
    isRevoked: revocation !== undefined,
    leftMs,
  });
  const given = rules.reduce(
    (sum, { required, approvedBy }) => sum + Math.min(required, approvedBy.length),
    0,
  );
  const needed = rules.reduce((sum, { required }) => sum + required, 0);
  const isApproved = phase === "Approved";
  const generation = metadata.generation;
  const conditions = mergedConditions(
    status?.conditions as Parameters<typeof mergedConditions>[0],
    [
      isStatement
        ? {
            type: "Validated",
            status: "True",
            reason: "Asked",
            message: "a gateway of the resource asks for this",
          }
        : {
            type: "Validated",
            status: "False",
            reason: "NotEnforceable",
            message: "this release does not grant access for a while in a cluster",
          },
      {
        type: "Approved",
        status: isApproved ? "True" : "False",
        reason: phase,
        message: `${given} of ${needed} approvals`,
      },
    ],
    { generation, now },
  );
  const decidedAt = phase === before ? status?.decidedAt : seconds(now);
  const next: Status = {
    phase,
    progress: `${given}/${needed}`,
    rules,
    ...(expiresAt === undefined ? {} : { expiresAt }),
    ...(decidedAt === undefined ? {} : { decidedAt }),
    ...(generation === undefined ? {} : { observedGeneration: generation }),
    conditions: conditions as NonNullable<Status["conditions"]>,
  };
  const waits = phase === "Pending" && leftMs !== undefined && leftMs > 0;
  return { status: next, ...(waits && { againAfterMs: leftMs }) };
}

function phaseOf(state: {
  readonly before: Phase;
  readonly isStatement: boolean;
  readonly isHeld: boolean;
  readonly isDenied: boolean;
  readonly isComplete: boolean;
  readonly isRevoked: boolean;
  readonly leftMs: number | undefined;
}): Phase {
  const { before, isStatement, isHeld, isDenied, isComplete, isRevoked, leftMs } = state;
  if (isStatement && !isHeld) return "Cancelled";
  if (before === "Approved") return isRevoked ? "Revoked" : "Approved";
  if (isDenied) return "Denied";
  if (leftMs !== undefined && leftMs <= 0) return "Expired";
  return isStatement && isComplete ? "Approved" : "Pending";
}

/** The API server keeps whole seconds. */
const seconds = (date: Date): string => date.toISOString().replace(/\.\d+Z$/, "Z");
