/** Who may do everything sees no difference: psql prints the same with the gateway in between. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { clientTools } from "../drivers/client-tools.ts";
import { testWith } from "../drivers/test-with.ts";
import { hasCommand } from "../drivers/toolchains.ts";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import {
  type PostgresServer,
  type PostgresVersion,
  startPostgres,
  versionsUnderTest,
} from "../targets/postgres.ts";

const hasPsql = await hasCommand("psql", ["--version"]);
const script = join(import.meta.dirname, "../drivers/everyday.psql");
const policies = `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: admin}
spec:
  resources: {names: [shop]}
  subjects: [{user: "local:adam"}]
  profile: Admin
`;

const newest = await clientTools();

async function printed(environment: Record<string, string>, psql = "psql", played = script): Promise<string> {
  // Errors are told on the other stream: one shell puts both in the order in which they came.
  const { stdout } = await promisify(execFile)("bash", ["-c", `exec "$1" -X -a -f "$0" 2>&1`, played, psql], {
    env: { PATH: process.env.PATH, HOME: "/nonexistent", LC_ALL: "C.UTF-8", ...environment },
    maxBuffer: 64 * 1024 * 1024,
  });
  // Where psql meets the server is what may differ; PIDs in notifications do.
  return stdout
    .replaceAll(/server process with PID \d+/g, "server process")
    .replaceAll(/^.* \(every 0.01s\)$/gm, "every 0.01s")
    .replaceAll(/^(lo_import|lo_unlink) \d+$/gm, "$1");
}

function sameIn(version: PostgresVersion): void {
  let server: PostgresServer;
  let gateway: Gateway;
  beforeAll(async () => {
    server = await startPostgres({ version, tls: true, database: "shop" });
    gateway = await startGateway({ server, policies });
  });
  afterAll(async () => {
    await gateway?.stop();
    await server?.stop();
  });

  const title = `looks the same through the gateway as on PostgreSQL ${version} itself`;
  test(`H1: a day in psql ${title}`, () => same());
  testWith(`H1: what psql 18 does of its own ${title}`, newest, ({ folder }) =>
    same(join(folder, "psql"), join(import.meta.dirname, "../drivers/commands.psql")),
  );

  async function same(...played: [] | [psql: string, script: string]): Promise<void> {
    const common = { PGDATABASE: "shop", PGSSLMODE: "verify-full", PGHOST: "localhost" };
    const direct = await printed(
      {
        ...common,
        PGHOST: "127.0.0.1",
        PGPORT: String(server.port),
        PGUSER: server.superuser,
        PGPASSWORD: server.password,
        PGSSLMODE: "require",
      },
      ...played,
    );
    const through = await printed(
      {
        ...common,
        PGPORT: String(gateway.port),
        PGUSER: "shop",
        PGPASSWORD: gateway.issuer.token({ user: "adam" }),
        PGSSLROOTCERT: gateway.caFile,
      },
      ...played,
    );
    expect(direct).toContain("ERROR:  division by zero");
    expect(through.split("\n")).toEqual(direct.split("\n"));
  }
}

if (!hasPsql) test.skip("psql looks the same through the gateway (NOT RUN: psql is not installed)", () => {});
for (const version of versionsUnderTest) {
  if (hasPsql) describe(`PostgreSQL ${version}`, () => sameIn(version));
}
