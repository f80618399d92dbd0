/**
 * What masks leave: TPC-H with a customer's name, phone, address and balance classified answers all that it can, and
 * what tools, object mappers and reports ask every day of a masked shop is answered as without masks.
 */
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { isKnownSyntax, type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { query, type ServerMessage, type WireClient } from "../targets/wire-client.ts";
import {
  describedSql,
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
  await server.query("CREATE DATABASE described");
  await server.query(describedSql, [], "described");
  // Their operators have the names of those that every statement uses.
  await server.query("CREATE EXTENSION hstore; CREATE EXTENSION ltree", [], "described");
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
      policy("reader", `${everydayMasks}\n  inference: Allow`),
      ...["owner", "guarded"].map((user) =>
        policyDocument("shop", user, `  profile: Admin\n${user === "owner" ? "" : everydayMasks}`),
      ),
    ].join(""),
  });
  const sessions = {
    shop: ["plain", "strict", "loose"],
    everyday: ["owner", "guarded"],
    described: ["owner", "guarded", "reader"],
  };
  for (const [database, users] of Object.entries(sessions)) {
    for (const user of users) {
      const name = database === "described" ? `${user} of described` : user;
      clients.set(name, await gateway.connectWire({ user }, database));
    }
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

test.each([...everydayWrites, ...everydayDefinitions].filter(isKnownSyntax))(
  "an everyday change passes: %s",
  async (sql) => {
    const changed = `BEGIN; ${sql}`;
    const outcomes: (readonly ServerMessage[])[] = [];
    for (const user of ["owner", "guarded"]) {
      outcomes.push(await answer(user, changed));
      await answer(user, "ROLLBACK");
    }
    const [plain = [], masked = []] = outcomes;
    expect(plain.at(-1)?.body.toString(), plain.find(({ type }) => type === "E")?.fields.M).toBe("T");
    expect(outcome(plain, masked)).toBe("pass");
  },
);

test.each(everydayReads)(
  "it is answered without values of the catalog, beside extensions: %s",
  async (sql) => {
    const plain = await answer("owner of described", sql);
    expect(plain[0]?.type, plain[0]?.fields.M).toBe("T");
    const masked = await answer("guarded of described", sql);
    expect(outcome(plain, masked)).toMatch(/^(pass|mask)$/);
    expect(Buffer.concat(masked.map(({ body }) => body)).toString("latin1")).not.toContain("secret");
  },
);

test.each([
  "SELECT id FROM customers WHERE phone = '+49 1' OR phone LIKE '+49%' OR email < 'z'",
  "SELECT id FROM customers WHERE hstore('phone', phone) -> 'phone' = phone",
])("who may infer compares masked columns beside extensions: %s", async (sql) => {
  const plain = await answer("owner of described", sql);
  expect(plain.map(({ type }) => type)).toContain("D");
  expect(outcome(plain, await answer("reader of described", sql))).toBe("pass");
});

/** The only column of the rows. */
async function column(user: string, sql: string): Promise<readonly (string | undefined)[]> {
  const messages = await answer(`${user} of described`, sql);
  return messages.flatMap(({ type, body, fields }) => {
    if (type === "E") return [`E${fields.C}`];
    if (type !== "D") return [];
    return [body.readInt32BE(2) < 0 ? undefined : body.toString("utf8", 6)];
  });
}

const ofDefault = (table: string, name: string) =>
  `SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    WHERE d.adrelid = '${table}'::regclass AND a.attname = '${name}'`;

test.each([
  [ofDefault("customers", "phone"), "'+49-secret'::text", "'***'"],
  [ofDefault("customers", "is_active"), "true", "true"],
  // No lineage tells which default is whose.
  [ofDefault("visits", "n"), "7", "'***'"],
  [
    "SELECT column_default FROM information_schema.columns WHERE column_name = 'tier' AND table_name = 'customers'",
    "'gold-secret'::text",
    "'***'",
  ],
  [
    "SELECT attmissingval FROM pg_attribute WHERE attrelid = 'customers'::regclass AND attname = 'tier'",
    "{gold-secret}",
    undefined,
  ],
  [
    "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'visits_gold'",
    "FOR VALUES IN ('gold-secret')",
    "FOR VALUES IN ('***')",
  ],
  ["SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'visits_rest'", "DEFAULT", "DEFAULT"],
  [
    "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'customers_tier_check'",
    "CHECK ((tier <> 'none-secret'::text))",
    "CHECK ((tier <> '***'))",
  ],
  [
    "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'orders_customer_id_fkey'",
    "FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE",
    "FOREIGN KEY (customer_id) REFERENCES customers(id) ON DELETE CASCADE",
  ],
  [
    "SELECT indexdef FROM pg_indexes WHERE indexname = 'customers_id_idx'",
    "CREATE INDEX customers_id_idx ON public.customers USING btree (id) WHERE (tier = 'gold-secret'::text)",
    "CREATE INDEX customers_id_idx ON public.customers USING btree (id) WHERE (tier = '***')",
  ],
  ["SELECT tableoid > 0 FROM visits WHERE id = 1", "t", "E42501"],
  ["SELECT tableoid FROM visits WHERE id < 0 UNION ALL SELECT 1", "1", "0"],
  ["SELECT id FROM visits_gold", "1", "E42501"],
  ["SELECT id FROM visits WHERE id = 1", "1", "1"],
  ["CREATE TABLE copied (LIKE customers INCLUDING DEFAULTS)", undefined, "E42501"],
])("the catalog tells no value of a masked column: %s", async (sql, plain, masked) => {
  expect((await column("owner", sql))[0]).toBe(plain);
  expect((await column("guarded", sql))[0]).toBe(masked);
});

test("what the catalog tells is followed when it changes", async () => {
  const sql = ofDefault("orders", "total");
  expect(
    await column(
      "guarded",
      "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 'orders'::regclass",
    ),
  ).toEqual([]);
  await column("owner", "ALTER TABLE orders ALTER total SET DEFAULT 12");
  expect(await column("guarded", sql)).toEqual(["'***'"]);
  await column(
    "owner",
    "ALTER TABLE customers ALTER phone DROP DEFAULT, ALTER tier DROP DEFAULT; ALTER TABLE visits ALTER tier DROP DEFAULT",
  );
  expect(await column("guarded", sql)).toEqual(["12"]);
});

test("what the server says at a login reaches whom nothing is masked to, and nobody else", async () => {
  // Before 17 there are no triggers on logins.
  if (server.version >= 17)
    await server.query(
      `CREATE FUNCTION greet() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE WARNING 'hello'; END$$;
       CREATE EVENT TRIGGER greeting ON login EXECUTE FUNCTION greet();
       ALTER EVENT TRIGGER greeting ENABLE ALWAYS`,
      [],
      "everyday",
    );
  const told = async (user: string) => {
    const client = new pg.Client({
      ...{ host: gateway.host, port: gateway.port, user: "shop", database: "everyday" },
      ...{ password: await gateway.token({ user }), ssl: { ca: gateway.caPem } },
    });
    const notices: string[] = [];
    client.on("notice", ({ message }) => notices.push(message ?? ""));
    await client.connect();
    await client.query("SELECT 1");
    await client.end();
    return notices;
  };
  expect(await told("owner")).toEqual(server.version < 17 ? [] : ["hello"]);
  expect(await told("guarded")).toEqual([]);
});
