/**
 * Promise: who approves a statement is shown what it runs, and nothing else runs on that: not where prepared statements stand
 * behind it, nor where a plan of before keeps to what a name meant, nor where settings decide what its text means.
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
  WireClient,
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
      match: {operations: [write], objects: ["public.note", "*.orders"]}
      action: RequireApproval
      approval: {required: 1, timeout: 60s}
`;
const sync = frame("S");

let shop: Shop;
let wire: WireClient;

beforeAll(async () => {
  shop = await startShop({
    initSql: `CREATE TABLE note (n int);
      CREATE SCHEMA archive;
      CREATE TABLE archive.orders (id int, day date);
      CREATE TABLE orders (id int, day date);
      CREATE ROLE clerk SUPERUSER;
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
    expect(message?.type).toMatch(/[^Z]/);
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

/** What approvers are shown of the request that the session is told of next, which is denied then. */
async function shownOf(...frames: readonly Uint8Array[]): Promise<string> {
  const name = await held(...frames);
  const shown = await sallyport("approvals", name);
  await denied(name);
  await wire.until("Z");
  return shown;
}

const deletes = "DELETE FROM orders WHERE id = 7";
const ages = "DELETE FROM orders WHERE day < '01/02/2026'";

test("approvers are shown which table a name means, however the path was set", async () => {
  const before = await shownOf(query(deletes));
  expect(before).toMatch(/^Touches +DELETE: public\.orders$/m);
  expect(before).toMatch(/^Session +schemas .*\bpublic; DateStyle ISO, MDY; .*TimeZone /m);
  await answered(query("SET search_path = archive"));
  const after = await shownOf(query(deletes));
  expect(after).toMatch(/^Touches +DELETE: archive\.orders$/m);
  expect(after).toMatch(/^Session +schemas .*\barchive; DateStyle /m);
  await answered(query("SET search_path = public"));
  // In the middle of a pipeline.
  const inPipeline = [parse("", "SET search_path = archive"), bind("", ""), execute()];
  const shown = await shownOf(...inPipeline, parse("", deletes), bind("", ""), execute(), sync);
  expect(shown).toMatch(/^Touches +DELETE: archive\.orders$/m);
});

test("approvers are shown that a write has no bound", async () => {
  expect(await shownOf(query("DELETE FROM orders"))).toMatch(
    /^Touches +DELETE: public\.orders \(all rows\)$/m,
  );
});

test("approvers are shown how dates are read, at start-up, later, and in a pipeline", async () => {
  await answered(query("SET DateStyle = 'SQL, DMY'"));
  expect(await shownOf(query(ages))).toMatch(/^Session .*DateStyle SQL, DMY;/m);
  await answered(query("RESET DateStyle"));
  expect(await shownOf(query(ages))).toMatch(/^Session .*DateStyle ISO, MDY;/m);
  // The server reports it at the next Sync alone.
  const inPipeline = [parse("", "SET DateStyle = DMY"), bind("", ""), execute()];
  const shown = await shownOf(...inPipeline, parse("", ages), bind("", ""), execute(), sync);
  expect(shown).toMatch(/^Session .*DateStyle ISO, MDY;.*before this pipeline/m);
  wire.close();
  const options = "-c datestyle=SQL,DMY -c row_security=off";
  const { port, caPem: ca, issuer } = shop.gateway;
  const password = issuer.token({ user: "dora", groups: ["dev"] });
  wire = await WireClient.logIn({ port, ca, user: "shop", database: "shop", password, options });
  const atStart = await shownOf(query(ages));
  expect(atStart).toMatch(/^Session .*DateStyle SQL, DMY;/m);
  expect(atStart).toMatch(/^Also set +row_security$/m);
});

test("approvers are shown by which settings a prepared statement was read, where these are others since", async () => {
  await answered(query("SET DateStyle = 'ISO, DMY'"));
  await answered(parse("aged", ages), sync);
  const others = `SET DateStyle = 'ISO, MDY'; PREPARE unsure AS ${ages}; SET DateStyle = 'ISO, DMY'`;
  for (const text of [`PREPARE alike AS ${ages}`, others]) {
    await sallyport("approve", await held(query(text)));
    expect(typesOf(await wire.until("Z"))).not.toContain("E");
  }
  expect(await shownOf(bind("", "aged"), execute(), sync)).not.toMatch(/^Prepared/m);
  await answered(query("RESET DateStyle"));
  for (const frames of [
    [bind("", "aged"), execute(), sync],
    [query("EXECUTE aged")],
    [query("EXECUTE alike")],
  ])
    expect(await shownOf(...frames)).toMatch(/^Prepared +.*DateStyle ISO, DMY;/m);
  expect(await shownOf(query("EXECUTE unsure"))).toMatch(/^Prepared +.*not known/m);
});

test("approvers are shown that another role runs it, and which other settings were touched, without their values", async () => {
  await answered(query("SET ROLE clerk"));
  await answered(query("SET statement_timeout = 4321; SET app.key = 'k-secret'"));
  const shown = await shownOf(query(deletes));
  expect(shown).toMatch(/^Session .*; role perhaps clerk/m);
  expect(shown).toMatch(/^Also set +app\.key, statement_timeout$/m);
  expect(shown).not.toContain("k-secret");
});

test("approvers can tell a parameter's text from NULL and from bytes", async () => {
  const written = parse("", "INSERT INTO note SELECT length($1::text || $2 || $3 || $4)");
  const values = ["NULL", "base64:AA==", "'NULL'", "plain"];
  const shown = await shownOf(written, bind("", "", ...values), execute(), sync);
  expect(shown).toMatch(/^\$1 +'NULL'\n\$2 +'base64:AA=='\n\$3 +''NULL''\n\$4 +plain$/m);
});

test("what was approved does not run once something else has run between its Bind and its Execute", async () => {
  await shop.server.query("INSERT INTO orders VALUES (1, '2026-01-15')");
  const between = [parse("set", "SET DateStyle = DMY"), bind("set", "set"), execute("set")];
  const late = "DELETE FROM orders WHERE day < $1::text::date";
  const name = await held(
    ...[parse("", late), bind("kept", "", "01/02/2026"), ...between, execute("kept"), sync],
  );
  await sallyport("approve", name);
  const answers = await wire.until("Z");
  expect(answers.find(({ type }) => type === "E")?.fields.C).toBe("0A000");
  expect(await shop.server.query("SELECT count(*)::int AS n FROM orders")).toEqual([{ n: 1 }]);
  await answered(query("BEGIN"));
  await sallyport("approve", await held(parse("", late), bind("kept", "", "01/02/2026"), sync));
  await wire.until("Z");
  await answered(query("SET DateStyle = DMY"));
  // The server reports in passing that the setting has gone back.
  expect(await answered(execute("kept"), sync)).toMatch(/^ES*Z$/);
  await answered(query("ROLLBACK"));
  expect(await shop.server.query("SELECT count(*)::int AS n FROM orders")).toEqual([{ n: 1 }]);
  // One portal may be executed again and again.
  const again = [execute("kept", 1), execute("kept", 1), sync];
  await sallyport(
    "approve",
    await held(parse("", `${late} RETURNING id`), bind("kept", "", "01/02/2027"), ...again),
  );
  expect(typesOf(await wire.until("Z"))).not.toContain("E");
  expect(await shop.server.query("SELECT count(*)::int AS n FROM orders")).toEqual([{ n: 0 }]);
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
