/** `sallyport policy explain`: which policies applied, which rules matched, and why the verdict. */
import type {
  Analysis,
  Explanation,
  Identity,
  MaskDecision,
  NameResolver,
  SessionFacts,
  SessionMasking,
  SubjectKind,
} from "@sallyport/policy";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type AssumedNames, assumeTables } from "../assumed-names.ts";
import { CliFailure } from "../failure.ts";
import { findResource, readManifests } from "../manifest-folder.ts";
import { coloured, type OutputFormat, printable, table, withOutput, writeJson } from "../output.ts";
import { readySqlParser } from "../sql-parser.ts";
import { exitCodes, type Invocation, type Terminal } from "../terminal.ts";
import { parseResource, type ResourceName, repeated } from "../values.ts";

interface ExplainOptions {
  readonly as: string;
  readonly group: readonly string[];
  readonly kind: SubjectKind;
  readonly serviceAccount?: ResourceName;
  readonly claim: readonly (readonly [string, unknown])[];
  readonly resource: ResourceName;
  readonly manifests: string;
  readonly database: string;
  readonly account: string;
  readonly applicationName: string;
  readonly clientAddress: string;
  readonly table: readonly string[];
  readonly searchPath: readonly string[];
  readonly at?: number;
  readonly output: OutputFormat;
}

/** Adds options and action. */
export function configure(command: Command, invocation: Invocation): void {
  withOutput(command)
    .description("say which policies apply to a statement, which rules match, and why it is decided as it is")
    .argument("<sql>", "the statement, or several")
    .requiredOption("--as <user>", "who asks, with the provider's prefix")
    .option("-g, --group <name>", "a group of the user, with the prefix (repeatable)", repeated(String), [])
    .addOption(
      new Option("--kind <kind>", "what the user is")
        .choices(["Human", "Workload", "Agent"])
        .default("Human"),
    )
    .option("--service-account <ns/name>", "the user's Kubernetes service account", parseResource)
    .option(
      "--claim <name=value>",
      "a claim that rules read; JSON or text (repeatable)",
      repeated(parseClaim),
      [],
    )
    .requiredOption("--resource <ns/name>", "what is asked for", parseResource)
    .requiredOption("--manifests <dir>", "folder of manifests")
    .option("--database <name>", "the session's database", "postgres")
    .option("--account <name>", "the account upstream", "")
    .option("--application-name <name>", "what the client calls itself", "")
    .option("--client-address <address>", "where the client comes from", "")
    .option(
      "--table <declaration>",
      "a table or view that is there, such as `public.orders(id, total)` (repeatable)",
      repeated(String),
      [],
    )
    .option("--search-path <schemas>", "schemas of unqualified names, comma separated", parsePath, ["public"])
    .option("--at <time>", "when it is asked, such as 2026-01-05T12:00:00Z (default: now)", parseTime)
    .addHelpText("after", help)
    .action(async (sql: string, options: ExplainOptions) => {
      invocation.exitCode = await explain(sql, options, invocation.terminal);
    });
}

const help = `
The exit code is 0 where the statement is allowed, 1 where it is denied or needs approval.
Tables that are not declared are taken to be plain tables, and the answer says which; the gateway asks the server.

Example:
  sallyport policy explain "DELETE FROM orders" --as local:alice -g local:analysts \\
    --resource shop/shop --manifests manifests/`;

async function explain(sql: string, options: ExplainOptions, terminal: Terminal): Promise<number> {
  const folder = await readManifests(options.manifests, terminal);
  if (!folder.isTaken) {
    throw new CliFailure(`the gateway would not take the manifests in ${options.manifests}`, {
      next: `See what is wrong: sallyport validate ${options.manifests}`,
      exitCode: exitCodes.finding,
    });
  }
  const { facts: resource, enforcement } = await findResource(folder, options.resource);
  const { analyseSql, forSession, refusedByMasks } = await import("@sallyport/policy");
  await readySqlParser();
  const session = forSession(folder.set, {
    resource,
    identity: identityOf(options),
    session: sessionOf(options),
  });
  const masking = session.masking();
  const { names, assumed } = await namesFor(options, masking);
  const analysis: Analysis = analyseSql(sql, names, { masked: masking.columns });
  if (analysis.kind === "rejected") {
    if (options.output === "json") writeJson(terminal, analysis);
    else writeRejection(analysis, terminal);
    return exitCodes.finding;
  }
  const parts = analysis.statements.flatMap((statement) => statement.parts);
  const command = { protocol: resource.protocol, text: sql, parts };
  const decisions = analysis.statements.flatMap(({ lineage }) =>
    lineage === undefined ? [] : [masking.decide(lineage)],
  );
  const explained = session.explain(command, { nowMs: options.at ?? terminal.now() });
  const explanation = { ...explained, verdict: refusedByMasks(explained.verdict, decisions) };
  if (options.output === "json")
    writeJson(terminal, { ...explanation, masks: decisions, enforcement, assumedTables: [...assumed] });
  else {
    writeExplanation(explanation, assumed, terminal);
    writeMasks(masking, decisions, terminal);
  }
  if (enforcement === "Audit" && options.output === "text") {
    terminal.out(
      "\nThe resource's enforcement is Audit: this verdict is recorded, and nothing is held back.\n",
    );
  }
  return explanation.verdict.action === "Allow" ? exitCodes.ok : exitCodes.finding;
}

async function namesFor(
  { table: tables, searchPath }: ExplainOptions,
  masking: SessionMasking,
): Promise<AssumedNames> {
  const { staticNames } = await import("@sallyport/policy");
  let declared: NameResolver;
  try {
    declared = staticNames(tables, ["pg_catalog", ...searchPath]);
  } catch (cause) {
    throw new CliFailure("a --table is no declaration", {
      next: "Write it as `public.orders(id, total)`, or `view public.open(id) as SELECT …`.",
      cause,
    });
  }
  return assumeTables(declared, (schema, name) => masking.columns.columnsNamed(schema, name));
}

function identityOf({ as, group, kind, serviceAccount, claim }: ExplainOptions): Identity {
  return {
    provider: as.includes(":") ? (as.split(":")[0] ?? "") : "",
    user: as,
    groups: group,
    kind,
    claims: Object.fromEntries(claim),
    ...(serviceAccount === undefined ? {} : { serviceAccount }),
  };
}

function sessionOf({ database, account, applicationName, clientAddress }: ExplainOptions): SessionFacts {
  return { database, account, applicationName, clientAddress };
}

function writeRejection(
  { sqlstate, message, hint }: Extract<Analysis, { kind: "rejected" }>,
  terminal: Terminal,
): void {
  terminal.out(`${coloured(terminal, "red", "rejected")}: ${sqlstate} ${printable(message)}\n`);
  if (hint !== undefined) terminal.out(`  hint: ${printable(hint)}\n`);
  terminal.out("What cannot be parsed or resolved is answered in PostgreSQL's words and never forwarded.\n");
}

function writeExplanation(explanation: Explanation, assumed: ReadonlySet<string>, terminal: Terminal): void {
  const { verdict, policies, parts } = explanation;
  const { columns } = terminal;
  const colour = verdict.action === "Allow" ? "green" : verdict.action === "Deny" ? "red" : "yellow";
  terminal.out(`${coloured(terminal, colour, verdict.action)} (${verdict.enforcement})\n`);
  if (verdict.rule !== undefined) terminal.out(`  rule: ${printable(nameOf(verdict.rule))}\n`);
  if (verdict.message !== "") terminal.out(`  message: ${printable(verdict.message)}\n`);
  if (verdict.hint !== undefined) terminal.out(`  hint: ${printable(verdict.hint)}\n`);
  const limits = Object.entries(verdict.limits).map(([name, value]) => `${name} ${String(value)}`);
  if (limits.length > 0) terminal.out(`  limits: ${limits.join(", ")}\n`);
  const policyRows = policies.map((policy) => [
    policy.applies ? "yes" : "no",
    policy.mode ?? "-",
    `${policy.kind} ${policy.namespace === undefined ? "" : `${policy.namespace}/`}${policy.policy}`,
    policy.why,
  ]);
  terminal.out("\nPolicies\n");
  terminal.out(table(["APPLIES", "MODE", "POLICY", "WHY"], policyRows, columns));
  for (const [index, part] of parts.entries()) {
    const objects = part.objects.length === 0 ? "" : ` on ${part.objects.join(", ")}`;
    const what = `Part ${index + 1}: ${part.operation} ${part.words.join(", ")}${objects} (${part.enforcement})`;
    terminal.out(`\n${printable(what)}\n${printable(`${part.action}: ${part.why}`)}\n`);
    const rows = part.rules.map((rule) => [
      rule.matched ? "yes" : "no",
      rule.mode === "Audit" ? `${rule.action} (audit)` : rule.action,
      nameOf(rule),
      rule.enforcement,
      rule.why,
    ]);
    if (rows.length > 0)
      terminal.out(table(["MATCHED", "ACTION", "RULE", "ENFORCEMENT", "WHY"], rows, columns));
  }
  if (assumed.size === 0) return;
  terminal.out(
    `\nTaken to be plain tables: ${printable([...assumed].join(", "))}; --table declares others.\n`,
  );
}

/** What the rows would show in place of values, and by which entry. */
function writeMasks(masking: SessionMasking, decisions: readonly MaskDecision[], terminal: Terminal): void {
  if (masking.isEmpty) return;
  terminal.out("\nMasks\n");
  const rows = decisions.flatMap((decision, at) => {
    const statement = String(at + 1);
    if (decision.kind === "plain") return [[statement, "-", "shown as it is", "", ""]];
    if (decision.kind === "deny")
      return [[statement, "-", "refused", nameOf(decision.ref), decision.message]];
    const { columns, rest } = decision;
    const shown =
      rest === undefined
        ? columns.map((choice, index) => [String(index + 1), choice] as const)
        : [["all", rest] as const];
    return shown.map(([column, choice]) =>
      choice === undefined
        ? [statement, column, "shown as it is", "", ""]
        : [statement, column, choice.with, nameOf(choice.ref), choice.columns.join(", ")],
    );
  });
  if (rows.length > 0)
    terminal.out(table(["STATEMENT", "COLUMN", "MASK", "ENTRY", "BECAUSE OF"], rows, terminal.columns));
  for (const { ref, patterns, customPatterns } of masking.patterns) {
    const names = [...patterns, ...customPatterns.map(({ name }) => name)].join(", ");
    terminal.out(`${printable(`In every value: ${names}, by ${nameOf(ref)}.`)}\n`);
  }
}

const nameOf = ({ policy, rule }: { readonly policy: string; readonly rule: string }): string =>
  `${policy}/${rule}`;

function parseClaim(text: string): readonly [string, unknown] {
  const [, name, value] = /^([^=]+)=([\s\S]*)$/.exec(text) ?? [];
  if (name === undefined || value === undefined) throw new InvalidArgumentError("Write it as name=value.");
  try {
    const parsed: unknown = JSON.parse(value);
    return [name, parsed];
  } catch {
    // Not JSON: the text itself is meant.
    return [name, value];
  }
}

function parsePath(text: string): readonly string[] {
  const schemas = text.split(",").map((schema) => schema.trim());
  if (schemas.includes("")) throw new InvalidArgumentError("Write it as schema,schema.");
  return schemas;
}

function parseTime(text: string): number {
  const ms = Date.parse(text);
  if (Number.isNaN(ms)) throw new InvalidArgumentError("Write it as 2026-01-05T12:00:00Z.");
  return ms;
}
