import { beforeAll, expect, test } from "vitest";
import { analyseSql } from "../sql/analyse.ts";
import { loadSqlParser } from "../sql/parser.ts";
import { testFunction, testNames, testRelation } from "../sql/testing.ts";
import type { ColumnDefinition, DefinitionKind } from "./definitions.ts";
import { MaskedColumnSet } from "./masked-columns.ts";
import { SessionMasking } from "./session-masking.ts";

beforeAll(loadSqlParser);

const kinds: readonly DefinitionKind[] = ["missing", "default", "bound", "check", "index"];
const everything = new Map([
  ["public.cust", kinds.map((kind): ColumnDefinition => ({ kind, column: "ssn" }))],
]);

function namesWith(definitions: ReadonlyMap<string, readonly ColumnDefinition[]>) {
  return testNames({
    relations: [
      testRelation("public.cust", "id ssn", { kind: "partitionedTable", children: ["public.low"] }),
      testRelation("public.low", "id ssn", { parents: ["public.cust"] }),
      testRelation("public.ord", "id note"),
      testRelation("public.cust_ids", "id", {
        kind: "view",
        definition: "SELECT cust.id FROM public.cust",
        reads: [{ name: "public.cust", kind: "relation", direct: false }],
      }),
      testRelation("pg_catalog.pg_attribute", "attrelid attname attmissingval"),
      testRelation("pg_catalog.pg_attrdef", "oid adrelid adnum adbin"),
      testRelation("pg_catalog.pg_class", "oid relname relpartbound"),
      testRelation("pg_catalog.pg_constraint", "oid conname conrelid conbin"),
      testRelation("pg_catalog.pg_index", "indexrelid indrelid indpred indexprs"),
      testRelation("pg_catalog.pg_indexes", "tablename indexdef", { kind: "view" }),
      testRelation("information_schema.columns", "column_name column_default", { kind: "view" }),
      testRelation("public.defs", "d", {
        kind: "view",
        definition: "SELECT pg_get_expr(a.adbin, a.adrelid) AS d FROM pg_catalog.pg_attrdef a",
        reads: [{ name: "pg_catalog.pg_attrdef", kind: "relation", direct: false }],
      }),
    ],
    functions: [
      testFunction("public.bound_of", "sql", "SELECT pg_get_partition_constraintdef(i)", {
        parameters: [{ name: "i", isResult: false }],
        returns: ["text"],
      }),
    ],
    definitions,
    prepared: { adds: { text: "PREPARE adds AS INSERT INTO cust (id) VALUES (1)", parts: [] } },
  });
}

const masking = () =>
  new SessionMasking([
    {
      masks: [
        {
          ref: { policy: "p", rule: "masking", enforcement: "authoritative" },
          columns: ["public.cust.ssn"],
          patterns: [],
          customPatterns: [],
          with: "Redact",
          liftable: false,
        },
      ],
      inference: "Deny",
      maskedWrites: "Deny",
    },
  ]);

/** `-` as it is, `l` without its literals, `w` hidden whole; why it is refused. */
function seen(
  sql: string,
  definitions: ReadonlyMap<string, readonly ColumnDefinition[]> = everything,
): string {
  const session = masking();
  const analysis = analyseSql(sql, namesWith(definitions), { masked: session.columns });
  if (analysis.kind === "rejected") throw new Error(analysis.message);
  const lineage = analysis.statements.at(-1)?.lineage;
  if (lineage === undefined) throw new Error("no lineage");
  const decision = session.decide(lineage);
  if (decision.kind === "deny") return `denied: ${lineage.findings[0]?.where}`;
  if (decision.kind === "plain") return "plain";
  const { columns, rest } = decision;
  const marks = columns.map((one) => (one === undefined ? "-" : one.hidesLiterals === true ? "l" : "w"));
  return [...marks, ...(rest === undefined ? [] : [rest.hidesLiterals === true ? "*l" : "*w"])].join(" ");
}

test.each([
  ["SELECT attname, attmissingval FROM pg_attribute", "- w"],
  ["SELECT attmissingval::text FROM pg_attribute", "w"],
  ["SELECT a FROM pg_attribute a", "w"],
  ["TABLE pg_attrdef", "- - - w"],
  ["SELECT adbin::text FROM pg_attrdef", "w"],
  [
    "SELECT pg_get_expr(adbin, adrelid), pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_attrdef d",
    "l l",
  ],
  ["SELECT upper(pg_get_expr(adbin, adrelid)) FROM pg_attrdef", "w"],
  ["SELECT '''' || pg_get_expr(adbin, adrelid) FROM pg_attrdef", "w"],
  ["SELECT pg_get_expr(adbin, adrelid)::text FROM pg_attrdef", "l"],
  ["SELECT pg_get_expr(adbin, adrelid)::varchar(3) FROM pg_attrdef", "w"],
  ["SELECT COALESCE(pg_get_expr(adbin, adrelid), 'none') FROM pg_attrdef", "l"],
  ["SELECT CASE WHEN adnum > 0 THEN pg_get_expr(adbin, adrelid) END FROM pg_attrdef", "l"],
  ["SELECT CASE WHEN adnum > 0 THEN pg_get_expr(adbin, adrelid) ELSE adbin::text END FROM pg_attrdef", "w"],
  [
    "SELECT (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = c.oid) FROM pg_class c",
    "l",
  ],
  ["SELECT pg_get_expr(adbin, adrelid) IS NULL FROM pg_attrdef", "plain"],
  ["SELECT column_name, column_default FROM information_schema.columns", "- l"],
  ["SELECT column_name FROM information_schema.columns WHERE column_default IS NOT NULL", "plain"],
  ["SELECT column_name FROM information_schema.columns WHERE column_default LIKE 'nextval(%'", "plain"],
  [
    "SELECT column_name FROM information_schema.columns WHERE column_default LIKE 'a%'",
    "denied: operator ~~",
  ],
  ["SELECT adnum FROM pg_attrdef WHERE pg_get_expr(adbin, adrelid) ~* 'nextval|gen_random_uuid'", "plain"],
  ["SELECT adnum FROM pg_attrdef ORDER BY pg_get_expr(adbin, adrelid)", "denied: ORDER BY"],
  [
    "SELECT relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_class c ORDER BY pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT'",
    "- l",
  ],
  ["SELECT relname FROM pg_class c ORDER BY pg_get_expr(c.relpartbound, c.oid) = 'a'", "denied: operator ="],
  ["SELECT pg_get_partition_constraintdef(1), pg_get_constraintdef(2, true), pg_get_indexdef(3)", "l l l"],
  ["SELECT md5(pg_get_constraintdef(oid)), conname FROM pg_constraint", "w -"],
  ["SELECT indexdef, pg_get_expr(indpred, indrelid) FROM pg_indexes, pg_index", "l l"],
  ["SELECT d FROM defs", "l"],
  ["SELECT reverse(d) FROM defs", "w"],
  ["SELECT bound_of(1)", "w"],
  [
    "CREATE FUNCTION g(i oid) RETURNS text LANGUAGE sql AS 'SELECT pg_get_constraintdef(i)'",
    "denied: CREATE FUNCTION",
  ],
  ["CREATE TABLE t (LIKE cust INCLUDING DEFAULTS)", "denied: CREATE TABLE"],
  ["DO $$BEGIN RAISE NOTICE '%', pg_get_indexdef(1); END$$", "denied: DO"],
  ["DO $$BEGIN RAISE NOTICE '%', 1; END$$", "plain"],
  ["CREATE TABLE t (LIKE cust)", "plain"],
  ["CREATE TABLE t (LIKE ord INCLUDING ALL)", "plain"],
  ["EXPLAIN VERBOSE INSERT INTO cust (id) VALUES (1)", "denied: EXPLAIN VERBOSE"],
  ["EXPLAIN (VERBOSE on, COSTS off) INSERT INTO cust DEFAULT VALUES", "denied: EXPLAIN VERBOSE"],
  [
    "EXPLAIN VERBOSE WITH x AS (INSERT INTO cust (id) VALUES (1) RETURNING id) TABLE x",
    "denied: EXPLAIN VERBOSE",
  ],
  ["EXPLAIN VERBOSE INSERT INTO cust_ids (id) VALUES (1)", "denied: EXPLAIN VERBOSE"],
  ["EXPLAIN VERBOSE EXECUTE adds", "denied: EXPLAIN VERBOSE"],
  ["CREATE TEMP TABLE cust (id int); EXPLAIN VERBOSE EXECUTE adds", "denied: EXPLAIN VERBOSE"],
  ["EXPLAIN INSERT INTO cust (id) VALUES (1)", "plain"],
  ["EXPLAIN (VERBOSE off) INSERT INTO cust (id) VALUES (1)", "plain"],
  ["EXPLAIN VERBOSE INSERT INTO ord (id) VALUES (1)", "plain"],
  ["EXPLAIN VERBOSE UPDATE cust SET id = 1", "plain"],
])("definitions of masked columns are hidden: %s", (sql, expected) => {
  expect(seen(sql)).toBe(expected);
});

test.each([
  ["SELECT id FROM cust", "plain"],
  ["SELECT tableoid, id FROM cust", "w -"],
  ["SELECT c.tableoid FROM cust c", "w"],
  ["SELECT s.t FROM (SELECT tableoid AS t FROM cust) s", "w"],
  ["SELECT tableoid FROM ord, cust", "w"],
  ["SELECT ord.tableoid FROM ord, cust", "plain"],
  ["SELECT id FROM cust WHERE tableoid = 5", "denied: operator ="],
  ["UPDATE cust SET id = id RETURNING tableoid", "w"],
  ["SELECT id FROM low", "denied: partition low"],
  ["COPY low (id) TO STDOUT", "denied: partition low"],
  ["DELETE FROM public.low", "denied: partition low"],
  ["EXPLAIN SELECT id FROM cust", "plain"],
  ["EXPLAIN (ANALYZE) SELECT id FROM cust", "denied: EXPLAIN ANALYZE"],
  ["SELECT tableoid FROM ord", "plain"],
  ["CREATE TABLE guess PARTITION OF cust FOR VALUES IN ('a')", "denied: CREATE TABLE"],
  ["CREATE TABLE guess PARTITION OF low FOR VALUES IN ('a')", "denied: CREATE TABLE"],
  ["CREATE TABLE part PARTITION OF ord FOR VALUES IN ('a')", "plain"],
])("the partition that a row is in tells of a masked key: %s", (sql, expected) => {
  expect(seen(sql)).toBe(expected);
});

test("where no masked column has such a thing, the catalog is as it is", () => {
  const others = new Map([["public.ord", kinds.map((kind): ColumnDefinition => ({ kind, column: "note" }))]]);
  for (const definitions of [
    new Map(),
    others,
    new Map([["public.cust", [{ kind: "default", column: "id" }]]]),
  ]) {
    expect(seen("SELECT * FROM pg_attribute, pg_attrdef, pg_class", definitions as typeof everything)).toBe(
      "plain",
    );
    expect(
      seen("SELECT reverse(pg_get_constraintdef(oid)) FROM pg_constraint", definitions as typeof everything),
    ).toBe("plain");
    expect(seen("SELECT id, tableoid FROM low", definitions as typeof everything)).toBe("plain");
  }
});

test("one kind does not hide the others", () => {
  const onlyDefault = new Map([["public.cust", [{ kind: "default", column: "ssn" } as const]]]);
  expect(seen("SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef", onlyDefault)).toBe("l");
  expect(seen("SELECT pg_get_expr(relpartbound, oid), pg_get_indexdef(1) FROM pg_class", onlyDefault)).toBe(
    "plain",
  );
});

test("what a text drops on the way is not forgotten for the texts after it", () => {
  const names = namesWith(everything);
  const set = new MaskedColumnSet(["public.cust.ssn"]);
  const shown = (sql: string) => {
    const analysis = analyseSql(sql, names, { masked: set });
    if (analysis.kind === "rejected") throw new Error(analysis.message);
    return analysis.statements.at(-1)?.lineage?.rows.columns.map(({ flow }) => flow.sources.size);
  };
  const read = "SELECT adbin FROM pg_attrdef";
  expect(shown(`DROP TABLE cust; ${read}`)).toEqual([1]);
  expect(shown(`DROP TABLE cust; CREATE TABLE cust (a int); ${read}`)).toEqual([0]);
  expect(shown(read)).toEqual([1]);
});

test("a table that a text drops between a part and what is masked hides the part from none after it", () => {
  const names = testNames({
    relations: [
      testRelation("public.top", "id ssn", { children: ["public.mid"] }),
      testRelation("public.mid", "id ssn", { parents: ["public.top"] }),
      testRelation("public.leaf", "id ssn", { parents: ["public.mid"] }),
    ],
  });
  const set = new MaskedColumnSet(["public.top.ssn"]);
  const shown = (sql: string) => {
    const analysis = analyseSql(sql, names, { masked: set });
    if (analysis.kind === "rejected") throw new Error(analysis.message);
    return analysis.statements.at(-1)?.lineage?.rows.columns[0]?.flow.sources.size;
  };
  shown("DROP TABLE mid CASCADE; SELECT ssn FROM leaf");
  expect(shown("SELECT ssn FROM leaf")).toBe(1);
});
