/** Durations, label selectors and names: what every reader of manifests needs, without I/O and without the schemas. */
export { durationMs } from "./duration.ts";
export { isOwner, isSameName } from "./person.ts";
export { policyName } from "./policy-name.ts";
export { isSelectedBy } from "./selector.ts";
