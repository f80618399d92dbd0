import type { SessionReport } from "@sallyport/control";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { SessionIntake } from "./session-intake.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const report = (id: string, change: Partial<SessionReport> = {}): SessionReport => ({
  ...{ id, cause: "age", state: "Live", user: "okta:ana", subjectKind: "Human", protocol: "postgres" },
  ...{ account: "main", database: "shop", clientAddress: "", startedAt: 0, commands: 1, refused: 0 },
  ...change,
});
const rules = [{ policy: "prod", rule: "fixes", count: 1, reason: "incident 7" }];
const broken = (id: string, state: "Live" | "Ended" = "Live") =>
  report(id, { cause: "held", state, brokeGlass: { count: 1, rules } });

/** An intake with few places, whose clock stands until it is moved. */
function intake() {
  const passed: string[] = [];
  const made = new SessionIntake((reports) => passed.push(...reports.map(({ id }) => id)), {
    ...{ liveMax: 3, writesPerSecond: 2, waitingMax: 4 },
  });
  const pass = (ms: number) => vi.advanceTimersByTime(ms);
  return { made, passed, pass };
}

test("a session that went past approval has a place where others have taken all, and of those there is an end, too", () => {
  const { made, passed, pass } = intake();
  for (const id of ["a", "b", "c", "d"]) {
    made.take([report(id)]);
    pass(1_000);
  }
  for (const id of ["e", "f", "g", "h"]) {
    made.take([broken(id)]);
    pass(1_000);
  }
  expect(passed).toEqual(["a", "b", "c", "e", "f", "g"]);
  expect(made.dropped).toBe(2);
});

test("what waits to be written makes room for what went past approval, and for nothing else", () => {
  const { made, passed, pass } = intake();
  const crowd = Array.from({ length: 40 }, (_, at) => report(`s${at}`, { state: "Ended" }));
  made.take([...crowd, broken("x", "Ended"), ...crowd.slice(20)]);
  pass(10_000);
  expect(passed).toContain("x");
  expect(passed).toHaveLength(4);
});

test("sessions whose end nobody told here give their places back, and those that are told of each minute keep theirs", () => {
  const { made, passed, pass } = intake();
  for (const id of ["kept", "killed", "elsewhere"]) {
    made.take([report(id)]);
    pass(1_000);
  }
  // A gateway that is killed says nothing any more, and one that went to another replica says it there.
  for (let minute = 0; minute < 5; minute++) {
    made.take([report("early"), report("kept")]);
    pass(60_000);
  }
  expect(passed).not.toContain("early");
  made.take([report("d"), report("e"), report("f")]);
  pass(10_000);
  expect(passed).toEqual(expect.arrayContaining(["d", "e"]));
  expect(passed).not.toContain("f");
});
