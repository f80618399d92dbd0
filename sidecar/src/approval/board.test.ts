import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ApprovalTerms } from "@sallyport/policy";
import { describe, expect, test } from "vitest";
import { ApprovalBoard, type Approver } from "./board.ts";
import type { Grant, HoldOutcome, HoldRequest } from "./model.ts";
import { ApprovalRecord } from "./record-file.ts";

const terms = (more: Partial<ApprovalTerms> = {}): ApprovalTerms => ({
  kind: "AccessPolicy",
  policy: "p",
  rule: "r",
  ruleText: "text",
  required: 1,
  timeoutMs: 1000,
  grant: "Once",
  reasonRequired: false,
  ...more,
});
const hold = (more: Partial<HoldRequest> = {}): HoldRequest => ({
  resource: "shop/orders",
  sessionId: "s",
  requester: { user: "okta:alice", kind: "Human", isServiceAccount: false },
  command: "DROP TABLE t",
  digest: "hmac-sha256:0",
  inTransaction: false,
  asks: [terms()],
  timeoutMs: 1000,
  ...more,
});
const person = (user: string, more: Partial<Approver> = {}): Approver => ({
  user,
  kind: "Human",
  groups: ["leads"],
  isServiceAccount: false,
  ...more,
});

function board() {
  const state = {
    now: 0,
    fails: false,
    settled: [] as (readonly [string, HoldOutcome["kind"]])[],
    revoked: [] as string[],
    grants: [] as readonly Grant[],
  };
  const made = new ApprovalBoard({
    approvers: [{ group: "leads" }],
    nowMs: () => state.now,
    record: () => {
      if (state.fails) throw new Error("the disk is full");
    },
    listener: {
      settled: (name, { kind }) => state.settled.push([name, kind]),
      revoked: (name) => state.revoked.push(name),
      grantsChanged: (grants) => {
        state.grants = grants;
      },
    },
  });
  return { made, state };
}

describe("a request", () => {
  test("is settled once, whatever comes afterwards", () => {
    const { made, state } = board();
    made.openStatement("a", hold());
    made.decide("a", person("lea"), "Denied");
    expect(made.decide("a", person("max"), "Approved")).toMatchObject({ reason: "Closed" });
    made.cancel("a", "clientGone");
    state.now = 5000;
    made.tick();
    expect(state.settled).toEqual([["a", "denied"]]);
  });

  test("that is due takes no decision, though nobody has looked at the clock", () => {
    const { made, state } = board();
    made.openStatement("a", hold());
    state.now = 1000;
    expect(made.decide("a", person("lea"), "Approved")).toMatchObject({ reason: "Closed" });
    expect(state.settled).toEqual([["a", "expired"]]);
  });

  test("that was cancelled takes no decision", () => {
    const { made, state } = board();
    made.openStatement("a", hold());
    made.cancel("a", "clientCancelled");
    expect(made.decide("a", person("lea"), "Approved")).toMatchObject({ reason: "Closed" });
    expect(state.settled).toEqual([["a", "cancelled"]]);
  });

  test("is not decided where the decision cannot be put on record", () => {
    const { made, state } = board();
    made.openStatement("a", hold());
    state.fails = true;
    expect(made.decide("a", person("lea"), "Approved")).toMatchObject({ reason: "RecordUnavailable" });
    expect(made.find("a")).toMatchObject({ phase: "Pending", decisions: [] });
    expect(state.settled).toEqual([]);
  });

  test("of somebody whom the provider cannot map is not opened", () => {
    const { made } = board();
    const requester = {
      user: "a",
      kind: "Human",
      kubernetesUsername: null,
      isServiceAccount: false,
    } as const;
    expect(made.openStatement("a", hold({ requester }))).toMatchObject({ reason: "ApproverIdentityUnknown" });
  });

  test("and more of them than can be kept are refused, of one requester before all", () => {
    const { made } = board();
    for (let n = 0; n < 200; n++) expect(made.openStatement(`a${n}`, hold()).kind).toBe("done");
    expect(made.openStatement("more", hold())).toMatchObject({ reason: "TooMany" });
    const requester = { user: "other", kind: "Human", isServiceAccount: false } as const;
    expect(made.openStatement("other", hold({ requester })).kind).toBe("done");
  });

  test("once used is no licence: its approval cannot be used again or taken back", () => {
    const { made, state } = board();
    made.openStatement("a", hold());
    made.decide("a", person("lea"), "Approved");
    made.used("a");
    expect(made.find("a")?.phase).toBe("Used");
    expect(made.revoke("a", person("lea"))).toMatchObject({ reason: "Closed" });
    expect(state.grants).toEqual([]);
  });
});

describe("an approver", () => {
  const alice = {
    user: "okta:alice",
    kind: "Human",
    kubernetesUsername: "alice@x",
    isServiceAccount: false,
  } as const;
  test.each([
    ["is not the requester", person("okta:alice"), "SelfApproval"],
    [
      "is not the requester under a second name",
      person("ldap:al", { kubernetesUsername: "alice@x" }),
      "SelfApproval",
    ],
    ["is not the requester under the mapped name", person("alice@x"), "SelfApproval"],
    ["is not the requester in another case", person("Okta:ALICE"), "SelfApproval"],
    ["is not the requester under the mapped name in another case", person("Alice@X"), "SelfApproval"],
    ["is a person", person("ci", { kind: "Workload" }), "NotHuman"],
    ["is no service account", person("sa", { isServiceAccount: true }), "NotHuman"],
    ["can be told from others", person("x", { kubernetesUsername: null }), "ApproverIdentityUnknown"],
    ["is in a group that may", person("eve", { groups: ["dev"] }), "NotAnApprover"],
  ])("%s", (_, by, reason) => {
    const { made, state } = board();
    made.openStatement("a", hold({ requester: alice }));
    expect(made.decide("a", by, "Approved")).toMatchObject({ kind: "refused", reason });
    expect(made.decide("a", by, "Denied")).toMatchObject({ kind: "refused", reason });
    expect(state.settled).toEqual([]);
  });

  test("is not the owner of the agent that asks", () => {
    const { made } = board();
    const requester = {
      user: "bot",
      kind: "Agent",
      onBehalfOf: "okta:lea",
      isServiceAccount: false,
    } as const;
    made.openStatement("a", hold({ requester }));
    expect(made.decide("a", person("okta:lea"), "Approved")).toMatchObject({ reason: "SelfApproval" });
  });

  test("counts once under two names", () => {
    const { made } = board();
    made.openStatement("a", hold({ asks: [terms({ required: 2 })] }));
    made.decide("a", person("okta:lea", { kubernetesUsername: "lea@x" }), "Approved");
    const second = person("ldap:lea", { kubernetesUsername: "lea@x" });
    expect(made.decide("a", second, "Approved")).toMatchObject({ reason: "AlreadyDecided" });
    expect(made.find("a")?.phase).toBe("Pending");
  });
});

describe("a window", () => {
  const asks = [terms({ grant: "Window", windowMs: 500 })];

  test("begins with the approval and ends by itself", () => {
    const { made, state } = board();
    made.openStatement("a", hold({ asks }));
    state.now = 100;
    made.decide("a", person("lea"), "Approved");
    expect(state.grants).toMatchObject([{ subject: "okta:alice", kind: "Human", until: 600 }]);
    made.cancel("a", "sessionEnded");
    expect(state.grants).toHaveLength(1);
    state.now = 600;
    made.tick();
    expect(state.grants).toEqual([]);
    expect(made.find("a")?.phase).toBe("Expired");
  });

  test("ends where its requester or an approver takes it back, and nobody else", () => {
    const { made, state } = board();
    made.openStatement("a", hold({ asks }));
    made.decide("a", person("lea"), "Approved");
    expect(made.revoke("a", person("eve", { groups: [] }))).toMatchObject({ reason: "NotAnApprover" });
    expect(made.revoke("a", person("okta:alice", { groups: [] })).kind).toBe("done");
    expect(state.revoked).toEqual(["a"]);
    expect(state.grants).toEqual([]);
  });

  test("lasts no longer than the rule says, however long was asked for", () => {
    const { made, state } = board();
    const { command: _, digest: __, sessionId: ___, inTransaction: ____, ...access } = hold({ asks });
    made.openAccess("a", { ...access, durationMs: 999_999 });
    made.decide("a", person("lea"), "Approved");
    expect(state.grants).toMatchObject([{ until: 500 }]);
    expect(made.openAccess("b", { ...access, asks: [terms()], durationMs: 1 })).toMatchObject({
      reason: "NotAllowed",
    });
  });
});

describe("the record", () => {
  const inFolder = (act: (path: string) => void) => {
    const folder = mkdtempSync(join(tmpdir(), "sallyport-record-"));
    try {
      act(join(folder, "record.jsonl"));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  };
  const write = (path: string, ...events: readonly string[]) => {
    const record = new ApprovalRecord(path);
    for (const event of events) record.write(event, { name: "a" }, 0);
    record.close();
  };

  test("goes on where it ended, and cuts off what a crash has torn", () =>
    inFolder((path) => {
      write(path, "asked", "decided");
      appendFileSync(path, '{"n":3,"at"');
      write(path, "started");
      const lines = readFileSync(path, "utf8").trimEnd().split("\n");
      expect(lines.map((line) => JSON.parse(line).event)).toEqual(["asked", "decided", "started"]);
      write(path);
    }));

  test.each([
    ["changed", (text: string) => text.replace("decided", "denied!")],
    ["removed", (text: string) => text.split("\n").slice(1).join("\n")],
    ["put in another order", (text: string) => text.trimEnd().split("\n").reverse().join("\n").concat("\n")],
  ])("is not opened where a line was %s", (_, change) =>
    inFolder((path) => {
      write(path, "asked", "decided");
      writeFileSync(path, change(readFileSync(path, "utf8")));
      expect(() => new ApprovalRecord(path)).toThrow(/was changed at line/);
    }),
  );
});
