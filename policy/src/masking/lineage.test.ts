import { beforeAll, describe, expect, test } from "vitest";
import { analyseSql } from "../sql/analyse.ts";
import type { FunctionInfo, NameResolver } from "../sql/names.ts";
import { loadSqlParser, parseStatements } from "../sql/parser.ts";
import { testFunction, testNames, testRelation } from "../sql/testing.ts";
import { lineageOf } from "./lineage.ts";
import { MaskedColumnSet } from "./masked-columns.ts";
import type { StatementLineage } from "./model.ts";
import { allOf } from "./trace.ts";

beforeAll(loadSqlParser);

/** A function whose parameters and result are known, as the catalog tells them. */
function named(
  name: string,
  language: string,
  body: string,
  facts: {
    readonly in?: string;
    readonly out?: string;
    readonly returns: string;
    readonly returnsRow?: string;
    readonly settings?: readonly string[];
  },
): FunctionInfo {
  const { in: given = "", out = "", returns, settings, ...rest } = facts;
  const parameters = [
    ...given
      .split(" ")
      .filter(Boolean)
      .map((parameter) => ({ name: parameter, isResult: false })),
    ...out
      .split(" ")
      .filter(Boolean)
      .map((parameter) => ({ name: parameter, isResult: true })),
  ];
  const known = testFunction(`public.${name}`, language, body);
  return { ...known, ...rest, returns: returns.split(" "), parameters, settings: settings ?? known.settings };
}

const followed: Readonly<Record<string, readonly [body: string, marks: string]>> = {
  by_while: [
    "DECLARE n int := 0; s text; BEGIN WHILE n < 3 LOOP n := n + 1; SELECT ssn INTO s FROM public.cust; END LOOP; RETURN s; END",
    "~",
  ],
  counted: [
    "DECLARE n int := 0; s text; BEGIN FOR i IN 1..3 LOOP n := n + i; SELECT ssn INTO s FROM public.cust; END LOOP; RETURN n; END",
    "-",
  ],
  by_case: [
    "DECLARE s text; BEGIN CASE i WHEN 1, 2 THEN SELECT ssn INTO s FROM public.cust; ELSE s := 'none'; END CASE; RETURN s; END",
    "~",
  ],
  by_search: [
    "DECLARE s text; BEGIN CASE WHEN i > 1 THEN RETURN (SELECT max(ssn) FROM public.cust); ELSE RETURN 'x'; END CASE; END",
    "~",
  ],
  by_exit: [
    "DECLARE n int := 0; s text; t text; BEGIN LOOP n := n + 1; EXIT WHEN n > 3; CONTINUE WHEN n = 2; t := s; SELECT ssn INTO s FROM public.cust; END LOOP; RETURN t; END",
    "~",
  ],
  says: [
    "DECLARE s text; BEGIN RAISE NOTICE 'asked for %', i; SELECT ssn INTO s FROM public.cust; PERFORM 1; RETURN s; END",
    "~",
  ],
};
const refused: Readonly<Record<string, readonly [body: string, finding: RegExp]>> = {
  while_masked: [
    "DECLARE s text; BEGIN SELECT ssn INTO s FROM public.cust; WHILE s > 'm' LOOP s := ''; END LOOP; RETURN 'x'; END",
    /^inference function while_masked/,
  ],
  case_masked: [
    "DECLARE s text; BEGIN SELECT ssn INTO s FROM public.cust; CASE s WHEN '1' THEN RETURN 'a'; ELSE RETURN 'b'; END CASE; END",
    /^inference function case_masked/,
  ],
  when_masked: [
    "BEGIN CASE WHEN (SELECT max(ssn) FROM public.cust) > 'm' THEN RETURN 'a'; ELSE RETURN 'b'; END CASE; END",
    /^inference function when_masked/,
  ],
  exit_masked: [
    "DECLARE s text; BEGIN SELECT ssn INTO s FROM public.cust; LOOP EXIT WHEN s > 'm'; END LOOP; RETURN 'x'; END",
    /^inference function exit_masked/,
  ],
  times_masked: [
    "DECLARE n int := 0; BEGIN FOR i IN 1..(SELECT length(max(ssn)) FROM public.cust) LOOP n := n + 1; END LOOP; RETURN n; END",
    /^inference function times_masked/,
  ],
  raise_masked: [
    "DECLARE s text; BEGIN SELECT ssn INTO s FROM public.cust; RAISE NOTICE '%', s; RETURN 'x'; END",
    /^opaque function raise_masked/,
  ],
  raise_using: [
    "DECLARE s text; BEGIN SELECT ssn INTO s FROM public.cust; RAISE NOTICE 'x' USING HINT = s; RETURN 'x'; END",
    /^opaque function raise_using/,
  ],
  catches: [
    "DECLARE n int; BEGIN SELECT ssn::int INTO n FROM public.cust; RETURN n; EXCEPTION WHEN others THEN RETURN SQLERRM; END",
    /^opaque function catches/,
  ],
  not_null: [
    "DECLARE s text NOT NULL := 'x'; BEGIN SELECT substring(ssn from '^1') INTO s FROM public.cust; RETURN 'x'; END",
    /^inference function not_null/,
  ],
  short: [
    "DECLARE s varchar(3); BEGIN SELECT ssn INTO s FROM public.cust; RETURN 'x'; END",
    /^inference function short/,
  ],
  hidden_type: [
    "DECLARE s int; BEGIN SELECT ssn INTO s FROM public.cust; DECLARE s text; BEGIN s := 'x'; END; RETURN 'x'; END",
    /^inference function hidden_type/,
  ],
  keeps_it: [
    "DECLARE s public.keeper; BEGIN SELECT ssn INTO s FROM public.cust; RETURN 'x'; END",
    /^opaque function keeps_it/,
  ],
  of_type: [
    "DECLARE s public.cust.ssn%TYPE; BEGIN SELECT ssn INTO s FROM public.cust; RETURN 'x'; END",
    /^opaque function of_type/,
  ],
  each_of: [
    "DECLARE s text; BEGIN FOREACH s IN ARRAY ARRAY(SELECT ssn FROM public.cust) LOOP NULL; END LOOP; RETURN 'x'; END",
    /^opaque function each_of/,
  ],
};
const plpgsqlFunctions = Object.entries({ ...followed, ...refused }).map(([name, [body]]) =>
  named(name, "plpgsql", body, { in: "i", returns: "text" }),
);

const keepsBody = "INSERT INTO public.ord VALUES (1) RETURNING 1";
const readsSsn = "BEGIN RETURN (SELECT max(ssn) FROM public.cust); END";
const names: NameResolver = testNames({
  relations: [
    testRelation("public.cust", "id name ssn email", { children: ["public.cust_old"] }),
    testRelation("public.cust_old", "id name ssn email", { parents: ["public.cust"] }),
    testRelation("public.ord", "id cust_id total note"),
    testRelation("app.cust", "id ssn"),
    testRelation("public.place", "street city", { kind: "compositeType" }),
    testRelation("pg_catalog.pg_attribute", "attrelid attname"),
    testRelation("public.fired", "id note", {
      triggers: [{ events: ["insert"], function: testFunction("public.fp", "plpgsql", readsSsn) }],
    }),
    testRelation("public.cust_v", "num hidden", {
      kind: "view",
      definition: "SELECT c.id, c.ssn FROM public.cust c WHERE c.ssn IS NOT NULL",
      reads: [{ name: "public.cust", kind: "relation", direct: false }],
    }),
    testRelation("public.cust_vv", "a b", {
      kind: "view",
      definition: "SELECT upper(hidden), num FROM public.cust_v",
      reads: [{ name: "public.cust_v", kind: "relation", direct: false }],
    }),
    testRelation("public.asking_v", "a", {
      kind: "view",
      definition: "SELECT public.asks('1%')",
      reads: [],
    }),
    testRelation("pg_catalog.pg_stat_activity", "pid query", { kind: "view" }),
    testRelation("public.unread_v", "a b", {
      kind: "view",
      reads: [{ name: "public.cust", kind: "relation", direct: false }],
    }),
  ],
  functions: [
    testFunction("public.fc", "sql", "SELECT ssn FROM public.cust"),
    testFunction("public.fp", "plpgsql", readsSsn),
    testFunction("public.keeps", "sql", keepsBody),
    testFunction("public.xmin", "sql", "SELECT 1"),
    testFunction("public.fd", "plpgsql", "BEGIN EXECUTE q; END"),
    testFunction("public.pure", "sql", "SELECT 1"),
    named("ssn_of", "sql", "SELECT ssn FROM public.cust WHERE id = i", { in: "i", returns: "text" }),
    named("hidden_of", "sql", "SELECT c.name, c.ssn FROM public.cust c WHERE c.id = hidden_of.i", {
      in: "i",
      out: "who what",
      returns: "text text",
    }),
    named("all_cust", "sql", "SELECT * FROM public.cust", { returns: "own.cust", returnsRow: "public.cust" }),
    named("atomic", "sql", "BEGIN ATOMIC SELECT c.id FROM public.cust c; END", { returns: "int4" }),
    named("returned", "sql", "RETURN (SELECT upper(c.ssn) FROM public.cust c)", { returns: "text" }),
    named("asks", "sql", "SELECT id FROM public.cust WHERE ssn LIKE $1", { in: "p", returns: "int4" }),
    named("hop", "sql", "SELECT helper()", { returns: "text", settings: ["search_path=app"] }),
    testFunction("public.helper", "sql", "SELECT 'x'"),
    { ...named("helper", "sql", "SELECT ssn FROM public.cust", { returns: "text" }), schema: "app" },
    named("back", "sql", "SELECT helper()", { returns: "text", settings: ["search_path=public"] }),
    named("narrow", "sql", "SELECT ssn FROM public.cust", { returns: "int2" }),
    named("checked", "sql", "SELECT ssn FROM public.cust", { returns: "own.text" }),
    named("rows_of", "sql", "SELECT id, ssn FROM public.cust", { out: "a b", returns: "int4 own.text" }),
    named("other_rows", "sql", "SELECT * FROM public.cust", { returns: "own.cust", returnsRow: "app.cust" }),
    ...plpgsqlFunctions,
    named("again", "sql", "SELECT again() FROM public.cust", { returns: "text" }),
    named("outer", "sql", "SELECT ssn_of(1) || name FROM public.cust", { returns: "text" }),
    named("pathless", "sql", "SELECT ssn FROM cust", { returns: "text", settings: ["search_path=app"] }),
    named(
      "by_variable",
      "plpgsql",
      "DECLARE s text; BEGIN SELECT ssn INTO s FROM public.cust; RETURN s; END",
      {
        returns: "text",
      },
    ),
    named(
      "by_record",
      "plpgsql",
      "DECLARE r record; BEGIN FOR r IN SELECT * FROM public.cust LOOP RETURN NEXT r.ssn; END LOOP; END",
      { returns: "text" },
    ),
    named(
      "by_id",
      "plpgsql",
      "DECLARE n int; BEGIN SELECT id INTO n FROM public.cust WHERE id = i; RETURN n; END",
      {
        in: "i",
        returns: "int4",
      },
    ),
    named("by_number", "plpgsql", "DECLARE n int; BEGIN SELECT ssn INTO n FROM public.cust; RETURN n; END", {
      returns: "int4",
    }),
    named(
      "by_branch",
      "plpgsql",
      "DECLARE s text; BEGIN SELECT ssn INTO s FROM public.cust; IF s > 'm' THEN RETURN 'a'; END IF; RETURN 'b'; END",
      { returns: "text" },
    ),
    named("into_found", "plpgsql", "BEGIN SELECT ssn INTO found FROM public.cust; RETURN 'x'; END", {
      returns: "text",
    }),
    named("into_parameter", "plpgsql", "BEGIN i := (SELECT ssn FROM public.cust); RETURN 'x'; END", {
      in: "i",
      returns: "text",
    }),
    named("into_row", "plpgsql", "DECLARE r ord; BEGIN SELECT ssn INTO r FROM public.cust; RETURN 'x'; END", {
      returns: "text",
    }),
    named("raises", "plpgsql", "BEGIN RAISE EXCEPTION '%', (SELECT ssn FROM public.cust); END", {
      returns: "text",
    }),
    named(
      "starts",
      "plpgsql",
      "DECLARE r record := (SELECT c FROM public.cust c); n int; BEGIN SELECT id INTO n FROM public.cust; RETURN r.ssn; END",
      { returns: "text" },
    ),
  ],
  types: [
    { schema: "public", name: "keeper", functions: [testFunction("public.keeps", "sql", keepsBody)] },
    { schema: "evil", name: "text", functions: [] },
  ],
  prepared: {
    p: { text: "PREPARE p AS SELECT id, ssn FROM cust", parts: [] },
    w: { text: "SELECT ssn FROM cust", parts: [] },
    given: { text: "PREPARE given(text) AS SELECT ssn_of(1), $1", parts: [] },
  },
});
const masked = new MaskedColumnSet(["public.cust.ssn"]);

function lineage(sql: string): StatementLineage {
  const analysis = analyseSql(sql, names, { masked });
  if (analysis.kind === "rejected") throw new Error(`${sql}: ${analysis.message}`);
  const found = analysis.statements[0]?.lineage;
  if (found === undefined) throw new Error(`${sql} is not followed`);
  return found;
}

/** `=` the column itself, `~` computed from it, `-` clean; `?` where columns cannot be counted. */
function shown(sql: string): string {
  const { rows } = lineage(sql);
  const marks: string[] = rows.columns.map(({ flow }) =>
    flow.sources.size === 0 ? "-" : flow.isExact ? "=" : "~",
  );
  if (rows.open !== undefined) marks.push(rows.open.sources.size === 0 ? "?" : "?~");
  return marks.join(" ");
}

function found(sql: string): readonly string[] {
  return lineage(sql).findings.map(({ kind, where }) => `${kind} ${where}`);
}

test.each([
  ["SELECT id, ssn FROM cust", "- ="],
  ["SELECT ssn AS x FROM cust", "="],
  ["SELECT * FROM cust", "- - = -"],
  ["SELECT c.* FROM cust c", "- - = -"],
  ["SELECT c.*, 1 FROM ord o, cust c", "- - = - -"],
  ["TABLE cust", "- - = -"],
  ["SELECT c FROM cust c", "~"],
  ["SELECT cust FROM cust", "~"],
  ["SELECT c::text FROM cust c", "~"],
  ["SELECT (c).ssn, (c).id FROM cust c", "= -"],
  ["SELECT (c).* FROM cust c", "- - = -"],
  ["SELECT row_to_json(c) FROM cust c", "~"],
  ["SELECT to_jsonb(c)->>'ssn' FROM cust c", "~"],
  ["SELECT json_agg(c) FROM cust c", "~"],
  ["SELECT string_agg(ssn, ',') FROM cust", "~"],
  ["SELECT array_agg(ssn), count(*), max(ssn) FROM cust", "~ - ~"],
  ["SELECT lag(ssn) OVER (ORDER BY id) FROM cust", "~"],
  ["SELECT CASE WHEN id > 1 THEN ssn ELSE 'x' END FROM cust", "~"],
  ["SELECT substr(ssn, 1, 3), left(ssn, 2), md5(ssn), length(ssn), ascii(ssn) FROM cust", "~ ~ ~ ~ ~"],
  ["SELECT COALESCE(ssn, name), greatest(ssn, name) FROM cust", "~ ~"],
  ["SELECT format('%s', c), concat_ws(',', c.ssn, c.id) FROM cust c", "~ ~"],
  ["SELECT id FROM cust UNION ALL SELECT ssn FROM cust", "~"],
  ["SELECT ssn FROM cust UNION ALL SELECT ssn FROM cust_old", "="],
  ["SELECT ssn FROM cust UNION ALL SELECT ssn FROM cust", "="],
  ["WITH w AS (SELECT ssn AS q, id FROM cust) SELECT id, q FROM w", "- ="],
  ["WITH w(a, b) AS (SELECT ssn, id FROM cust) SELECT b, a FROM w", "- ="],
  [
    "WITH RECURSIVE t(n, s) AS (SELECT 1, ssn FROM cust UNION ALL SELECT n + 1, s FROM t) SELECT * FROM t",
    "- ~",
  ],
  [
    "WITH RECURSIVE t(n, s) AS (SELECT id, ssn FROM cust UNION ALL SELECT n + 1, concat(s) FROM t) TABLE t",
    "- ~",
  ],
  ["SELECT x.s FROM (SELECT ssn FROM cust) x(s)", "="],
  ["SELECT s.v FROM cust c, LATERAL (SELECT c.ssn) s(v)", "="],
  ["SELECT (SELECT ssn FROM cust c WHERE c.id = o.cust_id) FROM ord o", "="],
  ["SELECT ARRAY(SELECT ssn FROM cust)", "~"],
  ["VALUES ((SELECT ssn FROM cust LIMIT 1), 1)", "= -"],
  ["SELECT EXISTS (SELECT ssn FROM cust)", "-"],
  ["SELECT num, hidden FROM cust_v", "- ="],
  ["SELECT * FROM cust_vv", "~ -"],
  ["SELECT a, b FROM unread_v", "~ ~"],
  ["SELECT ssn FROM cust_old", "="],
  ["SELECT c.id, o.total FROM cust c JOIN ord o ON o.cust_id = c.id", "- -"],
  ["SELECT * FROM cust JOIN ord USING (id)", "- - = - - - -"],
  ["SELECT j.s FROM (cust c JOIN ord o ON o.cust_id = c.id) AS j(i, n, s)", "~"],
  ["UPDATE cust SET name = 'x' WHERE id = 1 RETURNING *", "- - = -"],
  ["SELECT app.cust.ssn, public.cust.ssn FROM app.cust, public.cust", "~ ~"],
  ["SELECT upper(public.cust.ssn) FROM app.cust, public.cust", "~"],
  ["SELECT (SELECT public.cust.ssn || '' FROM app.cust) FROM public.cust", "~"],
  ["SELECT public.cust.* FROM app.cust, public.cust", "?~"],
  ["SELECT c.xmin, c.ctid FROM cust c", "~ -"],
  ["DELETE FROM cust WHERE id = 1 RETURNING ssn, id", "= -"],
  ["DELETE FROM cust WHERE id = 1 RETURNING old.ssn, old.*", "= - - = -"],
  ["DELETE FROM cust WHERE id = 1 RETURNING WITH (OLD AS o) o.ssn, o.id", "= -"],
  ["INSERT INTO cust (id) VALUES (1) RETURNING ssn", "="],
  [
    "MERGE INTO ord USING cust c ON c.id = ord.cust_id WHEN MATCHED THEN UPDATE SET total = 1 RETURNING *",
    "- - = - - - - -",
  ],
  ["COPY cust TO STDOUT", "- - = -"],
  ["COPY cust (ssn, id) TO STDOUT", "= -"],
  ["COPY (SELECT id, ssn FROM cust) TO STDOUT", "- ="],
  ["EXECUTE p", "- ="],
  ["EXECUTE w", "="],
  ["DECLARE k CURSOR FOR SELECT ssn FROM cust", "="],
  ["EXPLAIN SELECT ssn FROM cust", ""],
  ['SELECT ssn COLLATE "C" FROM cust', "~"],
  ["SELECT ROW(c.*) FROM cust c", "~"],
  ["SELECT g FROM generate_series(1, 3) g, cust", "-"],
  ["SELECT ssn, id, value FROM cust, jsonb_each('{}')", "= - -"],
  ["SELECT ssn FROM json_to_record('{}') AS r(a int), cust", "="],
  ["SELECT (SELECT ssn FROM jsonb_each('{}')) FROM cust", "~"],
  ["SELECT query FROM pg_stat_activity", "="],
])("%s", (sql, marks) => {
  expect(shown(sql)).toBe(marks);
});

test.each([
  "SELECT id FROM cust WHERE ssn = 'x'",
  "SELECT id FROM cust WHERE ssn LIKE '1%' AND id > 1",
  "SELECT id FROM cust ORDER BY ssn",
  "SELECT ssn FROM cust ORDER BY 1",
  "SELECT ssn AS s FROM cust ORDER BY s",
  "SELECT count(*) FROM cust GROUP BY ssn",
  "SELECT count(*) FROM cust GROUP BY ROLLUP (id, ssn)",
  "SELECT DISTINCT ssn FROM cust",
  "SELECT DISTINCT ON (ssn) id FROM cust",
  "SELECT count(DISTINCT ssn) FROM cust",
  "SELECT count(*) FILTER (WHERE ssn > '5') FROM cust",
  "SELECT count(*) FROM cust HAVING max(ssn) > '5'",
  "SELECT 1 FROM cust c JOIN ord o ON o.note = c.ssn",
  "SELECT 1 FROM cust a JOIN cust b USING (ssn)",
  "SELECT 1 FROM cust a NATURAL JOIN cust b",
  "SELECT ssn FROM cust UNION SELECT note FROM ord",
  "SELECT ssn FROM cust INTERSECT SELECT note FROM ord",
  "SELECT 1 / (CASE WHEN ssn LIKE '1%' THEN 0 ELSE 1 END) FROM cust",
  "SELECT ssn::int FROM cust",
  "SELECT ssn = 'x' FROM cust",
  "SELECT ssn IS NULL FROM cust",
  "SELECT 'x' IN (SELECT ssn FROM cust)",
  "SELECT 'x' = ANY (ARRAY(SELECT ssn FROM cust))",
  "SELECT (ARRAY[1, 2])[length(ssn)] FROM cust",
  "SELECT repeat('x', length(ssn)) FROM cust",
  "SELECT substr(name, 1, ascii(ssn) - 50) FROM cust",
  "SELECT x FROM cust, regexp_split_to_table(ssn, '') x",
  "SELECT x FROM cust, generate_series(1, length(ssn)) x",
  "SELECT unnest(string_to_array(ssn, '-')) FROM cust",
  "SELECT id FROM cust LIMIT (SELECT length(max(ssn)) FROM cust)",
  "SELECT rank() OVER (ORDER BY ssn) FROM cust",
  "SELECT rank() OVER w FROM cust WINDOW w AS (PARTITION BY ssn)",
  "SELECT array_agg(id ORDER BY ssn) FROM cust",
  "SELECT NULLIF(ssn, 'x') FROM cust",
  "SELECT json_object('a': ssn) FROM cust",
  "SELECT xmlforest(ssn) FROM cust",
  "SELECT num FROM cust_v WHERE hidden = 'x'",
  "SELECT b FROM cust_vv ORDER BY a",
  "DELETE FROM cust WHERE ssn = 'x'",
  "DELETE FROM ord USING cust c WHERE c.ssn = ord.note",
  "UPDATE ord SET total = 1 FROM cust c WHERE c.ssn = note",
  "UPDATE cust SET name = 'x' WHERE ssn = 'y'",
  "MERGE INTO ord USING cust c ON c.ssn = ord.note WHEN MATCHED THEN DELETE",
  "MERGE INTO ord USING cust c ON c.id = ord.id WHEN MATCHED AND c.ssn > 'a' THEN DELETE",
  "EXPLAIN ANALYZE SELECT 1 FROM cust WHERE ssn = 'x'",
  "PREPARE q AS SELECT id FROM cust WHERE ssn = $1",
  "DECLARE k CURSOR FOR SELECT id FROM cust WHERE ssn = 'x'",
  "COPY (SELECT id FROM cust WHERE ssn = 'x') TO STDOUT",
  "CREATE VIEW vx AS SELECT id FROM cust WHERE ssn LIKE '1%'",
  "WITH w AS (SELECT id FROM cust WHERE ssn = 'x') SELECT 1 FROM w",
  "SELECT 1 WHERE EXISTS (SELECT 1 FROM cust WHERE ssn = 'x')",
  "SELECT c FROM cust c WHERE c IS NOT NULL",
  "SELECT id FROM cust c WHERE c::text LIKE '%1%'",
])("an asker learns from: %s", (sql) => {
  expect(found(sql)).toContainEqual(expect.stringMatching(/^inference /));
});

test.each([
  ["INSERT INTO ord (note) SELECT ssn FROM cust", /^store /],
  ["UPDATE cust SET name = ssn", /^store /],
  ["CREATE TABLE t AS SELECT ssn FROM cust", /^store CREATE TABLE AS/],
  ["SELECT ssn INTO t FROM cust", /^store SELECT INTO/],
  ["CREATE MATERIALIZED VIEW m AS SELECT ssn FROM cust", /^store /],
  ["COPY cust TO '/tmp/x'", /^store COPY/],
  ["WITH w AS (INSERT INTO ord (note) SELECT ssn FROM cust RETURNING note) SELECT 1 FROM w", /^store /],
  ["MERGE INTO ord USING cust c ON c.id = ord.id WHEN MATCHED THEN UPDATE SET note = c.ssn", /^store /],
  [
    "INSERT INTO ord (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET note = (SELECT max(ssn) FROM cust)",
    /^store /,
  ],
  ["UPDATE cust SET ssn = 'x' WHERE id = 1", /^write /],
  ["INSERT INTO cust VALUES (1, 'n', 's')", /^write /],
  ["INSERT INTO cust (ssn) VALUES ('x')", /^write /],
  ["INSERT INTO cust_v (hidden) VALUES ('x')", /^write /],
  ["COPY cust FROM STDIN", /^write COPY/],
  ["COPY cust (ssn) FROM STDIN", /^write COPY/],
  ["SELECT fc()", /^opaque function fc/],
  ["SELECT * FROM fc()", /^opaque function fc/],
  ["SELECT public.fp()", /^opaque function public.fp/],
  ["SELECT fd()", /^opaque function fd/],
  ["SELECT query_to_xml('select 1', true, true, '')", /^opaque /],
  ["SELECT table_to_xml('cust', true, true, '')", /^opaque /],
  ["SELECT * FROM pg_stats", /^opaque pg_catalog.pg_stats/],
  ["DO $$ BEGIN PERFORM ssn FROM public.cust; END $$", /^opaque DO/],
  ["ALTER TABLE cust RENAME COLUMN ssn TO x", /^define /],
  ["ALTER TABLE cust RENAME TO x", /^define /],
  ["ALTER TABLE cust SET SCHEMA app", /^define /],
  ["ALTER TABLE cust ALTER ssn TYPE int USING ssn::int", /^define /],
  ["ALTER TABLE cust ADD CHECK (ssn > 'a')", /^define /],
  ["ALTER TABLE cust_old NO INHERIT cust", /^define /],
  ["CREATE INDEX ON cust (lower(ssn))", /^define /],
  ["CREATE INDEX ON cust (ssn)", /^define /],
  ["CREATE TABLE f (s text REFERENCES cust (ssn))", /^define /],
  ["CREATE TABLE t (a text DEFAULT fp())", /^define /],
  ["CREATE TABLE t (a text CHECK (a <> fp()))", /^define /],
  ["CREATE TABLE t PARTITION OF ord FOR VALUES IN (fp())", /^define /],
  ["ALTER TABLE ord ALTER note TYPE text USING fp()", /^define /],
  ["ALTER TABLE ord ALTER note SET DEFAULT fp()", /^define /],
  ["CREATE TRIGGER t BEFORE INSERT ON ord FOR EACH ROW EXECUTE FUNCTION fp()", /^define /],
  ["CREATE FUNCTION g(a text DEFAULT fp()) RETURNS text LANGUAGE sql AS 'SELECT a'", /^define /],
  ["CLUSTER cust USING cust", /^define /],
  // What a statement that waits may find in place of what it was judged by.
  ["CREATE VIEW vy AS SELECT id, ssn FROM cust", /^define CREATE VIEW/],
  [
    "CREATE OR REPLACE VIEW cust_v AS SELECT id AS num, upper(ssn) AS hidden FROM cust",
    /^define CREATE VIEW/,
  ],
  ["ALTER VIEW cust_v RENAME COLUMN hidden TO num", /^define ALTER VIEW/],
  ["ALTER TABLE cust_v RENAME COLUMN hidden TO num", /^define ALTER TABLE/],
  ["ALTER VIEW cust_v RENAME TO vx", /^define ALTER VIEW/],
  ["ALTER VIEW cust_v SET SCHEMA app", /^define ALTER VIEW/],
  ["ALTER FUNCTION fp RENAME TO pure", /^define ALTER FUNCTION/],
  ["ALTER ROUTINE fp() SET SCHEMA app", /^define ALTER ROUTINE/],
  [
    "CREATE OR REPLACE FUNCTION pure() RETURNS text LANGUAGE sql AS 'SELECT ssn FROM public.cust'",
    /^define /,
  ],
  ["CREATE FUNCTION g() RETURNS text BEGIN ATOMIC SELECT ssn FROM public.cust; END", /^define /],
  [
    "CREATE FUNCTION g() RETURNS text LANGUAGE sql SET search_path = public AS 'SELECT ssn FROM cust'",
    /^define CREATE FUNCTION/,
  ],
  [
    "CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM public.cust WHERE ssn = $1'",
    /^define CREATE FUNCTION/,
  ],
  [
    "CREATE PROCEDURE g() LANGUAGE sql AS 'INSERT INTO public.ord (note) SELECT ssn FROM public.cust'",
    /^define /,
  ],
  ["CREATE FUNCTION g(q text) RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE q; END$$", /^define /],
  ["CREATE FUNCTION g(text) RETURNS xml LANGUAGE internal AS 'query_to_xml'", /^define /],
  ["SELECT pg_stat_get_backend_activity(1)", /^opaque /],
  ["SELECT pg_terminate_backend(length(ssn)) FROM cust", /^store function pg_terminate_backend/],
  // Code that runs unseen reads masked values also where the statement reads their table itself.
  ["WITH x AS (SELECT 1 FROM cust) INSERT INTO fired SELECT 1 FROM x RETURNING note", /^opaque /],
  ["SELECT o.fp FROM ord o, cust", /^opaque /],
  ["SELECT (o).fp FROM ord o, cust", /^opaque /],
  // f(t) by the name t.f, with what it does to the row.
  ["SELECT c.keeps FROM cust c", /^store function keeps/],
  ["SELECT (c).keeps FROM cust c", /^store function keeps/],
  ["SELECT (w.c).keeps FROM (SELECT c FROM cust c) w", /^store function keeps/],
  ["SELECT v.xmin FROM cust_v v", /^inference function xmin/],
  ["SELECT setseed(length(ssn)) FROM cust", /^store /],
  // Whether it fails says what the value is.
  ["SELECT date_part(translate(ssn, '1', 'd'), now()) FROM cust", /^inference /],
  ["SELECT date_trunc(ssn, now()) FROM cust", /^inference /],
  ["SELECT now() AT TIME ZONE substr(ssn, 1, 1) FROM cust", /^inference /],
  ["SELECT convert_to(ssn, 'LATIN1') FROM cust", /^inference /],
  ["SELECT length(ssn::bytea, 'UTF8') FROM cust", /^inference function length/],
  // A call that is a cast.
  ["SELECT inet(ssn) FROM cust", /^inference /],
  ["SELECT to_char(ssn, '9V999999999') FROM cust", /^inference function to_char/],
  ["SELECT to_char(ssn, 'fmRN') FROM cust", /^inference function to_char/],
  ["SELECT to_char(ssn, name) FROM cust", /^inference function to_char/],
  // With a value of the asker's, a sum exceeds its type's limit or does not.
  ["SELECT sum(s) FROM (SELECT ssn AS s FROM cust UNION ALL SELECT '5') x", /^inference function sum/],
  ["SELECT avg(ssn || '') FROM cust", /^inference function avg/],
  ["SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY COALESCE(ssn, 'x')) FROM cust", /^inference function/],
  // What comes next is computed only where all before is NULL, and functions run only where their arguments are not.
  ["SELECT COALESCE(substring(ssn from '^1'), (1 / (id - id))::text) FROM cust", /^inference COALESCE/],
  [
    "SELECT COALESCE(x.a, x.b) FROM (SELECT substring(ssn, '1') a, 1 / id b FROM cust) x",
    /^inference COALESCE/,
  ],
  ["SELECT (to_json(ssn) -> 'a')[1 / (id - id)] FROM cust", /^inference a subscript/],
  ["SELECT split_part(substring(ssn from '^1'), ',', 0) FROM cust", /^inference function split_part/],
  ["SELECT encode(substring(ssn from '^1')::bytea, 'none') FROM cust", /^inference function encode/],
  // A collation that is undecided fails where a value is compared or changed, which NULL is not.
  [
    `SELECT max(substring(ssn from '^1') || a || b) FROM cust, (SELECT 'x' COLLATE "C" AS a, 'y' COLLATE "POSIX" AS b) s`,
    /^inference function max/,
  ],
  [
    "SELECT lower(x.v) FROM (SELECT substring(ssn from '^1') || item || note AS v FROM cust, ord) x",
    /^inference function lower/,
  ],
  [
    `SELECT lower(x.v) FROM (SELECT substring(ssn from '^1') AS v FROM cust UNION ALL SELECT name COLLATE "C" FROM cust) x`,
    /^inference function lower/,
  ],
  ["SELECT initcap(substring(ssn from '^1') COLLATE x || name) FROM cust", /^inference function initcap/],
  ["SELECT strpos(substring(ssn from '^1'), item || note) FROM cust, ord", /^inference function strpos/],
  ["SELECT upper(substring(ssn from '^1') || 'x'::name) FROM cust", /^inference function upper/],
  // Numbers become object ids behind one, and fail to where they are none.
  ["SELECT COALESCE(NULL::oid, ssn) FROM cust", /^inference COALESCE/],
  ["SELECT COALESCE(NULL::regclass, sum(ssn)) FROM cust", /^inference COALESCE/],
  ["SELECT CASE WHEN id = 1 THEN 5::oid ELSE ssn END, COALESCE(ssn, 5::oid) FROM cust", /^inference CASE/],
  ["SELECT ssn FROM cust UNION ALL SELECT oid FROM pg_class", /^inference a set operation/],
  ["SELECT ARRAY[tableoid, ssn], GREATEST(tableoid, ssn) FROM cust", /^inference /],
  ["SELECT ARRAY[1::oid] || ssn FROM cust", /^inference operator/],
  ["SELECT lag(1::oid, 0, ssn) OVER () FROM cust", /^inference function lag/],
  ["SELECT oid FROM pg_class UNION ALL SELECT sum(ssn) FROM cust", /^inference a set operation/],
  ["SELECT * FROM (VALUES ('x'::regclass), ((SELECT ssn FROM cust))) v", /^inference VALUES/],
  ["PREPARE s(oid) AS SELECT COALESCE($1, ssn) FROM cust", /^inference COALESCE/],
  ["SELECT COALESCE(x.o, ssn) FROM cust, json_to_record('{}') AS x(o oid)", /^inference COALESCE/],
  [
    "SELECT COALESCE(x.o, ssn) FROM cust, JSON_TABLE('{}', '$' COLUMNS (o oid PATH '$')) x",
    /^inference COALESCE/,
  ],
  // A list in parentheses is a list of columns, also by their numbers.
  ["SELECT ssn, count(*) FROM cust GROUP BY (1, 1)", /^inference GROUP BY/],
  ["SELECT id, ssn AS s FROM cust GROUP BY ROLLUP ((1, 2)), ((s, 1))", /^inference GROUP BY/],
  ["SELECT ssn FROM cust GROUP BY GROUPING SETS ((), ((1, 1), 1))", /^inference GROUP BY/],
  // Bounds of an array keep what its subscripts are.
  ["INSERT INTO ord (id, note[(SELECT ascii(ssn) FROM cust)]) VALUES (1, 'x')", /^inference a subscript/],
  [
    "MERGE INTO ord USING cust c ON c.id = ord.id WHEN NOT MATCHED THEN INSERT (id, note[ascii(c.ssn)]) VALUES (1, 'x')",
    /^inference a subscript/,
  ],
  // A plan tells how much memory values took, and shows what the planner has computed.
  ["EXPLAIN (ANALYZE) SELECT ssn FROM cust", /^inference EXPLAIN ANALYZE/],
  ["EXPLAIN (ANALYZE on, SERIALIZE text) SELECT c.* FROM cust c", /^inference EXPLAIN ANALYZE/],
  ["EXPLAIN ANALYZE SELECT (c).ssn FROM cust c", /^inference EXPLAIN ANALYZE/],
  [
    "EXPLAIN ANALYZE WITH x AS MATERIALIZED (SELECT ssn FROM cust) SELECT count(*) FROM x",
    /^inference EXPLAIN ANALYZE/,
  ],
  ["EXPLAIN (VERBOSE) SELECT ssn_of(1)", /^opaque EXPLAIN of function public.ssn_of/],
  ["EXPLAIN EXECUTE given(ssn_of(1))", /^opaque EXECUTE/],
  ["EXECUTE given(ssn_of(1))", /^opaque EXECUTE/],
  // A function by the name of a column, in what a definition runs.
  ["ALTER TABLE ord ALTER note TYPE text USING ord.fp", /^define /],
  ["ALTER TABLE ord ALTER note TYPE text USING (ord).fp", /^define /],
  ["CREATE INDEX ON ord ((1 / length(ord.fp)))", /^define /],
  ["ALTER TABLE ord ADD CHECK (ord.fp LIKE '1%')", /^define /],
  [
    "CREATE TRIGGER t BEFORE UPDATE ON ord FOR EACH ROW WHEN (NEW.fp = '1') EXECUTE FUNCTION pure()",
    /^define /,
  ],
  // The server tries a domain's new check on all that is stored.
  ["ALTER DOMAIN app.mood ADD CHECK (VALUE LIKE '1%')", /^define /],
  ["ALTER DOMAIN app.mood VALIDATE CONSTRAINT c", /^define /],
  ["ALTER DOMAIN app.mood SET NOT NULL", /^define /],
  // The columns of tables OF a type are renamed, converted and dropped with its attributes.
  ["ALTER TYPE place RENAME ATTRIBUTE street TO road CASCADE", /^define /],
  ["ALTER TYPE place ALTER ATTRIBUTE street TYPE varchar(3) CASCADE", /^define /],
  ["ALTER TYPE place DROP ATTRIBUTE street CASCADE", /^define /],
  ["DO $$BEGIN ALTER TYPE public.place RENAME ATTRIBUTE street TO road CASCADE; END$$", /^define /],
  // Rows of the catalog are names, too.
  ["UPDATE pg_attribute SET attname = 'x' WHERE attname = 'ssn'", /^opaque a write to pg_catalog/],
  ["COPY pg_attribute FROM STDIN", /^opaque a write to pg_catalog/],
  [
    "MERGE INTO pg_attribute a USING ord o ON a.attname = o.note WHEN MATCHED THEN DELETE",
    /^opaque a write to pg_catalog/,
  ],
  // Files of the server, and programs on it.
  ["COPY ord FROM '/var/lib/postgresql/data/base/5/16384'", /^opaque COPY from a file/],
  ["COPY ord FROM PROGRAM 'psql -c \"SELECT ssn FROM cust\"'", /^opaque COPY from a file/],
  ["COPY ord TO PROGRAM 'psql -c \"SELECT ssn FROM cust\"'", /^opaque COPY to a program/],
  // What COPY fills in is compared.
  ["COPY cust (id) FROM STDIN WHERE ssn LIKE '1%'", /^inference operator ~~/],
  ["COPY cust (id) FROM STDIN WHERE cust.ssn IS NULL", /^inference /],
  // Types whose checks keep what they are given.
  ["SELECT JSON_VALUE(to_json(ssn), '$' RETURNING public.keeper) FROM cust", /^store type keeper/],
  [
    "SELECT 1 FROM cust, JSON_TABLE(to_json(ssn), '$' COLUMNS (k public.keeper PATH '$')) t",
    /^store type keeper/,
  ],
  ["SELECT 1 FROM cust, json_to_record(to_json(ssn)) AS r(k public.keeper)", /^store type keeper/],
  ["SELECT json_populate_record(name, to_json(ssn)) FROM cust", /^store function json_populate_record/],
  ["SELECT ARRAY[array_remove(ARRAY[ssn], 'a'), ARRAY['x']] FROM cust", /^inference /],
  ["SELECT replace(ssn, '1', repeat('x', 100)) FROM cust", /^inference /],
  ["SELECT format('%I', substring(ssn, '^1')) FROM cust", /^inference /],
  ["SELECT format(name, ssn) FROM cust", /^inference /],
  ["SELECT format('%s %s %s', VARIADIC ARRAY[ssn]) FROM cust", /^inference function format/],
  [
    "SELECT percentile_disc((SELECT length(ssn) FROM cust)) WITHIN GROUP (ORDER BY id) FROM ord",
    /^inference /,
  ],
])("a value does not leave by: %s", (sql, pattern) => {
  expect(found(sql)).toContainEqual(expect.stringMatching(pattern));
});

test.each([
  "SELECT id, ssn, name FROM cust WHERE id = 1 ORDER BY name",
  "SELECT c.id, o.total FROM cust c JOIN ord o ON o.cust_id = c.id WHERE o.total > 5 GROUP BY c.id, o.total",
  "SELECT count(*) FROM cust",
  "SELECT * FROM ord WHERE note = 'x'",
  "UPDATE cust SET name = 'x' WHERE id = 1",
  "INSERT INTO cust (id, name) VALUES (1, 'n')",
  "DELETE FROM cust WHERE id = 1",
  "SELECT num, hidden FROM cust_v",
  "SELECT id, ssn FROM cust_old",
  "COPY cust_old (ssn, id) TO STDOUT",
  "SELECT pure() FROM cust",
  "CREATE INDEX ON cust (name)",
  "ALTER TABLE cust ADD COLUMN age int",
  "CREATE VIEW vy AS SELECT id, name FROM cust",
  "CREATE TEMP VIEW vy AS SELECT id, ssn FROM cust",
  "CREATE FUNCTION g() RETURNS text LANGUAGE sql AS 'SELECT name FROM public.cust'",
  "CREATE FUNCTION g() RETURNS text BEGIN ATOMIC SELECT name FROM public.cust; END",
  "CREATE FUNCTION g() RETURNS int LANGUAGE plpgsql AS $$BEGIN DELETE FROM public.ord; RETURN 1; END$$",
  "CREATE OR REPLACE FUNCTION pure() RETURNS int LANGUAGE sql AS 'SELECT 1'",
  "ALTER FUNCTION pure RENAME TO purer",
  "DROP TABLE cust",
  "TRUNCATE cust",
  "SELECT ssn::text, upper(ssn) || 'x' FROM cust",
  "SELECT * FROM (SELECT id AS ssn FROM ord) x WHERE x.ssn = 1",
  "SELECT id FROM ord WHERE id IN (SELECT id FROM cust)",
  "COPY cust (id, name) FROM STDIN",
  "COPY cust (id, name) FROM STDIN WHERE id > 0 AND cust.name <> ''",
  "COPY ord TO '/tmp/ord.csv'",
  "ALTER TYPE place RENAME ATTRIBUTE street TO road",
  "ALTER TYPE place ADD ATTRIBUTE zip text",
  "SELECT attname FROM pg_attribute",
  "SELECT date_trunc('day', ssn), extract(year FROM ssn), format('%s: %L', id, ssn) FROM cust",
  "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY ssn) FROM cust",
  "SELECT sum(ssn), avg(ssn), percentile_cont(0.5) WITHIN GROUP (ORDER BY ssn) FROM cust",
  "SELECT COALESCE(ssn, name), COALESCE(substring(ssn, '1'), 'none'), COALESCE(substring(ssn, '1'), ssn) FROM cust",
  "SELECT to_char(ssn, 'YYYY-MM-DD'), length(ssn) FROM cust",
  "SELECT lower(substring(ssn from '^1')), max(to_json(ssn) ->> 'a'), strpos(substring(ssn from '1'), 'x') FROM cust",
  "SELECT lower(v), max(v) FROM (SELECT CASE WHEN id = 1 AND name = 'x' THEN substring(ssn from '1')::text END AS v FROM cust) x",
  "SELECT id, name, count(*) FROM cust GROUP BY (1, 2)",
  "SELECT COALESCE(ssn, $1), GREATEST(ssn, 5), ARRAY[ssn, name], CASE WHEN id = $1 THEN ssn ELSE 0 END FROM cust",
  "SELECT COALESCE(name, ssn), name || ssn, 1::bigint || ssn FROM cust UNION ALL SELECT note, ssn, ssn FROM ord, cust",
  "INSERT INTO ord (id, note[1 + 1]) VALUES (1, 'x')",
  "EXPLAIN SELECT ssn FROM cust",
  "EXPLAIN (ANALYZE off) SELECT ssn FROM cust",
  "EXPLAIN ANALYZE SELECT id, num FROM cust JOIN cust_v ON num = id",
  "EXECUTE given('x')",
  "ALTER DOMAIN app.mood DROP NOT NULL",
  "SELECT o.pure FROM ord o",
  "SELECT pg_terminate_backend(1), pg_cancel_backend(2), pg_reload_conf()",
])("nothing to object to: %s", (sql) => {
  expect(found(sql)).toEqual([]);
});

test.each([
  // The first column of each is the masked one, and goes by the second's name as it would be by another rule.
  "SELECT upper(x.\"case\") FROM (SELECT CASE WHEN true THEN ssn ELSE ''::text END, CASE WHEN false THEN 'a' ELSE GREATEST('b', 'c') END FROM cust) x",
  "SELECT upper(n) FROM (SELECT (SELECT * FROM (SELECT c.ssn AS n) y), (SELECT n.* FROM (SELECT 'q' AS z) n) FROM cust c) x",
  "SELECT x.\"?column?\" || '' FROM (SELECT CASE WHEN true THEN ssn ELSE (SELECT 'x' || '') END, NULLIF('a', 'b') FROM cust) x",
  "SELECT (SELECT upper(n) FROM (SELECT (SELECT * FROM (SELECT c.ssn AS n) y)) x) FROM cust c, (SELECT 'q' AS n) z",
  "SELECT x.least || '' FROM (SELECT LEAST(ssn, 'z'), GREATEST('a', 'b') AS greatest FROM cust) x",
])("a column without a name goes by the one that the server gives it: %s", (sql) => {
  expect(allOf(lineage(sql).rows).sources).toContain("public.cust.ssn");
});

test("a masked column may be sorted by under a name that only the server knows", () => {
  expect(
    found("SELECT (SELECT * FROM (SELECT c.ssn AS name) y), id FROM cust c ORDER BY name"),
  ).toContainEqual(expect.stringMatching(/^inference ORDER BY/));
});

test("a relation with nothing masked in it is not looked at", () => {
  const [statement] = parseStatements("SELECT ssn FROM cust WHERE ssn = 'x'");
  const none = lineageOf(statement?.node ?? {}, [], names, new MaskedColumnSet([]));
  expect(none).toEqual({ rows: { columns: [] }, findings: [], touches: false });
});

test("analysis carries the lineage of each statement, with the names that the ones before it made", () => {
  const sql = "CREATE TEMP VIEW tv AS SELECT ssn AS x FROM cust; SELECT x FROM tv";
  const analysis = analyseSql(sql, names, { masked });
  if (analysis.kind === "rejected") throw new Error(analysis.message);
  expect(analysis.statements[1]?.lineage?.rows.columns[0]?.flow.sources).toEqual(
    new Set(["public.cust.ssn"]),
  );
});

test("another literal in the same shape may tell of another column", () => {
  const analysis = analyseSql("SELECT id, ssn FROM cust ORDER BY 1", names, { masked });
  expect(analysis.kind === "analysed" && analysis.literalsMatter).toBe(true);
  const other = analyseSql("SELECT id FROM cust ORDER BY 1", names, { masked });
  expect(other.kind === "analysed" && other.literalsMatter).toBe(false);
  // What is neither shown nor found may be found with another literal.
  const hidden = "WITH x AS MATERIALIZED (SELECT to_char(ssn, '99') FROM cust) SELECT count(*) FROM x";
  const unseen = analyseSql(hidden, names, { masked });
  expect(unseen.kind === "analysed" && unseen.literalsMatter).toBe(true);
});

test.each([
  ["SELECT substring(ssn from '^1'), upper(ssn), ssn FROM cust", [true, undefined, undefined]],
  ["SELECT concat(substring(ssn, '^1')), COALESCE(substring(ssn, '^1'), name) FROM cust", [true, true]],
  ["SELECT to_json(ssn) -> 'a', (ARRAY[ssn])[1], ssn || 'x' FROM cust", [true, true, undefined]],
  ["SELECT lag(ssn) OVER (), lag(id, length(ssn)) OVER () FROM cust", [undefined, true]],
  ["SELECT x FROM (SELECT array_length(ARRAY[ssn], 1) AS x FROM cust) q", [true]],
  ["SELECT string_agg(ssn, ','), max(ssn), pure(max(ssn)) FROM cust", [undefined, undefined, true]],
])("where NULL would tell of the value, that is known: %s", (sql, expected) => {
  expect(lineage(sql).rows.columns.map(({ flow }) => flow.tellsByNull)).toEqual(expected);
});

test.each([
  ["SELECT ssn_of(1)", "~"],
  ["SELECT ssn_of(id), id FROM cust", "~ -"],
  ["SELECT * FROM hidden_of(1)", "- ~"],
  ["SELECT h.who, h.what FROM hidden_of(1) h", "- ~"],
  ["SELECT h FROM hidden_of(1) h", "~"],
  ["SELECT x.b, x.a FROM hidden_of(1) x(a, b)", "~ -"],
  ["SELECT * FROM all_cust()", "- - ~ -"],
  ["SELECT c.id, c.ssn, c FROM all_cust() c", "- ~ ~"],
  ["SELECT (all_cust()).ssn", "~"],
  ["SELECT s FROM ssn_of(1) s", "~"],
  ["SELECT ssn_of FROM ssn_of(1)", "~"],
  ["SELECT atomic()", "-"],
  ["SELECT returned()", "~"],
  ["SELECT outer()", "~"],
  ["SELECT by_variable()", "~"],
  ["SELECT by_record()", "~"],
  ["SELECT by_id(1)", "-"],
  // It reads the other schema's table, of which nothing is masked.
  ["SELECT pathless()", "-"],
])("a function's body is followed: %s", (sql, expected) => {
  expect(shown(sql)).toBe(expected);
  expect(found(sql)).toEqual([]);
});

test.each(Object.entries(followed))("a body in PL/pgSQL is followed: %s", (name, [, marks]) => {
  expect(shown(`SELECT ${name}(1)`)).toBe(marks);
  expect(found(`SELECT ${name}(1)`)).toEqual([]);
});

test.each(Object.entries(refused))("a body in PL/pgSQL tells nothing: %s", (name, [, finding]) => {
  expect(found(`SELECT ${name}(1)`)).toContainEqual(expect.stringMatching(finding));
});

test.each([
  ["SELECT hop()", "~"],
  ["SELECT back()", "-"],
  ["SELECT hop(), helper()", "~ -"],
  ["SELECT helper(), hop()", "- ~"],
])("what a body calls is looked up along its own path: %s", (sql, marks) => {
  expect(shown(sql)).toBe(marks);
});

test("a call that is a cast, as no function takes the value, may fail for some values", () => {
  const type = (_: string | undefined, name: string) =>
    name === "md5" ? { schema: "public", name, functions: [] } : undefined;
  const findings = (sql: string) => {
    const [statement] = parseStatements(sql);
    return lineageOf(statement?.node ?? {}, [], { ...names, type }, masked).findings;
  };
  expect(findings("SELECT md5(ssn) FROM cust")).toMatchObject([
    { kind: "inference", where: "a cast to md5" },
  ]);
  expect(findings("SELECT md5(name), sha256(ssn) FROM cust")).toEqual([]);
});

test("another type that a path puts before text may fail for some values", () => {
  const hidden = { ...names, type: () => ({ schema: "evil", name: "text", functions: [] }) };
  const [statement] = parseStatements("SELECT ssn::text FROM cust");
  const { findings } = lineageOf(statement?.node ?? {}, [], hidden, masked);
  expect(findings).toMatchObject([{ kind: "inference", where: "a cast to text" }]);
});

test.each([
  ["SELECT narrow()", /^inference function narrow/],
  ["SELECT checked()", /^inference function checked/],
  ["SELECT a FROM rows_of()", /^inference function rows_of/],
  ["SELECT other_rows()", /^inference function other_rows/],
  ["SELECT asks('1%')", /^inference operator ~~/],
  // A view does not hold on to bodies: they may be the asker's, and newer than it.
  ["SELECT a FROM asking_v", /^inference operator ~~/],
  ["SELECT by_number()", /^inference function by_number/],
  ["SELECT into_found()", /^opaque function into_found/],
  ["SELECT into_parameter(1)", /^opaque function into_parameter/],
  ["SELECT into_row()", /^opaque function into_row/],
  ["SELECT by_branch()", /^inference function by_branch/],
  ["SELECT raises()", /^opaque function raises/],
  ["SELECT starts()", /^opaque function starts/],
  ["SELECT again()", /^opaque function again/],
  ["SELECT count(*) FROM cust WHERE name = ssn_of(1)", /^inference operator =/],
  ["SELECT fc()", /^opaque function fc/],
])("a function's body tells no more than a statement might: %s", (sql, pattern) => {
  expect(found(sql)).toContainEqual(expect.stringMatching(pattern));
});

/** The only column of the last statement's rows. */
function lastColumn(sql: string): ReadonlySet<string> | undefined {
  const analysis = analyseSql(sql, names, { masked });
  if (analysis.kind === "rejected") throw new Error(analysis.message);
  const rows = analysis.statements.at(-1)?.lineage?.rows;
  return (rows?.open ?? rows?.columns[0]?.flow)?.sources;
}

test("an unqualified name is also what it hides, which a plan of before still reads", () => {
  const shadow = "CREATE TEMP TABLE cust (id int, ssn text)";
  expect(lastColumn(`${shadow}; SELECT upper(ssn) FROM cust`)).toContain("public.cust.ssn");
  expect(lastColumn(`${shadow}; SELECT upper(ssn) FROM pg_temp.cust`)).toEqual(new Set());
  expect(lastColumn(`${shadow}; SELECT upper(note) FROM ord`)).toEqual(new Set());
  // What has neither the name nor the place of a masked column is what it seems, and what is not there may be anything.
  expect(lastColumn(`${shadow}; SELECT id + 1 FROM cust`)).toEqual(new Set());
  expect(lastColumn("CREATE TEMP TABLE cust (id int, a text, b text); SELECT upper(b) FROM cust")).toContain(
    "public.cust.ssn",
  );
  for (const sql of [
    "SELECT upper(ssn) FROM cust",
    "SELECT * FROM cust",
    "SELECT upper(c.ssn) FROM cust c",
  ]) {
    expect(lastColumn(`CREATE TEMP TABLE cust (id int); ${sql}`)).toContain("public.cust.ssn");
  }
});

test("a view that is replaced is no longer what the catalog says of it", () => {
  const sql =
    "CREATE OR REPLACE VIEW cust_v AS SELECT id AS num, name AS hidden FROM cust; SELECT num || '' FROM cust_v";
  expect(lastColumn(sql)).toContain("public.cust.ssn");
});

test.each([
  ["CREATE TABLE f (c int REFERENCES cust)", ["define"]],
  ["CREATE TABLE f (c int, FOREIGN KEY (c) REFERENCES public.cust)", ["define"]],
  ["ALTER TABLE ord ADD FOREIGN KEY (cust_id) REFERENCES cust", ["define"]],
  ["ALTER TABLE ord ADD FOREIGN KEY (cust_id) REFERENCES cust (id)", ["define"]],
  ["CREATE TABLE f (c text REFERENCES cust (name))", []],
  ["CREATE TABLE f (c int REFERENCES ord)", []],
])("a key that refers to a masked one tells by its errors which values there are: %s", (sql, kinds) => {
  const analysis = analyseSql(sql, names, { masked: new MaskedColumnSet(["public.cust.id"]) });
  if (analysis.kind === "rejected") throw new Error(analysis.message);
  expect(analysis.statements[0]?.lineage?.findings.map(({ kind }) => kind)).toEqual(kinds);
});

describe("what a block defines is held to what its author may define", () => {
  const stash = "LANGUAGE plpgsql AS $f$BEGIN INSERT INTO log VALUES (t); RETURN t; END$f$";
  test.each([
    `CREATE OR REPLACE FUNCTION public.keeps(t text) RETURNS text ${stash}`,
    "CREATE CAST (text AS int) WITH FUNCTION public.keeps(text)",
    "CREATE DOMAIN public.int4 AS text",
    "CREATE TYPE public.bool AS ENUM ('t')",
    "ALTER DOMAIN public.keeper ADD CHECK (VALUE <> '1')",
    "ALTER FUNCTION public.ssn_of(int) SET search_path = evil",
  ])("%s", (definition) => {
    const kinds = (sql: string) => lineage(sql).findings.map(({ kind }) => kind);
    expect(kinds(definition)).toContain("define");
    expect(kinds(`DO $$BEGIN IF true THEN ${definition}; END IF; END$$`)).toContain("define");
  });

  test("and other definitions are found nothing of", () => {
    const body =
      "CREATE TYPE public.mood AS ENUM ('ok'); CREATE DOMAIN public.positive AS int CHECK (VALUE > 0); CREATE FUNCTION public.next(i int) RETURNS int LANGUAGE sql AS 'SELECT i + 1';";
    expect(lineage(`DO $$BEGIN ${body} END$$`).findings).toEqual([]);
  });
});
