import {
  type Cache,
  CacheByNamespace,
  type KubeClient,
  type KubeMetrics,
  type KubeObject,
  type Log,
  Reflector,
  type ReflectorOptions,
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
  /** None: the whole cluster. */
  readonly namespaces: readonly string[];
  /** Where kept generations of cluster policies stand. */
  readonly systemNamespace: string;
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

/** Makes one reflector for each kind, or one for each of its namespaces; only what is ours or concerns us is held. */
export function watches({ client, log, metrics, namespaces, systemNamespace }: WatchParts): Watches {
  const all: Reflector<never>[] = [];
  const watch = <T extends KubeObject>(
    type: ResourceType<T>,
    more: Partial<ReflectorOptions<T>> = {},
    among = namespaces,
  ): Cache<T> => {
    const reflector = (selection = more.selection) => {
      const made = new Reflector({
        client,
        type,
        log,
        ...(metrics && { metrics }),
        ...more,
        ...(selection && { selection }),
      });
      all.push(made as never);
      return made;
    };
    if (!type.isNamespaced || among.length === 0) return reflector();
    return new CacheByNamespace(
      new Map(among.map((namespace) => [namespace, reflector({ ...more.selection, namespace })])),
    );
  };
  const owned = new Map<string, Cache<UntypedObject>>();
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
    revisions: watch(
      kinds.controllerRevision,
      { selection: { labelSelector: revisionSelector }, indexes: { policy: revisionKeys } },
      namespaces.length === 0 ? [] : [...new Set([...namespaces, systemNamespace])],
    ),
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
