import { parseGatewayMessage, type SessionReport } from "@sallyport/control";
import { expect, test } from "vitest";
import { BreakGlassTally } from "./break-glass-tally.ts";

const use = (rule: string, reason = "incident 7", policy = "prod") => ({ policy, rule, reason });

test("nothing is told while nothing went past approval", () => {
  expect(new BreakGlassTally().report).toBeUndefined();
});

test("uses are counted by rule, the rule of the last time first with its last reason", () => {
  const tally = new BreakGlassTally();
  for (const each of [use("fixes"), use("schema"), use("fixes", "incident 8")]) tally.take(each);
  expect(tally.report).toEqual({
    count: 3,
    rules: [
      { policy: "prod", rule: "fixes", count: 2, reason: "incident 8" },
      { policy: "prod", rule: "schema", count: 1, reason: "incident 7" },
    ],
  });
});

test("however much goes past, and whatever is given as a reason, the report is one that an operator takes", () => {
  const tally = new BreakGlassTally();
  for (let at = 0; at < 500; at++)
    tally.take(use(`rule-${at % 50}`, `\u001b[2J\n${"x😀".repeat(500)}`, "p".repeat(400)));
  const { report } = tally;
  expect(report?.count).toBe(500);
  expect(report?.rules).toHaveLength(8);
  expect(report?.rules[0]?.reason).not.toMatch(/[\p{Cc}\n]/u);
  const session: SessionReport = {
    ...{ id: "1", cause: "held", state: "Live", user: "u", subjectKind: "Human", protocol: "ssh" },
    ...{ account: "", database: "", clientAddress: "", startedAt: 0, commands: 500, refused: 0 },
    ...(report && { brokeGlass: report }),
  };
  const sent = JSON.parse(JSON.stringify({ kind: "sessions", sessions: [session] })) as unknown;
  expect(parseGatewayMessage(sent)).toEqual({ kind: "sessions", sessions: [session] });
});
