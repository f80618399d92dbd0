/** `sallyport wait`: until a request has been decided. */
import { type Command, InvalidArgumentError } from "commander";
import {
  type ApprovalView,
  approvalPath,
  askGateway,
  type GatewayOptions,
  withGateway,
} from "../approval-client.ts";
import { inCluster, isCluster } from "../cluster-approvals.ts";
import { CliFailure } from "../failure.ts";
import { type OutputFormat, withOutput, writeJson } from "../output.ts";
import { exitCodes, type Invocation } from "../terminal.ts";
import { parseLifetimeSeconds } from "../values.ts";

interface WaitOptions extends GatewayOptions {
  readonly timeout: number;
  readonly output: OutputFormat;
}

const pollMs = 500;
const timeoutSecondsMax = 86_400;

/** Adds options and action. */
export function configure(command: Command, invocation: Invocation): void {
  const { terminal } = invocation;
  withGateway(withOutput(command))
    .description("wait until a request is decided; exit code 0 where it was approved, 1 where not")
    .argument("<name>", "the request")
    .option("--timeout <duration>", "how long to wait at most", parseTimeout, 600)
    .addHelpText("after", "\nExamples:\n  sallyport wait orders-1a2b3c4d --timeout 5m")
    .action(async (name: string, options: WaitOptions) => {
      const deadline = performance.now() + options.timeout * 1000;
      const poll = async (read: () => Promise<ApprovalView>) => {
        for (;;) {
          const approval = await read();
          if (approval.phase !== "Pending") {
            if (options.output === "json") writeJson(terminal, approval);
            else terminal.out(`${approval.name} is ${approval.phase}\n`);
            const isGood = approval.phase === "Approved" || approval.phase === "Used";
            invocation.exitCode = isGood ? exitCodes.ok : exitCodes.finding;
            return;
          }
          if (performance.now() >= deadline || terminal.stop.aborted) {
            throw new CliFailure(`${name} is not decided yet`, {
              next: "Wait longer with --timeout, or ask an approver.",
              exitCode: exitCodes.finding,
            });
          }
          await new Promise((resolve) => setTimeout(resolve, pollMs));
        }
      };
      const ask = { method: "GET", path: approvalPath(name) } as const;
      if (isCluster(options, terminal))
        await inCluster(options, terminal, (cluster) => poll(() => cluster.get(name)));
      else await poll(() => askGateway<ApprovalView>(options, terminal, ask));
    });
}

function parseTimeout(text: string): number {
  const seconds = parseLifetimeSeconds(text);
  if (seconds > timeoutSecondsMax) throw new InvalidArgumentError("At most 24h.");
  return seconds;
}
