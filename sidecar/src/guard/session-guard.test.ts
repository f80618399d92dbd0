import type { SessionPolicy, Verdict } from "@sallyport/policy";
import { expect, test } from "vitest";
import type { CommandRecord, SessionRecording } from "../recording/model.ts";
import { SessionGuard } from "./session-guard.ts";

/** A journal that says so many times that it is full, although its room was waited for. */
function crowded(fullTimes: number): SessionRecording & { readonly waits: () => number } {
  let left = fullTimes;
  let waits = 0;
  return {
    command: () => (left-- > 0 ? -1 : 7),
    room: async () => void waits++,
    stored: () => Promise.resolve(),
    response: () => {},
    rows: () => {},
    event: () => {},
    close: () => Promise.resolve(),
    failure: undefined,
    waits: () => waits,
  };
}

const allow = { action: "Allow" } as Verdict;
const record = { at: 0, text: "SELECT 1", verdict: allow } as CommandRecord;

function guardOf(recording: SessionRecording, statementsPerMinute?: number): SessionGuard {
  return new SessionGuard({
    policy: { limits: { statementsPerMinute } } as unknown as SessionPolicy,
    recording,
    recordingMode: "Required",
    durability: "Accepted",
    recordsRows: false,
    enforcement: "Enforce",
    now: () => 0,
    onDecision: () => {},
  });
}

test("room that others take first is waited for again, and the command is not refused", async () => {
  const recording = crowded(4);
  expect(await guardOf(recording).request(record, false)).toMatchObject({ number: 7 });
  expect(recording.waits()).toBe(4);
});

test("a journal that never has room ends in a refusal, not in a wait without end", async () => {
  const recording = crowded(Number.POSITIVE_INFINITY);
  expect(await guardOf(recording).request(record, false)).toMatchObject({ code: "recordingUnavailable" });
});

test("a command beyond the statement rate is refused even when it had to wait for room", async () => {
  const guard = guardOf(crowded(1), 0);
  expect(await guard.request(record, false)).toMatchObject({ code: "rateExceeded" });
});
