import { expect, test } from "vitest";
import { isSelectedBy } from "./selector.ts";
import type { LabelSelector } from "./types.generated.ts";

const labels = { tier: "gold", stage: "live" };
const expression = (
  key: string,
  operator: "In" | "NotIn" | "Exists" | "DoesNotExist",
  values?: string[],
) => ({
  matchExpressions: [{ key, operator, ...(values && { values }) }],
});

test.each<[string, LabelSelector, boolean]>([
  ["an empty selector picks everything", {}, true],
  ["labels must be equal", { matchLabels: { tier: "gold" } }, true],
  ["another value is not", { matchLabels: { tier: "silver" } }, false],
  ["all must hold", { matchLabels: { tier: "gold", stage: "test" } }, false],
  ["In", expression("tier", "In", ["silver", "gold"]), true],
  ["In without the label", expression("zone", "In", ["a"]), false],
  ["NotIn", expression("tier", "NotIn", ["gold"]), false],
  ["NotIn without the label", expression("zone", "NotIn", ["a"]), true],
  ["Exists", expression("tier", "Exists"), true],
  ["DoesNotExist", expression("tier", "DoesNotExist"), false],
  ["a label that JavaScript has on every object does not exist", expression("constructor", "Exists"), false],
])("%s", (_, selector, expected) => expect(isSelectedBy(selector, labels)).toBe(expected));
