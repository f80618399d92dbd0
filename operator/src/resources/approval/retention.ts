import type { Approval } from "@sallyport/crds";

/** What is to become of an Approval that is closed. */
export type RetentionDecision =
  | { readonly kind: "keep" }
  | { readonly kind: "later"; readonly afterMs: number }
  | { readonly kind: "remove"; readonly approval: Approval };

const closed: ReadonlySet<string> = new Set(["Used", "Denied", "Expired", "Cancelled", "Revoked"]);

/** Decides by when it was closed; what is open is never removed, and neither is what does not say when. */
export function decideRetention(approval: Approval, now: Date, retentionMs: number): RetentionDecision {
  const { phase, decidedAt, usedAt, expiresAt } = approval.status ?? {};
  if (phase === undefined || !closed.has(phase)) return { kind: "keep" };
  const times = [decidedAt, usedAt, phase === "Expired" ? expiresAt : undefined].map((time) =>
    Date.parse(time ?? ""),
  );
  const last = Math.max(...times.filter((time) => !Number.isNaN(time)));
  if (!Number.isFinite(last)) return { kind: "keep" };
  const leftMs = last + retentionMs - now.getTime();
  return leftMs > 0 ? { kind: "later", afterMs: leftMs } : { kind: "remove", approval };
}
