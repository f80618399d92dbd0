/**
 * Whatever a client sends through a gateway that allows everything, it gets the bytes that PostgreSQL alone would have
 * sent, and the same rows are kept. Where policy refuses, everything around is as if the server had raised the error:
 * the server alone gets, in place of what is refused, a statement that it answers with 42501 itself.
 *
 * Not compared: cancel keys and process ids, the source position inside an error (F, L, R), the wording of 42883 and
 * of refusals, application_name, and the oids of tables that a sequence itself makes. Connections serve one sequence
 * after another, as those of a pool do.
 *
 * SALLYPORT_SEQUENCES sets how many are played (2,000 in CI), SALLYPORT_SEED which ones (`random`: new ones), SALLYPORT_PATH and
 * SALLYPORT_LANE play the one that a failure names.
 */
import { randomInt } from "node:crypto";
import fc from "fast-check";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import {
  cancelRequest,
  frame,
  keyOf,
  query,
  type ServerMessage,
  startup,
  WireClient,
} from "../targets/wire-client.ts";
import {
  anyCopySequence,
  anyRefusedCopySequence,
  anyRefusedSequence,
  anySequence,
  refusedMark,
  type Sequence,
  simple,
} from "./message-sequences.ts";

const sequences = Number(process.env.SALLYPORT_SEQUENCES ?? (process.env.CI ? 2_000 : 500));
/** Long runs are asked for; an everyday one that takes longer than this hangs. */
const playMs = sequences > 2_000 ? 36_000_000 : 300_000;
/** The path that a failure's report gives: plays that sequence alone. */
const path = process.env.SALLYPORT_PATH;
// One seed for everyday runs, so that a red run means a change; `random` looks for what nobody has seen yet.
const chosen = process.env.SALLYPORT_SEED ?? "480040394";
const seed = chosen === "random" ? randomInt(0x7fffffff) : Number(chosen);
/** Pairs of databases side by side, so that one's wait for the network is another's time to work. */
const lanes = ["0", "1", "2"].filter((lane) => lane === (process.env.SALLYPORT_LANE ?? lane));

let server: PostgresServer;
let gateway: Gateway;
/** Tables above this were made by a sequence; their oids differ between the two databases. */
let lastSharedOid: number;
const opened: Pair[] = [];

const sides = ["direct", "through"] as const;
type Side = (typeof sides)[number];
type User = "ann" | "bob";

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    database: "shared",
    hba: [`hostssl ${lanes.map((lane) => `direct${lane}`).join()} same 127.0.0.1/32 password`],
    settings: { autovacuum: "off", max_prepared_transactions: 0 },
    initSql: `
      CREATE ROLE same LOGIN PASSWORD 'same';
      GRANT ALL ON SCHEMA public TO same;
      CREATE SCHEMA other AUTHORIZATION same;
      CREATE SCHEMA closed;
      SET ROLE same;
      CREATE TABLE note (n int PRIMARY KEY, word text NOT NULL, at numeric(8,2) DEFAULT 1.5);
      CREATE TABLE other.note (n int PRIMARY KEY, label varchar(10));
      INSERT INTO other.note VALUES (1, 'other');
      CREATE TABLE wide (i int8, f float8, b bool, d date, j jsonb, a int[], y bytea, u uuid, t timestamptz, c char(3));
      INSERT INTO wide VALUES
        (1, 0.1, true, '2020-02-29', '{"k": [1]}', '{1,2}', '\\x00ff', '00000000-0000-0000-0000-000000000001',
         '2020-01-01 00:00+00', 'ab'), (NULL, 'NaN', NULL, 'infinity', NULL, '{}', '', NULL, NULL, '');
      CREATE VIEW seen AS SELECT n, upper(word) AS loud FROM note;
      CREATE FUNCTION noisy(text) RETURNS text LANGUAGE plpgsql AS
        $$BEGIN RAISE NOTICE 'heard %', $1 USING HINT = 'quiet'; RETURN $1; END$$;
      CREATE FUNCTION failing(int) RETURNS int LANGUAGE plpgsql AS
        $$BEGIN RAISE EXCEPTION 'no %', $1 USING ERRCODE = 'XY123', DETAIL = 'why', HINT = 'how'; END$$;
      CREATE PROCEDURE filing(int) LANGUAGE sql AS $$INSERT INTO note VALUES ($1, 'filed')$$;`,
  });
  const [row] = await server.query("SELECT max(oid)::int AS oid FROM pg_class");
  lastSharedOid = Number(row?.oid);
  for (const side of sides) {
    for (const lane of lanes)
      await server.query(`CREATE DATABASE ${side}${lane} TEMPLATE shared`, [], "postgres");
  }
  gateway = await startGateway({
    server,
    account: { username: "same", password: "same" },
    policies: `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: all}
spec: {resources: {names: [shop]}, subjects: [{user: "local:ann"}, {user: "local:bob"}], profile: Admin}
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: bob}
spec:
  resources: {names: [shop]}
  subjects: [{user: "local:bob"}]
  rules: [{name: marked, match: {cel: 'command.text.startsWith("${refusedMark}")'}, action: Deny}]
`,
  });
});
afterAll(async () => {
  await Promise.all(opened.map((pair) => pair.close()));
  await gateway?.stop();
  await server?.stop();
});

// ------------------------------------------------------------------------------------------------ how it is answered

/** One connection to the server and one through the gateway, each to a database of its own that hold the same. */
class Pair {
  private readonly lane: string;
  private readonly user: User;
  private readonly clients: Partial<Record<Side, WireClient>> = {};
  private readonly keys: Partial<Record<Side, Buffer>> = {};
  private readonly keepers: Partial<Record<Side, pg.Client>> = {};

  constructor(lane: string, user: User) {
    this.lane = lane;
    this.user = user;
    opened.push(this);
  }

  /** Plays a sequence on both sides and says how the answers differ, if they do. */
  async difference(sequence: Sequence): Promise<string | undefined> {
    const { direct, through } = await this.play(sequence);
    const at = direct.findIndex((text, index) => text !== through[index]);
    if (at < 0 && through.length === direct.length) return undefined;
    // The next one must not inherit what went wrong here.
    this.leave();
    const place = at < 0 ? direct.length : at;
    const script = sequence.actions.map(({ name }) => `  ${name}`).join("\n");
    const [wanted, got] = [direct, through].map((seen) => seen.slice(place, place + 3).join("\n    "));
    return `answers differ\n${script}\n  direct:\n    ${wanted}\n  through:\n    ${got}`;
  }

  async play(sequence: Sequence): Promise<Record<Side, string[]>> {
    const [direct, through] = await Promise.all(sides.map((side) => this.playOn(side, sequence)));
    return { direct: direct ?? [], through: through ?? [] };
  }

  async close(): Promise<void> {
    this.leave();
    await Promise.all(Object.values(this.keepers).map((keeper) => keeper.end()));
  }

  private leave(): void {
    for (const side of sides) {
      this.clients[side]?.close();
      delete this.clients[side];
    }
  }

  private async playOn(side: Side, sequence: Sequence): Promise<string[]> {
    const seen: string[] = [];
    let client = this.clients[side];
    if (client === undefined) {
      const fresh = await this.open(side);
      client = fresh.client;
      this.clients[side] = client;
      this.keys[side] = keyOf(fresh.greeting);
      seen.push(...fresh.greeting.map(shown).filter((text) => text !== ""));
    }
    seen.push(...(await this.send(client, side, sequence)));
    if (seen.at(-1) === "closed") delete this.clients[side];
    return [...seen, ...(await this.kept(side))];
  }

  private async send(client: WireClient, side: Side, sequence: Sequence): Promise<string[]> {
    const bytes = Buffer.concat([
      ...sequence.actions.flatMap(({ bytes, direct }) => (side === "direct" ? (direct ?? bytes) : bytes)),
      ...[frame("S"), query("ROLLBACK")],
    ]);
    let from = 0;
    for (const cut of [...sequence.cuts].sort((a, b) => a - b)) {
      const to = Math.floor(cut * bytes.length);
      client.send(bytes.subarray(from, to));
      from = to;
      await new Promise((resolve) => setImmediate(resolve));
    }
    client.send(bytes.subarray(from), query("SELECT 'marker one'"));
    const seen = await answers(client, "marker one");
    if (!sequence.isCancelled || seen.at(-1) === "closed") return [...seen, ...(await this.forget(client))];
    await this.cancel(client, side);
    client.send(query("SELECT 'marker two'"));
    return [...seen, ...(await answers(client, "marker two")), ...(await this.forget(client))];
  }

  /** What a pool sends before it hands the connection to somebody else. */
  private async forget(client: WireClient): Promise<string[]> {
    client.send(query("DISCARD ALL"), query("SELECT 'marker three'"));
    return answers(client, "marker three");
  }

  private async cancel(client: WireClient, side: Side): Promise<void> {
    client.send(query("SELECT 'before'; SELECT pg_sleep(60)"));
    const keeper = await this.keeper(side);
    const sleeping =
      "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep' AND state = 'active'";
    await expect
      .poll(async () => (await keeper.query(sleeping)).rowCount, { timeout: 40_000, interval: 10 })
      .toBe(1);
    const canceller = await WireClient.connect(side === "direct" ? server.port : gateway.port);
    canceller.send(cancelRequest(this.keys[side] ?? Buffer.alloc(8)));
    await canceller.untilClosed();
  }

  /** What the sequence has left in the database, which is put back to where it began. */
  private async kept(side: Side): Promise<string[]> {
    const keeper = await this.keeper(side);
    const results: unknown = await keeper.query(`
      SELECT to_jsonb(note) AS row FROM public.note ORDER BY n;
      SELECT to_regclass('public.made') IS NOT NULL AS row;
      SELECT to_regclass('public.made') IS NOT NULL OR pg_relation_size('public.note') > 0 AS row`);
    const rows = (results as pg.QueryResult[]).map((result) =>
      result.rows.map(({ row }) => JSON.stringify(row)),
    );
    // Without a byte in it, what a rollback left included, it is as it began: a TRUNCATE changes the catalog, and the
    // gateway reads that anew.
    if (rows.pop()?.includes("true"))
      await keeper.query("TRUNCATE public.note; DROP TABLE IF EXISTS public.made");
    return rows.flat();
  }

  private async keeper(side: Side): Promise<pg.Client> {
    const found = this.keepers[side];
    if (found !== undefined) return found;
    const { host, port, superuser: user, password, caPem: ca } = server;
    const made = new pg.Client({
      ...{ host, port, user, password, ssl: { ca } },
      database: `${side}${this.lane}`,
    });
    this.keepers[side] = made;
    // What breaks it is told by the query that meets it; without a listener it would end the process.
    made.on("error", () => undefined);
    await made.connect();
    return made;
  }

  private async open(side: Side): Promise<{ client: WireClient; greeting: ServerMessage[] }> {
    const isDirect = side === "direct";
    const client = await WireClient.connect(isDirect ? server.port : gateway.port);
    await client.startTls(isDirect ? server.caPem : gateway.caPem);
    client.send(startup({ user: isDirect ? "same" : "shop", database: `${side}${this.lane}` }));
    await client.until("R");
    client.send(frame("p", `${isDirect ? "same" : gateway.issuer.token({ user: this.user })}\0`));
    return { client, greeting: await client.until("Z") };
  }
}

async function answers(client: WireClient, marker: string): Promise<string[]> {
  const seen: string[] = [];
  for (let isLast = false; ; ) {
    const message = await client.message();
    if (message === undefined) return [...seen, "closed"];
    const text = shown(message);
    if (text !== "") seen.push(text);
    isLast ||= message.type === "D" && message.body.includes(marker);
    if (isLast && message.type === "Z") return seen;
  }
}

/** A message byte by byte, but for what the file's head says is not compared. */
function shown({ type, body, fields }: ServerMessage): string {
  if (type === "K") return `K ${body.length}`;
  if (type === "S" && body.toString("utf8").startsWith("application_name\0")) return "";
  if (type === "A") return `A ${body.subarray(4).toString("latin1")}`;
  if (type === "E" || type === "N") {
    const { F: _file, L: _line, R: _routine, ...compared } = fields;
    const letters = Object.keys(compared).filter((letter) => !wordedByGateway(compared.C, letter));
    return `${type} ${JSON.stringify(compared, letters.sort())}`;
  }
  if (type === "T") return `T ${rowDescription(body).toString("latin1")}`;
  return `${type} ${body.toString("latin1")}`;
}

/** The gateway tells that a function is not there by its name alone, and words a refusal itself. */
const wordedByGateway = (code: string | undefined, letter: string) =>
  (code === "42883" && (letter === "M" || letter === "H")) || (code === "42501" && "MHP".includes(letter));

function rowDescription(body: Buffer): Buffer {
  const copy = Buffer.from(body);
  for (let at = 2; at < copy.length; ) {
    at = copy.indexOf(0, at) + 1;
    if (copy.readUInt32BE(at) > lastSharedOid) copy.writeUInt32BE(0xffffffff, at);
    at += 18;
  }
  return copy;
}

// ------------------------------------------------------------------------------------------------ the promises

/** Rejects where a sequence takes longer than any could, so that one that hangs is reported and not waited for. */
async function bounded<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("a sequence did not end within 60 s")), 60_000);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** What the server has said about processes of its own that ended by a signal. */
function crashes(): string {
  const lines = server.logs().split("\n");
  const told = lines.filter((line) => /terminated by signal|Failed process was running/.test(line));
  return told.map((line) => `\n  server: ${line}`).join("");
}

async function playAll(count: number, what: string, any: fc.Arbitrary<Sequence>, user: User): Promise<void> {
  const startedMs = performance.now();
  /** A server that ended, or a sequence that did not: nothing smaller can be looked for. */
  let broken: Error | undefined;
  const runs = async (lane: string) => {
    const pair = new Pair(lane, user);
    const property = fc.asyncProperty(any, async (sequence) => {
      if (broken !== undefined) throw broken;
      const difference = await bounded(pair.difference(sequence)).catch((error: unknown) => {
        const script = sequence.actions.map(({ name }) => `  ${name}`).join("\n");
        broken ??= new Error(`${String(error)}\n${script}${crashes()}`, { cause: error });
        throw broken;
      });
      if (difference !== undefined) throw new Error(`${difference}\n  SALLYPORT_LANE=${lane}`);
    });
    const numRuns = Math.ceil(count / lanes.length);
    const replay = path === undefined ? {} : { path };
    await fc.assert(property, { numRuns, seed: seed + Number(lane), includeErrorInReport: true, ...replay });
  };
  // All lanes must be done before the next test uses their databases.
  const failed = (await Promise.allSettled(lanes.map(runs))).find(({ status }) => status === "rejected");
  const seconds = ((performance.now() - startedMs) / 1_000).toFixed(1);
  process.stdout.write(`differential: ${count} ${what} in ${seconds} s, SALLYPORT_SEED=${seed}\n`);
  if (failed?.status === "rejected") throw failed.reason;
}

test(
  "every generated sequence of messages is answered as PostgreSQL alone answers it",
  async () => {
    await playAll(Math.ceil(sequences * 0.65), "sequences", anySequence, "ann");
  },
  playMs,
);

test(
  "C18: data of COPY with Sync and Flush in every place, failing or not, is answered as PostgreSQL alone answers it",
  async () => {
    await playAll(Math.ceil(sequences * 0.1), "sequences with copies", anyCopySequence, "ann");
    await playAll(Math.ceil(sequences * 0.05), "copies with refusals", anyRefusedCopySequence, "bob");
  },
  playMs,
);

test(
  "what surrounds a refusal is answered as if PostgreSQL had raised the error itself",
  async () => {
    await playAll(Math.ceil(sequences * 0.2), "sequences with refusals", anyRefusedSequence, "bob");
  },
  playMs,
);

test("a cancelled statement is answered as PostgreSQL alone answers it, and the session goes on", async () => {
  const sequence = { actions: [simple("BEGIN")], cuts: [], isCancelled: true };
  const { direct, through } = await new Pair(lanes[0] ?? "0", "ann").play(sequence);
  expect(through).toEqual(direct);
  expect(through.join()).toContain("57014");
});
