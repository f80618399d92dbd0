/** The contract: custom resources as types, schemas and checks. */
export { approveRight } from "./approve-right.ts";
export { durationMs } from "./duration.ts";
export {
  type CheckOptions,
  checkManifests,
  type DocumentCheck,
  hasErrors,
  type ManifestSource,
  type Manifests,
  unknownOptions,
} from "./manifests/check.ts";
export { depthMax, isManifestFile, isPassedOver, loadManifests } from "./manifests/load.ts";
export {
  audienceOf,
  documentsOf,
  type LoadedDocument,
  type Manifest,
  type Namespace,
  namespaceLabels,
  type Secret,
} from "./manifests/loaded.ts";
export {
  type Finding,
  formatPath,
  formatProblem,
  type Problem,
  parsePath,
  type Severity,
} from "./manifests/problem.ts";
export type { Position } from "./manifests/yaml-document.ts";
export { isOwner, isSameName } from "./person.ts";
export { policyName } from "./policy-name.ts";
export type { PathSegment } from "./schema.ts";
export { isSelectedBy } from "./selector.ts";
export type * from "./types.generated.ts";
