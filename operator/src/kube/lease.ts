/** Which replica reconciles: one lease, held by one of them (15/10/2 s). */
import type { KubeClient } from "./client.ts";
import type { Log } from "./log.ts";
import type { KubeMetrics } from "./metrics.ts";

/** Which lease, for whom, and how quick. */
export interface LeaderElectionOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly name: string;
  /** Unique for each process: pod name, underscore, uuid. See `leaseIdentity`. */
  readonly identity: string;
  readonly log: Log;
  readonly metrics?: KubeMetrics;
  readonly leaseMs?: number;
  readonly renewDeadlineMs?: number;
  readonly retryMs?: number;
}
