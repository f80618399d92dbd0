/** Load by PostgreSQL's own programs: pgbench for transactions, psql for COPY. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** How libpq connects: PGHOST, PGPORT and their like. */
export type LibpqEnvironment = Readonly<Record<string, string>>;

export const protocols = ["simple", "extended", "prepared"] as const;
export type Protocol = (typeof protocols)[number];

export interface PgbenchRun {
  readonly to: LibpqEnvironment;
  readonly protocol: Protocol;
  readonly clients: number;
  readonly seconds: number;
  /** A script in place of the built-in single SELECT. */
  readonly scriptFile?: string;
  /** Also log each transaction, for the median. */
  readonly isLogged?: boolean;
}

export interface PgbenchResult {
  readonly transactionsPerSecond: number;
  readonly transactions: number;
  /** Only of a logged run. */
  readonly medianMicroseconds: number | undefined;
}

/** Runs pgbench for a while; throws where any transaction failed. */
export async function pgbench(run: PgbenchRun): Promise<PgbenchResult> {
  const folder = run.isLogged ? await mkdtemp(join(tmpdir(), "sallyport-pgbench-")) : undefined;
  try {
    const output = await text("pgbench", run.to, [
      ...["--no-vacuum", "--protocol", run.protocol, "--time", String(run.seconds)],
      ...["--client", String(run.clients), "--jobs", String(Math.min(run.clients, 2))],
      ...(run.scriptFile === undefined ? ["--select-only"] : ["--file", run.scriptFile]),
      ...(folder === undefined ? [] : ["--log", "--log-prefix", join(folder, "log")]),
    ]);
    const failed = Number(/number of failed transactions: (\d+)/.exec(output)?.[1] ?? 0);
    const transactions = Number(/transactions actually processed: (\d+)/.exec(output)?.[1] ?? 0);
    const rate = Number(/^tps = ([\d.]+) \(without initial/m.exec(output)?.[1] ?? 0);
    if (failed > 0 || transactions === 0 || rate === 0)
      throw new Error(`pgbench measured nothing:\n${output}`);
    const medianMicroseconds = folder === undefined ? undefined : await medianOf(folder);
    return { transactionsPerSecond: rate, transactions, medianMicroseconds };
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}

/** Creates and fills pgbench's tables. */
export async function fillPgbenchTables(to: LibpqEnvironment, scale: number): Promise<void> {
  await text("pgbench", to, ["--initialize", "--quiet", "--scale", String(scale)]);
}

/** Seconds that psql takes for `COPY … TO STDOUT`, connection included; the rows go to a file or nowhere. */
export function copyOut(to: LibpqEnvironment, table: string, file = "/dev/null"): Promise<number> {
  return copySeconds(to, `\\copy ${table} TO '${file}'`);
}

/** Seconds that psql takes for `COPY … FROM STDIN` of a file, connection included. */
export function copyIn(to: LibpqEnvironment, table: string, file: string): Promise<number> {
  return copySeconds(to, `\\copy ${table} FROM '${file}'`);
}

/** psql opens the file itself: data that went through this process would take processor time from what is measured. */
async function copySeconds(to: LibpqEnvironment, command: string): Promise<number> {
  const begun = performance.now();
  await text("psql", to, ["-X", "-q", "-c", command]);
  return (performance.now() - begun) / 1000;
}

/** The version that a PostgreSQL program tells. */
export async function versionOf(program: string): Promise<string> {
  return (await text(program, {}, ["--version"])).trim();
}

async function text(program: string, to: LibpqEnvironment, args: readonly string[]): Promise<string> {
  const { child, ended } = start(program, to, args);
  child.stdin.end();
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    output += chunk;
  });
  await ended;
  return output;
}

const deadlineMs = 120_000;

function start(program: string, to: LibpqEnvironment, args: readonly string[]) {
  const child = spawn(pathOf(program), args, {
    stdio: ["pipe", "pipe", "pipe"],
    env: { LC_ALL: "C", ...to },
  });
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
    errors = (errors + chunk).slice(-10_000);
  });
  const deadline = setTimeout(() => child.kill("SIGKILL"), deadlineMs);
  const ended = new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => {
      clearTimeout(deadline);
      if (code === 0) resolve();
      else reject(new Error(`${program} ${args.join(" ")}: exit code ${code}\n${errors}`));
    });
  });
  return { child, ended };
}

function pathOf(program: string): string {
  const folders = ["/usr/lib/postgresql/15/bin", ...(process.env.PATH ?? "").split(":")];
  const found = folders.map((folder) => join(folder, program)).find((path) => existsSync(path));
  if (found === undefined) throw new Error(`${program} is missing: apt-get install -y postgresql-15`);
  return found;
}

/** Lines of pgbench's log: client, transaction, microseconds, script, time. */
async function medianOf(folder: string): Promise<number> {
  const times: number[] = [];
  for (const name of await readdir(folder)) {
    for (const line of (await readFile(join(folder, name), "utf8")).split("\n")) {
      const time = line.split(" ")[2];
      if (time !== undefined) times.push(Number(time));
    }
  }
  return median(times);
}

/** The middle of a list; the mean of the two middles where it is even. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}
