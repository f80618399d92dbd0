import { type Approval, durationMs, policyName } from "@sallyport/crds";
import { mergedConditions } from "../../reconcile/index.ts";
import { isBorneOut, neverDecides, people } from "./borne-out.ts";
import type { RuleInForce } from "./rules.ts";

/** Carries the uid of the pod whose gateway holds the command. */
export const gatewayPodLabel = "sallyport.dev/gateway-pod";

/** What is known beside the object. */
export interface ApprovalFacts {
  readonly now: Date;
  /** False where the pod that holds the command is gone: nobody is left to run it. */
  readonly isHeld: boolean;
  /** Whether admission checks who decides; where nobody does, no decision can be believed. */
  readonly isGuarded: boolean;
  /** Whether an author of a decision may approve under the policy of that place. */
  readonly mayApprove: (approver: string, place: number) => boolean;
  /** The rules of the request as they are in force, by their place. */
  readonly rules: readonly (RuleInForce | undefined)[];
}

type Status = NonNullable<Approval["status"]>;
type Phase = NonNullable<Status["phase"]>;

/** Why a request cannot be approved as it stands. */
interface Problem {
  readonly reason: string;
  readonly message: string;
}

/** The status that an Approval should have, and when to look again; undefined: what is closed stays as it is. */
export function decideApproval(
  approval: Approval,
  facts: ApprovalFacts,
): { readonly status: Status; readonly againAfterMs?: number } | undefined {
  const { spec, status, metadata } = approval;
  const { now, isHeld, isGuarded } = facts;
  const before = status?.phase ?? "Pending";
  if (before !== "Pending" && before !== "Approved") return undefined;
  const { request, decisions = [], revocation } = spec;
  const rules = rulesOf(approval, facts);
  const problem = problemOf(approval, facts);
  // What approvers have read is what was seen first: of a wish that was never seen nothing is approved yet.
  const isSeen = request.policies.every((_, place) => knownHash(approval, place) !== undefined);
  const isComplete = isSeen && rules.every(({ required, approvedBy }) => approvedBy.length >= required);
  const endsAt = request.expiresAt ?? status?.expiresAt ?? accessEndsAt(approval, facts);
  const leftMs = Date.parse(endsAt) - now.getTime();
  const phase = phaseOf({
    before,
    isLost: request.type === "Statement" && !isHeld && status?.grantedUntil === undefined,
    isRevoked: revocation !== undefined,
    isForged: before === "Approved" && !isBorneOut(approval),
    isUnchecked: !isGuarded && decisions.length > 0,
    isDenied: decisions.some(({ decision }) => decision === "Denied"),
    isComplete: isComplete && problem === undefined,
    isLate: leftMs <= 0,
    isWindowOver: status?.grantedUntil !== undefined && Date.parse(status.grantedUntil) <= now.getTime(),
  });
  const opens = phase === "Approved" && before === "Pending" ? windowMs(approval, facts) : undefined;
  const grantedUntil = opens === undefined ? status?.grantedUntil : seconds(new Date(now.getTime() + opens));
  const given = rules.reduce(
    (sum, { required, approvedBy }) => sum + Math.min(required, approvedBy.length),
    0,
  );
  const needed = rules.reduce((sum, { required }) => sum + required, 0);
  const progress = `${given}/${needed}`;
  const { generation } = metadata;
  const conditions = mergedConditions(
    status?.conditions as Parameters<typeof mergedConditions>[0],
    [
      problem === undefined
        ? { type: "Validated", status: "True", reason: "Asked", message: "the rules in force ask for this" }
        : { type: "Validated", status: "False", ...problem },
      {
        type: "Approved",
        status: phase === "Approved" ? "True" : "False",
        reason: phase,
        message: `${given} of ${needed} approvals${unheard(approval, facts)}`,
      },
    ],
    { generation, now },
  );
  const decidedAt = phase === before ? status?.decidedAt : seconds(now);
  const next: Status = {
    phase,
    progress,
    rules,
    expiresAt: grantedUntil ?? endsAt,
    ...(grantedUntil === undefined ? {} : { grantedUntil }),
    ...(decidedAt === undefined ? {} : { decidedAt }),
    ...(generation === undefined ? {} : { observedGeneration: generation }),
    conditions: conditions as NonNullable<Status["conditions"]>,
  };
  const againAfterMs = againAfter(phase, leftMs, grantedUntil, facts);
  return { status: next, ...(againAfterMs === undefined ? {} : { againAfterMs }) };
}

/** How far each rule is; the rule's own count holds where the request, which its author wrote, asks for fewer. */
function rulesOf(approval: Approval, facts: ApprovalFacts): NonNullable<Status["rules"]> {
  const { request, decisions = [] } = approval.spec;
  return request.policies.map((asked, place) => {
    const { kind = "AccessPolicy", policy, rule, required: wanted = 1 } = asked;
    const ruleHash = knownHash(approval, place) ?? facts.rules[place]?.ruleHash;
    const inForce = facts.rules[place];
    const least = inForce !== undefined && inForce.ruleHash === ruleHash ? inForce.terms.required : 1;
    const counted = decisions.filter(
      ({ decision, approver }) =>
        decision === "Approved" && !neverDecides(request, approver) && facts.mayApprove(approver, place),
    );
    const approvedBy = people(counted).map(({ approver }) => approver);
    return {
      kind,
      policy,
      rule,
      ...(ruleHash === undefined ? {} : { ruleHash }),
      required: Math.max(wanted, least),
      approvedBy,
    };
  });
}

/** The rule as it was asked about: the gateway's word, or what was in force when the request was first seen. */
export function knownHash({ spec, status }: Approval, place: number): string | undefined {
  const asked = spec.request.policies[place];
  if (asked?.ruleHash !== undefined) return asked.ruleHash;
  return status?.rules?.find(
    ({ kind = "AccessPolicy", policy, rule }) =>
      kind === (asked?.kind ?? "AccessPolicy") && policy === asked?.policy && rule === asked.rule,
  )?.ruleHash;
}

function problemOf(approval: Approval, { isGuarded, rules }: ApprovalFacts): Problem | undefined {
  const { request } = approval.spec;
  if (!isGuarded) {
    const message = "admission for Approvals is not in force: nobody would check who decides";
    return { reason: "AdmissionMissing", message };
  }
  // Of a command its gateway knows whether the rule still asks: it ends the hold where not.
  if (request.type === "Statement") return undefined;
  for (const [place, asked] of request.policies.entries()) {
    const name = `${policyName(asked)}/${asked.rule}`;
    const found = rules[place];
    const hash = knownHash(approval, place);
    if (found === undefined) {
      return { reason: "RuleNotFound", message: `no rule ${name} asks for approval on ${request.resource}` };
    }
    if (hash !== undefined && hash !== found.ruleHash)
      return { reason: "RuleChanged", message: `${name} is another rule now; ask again` };
    if (found.terms.grant !== "Window")
      return { reason: "NotAWindow", message: `${name} approves each command by itself: run the command` };
    if (found.terms.reasonRequired && (request.reason ?? "").trim() === "")
      return { reason: "ReasonMissing", message: `${name} wants spec.request.reason` };
  }
  return undefined;
}

/** How long the approved rules let more through; undefined where it is one command. */
function windowMs(approval: Approval, { rules }: ApprovalFacts): number | undefined {
  const { request } = approval.spec;
  const asked = request.duration === undefined ? undefined : durationMs(request.duration);
  const lasts = rules.flatMap((found, place) =>
    found?.terms.grant === "Window" && knownHash(approval, place) === found.ruleHash
      ? [found.terms.windowMs ?? 0]
      : [],
  );
  return lasts.length === 0 ? undefined : Math.min(...lasts, asked ?? Number.POSITIVE_INFINITY);
}

/** A request for access waits as long as the most impatient of its rules. */
function accessEndsAt({ metadata }: Approval, { rules, now }: ApprovalFacts): string {
  const { creationTimestamp = "" } = metadata as { readonly creationTimestamp?: string };
  const created = Date.parse(creationTimestamp);
  const from = Number.isNaN(created) ? now.getTime() : created;
  const timeouts = rules.map((rule) => rule?.terms.timeoutMs ?? accessWaitsMs);
  return seconds(new Date(from + Math.min(accessWaitsMs, ...timeouts)));
}

/** Decisions that count for nothing, in words for their authors. */
function unheard({ spec }: Approval, { mayApprove }: ApprovalFacts): string {
  const { decisions = [], request } = spec;
  const silent = decisions.filter(
    ({ decision, approver }) =>
      decision === "Approved" && !request.policies.some((_, place) => mayApprove(approver, place)),
  );
  if (silent.length === 0) return "";
  const names = silent.map(({ approver }) => approver).join(", ");
  const policies = request.policies.map(policyName).join(", ");
  return (
    `; ${names} named none of the policies (${policies}), and has the verb approve on none by name: ` +
    "a decision for several policies names them in `policies`"
  );
}

const accessWaitsMs = 600_000;
const uncheckedAgainMs = 5_000;

function againAfter(
  phase: Phase,
  leftMs: number,
  grantedUntil: string | undefined,
  { now, isGuarded }: ApprovalFacts,
): number | undefined {
  if (phase === "Approved" && grantedUntil !== undefined)
    return Math.max(1, Date.parse(grantedUntil) - now.getTime());
  if (phase !== "Pending") return undefined;
  return Math.max(1, isGuarded ? leftMs : Math.min(leftMs, uncheckedAgainMs));
}

function phaseOf(state: {
  readonly before: Phase;
  readonly isLost: boolean;
  readonly isRevoked: boolean;
  readonly isForged: boolean;
  readonly isUnchecked: boolean;
  readonly isDenied: boolean;
  readonly isComplete: boolean;
  readonly isLate: boolean;
  readonly isWindowOver: boolean;
}): Phase {
  // Nobody whose decisions are in it approved that: somebody else wrote the status.
  if (state.isLost || state.isForged) return "Cancelled";
  if (state.before === "Approved") {
    if (state.isRevoked) return "Revoked";
    return state.isWindowOver ? "Expired" : "Approved";
  }
  // What was decided while nobody checked who decides is nobody's decision.
  if (state.isUnchecked) return "Cancelled";
  if (state.isDenied) return "Denied";
  if (state.isLate) return "Expired";
  return state.isComplete ? "Approved" : "Pending";
}

/** The API server keeps whole seconds. */
const seconds = (date: Date): string => date.toISOString().replace(/\.\d+Z$/, "Z");
