import type { ProtectedResource } from "@sallyport/crds";
import type { UntypedObject } from "../../kube/index.ts";
import type { WantedCondition } from "../../reconcile/index.ts";

const messageMax = 1024;

/** Whether the autoscaler that a resource asks for scales, in its own words; nothing where none is asked for. */
export function autoscalerCondition(
  { spec }: ProtectedResource,
  autoscaler: UntypedObject | undefined,
): readonly WantedCondition[] {
  if (spec.placement.autoscaling === undefined) return [];
  const type = "Autoscaling";
  const said = conditionsIn(autoscaler?.status);
  const failed = said.find(
    ({ type, status }) => (type === "AbleToScale" || type === "ScalingActive") && status === "False",
  );
  if (failed !== undefined) {
    const message = `The autoscaler scales nothing: ${failed.message}`.slice(0, messageMax);
    return [{ type, status: "False", reason: failed.reason, message }];
  }
  if (said.some(({ type, status }) => type === "ScalingActive" && status === "True")) {
    const message = "The autoscaler says how many gateways there are.";
    return [{ type, status: "True", reason: "Active", message }];
  }
  const message = "The autoscaler has not looked at the gateways yet.";
  return [{ type, status: "Unknown", reason: "NotLookedYet", message }];
}

interface SaidCondition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
}

/** Written by the cluster's own controller, and read like anything else from outside. */
function conditionsIn(status: unknown): readonly SaidCondition[] {
  const { conditions } = (status ?? {}) as { readonly conditions?: unknown };
  if (!Array.isArray(conditions)) return [];
  return conditions.filter(isCondition);
}

function isCondition(found: unknown): found is SaidCondition {
  if (typeof found !== "object" || found === null) return false;
  const fields = found as Readonly<Record<string, unknown>>;
  return ["type", "status", "reason", "message"].every((name) => typeof fields[name] === "string");
}
