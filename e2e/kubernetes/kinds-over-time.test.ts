/** What the schemas say about change, which only an API server can hold: it alone knows what was there before. */
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";

const files = ["approvals", "sessions"].map((name) => join(import.meta.dirname, `../../crds/${name}.yaml`));
const applied = files.flatMap((file) => ["-f", file]);

let api: ApiServer;
beforeAll(async () => {
  api = await startApiServer();
  await api.kubectl("apply", "--server-side", ...applied);
  await api.kubectl("wait", "--for=condition=Established", ...applied);
});
afterAll(() => api?.close());

/** What kubectl said, or "" where it was let through. */
async function refusal(...argv: readonly string[]): Promise<string> {
  const { code, stderr } = await api.kubectl.try(undefined, ...argv);
  return code === 0 ? "" : stderr;
}
const patch = (object: string, kind: "json" | "merge", body: unknown, ...more: readonly string[]) =>
  refusal("patch", ...object.split("/"), `--type=${kind}`, "-p", JSON.stringify(body), ...more);
const status = (object: string, body: object) =>
  patch(object, "merge", { status: body }, "--subresource=status");

describe("an Approval", () => {
  let count = 0;
  let approval: string;
  beforeEach(async () => {
    count += 1;
    approval = `approval/a${count}`;
    await api.kubectl.apply([
      {
        apiVersion: "sallyport.dev/v1alpha1",
        kind: "Approval",
        metadata: { name: `a${count}`, namespace: "default" },
        spec: {
          request: {
            type: "Access",
            requester: "alice",
            onBehalfOf: "olga",
            resource: "shop",
            duration: "30m",
            policies: [{ policy: "analysts", rule: "changes" }],
          },
        },
      },
    ]);
  });
  const decide = (approver: string, decision = "Approved") =>
    patch(approval, "json", [{ op: "add", path: "/spec/decisions/-", value: { approver, decision } }]);

  test("takes decisions one after the other, from the first on, by the command that its message names", async () => {
    expect(await decide("bob")).toBe("");
    expect(await decide("carol", "Denied")).toBe("");
    expect(await decide("bob", "Denied")).toContain("Duplicate value");
  });

  test("takes none by its requester, by whom an agent acts for, or by a service account", async () => {
    expect(await decide("alice")).toContain("you cannot decide your own request");
    expect(await decide("olga")).toContain("you cannot decide your own request");
    expect(await decide("system:serviceaccount:demo:ci")).toContain("service accounts cannot decide");
  });

  test("gives up none of its decisions: changed, emptied, replaced or removed", async () => {
    await decide("bob");
    const other = [{ approver: "carol", decision: "Approved" }];
    for (const answer of [
      await patch(approval, "merge", { spec: { decisions: other } }),
      await patch(approval, "merge", { spec: { decisions: [] } }),
      await patch(approval, "merge", { spec: { decisions: null } }),
      await patch(approval, "json", [{ op: "remove", path: "/spec/decisions/0" }]),
      await patch(approval, "json", [{ op: "replace", path: "/spec/decisions/0/decision", value: "Denied" }]),
    ])
      expect(answer).toContain("decisions are final");
  });

  test("never asks for something else than at first", async () => {
    for (const change of [
      { requester: "bob" },
      { duration: "8h" },
      { policies: [{ policy: "x", rule: "y" }] },
    ])
      expect(await patch(approval, "merge", { spec: { request: change } })).toContain("cannot be changed");
  });

  test("is revoked once, and stays so", async () => {
    expect(await patch(approval, "merge", { spec: { revocation: { by: "dora", reason: "left" } } })).toBe("");
    expect(await patch(approval, "merge", { spec: { revocation: { by: "bob" } } })).toContain("is final");
    expect(await patch(approval, "merge", { spec: { revocation: null } })).toContain("is final");
  });

  test.each([
    [["Pending", "Approved", "Used"], "Revoked"],
    [["Pending", "Approved", "Revoked"], "Approved"],
    [["Pending", "Denied"], "Approved"],
    [["Pending", "Expired"], "Pending"],
    [["Approved"], "Denied"],
  ] as const)("goes through %s and not on to %s", async (phases, never) => {
    for (const phase of phases) expect(await status(approval, { phase })).toBe("");
    expect(await status(approval, { phase: never })).toContain("phase only moves");
    expect(await status(approval, { phase: null })).toContain("phase only moves");
  });

  test("takes the most that its bounds allow within the API server's budget", async () => {
    const text = (length: number) => "x".repeat(length);
    const request = {
      type: "Statement",
      requester: "alice",
      onBehalfOf: text(512),
      resource: "shop",
      policies: Array.from({ length: 16 }, (_, index) => ({
        policy: "p".repeat(253),
        rule: `${text(120)}${index}`,
        ruleHash: `sha256:${"0".repeat(64)}`,
        required: 10,
      })),
      command: text(32_768),
      digest: `hmac-sha256:${"0".repeat(64)}`,
      sessionId: text(64),
      reason: text(1024),
      expiresAt: "2026-11-21T10:25:00Z",
    };
    const decisions = Array.from({ length: 16 }, (_, index) => ({
      approver: `${text(500)}${index}`,
      decision: "Approved",
      comment: text(1024),
    }));
    const metadata = { name: "most", namespace: "default" };
    const header = { apiVersion: "sallyport.dev/v1alpha1", kind: "Approval", metadata };
    await api.kubectl.apply([{ ...header, spec: { request, decisions: decisions.slice(0, 15) } }]);
    await api.kubectl.apply([{ ...header, spec: { request, decisions } }]);
  });

  test("is found by who asks, for what, and where it stands", async () => {
    await status(approval, { phase: "Pending" });
    const fields =
      "spec.request.requester=alice,spec.request.resource=shop,spec.request.type=Access,status.phase=Pending";
    expect(await api.kubectl("get", "approvals", "--field-selector", fields)).toContain(approval.slice(9));
  });
});

describe("a Session", () => {
  beforeAll(() =>
    api.kubectl.apply([
      {
        apiVersion: "sallyport.dev/v1alpha1",
        kind: "Session",
        metadata: { name: "s", namespace: "default" },
        spec: {
          sessionId: "s1",
          resource: "shop",
          protocol: "postgres",
          subject: { user: "okta:alice", kind: "Human" },
          startedAt: "2026-11-21T10:15:00Z",
        },
      },
    ]),
  );

  test("never belongs to somebody else, ends once, and keeps its final hash", async () => {
    const session = "session/s";
    const hash = (digit: string) => ({ recording: { reference: "r", hash: `sha256:${digit.repeat(64)}` } });
    expect(await patch(session, "merge", { spec: { subject: { user: "okta:bob" } } })).toContain(
      "cannot be changed",
    );
    expect(await status(session, { state: "Active" })).toBe("");
    expect(await status(session, { state: "Lost" })).toBe("");
    expect(await status(session, { state: "Ended", ...hash("a") })).toBe("");
    expect(await status(session, { state: "Active" })).toContain("has ended");
    expect(await status(session, hash("b"))).toContain("final hash is set once");
    expect(await status(session, { recording: null })).toContain("cannot be taken away");
    const fields = "spec.subject.user=okta:alice,status.state=Ended";
    expect(await api.kubectl("get", "sessions", "--field-selector", fields)).toContain("okta:alice");
  });
});
