/**
 * Limits of a policy against a real PostgreSQL: each with its SQLSTATE, and the transaction in the state that an error of the
 * server's own would have left it in.
 */
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { frame, int32s, query, type ServerMessage, type WireClient } from "../targets/wire-client.ts";

let server: PostgresServer;
let gateway: Gateway;

const policy = (user: string, limits: string) =>
  policyDocument("shop", user, `  profile: Admin\n  limits: {${limits}}`);

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    database: "shop",
    initSql: `
      CREATE TABLE note (n int PRIMARY KEY, word text);
      CREATE TABLE audit (n int);
      CREATE FUNCTION logged() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN INSERT INTO audit VALUES (1); RETURN NULL; END$$;
      CREATE CONSTRAINT TRIGGER logged AFTER UPDATE ON note DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION logged();`,
  });
  gateway = await startGateway({
    server,
    policies: [
      policy("reader", "rows: 5"),
      policy("writer", "affectedRows: 3"),
      policy("both", "rows: 5, affectedRows: 3"),
      policy("hasty", "statementsPerMinute: 3"),
      policy("single", "concurrentSessions: 1"),
      policy("idler", "idle: 1s"),
      policy("brief", "sessionDuration: 2s"),
    ].join(""),
  });
});
beforeEach(async () => {
  await server.query(
    "TRUNCATE note, audit; INSERT INTO note SELECT n, 'w' || n FROM generate_series(1, 10) n",
  );
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

const as = (user: string): Promise<WireClient> => gateway.connectWire({ user });

/** Messages as letters; tags, states and error codes with them. */
function shown({ type, body, fields }: ServerMessage): string {
  if (type === "E") return `E${fields.C}`;
  if (type === "C") return `C(${body.toString("latin1", 0, body.length - 1)})`;
  return type === "Z" ? `Z${body.toString("latin1")}` : type;
}

async function ask(client: WireClient, ...messages: Uint8Array[]): Promise<string> {
  client.send(...messages);
  return (await client.until("Z"))
    .filter(({ type }) => type !== "S")
    .map(shown)
    .join(" ");
}
const run = (client: WireClient, sql: string) => ask(client, query(sql));

const parse = (sql: string, name = "") => frame("P", `${name}\0${sql}\0`, Buffer.alloc(2));
const bind = (portal = "", name = "") => frame("B", `${portal}\0${name}\0`, Buffer.alloc(6));
const execute = (rows = 0, portal = "") => frame("E", `${portal}\0`, int32s(rows));
const sync = frame("S");
const whole = (sql: string, rows = 0) => [parse(sql), bind(), frame("D", "P\0"), execute(rows)];

const count = async (where = "true") =>
  (await server.query(`SELECT count(*)::int AS n FROM note WHERE ${where}`))[0]?.n;

/** Over all processes of the gateway; where there are several, each adds a label of its own. */
async function metric(wanted: string): Promise<number> {
  const text = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  const [name = "", labels = ""] = wanted.replace("}", "").split("{");
  const lines = text.split("\n").filter((line) => line.startsWith(`${name}{`));
  const counted = lines.filter((line) => labels.split(",").every((label) => line.includes(label)));
  return counted.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

describe("rows", () => {
  test("a result within the limit is what PostgreSQL sends, simple and extended", async () => {
    const client = await as("reader");
    expect(await run(client, "SELECT n FROM note WHERE n <= 5")).toBe("T D D D D D C(SELECT 5) ZI");
    expect(await run(client, "SELECT n FROM note WHERE n > 99")).toBe("T C(SELECT 0) ZI");
    expect(await run(client, "INSERT INTO note VALUES (11, 'x')")).toBe("C(INSERT 0 1) ZI");
    expect(await run(client, "SELECT 1 / 0")).toBe("E22012 ZI");
    expect(await run(client, "SELEC 1")).toBe("E42601 ZI");
    expect(await run(client, "")).toBe("I ZI");
    expect(await ask(client, ...whole("SELECT n FROM note WHERE n < 3"), sync)).toBe(
      "1 2 T D D C(SELECT 2) ZI",
    );
    client.close();
  });

  test("G9 a longer one is cut behind the last allowed row with 54G01, and the session goes on", async () => {
    const client = await as("reader");
    expect(await run(client, "SELECT n FROM note")).toBe("T D D D D D E54G01 ZI");
    expect(await run(client, "SELECT 1")).toBe("T D C(SELECT 1) ZI");
    expect(await ask(client, ...whole("SELECT n FROM note"), sync)).toBe("1 2 T D D D D D E54G01 ZI");
    expect(await ask(client, ...whole("SELECT 1"), sync)).toBe("1 2 T D C(SELECT 1) ZI");
    expect(await run(client, "SELECT generate_series(1, 100000000)")).toBe("T D D D D D E54G01 ZI");
    expect(
      await metric('sallyport_limits_reached_total{resource="default/shop",limit="rows"}'),
    ).toBeGreaterThan(0);
    client.close();
  });

  test("the transaction is failed, and recovers as from an error", async () => {
    const client = await as("reader");
    await run(client, "BEGIN");
    await run(client, "INSERT INTO note VALUES (11, 'lost')");
    expect(await run(client, "SELECT n FROM note")).toBe("T D D D D D E54G01 ZE");
    expect(await run(client, "SELECT 1")).toBe("E25P02 ZE");
    expect(await run(client, "COMMIT")).toBe("C(ROLLBACK) ZI");
    expect(await count("n = 11")).toBe(0);
    await run(client, "BEGIN");
    await run(client, "SAVEPOINT s");
    expect(await run(client, "SELECT n FROM note")).toBe("T D D D D D E54G01 ZE");
    expect(await run(client, "ROLLBACK TO s")).toBe("C(ROLLBACK) ZT");
    expect(await run(client, "SELECT 1")).toBe("T D C(SELECT 1) ZT");
    expect(await run(client, "COMMIT")).toBe("C(COMMIT) ZI");
    client.close();
  });

  test("a write that returns too many rows leaves nothing behind", async () => {
    const client = await as("reader");
    expect(await run(client, "UPDATE note SET word = 'gone' RETURNING n")).toBe("T D D D D D E54G01 ZI");
    expect(await ask(client, ...whole("DELETE FROM note RETURNING n"), sync)).toBe(
      "1 2 T D D D D D E54G01 ZI",
    );
    expect(await count("word <> 'gone'")).toBe(10);
    client.close();
  });

  test("G9 a portal counts over all its Executes", async () => {
    const client = await as("reader");
    const seen = await ask(
      client,
      parse("SELECT n FROM note"),
      bind("p"),
      execute(3, "p"),
      execute(3, "p"),
      sync,
    );
    expect(seen).toBe("1 2 D D D s D D E54G01 ZI");
    const within = await ask(
      client,
      parse("SELECT n FROM note"),
      bind("p"),
      execute(2, "p"),
      execute(2, "p"),
      sync,
    );
    expect(within).toBe("1 2 D D s D D s ZI");
    client.close();
  });

  test("a pipeline behind the cut is skipped up to its Sync, and what stood before it is rolled back", async () => {
    const client = await as("reader");
    client.send(...whole("INSERT INTO note VALUES (11, 'before')"), ...whole("SELECT n FROM note"));
    client.send(...whole("INSERT INTO note VALUES (12, 'behind')"), sync, query("SELECT 1"));
    const seen = [...(await client.until("Z")), ...(await client.until("Z"))].map(shown).join(" ");
    expect(seen).toBe("1 2 n C(INSERT 0 1) 1 2 T D D D D D E54G01 ZI T D C(SELECT 1) ZI");
    expect(await count()).toBe(10);
    client.close();
  });

  test("G9 cursors and SHOW count each time, and COPY out is cut", async () => {
    const client = await as("reader");
    await run(client, "BEGIN");
    await run(client, "DECLARE c CURSOR FOR SELECT n FROM note");
    expect(await run(client, "FETCH 4 FROM c")).toBe("T D D D D C(FETCH 4) ZT");
    expect(await run(client, "FETCH ALL FROM c")).toBe("T D D D D D E54G01 ZE");
    await run(client, "ROLLBACK");
    expect(await run(client, "SHOW TimeZone")).toBe("T D C(SHOW) ZI");
    expect(await run(client, "COPY (SELECT n FROM note WHERE n < 4) TO STDOUT")).toBe(
      "H d d d c C(COPY 3) ZI",
    );
    expect(await run(client, "COPY note TO STDOUT")).toBe("H d d d d d E54G01 ZI");
    expect(await run(client, "COPY (SELECT n FROM note LIMIT 5) TO STDOUT BINARY")).toBe(
      "H d d d d d d c C(COPY 5) ZI",
    );
    expect(await run(client, "SELECT 1")).toBe("T D C(SELECT 1) ZI");
    client.close();
  });

  test("several statements in one text are refused, and named", async () => {
    const client = await as("reader");
    expect(await run(client, "SELECT 1; SELECT n FROM note")).toBe("E54G03 ZI");
    expect(await run(client, "BEGIN; SET LOCAL work_mem = '1MB'")).toBe("C(BEGIN) C(SET) ZT");
    client.close();
  });

  test("a Query's statement cannot be run again under the name of an older one", async () => {
    const client = await as("reader");
    await ask(client, parse("SELECT 'old'"), sync);
    await run(client, "INSERT INTO note VALUES (11, 'once')");
    expect(await ask(client, bind(), execute(), sync)).toBe("E26000 ZI");
    expect(await count("n = 11")).toBe(1);
    client.close();
  });
});

describe("affectedRows", () => {
  test("a change within the limit is kept, one beyond leaves nothing behind", async () => {
    const client = await as("writer");
    expect(await run(client, "UPDATE note SET word = 'few' WHERE n <= 3")).toBe("C(UPDATE 3) ZI");
    expect(await run(client, "UPDATE note SET word = 'many' WHERE n <= 4")).toBe("E54G02 ZI");
    expect(await run(client, "DELETE FROM note")).toBe("E54G02 ZI");
    expect(await run(client, "INSERT INTO note SELECT n, 'more' FROM generate_series(20, 30) n")).toBe(
      "E54G02 ZI",
    );
    expect(await ask(client, ...whole("DELETE FROM note"), sync)).toBe("1 2 n E54G02 ZI");
    expect(await ask(client, ...whole("DELETE FROM note WHERE n = 10"), sync)).toBe("1 2 n C(DELETE 1) ZI");
    expect([await count("word = 'few'"), await count("word = 'many'"), await count()]).toEqual([3, 0, 9]);
    expect(
      await metric('sallyport_limits_reached_total{resource="default/shop",limit="affectedRows"}'),
    ).toBeGreaterThan(0);
    // What the deferred trigger of the allowed change did is kept, and nothing else.
    expect((await server.query("SELECT count(*)::int AS n FROM audit"))[0]?.n).toBe(3);
    client.close();
  });

  test("rows returned before the limit was reached are followed by the error, and the change is undone", async () => {
    const client = await as("writer");
    expect(await run(client, "DELETE FROM note RETURNING n")).toBe("T D D D E54G02 ZI");
    expect(await run(client, "DELETE FROM note WHERE n > 8 RETURNING n")).toBe("T D D C(DELETE 2) ZI");
    expect(await count()).toBe(8);
    client.close();
  });

  test("within a transaction the savepoint before it can be gone back to", async () => {
    const client = await as("writer");
    await run(client, "BEGIN");
    expect(await run(client, "UPDATE note SET word = 'kept' WHERE n = 1")).toBe("C(UPDATE 1) ZT");
    await run(client, "SAVEPOINT s");
    expect(await run(client, "DELETE FROM note")).toBe("E54G02 ZE");
    expect(await run(client, "ROLLBACK TO s")).toBe("C(ROLLBACK) ZT");
    expect(await run(client, "COMMIT")).toBe("C(COMMIT) ZI");
    expect([await count(), await count("word = 'kept'")]).toEqual([10, 1]);
    client.close();
  });

  test("COPY in is counted, whether the client waits for the server or not", async () => {
    const client = await as("writer");
    const rows = (from: number, to: number) =>
      Array.from({ length: to - from + 1 }, (_, index) => frame("d", `${from + index}\tcopied\n`));
    const copy = query("COPY note FROM STDIN");
    expect(await ask(client, copy, ...rows(20, 22), frame("c"))).toBe("G C(COPY 3) ZI");
    expect(await ask(client, copy, ...rows(30, 39), frame("c"))).toBe("G E54G02 ZI");
    client.send(copy);
    await client.until("G");
    expect(await ask(client, ...rows(40, 41), frame("c"))).toBe("C(COPY 2) ZI");
    expect(await ask(client, copy, frame("d", "bad\n"), ...rows(50, 51), frame("c"))).toBe("G E22P02 ZI");
    expect(await ask(client, copy, ...rows(50, 51), frame("f", "enough\0"))).toBe("G E57014 ZI");
    const extended = [
      parse("COPY note FROM STDIN"),
      bind(),
      execute(),
      sync,
      ...rows(60, 69),
      frame("c"),
      sync,
    ];
    expect(await ask(client, ...extended)).toBe("1 2 G E54G02 ZI");
    expect(await run(client, "SELECT 1")).toBe("T D C(SELECT 1) ZI");
    expect([await count("word = 'copied'"), await count()]).toEqual([5, 15]);
    client.close();
  });

  test("what does not tell how many rows it changes is refused, or undone once it shows", async () => {
    const client = await as("writer");
    for (const sql of [
      "TRUNCATE note",
      "DO $$BEGIN DELETE FROM note; END$$",
      "EXPLAIN ANALYZE DELETE FROM note",
      "WITH d AS (DELETE FROM note RETURNING *) SELECT count(*) FROM d",
      "WITH d AS (DELETE FROM note RETURNING *) INSERT INTO audit SELECT n FROM d LIMIT 1",
      "WITH d AS (DELETE FROM note WHERE n < 9 RETURNING *) DELETE FROM note WHERE n = 10",
      "PREPARE hidden AS WITH d AS (DELETE FROM note WHERE n < 9) DELETE FROM note WHERE n = 10",
      "COPY (DELETE FROM note RETURNING n) TO STDOUT",
      "DELETE FROM note WHERE n = 1; DELETE FROM note WHERE n = 2",
    ])
      expect(await run(client, sql), sql).toMatch(/E54G03 ZI$/);
    const hidden = parse("WITH d AS (DELETE FROM note WHERE n < 9) DELETE FROM note WHERE n = 10", "hidden");
    expect(await ask(client, hidden, sync)).toBe("E54G03 ZI");
    expect(await run(client, "EXECUTE hidden")).toBe("E26000 ZI");
    expect(await run(client, "CREATE TABLE copy AS SELECT * FROM note")).toBe("E54G02 ZI");
    expect(await run(client, "PREPARE many AS DELETE FROM note")).toBe("C(PREPARE) ZI");
    expect(await run(client, "EXECUTE many")).toBe("E54G02 ZI");
    expect(await count()).toBe(10);
    expect((await server.query("SELECT to_regclass('copy') AS found"))[0]?.found).toBe(null);
    client.close();
  });

  test("both limits together hold together", async () => {
    const client = await as("both");
    expect(await run(client, "SELECT n FROM note")).toBe("T D D D D D E54G01 ZI");
    expect(await run(client, "DELETE FROM note RETURNING n")).toBe("T D D D E54G02 ZI");
    expect(await run(client, "DELETE FROM note WHERE n < 3 RETURNING n")).toBe("T D D C(DELETE 2) ZI");
    client.close();
  });

  test("a usual driver sees an error with a code, and works on", async () => {
    const client = await gateway.connect({ user: "both" });
    await expect(client.query("SELECT n FROM note WHERE n > $1", [0])).rejects.toMatchObject({
      code: "54G01",
    });
    await expect(client.query("DELETE FROM note")).rejects.toMatchObject({ code: "54G02" });
    expect((await client.query("SELECT n FROM note WHERE n = $1", [7])).rows).toEqual([{ n: 7 }]);
    await client.end();
  });
});

describe("the other limits", () => {
  async function codeOf(promise: Promise<unknown>): Promise<string | undefined> {
    return promise.then(
      () => undefined,
      (error: unknown) => (error as pg.DatabaseError).code,
    );
  }

  test("statements a minute: 53400, and the transaction fails as by an error", async () => {
    const client = await as("hasty");
    expect(await run(client, "BEGIN")).toBe("C(BEGIN) ZT");
    await run(client, "SELECT 1");
    await run(client, "SELECT 1");
    expect(await run(client, "SELECT 1")).toBe("E53400 ZE");
    expect(
      await metric('sallyport_limits_reached_total{resource="default/shop",limit="statementsPerMinute"}'),
    ).toBeGreaterThan(0);
    client.close();
  });

  test("sessions at a time: 53300 for the second, and room once the first is gone", async () => {
    const first = await gateway.connect({ user: "single" });
    expect(await codeOf(gateway.connect({ user: "single" }))).toBe("53300");
    await first.end();
    const again = async () => (await gateway.connect({ user: "single" })).end();
    await expect.poll(() => codeOf(again()), { timeout: 20_000 }).toBe(undefined);
    expect(
      await metric('sallyport_logins_total{resource="default/shop",result="tooManySessions"}'),
    ).toBeGreaterThan(0);
  });

  test.each([
    ["idle", "idler", "57P05", "idle"],
    ["session duration", "brief", "57P01", "sessionExpired"],
  ])("%s: the session ends with a code of its own", async (_, user, code, reason) => {
    const client = await as(user);
    const last = (await client.untilClosed()).findLast(({ type }) => type === "E");
    expect(last?.fields.C).toBe(code);
    await expect
      .poll(() => metric(`sallyport_sessions_ended_total{resource="default/shop",reason="${reason}"}`))
      .toBeGreaterThan(0);
  });

  test("statement size: 54000, and the session ends, as the rest of the message is not read", async () => {
    const client = await as("reader");
    client.send(query(`SELECT '${"x".repeat(9 * 1024 * 1024)}'`));
    const seen = await client.untilClosed();
    expect(seen.at(-1)?.fields).toMatchObject({ S: "FATAL", C: "54000" });
    await expect
      .poll(() => metric('sallyport_sessions_ended_total{resource="default/shop",reason="tooLarge"}'))
      .toBeGreaterThan(0);
  });
});
