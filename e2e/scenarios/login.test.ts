/** Ways to log in: OAUTHBEARER byte by byte (by libpq itself: libpq.test.ts), roles upstream, and floods before any login. */
import { once } from "node:events";
import { connect as connectTcp, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { createAuthority } from "../targets/certificates.ts";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { everybody, policyDocument, providerDocument } from "../targets/policies.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { frame, int32s, password, query, sslRequest, startup, WireClient } from "../targets/wire-client.ts";

const issuer = "https://login.example.com/tenant";
const teams = await createAuthority("a team's authority", { organization: "team-a" });
const policies =
  everybody +
  policyDocument("shop", "stella", `  rules: [{name: theirs, match: {objects: ["boss.*"]}, action: Deny}]`) +
  providerDocument("corp", { type: "oidc", oidc: { issuer }, clientCertificates: { caBundle: teams.caPem } });

let server: PostgresServer;
let gateway: Gateway;

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    database: "shop",
    initSql: `
      CREATE ROLE account LOGIN PASSWORD 'account'; CREATE ROLE clerk; CREATE ROLE person_ann; CREATE ROLE boss;
      GRANT clerk, person_ann, boss TO account; CREATE SCHEMA person_ann AUTHORIZATION person_ann;
      CREATE TABLE paper (n int); GRANT SELECT ON paper TO clerk;
      CREATE TABLE safe (n int); GRANT SELECT ON safe TO account, boss;`,
  });
  await server.query("CREATE DATABASE stored");
  await server.query("ALTER ROLE account IN DATABASE stored SET role = boss");
  await server.query(
    `CREATE SCHEMA boss; GRANT USAGE ON SCHEMA boss TO boss; CREATE TABLE boss.paper (n int); CREATE TABLE paper (n int);
     GRANT SELECT ON boss.paper, public.paper TO boss`,
    [],
    "stored",
  );
  gateway = await startGateway({
    server,
    policies,
    account: { username: "account", password: "account" },
    resource: {
      identity: { providers: ["local", "corp"] },
      options: { oauthScope: "openid shop" },
      credentials: [
        { name: "shop", secretRef: { name: "shop" } },
        { name: "clerk", secretRef: { name: "shop" }, role: "clerk" },
        { name: "person", secretRef: { name: "shop" }, role: "person_{user}" },
      ],
    },
    args: [
      ...["--pending-logins-by-address", "20", "--failed-logins", "0", "--failed-logins-by-address", "0"],
      ...["--login-timeout", "6"],
    ],
  });
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

const oauth = { user: "shop", database: "shop", options: "-c sallyport.login=oauth" };

/** A client that has said hello and been offered mechanisms. */
async function offered(
  parameters: Record<string, string> = oauth,
): Promise<{ client: WireClient; offer: Buffer }> {
  const client = await WireClient.connect(gateway.port);
  await client.startTls(gateway.caPem);
  client.send(startup(parameters));
  const [message] = await client.until("R");
  return { client, offer: message?.body ?? Buffer.alloc(0) };
}
const initial = (data: string, mechanism = "OAUTHBEARER") =>
  frame("p", `${mechanism}\0`, int32s(Buffer.byteLength(data)), data);
const bearer = (token: string) => initial(`n,,\x01auth=Bearer ${token}\x01\x01`);
const errorIn = (messages: Awaited<ReturnType<WireClient["until"]>>) =>
  messages.find(({ type }) => type === "E")?.fields;

describe("OAUTHBEARER", () => {
  it("is offered to whom asks for it, and a token in it opens a session as one in the password does", async () => {
    const { client, offer } = await offered();
    expect(offer).toEqual(Buffer.concat([int32s(10), Buffer.from("OAUTHBEARER\0\0")]));
    client.send(bearer(gateway.issuer.token({ user: "ann" })));
    const greeting = await client.until("Z");
    expect(greeting[0]).toMatchObject({ type: "R", body: int32s(0) });
    client.send(query("SELECT current_setting('application_name')"));
    const row = (await client.until("Z")).find(({ type }) => type === "D");
    expect(row?.body.toString()).toContain("local:ann/");
    client.close();
  });

  it("works with the client's first message left out of its choice", async () => {
    const { client } = await offered();
    client.send(frame("p", "OAUTHBEARER\0", int32s(-1)));
    expect((await client.until("R")).at(-1)?.body).toEqual(int32s(11));
    client.send(frame("p", `n,,\x01auth=Bearer ${gateway.issuer.token({ user: "ann" })}\x01\x01`));
    expect((await client.until("Z")).at(-1)?.type).toBe("Z");
    client.close();
  });

  it("tells a client without a token where to get one, and ends with 28000", async () => {
    const { client } = await offered();
    client.send(initial("n,,\x01auth=\x01\x01"));
    const [challenge] = await client.until("R");
    expect(challenge?.body.readInt32BE(0)).toBe(11);
    expect(JSON.parse(challenge?.body.toString("utf8", 4) ?? "")).toEqual({
      status: "invalid_token",
      "openid-configuration": `${issuer}/.well-known/openid-configuration`,
      scope: "openid shop",
    });
    client.send(frame("p", "\x01"));
    expect(errorIn(await client.untilClosed())).toMatchObject({ S: "FATAL", C: "28000" });
  });

  it.each([
    ["of another resource", { claims: { aud: "sallyport:default/other" } }, /another audience/],
    ["that has expired", { lifetimeSeconds: -60 }, /expired/],
    ["of nobody's issuer", { claims: { iss: "mallory" } }, /not trusted/],
  ])("refuses a token %s after the same answer", async (_, request, reason) => {
    const { client } = await offered();
    client.send(bearer(gateway.issuer.token({ user: "ann", ...request })));
    const [challenge] = await client.until("R");
    expect(challenge?.body.readInt32BE(0)).toBe(11);
    client.send(frame("p", "\x01"));
    const error = errorIn(await client.untilClosed());
    expect(error?.C).toBe("28000");
    expect(error?.M).toMatch(reason);
  });

  it.each([
    ["another mechanism", initial("n,,n=,r=x", "SCRAM-SHA-256")],
    ["channel binding data", initial("p=tls-server-end-point,,\x01auth=Bearer x\x01\x01")],
    ["a length that lies", frame("p", "OAUTHBEARER\0", int32s(99), "n,,")],
    ["no SASL message at all", query("SELECT 1")],
    ["a message of a gigabyte", Buffer.from([0x70, 0x40, 0, 0, 0])],
  ])("ends at %s with a protocol violation", async (_, message) => {
    const { client } = await offered();
    client.send(message);
    expect(errorIn(await client.untilClosed())).toMatchObject({ S: "FATAL", C: "08P01" });
  });

  it("is not offered unasked, nor before TLS", async () => {
    const { client, offer } = await offered({ user: "shop", database: "shop" });
    expect(offer).toEqual(int32s(3));
    client.close();
    const plain = await WireClient.connect(gateway.port);
    plain.send(startup(oauth));
    expect(errorIn(await plain.untilClosed())).toMatchObject({ C: "28000", M: "connections must use TLS" });
  });
});

describe("a client certificate", () => {
  async function whoami(...organizations: readonly string[]): Promise<string> {
    const { certPem, keyPem } = await teams.issue({ commonName: "alice", organizations, usage: "client" });
    const client = new pg.Client({
      ...{ host: "localhost", port: gateway.port, user: "shop", database: "shop" },
      ssl: { ca: gateway.caPem, cert: certPem, key: keyPem },
    });
    client.on("error", () => undefined);
    try {
      await client.connect();
      const { rows } = await client.query("SELECT current_setting('application_name') AS name");
      return rows[0].name;
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  it("logs in whom its authority may name", async () => {
    expect(await whoami("team-a")).toContain("corp:alice");
  });

  it("logs in nobody whom its authority may not name", async () => {
    await expect(whoami("admins")).rejects.toMatchObject({ code: "28000" });
    await expect(whoami("admins", "team-a")).rejects.toMatchObject({ code: "28000" });
    await expect(whoami()).rejects.toMatchObject({ code: "28000" });
  });

  it.each(["TLSv1.2", "TLSv1.3"] as const)(
    "may be asked for, and whoever resumes a session of %s gets in all the same",
    async (version) => {
      const once = (session?: Buffer) =>
        new Promise<{ readonly isResumed: boolean; readonly session: Buffer }>((resolve, reject) => {
          const socket = connectTls({
            ...{ host: "localhost", port: gateway.port, ca: gateway.caPem, ALPNProtocols: ["postgresql"] },
            ...{ minVersion: version, maxVersion: version },
            ...(session === undefined ? {} : { session }),
          });
          socket.once("error", reject);
          // A session comes behind the handshake in TLS 1.3; the answer to a start-up packet shows that all went well.
          socket.once("secureConnect", () => socket.write(startup({ user: "shop", database: "shop" })));
          let latest = session;
          socket.on("session", (given: Buffer) => {
            latest = given;
          });
          socket.once("data", (answer: Buffer) => {
            expect(answer.toString("latin1", 0, 1)).toBe("R");
            if (latest === undefined) reject(new Error("no session was given"));
            else resolve({ isResumed: socket.isSessionReused(), session: latest });
            socket.destroy();
          });
        });
      const first = await once();
      expect(first.isResumed).toBe(false);
      expect((await once(first.session)).isResumed).toBe(true);
    },
  );
});

describe("a role upstream", () => {
  const connect = (account: string, user = "ann") => gateway.connect({ user }, { user: account });
  const roleOf = async (client: pg.Client) =>
    (await client.query("SELECT current_user AS role, session_user AS account")).rows[0];
  const sqlstate = (promise: Promise<unknown>) =>
    promise.then(
      () => "ok",
      (error: unknown) => (error as pg.DatabaseError).code,
    );

  it("is the one of the credential, with its rights and without the account's", async () => {
    const client = await connect("clerk");
    expect(await roleOf(client)).toEqual({ role: "clerk", account: "account" });
    expect(await sqlstate(client.query("SELECT * FROM paper"))).toBe("ok");
    expect(await sqlstate(client.query("SELECT * FROM safe"))).toBe("42501");
    await client.end();
    const bare = await connect("shop");
    expect(await roleOf(bare)).toEqual({ role: "account", account: "account" });
    await bare.end();
  });

  it('is named after the identity where the credential says so, and "$user" is its schema', async () => {
    const client = await connect("person");
    expect(await roleOf(client)).toEqual({ role: "person_ann", account: "account" });
    await client.query("CREATE TABLE own (n int)");
    expect(
      (await client.query("SELECT 'own'::regclass::text AS name, count(*)::int AS n FROM own")).rows,
    ).toEqual([{ name: "own", n: 0 }]);
    expect(await server.query("SELECT schemaname FROM pg_tables WHERE tablename = 'own'")).toEqual([
      { schemaname: "person_ann" },
    ]);
    await client.end();
  });

  it.each(["bob", "x".repeat(60), "ann', 'boss"])(
    "that does not exist or fits no name lets nobody in: %s",
    async (user) => {
      expect(await sqlstate(connect("person", user))).toMatch(/^(08006|28000)$/);
    },
  );

  it("outlives everything that resets a session", async () => {
    const client = await connect("clerk");
    for (const text of [
      "RESET ROLE",
      "RESET ALL",
      "DISCARD ALL",
      "RESET SESSION AUTHORIZATION",
      "SET SESSION AUTHORIZATION DEFAULT",
      "SET role TO DEFAULT",
      "SET LOCAL role TO DEFAULT",
      "SET ROLE clerk",
      "SELECT set_config('role', 'clerk', false)",
      "BEGIN; SET LOCAL ROLE 'clerk'; RESET ROLE; COMMIT",
    ]) {
      expect(`${text}: ${await sqlstate(client.query(text))}`).toBe(`${text}: ok`);
      expect(await roleOf(client)).toEqual({ role: "clerk", account: "account" });
    }
    await client.end();
  });

  it("cannot be left, by no spelling of SET and no profile", async () => {
    const client = await connect("clerk");
    for (const text of [
      "SET ROLE boss",
      "SET ROLE NONE",
      "SET LOCAL ROLE boss",
      "SET role TO boss",
      "SET SESSION role = 'none'",
      "SET SESSION AUTHORIZATION account",
      "SET SESSION AUTHORIZATION clerk",
      "SET SESSION AUTHORIZATION 'default'",
      "SELECT set_config('session_authorization', 'account', false)",
      "SET ROLE account",
      'SET ROLE "none"',
      'SET ROLE "Clerk"',
      "DO $$BEGIN SET ROLE NONE; END$$",
      "DO $$BEGIN PERFORM set_config('role', 'account', false); END$$",
      "PREPARE p AS SELECT set_config('role', 'none', false)",
      "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql SET role = account AS 'SELECT 1'",
      "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql SET role TO none AS 'SELECT 1'",
      "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql SET role = clerk AS 'SELECT 1'",
      "SELECT set_config('role', 'boss', false)",
      "SELECT pg_catalog.set_config('ROLE', 'none', true)",
      "BEGIN; SET ROLE boss; COMMIT",
      "UPDATE pg_settings SET setting = 'boss' WHERE name = 'role'",
      "SELECT 1; SET ROLE boss",
    ]) {
      expect(`${text}: ${await sqlstate(client.query(text))}`).toMatch(/: (42501|0A000)$/);
      await client.query("ROLLBACK");
      expect(await roleOf(client)).toEqual({ role: "clerk", account: "account" });
    }
    await client.end();
    const bare = await connect("shop");
    expect(await sqlstate(bare.query("SET ROLE boss"))).toBe("ok");
    await bare.end();
  });

  it("that the server's own settings give is whose names are judged, whatever is reset", async () => {
    const client = await gateway.connect({ user: "stella" }, { user: "shop", database: "stored" });
    expect(await roleOf(client)).toEqual({ role: "boss", account: "account" });
    for (const text of ["SELECT 1", "DISCARD ALL", "RESET ROLE", "SET ROLE boss"]) {
      await client.query(text);
      expect(`${text}: ${await sqlstate(client.query("SELECT * FROM paper"))}`).toBe(`${text}: 42501`);
      expect(await sqlstate(client.query("SELECT * FROM public.paper"))).toBe("ok");
    }
    await client.end();
  });

  it("cannot be chosen at start-up", async () => {
    for (const options of [
      "-c role=boss",
      "-c Role=none",
      "--role=boss",
      "-c session_authorization=account",
      "-c session_authorization=default",
    ]) {
      const code = await sqlstate(
        gateway.connect({ user: "ann" }, { user: "clerk", options }).then(async (client) => {
          await client.end();
        }),
      );
      expect(`${options}: ${code}`).toBe(`${options}: 42501`);
    }
  });
});

describe("before login", () => {
  const idle = async (from: string, first?: Uint8Array): Promise<Socket> => {
    const socket = connectTcp({ port: gateway.port, host: "127.0.0.1", localAddress: from });
    socket.on("error", () => undefined);
    await once(socket, "connect");
    if (first !== undefined) socket.write(first);
    socket.resume();
    return socket;
  };
  const isLetIn = (from: string) =>
    new Promise<boolean>((resolve) => {
      const socket = connectTcp({ port: gateway.port, host: "127.0.0.1", localAddress: from });
      socket.on("error", () => undefined);
      socket.once("data", () => {
        resolve(true);
        socket.destroy();
      });
      socket.once("close", () => resolve(false));
      socket.write(sslRequest);
    });

  it.each([
    ["says nothing", undefined],
    ["begins TLS and stops in mid-handshake", Buffer.from([0x16, 3, 1, 2, 0, 1])],
    ["sends a start-up packet byte by byte", Buffer.from([0, 0])],
  ])("an address that %s on many connections fills its own share, and nobody else's", async (_, first) => {
    const sockets = await Promise.all(Array.from({ length: 20 }, () => idle("127.0.0.21", first)));
    await vi.waitFor(async () => expect(await isLetIn("127.0.0.21")).toBe(false), { timeout: 20_000 });
    expect(await isLetIn("127.0.0.22")).toBe(true);
    const client = await gateway.connect({ user: "ann" });
    await client.end();
    for (const socket of sockets) socket.destroy();
    await vi.waitFor(async () => expect(await isLetIn("127.0.0.21")).toBe(true), { timeout: 20_000 });
  });

  it("a slow client is ended by the login's deadline, wherever it stands", async () => {
    const sockets = await Promise.all([
      idle("127.0.0.23"),
      idle("127.0.0.23", sslRequest),
      idle("127.0.0.23", Buffer.from([0x16, 3, 1])),
    ]);
    const { client } = await offered({ user: "shop", database: "shop" });
    const started = performance.now();
    await Promise.all(sockets.map((socket) => once(socket, "close")));
    expect(errorIn(await client.untilClosed())?.C).toBe("28000");
    expect(performance.now() - started).toBeLessThan(12_000);
  });

  it("logged-in sessions do not count against their address", async () => {
    const clients = await Promise.all(Array.from({ length: 15 }, () => gateway.connect({ user: "ann" })));
    const more = await Promise.all(Array.from({ length: 15 }, () => gateway.connect({ user: "ann" })));
    await Promise.all([...clients, ...more].map((client) => client.end()));
  });

  it("a token in a password that is no message of its own is not read past its length", async () => {
    const { client } = await offered({ user: "shop", database: "shop" });
    client.send(password("x\0y"));
    expect(errorIn(await client.untilClosed())).toMatchObject({ C: "08P01" });
  });
});
