import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";

const here = (path: string) => JSON.stringify(join(import.meta.dirname, path));

/** A process of its own: flags are the whole process's, and so is the most memory that it ever held. */
function alone(script: string): unknown {
  const setUp = `
    const { keepParserAsCompiled } = await import(${here("parser-memory.ts")});
    keepParserAsCompiled();`;
  const { stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", setUp + script], {
    encoding: "utf8",
    cwd: import.meta.dirname,
    timeout: 100_000,
  });
  expect(stderr).not.toContain("Error");
  return JSON.parse(stdout);
}

test("the parser is not optimised, which would take more than all else together", () => {
  const peakKilobytes = alone(`
    const { default: createModule } = await import("libpg-query/wasm/libpg-query.js");
    const parser = await createModule({});
    const sql = "SELECT a, count(*) FROM orders o JOIN items i ON i.id = o.item WHERE o.id = 1 GROUP BY a";
    const bytes = parser.lengthBytesUTF8(sql) + 1;
    for (let at = 0; at < 10_000; at += 1) {
      const query = parser._malloc(bytes);
      parser.stringToUTF8(sql, query, bytes);
      parser._wasm_free_parse_result(parser._wasm_parse_query_raw(query));
      parser._free(query);
      if (at % 100 === 0) await new Promise(setImmediate);
    }
    const { readFileSync } = await import("node:fs");
    console.log(/^VmHWM:\\s+(\\d+) kB/m.exec(readFileSync("/proc/self/status", "utf8"))[1]);`);
  expect(peakKilobytes).toBeGreaterThan(30_000);
  expect(peakKilobytes).toBeLessThan(150_000);
});

test("a parser as first compiled takes some hundred levels, and after too many the next statement works", () => {
  const answers = alone(`
    const { analyseSql, loadSqlParser, sqlParserReady, staticNames } = await import("@sallyport/policy");
    await loadSqlParser();
    const names = staticNames(["public.orders(id, total)"]);
    const answer = async (sql) => {
      await sqlParserReady();
      const analysis = analyseSql(sql, names);
      return analysis.kind === "rejected" ? analysis.sqlstate : analysis.kind;
    };
    const nested = (levels) =>
      "DELETE FROM orders WHERE " + "NOT (id = 1 AND ".repeat(levels) + "true" + ")".repeat(levels);
    const sum = (terms) => "SELECT 1" + " + 1".repeat(terms);
    const answers = [];
    for (const sql of [nested(300), nested(20_000), nested(1), sum(300), sum(100_000), sum(1)]) {
      answers.push(await answer(sql));
    }
    console.log(JSON.stringify(answers));`);
  expect(answers).toEqual(["analysed", "54001", "analysed", "analysed", "54001", "analysed"]);
});
