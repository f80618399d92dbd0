import { type Policy, policyInForce } from "../resources/access-policy/in-force.ts";
import type { OperatorCaches } from "../resources/caches.ts";
import type { AdmissionHandler } from "./server.ts";

/**
 * Warns of what a schema cannot tell: a broken expression, a rule that contradicts another. It never denies: a policy
 * that was applied before its tags exist is right a moment later, and a broken one changes nothing that is in force.
 */
export function policyReview(caches: Pick<OperatorCaches, "protectedResources">): AdmissionHandler {
  let restsUntil = 0;
  return ({ kind, object, namespace }) => {
    if ((kind !== "AccessPolicy" && kind !== "ClusterAccessPolicy") || object === undefined)
      return { allowed: true };
    // Every pod may ask here, and a question need not have been through the API server: one that is long would keep the
    // operator from everything else, and so would many that take their time.
    const begunAt = performance.now();
    if (JSON.stringify(object).length > triedCharactersMax || begunAt < restsUntil)
      return {
        allowed: true,
        warnings: ["not tried here: whether it is accepted, its conditions will tell"],
      };
    // The schema was checked before; a deletion brings no object.
    const policy = object as Policy;
    const { problems } = policyInForce(policy, [], caches.protectedResources.list(namespace));
    const took = performance.now() - begunAt;
    if (took > shortMs) restsUntil = begunAt + (1 + restsPerWork) * took;
    // The API server cuts warnings at 256 bytes, and all of them at 4096.
    const warnings = problems
      .slice(0, 12)
      .map(({ path, reason, message }) => `not accepted: ${path}: ${reason}: ${message}`.slice(0, 250));
    return { allowed: true, warnings };
  };
}

const triedCharactersMax = 64 * 1024;
const shortMs = 50;
const restsPerWork = 4;
