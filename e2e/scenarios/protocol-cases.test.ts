/**
 * The list of protocol cases, sections A (start-up), B (cancel) and C (extended protocol, pipelines, transactions),
 * each by its number, through the real gateway in front of a real server.
 *
 * Elsewhere, because their subject is there: A2, A5, A8, A11, C29 also in bad-input.test.ts; A9, A10 (every spelling)
 * in sidecar startup.test.ts; A12, A13, A16 (every order and answer) in sidecar upstream-login.test.ts and
 * upstream-login.test.ts; C8 and the limits of a session in live-session.test.ts; C1 to C4, C15 and C16 among generated
 * neighbours in refusal.test.ts; C18 and C29 with a scripted server in sidecar session.test.ts. B3 and B5 for several
 * processes and replicas in horizontal.test.ts; B6 in approvals.test.ts and placed-cancel.test.ts; A4, A5, A6, A9, A11, A14 and B1
 * by libpq 18 in libpq.test.ts; OAUTHBEARER and floods in login.test.ts; bounds of the protocol in protocol-edges.test.ts.
 */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect as connectTcp, createServer, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hasCommand } from "../drivers/toolchains.ts";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import type { PostgresServer } from "../targets/postgres.ts";
import { type Shop, startShop } from "../targets/shop.ts";
import {
  bind,
  cancelRequest,
  execute,
  frame,
  int16s,
  int32s,
  keyOf,
  parse,
  password,
  query,
  type ServerMessage,
  sslRequest,
  startup,
  WireClient,
} from "../targets/wire-client.ts";

const gssRequest = int32s(8, 80877104);
const hasPsql = await hasCommand("psql", ["--version"]);
/** Process ids of sessions are known to the gateway's process that has them, and to no other. */
const isOneProcess = process.env.SALLYPORT_TEST_PROCESSES === undefined;

let shop: Shop;
let server: PostgresServer;
let gateway: Gateway;

beforeAll(async () => {
  shop = await startShop({
    initSql: `
      CREATE TABLE item (n int PRIMARY KEY, word text);
      INSERT INTO item SELECT n, 'word ' || n FROM generate_series(1, 5) n;
      CREATE TABLE scratch (n int, word text);
      CREATE TABLE payroll (n int);`,
    policies: `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: ann}
spec:
  resources: {names: [shop]}
  subjects: [{user: "local:ann"}]
  profile: Admin
  rules: [{name: payroll, match: {objects: ["public.payroll"]}, action: Deny, message: payroll is closed}]
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: bob}
spec:
  resources: {names: [shop]}
  subjects: [{user: "local:bob"}]
  profile: ReadWrite
`,
  });
  ({ server, gateway } = shop);
  await server.query("CREATE DATABASE noticing", [], "postgres");
  await server.query("CREATE DATABASE shop_too TEMPLATE template0", [], "postgres");
});
afterAll(() => shop?.stop());

// --------------------------------------------------------------------------------------------------------- helpers

interface Login {
  readonly user?: "ann" | "bob";
  readonly version?: number;
  readonly parameters?: Record<string, string>;
}
const asShop = { user: "shop", database: "shop" };
const token = (user = "ann") => gateway.issuer.token({ user });

async function greeted(login: Login = {}): Promise<{ client: WireClient; greeting: ServerMessage[] }> {
  const client = await secured();
  client.send(startup(login.parameters ?? asShop, login.version));
  const before = await client.until("R");
  client.send(password(token(login.user)));
  return { client, greeting: [...before, ...(await client.until("Z"))] };
}

async function loggedIn(login: Login = {}): Promise<WireClient> {
  return (await greeted(login)).client;
}

const secured = () => shop.secured();

async function ask(client: WireClient, ...messages: Uint8Array[]): Promise<ServerMessage[]> {
  client.send(...messages);
  return client.until("Z");
}
const sql = (client: WireClient, text: string) => ask(client, query(text));

/** A short form of answers: letters, with SQLSTATE, tag, status or the row's first value where there is one. */
function brief(messages: readonly ServerMessage[]): string {
  return messages
    .filter(({ type }) => type !== "S")
    .map(({ type, body, fields }) => {
      if (type === "E" || type === "N") return `${type}${fields.C}`;
      if (type === "C") return `C(${body.toString("utf8", 0, body.length - 1)})`;
      if (type === "Z") return `Z${body.toString()}`;
      if (type === "D") return `D${firstValue(body)}`;
      return type;
    })
    .join(" ");
}
const firstValue = (body: Buffer) =>
  body.readInt32BE(2) < 0 ? "null" : body.toString("utf8", 6, 6 + body.readInt32BE(2));
const errorOf = (messages: readonly ServerMessage[]) => messages.find(({ type }) => type === "E")?.fields;

const describeStatement = (name: string) => frame("D", `S${name}\0`);
const describePortal = (name: string) => frame("D", `P${name}\0`);
const sync = frame("S");
const flush = frame("H");
const whole = (text: string) => [parse("", text), bind("", ""), execute()];

const backends = async (where: string) =>
  server.query(`SELECT pid, application_name, wait_event FROM pg_stat_activity WHERE ${where}`);

async function memory(field: "VmRSS" | "VmHWM"): Promise<number> {
  const status = await readFile(`/proc/${gateway.pid}/status`, "utf8");
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1]) * 1024;
}

// ------------------------------------------------------------------------------------------------------ A: start-up

describe("A: start-up, TLS, authentication", () => {
  it("A1: SSLRequest, TLS and start-up lead to a session; a second SSLRequest inside TLS ends the connection", async () => {
    const { client, greeting } = await greeted();
    expect(brief(greeting)).toBe("R R K ZI");
    client.close();
    const twice = await secured();
    twice.send(sslRequest);
    expect(errorOf(await twice.untilClosed())).toMatchObject({ S: "FATAL", C: "08P01" });
  });

  it("A2: a whole session stuffed behind SSLRequest is answered by nothing but the end", async () => {
    const client = await WireClient.connect(gateway.port);
    client.send(sslRequest, startup(asShop), password(token()), query("INSERT INTO scratch VALUES (666)"));
    await client.untilClosed();
    expect(await server.query("SELECT 1 FROM scratch WHERE n = 666")).toEqual([]);
  });

  it("A2: a client that says goodbye behind SSLRequest reads S first, as from the server", async () => {
    // Older servers wait for more of a handshake.
    const asked = server.version >= 18 ? [server.port, gateway.port] : [gateway.port];
    for (const port of asked) {
      const client = await WireClient.connect(port);
      client.send(sslRequest, frame("X"));
      expect((await client.take(1)).toString()).toBe("S");
      await client.untilClosed();
    }
  });

  it("A3: GSSENCRequest is answered N, and SSLRequest then works on the same socket", async () => {
    const client = await WireClient.connect(gateway.port);
    client.send(gssRequest);
    expect((await client.take(1)).toString()).toBe("N");
    await client.startTls(gateway.caPem);
    client.send(startup(asShop));
    await client.until("R");
    client.send(password(token()));
    expect(brief(await client.until("Z"))).toBe("R K ZI");
    client.close();
  });

  describe("A4: direct TLS", () => {
    const direct = async (protocols: string[]) => {
      const socket = connectTls({
        ...{ host: "127.0.0.1", port: gateway.port, ca: gateway.caPem, servername: "localhost" },
        ...(protocols.length > 0 ? { ALPNProtocols: protocols } : {}),
      });
      await once(socket, "secureConnect");
      return socket;
    };
    it("A4: works with the ALPN protocol postgresql, and a cancel request over it reaches its statement (B5)", async () => {
      const socket = await direct(["postgresql"]);
      expect(socket.alpnProtocol).toBe("postgresql");
      socket.write(startup(asShop));
      await once(socket, "data");
      socket.write(password(token()));
      const [answer] = (await once(socket, "data")) as [Buffer];
      expect(answer.subarray(0, 9)).toEqual(Buffer.concat([frame("R", int32s(0))]));
      socket.destroy();
      const { client, greeting } = await greeted();
      client.send(query("SELECT pg_sleep(70)"));
      await expect.poll(() => backends("query = 'SELECT pg_sleep(70)' AND state = 'active'")).toHaveLength(1);
      const canceller = await direct(["postgresql"]);
      canceller.end(cancelRequest(keyOf(greeting)));
      expect(errorOf(await client.until("Z"))?.C).toBe("57014");
      client.close();
    });

    it("A4: another ALPN protocol gets the alert no_application_protocol", async () => {
      await expect(direct(["http/1.1"])).rejects.toThrow(/no.application.protocol/i);
    });

    it("A4: without ALPN nothing is asked and nothing served", async () => {
      const socket = await direct([]);
      const received: Buffer[] = [];
      socket.on("data", (chunk: Buffer) => received.push(chunk));
      socket.write(Buffer.concat([startup(asShop), password(token()), query("SELECT 1")]));
      socket.on("error", () => {});
      await new Promise<void>((resolve) => socket.once("close", () => resolve()));
      const answer = Buffer.concat(received).toString("latin1");
      expect(answer).not.toMatch(/^R/);
      expect(answer).not.toContain("SELECT 1");
    });
  });

  it("A5: a plain-text start-up is refused before any password and without a connection to the server", async () => {
    const opened = async () =>
      server.query("SELECT sessions FROM pg_stat_database WHERE datname = 'shop_too'");
    const before = await opened();
    const client = await WireClient.connect(gateway.port);
    client.send(startup({ user: "shop", database: "shop_too" }), password(token()));
    expect(brief(await client.untilClosed())).toBe("E28000");
    expect(await opened()).toEqual(before);
  });

  describe("A6: versions", () => {
    const versions = [0x30000, 0x30001, 0x30002, 0x30003, 0x30000 + 3999, 0x30000 + 9999];
    /** As PostgreSQL 18 answers, whatever the server behind speaks; where that is 18 itself, it is asked. */
    const negotiated = (version: number, options: Record<string, string>): string[] => {
      const names = Object.keys(options);
      const request = `R ${int32s(3).toString("latin1")}`;
      if (version <= 0x30002 && names.length === 0) return [request];
      const text = names.map((name) => `${name}\0`).join("");
      const offered = int32s(Math.min(version, 0x30002), names.length).toString("latin1");
      return [`v ${offered}${text}`, request];
    };
    const optionSets: Record<string, string>[] = [{}, { "_pq_.other": "1" }, { "_pq_.a": "x", "_pq_.b": "" }];
    for (const version of versions) {
      it(`A6: 3.${version & 0xffff} is negotiated as the server itself does, and the session opens`, async () => {
        for (const options of optionSets) {
          const shown = (messages: ServerMessage[]) =>
            messages.map(({ type, body }) => `${type} ${body.toString("latin1")}`);
          const wanted = negotiated(version, options);
          const keyBytes = version < 0x30002 ? 8 : 36;
          if (server.version === 18) {
            const direct = await WireClient.connect(server.port);
            await direct.startTls(server.caPem);
            direct.send(startup({ user: "direct", database: "shop", ...options }, version));
            expect(shown(await direct.until("R"))).toEqual(wanted);
            direct.send(password("direct"));
            const key = (await direct.until("Z")).find(({ type }) => type === "K");
            expect(key?.body.length).toBe(keyBytes);
            direct.close();
          }
          const { client, greeting } = await greeted({ version, parameters: { ...asShop, ...options } });
          expect(shown(greeting.slice(0, wanted.length))).toEqual(wanted);
          const key = greeting.find(({ type }) => type === "K");
          expect(key?.body.length, "A7: the key's length").toBe(keyBytes);
          expect(brief(await sql(client, "SELECT 1"))).toBe("T D1 C(SELECT 1) ZI");
          client.close();
        }
      });
    }

    it("A6: 2.0 is refused in its own form, 4.0 with 0A000", async () => {
      const ancient = await secured();
      ancient.send(startup(asShop, 0x20000));
      expect((await ancient.take(60)).toString("latin1")).toMatch(
        /^EFATAL: {2}unsupported frontend protocol 2\.0/,
      );
      ancient.close();
      const future = await secured();
      future.send(startup(asShop, 0x40000));
      expect(errorOf(await future.untilClosed())).toMatchObject({ S: "FATAL", C: "0A000" });
    });
  });

  it("A6: a first packet of impossible length is closed without a word, as by the server", async () => {
    const first = (...words: number[]) => {
      const bytes = Buffer.alloc(words.length * 4);
      for (const [index, word] of words.entries()) bytes.writeInt32BE(word | 0, index * 4);
      return bytes;
    };
    for (const packet of [
      first(0),
      first(7, 196608),
      first(-1, 196608),
      first(0x58000000, 4),
      first(0x7fffffff, 196608),
      first(8, 80877102),
    ]) {
      for (const port of [gateway.port, server.port]) {
        const client = await WireClient.connect(port);
        client.send(packet);
        expect(
          (await client.take(1)).toString("hex"),
          `${packet.toString("hex")} ${port === server.port}`,
        ).toBe("");
        client.close();
      }
    }
    const inside = await secured();
    inside.send(first(7, 196608));
    expect(await inside.untilClosed()).toEqual([]);
    await expect.poll(() => gateway.logs()).toContain("invalid length of startup packet");
  });

  it("A7: a client of 3.0 gets a key of 4 bytes, one of 3.2 a key of 32 that cancels", async () => {
    const old = await greeted();
    expect(keyOf(old.greeting).length).toBe(8);
    old.client.close();
    const { client, greeting } = await greeted({ version: 0x30002 });
    expect(keyOf(greeting).length).toBe(36);
    client.send(query("SELECT pg_sleep(71)"));
    await expect.poll(() => backends("query = 'SELECT pg_sleep(71)' AND state = 'active'")).toHaveLength(1);
    await cancel(cancelRequest(keyOf(greeting)));
    expect(errorOf(await client.until("Z"))?.C).toBe("57014");
    client.close();
  });

  it("A8: without a database the session is in the one named as the user", async () => {
    const client = await loggedIn({ parameters: { user: "shop" } });
    expect(brief(await sql(client, "SELECT current_database()"))).toContain("Dshop ");
    client.close();
  });

  it("A9: options set what they say, with PostgreSQL's own escaping", async () => {
    const options = "-c statement_timeout=5s --search-path=pg_catalog,\\ public -cdatestyle=SQL,\\ D\\MY";
    const client = await loggedIn({ user: "bob", parameters: { ...asShop, options } });
    expect(brief(await sql(client, "SHOW statement_timeout"))).toContain("D5s ");
    expect(brief(await sql(client, "SHOW search_path"))).toContain("Dpg_catalog, public ");
    expect(brief(await sql(client, "SHOW datestyle"))).toContain("DSQL, DMY ");
    client.close();
  });

  it("A9, A10: a setting that policy would not let SET is refused at start-up, however it is spelt", async () => {
    for (const extra of [
      { role: "postgres" },
      { ROLE: "postgres" },
      { session_authorization: "postgres" },
      { session_replication_role: "replica" },
      { standard_conforming_strings: "off" },
      { options: "-c role=postgres" },
      { options: "-crole=postgres" },
      { options: "--role=postgres" },
      { options: "-c\\ role=postgres" },
      { options: "-c check_function_bodies=off" },
    ] as Record<string, string>[]) {
      const client = await secured();
      client.send(startup({ ...asShop, ...extra }), password(token("bob")));
      const answer = await client.untilClosed();
      expect(errorOf(answer)?.S, JSON.stringify(extra)).toBe("FATAL");
      expect(brief(answer), JSON.stringify(extra)).not.toContain("Z");
    }
  });

  it("A10: a setting that the server does not take is answered in its own words, which name no account", async () => {
    const answered = async (
      client: WireClient,
      user: string,
      secret: string,
      extra: Record<string, string>,
    ) => {
      client.send(startup({ user, database: "shop", ...extra }));
      await client.until("R");
      client.send(password(secret));
      const { S, C, M } = errorOf(await client.untilClosed()) ?? {};
      return { S, C, M };
    };
    for (const extra of [
      { nosuch: "1" },
      { options: "-c no_such_setting=on" },
      { work_mem: "much" },
      { options: "-c extra_float_digits=900" },
      { TimeZone: "Nowhere/At_All" },
      { server_version: "1" },
      { shared_buffers: "1MB" },
    ] as Record<string, string>[]) {
      const direct = await WireClient.connect(server.port);
      await direct.startTls(server.caPem);
      const wanted = await answered(direct, "direct", "direct", extra);
      expect(await answered(await secured(), "shop", token(), extra), JSON.stringify(extra)).toEqual(wanted);
    }
  });

  it("A11: a replication session is refused, and the commands of its grammar are syntax errors", async () => {
    const refused = await secured();
    refused.send(startup({ ...asShop, replication: "database" }), password(token()));
    expect(errorOf(await refused.untilClosed())?.C).toBe("28000");
    const client = await loggedIn();
    expect(brief(await sql(client, "IDENTIFY_SYSTEM"))).toBe("E42601 ZI");
    client.close();
  });

  it("A12: a notice of the server between its login and ReadyForQuery does not fail the login", async () => {
    const database = "noticing";
    // Before 17 there are no triggers on logins; the server's own words about its work come at the same place.
    const parameters = { user: "shop", database, options: "-c client_min_messages=debug5" };
    if (server.version >= 17)
      await server.query(
        `CREATE FUNCTION greet() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE 'welcome'; END$$;
       CREATE EVENT TRIGGER greeting ON login EXECUTE FUNCTION greet();
       ALTER EVENT TRIGGER greeting ENABLE ALWAYS;`,
        [],
        database,
      );
    const client = await loggedIn({ parameters });
    const answer = await sql(client, "SELECT current_database()");
    expect(brief(answer.filter(({ type }) => type !== "N"))).toBe("T Dnoticing C(SELECT 1) ZI");
    client.close();
    const noticed = await secured();
    noticed.send(startup({ ...asShop, database }), password(token()));
    const told = (await noticed.until("Z")).filter(({ type }) => type === "N");
    expect(told.map(({ fields }) => fields.M)).toEqual(server.version >= 17 ? ["welcome"] : []);
    noticed.close();
  });

  it("A13: a server that offers SCRAM-SHA-256-PLUS first is logged in to over TLS", async () => {
    const client = await loggedIn();
    // The server tells how somebody logged in since 16; that the login is bound to its certificate is in upstream-login.
    const user = server.version >= 16 ? "system_user" : "'scram-sha-256:postgres'";
    const session = "FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    expect(brief(await sql(client, `SELECT ${user} ${session} AND ssl`))).toContain(
      "Dscram-sha-256:postgres",
    );
    client.close();
  });

  it("A14: a client that wants channel binding is asked for none that is not there, and its leaving costs nothing", async () => {
    const client = await secured();
    client.send(startup(asShop));
    const [request] = await client.until("R");
    // Clear text inside TLS: a client with channel_binding=require stops here by itself.
    expect(request?.body).toEqual(int32s(3));
    client.close();
    if (hasPsql) {
      const { port, caFile } = gateway;
      const target = `host=localhost port=${port} user=shop dbname=shop sslmode=verify-full sslrootcert=${caFile}`;
      const failed = await new Promise<string>((resolve) => {
        const env = { PATH: process.env.PATH, PGPASSWORD: token() };
        execFile(
          "psql",
          ["-X", "-w", `${target} channel_binding=require`, "-c", "SELECT 1"],
          { env },
          (error, _out, text) => resolve(`${error?.code} ${text}`),
        );
      });
      expect(failed).toMatch(/^2 .*channel binding/s);
    }
    const next = await loggedIn();
    expect(brief(await sql(next, "SELECT 1"))).toBe("T D1 C(SELECT 1) ZI");
    next.close();
  });

  it("A16: what the server says of a failed login reaches the log, not the client", async () => {
    const accounts = [
      { username: "postgres", password: "wrong-password-of-the-account" },
      { username: "no_such_role", password: "wrong-password-of-the-account" },
    ];
    for (const account of accounts) {
      const other = await startGateway({
        server,
        account,
        policies: `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: ann}
spec: {resources: {names: [shop]}, subjects: [{user: "local:ann"}], profile: Admin}
`,
      });
      try {
        const client = await WireClient.connect(other.port);
        await client.startTls(other.caPem);
        client.send(startup(asShop), password(other.issuer.token({ user: "ann" })));
        const error = errorOf(await client.untilClosed());
        expect(error).toMatchObject({ S: "FATAL", C: expect.stringMatching(/^(08006|28000)$/) });
        expect(error?.H).toMatch(/id [0-9a-f]{12}/);
        const text = JSON.stringify(error);
        for (const secret of [account.username, account.password, "127.0.0.1", String(server.port)])
          expect(text).not.toContain(secret);
        const id = /id ([0-9a-f]{12})/.exec(error?.H ?? "")?.[1] ?? "none";
        await expect.poll(() => other.logs()).toContain(id);
        expect(other.logs()).not.toContain(account.password);
      } finally {
        await other.stop();
      }
    }
  });

  it("A17: the server's credentials cannot be read or changed by a user of a profile", async () => {
    const client = await loggedIn({ user: "bob" });
    for (const text of [
      "SELECT rolpassword FROM pg_authid",
      "SELECT passwd FROM pg_shadow",
      "SELECT * FROM pg_hba_file_rules",
      "SELECT * FROM pg_file_settings",
      "SELECT pg_read_file('pg_hba.conf')",
      "ALTER ROLE CURRENT_USER PASSWORD 'mine'",
      "ALTER USER postgres PASSWORD 'mine'",
      "ALTER ROLE postgres RENAME TO mine",
      "CREATE ROLE mine SUPERUSER LOGIN PASSWORD 'mine'",
    ]) {
      expect(brief(await sql(client, text)), text).toBe("E42501 ZI");
    }
    const shown = await sql(client, "SELECT query, application_name FROM pg_stat_activity");
    expect(JSON.stringify(shown.map(({ body }) => body.toString()))).not.toContain(server.password);
    client.close();
  });

  it("A18: no way to set application_name takes the identity out of it", async () => {
    for (const user of ["ann", "bob"] as const) {
      const client = await loggedIn({ user, parameters: { ...asShop, application_name: "first" } });
      const [, row] = await sql(client, "SELECT pg_backend_pid()");
      const pid = firstValue(row?.body ?? Buffer.alloc(6));
      for (const text of [
        "SET application_name = 'mallory'",
        "SET LOCAL application_name = 'mallory'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; SET application_name TO mallory",
        "SELECT set_config('application_name', 'mallory', false)",
        "BEGIN; SET LOCAL application_name = mallory; SELECT 1",
        "SELECT set_config('application_name', 'mallory', true) AS name",
        "PREPARE named AS SELECT set_config('application_name', $1, false)",
        "EXECUTE named ('mallory')",
        "ROLLBACK",
        "RESET application_name",
        "RESET ALL",
        "DISCARD ALL",
        "UPDATE pg_settings SET setting = 'mallory' WHERE name = 'application_name'",
      ]) {
        await sql(client, text);
        const [backend] = await backends(`pid = ${pid}`);
        expect(backend?.application_name, `${user}: ${text}`).toMatch(new RegExp(`^local:${user}/`));
      }
      client.close();
    }
  });
});

// -------------------------------------------------------------------------------------------------------- B: cancel

/** Sends a cancel request as libpq does, and resolves to what was answered before the end. */
async function cancel(request: Buffer, how: "plain" | "tls" = "plain"): Promise<Buffer> {
  const client = how === "tls" ? await secured() : await WireClient.connect(gateway.port);
  client.send(request);
  const answer = await client.take(1);
  client.close();
  return answer;
}

describe("B: CancelRequest", () => {
  for (const how of ["plain", "tls"] as const) {
    it(`B1, B5: reaches the statement over ${how === "tls" ? "TLS" : "plain text"}, closes without an answer`, async () => {
      const { client, greeting } = await greeted();
      const sleep = `SELECT pg_sleep(72), '${how}'`;
      client.send(query("BEGIN"), query(sleep));
      await expect.poll(() => backends(`query = $$${sleep}$$ AND state = 'active'`)).toHaveLength(1);
      expect(await cancel(cancelRequest(keyOf(greeting)), how)).toHaveLength(0);
      await client.until("Z");
      expect(brief(await client.until("Z"))).toMatch(/E57014 ZE$/);
      expect(brief(await sql(client, "ROLLBACK"))).toBe("C(ROLLBACK) ZI");
      client.close();
    });
  }

  it("B1: one that comes when nothing runs changes nothing", async () => {
    const { client, greeting } = await greeted();
    await cancel(cancelRequest(keyOf(greeting)));
    await cancel(cancelRequest(keyOf(greeting)));
    // It may still arrive during the next statement, as it may with the server alone.
    await expect.poll(async () => brief(await sql(client, "SELECT 1"))).toBe("T D1 C(SELECT 1) ZI");
    client.close();
  });

  it("B2: the key is not the server's: not its process id, and useless at the server itself", async () => {
    const { client, greeting } = await greeted();
    const key = keyOf(greeting);
    const pids = (await backends("true")).map(({ pid }) => pid);
    expect(pids).not.toContain(key.readInt32BE(0));
    expect(brief(await sql(client, "SELECT pg_backend_pid()"))).not.toContain(`D${key.readInt32BE(0)} `);
    const sleep = "SELECT pg_sleep(74), 'kept'";
    const sleeping = () => backends(`query = $$${sleep}$$ AND state = 'active'`);
    client.send(query(sleep));
    await expect.poll(sleeping).toHaveLength(1);
    // The server knows neither the pair nor, for its own process id, the secret.
    const [backend] = await sleeping();
    const guessed = Buffer.from(key);
    guessed.writeInt32BE(Number(backend?.pid));
    for (const sent of [key, guessed]) {
      const atServer = await WireClient.connect(server.port);
      atServer.send(cancelRequest(sent));
      expect(await atServer.untilClosed()).toEqual([]);
    }
    expect(await sleeping()).toHaveLength(1);
    await cancel(cancelRequest(keyOf(greeting)));
    expect(errorOf(await client.until("Z"))?.C).toBe("57014");
    client.close();
  });

  it("B5: a wrong key closes silently, is reported, and reaches nobody", async () => {
    const { client, greeting } = await greeted();
    const sleep = "SELECT pg_sleep(75), 'kept'";
    client.send(query(sleep));
    const sleeping = () => backends(`query = $$${sleep}$$ AND state = 'active'`);
    await expect.poll(sleeping).toHaveLength(1);
    const told = () => gateway.logs().match(/a cancel request names no session/g)?.length ?? 0;
    const before = told();
    const request = cancelRequest(keyOf(greeting));
    const wrong = Buffer.from(request);
    wrong[wrong.length - 1] = (wrong.at(-1) ?? 0) ^ 1;
    const longer = Buffer.concat([int32s(request.length + 4, 80877102), request.subarray(8), int32s(0)]);
    const stranger = Buffer.from(request);
    stranger.writeInt32BE(1, 8);
    for (const how of ["plain", "tls"] as const)
      for (const bytes of [wrong, longer, stranger]) expect(await cancel(bytes, how)).toHaveLength(0);
    await expect.poll(told).toBe(before + 6);
    // One without a key, which the server closes without a word too.
    expect(await cancel(int32s(12, 80877102, 5))).toHaveLength(0);
    expect(await sleeping()).toHaveLength(1);
    await cancel(request);
    expect(errorOf(await client.until("Z"))?.C).toBe("57014");
    client.close();
  });
});

// ------------------------------------------------------------------------------------------------------ C: sessions

const rowsOf = (table: string) => server.query(`SELECT n FROM ${table} ORDER BY n`);

describe("C: extended protocol, pipelines, transactions", () => {
  it("C1: what stands before a refusal in a pipeline is rolled back with it", async () => {
    const client = await loggedIn();
    const seen = await ask(
      client,
      ...whole("INSERT INTO scratch VALUES (101)"),
      ...whole("DELETE FROM payroll WHERE n = 1"),
      ...whole("INSERT INTO scratch VALUES (102)"),
      sync,
    );
    expect(brief(seen)).toBe("1 2 C(INSERT 0 1) E42501 ZI");
    expect(await server.query("SELECT n FROM scratch WHERE n IN (101, 102)")).toEqual([]);
    client.close();
  });

  it("C2: answers come in the order of the messages, refusals among them", async () => {
    const client = await loggedIn();
    const messages = Array.from({ length: 30 }, (_, n) =>
      query(n % 3 === 1 ? "SELECT * FROM payroll" : `SELECT ${n}`),
    );
    client.send(...messages);
    for (let n = 0; n < 30; n += 1) {
      const wanted = n % 3 === 1 ? "E42501 ZI" : `T D${n} C(SELECT 1) ZI`;
      expect(brief(await client.until("Z"))).toBe(wanted);
    }
    client.close();
  });

  it("C3: everything behind a refused Parse is skipped; one error, and one ReadyForQuery for each Sync", async () => {
    const client = await loggedIn();
    client.send(
      ...[parse("s", "SELECT * FROM payroll"), describeStatement("s"), bind("p", "s"), describePortal("p")],
      ...[execute("p"), frame("C", "Pp\0"), flush, frame("C", "Ss\0"), parse("t", "SELECT 1"), sync, sync],
      ...[bind("", "t"), sync],
    );
    expect(brief(await client.until("Z"))).toBe("E42501 ZI");
    expect(brief(await client.until("Z"))).toBe("ZI");
    expect(brief(await client.until("Z"))).toBe("E26000 ZI");
    client.close();
  });

  it("C3: a utility statement that is refused, or names nothing, is prepared and fails when it runs", async () => {
    const client = await loggedIn();
    const direct = await shop.logInDirect();
    for (const [text, code] of [
      ["ALTER TABLE no_such_table ADD COLUMN b int", "42P01"],
      ["DROP VIEW no_such_view", "42P01"],
      ["EXECUTE no_such_statement", "26000"],
      ["COMMENT ON TABLE no_such_table IS 'x'", "42P01"],
    ] as const) {
      const messages = [
        parse("u", text),
        describeStatement("u"),
        bind("", "u"),
        execute(),
        frame("C", "Su\0"),
        sync,
      ];
      const seen = await ask(client, ...messages);
      expect(brief(seen), text).toBe(brief(await ask(direct, ...messages)));
      expect(errorOf(seen)?.C).toBe(code);
      await ask(client, frame("C", "Su\0"), sync);
      await ask(direct, frame("C", "Su\0"), sync);
    }
    const seen = await ask(client, parse("u", "DROP TABLE payroll"), bind("p", "u"), execute("p"), sync);
    expect(brief(seen)).toBe("1 2 E42501 ZI");
    expect(errorOf(seen)?.M).toBe("payroll is closed");
    // Its name is its own, and SQL fails where it runs it, as the message does.
    expect(brief(await ask(client, parse("u", "SELECT 1"), sync))).toBe("E42P05 ZI");
    const executed = await sql(client, "EXECUTE u");
    expect(brief(executed)).toBe("E42501 ZI");
    expect(errorOf(executed)?.M).toBe("payroll is closed");
    for (const text of ["EXPLAIN EXECUTE u", "EXPLAIN ANALYZE EXECUTE u", "CREATE TEMP TABLE t AS EXECUTE u"])
      expect(brief(await sql(client, text)), text).toMatch(
        /(DUtility statements have no plan structure|E42809)/,
      );
    expect(await server.query("SELECT to_regclass('payroll') IS NOT NULL AS there")).toEqual([
      { there: true },
    ]);
    for (const text of [
      "DROP TABLE no_such",
      "DROP SCHEMA no_such",
      "TRUNCATE no_such",
      "REFRESH MATERIALIZED VIEW no_such",
    ]) {
      const messages = [
        ...[
          query("BEGIN READ ONLY"),
          parse("n", text),
          sync,
          query("SAVEPOINT a"),
          bind("", "n"),
          execute(),
          sync,
        ],
        ...[query("ROLLBACK TO a"), query("ROLLBACK"), query("EXECUTE n")],
        ...[query("EXPLAIN EXECUTE n"), query("DEALLOCATE n")],
      ];
      const answers: string[] = [];
      for (const one of [client, direct]) {
        one.send(...messages, query("SELECT 'behind it'"));
        let seen = "";
        while (!seen.includes("behind it")) seen += brief(await one.until("Z"));
        answers.push(seen);
      }
      expect(answers[0], text).toBe(answers[1]);
    }
    client.close();
    direct.close();
  });

  it("C8: a utility statement that named nothing runs once the name is there", async () => {
    const client = await loggedIn();
    expect(brief(await ask(client, parse("u", "DROP TABLE later"), bind("", "u"), execute(), sync))).toBe(
      "1 2 E42P01 ZI",
    );
    await server.query("CREATE TABLE later (n int)");
    expect(brief(await ask(client, bind("", "u"), execute(), sync))).toBe("2 C(DROP TABLE) ZI");
    expect(brief(await ask(client, bind("", "u"), execute(), sync))).toMatch(/E42P01 ZI$/);
    expect(brief(await ask(client, frame("C", "Su\0"), parse("u", "SELECT 1"), sync))).toBe("3 1 ZI");
    client.close();
  });

  it("C4: a refused Parse with a Flush is answered before Sync", async () => {
    const client = await loggedIn();
    client.send(parse("", "SELECT * FROM payroll"), describeStatement(""), flush);
    const error = await client.message();
    expect(error?.fields).toMatchObject({ S: "ERROR", C: "42501", M: "payroll is closed" });
    expect(brief(await ask(client, sync))).toBe("ZI");
    client.close();
  });

  it("C7: names of statements and portals live and die as in the server", async () => {
    const client = await loggedIn();
    const is = async (wanted: string, ...messages: Uint8Array[]) =>
      expect(brief(await ask(client, ...messages, sync))).toBe(wanted);
    await is("1 ZI", parse("x", "SELECT 1"));
    await is("E42P05 ZI", parse("x", "SELECT 2"));
    await is("2 D1 C(SELECT 1) ZI", bind("", "x"), execute());
    await is(
      "1 1 2 D4 C(SELECT 1) ZI",
      parse("", "SELECT 3"),
      parse("", "SELECT 4"),
      bind("", ""),
      execute(),
    );
    await is("3 3 ZI", frame("C", "Snever\0"), frame("C", "Pnever\0"));
    await is("2 3 2 D1 C(SELECT 1) ZI", bind("x", "x"), frame("C", "Px\0"), bind("x", "x"), execute("x"));
    await is("2 2 D1 C(SELECT 1) ZI", bind("", "x"), bind("", "x"), execute());
    await is("2 E42P03 ZI", bind("y", "x"), bind("y", "x"));
    await is("3 E26000 ZI", frame("C", "Sx\0"), bind("", "x"));
    await is("1 2 D5 C(SELECT 1) ZI", parse("x", "SELECT 5"), bind("", "x"), execute());
    client.close();
  });

  it("C10: PREPARE, EXECUTE, DEALLOCATE and DISCARD share their names with Parse and Bind", async () => {
    const client = await loggedIn();
    const bound = () => ask(client, bind("", "n"), execute(), sync);
    await sql(client, "PREPARE n AS SELECT 'sql'");
    expect(brief(await bound())).toBe("2 Dsql C(SELECT 1) ZI");
    expect(brief(await ask(client, parse("n", "SELECT 'again'"), sync))).toBe("E42P05 ZI");
    for (const gone of ["DEALLOCATE n", "DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE PREPARE n"]) {
      await sql(client, gone);
      expect(brief(await bound()), gone).toBe("E26000 ZI");
      expect(brief(await ask(client, parse("n", "SELECT 'wire'"), sync)), gone).toBe("1 ZI");
      expect(brief(await sql(client, "EXECUTE n")), gone).toBe("T Dwire C(SELECT 1) ZI");
    }
    await sql(client, "DISCARD PLANS");
    expect(brief(await bound())).toBe("2 Dwire C(SELECT 1) ZI");
    expect(brief(await sql(client, "PREPARE bad AS SELECT * FROM payroll"))).toBe("E42501 ZI");
    client.close();
  });

  it("C11: a portal is suspended and goes on, each time with its own rows; Sync outside a transaction ends it", async () => {
    const client = await loggedIn();
    const select = [parse("", "SELECT n FROM item ORDER BY n"), bind("p", "")];
    const pieces = await ask(client, ...select, execute("p", 2), execute("p", 2), execute("p", 2), sync);
    expect(brief(pieces)).toBe("1 2 D1 D2 s D3 D4 s D5 C(SELECT 1) ZI");
    expect(brief(await ask(client, execute("p", 2), sync))).toBe("E34000 ZI");
    await sql(client, "BEGIN");
    expect(brief(await ask(client, ...select, execute("p", 2), sync))).toBe("1 2 D1 D2 s ZT");
    expect(brief(await sql(client, "SELECT 'between'"))).toBe("T Dbetween C(SELECT 1) ZT");
    expect(brief(await ask(client, execute("p", 2), sync))).toBe("D3 D4 s ZT");
    expect(brief(await sql(client, "FETCH 1 FROM p"))).toBe("T D5 C(FETCH 1) ZT");
    expect(brief(await ask(client, frame("C", "Pp\0"), execute("p"), sync))).toBe("3 E34000 ZE");
    expect(brief(await sql(client, "COMMIT"))).toBe("C(ROLLBACK) ZI");
    await sql(client, "BEGIN; DECLARE c CURSOR FOR SELECT n FROM item ORDER BY n");
    expect(brief(await ask(client, describePortal("c"), execute("c", 2), sync))).toBe("T D1 D2 s ZT");
    expect(brief(await sql(client, "ROLLBACK"))).toBe("C(ROLLBACK) ZI");
    client.close();
  });

  it("C11: an unnamed portal that a failed Query has left is not executed: it would end the server", async () => {
    const failing = [query("BEGIN"), query("RELEASE SAVEPOINT nowhere"), query("SELECT 'text over it'")];
    const executed = [execute(""), frame("S")];
    const unbound = [parse("", "SELECT 1"), bind("", ""), frame("S"), ...executed];
    for (const behind of [executed, unbound]) {
      const client = await loggedIn();
      client.send(...failing, ...behind, query("ROLLBACK"), query("SELECT 'alive'"));
      const seen: ServerMessage[] = [];
      while (!seen.some(({ type, body }) => type === "D" && body.includes("alive"))) {
        const message = await client.message();
        if (message === undefined) break;
        seen.push(message);
      }
      expect(brief(seen)).toBe(
        `C(BEGIN) ZT E3B001 ZE E25P02 ZE ${behind === unbound ? "E25P02 ZE " : ""}E25P02 ZE C(ROLLBACK) ZI T Dalive`,
      );
      client.close();
    }
    const client = await loggedIn();
    expect(brief(await ask(client, query("SELECT 1"), execute(""), frame("S")))).toBe("T D1 C(SELECT 1) ZI");
    expect(brief(await client.until("Z"))).toBe("E34000 ZI");
    client.close();
    expect(server.logs()).not.toContain("terminated by signal");
  });

  it("C12: Describe tells parameters and columns before anything runs, and starts nothing", async () => {
    const client = await loggedIn();
    const text = "INSERT INTO scratch VALUES ($1, $2) RETURNING n, word AS said";
    const described = await ask(client, parse("d", text), describeStatement("d"), sync);
    expect(brief(described)).toBe("1 t T ZI");
    expect(described[1]?.body).toEqual(Buffer.concat([int16s(2), int32s(23, 25)]));
    expect(described[2]?.body.subarray(0, 4).toString("latin1")).toBe("\0\u0002n\0");
    expect(described[2]?.body.includes("said\0")).toBe(true);
    const portal = await ask(client, bind("", "d", "103", "x"), describePortal(""), sync);
    expect(brief(portal)).toBe("2 T ZI");
    const nothing = await ask(client, parse("", "CREATE TABLE never (n int)"), describeStatement(""), sync);
    expect(brief(nothing)).toBe("1 t n ZI");
    expect(await server.query("SELECT n FROM scratch WHERE n = 103")).toEqual([]);
    client.close();
  });

  it("C14: of several statements one refused keeps all from running, even those before a COMMIT", async () => {
    const client = await loggedIn();
    const text = "INSERT INTO scratch VALUES (104); COMMIT; SELECT 1; SELECT * FROM payroll; SELECT 2";
    expect(brief(await sql(client, text))).toBe("E42501 ZI");
    expect(await server.query("SELECT n FROM scratch WHERE n = 104")).toEqual([]);
    client.close();
  });

  it("C15: ReadyForQuery tells I, T and E under denial as for any error; COMMIT then answers ROLLBACK", async () => {
    const client = await loggedIn();
    const told: string[] = [];
    for (const text of [
      ...["SELECT * FROM payroll", "BEGIN", "INSERT INTO scratch VALUES (105)", "SELECT * FROM payroll"],
      ...["SELECT * FROM payroll", "SELECT 1", "COMMIT", "SELECT 1"],
    ])
      told.push(brief(await sql(client, text)));
    expect(told).toEqual([
      ...["E42501 ZI", "C(BEGIN) ZT", "C(INSERT 0 1) ZT", "E42501 ZE", "E25P02 ZE", "E25P02 ZE"],
      ...["C(ROLLBACK) ZI", "T D1 C(SELECT 1) ZI"],
    ]);
    expect(await server.query("SELECT n FROM scratch WHERE n = 105")).toEqual([]);
    client.close();
  });

  it("C16: chained transactions and savepoints around denials end where the server says", async () => {
    const client = await loggedIn();
    await sql(client, "TRUNCATE scratch");
    const told: string[] = [];
    for (const text of [
      ...["BEGIN", "INSERT INTO scratch VALUES (1)", "COMMIT AND CHAIN", "INSERT INTO scratch VALUES (2)"],
      ...["SAVEPOINT a", "INSERT INTO scratch VALUES (3)", "SAVEPOINT b", "SELECT * FROM payroll"],
      ...["RELEASE b", "ROLLBACK TO b", "RELEASE b", "ROLLBACK TO a", "INSERT INTO scratch VALUES (4)"],
      ...["COMMIT AND CHAIN", "SELECT * FROM payroll", "COMMIT AND CHAIN", "INSERT INTO scratch VALUES (5)"],
      ...["ROLLBACK AND CHAIN", "INSERT INTO scratch VALUES (6)", "COMMIT"],
    ])
      told.push(brief(await sql(client, text)));
    expect(told).toEqual([
      ...["C(BEGIN) ZT", "C(INSERT 0 1) ZT", "C(COMMIT) ZT", "C(INSERT 0 1) ZT"],
      ...["C(SAVEPOINT) ZT", "C(INSERT 0 1) ZT", "C(SAVEPOINT) ZT", "E42501 ZE"],
      ...["E25P02 ZE", "C(ROLLBACK) ZT", "C(RELEASE) ZT", "C(ROLLBACK) ZT", "C(INSERT 0 1) ZT"],
      ...["C(COMMIT) ZT", "E42501 ZE", "C(ROLLBACK) ZT", "C(INSERT 0 1) ZT"],
      ...["C(ROLLBACK) ZT", "C(INSERT 0 1) ZT", "C(COMMIT) ZI"],
    ]);
    expect(await rowsOf("scratch")).toEqual([{ n: 1 }, { n: 2 }, { n: 4 }, { n: 6 }]);
    client.close();
  });

  it("C17: FunctionCall is refused with 42501, by every profile, and the session goes on", async () => {
    const call = frame("F", int32s(2026), int16s(0), int16s(0), int16s(0));
    for (const user of ["ann", "bob"] as const) {
      const client = await loggedIn({ user });
      expect(brief(await ask(client, call))).toBe("E42501 ZI");
      await sql(client, "BEGIN");
      expect(brief(await ask(client, call))).toBe("E42501 ZE");
      expect(brief(await sql(client, "ROLLBACK"))).toBe("C(ROLLBACK) ZI");
      client.close();
    }
  });

  describe("C18: COPY FROM STDIN", () => {
    const forms = {
      text: ["", ["1\tone\n2\t", "tw", "o\n"]],
      "text with marks of its own": ["(DELIMITER ';', NULL 'nil')", ["1;one\n2;nil\n"]],
      csv: ["(FORMAT csv, HEADER)", ["n,word\n1,one\n", '2,"t\nwo"\n']],
      "csv with the old end mark": ["(FORMAT csv)", ["1,one\n2,two\n"]],
    } as const;
    for (const [form, [options, data]] of Object.entries(forms)) {
      it(`C18: takes ${form}, cut anywhere, with the simple and the extended protocol`, async () => {
        const client = await loggedIn();
        const text = `COPY scratch FROM STDIN ${options}`;
        const body = data.map((piece) => frame("d", piece));
        await sql(client, "TRUNCATE scratch");
        expect(brief(await ask(client, query(text), ...body, frame("c")))).toBe("G C(COPY 2) ZI");
        expect(brief(await ask(client, ...whole(text), ...body, frame("c"), sync))).toBe(
          "1 2 G C(COPY 2) ZI",
        );
        const pipelined = [...whole(text), ...body, frame("c"), sync, ...whole("SELECT 'behind'"), sync];
        expect(brief(await ask(client, ...pipelined))).toBe("1 2 G C(COPY 2) ZI");
        expect(brief(await client.until("Z"))).toBe("1 2 Dbehind C(SELECT 1) ZI");
        client.send(query(text));
        expect((await client.message())?.type).toBe("G");
        for (const piece of body) client.send(piece.subarray(0, 6));
        client.close();
        expect(await server.query("SELECT count(*)::int AS n FROM scratch")).toEqual([{ n: 6 }]);
      });
    }

    it("C18: binary out and in again, both formats of the protocol", async () => {
      const client = await loggedIn();
      await sql(client, "TRUNCATE scratch");
      const out = await sql(client, "COPY item TO STDOUT (FORMAT binary)");
      expect(brief(out)).toMatch(/^H d( d)* c C\(COPY 5\) ZI$/);
      expect(out[0]?.body[0]).toBe(1);
      const rows = out.filter(({ type }) => type === "d").map(({ body }) => frame("d", body));
      const back = await ask(client, query("COPY scratch FROM STDIN BINARY"), ...rows, frame("c"));
      expect(brief(back)).toBe("G C(COPY 5) ZI");
      expect(await rowsOf("scratch")).toEqual(await rowsOf("item"));
      const csv = await ask(client, ...whole("COPY item TO STDOUT (FORMAT csv)"), sync);
      expect(brief(csv)).toBe("1 2 H d d d d d c C(COPY 5) ZI");
      client.close();
    });

    it("C18: an error in mid-copy is told once, the rest of the data is dropped, one ReadyForQuery", async () => {
      const client = await loggedIn();
      const rest = Array.from({ length: 200 }, () => frame("d", "7\tseven\n".repeat(1000)));
      const seen = await ask(
        client,
        query("COPY scratch FROM STDIN"),
        frame("d", "x\ty\n"),
        ...rest,
        frame("c"),
      );
      expect(brief(seen)).toBe("G E22P02 ZI");
      expect(brief(await sql(client, "SELECT 1"))).toBe("T D1 C(SELECT 1) ZI");
      const failed = await ask(
        client,
        query("COPY scratch FROM STDIN"),
        frame("d", "1\ta\n"),
        frame("f", "no\0"),
      );
      expect(brief(failed)).toBe("G E57014 ZI");
      client.send(
        ...whole("COPY scratch FROM STDIN"),
        frame("d", "x\ty\n"),
        ...rest,
        frame("c"),
        ...whole("SELECT 2"),
        sync,
      );
      expect(brief(await client.until("Z"))).toBe("1 2 G E22P02 ZI");
      expect(brief(await ask(client, ...whole("SELECT 3"), sync))).toBe("1 2 D3 C(SELECT 1) ZI");
      client.close();
    });

    it("C18: a refused COPY asks for no data, and data sent nevertheless is dropped", async () => {
      const client = await loggedIn();
      const seen = await ask(client, query("COPY payroll FROM STDIN"), frame("d", "1\n"), frame("c"));
      expect(brief(seen)).toBe("E42501 ZI");
      client.send(...whole("COPY payroll FROM STDIN"), frame("d", "1\n"), frame("c"), sync);
      expect(brief(await client.until("Z"))).toBe("1 2 E42501 ZI");
      expect(brief(await sql(client, "COPY payroll TO STDOUT"))).toBe("E42501 ZI");
      expect(brief(await sql(client, "COPY (SELECT * FROM payroll) TO STDOUT"))).toBe("E42501 ZI");
      expect(await rowsOf("payroll")).toEqual([]);
      client.close();
    });

    it("C18: a statement in the middle of a copy ends the session as the server ends it", async () => {
      const client = await loggedIn();
      client.send(query("COPY scratch FROM STDIN"));
      expect((await client.message())?.type).toBe("G");
      client.send(frame("d", "8\teight\n"), query("SELECT * FROM item"));
      const seen = await client.untilClosed();
      expect(brief(seen)).not.toContain("D");
      expect(await server.query("SELECT n FROM scratch WHERE n = 8")).toEqual([]);
    });

    it("C18: what must wait for the server ends the session too in the middle of a copy, and holds no lock", async () => {
      const disturbances: readonly Uint8Array[][] = [
        [query("EXECUTE nobody")],
        [query("EXECUTE known"), frame("c")],
        [query("SELECT * FROM no_such_table"), frame("c")],
        [parse("", "EXECUTE nobody"), sync],
        [bind("", "known"), execute(), sync],
      ];
      for (const [index, disturbance] of disturbances.entries()) {
        const client = await loggedIn();
        client.send(parse("known", "SELECT 7"), query("COPY scratch FROM STDIN; SET search_path = public"));
        client.send(frame("d", "8\teight\n"), ...disturbance);
        const seen = await client.untilClosed();
        expect(seen.at(-1)?.fields, String(index)).toMatchObject({ S: "FATAL", C: "08P01" });
        expect(brief(seen), String(index)).not.toContain("D");
      }
      await expect
        .poll(() => backends("query LIKE 'COPY scratch FROM STDIN; SET%'"), { timeout: 20_000 })
        .toEqual([]);
      expect(await server.query("SELECT n FROM scratch WHERE n = 8")).toEqual([]);
    });
  });

  it("C20: nothing leads into CopyBoth", async () => {
    const client = await loggedIn();
    for (const text of ["START_REPLICATION 0/0", "START_REPLICATION SLOT s LOGICAL 0/0", "BASE_BACKUP"]) {
      expect(brief(await sql(client, text)), text).toBe("E42601 ZI");
    }
    client.close();
  });

  it("C21: a client tells its own notifications by the process id that its login gave it, and others' by theirs", async () => {
    const { client, greeting } = await greeted();
    const own = keyOf(greeting).readUInt32BE(0);
    await sql(client, "LISTEN echo");
    const senders = async (...texts: string[]) =>
      (await ask(client, ...texts.map(query)))
        .filter(({ type }) => type === "A")
        .map(({ body }) => body.readUInt32BE(0));
    expect(await senders("NOTIFY echo")).toEqual([own]);
    expect(await senders("SELECT pg_notify('echo', 'once more')")).toEqual([own]);
    const [row] = await server.query("SELECT pg_notify('echo', ''), pg_backend_pid() AS pid");
    const foreign = await client.message();
    expect(foreign?.type).toBe("A");
    expect(foreign?.body.readUInt32BE(0)).toBe(row?.pid);
    expect(row?.pid).not.toBe(own);
    // Another session of the gateway is known by what its own login said.
    if (isOneProcess) {
      const { client: sibling, greeting: siblings } = await greeted();
      await sql(sibling, "NOTIFY echo, 'from beside'");
      expect((await client.message())?.body.readUInt32BE(0)).toBe(keyOf(siblings).readUInt32BE(0));
      sibling.close();
    }
    client.close();
  });

  it("B2: the number that a client was given names its process to pg_cancel_backend and pg_terminate_backend", async () => {
    const { client, greeting } = await greeted();
    const own = keyOf(greeting).readInt32BE(0);
    expect(own).toBeGreaterThan(2 ** 22);
    expect(brief(await sql(client, `SELECT pg_cancel_backend(${own}), pg_sleep(9)`))).toBe("T E57014 ZI");
    const bound = [
      parse("", "SELECT pg_cancel_backend($1), pg_sleep(9)"),
      bind("", "", String(own)),
      execute(),
    ];
    expect(brief(await ask(client, ...bound, sync))).toBe("1 2 E57014 ZI");
    const { client: other, greeting: others } = await greeted();
    const pid = keyOf(others).readInt32BE(0);
    if (isOneProcess) {
      const ended = await sql(client, `SELECT pg_terminate_backend(${pid}, 5000)`);
      expect(brief(ended)).toBe("T Dt C(SELECT 1) ZI");
      expect(brief(await other.untilClosed())).toBe("E57P01");
    }
    other.close();
    // A number of nobody is nobody's, and what only looks like one is judged as what it will be.
    if (isOneProcess)
      expect(brief(await sql(client, `SELECT pg_terminate_backend(${pid})`))).toMatch(/^T N01000 Df /);
    const named = `SELECT pg_terminate_backend(0), n FROM "${own}"`;
    expect(errorOf(await sql(client, named))).toMatchObject({ C: "42P01" });
    client.close();
  });

  it("C21: notifications, changed parameters and notices arrive wherever the server sends them", async () => {
    const client = await loggedIn();
    await sql(client, "LISTEN news");
    await server.query("NOTIFY news, 'while idle'");
    const idle = await client.message();
    expect(idle?.type).toBe("A");
    expect(idle?.body.toString("utf8", 4)).toBe("news\0while idle\0");
    expect(brief(await sql(client, "NOTIFY news, 'own'"))).toBe("C(NOTIFY) A ZI");
    const changed = await sql(client, "SET TimeZone = 'Asia/Tokyo'");
    expect(changed.map(({ type }) => type).join("")).toBe("CSZ");
    expect(changed[1]?.body.toString()).toBe("TimeZone\0Asia/Tokyo\0");
    await sql(
      client,
      "CREATE FUNCTION pg_temp.tell(n int) RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE NOTICE '%', n; RETURN n; END$$",
    );
    const between = await sql(client, "SELECT pg_temp.tell(n) FROM generate_series(1, 3) n");
    expect(brief(between)).toBe("T N00000 D1 N00000 D2 N00000 D3 C(SELECT 3) ZI");
    client.close();
  });

  it("C22: the next Query behind a refused one runs at once, in one flight or after it", async () => {
    const client = await loggedIn();
    client.send(query("SELECT * FROM payroll"), query("SELECT 1"));
    expect(brief(await client.until("Z"))).toBe("E42501 ZI");
    expect(brief(await client.until("Z"))).toBe("T D1 C(SELECT 1) ZI");
    expect(brief(await sql(client, "SELECT 2"))).toBe("T D2 C(SELECT 1) ZI");
    client.close();
  });

  it("C23: a client that writes 1000 statements before it reads gets 1000 answers", async () => {
    const client = await loggedIn();
    client.socket.pause();
    const simple = Array.from({ length: 500 }, (_, n) => query(`SELECT ${n}, repeat('x', 500)`));
    const extended = Array.from({ length: 500 }, (_, n) => [
      ...[
        parse(`s${n}`, `SELECT ${500 + n}, $1::int`),
        bind("", `s${n}`, "1"),
        describePortal(""),
        execute(),
      ],
      ...(n % 10 === 9 ? [sync] : []),
    ]).flat();
    client.send(...simple, ...extended);
    await expect.poll(() => client.socket.writableLength).toBe(0);
    client.socket.resume();
    const values: string[] = [];
    for (let ready = 0; ready < 550; ready += 1) {
      for (const { type, body } of await client.until("Z")) if (type === "D") values.push(firstValue(body));
    }
    expect(values).toEqual(Array.from({ length: 1000 }, (_, n) => String(n)));
    client.close();
  });

  it("C25: a client that vanishes in mid-copy leaves neither rows nor a transaction behind", async () => {
    const client = await loggedIn();
    client.send(query("BEGIN"), query("COPY scratch FROM STDIN"), frame("d", "900\tlost\n"));
    await expect
      .poll(() => backends("query = 'COPY scratch FROM STDIN' AND state = 'active'"))
      .toHaveLength(1);
    client.socket.destroy();
    await expect
      .poll(() => backends("query = 'COPY scratch FROM STDIN' AND backend_type = 'client backend'"))
      .toEqual([]);
    expect(await server.query("SELECT n FROM scratch WHERE n = 900")).toEqual([]);
  });

  it("C25: what a client has sent before it says goodbye is done, and what it left open is rolled back", async () => {
    await server.query("DELETE FROM scratch");
    const slowly = (n: number) => `INSERT INTO scratch SELECT ${n} FROM pg_sleep(0.2)`;
    const goodbyes: readonly ((client: WireClient) => void)[] = [
      (client) => client.send(query(slowly(2501)), frame("X")),
      (client) => client.send(...whole(slowly(2502)), sync, frame("X")),
      (client) => {
        client.send(query(slowly(2503)));
        client.socket.end();
      },
      // Left open: without Sync, in a transaction, behind the goodbye.
      (client) => client.send(...whole(slowly(2504)), frame("X")),
      (client) => client.send(query("BEGIN"), query(slowly(2505)), frame("X")),
      (client) => client.send(frame("X"), query(slowly(2506))),
    ];
    for (const goodbye of goodbyes) goodbye(await loggedIn({ user: "bob" }));
    const done = async () => (await server.query("SELECT n FROM scratch ORDER BY n")).map(({ n }) => n);
    await expect.poll(done, { timeout: 20_000 }).toEqual([2501, 2502, 2503]);
    const left = () => backends("application_name LIKE 'local:bob/%' AND query LIKE '%250_ FROM%'");
    await expect.poll(left, { timeout: 20_000 }).toEqual([]);
    expect(await done()).toEqual([2501, 2502, 2503]);
    await server.query("DELETE FROM scratch");
  });

  it("C26: no TLS record to a client is larger than 8 kB and its envelope", async () => {
    const sizes: number[] = [];
    const tap = createServer((near) => tapped(near, sizes)).listen(0, "127.0.0.1");
    await once(tap, "listening");
    const { port } = tap.address() as { port: number };
    const client = await WireClient.logIn({
      ...{ port, ca: gateway.caPem, user: "shop", database: "shop", password: token() },
    });
    await sql(client, "SELECT repeat('x', 300000)");
    client.close();
    tap.close();
    expect(sizes.length).toBeGreaterThan(30);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(8192 + 256);
  });

  describe("C28: sizes", () => {
    it("C28: a message that is announced larger than its bound ends the session at once with 54000", async () => {
      for (const [type, length] of [
        ["Q", 9 * 1024 * 1024],
        ["P", 9 * 1024 * 1024],
        ["B", 65 * 1024 * 1024],
      ] as const) {
        const client = await loggedIn();
        client.send(Buffer.concat([Buffer.from(type), int32s(length), Buffer.from("x")]));
        expect(errorOf(await client.untilClosed()), type).toMatchObject({ S: "FATAL", C: "54000" });
      }
    });

    it("C28: a row of 64 MB streams through to a slow reader and is never held whole", async () => {
      const client = await loggedIn();
      const size = 64 * 1024 * 1024;
      let received = 0;
      let tail = Buffer.alloc(0);
      client.socket.removeAllListeners("data");
      client.socket.pause();
      const before = await memory("VmRSS");
      client.send(query(`SELECT repeat('x', ${size}) AS big`));
      await expect
        .poll(() => backends("query LIKE '%AS big' AND wait_event = 'ClientWrite'"), { timeout: 20_000 })
        .toHaveLength(1);
      const stalled = await memory("VmRSS");
      client.socket.on("data", (chunk: Buffer) => {
        received += chunk.length;
        tail = Buffer.concat([tail, chunk]).subarray(-64);
      });
      client.socket.resume();
      await expect.poll(() => tail.includes("SELECT 1\0Z"), { timeout: 20_000 }).toBe(true);
      const after = await memory("VmRSS");
      expect(received).toBeGreaterThan(size);
      expect(received).toBeLessThan(size + 200);
      const grown = Math.max(stalled, after) - before;
      process.stdout.write(`C28: a row of 64 MB grew the gateway by ${(grown / 1e6).toFixed(1)} MB\n`);
      // Held whole it would be more than the row; what is left of that is garbage not yet collected.
      expect(grown).toBeLessThan(size);
      client.close();
    });

    it("C28: a Bind of 32 MB arrives whole", async () => {
      const client = await loggedIn();
      const value = "y".repeat(32 * 1024 * 1024);
      const seen = await ask(
        client,
        parse("", "SELECT length($1::text)"),
        bind("", "", value),
        execute(),
        sync,
      );
      expect(brief(seen)).toBe(`1 2 D${value.length} C(SELECT 1) ZI`);
      client.close();
    });
  });

  it("C29: a message type that nobody knows ends the session with a protocol violation", async () => {
    const client = await loggedIn();
    client.send(query("SELECT 1"), frame("!", "x"), query("INSERT INTO scratch VALUES (901)"));
    const seen = await client.untilClosed();
    expect(seen.at(-1)?.fields).toMatchObject({ S: "FATAL", C: "08P01" });
    expect(await server.query("SELECT n FROM scratch WHERE n = 901")).toEqual([]);
  });

  it("D6, D7: a message that cannot be read is an error of that message in the server's words, and the session goes on", async () => {
    const bad = (...bytes: number[]) => Buffer.from(bytes);
    const cases: readonly Uint8Array[][] = [
      [query(bad(0x41, 0xff))],
      [query(bad(0x41, 0xc0, 0xaf, 0x41))],
      [query(bad(0xed, 0xa0, 0x80))],
      [query(Buffer.concat([Buffer.from("é".repeat(5_000)), bad(0xf0, 0x9f)]))],
      [frame("Q", "SELECT 1\0; DROP TABLE scratch\0")],
      [frame("Q", "SELECT 1")],
      [frame("Q")],
      [query("BEGIN"), query("SELECT 1 / 0"), frame("Q", "x"), frame("P", "x"), sync, query("ROLLBACK")],
      [frame("P", bad(0xff, 0), "SELECT 1\0", int16s(0)), sync],
      [frame("P", "\0", bad(0xff, 0), int16s(0)), sync],
      [frame("P", "\0SELECT 1\0", int16s(0), "x"), sync],
      [frame("P", "\0SELECT 1\0", int16s(2), int32s(23)), sync],
      [frame("P", "name"), sync],
      [frame("B", bad(0xff, 0), "\0", int16s(0, 0, 0)), sync],
      [parse("", "SELECT 1"), frame("B", "\0\0", int16s(0, 0, 0), "x"), execute(), sync],
      [parse("", "SELECT 1"), frame("B", "\0\0", int16s(0, 0)), execute(), sync],
      [parse("", "SELECT 1"), bind("", ""), frame("E", "\0"), sync],
      [parse("", "SELECT 1"), bind("", ""), frame("E", "\0", int32s(0), "x"), sync],
      [frame("E", bad(0xff, 0), int32s(0)), sync],
      [frame("C", "S", bad(0xff, 0)), frame("C"), sync],
      [frame("C", "Sname"), sync],
      [frame("H", "x"), parse("", "SELEC"), sync],
      [frame("S", "x")],
    ];
    for (const messages of cases) {
      const seen: unknown[] = [];
      for (const client of [await shop.logInDirect(), await loggedIn({ user: "bob" })]) {
        client.send(...messages, query("SELECT 'behind it'"));
        const answers: ServerMessage[] = [];
        for (let isLast = false; !isLast; ) {
          const some = await client.until("Z");
          answers.push(...some);
          isLast = some.at(-1)?.type !== "Z" || brief(some).includes("behind it");
        }
        client.close();
        seen.push([brief(answers), answers.flatMap(({ type, fields }) => (type === "E" ? [fields.M] : []))]);
      }
      expect(seen[1]).toEqual(seen[0]);
    }
  });

  it("C7: names that the server does not tell apart are one name here too", async () => {
    const long = "n".repeat(63);
    const closeOf = (what: "S" | "P", name: string) => frame("C", `${what}${name}\0`);
    const cases: readonly Uint8Array[][] = [
      [query(`PREPARE ${long}x AS SELECT 1`), bind("", `${long}y`), execute(), sync],
      [
        parse(`${long}a`, "SELECT 1"),
        parse(`${long}b`, "SELECT 2"),
        sync,
        bind("", `${long}c`),
        execute(),
        sync,
      ],
      [
        ...[parse(`${long}a`, "SELECT 1"), sync, closeOf("S", `${long}b`), parse(long, "SELECT 2"), sync],
        ...[bind("", `${long}a`), execute(), sync, query(`EXECUTE ${long}z`), query(`DEALLOCATE ${long}`)],
        ...[bind("", `${long}a`), execute(), sync],
      ],
      [
        ...[parse("", "SELECT generate_series(1, 3)"), bind(`${long}a`, ""), closeOf("P", `${long}b`)],
        ...[parse("", "SELECT 7"), bind(long, ""), execute(`${long}a`), sync],
      ],
      [parse("é".repeat(40), "SELECT 1"), bind("", `${"é".repeat(31)}è`), execute(), sync],
      // An error keeps a statement that the pipeline behind it would have closed, for SQL too.
      [
        ...[
          parse("one", "SELECT 7"),
          sync,
          parse("", "SELECT $1::int"),
          bind("", ""),
          frame("C", "Sone\0"),
          sync,
        ],
        query("EXECUTE one"),
      ],
      [parse("é".repeat(40), "SELECT 1"), sync, query(`EXECUTE "${"é".repeat(31)}"`)],
    ];
    for (const messages of cases) {
      const seen: string[] = [];
      for (const client of [await shop.logInDirect(), await loggedIn({ user: "bob" })]) {
        client.send(...messages, query("SELECT 'behind it'"));
        let text = "";
        while (!text.includes("behind it")) {
          const some = await client.until("Z");
          text += `${brief(some)} `;
          if (some.at(-1)?.type !== "Z") break;
        }
        client.close();
        seen.push(text);
      }
      expect(seen[1]).toBe(seen[0]);
    }
  });

  it("C30: an empty text is answered EmptyQueryResponse, whatever nothing it is made of", async () => {
    const client = await loggedIn({ user: "bob" });
    for (const text of ["", " ", ";", ";;", " ; ; ", "-- nothing", "/* nothing /* at */ all */", ";--\n;"]) {
      expect(brief(await sql(client, text)), JSON.stringify(text)).toBe("I ZI");
      expect(brief(await ask(client, ...whole(text), sync)), JSON.stringify(text)).toBe("1 2 I ZI");
    }
    client.close();
  });
});

/** Passes bytes on and notes the length of each TLS record that the gateway sends. */
function tapped(near: Socket, sizes: number[]): void {
  const far = connectTcp(gateway.port, "127.0.0.1");
  let held = Buffer.alloc(0);
  let isTls = false;
  near.pipe(far);
  far.on("data", (chunk: Buffer) => {
    near.write(chunk);
    held = Buffer.concat([held, chunk]);
    // The first byte is the answer to SSLRequest.
    if (!isTls) held = held.subarray(1);
    isTls = true;
    while (held.length >= 5 && held.length >= 5 + held.readUInt16BE(3)) {
      sizes.push(held.readUInt16BE(3));
      held = held.subarray(5 + held.readUInt16BE(3));
    }
  });
  for (const socket of [near, far]) socket.on("error", () => {});
  near.on("close", () => far.destroy());
  far.on("close", () => near.destroy());
}
