/** `sallyport revoke`: takes an approval back. */
import type { Command } from "commander";
import {
  type ApprovalView,
  approvalPath,
  askGateway,
  type GatewayOptions,
  withGateway,
} from "../approval-client.ts";
import { inCluster, isCluster } from "../cluster-approvals.ts";
import { type OutputFormat, withOutput, writeJson } from "../output.ts";
import type { Invocation } from "../terminal.ts";

interface RevokeOptions extends GatewayOptions {
  readonly reason?: string;
  readonly output: OutputFormat;
}

/** Adds options and action. */
export function configure(command: Command, { terminal }: Invocation): void {
  withGateway(withOutput(command))
    .description("take an approval back: what runs on it ends")
    .argument("<name>", "the approved request")
    .option("--reason <text>", "why")
    .addHelpText("after", "\nExamples:\n  sallyport revoke orders-1a2b3c4d --reason done")
    .action(async (name: string, { reason, ...options }: RevokeOptions) => {
      const ask = { method: "POST", path: `${approvalPath(name)}/revocation`, body: { reason } } as const;
      const approval = isCluster(options, terminal)
        ? await inCluster(options, terminal, (cluster) => cluster.revoke(name, reason))
        : await askGateway<ApprovalView>(options, terminal, ask);
      if (options.output === "json") writeJson(terminal, approval);
      else terminal.out(`${approval.name} is taken back\n`);
    });
}
