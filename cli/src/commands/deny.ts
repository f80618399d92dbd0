/** `sallyport deny`: ends one request. */
import type { Command } from "commander";
import { withGateway } from "../approval-client.ts";
import { type DecisionOptions, decide } from "../decision.ts";
import { withOutput } from "../output.ts";
import type { Invocation } from "../terminal.ts";

/** Adds options and action. */
export function configure(command: Command, { terminal }: Invocation): void {
  withGateway(withOutput(command))
    .description("deny a request, as yourself; one denial ends it")
    .argument("<name>", "the request, as the notice to its client and `sallyport approvals` name it")
    .requiredOption("--reason <text>", "why; the requester reads it")
    .addHelpText("after", '\nExamples:\n  sallyport deny orders-1a2b3c4d --reason "not before the backup"')
    .action((name: string, { reason, ...options }: DecisionOptions & { readonly reason: string }) =>
      decide(name, "Denied", { ...options, comment: reason }, terminal),
    );
}
