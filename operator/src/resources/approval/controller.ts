/** Approval: decisions are counted, requests end in time, and those that nobody holds any more are cancelled. */
import { type Approval, approveRight, policyName } from "@sallyport/crds";
import type { KubeClient } from "../../kube/index.ts";
import { type Reconciler, writeStatus } from "../../reconcile/index.ts";
import type { PolicyBook } from "../access-policy/policy-book.ts";
import type { OperatorCaches } from "../caches.ts";
import { kinds } from "../kinds.ts";
import { type ApprovalFacts, decideApproval, gatewayPodLabel } from "./decide.ts";
import { decideRetention } from "./retention.ts";
import { rulesInForce } from "./rules.ts";

/** What the controller is made of. */
export interface ApprovalControllerParts {
  readonly client: KubeClient;
  readonly caches: Pick<OperatorCaches, "approvals" | "pods" | "protectedResources">;
  readonly book: Pick<PolicyBook, "forResource">;
  /** Whether admission checks who decides, found out now; `isAnew`: after what has been decided. */
  readonly isGuarded: (signal: AbortSignal, isAnew: boolean) => Promise<boolean>;
  /** How long an Approval stays that is closed. */
  readonly retentionMs: number;
  readonly clock: () => Date;
}

interface Observed {
  readonly approval: Approval;
  readonly facts: ApprovalFacts;
}

type Decision =
  | { readonly kind: "keep" }
  | { readonly kind: "later"; readonly afterMs: number }
  | { readonly kind: "remove"; readonly approval: Approval }
  | {
      readonly kind: "write";
      readonly approval: Approval;
      readonly decided: NonNullable<ReturnType<typeof decideApproval>>;
    };

/** Makes the controller's reconciler. */
export function approvalReconciler(
  parts: ApprovalControllerParts,
): Reconciler<Observed | undefined, Decision> {
  const { client, caches, clock, retentionMs } = parts;
  return {
    observe: async ({ ref, signal }) => {
      const approval = caches.approvals.get(ref);
      return approval && { approval, facts: await factsOf(approval, parts, signal) };
    },
    decide: (observed) => {
      if (observed === undefined) return { kind: "keep" };
      const { approval, facts } = observed;
      const decided = decideApproval(approval, facts);
      return decided === undefined
        ? decideRetention(approval, clock(), retentionMs)
        : { kind: "write", approval, decided };
    },
    act: async (decision, { signal }) => {
      switch (decision.kind) {
        case "keep":
          return { kind: "done" };
        case "later":
          return { kind: "requeue", afterMs: decision.afterMs };
        case "remove": {
          const { metadata } = decision.approval;
          const uid = metadata.uid === undefined ? {} : { uid: metadata.uid };
          await client.delete(kinds.approval, metadata, { ...uid, signal });
          return { kind: "done" };
        }
        case "write": {
          const { status, againAfterMs } = decision.decided;
          await writeStatus({
            client,
            type: kinds.approval,
            object: decision.approval,
            status: withUse(status, decision.approval),
            fieldManager: "sallyport-approval-status",
            signal,
          });
          return againAfterMs === undefined ? { kind: "done" } : { kind: "requeue", afterMs: againAfterMs };
        }
      }
    },
  };
}

/** When it was first used stays said: whoever serves the gateway writes that, not this controller. */
function withUse(
  status: NonNullable<Approval["status"]>,
  approval: Approval,
): NonNullable<Approval["status"]> {
  const { usedAt } = approval.status ?? {};
  return usedAt === undefined ? status : { ...status, usedAt };
}

async function factsOf(
  approval: Approval,
  { client, caches, book, isGuarded, clock }: ApprovalControllerParts,
  signal: AbortSignal,
): Promise<ApprovalFacts> {
  const phase = approval.status?.phase ?? "Pending";
  const isOpen = phase === "Pending" || phase === "Approved";
  // Of what is approved already nothing is decided any more.
  const guarded = phase !== "Pending" || isGuarded(signal, (approval.spec.decisions ?? []).length > 0);
  // Side by side: the command waits for both, and neither's answer is the other's question.
  const [rights, isSafe] = await Promise.all([
    isOpen ? rightsOf(approval, client, signal) : new Set<string>(),
    guarded,
  ]);
  return {
    now: clock(),
    isHeld: isHeld(approval, caches),
    isGuarded: isSafe,
    mayApprove: (approver, place) => rights.has(`${place} ${approver}`),
    rules: isOpen ? rulesInForce(approval, book, caches) : [],
  };
}

function isHeld({ metadata }: Approval, { pods }: Pick<OperatorCaches, "pods">): boolean {
  const uid = metadata.labels?.[gatewayPodLabel];
  return uid !== undefined && pods.byIndex("uid", uid).length > 0;
}

/**
 * Admission lets nobody decide without the verb on one of the policies. Where there is but one, that settles it. Of several
 * a decision names those that it is for, and admission has checked each of them, groups included. One that names none
 * counts where the API server grants the verb to its author by name: their groups are known to admission alone.
 */
async function rightsOf(
  { spec, metadata }: Approval,
  client: KubeClient,
  signal: AbortSignal,
): Promise<ReadonlySet<string>> {
  const { decisions = [], request } = spec;
  const rights = new Set<string>();
  for (const { approver, decision, policies: named } of decisions) {
    if (decision !== "Approved") continue;
    for (const [place, asked] of request.policies.entries()) {
      if (named !== undefined) {
        if (named.includes(policyName(asked))) rights.add(`${place} ${approver}`);
        continue;
      }
      const isAllowed =
        new Set(request.policies.map(policyName)).size === 1 ||
        (await isAllowedByName(approver, asked, metadata.namespace));
      if (isAllowed) rights.add(`${place} ${approver}`);
    }
  }
  return rights;

  async function isAllowedByName(
    user: string,
    { kind, policy }: (typeof request.policies)[number],
    namespace: string | undefined,
  ): Promise<boolean> {
    const review = (await client.request({
      method: "POST",
      path: "/apis/authorization.k8s.io/v1/subjectaccessreviews",
      body: {
        apiVersion: "authorization.k8s.io/v1",
        kind: "SubjectAccessReview",
        spec: { user, resourceAttributes: approveRight(kind, policy, namespace) },
      },
      isRepeatable: true,
      signal,
    })) as { readonly status?: { readonly allowed?: boolean } };
    return review.status?.allowed === true;
  }
}
