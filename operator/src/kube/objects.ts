/** The shapes that every Kubernetes object shares, and which kinds the operator speaks of. */

/** metadata, as far as an operator reads or writes it. */
export interface ObjectMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly generateName?: string;
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly generation?: number;
  readonly creationTimestamp?: string;
  readonly deletionTimestamp?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly finalizers?: readonly string[];
  readonly ownerReferences?: readonly OwnerReference[];
}

/** Who an object belongs to. */
export interface OwnerReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller?: boolean;
  readonly blockOwnerDeletion?: boolean;
}

/** Any object of the API server. */
export interface KubeObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: ObjectMeta;
}

/** An object of which nothing but its metadata is typed. */
export interface UntypedObject extends KubeObject {
  readonly [field: string]: unknown;
}

/** What server-side apply is given: only the fields that we own. */
export interface ApplyObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Pick<ObjectMeta, "name"> & Partial<ObjectMeta>;
}

/** metav1.Condition, exactly. */
export interface Condition {
  readonly type: string;
  readonly status: "True" | "False" | "Unknown";
  readonly reason: string;
  readonly message: string;
  readonly observedGeneration?: number;
  readonly lastTransitionTime: string;
}

/** Which object: a name, and a namespace where its kind has one. */
export interface ObjectRef {
  readonly namespace?: string;
  readonly name: string;
}

/** A kind as the API server's addresses name it; `T` is the type of its objects. */
export interface ResourceType<T extends KubeObject = UntypedObject> {
  readonly apiVersion: string;
  readonly kind: string;
  readonly plural: string;
  readonly isNamespaced: boolean;
  /** Never there: it carries `T`, so that a call knows what it answers. */
  readonly object?: T;
}

/** Describes a kind. */
export function resourceType<T extends KubeObject = UntypedObject>(
  apiVersion: string,
  kind: string,
  plural: string,
  scope: "Namespaced" | "Cluster" = "Namespaced",
): ResourceType<T> {
  return { apiVersion, kind, plural, isNamespaced: scope === "Namespaced" };
}

/** `namespace/name`, or `name` for kinds without a namespace: the key of caches and queues. */
export function keyOf({ namespace, name }: ObjectRef): string {
  return namespace === undefined || namespace === "" ? name : `${namespace}/${name}`;
}

/** The object that a key names. */
export function refOf(key: string): ObjectRef {
  const slash = key.indexOf("/");
  return slash < 0 ? { name: key } : { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}

/** Makes one object the controlling owner of others in its namespace. */
export function controllerReference(owner: KubeObject): OwnerReference {
  const { apiVersion, kind, metadata } = owner;
  if (apiVersion === undefined || kind === undefined || metadata.uid === undefined) {
    throw new TypeError("an owner has an apiVersion, a kind and a uid");
  }
  return {
    apiVersion,
    kind,
    name: metadata.name,
    uid: metadata.uid,
    controller: true,
    blockOwnerDeletion: true,
  };
}

/** The controlling owner of an object, where it has one. */
export function controllerOf({ metadata }: KubeObject): OwnerReference | undefined {
  return metadata.ownerReferences?.find(({ controller }) => controller === true);
}

/** Below, at or above zero. Versions of one kind are decimal numbers that grow (comparable by definition since Kubernetes 1.35). */
export function compareVersions(a: string, b: string): number {
  if (a.length !== b.length) return a.length - b.length;
  return a < b ? -1 : a > b ? 1 : 0;
}
