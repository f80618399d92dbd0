/** Promise: a pooler may stand on either side of the gateway, and everybody keeps their settings. */
import { readFile } from "node:fs/promises";
import pg from "pg";
import { afterAll, beforeAll, expect } from "vitest";
import { type BouncedServer, type PgBouncer, pgbouncerProgram, startPgBouncer } from "../bench/pgbouncer.ts";
import { testWith } from "../drivers/test-with.ts";
import { type Gateway, type GatewayOptions, startGateway } from "../targets/gateway.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";

const toolchain =
  pgbouncerProgram() === undefined
    ? ({ kind: "absent", reason: "pgbouncer is not installed" } as const)
    : ({ kind: "ready" } as const);

const policies = `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: pooled}
spec:
  resources: {names: [shop]}
  subjects: [{user: "local:ann"}]
  profile: Admin
  rules:
  - {name: payroll-is-closed, match: {objects: ["public.payroll"]}, action: Deny}
`;

let server: PostgresServer;
const open: { stop(): Promise<unknown> }[] = [];

beforeAll(async () => {
  server = await startPostgres({
    database: "shop",
    initSql: "CREATE TABLE payroll (n int); CREATE TABLE item (n int)",
  });
});
afterAll(async () => {
  for (const each of open.reverse()) await each.stop();
  await server?.stop();
});

async function bouncer(before: BouncedServer, ca?: string): Promise<PgBouncer> {
  const made = await startPgBouncer(before, ca);
  open.push(made);
  return made;
}

async function gatewayBefore(resource: NonNullable<GatewayOptions["resource"]>): Promise<Gateway> {
  const made = await startGateway({ server, policies, resource });
  open.push(made);
  return made;
}

/** What everybody does: definitions, refusals in transactions, prepared statements. */
async function works(client: pg.Client): Promise<void> {
  await client.query("CREATE TABLE made (n int PRIMARY KEY); INSERT INTO made VALUES (1)");
  expect((await client.query("SELECT n FROM made WHERE n = $1", [1])).rows).toEqual([{ n: 1 }]);
  await client.query("SET search_path = pg_catalog, public; BEGIN; INSERT INTO made VALUES (2)");
  await expect(client.query("SELECT * FROM payroll")).rejects.toMatchObject({ code: "42501" });
  await expect(client.query("SELECT 1")).rejects.toMatchObject({ code: "25P02" });
  await client.query("ROLLBACK");
  const named = { name: "counted", text: "SELECT count(*)::int AS n FROM made WHERE n > $1", values: [0] };
  for (let round = 0; round < 2; round += 1) expect((await client.query(named)).rows).toEqual([{ n: 1 }]);
  await expect(client.query("SELECT * FROM nowhere")).rejects.toMatchObject({ code: "42P01" });
  await client.query("DROP TABLE made");
}

testWith("H16: PgBouncer behind the gateway, in session mode", toolchain, async () => {
  const { port } = await bouncer(server);
  const gateway = await gatewayBefore({
    endpoint: { host: "127.0.0.1", port },
    tls: { upstream: { mode: "require" } },
  });
  for (let session = 0; session < 2; session += 1) {
    const client = await gateway.connect({ user: "ann" });
    await works(client);
    expect(
      (await client.query("SELECT current_setting('default_transaction_read_only') AS is")).rows,
    ).toEqual([{ is: "off" }]);
    await client.end();
  }
});

testWith("H16: PgBouncer in front of the gateway, in session mode", toolchain, async () => {
  const gateway = await gatewayBefore({});
  const token = await gateway.token({ user: "ann" });
  const { port, caFile } = await bouncer(
    { host: "localhost", port: gateway.port, database: "shop", superuser: gateway.user, password: token },
    await readFile(gateway.caFile, "utf8"),
  );
  for (let session = 0; session < 2; session += 1) {
    const client = new pg.Client({
      ...{ host: "localhost", port, database: "shop", user: gateway.user, password: token },
      ssl: { ca: await readFile(caFile, "utf8") },
    });
    await client.connect();
    await works(client);
    await client.end();
  }
});
