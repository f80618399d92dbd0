import type { SubjectKind } from "@sallyport/policy";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { HoldRequest } from "./model.ts";
import { BoardService, type RemoteBoard } from "./service.ts";

const request: HoldRequest = {
  resource: "shop/orders",
  sessionId: "s1",
  requester: { user: "local:dora", kind: "Human", isServiceAccount: false },
  command: "DROP TABLE t",
  digest: "hmac-sha256:00",
  inTransaction: false,
  asks: [],
  timeoutMs: 60_000,
};

const patientBoard: RemoteBoard = {
  open: async () => undefined,
  cancel: () => undefined,
  used: () => undefined,
};

test("a window opens for what asked for it: a program under a person's name has none of the person's", () => {
  const service = new BoardService(patientBoard, () => 0);
  const window = {
    approval: "a",
    subject: "local:dora",
    resource: "shop/orders",
    ruleText: "rule",
    until: 1,
  };
  const opened = (kind: SubjectKind) => [
    ...(service.granted({ user: "local:dora", kind }, "shop/orders")?.keys() ?? []),
  ];
  service.grantsChanged([{ ...window, kind: "Human" }]);
  expect(opened("Human")).toEqual(["rule"]);
  expect([...opened("Agent"), ...opened("Workload")]).toEqual([]);
  service.grantsChanged([{ ...window, kind: "Agent" }]);
  expect(opened("Agent")).toEqual(["rule"]);
  expect(opened("Human")).toEqual([]);
  service.close();
});

describe("what is held", () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  test("costs one timer for all of it, and none once nothing is held", async () => {
    const service = new BoardService(patientBoard, Date.now);
    expect(vi.getTimerCount()).toBe(0);
    const holds = Array.from({ length: 200 }, () => service.hold(request));
    await vi.advanceTimersByTimeAsync(5_000);
    expect(vi.getTimerCount()).toBe(1);
    for (const { name } of holds) service.settled(name, { kind: "cancelled", reason: "clientGone" });
    await vi.advanceTimersByTimeAsync(5_000);
    expect(vi.getTimerCount()).toBe(0);
    expect(await Promise.all(holds.map(({ outcome }) => outcome))).toEqual(
      holds.map(() => ({ kind: "cancelled", reason: "clientGone" })),
    );
  });

  test("is settled once: what the board says after its cancellation counts for nothing", async () => {
    const service = new BoardService(patientBoard, Date.now);
    const hold = service.hold(request);
    hold.cancel("clientGone");
    service.settled(hold.name, { kind: "approved", by: ["local:lea"] });
    expect(await hold.outcome).toEqual({ kind: "cancelled", reason: "clientGone" });
  });
});
