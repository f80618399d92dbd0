/** node-postgres through the gateway: each check prints `ok <what holds>`; the first that fails ends the script. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Readable } from "node:stream";
import { buffer, text } from "node:stream/consumers";
import { pipeline } from "node:stream/promises";
import pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";

const endless = "SELECT count(*) FROM generate_series(1, 100000000000)";
const environment = (name: string): string => process.env[name] ?? assert.fail(`${name} is not set`);
const settings = {
  host: environment("SALLYPORT_HOST"),
  port: Number(environment("SALLYPORT_PORT")),
  user: environment("SALLYPORT_USER"),
  database: environment("SALLYPORT_DATABASE"),
  ssl: { ca: readFileSync(environment("SALLYPORT_CA"), "utf8") },
};
const ok = (what: string) => console.log("ok", what);

const client = new pg.Client({ ...settings, password: environment("SALLYPORT_TOKEN") });
await client.connect();
ok("connects with a verified certificate and a token as password");

const both = (await client.query("SELECT 1 AS n; SELECT 2 AS n")) as unknown as pg.QueryResult[];
assert.deepEqual(
  both.map(({ rows }) => rows[0].n),
  [1, 2],
);
ok("simple statements");

assert.equal(await one("SELECT name FROM customers WHERE id = $1", 1), "Ada");
ok("parameters");

const binary = await client.query({
  text: "SELECT convert_from($1::bytea, 'UTF8') AS sent, $2::int4 AS number, $3::text AS word",
  values: [Buffer.from("žluťoučký"), 1 << 30, "kůň"],
  // The types do not know this option of node-postgres.
  ...{ binary: true },
});
assert.deepEqual(binary.rows[0], { sent: "žluťoučký", number: 1 << 30, word: "kůň" });
ok("binary parameters and results");

for (let number = 0; number < 7; number++) {
  const values = [1 + (number % 3)];
  const { rows } = await client.query({
    name: "by-id",
    text: "SELECT id FROM customers WHERE id = $1",
    values,
  });
  assert.equal(rows[0].id, values[0]);
}
ok("prepared statements");

await refused("DELETE FROM orders");
await refused("SELECT * FROM payroll WHERE customer_id = $1", 1);
assert.equal(await one("SELECT 'usable'"), "usable");
ok("a refusal is 42501 and the connection stays usable");

const before = await orders();
await client.query("BEGIN");
await client.query("INSERT INTO orders (customer_id, amount) VALUES (1, 1)");
await refused("DELETE FROM orders");
await assert.rejects(client.query("SELECT 1"), { code: "25P02" });
assert.equal((await client.query("COMMIT")).command, "ROLLBACK");
assert.equal(await orders(), before);
ok("a refusal aborts the transaction");

await client.query("BEGIN; SAVEPOINT a");
await client.query("INSERT INTO orders (customer_id, amount) VALUES (1, 1)");
await client.query("SAVEPOINT b");
await refused("DELETE FROM orders");
await client.query("ROLLBACK TO b");
assert.equal(await orders(), before + 1);
await client.query("ROLLBACK");
ok("a savepoint survives a refusal behind it");

const csv = await text(client.query(copyTo("COPY (SELECT id, name FROM customers ORDER BY id) TO STDOUT")));
assert.ok(csv.startsWith("1\tAda\n"), csv);
ok("copy out");

await client.query("BEGIN");
const lines = Array.from({ length: 1000 }, (_, number) => `1\t${number}\n`);
await pipeline(Readable.from(lines), client.query(copyFrom("COPY orders (customer_id, amount) FROM STDIN")));
assert.equal(await orders(), before + 1000);
await client.query("ROLLBACK");
ok("copy in");

const rows = await buffer(client.query(copyTo("COPY customers (id, name) TO STDOUT BINARY")));
await client.query("BEGIN");
await pipeline(Readable.from([rows]), client.query(copyFrom("COPY arrivals FROM STDIN BINARY")));
assert.equal(await one("SELECT name FROM arrivals WHERE id = $1", 1), "Ada");
await client.query("ROLLBACK");
ok("binary copy out and in again");

const pipelined = new pg.Client({ ...settings, password: environment("SALLYPORT_TOKEN"), pipeline: true });
await pipelined.connect();
const flight = await Promise.allSettled([
  pipelined.query("SELECT $1::text AS word", ["first"]),
  pipelined.query("DELETE FROM orders"),
  pipelined.query({ name: "third", text: "SELECT $1::text AS word", values: ["third"] }),
]);
assert.deepEqual(
  flight.map((answer) => (answer.status === "fulfilled" ? answer.value.rows[0].word : answer.reason.code)),
  ["first", "42501", "third"],
);
await pipelined.end();
ok("a refusal in a pipeline answers its own statement only");

const running = assert.rejects(client.query(endless), { code: "57014" });
const canceller = new pg.Client({ ...settings, password: environment("SALLYPORT_TOKEN") });
// node-postgres sends cancel requests only through this undocumented pair of methods.
(canceller as unknown as { cancel(client: pg.Client, query: unknown): void }).cancel(
  client,
  (client as unknown as { _getActiveQuery?(): unknown; activeQuery?: unknown })._getActiveQuery?.() ??
    (client as unknown as { activeQuery?: unknown }).activeQuery,
);
await running;
assert.equal(await one("SELECT 1"), 1);
ok("cancel");
await client.end();

const intruder = new pg.Client({ ...settings, password: "not-a-token" });
await assert.rejects(intruder.connect(), (error: pg.DatabaseError) => {
  assert.match(String(error.code), /^28/);
  assert.doesNotMatch(error.message, /not-a-token/);
  return true;
});
ok("a wrong token is refused");

async function one(statement: string, ...values: unknown[]): Promise<unknown> {
  const { rows } = await client.query({ text: statement, values, rowMode: "array" });
  return rows[0]?.[0];
}

async function orders(): Promise<number> {
  return Number(await one("SELECT count(*) FROM orders"));
}

async function refused(statement: string, ...values: unknown[]): Promise<void> {
  await assert.rejects(client.query(statement, values), { code: "42501" });
}
