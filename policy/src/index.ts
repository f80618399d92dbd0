/** Documents and a command in, a verdict out. No I/O, no clock, no sockets. */

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
export { forSession, ruleStatuses, type SessionContext, type SessionPolicy } from "./evaluate.ts";
export type { Explanation, PartExplanation, PolicyExplanation, RuleExplanation } from "./explain.ts";
export type { DecisionFacts } from "./judge.ts";
export { durationMs } from "./limits.ts";
export type * from "./model.ts";
export { type ProfileName, profileNames } from "./profiles.ts";
