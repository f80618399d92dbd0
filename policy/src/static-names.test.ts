import { expect, test } from "vitest";
import { staticNames } from "./static-names.ts";

const names = staticNames(["public.orders(id, total)", "view hr.pay(id) as SELECT id FROM hr.salaries"]);

test("what is declared is found, by its schema or along the search path", () => {
  expect(names.relation(undefined, "orders")).toMatchObject({ schema: "public", columns: ["id", "total"] });
  expect(names.relation("hr", "pay")).toMatchObject({
    kind: "view",
    definition: "SELECT id FROM hr.salaries",
  });
  expect(names.relation(undefined, "pay")).toBeUndefined();
  expect(names.schemaExists("hr")).toBe(true);
});

test("what is not declared is not there", () => {
  expect(names.relation("public", "missing")).toBeUndefined();
  expect(names.type(undefined, "no_such_type")).toBeUndefined();
  expect(names.type(undefined, "int4")).toMatchObject({ schema: "pg_catalog" });
  expect(names.functions("hr", "lower")).toEqual([]);
  expect(names.schemaExists("lab")).toBe(false);
});

test("a declaration that cannot be read is told", () => {
  expect(() => staticNames(["orders"])).toThrow(/public\.orders\(id, total\)/);
  expect(() => staticNames(["index public.orders(id)"])).toThrow(/declaration/);
});
