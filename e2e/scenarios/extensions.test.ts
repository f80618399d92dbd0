/** What extensions and defaults bring is no reason to refuse everyday statements, and no way around rules. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";

let server: PostgresServer;
let gateway: Gateway;

const schema = `
CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION pg_trgm; CREATE EXTENSION pgcrypto;
CREATE EXTENSION "uuid-ossp"; CREATE EXTENSION tablefunc; CREATE EXTENSION dblink;
CREATE TABLE people (id uuid PRIMARY KEY DEFAULT uuid_generate_v4(), mail citext UNIQUE CHECK (length(mail) > 2),
  tags hstore, digest bytea DEFAULT digest('x', 'sha256'));
CREATE INDEX ON people USING gin ((mail::text) gin_trgm_ops);
INSERT INTO people (mail, tags) VALUES ('Ann@example.com', 'a=>1');
CREATE SCHEMA hr; CREATE TABLE hr.salaries (mail citext, amount int); INSERT INTO hr.salaries VALUES ('ann', 917351);
CREATE TABLE counter (last int); INSERT INTO counter VALUES (0);
CREATE FUNCTION next_number() RETURNS int LANGUAGE sql AS 'UPDATE counter SET last = last + 1 RETURNING last';
CREATE TABLE numbered (n int DEFAULT next_number(), note text); INSERT INTO numbered VALUES (7, 'x');
`;

const policies = [
  policyDocument(
    "shop",
    "reader",
    `  profile: ReadOnly
  rules:
  - {name: closed, match: {objects: ["hr.*"]}, action: Deny}
  - {name: keys, match: {objects: ["public.pgp_sym_decrypt"]}, action: Deny}`,
    "readers",
  ),
  policyDocument(
    "shop",
    "writer",
    `  profile: ReadWrite
  rules:
  - {name: closed, match: {objects: ["hr.*"]}, action: Deny}
  - {name: counts, match: {operations: [write], objects: ["public.counter"]}, action: Deny}`,
    "writers",
  ),
].join("");

beforeAll(async () => {
  server = await startPostgres({ tls: true, database: "shop", initSql: schema });
  gateway = await startGateway({ server, policies });
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

async function outcomes(user: string, statements: readonly string[]): Promise<Record<string, string>> {
  const client = await gateway.connect({ user });
  const found: Record<string, string> = {};
  for (const sql of statements) {
    found[sql] = await client.query(sql).then(
      ({ rowCount }) => `${rowCount} rows`,
      (error: { code?: string }) => error.code ?? "none",
    );
  }
  await client.end();
  return found;
}

const all = (statements: readonly string[], outcome: string) =>
  Object.fromEntries(statements.map((sql) => [sql, outcome]));

test("types, operators and functions of known extensions are read and written as those of the server", async () => {
  const reads = [
    "SELECT * FROM people",
    "SELECT id FROM people WHERE mail = 'ANN@example.com'",
    "SELECT id FROM people WHERE mail = 'ann@example.com'::citext AND tags -> 'a' = '1'",
    "SELECT similarity(mail::text, 'ann') FROM people WHERE mail::text % 'ann@example.co'",
    "SELECT tags::json, digest(mail::text, 'sha256'), crypt('a', 'ab') FROM people",
    "SELECT uuid_generate_v4(), gen_random_bytes(4)",
    "SELECT 1 WHERE 1 = 1",
  ];
  expect(await outcomes("reader", reads)).toEqual(all(reads, "1 rows"));
  const writes = [
    "INSERT INTO people (mail) VALUES ('bob@example.com')",
    "INSERT INTO people (id, mail) VALUES (uuid_generate_v4(), 'eve@example.com')",
    "UPDATE people SET tags = tags || 'b=>2' WHERE mail = 'ann@example.com'",
    "DELETE FROM people WHERE mail = 'Bob@example.com'",
  ];
  expect(await outcomes("writer", writes)).toEqual(all(writes, "1 rows"));
});

test("what of extensions runs SQL, reaches others or sets something is refused as before, and so is what a rule names", async () => {
  const closed = [
    "SELECT * FROM crosstab('SELECT 1, mail::text, amount FROM hr.salaries') AS x (a int, b int)",
    "SELECT * FROM dblink('dbname=shop', 'SELECT mail FROM hr.salaries') AS x (a text)",
    "SELECT set_limit(0.1)",
    "SELECT pgp_sym_decrypt('\\x00', 'key')",
    "SELECT populate_record(NULL::people, 'a=>1')",
    "SELECT mail FROM hr.salaries WHERE mail = 'ann'",
  ];
  expect(await outcomes("reader", closed)).toEqual(all(closed, "42501"));
});

test("a default that writes runs with what is written, and not with what is read", async () => {
  expect(await outcomes("reader", ["SELECT * FROM numbered"])).toEqual({
    "SELECT * FROM numbered": "1 rows",
  });
  const writes = [
    "INSERT INTO numbered (note) VALUES ('y')",
    "INSERT INTO numbered DEFAULT VALUES RETURNING n",
  ];
  expect(await outcomes("writer", writes)).toEqual(all(writes, "42501"));
  expect(await server.query("SELECT last FROM counter")).toEqual([{ last: 0 }]);
});
