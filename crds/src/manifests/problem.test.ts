import fc from "fast-check";
import { expect, test } from "vitest";
import { anyCharacter } from "../testing.ts";
import { formatPath, parsePath } from "./problem.ts";

test("paths are written as people write them", () => {
  expect(formatPath(["spec", "rules", 0, "match"])).toBe("spec.rules[0].match");
  expect(formatPath(["metadata", "labels", "app.kubernetes.io/name"])).toBe(
    'metadata.labels["app.kubernetes.io/name"]',
  );
  expect(formatPath([])).toBe("");
});

test("every path that is written is read back", () => {
  const segment = fc.oneof(
    fc.nat(),
    fc.string({ unit: anyCharacter }),
    fc.constantFrom("spec", "a.b", '"', "__proto__"),
  );
  fc.assert(
    fc.property(fc.array(segment), (path) => {
      expect(parsePath(formatPath(path))).toEqual(path);
    }),
  );
});

test("what is no path ends where it stops being one", () => {
  expect(parsePath("spec.rules[x]")).toEqual(["spec", "rules"]);
  expect(parsePath("")).toEqual([]);
});
