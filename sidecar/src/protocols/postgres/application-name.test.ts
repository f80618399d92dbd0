import { loadSqlParser } from "@sallyport/policy";
import { beforeAll, describe, expect, it } from "vitest";
import { ApplicationName, applicationName } from "./application-name.ts";
import { frame, frontend } from "./frames.ts";
import { client, openSession, server } from "./testing.ts";

beforeAll(() => loadSqlParser());

describe("A18: application_name", () => {
  it("keeps the identity in front and cuts the client's part", () => {
    expect(applicationName("local:ann/1", "psql")).toBe("local:ann/1 psql");
    expect(applicationName("local:ann/1", undefined)).toBe("local:ann/1");
    expect(applicationName("local:ann/1", "x".repeat(51))).toBe(`local:ann/1 ${"x".repeat(51)}`);
    expect(applicationName("local:ann/1", "x".repeat(100))).toMatch(/^local:ann\/1 x{46}~[0-9a-f]{4}$/);
    expect(applicationName(`local:${"a".repeat(56)}`, "xy")).toBe(`local:${"a".repeat(56)} `);
    expect(applicationName("local:ann/1", "né\nw")).toBe("local:ann/1 n??w");
  });

  it("tells the client what it has called itself, however much of it the server has", () => {
    const long = "a name of more than sixteen bytes";
    const name = new ApplicationName(`local:ann/${"1".repeat(36)}`, long);
    const shown = (own: string) => name.shown(applicationName(`local:ann/${"1".repeat(36)}`, own));
    expect([shown(long), shown(""), shown("other")]).toEqual([long, "", "other"]);
    const setting = { value: "é".repeat(70), isLocal: false, start: 0, end: 3 };
    expect(name.textFor("SET", [setting])).toMatch(/^SET application_name = 'local:ann/);
    expect([shown("é".repeat(70)), shown(long)]).toEqual(["?".repeat(63), long]);
    expect(name.shown("somebody else's")).toBe("somebody else's");
  });

  it("tells names apart that begin alike, and are too long for the server", () => {
    const prefix = `local:ann/${"1".repeat(36)}`;
    const [one, two] = ["a name that goes on like this", "a name that goes on like that"];
    const name = new ApplicationName(prefix, one);
    name.textFor("SET", [{ value: two, isLocal: false, start: 0, end: 3 }]);
    const shown = [one, two].map((own) => name.shown(applicationName(prefix, own)));
    expect(shown).toEqual([one, two]);
  });

  it("says so in ParameterStatus and in the row of SHOW, in both protocols and split at any byte", async () => {
    const session = openSession([]);
    await session.send(client.query("SET application_name = 'report'"));
    session.reply(server.complete("SET"), server.parameter("application_name", "local:ann/1 report"));
    session.reply(server.ready("I"));
    expect(session.received().map(({ body }) => body.toString())).toContain("application_name\0report\0");
    const row = server.dataRow("local:ann/1 report");
    for (let cut = 1; cut <= row.length; cut += 1) {
      if (cut % 2 === 0) await session.send(client.query("show Application_Name;"));
      else
        await session.send(
          ...[client.parse("", "SHOW application_name"), client.bind("", ""), client.describe("P", "")],
          ...[client.execute(""), client.sync()],
        );
      if (cut % 2 === 1) session.reply(server.parseComplete(), server.bindComplete());
      session.reply(server.rowDescription());
      session.reply(row.subarray(0, cut));
      session.reply(row.subarray(cut), server.complete("SHOW"), server.ready("I"));
      const rows = session.received().filter(({ type }) => type === "D");
      expect(rows.map(({ body }) => body.subarray(6).toString())).toEqual(["report"]);
    }
    await session.send(client.query("SELECT 'local:ann/1 report'"));
    session.reply(server.rowDescription(), row, server.complete("SELECT 1"), server.ready("I"));
    expect(session.received()[1]?.body.subarray(6).toString()).toBe("local:ann/1 report");
  });

  it.each([
    ["SET application_name = 'report'", "local:ann/1 report"],
    ["set session application_name to 'it''s' ;", "local:ann/1 it''s"],
    ["SET application_name TO psql", "local:ann/1 psql"],
    ["SET application_name = ''", "local:ann/1"],
    ["/* 'a' */ SET application_name = E'it\\'s' -- c", "local:ann/1 it''s"],
    ['SET application_name = "My App"', "local:ann/1 My App"],
    ["SET application_name = -5", "local:ann/1 -5"],
  ])("%s sets the client's part alone", async (sql, expected) => {
    const session = openSession([]);
    await session.send(client.query(sql));
    expect(session.upstreamBytes()).toEqual(client.query(`SET application_name = '${expected}'`));
    await session.send(client.parse("n", sql), client.bind("", "n"), client.execute(""), client.sync());
    const bytes = session.upstreamBytes().toString("latin1");
    expect(bytes).toContain(`SET application_name = '${expected}'`);
  });

  it.each([
    ["set local application_name to x", "SET LOCAL application_name = 'local:ann/1 x'"],
    [
      "SELECT set_config('Application_Name', 'x', true)",
      "SELECT pg_catalog.set_config('application_name', 'local:ann/1 x', true)",
    ],
    [
      `SELECT pg_catalog.set_config('application_name', 'x'::text, FALSE) AS "a""b"`,
      `SELECT pg_catalog.set_config('application_name', 'local:ann/1 x', false) AS "a""b"`,
    ],
    [
      "SELECT 'é'; -- application_name = 'a';\nSET application_name = a;; SET LOCAL application_name = 'b'; SELECT 2",
      "SELECT 'é'; -- application_name = 'a';\nSET application_name = 'local:ann/1 a';; SET LOCAL application_name = 'local:ann/1 b'; SELECT 2",
    ],
    [
      "SELECT 1; SELECT set_config('application_name', 'x', false)",
      "SELECT 1; SELECT pg_catalog.set_config('application_name', 'local:ann/1 x', false)",
    ],
  ])("%s keeps everything but the name as it is", async (sql, expected) => {
    const session = openSession([]);
    await session.send(client.query(sql));
    expect(session.upstreamBytes()).toEqual(client.query(expected));
  });

  it("puts the identity in front of a parameter, whose type stays as declared", async () => {
    const session = openSession([]);
    const typed = (sql: string) =>
      frame(
        frontend.parse,
        Buffer.concat([Buffer.from(`n\0${sql}\0`), Buffer.from([0, 2, 0, 0, 0, 16, 0, 0, 0, 25])]),
      );
    await session.send(typed("SELECT set_config('application_name', $2, $1)"));
    const whole = "pg_catalog.left('local:ann/1 ' OPERATOR(pg_catalog.||) $2::pg_catalog.text, 63)";
    expect(session.upstreamBytes()).toEqual(
      typed(`SELECT pg_catalog.set_config('application_name', ${whole}, $1)`),
    );
  });

  it("says in the row of set_config what the client has asked for", async () => {
    const session = openSession([]);
    await session.send(client.query("SELECT set_config('application_name', 'report', false)"));
    session.reply(server.rowDescription(), server.dataRow("local:ann/1 report"));
    session.reply(server.complete("SELECT 1"), server.ready("I"));
    const rows = session.received().filter(({ type }) => type === "D");
    expect(rows.map(({ body }) => body.subarray(6).toString())).toEqual(["report"]);
  });

  it.each([
    "SELECT set_config('application_name', 'root', false), 1",
    "SELECT set_config('application_name', 'ro' || 'ot', false)",
    "SELECT 1 WHERE set_config('application_name', 'root', false) = ''",
    "SELECT upper(set_config('application_name', 'root', false))",
    "VALUES (set_config('application_name', 'root', false))",
    "PREPARE p AS SELECT set_config('application_name', 'root', false)",
    "EXPLAIN ANALYZE SELECT set_config('application_name', 'root', false)",
    "DO $$ BEGIN SET application_name = 'root'; END $$",
    "DO $$ BEGIN PERFORM set_config('application_name', 'root', false); END $$",
    "SET application_name = root, root",
    "SET application_name = 'a'; SELECT set_config('application_name', 'root', false), 1",
  ])("%s is refused: it would replace the identity", async (sql) => {
    const session = openSession([]);
    await session.send(client.query(sql));
    expect(session.upstreamBytes().toString()).not.toContain("root");
    await session.send(client.parse("n", sql), client.sync());
    expect(session.upstreamBytes().toString()).not.toContain("root");
  });

  it.each([
    "RESET application_name",
    "SET application_name TO DEFAULT",
    "SET LOCAL application_name TO DEFAULT",
    "RESET ALL",
  ])("%s passes", async (sql) => {
    const session = openSession([]);
    await session.send(client.query(sql));
    expect(session.upstreamBytes()).toEqual(client.query(sql));
  });
});
