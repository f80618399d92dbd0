/** Promise: what a name means to the gateway is what it means to a real server, and news arrives within the age. */
import type { SessionEffect } from "@sallyport/policy";
import { LiveCatalog, SessionNames } from "@sallyport/sidecar/postgres-catalog";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type PostgresServer, startPostgres, versionsUnderTest } from "../targets/postgres.ts";
import { quickestOf } from "../targets/until.ts";

let server: PostgresServer;
let side: pg.Client;
let asked: string[] = [];
let catalog: LiveCatalog;

const initSql = `
CREATE ROLE clerk LOGIN PASSWORD 'clerk';
CREATE SCHEMA shop; CREATE SCHEMA hidden; CREATE SCHEMA clerk AUTHORIZATION clerk;
GRANT USAGE ON SCHEMA shop TO clerk; GRANT CREATE ON DATABASE shop TO clerk; GRANT CREATE ON SCHEMA public TO clerk;
CREATE TABLE public.users (id int PRIMARY KEY, "Name" text);
CREATE TABLE hidden.users (id int, secret text);
CREATE TABLE shop.users (id int);
CREATE TABLE shop.orders (id int PRIMARY KEY, users_id int REFERENCES public.users ON DELETE CASCADE ON UPDATE SET NULL);
CREATE TABLE shop.notes (id int REFERENCES shop.orders);
CREATE FUNCTION shop.audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = shop
  AS $$ BEGIN DELETE FROM shop.notes; RETURN NEW; END $$;
CREATE TRIGGER audited AFTER INSERT OR TRUNCATE ON public.users EXECUTE FUNCTION shop.audit();
CREATE FUNCTION shop.plus(a int) RETURNS int IMMUTABLE BEGIN ATOMIC SELECT a + 1; SELECT a + 2; END;
CREATE FUNCTION shop.plain(a int) RETURNS int IMMUTABLE RETURN shop.plus(a);
CREATE VIEW shop.names AS SELECT id, "Name", shop.plus(id) AS more FROM public.users;
CREATE TABLE shop.log (at int, what text DEFAULT 'x' || shop.plus(1)) PARTITION BY RANGE (at);
CREATE TABLE shop.log_1 PARTITION OF shop.log FOR VALUES FROM (1) TO (9);
CREATE TRIGGER logged BEFORE UPDATE ON shop.log FOR EACH ROW EXECUTE FUNCTION shop.audit();
CREATE TABLE shop.base (id int); CREATE TABLE shop.derived () INHERITS (shop.base);
CREATE RULE swap AS ON INSERT TO shop.base DO INSTEAD DELETE FROM shop.notes;
CREATE DOMAIN shop.positive AS int CHECK (shop.plus(VALUE) > 1);
CREATE TABLE shop.counted (n shop.positive[], m int CHECK (shop.plain(m) > 0));
CREATE DOMAIN shop.several AS shop.positive[] CHECK (shop.plain(cardinality(VALUE)) > 0);
CREATE TABLE shop.heaps (n shop.several);
CREATE INDEX counted_plus ON shop.counted (shop.plain(m));
CREATE FUNCTION shop.same(a text, b text) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT a = b';
CREATE OPERATOR shop.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = shop.same);
CREATE VIEW shop.alike AS SELECT "Name" OPERATOR(shop.===) 'x' AS alike FROM public.users;
CREATE TABLE shop.guarded (owner text); ALTER TABLE shop.guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.guarded USING (shop.same(owner, current_user));
CREATE TYPE shop.pair AS (a shop.positive, b int);
CREATE FUNCTION shop.pair_text(shop.pair) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT ($1).b::text';
CREATE CAST (shop.pair AS text) WITH FUNCTION shop.pair_text(shop.pair);
CREATE AGGREGATE shop.total(int) (SFUNC = int4pl, STYPE = int, FINALFUNC = shop.plus);
CREATE SEQUENCE shop.counter;
`;

beforeAll(async () => {
  server = await startPostgres({ database: "shop", initSql });
  side = new pg.Client(server.connectionString);
  await side.connect();
});
afterAll(async () => {
  await side?.end();
  await server?.stop();
});
beforeEach(async () => {
  asked = [];
  catalog = new LiveCatalog({
    query: async (sql, values) => {
      asked.push(sql);
      return (await side.query(sql, values?.slice())).rows;
    },
    ageMs: 1000,
    monotonicMs: () => performance.now(),
  });
  await catalog.refresh(false);
});

test("a relation tells everything that using it reaches", () => {
  const users = catalog.snapshot.relation("public", "users")!;
  expect(users.columns).toEqual(["id", "Name"]);
  expect(users.cascades).toEqual([
    { relation: "shop.orders", on: "delete" },
    { relation: "shop.orders", on: "update" },
  ]);
  expect(users.triggers).toEqual([
    {
      events: ["insert", "truncate"],
      function: {
        schema: "shop",
        name: "audit",
        parameters: [],
        returns: ["trigger"],
        language: "plpgsql",
        body: " BEGIN DELETE FROM shop.notes; RETURN NEW; END ",
        securityDefiner: true,
        settings: ["search_path=shop"],
      },
    },
  ]);
  expect(catalog.snapshot.relation("shop", "orders")!.cascades).toEqual([]);
});

test("a view tells its definition with qualified names, and what it reads", () => {
  const names = catalog.snapshot.relation("shop", "names")!;
  expect(names.kind).toBe("view");
  expect(names.definition).toMatch(/shop\.plus\((users\.)?id\)[^;]*FROM public\.users;?$/);
  expect(names.reads).toEqual([
    { name: "public.users", kind: "relation", direct: false },
    { name: "shop.plus", kind: "function", direct: false },
  ]);
  expect(names.hasRules).toBe(false);
  expect(catalog.snapshot.relation("shop", "alike")!.reads).toContainEqual({
    name: "shop.same",
    kind: "function",
    direct: false,
  });
});

test("partitions, children, rules and functions of expressions are known", () => {
  const names = (relation: string) =>
    catalog.snapshot
      .relation("shop", relation)!
      .functions.map((found) => found.name)
      .sort();
  const log = catalog.snapshot.relation("shop", "log")!;
  expect([log.kind, log.children]).toEqual(["partitionedTable", ["shop.log_1"]]);
  expect(catalog.snapshot.relation("shop", "log_1")!.triggers.map((trigger) => trigger.events)).toEqual([
    ["update"],
  ]);
  expect(names("log")).toEqual(["plus"]);
  expect(catalog.snapshot.relation("shop", "base")!.children).toEqual(["shop.derived"]);
  expect(catalog.snapshot.relation("shop", "base")!.hasRules).toBe(true);
  expect(names("counted")).toEqual(["plain", "plus"]);
  // A domain over an array has checks of its own, beside those of its elements.
  expect(names("heaps")).toEqual(["plain", "plus"]);
  expect(names("guarded")).toEqual(["same"]);
  expect(catalog.snapshot.relation("shop", "counter")!.kind).toBe("sequence");
  expect(catalog.snapshot.relation("shop", "counted_plus")!.kind).toBe("index");
});

test("functions, operators and types tell the code behind them", () => {
  const { snapshot } = catalog;
  const body = (name: string) => snapshot.functions("shop", name)[0]?.body?.replace(/\s+/g, " ");
  expect(body("plus")).toBe("SELECT (a + 1); SELECT (a + 2);");
  expect(body("plain")).toBe("SELECT shop.plus(a)");
  expect(body("total")).toBe("SELECT pg_catalog.int4pl(), shop.plus()");
  expect(snapshot.operatorFunctions("shop", "===").map((found) => found.name)).toEqual(["same"]);
  const behind = (schema: string, name: string) =>
    snapshot.type(schema, name)?.functions.map((found) => found.name);
  expect(behind("shop", "positive")).toEqual(["plus"]);
  expect(behind("shop", "pair")).toEqual(["plus"]);
  expect(behind("shop", "several")?.toSorted()).toEqual(["plain", "plus"]);
  expect(behind("pg_catalog", "text")).toEqual(["pair_text"]);
  expect(behind("pg_catalog", "int4")).toEqual([]);
  expect(snapshot.functions("pg_catalog", "pg_read_file")).toMatchObject([{ language: "internal" }]);
  expect(snapshot.relation("pg_catalog", "pg_stats")?.columns).toContain("most_common_vals");
  expect(snapshot.relation("information_schema", "tables")?.kind).toBe("view");
});

test("an account without privileges reads the same catalog, under whatever search_path it has", async () => {
  const clerk = new pg.Client({ ...clientOf(), user: "clerk", password: "clerk" });
  await clerk.connect();
  try {
    await clerk.query("SET search_path = shop, public, pg_catalog");
    const query = async (sql: string, values?: readonly (string | null)[]) =>
      (await clerk.query(sql, values?.slice())).rows;
    const read = new LiveCatalog({ query, ageMs: 1000, monotonicMs: () => performance.now() });
    await read.refresh(true);
    for (const [schema, name] of [
      ["public", "users"],
      ["shop", "names"],
      ["hidden", "users"],
    ] as const) {
      expect(read.snapshot.relation(schema, name)).toEqual(catalog.snapshot.relation(schema, name));
    }
    expect(read.snapshot.functions("shop", "plain")).toEqual(catalog.snapshot.functions("shop", "plain"));
    expect((await clerk.query("SHOW search_path")).rows).toEqual([
      { search_path: "shop, public, pg_catalog" },
    ]);
  } finally {
    await clerk.end();
  }
});

test("nothing is read again while nothing changes, and other sessions' temporary tables change nothing", async () => {
  const { version } = catalog;
  // A reading that took long looks once more whether it still holds.
  const before = asked.length;
  expect(before).toBeGreaterThanOrEqual(1);
  await server.query("CREATE TEMP TABLE passing (id int PRIMARY KEY, note text DEFAULT 'x')");
  await server.query("INSERT INTO shop.log VALUES (1)");
  await catalog.refresh(true);
  expect(asked).toHaveLength(before + 1);
  expect(catalog.version).toBe(version);
});

test.for([
  "CREATE TABLE shop.fresh (id int)",
  "ALTER TABLE shop.fresh ADD COLUMN more text",
  "ALTER TABLE shop.fresh RENAME COLUMN more TO less",
  "ALTER TABLE shop.fresh RENAME TO fresher",
  "CREATE OR REPLACE FUNCTION shop.plain(a int) RETURNS int IMMUTABLE RETURN shop.plus(a) + 1",
  'CREATE OR REPLACE VIEW shop.names AS SELECT id, "Name", 1 AS more FROM public.users',
  "ALTER TABLE shop.log DETACH PARTITION shop.log_1",
  "ALTER TABLE public.users DISABLE TRIGGER audited",
  "DROP POLICY own ON shop.guarded",
  "GRANT USAGE ON SCHEMA hidden TO clerk; REVOKE USAGE ON SCHEMA hidden FROM clerk",
  "ALTER ROLE clerk SUPERUSER",
  "ALTER ROLE clerk NOSUPERUSER",
  "ALTER DOMAIN shop.positive DROP CONSTRAINT positive_check",
  "DROP TABLE shop.fresher",
])("a change by another connection is seen: %s", async (sql) => {
  const { version } = catalog;
  await server.query(sql);
  await catalog.refresh(true);
  expect(catalog.version).not.toBe(version);
});

test("while it is retained, a change by another connection arrives by itself within the age", async () => {
  catalog.retain();
  try {
    let created = 0;
    // What was fresh could be a whole age old, and reading takes a moment.
    const took = await quickestOf(2_000, async () => {
      const name = `arriving_${created++}`;
      await server.query(`CREATE TABLE shop.${name} (id int)`);
      const createdMs = performance.now();
      await expect.poll(() => catalog.snapshot.relation("shop", name)?.name, { interval: 5 }).toBe(name);
      return performance.now() - createdMs;
    });
    expect(took).toBeLessThan(2_000);
    expect(catalog.failures).toBe(0);
  } finally {
    catalog.release();
  }
});

test("a transaction that locks a table holds up nobody; definitions come back when it ends", async () => {
  const locker = new pg.Client(server.connectionString);
  await locker.connect();
  try {
    await locker.query("BEGIN; LOCK TABLE public.users IN ACCESS EXCLUSIVE MODE");
    await server.query("CREATE TABLE shop.meanwhile (id int)");
    const took = await quickestOf(900, async () => {
      const startedMs = performance.now();
      await catalog.refresh(true);
      return performance.now() - startedMs;
    });
    expect(took).toBeLessThan(900);
    expect(catalog.snapshot.relation("shop", "meanwhile")?.kind).toBe("table");
    const locked = catalog.snapshot.relation("shop", "alike");
    expect(locked?.definition).toBe("unknown definition");
    expect(locked?.reads.map((read) => read.name)).toContain("public.users");
    await locker.query("ROLLBACK");
    await catalog.refresh(true);
    expect(catalog.snapshot.relation("shop", "alike")?.definition).toContain("public.users");
  } finally {
    await locker.end();
  }
});

interface Step {
  readonly sql: string;
  readonly effects?: readonly SessionEffect[];
}

const transaction = (
  sql: string,
  action: Extract<SessionEffect, { kind: "transaction" }>["action"],
  name?: string,
): Step => ({ sql, effects: [{ kind: "transaction", action, ...(name === undefined ? {} : { name }) }] });
const made = { relationKind: "table", columns: ["mine"] } as const;
const createTemporary = (name: string, onCommit: "preserve" | "drop" = "preserve"): Step => ({
  sql: `CREATE TEMP TABLE ${name} (mine int)${onCommit === "drop" ? " ON COMMIT DROP" : ""}`,
  effects: [{ kind: "createRelation", name, temporary: true, onCommit, ...made }, { kind: "catalogChanged" }],
});
const create = (name: string, schema?: string): Step => ({
  sql: `CREATE TABLE ${schema === undefined ? "" : `${schema}.`}${name} (mine int)`,
  effects: [
    { kind: "createRelation", name, ...(schema === undefined ? {} : { schema }), temporary: false, ...made },
    { kind: "catalogChanged" },
  ],
});
const drop = (name: string, schema?: string): Step => ({
  sql: `DROP TABLE ${schema === undefined ? "" : `${schema}.`}${name}`,
  effects: [
    { kind: "dropRelation", name, ...(schema === undefined ? {} : { schema }) },
    { kind: "catalogChanged" },
  ],
});
const rename = (name: string, to: string): Step => ({
  sql: `ALTER TABLE ${name} RENAME TO ${to}`,
  effects: [{ kind: "renameRelation", name, to }, { kind: "catalogChanged" }],
});
const setPath = (path: readonly string[], local = false): Step => ({
  sql: `SET ${local ? "LOCAL " : ""}search_path = ${path.map((name) => pg.escapeIdentifier(name)).join(", ")}`,
  effects: [{ kind: "setSearchPath", path, local }],
});
const resetPath = (sql: string, local = false): Step => ({
  sql,
  effects: [{ kind: "setSearchPath", local, isReset: true }],
});
const createSchema = (name: string): Step => ({
  sql: `CREATE SCHEMA ${name}`,
  effects: [{ kind: "createSchema", name }, { kind: "catalogChanged" }],
});

const stories: Readonly<Record<string, readonly Step[]>> = {
  "temporary tables shadow until they are dropped": [
    createTemporary("users"),
    createTemporary("users_too"),
    drop("users"),
    createTemporary("pg_class"),
    drop("pg_class"),
  ],
  "a table that a body has dropped unseen shadows no longer": [
    createTemporary("users"),
    { sql: "DO $$ BEGIN DROP TABLE pg_temp.users; END $$", effects: [{ kind: "catalogChanged" }] },
  ],
  "a table that is dropped on commit shadows no longer": [
    transaction("BEGIN", "begin"),
    createTemporary("users", "drop"),
    transaction("COMMIT", "commit"),
  ],
  "search_path decides, whatever it lists": [
    setPath(["shop", "public"]),
    setPath(["nowhere", "hidden", "public"]),
    setPath(["public", "pg_temp"]),
    createTemporary("users"),
    setPath(["pg_temp", "public"]),
    create("made_in_temp"),
    drop("users"),
    setPath(["public", "pg_catalog"]),
    create("pg_class"),
    drop("pg_class", "public"),
    setPath(["$user", "public"]),
    create("users", "clerk"),
    drop("users", "clerk"),
    { sql: "SET search_path = ''", effects: [{ kind: "setSearchPath", path: [""], local: false }] },
  ],
  "RESET and DEFAULT lead back to what the session began with": [
    setPath(["shop"]),
    resetPath("RESET search_path"),
    setPath(["shop"]),
    resetPath("SET search_path TO DEFAULT"),
    setPath(["shop"]),
    transaction("BEGIN", "begin"),
    resetPath("SET LOCAL search_path TO DEFAULT", true),
    transaction("SAVEPOINT a", "savepoint", "a"),
    setPath(["clerk"], true),
    resetPath("RESET ALL"),
    transaction("ROLLBACK TO a", "rollbackTo", "a"),
    transaction("COMMIT", "commit"),
    transaction("BEGIN", "begin"),
    resetPath("RESET search_path"),
    transaction("ROLLBACK", "rollback"),
  ],
  "SET LOCAL ends with the transaction, and a rollback takes SET back": [
    transaction("BEGIN", "begin"),
    setPath(["shop"], true),
    transaction("SAVEPOINT a", "savepoint", "a"),
    setPath(["clerk"]),
    transaction("ROLLBACK TO a", "rollbackTo", "a"),
    transaction("COMMIT", "commit"),
    transaction("BEGIN", "begin"),
    setPath(["shop"]),
    transaction("ROLLBACK", "rollback"),
    transaction("BEGIN", "begin"),
    setPath(["shop"], true),
    setPath(["clerk", "shop"]),
    transaction("COMMIT", "commit"),
  ],
  "what a transaction makes, drops and renames counts at once, and goes with its savepoint": [
    transaction("BEGIN", "begin"),
    create("users_new"),
    transaction("SAVEPOINT a", "savepoint", "a"),
    rename("users_new", "users_newer"),
    createSchema("fresh"),
    setPath(["fresh", "public"]),
    create("users"),
    transaction("SAVEPOINT b", "savepoint", "b"),
    drop("users", "fresh"),
    transaction("ROLLBACK TO b", "rollbackTo", "b"),
    transaction("RELEASE b", "release", "b"),
    transaction("ROLLBACK TO a", "rollbackTo", "a"),
    transaction("ROLLBACK", "rollback"),
  ],
  "committed changes stay": [
    create("kept"),
    rename("kept", "kept_too"),
    createTemporary("kept_too"),
    transaction("BEGIN", "begin"),
    rename("kept_too", "moved"),
    transaction("COMMIT", "commit"),
    drop("kept_too"),
    drop("moved"),
  ],
};

/** What says nothing can be played on any server, what reports only on one that does. */
const reporting = versionsUnderTest[0] === 18 ? [true, false] : [false];

const probes = [
  "users",
  "users_too",
  "users_new",
  "users_newer",
  "kept",
  "kept_too",
  "moved",
  "made_in_temp",
  "pg_class",
];

test.for(
  Object.entries(stories).flatMap(([story, steps]) =>
    reporting.map((reports) => [story, reports, steps] as const),
  ),
)("%s (the server reports search_path: %s)", async ([, reportsSearchPath, steps]) => {
  const client = new pg.Client({ ...clientOf(), user: "clerk", password: "clerk" });
  await client.connect();
  const initialSearchPath = (await client.query("SHOW search_path")).rows[0].search_path as string;
  const names = new SessionNames({
    catalog,
    account: "clerk",
    reportsSearchPath,
    initialSearchPath,
    prepared: () => undefined,
  });
  let status: "I" | "T" | "E" = "I";
  const stream = (client as unknown as { connection: NodeJS.EventEmitter }).connection;
  stream.on("parameterStatus", (message: { parameterName: string; parameterValue: string }) => {
    if (reportsSearchPath && message.parameterName === "search_path")
      names.reportSearchPath(message.parameterValue);
  });
  stream.on("readyForQuery", (message: { status: "I" | "T" | "E" }) => {
    status = message.status;
  });
  try {
    for (const { sql, effects } of steps) {
      await client.query(sql);
      for (const effect of effects ?? []) names.apply(effect);
      names.ready(status, false);
      await names.refresh(false);
      const ours = probes.map((name) => names.relation(undefined, name)?.schema ?? null);
      const { rows } = await client.query({
        text: `SELECT CASE WHEN n.oid = pg_catalog.pg_my_temp_schema() THEN 'pg_temp' ELSE n.nspname END
          FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY AS p (name, at)
          LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(p.name)
          LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY p.at`,
        values: [probes],
        rowMode: "array",
      });
      expect([sql, ...ours]).toEqual([sql, ...rows.map(([schema]) => schema)]);
    }
  } finally {
    await client.end();
  }
});

test("what hangs on something that is gone has no definition, and all else is read", async () => {
  await server.query("CREATE DATABASE torn");
  const torn = new pg.Client({ connectionString: server.connectionString, database: "torn" });
  await torn.connect();
  try {
    await torn.query(`CREATE TABLE whole (n int); CREATE FUNCTION gone() RETURNS int LANGUAGE sql AS 'SELECT 1';
      CREATE FUNCTION lost() RETURNS int RETURN gone() + 1;
      CREATE FUNCTION kept() RETURNS int RETURN 2;
      CREATE VIEW void AS SELECT gone() AS n; CREATE VIEW plain AS SELECT n FROM whole;`);
    // As a race of older servers leaves it: CREATE FUNCTION beside a DROP of what its body calls.
    await torn.query("SET allow_system_table_mods = on; DELETE FROM pg_proc WHERE proname = 'gone'");
    await expect(torn.query("SELECT pg_get_viewdef('void'::regclass)")).rejects.toThrow(
      "cache lookup failed",
    );
    const found = new LiveCatalog({
      query: async (sql, values) => (await torn.query(sql, values?.slice())).rows,
      ageMs: 1000,
      monotonicMs: () => performance.now(),
    });
    for (const definition of ["", "CREATE TABLE more (n int)"]) {
      await torn.query(definition);
      await found.refresh(true);
      const { snapshot } = found;
      expect(snapshot.relation("public", "whole")?.columns).toEqual(["n"]);
      expect(snapshot.relation("public", "plain")?.definition).toContain("whole");
      expect(snapshot.relation("public", "void")).toMatchObject({ kind: "view", columns: ["n"] });
      expect(snapshot.relation("public", "void")?.definition).toBe("unknown definition");
      const bodies = ["lost", "kept"].map((name) => snapshot.functions("public", name)[0]?.body);
      expect(bodies).toEqual([undefined, expect.stringContaining("2")]);
    }
    expect(found.snapshot.relation("public", "more")).toBeDefined();
  } finally {
    await torn.end();
  }
});

test("a schema that the account may not enter is passed over, as the server does", async () => {
  const client = new pg.Client({ ...clientOf(), user: "clerk", password: "clerk" });
  await client.connect();
  const namesOf = (account: string) =>
    new SessionNames({
      catalog,
      account,
      reportsSearchPath: true,
      initialSearchPath: "hidden, public",
      prepared: () => undefined,
    });
  try {
    await client.query("SET search_path = hidden, public");
    expect((await client.query("SELECT current_schema() AS schema")).rows).toEqual([{ schema: "public" }]);
    expect(namesOf("clerk").relation(undefined, "users")?.schema).toBe("public");
    expect(namesOf("postgres").relation(undefined, "users")?.schema).toBe("hidden");
    expect(namesOf("clerk").version).not.toBe(namesOf("postgres").version);
    expect(namesOf("clerk").version).toBe(namesOf("clerk").version);
  } finally {
    await client.end();
  }
});

function clientOf(): pg.ClientConfig {
  return { host: server.host, port: server.port, database: server.database };
}
