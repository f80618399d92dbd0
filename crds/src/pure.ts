/** Durations, label selectors and names of policies: what every reader of manifests needs, without I/O and without the schemas. */
export { durationMs } from "./duration.ts";
export { policyName } from "./policy-name.ts";
export { isSelectedBy } from "./selector.ts";
