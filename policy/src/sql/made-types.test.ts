import { beforeAll, expect, test } from "vitest";
import { analyseSql } from "./analyse.ts";
import { loadSqlParser } from "./parser.ts";
import { testNames } from "./testing.ts";

beforeAll(loadSqlParser);

const rejectionOf = (sql: string) => {
  const analysis = analyseSql(sql, testNames());
  return analysis.kind === "rejected" ? analysis.sqlstate : undefined;
};

test.each([
  ["attributes", "CREATE TYPE pair AS (a int, b int); ALTER TYPE pair DROP ATTRIBUTE a"],
  ["names of attributes", "CREATE TYPE pair AS (a int); ALTER TYPE pair RENAME ATTRIBUTE a TO b"],
  ["a constructor", "CREATE TYPE span AS RANGE (subtype = float8); SELECT span(1, 2, '[]')"],
  ["a multirange", "CREATE TYPE span AS RANGE (subtype = float8); SELECT '{}'::span_multirange"],
  ["a multirange in place", "CREATE TYPE timerange AS RANGE (subtype = time); SELECT '{}'::timemultirange"],
  [
    "a multirange with a name",
    "CREATE TYPE span AS RANGE (subtype = float8, multirange_type_name = public.spans); SELECT '{}'::public.spans",
  ],
  ["values, where it is a base type", `CREATE TYPE "a b" (input = i, output = o); SELECT 'x'::"a b"`],
])("a type made before in the transaction has %s", (_what, sql) => {
  expect(rejectionOf(sql)).toBeUndefined();
});

test("a type that nobody made is not altered", () => {
  expect(rejectionOf("ALTER TYPE pair DROP ATTRIBUTE a")).toBe("42P01");
});
