import { beforeAll, expect, test } from "vitest";
import { analyseSql } from "./analyse.ts";
import { loadSqlParser } from "./parser.ts";
import { testNames, testRelation } from "./testing.ts";

beforeAll(loadSqlParser);

const settings = testRelation("pg_catalog.pg_settings", "name setting");
const outcome = (sql: string, more: Parameters<typeof testNames>[0] = {}) => {
  const analysis = analyseSql(sql, testNames({ relations: [settings], ...more }));
  if (analysis.kind === "rejected") return analysis.sqlstate;
  const parts = analysis.statements.flatMap((statement) => statement.parts);
  return parts
    .filter(({ operation }) => operation === "session")
    .map(({ objects }) => objects.map(({ name }) => name).join());
};

test("what pg_dump writes sets the setting that its condition names", () => {
  const sql =
    "SELECT set_config(name, 'view, foreign-table', false) FROM pg_settings WHERE name = 'work_mem'";
  expect(outcome(sql)).toEqual(["work_mem"]);
});

test.each([
  [
    "pinned",
    "SELECT set_config(name, 'off', false) FROM pg_settings WHERE name = 'standard_conforming_strings'",
  ],
  ["any", "SELECT set_config(name, 'off', false) FROM pg_settings"],
  ["one of two", "SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = 'a' OR name = 'b'"],
  ["another column's", "SELECT set_config(setting, 'x', false) FROM pg_settings WHERE name = 'work_mem'"],
  [
    "renamed",
    "SELECT set_config(name, 'x', false) FROM pg_settings s (setting, name) WHERE name = 'work_mem'",
  ],
  [
    "joined",
    "SELECT set_config(name, 'x', false) FROM pg_settings, (VALUES ('x')) v (n) WHERE name = 'work_mem'",
  ],
  ["compared otherwise", "SELECT set_config(name, 'x', false) FROM pg_settings WHERE name <> 'work_mem'"],
  ["computed", "SELECT set_config(name || '', 'x', false) FROM pg_settings WHERE name = 'work_mem'"],
  ["nested", "SELECT (SELECT set_config(name, 'x', false)) FROM pg_settings WHERE name = 'work_mem'"],
])("a %s setting is refused as before", (_what, sql) => {
  expect(outcome(sql)).toBe("0A000");
});

test("a table of one's own with that name, or an own equality, proves nothing", () => {
  const sql = "SELECT set_config(name, 'x', false) FROM pg_settings WHERE name = 'work_mem'";
  const own = testRelation("public.pg_settings", "name setting");
  expect(outcome(sql, { relations: [own], searchPath: ["public", "pg_catalog"] })).toBe("0A000");
  expect(outcome(sql, { searchPath: ["evil", "pg_catalog"] })).toBe("0A000");
});
