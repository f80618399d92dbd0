/** `sallyport request`: asks for leave to do for a while what a rule wants approved. */
import type { Command } from "commander";
import { type ApprovalView, askGateway, type GatewayOptions, withGateway } from "../approval-client.ts";
import { inCluster, isCluster } from "../cluster-approvals.ts";
import { type OutputFormat, withOutput, writeJson } from "../output.ts";
import type { Invocation } from "../terminal.ts";
import { parseResource, type ResourceName } from "../values.ts";

interface RequestOptions extends GatewayOptions {
  readonly rule: string;
  readonly duration?: string;
  readonly reason?: string;
  readonly output: OutputFormat;
}

/** Adds options and action. */
export function configure(command: Command, { terminal }: Invocation): void {
  withGateway(withOutput(command))
    .description("ask for access for a while, where a rule says grant: Window")
    .argument("<resource>", "namespace/name", parseResource)
    .requiredOption(
      "--rule <name>",
      "the rule that asks: POLICY/RULE, cluster/POLICY/RULE; RULE on this machine",
    )
    .option("--duration <duration>", "how long: 30m, 2h; the rule bounds it; in a cluster 30m where absent")
    .option("--reason <text>", "why; the approvers read it")
    .addHelpText(
      "after",
      '\nExamples:\n  sallyport request shop/orders --rule schema-changes --duration 30m --reason "release 7"',
    )
    .action(async ({ namespace, name }: ResourceName, options: RequestOptions) => {
      const { rule, duration, reason } = options;
      const body = { resource: `${namespace}/${name}`, rule, duration, reason };
      const ask = { method: "POST", path: "/v1/approvals", body } as const;
      const isThere = isCluster(options, terminal);
      // The request lies beside the resource, whatever namespace the context has.
      const at = { ...options, namespace };
      const wish = {
        resource: name,
        rule,
        duration: duration ?? "30m",
        ...(reason === undefined ? {} : { reason }),
      };
      const approval = isThere
        ? await inCluster(at, terminal, (cluster) => cluster.request(wish))
        : await askGateway<ApprovalView>(options, terminal, ask);
      if (options.output === "json") writeJson(terminal, approval);
      else {
        terminal.out(`${approval.name}\n`);
        terminal.err(
          `Approvers run: sallyport approve ${approval.name}${isThere ? ` -n ${namespace}` : ""}\n`,
        );
      }
    });
}
