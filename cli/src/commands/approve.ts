/** `sallyport approve`: lets one held command, or one wish for access, go. */
import type { Command } from "commander";
import { withGateway } from "../approval-client.ts";
import { type DecisionOptions, decide } from "../decision.ts";
import { withOutput } from "../output.ts";
import type { Invocation } from "../terminal.ts";

/** Adds options and action. */
export function configure(command: Command, { terminal }: Invocation): void {
  withGateway(withOutput(command))
    .description("approve a request, as yourself; a decision is final")
    .argument("<name>", "the request, as the notice to its client and `sallyport approvals` name it")
    .option("--comment <text>", "what the requester should read")
    .addHelpText(
      "after",
      "\nExamples:\n  sallyport approve orders-1a2b3c4d\n  sallyport approve orders-1a2b3c4d -n shop",
    )
    .action((name: string, options: DecisionOptions) => decide(name, "Approved", options, terminal));
}
