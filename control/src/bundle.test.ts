import fc from "fast-check";
import { expect, test } from "vitest";
import { applyUpdate, type Bundle, digestOf, isOlder, updateFrom } from "./bundle.ts";

const texts = fc.dictionary(fc.constantFrom("a", "b", "c", "d", "e"), fc.string({ maxLength: 4 }));

function bundleOf(contents: Readonly<Record<string, string>>, version = 1): Bundle {
  const documents = Object.entries(contents).map(([name, json]) => ({
    key: `AccessPolicy/ns/${name}`,
    json,
  }));
  return { revision: { policies: String(version) }, documents };
}

test("an update turns any set into any other", () => {
  fc.assert(
    fc.property(texts, texts, fc.boolean(), (before, after, holds) => {
      const held = holds ? bundleOf(before) : undefined;
      const next = bundleOf(after, 2);
      const applied = applyUpdate(held, updateFrom(held, next));
      expect(applied.kind).toBe("applied");
      if (applied.kind !== "applied") return;
      expect(digestOf(applied.bundle.documents)).toBe(digestOf(next.documents));
    }),
  );
});

test("an update for another set, or that was changed on its way, is a mismatch", () => {
  const update = updateFrom(bundleOf({ a: "1" }), bundleOf({ a: "2" }, 2));
  expect(applyUpdate(undefined, update)).toEqual({ kind: "mismatch" });
  expect(applyUpdate(bundleOf({ a: "0" }), update)).toEqual({ kind: "mismatch" });
  expect(applyUpdate(bundleOf({ a: "1" }), { ...update, put: [] })).toEqual({ kind: "mismatch" });
});

test("a whole set that is older than what is held is stale, unless it says the same", () => {
  const held = bundleOf({ a: "2" }, 20);
  expect(applyUpdate(held, updateFrom(undefined, bundleOf({ a: "1" }, 9)))).toEqual({ kind: "stale" });
  const same = applyUpdate(held, updateFrom(undefined, bundleOf({ a: "2" }, 9)));
  // What is known of the lists is not forgotten over it.
  expect(same).toMatchObject({ kind: "applied", bundle: { revision: { policies: "20" } } });
});

test("a replica that began after a deletion knows of it by what it has heard, and one that lags does not", () => {
  // The policy that came last, at 20, is gone since 21; whoever began afterwards has seen no change beyond 15.
  const held: Bundle = { revision: { policies: "21" }, documents: bundleOf({ a: "1" }).documents };
  const next = bundleOf({ a: "2" }, 15);
  expect(applyUpdate(held, updateFrom(held, next))).toEqual({ kind: "stale" });
  expect(applyUpdate(held, updateFrom(held, next, { policies: "20" }))).toEqual({ kind: "stale" });
  const applied = applyUpdate(held, updateFrom(held, next, { policies: "21" }));
  // Whoever is behind the deletion is refused after that, too.
  expect(applied).toMatchObject({ kind: "applied", bundle: { revision: { policies: "21" } } });
});

test("revisions are numbers of any length, and a list that nobody names is older than any", () => {
  expect(isOlder({ a: "9" }, { a: "10" })).toBe(true);
  expect(isOlder({ a: "10" }, { a: "9" })).toBe(false);
  expect(isOlder({ a: "99999999999999999999" }, { a: "100000000000000000000" })).toBe(true);
  expect(isOlder({}, { a: "1" })).toBe(true);
  expect(isOlder({ a: "5", b: "1" }, { a: "5" })).toBe(false);
});
