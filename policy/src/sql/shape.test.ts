import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import { loadSqlParser, parseStatements } from "./parser.ts";
import { shapeOf } from "./shape.ts";
import { isNode } from "./tree.ts";

beforeAll(loadSqlParser);

/** The tree with every constant's value and every position taken out. */
function skeleton(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(skeleton);
  if (!isNode(value)) return value;
  const entries: [string, unknown][] = [];
  for (const [key, inner] of Object.entries(value)) {
    if (/location$|_start$|_end$|^stmt_len$/.test(key)) continue;
    if (key === "A_Const" && isNode(inner)) {
      entries.push([key, Object.keys(inner).filter((name) => name !== "location")]);
    } else entries.push([key, skeleton(inner)]);
  }
  return entries;
}

/** The skeleton of what PostgreSQL would run, or the word that it would not. */
function meaning(sql: string): string {
  try {
    return JSON.stringify(parseStatements(sql).map((statement) => skeleton(statement.node)));
  } catch {
    return "rejected";
  }
}

test("values share a shape", () => {
  const shapes = ["SELECT 1, 'a' FROM t WHERE x = 2.5", "SELECT 42, 'it is ü' FROM t WHERE x = 0.25"].map(
    shapeOf,
  );
  expect(shapes[0]).toEqual(shapes[1]);
  expect(shapes[0]?.shape).toBe("SELECT ?i, ?s FROM t WHERE x = ?d");
});

test.each([
  ["SELECT 1", "SELECT 1.0"],
  ["SELECT '1'", "SELECT 1"],
  ["SELECT a1", "SELECT a2"],
  ["SELECT $1", "SELECT $2"],
  ["SELECT 'a' FROM t1", "SELECT 'a' FROM t2"],
  ['SELECT "a1"', 'SELECT "a2"'],
])("%s and %s have shapes of their own", (left, right) => {
  expect(shapeOf(left)?.shape).not.toBe(shapeOf(right)?.shape);
});

test.each([
  "SELECT E'a'",
  "SELECT e'\\''",
  "SELECT U&'\\0041'",
  "SELECT u&'x'",
  'SELECT U&"d\\0061ta"',
  "SELECT B'101'",
  "SELECT X'1F'",
  "SELECT N'a'",
  "SELECT 'it''s'",
  "SELECT 'a\\b'",
  "SELECT 'a'\n'b'",
  "SELECT 'a' 'b'",
  "SELECT 'a'/**/'b'",
  "SELECT 'a",
  "SELECT $$a$$",
  "SELECT $x$a$x$",
  "SELECT 1 -- x",
  "SELECT /* x */ 1",
  "SELECT 1/*",
  "SELECT a ? 'b'",
  "SELECT 12345678901",
  "SELECT 1e5",
  "SELECT 0x1F",
  "SELECT 1_000",
  "SELECT .5",
  "SELECT 1.",
  "SELECT 1..2",
  "SELECT 1a",
  "SELECT 'a'b",
  "SELECT ü",
  "SELECT 'a\u0000b'",
  "SELECT 'a\u007fb'",
  "SELECT '\ud800'",
  'SELECT "a""b"',
  'SELECT "?s"',
  "SELECT a\u00a0b",
  "SELECT \u200b1",
  "SELECT 'a'\u00a0'b'",
  "SELECT a$1",
  "\\d",
  "SELECT `a`",
  "SELECT {a}",
])("%j has no shape", (sql) => {
  expect(shapeOf(sql)).toBeUndefined();
});

const fragments = fc.constantFrom(
  ..."SELECT|FROM|WHERE|t|u|x|E|e|U&|U|B|X|N|AND|OR|NOT|IN|LIKE|ORDER BY|LIMIT|AS|INTERVAL|DATE|UESCAPE|UNION|;|,|(|)|=|<>|+|-|*|/|%|::|.|:=|=>|[|]|$1|$$|$a$|--|/*|*/|\\|?|'|''|'a'|'b\\'|'--'|'/*'|'$$'|'; DROP TABLE t; --'|\"|\"a\"|\"a'b\"|1|22|3.5|.5|5.|1e3|0x1F|1_0|123456789|1234567890|é|@|#|&|~|!|^|`|{|}".split(
    "|",
  ),
  " ",
  "\n",
  "\t",
  "\r",
  "\f",
  "\v",
  "\u00a0",
  "\0",
);

const literals = fc.oneof(
  fc.nat(999_999_999).map(String),
  fc.tuple(fc.nat(99_999), fc.nat(99_999)).map(([left, right]) => `${left}.${right}`),
  fc.string({ unit: "grapheme", maxLength: 12 }).map((text) => `'${text}'`),
  fc
    .string({ unit: fc.constantFrom("'", "\\", "-", "/", "*", "$", ";", '"', "a", "\n", " "), maxLength: 8 })
    .map((t) => `'${t}'`),
  fc.constantFrom("''", "'\\'", "'''", "'a''b'", "'--'", "'/*'", "'*/'", "1e1", "1.", "007", "0"),
);

test("any two texts of one shape mean the same but for constants", () => {
  const parts = fc.array(fc.oneof({ weight: 3, arbitrary: fragments }, { weight: 2, arbitrary: literals }), {
    maxLength: 14,
  });
  fc.assert(
    fc.property(
      parts,
      fc.array(literals, { minLength: 14, maxLength: 14 }),
      fc.boolean(),
      (pieces, others, spaced) => {
        const isLiteral = (piece: string) => /^['\d]/.test(piece);
        const changed = pieces.map((piece, index) => (isLiteral(piece) ? (others[index] ?? piece) : piece));
        const separator = spaced ? " " : "";
        const left = `SELECT ${pieces.join(separator)}`;
        const right = `SELECT ${changed.join(separator)}`;
        const first = shapeOf(left);
        const second = shapeOf(right);
        if (first === undefined || second === undefined || first.shape !== second.shape) return;
        expect(meaning(right)).toBe(meaning(left));
      },
    ),
    { numRuns: 20_000 },
  );
});

test("literals inside real statements never change what the statement is", () => {
  const statements = [
    (a: string, b: string) => `SELECT * FROM t WHERE x = ${a} AND y IN (${b}, ${a})`,
    (a: string, b: string) => `UPDATE t SET x=${a},y=-${b} WHERE id=${b}`,
    (a: string, b: string) => `INSERT INTO t(a,b) VALUES(${a},${b}),(${b},${a})`,
    (a: string, b: string) => `SELECT x[${a}], f(${b})::text, interval ${a} FROM t LIMIT ${b}`,
    (a: string, b: string) => `SELECT ${a}${b}`,
    (a: string, b: string) => `SELECT x${a} ${b}`,
    (a: string, b: string) => `SELECT ${a}\n${b}`,
  ];
  let compared = 0;
  fc.assert(
    fc.property(
      fc.constantFrom(...statements),
      literals,
      literals,
      literals,
      literals,
      (make, a, b, c, d) => {
        const [left, right] = [make(a, b), make(c, d)];
        const [first, second] = [shapeOf(left), shapeOf(right)];
        if (first === undefined || first.shape !== second?.shape) return;
        compared += 1;
        expect(meaning(right)).toBe(meaning(left));
      },
    ),
    { numRuns: 10_000 },
  );
  expect(compared).toBeGreaterThan(50);
});

test("a long text of many numbers takes time in proportion to its length", () => {
  const text = `SELECT ${Array.from({ length: 20_000 }, () => "1").join(",")}`;
  const start = process.cpuUsage();
  for (let times = 0; times < 10; times += 1) expect(shapeOf(text)?.shape).toContain("?i,?i");
  expect(process.cpuUsage(start).user).toBeLessThan(1_000_000);
});
