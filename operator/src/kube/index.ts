/** The only way to the API server: calls, caches, queue, lease and events. Kinds of ours are not known here. */

export { type BackoffBounds, backoffMs, pause } from "./backoff.ts";
export type { Cache, Change, IndexKeys } from "./cache.ts";
export { CacheByNamespace } from "./cache-by-namespace.ts";
export type {
  ApplyOptions,
  CallOptions,
  DeleteOptions,
  JsonPatchOperation,
  KubeClient,
  ListOptions,
  ObjectList,
  Patch,
  RawRequest,
  Selection,
  WatchEvent,
  WatchOptions,
  WriteOptions,
} from "./client.ts";
export {
  connectionFrom,
  type KubeConnection,
  kubeconfigConnection,
  serviceAccountConnection,
} from "./connection.ts";
export {
  isConflict,
  isExpired,
  isNotFound,
  isTransient,
  KubeError,
  type KubeErrorDetails,
  type StatusCause,
  type StatusReason,
} from "./error.ts";
export { type EventNote, type EventRecorder, type EventRecorderOptions, eventRecorder } from "./events.ts";
export { LeaderElection, type LeaderElectionOptions, LeaseLostError, leaseIdentity } from "./lease.ts";
export { type Log, silentLog } from "./log.ts";
export { type KubeMetrics, kubeMetrics } from "./metrics.ts";
export {
  type ApplyObject,
  type Condition,
  compareVersions,
  controllerOf,
  controllerReference,
  type KubeObject,
  keyOf,
  type ObjectMeta,
  type ObjectRef,
  type OwnerReference,
  type ResourceType,
  refOf,
  resourceType,
  type UntypedObject,
} from "./objects.ts";
export { Reflector, type ReflectorOptions } from "./reflector.ts";
export { kubeClient } from "./rest-client.ts";
export { type WorkQueue, type WorkQueueOptions, workQueue } from "./work-queue.ts";
