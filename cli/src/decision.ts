/** One decision about a request, as `approve` and `deny` make it. */
import { type ApprovalView, approvalPath, askGateway, type GatewayOptions } from "./approval-client.ts";
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
  const approval = await askGateway<ApprovalView>(options, terminal, ask);
  if (options.output === "json") writeJson(terminal, approval);
  else terminal.out(`${approval.name} is ${approval.phase} (${approval.progress})\n`);
}
