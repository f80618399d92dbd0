/** The kinds that the operator reads and writes, as the API server's addresses name them. */
import type {
  AccessPolicy,
  Approval,
  ClusterAccessPolicy,
  IdentityProvider,
  ProtectedResource,
  ResourceGrant,
  Session,
} from "@sallyport/crds";
import { type KubeObject, type ResourceType, resourceType, type UntypedObject } from "../kube/index.ts";
import type { PodDocument } from "../placement/index.ts";

const ours = "sallyport.dev/v1alpha1";

/** A Service, as far as it leads to a protected server. */
export interface Service extends KubeObject {
  readonly spec?: {
    readonly type?: string;
    readonly clusterIP?: string;
    readonly clusterIPs?: readonly string[];
    readonly selector?: Readonly<Record<string, string>>;
    readonly ports?: readonly {
      readonly name?: string;
      readonly port: number;
      readonly targetPort?: number | string;
    }[];
  };
}

/** A Deployment, as far as its progress goes. */
export interface Deployment extends KubeObject {
  readonly spec?: { readonly replicas?: number };
  readonly status?: {
    readonly observedGeneration?: number;
    readonly replicas?: number;
    readonly readyReplicas?: number;
    readonly updatedReplicas?: number;
    readonly conditions?: readonly {
      readonly type: string;
      readonly status: string;
      readonly message?: string;
    }[];
  };
}

/** A pod that holds a gateway. */
export interface Pod extends KubeObject {
  readonly spec: PodDocument["spec"];
  readonly status?: {
    readonly phase?: string;
    readonly podIP?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
    readonly initContainerStatuses?: readonly { readonly name: string; readonly started?: boolean }[];
    readonly containerStatuses?: readonly {
      readonly name: string;
      readonly state?: { readonly terminated?: { readonly exitCode: number; readonly finishedAt?: string } };
    }[];
  };
}

/** An accepted generation of a policy, kept so that a broken edit changes nothing. */
export interface ControllerRevision extends KubeObject {
  readonly revision: number;
  readonly data?: unknown;
}

/** A node, as far as its addresses go. */
export interface Node extends KubeObject {
  readonly spec?: { readonly podCIDRs?: readonly string[] };
  readonly status?: { readonly addresses?: readonly { readonly type: string; readonly address: string }[] };
}

/** Every kind by name. */
export const kinds = {
  protectedResource: resourceType<ProtectedResource>(ours, "ProtectedResource", "protectedresources"),
  accessPolicy: resourceType<AccessPolicy>(ours, "AccessPolicy", "accesspolicies"),
  clusterAccessPolicy: resourceType<ClusterAccessPolicy>(
    ours,
    "ClusterAccessPolicy",
    "clusteraccesspolicies",
    "Cluster",
  ),
  identityProvider: resourceType<IdentityProvider>(ours, "IdentityProvider", "identityproviders", "Cluster"),
  resourceGrant: resourceType<ResourceGrant>(ours, "ResourceGrant", "resourcegrants"),
  session: resourceType<Session>(ours, "Session", "sessions"),
  approval: resourceType<Approval>(ours, "Approval", "approvals"),
  namespace: resourceType("v1", "Namespace", "namespaces", "Cluster"),
  node: resourceType<Node>("v1", "Node", "nodes", "Cluster"),
  service: resourceType<Service>("v1", "Service", "services"),
  pod: resourceType<Pod>("v1", "Pod", "pods"),
  configMap: resourceType("v1", "ConfigMap", "configmaps"),
  secret: resourceType("v1", "Secret", "secrets"),
  serviceAccount: resourceType("v1", "ServiceAccount", "serviceaccounts"),
  deployment: resourceType<Deployment>("apps/v1", "Deployment", "deployments"),
  controllerRevision: resourceType<ControllerRevision>(
    "apps/v1",
    "ControllerRevision",
    "controllerrevisions",
  ),
  disruptionBudget: resourceType("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
  autoscaler: resourceType("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
  clusterRoleBinding: resourceType(
    "rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding",
    "clusterrolebindings",
    "Cluster",
  ),
  networkPolicy: resourceType("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
} as const;

/** The kinds of the objects that are made for a resource. */
export const ownedKinds: ReadonlyMap<string, ResourceType<UntypedObject>> = new Map(
  [
    kinds.configMap,
    kinds.serviceAccount,
    kinds.deployment,
    kinds.disruptionBudget,
    kinds.autoscaler,
    kinds.networkPolicy,
    kinds.service,
  ].map((type) => [type.kind, type as unknown as ResourceType<UntypedObject>]),
);

/** Reads a pod as injection does; undefined for what is none. */
export function podDocument(object: unknown): PodDocument | undefined {
  if (typeof object !== "object" || object === null) return undefined;
  const { spec, metadata } = object as Partial<PodDocument>;
  if (spec === undefined || !Array.isArray(spec.containers)) return undefined;
  return { metadata: metadata ?? {}, spec };
}
