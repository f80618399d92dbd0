import { beforeAll, expect, test } from "vitest";
import { loadSqlParser } from "./parser.ts";
import { isLoneUtility } from "./utility.ts";

beforeAll(loadSqlParser);

test.each([
  "DROP TABLE a",
  "/* x */ ALTER TABLE a ADD b int",
  "COPY a FROM STDIN",
  "EXECUTE p",
  "SET a.b = 'c'",
  "LISTEN a;",
])("prepared unseen: %s", (sql) => {
  expect(isLoneUtility(sql)).toBe(true);
});

test.each([
  "SELECT 1",
  "EXPLAIN SELECT 1",
  "CREATE TABLE a AS SELECT 1",
  "DECLARE c CURSOR FOR SELECT 1",
  "CALL f()",
  "DROP TABLE a; DROP TABLE b",
  "",
  "-- nothing",
  "DROP TABEL a",
])("not so: %s", (sql) => {
  expect(isLoneUtility(sql)).toBe(false);
});
