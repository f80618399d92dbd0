/**
 * Promise: who approves a statement is shown what it runs, and nothing else runs on that: not where prepared statements stand
 * behind it, nor where a plan of before keeps to what a name meant.
 */
import { execFile } from "node:child_process";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { sallyportCommand } from "../targets/gateway.ts";
import { type Shop, startShop } from "../targets/shop.ts";
import {
  bind,
  execute,
  frame,
  parse,
  query,
  type ServerMessage,
  type WireClient,
} from "../targets/wire-client.ts";

const policies = `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: dev}
spec:
  resources: {names: [shop]}
  subjects: [{group: "local:dev"}]
  profile: Admin
  rules:
    - name: notes
      match: {operations: [write], objects: ["public.note"]}
      action: RequireApproval
      approval: {required: 1, timeout: 60s}
`;
const sync = frame("S");

let shop: Shop;
let wire: WireClient;

beforeAll(async () => {
  shop = await startShop({
    initSql: `CREATE TABLE note (n int);
      CREATE FUNCTION add_note() RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO note VALUES (7); END';`,
    policies,
    args: ["--approvers", "local:leads"],
  });
});
beforeEach(async () => {
  await shop.server.query("TRUNCATE note");
  wire = await shop.gateway.connectWire({ user: "dora", groups: ["dev"] });
  return () => wire.close();
});
afterAll(() => shop?.stop());

const count = async () => (await shop.server.query("SELECT count(*)::int AS n FROM note"))[0]?.n;

/** Runs the command line as an approver. */
async function sallyport(...args: readonly string[]): Promise<string> {
  const argv = [...sallyportCommand, ...args, "--state", dirname(shop.gateway.recordingDir)];
  const env = {
    PATH: process.env.PATH,
    SALLYPORT_TOKEN: shop.gateway.issuer.token({ user: "lea", groups: ["leads"] }),
  };
  return (await promisify(execFile)(process.execPath, argv, { timeout: 60_000, env })).stdout;
}

const denied = (name: string) => sallyport("deny", name, "--reason", "no");

async function answered(...frames: readonly Uint8Array[]): Promise<string> {
  wire.send(...frames);
  return typesOf(await wire.until("Z"));
}

const typesOf = (messages: readonly ServerMessage[]) => messages.map(({ type }) => type).join("");

/** The request that the session is told of next; fails where what was sent is answered instead. */
async function held(...frames: readonly Uint8Array[]): Promise<string> {
  wire.send(...frames);
  for (;;) {
    const message = await wire.message();
    expect(message?.type).not.toBe("Z");
    const name = message?.type === "N" ? /approval (\S+):/.exec(message.fields.M ?? "")?.[1] : undefined;
    if (name !== undefined) return name;
  }
}

test.each([
  ["EXECUTE/**/hidden"],
  ["EXECUTE /* execute shown */ hidden"],
  ['EXECUTE U&"hid\\0064en"'],
  ["EXPLAIN ANALYZE EXECUTE\u000bhidden"],
  ["EXECUTE indirect"],
  ["DEALLOCATE shown; PREPARE shown AS SELECT 1; EXECUTE shown; EXECUTE hidden"],
])("approvers read what EXECUTE would run, however it is named: %s", async (sql) => {
  const prepared = { hidden: "INSERT INTO note VALUES (5)", shown: "SELECT 0", indirect: "EXECUTE hidden" };
  await answered(...Object.entries(prepared).map(([name, text]) => parse(name, text)), sync);
  const name = await held(query(sql));
  const shown = await sallyport("approvals", name);
  expect(shown).toContain("-- hidden is: INSERT INTO note VALUES (5)");
  expect(shown).not.toContain("shown is:");
  await denied(name);
  await wire.until("Z");
  expect(await count()).toBe(0);
});

test("a prepared statement is held for what its name meant when it was prepared, though that is hidden since", async () => {
  await answered(query("CREATE TEMP TABLE aside (n int)"));
  await answered(parse("p", "INSERT INTO note VALUES (1)"), sync);
  await answered(query("CREATE TEMP TABLE note (n int)"));
  await denied(await held(bind("", "p"), execute(), sync));
  expect(typesOf(await wire.until("Z"))).toBe("EZ");
  await sallyport("approve", await held(query("EXECUTE p")));
  expect(typesOf(await wire.until("Z"))).toBe("CZ");
  // The server has kept to it.
  expect(await count()).toBe(1);
  // This it plans anew, and nobody is asked.
  expect(await answered(query("INSERT INTO note VALUES (2)"))).toBe("CZ");
  expect(await answered(parse("", "INSERT INTO note VALUES (3)"), bind("", ""), execute(), sync)).toBe(
    "12CZ",
  );
  expect(await count()).toBe(1);
});

test("one approval of a function is no leave for what the plans inside it keep to", async () => {
  await answered(query("CREATE TEMP TABLE aside (n int)"));
  await sallyport("approve", await held(query("SELECT add_note()")));
  await wire.until("Z");
  await answered(query("CREATE TEMP TABLE note (n int)"));
  await denied(await held(query("SELECT add_note()")));
  expect(typesOf(await wire.until("Z"))).toBe("EZ");
  expect(await count()).toBe(1);
});
