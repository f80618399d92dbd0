import { beforeAll, describe, expect, test } from "vitest";
import type { CommandPart } from "../model.ts";
import { analyseSql } from "./analyse.ts";
import type { SessionEffect } from "./analysis.ts";
import { loadSqlParser } from "./parser.ts";
import { type TestNames, testFunction, testNames, testRelation } from "./testing.ts";

beforeAll(loadSqlParser);

function partsOf(sql: string, names: TestNames = {}): readonly CommandPart[] {
  const analysis = analyseSql(sql, testNames(names));
  if (analysis.kind === "rejected") throw new Error(`${sql}: ${analysis.message}`);
  return analysis.statements.flatMap((statement) => statement.parts);
}

function effectsOf(sql: string): readonly SessionEffect[] {
  const analysis = analyseSql(sql, testNames());
  if (analysis.kind === "rejected") throw new Error(`${sql}: ${analysis.message}`);
  return analysis.statements.flatMap((statement) => statement.effects);
}

function sqlstateOf(sql: string, names: TestNames = {}): string | undefined {
  const analysis = analyseSql(sql, testNames(names));
  return analysis.kind === "rejected" ? analysis.sqlstate : undefined;
}

const operations = (parts: readonly CommandPart[]) => new Set(parts.map((part) => part.operation));
const isHeuristic = (parts: readonly CommandPart[]) =>
  parts.some((part) => part.operation === "execute" && part.enforcement === "heuristic");

describe("texts that nobody can judge", () => {
  test.each([
    ["parentheses", `SELECT ${"(".repeat(100_000)}1`],
    ["a long sum", `SELECT ${"1+".repeat(100_000)}1`],
    ["many NOTs", `SELECT ${"NOT ".repeat(50_000)}true`],
    ["nested subqueries", `SELECT * FROM ${"(SELECT * FROM ".repeat(3000)}orders${") x".repeat(3000)}`],
    ["ten thousand and one statements", "SELECT 1;".repeat(10_001)],
  ])("%s are too complex", (_name, sql) => {
    expect(sqlstateOf(sql)).toBe("54001");
  });

  test("the parser works on after having given up many times", async () => {
    for (let round = 0; round < 8; round += 1) {
      sqlstateOf(`SELECT ${"1+".repeat(100_000)}1`);
      await loadSqlParser();
      expect(operations(partsOf("SELECT 1"))).toEqual(new Set(["read"]));
    }
  });

  test("conditions built to cost time count as unbounded, and soon", () => {
    const sql = `DELETE FROM orders WHERE ${"NOT (id = 1 AND ".repeat(200)}true${")".repeat(200)}`;
    const before = process.cpuUsage();
    expect(partsOf(sql).some((part) => part.unbounded)).toBe(true);
    expect(process.cpuUsage(before).user).toBeLessThan(2_000_000);
  });

  test("a NUL is refused, as it would hide what follows it", () => {
    expect(sqlstateOf("SELECT 1\0; DROP TABLE customers")).toBe("22021");
  });

  test("positions count characters, not bytes", () => {
    const analysis = analyseSql("SELECT 'é😀ü' FROM nosuch", testNames());
    expect(analysis).toMatchObject({ sqlstate: "42P01", position: 19 });
    expect(analyseSql("SELECT 'é😀ü' frm x y", testNames())).toMatchObject({
      sqlstate: "42601",
      position: 18,
    });
  });
});

describe("names that are not known", () => {
  test("a stale catalog refuses every name", () => {
    expect(sqlstateOf("SELECT * FROM customers", { isFresh: false })).toBe("57P03");
    expect(sqlstateOf("SELECT lower('x')", { isFresh: false })).toBe("57P03");
  });

  test("an unknown search_path refuses unqualified names and lets qualified ones through", () => {
    const names = { searchPath: undefined };
    expect(sqlstateOf("SELECT * FROM customers", names)).toBe("0A000");
    expect(sqlstateOf("SELECT 1 FROM public.customers", names)).toBeUndefined();
  });

  test("EXECUTE does what the prepared statement does", () => {
    const parts = partsOf("DELETE FROM orders");
    const executed = partsOf("EXECUTE p", { prepared: { p: { parts, text: "DELETE FROM orders" } } });
    expect(executed.some((part) => part.operation === "write" && part.unbounded)).toBe(true);
  });
});

describe("bodies", () => {
  const body = (language: string, text?: string, more = {}): TestNames => ({
    functions: [testFunction("public.f", language, text, more)],
  });

  test.each([
    ["an unknown language", body("plpython3u", "pass")],
    ["a C function", body("c")],
    ["an internal function outside pg_catalog", body("internal", "aggregate_dummy")],
    ["a body that is not there", body("plpgsql")],
    ["a body that does not parse", body("plpgsql", "BEGIN SELEKT 1; END")],
    ["SQL that does not parse", body("sql", "SELEKT 1")],
    ["a body of unknown tables", body("sql", "SELECT * FROM nosuch")],
    ["dynamic SQL", body("plpgsql", "BEGIN EXECUTE 'DELETE FROM ' || x; END")],
    [
      "dynamic SQL in a loop",
      body("plpgsql", "DECLARE r record; BEGIN FOR r IN EXECUTE x LOOP NULL; END LOOP; END"),
    ],
    ["a dynamic result", body("plpgsql", "BEGIN RETURN QUERY EXECUTE x; END")],
  ])("%s is opaque", (_name, names) => {
    expect(isHeuristic(partsOf("SELECT f()", names))).toBe(true);
  });

  test.each([
    ["an assignment to an argument", "BEGIN result := 1; DELETE FROM orders; END"],
    ["an assignment to a field of one", "BEGIN result.x := 1; DELETE FROM orders; END"],
    ["a returned set", "BEGIN RETURN QUERY DELETE FROM orders RETURNING 1; END"],
    ["a returned value", "BEGIN DELETE FROM orders; RETURN 1; END"],
    ["a label", "<<outer>> BEGIN LOOP DELETE FROM orders; EXIT outer; END LOOP; END"],
    ["an option", "#variable_conflict use_column\nBEGIN DELETE FROM orders; END"],
    ["dollars in the body", "BEGIN PERFORM $a$$sallyport$x$a$; DELETE FROM orders; END"],
    [
      "a cursor's arguments",
      "DECLARE c CURSOR (n int) FOR DELETE FROM orders RETURNING 1; BEGIN OPEN c(1); END",
    ],
    ["a record's default", "DECLARE /* x */ r record := app.wipe(); BEGIN NULL; END"],
    ["a later record's default", "DECLARE a int; b record DEFAULT app.wipe(); BEGIN NULL; END"],
  ])("%s does not hide a write", (_name, text) => {
    const parts = partsOf("SELECT f()", body("plpgsql", text));
    expect(operations(parts).has("write")).toBe(true);
    expect(isHeuristic(parts)).toBe(false);
  });

  test.each([
    ["a variable's domain", "DECLARE s public.checked; BEGIN s := '1'; END", "write"],
    ["an array of it, with a default", "DECLARE s checked[] := '{}'; BEGIN NULL; END", "write"],
    [
      "one of an inner block, a constant",
      `BEGIN DECLARE s CONSTANT "checked" NOT NULL := '1'; BEGIN NULL; END; END`,
      "write",
    ],
    ["a type that is not there", "DECLARE s nosuch; BEGIN NULL; END", "execute"],
    [
      "built-in types",
      "DECLARE a numeric(10, 2); b timestamp(3) with time zone; c record; d refcursor; e int array[3]; BEGIN NULL; END",
      "read",
    ],
  ])("what checks a value runs with the body: %s", (_name, text, operation) => {
    const functions = [testFunction("public.wipes", "sql", "DELETE FROM orders")];
    const types = [{ schema: "public", name: "checked", functions }];
    const parts = partsOf("SELECT f()", { ...body("plpgsql", text), types });
    expect(operations(parts)).toEqual(new Set(["read", operation]));
  });

  test("of several overloads the strictest counts", () => {
    const names = {
      functions: [
        testFunction("public.f", "sql", "SELECT 1"),
        testFunction("public.f", "sql", "DELETE FROM orders"),
      ],
    };
    expect(operations(partsOf("SELECT f()", names)).has("write")).toBe(true);
  });

  test("a function's own search_path rules its names", () => {
    const parts = partsOf(
      "SELECT f()",
      body("sql", "SELECT * FROM customers", { settings: ["search_path=evil, public"] }),
    );
    expect(parts.flatMap((part) => part.objects.map((object) => object.name))).toContain("evil.customers");
  });

  test("a function that would read its SQL by other rules is refused", () => {
    expect(
      sqlstateOf("SELECT f()", body("sql", "SELECT 1", { settings: ["standard_conforming_strings=off"] })),
    ).toBe("0A000");
  });

  test("functions that call each other end", () => {
    const names = {
      functions: [
        testFunction("public.a", "sql", "SELECT b()"),
        testFunction("public.b", "sql", "SELECT a()"),
      ],
    };
    expect(operations(partsOf("SELECT a()", names))).toEqual(new Set(["read"]));
  });

  test("a chain of functions that is too long is too complex", () => {
    const functions = Array.from({ length: 40 }, (_, at) =>
      testFunction(`public.f${at}`, "sql", `SELECT f${at + 1}()`),
    );
    expect(sqlstateOf("SELECT f0()", { functions })).toBe("54001");
  });
});

describe("what hangs on a relation", () => {
  test("rewrite rules make writes opaque", () => {
    const names = { relations: [testRelation("public.ruled", "id", { hasRules: true })] };
    expect(isHeuristic(partsOf("INSERT INTO ruled VALUES (1)", names))).toBe(true);
    expect(isHeuristic(partsOf("SELECT * FROM ruled", names))).toBe(false);
  });

  test("row security functions run on reads, defaults on writes only", () => {
    const wipe = testFunction("app.wipe", "sql", "DELETE FROM public.orders");
    const relations = [testRelation("public.guarded", "id", { functions: [wipe], readFunctions: [] })];
    expect(operations(partsOf("SELECT * FROM guarded", { relations }))).toEqual(new Set(["read"]));
    const secured = [testRelation("public.guarded", "id", { functions: [wipe] })];
    expect(operations(partsOf("SELECT * FROM guarded", { relations: secured })).has("write")).toBe(true);
  });

  test.each([
    "ALTER TABLE orders ALTER status TYPE text USING app.purge()",
    "ALTER TABLE orders ALTER status TYPE text USING orders.purge",
    "ALTER TABLE orders ALTER status TYPE text USING (orders).purge",
    "ALTER TABLE orders ADD CHECK (length(orders.purge) > 1)",
    "CREATE INDEX ON orders ((orders.purge))",
    "CREATE TABLE new PARTITION OF app.events FOR VALUES FROM (app.purge()) TO (5)",
    "ALTER TABLE app.events ATTACH PARTITION orders FOR VALUES IN (app.purge())",
  ])("what a definition computes at once is done by whoever makes it: %s", (sql) => {
    const parts = partsOf(sql, { searchPath: ["pg_catalog", "public", "app"] });
    const written = parts.filter(({ operation }) => operation === "write").flatMap(({ objects }) => objects);
    expect(written.map(({ name }) => name)).toContain("public.order_items");
  });

  test("a view's functions run when it is read", () => {
    const definition = "SELECT app.wipe() AS x";
    const names = { relations: [testRelation("public.trap", "x", { kind: "view", definition })] };
    expect(operations(partsOf("SELECT * FROM trap", names)).has("write")).toBe(true);
  });

  test("what is only reached is marked so, and what is named stays direct", () => {
    const objects = partsOf("DELETE FROM customers WHERE id = 1").flatMap((part) => part.objects);
    const named = new Set(objects.filter((object) => object.direct).map((object) => object.name));
    expect([...named]).toEqual(["public.customers"]);
    expect(objects.some((object) => object.name === "public.order_items" && !object.direct)).toBe(true);
  });
});

describe("the sequence of a column", () => {
  const parts = (call: string, changes: TestNames = {}) =>
    partsOf(`SELECT setval(${call}, 1)`, changes).map(({ operation, objects }) =>
      `${operation} ${objects.map(({ name }) => name).join(" ")}`.trimEnd(),
    );
  const owner = "pg_get_serial_sequence('customers', 'id')";

  test.each([
    owner,
    "pg_catalog.pg_get_serial_sequence('public.customers'::text, 'id')",
    `${owner}::regclass`,
  ])("%s may be any sequence of the table's schema", (call) => {
    const relations = [testRelation("public.other_seq", "last_value", { kind: "sequence" })];
    expect(parts(call, { relations })).toEqual(["read", "write public.ticket_seq public.other_seq"]);
  });

  test.each([
    "pg_get_serial_sequence('custo' || 'mers', 'id')",
    "pg_get_serial_sequence('no_such', 'id')",
    "pg_get_serial_sequence('app.secrets', 'id')",
  ])("%s is told by nobody", (call) => {
    const relations = [testRelation("app.secrets", "id")];
    expect(parts(call, { relations })).toEqual(["read", "execute pg_catalog.setval"]);
  });

  test("where the function may be somebody's own, nobody tells what it gives", () => {
    const functions = [testFunction("public.pg_get_serial_sequence", "sql", "SELECT 'app.hidden'")];
    expect(parts(owner, { functions })).toContain("execute pg_catalog.setval");
  });

  test("where the table got its schema a moment ago, its sequence has another in the catalog", () => {
    const reads = [{ name: "app.customers", kind: "relation", direct: false } as const];
    const relations = [testRelation("public.moved", "id", { reads })];
    expect(parts("pg_get_serial_sequence('moved', 'id')", { relations })).toContain(
      "execute pg_catalog.setval",
    );
  });
});

describe("whether literals matter", () => {
  const matters = (sql: string) => {
    const analysis = analyseSql(sql, testNames());
    return analysis.kind === "rejected" || analysis.literalsMatter;
  };

  test.each([
    "SELECT abalance FROM pgbench_accounts WHERE aid = 1",
    "INSERT INTO documents VALUES (1, 'a', 'b')",
    "UPDATE orders SET total = 3 WHERE id = 4",
    "DELETE FROM orders WHERE id = 4",
    "SELECT lower('x') LIMIT 3",
  ])("%s says the same for all values", (sql) => {
    expect(matters(sql)).toBe(false);
  });

  test.each([
    "DELETE FROM orders WHERE 1 = 1",
    "DELETE FROM orders WHERE id = 1 OR id <> 1",
    "DELETE FROM orders WHERE status LIKE 'a%'",
    "DELETE FROM orders WHERE id = 3 OR 't'",
    "DELETE FROM orders WHERE id IN (SELECT id FROM orders WHERE 1 = 2)",
    "SELECT set_config('work_mem', '1MB', false)",
    "SELECT nextval('ticket_seq')",
    "SELECT query_to_xml('SELECT 1', true, true, '')",
    "SET work_mem = 3",
    "EXPLAIN SELECT 1",
  ])("%s may say other things for other values", (sql) => {
    expect(matters(sql)).toBe(true);
  });
});

describe("effects", () => {
  test("SET search_path tells the path", () => {
    expect(effectsOf('SET LOCAL search_path = app, "Odd Name"')).toEqual([
      { kind: "setSearchPath", path: ["app", "Odd Name"], local: true },
    ]);
  });

  test.each([
    ["RESET search_path", false],
    ["RESET ALL", false],
    ["SET search_path TO DEFAULT", false],
    ["SET LOCAL search_path TO DEFAULT", true],
  ])("%s leads back to the path that the session began with", (sql, local) => {
    expect(effectsOf(sql)).toEqual([{ kind: "setSearchPath", isReset: true, local }]);
  });

  test("a RESET inside a body tells only that the path is unknown", () => {
    const effects = effectsOf("DO $$ BEGIN RESET search_path; END $$");
    expect(effects.filter(({ kind }) => kind === "setSearchPath")).toEqual([
      { kind: "setSearchPath", local: false },
    ]);
  });

  test("a temporary table says what becomes of it", () => {
    expect(effectsOf("CREATE TEMP TABLE t (a int, b int) ON COMMIT DROP")[0]).toEqual({
      kind: "createRelation",
      name: "t",
      temporary: true,
      relationKind: "table",
      columns: ["a", "b"],
      onCommit: "drop",
    });
  });

  test("statements are cut out by characters", () => {
    const analysis = analyseSql("SELECT 'é'; SELECT '😀' ;; SELECT 3", testNames());
    expect(analysis.kind === "analysed" && analysis.statements.map((one) => one.text)).toEqual([
      "SELECT 'é'",
      "SELECT '😀'",
      "SELECT 3",
    ]);
  });
});
