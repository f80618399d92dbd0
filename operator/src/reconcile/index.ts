/** The loop that every kind's controller runs in, and what each needs: status and conditions. Kinds unknown. */
export { Controller, type ControllerOptions, ownerKey } from "./controller.ts";
export {
  type ReconcileContext,
  type ReconcileResult,
  type Reconciler,
  TerminalError,
} from "./reconciler.ts";
export {
  isTrue,
  mergedConditions,
  progressConditions,
  type StatusWrite,
  type WantedCondition,
  writeStatus,
} from "./status.ts";
