import { expect, it } from "vitest";
import { serverName } from "./server-name.ts";

it("names that begin with the same 63 bytes are one, also where a character is cut", () => {
  const table: readonly (readonly [string, string, boolean])[] = [
    ["short", "shorter", false],
    ["a".repeat(63), "a".repeat(64), true],
    ["a".repeat(62), "a".repeat(63), false],
    [`${"a".repeat(63)}x`, `${"a".repeat(63)}y`, true],
    ["é".repeat(31), "é".repeat(32), false],
    ["é".repeat(32), "é".repeat(40), true],
    // The same first byte of a character that is cut, and another one.
    [`${"é".repeat(31)}é`, `${"é".repeat(31)}è`, true],
    [`${"é".repeat(31)}é`, `${"é".repeat(31)}ж`, false],
    ["日".repeat(21), "日".repeat(30), true],
    [`a${"日".repeat(21)}`, `a${"日".repeat(20)}月`, false],
  ];
  for (const [left, right, isOne] of table)
    expect([left, right, serverName(left) === serverName(right)]).toEqual([left, right, isOne]);
});
