/** The account that the gateway logs in with: its password is changed while people work, and nobody else can use it. */
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { writeSecret } from "../targets/manifests.ts";
import { everybody } from "../targets/policies.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { until } from "../targets/until.ts";

let server: PostgresServer;
let gateway: Gateway;
const open: pg.Client[] = [];

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    database: "shop",
    // As the how-to says it: the account from where its gateways are, everybody else from nowhere.
    hba: ["hostssl shop account 127.0.0.1/32 scram-sha-256", "host shop all all reject"],
    initSql: `CREATE ROLE account LOGIN PASSWORD 'the-first'; CREATE ROLE ann LOGIN PASSWORD 'of-ann';`,
  });
  const account = { username: "account", password: "the-first" };
  gateway = await startGateway({ server, policies: everybody, account });
});
afterAll(async () => {
  await Promise.all(open.map((client) => client.end().catch(() => undefined)));
  await gateway?.stop();
  await server?.stop();
});

async function logIn(): Promise<pg.Client> {
  const { port, user, caPem: ca, issuer } = gateway;
  const password = issuer.token({ user: "ann" });
  const client = new pg.Client({ host: "localhost", port, user, password, database: "shop", ssl: { ca } });
  client.on("error", () => undefined);
  await client.connect();
  open.push(client);
  return client;
}
const answer = async (client: pg.Client) => (await client.query("SELECT current_user AS who")).rows[0]?.who;

test("a changed password counts for the next login, without a restart, and ends no session", async () => {
  const before = await logIn();
  expect(await answer(before)).toBe("account");
  await server.query("ALTER ROLE account PASSWORD 'the-second'");
  // Until the gateway has it nobody new gets in, and nobody is told what it tried.
  const refused = await logIn().catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(Error);
  expect(String(refused)).not.toMatch(/the-first|the-second/);
  await writeSecret(join(gateway.configDir, "secrets/shop"), { password: "the-second" });
  const after = await until(() => logIn().catch(() => undefined));
  expect(await answer(after)).toBe("account");
  expect(await answer(before)).toBe("account");
});

test("a role of one's own gets into the server by no password where pg_hba names the gateways' account alone", async () => {
  const login = { host: "localhost", port: server.port, database: "shop", ssl: { ca: server.caPem } };
  const direct = new pg.Client({ ...login, user: "ann", password: "of-ann" });
  direct.on("error", () => undefined);
  await expect(direct.connect()).rejects.toMatchObject({ code: "28000" });
  await server.query("ALTER ROLE ann NOLOGIN");
  const left = await server.query("SELECT rolname FROM pg_roles WHERE rolcanlogin AND NOT rolsuper");
  expect(left).toEqual([{ rolname: "account" }]);
});
