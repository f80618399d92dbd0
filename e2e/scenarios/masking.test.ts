/** Masks against a real PostgreSQL: the values of masked columns reach nobody who is not to see them, in any format. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { frame, int32s, query, type ServerMessage, WireClient } from "../targets/wire-client.ts";

let server: PostgresServer;
let gateway: Gateway;

const policy = (user: string, rest: string) => `---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: ${user}}
spec:
  resources: {names: [shop]}
  subjects: [{user: "local:${user}"}]
  profile: Admin
${rest}
`;

const masks = `  masking:
    - {columns: [public.cust.ssn], with: Partial, format: "***-**-{last4}"}
    - {columns: [public.cust.email, public.cust.born, public.cust.score, public.cust.extra], with: Redact}`;

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    database: "shop",
    initSql: `
      CREATE TABLE cust (id int PRIMARY KEY, name text, ssn text, email text, born date, score int, extra jsonb,
        loud text GENERATED ALWAYS AS (upper(email)) STORED);
      INSERT INTO cust (id, name, ssn, email, born, score, extra) VALUES
        (1, 'ann', '123-45-6789', 'ann@example.com', '1980-05-06', 71, '{"a": "x"}'),
        (2, 'bob', '987-65-4321', 'bob@example.com', '1990-07-08', 82, '{"a": "y"}'),
        (3, 'cy', NULL, NULL, NULL, NULL, NULL);
      ALTER TABLE cust ADD CONSTRAINT one_email UNIQUE (email);
      CREATE VIEW v AS SELECT id, ssn AS s, name FROM cust;
      CREATE TABLE ord (id int PRIMARY KEY, cust int, note text);
      INSERT INTO ord VALUES (1, 1, 'mail carl@example.org today'), (2, 2, 'plain');
      CREATE FUNCTION loud() RETURNS SETOF cust LANGUAGE sql AS 'SELECT * FROM cust';`,
  });
  gateway = await startGateway({
    server,
    policies: [
      policy("analyst", masks),
      policy("admin", ""),
      policy("writer", `${masks}\n  maskedWrites: Allow\n  inference: Allow`),
      policy("scanned", "  masking: [{patterns: [email], with: Redact}]"),
    ].join(""),
  });
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

async function as(user: string): Promise<WireClient> {
  return WireClient.logIn({
    port: gateway.port,
    ca: gateway.caPem,
    user: "shop",
    database: "shop",
    password: await gateway.token({ user }),
  });
}

/** The rows of an answer as text, and errors by their SQLSTATE. */
function rowsOf(messages: readonly ServerMessage[]): string[] {
  return messages.flatMap(({ type, body, fields }) => {
    if (type === "E") return [`E${fields.C}`];
    if (type === "d") return [body.toString("utf8").trimEnd()];
    if (type !== "D") return [];
    const values: string[] = [];
    let at = 2;
    for (let index = 0; index < body.readUInt16BE(0); index += 1) {
      const length = body.readInt32BE(at);
      at += 4;
      values.push(length < 0 ? "∅" : body.toString("latin1", at, at + length));
      at += Math.max(0, length);
    }
    return [values.join("|")];
  });
}

async function run(client: WireClient, ...messages: Uint8Array[]): Promise<string[]> {
  client.send(...messages);
  return rowsOf(await client.until("Z"));
}
const ask = (client: WireClient, sql: string) => run(client, query(sql));

const parse = (sql: string, name = "") => frame("P", `${name}\0${sql}\0`, Buffer.alloc(2));
const bind = (format: 0 | 1 = 0, portal = "", name = "") =>
  frame("B", `${portal}\0${name}\0`, Buffer.from([0, 0, 0, 0, 0, 1, 0, format]));
const execute = (rows = 0, portal = "") => frame("E", `${portal}\0`, int32s(rows));
const sync = frame("S");

describe("rows", () => {
  test("simple queries show masks in place of values, and NULL stays NULL", async () => {
    const client = await as("analyst");
    expect(await ask(client, "SELECT id, ssn, email, born, score, extra FROM cust ORDER BY id")).toEqual([
      '1|***-**-6789|***|1970-01-01|0|"***"',
      '2|***-**-4321|***|1970-01-01|0|"***"',
      "3|∅|∅|∅|∅|∅",
    ]);
    expect(await ask(client, "SELECT s FROM v WHERE id = 1")).toEqual(["***-**-6789"]);
    expect(await ask(client, "SELECT loud FROM cust WHERE id = 1")).toEqual(["***"]);
    expect(
      await ask(client, "SELECT 1; SELECT ssn FROM cust WHERE id = 1; SELECT name FROM cust WHERE id = 2"),
    ).toEqual(["1", "***-**-6789", "bob"]);
    client.close();
  });

  test("the extended protocol masks text and binary, described or not", async () => {
    const client = await as("analyst");
    for (const described of [[], [frame("D", "P\0")]]) {
      const got = await run(
        client,
        ...[parse("SELECT ssn, born, score FROM cust WHERE id < 3 ORDER BY id"), bind(0)],
        ...[...described, execute(), sync],
      );
      expect(got).toEqual(["***-**-6789|1970-01-01|0", "***-**-4321|1970-01-01|0"]);
    }
    const [binary] = await run(
      client,
      ...[parse("SELECT ssn, score FROM cust WHERE id = 1"), bind(1), execute(), sync],
    );
    expect(binary).toBe("***-**-6789|\0\0\0\0");
    client.send(
      parse("SELECT ssn FROM cust ORDER BY id", "s"),
      bind(0, "p", "s"),
      execute(1, "p"),
      execute(1, "p"),
      sync,
    );
    const messages = await client.until("Z");
    expect(messages.map(({ type }) => type).join("")).toBe("12DsDsZ");
    expect(rowsOf(messages)).toEqual(["***-**-6789", "***-**-4321"]);
    client.close();
  });

  test("who has no masks sees values", async () => {
    const client = await as("admin");
    expect(await ask(client, "SELECT ssn, loud FROM cust WHERE id = 1")).toEqual([
      "123-45-6789|ANN@EXAMPLE.COM",
    ]);
    client.close();
  });
});
