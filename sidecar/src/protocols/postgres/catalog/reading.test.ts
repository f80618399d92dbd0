import { expect, test } from "vitest";
import { buildSnapshot } from "./reading.ts";
import { catalogRow, shopRows } from "./testing.ts";

const table = (oid: number, name: string, types: readonly number[] | null = null) =>
  catalogRow("relation", oid, 2, name, "r", ["id"], null, false, types);

test("names are found in their own schema only, spelled as they are", () => {
  const snapshot = buildSnapshot(shopRows);
  expect(snapshot.relation("public", "users")?.columns).toEqual(["id", "name"]);
  expect(snapshot.relation("shop", "users")?.columns).toEqual(["id"]);
  expect(snapshot.relation("shop", "Users")).toBeUndefined();
  expect(snapshot.relation("shop.users", "")).toBeUndefined();
  expect(snapshot.relation("pg_catalog", "pg_class")).toMatchObject({
    kind: "table",
    columns: ["oid", "relname"],
  });
  expect(snapshot.relation("public", "pg_class")).toBeUndefined();
});

test.for([
  [4, ["insert"]],
  [8 | 1, ["delete"]],
  [16 | 2, ["update"]],
  [32, ["truncate"]],
  [4 | 8 | 16 | 64, ["insert", "delete", "update"]],
] as const)("a trigger of type %i fires on %s", ([type, events]) => {
  const rows = [...shopRows, catalogRow("trigger", 102, type, [[201, "shop", "f"]])];
  expect(buildSnapshot(rows).relation("shop", "users")?.triggers).toMatchObject([
    { events, function: { name: "f", securityDefiner: true, settings: ["search_path=shop"] } },
  ]);
});

test("a trigger of a built-in function tells that it is internal", () => {
  const rows = [...shopRows, catalogRow("trigger", 102, 4, [[1, "pg_catalog", "tsvector_update_trigger"]])];
  expect(buildSnapshot(rows).relation("shop", "users")?.triggers[0]?.function).toMatchObject({
    schema: "pg_catalog",
    language: "internal",
  });
});

test("several foreign keys to one table give one cascade of each event", () => {
  const rows = [
    ...shopRows,
    table(500, "orders"),
    catalogRow("cascade", 102, 500, true, false),
    catalogRow("cascade", 102, 500, true, true),
  ];
  expect(buildSnapshot(rows).relation("shop", "users")?.cascades).toEqual([
    { relation: "shop.orders", on: "delete" },
    { relation: "shop.orders", on: "update" },
  ]);
});

test("columns that a constraint or a computed column takes together are known, each set by itself", () => {
  const computed = [
    null,
    null,
    null,
    null,
    null,
    [
      ["c", ["a", "b"]],
      ["d", ["a"]],
    ],
  ];
  const rows = [
    ...shopRows,
    catalogRow("relation", 500, 2, "t", "r", ["a", "b", "c", "d"], null, false, null, [], [], computed),
    catalogRow("bound", 500, ["a", "d"]),
    catalogRow("bound", 500, ["b", "d"]),
  ];
  const snapshot = buildSnapshot(rows);
  expect(snapshot.relation("shop", "t")?.bound).toEqual([
    ["a", "d"],
    ["b", "d"],
    ["a", "b"],
  ]);
  expect(snapshot.relation("shop", "users")?.bound).toBeUndefined();
});

test("writing a column of a domain reaches the functions of its checks, through types of types", () => {
  const rows = [...shopRows, catalogRow("type", 402, 2, "pair", 0, [401, 402]), table(500, "orders", [402])];
  const snapshot = buildSnapshot(rows);
  expect(snapshot.relation("shop", "orders")?.functions.map((found) => found.name)).toEqual(["f"]);
  expect(snapshot.type("shop", "_pair")?.functions.map((found) => found.name)).toEqual(["f"]);
  expect(snapshot.type("shop", "orders")?.functions.map((found) => found.name)).toEqual(["f"]);
});

test("what refers to something that was not read is left out", () => {
  const rows = [...shopRows, catalogRow("child", 102, 9999), catalogRow("read", 104, "relation", 9999)];
  const snapshot = buildSnapshot(rows);
  expect(snapshot.relation("shop", "users")?.children).toEqual([]);
  expect(snapshot.relation("shop", "v")?.reads).toEqual([
    { name: "shop.users", kind: "relation", direct: false },
  ]);
});

test("a view whose definition could not be printed counts as unreadable code, and the snapshot as incomplete", () => {
  const rows = [...shopRows, catalogRow("relation", 500, 2, "w", "v", ["id"], null, false, null)];
  const snapshot = buildSnapshot(rows);
  expect([buildSnapshot(shopRows).isComplete, snapshot.isComplete]).toEqual([true, false]);
  expect(snapshot.relation("shop", "w")?.definition).toBe("unknown definition");
  expect(snapshot.relation("shop", "users")?.definition).toBeUndefined();
});

test("built-in functions are told beside those that somebody has put into pg_catalog", () => {
  const rows = [
    ...shopRows,
    catalogRow("function", 900, 11, "lower", "plpgsql", "BEGIN END", false, false, null),
  ];
  const languages = buildSnapshot(rows)
    .functions("pg_catalog", "lower")
    .map((found) => found.language);
  expect(languages).toEqual(["internal", "plpgsql"]);
});

test.for([
  [{ kind: "relation" }],
  [{ kind: "relation", data: "[]" }],
  [{ kind: "relation", data: "{" }],
  [catalogRow("novelty", 1)],
  [catalogRow("relation", 1, 2, "x", "?", [], null, false, null)],
  [catalogRow("read", 104, "role", 1)],
] as const)("a row of another shape is refused: %j", ([row]) => {
  expect(() => buildSnapshot([row])).toThrow();
});

test("a table is all that its children and theirs are, with what hangs on them", () => {
  const rows = [
    ...shopRows,
    table(500, "child"),
    table(501, "grandchild"),
    catalogRow("child", 102, 500),
    catalogRow("child", 500, 501),
    // A loop cannot be, and must not hang us.
    catalogRow("child", 501, 102),
    catalogRow("trigger", 501, 4, [[201, "shop", "f"]]),
    catalogRow("relationUse", 501, "function", 202),
  ];
  expect(buildSnapshot(rows).relation("shop", "users")).toMatchObject({
    children: ["shop.child", "shop.grandchild"],
    triggers: [{ function: { name: "f" } }],
    functions: [{ name: "lower" }],
  });
});

test("a stored expression that calls an unreviewed function of pg_catalog is code that nobody can read", () => {
  const rows = [...shopRows, catalogRow("relationBuiltins", 102, "lower nextval now query_to_xml")];
  expect(buildSnapshot(rows).relation("shop", "users")?.functions).toMatchObject([
    { name: "query_to_xml", language: "internal" },
  ]);
});

test("a function runs what the types of its parameters and its result run", () => {
  const rows = [
    ...shopRows,
    catalogRow("function", 203, 2, "takes_even", "sql", "SELECT 1", false, false, null, [401]),
  ];
  expect(buildSnapshot(rows).functions("shop", "takes_even")).toMatchObject([{ runs: [{ name: "f" }] }]);
});

test("the relations of a schema are found for statements that take it whole", () => {
  expect(buildSnapshot(shopRows).relationsIn("shop")).toEqual(["users", "v"]);
});

test("a type's shape is told beneath domains, of arrays, and of composites up to a depth and a number of fields", () => {
  const wide = Array.from({ length: 1500 }, () => 25);
  const rows = [
    ...shopRows,
    catalogRow("type", 410, 2, "labels", 1009, null, 411, null),
    catalogRow("type", 412, 2, "of_even", 401, null, 413, null),
    catalogRow("type", 414, 2, "pair", 0, [401, 402], 415, [25, 412, 410, 411, 999]),
    catalogRow("type", 416, 2, "of_pair", 414, null, 0, null),
    catalogRow("type", 417, 2, "outer", 0, null, 0, [416, 415]),
    catalogRow("type", 420, 2, "wide", 0, null, 0, wide),
    catalogRow("type", 421, 2, "wider", 0, null, 0, [420, 420]),
    catalogRow("type", 430, 2, "self", 0, null, 0, [430]),
    catalogRow("relation", 600, 2, "t", "r", ["a", "b"], null, false, null, [1, 2], [416, 413]),
  ];
  const snapshot = buildSnapshot(rows);
  const pair = {
    kind: "composite",
    fields: [
      { declared: 25, oid: 25 },
      { declared: 412, oid: 23 },
      { declared: 410, oid: 1009 },
      { declared: 411, oid: 411, shape: { kind: "array", element: 410 } },
      { declared: 999, oid: 999 },
    ],
  };
  expect(snapshot.typeShape(414)).toEqual(pair);
  expect(snapshot.typeShape(413)).toEqual({ kind: "array", element: 412 });
  expect(snapshot.typeShape(417)).toEqual({
    kind: "composite",
    fields: [
      { declared: 416, oid: 414, shape: pair },
      { declared: 415, oid: 415, shape: { kind: "array", element: 414 } },
    ],
  });
  expect([snapshot.columnType("shop.t.a"), snapshot.columnType("shop.t.b")]).toEqual([414, 413]);
  for (const unknown of [25, 401, 410, 999]) expect(snapshot.typeShape(unknown)).toBeUndefined();
  // One of the two has its fields, the other is of a type that nobody knows.
  const wider = snapshot.typeShape(421);
  expect(wider?.kind === "composite" && wider.fields.map(({ shape }) => shape !== undefined)).toEqual([
    true,
    false,
  ]);
  expect(JSON.stringify(snapshot.typeShape(430)).match(/composite/g)?.length).toBe(8);
});

test("it is known of which columns the catalog keeps literals, and what labels an enumeration has", () => {
  const rows = [
    ...shopRows,
    catalogRow("definition", 102, "default", ["id"]),
    catalogRow("definition", 102, "check", ["id", "id"]),
    catalogRow("definition", 9999, "bound", ["gone"]),
    catalogRow("type", 440, 2, "mood", 0, null, 441, null, ["good", "bad"]),
  ];
  const snapshot = buildSnapshot(rows);
  expect([...snapshot.definitions]).toEqual([
    [
      "shop.users",
      [
        { kind: "default", column: "id" },
        { kind: "check", column: "id" },
        { kind: "check", column: "id" },
      ],
    ],
  ]);
  expect(snapshot.typeShape(440)).toEqual({ kind: "enum", labels: ["good", "bad"] });
  expect(snapshot.typeShape(441)).toEqual({ kind: "array", element: 440 });
  expect(() => buildSnapshot([catalogRow("definition", 102, "novelty", [])])).toThrow();
});
