import type { Session } from "@sallyport/crds";
import { expect, test } from "vitest";
import { decideSession as decide, defaultTtlMs, lostAfterMs } from "./controller.ts";

const now = Date.parse("2026-01-02T00:00:00Z");
const decideSession = (one: Session, nowMs: number, sinceMs = nowMs) => decide(one, nowMs, sinceMs);
const session = (status: Session["status"], ttlAfterFinished?: string) =>
  ({
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "Session",
    metadata: { name: "s" },
    spec: { ...(ttlAfterFinished !== undefined && { ttlAfterFinished }) },
    ...(status !== undefined && { status }),
  }) as Session;
const ended = (ms: number): Session["status"] => ({
  state: "Ended",
  endedAt: new Date(now - ms).toISOString(),
});

test("a live session, and one that nobody has reported on, stay", () => {
  expect(decideSession(session({ state: "Active" }, "1s"), now).kind).toBe("later");
  expect(decideSession(session(undefined, "1s"), now).kind).toBe("keep");
  expect(decideSession(session({ state: "Ended" }), now).kind).toBe("keep");
});

test("one that is over goes when its time has come, and not before", () => {
  expect(decideSession(session(ended(59_000), "1m"), now)).toEqual({ kind: "later", afterMs: 1_000 });
  expect(decideSession(session(ended(60_000), "1m"), now).kind).toBe("remove");
  expect(decideSession(session(ended(defaultTtlMs - 1)), now).kind).toBe("later");
  expect(decideSession(session(ended(defaultTtlMs)), now).kind).toBe("remove");
});

test("one that is no longer reported is lost, once somebody has listened for long enough", () => {
  const heard = (ms: number) => session({ state: "Active", observedAt: new Date(now - ms).toISOString() });
  const long = now - 10 * lostAfterMs;
  expect(decideSession(heard(lostAfterMs), now, long).kind).toBe("lose");
  expect(decideSession(heard(lostAfterMs - 1_000), now, long)).toEqual({ kind: "later", afterMs: 1_000 });
  // An operator that was away has heard nothing, whatever was said.
  expect(decideSession(heard(lostAfterMs), now, now).kind).toBe("later");
  expect(decideSession(session({ state: "Active" }), now, long).kind).toBe("lose");
});

test("a lost one goes when its time after the last word has come", () => {
  const lost = (ms: number) => session({ state: "Lost", observedAt: new Date(now - ms).toISOString() }, "1m");
  expect(decideSession(lost(59_000), now).kind).toBe("later");
  expect(decideSession(lost(60_000), now).kind).toBe("remove");
});
