/** `sallyport approvals`: which requests wait for a decision. */
import type { Command } from "commander";
import { type ApprovalView, askGateway, type GatewayOptions, withGateway } from "../approval-client.ts";
import { inCluster, isCluster } from "../cluster-approvals.ts";
import { type OutputFormat, printable, table, withOutput, writeJson } from "../output.ts";
import type { Invocation } from "../terminal.ts";

interface ApprovalsOptions extends GatewayOptions {
  readonly all: boolean;
  readonly output: OutputFormat;
}

/** Adds options and action. */
export function configure(command: Command, { terminal }: Invocation): void {
  withGateway(withOutput(command))
    .description("list the requests that you may decide about, and your own")
    .argument("[name]", "show this one whole")
    .option("--all", "also those that are over", false)
    .addHelpText(
      "after",
      "\nExamples:\n  sallyport approvals\n  sallyport approvals orders-1a2b3c4d\n  sallyport approvals -n shop",
    )
    .action(async (name: string | undefined, options: ApprovalsOptions) => {
      const ask = { method: "GET", path: "/v1/approvals" } as const;
      const approvals = isCluster(options, terminal)
        ? await inCluster(options, terminal, (cluster) => cluster.list())
        : (await askGateway<{ readonly approvals: readonly ApprovalView[] }>(options, terminal, ask))
            .approvals;
      const isWanted = (one: ApprovalView) =>
        name === undefined ? options.all || one.phase === "Pending" : one.name === name;
      const wanted = approvals.filter(isWanted);
      if (options.output === "json") writeJson(terminal, wanted);
      else if (wanted.length === 0) terminal.err("No request waits for you.\n");
      else if (name !== undefined) for (const one of wanted) terminal.out(describe(one));
      else terminal.out(table(headings, wanted.map(rowOf), terminal.columns));
    });
}

const headings = ["NAME", "PHASE", "APPROVALS", "REQUESTER", "RESOURCE", "UNTIL", "COMMAND"];

function rowOf(one: ApprovalView): readonly string[] {
  const { name, phase, progress, requester, resource, expiresAt, command, type } = one;
  return [name, phase, progress, requester, resource, expiresAt, command ?? type];
}

/** All that an approver should read before a decision. */
export function describe(one: ApprovalView): string {
  const rules = one.policies.map(({ policy, rule, required }) => `${policy}/${rule} (${required})`);
  const lines: (readonly [string, string | undefined])[] = [
    ["Name", one.name],
    ["Phase", `${one.phase} ${one.progress}`],
    ["Requester", `${one.requester} (${one.subjectKind})`],
    ["On behalf of", one.onBehalfOf],
    ["Resource", one.resource],
    ["Rules", rules.join(", ")],
    ["Reason", one.reason],
    ["Until", one.expiresAt],
    ["Transaction", one.inTransaction ? "open: it holds its locks while this waits" : undefined],
    ...one.decisions.map(({ approver, decision, comment }): readonly [string, string] => [
      decision,
      `by ${approver}${comment === undefined ? "" : `: ${comment}`}`,
    ]),
    ...(one.parameters ?? []).map((value, index): readonly [string, string] => [`$${index + 1}`, value]),
    ...(one.context ?? []).map(({ label, text }): readonly [string, string] => [label, text]),
  ];
  const head = lines
    .filter((line): line is readonly [string, string] => line[1] !== undefined)
    .map(([label, value]) => `${label.padEnd(13)}${printable(value)}\n`);
  const command = (one.command ?? "").split("\n").map((line) => `  ${printable(line)}\n`);
  return `${head.join("")}${one.command === undefined ? "" : `Command\n${command.join("")}`}`;
}
