/** Status: conditions whose times tell when something flipped, written only where something changed. */
import { isDeepStrictEqual } from "node:util";
import type { Condition, KubeClient, KubeObject, ResourceType } from "../kube/index.ts";

/** A condition as a decision states it; time and generation are added when it is merged. */
export type WantedCondition = Pick<Condition, "type" | "status" | "reason" | "message">;

const MESSAGE_LENGTH_MAX = 32_768;

/**
 * The conditions to write: exactly those wanted, each with the time of its last flip kept where it did not flip, and with
 * the generation that was looked at.
 */
export function mergedConditions(
  before: readonly Condition[] | undefined,
  wanted: readonly WantedCondition[],
  { generation, now }: { readonly generation: number | undefined; readonly now: Date },
): readonly Condition[] {
  return wanted.map(({ type, status, reason, message }) => {
    const known = before?.find((condition) => condition.type === type);
    return {
      type,
      status,
      reason,
      message: message.slice(0, MESSAGE_LENGTH_MAX),
      ...(generation === undefined ? {} : { observedGeneration: generation }),
      // The API server keeps whole seconds; a fraction would look like a change each time.
      lastTransitionTime:
        known?.status === status ? known.lastTransitionTime : now.toISOString().replace(/\.\d+Z$/, "Z"),
    };
  });
}

/**
 * kstatus' own two, so that Flux and `kubectl wait` tell working from stuck: Reconciling while we are at it, Stalled
 * where only a change by the user helps, neither once all is well.
 */
export function progressConditions(
  state:
    | { readonly kind: "ready" }
    | { readonly kind: "reconciling" | "stalled"; readonly reason: string; readonly message: string },
): readonly WantedCondition[] {
  if (state.kind === "ready") return [];
  const { reason, message } = state;
  return [{ type: state.kind === "stalled" ? "Stalled" : "Reconciling", status: "True", reason, message }];
}

/** Whether a condition is there and True. */
export function isTrue(conditions: readonly Condition[] | undefined, type: string): boolean {
  return conditions?.some((condition) => condition.type === type && condition.status === "True") ?? false;
}

/** What a status is written to, and by whom. */
export interface StatusWrite<T extends KubeObject> {
  readonly client: KubeClient;
  readonly type: ResourceType<T>;
  /** As it was observed, with its status. */
  readonly object: T & { readonly status?: object };
  /** The whole status that we want: what is left out is removed. */
  readonly status: object;
  /** One for status alone: `sallyport-protected-resource-status`. */
  readonly fieldManager: string;
  readonly signal?: AbortSignal;
}

/** Writes a status where it differs from what was observed; the answer is undefined where nothing was written. */
export async function writeStatus<T extends KubeObject>(write: StatusWrite<T>): Promise<T | undefined> {
  const { client, type, object, fieldManager, signal } = write;
  // As the API server would store it: without what is undefined.
  const status: unknown = JSON.parse(JSON.stringify(write.status));
  if (isDeepStrictEqual(sorted(status), sorted(object.status ?? {}))) return undefined;
  const { name, namespace, resourceVersion } = object.metadata;
  // A conflict where the object changed meanwhile, or was made anew: what we say of it would be about another state.
  // The uid would not do: the status subresource takes any.
  const metadata = {
    name,
    ...(namespace === undefined ? {} : { namespace }),
    ...(resourceVersion === undefined ? {} : { resourceVersion }),
  };
  const applied = { apiVersion: type.apiVersion, kind: type.kind, metadata, status };
  return client.apply(type, applied, {
    fieldManager,
    force: true,
    subresource: "status",
    ...(signal === undefined ? {} : { signal }),
  });
}

/** Lists keyed by type come back in the order of their first coming; only what is in them counts. */
function sorted(status: unknown): unknown {
  if (typeof status !== "object" || status === null) return status;
  const { conditions, ...rest } = status as { readonly conditions?: unknown };
  if (!Array.isArray(conditions)) return status;
  const byType = (a: Condition, b: Condition): number => (a.type < b.type ? -1 : a.type > b.type ? 1 : 0);
  return { ...rest, conditions: [...(conditions as Condition[])].sort(byType) };
}
