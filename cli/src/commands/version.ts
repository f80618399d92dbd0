/** `sallyport version`. */
import type { Command } from "commander";
import { type OutputFormat, withOutput, writeJson } from "../output.ts";
import type { Invocation } from "../terminal.ts";
import { version } from "../version.ts";

/** Adds the action. */
export function configure(command: Command, { terminal }: Invocation): void {
  withOutput(command).action(({ output }: { readonly output: OutputFormat }) => {
    const facts = { version, node: process.versions.node };
    if (output === "json") writeJson(terminal, facts);
    else terminal.out(`sallyport ${facts.version} (Node ${facts.node})\n`);
  });
}
