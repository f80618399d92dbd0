/** `sallyport audit`: what stands beside the gateways. `rbac`: who could go past one before an API server. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import type { Command } from "commander";
import { CliFailure } from "../failure.ts";
import { counted, type OutputFormat, table, withOutput, writeJson } from "../output.ts";
import { auditRbac, type RbacObject } from "../rbac-audit.ts";
import { exitCodes, type Invocation } from "../terminal.ts";
import { inFolder } from "../values.ts";

interface AuditOptions {
  readonly from?: string;
  readonly kubeconfig?: string;
  readonly context?: string;
  readonly gatewayRole: string;
  readonly all?: true;
  readonly output: OutputFormat;
}

const kubectlMs = 60_000;
const bytesMax = 256 * 1024 * 1024;
const kinds = "clusterroles,clusterrolebindings,roles,rolebindings";

/** Adds the subcommand. */
export function configure(command: Command, invocation: Invocation): void {
  command.description("look for what goes past the gateways");
  withOutput(command.command("rbac"))
    .description(
      "list who has rights by which a gateway before an API server is passed by, nodes/proxy above all",
    )
    .option("--from <file>", `what \`kubectl get ${kinds} -A -o json\` printed; default: kubectl is asked`)
    .option("--kubeconfig <file>", "kubectl's configuration")
    .option("--context <name>", "kubectl's context")
    .option("--gateway-role <name>", "the chart's role for gateways", "sallyport-impersonator")
    .option("--all", "also the cluster's own components and bound gateways")
    .addHelpText("after", "\nExit code 1 where somebody has such a right who is no component of the cluster.")
    .action((options: AuditOptions) => audit(options, invocation));
}

async function audit(options: AuditOptions, invocation: Invocation): Promise<void> {
  const { terminal } = invocation;
  const found = auditRbac(itemsOf(await rbacOf(options, terminal.cwd)), options.gatewayRole);
  const shown = options.all === true ? found : found.filter(({ isExpected }) => !isExpected);
  if (found.some(({ isExpected }) => !isExpected)) invocation.exitCode = exitCodes.finding;
  if (options.output === "json") return writeJson(terminal, shown);
  if (shown.length === 0) {
    terminal.out("Nobody but the cluster's own components has a right that leads past a gateway.\n");
    return;
  }
  const rows = shown.map(({ right, subject, binding, role }) => [right, subject, binding, role]);
  terminal.out(table(["RIGHT", "SUBJECT", "BINDING", "ROLE"], rows, terminal.columns));
  terminal.out(`\n${counted(shown.length, "way")} past a gateway:\n`);
  for (const [right, why] of new Map(shown.map((one) => [one.right, one.why])))
    terminal.out(`  ${right}: ${why}\n`);
}

function itemsOf(text: string): readonly RbacObject[] {
  const next = `Write it by: kubectl get ${kinds} -A -o json`;
  let items: unknown;
  try {
    items = (JSON.parse(text) as { readonly items?: unknown } | null)?.items;
  } catch (cause) {
    throw new CliFailure("this is no JSON", { next, cause });
  }
  const isObject = (one: Partial<RbacObject> | null) =>
    typeof one?.kind === "string" && typeof one.metadata?.name === "string";
  if (!Array.isArray(items) || !items.every(isObject))
    throw new CliFailure("this is no list of roles and bindings", { next });
  return items;
}

async function rbacOf({ from, kubeconfig, context }: AuditOptions, cwd: string): Promise<string> {
  if (from !== undefined) {
    return readFile(inFolder(cwd, from), "utf8").catch((cause: unknown) => {
      throw new CliFailure(`cannot read ${from}`, { next: "Name a file that kubectl has written.", cause });
    });
  }
  const flags = [
    ...(kubeconfig === undefined ? [] : ["--kubeconfig", inFolder(cwd, kubeconfig)]),
    ...(context === undefined ? [] : ["--context", context]),
  ];
  try {
    const argv = [...flags, "get", kinds, "--all-namespaces", "--output", "json"];
    const { stdout } = await promisify(execFile)("kubectl", argv, {
      timeout: kubectlMs,
      maxBuffer: bytesMax,
      cwd,
    });
    return stdout;
  } catch (cause) {
    throw new CliFailure("kubectl could not list roles and bindings", {
      next: "Whoever audits needs to list them; or give --from FILE.",
      cause,
    });
  }
}
