import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { staticNames } from "../static-names.ts";
import { analyseSql } from "./analyse.ts";
import { loadSqlParser, parserRestarting, parseStatements, scanTokens, sqlParserReady } from "./parser.ts";
import { hasMoreTokensThan } from "./token-count.ts";

beforeAll(loadSqlParser);

const names = staticNames(["public.orders(id, total)"]);
const answer = (sql: string): string => {
  const analysis = analyseSql(sql, names);
  return analysis.kind === "rejected" ? analysis.sqlstate : analysis.kind;
};

/** Each ends the parser another way: its stack in WebAssembly, its own bound on memory, the JSON's depth. */
const fatal: Readonly<Record<string, string>> = {
  "a sum without end": `SELECT ${"1+".repeat(100_000)}1`,
  "subqueries in subqueries": `SELECT ${"(SELECT ".repeat(20_000)}1${")".repeat(20_000)}`,
  "unions of unions": `SELECT 1 ${"UNION SELECT 1 ".repeat(60_000)}`,
  "cases in cases": `SELECT ${"CASE WHEN true THEN ".repeat(20_000)}1${" END".repeat(20_000)}`,
  "arrays in arrays": `SELECT ${"ARRAY[".repeat(50_000)}1${"]".repeat(50_000)}`,
  "joins of joins": `SELECT 1 FROM ${"(orders CROSS JOIN ".repeat(20_000)}orders${")".repeat(20_000)}`,
  "many negations": `SELECT ${"NOT ".repeat(100_000)}true`,
  "an unclosed nest": `SELECT ${"(".repeat(300_000)}`,
};

describe("a text that ends the parser", () => {
  test.each(Object.entries(fatal))(
    "%s is answered 54001 or 42601, and the next statement works",
    async (_, sql) => {
      expect(["54001", "42601"]).toContain(answer(sql));
      await sqlParserReady();
      expect(answer("SELECT id FROM orders")).toBe("analysed");
      expect(answer("SELEC")).toBe("42601");
    },
  );

  test("does not end the process, nor set the code that it ends with", () => {
    const before = process.exitCode;
    for (const sql of Object.values(fatal)) answer(sql);
    expect(process.exitCode).toBe(before);
  });

  test("in a burst leaves answers that say that they may be asked again, and then are right", async () => {
    await sqlParserReady();
    const killer = await killerText();
    for (let round = 0; round < 4; round += 1) answer(killer);
    // No instance is left in this turn of the event loop: nothing is judged, nothing is allowed.
    expect(answer("SELECT id FROM orders")).toBe(parserRestarting);
    await sqlParserReady();
    expect(answer("SELECT id FROM orders")).toBe("analysed");
  });

  test("thirty times in a row leaves memory where it was", async () => {
    const killer = await killerText();
    const round = async () => {
      answer(killer);
      await sqlParserReady();
    };
    for (let index = 0; index < 10; index += 1) await round();
    const before = process.memoryUsage().rss;
    for (let index = 0; index < 20; index += 1) await round();
    expect(process.memoryUsage().rss - before).toBeLessThan(200 * 1024 * 1024);
    expect(answer("SELECT id FROM orders")).toBe("analysed");
  }, 300_000);
});

/** One of the texts above that makes an instance unusable, found by its effect. */
async function killerText(): Promise<string> {
  for (const sql of Object.values(fatal)) {
    await sqlParserReady();
    answer(sql);
    answer(sql);
    if (answer("SELECT 1") === parserRestarting) {
      await sqlParserReady();
      return sql;
    }
  }
  throw new Error("no text ends the parser any more: the tests of its renewal need another one");
}

describe("a text that would cost too much", () => {
  test.each([
    ["a list of millions", `SELECT 1 WHERE 1 IN (${"1,".repeat(4_000_000)}1)`],
    ["rows by the hundred thousand", `INSERT INTO orders VALUES ${"(1,2),".repeat(800_000)}(1,2)`],
    ["a million statements", "SELECT 1;".repeat(900_000)],
    ["nothing but semicolons", ";".repeat(8_000_000)],
  ])("%s is refused before it is parsed", (_, sql) => {
    const before = process.cpuUsage();
    expect(answer(sql)).toBe("54001");
    expect(process.cpuUsage(before).user).toBeLessThan(1_500_000);
  });

  test("one literal of eight megabytes is no such text", () => {
    expect(answer(`SELECT '${"x,".repeat(4_000_000)}'`)).toBe("analysed");
    expect(answer(`SELECT $t$${"(1),".repeat(2_000_000)}$t$`)).toBe("analysed");
  });

  test("is not parsed again because names grew old meanwhile, and is let go once it is judged", () => {
    const sql = `SELECT ${"1,".repeat(60_000)}1 FROM orders`;
    const stale = new Proxy(names, {
      get: (target, key) => (key === "isFresh" ? false : Reflect.get(target, key, target)),
    });
    expect(analyseSql(sql, stale)).toMatchObject({ kind: "rejected", sqlstate: "57P03" });
    const kept = parseStatements(sql);
    expect(parseStatements(sql)).toBe(kept);
    expect(answer(sql)).toBe("analysed");
    expect(parseStatements(sql)).not.toBe(kept);
  });

  test("as many parameters as a Bind can carry are no such text, each in a row and with a cast of its own", () => {
    const rows = Array.from({ length: 65_535 }, (_, index) => `($${index + 1}::text)`);
    expect(answer(`INSERT INTO orders (status) VALUES ${rows.join(",")}`)).toBe("analysed");
  });

  test("no text hides tokens from the count that the server's own lexer finds", () => {
    const pieces =
      "1 |a|e|,|(|)|'x y'|E'\\''|e'\\\\'|\"q\"|$t$ b $t$|$$|--c\n|/* d */|/*/**/*/|;|::|.5|U&'\\0041'| |$1|'|\"|é";
    let compared = 0;
    const text = fc.array(fc.constantFrom(...pieces.split("|")), { maxLength: 30 });
    fc.assert(
      fc.property(text, (some) => {
        const sql = some.join("");
        const tokens = scanTokens(sql)?.filter(({ name }) => !name.endsWith("COMMENT")).length ?? 0;
        if (tokens === 0) return;
        compared += 1;
        expect(hasMoreTokensThan(tokens - 1, sql)).toBe(true);
      }),
      { seed: 5, numRuns: 3_000 },
    );
    expect(compared).toBeGreaterThan(300);
  });
});
