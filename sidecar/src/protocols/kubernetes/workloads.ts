/** Patches of what makes pods: they say little of the pod that they change, so that it counts as it is, too. */
import { isRecord } from "./facts.ts";
import { type ApiRequest, resourceName } from "./request.ts";

const template = ["spec", "template", "spec"];
/** Where each kind keeps what its pods are. */
const podSpecs: ReadonlyMap<string, readonly string[]> = new Map([
  ["pods", ["spec"]],
  ["replicationcontrollers", template],
  ["deployments.apps", template],
  ["statefulsets.apps", template],
  ["daemonsets.apps", template],
  ["replicasets.apps", template],
  ["jobs.batch", template],
  ["cronjobs.batch", ["spec", "jobTemplate", ...template]],
]);

/** Where the pods' spec is in the object that a patch changes; undefined for what leaves it as it is. */
export function patchedPodSpec(request: ApiRequest, patch: unknown): readonly string[] | undefined {
  const path = request.verb === "patch" ? podSpecs.get(resourceName(request)) : undefined;
  // Labels, replicas and the time of a restart change nothing of what runs, nor how.
  return path !== undefined && changes(patch, path) ? path : undefined;
}

/** What an object holds at a path; undefined where it holds nothing there. */
export function memberAt(value: unknown, path: readonly string[]): unknown {
  let at = value;
  for (const key of path) at = isRecord(at) ? at[key] : undefined;
  return at;
}

function changes(patch: unknown, path: readonly string[]): boolean {
  if (Array.isArray(patch)) return patch.some((step) => isStepInto(step, path));
  let at = patch;
  for (const key of path) {
    // Whatever stands where an object should be is not read as leaving anything alone.
    if (!isRecord(at)) return true;
    at = at[key];
    if (at === undefined) return false;
  }
  return true;
}

/** Whether a step of a JSON patch writes, or removes, what is at a path, around it or in it. */
function isStepInto(step: unknown, path: readonly string[]): boolean {
  if (!isRecord(step) || typeof step.path !== "string") return true;
  if (step.op === "test") return false;
  const keys = step.path.split("/").slice(1);
  return path.every((key, at) => at >= keys.length || keys[at] === key);
}
