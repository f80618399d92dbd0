/** What drivers' own test suites look at, and a gateway can get wrong: the same bytes as from the server itself. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { policyDocument } from "../targets/policies.ts";
import { type Shop, startShop } from "../targets/shop.ts";
import { password, query, startup, WireClient } from "../targets/wire-client.ts";

let shop: Shop;

beforeAll(async () => {
  shop = await startShop({
    initSql: `
      GRANT ALL ON SCHEMA public TO direct;
      CREATE TABLE item (n int PRIMARY KEY);
      INSERT INTO item VALUES (7);
      CREATE TABLE loose (n int);
      CREATE VIEW seen AS SELECT n FROM item WHERE n > 0 GROUP BY n;
      GRANT ALL ON item, loose, seen TO direct;`,
    policies: policyDocument("shop", "ann", "  profile: Admin"),
  });
}, 120_000);
afterAll(() => shop?.stop());

describe("application_name", () => {
  it("is to the client what it has called itself, and to the server who it is", async () => {
    const client = await shop.gateway.connect(
      { user: "ann" },
      { application_name: "a report of forty and more letters" },
    );
    const shown = async () => (await client.query("SHOW application_name")).rows[0].application_name;
    expect(await shown()).toBe("a report of forty and more letters");
    await client.query("SET application_name = 'another'");
    expect((await client.query({ text: "SHOW application_name", name: "shown" })).rows).toEqual([
      { application_name: "another" },
    ]);
    const { rows } = await client.query("SELECT current_setting('application_name') AS name");
    expect(rows[0].name).toMatch(/^local:ann\/[0-9a-f-]{36} another$/);
    await client.end();
  });

  it.each([
    ["sixty-five letters", "x".repeat(65)],
    ["thirty-two of two bytes", `x${"é".repeat(32)}`],
    ["sixty-three", "x".repeat(63)],
  ])("of %s gets the notice at login that the server gives", async (_, name) => {
    const { server, gateway } = shop;
    const noticesOf = async (client: WireClient, user: string, secret: string) => {
      client.send(startup({ user, database: "shop", application_name: name }));
      await client.until("R");
      client.send(password(secret));
      const messages = await client.until("Z");
      return messages.filter(({ type }) => type === "N").map(({ fields }) => [fields.V, fields.C, fields.M]);
    };
    const direct = await WireClient.connect(server.port);
    await direct.startTls(server.caPem);
    const expected = await noticesOf(direct, "direct", "direct");
    expect(expected).toHaveLength(name.length === 63 ? 0 : 1);
    const through = await shop.secured();
    expect(await noticesOf(through, gateway.user, await gateway.token({ user: "ann" }))).toEqual(expected);
    direct.close();
    through.close();
  });

  const set = "SET LOCAL application_name = 'two'";
  const show = "SHOW application_name";
  it.each<readonly [string, ...string[]]>([
    ["SET LOCAL that is committed", "BEGIN", set, show, "COMMIT", show],
    ["SET LOCAL that is rolled back", "BEGIN", set, show, "ROLLBACK", show],
    ["SET LOCAL outside of a transaction", set, show],
    ["a savepoint", "BEGIN", set, "SAVEPOINT s", "SET application_name = three", show, "ROLLBACK TO s", show],
    ["a released savepoint", "BEGIN", "SAVEPOINT s", set, "RELEASE s", show, "COMMIT", show],
    ["SET under SET LOCAL", "BEGIN", "SET application_name = three", set, show, "COMMIT", show],
    ["a failed transaction", "BEGIN", set, "SELECT 1/0", show, "ROLLBACK", show],
    [
      "SET LOCAL to the default",
      "SET application_name = one",
      "BEGIN",
      "SET LOCAL application_name TO DEFAULT",
      show,
      "COMMIT",
      show,
    ],
    ["RESET after SET LOCAL", "BEGIN", set, "RESET application_name", show, "COMMIT", show],
    [
      "set_config",
      "BEGIN",
      "SELECT set_config('application_name', 'two', true) AS \"My name\"",
      show,
      "COMMIT",
      show,
    ],
    [
      "set_config for the session",
      "SELECT set_config('application_name', 'a name of thirty letters or so', false)",
      show,
    ],
    [
      "other spellings",
      'SET application_name = "My App"',
      "/* c */ SET application_name = E'it\\'s' -- c",
      show,
    ],
    [
      "long names that begin alike",
      "BEGIN",
      "SET application_name = 'pgjdbc_ParameterStatusTestTxn'",
      "SET LOCAL application_name = 'pgjdbc_ParameterStatusTestLocal'",
      show,
      "COMMIT",
      show,
    ],
    [
      "several statements",
      "BEGIN; SET LOCAL application_name = 'two'; SELECT 'é' AS x",
      show,
      "ROLLBACK; SELECT 1",
      show,
    ],
  ])("answers %s as the server does", async (_, ...texts) => {
    const answers = async (client: WireClient) => {
      const messages: (readonly [string, string])[] = [];
      for (const text of ["SET application_name = 'own'", ...texts]) {
        client.send(query(text));
        for (const { type, body } of await client.until("Z")) messages.push([type, body.toString()]);
      }
      client.close();
      return messages;
    };
    const expected = await answers(await shop.logInDirect());
    expect(await answers(await shop.logIn({ user: "ann" }))).toEqual(expected);
  });

  it("is set by parameters of set_config, and stays behind the identity", async () => {
    const through = await shop.gateway.connect({ user: "ann" });
    const { port, caPem: ca } = shop.server;
    const account = { user: "direct", password: "direct", database: "shop" };
    const direct = new pg.Client({ host: "localhost", port, ssl: { ca }, ...account });
    await direct.connect();
    for (const client of [through, direct]) {
      await client.query("BEGIN");
      const text = "SELECT set_config('application_name', $1, $2) AS name";
      const named = async (value: string | null) => (await client.query(text, [value, true])).rows;
      expect(await named("report")).toEqual([{ name: "report" }]);
      expect(await named("")).toEqual([{ name: "" }]);
      expect(await named(null)).toEqual([{ name: "" }]);
      expect(await named("é".repeat(5))).toHaveLength(1);
      await client.query({ name: "kept", text, values: ["kept", false] });
      await client.query("COMMIT");
      expect((await client.query("SHOW application_name")).rows).toEqual([{ application_name: "kept" }]);
      const { rows } = await client.query("SELECT current_setting('application_name') AS name");
      expect(rows[0].name).toMatch(client === direct ? /^kept$/ : /^local:ann\/[0-9a-f-]{36} kept$/);
      await client.end();
    }
  });

  it("is reported by ParameterStatus as the client has set it, also where a rollback takes it back", async () => {
    const client = await shop.logIn({ user: "ann" });
    const reported = async (sql: string) => {
      client.send(query(sql));
      const messages = await client.until("Z");
      return messages.filter(({ type }) => type === "S").map(({ body }) => body.toString());
    };
    expect(await reported("SET application_name = 'one'")).toEqual(["application_name\0one\0"]);
    expect(await reported("BEGIN")).toEqual([]);
    expect(await reported("SET application_name = 'two'")).toEqual(["application_name\0two\0"]);
    expect(await reported("ROLLBACK")).toEqual(["application_name\0one\0"]);
    expect(await reported("RESET application_name")).toEqual(["application_name\0\0"]);
    client.close();
  });
});
