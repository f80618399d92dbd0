/** Finalizers, one entry at a time: never a list that would drop somebody else's. */
import { isNotFound, type KubeClient, type KubeObject, type ResourceType } from "../kube/index.ts";

/** Which object, and which entry of ours: domain-qualified. */
export interface FinalizerChange<T extends KubeObject> {
  readonly client: KubeClient;
  readonly type: ResourceType<T>;
  readonly object: T;
  readonly finalizer: string;
  readonly fieldManager: string;
  readonly signal?: AbortSignal;
}

/** Adds ours before the first effect outside the object; a 409 where the object changed meanwhile. */
export async function addFinalizer<T extends KubeObject>(change: FinalizerChange<T>): Promise<T> {
  const { client, type, object, finalizer } = change;
  const { finalizers, resourceVersion, uid } = object.metadata;
  if (finalizers?.includes(finalizer)) return object;
  const isFirst = finalizers === undefined || finalizers.length === 0;
  const operations = [
    { op: "test", path: "/metadata/uid", value: uid },
    // Where the list is there already, appending to it takes nothing from anybody.
    ...(isFirst
      ? ([
          { op: "test", path: "/metadata/resourceVersion", value: resourceVersion },
          { op: "add", path: "/metadata/finalizers", value: [finalizer] },
        ] as const)
      : ([{ op: "add", path: "/metadata/finalizers/-", value: finalizer }] as const)),
  ] as const;
  return client.patch(type, object.metadata, { kind: "json", operations }, callOf(change));
}

/** Takes ours away; true also where the object is gone. A 409 where the list changed meanwhile. */
export async function removeFinalizer<T extends KubeObject>(change: FinalizerChange<T>): Promise<boolean> {
  const { client, type, object, finalizer } = change;
  const index = object.metadata.finalizers?.indexOf(finalizer) ?? -1;
  if (index < 0) return false;
  const path = `/metadata/finalizers/${index}`;
  const operations = [
    { op: "test", path: "/metadata/uid", value: object.metadata.uid },
    { op: "test", path, value: finalizer },
    { op: "remove", path },
  ] as const;
  try {
    await client.patch(type, object.metadata, { kind: "json", operations }, callOf(change));
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
  return true;
}

const callOf = ({
  fieldManager,
  signal,
}: FinalizerChange<KubeObject>): { fieldManager: string; signal?: AbortSignal } => ({
  fieldManager,
  ...(signal === undefined ? {} : { signal }),
});
