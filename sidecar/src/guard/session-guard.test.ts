import type { ApprovalTerms, Identity, SessionPolicy, Verdict } from "@sallyport/policy";
import { expect, test, vi } from "vitest";
import type { ApprovalListener, CancelReason, HoldOutcome, HoldRequest } from "../approval/index.ts";
import type { CommandRecord, SessionRecording } from "../recording/model.ts";
import type { Holdable, HoldNotice } from "./hold.ts";
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

test("a denial says whether it could be recorded", async () => {
  const denied = { ...record, verdict: { action: "Deny", message: "no", hint: "" } as Verdict };
  const full = guardOf(crowded(Number.POSITIVE_INFINITY));
  expect(await full.request(denied, false)).toMatchObject({ code: "denied", isUnrecorded: true });
  for (const waits of [0, 2])
    expect(await guardOf(crowded(waits)).request(denied, false)).not.toHaveProperty("isUnrecorded");
});

test("a command beyond the statement rate is refused even when it had to wait for room", async () => {
  const guard = guardOf(crowded(1), 0);
  expect(await guard.request(record, false)).toMatchObject({ code: "rateExceeded" });
});

const terms: ApprovalTerms = {
  kind: "AccessPolicy",
  policy: "p",
  rule: "r",
  ruleText: "text",
  required: 1,
  timeoutMs: 60_000,
  grant: "Once",
  reasonRequired: false,
};

/** A session that holds commands; requests wait until the test settles them. */
function holding() {
  const asked: HoldRequest[] = [];
  const settle: ((outcome: HoldOutcome) => void)[] = [];
  const answered: number[] = [];
  const listeners: ApprovalListener[] = [];
  let count = 0;
  const waits: (() => void)[] = [];
  let isFull = false;
  let nowMs = 0;
  const notices: HoldNotice[] = [];
  const events: unknown[][] = [];
  const recording: SessionRecording = {
    ...crowded(0),
    command: () => (isFull ? -1 : ++count),
    room: () => new Promise((resolve) => waits.push(resolve)),
    response: (number) => void answered.push(number),
  };
  const guard = new SessionGuard({
    policy: { limits: {} } as unknown as SessionPolicy,
    recording,
    recordingMode: "Required",
    durability: "Accepted",
    recordsRows: false,
    enforcement: "Enforce",
    now: () => nowMs,
    onDecision: () => {},
    approvals: {
      service: {
        hold: (request) => {
          const outcome = new Promise<HoldOutcome>((resolve) => settle.push(resolve));
          asked.push(request);
          const at = asked.length - 1;
          const cancel = (reason: CancelReason) => settle[at]?.({ kind: "cancelled", reason });
          return { name: `a${at}`, howToApprove: "ask", expiresAt: 60_000, outcome, cancel };
        },
        granted: () => undefined,
        used: () => {},
        listen: (listener) => {
          listeners.push(listener);
          return () => {};
        },
      },
      identity: { user: "alice", kind: "Human", groups: [] } as unknown as Identity,
      resource: "shop/orders",
      sessionId: "s",
      holdInTransactionMs: 1_000,
      noticeMs: 5_000,
      onEvent: (...event) => void events.push(event),
    },
  });
  const holdable = (text: string, rejudge = async () => allow): Holdable => ({
    command: { protocol: "ssh", text, parts: [] },
    inTransaction: false,
    isPointless: false,
    bytes: [Buffer.from(text)],
    explained: "",
    tell: (notice) => void notices.push(notice),
    begun: () => {},
    rejudge,
  });
  const request = (text: string, own = holdable(text)) => {
    const verdict = { action: "RequireApproval", message: "asks", asks: [terms] } as unknown as Verdict;
    return Promise.resolve(guard.request({ at: 0, text, verdict } as CommandRecord, false, own));
  };
  const full = (is: boolean) => {
    isFull = is;
    if (!is) for (const go of waits.splice(0)) go();
  };
  const opened = (at: number) =>
    vi.waitFor(() => expect(asked.length).toBeGreaterThan(at), { timeout: 20_000 });
  const pass = (ms: number) => {
    nowMs += ms;
    for (const listener of listeners) listener.tick(nowMs);
  };
  return {
    guard,
    asked,
    settle,
    answered,
    listeners,
    notices,
    events,
    holdable,
    request,
    full,
    opened,
    pass,
  };
}

test("channels that ask side by side do not take one another's request", async () => {
  const { asked, settle, request, full, opened } = holding();
  full(true);
  const first = request("rm a");
  const second = request("rm b");
  full(false);
  expect(await second).toMatchObject({ kind: "refusal", code: "approvalNeeded" });
  await opened(0);
  expect(asked.map(({ command }) => command)).toEqual(["rm a"]);
  settle[0]?.({ kind: "approved", by: ["bob"] });
  expect(await first).toMatchObject({ kind: "permit", number: 1 });
});

test("a command that is recorded while another waits to be asked about keeps its own number", async () => {
  const { guard, settle, request, full, opened } = holding();
  full(true);
  const held = request("rm a");
  const other = guard.request({ at: 0, text: "ls", verdict: allow } as CommandRecord, false);
  full(false);
  expect(await other).toMatchObject({ number: 2 });
  await opened(0);
  settle[0]?.({ kind: "approved", by: ["bob"] });
  expect(await held).toMatchObject({ kind: "permit", number: 1 });
});

test("whoever leaves before the request is opened asks nobody, and nothing runs", async () => {
  const { guard, asked, request, full } = holding();
  full(true);
  const held = request("rm a");
  expect(guard.cancelHold("clientGone")).toBe(true);
  full(false);
  expect(await held).toMatchObject({ kind: "refusal", code: "holdCancelled" });
  expect(asked).toEqual([]);
});

test("one channel's end does not cancel what another holds", async () => {
  const { guard, settle, holdable, request, opened } = holding();
  const held = request("rm a");
  await opened(0);
  expect(guard.cancelHold("clientGone", holdable("rm b"))).toBe(false);
  settle[0]?.({ kind: "approved", by: ["bob"] });
  expect(await held).toMatchObject({ kind: "permit" });
});

test.each(["taken back", "left"] as const)("what is approved and then %s does not run", async (how) => {
  const { guard, settle, answered, listeners, holdable, request, opened } = holding();
  const rejudged = Promise.withResolvers<Verdict>();
  const isJudging = Promise.withResolvers<void>();
  const own = holdable("rm a", () => {
    isJudging.resolve();
    return rejudged.promise as Promise<typeof allow>;
  });
  const held = request("rm a", own);
  await opened(0);
  settle[0]?.({ kind: "approved", by: ["bob"] });
  await isJudging.promise;
  if (how === "left") guard.cancelHold("clientGone");
  else for (const listener of listeners) listener.revoked("a0");
  rejudged.resolve(allow);
  expect(await held).toMatchObject({ kind: "refusal" });
  expect(answered).toEqual([1]);
});

test("bytes that are not those that were approved do not run", async () => {
  const { settle, holdable, request, opened } = holding();
  const own = holdable("rm a");
  const held = request("rm a", own);
  await opened(0);
  own.bytes[0]?.fill("b".charCodeAt(0));
  settle[0]?.({ kind: "approved", by: ["bob"] });
  expect(await held).toMatchObject({
    kind: "refusal",
    message: expect.stringContaining("the command is not the one that was approved"),
  });
});

const windowed = {
  ...terms,
  kind: "ClusterAccessPolicy" as const,
  grant: "Window" as const,
  windowMs: 60_000,
};
const howToAsk = "Ask for it first: sallyport request shop/orders --rule cluster/p/r";

test.each([
  ["cannot be held", undefined],
  ["was denied", { kind: "denied", by: "bob" }],
  ["nobody decided about", { kind: "expired" }],
] as const)("what %s says how to ask for its rule's window, whatever the protocol", async (_, outcome) => {
  const { guard, settle, holdable, opened } = holding();
  const verdict = { action: "RequireApproval", message: "asks", asks: [windowed] } as unknown as Verdict;
  const asked = { at: 0, text: "rm a", verdict } as CommandRecord;
  const answer = guard.request(asked, false, outcome && holdable("rm a"));
  if (outcome !== undefined) {
    await opened(0);
    settle[0]?.(outcome);
  }
  expect(await answer).toMatchObject({ kind: "refusal", hint: howToAsk });
});

test("a held command's client is told at once and every few seconds who is asked, how, and what time is left", async () => {
  const { settle, notices, request, opened, pass } = holding();
  const held = request("rm a");
  await opened(0);
  const told = (left: string) => ({
    message: "held for approval a0: asks",
    detail: `Asked by p/r (1). Time left: ${left}.`,
    hint: "An approver runs: ask",
  });
  expect(notices).toEqual([told("1m0s")]);
  // Twice a second is looked whether it is time.
  for (let halves = 0; halves < 9; halves++) pass(500);
  expect(notices).toHaveLength(1);
  pass(500);
  expect(notices).toEqual([told("1m0s"), told("55s")]);
  for (let halves = 0; halves < 20; halves++) pass(500);
  expect(notices.slice(2)).toEqual([told("50s"), told("45s")]);
  settle[0]?.({ kind: "approved", by: ["bob"] });
  await held;
  for (let halves = 0; halves < 40; halves++) pass(500);
  expect(notices).toHaveLength(4);
});

test.each(["AccessPolicy", "ClusterAccessPolicy"] as const)(
  "what goes past approval is told with the rule of the %s and the reason",
  async (kind) => {
    const { guard, events } = holding();
    guard.giveReason(" incident 7 ");
    const satisfied = [{ terms: { ...terms, kind }, by: "breakGlass" }];
    const verdict = { action: "Allow", satisfied } as unknown as Verdict;
    await guard.request({ at: 0, text: "rm a", verdict } as CommandRecord, false);
    const policy = kind === "AccessPolicy" ? "p" : "cluster/p";
    expect(events).toEqual([["breakGlass", { policy, rule: "r", reason: "incident 7" }]]);
  },
);

test("a reason that is wanted and was not given is asked for, in the words of the protocol", async () => {
  const { guard, asked, settle, holdable, opened } = holding();
  const asks = [{ ...terms, reasonRequired: true }];
  const verdict = { action: "RequireApproval", message: "asks", asks } as unknown as Verdict;
  const record = { at: 0, text: "rm a", verdict } as CommandRecord;
  guard.giveReason("\u200b\r\n\u202e");
  expect(await guard.request(record, false, holdable("rm a"))).toMatchObject({
    kind: "refusal",
    message: "asks; a reason is required",
    hint: expect.stringContaining("SALLYPORT_REASON="),
  });
  guard.giveReason(`INC-42\r\nforged\u001b[2J ${"x".repeat(5_000)}`);
  const held = guard.request(record, false, holdable("rm a"));
  await opened(0);
  expect(asked[0]?.reason).toMatch(/^INC-42 forged \[2J x+$/);
  expect(asked[0]?.reason?.length).toBeLessThanOrEqual(1_024);
  settle[0]?.({ kind: "denied", by: "bob" });
  await held;
});
