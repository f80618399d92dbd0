import { existsSync } from "node:fs";
import { connect } from "node:net";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type PostgresServer, startPostgres, versionsUnderTest } from "../targets/postgres.ts";

let server: PostgresServer;

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    database: "shop",
    initSql: "CREATE TABLE item (id int); INSERT INTO item SELECT generate_series(1, 3);",
    hba: ["hostssl all certified 127.0.0.1/32 cert", "host all hostile 127.0.0.1/32 reject"],
  });
});
afterAll(() => server.stop());

test("the database and rows asked for are there", async () => {
  expect(await server.query("SELECT count(*)::int AS n FROM item")).toEqual([{ n: 3 }]);
});

test.each(versionsUnderTest)("a real PostgreSQL %i runs where it is asked for", async (version) => {
  const other = await startPostgres({ version });
  const [row] = await other.query("SELECT current_setting('server_version_num')::int / 10000 AS v");
  await other.stop();
  expect(row).toEqual({ v: version });
});

test("its certificate verifies against its authority, and client certificates are taken", async () => {
  await server.query("CREATE ROLE certified LOGIN");
  const { certPem, keyPem } = await server.clientCertificate("certified");
  const client = new pg.Client({
    host: "localhost",
    port: server.port,
    user: "certified",
    database: "shop",
    ssl: { ca: server.caPem, cert: certPem, key: keyPem },
  });
  await client.connect();
  const { rows } = await client.query(
    "SELECT ssl, current_user AS me FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
  );
  await client.end();
  expect(rows).toEqual([{ ssl: true, me: "certified" }]);
});

test("a password is asked for, and a wrong one refused", async () => {
  const client = new pg.Client(server.connectionString.replace(server.password, "wrong"));
  await expect(client.connect()).rejects.toMatchObject({ code: "28P01" });
});

test("it comes back on the same port after a crash, with what was committed", async () => {
  const { port } = server;
  await server.kill9();
  await expect(
    new Promise((resolve, reject) => connect(port, "127.0.0.1", () => resolve(0)).once("error", reject)),
  ).rejects.toThrow();
  await server.restart();
  expect(server.port).toBe(port);
  expect(await server.query("SELECT count(*)::int AS n FROM item")).toEqual([{ n: 3 }]);
});

test("stop leaves no files behind", async () => {
  const other = await startPostgres();
  expect(existsSync(other.dataDir)).toBe(true);
  await other.stop();
  expect(existsSync(other.dataDir)).toBe(false);
});
