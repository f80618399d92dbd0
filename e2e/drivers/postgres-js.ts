/** porsager/postgres, which pipelines by itself, through the gateway: prints `ok <what holds>` for each check. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Readable } from "node:stream";
import { buffer, text } from "node:stream/consumers";
import { pipeline } from "node:stream/promises";
import postgres from "postgres";

const environment = (name: string): string => process.env[name] ?? assert.fail(`${name} is not set`);
const settings = {
  host: environment("SALLYPORT_HOST"),
  port: Number(environment("SALLYPORT_PORT")),
  user: environment("SALLYPORT_USER"),
  database: environment("SALLYPORT_DATABASE"),
  ssl: { ca: readFileSync(environment("SALLYPORT_CA"), "utf8") },
  max: 1,
};
const ok = (what: string) => console.log("ok", what);
const sql = postgres({ ...settings, password: environment("SALLYPORT_TOKEN") });

assert.deepEqual([...(await sql`SELECT name FROM customers WHERE id = ${1}`)], [{ name: "Ada" }]);
ok("connects with a verified certificate and a token as password");
ok("parameters");

for (let number = 0; number < 7; number++) {
  const id = 1 + (number % 3);
  assert.deepEqual([...(await sql`SELECT id FROM customers WHERE id = ${id}`)], [{ id }]);
}
ok("prepared statements");

const both = await sql`SELECT 1 AS n; SELECT 2 AS n`.simple();
assert.deepEqual(
  (both as unknown as { n: number }[][]).map(([row]) => row?.n),
  [1, 2],
);
ok("simple statements");

// One connection: the three leave in one flight, and each answer belongs to its own statement.
const flight = await Promise.allSettled([
  sql`SELECT 'first' AS word`,
  sql`DELETE FROM orders`,
  sql`SELECT 'third' AS word`,
]);
assert.deepEqual(
  flight.map((answer) => (answer.status === "fulfilled" ? answer.value[0]?.word : answer.reason.code)),
  ["first", "42501", "third"],
);
ok("a refusal in a pipeline answers its own statement only");
assert.deepEqual([...(await sql`SELECT 'usable' AS word`)], [{ word: "usable" }]);
ok("a refusal is 42501 and the connection stays usable");

const [{ before }] = (await sql`SELECT count(*)::int AS before FROM orders`) as [{ before: number }];
await assert.rejects(
  sql.begin(async (transaction) => {
    await transaction`INSERT INTO orders (customer_id, amount) VALUES (1, 1)`;
    await transaction`DELETE FROM orders`;
  }),
  { code: "42501" },
);
assert.deepEqual([...(await sql`SELECT count(*)::int AS n FROM orders`)], [{ n: before }]);
ok("a refusal aborts the transaction");

const counted = async (on: postgres.ISql) => Number((await on`SELECT count(*) AS n FROM orders`)[0]?.n);
await assert.rejects(
  sql.begin(async (transaction) => {
    await transaction`INSERT INTO orders (customer_id, amount) VALUES (1, 1)`;
    await assert.rejects(
      transaction.savepoint((inner) => inner`DELETE FROM orders`),
      { code: "42501" },
    );
    assert.equal(await counted(transaction), before + 1);
    throw new Error("enough");
  }),
  /enough/,
);
assert.equal(await counted(sql), before);
ok("a savepoint survives a refusal behind it");

const csv = await text(await sql`COPY (SELECT id, name FROM customers ORDER BY id) TO STDOUT`.readable());
assert.ok(csv.startsWith("1\tAda\n"), csv);
ok("copy out");

await assert.rejects(
  sql.begin(async (transaction) => {
    const lines = Array.from({ length: 1000 }, (_, number) => `1\t${number}\n`);
    const into = await transaction`COPY orders (customer_id, amount) FROM STDIN`.writable();
    await pipeline(Readable.from(lines), into);
    assert.equal(await counted(transaction), before + 1000);
    throw new Error("enough");
  }),
  /enough/,
);
ok("copy in");

const rows = await buffer(await sql`COPY customers (id, name) TO STDOUT BINARY`.readable());
await assert.rejects(
  sql.begin(async (transaction) => {
    await pipeline(Readable.from([rows]), await transaction`COPY arrivals FROM STDIN BINARY`.writable());
    assert.deepEqual([...(await transaction`SELECT name FROM arrivals WHERE id = 1`)], [{ name: "Ada" }]);
    throw new Error("enough");
  }),
  /enough/,
);
ok("binary copy out and in again");

const walked: number[] = [];
for await (const rows of sql`SELECT id FROM customers ORDER BY id`.cursor(2)) {
  walked.push(...rows.map((row) => row.id as number));
}
assert.deepEqual(walked, [1, 2, 3]);
ok("cursors");

const endless = sql`SELECT count(*) FROM generate_series(1, 100000000000)`.execute();
setTimeout(() => endless.cancel(), 300);
await assert.rejects(endless, { code: "57014" });
assert.deepEqual([...(await sql`SELECT 1 AS n`)], [{ n: 1 }]);
ok("cancel");
await sql.end();

const intruder = postgres({ ...settings, password: "not-a-token" });
await assert.rejects(intruder`SELECT 1`.execute(), (error: postgres.PostgresError) => {
  assert.match(error.code, /^28/);
  assert.doesNotMatch(error.message, /not-a-token/);
  return true;
});
await intruder.end();
ok("a wrong token is refused");
