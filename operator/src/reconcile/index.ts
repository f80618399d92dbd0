/** The loop that every kind's controller runs in, and what each needs: status, conditions, finalizers. Kinds unknown. */
export {
  type ReconcileContext,
  type ReconcileResult,
  type Reconciler,
  TerminalError,
} from "./reconciler.ts";
