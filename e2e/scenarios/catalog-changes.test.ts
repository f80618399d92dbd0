/** Promise: a catalog that reads only what has changed knows what one that reads everything knows, whatever is defined. */
import { LiveCatalog } from "@sallyport/sidecar/postgres-catalog";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";

/** More for a night: `SALLYPORT_CATALOG_SEEDS=1,2,3 SALLYPORT_CATALOG_STEPS=2000`. */
const seeds = (process.env.SALLYPORT_CATALOG_SEEDS ?? "12").split(",").map(Number);
const steps = Number(process.env.SALLYPORT_CATALOG_STEPS ?? 100);

let server: PostgresServer;
let side: pg.Client;

beforeAll(async () => {
  server = await startPostgres({ database: "shop", settings: { autovacuum: "off" } });
  side = await connected();
});
afterAll(async () => {
  await side?.end();
  await server?.stop();
});

async function connected(): Promise<pg.Client> {
  const client = new pg.Client(server.connectionString);
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

function liveCatalog(client: pg.Client, asked: string[] = []): LiveCatalog {
  const query = async (sql: string, values?: readonly (string | null)[]) => {
    asked.push(sql);
    return (await client.query(sql, values?.slice())).rows;
  };
  return new LiveCatalog({ query, ageMs: 1000, monotonicMs: () => performance.now() });
}

/** The same numbers for the same seed (mulberry32). */
function randomOf(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** Definitions of every kind, of few names, so that they meet; most fail when they are not possible, which is fine. */
function definition(random: (below: number) => number): string {
  const one = (...from: readonly string[]) => from[random(from.length)]!;
  const schema = () => one("public", "s1", "s2");
  const table = () => `${schema()}.${one("t1", "t2", "t3", "t4")}`;
  const view = () => `${schema()}.${one("v1", "v2")}`;
  const routine = () => `${schema()}.${one("f1", "f2")}`;
  const type = () => `${schema()}.${one("d1", "c1", "e1")}`;
  const column = () => one("a", "b", "c", "d");
  const columnType = () => one("int", "text", type(), `${type()}[]`, "timestamptz");
  const cascade = () => one("", "CASCADE");
  const body = () =>
    one(
      `LANGUAGE sql AS 'SELECT ${random(9)}'`,
      `LANGUAGE plpgsql SECURITY DEFINER SET search_path = ${schema()} AS 'BEGIN RETURN ${random(9)}; END'`,
      `IMMUTABLE RETURN ${random(9)} + a`,
      `BEGIN ATOMIC SELECT count(*)::int FROM ${table()}; END`,
    );
  const trigger = () =>
    `CREATE OR REPLACE FUNCTION ${schema()}.tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`;
  const made: readonly (() => string)[] = [
    () => `CREATE TABLE ${table()} (a int PRIMARY KEY, b ${columnType()}, c text DEFAULT upper('x'))`,
    () => `CREATE TABLE ${table()} (a int, b int GENERATED ALWAYS AS (a * 2) STORED) INHERITS (${table()})`,
    () => `CREATE TABLE ${table()} (a int, b text) PARTITION BY RANGE (a)`,
    () =>
      `CREATE TABLE ${table()} PARTITION OF ${table()} FOR VALUES FROM (${random(3)}) TO (${3 + random(3)})`,
    () => `CREATE TABLE ${table()} AS SELECT * FROM ${table()}`,
    () => `CREATE TABLE ${table()} (LIKE ${table()} INCLUDING ALL)`,
    () => `CREATE TEMP TABLE ${one("t1", "t2")} (x ${columnType()})`,
    () => `DROP TABLE ${table()} ${cascade()}`,
    () => `ALTER TABLE ${table()} RENAME TO ${one("t1", "t2", "t3", "t4")}`,
    () => `ALTER TABLE ${table()} RENAME COLUMN ${column()} TO ${column()}`,
    () => `ALTER TABLE ${table()} ADD COLUMN ${column()} ${columnType()}`,
    () => `ALTER TABLE ${table()} ADD COLUMN ${column()} int DEFAULT ${routine()}(1)`,
    () => `ALTER TABLE ${table()} DROP COLUMN ${column()} ${cascade()}`,
    () => `ALTER TABLE ${table()} ALTER COLUMN ${column()} TYPE ${columnType()} USING NULL`,
    () => `ALTER TABLE ${table()} ADD COLUMN ${column()} ${one("int", "varchar(9)")} DEFAULT ${random(3)}`,
    () => `ALTER TABLE ${one(table(), view())} ALTER COLUMN ${column()} DROP DEFAULT`,
    () => `ALTER TABLE ${one(table(), view())} ALTER COLUMN ${column()} SET DEFAULT ${random(3)}`,
    () =>
      `ALTER TABLE ${table()} ALTER COLUMN ${column()} SET DEFAULT length(query_to_xml('', true, true, '')::text)`,
    () => `ALTER TABLE ${table()} ALTER COLUMN ${column()} DROP EXPRESSION`,
    () =>
      `ALTER TABLE ${table()} ADD COLUMN ${column()} int GENERATED ALWAYS AS (abs(a) + ${random(3)}) STORED`,
    () => `INSERT INTO ${table()} (a) VALUES (${random(9)})`,
    () => `ALTER TABLE ${table()} SET SCHEMA ${schema()}`,
    () => `ALTER TABLE ${table()} INHERIT ${table()}`,
    () => `ALTER TABLE ${table()} NO INHERIT ${table()}`,
    () => `ALTER TABLE ${table()} DETACH PARTITION ${table()}`,
    () => `ALTER TABLE ${table()} ATTACH PARTITION ${table()} DEFAULT`,
    () => `ALTER TABLE ${table()} ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES ${table()} ON DELETE CASCADE`,
    () => `ALTER TABLE ${table()} ADD CONSTRAINT k CHECK (${routine()}(a) > 0) NOT VALID`,
    () =>
      `ALTER TABLE ${table()} ADD CONSTRAINT k CHECK (a < ${5 + random(9)} AND left('word', a) <> '') NOT VALID`,
    () => `ALTER TABLE ${table()} RENAME CONSTRAINT k TO ${one("k", "l")}`,
    () => `ALTER TABLE ${table()} VALIDATE CONSTRAINT k`,
    () => `ALTER TABLE ${table()} DROP CONSTRAINT ${one("k", "l")}`,
    () => `ALTER TABLE ${table()} ENABLE ROW LEVEL SECURITY`,
    () => `CREATE POLICY p ON ${table()} USING (${routine()}(1) > 0)`,
    () => `DROP POLICY p ON ${table()}`,
    () => `CREATE RULE r AS ON UPDATE TO ${table()} DO ALSO DELETE FROM ${table()}`,
    () => `DROP RULE r ON ${table()}`,
    () => `DROP RULE r ON ${table()}; VACUUM ${table()}`,
    trigger,
    () =>
      `CREATE OR REPLACE TRIGGER g AFTER ${one("INSERT", "DELETE", "UPDATE")} ON ${table()} EXECUTE FUNCTION ${schema()}.tf()`,
    () => `ALTER TABLE ${table()} ${one("DISABLE", "ENABLE")} TRIGGER g`,
    () => `DROP TRIGGER g ON ${table()}`,
    () => `CREATE INDEX ON ${table()} (${routine()}(a))`,
    () => `CREATE INDEX i ON ${table()} (a)`,
    () => `DROP INDEX ${schema()}.i`,
    () => `CREATE STATISTICS ${schema()}.k ON (${routine()}(a)), a FROM ${table()}`,
    () => `DROP STATISTICS ${schema()}.k`,
    () => `CREATE OR REPLACE VIEW ${view()} AS SELECT * FROM ${table()}`,
    () => `CREATE OR REPLACE VIEW ${view()} AS SELECT ${routine()}(a) AS a FROM ${table()}`,
    () => `CREATE MATERIALIZED VIEW ${view()} AS SELECT a FROM ${table()}`,
    () => `DROP VIEW ${view()} ${cascade()}`,
    () => `DROP MATERIALIZED VIEW ${view()} ${cascade()}`,
    () => `ALTER VIEW ${view()} RENAME COLUMN ${column()} TO ${column()}`,
    () => `ALTER VIEW ${view()} RENAME TO ${one("v1", "v2")}`,
    () => `CREATE OR REPLACE FUNCTION ${routine()}(a int) RETURNS int ${body()}`,
    () => `CREATE OR REPLACE FUNCTION ${routine()}(a ${type()}, b ${table()} DEFAULT NULL) RETURNS SETOF ${table()}
      LANGUAGE sql AS 'SELECT * FROM ${table()}'`,
    () => `DROP FUNCTION ${routine()}(int) ${cascade()}`,
    () => `ALTER FUNCTION ${routine()}(int) RENAME TO ${one("f1", "f2")}`,
    () => `ALTER FUNCTION ${routine()}(int) SET SCHEMA ${schema()}`,
    () => `CREATE AGGREGATE ${schema()}.total(int) (SFUNC = int4pl, STYPE = int, FINALFUNC = ${routine()})`,
    () => `CREATE OPERATOR ${schema()}.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)`,
    () => `DROP OPERATOR ${schema()}.=== (int, int) CASCADE`,
    () => `CREATE DOMAIN ${schema()}.d1 AS int CHECK (${routine()}(VALUE) > 0)`,
    () => `ALTER DOMAIN ${schema()}.d1 DROP CONSTRAINT d1_check`,
    () => `CREATE TYPE ${schema()}.c1 AS (a int, b ${one("text", `${schema()}.d1`)})`,
    () => `ALTER TYPE ${schema()}.c1 ${one("ADD", "DROP")} ATTRIBUTE ${column()} ${one("CASCADE", "")}`,
    () => `ALTER TYPE ${schema()}.c1 ADD ATTRIBUTE ${column()} ${schema()}.d1 CASCADE`,
    () => `CREATE TYPE ${schema()}.e1 AS ENUM ('x')`,
    () => `ALTER TYPE ${type()} RENAME TO ${one("d1", "c1", "e1")}`,
    () => `DROP TYPE ${type()} ${cascade()}`,
    () => `DROP DOMAIN ${schema()}.d1 ${cascade()}`,
    () => `CREATE SCHEMA ${one("s1", "s2")}`,
    () => `ALTER SCHEMA ${one("s1", "s2")} RENAME TO ${one("s1", "s2")}`,
    () => `GRANT USAGE ON SCHEMA ${schema()} TO PUBLIC`,
    () => `CREATE SEQUENCE ${schema()}.q OWNED BY ${table()}.a`,
    () => `TRUNCATE ${table()}`,
    () => `VACUUM FULL ${table()}`,
    () => `DO 'BEGIN CREATE TABLE ${table()} (a int); DROP VIEW IF EXISTS ${view()} CASCADE; END'`,
    () => `CREATE OR REPLACE FUNCTION ${schema()}.makes() RETURNS int LANGUAGE plpgsql AS
      'BEGIN ALTER TABLE ${table()} ADD COLUMN ${column()} ${columnType()}; RETURN 1; END'`,
    () => `SELECT ${schema()}.makes()`,
    () => `COMMENT ON TABLE ${table()} IS 'x'`,
  ];
  // Schemas go seldom, and take much with them.
  return random(90) === 0 ? `DROP SCHEMA ${one("s1", "s2")} CASCADE` : one(...made.map((make) => make()));
}

let done = 0;

/** Something of most kinds: most definitions have something to work on. */
const beginning = [
  "CREATE SCHEMA s1; CREATE SCHEMA s2",
  "CREATE FUNCTION public.f1(a int) RETURNS int IMMUTABLE RETURN a + 1",
  ...["public", "s1", "s2"].flatMap((schema) => [
    `CREATE TYPE ${schema}.c1 AS (a int, b text)`,
    `CREATE DOMAIN ${schema}.d1 AS int CHECK (VALUE > 0)`,
    ...["t1", "t2", "t3"].map(
      (name) => `CREATE TABLE ${schema}.${name} (a int PRIMARY KEY, b ${schema}.c1, c ${schema}.d1)`,
    ),
    `CREATE VIEW ${schema}.v1 AS SELECT a, b, public.f1(a) AS d FROM ${schema}.t1`,
  ]),
];

async function attempt(client: pg.Client, sql: string): Promise<void> {
  try {
    await client.query(sql);
    done += 1;
  } catch {
    // Impossible, or behind a lock of the other session: nothing has changed then.
  }
}

test.for(seeds)(
  "what has changed, added to what was known, is the catalog (seed %i)",
  { timeout: 120_000 + 1000 * steps },
  async (seed) => {
    const random = randomOf(seed);
    done = 0;
    const [first, second, other] = [await connected(), await connected(), await connected()];
    const asked: string[] = [];
    const known = liveCatalog(side, asked);
    try {
      for (const client of [first, second]) await client.query("SET lock_timeout = '20ms'");
      for (const sql of beginning) await first.query(sql);
      await known.refresh(true);
      const log: string[] = [];
      let compared = 0;
      for (let step = 0; step < steps; step += 1) {
        const client = random(3) === 0 ? second : first;
        const kind = random(12);
        const sql =
          kind === 0
            ? ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT x", "ROLLBACK TO x", "COMMIT"][random(6)]!
            : definition(random);
        log.push(`${client === first ? 1 : 2}: ${sql}`);
        await attempt(client, sql);
        if (random(2) === 0) {
          known.invalidate(random(3) > 0);
          await known.refresh(true);
        }
        if (random(5) > 0) continue;
        // Nothing changes while it is looked at.
        await known.refresh(true);
        const whole = liveCatalog(other);
        await whole.refresh(true);
        // What an open transaction has locked cannot be printed; who knows it already need not have it printed again.
        if (!whole.snapshot.isComplete) continue;
        expect(known.snapshot, log.slice(-30).join("\n")).toEqual(whole.snapshot);
        compared += 1;
      }
      expect(compared).toBeGreaterThan(steps / 20);
      // Definitions that the server refuses prove nothing.
      expect(done).toBeGreaterThan(steps / 10);
      const whole = asked.filter(
        (sql) => !sql.includes("since AS MATERIALIZED") && sql.includes("UNION ALL"),
      );
      expect(whole).toHaveLength(1);
    } finally {
      for (const client of [first, second, other]) await client.end();
    }
    await server.query(
      "DROP SCHEMA IF EXISTS s1, s2 CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public",
    );
  },
);

test("a side connection that is dialled anew reads nothing again, and later only what has changed", async () => {
  const asked: string[] = [];
  let current = await connected();
  const query = async (sql: string, values?: readonly (string | null)[]) => {
    asked.push(sql.includes("altered AS") ? "changes" : sql.includes("UNION ALL") ? "whole" : "look");
    return (await current.query(sql, values?.slice())).rows;
  };
  const known = new LiveCatalog({ query, ageMs: 1000, monotonicMs: () => performance.now() });
  const user = await connected();
  const open = await connected();
  const other = await connected();
  try {
    await known.refresh(true);
    const { version } = known;
    await current.end();
    current = await connected();
    await known.refresh(true);
    expect(known.version).toBe(version);
    expect(asked).toEqual(["whole", "look", "look"]);
    // A transaction that stays open makes everything after it look new for as long as it lasts.
    await open.query(
      "BEGIN; CREATE TABLE public.early (a int); ALTER TABLE public.early RENAME COLUMN a TO b",
    );
    await user.query("CREATE TABLE public.late (a int)");
    known.invalidate(true);
    await known.refresh(true);
    expect(known.snapshot.relation("public", "late")?.columns).toEqual(["a"]);
    for (const rename of ["a TO b", "b TO c", "c TO d"]) {
      await user.query(`ALTER TABLE public.late RENAME COLUMN ${rename}`);
      await known.refresh(true);
      expect(known.snapshot.relation("public", "late")?.columns).toEqual([rename.slice(-1)]);
      await known.refresh(true);
    }
    await open.query("COMMIT");
    await known.refresh(true);
    expect(known.snapshot.relation("public", "early")?.columns).toEqual(["b"]);
    await open.query("BEGIN; ALTER TABLE public.early RENAME COLUMN b TO c");
    await user.query("ALTER TABLE public.late RENAME COLUMN d TO e");
    known.invalidate(true);
    await known.refresh(true);
    await open.query("COMMIT");
    await known.refresh(true);
    expect(known.snapshot.relation("public", "early")?.columns).toEqual(["c"]);
    const whole = liveCatalog(other);
    await whole.refresh(true);
    expect(known.snapshot).toEqual(whole.snapshot);
    expect(asked.filter((what) => what === "whole")).toHaveLength(1);
  } finally {
    for (const client of [current, user, open, other]) await client.end();
    await server.query("DROP TABLE IF EXISTS public.late, public.early");
  }
});
