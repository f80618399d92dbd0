import { expect, test } from "vitest";
import { CustomPattern } from "./custom-pattern.ts";

function found(regex: string, text: string): readonly string[] {
  const bytes = Buffer.from(text);
  return new CustomPattern("p", regex).find(bytes).map(([start, end]) => bytes.toString("utf8", start, end));
}

test.each([
  ["ACME-[0-9]{4}", "a ACME-1234 b ACME-9 ACME-5678", ["ACME-1234", "ACME-5678"]],
  ["[A-Z]{2}-?X", "é ABX AB-X", ["ABX", "AB-X"]],
  ["(?i)token=\\w+", "TOKEN=abc", ["TOKEN=abc"]],
  ["id:?[0-9]+", "id7 id:8", ["id7", "id:8"]],
  ["ab*c", "ac abc abbc", ["ac", "abc", "abbc"]],
  ["x{2,3}y", "xy xxy xxxy", ["xxy", "xxxy"]],
  ["foo|bar", "bar", ["bar"]],
  ["[]a]bc", "]bc abc", ["]bc", "abc"]],
])("%s finds in %s what it should, prefilter or not", (regex, text, expected) => {
  expect(found(regex, text)).toEqual(expected);
});

test("ranges are of bytes, also behind letters of several bytes", () => {
  expect(new CustomPattern("p", "N[0-9]+").find(Buffer.from("ééN12"))).toEqual([[4, 7]]);
});

test("a pattern that would take for ever elsewhere takes linear time", () => {
  const started = process.cpuUsage().user;
  expect(found("(a+)+b", "a".repeat(20_000))).toEqual([]);
  expect(process.cpuUsage().user - started).toBeLessThan(20_000_000);
});
