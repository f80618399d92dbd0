/** What people write into connection strings of libpq 18: psql and libpq themselves connect with each of them. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { type ClientTools, clientTools } from "../drivers/client-tools.ts";
import { testWith } from "../drivers/test-with.ts";
import { pythonDrivers } from "../drivers/toolchains.ts";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { everybody, providerDocument } from "../targets/policies.ts";
import { freePort, type PostgresServer, startPostgres } from "../targets/postgres.ts";

const issuer = "https://login.example.com/tenant";
const policies = everybody + providerDocument("corp", { type: "oidc", oidc: { issuer } });
const tools = await clientTools();
const python = await pythonDrivers();
type Ready = Extract<ClientTools, { kind: "ready" }>;

let server: PostgresServer;
let gateway: Gateway;
let token: string;

beforeAll(async () => {
  server = await startPostgres({ tls: true, database: "shop" });
  await server.query("CREATE DATABASE frozen", [], "postgres");
  await server.query("ALTER DATABASE frozen SET default_transaction_read_only = on", [], "postgres");
  gateway = await startGateway({
    server,
    policies,
    resource: { identity: { providers: ["local", "corp"] }, options: { oauthScope: "openid shop" } },
  });
  token = gateway.issuer.token({ user: "ann" });
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

const strict = () => `sslmode=verify-full sslrootcert=${gateway.caFile}`;
const asShop = () => `host=localhost port=${gateway.port} user=shop dbname=shop`;

interface Outcome {
  readonly code: number;
  readonly text: string;
}

/** A program of PostgreSQL 18, with the token as password; what it printed and how it ended. */
async function ran(
  { folder }: Ready,
  program: string,
  args: readonly string[],
  more: NodeJS.ProcessEnv = {},
): Promise<Outcome> {
  const env = { PATH: process.env.PATH, HOME: "/nonexistent", PGPASSWORD: token, ...more };
  return promisify(execFile)(join(folder, program), args, { env, timeout: 60_000 }).then(
    ({ stdout, stderr }) => ({ code: 0, text: stderr + stdout }),
    ({ code, stdout, stderr }) => ({ code, text: stderr + stdout }),
  );
}
const psql = (ready: Ready, target: string, sql: string, more?: NodeJS.ProcessEnv) =>
  ran(ready, "psql", ["-X", "-w", "-At", target, "-c", sql], more);

/** What \conninfo tells of a connection. */
async function conninfo(ready: Ready, target: string): Promise<Record<string, string>> {
  const { code, text } = await psql(ready, target, "\\conninfo");
  expect(text).toContain("|");
  expect(code).toBe(0);
  return Object.fromEntries(text.split("\n").map((line) => line.split("|") as [string, string]));
}

describe("libpq 18", () => {
  testWith("A4: connects with sslnegotiation=direct", tools, async (ready) => {
    const firstBytes: number[] = [];
    const { port, close } = await forwarder((chunk) => firstBytes.push(chunk[0] ?? 0));
    try {
      const target = `host=localhost port=${port} user=shop dbname=shop ${strict()}`;
      const info = await conninfo(ready, `${target} sslnegotiation=direct`);
      expect(info).toMatchObject({ ALPN: "postgresql", "SSL Protocol": "TLSv1.3" });
      // The first byte of a TLS handshake, where SSLRequest begins with its length.
      expect(firstBytes).toEqual([0x16]);
    } finally {
      close();
    }
    expect(await conninfo(ready, `${asShop()} ${strict()}`)).toMatchObject({ ALPN: "postgresql" });
  });

  testWith("A6: speaks 3.0 and 3.2, as it is told", tools, async (ready) => {
    for (const [setting, spoken] of [
      ["", "3.0"],
      ["max_protocol_version=3.0", "3.0"],
      ["min_protocol_version=3.2 max_protocol_version=3.2", "3.2"],
      ["max_protocol_version=latest", "3.2"],
    ] as const) {
      const info = await conninfo(ready, `${asShop()} ${strict()} ${setting}`);
      expect(info["Protocol Version"], setting).toBe(spoken);
    }
  });

  for (const how of ["", "max_protocol_version=3.2 sslnegotiation=direct"]) {
    testWith(`B1: Ctrl-C of psql reaches its statement, ${how || "by 3.0"}`, tools, async ({ folder }) => {
      const sleep = `SELECT pg_sleep(60), '${how}'`;
      const args = ["-X", "-w", `${asShop()} ${strict()} ${how}`, "-c", sleep];
      const child = spawn(join(folder, "psql"), args, { env: { PGPASSWORD: token } });
      let text = "";
      child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      const running = "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query = $1";
      await expect.poll(() => server.query(running, [sleep])).toHaveLength(1);
      child.kill("SIGINT");
      await once(child, "close");
      expect(text).toContain("canceling statement due to user request");
    });
  }

  testWith("A5: goes on by TLS with sslmode=allow, and not without", tools, async (ready) => {
    const over = "SELECT 'in'";
    for (const mode of ["allow", "prefer", "require"])
      expect(await psql(ready, `${asShop()} sslmode=${mode}`, over), mode).toEqual({ code: 0, text: "in\n" });
    const { code, text } = await psql(ready, `${asShop()} sslmode=disable`, over);
    expect(code).toBe(2);
    expect(text).toContain("connections must use TLS");
  });

  testWith("A14: binds to no channel, and says so itself where it must", tools, async (ready) => {
    for (const binding of ["disable", "prefer"])
      expect(await psql(ready, `${asShop()} ${strict()} channel_binding=${binding}`, "SELECT 1")).toEqual({
        code: 0,
        text: "1\n",
      });
    const bound = await psql(ready, `${asShop()} ${strict()} channel_binding=require`, "SELECT 1");
    expect(bound.code).toBe(2);
    expect(bound.text).toContain("channel binding required");
    const wanted = await psql(ready, `${asShop()} ${strict()} require_auth=scram-sha-256`, "SELECT 1");
    expect(wanted.code).toBe(2);
    expect(wanted.text).toContain("server requested a cleartext password");
    expect(await psql(ready, `${asShop()} ${strict()} require_auth=password`, "SELECT 1")).toEqual({
      code: 0,
      text: "1\n",
    });
  });

  testWith("A9: passes options of its environment and of a URL on", tools, async (ready) => {
    const target = `${asShop()} ${strict()}`;
    const env = { PGOPTIONS: "-c statement_timeout=7s -c search_path=pg_catalog,\\ public" };
    const shown = "SELECT current_setting('statement_timeout'), current_setting('search_path')";
    expect(await psql(ready, target, shown, env)).toEqual({ code: 0, text: "7s|pg_catalog, public\n" });
    const url = `postgresql://shop@localhost:${gateway.port}/shop?sslmode=verify-full&sslrootcert=${encodeURIComponent(gateway.caFile)}`;
    const options = encodeURIComponent("-c statement_timeout=8s --search-path=public,\\ pg_catalog");
    expect(await psql(ready, `${url}&options=${options}`, shown)).toEqual({
      code: 0,
      text: "8s|public, pg_catalog\n",
    });
    const refused = await psql(
      ready,
      `${url}&options=${encodeURIComponent("-c client_encoding=SJIS")}`,
      shown,
    );
    expect(refused.code).toBe(2);
  });

  testWith("tells hosts apart by target_session_attrs as it tells servers", tools, async (ready) => {
    const direct = { PGUSER: server.superuser, PGPASSWORD: server.password };
    const attributes = ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"];
    for (const dbname of ["shop", "frozen"]) {
      for (const attribute of attributes) {
        const wish = `dbname=${dbname} target_session_attrs=${attribute}`;
        const [wanted, got] = await Promise.all([
          psql(ready, `host=127.0.0.1 port=${server.port} ${wish}`, "SELECT 1", direct),
          psql(ready, `host=localhost port=${gateway.port} user=shop ${strict()} ${wish}`, "SELECT 1"),
        ]);
        const isIn =
          attribute === "standby" || attribute === (dbname === "shop" ? "read-only" : "read-write");
        expect(wanted.code, `${wish} ${wanted.text}`).toBe(isIn ? 2 : 0);
        const reason = ({ text }: Outcome) => text.split("failed: ").at(-1);
        expect([got.code, reason(got)], wish).toEqual([wanted.code, reason(wanted)]);
      }
    }
  });

  testWith("goes on to its next host where one is not there", tools, async (ready) => {
    const target = `host=localhost,localhost port=${await freePort()},${gateway.port} user=shop dbname=shop sslmode=require`;
    for (const spread of ["disable", "random"])
      expect(await psql(ready, `${target} load_balance_hosts=${spread}`, "SELECT 'in'")).toEqual({
        code: 0,
        text: "in\n",
      });
  });

  testWith("A11: learns why neither backups nor replication go through", tools, async (ready) => {
    const target = `${asShop()} ${strict()}`;
    for (const [program, ...args] of [
      ["pg_basebackup", "-d", target, "-D", "/nonexistent/backup"],
      ["pg_receivewal", "--no-loop", "-d", target, "-D", "/tmp"],
      ["pg_recvlogical", "--no-loop", "-d", target, "--slot=s", "--start", "-f", "-"],
      ["psql", "-X", "-w", `${target} replication=database`, "-c", "IDENTIFY_SYSTEM"],
    ] as const) {
      const { code, text } = await ran(ready, program, args);
      expect(code, program).not.toBe(0);
      expect(text, program).toMatch(/replication (connections|sessions)? ?.*not/i);
    }
    expect(await server.query("SELECT 1 FROM pg_stat_replication")).toEqual([]);
    expect(await server.query("SELECT 1 FROM pg_replication_slots")).toEqual([]);
  });

  testWith("is refused with a password that is no token, in whatever letters", tools, async (ready) => {
    for (const PGPASSWORD of ["пароль", "🐘".repeat(40), "\u00ad", "ᴾ".repeat(900)]) {
      const { code, text } = await psql(ready, `${asShop()} ${strict()}`, "SELECT 1", { PGPASSWORD });
      expect(code).toBe(2);
      expect(text).toMatch(/FATAL: {2}.*(token|login)/);
      expect(text).not.toContain(PGPASSWORD);
    }
    expect(gateway.logs()).not.toContain("пароль");
  });
});

describe("OAUTHBEARER of libpq 18", () => {
  const application =
    tools.kind === "absent" || typeof python === "string"
      ? tools
      : ({ kind: "absent", reason: python.reason } as const);

  async function asked({ folder }: Ready, more: string, given: string): Promise<Record<string, unknown>> {
    const script = join(import.meta.dirname, "../drivers/libpq_oauth.py");
    const target = `${asShop()} ${strict()} oauth_issuer=${issuer} oauth_client_id=me ${more}`;
    const args = [
      script,
      join(folder, "../lib/libpq.so.5"),
      target,
      "SELECT current_setting('application_name')",
    ];
    const env = { PATH: process.env.PATH, SALLYPORT_TOKEN: given };
    const { stdout } = await promisify(execFile)(String(python), args, { env, timeout: 60_000 });
    return JSON.parse(stdout);
  }
  const oauth = "options='-c sallyport.login=oauth' require_auth=oauth";
  const told = [[`${issuer}/.well-known/openid-configuration`, "openid shop"]];

  testWith(
    "an application's token opens a session, after libpq has asked where it is from",
    application,
    (ready) =>
      expect(asked(ready, oauth, token))
        .resolves.toEqual({
          asked: told,
          error: "",
          value: expect.stringMatching(/^local:ann\//),
        })
        .then(() => undefined),
  );

  testWith("a token that is not good is refused, and not shown", application, async (ready) => {
    const other = gateway.issuer.token({ user: "ann", claims: { aud: "sallyport:default/other" } });
    const outcome = await asked(ready, oauth, other);
    expect(outcome.value).toBeUndefined();
    expect(outcome.asked).toEqual(told);
    expect(outcome.error).toMatch(/another audience/);
    expect(outcome.error).not.toContain(other);
  });

  testWith(
    "whoever wants it and does not say so is not asked for a password instead",
    application,
    async (ready) => {
      const outcome = await asked(ready, "require_auth=oauth", token);
      expect(outcome).toMatchObject({ asked: [], error: expect.stringMatching(/cleartext password/) });
    },
  );
});

/** Passes connections on to the gateway and shows the first bytes that each client sends. */
async function forwarder(onFirst: (chunk: Buffer) => void): Promise<{ port: number; close(): void }> {
  const sockets = new Set<Socket>();
  const between: Server = createServer((near) => {
    const far = connect(gateway.port, "127.0.0.1");
    near.once("data", onFirst);
    near.pipe(far).pipe(near);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => [near, far].map((one) => one.destroy()));
    }
  });
  between.listen(0, "127.0.0.1");
  await once(between, "listening");
  return {
    port: (between.address() as { port: number }).port,
    close: () => {
      between.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
