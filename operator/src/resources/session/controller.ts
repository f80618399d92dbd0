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
  | { readonly kind: "remove"; readonly session: Session };

/** How long objects stay that do not say it themselves. */
export const defaultTtlMs = 24 * 3_600_000;

/** Decides by the end of the session alone: a live one is never removed. */
export function decideSession(session: Session, nowMs: number): SessionDecision {
  const { state, endedAt } = session.status ?? {};
  if (state === undefined || state === "Active") return { kind: "keep" };
  const ended = Date.parse(endedAt ?? "");
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
  return {
    observe: async ({ ref }) => caches.sessions.get(ref),
    decide: (session) => (session === undefined ? { kind: "keep" } : decideSession(session, clock())),
    act: async (decision, { signal }) => {
      switch (decision.kind) {
        case "keep":
          return { kind: "done" };
        case "later":
          // Timers hold about 24 days; what is left of a longer wait is waited for then.
          return { kind: "requeue", afterMs: Math.min(decision.afterMs, 86_400_000) };
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
