/** Approval: decisions are counted, requests end in time, and those that nobody holds any more are cancelled. */
import type { Approval } from "@sallyport/crds";
import type { KubeClient } from "../../kube/index.ts";
import { type Reconciler, writeStatus } from "../../reconcile/index.ts";
import type { OperatorCaches } from "../caches.ts";
import { kinds } from "../kinds.ts";
import { decideApproval, gatewayPodLabel } from "./decide.ts";

/** What the controller is made of. */
export interface ApprovalControllerParts {
  readonly client: KubeClient;
  readonly caches: Pick<OperatorCaches, "approvals" | "pods">;
  readonly clock: () => Date;
}

interface Observed {
  readonly approval: Approval;
  readonly isHeld: boolean;
  /** `approver` and place of the policies that they may approve under. */
  readonly rights: ReadonlySet<string>;
}

type Decision =
  | { readonly observed: Observed; readonly decided: ReturnType<typeof decideApproval> }
  | undefined;

/** Makes the controller's reconciler. */
export function approvalReconciler(
  parts: ApprovalControllerParts,
): Reconciler<Observed | undefined, Decision> {
  const { client, caches, clock } = parts;
  return {
    observe: async ({ ref, signal }) => {
      const approval = caches.approvals.get(ref);
      if (approval === undefined) return undefined;
      return { approval, isHeld: isHeld(approval, caches), rights: await rightsOf(approval, client, signal) };
    },
    decide: (observed) => {
      if (observed === undefined) return undefined;
      const { approval, isHeld: held, rights } = observed;
      const mayApprove = (approver: string, place: number) => rights.has(`${place} ${approver}`);
      return { observed, decided: decideApproval(approval, { now: clock(), isHeld: held, mayApprove }) };
    },
    act: async (decision, { signal }) => {
      if (decision?.decided === undefined) return { kind: "done" };
      const { status, againAfterMs } = decision.decided;
      await writeStatus({
        client,
        type: kinds.approval,
        object: decision.observed.approval,
        status,
        fieldManager: "sallyport-approval-status",
        signal,
      });
      return againAfterMs === undefined
        ? { kind: "done" }
        : { kind: "requeue", afterMs: Math.min(againAfterMs, 86_400_000) };
    },
  };
}

function isHeld({ metadata }: Approval, { pods }: Pick<OperatorCaches, "pods">): boolean {
  const uid = metadata.labels?.[gatewayPodLabel];
  return uid !== undefined && pods.byIndex("uid", uid).length > 0;
}

/**
 * Admission lets nobody decide without the verb on one of the policies. Where there is but one, that settles it; of several,
 * the API server is asked about each. It is asked by the name alone: a right that comes from a group does not count there.
 */
async function rightsOf(
  { spec, metadata }: Approval,
  client: KubeClient,
  signal: AbortSignal,
): Promise<ReadonlySet<string>> {
  const { decisions = [], request } = spec;
  const rights = new Set<string>();
  const approvers = decisions
    .filter(({ decision }) => decision === "Approved")
    .map(({ approver }) => approver);
  for (const approver of approvers) {
    for (const [place, { kind, policy }] of request.policies.entries()) {
      if (request.policies.length === 1) {
        rights.add(`${place} ${approver}`);
        continue;
      }
      const isCluster = kind === "ClusterAccessPolicy";
      const resourceAttributes = {
        group: "sallyport.dev",
        resource: isCluster ? "clusteraccesspolicies" : "accesspolicies",
        verb: "approve",
        name: policy,
        ...(isCluster ? {} : { namespace: metadata.namespace }),
      };
      const review = (await client.request({
        method: "POST",
        path: "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        body: {
          apiVersion: "authorization.k8s.io/v1",
          kind: "SubjectAccessReview",
          spec: { user: approver, resourceAttributes },
        },
        isRepeatable: true,
        signal,
      })) as { readonly status?: { readonly allowed?: boolean } };
      if (review.status?.allowed === true) rights.add(`${place} ${approver}`);
    }
  }
  return rights;
}
