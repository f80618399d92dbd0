import { anyCharacter } from "@sallyport/crds/testing";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Recorded } from "./model.ts";
import { printable, renderReplay } from "./replay.ts";

async function rendered(...records: Recorded[]): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of renderReplay(records)) lines.push(line);
  return lines;
}

const command: Recorded = {
  kind: "command",
  n: 1,
  at: 1_000,
  sql: "SELECT 1\n  FROM x",
  verdict: { action: "Deny", policy: "shop/p", rule: "r", enforcement: "heuristic", message: "no" },
  parameters: ["a", null, { binary: "AA==" }],
};

test("a replay shows who, what, the decision with its strength, and the outcome", async () => {
  const lines = await rendered(
    command,
    { kind: "response", n: 1, at: 3_661_500, sqlstate: "42501", rows: 0, bytes: 0, ms: 0.5 },
    { kind: "closing", at: 3_661_501, reason: "left", commands: 1, refused: 1, rows: 0, bytes: 0 },
  );
  expect(lines).toEqual([
    "00:00:00.000  #1 > SELECT 1",
    "00:00:00.000  #1     FROM x",
    "00:00:00.000  #1   $1 = 'a'",
    "00:00:00.000  #1   $2 = NULL",
    "00:00:00.000  #1   $3 = binary AA==",
    "00:00:00.000  #1   Deny by shop/p/r (heuristic): no",
    "01:01:00.500  #1 < error 42501 (0 rows, 0 bytes, 0.5 ms)",
    "01:01:00.501  closed: left (1 commands, 1 refused)",
  ]);
});

test("a record of a form that nobody writes is shown as such", async () => {
  const foreign = [
    { kind: "command", n: 1, at: "x" },
    { kind: "closing", at: Number.NaN },
  ] as unknown as Recorded[];
  const lines = await rendered(...foreign, command);
  expect(lines[0]).toContain("no recorder wrote");
  expect(lines.at(-1)).toContain("Deny by shop/p/r");
});

test("no control, bidirectional or invisible character of a recording reaches the terminal", async () => {
  const nasty = "\u001b]0;x\u0007\u009b31m\u202etxt\u200b\r\u2028\u007f";
  expect(printable(nasty)).toBe("\\u{1b}]0;x\\u{7}\\u{9b}31m\\u{202e}txt\\u{200b}\\u{d}\\u{2028}\\u{7f}");
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: anyCharacter }), async (text) => {
      const evil = text + nasty;
      const lines = await rendered(
        {
          ...command,
          sql: evil,
          parameters: [evil],
          verdict: { ...command.verdict, message: evil, rule: evil },
        },
        { kind: "event", at: 1, name: evil, fields: { [evil]: evil } },
        { kind: "rows", n: 1, text: evil },
        { kind: "response", n: 1, at: 1, tag: evil, rows: 0, bytes: 0, ms: 0 },
        { kind: "closing", at: 1, reason: evil, commands: 0, refused: 0, rows: 0, bytes: 0 },
      );
      expect(lines.join("")).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
    }),
  );
});
