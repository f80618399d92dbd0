/** AccessPolicy and ClusterAccessPolicy: tells what of them counts, and keeps each generation that was accepted. */
import type { PolicyStatus } from "@sallyport/crds";
import type { EventRecorder, KubeClient, KubeObject, ResourceType } from "../../kube/index.ts";
import {
  mergedConditions,
  progressConditions,
  type ReconcileContext,
  type ReconcileResult,
  type Reconciler,
  type WantedCondition,
  writeStatus,
} from "../../reconcile/index.ts";
import type { OperatorCaches } from "../caches.ts";
import { type ControllerRevision, kinds } from "../kinds.ts";
import { namesIn, type Policy, type PolicyInForce } from "./in-force.ts";
import type { PolicyBook } from "./policy-book.ts";
import { keptGenerationsMax, renderRevision, revisionKey } from "./revision.ts";

/** What the controller of one of the two kinds is made of. */
export interface PolicyControllerParts {
  readonly client: KubeClient;
  readonly caches: OperatorCaches;
  readonly book: PolicyBook;
  readonly events: EventRecorder;
  readonly systemNamespace: string;
  readonly kind: Policy["kind"];
  readonly clock: () => Date;
}

interface Observed {
  readonly policy: Policy;
  readonly entry: PolicyInForce;
  readonly selected: number;
  readonly missing: readonly string[];
  /** Users and groups of no provider that is there: nobody is meant by them. */
  readonly unknown: readonly string[];
  readonly kept: readonly ControllerRevision[];
}

/** What is to be written. */
export interface PolicyDecision {
  readonly policy: Policy;
  /** Whether this generation is accepted and not kept yet. */
  readonly keeps: boolean;
  readonly drops: readonly ControllerRevision[];
  readonly conditions: readonly WantedCondition[];
  readonly status: Omit<PolicyStatus, "conditions">;
}

const fieldManager = "sallyport-access-policy";

/** Makes the controller's reconciler. */
export function policyReconciler(
  parts: PolicyControllerParts,
): Reconciler<Observed | undefined, PolicyDecision | undefined> {
  return {
    observe: async ({ ref }) => {
      const { accessPolicies, clusterAccessPolicies, identityProviders, revisions } = parts.caches;
      const policy = parts.kind === "AccessPolicy" ? accessPolicies.get(ref) : clusterAccessPolicies.get(ref);
      if (policy === undefined) return undefined;
      const entry = parts.book.inForce(policy);
      const selected = parts.book.selectedBy(entry);
      const found = new Set(selected.map(({ metadata }) => metadata.name));
      const missing = (entry.policy.spec.resources.names ?? []).filter((name) => !found.has(name));
      const prefixes = identityProviders.list().map(({ spec }) => spec.prefix);
      const unknown = namesIn(entry.policy).filter(
        (name) => !prefixes.some((prefix) => name.startsWith(prefix)),
      );
      const kept = revisions.byIndex("policy", revisionKey(policy));
      return { policy, entry, selected: selected.length, missing, unknown, kept };
    },
    decide: (observed) => (observed === undefined ? undefined : decidePolicy(observed)),
    act: (decision, context) => act(parts, decision, context),
  };
}

/** From what was seen to what is to be written. */
export function decidePolicy(observed: Observed): PolicyDecision {
  const { policy, entry, selected, kept } = observed;
  const generation = policy.metadata.generation ?? 1;
  const isAccepted = entry.acceptedGeneration === generation && entry.problems.length === 0;
  const newestFirst = kept.toSorted((a, b) => b.revision - a.revision);
  const conditions = conditionsOf(observed, isAccepted);
  return {
    policy,
    keeps: isAccepted && !kept.some(({ revision }) => revision === generation),
    // Only an accepted generation pushes older ones out.
    drops: isAccepted
      ? newestFirst.filter(({ revision }) => revision < generation).slice(keptGenerationsMax - 1)
      : [],
    conditions,
    status: {
      ...(entry.acceptedGeneration !== undefined && { acceptedGeneration: entry.acceptedGeneration }),
      resources: selected,
    },
  };
}

function conditionsOf(
  { entry, selected, missing, unknown }: Observed,
  isAccepted: boolean,
): readonly WantedCondition[] {
  const { problems, acceptedGeneration } = entry;
  if (!isAccepted) {
    const told = problems.slice(0, 10).map(({ path, reason, message }) => `${path}: ${reason}: ${message}`);
    const list = told.join("; ");
    const reason = problems[0]?.reason ?? "Invalid";
    const stays =
      acceptedGeneration === undefined
        ? "No generation was ever accepted: what the policy names is denied."
        : `Generation ${acceptedGeneration} stays in force.`;
    const message = `${list}. ${stays}`;
    return [
      { type: "Accepted", status: "False", reason, message },
      {
        type: "Ready",
        status: "False",
        reason: acceptedGeneration === undefined ? "PolicyInvalid" : "Outdated",
        message,
      },
      ...progressConditions({ kind: "stalled", reason, message }),
    ];
  }
  const accepted: WantedCondition = {
    type: "Accepted",
    status: "True",
    reason: "Accepted",
    message: "The policy is in force.",
  };
  if (selected === 0 || missing.length > 0) {
    const reason = selected === 0 ? "SelectsNothing" : "ResourceNotFound";
    const message =
      missing.length > 0
        ? `There is no ProtectedResource ${missing.slice(0, 10).join(", ")} here.`
        : "No ProtectedResource carries the labels that the policy selects.";
    return [
      accepted,
      { type: "Ready", status: "False", reason, message },
      ...progressConditions({ kind: "stalled", reason, message }),
    ];
  }
  if (unknown.length > 0) {
    const reason = "ProviderNotFound";
    const message = `No IdentityProvider has the prefix of ${unknown.slice(0, 10).join(", ")}: nobody is meant.`;
    return [
      accepted,
      { type: "Ready", status: "False", reason, message },
      ...progressConditions({ kind: "stalled", reason, message }),
    ];
  }
  const message = `The policy speaks of ${selected} resource${selected === 1 ? "" : "s"}.`;
  return [accepted, { type: "Ready", status: "True", reason: "InForce", message }];
}

async function act(
  { client, events, kind, systemNamespace, clock }: PolicyControllerParts,
  decision: PolicyDecision | undefined,
  { signal }: ReconcileContext,
): Promise<ReconcileResult> {
  if (decision === undefined) return { kind: "done" };
  const { policy, conditions, status } = decision;
  // Kept first: a status that says "accepted" must be true after the next broken edit and a restart.
  if (decision.keeps) {
    const revision = renderRevision(policy, systemNamespace);
    await client.apply(kinds.controllerRevision, revision, { fieldManager, force: true, signal });
  }
  for (const { metadata } of decision.drops) {
    const uid = metadata.uid === undefined ? {} : { uid: metadata.uid };
    await client.delete(kinds.controllerRevision, metadata, { ...uid, signal });
  }
  const { generation } = policy.metadata;
  const before = policy.status?.conditions;
  const wanted = {
    ...status,
    ...(generation !== undefined && { observedGeneration: generation }),
    conditions: mergedConditions(before, conditions, { generation, now: clock() }),
  };
  const type = (kind === "AccessPolicy"
    ? kinds.accessPolicy
    : kinds.clusterAccessPolicy) as unknown as ResourceType<Policy & KubeObject>;
  const written = await writeStatus({
    client,
    type,
    object: policy,
    status: wanted,
    fieldManager: `${fieldManager}-status`,
    signal,
  });
  if (written !== undefined) announce(events, policy, conditions);
  return { kind: "done" };
}

/** An event where a condition flipped or found another reason; none for a repetition. */
function announce(events: EventRecorder, policy: Policy, conditions: readonly WantedCondition[]): void {
  for (const { type, status, reason, message } of conditions) {
    if (type !== "Accepted" && type !== "Ready") continue;
    const before = policy.status?.conditions?.find((condition) => condition.type === type);
    if (before?.status === status && before.reason === reason) continue;
    events.record({
      regarding: policy,
      type: status === "True" ? "Normal" : "Warning",
      reason,
      action: "Compile",
      note: message,
    });
  }
}
