/** Programs that nobody wrote for a gateway work under policies as a security team would write them. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { testWith } from "../drivers/test-with.ts";
import { pythonScript, type Toolchain } from "../drivers/toolchains.ts";
import { policyDocument } from "../targets/policies.ts";
import { type Shop, startShop } from "../targets/shop.ts";

const noPayroll = `{name: payroll-is-closed, match: {objects: ["hr.*"]}, action: Deny, message: payroll belongs to HR}`;
const policies = [
  policyDocument(
    "shop",
    "deployment",
    `  profile: ReadWrite
  rules:
  - {name: structure, match: {operations: [define]}, action: Allow}
  - ${noPayroll}`,
  ),
  policyDocument(
    "shop",
    "application",
    `  profile: ReadWrite
  rules:
  - name: audit-stays
    match: {objects: ["public.django_admin_log", "public.audit"], commands: [DELETE, UPDATE, TRUNCATE]}
    action: Deny
    message: the audit trail is only added to
  - {name: all-rows, match: {unbounded: true}, action: Deny, message: name the rows that you mean}
  - ${noPayroll}`,
  ),
  policyDocument(
    "shop",
    "analyst",
    `  profile: ReadOnly
  rules:
  - ${noPayroll}
  masking:
  - {columns: ["*.*.email"], with: Redact}`,
  ),
  policyDocument("shop", "migration", "  profile: SchemaOnly"),
].join("");

let shop: Shop;

beforeAll(async () => {
  shop = await startShop({
    // No superuser, as applications have it: owner of its own databases.
    initSql: `CREATE ROLE owner LOGIN PASSWORD 'owner'; ALTER DATABASE shop OWNER TO owner; ALTER SCHEMA public OWNER TO owner;
      SET ROLE owner;
      CREATE TABLE public.orders (id serial PRIMARY KEY, amount int);
      CREATE TABLE public.audit (id int GENERATED ALWAYS AS IDENTITY, what text);
      CREATE SCHEMA hr; CREATE TABLE hr.salaries (id serial, amount int)`,
    policies,
    account: { username: "owner", password: "owner" },
  });
  for (const name of ["django", "alembic"]) await shop.server.query(`CREATE DATABASE ${name} OWNER owner`);
});
afterAll(() => shop?.stop());

async function linesOf(toolchain: Extract<Toolchain, { kind: "ready" }>, database: string) {
  const { command, args } = toolchain;
  const env = {
    PATH: process.env.PATH ?? "",
    SALLYPORT_HOST: shop.gateway.host,
    SALLYPORT_PORT: String(shop.gateway.port),
    SALLYPORT_USER: shop.gateway.user,
    SALLYPORT_DATABASE: database,
    SALLYPORT_CA: shop.gateway.caFile,
    SALLYPORT_DEPLOYMENT: await shop.gateway.token({ user: "deployment" }),
    SALLYPORT_APPLICATION: await shop.gateway.token({ user: "application" }),
    SALLYPORT_ANALYST: await shop.gateway.token({ user: "analyst" }),
  };
  const { stdout } = await promisify(execFile)(command, [...args], { env, timeout: 110_000 });
  return stdout.trim().split("\n");
}

testWith(
  "Django migrates, works and resets its sequences",
  await pythonScript("django_script.py"),
  async (ready) => {
    expect(await linesOf(ready, "django")).toEqual([
      "ok migrations, and what hangs on them: permissions, types of content, a site by a sequence set anew",
      "ok migrations back and forth",
      "ok objects: many at once, joins, aggregates, subqueries, cursors of the server",
      "ok transactions, savepoints, locks of rows and advisory ones",
      "ok refusals of what the policy closes, and the session goes on",
      "ok an analyst sees masks, counts rows, and inspects the database",
      "ok sequences set anew after rows with numbers of their own",
    ]);
  },
);

testWith(
  "Alembic compares, migrates and goes back",
  await pythonScript("alembic_script.py"),
  async (ready) => {
    expect(await linesOf(ready, "alembic")).toEqual([
      "ok a generated migration, and nothing is left to generate",
      "ok what somebody changed is found",
      "ok psycopg: an application's objects, and a refusal",
      "ok psycopg2: an application's objects, and a refusal",
      "ok the way back, to the last schema",
    ]);
  },
);

describe("what programs say beside their work", () => {
  /** What each statement of a new session is answered: OK, or the SQLSTATE with the hint's word for it. */
  async function answers(user: string, statements: readonly string[]): Promise<readonly string[]> {
    const client = await shop.gateway.connect({ user });
    const answered: string[] = [];
    for (const statement of statements) {
      const refused = ({ code, hint }: pg.DatabaseError) => `${code} ${hint?.split(";")[0] ?? ""}`.trim();
      answered.push(await client.query(statement).then(() => "OK", refused));
    }
    await client.end();
    return answered;
  }

  test.each(["analyst", "application", "migration"])("a pool hands %s's connection on", async (user) => {
    const resets = [
      "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL",
      "DISCARD ALL",
      // As pools of Npgsql and deadpool, which keep what is prepared, and Flyway after a migration.
      "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD SEQUENCES; DISCARD TEMP",
      "RESET ROLE; RESET SESSION AUTHORIZATION; SET ROLE NONE; SET ROLE 'owner'",
      "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
      "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE READ WRITE",
    ];
    expect(await answers(user, resets)).toEqual(resets.map(() => "OK"));
  });

  test("a session that is told to read only does no more by a policy that lets it write nothing", async () => {
    const statements = ["SET default_transaction_read_only = off", "INSERT INTO orders (amount) VALUES (1)"];
    expect(await answers("analyst", statements)).toEqual(["OK", "42501 INSERT counts as write"]);
  });

  test("who writes or migrates takes turns by advisory locks, who reads does not", async () => {
    const locks = [
      "SELECT pg_try_advisory_lock(1), pg_advisory_unlock(1)",
      "SELECT pg_advisory_xact_lock(1, 2)",
    ];
    expect(await answers("application", locks)).toEqual(["OK", "OK"]);
    expect(await answers("migration", locks)).toEqual(["OK", "OK"]);
    const refused = "42501 SELECT counts as control";
    expect(await answers("analyst", locks)).toEqual([refused, refused]);
  });

  test("a migration makes a table with serial columns, alters it and fills it in one transaction", async () => {
    const structure = [
      "BEGIN",
      "CREATE TABLE numbered (id bigserial PRIMARY KEY)",
      "CREATE TYPE mood AS ENUM ('low', 'high')",
      "ALTER TABLE numbered ADD COLUMN mood mood DEFAULT 'low', ADD COLUMN other serial, ADD COLUMN note text NOT NULL DEFAULT ''",
      "ALTER TABLE orders ADD COLUMN number serial",
    ];
    const statements = [...structure, "INSERT INTO numbered DEFAULT VALUES", "ROLLBACK"];
    expect(await answers("deployment", statements)).toEqual(statements.map(() => "OK"));
    expect(await answers("migration", structure)).toEqual(structure.map(() => "OK"));
  });

  test("a column's sequence is set by the one who writes, where no rule closes one beside it", async () => {
    const reset = (table: string) => `SELECT setval(pg_get_serial_sequence('${table}', 'id'), 41)`;
    expect(await answers("application", [reset("orders"), reset("hr.salaries")])).toEqual(["OK", "42501"]);
    expect(await answers("analyst", [reset("orders")])).toEqual(["42501 SELECT counts as write"]);
    const [{ last }] = (await shop.server.query("SELECT last_value::int AS last FROM orders_id_seq")) as [
      { last: number },
    ];
    expect(last).toBe(41);
    expect(await shop.server.query("SELECT is_called FROM hr.salaries_id_seq")).toEqual([
      { is_called: false },
    ]);
  });
});
