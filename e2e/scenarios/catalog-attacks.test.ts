/** Promise: who may define objects cannot bend what the gateway reads of the catalog: what a rule closes stays closed. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";

const policies = policyDocument(
  "shop",
  "ann",
  `  profile: Admin
  rules: [{name: closed, match: {objects: ["public.payroll"]}, action: Deny}]`,
);

let server: PostgresServer;
let gateway: Gateway;

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    database: "shop",
    initSql: `
      CREATE TABLE payroll (n int);
      INSERT INTO payroll VALUES (917351);
      CREATE ROLE app LOGIN PASSWORD 'app';
      GRANT ALL ON SCHEMA public TO app;
      GRANT CREATE ON DATABASE shop TO app;
      GRANT SELECT ON payroll TO app;`,
  });
  gateway = await startGateway({ server, policies, account: { username: "app", password: "app" } });
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

test("operators of a user's own do not run in what reads the catalog", async () => {
  const client = await gateway.connect({ user: "ann" });
  try {
    await client.query("CREATE SCHEMA mine; CREATE TABLE mine.notes (n int)");
    // Nearer to the types of counts and hashes than the server's own: to whoever searches public, no count changes again.
    await client.query(
      "CREATE FUNCTION public.one(int8, text) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT '1:'::text$$",
    );
    await client.query(
      "CREATE FUNCTION public.one(text, int8) RETURNS text IMMUTABLE LANGUAGE sql AS $$SELECT '1:1'::text$$",
    );
    for (const [left, right] of [
      ["text", "int8"],
      ["int8", "text"],
    ])
      await client.query(
        `CREATE OPERATOR public.|| (LEFTARG = ${left}, RIGHTARG = ${right}, FUNCTION = public.one)`,
      );
    const bent = "SELECT pg_catalog.count(*) || ':' AS text FROM pg_catalog.pg_class";
    expect((await client.query(bent)).rows).toEqual([{ text: "1:" }]);
    const read = "SELECT n FROM mine.notes";
    expect((await client.query(read)).rows).toEqual([]);
    await server.query("DROP TABLE mine.notes; CREATE VIEW mine.notes AS SELECT n FROM public.payroll");
    const answer = () =>
      client.query(read).then(
        () => "rows",
        ({ code }: { code: string }) => code,
      );
    await expect.poll(answer, { timeout: 20_000 }).toBe("42501");
  } finally {
    await client.end();
  }
});

test("a function that has replaced another is not taken for it, whatever numbers the server gave to both", async () => {
  const harmless = "SELECT 0";
  const telling = "SELECT n FROM payroll";
  const replace = (body: string) =>
    server.query(
      `DROP FUNCTION IF EXISTS peep(); CREATE FUNCTION peep() RETURNS int LANGUAGE sql AS $$${body}$$`,
    );
  const client = await gateway.connect({ user: "ann" });
  const peeped = () =>
    client.query("SELECT peep()").then(
      ({ rows }) => rows[0]?.peep,
      (error: { code: string }) => error.code,
    );
  try {
    await replace(harmless);
    // Each takes the next object id and, shifted or not, the next even transaction id with an even one of these.
    for (const isShifted of [false, true]) {
      if (isShifted) await server.query("SELECT pg_catalog.pg_current_xact_id()");
      for (const body of [harmless, telling, harmless, harmless, telling]) {
        await replace(body);
        await expect.poll(peeped, { timeout: 10_000 }).toBe(body === harmless ? 0 : "42501");
      }
    }
  } finally {
    await client.end();
  }
});
