import { expect, it } from "vitest";
import { oneLine } from "./one-line.ts";

it.each([
  ["INC-42: the database is down", "INC-42: the database is down"],
  ["  first\r\n\tsecond\u2028third\u2029fourth  ", "first second third fourth"],
  ["\u001b]0;title\u0007 \u009b2J", "]0;title   2J"],
  ["\u202eevil\u2066", "evil"],
  ["\ud800 alone, 👍 together", "alone, 👍 together"],
  ["größer · 日本語", "größer · 日本語"],
  ["\u0000\u200b\u00ad", ""],
])("turns %j into one harmless line", (text, line) => {
  expect(oneLine(text)).toBe(line);
});
