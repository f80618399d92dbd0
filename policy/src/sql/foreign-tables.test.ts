import { beforeAll, expect, test } from "vitest";
import { analyseSql } from "./analyse.ts";
import { loadSqlParser } from "./parser.ts";
import { testNames, testRelation } from "./testing.ts";

beforeAll(loadSqlParser);

const names = testNames({
  relations: [
    testRelation("app.remote", "id note", { kind: "foreignTable" }),
    testRelation("public.parts", "id note", { kind: "partitionedTable", children: ["app.remote"] }),
  ],
});

function operationsOf(sql: string): readonly string[] {
  const analysis = analyseSql(sql, names);
  if (analysis.kind === "rejected") return [analysis.sqlstate];
  return [...new Set(analysis.statements.flatMap(({ parts }) => parts.map(({ operation }) => operation)))];
}

test.each([
  "ALTER FOREIGN TABLE app.remote OPTIONS (SET table_name 'x')",
  "ALTER TABLE app.remote ALTER note OPTIONS (ADD column_name 'x')",
  "ALTER TABLE IF EXISTS app.nowhere OPTIONS (SET table_name 'x')",
  "ALTER TABLE app.remote ADD COLUMN x text",
  "ALTER TABLE public.parts ADD COLUMN x text",
  "ALTER TABLE app.remote RENAME note TO x",
  "ALTER TABLE public.parts RENAME note TO x",
  "ALTER TABLE app.remote RENAME TO x",
  "ALTER FOREIGN TABLE app.remote SET SCHEMA public",
  "ALTER SCHEMA app RENAME TO x",
])("what leads a foreign table elsewhere is a privilege: %s", (sql) => {
  expect(operationsOf(sql)).toEqual(["define", "privilege"]);
});

test.each([
  "ALTER FOREIGN TABLE app.remote ALTER note SET NOT NULL",
  "ALTER TABLE app.remote DROP COLUMN note",
  "ALTER TABLE public.parts RENAME TO x",
  "ALTER TABLE public.parts SET SCHEMA app",
  "ALTER TABLE orders ADD COLUMN x text",
  "ALTER TABLE orders RENAME status TO x",
  "ALTER SCHEMA public RENAME TO x",
  "DROP FOREIGN TABLE app.remote",
])("what leaves its rows where they come from is a definition: %s", (sql) => {
  expect(operationsOf(sql)).toEqual(["define"]);
});
