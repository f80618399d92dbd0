import { isSelectedBy } from "@sallyport/crds/pure";
import fc from "fast-check";
import { expect, test } from "vitest";
import { anyGlob, globMatcher, selectorProblem, wordMatcher } from "./match.ts";

test.each([
  ["public.*", "public.orders", true],
  ["public.*", "public.", true],
  ["public.*", "public", false],
  ["public.*", "publicx.orders", false],
  ["public.*", "Public.orders", false],
  ["*", "anything.at.all", true],
  ["*", "", true],
  ["*.orders", "shop.orders", true],
  ["*.orders", "shop.old_orders", false],
  ["a*b*c", "abc", true],
  ["a*b*c", "a-b-b-c", true],
  ["a*b*c", "ac", false],
  ["aba*aba", "aba", false],
  ["public.a+b", "public.a+b", true],
  ["public.a.b", "public.aXb", false],
  ["GET /orders/*", "GET /orders/1", true],
])("the pattern %s and the name %s: %s", (pattern, name, matches) => {
  expect(globMatcher(pattern)(name)).toBe(matches);
  expect(anyGlob(["nothing", pattern])(name)).toBe(matches);
});

test("a pattern agrees with the regular expression that it means", () => {
  const text = fc.string({ unit: fc.constantFrom("a", "b", ".", "*"), maxLength: 8 });
  const name = fc.string({ unit: fc.constantFrom("a", "b", "."), maxLength: 12 });
  fc.assert(
    fc.property(text, name, (pattern, candidate) => {
      const source = pattern
        .split("*")
        .map((piece) => piece.replaceAll(".", "\\."))
        .join("[^]*");
      expect(globMatcher(pattern)(candidate)).toBe(new RegExp(`^${source}$`).test(candidate));
    }),
    { numRuns: 2_000 },
  );
});

test("a pattern made to backtrack is matched in linear time", () => {
  const matches = globMatcher(`${"a*".repeat(100)}b`);
  const started = process.cpuUsage();
  expect(matches("a".repeat(100_000))).toBe(false);
  expect(process.cpuUsage(started).user).toBeLessThan(500_000);
});

test("words are compared whatever their case, exactly or by a trailing star", () => {
  const matches = wordMatcher(["delete", "CREATE *"]);
  expect(["DELETE", "Delete", "create table"].every(matches)).toBe(true);
  expect(["DELETED", "CREATE", "RECREATE TABLE"].some(matches)).toBe(false);
});

test("labels are selected as Kubernetes does, and never found on the prototype", () => {
  const labels = { tier: "gold" };
  expect(isSelectedBy({}, labels)).toBe(true);
  expect(isSelectedBy({ matchLabels: { tier: "gold" } }, labels)).toBe(true);
  expect(isSelectedBy({ matchLabels: { tier: "gold", zone: "a" } }, labels)).toBe(false);
  const expressions = (operator: string, key: string, values?: string[]) => ({
    matchExpressions: [{ key, operator, ...(values && { values }) }],
  });
  expect(isSelectedBy(expressions("In", "tier", ["gold", "tin"]), labels)).toBe(true);
  expect(isSelectedBy(expressions("NotIn", "tier", ["gold"]), labels)).toBe(false);
  expect(isSelectedBy(expressions("NotIn", "zone", ["a"]), labels)).toBe(true);
  expect(isSelectedBy(expressions("Exists", "toString"), labels)).toBe(false);
  expect(isSelectedBy(expressions("DoesNotExist", "zone"), labels)).toBe(true);
});

test("a selector that Kubernetes would refuse is refused", () => {
  expect(selectorProblem({ matchLabels: { a: "b" } })).toBeUndefined();
  expect(selectorProblem({ matchExpressions: [{ key: "a", operator: "Like", values: ["b"] }] })?.path).toBe(
    ".matchExpressions[0].operator",
  );
  expect(selectorProblem({ matchExpressions: [{ key: "a", operator: "In" }] })?.path).toBe(
    ".matchExpressions[0].values",
  );
  expect(selectorProblem({ matchLabel: {} } as object)?.path).toBe(".matchLabel");
});
