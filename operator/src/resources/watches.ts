import {
  type KubeClient,
  type KubeMetrics,
  type Log,
  Reflector,
  type ResourceType,
  type UntypedObject,
} from "../kube/index.ts";
import { gatewayLabel } from "../placement/index.ts";
import { revisionKeys, revisionSelector } from "./access-policy/revision.ts";
import { gatewayPodLabel } from "./approval/decide.ts";
import type { OperatorCaches } from "./caches.ts";
import { kinds, ownedKinds, type Pod } from "./kinds.ts";
import { podKeys } from "./protected-resource/controller.ts";

/** What the watches are made of. */
export interface WatchParts {
  readonly client: KubeClient;
  readonly log: Log;
  readonly metrics?: KubeMetrics;
}

/** The caches, and what fills them. */
export interface Watches {
  readonly caches: OperatorCaches;
  /** Lists and watches until the signal. */
  run(signal: AbortSignal): Promise<void>;
  /** Waits until every list is complete: nothing may be concluded before. */
  whenSynced(signal: AbortSignal): Promise<void>;
  readonly isSynced: boolean;
  /** Milliseconds since the quietest of all watches was last heard from. */
  readonly silentMs: number;
}

const managed = { labelSelector: "app.kubernetes.io/managed-by=sallyport-operator" };

/** Makes one reflector for each kind; only what is ours or concerns us is held. */
export function watches({ client, log, metrics }: WatchParts): Watches {
  const all: Reflector<never>[] = [];
  const watch = <T extends UntypedObject | object>(
    type: ResourceType<T & { readonly metadata: UntypedObject["metadata"] }>,
    more: Partial<
      ConstructorParameters<typeof Reflector<T & { metadata: UntypedObject["metadata"] }>>[0]
    > = {},
  ) => {
    const reflector = new Reflector({ client, type, log, ...(metrics && { metrics }), ...more });
    all.push(reflector as never);
    return reflector;
  };
  const owned = new Map<string, Reflector<UntypedObject>>();
  for (const type of ownedKinds.values()) {
    if (type.kind !== "Service" && type.kind !== "Deployment")
      owned.set(type.kind, watch(type, { selection: managed }));
  }
  const caches: OperatorCaches = {
    protectedResources: watch(kinds.protectedResource),
    accessPolicies: watch(kinds.accessPolicy),
    clusterAccessPolicies: watch(kinds.clusterAccessPolicy),
    identityProviders: watch(kinds.identityProvider),
    resourceGrants: watch(kinds.resourceGrant),
    sessions: watch(kinds.session),
    approvals: watch(kinds.approval, {
      indexes: { pod: ({ metadata }) => [metadata.labels?.[gatewayPodLabel] ?? ""] },
    }),
    namespaces: watch(kinds.namespace, { reduce: ({ metadata }) => ({ metadata }) }),
    services: watch(kinds.service),
    nodes: watch(kinds.node, {
      reduce: ({ metadata, spec, status }) => ({
        metadata: {
          name: metadata.name,
          ...(metadata.resourceVersion && { resourceVersion: metadata.resourceVersion }),
        },
        ...(spec?.podCIDRs && { spec: { podCIDRs: spec.podCIDRs } }),
        ...(status?.addresses && { status: { addresses: status.addresses } }),
      }),
    }),
    pods: watch(kinds.pod, {
      selection: { labelSelector: gatewayLabel },
      indexes: { resource: podKeys, uid: (pod: Pod) => [pod.metadata.uid ?? ""] },
    }),
    deployments: watch(kinds.deployment, { selection: managed }),
    revisions: watch(kinds.controllerRevision, {
      selection: { labelSelector: revisionSelector },
      indexes: { policy: revisionKeys },
    }),
    owned,
  };
  return {
    caches,
    run: async (signal) => {
      await Promise.all(all.map((reflector) => reflector.run(signal)));
    },
    whenSynced: async (signal) => {
      await Promise.all(all.map((reflector) => reflector.whenSynced(signal)));
    },
    get isSynced() {
      return all.every(({ isSynced }) => isSynced);
    },
    get silentMs() {
      return Math.max(...all.map(({ silentMs }) => silentMs));
    },
  };
}
