/**
 * The guard: the only way from a command to a permit. It asks policy, writes the record, and only then permits.
 * A protocol holds a `SessionGuard` and nothing else of the gateway's inside.
 */

export type { HoldContext } from "../approval/index.ts";
export { type Holdable, type HoldNotice, requesterOf } from "./hold.ts";
export { HoldTurns } from "./hold-turns.ts";
export type { Permit } from "./permit.ts";
export { type Refusal, refusal } from "./refusal.ts";
export {
  type BreakGlassUse,
  mustBeDurable,
  type ReachedLimit,
  type SessionApprovals,
  SessionGuard,
} from "./session-guard.ts";
