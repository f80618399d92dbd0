/**
 * The SQL corpus, asked of a real PostgreSQL 18: what analysis says that a statement does must be what the server's
 * locks, row counts and errors show. `UPDATE_GOLDEN=1` notes the server's errors in the corpus; read the difference.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { analyseSql, type CommandPart, loadSqlParser, type ObjectRef } from "@sallyport/policy";
import { testNames } from "@sallyport/policy/sql/testing";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";

interface CorpusCase {
  readonly sql: string;
  readonly server?: { readonly sqlstate?: string; readonly skip?: string };
}

const folder = new URL("../../policy/testdata/sql/", import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith(".yaml"));
const read = (name: string) => parse(readFileSync(new URL(name, folder), "utf8")) as CorpusCase[];

/** Statements that would reach out of the test's own server, or change it for the cases after them. */
const tooFar =
  /PROGRAM|TO '\/tmp|CREATE SUBSCRIPTION|ALTER SYSTEM|pg_create_physical|pg_rotate|^CREATE DATABASE|DELETE FROM pg_class/;

let server: PostgresServer;
let fresh = 0;

beforeAll(async () => {
  await loadSqlParser();
  const initSql = readFileSync(new URL("schema.sql", folder), "utf8");
  server = await startPostgres({ version: 18, database: "corpus", initSql });
  // A database that somebody is connected to is no template.
  await server.query("CREATE DATABASE untouched TEMPLATE corpus", [], "postgres");
});

afterAll(async () => {
  await kept?.end();
  await server?.stop();
});

/** What the server showed of one case. */
interface Shown {
  readonly sqlstate?: string;
  readonly message?: string;
  readonly position?: string;
  /** Lock modes by relation; empty where the case had to run outside a transaction of ours. */
  readonly locks: ReadonlyMap<string, ReadonlySet<string>>;
  /** Relations whose rows changed. */
  readonly changed: ReadonlySet<string>;
  readonly isInTransaction: boolean;
}

for (const name of files) {
  test(`the server confirms ${name}`, async () => {
    const cases = read(name);
    const notes: CorpusCase[] = [];
    const disagreements: string[] = [];
    let confirmed = 0;
    for (const one of cases) {
      if (tooFar.test(one.sql)) {
        notes.push({ ...one, server: { skip: "reaches out of the test" } });
        continue;
      }
      const shown = await show(one.sql);
      const { server: _before, ...rest } = one;
      const { sqlstate } = shown;
      notes.push({ ...rest, ...(sqlstate === undefined ? {} : { server: { sqlstate } }) });
      confirmed += 1;
      if (process.env.UPDATE_GOLDEN !== "1" && one.server?.sqlstate !== sqlstate) {
        disagreements.push(`${one.sql}: the server says ${sqlstate ?? "nothing"}`);
      }
      disagreements.push(...disagreement(one.sql, shown).map((what) => `${one.sql}: ${what}`));
    }
    if (process.env.UPDATE_GOLDEN === "1") {
      writeFileSync(new URL(name, folder), stringify(notes, { lineWidth: 0 }));
    }
    expect(disagreements).toEqual([]);
    expect(confirmed).toBeGreaterThan(cases.length / 2);
  }, 240_000);
}

/** Runs a case in a transaction that is rolled back, or in a database of its own where it cannot run in one. */
async function show(sql: string): Promise<Shown> {
  const client = await shared();
  try {
    await client.query("BEGIN");
    if (!endsTransaction(sql)) {
      const error = await errorOf(client, sql);
      const sqlstate = error?.sqlstate;
      // 25001: not inside a transaction block; 2D000: a body that commits.
      if (sqlstate !== "25001" && sqlstate !== "2D000") {
        if (error !== undefined)
          return { ...error, locks: new Map(), changed: new Set(), isInTransaction: true };
        return { locks: await locksOf(client), changed: await changedBy(client), isInTransaction: true };
      }
    }
  } finally {
    await cleared(client);
  }
  return await showFresh(sql);
}

let kept: pg.Client | undefined;

/** One connection for all cases that leave it usable. */
async function shared(): Promise<pg.Client> {
  const client = kept ?? (await connect("corpus"));
  kept = undefined;
  return client;
}

/** Takes back what a case has left in its session: its transaction, settings, temporary tables, and counts of rows. */
async function cleared(client: pg.Client): Promise<void> {
  try {
    await client.query("ROLLBACK");
    await client.query("DISCARD ALL");
    await client.query("SELECT pg_catalog.pg_stat_force_next_flush()");
    kept = client;
  } catch {
    await client.end();
  }
}

function endsTransaction(sql: string): boolean {
  const analysis = analyseSql(sql, testNames());
  if (analysis.kind === "rejected") return /\b(COMMIT|ROLLBACK|BEGIN;)/i.test(sql);
  return analysis.statements.some((one) => one.effects.some((effect) => effect.kind === "transaction"));
}

async function showFresh(sql: string): Promise<Shown> {
  fresh += 1;
  const database = `fresh_${fresh}`;
  await server.query(`CREATE DATABASE ${database} TEMPLATE untouched`, [], "postgres");
  const client = await connect(database);
  try {
    const before = await rowCounts(database);
    const error = await errorOf(client, sql);
    const after = await rowCounts(database);
    const changed = new Set(
      [...after].filter(([name, count]) => before.get(name) !== count).map(([name]) => name),
    );
    return { ...error, locks: new Map(), changed, isInTransaction: false };
  } finally {
    await client.end();
    await server.query(`DROP DATABASE ${database} WITH (FORCE)`, [], "postgres");
  }
}

async function connect(database: string): Promise<pg.Client> {
  const url = new URL(server.connectionString);
  url.pathname = `/${database}`;
  const client = new pg.Client({ connectionString: url.toString() });
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

type ServerError = Pick<Shown, "sqlstate" | "message" | "position">;

async function errorOf(client: pg.Client, sql: string): Promise<ServerError | undefined> {
  try {
    await client.query(sql);
    return undefined;
  } catch (error) {
    if (!(error instanceof pg.DatabaseError)) return { sqlstate: "unknown" };
    const position = error.position === undefined ? {} : { position: error.position };
    return { sqlstate: error.code ?? "unknown", message: error.message, ...position };
  }
}

/** Relations that are no index, sequence or TOAST table, by the name that rules speak of. */
async function locksOf(client: pg.Client): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  const { rows } = await client.query<{ name: string; mode: string }>(
    `SELECT CASE WHEN c.relpersistence = 't' THEN 'pg_temp' ELSE n.nspname END || '.' || c.relname AS name, l.mode
     FROM pg_catalog.pg_locks l
     JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.relation
     JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
     WHERE l.locktype = 'relation' AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
       AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')`,
  );
  const locks = new Map<string, Set<string>>();
  for (const { name, mode } of rows) locks.set(name, (locks.get(name) ?? new Set()).add(mode));
  return locks;
}

async function changedBy(client: pg.Client): Promise<ReadonlySet<string>> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT schemaname || '.' || relname AS name FROM pg_catalog.pg_stat_xact_user_tables
     WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 AND schemaname NOT LIKE 'pg_t%'`,
  );
  return new Set(rows.map((row) => row.name));
}

async function rowCounts(database: string): Promise<ReadonlyMap<string, string>> {
  const rows = await server.query(
    `SELECT schemaname || '.' || tablename AS name,
       query_to_xml(format('SELECT count(*), sum(hashtext(x::text)) FROM %I.%I x', schemaname, tablename), true, true, '')::text AS rows
     FROM pg_tables WHERE schemaname IN ('public', 'app', 'evil')`,
    [],
    database,
  );
  return new Map(rows.map((row) => [String(row.name), String(row.rows)]));
}

/** Errors that analysis gives in the server's own words must be the server's. */
const serversOwn = new Set(["42601", "42P01", "42883", "3F000", "42704", "26000"]);
const writing = new Set([
  "RowExclusiveLock",
  "ShareRowExclusiveLock",
  "ExclusiveLock",
  "AccessExclusiveLock",
]);

/** Everything in which the server's view differs from ours; empty is agreement. */
function disagreement(sql: string, shown: Shown): string[] {
  const analysis = analyseSql(sql, testNames());
  if (analysis.kind === "rejected") {
    const { sqlstate } = analysis;
    if (!serversOwn.has(sqlstate)) return [];
    if (sqlstate !== shown.sqlstate) return [`we say ${sqlstate}, the server ${shown.sqlstate ?? "nothing"}`];
    // The server lists argument types that only it can work out.
    if (sqlstate === "42883") return [];
    const own = `${analysis.message} at ${analysis.position ?? "no position"}`;
    const theirs = `${shown.message} at ${shown.position ?? "no position"}`;
    return own === theirs ? [] : [`we say ${own}, the server ${theirs}`];
  }
  if (shown.sqlstate !== undefined) return [];
  const parts = analysis.statements.flatMap((statement) => statement.parts);
  // Nobody knows what these do, and policy treats them so: there is nothing to confirm.
  if (parts.some((part) => part.enforcement === "heuristic" || part.operation === "execute")) return [];
  if (parts.some((part) => part.operation === "privilege" && part.objects.some(isFunction))) return [];
  return [...unsaid(parts, shown), ...undone(parts, shown)];
}

function isFunction(object: { readonly kind: string }): boolean {
  return object.kind === "function";
}

/** What the server did and we did not say. */
function unsaid(parts: readonly CommandPart[], shown: Shown): string[] {
  const namesOf = (operations: readonly string[]) =>
    new Set(
      parts
        .filter((part) => operations.includes(part.operation))
        .flatMap((part) => part.objects.map((object) => object.name)),
    );
  const written = namesOf(["write", "define", "privilege"]);
  const altered = namesOf(["write", "define", "privilege", "control"]);
  const named = namesOf(["read", "write", "define", "privilege", "control", "export"]);
  const isWhole = parts.some(
    (part) =>
      part.objects.some((object) => object.kind === "schema") ||
      (part.operation === "control" && part.objects.length === 0),
  );
  const isPlanned = parts.every((part) => part.words[0] === "EXPLAIN" && part.operation === "read");
  const found: string[] = [];
  for (const name of shown.changed) {
    if (!written.has(name) && !isWhole) found.push(`it changed rows of ${name}`);
  }
  for (const [name, modes] of shown.locks) {
    if (isWhole || name.startsWith("pg_temp.")) continue;
    // Planning a write takes its locks, and changes no row; rows were looked at above.
    if (isPlanned && named.has(name)) continue;
    // REINDEX INDEX locks the index's table on its way.
    if (parts.some((part) => part.words.includes("REINDEX"))) continue;
    if ([...modes].some((mode) => writing.has(mode)) && !altered.has(name)) {
      // DROP and ALTER reach what hangs on their object by foreign keys, views and CASCADE.
      if (!parts.some((part) => part.operation === "define")) found.push(`it locked ${name} to write`);
    }
    // A foreign key looks at the other table: RowShareLock beside a write is the server's own check.
    const isForeignKey = modes.has("RowShareLock") && written.size > 0;
    if (!named.has(name) && !isForeignKey && !parts.some((part) => part.operation === "define")) {
      found.push(`it touched ${name}`);
    }
  }
  return found;
}

/** What we said and the server did not do: a named write must show a lock that writes. */
function undone(parts: readonly CommandPart[], shown: Shown): string[] {
  if (!shown.isInTransaction) return [];
  const found: string[] = [];
  for (const part of parts) {
    if (part.operation !== "write" && part.operation !== "read") continue;
    const throughFunction = part.objects.some((object) => object.kind === "function" && object.direct);
    if (throughFunction || part.words.includes("NOTIFY")) continue;
    for (const object of part.objects) {
      if (!object.direct || object.kind !== "relation" || object.name.startsWith("pg_catalog.")) continue;
      if (object.name.startsWith("information_schema.")) continue;
      const modes = shown.locks.get(object.name);
      // Of two relations that a name may mean, the server takes one.
      if (modes === undefined && part.objects.some((other) => mayStandFor(other, object))) continue;
      if (modes === undefined) {
        // A block's branch that did not run, and a sequence, leave no lock on a table.
        const mayBeIdle = part.words.includes("DO") || object.name.endsWith("_seq");
        if (!mayBeIdle && !isGone(parts, object.name)) found.push(`it did not touch ${object.name}`);
      } else if (
        part.operation === "write" &&
        ![...modes].some((mode) => writing.has(mode) || mode === "RowShareLock")
      ) {
        found.push(`it did not write ${object.name}`);
      }
    }
  }
  return found;
}

function mayStandFor(other: ObjectRef, object: ObjectRef): boolean {
  const plain = ({ name }: ObjectRef) => name.slice(name.indexOf("."));
  return !other.direct && other.name !== object.name && plain(other) === plain(object);
}

/** Dropped or renamed by the same text, so that the lock is not found by name any more. */
function isGone(parts: readonly CommandPart[], name: string): boolean {
  return parts.some(
    (part) =>
      part.operation === "define" &&
      part.words.some((word) => word.startsWith("DROP") || word.startsWith("ALTER")) &&
      (part.objects.some((object) => object.name === name) ||
        part.words.some((word) => word.startsWith("ALTER"))),
  );
}
