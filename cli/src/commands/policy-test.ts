/** `sallyport policy test`: case files that say what policies must decide. */
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import type { CaseFileResult } from "@sallyport/policy";
import type { Command } from "commander";
import { parse as parseYaml } from "yaml";
import { CliFailure } from "../failure.ts";
import { readManifests } from "../manifest-folder.ts";
import { coloured, counted, type OutputFormat, printable, withOutput, writeJson } from "../output.ts";
import { readySqlParser } from "../sql-parser.ts";
import { exitCodes, type Invocation, type Terminal } from "../terminal.ts";
import { inFolder } from "../values.ts";

/** Adds arguments and action. */
export function configure(command: Command, invocation: Invocation): void {
  withOutput(command)
    .description("run case files: policies, who asks for what, and what must be decided")
    .argument("<cases...>", "case files (YAML)")
    .addHelpText("after", help)
    .action(async (files: readonly string[], { output }: { readonly output: OutputFormat }) => {
      const { terminal } = invocation;
      const outcomes: Outcome[] = [];
      for (const file of files) outcomes.push({ file, ...(await run(file, terminal)) });
      const ok = outcomes.every(({ results, problems }) => results.every(hasPassed) && problems.length === 0);
      if (output === "json") writeJson(terminal, { ok, files: outcomes.map(shown) });
      else writeOutcomes(outcomes, terminal);
      if (!ok) invocation.exitCode = exitCodes.finding;
    });
}

const help = `
A case file:
  title: Analysts read orders and nothing else.
  manifests: ../manifests            # beside the file; or \`policies:\` in place
  resource: {namespace: shop, name: shop}
  identities: {alice: {user: "local:alice", groups: ["local:analysts"]}}
  tables: ["public.orders(id, total)"]
  cases:
  - {name: she reads, as: alice, sql: SELECT * FROM orders, expect: {action: Allow}}
  - {name: she deletes nothing, as: alice, sql: DELETE FROM orders, expect: {action: Deny}}`;

interface Outcome extends CaseFileResult {
  readonly file: string;
}

type CaseResult = CaseFileResult["results"][number];

async function run(file: string, terminal: Terminal): Promise<CaseFileResult> {
  const path = inFolder(terminal.cwd, file);
  const document = await readCases(path, file);
  const { analyseSql, CaseFileError, runPolicyCases } = await import("@sallyport/policy");
  await readySqlParser();
  const manifests = await manifestsOf(document, path, terminal);
  try {
    return runPolicyCases(document, { analyse: analyseSql, ...manifests });
  } catch (cause) {
    if (!(cause instanceof CaseFileError)) throw cause;
    throw new CliFailure(`${file} is not a case file`, {
      next: "Look at the example: sallyport policy test --help",
      cause,
    });
  }
}

async function readCases(path: string, file: string): Promise<unknown> {
  try {
    return parseYaml(await readFile(path, "utf8"));
  } catch (cause) {
    throw new CliFailure(`cannot read ${file}`, { next: "Name a case file in YAML.", cause });
  }
}

async function manifestsOf(document: unknown, path: string, terminal: Terminal) {
  const named = typeof document === "object" && document !== null && "manifests" in document;
  if (!named || typeof document.manifests !== "string") return {};
  const folder = await readManifests(resolve(dirname(path), document.manifests), terminal);
  const { hasErrors } = await import("@sallyport/crds");
  // What the gateway would not take must not pass a test.
  if (hasErrors(folder)) {
    throw new CliFailure(`the manifests in ${document.manifests} are not accepted`, {
      next: `See what is wrong: sallyport validate ${document.manifests}`,
      exitCode: exitCodes.finding,
    });
  }
  return { policies: folder.policies, resources: folder.resources };
}

function writeOutcomes(outcomes: readonly Outcome[], terminal: Terminal): void {
  for (const { file, title, results, problems } of outcomes) {
    terminal.out(`${printable(file)}${title === "" ? "" : `: ${printable(title)}`}\n`);
    for (const result of results) {
      const mark = hasPassed(result)
        ? coloured(terminal, "green", "ok  ")
        : coloured(terminal, "red", "FAIL");
      terminal.out(`  ${mark}  ${printable(result.name)}\n`);
      for (const difference of result.differences) terminal.out(`          ${printable(difference)}\n`);
    }
    for (const { policy, path, reason, message } of problems) {
      terminal.out(`  ${coloured(terminal, "red", "FAIL")}  policy ${printable(policy)}: ${reason}\n`);
      terminal.out(`          ${printable(`${path}: ${message}`)}\n`);
    }
  }
  const all = outcomes.flatMap(({ results }) => results);
  const failed = all.filter((result) => !hasPassed(result)).length;
  const problems = outcomes.reduce((sum, outcome) => sum + outcome.problems.length, 0);
  const also = problems === 0 ? "" : `, ${counted(problems, "policy problem")}`;
  terminal.out(`${all.length - failed} passed, ${failed} failed${also}\n`);
}

const shown = ({ file, title, results, problems }: Outcome): object => ({
  file,
  title,
  results: results.map((result) => ({ passed: hasPassed(result), ...result })),
  problems,
});

const hasPassed = ({ differences }: CaseResult): boolean => differences.length === 0;
