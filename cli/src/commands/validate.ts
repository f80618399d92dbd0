/** `sallyport validate`: what a gateway would refuse, before it meets it. */

import type { Problem } from "@sallyport/crds";
import type { Command } from "commander";
import { readManifests } from "../manifest-folder.ts";
import { coloured, counted, type OutputFormat, printable, withOutput, writeJson } from "../output.ts";
import { exitCodes, type Invocation, type Terminal } from "../terminal.ts";

interface ValidateOptions {
  readonly strict: boolean;
  readonly output: OutputFormat;
}

/** Adds options and action. */
export function configure(command: Command, invocation: Invocation): void {
  withOutput(command)
    .description("find every problem in a folder of manifests, as the gateway would")
    .argument("<dir>", "folder of manifests, or one file")
    .option("--strict", "let warnings count as problems", false)
    .addHelpText(
      "after",
      "\nExamples:\n  sallyport validate manifests/\n  sallyport validate manifests/ -o json",
    )
    .action(async (dir: string, { strict, output }: ValidateOptions) => {
      const { terminal } = invocation;
      const { documents, problems } = await readManifests(dir, terminal);
      const ok = !problems.some(({ severity }) => strict || severity === "error");
      if (output === "json") writeJson(terminal, { ok, documents: documents.length, problems });
      else await writeProblems(problems, documents.length, terminal);
      if (!ok) invocation.exitCode = exitCodes.finding;
    });
}

async function writeProblems(
  problems: readonly Problem[],
  documents: number,
  terminal: Terminal,
): Promise<void> {
  const { formatProblem } = await import("@sallyport/crds");
  for (const problem of problems) {
    const colour = problem.severity === "error" ? "red" : "yellow";
    terminal.out(`${coloured(terminal, colour, printable(formatProblem(problem)))}\n`);
  }
  const errors = problems.filter(({ severity }) => severity === "error").length;
  const found = `${counted(errors, "error")}, ${counted(problems.length - errors, "warning")}`;
  terminal.out(`${counted(documents, "document")} accepted; ${found}\n`);
}
