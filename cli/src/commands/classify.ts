/** `sallyport classify`: proposes classification tags by looking into a live database; prints names, never values. */
import { readFile } from "node:fs/promises";
import type { TagProposal } from "@sallyport/sidecar/classify";
import { type Command, InvalidArgumentError, Option } from "commander";
import { CliFailure } from "../failure.ts";
import { type OutputFormat, printable, withOutput, writeJson } from "../output.ts";
import { readySqlParser } from "../sql-parser.ts";
import type { Invocation, Terminal } from "../terminal.ts";
import { inFolder } from "../values.ts";

interface ClassifyOptions {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly tls: "disable" | "require" | "verify-ca" | "verify-full";
  readonly ca?: string;
  readonly sample: number;
  readonly output: OutputFormat;
}

/** Adds options and action. */
export function configure(command: Command, { terminal }: Invocation): void {
  withOutput(command)
    .description(
      "propose classification tags for the columns of a live database, by names and sampled values",
    )
    .requiredOption("--host <name>", "where the server is")
    .option("--port <number>", "its port", parseNumber, 5432)
    .requiredOption("--user <name>", "an account that may read; its password is taken from PGPASSWORD")
    .requiredOption("--database <name>", "the database to look into")
    .addOption(
      new Option("--tls <mode>", "how the connection is protected")
        .choices(["disable", "require", "verify-ca", "verify-full"])
        .default("verify-full"),
    )
    .option("--ca <file>", "authorities of the server's certificate, as PEM")
    .option("--sample <rows>", "rows of each table to look at", parseNumber, 200)
    .addHelpText("after", help)
    .action((options: ClassifyOptions) => run(options, terminal));
}

const help = `
Values are looked at and never printed. What it proposes is a guess: read it before you use it.

Example:
  PGPASSWORD=… sallyport classify --host db.internal --user reader --database shop --ca ca.crt`;

async function run(options: ClassifyOptions, terminal: Terminal): Promise<void> {
  const { host, port, user, database, tls, ca, sample } = options;
  const { classify } = await import("@sallyport/sidecar/classify");
  await readySqlParser();
  const password = process.env.PGPASSWORD;
  const proposals = await classify({
    target: {
      host,
      port,
      tls: {
        mode: tls,
        ...(ca === undefined ? {} : { ca: await readFile(inFolder(terminal.cwd, ca), "utf8") }),
      },
    },
    username: user,
    ...(password === undefined ? {} : { password }),
    database,
    sample,
  }).catch((cause: unknown) => {
    throw new CliFailure(`cannot look into ${database} on ${host}:${port}`, {
      next: "Check address, account, PGPASSWORD and --ca.",
      cause,
    });
  });
  if (options.output === "json") writeJson(terminal, proposals);
  else terminal.out(yamlOf(proposals));
}

/** The proposals as the `classification` of a ProtectedResource. */
function yamlOf(proposals: readonly TagProposal[]): string {
  if (proposals.length === 0) return "classification: []\n";
  const byTag = Map.groupBy(proposals, ({ tag }) => tag);
  const lines = [...byTag].flatMap(([tag, found]) => [
    `  - tag: ${tag}`,
    "    columns:",
    ...found.map(({ column, why }) => `      - ${JSON.stringify(printable(column))} # ${why}`),
  ]);
  return `classification:\n${lines.join("\n")}\n`;
}

function parseNumber(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError("Write a whole number above zero.");
  return Number(text);
}
