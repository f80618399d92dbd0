/** How a kind is watched. */
import type { IndexKeys } from "./cache.ts";
import type { KubeClient, Selection } from "./client.ts";
import type { Log } from "./log.ts";
import type { KubeMetrics } from "./metrics.ts";
import type { KubeObject, ResourceType } from "./objects.ts";

/** What a reflector needs; the selection keeps the cache to the objects that are ours. */
export interface ReflectorOptions<T extends KubeObject> {
  readonly client: KubeClient;
  readonly type: ResourceType<T>;
  readonly selection?: Selection;
  readonly indexes?: Readonly<Record<string, IndexKeys<T>>>;
  /** What is kept of an object; managedFields are dropped anyway. */
  readonly reduce?: (object: T) => T;
  /** Lists anew this often at the least, whatever the watch says: 10 to 30 minutes, at random, where absent. */
  readonly relistMs?: number;
  readonly silenceMs?: number;
  readonly pageSize?: number;
  readonly log: Log;
  readonly metrics?: KubeMetrics;
}
