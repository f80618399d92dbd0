/** Events (events.k8s.io/v1): what a user sees in `kubectl describe`. Repeats become one event's series. */
import type { KubeObject } from "./objects.ts";

/** One thing that happened to an object. */
export interface EventNote {
  readonly regarding: KubeObject;
  readonly type: "Normal" | "Warning";
  /** One word in CamelCase, from the documented list. */
  readonly reason: string;
  /** What the controller did or tried, in CamelCase. */
  readonly action: string;
  /** A sentence for the user; never a secret. */
  readonly note: string;
  readonly related?: KubeObject;
}

/** Writes events in the background; never throws, never waits, and drops what exceeds its bounds. */
export interface EventRecorder {
  record(note: EventNote): void;
}
