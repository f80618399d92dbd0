/** What masks cost: results and COPY beside direct access, patterns and lineage by themselves. */
import { randomInt } from "node:crypto";
import type { TLSSocket } from "node:tls";
import {
  analyseSql,
  CustomPattern,
  loadSqlParser,
  MaskedColumnSet,
  PatternScanner,
  patternNames,
  SessionMasking,
  staticNames,
  warmSqlAnalysis,
} from "@sallyport/policy";
import { keepParserAsCompiled } from "@sallyport/sidecar/parser-memory";
import pg from "pg";
import { startGateway } from "../targets/gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import type { PostgresServer } from "../targets/postgres.ts";
import { frame, int32s, query } from "../targets/wire-client.ts";
import { bundle } from "./bundle.ts";
import { median } from "./pgbench.ts";
import { mainThreadMicroseconds, ownMicroseconds } from "./process-cost.ts";
import type { Row } from "./report.ts";

const rowsAsked = 5_000;
const copyRows = 1_000_000;

const policy = (user: string, masks: string) => policyDocument("shop", user, `  profile: Admin\n${masks}`);

/** Results and COPY with masks against direct access, and a result without a masked column against no masks. */
export async function masked(server: PostgresServer, rounds: number): Promise<Row[]> {
  await server.query(`CREATE UNLOGGED TABLE IF NOT EXISTS people AS SELECT n AS id, 'Name of ' || n AS name,
    'mail' || n || '@example.com' AS email, n % 100 AS score, repeat('x', 60) AS note FROM generate_series(1, ${copyRows}) n`);
  await server.query("ALTER TABLE people ADD PRIMARY KEY (id)").catch(() => undefined);
  await server.query("ANALYZE people");
  const gateway = await startGateway({
    server,
    program: bundle.program,
    resource: {
      tls: { upstream: { mode: "disable" } },
      recording: { mode: "Required", durability: "Accepted", content: ["commands"] },
    },
    policies: [
      policy("plain", ""),
      policy("masked", "  masking: [{columns: [public.people.email, public.people.score], with: Redact}]"),
    ].join(""),
    args: ["--log-level", "warn"],
  });
  try {
    const direct = await connected(server.port, server.caPem, {
      user: server.superuser,
      password: server.password,
      database: server.database,
    });
    const as = async (user: string) =>
      connected(gateway.port, gateway.caPem, {
        user: gateway.user,
        password: await gateway.token({ user, lifetimeSeconds: 3600 }),
        database: server.database,
      });
    const [plain, hidden] = [await as("plain"), await as("masked")];
    const judged = await longQueries(hidden, gateway.pid);
    const all = `SELECT id, name, email, score, note FROM people WHERE id <= ${rowsAsked}`;
    const clear = `SELECT id, name, note FROM people WHERE id <= ${rowsAsked}`;
    const extended = (sql: string) =>
      Buffer.concat([
        frame("P", `\0${sql}\0`, Buffer.alloc(2)),
        frame("B", "\0\0", Buffer.from([0, 0, 0, 0, 0, 1, 0, 1])),
        ...[frame("D", "P\0"), frame("E", "\0", int32s(0)), frame("S")],
      ]);
    const copy = query("COPY people (id, name, email, note) TO STDOUT");
    const rows: Row[] = [];
    const compare = async (
      work: string,
      message: Buffer,
      { against, ours, times, atLeast }: { against: Wire; ours: Wire; times: number; atLeast?: number },
    ) => {
      const measured: { ours: number[]; theirs: number[] } = { ours: [], theirs: [] };
      for (let round = 0; round < rounds + 1; round += 1) {
        const sides = round % 2 === 0 ? (["ours", "theirs"] as const) : (["theirs", "ours"] as const);
        for (const side of sides) {
          const ms = await timed(side === "ours" ? ours : against, message, times);
          // The first round warms both up.
          if (round > 0) measured[side].push(ms);
        }
      }
      const [mine, theirs] = [median(measured.ours), median(measured.theirs)];
      rows.push({
        work,
        against: "direct",
        ratio: theirs / mine,
        ...(atLeast === undefined ? {} : { atLeast }),
        detail: `${mine.toFixed(2)} to ${theirs.toFixed(2)} ms`,
      });
    };
    const toDirect = { against: direct, ours: hidden, times: 20 };
    const name = "SELECT of 5,000 rows, two masked columns";
    await compare(`${name}, text, TLS`, query(all), { ...toDirect, atLeast: 1 / 1.6 });
    await compare(`${name}, binary, TLS`, extended(all), { ...toDirect, atLeast: 1 / 1.8 });
    rows.push(...(await asWithoutMasks(query(clear), { plain, hidden, pid: gateway.pid, rounds })));
    await compare("COPY TO STDOUT of 100 MB, one masked column, TLS", copy, {
      ...toDirect,
      times: 1,
      atLeast: 0.5,
    });
    for (const wire of [direct, plain, hidden]) wire.socket.destroy();
    return [...rows, ...judged];
  } finally {
    await gateway.stop();
  }
}

/**
 * The same statement where masks exist and where there are none, in turns from one statement to the next: both run the same
 * code in one process, and what comes first in a block of statements pays for whatever has just been idle.
 */
async function asWithoutMasks(
  message: Buffer,
  { plain, hidden, pid, rounds }: { plain: Wire; hidden: Wire; pid: number; rounds: number },
): Promise<Row[]> {
  const wires = { plain, hidden };
  const times = { plain: [] as number[], hidden: [] as number[] };
  const costs = { plain: [] as number[], hidden: [] as number[] };
  for (let round = 0; round < rounds * pairsOfRound; round += 1) {
    for (const side of round % 2 === 0 ? (["plain", "hidden"] as const) : (["hidden", "plain"] as const)) {
      const before = await mainThreadMicroseconds(pid);
      times[side].push(await timed(wires[side], message, 1));
      costs[side].push((await mainThreadMicroseconds(pid)) - before);
    }
  }
  const work = "SELECT of 5,000 rows, no masked column, text, TLS";
  const row = (name: string, of: typeof times, digits: number, unit: string): Row => {
    const [mine, theirs] = [median(of.hidden), median(of.plain)];
    const detail = `${mine.toFixed(digits)} to ${theirs.toFixed(digits)} ${unit}`;
    return { work: name, against: "gateway without masks", ratio: theirs / mine, atLeast: 0.95, detail };
  };
  return [row(work, times, 2, "ms"), row(`processor time of ${work}`, costs, 0, "µs a statement")];
}

const pairsOfRound = 200;

/**
 * Queries of 200 lines that the gateway has never seen, parsed by the server and not run: processor time of the gateway's first
 * thread, the reading, judging, recording and passing on of the messages included. The gateway has seen one short statement before the first of them.
 */
async function longQueries(wire: Wire, pid: number): Promise<Row[]> {
  const cost = async (sql: string) => {
    const message = Buffer.concat([frame("P", `\0${sql}\0`, Buffer.alloc(2)), frame("S")]);
    const before = await mainThreadMicroseconds(pid);
    await exchange(wire, message);
    return ((await mainThreadMicroseconds(pid)) - before) / 1000;
  };
  // The first statement of all waits for the catalog, which is not what is asked.
  await exchange(wire, query("SELECT id, email FROM people WHERE id = 1"));
  const never: number[] = [];
  const again: number[] = [];
  for (let round = 0; round < longQueriesAsked; round += 1) {
    const sql = longQuery(round * 100, "people");
    never.push(await cost(sql));
    again.push(await cost(sql));
  }
  const [first = Number.NaN, ...later] = never;
  return [
    underFive("processor time of a query of 200 lines through the gateway, never seen", median(later)),
    // Most of it is code that has never run before; no goal is set for it.
    unasked("the same, the first long one of a process", first),
    underFive("the same, asked again", median(again)),
  ];
}

const longQueriesAsked = 31;

function underFive(work: string, ms: number): Row {
  return { ...unasked(work, ms), atLeast: 1 };
}

function unasked(work: string, ms: number): Row {
  return { work, against: "5 ms", ratio: 5 / ms, detail: `${ms.toFixed(2)} ms` };
}

interface Wire {
  readonly socket: TLSSocket;
}

/** Logs in as any driver does, and takes its socket. */
async function connected(
  port: number,
  ca: string,
  login: { readonly user: string; readonly password: string; readonly database: string },
): Promise<Wire> {
  const client = new pg.Client({ ...login, host: "localhost", port, ssl: { ca, host: "127.0.0.1" } });
  // It takes the end of the socket for a failure.
  client.on("error", () => undefined);
  await client.connect();
  const { stream } = (client as unknown as { connection: { stream: TLSSocket } }).connection;
  stream.removeAllListeners("data");
  stream.removeAllListeners("error");
  stream.removeAllListeners("close");
  stream.on("error", () => undefined);
  return { socket: stream };
}

/** Sends, and reads up to the next ReadyForQuery. */
function exchange({ socket }: Wire, message: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    let tail: Buffer = Buffer.alloc(0);
    const take = (chunk: Buffer) => {
      tail = chunk.length >= 6 ? chunk.subarray(-6) : Buffer.concat([tail, chunk]).subarray(-6);
      const isReady = tail.length === 6 && tail[0] === 0x5a && tail.readInt32BE(1) === 5;
      if (!isReady) return;
      socket.off("data", take);
      socket.off("close", closed);
      resolve();
    };
    const closed = () => reject(new Error("the server has closed the connection"));
    socket.on("data", take);
    socket.once("close", closed);
    socket.write(message);
  });
}

/** Milliseconds that one exchange takes. */
async function timed(wire: Wire, message: Buffer, times: number): Promise<number> {
  const started = performance.now();
  for (let time = 0; time < times; time += 1) await exchange(wire, message);
  return (performance.now() - started) / times;
}

/** Patterns on text, and lineage of a long query, without a network; in processor time, which other programs leave alone. */
export async function maskParts(): Promise<Row[]> {
  const words = [
    "order",
    "customer",
    "delivered",
    "42",
    "2026-01-05",
    "ann@example.com",
    "Lyon",
    "total",
    "17.50",
    "-",
  ];
  const values = Array.from({ length: 200_000 }, () =>
    Buffer.from(Array.from({ length: 8 }, () => words[randomInt(words.length)]).join(" ")),
  );
  const megabytes = values.reduce((sum, value) => sum + value.length, 0) / 1e6;
  const rate = (scan: (value: Buffer) => unknown): number => {
    const rates: number[] = [];
    for (let round = 0; round < 5; round += 1) {
      const started = ownMicroseconds();
      for (const value of values) scan(value);
      rates.push((megabytes * 1e6) / (ownMicroseconds() - started));
    }
    return median(rates);
  };
  const scanner = new PatternScanner(patternNames);
  const custom = new CustomPattern("order-number", "order [0-9]{2}");
  const [builtIn, own] = [rate((value) => scanner.scan(value)), rate((value) => [...custom.find(value)])];
  keepParserAsCompiled();
  await loadSqlParser();
  warmSqlAnalysis();
  const [first, later] = lineageTimes();
  return [
    speed("built-in patterns together", builtIn, 60),
    speed("a custom pattern", own),
    underFive("parsing, analysis and lineage of a query of 200 lines, never seen, processor time", later),
    underFive("the same, the first of a process after its warm-up", first),
  ];
}

function speed(work: string, rate: number, asked?: number): Row {
  return {
    work,
    against: asked === undefined ? "1 MB/s" : `${asked} MB/s`,
    ratio: rate / (asked ?? 1),
    ...(asked === undefined ? {} : { atLeast: 1 }),
    detail: `${rate.toFixed(0)} MB in a second of processor time`,
  };
}

/** A query of 200 lines, no two of them of one shape; `orders` is the table that people are joined with. */
function longQuery(seed: number, orders: "people" | "ord"): string {
  const [person, total] = orders === "ord" ? ["person", "total"] : ["id", "id"];
  const block = (at: number) => `step${at} AS (
    SELECT p.id AS id,
      p.name AS name,
      p.email AS email,
      sum(o.${total}) AS total
    FROM people p
    JOIN ${orders} o ON o.${person} = p.id
    WHERE o.${total} > ${at}
    GROUP BY p.id, p.name, p.note
  )`;
  return `WITH ${Array.from({ length: 20 }, (_, at) => block(at + seed)).join(",\n")}\nSELECT * FROM step${seed}`;
}

/** Milliseconds of processor time for such queries: the first, and the median of those after, none of them seen before. */
function lineageTimes(): readonly [number, number] {
  const names = staticNames([
    "public.people(id, name, email, score, note)",
    "public.ord(id, person, total, item)",
  ]);
  const masked = new MaskedColumnSet(["public.people.email"]);
  const masking = new SessionMasking([]);
  const times: number[] = [];
  for (let round = 0; round < longQueriesAsked; round += 1) {
    const sql = longQuery(round * 100, "ord");
    const started = ownMicroseconds();
    const analysis = analyseSql(sql, names, { masked });
    times.push((ownMicroseconds() - started) / 1000);
    if (analysis.kind === "rejected") throw new Error(analysis.message);
    for (const { lineage } of analysis.statements) if (lineage !== undefined) masking.decide(lineage);
  }
  return [times[0] ?? Number.NaN, median(times.slice(1))];
}
