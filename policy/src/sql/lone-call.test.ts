import { beforeAll, expect, test } from "vitest";
import { analyseSql } from "./analyse.ts";
import { loadSqlParser } from "./parser.ts";
import { testNames } from "./testing.ts";

beforeAll(loadSqlParser);

function pathAfter(sql: string) {
  const analysis = analyseSql(sql, testNames());
  if (analysis.kind === "rejected") throw new Error(analysis.message);
  return analysis.statements.flatMap(({ effects }) => effects).find(({ kind }) => kind === "setSearchPath");
}

test.each([
  ["SELECT pg_catalog.set_config('search_path', '', false)", { path: [], local: false }],
  ["SELECT set_config('search_path', 'app, public', true)", { path: ["app", "public"], local: true }],
  [
    `SELECT set_config('search_path', '"Odd one", "$user"', false) AS x`,
    { path: ["Odd one", "$user"], local: false },
  ],
  [`SELECT set_config('search_path', 'App, "a""b"', false)`, { path: ["app", 'a"b'], local: false }],
])("the search_path after %s is known", (sql, expected) => {
  expect(pathAfter(sql)).toEqual({ kind: "setSearchPath", ...expected });
});

test.each([
  "SELECT set_config('search_path', 'app', false) WHERE false",
  "SELECT set_config('search_path', 'app', false) LIMIT 0",
  "SELECT set_config('search_path', 'app', false) FROM generate_series(1, 0)",
  "SELECT set_config('search_path', 'app', false), set_config('search_path', 'x', false)",
  "SELECT set_config('search_path', 'a' || 'b', false)",
  "SELECT set_config('search_path', 'app\u00a0, public', false)",
  `SELECT set_config('search_path', '"a"b', false)`,
  "SELECT set_config('search_path', 'app', now() IS NULL)",
  "SELECT coalesce(set_config('search_path', 'app', false), '')",
  "SELECT set_config('search_path', 'app', false) UNION SELECT ''",
  "PREPARE p AS SELECT set_config('search_path', 'app', false)",
])("the search_path after %s is not", (sql) => {
  expect(pathAfter(sql)).toEqual({ kind: "setSearchPath", local: false });
});

test.each([
  "CREATE INDEX made ON orders (id); DROP INDEX made",
  "CREATE INDEX made ON orders (id); ALTER INDEX made SET (fillfactor = 70)",
])("an index that the transaction made is for the server to find: %s", (sql) => {
  expect(analyseSql(sql, testNames()).kind).not.toBe("rejected");
});
