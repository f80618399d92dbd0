/** Durations and label selectors: what every reader of manifests needs, without I/O and without the schemas. */
export { durationMs } from "./duration.ts";
export { isSelectedBy } from "./selector.ts";
