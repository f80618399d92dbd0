/** porsager/postgres, which pipelines by itself, through the gateway: prints `ok <what holds>` for each check. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
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
ok("parameters");

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
