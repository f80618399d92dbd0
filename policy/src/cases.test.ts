import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { CaseFileError, runPolicyCases } from "./cases.ts";
import { analyseSql, loadSqlParser } from "./sql/index.ts";

const folder = new URL("../testdata/evaluate/", import.meta.url);
const runner = { analyse: analyseSql };
await loadSqlParser();

describe("the case files of how a verdict is reached", () => {
  const files = readdirSync(folder).filter((name) => name.endsWith(".yaml"));

  test("there is one for each sentence", () => expect(files.length).toBeGreaterThanOrEqual(23));

  for (const name of files) {
    const document: unknown = parse(readFileSync(new URL(name, folder), "utf8"));
    const { title, results, problems } = runPolicyCases(document, runner);
    describe(`${name}: ${title}`, () => {
      test("the compiler reports the problems expected, and no others", () => expect(problems).toEqual([]));
      test.each(results)("$name", ({ differences }) => expect(differences).toEqual([]));
    });
  }
});

describe("case files", () => {
  test("a verdict that is not the expected one is a difference", () => {
    const file = {
      identity: { user: "a" },
      cases: [{ name: "x", command: { parts: [] }, expect: { action: "Allow", rule: "p/r" } }],
    };
    const [result] = runPolicyCases(file, runner).results;
    expect(result?.differences).toEqual([
      'action: expected "Allow", got "Deny"',
      'rule: expected "p/r", got "none"',
    ]);
  });

  test("an expected problem that the compiler does not report is a difference", () => {
    const file = { cases: [], problems: [{ policy: "p", path: "spec", reason: "InvalidCel" }] };
    expect(runPolicyCases(file, runner).results[0]?.differences).toEqual(["the compiler did not report it"]);
  });

  test("a misspelt field is told, not ignored", () => {
    expect(() => runPolicyCases({ cases: [{ identity: {} }] }, runner)).toThrow(CaseFileError);
    expect(() => runPolicyCases({ casez: [] }, runner)).toThrow(/casez/);
    expect(() => runPolicyCases([], runner)).toThrow(CaseFileError);
  });

  test("SQL is analysed against the declared tables, and a rejection can be expected", () => {
    const file = {
      identity: { user: "a" },
      tables: ["public.orders(id, total)"],
      policies: [
        {
          kind: "AccessPolicy",
          metadata: { namespace: "shop", name: "p" },
          spec: { resources: { names: ["orders"] }, subjects: [{ user: "a" }], profile: "ReadOnly" },
        },
      ],
      cases: [
        { sql: "orders", expect: { action: "Allow" } },
        { sql: "missing", expect: { sqlstate: "42P01" } },
        { sql: "gone", expect: { action: "Deny" } },
      ],
    };
    const { results } = runPolicyCases(file, {
      analyse: (sql, names) => {
        const relation = names.relation(undefined, sql);
        if (relation === undefined)
          return { kind: "rejected", sqlstate: "42P01", message: "no such relation" };
        const object = {
          name: `${relation.schema}.${relation.name}`,
          kind: "relation",
          direct: true,
        } as const;
        const part = {
          operation: "read",
          words: ["SELECT"],
          objects: [object],
          unbounded: false,
          enforcement: "authoritative",
        } as const;
        const statement = { text: sql, tag: "SELECT", parts: [part], effects: [] };
        return { kind: "analysed", statements: [statement], literalsMatter: false };
      },
    });
    expect(results.map((result) => result.differences)).toEqual([
      [],
      [],
      ["rejected with 42P01: no such relation"],
    ]);
  });
});
