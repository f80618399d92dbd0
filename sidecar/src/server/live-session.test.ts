import type { Identity, SessionPolicy } from "@sallyport/policy";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { LiveSession, type LiveSessionOptions } from "./live-session.ts";

beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }));
afterEach(() => void vi.useRealTimers());

const startMs = 1_800_000_000_000;
const minuteMs = 60_000;

/** A session whose token is good for an hour, idle for ten minutes at most; `wall` moves the wall clock alone. */
function opened(followsTime = false) {
  let wallMs = startMs;
  const said: string[] = [];
  const relay = { lastClientMs: performance.now(), stop: () => undefined };
  const options = {
    ...{
      id: "one",
      resourceKey: "default/shop",
      facts: {},
      recording: {},
      counts: { commands: 0, refused: 0 },
    },
    identity: { user: "ann", expiresAt: startMs / 1000 + 3600 } as Identity,
    guard: { isHolding: false, note: () => undefined, followsTime },
    policy: { limits: { idleMs: 10 * minuteMs } } as SessionPolicy,
    nowMs: () => wallMs,
  } as unknown as LiveSessionOptions;
  const session = new LiveSession(options);
  let judged = 0;
  session.onPolicyChange((what) => {
    if (what === "time") judged += 1;
  });
  session.attach(relay as never, (kind, code) => said.push(`${kind} ${code}`));
  const pass = (ms: number, isActive = true) => {
    vi.advanceTimersByTime(ms);
    wallMs += ms;
    if (isActive) relay.lastClientMs = performance.now();
    session.checkDeadlines();
  };
  const set = (byMs: number) => {
    wallMs += byMs;
    session.checkDeadlines();
  };
  /** How often what runs is judged anew while so many ticks of the gateway's go by. */
  const judgedIn = (ticks: number) => {
    judged = 0;
    for (let tick = 0; tick < ticks; tick += 1) {
      vi.advanceTimersByTime(500);
      session.followTime();
    }
    return judged;
  };
  return { said, pass, set, judgedIn };
}

it("what runs is judged anew by the time every five seconds where a rule reads it, and never where none does", () => {
  expect(opened(true).judgedIn(120)).toBe(12);
  expect(opened().judgedIn(120)).toBe(0);
});

it("a wall clock that is set back makes no token live longer", () => {
  const { said, pass, set } = opened();
  set(-24 * 60 * minuteMs);
  pass(59 * minuteMs);
  expect(said).toEqual([]);
  pass(minuteMs);
  expect(said).toEqual(["fatal sessionExpired"]);
});

it("a wall clock that jumps past a token's end ends the session", () => {
  const { said, set } = opened();
  set(61 * minuteMs);
  expect(said).toEqual(["fatal sessionExpired"]);
});

it("jumps of the wall clock make nobody idle, and keep nobody from being it", () => {
  const { said, pass, set } = opened();
  set(30 * minuteMs);
  expect(said).toEqual([]);
  set(-60 * minuteMs);
  pass(9 * minuteMs, false);
  expect(said).toEqual([]);
  pass(minuteMs, false);
  expect(said).toEqual(["fatal idle"]);
});
