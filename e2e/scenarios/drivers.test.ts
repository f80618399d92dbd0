/** People keep their own clients: each driver runs its script through the gateway as it would run it directly. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { testWith } from "../drivers/test-with.ts";
import {
  goProgram,
  hasCommand,
  nodeScript,
  pgjdbcScript,
  pythonScript,
  type Toolchain,
  tokioPostgresProgram,
} from "../drivers/toolchains.ts";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";

const drivers = join(import.meta.dirname, "../drivers");
const psql: Toolchain = (await hasCommand("psql", ["--version"]))
  ? { kind: "ready", command: "psql", args: ["-X", "-q"] }
  : { kind: "absent", reason: "psql is not installed" };

let server: PostgresServer;
let gateway: Gateway;
let environment: Record<string, string>;

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    database: "shop",
    initSql: await readFile(join(drivers, "shop.sql"), "utf8"),
  });
  gateway = await startGateway({
    server,
    policies: `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: drivers}
spec:
  resources: {names: [shop]}
  subjects: [{group: "local:drivers"}]
  profile: ReadWrite
  rules:
  - {name: customers-may-leave, match: {operations: [export], objects: ["public.customers"]}, action: Allow}
  - {name: no-unbounded-writes, match: {unbounded: true}, action: Deny, message: name the rows that you mean}
  - {name: payroll-is-closed, match: {objects: ["public.payroll"]}, action: Deny}
`,
  });
  const token = await gateway.token({ user: "driver", groups: ["drivers"] });
  environment = {
    PATH: process.env.PATH ?? "",
    HOME: process.env.HOME ?? "",
    SALLYPORT_HOST: gateway.host,
    SALLYPORT_PORT: String(gateway.port),
    SALLYPORT_USER: gateway.user,
    SALLYPORT_DATABASE: "shop",
    SALLYPORT_TOKEN: token,
    SALLYPORT_CA: gateway.caFile,
    PGPASSWORD: token,
    PGSSLMODE: "verify-full",
    PGSSLROOTCERT: gateway.caFile,
    PGHOST: gateway.host,
    PGPORT: String(gateway.port),
    PGUSER: gateway.user,
    PGDATABASE: "shop",
  };
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

type Ready = Extract<Toolchain, { kind: "ready" }>;

async function scriptOutput({ command, args }: Ready, ...more: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(command, [...args, ...more], {
    env: environment,
    timeout: 80_000,
  });
  return stdout;
}

const everywhere = [
  "ok connects with a verified certificate and a token as password",
  "ok simple statements",
  "ok parameters",
  "ok prepared statements",
  "ok a refusal is 42501 and the connection stays usable",
  "ok a refusal aborts the transaction",
  "ok a savepoint survives a refusal behind it",
  "ok copy in",
  "ok cancel",
  "ok a wrong token is refused",
];
const binary = "ok binary parameters and results";
const copyOut = "ok copy out";
const pipeline = "ok a refusal in a pipeline undoes what stood before it";
const ownRefusal = "ok a refusal in a pipeline answers its own statement only";
const executions = "ok many executions in a pipeline";
const binaryCopies = "ok binary copy out and in again";
const cursors = "ok cursors";

// psycopg 2 has no binary results and no pipeline, porsager/postgres no binary parameters, lib/pq no pipeline and no COPY to
// the client.
const scripts: [name: string, toolchain: Toolchain, more: readonly string[]][] = [
  ["H5: node-postgres", nodeScript("node-postgres.ts"), [binary, copyOut, binaryCopies, ownRefusal]],
  ["H6: porsager/postgres", nodeScript("postgres-js.ts"), [copyOut, binaryCopies, ownRefusal, cursors]],
  ["H7: psycopg 2", await pythonScript("psycopg2_script.py"), [copyOut, cursors]],
  [
    "H7: psycopg 3",
    await pythonScript("psycopg3.py"),
    [binary, copyOut, binaryCopies, pipeline, executions, cursors],
  ],
  [
    "H8: asyncpg",
    await pythonScript("asyncpg_script.py"),
    [binary, copyOut, binaryCopies, executions, cursors],
  ],
  ["H9: pgx", await goProgram("pgx"), [binary, copyOut, binaryCopies, pipeline]],
  ["H10: lib/pq", await goProgram("lib-pq"), [binary]],
  ["H4: pgjdbc", await pgjdbcScript(), [binary, copyOut, binaryCopies, pipeline, cursors]],
  ["H11: tokio-postgres", await tokioPostgresProgram(), [binary, copyOut, binaryCopies, ownRefusal]],
];
for (const [name, toolchain, more] of scripts) {
  testWith(`${name} runs its script through the gateway`, toolchain, async (ready) => {
    const lines = (await scriptOutput(ready)).trim().split("\n");
    expect(new Set(lines)).toEqual(new Set([...everywhere, ...more]));
  });
}

testWith(
  "H13: SQLAlchemy works through the gateway",
  await pythonScript("sqlalchemy_script.py"),
  async (ready) => {
    expect((await scriptOutput(ready)).trim().split("\n")).toEqual([
      ...["psycopg", "psycopg2"].flatMap((driver) => [
        `ok ${driver}: reflection of tables and keys`,
        `ok ${driver}: objects, many rows at once, and a savepoint that survives a refusal`,
        `ok ${driver}: rows by a cursor of the server, and levels of isolation`,
      ]),
      "ok asyncpg: reflection, statements and streams",
    ]);
  },
);

test("H3: what pgAdmin asks as it connects is answered as by the server", async () => {
  const through = new pg.Client({
    ...{ host: gateway.host, port: gateway.port, user: gateway.user, database: "shop" },
    password: environment.PGPASSWORD ?? "",
    ssl: { ca: await readFile(gateway.caFile, "utf8") },
  });
  await through.connect();
  try {
    for (const text of pgAdminOpening) {
      const answer: unknown = await through.query(text);
      const rows = (Array.isArray(answer) ? answer : [answer]).flatMap((each: pg.QueryResult) => each.rows);
      expect(rows, text).toEqual(await server.query(text.replaceAll(/^SET .*$/gm, "")));
    }
  } finally {
    await through.end();
  }
});

const pgAdminOpening = [
  `SET DateStyle=ISO;
SET client_min_messages=notice;
SELECT set_config('bytea_output','hex',false) FROM pg_show_all_settings() WHERE name = 'bytea_output';
SET client_encoding='utf-8';`,
  "SELECT version()",
  `SELECT db.oid as did, db.datname, db.datallowconn, pg_encoding_to_char(db.encoding) AS serverencoding,
    has_database_privilege(db.oid, 'CREATE') as cancreate, datistemplate
  FROM pg_catalog.pg_database db WHERE db.datname = current_database()`,
  "SELECT gss_authenticated, encrypted FROM pg_catalog.pg_stat_gssapi WHERE pid = pg_backend_pid()",
  `SELECT roles.oid as id, roles.rolname as name, roles.rolsuper as is_superuser,
    CASE WHEN roles.rolsuper THEN true ELSE roles.rolcreaterole END as can_create_role,
    CASE WHEN roles.rolsuper THEN true ELSE roles.rolcreatedb END as can_create_db,
    CASE WHEN 'pg_signal_backend'=ANY(ARRAY(WITH RECURSIVE cte AS (
      SELECT pg_roles.oid,pg_roles.rolname FROM pg_roles WHERE pg_roles.oid = roles.oid
      UNION ALL
      SELECT m.roleid, pgr.rolname FROM cte cte_1 JOIN pg_auth_members m ON m.member = cte_1.oid
        JOIN pg_roles pgr ON pgr.oid = m.roleid)
      SELECT rolname FROM cte)) THEN True ELSE False END as can_signal_backend
  FROM pg_catalog.pg_roles as roles WHERE rolname = current_user`,
];

testWith("H1: psql runs its script through the gateway", psql, async (ready) => {
  const output = await scriptOutput(ready, "-f", join(drivers, "script.psql"));
  expect(output).toBe(await readFile(join(drivers, "script.psql.out"), "utf8"));
});

testWith(
  "H1: Ctrl-C in psql cancels its own statement and nobody else's",
  psql,
  async ({ command, args }) => {
    const endless = (who: string) => `SELECT '${who}', count(*) FROM generate_series(1, 100000000000)`;
    const active = async () =>
      (
        await server.query(
          "SELECT substr(query, 9, 1) AS who FROM pg_stat_activity WHERE query LIKE $1 AND state = 'active' ORDER BY 1",
          ["SELECT '_', count(*) FROM generate_series%"],
        )
      ).map(({ who }) => who);
    const start = (who: string) => spawn(command, [...args, "-c", endless(who)], { env: environment });
    const [a, b] = [start("a"), start("b")];
    const [endOfA, endOfB] = [outputOf(a), outputOf(b)];
    await expect.poll(active, { timeout: 10_000 }).toEqual(["a", "b"]);
    a.kill("SIGINT");
    expect(await endOfA).toContain("canceling statement due to user request");
    expect(await active()).toEqual(["b"]);
    b.kill("SIGINT");
    expect(await endOfB).toContain("canceling statement due to user request");
    await expect.poll(active).toEqual([]);
  },
);

/** Everything that it wrote, once it has ended. */
async function outputOf(child: ChildProcess): Promise<string> {
  let output = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => (output += text));
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (output += text));
  await new Promise((resolve) => child.once("close", resolve));
  return output;
}
