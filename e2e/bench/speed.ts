/** Speed and processor time, each way's runs taken in turns, so that a slow minute of the machine slows all of them. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { copyIn, copyOut, median, type Protocol, pgbench, protocols } from "./pgbench.ts";
import { processorMicroseconds } from "./process-cost.ts";
import type { Row } from "./report.ts";
import { type Transport, transports, type Way, type Ways } from "./ways.ts";

/** How long a run is, and how often the ways take turns. */
export interface Pace {
  readonly seconds: number;
  readonly rounds: number;
  /** ProtectedResources that the operator is measured with. */
  readonly resources: number;
}

/** What the project asks of itself. */
const asked = { ofPgbouncer: 0.9, copyOfDirect: 0.95, selectOfDirect: 1 / 1.3 };

/** One pgbench -S of a protocol, a number of clients and a transport. */
export interface SelectWork {
  readonly protocol: Protocol;
  readonly clients: number;
  readonly transport: Transport;
}

export const selectWorks: readonly SelectWork[] = transports.flatMap((transport) =>
  protocols.flatMap((protocol) => [1, 8, 64].map((clients) => ({ protocol, clients, transport }))),
);

export const nameOfWork = ({ protocol, clients, transport }: SelectWork): string =>
  `pgbench -S ${protocol}, ${clients === 1 ? "1 client" : `${clients} clients`}, ${transport}`;

/** Transactions a second against PgBouncer and direct; for eight clients also processor time for each transaction. */
export async function selects(ways: Ways, work: SelectWork, pace: Pace): Promise<Row[]> {
  const measured = await inTurns([ways.direct, ways.pgbouncer, ways.gateway], pace.rounds, (way) =>
    run(way, work, pace.seconds),
  );
  const rates = (way: Way) => (measured.get(way) ?? []).map(({ rate }) => rate);
  const costs = (way: Way) => (measured.get(way) ?? []).map(({ microseconds }) => microseconds);
  const name = nameOfWork(work);
  const { gateway, pgbouncer, direct } = ways;
  const rows: Row[] = [
    {
      ...compare(name, gateway, pgbouncer, rates),
      atLeast: asked.ofPgbouncer,
      detail: `${perSecond(rates(gateway))} to ${perSecond(rates(pgbouncer))} a second`,
    },
    {
      ...compare(name, gateway, direct, rates),
      detail: `${perSecond(rates(gateway))} to ${perSecond(rates(direct))} a second`,
    },
  ];
  if (work.clients === 8) {
    const [ours, theirs] = [costs(gateway), costs(pgbouncer)];
    rows.push({
      work: `processor time of ${name}`,
      against: "pgbouncer",
      ratio: median(theirs.map((cost, round) => cost / (ours[round] ?? Number.NaN))),
      detail: `${median(ours).toFixed(0)} to ${median(theirs).toFixed(0)} µs a transaction`,
    });
  }
  return rows;
}

/** One way beside others: transactions a second, and processor time for each of them. */
export async function compareSelects(
  name: string,
  work: SelectWork,
  ours: Way,
  others: readonly Way[],
  pace: Pace,
): Promise<Row[]> {
  const measured = await inTurns([ours, ...others], pace.rounds, (way) => run(way, work, pace.seconds));
  const of = (way: Way, what: "rate" | "microseconds") => (measured.get(way) ?? []).map((one) => one[what]);
  const rates = (way: Way) => of(way, "rate");
  const cost = (way: Way) => median(of(way, "microseconds")).toFixed(0);
  return others.map((other) => ({
    ...compare(name, ours, other, rates),
    detail: `${perSecond(rates(ours))} to ${perSecond(rates(other))} a second, ${cost(ours)} to ${cost(other)} µs each`,
  }));
}

/** The same with every command on the disk before it runs. */
export async function durableSelects(ways: Ways, pace: Pace): Promise<Row[]> {
  const rows: Row[] = [];
  for (const clients of [1, 8]) {
    const work = { protocol: "extended", clients, transport: "TLS" } as const;
    const measured = await inTurns([ways.pgbouncer, ways.durable], pace.rounds, (way) =>
      run(way, work, pace.seconds),
    );
    const rates = (way: Way) => (measured.get(way) ?? []).map(({ rate }) => rate);
    rows.push({
      ...compare(`${nameOfWork(work)}, recording Durable`, ways.durable, ways.pgbouncer, rates),
      detail: `${perSecond(rates(ways.durable))} to ${perSecond(rates(ways.pgbouncer))} a second`,
    });
  }
  return rows;
}

/** Two processes beside one. A Unix domain socket is served by the first alone, so nothing is to be won there. */
export async function severalProcesses(ways: Ways, pace: Pace): Promise<Row[]> {
  const rows: Row[] = [];
  for (const transport of transports) {
    for (const clients of [8, 64]) {
      const work = { protocol: "extended", clients, transport } as const;
      const measured = await inTurns([ways.gateway, ways.twoProcesses], pace.rounds, (way) =>
        run(way, work, pace.seconds),
      );
      const rates = (way: Way) => (measured.get(way) ?? []).map(({ rate }) => rate);
      rows.push({
        ...compare(`${nameOfWork(work)}, 2 processes`, ways.twoProcesses, ways.gateway, rates),
        detail: `${perSecond(rates(ways.twoProcesses))} to ${perSecond(rates(ways.gateway))} a second`,
      });
    }
  }
  return rows;
}

/** What each of the two adds to the median time of one client's transaction. */
export async function addedLatency(ways: Ways, pace: Pace): Promise<Row[]> {
  const rows: Row[] = [];
  for (const protocol of protocols) {
    const measured = await inTurns([ways.direct, ways.pgbouncer, ways.gateway], pace.rounds, async (way) => {
      const request = { to: way.to("TLS"), protocol, clients: 1, seconds: pace.seconds, isLogged: true };
      return (await pgbench(request)).medianMicroseconds ?? Number.NaN;
    });
    const direct = measured.get(ways.direct) ?? [];
    const added = (way: Way) =>
      (measured.get(way) ?? []).map((time, round) => time - (direct[round] ?? Number.NaN));
    const [ours, theirs] = [added(ways.gateway), added(ways.pgbouncer)];
    rows.push({
      work: `added median latency, ${protocol}, 1 client, TLS`,
      against: "pgbouncer",
      ratio: median(theirs.map((time, round) => time / (ours[round] ?? Number.NaN))),
      detail: `${median(ours).toFixed(0)} to ${median(theirs).toFixed(0)} µs over ${median(direct).toFixed(0)} direct`,
    });
  }
  return rows;
}

/** Many rows in one answer, and COPY both ways. */
export async function bulk(ways: Ways, pace: Pace): Promise<Row[]> {
  const folder = await mkdtemp(join(tmpdir(), "sallyport-bulk-"));
  try {
    return [...(await manyRows(ways, pace, folder)), ...(await copies(ways, pace, folder))];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function manyRows(ways: Ways, pace: Pace, folder: string): Promise<Row[]> {
  const rows: Row[] = [];
  const scriptFile = join(folder, "select.sql");
  await writeFile(scriptFile, "SELECT * FROM pgbench_accounts WHERE aid <= 5000;\n");
  for (const protocol of ["simple", "extended"] as const) {
    const measured = await inTurns([ways.direct, ways.pgbouncer, ways.gateway], pace.rounds, async (way) => {
      const request = { to: way.to("TLS"), protocol, clients: 1, seconds: pace.seconds, scriptFile };
      return (await pgbench(request)).transactionsPerSecond;
    });
    const rates = (way: Way) => measured.get(way) ?? [];
    const milliseconds = (way: Way) => (1000 / median(rates(way))).toFixed(2);
    for (const against of [ways.direct, ways.pgbouncer]) {
      rows.push({
        ...compare(`SELECT of 5,000 rows, ${protocol}, TLS`, ways.gateway, against, rates),
        ...(against === ways.direct ? { atLeast: asked.selectOfDirect } : {}),
        detail: `${milliseconds(ways.gateway)} to ${milliseconds(against)} ms`,
      });
    }
  }
  return rows;
}

async function copies(ways: Ways, pace: Pace, folder: string): Promise<Row[]> {
  const rows: Row[] = [];
  const file = join(folder, "accounts.txt");
  await copyOut(ways.direct.to("socket"), "pgbench_accounts", file);
  const out = await inTurns([ways.direct, ways.pgbouncer, ways.gateway], pace.rounds, (way) =>
    copyOut(way.to("TLS"), "pgbench_accounts"),
  );
  const into = await inTurns([ways.direct, ways.pgbouncer, ways.gateway], pace.rounds, async (way) => {
    await ways.server.query("TRUNCATE copied");
    return copyIn(way.to("TLS"), "copied", file);
  });
  for (const [name, measured] of [
    ["COPY TO STDOUT of 100 MB, TLS", out],
    ["COPY FROM STDIN of 100 MB, TLS", into],
  ] as const) {
    const speeds = (way: Way) => (measured.get(way) ?? []).map((seconds) => 1 / seconds);
    const seconds = (way: Way) => median(measured.get(way) ?? []).toFixed(2);
    for (const against of [ways.direct, ways.pgbouncer]) {
      rows.push({
        ...compare(name, ways.gateway, against, speeds),
        ...(against === ways.direct ? { atLeast: asked.copyOfDirect } : {}),
        detail: `${seconds(ways.gateway)} to ${seconds(against)} s`,
      });
    }
  }
  return rows;
}

async function run(way: Way, work: SelectWork, seconds: number) {
  const before = way.pid === undefined ? 0 : await processorMicroseconds(way.pid);
  // pgbench counts logins in its time, and each new backend has to find the pages of the tables: many get more of it.
  const request = { ...work, to: way.to(work.transport), seconds: seconds * (work.clients < 64 ? 1 : 3) };
  const { transactions, transactionsPerSecond } = await pgbench(request);
  const after = way.pid === undefined ? 0 : await processorMicroseconds(way.pid);
  return { rate: transactionsPerSecond, microseconds: (after - before) / transactions };
}

/** Every way once a round; who comes first changes from round to round. */
async function inTurns<T>(
  ways: readonly Way[],
  rounds: number,
  measure: (way: Way) => Promise<T>,
): Promise<ReadonlyMap<Way, readonly T[]>> {
  const measured = new Map<Way, T[]>(ways.map((way) => [way, []]));
  for (let round = 0; round < rounds; round++) {
    const first = round % ways.length;
    for (const way of [...ways.slice(first), ...ways.slice(0, first)])
      measured.get(way)?.push(await measure(way));
  }
  return measured;
}

/** The median over the rounds of what each round found, higher is better. */
function compare(
  work: string,
  ours: Way,
  theirs: Way,
  values: (way: Way) => readonly number[],
): { work: string; against: string; ratio: number } {
  const other = values(theirs);
  const ratios = values(ours).map((value, round) => value / (other[round] ?? Number.NaN));
  return { work, against: theirs.name, ratio: median(ratios) };
}

const perSecond = (rates: readonly number[]): string => Math.round(median(rates)).toLocaleString("en");
