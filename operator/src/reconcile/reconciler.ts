/** What a controller does for one key: observe, decide, act. Level-triggered: nobody says what changed. */
import type { ObjectRef } from "../kube/index.ts";

/** What is known while one key is worked on. */
export interface ReconcileContext {
  readonly ref: ObjectRef;
  /** Aborted when the process is to end or the lease is lost, and at the deadline of a reconciliation. */
  readonly signal: AbortSignal;
  /** Stands in every log line of this reconciliation. */
  readonly reconcileId: string;
}

/** How one reconciliation went; a failure is thrown. */
export type ReconcileResult =
  | { readonly kind: "done" }
  /** Once more after a while, for what depends on time: expiry, rotation. */
  | { readonly kind: "requeue"; readonly afterMs: number };

/**
 * Observe reads caches (and, before something is destroyed, the API server); decide is pure; act writes.
 * A throw is tried again with backoff; a 409 at once and without an error; a TerminalError not until something changes.
 */
export interface Reconciler<Observed, Decision> {
  observe(context: ReconcileContext): Promise<Observed>;
  decide(observed: Observed): Decision;
  act(decision: Decision, context: ReconcileContext): Promise<ReconcileResult>;
}

/** Trying again is pointless until the object or what it refers to changes; the status has been told already. */
export class TerminalError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "TerminalError";
  }
}
