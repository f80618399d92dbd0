/**
 * What masks leave: TPC-H with a customer's name, phone, address and balance classified answers all that it can, and
 * what tools, object mappers and reports ask every day of a masked shop is answered as without masks.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { query, type ServerMessage, WireClient } from "../targets/wire-client.ts";
import {
  everydayDefinitions,
  everydayMasked,
  everydayReads,
  everydaySql,
  everydayWrites,
} from "./everyday-queries.ts";
import { tpchQueries, tpchSql } from "./tpch.ts";

let server: PostgresServer;
let gateway: Gateway;
const clients = new Map<string, WireClient>();

const policy = (user: string, rest: string) => policyDocument("shop", user, `  profile: ReadOnly\n${rest}`);
const masks = "  masking: [{tags: [contact], with: Redact}]";
const everydayMasks = `  masking: [{columns: [${everydayMasked.join(", ")}], with: Redact}]`;

beforeAll(async () => {
  server = await startPostgres({ tls: true, database: "shop", initSql: tpchSql });
  await server.query("CREATE DATABASE everyday");
  await server.query(everydaySql, [], "everyday");
  gateway = await startGateway({
    server,
    resource: {
      classification: [
        {
          tag: "contact",
          columns: ["c_name", "c_phone", "c_address", "c_acctbal"].map((name) => `public.customer.${name}`),
        },
      ],
    },
    policies: [
      policy("plain", ""),
      policy("strict", masks),
      policy("loose", `${masks}\n  inference: Allow`),
      ...["owner", "guarded"].map((user) =>
        policyDocument("shop", user, `  profile: Admin\n${user === "owner" ? "" : everydayMasks}`),
      ),
    ].join(""),
  });
  for (const user of ["plain", "strict", "loose", "owner", "guarded"]) {
    const database = user === "owner" || user === "guarded" ? "everyday" : "shop";
    const login = { port: gateway.port, ca: gateway.caPem, user: "shop", database };
    clients.set(user, await WireClient.logIn({ ...login, password: await gateway.token({ user }) }));
  }
});
afterAll(async () => {
  for (const client of clients.values()) client.close();
  await gateway?.stop();
  await server?.stop();
});

async function answer(user: string, sql: string): Promise<readonly ServerMessage[]> {
  const client = clients.get(user);
  client?.send(query(sql));
  return (await client?.until("Z")) ?? [];
}

/** `pass`: as without masks; `mask`: other values in as many rows; `deny`: refused. */
function outcome(plain: readonly ServerMessage[], masked: readonly ServerMessage[]): string {
  const error = masked.find(({ type }) => type === "E");
  if (error !== undefined) return error.fields.C === "42501" ? "deny" : `error ${error.fields.C}`;
  if (masked.map(({ type }) => type).join("") !== plain.map(({ type }) => type).join("")) return "other rows";
  const isSame = masked.every(({ body }, index) => plain[index]?.body.equals(body));
  return isSame ? "pass" : "mask";
}

// Q10 and Q18 group by a classified column, Q22 filters on one; no other query shows or uses any.
const concerned = new Map([
  [10, ["deny", "mask"]],
  [18, ["deny", "mask"]],
  [22, ["deny", "mask"]],
]);

test.each(tpchQueries.map((sql, index) => [index + 1, sql] as const))("Q%i", async (number, sql) => {
  const plain = await answer("plain", sql);
  expect(plain[0]?.type).toBe("T");
  const outcomes = [];
  for (const user of ["strict", "loose"]) outcomes.push(outcome(plain, await answer(user, sql)));
  expect(outcomes).toEqual(concerned.get(number) ?? ["pass", "pass"]);
});

test("what shows classified columns and uses none of them is masked and answered", async () => {
  const sql =
    "SELECT c_custkey, c_name, c_phone, c_mktsegment FROM customer WHERE c_custkey < 4 ORDER BY c_custkey";
  expect(outcome(await answer("plain", sql), await answer("strict", sql))).toBe("mask");
});

test.each(everydayReads)("an everyday read is answered as without masks: %s", async (sql) => {
  const plain = await answer("owner", sql);
  expect(plain[0]?.type, plain[0]?.fields.M).toBe("T");
  expect(outcome(plain, await answer("guarded", sql))).toBe("pass");
});

test.each([...everydayWrites, ...everydayDefinitions])("an everyday change passes: %s", async (sql) => {
  const changed = `BEGIN; ${sql}`;
  const outcomes: (readonly ServerMessage[])[] = [];
  for (const user of ["owner", "guarded"]) {
    outcomes.push(await answer(user, changed));
    await answer(user, "ROLLBACK");
  }
  const [plain = [], masked = []] = outcomes;
  expect(plain.at(-1)?.body.toString(), plain.find(({ type }) => type === "E")?.fields.M).toBe("T");
  expect(outcome(plain, masked)).toBe("pass");
});
