import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ClusterApprovals } from "./cluster-approvals.ts";

const resource = "shop/orders";
const alice = { user: "okta:alice", kind: "Human", kubernetesUsername: "alice@example.com" } as const;
const window = (more: object = {}) => ({
  approval: "a",
  requester: "alice@example.com",
  ruleText: "the rule",
  until: Date.now() + 3_600_000,
  ...more,
});
const opened = () => {
  const approvals = new ClusterApprovals(
    { ask: () => undefined, withdraw: () => undefined, used: () => undefined },
    resource,
  );
  const open = (holder: Parameters<typeof approvals.service.granted>[0] = alice, of = resource) => [
    ...(approvals.service.granted(holder, of)?.keys() ?? []),
  ];
  return { approvals, open };
};

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("a window is for whoever maps to its requester's name, and for nobody who is merely called so", () => {
  const { approvals, open } = opened();
  approvals.opened([window()]);
  expect(open()).toEqual(["the rule"]);
  expect(open({ user: "alice@example.com", kind: "Human" })).toEqual([]);
  expect(open({ user: "alice@example.com", kind: "Human", kubernetesUsername: null })).toEqual([]);
  expect(open({ user: "okta:bob", kind: "Human", kubernetesUsername: "bob@example.com" })).toEqual([]);
  expect(open(alice, "shop/other")).toEqual([]);
});

test("one that a session has asked for is for its own identity alone", () => {
  const { approvals, open } = opened();
  approvals.opened([window({ subject: "okta:alice" })]);
  expect(open()).toEqual(["the rule"]);
  expect(open({ ...alice, user: "other:alice" })).toEqual([]);
});

test("one opens nothing for an agent that acts for who approved it, under none of their names", () => {
  const { approvals, open } = opened();
  approvals.opened([window({ approvedBy: ["bob@example.com"] })]);
  expect(open()).toEqual(["the rule"]);
  expect(open({ ...alice, onBehalfOf: "okta:carol@example.com" })).toEqual(["the rule"]);
  expect(open({ ...alice, onBehalfOf: "bob@example.com" })).toEqual([]);
  expect(open({ ...alice, onBehalfOf: "okta:Bob@example.com" })).toEqual([]);
});

test("what is not in the operator's list any more is over, and so is what the clock has ended", () => {
  const { approvals, open } = opened();
  approvals.opened([window(), window({ approval: "b", ruleText: "short", until: Date.now() + 1_000 })]);
  expect(open()).toEqual(["short", "the rule"]);
  vi.advanceTimersByTime(1_000);
  expect(open()).toEqual(["the rule"]);
  approvals.opened([]);
  expect(open()).toEqual([]);
});

test("windows outlive the operator by ten seconds, and another replica's word in that time keeps them", () => {
  const { approvals, open } = opened();
  approvals.opened([window()]);
  const pass = (seconds: number, isConnected: boolean) => {
    for (let half = 0; half < seconds * 2; half++) {
      vi.advanceTimersByTime(500);
      approvals.heard(isConnected);
    }
  };
  pass(9, false);
  expect(open()).toEqual(["the rule"]);
  pass(1, true);
  pass(9, false);
  expect(open()).toEqual(["the rule"]);
  pass(2, false);
  expect(open()).toEqual([]);
});

test("what approvers read hides nothing: what steers a terminal is written out, and parameters stay on their lines", () => {
  const asked: { readonly request: unknown }[] = [];
  const approvals = new ClusterApprovals(
    { ask: (ask) => void asked.push(ask), withdraw: () => undefined, used: () => undefined },
    resource,
  );
  void approvals.service.hold({
    resource,
    sessionId: "s1",
    requester: { ...alice, kind: "Human", isServiceAccount: false },
    command: "SELECT 1\r\n-- \u202edrop\u001b[2K\u200b\ttable",
    parameters: ["one\n-- $2: two"],
    digest: "hmac-sha256:0",
    reason: "tick\u2066et",
    context: [{ label: "Touches", text: "SELECT: \u202epublic.people" }],
    inTransaction: false,
    asks: [
      {
        ...{
          kind: "AccessPolicy",
          policy: "prod",
          rule: "fixes",
          ruleText: "",
          required: 1,
          timeoutMs: 1_000,
        },
        ...{ grant: "Window", windowMs: 1_800_000, reasonRequired: false },
      },
    ],
    timeoutMs: 1_000,
  });
  expect(asked[0]?.request).toMatchObject({
    command:
      "SELECT 1\n-- \\u{202e}drop\\u{1b}[2K\\u{200b}\ttable\n-- $1: one\\n-- $2: two\n" +
      "-- Touches: SELECT: \\u{202e}public.people\n" +
      "-- approved, it lets more through by prod/fixes, for 30 min",
    reason: "tick\\u{2066}et",
  });
  approvals.close();
});
