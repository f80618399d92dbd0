/**
 * Policies tested like code: a case file declares policies, who asks and what is expected. `sallyport policy test`
 * runs the same files that prove our own sentences in `testdata/evaluate`. Pure: reading YAML and parsing SQL come
 * from the caller.
 *
 *     title: what the file proves
 *     policies: [manifests]            # and `manifests: folder`, which the caller loads
 *     resource: {namespace: shop, name: orders, labels: {}, namespaceLabels: {}}
 *     identities: {alice: {user: "okta:alice", groups: ["okta:analysts"]}}
 *     tables: ["public.orders(id, total)", "view public.open(id) as SELECT …"]
 *     now: "2026-01-05T12:00:00Z"
 *     problems: [{policy: p, path: spec.profile, reason: Contradictory}]
 *     cases:
 *     - {as: alice, sql: SELECT 1, expect: {action: Allow, rule: policy/rule}}
 *     - {as: alice, connect: true, expect: {action: Deny, message: part of the message}}
 *     - {as: alice, sql: SELEC, expect: {sqlstate: "42601"}}
 */
import { compilePolicies, type PolicyFeatures, type PolicyProblem } from "./compile.ts";
import type { AccessPolicySpec, PolicyDocument, ResourceDocument } from "./documents.ts";
import { forSession } from "./evaluate.ts";
import { type MaskDecision, refusedByMasks, type SessionMasking } from "./masking/session-masking.ts";
import type { MaskedColumns } from "./masking/trace.ts";
import type { Command, CommandPart, Identity, ResourceFacts, Verdict } from "./model.ts";
import type { Analysis } from "./sql/analysis.ts";
import type { NameResolver } from "./sql/names.ts";
import { staticNames } from "./static-names.ts";

/** What the caller brings to a run. */
export interface CaseRunner {
  readonly analyse: (
    sql: string,
    names: NameResolver,
    options?: { readonly masked?: MaskedColumns },
  ) => Analysis;
  /** Manifests loaded from the folder that the file names; the file's own policies come on top. */
  readonly policies?: readonly PolicyDocument[];
  readonly resources?: readonly ResourceDocument[];
}

/** The outcome of one case: it passed where `differences` is empty. */
export interface CaseResult {
  readonly name: string;
  readonly differences: readonly string[];
  readonly verdict?: Verdict;
}

/** The outcome of a file; `problems` are those that no expectation named. */
export interface CaseFileResult {
  readonly title: string;
  readonly results: readonly CaseResult[];
  readonly problems: readonly PolicyProblem[];
}

/** A file that is no case file; the message says where and what to write. */
export class CaseFileError extends Error {}

/** Runs every case of a parsed case file. Throws a CaseFileError where the file itself is wrong. */
export function runPolicyCases(document: unknown, runner: CaseRunner): CaseFileResult {
  const file = record(document, "the file");
  known(file, fileFields, "the file");
  const resource = resourceFacts(record(file.resource ?? {}, "resource"));
  const own = list(file.policies, "policies").map((one, index) => policyDocument(one, `policies[${index}]`));
  const resources = [...(runner.resources ?? []), ...declaredResources(file, resource)];
  const features = {
    masking: true,
    approvals: false,
    rowLimits: true,
    ...record(file.features ?? {}, "features"),
  } as PolicyFeatures;
  const namespaces = new Map([[resource.namespace, resource.namespaceLabels]]);
  const options = { features, namespaces };
  const former = list(file.previous, "previous").map((one, index) =>
    policyDocument(one, `previous[${index}]`),
  );
  const previous = compilePolicies(former, resources, options).set;
  const { set, problems } = compilePolicies([...(runner.policies ?? []), ...own], resources, {
    ...options,
    previous,
  });
  const nowMs = Date.parse(text(file.now ?? "2026-01-05T12:00:00Z", "now"));
  if (Number.isNaN(nowMs)) throw new CaseFileError("now must be a time such as 2026-01-05T12:00:00Z");
  const names = namesOf(file);
  const identities = record(file.identities ?? {}, "identities");
  const results = list(file.cases, "cases").map((one, index): CaseResult => {
    const at = `cases[${index}]`;
    const given = record(one, at);
    known(given, caseFields, at);
    const name = text(given.name ?? given.sql ?? at, `${at}.name`);
    const identity = identityOf(
      given.as === undefined ? file.identity : record(identities, "identities")[text(given.as, `${at}.as`)],
      given.as === undefined ? "identity" : `identities.${String(given.as)}`,
    );
    const session = {
      database: "app",
      account: "app",
      applicationName: "",
      clientAddress: "192.0.2.1",
      ...record(given.session ?? {}, `${at}.session`),
    };
    const policy = forSession(set, { resource, identity, session });
    const expect = record(given.expect, `${at}.expect`);
    known(expect, expectFields, `${at}.expect`);
    if (given.connect === true) return compared(name, expect, policy.mayConnect);
    const masking = policy.masking();
    const command = commandOf(given, at, { runner, names, masking });
    if (command.kind === "rejected") {
      const { sqlstate, message } = command;
      const isExpected = expect.sqlstate === sqlstate;
      return { name, differences: isExpected ? [] : [`rejected with ${sqlstate}: ${message}`] };
    }
    const facts = { nowMs: given.now === undefined ? nowMs : Date.parse(text(given.now, `${at}.now`)) };
    const verdict = refusedByMasks(policy.decide(command.command, facts), command.decisions);
    return compared(name, expect, { ...verdict, masked: command.decisions.flatMap(methodsOf) });
  });
  const { missing, unexpected } = compareProblems(list(file.problems, "problems"), problems);
  return { title: text(file.title ?? "", "title"), results: [...results, ...missing], problems: unexpected };
}

/** Reads a manifest of either policy kind. */
export function policyDocument(manifest: unknown, at: string): PolicyDocument {
  const { kind, metadata, spec } = record(manifest, at);
  if (kind !== "AccessPolicy" && kind !== "ClusterAccessPolicy") {
    throw new CaseFileError(`${at}.kind must be AccessPolicy or ClusterAccessPolicy`);
  }
  const { name, namespace, generation } = record(metadata, `${at}.metadata`);
  return {
    kind,
    ...(typeof namespace === "string" && { namespace }),
    name: text(name, `${at}.metadata.name`),
    generation: typeof generation === "number" ? generation : 1,
    spec: record(spec, `${at}.spec`) as AccessPolicySpec,
  };
}

type Fields = Readonly<Record<string, unknown>>;

const fileFields = (
  "title manifests policies previous resource resources features identity identities tables searchPath now cases " +
  "problems"
).split(" ");
const caseFields = ["name", "as", "sql", "command", "session", "connect", "now", "expect"];
const expectFields =
  "action rule message hint enforcement cacheable readsText limits audit sqlstate masked".split(" ");

interface CaseContext {
  readonly runner: CaseRunner;
  readonly names: NameResolver;
  readonly masking: SessionMasking;
}

type CaseCommand =
  | { readonly kind: "command"; readonly command: Command; readonly decisions: readonly MaskDecision[] }
  | { readonly kind: "rejected"; readonly sqlstate: string; readonly message: string };

function commandOf(given: Fields, at: string, { runner, names, masking }: CaseContext): CaseCommand {
  if (given.sql === undefined)
    return { kind: "command", command: declaredCommand(given.command, `${at}.command`), decisions: [] };
  const sql = text(given.sql, `${at}.sql`);
  const analysis = runner.analyse(sql, names, { masked: masking.columns });
  if (analysis.kind === "rejected") return analysis;
  const parts = analysis.statements.flatMap((statement) => statement.parts);
  const decisions = analysis.statements.flatMap(({ lineage }) =>
    lineage === undefined ? [] : [masking.decide(lineage)],
  );
  return { kind: "command", command: { protocol: "postgres", text: sql, parts }, decisions };
}

/** How each column of a statement's rows is hidden: a method, or `-` for one that is shown. */
function methodsOf(decision: MaskDecision): readonly string[] {
  if (decision.kind !== "mask") return [];
  if (decision.rest !== undefined) return [`all ${decision.rest.with}`];
  return decision.columns.map((choice) => choice?.with ?? "-");
}

/** A command without a parser: parts with the fields that matter, objects by name. */
function declaredCommand(given: unknown, at: string): Command {
  const command = record(given, at);
  const parts = list(command.parts, `${at}.parts`).map((one, index): CommandPart => {
    const part = record(one, `${at}.parts[${index}]`);
    const objects = (key: string, direct: boolean): CommandPart["objects"] =>
      list(part[key], `${at}.parts[${index}].${key}`).map((object) => {
        if (typeof object === "string") return { name: object, kind: "relation", direct };
        return { kind: "relation", direct, ...record(object, key) } as CommandPart["objects"][number];
      });
    return {
      operation: text(part.operation, `${at}.parts[${index}].operation`) as CommandPart["operation"],
      words: list(part.words, `${at}.parts[${index}].words`).map(String),
      objects: [...objects("objects", true), ...objects("indirect", false)],
      unbounded: part.unbounded === true,
      enforcement: part.enforcement === "heuristic" ? "heuristic" : "authoritative",
    };
  });
  const argv = command.argv === undefined ? {} : { argv: list(command.argv, `${at}.argv`).map(String) };
  return { protocol: "postgres", text: text(command.text ?? "", `${at}.text`), parts, ...argv };
}

function compared(
  name: string,
  expect: Fields,
  verdict: Verdict & { readonly masked?: readonly string[] },
): CaseResult {
  const rule = verdict.rule === undefined ? "none" : `${verdict.rule.policy}/${verdict.rule.rule}`;
  const audit = verdict.audit.map((one) => `${one.policy}/${one.rule?.rule ?? "none"} ${one.action}`);
  const actual: Fields = { ...verdict, rule, audit, readsText: verdict.readsText === true };
  const differences = Object.entries(expect).flatMap(([key, wanted]) => {
    const got = actual[key];
    const isSame =
      key === "message" || key === "hint"
        ? String(got ?? "").includes(String(wanted))
        : JSON.stringify(sorted(got)) === JSON.stringify(sorted(wanted));
    return isSame ? [] : [`${key}: expected ${JSON.stringify(wanted)}, got ${JSON.stringify(got)}`];
  });
  return { name, differences, verdict };
}

function compareProblems(
  expected: readonly unknown[],
  problems: readonly PolicyProblem[],
): { readonly missing: readonly CaseResult[]; readonly unexpected: readonly PolicyProblem[] } {
  const left = [...problems];
  const missing = expected.flatMap((one, index): readonly CaseResult[] => {
    const wanted = record(one, `problems[${index}]`);
    const at = left.findIndex(
      (problem) =>
        problem.policy === wanted.policy &&
        problem.path === wanted.path &&
        problem.reason === wanted.reason &&
        problem.message.includes(String(wanted.message ?? "")),
    );
    if (at >= 0) left.splice(at, 1);
    const name = `problem ${String(wanted.reason)} at ${String(wanted.path)}`;
    return [{ name, differences: at >= 0 ? [] : ["the compiler did not report it"] }];
  });
  return { missing, unexpected: left };
}

function resourceFacts(given: Fields): ResourceFacts {
  return {
    namespace: text(given.namespace ?? "shop", "resource.namespace"),
    name: text(given.name ?? "orders", "resource.name"),
    labels: record(given.labels ?? {}, "resource.labels") as Record<string, string>,
    namespaceLabels: record(given.namespaceLabels ?? {}, "resource.namespaceLabels") as Record<
      string,
      string
    >,
    protocol: text(given.protocol ?? "postgres", "resource.protocol"),
  };
}

function declaredResources(file: Fields, own: ResourceFacts): readonly ResourceDocument[] {
  const others = list(file.resources, "resources").map((one) => resourceFacts(record(one, "resources")));
  return [own, ...others].map(({ namespace, name, labels, protocol }) => ({
    namespace,
    name,
    labels,
    spec: { protocol },
  }));
}

function identityOf(given: unknown, at: string): Identity {
  const identity = record(given, at);
  return {
    provider: "local",
    groups: [],
    kind: "Human",
    claims: {},
    ...identity,
    user: text(identity.user, `${at}.user`),
  };
}

function namesOf(file: Fields): NameResolver {
  const path = file.searchPath === undefined ? undefined : list(file.searchPath, "searchPath").map(String);
  try {
    return staticNames(list(file.tables, "tables").map(String), path);
  } catch (error) {
    throw new CaseFileError(`tables: ${error instanceof Error ? error.message : "cannot be read"}`);
  }
}

function record(value: unknown, at: string): Fields {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Fields;
  throw new CaseFileError(`${at} must be a map of fields`);
}

function list(value: unknown, at: string): readonly unknown[] {
  if (value === undefined) return [];
  if (Array.isArray(value)) return value;
  throw new CaseFileError(`${at} must be a list`);
}

function text(value: unknown, at: string): string {
  if (typeof value === "string") return value;
  throw new CaseFileError(`${at} must be a text`);
}

function known(given: Fields, allowed: readonly string[], at: string): void {
  const unknownField = Object.keys(given).find((key) => !allowed.includes(key));
  if (unknownField === undefined) return;
  throw new CaseFileError(`${at} has no field ${unknownField}; there are ${allowed.join(", ")}`);
}

/** Lists keep their order, fields do not: a case file may write them in any. */
function sorted(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
