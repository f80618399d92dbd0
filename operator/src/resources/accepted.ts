import type { Condition, EventRecorder, KubeClient, KubeObject, ResourceType } from "../kube/index.ts";
import {
  mergedConditions,
  progressConditions,
  type WantedCondition,
  writeStatus,
} from "../reconcile/index.ts";

/** Why an object is not used. */
export interface Problem {
  readonly reason: string;
  readonly message: string;
}

/** An object of which nothing is to be said but whether it is used. */
export type AcceptedObject = KubeObject & {
  readonly status?: { readonly conditions?: readonly Condition[] };
};

/** What a verdict is written with. */
export interface AcceptedWrite<T extends AcceptedObject> {
  readonly client: KubeClient;
  readonly events: EventRecorder;
  readonly type: ResourceType<T>;
  readonly object: T;
  /** What is said where there is no problem. */
  readonly message: string;
  readonly problem: Problem | undefined;
  readonly fieldManager: string;
  readonly now: Date;
  readonly signal: AbortSignal;
}

/** Writes Accepted and Ready where they differ, and an event where the reason does. */
export async function writeAccepted<T extends AcceptedObject>(write: AcceptedWrite<T>): Promise<void> {
  const { client, events, type, object, message, problem, fieldManager, now, signal } = write;
  const { generation } = object.metadata;
  const before = object.status?.conditions;
  const conditions = acceptedConditions(problem, message);
  const status = {
    ...(generation !== undefined && { observedGeneration: generation }),
    conditions: mergedConditions(before, conditions, { generation, now }),
  };
  const written = await writeStatus({ client, type, object, status, fieldManager, signal });
  const [accepted] = conditions;
  const known = before?.find((condition) => condition.type === "Accepted");
  if (written === undefined || accepted === undefined || known?.reason === accepted.reason) return;
  events.record({
    regarding: object,
    type: accepted.status === "True" ? "Normal" : "Warning",
    reason: accepted.reason,
    action: "Accept",
    note: accepted.message,
  });
}

function acceptedConditions(problem: Problem | undefined, message: string): readonly WantedCondition[] {
  if (problem === undefined) {
    return ["Accepted", "Ready"].map((type) => ({ type, status: "True", reason: "Accepted", message }));
  }
  return [
    { type: "Accepted", status: "False", ...problem },
    { type: "Ready", status: "False", ...problem },
    ...progressConditions({ kind: "stalled", ...problem }),
  ];
}
