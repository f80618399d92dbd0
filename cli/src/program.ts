/** The command line as a whole: loads the command that was called, runs it, and says in one voice what went wrong. */
import { Command, CommanderError } from "commander";
import { commands } from "./commands/index.ts";
import { CliFailure, reasonOf } from "./failure.ts";
import { printable } from "./output.ts";
import { exitCodes, type Invocation, type Terminal } from "./terminal.ts";
import { version } from "./version.ts";

/** Runs `sallyport` with the arguments after its name and returns the exit code. */
export async function runCli(argv: readonly string[], terminal: Terminal): Promise<number> {
  const invocation: Invocation = {
    terminal,
    exitCode: exitCodes.ok,
    commandTree: () => createProgram(invocation, () => true),
  };
  try {
    const program = await createProgram(invocation, (name) => argv.includes(name));
    await program.parseAsync([...(argv.length === 0 ? ["--help"] : argv)], { from: "user" });
    return invocation.exitCode;
  } catch (error) {
    return failed(error, terminal);
  }
}

/** Builds the tree of commands; those that are not called stay a name and a summary. */
async function createProgram(invocation: Invocation, isCalled: (name: string) => boolean): Promise<Command> {
  const { terminal } = invocation;
  const program = new Command("sallyport");
  program
    .description(
      "Stands in front of databases, Kubernetes and hosts: decides each command before it runs, and records it.",
    )
    .version(version, "-V, --version", "show the version")
    .helpCommand("help [command]", "show help for a command")
    .addHelpText("after", "\nExit codes: 0 done; 1 something was found or refused; 2 not understood.")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.out(text),
      writeErr: (text) => terminal.err(text),
      getOutHelpWidth: () => terminal.columns ?? 100,
      getErrHelpWidth: () => terminal.columns ?? 100,
      outputError: (text, write) => write(`sallyport: ${text.replace(/^error: /, "")}`),
    })
    .showHelpAfterError("See `sallyport help`.")
    .showSuggestionAfterError();
  for (const { name, summary, load } of commands) {
    const command = program.command(name).description(summary);
    command.showHelpAfterError(`See \`sallyport ${name} --help\`.`);
    if (isCalled(name)) await (await load()).configure(command, invocation);
  }
  return program;
}

function failed(error: unknown, terminal: Terminal): number {
  // Commander has written its own message; help and version end here too.
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
  if (!(error instanceof CliFailure)) {
    const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
    const why = stack.split("\n").map(printable).join("\n");
    terminal.err(`sallyport: this is a defect, please report it\n${why}\n`);
    return exitCodes.usage;
  }
  const cause = error.cause === undefined ? "" : `: ${reasonOf(error.cause)}`;
  terminal.err(`sallyport: ${printable(`${error.message}${cause}`)}\n${error.next}\n`);
  return error.exitCode;
}
