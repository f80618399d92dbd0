/** What a run found: printed as a table, kept for programs in bench-results.json and for people in docs/benchmarks.md. */
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { cpus, loadavg, release, totalmem } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { PostgresServer } from "../targets/postgres.ts";
import { versionOf } from "./pgbench.ts";
import { pgbouncerProgram } from "./pgbouncer.ts";

/** One comparison: ours over theirs, higher is better. */
export interface Row {
  readonly work: string;
  readonly against: string;
  readonly ratio: number;
  /** What the project asks of itself; absent where the number is only told. */
  readonly atLeast?: number;
  /** The absolute numbers behind the ratio, for the reader. */
  readonly detail: string;
}

const root = join(import.meta.dirname, "../..");
const document = join(root, "docs/benchmarks.md");

/** The rows as a Markdown table. */
export function table(rows: readonly Row[]): string {
  const cells = rows.map(({ work, against, ratio, atLeast, detail }) => {
    const asked =
      atLeast === undefined ? "" : `≥ ${atLeast.toFixed(2)}${ratio >= atLeast ? "" : " **missed**"}`;
    return `| ${work} | ${against} | ${ratio.toFixed(2)} | ${asked} | ${detail} |`;
  });
  return ["| work | against | ratio | asked | measured |", "|---|---|---:|---|---|", ...cells].join("\n");
}

/** Writes the rows for programs. */
export async function keepResults(rows: readonly Row[]): Promise<void> {
  const results = rows.map(({ work, against, ratio }) => ({
    work,
    against,
    ratio: Number(ratio.toFixed(4)),
  }));
  await writeFile(join(root, "bench-results.json"), `${JSON.stringify(results, undefined, 2)}\n`);
}

/** Puts text into the part of docs/benchmarks.md that is marked with this name. */
export async function keepInDocument(part: "results" | "profile", text: string): Promise<void> {
  const [begin, end] = [`<!-- ${part}: written by make bench -->`, `<!-- end of ${part} -->`];
  const old = await readFile(document, "utf8");
  const [from, to] = [old.indexOf(begin), old.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`docs/benchmarks.md lacks the marks of its part ${part}`);
  await writeFile(document, `${old.slice(0, from + begin.length)}\n\n${text}\n\n${old.slice(to)}`);
}

/** The machine and the programs, without anything that tells whose machine it is. */
export async function describeMachine(server: PostgresServer, shape: string): Promise<string> {
  const [cpu] = cpus();
  const [version] = await server.query("SHOW server_version");
  const program = pgbouncerProgram();
  const bouncer = program === undefined ? "" : (await promisify(execFile)(program, ["--version"])).stdout;
  const lines = [
    `- ${cpu?.model.trim() ?? "unknown processor"}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GB`,
    `- Linux ${release().split("-")[0]}, Node.js ${process.versions.node}, PostgreSQL ${version?.server_version}`,
    `- ${await versionOf("pgbench")}, ${bouncer.split("\n")[0]}`,
    `- ${new Date().toISOString().slice(0, 10)}, ${shape}, load average before the run ${loadavg()[0]?.toFixed(1)}`,
  ];
  return lines.join("\n");
}
