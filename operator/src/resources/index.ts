/** One controller for each kind, and which change of what wakes whom. */
import type { IdentityProvider, ProtectedResource } from "@sallyport/crds";
import {
  type Change,
  controllerOf,
  type EventRecorder,
  type KubeClient,
  type KubeMetrics,
  type KubeObject,
  type Log,
  type ObjectRef,
} from "../kube/index.ts";
import { type GatewaySettings, gatewayLabel, isOwnCluster, namesOf } from "../placement/index.ts";
import { Controller } from "../reconcile/index.ts";
import { policyReconciler } from "./access-policy/controller.ts";
import { isSpokenOf, namesIn, type Policy } from "./access-policy/in-force.ts";
import type { PolicyBook } from "./access-policy/policy-book.ts";
import type { ApprovalAdmission } from "./approval/admission.ts";
import { approvalReconciler } from "./approval/controller.ts";
import { hasSameLabels, isStatusOnly, labelsOfNamespace, type OperatorCaches } from "./caches.ts";
import type { GatewayReports } from "./gateway-reports.ts";
import { providerReconciler } from "./identity-provider/controller.ts";
import { resourceReconciler } from "./protected-resource/controller.ts";
import type { ExecFindings, ProbeResult } from "./protected-resource/decide.ts";
import { grantReconciler } from "./resource-grant/controller.ts";
import { sessionReconciler } from "./session/controller.ts";

export { narrowedTo, type Policy } from "./access-policy/in-force.ts";
export { PolicyBook } from "./access-policy/policy-book.ts";
export { ApprovalAdmission } from "./approval/admission.ts";
export { isBorneOut } from "./approval/borne-out.ts";
export { gatewayPodLabel, knownHash } from "./approval/decide.ts";
export { rulesInForce } from "./approval/rules.ts";
export { isStatusOnly, labelsOfNamespace, type OperatorCaches } from "./caches.ts";
export type * from "./gateway-reports.ts";
export { providerProblem } from "./identity-provider/controller.ts";
export { kinds, podDocument, type Service } from "./kinds.ts";
export { labelSelectorText } from "./label-selector.ts";
export {
  type ExecFindings,
  type ProbeResult,
  protectExecLabel,
  serverPods,
} from "./protected-resource/decide.ts";
export { type ClusterRanges, type GrantedPod, reachOf, single } from "./protected-resource/reach.ts";
export { watches } from "./watches.ts";

/** Whether a policy names or selects a resource. */
export function speaksOf(
  policy: Policy,
  resource: ProtectedResource,
  caches: Pick<OperatorCaches, "namespaces">,
): boolean {
  return isSpokenOf(resource, policy, (namespace) => labelsOfNamespace(caches, namespace));
}

/** What all controllers share. */
export interface ControllerParts {
  readonly client: KubeClient;
  readonly caches: OperatorCaches;
  readonly book: PolicyBook;
  readonly reports: GatewayReports;
  readonly events: EventRecorder;
  readonly settings: GatewaySettings;
  readonly controlCa: () => string | undefined;
  readonly probe: (resource: ProtectedResource) => ProbeResult;
  readonly execFindings: () => ExecFindings;
  /** Whether admission for Approvals is in force: found out now, and as it was found last. */
  readonly approvalAdmission: Pick<ApprovalAdmission, "check" | "checkAnew" | "isInForce">;
  /** How long an Approval stays that is closed. */
  readonly approvalRetentionMs: number;
  readonly log: Log;
  readonly metrics?: KubeMetrics;
}

/** The controllers of one process. */
export interface Controllers {
  /** Reconciles until the signal: the leader's part. */
  run(signal: AbortSignal): Promise<void>;
  /** What a gateway said has changed. */
  gatewayReported(resource: ObjectRef): void;
  /** Something that concerns every resource has changed. */
  everyResource(): void;
  /** Something has changed that only resources tell of which stand for this cluster. */
  everyOwnCluster(): void;
  /** Whether decisions can be believed has changed. */
  everyApproval(): void;
}

/** Makes the controllers and lets changes of the caches wake them. */
export function controllers(parts: ControllerParts): Controllers {
  const { client, caches, book, events, settings, log, metrics } = parts;
  const common = { log, ...(metrics && { metrics }) };
  const clock = () => new Date();
  const policyParts = { client, caches, book, events, systemNamespace: settings.systemNamespace, clock };
  const resources = new Controller({
    ...common,
    name: "protected-resource",
    reconciler: resourceReconciler({ ...parts, clock }),
    resync: { keys: () => caches.protectedResources.list().map(refOf) },
  });
  const policies = new Controller({
    ...common,
    name: "access-policy",
    reconciler: policyReconciler({ ...policyParts, kind: "AccessPolicy" }),
    resync: { keys: () => caches.accessPolicies.list().map(refOf) },
  });
  const clusterPolicies = new Controller({
    ...common,
    name: "cluster-access-policy",
    reconciler: policyReconciler({ ...policyParts, kind: "ClusterAccessPolicy" }),
    resync: { keys: () => caches.clusterAccessPolicies.list().map(refOf) },
  });
  const providers = new Controller({
    ...common,
    name: "identity-provider",
    reconciler: providerReconciler({ client, caches, events, clock }),
    resync: { keys: () => caches.identityProviders.list().map(refOf) },
  });
  const grants = new Controller({
    ...common,
    name: "resource-grant",
    reconciler: grantReconciler({ client, caches, events, clock }),
    resync: { keys: () => caches.resourceGrants.list().map(refOf) },
  });
  const sessions = new Controller({
    ...common,
    name: "session",
    reconciler: sessionReconciler({ client, caches, clock: Date.now }),
    resync: { everyMs: 3_600_000, keys: () => caches.sessions.list().map(refOf) },
  });

  const approvals = new Controller({
    ...common,
    name: "approval",
    reconciler: approvalReconciler({
      ...{ client, caches, book, clock, retentionMs: parts.approvalRetentionMs },
      isGuarded: (signal, isAnew) =>
        isAnew ? parts.approvalAdmission.checkAnew(signal) : parts.approvalAdmission.check(signal),
    }),
    resync: { everyMs: 3_600_000, keys: () => caches.approvals.list().map(refOf) },
  });

  const labels = (namespace: string) => labelsOfNamespace(caches, namespace);
  const wake = (resource: ProtectedResource) => resources.enqueue(refOf(resource));
  const wakeIn = (namespace: string | undefined, holds: (resource: ProtectedResource) => boolean) => {
    for (const resource of caches.protectedResources.list(namespace)) if (holds(resource)) wake(resource);
  };
  const wakePolicy = (policy: Policy) =>
    (policy.kind === "AccessPolicy" ? policies : clusterPolicies).enqueue(refOf(policy));

  // A status is looked at by its own object alone, which costs nothing where it is ours: whatever else somebody has made
  // of it is put right at once.
  caches.protectedResources.onChange((change) => {
    const { object } = change;
    wake(object);
    if (isNoNews(change)) return;
    const { service } = namesOf(object);
    const { podSelector } = object.spec.placement;
    wakeIn(
      object.metadata.namespace,
      (other) =>
        namesOf(other).service === service ||
        (podSelector !== undefined &&
          JSON.stringify(other.spec.placement.podSelector) === JSON.stringify(podSelector)),
    );
    const touched = change.kind === "changed" ? [object, change.before] : [object];
    const mayMask = touched.some(({ spec }) => spec.classification !== undefined);
    for (const policy of [
      ...caches.accessPolicies.list(object.metadata.namespace),
      ...caches.clusterAccessPolicies.list(),
    ]) {
      const speaks = touched.some((one) => isSpokenOf(one, policy, labels));
      if (speaks || (mayMask && policy.spec.masking !== undefined)) wakePolicy(policy);
    }
  });
  const policyChanged = (change: Change<Policy>) => {
    const { object } = change;
    wakePolicy(object);
    if (isNoNews(change)) return;
    const touched = change.kind === "changed" ? [object, change.before] : [object];
    wakeIn(object.metadata.namespace, (resource) =>
      touched.some((policy) => isSpokenOf(resource, policy, labels)),
    );
  };
  caches.accessPolicies.onChange(policyChanged);
  caches.clusterAccessPolicies.onChange(policyChanged);
  caches.identityProviders.onChange((change: Change<IdentityProvider>) => {
    providers.enqueue(refOf(change.object));
    if (isNoNews(change)) return;
    for (const provider of caches.identityProviders.list()) providers.enqueue(refOf(provider));
    wakeIn(undefined, ({ spec }) => spec.identity.providers.includes(change.object.metadata.name));
    const touched = change.kind === "changed" ? [change.object, change.before] : [change.object];
    for (const policy of [...caches.accessPolicies.list(), ...caches.clusterAccessPolicies.list()]) {
      const isNamed = namesIn(policy).some((name) =>
        touched.some(({ spec }) => name.startsWith(spec.prefix)),
      );
      if (isNamed) wakePolicy(policy);
    }
  });
  caches.namespaces.onChange((change) => {
    const { name } = change.object.metadata;
    if (change.kind === "changed" && hasSameLabels(change.object, change.before)) return;
    wakeIn(name, () => true);
    for (const policy of caches.clusterAccessPolicies.list()) wakePolicy(policy);
  });
  caches.services.onChange(({ object }) => {
    const { name, namespace } = object.metadata;
    for (const grant of caches.resourceGrants.list(namespace))
      if (grant.spec.to.some(({ serviceName }) => serviceName === name)) grants.enqueue(refOf(grant));
    wakeIn(namespace, (one) => one.spec.endpoint.serviceRef?.name === name || namesOf(one).service === name);
  });
  caches.resourceGrants.onChange((change) => {
    const { object } = change;
    grants.enqueue(refOf(object));
    if (isNoNews(change)) return;
    for (const { namespace } of object.spec.from)
      wakeIn(namespace, ({ spec }) => spec.endpoint.host !== undefined);
  });
  caches.pods.onChange(({ object }) => {
    const label = object.metadata.labels?.[gatewayLabel];
    wakeIn(object.metadata.namespace, (resource) => namesOf(resource).label === label);
    for (const held of caches.approvals.byIndex("pod", object.metadata.uid ?? ""))
      approvals.enqueue(refOf(held));
  });
  for (const cache of [caches.deployments, ...caches.owned.values()]) {
    (cache as typeof caches.deployments).onChange(({ object }) => {
      const owner = controllerOf(object);
      if (owner?.kind !== "ProtectedResource") return;
      resources.enqueue({ name: owner.name, ...namespaceOf(object) });
    });
  }
  caches.revisions.onChange(({ object }) => {
    const owner = controllerOf(object);
    if (owner?.kind === "AccessPolicy") policies.enqueue({ name: owner.name, ...namespaceOf(object) });
    if (owner?.kind === "ClusterAccessPolicy") clusterPolicies.enqueue({ name: owner.name });
  });
  caches.sessions.onChange(({ object }) => sessions.enqueue(refOf(object)));
  caches.approvals.onChange(({ object }) => approvals.enqueue(refOf(object)));
  // A wish for access is for the rules as they are: another rule is not the one that approvers read.
  const wakeWishes = ({ object }: Change<Policy>) => {
    for (const wish of caches.approvals.list(object.metadata.namespace)) {
      const isOpen = (wish.status?.phase ?? "Pending") === "Pending";
      if (isOpen && wish.spec.request.type === "Access") approvals.enqueue(refOf(wish));
    }
  };
  caches.accessPolicies.onChange(wakeWishes);
  caches.clusterAccessPolicies.onChange(wakeWishes);

  return {
    run: async (signal) => {
      const all = [resources, policies, clusterPolicies, providers, grants, sessions, approvals];
      await Promise.all(all.map((controller) => controller.run(signal)));
    },
    gatewayReported: (resource) => resources.enqueue(resource),
    everyResource: () => wakeIn(undefined, () => true),
    everyOwnCluster: () => wakeIn(undefined, isOwnCluster),
    everyApproval: () => {
      for (const one of caches.approvals.list())
        if ((one.status?.phase ?? "Pending") === "Pending") approvals.enqueue(refOf(one));
    },
  };
}

/** A status was written, which changes nothing that others are decided from. */
function isNoNews(change: Change<KubeObject>): boolean {
  return change.kind === "changed" && isStatusOnly(change.object, change.before);
}

const namespaceOf = ({ metadata }: KubeObject): { readonly namespace?: string } =>
  metadata.namespace === undefined ? {} : { namespace: metadata.namespace };
const refOf = (object: KubeObject): ObjectRef => ({ name: object.metadata.name, ...namespaceOf(object) });
