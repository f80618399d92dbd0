/**
 * A refusal is the server's own error in every respect but its text: whatever a client sends around it, in whatever
 * order, it sees the messages, transaction states and results that PostgreSQL alone would have given for an error there.
 */
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Shop, startShop } from "../targets/shop.ts";
import { bind, execute, frame, parse, query, type WireClient } from "../targets/wire-client.ts";

let shop: Shop;
/** Keeps the gateway's catalog in use, so that scripts of milliseconds do not open and close it. */
let keeper: WireClient;

beforeAll(async () => {
  shop = await startShop({
    initSql: `
      CREATE TABLE note_direct (n int, word text);
      CREATE TABLE note_gateway (n int, word text);
      CREATE TABLE payroll (n int);
      GRANT ALL ON note_direct, note_gateway TO direct;`,
    policies: `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: all}
spec:
  resources: {names: [shop]}
  subjects: [{user: "local:ann"}]
  profile: ReadWrite
  rules: [{name: payroll, match: {objects: ["public.payroll"]}, action: Deny}]
`,
  });
  keeper = await throughGateway();
});
afterAll(async () => {
  keeper?.close();
  await shop?.stop();
});

/** What differs between the two sides: the table written to, and what is refused (there: a name that is not). */
interface Side {
  readonly note: string;
  readonly refused: string;
}
const sides: Record<"direct" | "gateway", Side> = {
  direct: { note: "note_direct", refused: "no_such_table" },
  gateway: { note: "note_gateway", refused: "payroll" },
};

type Action = (side: Side) => Uint8Array[];
const simple =
  (sql: (side: Side) => string): Action =>
  (side) => [query(sql(side))];
const sync = frame("S");
const whole =
  (name: string, sql: (side: Side) => string): Action =>
  (side) => [parse(name, sql(side)), bind("", name), frame("D", "P\0"), execute("")];

const actions: Record<string, Action> = {
  begin: simple(() => "BEGIN"),
  commit: simple(() => "COMMIT"),
  rollback: simple(() => "ROLLBACK"),
  commitChain: simple(() => "COMMIT AND CHAIN"),
  savepoint: simple(() => "SAVEPOINT s"),
  rollbackTo: simple(() => "ROLLBACK TO s"),
  release: simple(() => "RELEASE s"),
  insert: simple(({ note }) => `INSERT INTO ${note} VALUES (1, 'simple')`),
  several: simple(({ note }) => `INSERT INTO ${note} VALUES (2, 'several'); SELECT 'several'`),
  select: simple(() => "SELECT generate_series(1, 3)"),
  empty: simple(() => " ; -- nothing"),
  syntaxError: simple(() => "SELEC 1"),
  divisionByZero: simple(() => "SELECT 1 / 0"),
  refused: simple(({ refused }) => `SELECT * FROM ${refused}`),
  refusedWrite: simple(({ refused }) => `DELETE FROM ${refused} WHERE n = 1`),
  parsedInsert: whole("", ({ note }) => `INSERT INTO ${note} VALUES (3, 'extended')`),
  parsedSelect: whole("", () => "SELECT generate_series(1, 3)"),
  parsedBegin: whole("", () => "BEGIN"),
  parsedCommit: whole("", () => "COMMIT"),
  parsedRefused: whole("", ({ refused }) => `SELECT * FROM ${refused}`),
  refusedDrop: simple(({ refused }) => `DROP TABLE ${refused}`),
  parsedRefusedDrop: whole("", ({ refused }) => `DROP TABLE ${refused}`),
  parsedRefusedCopy: whole("", ({ refused }) => `COPY ${refused} FROM STDIN`),
  namedRefusedDrop: whole("one", ({ refused }) => `ALTER TABLE ${refused} ADD COLUMN b int`),
  parsedFailure: whole("", () => "SELECT 1 / 0"),
  named: whole("one", () => "SELECT 'named'"),
  namedRefused: whole("one", ({ refused }) => `SELECT * FROM ${refused}`),
  again: () => [bind("", "one"), execute("")],
  closeNamed: () => [frame("C", "Sone\0")],
  describeNamed: () => [frame("D", "Sone\0")],
  portal: () => [parse("", "SELECT generate_series(1, 5)"), bind("p", ""), execute("p", 2), execute("p", 2)],
  continuePortal: () => [execute("p", 2)],
  flush: () => [frame("H")],
  sync: () => [sync],
  syncTwice: () => [sync, sync],
  copyIn: ({ note }) => [query(`COPY ${note} FROM STDIN`), frame("d", "4\tcopied\n"), frame("c")],
  copyFail: ({ note }) => [
    query(`COPY ${note} FROM STDIN`),
    frame("d", "5\tcopied\n"),
    frame("f", "enough\0"),
  ],
  copyGarbage: ({ note }) => [
    query(`COPY ${note} FROM STDIN`),
    frame("d", "x\ty\n"),
    frame("d", "6\tz\n"),
    frame("c"),
  ],
};

/** All in one flight, as a pipelining client would; then a marker that says that everything is answered. */
async function play(client: WireClient, names: readonly string[], side: Side): Promise<string[]> {
  const messages = names.flatMap((name) => actions[name]?.(side) ?? []);
  client.send(...messages, sync, query("ROLLBACK"), query("SELECT 'marker'"));
  const seen: string[] = [];
  for (;;) {
    const message = await client.message();
    if (message === undefined) return [...seen, "closed"];
    const { type, body, fields } = message;
    if (type === "S") continue;
    if (type === "E" || type === "N") seen.push(`${type} ${fields.S} ${codeOf(fields.C)}`);
    else if (type === "T") seen.push(`T ${body.readInt16BE(0)}`);
    else if (type === "C" || type === "D" || type === "Z") seen.push(`${type} ${body.toString("latin1")}`);
    else seen.push(type);
    if (type === "Z" && seen.at(-3)?.includes("marker")) return seen;
  }
}

const throughGateway = () => shop.logIn({ user: "ann" });

const codeOf = (code = "") => (code === "42P01" || code === "42501" ? "refused" : code);

async function bothPlay(names: readonly string[]): Promise<{ direct: string[]; gateway: string[] }> {
  await shop.server.query("TRUNCATE note_direct, note_gateway");
  const [direct, through] = await Promise.all([shop.logInDirect(), throughGateway()]);
  try {
    const seen = await Promise.all([play(direct, names, sides.direct), play(through, names, sides.gateway)]);
    const kept = async (table: string) =>
      (await shop.server.query(`SELECT n, word FROM ${table} ORDER BY n`)).map(
        (row) => `kept ${row.n} ${row.word}`,
      );
    return {
      direct: [...seen[0], ...(await kept("note_direct"))],
      gateway: [...seen[1], ...(await kept("note_gateway"))],
    };
  } finally {
    direct.close();
    through.close();
  }
}

const known: Record<string, readonly string[]> = {
  "a refusal alone": ["refused"],
  "a refusal undoes what stands before it in the same implicit transaction": [
    "parsedInsert",
    "parsedRefused",
    "sync",
  ],
  "what stands behind a refusal is skipped until Sync": [
    "parsedRefused",
    "parsedInsert",
    "sync",
    "parsedInsert",
  ],
  "a refusal aborts the transaction, and COMMIT answers ROLLBACK": [
    "begin",
    "insert",
    "refused",
    "insert",
    "commit",
  ],
  "a savepoint survives": ["begin", "insert", "savepoint", "refused", "rollbackTo", "insert", "commit"],
  "a refusal with a Flush is answered at once": ["parsedRefused", "flush", "sync"],
  "a refused name is free again": ["namedRefused", "sync", "named", "sync", "again"],
  "a portal dies with the transaction that a refusal ends": [
    "portal",
    "parsedRefused",
    "sync",
    "continuePortal",
  ],
  "a copy behind a refusal is not taken for one": ["begin", "refused", "copyIn", "commit"],
  "a refused utility statement is prepared and bound, and fails when it runs": [
    "parsedRefusedDrop",
    "flush",
    "sync",
  ],
  "a refused utility statement undoes what stands before it": [
    "parsedInsert",
    "parsedRefusedDrop",
    "parsedInsert",
    "sync",
  ],
  "a refused utility statement keeps its name": [
    "namedRefusedDrop",
    "sync",
    "describeNamed",
    "again",
    "sync",
    "named",
    "sync",
    "closeNamed",
    "named",
    "sync",
  ],
  "a refused COPY of the extended protocol takes no data": [
    "parsedRefusedCopy",
    "sync",
    "parsedInsert",
    "sync",
  ],
  "a refused utility statement in a failed transaction": [
    "begin",
    "refused",
    "parsedRefusedDrop",
    "sync",
    "commit",
  ],
  "a refusal between two flights": ["parsedInsert", "sync", "parsedRefused", "sync", "parsedInsert", "sync"],
};
for (const [what, names] of Object.entries(known)) {
  test(`${what}, as an error of PostgreSQL's own`, async () => {
    const { direct, gateway: through } = await bothPlay(names);
    expect(through).toEqual(direct);
  });
}

test("whatever surrounds a refusal is answered as PostgreSQL alone answers it", async () => {
  const script = fc.array(fc.constantFrom(...Object.keys(actions)), { minLength: 1, maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(script, async (names) => {
      const { direct, gateway: through } = await bothPlay(names);
      expect(through).toEqual(direct);
    }),
    { numRuns: 100, includeErrorInReport: true },
  );
}, 120_000);
