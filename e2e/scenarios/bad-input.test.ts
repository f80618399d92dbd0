/** Whatever a peer sends, it gets a clear answer in PostgreSQL's own form; the gateway lives and nobody else notices. */
import { randomBytes } from "node:crypto";
import type pg from "pg";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { type Shop, startShop } from "../targets/shop.ts";
import { LocalIssuer } from "../targets/tokens.ts";
import {
  bind,
  execute,
  frame,
  int32s,
  parse,
  password,
  query,
  type ServerMessage,
  sslRequest,
  startup,
  WireClient,
} from "../targets/wire-client.ts";

const policies = `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: all}
spec:
  resources: {names: [shop]}
  subjects: [{group: "local:staff"}]
  profile: Admin
`;
const staff = { user: "ann", groups: ["staff"] };

let shop: Shop;
let server: PostgresServer;
let gateway: Gateway;
let bystander: pg.Client;
/** Opened first and looked at last, so that nobody waits for the time that they are given. */
let halfWay: { readonly name: string; readonly closed: Promise<unknown> }[];

beforeAll(async () => {
  shop = await startShop({
    initSql: "CREATE TABLE item (id int PRIMARY KEY, name text)",
    policies,
    args: ["--login-timeout", "6"],
  });
  ({ server, gateway } = shop);
  bystander = await gateway.connect(staff);
  const silent = await WireClient.connect(gateway.port);
  const afterRequest = await WireClient.connect(gateway.port);
  afterRequest.send(sslRequest);
  const afterTls = await raw();
  const withoutPassword = await raw();
  withoutPassword.send(startup(asShop));
  halfWay = Object.entries({ silent, afterRequest, afterTls, withoutPassword }).map(([name, client]) => ({
    name,
    closed: client.untilClosed(),
  }));
});
afterAll(async () => {
  await bystander?.end();
  await shop?.stop();
});

/** After each case: the same process, the same other session, and no secret in anything that was written. */
afterEach(async () => {
  process.kill(gateway.pid, 0);
  expect((await bystander.query("SELECT 'undisturbed' AS state")).rows).toEqual([{ state: "undisturbed" }]);
  expect(gateway.logs()).not.toContain(server.password);
  expect(gateway.logs()).not.toContain("eyJ");
});

const raw = () => shop.secured();
const loggedIn = () => shop.logIn(staff);

function errorIn(messages: readonly ServerMessage[]): Readonly<Record<string, string>> {
  const error = messages.find(({ type }) => type === "E");
  expect(error, `an ErrorResponse among ${messages.map(({ type }) => type).join("")}`).toBeDefined();
  for (const text of Object.values(error?.fields ?? {})) expect(text).not.toContain(server.password);
  return error?.fields ?? {};
}

async function loginError(
  parameters: Record<string, string>,
  token: string,
): Promise<Readonly<Record<string, string>>> {
  const client = await raw();
  client.send(startup(parameters), password(token));
  const error = errorIn(await client.untilClosed());
  expect(error.S).toBe("FATAL");
  return error;
}
const asShop = { user: "shop", database: "shop" };

test("garbage before start-up ends the connection", async () => {
  const garbage = [
    Buffer.from("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    Buffer.from("SSH-2.0-OpenSSH_9.6\r\n"),
    Buffer.from([0x16, 0x03, 0x01, 0x00, 0x05, 1, 2, 3, 4, 5]),
    Buffer.alloc(64),
    Buffer.alloc(64, 0xff),
    int32s(4),
    int32s(-1, 196608),
    int32s(0x7fffffff, 196608),
    randomBytes(4096),
  ];
  for (const bytes of garbage) {
    const client = await WireClient.connect(gateway.port);
    client.send(bytes);
    // A length that is not yet complete may be waited for; nothing more will come.
    client.socket.end();
    await client.untilClosed();
    client.close();
  }
});

test("a client that would go on in plain text is told so before it sends a password", async () => {
  const client = await WireClient.connect(gateway.port);
  client.send(startup(asShop));
  const messages = await client.untilClosed();
  expect(errorIn(messages)).toMatchObject({ S: "FATAL", C: "28000" });
  expect(messages.some(({ type }) => type === "R")).toBe(false);
});

test("bytes smuggled behind SSLRequest are never read as SQL", async () => {
  const client = await WireClient.connect(gateway.port);
  client.send(Buffer.concat([sslRequest, startup(asShop), query("SELECT 1")]));
  const answer = await client.take(64);
  expect(answer.toString("latin1")).not.toContain("R");
});

test("bad tokens are refused at login, each with SQLSTATE 28 and without the token", async () => {
  const { issuer } = gateway;
  const stranger = new LocalIssuer("sallyport-test", "sallyport:default/shop");
  const good = issuer.token(staff);
  const [head, claims, signature] = good.split(".");
  const forgedClaims = Buffer.from(JSON.stringify({ sub: "root", groups: ["staff"] })).toString("base64url");
  const tokens: Record<string, string> = {
    empty: "",
    "no token": "hunter2-hunter2",
    expired: issuer.token({ ...staff, lifetimeSeconds: -3600 }),
    "not valid yet": issuer.token({ ...staff, claims: { nbf: Math.floor(Date.now() / 1000) + 3600 } }),
    "signed by a stranger": stranger.token(staff),
    "alg none": issuer.token({ ...staff, header: { alg: "none" } }),
    "alg HS256 with the public key": issuer.token({ ...staff, header: { alg: "HS256" } }),
    "changed claims": `${head}.${forgedClaims}.${signature}`,
    "no signature": `${head}.${claims}.`,
    "wrong audience": issuer.token({ ...staff, claims: { aud: "sallyport:default/other" } }),
    "no audience": issuer.token({ ...staff, claims: { aud: undefined } }),
    "wrong issuer": issuer.token({ ...staff, claims: { iss: "somebody" } }),
    "no subject": issuer.token({ ...staff, claims: { sub: undefined } }),
    "no expiry": issuer.token({ ...staff, claims: { exp: undefined } }),
    "a megabyte of header": `${"A".repeat(60_000)}.${claims}.${signature}`,
  };
  for (const [what, token] of Object.entries(tokens)) {
    const error = await loginError(asShop, token);
    expect(error.C, what).toMatch(/^28/);
    if (token.length > 8) expect(JSON.stringify(error), what).not.toContain(token);
  }
});

test("a good token of somebody whom no policy names opens no session", async () => {
  const error = await loginError(asShop, gateway.issuer.token({ user: "eve", groups: [] }));
  expect(error.C).toMatch(/^(28|42501)/);
});

test("an unknown or empty user and an unknown database are named as PostgreSQL names them", async () => {
  const token = gateway.issuer.token(staff);
  expect(await loginError({ user: "postgres", database: "shop" }, token)).toMatchObject({ C: "28000" });
  expect(await loginError({ user: "", database: "shop" }, token)).toMatchObject({ C: "28000" });
  expect((await loginError({ user: "shop", database: "nowhere" }, token)).C).toBe("3D000");
});

test("replication is refused however it is spelt", async () => {
  for (const replication of ["true", "database", "1", "yes", "on"]) {
    const error = await loginError({ ...asShop, replication }, gateway.issuer.token(staff));
    expect(error.C, replication).toBe("28000");
  }
});

test("lengths that cannot be are a protocol violation, not an allocation", async () => {
  for (const length of [0, 3, -1, -2147483648, 0x7fffffff]) {
    const client = await loggedIn();
    client.send(Buffer.concat([Buffer.from("Q"), int32s(length), Buffer.from("SELECT 1\0")]));
    expect(errorIn(await client.untilClosed()).C, String(length)).toMatch(/^(08P01|54000)$/);
  }
});

test("an unknown message type ends the connection with a protocol violation", async () => {
  for (const type of ["\0", "Y", "\x7f", "z"]) {
    const client = await loggedIn();
    client.send(frame(type, "hello"));
    expect(errorIn(await client.untilClosed())).toMatchObject({ S: "FATAL", C: "08P01" });
  }
});

test("text that is not UTF-8, and NUL inside a statement, never reach the parser", async () => {
  const statements: [Uint8Array, RegExp][] = [
    [Buffer.from([...Buffer.from("SELECT '"), 0xff, 0xfe, 0x27]), /^22021$/],
    [Buffer.from([...Buffer.from("SELECT '"), 0xc0, 0xaf, 0x27]), /^22021$/],
    [Buffer.from([...Buffer.from("SELECT '"), 0xed, 0xa0, 0x80, 0x27]), /^22021$/],
    [Buffer.from("SELECT 1\0; DROP TABLE item"), /^(08P01|22021)$/],
  ];
  for (const [sql, code] of statements) {
    const client = await loggedIn();
    client.send(query(sql));
    expect(errorIn(await client.until("Z")).C).toMatch(code);
    client.close();
  }
  expect(await server.query("SELECT to_regclass('item') IS NOT NULL AS there")).toEqual([{ there: true }]);
});

test("a statement that nests too deep is refused and the connection stays usable", async () => {
  const client = await loggedIn();
  for (const sql of [
    `SELECT ${"(".repeat(100_000)}1${")".repeat(100_000)}`,
    `SELECT ${"- ".repeat(200_000)}1`,
    `SELECT ${"ARRAY[".repeat(50_000)}1${"]".repeat(50_000)}`,
  ]) {
    client.send(query(sql));
    expect(errorIn(await client.until("Z")).C).toMatch(/^(54001|54000|42601)$/);
  }
  client.send(query("SELECT 'usable'"));
  expect((await client.until("Z")).map(({ type }) => type).join("")).toBe("TDCZ");
  client.close();
});

test("a statement of 16 MB is answered, and others are served meanwhile", async () => {
  const client = await loggedIn();
  client.send(query(`SELECT length('${"x".repeat(16 * 1024 * 1024)}')`));
  const served = bystander.query("SELECT 1 AS n");
  expect(errorIn(await client.until("Z")).C).toBe("54000");
  expect((await served).rows).toEqual([{ n: 1 }]);
});

test("a Bind and a statement over their sizes say how large they may be", async () => {
  for (const [type, length, hint] of [
    ["B", 65 * 1024 * 1024, "67108864 bytes here. Send the data in parts, or by COPY."],
    ["Q", 9 * 1024 * 1024, "8388608 bytes here."],
  ] as const) {
    const client = await loggedIn();
    const head = Buffer.alloc(5, type);
    head.writeInt32BE(length, 1);
    client.send(head);
    expect(errorIn(await client.untilClosed())).toMatchObject({
      S: "FATAL",
      C: "54000",
      H: expect.stringContaining(hint),
    });
  }
});

test("one prepared statement or portal too many is refused, and the session goes on", async () => {
  const client = await loggedIn();
  const sync = frame("S");
  const outcome = async (...messages: Uint8Array[]) => {
    client.send(...messages);
    const error = (await client.until("Z")).find(({ type }) => type === "E")?.fields;
    return error === undefined ? "done" : `${error.C} ${error.H}`;
  };
  const [mayClose, mayEnd] = ["send DEALLOCATE ALL.", "end the transaction."].map(
    (way) => `54000 Close those that are not needed any more, or ${way}`,
  );
  const numbers = Array.from({ length: 10_000 }, (_, number) => String(number));
  expect(await outcome(...numbers.map((name) => parse(`s${name}`, "SELECT 1")), sync)).toBe("done");
  expect(await outcome(parse("more", "SELECT 1"), bind("", "more"), execute(""), sync)).toBe(mayClose);
  expect(await outcome(query("PREPARE more AS SELECT 1"))).toBe(mayClose);
  expect(await outcome(parse("", "PREPARE more AS SELECT 1"), sync)).toBe(mayClose);
  expect(await outcome(parse("", "DEALLOCATE s7"), bind("", ""), execute(""), sync)).toBe("done");
  expect(await outcome(query("PREPARE more AS SELECT 1"))).toBe("done");
  expect(await outcome(query("BEGIN"))).toBe("done");
  expect(await outcome(...numbers.map((name) => bind(`p${name}`, "s8")), sync)).toBe("done");
  expect(await outcome(bind("more", "s8"), sync)).toBe(mayEnd);
  expect(await outcome(query("ROLLBACK"))).toBe("done");
  expect(await outcome(bind("more", "s8"), execute("more"), sync)).toBe("done");
  client.close();
});

test("the texts that a session keeps are bounded together", async () => {
  const client = await loggedIn();
  const code = async (...messages: Uint8Array[]) => {
    client.send(...messages);
    return (await client.until("Z")).find(({ type }) => type === "E")?.fields.C ?? "done";
  };
  const sync = frame("S");
  const long = (label: string) => `SELECT '${label}${"x".repeat(7 * 1024 * 1024)}'`;
  const numbers = Array.from({ length: 8 }, (_, number) => String(number));
  for (const name of numbers) expect(await code(parse(`s${name}`, long(name)), sync)).toBe("done");
  expect(await code(query("BEGIN"))).toBe("done");
  expect(await code(parse("", long("unnamed")), bind("", ""), sync)).toBe("done");
  // A portal keeps the text of its statement, whatever becomes of that.
  expect(await code(bind("kept", "s0"), sync)).toBe("done");
  expect(await code(parse("", long("other")), bind("more", ""), sync)).toBe("done");
  expect(await code(parse("", long("third")), bind("most", ""), sync)).toBe("54000");
  expect(await code(query("ROLLBACK"))).toBe("done");
  expect(await code(parse("", "SELECT 1"), parse("s8", long("8")), sync)).toBe("done");
  expect(await code(parse("s9", long("9")), sync)).toBe("54000");
  expect(await code(frame("C", "Ss0\0"), parse("s9", long("9")), sync)).toBe("done");
  expect(await code(parse("short", "SELECT 1"), bind("", "short"), execute(""), sync)).toBe("done");
  client.close();
}, 60_000);

test("a client that vanishes takes its running statement with it", async () => {
  const endless = "SELECT count(*) FROM generate_series(1, 99999999999)";
  const running = () =>
    server.query("SELECT pid FROM pg_stat_activity WHERE query = $1 AND state = 'active'", [endless]);
  const client = await loggedIn();
  client.send(query("BEGIN"), query("INSERT INTO item VALUES (1, 'half')"), query(endless));
  await expect.poll(running, { timeout: 10_000 }).toHaveLength(1);
  client.socket.destroy();
  await expect.poll(running, { timeout: 15_000 }).toEqual([]);
  expect(await server.query("SELECT * FROM item")).toEqual([]);
});

test("a server that dies in the middle of rows is an error for its sessions and for no other", async () => {
  const other = await startPostgres({ tls: true, database: "shop" });
  const second = await startGateway({ server: other, policies });
  try {
    const client = await second.connect(staff);
    let hasFailed = false;
    client.on("error", () => {
      hasFailed = true;
    });
    const rows = client
      .query("SELECT repeat('x', 100000) FROM generate_series(1, 100000)")
      .catch((error) => error);
    await expect
      .poll(() =>
        other.query("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%repeat%'"),
      )
      .not.toEqual([]);
    await other.kill9();
    expect(await rows).toBeInstanceOf(Error);
    await expect.poll(() => hasFailed).toBe(true);
    const refused = await second.connect(staff).catch((error: pg.DatabaseError) => error);
    expect(refused).toMatchObject({ code: "08006" });
    expect((refused as Error).message).not.toContain(String(other.port));
    await other.restart();
    const again = await second.connect(staff);
    expect((await again.query("SELECT 1 AS n")).rows).toEqual([{ n: 1 }]);
    await again.end();
  } finally {
    await second.stop();
    await other.stop();
  }
});

test("without its secret the gateway starts, says which one is missing, and lets nobody in", async () => {
  const second = await startGateway({
    server,
    policies,
    resource: { credentials: [{ name: "shop", secretRef: { name: "not-there" } }] },
  });
  try {
    await expect(second.connect(staff)).rejects.toMatchObject({ code: "57P03" });
    await expect.poll(() => second.logs()).toContain("not-there");
  } finally {
    await second.stop();
  }
});

test("what cannot be recorded does not run", async () => {
  const second = await startGateway({
    server,
    policies,
    // Files of at most 256 kB: what a full disk looks like to a process.
    wrapper: ["bash", "-c", 'ulimit -f 256; exec "$0" "$@"'],
  });
  try {
    const client = await second.connect(staff);
    client.on("error", () => {});
    let refused: unknown;
    let accepted = 0;
    for (; refused === undefined && accepted < 1000; ) {
      const sql = `INSERT INTO item VALUES (${1000 + accepted}, '${"x".repeat(4096)}')`;
      refused = await client.query(sql).then(
        () => undefined,
        (error: unknown) => error,
      );
      if (refused === undefined) accepted++;
    }
    expect(refused).toMatchObject({ code: "57P03" });
    expect(await server.query("SELECT count(*)::int AS n FROM item WHERE id >= 1000")).toEqual([
      { n: accepted },
    ]);
  } finally {
    await second.stop();
  }
});

test("a gateway that cannot start says why in one line and ends", async () => {
  await expect(
    startGateway({ server, policies: "apiVersion: sallyport.dev/v1alpha1\nkind: AccessPolicy\nspec: {" }),
  ).rejects.toThrow(/policies\.yaml/);
  await expect(startGateway({ server, policies, args: ["--drain", "soon"] })).rejects.toThrow(/DRAIN|drain/);
});

test("a gateway that cannot open one of its ports ends instead of serving on the others", async () => {
  // The admin port is opened last, when the resource's own port is open already.
  const failed = await startGateway({
    server,
    policies,
    args: ["--admin", `127.0.0.1:${gateway.port}`],
  }).catch((error: unknown) => error);
  expect(failed).toMatchObject({
    message: expect.stringContaining("EADDRINUSE"),
    cause: { message: "it ended with exit code 1" },
  });
});

test("a client that stops half-way through TLS or login is let go", async () => {
  for (const { name, closed } of halfWay) await expect(closed, name).resolves.toBeDefined();
  // A client in the middle of TLS sees the connection end and nothing else: the log has to say why.
  await expect
    .poll(() => gateway.logs())
    .toContain("login took too long: the TLS handshake did not come to its end");
  await expect.poll(() => gateway.logs()).toContain("login took too long: the client sent nothing more");
});

test("more sessions than may log in at once are no flood of logins", async () => {
  const many: WireClient[] = [];
  const roomy = await startGateway({ server, policies, args: ["--pending-logins", "30"] });
  try {
    for (let batch = 0; batch < 3; batch++) {
      const logIn = () => roomy.connectWire(staff);
      many.push(...(await Promise.all(Array.from({ length: 25 }, logIn))));
    }
    for (const client of many) client.send(query("SELECT 1"));
    for (const client of many)
      expect((await client.until("Z")).map(({ type }) => type).join("")).toBe("TDCZ");
  } finally {
    for (const client of many) client.close();
    await roomy.stop();
  }
});
