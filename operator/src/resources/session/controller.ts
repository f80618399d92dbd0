/** Session: objects of sessions that are over are removed when their time has come. */
import { durationMs, type Session } from "@sallyport/crds";
import type { KubeClient } from "../../kube/index.ts";
import type { Reconciler } from "../../reconcile/index.ts";
import type { OperatorCaches } from "../caches.ts";
import { kinds } from "../kinds.ts";

/** What the controller is made of. */
export interface SessionControllerParts {
  readonly client: KubeClient;
  readonly caches: Pick<OperatorCaches, "sessions">;
  readonly clock: () => number;
}

/** What is to become of a session's object. */
export type SessionDecision =
  | { readonly kind: "keep" }
  | { readonly kind: "later"; readonly afterMs: number }
  | { readonly kind: "lose"; readonly session: Session }
  | { readonly kind: "remove"; readonly session: Session };

/** How long objects stay that do not say it themselves: those of earlier releases. */
export const defaultTtlMs = 24 * 3_600_000;

/** Gateways report live sessions every minute: one that is silent for so long is gone with its gateway. */
export const lostAfterMs = 300_000;

/**
 * Decides by what was last heard of the session: a live one is never removed. `sinceMs` is when this operator began to
 * listen: what was silent before that may only have had nobody to talk to.
 */
export function decideSession(session: Session, nowMs: number, sinceMs: number): SessionDecision {
  const { state, endedAt, observedAt } = session.status ?? {};
  if (state === undefined) return { kind: "keep" };
  const observed = Date.parse(observedAt ?? "");
  if (state === "Active") {
    const leftMs = Math.max(Number.isNaN(observed) ? 0 : observed, sinceMs) + lostAfterMs - nowMs;
    return leftMs > 0 ? { kind: "later", afterMs: leftMs } : { kind: "lose", session };
  }
  const ended = state === "Lost" ? observed : Date.parse(endedAt ?? "");
  if (Number.isNaN(ended)) return { kind: "keep" };
  const { ttlAfterFinished } = session.spec;
  const ttlMs = (ttlAfterFinished === undefined ? undefined : durationMs(ttlAfterFinished)) ?? defaultTtlMs;
  const leftMs = ended + ttlMs - nowMs;
  return leftMs > 0 ? { kind: "later", afterMs: leftMs } : { kind: "remove", session };
}

/** Makes the controller's reconciler. */
export function sessionReconciler({
  client,
  caches,
  clock,
}: SessionControllerParts): Reconciler<Session | undefined, SessionDecision> {
  let sinceMs: number | undefined;
  return {
    observe: async ({ ref }) => caches.sessions.get(ref),
    decide: (session) => {
      sinceMs ??= clock();
      return session === undefined ? { kind: "keep" } : decideSession(session, clock(), sinceMs);
    },
    act: async (decision, { signal }) => {
      switch (decision.kind) {
        case "keep":
          return { kind: "done" };
        case "later":
          // Timers hold about 24 days; what is left of a longer wait is waited for then.
          return { kind: "requeue", afterMs: decision.afterMs };
        case "lose": {
          const { metadata } = decision.session;
          const { resourceVersion } = metadata;
          // A report of this moment wins: the version must be the one that was silent.
          const merge = { metadata: { resourceVersion }, status: { state: "Lost" } };
          await client.patch(
            kinds.session,
            metadata,
            { kind: "merge", merge },
            {
              ...{ fieldManager: "sallyport-session", subresource: "status", signal },
            },
          );
          return { kind: "done" };
        }
        case "remove": {
          const { metadata } = decision.session;
          await client.delete(kinds.session, metadata, {
            ...(metadata.uid !== undefined && { uid: metadata.uid }),
            signal,
          });
          return { kind: "done" };
        }
      }
    },
  };
}
