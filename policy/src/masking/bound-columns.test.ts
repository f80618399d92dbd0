import { beforeAll, expect, test } from "vitest";
import { analyseSql } from "../sql/analyse.ts";
import { loadSqlParser } from "../sql/parser.ts";
import { testNames, testRelation } from "../sql/testing.ts";
import { MaskedColumnSet } from "./masked-columns.ts";

beforeAll(loadSqlParser);

const columns = "id salary bonus grade note";
const view = (name: string, reads: string) =>
  testRelation(`public.${name}`, "a b", {
    kind: "view",
    definition: `SELECT bonus, note FROM ${reads}`,
    reads: [{ name: reads, kind: "relation", direct: false }],
  });
const names = testNames({
  relations: [
    testRelation("public.pay", columns, {
      bound: [
        ["salary", "bonus"],
        ["id", "note"],
      ],
      children: ["public.pay_old"],
    }),
    testRelation("public.pay_old", columns, { bound: [["salary", "grade"]], parents: ["public.pay"] }),
    view("pay_v", "public.pay"),
    view("pay_vv", "public.pay_v"),
  ],
});

function findings(sql: string, masked = "public.pay.salary"): readonly string[] {
  const analysis = analyseSql(sql, names, { masked: new MaskedColumnSet([masked]) });
  if (analysis.kind === "rejected") throw new Error(`${sql}: ${analysis.message}`);
  return analysis.statements.flatMap(({ lineage }) =>
    (lineage?.findings ?? []).map(({ kind, where }) => `${kind} ${where}`),
  );
}

test.each([
  "UPDATE pay SET bonus = 5",
  "UPDATE pay SET note = 'x', bonus = 5 WHERE id = 1",
  "UPDATE ONLY public.pay AS p SET (note, bonus) = ('x', 5)",
  // A child has constraints of its own.
  "UPDATE pay SET grade = 1",
  "UPDATE pay_old SET grade = 1",
  "INSERT INTO pay (id, note) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET bonus = 5",
  "MERGE INTO pay USING (VALUES (1)) v (n) ON pay.id = v.n WHEN MATCHED THEN UPDATE SET bonus = 5",
  "WITH changed AS (UPDATE pay SET bonus = 5 RETURNING id) SELECT id FROM changed",
  "UPDATE pay_v SET a = 5",
  "UPDATE pay_vv SET b = 'x'",
])("a change that may fail for a masked value is found: %s", (sql) => {
  expect(findings(sql)).toContainEqual(expect.stringMatching(/^inference a constraint on column /));
});

test.each([
  "UPDATE pay SET note = 'x'",
  "UPDATE pay SET id = 2, note = 'x' WHERE id = 1",
  "INSERT INTO pay (id, bonus) VALUES (1, 5)",
  "INSERT INTO pay (id, bonus) VALUES (1, 5) ON CONFLICT DO NOTHING",
  "INSERT INTO pay (id, bonus) VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET note = 'x'",
  "MERGE INTO pay USING (VALUES (1)) v (n) ON pay.id = v.n WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id, bonus) VALUES (1, 2)",
  "DELETE FROM pay WHERE bonus = 5",
])("what cannot fail for one is none: %s", (sql) => {
  expect(findings(sql)).toEqual([]);
});

test("a constraint on columns that are not masked is nobody's secret", () => {
  expect(findings("UPDATE pay SET bonus = 5", "public.pay.note")).toEqual([]);
});
