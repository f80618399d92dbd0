import { isSelectedBy } from "@sallyport/crds/pure";
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  anyGlob,
  coveringMatcher,
  globMatcher,
  mayMatchBelow,
  objectMatcher,
  selectorProblem,
  wordMatcher,
} from "./match.ts";

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

test.each([
  ["/srv/secret", "/srv", true],
  ["/srv/secret/*", "/srv", true],
  ["/srv/secret/*", "/", true],
  ["/srv/secret/*", "/srv/secret", true],
  ["/srv/secret/*", "/srv/secret/deep", true],
  ["/srv/secret", "/srv/sec", false],
  ["/srv/secret", "/srv/secret", false],
  ["/srv/secret/*", "/srv/web", false],
  ["/etc/*", "/srv", false],
  ["*.pem", "/srv/web", true],
  ["/srv/*/keys", "/srv/web", true],
  ["app/keys", "app", true],
  ["app/keys", ".", true],
  ["/srv/secret", ".", false],
])("the pattern %s and what is below %s: %s", (pattern, folder, matches) => {
  expect(mayMatchBelow(pattern, folder)).toBe(matches);
  const tree = { name: folder, kind: "file", direct: true, isTree: true } as const;
  expect(objectMatcher(["/nothing", pattern])(tree)).toBe(matches || globMatcher(pattern)(folder));
  // What may be below is no reason to allow it.
  expect(coveringMatcher([pattern])(tree)).toBe(globMatcher(pattern)(folder));
  expect(objectMatcher([pattern])({ ...tree, isTree: false })).toBe(globMatcher(pattern)(folder));
});

test("no path below a folder fits a pattern that fits none there, and some path fits any other", () => {
  const text = fc
    .string({ unit: fc.constantFrom("/", "a", "b", "*"), maxLength: 6 })
    .map((rest) => `/${rest}`);
  const path = fc.string({ unit: fc.constantFrom("/", "a", "b"), maxLength: 4 });
  fc.assert(
    fc.property(text, path, path, (pattern, above, below) => {
      const folder = `/${above}`;
      const start = folder.endsWith("/") ? folder : `${folder}/`;
      if (globMatcher(pattern)(start + below)) expect(mayMatchBelow(pattern, folder)).toBe(true);
      if (!mayMatchBelow(pattern, folder)) return;
      // The rest of the pattern, with the folder put where its first star is.
      const at = pattern.indexOf("*");
      const found = pattern.startsWith(start) ? pattern : `${start}${pattern.slice(at)}`;
      expect(globMatcher(pattern)(found.replaceAll("*", "a"))).toBe(true);
    }),
    { numRuns: 2_000 },
  );
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
