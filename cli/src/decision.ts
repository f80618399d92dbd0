/** One decision about a request, as `approve` and `deny` make it. */
import { type ApprovalView, approvalPath, askGateway, type GatewayOptions } from "./approval-client.ts";
import { inCluster, isCluster } from "./cluster-approvals.ts";
import { type OutputFormat, writeJson } from "./output.ts";
import type { Terminal } from "./terminal.ts";

/** What both commands take. */
export interface DecisionOptions extends GatewayOptions {
  readonly comment?: string;
  readonly output: OutputFormat;
}

/** Sends the decision and says how the request stands now. */
export async function decide(
  name: string,
  decision: "Approved" | "Denied",
  options: DecisionOptions,
  terminal: Terminal,
): Promise<void> {
  const body = { decision, comment: options.comment };
  const ask = { method: "POST", path: `${approvalPath(name)}/decisions`, body } as const;
  const approval = isCluster(options, terminal)
    ? await inCluster(options, terminal, (cluster) => cluster.decide(name, decision, options.comment))
    : await askGateway<ApprovalView>(options, terminal, ask);
  if (options.output === "json") writeJson(terminal, approval);
  else terminal.out(`${approval.name} is ${approval.phase}${progressText(approval)}\n`);
}

/** In a cluster the operator counts: what is read back at once does not say yet what the decision did. */
function progressText({ progress, decisions }: ApprovalView): string {
  return progress === "" ? "" : ` (${progress}; decisions: ${decisions.length})`;
}
