/** What the operator watches. Every list must be complete before anything is concluded from it. */
import type {
  AccessPolicy,
  Approval,
  ClusterAccessPolicy,
  IdentityProvider,
  ProtectedResource,
  ResourceGrant,
  Session,
} from "@sallyport/crds";
import type { Cache, KubeObject, UntypedObject } from "../kube/index.ts";
import type { ControllerRevision, Deployment, Node, Pod, Service } from "./kinds.ts";

/** The caches by kind; the selections are those of `main.ts`. */
export interface OperatorCaches {
  readonly protectedResources: Cache<ProtectedResource>;
  readonly accessPolicies: Cache<AccessPolicy>;
  readonly clusterAccessPolicies: Cache<ClusterAccessPolicy>;
  readonly identityProviders: Cache<IdentityProvider>;
  readonly resourceGrants: Cache<ResourceGrant>;
  readonly sessions: Cache<Session>;
  readonly approvals: Cache<Approval>;
  readonly namespaces: Cache<UntypedObject>;
  readonly services: Cache<Service>;
  readonly nodes: Cache<Node>;
  /** Pods that hold a gateway. */
  readonly pods: Cache<Pod>;
  readonly deployments: Cache<Deployment>;
  /** Accepted generations of policies, found by their policy's key under the index `policy`. */
  readonly revisions: Cache<ControllerRevision>;
  /** Everything else that is made for resources, by kind. */
  readonly owned: ReadonlyMap<string, Cache<UntypedObject>>;
}

/** The labels of a namespace; none where it is not known. */
export function labelsOfNamespace(
  caches: Pick<OperatorCaches, "namespaces">,
  namespace: string,
): Readonly<Record<string, string>> {
  return caches.namespaces.get({ name: namespace })?.metadata.labels ?? {};
}

/** Older first; the name decides between twins. */
export function byAge(a: KubeObject, b: KubeObject): number {
  const [x, y] = [a.metadata.creationTimestamp ?? "", b.metadata.creationTimestamp ?? ""];
  if (x !== y) return x < y ? -1 : 1;
  return a.metadata.name < b.metadata.name ? -1 : 1;
}

/** Whether nothing but the status of an object has changed. */
export function isStatusOnly(object: KubeObject, before: KubeObject): boolean {
  return (
    object.metadata.uid === before.metadata.uid &&
    object.metadata.generation === before.metadata.generation &&
    object.metadata.deletionTimestamp === before.metadata.deletionTimestamp &&
    hasSameLabels(object, before)
  );
}

/** Whether two objects carry the same labels. */
export function hasSameLabels(a: KubeObject, b: KubeObject): boolean {
  const [x, y] = [a.metadata.labels ?? {}, b.metadata.labels ?? {}];
  const keys = Object.keys(x);
  return keys.length === Object.keys(y).length && keys.every((key) => x[key] === y[key]);
}
