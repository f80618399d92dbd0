/** Session limits: read from manifests, merged to the strictest. */
import { durationMs } from "@sallyport/crds/pure";
import type { LimitsSpec } from "./documents.ts";
import type { SessionLimits } from "./model.ts";

interface LimitProblem {
  readonly path: string;
  readonly reason: "InvalidField" | "UnknownField";
  readonly message: string;
}

/** Reads `spec.limits`; problems are paths under it with a sentence. */
export function readLimits(spec: LimitsSpec): {
  readonly limits: SessionLimits;
  readonly problems: readonly LimitProblem[];
} {
  const limits: Record<string, number> = {};
  const problems: LimitProblem[] = [];
  const invalid = (key: string, message: string): void => {
    problems.push({ path: `.${key}`, reason: "InvalidField", message });
  };
  for (const [key, value] of Object.entries(spec)) {
    if (value === undefined) continue;
    if (counts.has(key)) {
      if (Number.isSafeInteger(value) && Number(value) >= 0) limits[key] = Number(value);
      else invalid(key, "must be a whole number, 0 or more");
    } else if (Object.hasOwn(durations, key)) {
      const ms = durationMs(String(value));
      if (ms === undefined) invalid(key, "must be a duration such as 90s or 8h");
      else limits[durations[key] ?? key] = ms;
    } else problems.push({ path: `.${key}`, reason: "UnknownField", message: "there is no such limit" });
  }
  return { limits, problems };
}

/** The strictest of several limits, key by key; a policy can only tighten what another allows. */
export function strictestLimits(all: readonly SessionLimits[]): SessionLimits {
  const merged: Record<string, number> = {};
  for (const limits of all) {
    for (const [key, value] of Object.entries(limits)) {
      if (typeof value === "number") merged[key] = Math.min(merged[key] ?? Number.POSITIVE_INFINITY, value);
    }
  }
  return merged;
}

const counts = new Set(["rows", "affectedRows", "statementsPerMinute", "concurrentSessions"]);
const durations: Readonly<Record<string, string>> = { sessionDuration: "sessionDurationMs", idle: "idleMs" };
