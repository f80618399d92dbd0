/** PostgreSQL's own tools work through the gateway: what is dumped, restored and measured is what it is without it. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { clientTools } from "../drivers/client-tools.ts";
import { testWith } from "../drivers/test-with.ts";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import {
  type PostgresServer,
  type PostgresVersion,
  startPostgres,
  versionsUnderTest,
} from "../targets/postgres.ts";

const tools = await clientTools();
const drivers = join(import.meta.dirname, "../drivers");
const policies = `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: admin}
spec: {resources: {names: [shop]}, subjects: [{user: "local:adam"}], profile: Admin}
`;

type Way = "direct" | "through";

for (const version of versionsUnderTest) describe(`PostgreSQL ${version}`, () => toolsWork(version));

function toolsWork(version: PostgresVersion): void {
  let server: PostgresServer;
  let gateway: Gateway;
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "sallyport-tools-"));
    server = await startPostgres({
      version,
      tls: true,
      database: "rich",
      settings: { wal_level: "logical" },
      initSql: await readFile(join(drivers, "rich.sql"), "utf8"),
    });
    if (version >= 15) await server.query(sinceFifteen);
    for (const name of ["once", "again", "jobs", "bench"]) {
      await server.query(`CREATE DATABASE ${name}`, [], "postgres");
    }
    gateway = await startGateway({ server, policies });
  });
  afterAll(async () => {
    await gateway?.stop();
    await server?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  const environments = (): Record<Way, NodeJS.ProcessEnv> => ({
    direct: {
      PGHOST: server.socketDir,
      PGPORT: String(server.port),
      PGUSER: server.superuser,
      PGPASSWORD: server.password,
    },
    through: {
      PGHOST: gateway.host,
      PGPORT: String(gateway.port),
      PGUSER: "shop",
      PGPASSWORD: gateway.issuer.token({ user: "adam" }),
      PGSSLMODE: "verify-full",
      PGSSLROOTCERT: gateway.caFile,
    },
  });

  /** Runs one of the tools; both what it printed and what it complained about. */
  async function output(bin: string, way: Way, tool: string, ...args: string[]): Promise<string> {
    const ran = promisify(execFile)(join(bin, tool), args, {
      env: {
        PATH: process.env.PATH,
        HOME: "/nonexistent",
        LC_ALL: "C.UTF-8",
        TZ: "UTC",
        ...environments()[way],
      },
      maxBuffer: 64 * 1024 * 1024,
      timeout: 90_000,
    });
    const { stdout, stderr } = await ran.catch((error: { stdout: string; stderr: string }) => {
      if (tool === "pg_restore" && !args.includes("--exit-on-error")) return error;
      throw error;
    });
    return stderr + stdout;
  }

  // pg_dump 18 sets transaction_timeout, which servers before 17 do not know: there it complains once and goes on.
  const isKnown = version >= 17;
  const strict = isKnown ? ["--exit-on-error"] : [];
  const stop = isKnown ? ["-v", "ON_ERROR_STOP=1"] : [];
  const oneSetting =
    /^[^\n]*unrecognized configuration parameter "transaction_timeout"[\s\S]*errors ignored on restore: 1\n$/;

  // Without a key of its own every dump has a random line.
  const plain = ["--restrict-key=same", "--create"];

  testWith(
    "H2: pg_dump through the gateway writes byte for byte what it writes without it",
    tools,
    async (ready) => {
      const { folder: bin } = ready;
      const both = (args: readonly string[]) =>
        Promise.all([output(bin, "direct", "pg_dump", ...args), output(bin, "through", "pg_dump", ...args)]);
      const [direct, through] = await both([...plain, "rich"]);
      expect(direct).toContain("CREATE POLICY own");
      expect(through.split("\n")).toEqual(direct.split("\n"));
      for (const form of [
        ["--inserts", "--rows-per-insert=7"],
        ["--column-inserts"],
        ["--schema-only", "--clean"],
      ]) {
        const [wanted, got] = await both([...plain, ...form, "rich"]);
        expect(got).toBe(wanted);
      }
    },
  );

  testWith(
    "H2: what pg_restore puts back through the gateway is what was dumped",
    tools,
    async ({ folder: bin }) => {
      const dumpOf = (name: string) => output(bin, "direct", "pg_dump", "--restrict-key=same", name);
      const archive = join(folder, `custom-${version}`);
      const parts = join(folder, `parts-${version}`);
      const [wanted] = await Promise.all([
        dumpOf("rich"),
        output(bin, "through", "pg_dump", "-Fc", "-f", archive, "rich"),
        output(bin, "through", "pg_dump", "-Fd", "--jobs=3", "-f", parts, "rich"),
      ]);

      const restored = await output(bin, "through", "pg_restore", ...strict, "-d", "again", archive);
      expect(restored).toMatch(isKnown ? /^$/ : oneSetting);
      expect((await dumpOf("again")).split("\n")).toEqual(wanted.split("\n"));
      // An older server stops the only transaction at the setting that it does not know.
      if (!isKnown) return;
      const clean = [
        "--exit-on-error",
        "--clean",
        "--if-exists",
        "--single-transaction",
        "-d",
        "again",
        archive,
      ];
      expect(await output(bin, "through", "pg_restore", ...clean)).toBe("");
      expect((await dumpOf("again")).split("\n")).toEqual(wanted.split("\n"));
      expect(
        await output(bin, "through", "pg_restore", "--exit-on-error", "--jobs=3", "-d", "jobs", parts),
      ).toBe("");
      expect((await dumpOf("jobs")).split("\n")).toEqual(wanted.split("\n"));
    },
  );

  testWith("H2: a plain dump is put back by psql through the gateway", tools, async ({ folder: bin }) => {
    const dump = join(folder, `plain-${version}.sql`);
    await output(bin, "through", "pg_dump", "--restrict-key=same", "-f", dump, "rich");
    await output(bin, "through", "psql", "-X", "-q", ...stop, "-d", "once", "-f", dump);
    const dumpOf = (name: string) => output(bin, "direct", "pg_dump", "--restrict-key=same", name);
    expect((await dumpOf("once")).split("\n")).toEqual((await dumpOf("rich")).split("\n"));
  });

  testWith(
    "H2: pg_dumpall tells of roles what it tells without the gateway",
    tools,
    async ({ folder: bin }) => {
      const args = ["--restrict-key=same", "--globals-only", "--no-role-passwords"];
      const direct = await output(bin, "direct", "pg_dumpall", ...args);
      expect(direct).toContain("CREATE ROLE keeper");
      expect(await output(bin, "through", "pg_dumpall", "-l", "postgres", ...args)).toBe(direct);
    },
  );

  testWith(
    "H2: vacuumdb, reindexdb, clusterdb and pg_amcheck do their work",
    tools,
    async ({ folder: bin }) => {
      await output(bin, "through", "vacuumdb", "--analyze", "--jobs=2", "rich");
      await output(bin, "through", "reindexdb", "rich");
      await output(bin, "through", "clusterdb", "rich");
      await output(bin, "through", "pg_amcheck", "--install-missing", "rich");
      await output(bin, "through", "createdb", "--maintenance-db=postgres", "made");
      await output(bin, "through", "dropdb", "--maintenance-db=postgres", "made");
    },
  );

  testWith(
    "H15: pgbench fills its tables from both sides and runs in every mode",
    tools,
    async ({ folder: bin }) => {
      for (const steps of ["dtgvpf", "dtGvpf"]) {
        await output(bin, "through", "pgbench", "-i", "-q", "-s", "1", "-I", steps, "bench");
        expect(await server.query("SELECT count(*)::int AS n FROM pgbench_accounts", [], "bench")).toEqual([
          { n: 100_000 },
        ]);
      }
      const script = join(folder, "pipeline.pgbench");
      await writeFile(script, pipelineScript);
      const variables = join(folder, "gset.pgbench");
      await writeFile(variables, gsetScript);
      const runs: string[][] = [
        ...["simple", "extended", "prepared"].map((mode) => ["-M", mode, "-b", "tpcb-like"]),
        ["-M", "prepared", "-b", "select-only", "-C"],
        ["-M", "simple", "-b", "simple-update", "-C"],
        ["-M", "extended", "-f", script],
        ["-M", "prepared", "-f", script],
        ["-M", "simple", "-f", variables],
      ];
      for (const args of runs) {
        const report = await output(
          bin,
          "through",
          "pgbench",
          "-n",
          "-c",
          "4",
          "-j",
          "2",
          "-t",
          "10",
          ...args,
          "bench",
        );
        expect(report).toContain("number of transactions actually processed: 40/40");
        expect(report).not.toContain("aborted");
      }
    },
  );

  testWith(
    "H2: a large object that vacuumlo finds orphaned goes, and others stay",
    tools,
    async ({ folder: bin }) => {
      const bytes = randomBytes(100_000).toString("hex");
      await server.query(
        "CREATE TABLE held (o oid); INSERT INTO held VALUES (lo_from_bytea(0, 'kept'))",
        [],
        "bench",
      );
      await server.query(`SELECT lo_from_bytea(99999, decode('${bytes}', 'hex'))`, [], "bench");
      await output(bin, "through", "vacuumlo", "bench");
      expect(
        await server.query("SELECT count(*)::int AS n FROM pg_largeobject_metadata", [], "bench"),
      ).toEqual([{ n: 1 }]);
    },
  );
}

const sinceFifteen = `
CREATE PUBLICATION narrow FOR TABLE app.parent (id, name) WHERE (id > 5);
CREATE PUBLICATION broad FOR TABLES IN SCHEMA app;
CREATE VIEW app.asking WITH (security_invoker) AS SELECT id FROM app.parent;
CREATE TABLE app.once (x int, UNIQUE NULLS NOT DISTINCT (x));
`;

const pipelineScript = `\\set aid random(1, 100000)
\\startpipeline
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
END;
\\endpipeline
`;

const gsetScript = `\\set aid random(1, 100000)
SELECT abalance AS b, aid AS a FROM pgbench_accounts WHERE aid = :aid \\gset p_
SELECT 1 AS one \\; SELECT 2 AS two \\aset
SELECT :p_a + :one + :two;
\\if :one = 1
SELECT 'yes';
\\endif
`;
