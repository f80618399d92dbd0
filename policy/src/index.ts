/** Documents and a command in, a verdict out. No I/O, no clock, no sockets. */

export { durationMs, policyName } from "@sallyport/crds/pure";
export {
  CaseFileError,
  type CaseFileResult,
  type CaseResult,
  type CaseRunner,
  policyDocument,
  runPolicyCases,
} from "./cases.ts";
export { type ClaimTextCompilation, compileClaimText } from "./cel.ts";
export {
  type CompiledPolicy,
  type CompileOptions,
  compilePolicies,
  type PolicyFeatures,
  type PolicyProblem,
  type PolicySet,
  type ProblemReason,
} from "./compile.ts";
export type * from "./documents.ts";
export {
  forSession,
  type MaskLift,
  ruleStatuses,
  type SessionContext,
  type SessionPolicy,
} from "./evaluate.ts";
export type { Explanation, PartExplanation, PolicyExplanation, RuleExplanation } from "./explain.ts";
export { type FlooredSpec, withFloors } from "./floors.ts";
export type { DecisionFacts } from "./judge.ts";
export type { CopyOutOptions } from "./masking/copy-options.ts";
export { CustomPattern } from "./masking/custom-pattern.ts";
export type { ColumnDefinition, DefinitionKind } from "./masking/definitions.ts";
export type { Flow, FlowColumn } from "./masking/flow.ts";
export { anyColumn, lineageOf } from "./masking/lineage.ts";
export { MaskedColumnSet } from "./masking/masked-columns.ts";
export type { LineageFinding, StatementLineage, TracedRows } from "./masking/model.ts";
export { type PatternMatch, type PatternName, PatternScanner, patternNames } from "./masking/patterns.ts";
export {
  hideAll,
  type JsonPathChoice,
  type MaskDecision,
  ofWhole,
  refusedByMasks,
  SessionMasking,
  type ValueMaskChoice,
} from "./masking/session-masking.ts";
export type { MaskedColumns } from "./masking/trace.ts";
export type * from "./model.ts";
export { type ProfileName, profileNames } from "./profiles.ts";
export { howToSayWhy } from "./say-why.ts";
export { analyseSql } from "./sql/analyse.ts";
export type * from "./sql/analysis.ts";
export * from "./sql/index.ts";
export type * from "./sql/names.ts";
export { loadSqlParser, sqlParserReady } from "./sql/parser.ts";
export { shapeOf } from "./sql/shape.ts";
export { staticNames } from "./static-names.ts";
export { warmSqlAnalysis } from "./warm-up.ts";
