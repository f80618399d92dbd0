/** What drivers' own test suites look at, and a gateway can get wrong: the same bytes as from the server itself. */
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
