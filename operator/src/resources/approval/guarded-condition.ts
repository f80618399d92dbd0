import type { WantedCondition } from "../../reconcile/index.ts";
import type { PolicyInForce } from "../access-policy/in-force.ts";

/** Whether decisions about a resource's commands can be believed; nothing where no rule of it asks for any. */
export function approvalsGuarded(
  policies: readonly Pick<PolicyInForce, "asks">[],
  isInForce: boolean | undefined,
): readonly WantedCondition[] {
  if (!policies.some(({ asks }) => asks.length > 0)) return [];
  const type = "ApprovalsGuarded";
  if (isInForce === undefined)
    return [{ type, status: "Unknown", reason: "NotProbed", message: "Admission was not tried yet." }];
  if (isInForce)
    return [{ type, status: "True", reason: "InForce", message: "Admission checks who decides." }];
  const message =
    "The admission policies for Approvals are not in force: nothing is approved, and what was decided meanwhile is void.";
  return [{ type, status: "False", reason: "AdmissionMissing", message }];
}
