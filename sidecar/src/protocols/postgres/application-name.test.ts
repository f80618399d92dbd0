import { loadSqlParser } from "@sallyport/policy";
import { beforeAll, describe, expect, it } from "vitest";
import { applicationName } from "./application-name.ts";
import { client, openSession } from "./testing.ts";

beforeAll(() => loadSqlParser());

describe("A18: application_name", () => {
  it("keeps the identity in front and cuts the client's part", () => {
    expect(applicationName("local:ann/1", "psql")).toBe("local:ann/1 psql");
    expect(applicationName("local:ann/1", undefined)).toBe("local:ann/1");
    expect(applicationName("local:ann/1", "x".repeat(100))).toBe(`local:ann/1 ${"x".repeat(51)}`);
    expect(applicationName("local:ann/1", "né\nw")).toBe("local:ann/1 n??w");
  });

  it.each([
    ["SET application_name = 'report'", "local:ann/1 report"],
    ["set session application_name to 'it''s' ;", "local:ann/1 it''s"],
    ["SET application_name TO psql", "local:ann/1 psql"],
    ["SET application_name = ''", "local:ann/1"],
  ])("%s sets the client's part alone", async (sql, expected) => {
    const session = openSession([]);
    await session.send(client.query(sql));
    expect(session.upstreamBytes()).toEqual(client.query(`SET application_name = '${expected}'`));
    await session.send(client.parse("n", sql), client.bind("", "n"), client.execute(""), client.sync());
    const bytes = session.upstreamBytes().toString("latin1");
    expect(bytes).toContain(`SET application_name = '${expected}'`);
  });

  it.each([
    "SELECT set_config('application_name', 'root', false)",
    "SET LOCAL application_name = 'root'",
    "SELECT 1; SET application_name = 'root'",
    "SET application_name = E'root'",
  ])("%s is refused: it would replace the identity", async (sql) => {
    const session = openSession([]);
    await session.send(client.query(sql));
    expect(session.upstreamBytes().toString()).not.toContain("root");
  });

  it.each(["RESET application_name", "SET application_name TO DEFAULT", "RESET ALL"])(
    "%s passes",
    async (sql) => {
      const session = openSession([]);
      await session.send(client.query(sql));
      expect(session.upstreamBytes()).toEqual(client.query(sql));
    },
  );
});
