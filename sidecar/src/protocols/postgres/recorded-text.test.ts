import { loadSqlParser } from "@sallyport/policy";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { withHashedLiterals, withoutLiterals } from "./recorded-text.ts";
import { client, openSession } from "./testing.ts";

beforeAll(() => loadSqlParser());

const secret = "hunter2";

describe("secrets in statements", () => {
  it.each([
    `ALTER ROLE app PASSWORD '${secret}'`,
    `ALTER ROLE app PASSWORD E'\\'${secret}'`,
    `CREATE ROLE app LOGIN PASSWORD $x$${secret}$x$`,
    `CREATE SUBSCRIPTION s CONNECTION 'host=h password=${secret}' PUBLICATION p`,
    `CREATE USER MAPPING FOR app SERVER s OPTIONS (password '${secret}')`,
    `DO $$ BEGIN ALTER ROLE app PASSWORD '${secret}'; END $$`,
    `ALTER ROLE app PASWORD password '${secret}' nonsense`,
    `ALTER ROLE app PASSWORD '${secret}`,
    `ALTER ROLE "o'brien" PASSWORD '${secret}'`,
    `ALTER ROLE app /* don't tell */ PASSWORD '${secret}'`,
    `-- it's new\nALTER ROLE app PASSWORD '${secret}'`,
    `ALTER ROLE app VALID UNTIL'\\' PASSWORD '${secret}'`,
    `ALTER ROLE app" PASSWORD '${secret}' "`,
    `ALTER SYSTEM SET primary_conninfo = 'postgresql://app:${secret}@h/shop'`,
    `DO $$ BEGIN EXECUTE format('ALTER ROLE app PASSWORD %L', '${secret}'); END $$`,
  ])("never reach the recording: %s", async (sql) => {
    const session = openSession([]);
    await session.send(client.query(sql));
    expect(session.recording.commands.length).toBe(1);
    expect(JSON.stringify(session.recording.commands)).not.toContain(secret);
  });

  it("leaves other statements as they are", async () => {
    const session = openSession([]);
    const sql = "SELECT id FROM customers WHERE name = 'password'";
    await session.send(client.query(sql));
    expect(session.recording.commands[0]?.text).toBe(sql);
  });

  it("takes as long as the text is, however many literals it has", () => {
    const texts = ["a 'b' ".repeat(200_000), "e'' ".repeat(200_000), "$$ $$ ".repeat(200_000)];
    const began = process.cpuUsage();
    for (const text of texts) {
      expect(withoutLiterals(text).length).toBeLessThanOrEqual(text.length * 3);
      expect(withHashedLiterals(text, () => "x").length).toBeGreaterThan(0);
    }
    const { user, system } = process.cpuUsage(began);
    // With the square of it these take hours.
    expect(user + system).toBeLessThan(10_000_000);
  });

  it("takes every literal out, whatever stands in it", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 20 }), (value) => {
        const quoted = value.replaceAll("'", "''");
        expect(withoutLiterals(`a '${quoted}' b`)).toBe("a '***' b");
      }),
    );
  });
});
