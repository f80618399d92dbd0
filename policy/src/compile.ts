/**
 * Manifests to rules that the evaluator can run. Every problem of every policy is found in one go; a policy with a
 * problem is not accepted, its last accepted generation stays in force, and where there is none the resources that
 * it names deny: a floor that failed to compile must not become a hole.
 */
import { durationMs, isSelectedBy, policyName } from "@sallyport/crds/pure";
import { type CelProgram, compileCel, regexProblem } from "./cel.ts";
import type {
  AccessPolicySpec,
  ApprovalSpec,
  LabelSelector,
  MaskingSpec,
  PolicyDocument,
  PolicyRule,
  Requirements,
  ResourceDocument,
  RuleMatch,
  SubjectEntry,
} from "./documents.ts";
import { namesFiles } from "./file-rules.ts";
import { isRequirement } from "./floors.ts";
import { readLimits } from "./limits.ts";
import { type PatternName, patternNames } from "./masking/patterns.ts";
import type { CompiledMask, MaskMethodName, PolicyMasking } from "./masking/session-masking.ts";
import {
  coveringMatcher,
  type Labels,
  type NameMatcher,
  objectMatcher,
  selectorProblem,
  wordMatcher,
} from "./match.ts";
import type {
  ApprovalTerms,
  CommandPart,
  Enforcement,
  Identity,
  ObjectRef,
  Operation,
  ResourceFacts,
  RuleRef,
  SessionLimits,
  SubjectKind,
  VerdictAction,
} from "./model.ts";
import { maskedReads, type ProfileName, profileNames, profiles } from "./profiles.ts";

/** What this build can enforce; the steps that bring masking and approvals switch them on. */
export interface PolicyFeatures {
  readonly masking: boolean;
  readonly approvals: boolean;
  /** Limits on rows returned and rows changed; absent: they cannot be enforced. */
  readonly rowLimits?: boolean;
}

/** Why a document is not accepted, as its condition tells it. */
export type ProblemReason =
  | "InvalidCel"
  | "InvalidRegex"
  | "InvalidField"
  | "UnknownField"
  | "UnknownReference"
  | "Contradictory"
  | "Duplicate"
  | "NotEnforceable";

/** One thing wrong with one policy. */
export interface PolicyProblem {
  readonly kind: PolicyDocument["kind"];
  readonly namespace?: string;
  readonly policy: string;
  /** Field path in the manifest: `spec.rules[1].match.cel`. */
  readonly path: string;
  readonly reason: ProblemReason;
  readonly message: string;
}

/** A rule ready to be judged; absent keys match everything. */
export interface CompiledRule {
  readonly ref: RuleRef;
  readonly action: VerdictAction;
  readonly message?: string;
  readonly operations?: ReadonlySet<Operation>;
  readonly word?: NameMatcher;
  /** A condition of a profile on the part as a whole. */
  readonly part?: (part: CommandPart) => boolean;
  readonly object?: (object: ObjectRef) => boolean;
  readonly unbounded: boolean;
  readonly cel?: CelProgram;
  /** True where it can tell one file that is moved from another; absent: it cannot. */
  readonly namesFiles?: true;
  /** Of a RequireApproval rule. */
  readonly terms?: ApprovalTerms;
}

/** Which resources and whom a policy names. */
export interface PolicyScope {
  readonly kind: PolicyDocument["kind"];
  readonly namespace?: string;
  readonly name: string;
  readonly namesResource: (resource: ResourceFacts) => boolean;
}

/** An accepted policy. */
export interface CompiledPolicy extends PolicyScope {
  /** What it requires of the resources that it names. */
  readonly requires?: Requirements;
  readonly generation: number;
  readonly mode: "Enforce" | "Audit";
  readonly profile: ProfileName;
  readonly subjects: readonly SubjectEntry[];
  readonly rules: readonly CompiledRule[];
  readonly limits: SessionLimits;
  /** What it hides on that resource; undefined: nothing. Tags mean what the resource says that they mean. */
  readonly maskingOn: (resource: ResourceFacts) => PolicyMasking | undefined;
}

/** Everything in force: immutable, shared by all sessions. */
export interface PolicySet {
  /** Ordered by identity, never by how they were listed. */
  readonly policies: readonly CompiledPolicy[];
  /** Policies that were never accepted: what they name denies. */
  readonly invalid: readonly PolicyScope[];
  readonly features: PolicyFeatures;
}

/** What compilation knows besides the documents. */
export interface CompileOptions {
  /** The set in force until now: the source of last accepted generations. */
  readonly previous?: PolicySet;
  readonly features?: PolicyFeatures;
  /** Labels of the known namespaces, to check what a ClusterAccessPolicy refers to. */
  readonly namespaces?: ReadonlyMap<string, Labels>;
}

/** Compiles all policies there are. Never throws for what a document holds. */
export function compilePolicies(
  policies: readonly PolicyDocument[],
  resources: readonly ResourceDocument[],
  options: CompileOptions = {},
): { readonly set: PolicySet; readonly problems: readonly PolicyProblem[] } {
  const features = options.features ?? { masking: true, approvals: false, rowLimits: true };
  const accepted: CompiledPolicy[] = [];
  const invalid: PolicyScope[] = [];
  const problems: PolicyProblem[] = [];
  const known = new Map(options.previous?.policies.map((policy) => [policyKey(policy), policy]));
  const seen = new Set<string>();
  for (const document of policies) {
    const compiler = new PolicyCompiler(document, resources, features, options.namespaces);
    const key = policyKey(document);
    if (seen.has(key)) compiler.report("metadata.name", "Duplicate", "another policy has the same name");
    seen.add(key);
    const compiled = compiler.compile();
    problems.push(...compiler.problems);
    const last = known.get(key);
    if (compiled !== undefined) accepted.push(compiled);
    else if (last !== undefined) accepted.push(last);
    // A policy that only observes decides nothing, so its absence opens nothing.
    else if (document.spec?.mode !== "Audit") invalid.push(compiler.scope());
  }
  const unique = new Map(accepted.map((policy) => [policyKey(policy), policy]));
  const ordered = [...unique.values()].sort((a, b) => (policyKey(a) < policyKey(b) ? -1 : 1));
  return { set: { policies: ordered, invalid, features }, problems };
}

/** Whether a policy's `subjects` name an identity; no entry means nobody. */
export function namesSubject(subjects: readonly SubjectEntry[], identity: Identity): boolean {
  return subjects.some((entry) => {
    const { group, user, kind, serviceAccount } = entry;
    if (group === undefined && user === undefined && kind === undefined && serviceAccount === undefined)
      return false;
    if (group !== undefined && !identity.groups.includes(group)) return false;
    if (user !== undefined && identity.user !== user) return false;
    if (kind !== undefined && identity.kind !== kind) return false;
    if (serviceAccount === undefined) return true;
    return (
      identity.serviceAccount?.namespace === serviceAccount.namespace &&
      identity.serviceAccount.name === serviceAccount.name
    );
  });
}

/** The key of a policy among all of both kinds; sorts in the order in which policies are listed to people. */
export function policyKey(policy: {
  readonly kind: string;
  readonly namespace?: string;
  readonly name: string;
}): string {
  return `${policy.kind}/${policy.namespace ?? ""}/${policy.name}`;
}

/** What SchemaOnly with `schemaOnlyReads: MaskAll` hides: every column of every table. */
const everyColumn: Omit<CompiledMask, "ref"> = {
  columns: ["*.*.*"],
  patterns: [],
  customPatterns: [],
  with: "Redact",
  liftable: false,
};

class PolicyCompiler {
  readonly problems: PolicyProblem[] = [];
  private readonly spec: AccessPolicySpec;
  private readonly document: PolicyDocument;
  private readonly resources: readonly ResourceDocument[];
  private readonly features: PolicyFeatures;
  private readonly namespaces: ReadonlyMap<string, Labels> | undefined;

  constructor(
    document: PolicyDocument,
    resources: readonly ResourceDocument[],
    features: PolicyFeatures,
    namespaces: ReadonlyMap<string, Labels> | undefined,
  ) {
    this.document = document;
    this.spec = isRecord(document.spec) ? document.spec : {};
    this.resources = resources;
    this.features = features;
    this.namespaces = namespaces;
  }

  report(path: string, reason: ProblemReason, message: string): void {
    const { kind, namespace, name } = this.document;
    this.problems.push({
      kind,
      ...(namespace !== undefined && { namespace }),
      policy: name,
      path,
      reason,
      message,
    });
  }

  compile(): CompiledPolicy | undefined {
    const { spec } = this;
    this.unknownFields("spec", spec, specFields);
    this.oneOf("spec.mode", spec.mode, ["Enforce", "Audit"]);
    this.checkScope();
    this.checkSubjects();
    this.checkProfile();
    this.checkMasking();
    const rules = this.compileRules();
    if (spec.limits !== undefined && !isRecord(spec.limits)) {
      this.report("spec.limits", "InvalidField", "must be an object");
    }
    const { limits, problems } = readLimits(isRecord(spec.limits) ? spec.limits : {});
    for (const { path, reason, message } of problems) this.report(`spec.limits${path}`, reason, message);
    this.checkRowLimits();
    if (this.problems.length > 0) return undefined;
    const profile = (spec.profile ?? "None") as ProfileName;
    return {
      ...this.scope(),
      generation: this.document.generation,
      mode: spec.mode === "Audit" ? "Audit" : "Enforce",
      ...(spec.requires !== undefined && { requires: spec.requires }),
      profile,
      subjects: spec.subjects ?? [],
      rules: [...rules, ...this.profileRules(profile)],
      limits,
      maskingOn: this.masking(),
    };
  }

  /** The policy's masks for each resource, made once for each. */
  private masking(): CompiledPolicy["maskingOn"] {
    const { spec } = this;
    const entries = spec.masking ?? [];
    const masksAll = spec.profile === "SchemaOnly" && spec.schemaOnlyReads === "MaskAll";
    if (entries.length === 0 && !masksAll) return () => undefined;
    const tagged = new Map(
      this.resources.map((resource) => [
        `${resource.namespace}/${resource.name}`,
        resource.spec.classification ?? [],
      ]),
    );
    const made = new Map<string, PolicyMasking>();
    return (resource) => {
      const key = `${resource.namespace}/${resource.name}`;
      let masking = made.get(key);
      if (masking === undefined) {
        const tags = tagged.get(key) ?? [];
        const masks = entries.map((entry, index) => this.compileMask(entry, index, tags));
        if (masksAll) masks.push({ ...everyColumn, ref: this.maskRef("schemaOnlyReads") });
        masking = {
          masks,
          inference: spec.inference === "Allow" ? "Allow" : "Deny",
          maskedWrites: spec.maskedWrites === "Allow" ? "Allow" : "Deny",
        };
        made.set(key, masking);
      }
      return masking;
    };
  }

  private maskRef(rule: string): RuleRef {
    return { policy: this.policyName(), rule, enforcement: "authoritative" };
  }

  private compileMask(
    entry: MaskingSpec,
    index: number,
    tags: readonly { readonly tag: string; readonly columns: readonly string[] }[],
  ): CompiledMask {
    const wanted = new Set(entry.tags ?? []);
    const known: ReadonlySet<string> = new Set(patternNames);
    return {
      ref: this.maskRef(`masking[${index}]`),
      columns: [
        ...(entry.columns ?? []),
        ...tags.filter(({ tag }) => wanted.has(tag)).flatMap(({ columns }) => columns),
      ],
      patterns: (entry.patterns ?? []).filter((name): name is PatternName => known.has(name)),
      customPatterns: entry.customPatterns ?? [],
      with: (entry.with ?? "Redact") as MaskMethodName,
      ...(entry.format === undefined ? {} : { format: entry.format }),
      liftable: entry.liftable === true,
    };
  }

  /** What the policy names; where that cannot be told, everything it could name. */
  scope(): PolicyScope {
    const { kind, namespace, name } = this.document;
    const { resources, namespaceSelector } = this.spec;
    const names = Array.isArray(resources?.names) ? new Set(resources.names) : undefined;
    const selector = resources?.selector;
    const isReadable =
      (names !== undefined || selector !== undefined) &&
      (selector === undefined || isSound(selector)) &&
      (namespaceSelector === undefined || isSound(namespaceSelector));
    const isNamed = (resource: ResourceFacts): boolean =>
      !isReadable ||
      (names?.has(resource.name) ?? false) ||
      (selector !== undefined && isSelectedBy(selector, resource.labels));
    const isReached = (resource: ResourceFacts): boolean =>
      kind === "AccessPolicy"
        ? resource.namespace === namespace
        : !isReadable ||
          namespaceSelector === undefined ||
          isSelectedBy(namespaceSelector, resource.namespaceLabels);
    return {
      kind,
      ...(namespace !== undefined && { namespace }),
      name,
      namesResource: (resource) => isReached(resource) && isNamed(resource),
    };
  }

  private checkScope(): void {
    const { resources, namespaceSelector } = this.spec;
    const isCluster = this.document.kind === "ClusterAccessPolicy";
    if (isCluster !== (this.document.namespace === undefined)) {
      const message = isCluster
        ? "a ClusterAccessPolicy has no namespace"
        : "an AccessPolicy has a namespace";
      this.report("metadata.namespace", "InvalidField", message);
    }
    if (namespaceSelector !== undefined) {
      if (!isCluster) {
        const message = "only a ClusterAccessPolicy selects namespaces";
        this.report("spec.namespaceSelector", "UnknownField", message);
      }
      this.checkSelector("spec.namespaceSelector", namespaceSelector);
    }
    if (this.spec.requires !== undefined) {
      const message = "only a ClusterAccessPolicy requires something of resources";
      if (!isCluster) this.report("spec.requires", "UnknownField", message);
      if (!isRequirement(this.spec.requires))
        this.report("spec.requires", "InvalidField", "is not understood");
    }
    if (!isRecord(resources)) {
      this.report("spec.resources", "InvalidField", "names or selector is required");
      return;
    }
    this.unknownFields("spec.resources", resources, ["names", "selector"]);
    const { names, selector } = resources;
    if ((names === undefined) === (selector === undefined)) {
      const message = "either names or selector is required, and not both";
      this.report("spec.resources", names === undefined ? "InvalidField" : "Contradictory", message);
    }
    if (selector !== undefined) this.checkSelector("spec.resources.selector", selector);
    if (names === undefined) return;
    if (!isStringList(names)) {
      this.report("spec.resources.names", "InvalidField", "must list names");
      return;
    }
    for (const [index, name] of names.entries()) {
      if (this.resources.some((resource) => resource.name === name && this.reaches(resource.namespace)))
        continue;
      const message = `there is no ProtectedResource ${JSON.stringify(name)} here`;
      this.report(`spec.resources.names[${index}]`, "UnknownReference", message);
    }
  }

  private reaches(namespace: string): boolean {
    if (this.document.kind === "AccessPolicy") return namespace === this.document.namespace;
    const { namespaceSelector } = this.spec;
    const labels = this.namespaces?.get(namespace);
    // Without the namespace's labels nobody can say that it is out of reach.
    if (namespaceSelector === undefined || labels === undefined) return true;
    return !isSound(namespaceSelector) || isSelectedBy(namespaceSelector, labels);
  }

  private checkSelector(path: string, selector: LabelSelector): void {
    const problem = selectorProblem(selector);
    if (problem) this.report(`${path}${problem.path}`, "InvalidField", problem.message);
  }

  private checkSubjects(): void {
    const subjects: unknown = this.spec.subjects ?? [];
    if (!Array.isArray(subjects)) {
      this.report("spec.subjects", "InvalidField", "must be a list");
      return;
    }
    for (const [index, entry] of subjects.entries()) {
      const path = `spec.subjects[${index}]`;
      if (!isRecord(entry) || Object.keys(entry).length === 0) {
        this.report(path, "InvalidField", "must name a group, user, serviceAccount or kind");
        continue;
      }
      this.unknownFields(path, entry, ["group", "user", "serviceAccount", "kind"]);
      for (const key of ["group", "user"]) {
        const value = entry[key];
        if (value === undefined || (typeof value === "string" && value !== "")) continue;
        this.report(`${path}.${key}`, "InvalidField", "must be a name with its provider's prefix");
      }
      this.oneOf(`${path}.kind`, entry.kind, subjectKinds);
      const account = entry.serviceAccount;
      if (account === undefined) continue;
      if (!isRecord(account) || !isStringList([account.namespace, account.name])) {
        this.report(`${path}.serviceAccount`, "InvalidField", "needs a namespace and a name");
      } else if (entry.kind === "Human") {
        this.report(
          `${path}.kind`,
          "Contradictory",
          "a service account is no Human: this entry names nobody",
        );
      }
    }
  }

  private checkRowLimits(): void {
    if (this.features.rowLimits === true || !isRecord(this.spec.limits)) return;
    for (const key of ["rows", "affectedRows"] as const) {
      if (this.spec.limits[key] === undefined) continue;
      this.report(`spec.limits.${key}`, "NotEnforceable", "this build cannot limit rows yet");
    }
  }

  private checkProfile(): void {
    const { profile, schemaOnlyReads, rules } = this.spec;
    this.oneOf("spec.profile", profile, profileNames);
    this.oneOf("spec.schemaOnlyReads", schemaOnlyReads, ["Deny", "MaskAll"]);
    if (schemaOnlyReads !== undefined && profile !== "SchemaOnly") {
      this.report("spec.schemaOnlyReads", "Contradictory", "only profile SchemaOnly has schemaOnlyReads");
    }
    if (schemaOnlyReads === "MaskAll" && !this.features.masking) {
      this.report("spec.schemaOnlyReads", "NotEnforceable", "this build cannot mask yet");
    }
    for (const [index, rule] of (Array.isArray(rules) ? rules : []).entries()) {
      if (!isRecord(rule) || rule.action !== "Allow") continue;
      const path = `spec.rules[${index}]`;
      if (profile === "None") {
        this.report(`${path}.action`, "Contradictory", "profile None says that this policy allows nothing");
      }
      const operations = isRecord(rule.match) ? rule.match.operations : undefined;
      const readsAll = operations === undefined || (Array.isArray(operations) && operations.includes("read"));
      const objects = isRecord(rule.match) ? rule.match.objects : undefined;
      if (schemaOnlyReads === "Deny" && readsAll && objects === undefined) {
        const message = "schemaOnlyReads: Deny, yet this rule allows every read";
        this.report(`${path}.match`, "Contradictory", message);
      }
    }
  }

  private checkMasking(): void {
    const { inference, maskedWrites } = this.spec;
    this.oneOf("spec.inference", inference, ["Deny", "Allow"]);
    this.oneOf("spec.maskedWrites", maskedWrites, ["Deny", "Allow"]);
    const masking: unknown = this.spec.masking ?? [];
    if (!Array.isArray(masking)) {
      this.report("spec.masking", "InvalidField", "must be a list");
      return;
    }
    for (const [index, mask] of masking.entries()) {
      const path = `spec.masking[${index}]`;
      if (!isRecord(mask)) {
        this.report(path, "InvalidField", "must be an object");
        continue;
      }
      if (!this.features.masking) this.report(path, "NotEnforceable", "this build cannot mask yet");
      this.unknownFields(path, mask, maskFields);
      this.oneOf(`${path}.with`, mask.with, ["Null", "Redact", "Replace", "Hash", "Partial"]);
      for (const key of ["tags", "columns", "patterns", "customPatterns"]) {
        if (mask[key] === undefined || Array.isArray(mask[key])) continue;
        this.report(`${path}.${key}`, "InvalidField", "must be a list");
      }
      for (const [at, tag] of (Array.isArray(mask.tags) ? mask.tags : []).entries()) {
        const isKnown = this.resources.some((resource) =>
          (resource.spec.classification ?? []).some((entry) => entry.tag === tag),
        );
        if (isKnown) continue;
        const message = `no ProtectedResource classifies columns as ${JSON.stringify(tag)}`;
        this.report(`${path}.tags[${at}]`, "UnknownReference", message);
      }
      for (const [at, custom] of (Array.isArray(mask.customPatterns) ? mask.customPatterns : []).entries()) {
        const problem = regexProblem(isRecord(custom) ? String(custom.regex ?? "") : "");
        if (problem) this.report(`${path}.customPatterns[${at}].regex`, "InvalidRegex", problem);
      }
    }
  }

  private compileRules(): CompiledRule[] {
    const rules: unknown = this.spec.rules ?? [];
    if (!Array.isArray(rules)) {
      this.report("spec.rules", "InvalidField", "must be a list");
      return [];
    }
    const names = new Set<unknown>();
    const actions = new Map<string, unknown>();
    const compiled: CompiledRule[] = [];
    for (const [index, rule] of rules.entries()) {
      const path = `spec.rules[${index}]`;
      if (!isRecord(rule)) {
        this.report(path, "InvalidField", "must be an object");
        continue;
      }
      if (typeof rule.name !== "string" || rule.name === "" || rule.name.startsWith("profile/")) {
        this.report(`${path}.name`, "InvalidField", "must be a name");
      } else if (names.has(rule.name)) {
        this.report(`${path}.name`, "Duplicate", "another rule of this policy has the same name");
      }
      names.add(rule.name);
      this.checkAction(path, rule);
      const covers = rule.action === "Allow" ? coveringMatcher : objectMatcher;
      const match = this.compileMatch(`${path}.match`, rule.match ?? {}, covers);
      const same = canonical(rule.match ?? {});
      if (actions.has(same) && actions.get(same) !== rule.action) {
        const message = "another rule of this policy matches the same with another action";
        this.report(path, "Contradictory", message);
      }
      actions.set(same, rule.action);
      const { name, action, message, approval } = rule as unknown as PolicyRule;
      compiled.push({
        ...match.rule,
        ref: { policy: this.policyName(), rule: name, enforcement: match.enforcement },
        action: action as VerdictAction,
        ...(typeof message === "string" && { message }),
        // What is malformed has neither, and is reported.
        ...((match.rule.object ?? match.rule.cel) !== undefined &&
          namesFiles(rule as unknown as PolicyRule) && { namesFiles: true }),
        ...(action === "RequireApproval" && { terms: this.approvalTerms(rule, name, approval ?? {}) }),
      });
    }
    return compiled;
  }

  private approvalTerms(
    rule: Readonly<Record<string, unknown>>,
    name: string,
    approval: ApprovalSpec,
  ): ApprovalTerms {
    const windowMs = approval.window === undefined ? undefined : durationMs(approval.window);
    const group = approval.breakGlass?.group;
    return {
      kind: this.document.kind,
      policy: this.document.name,
      rule: name,
      ruleText: canonical({ kind: this.document.kind, policy: this.document.name, rule }),
      required: approval.required ?? 1,
      timeoutMs: durationMs(approval.timeout ?? "10m") ?? 600_000,
      grant: approval.grant === "Window" ? "Window" : "Once",
      ...(windowMs === undefined ? {} : { windowMs }),
      reasonRequired: approval.reasonRequired === true,
      ...(group === undefined ? {} : { breakGlassGroup: group }),
    };
  }

  private checkAction(path: string, rule: Readonly<Record<string, unknown>>): void {
    this.unknownFields(path, rule, ["name", "match", "action", "message", "approval"]);
    if (rule.action === undefined) this.report(`${path}.action`, "InvalidField", "is required");
    this.oneOf(`${path}.action`, rule.action, ["Deny", "RequireApproval", "Allow"]);
    if (rule.message !== undefined && typeof rule.message !== "string") {
      this.report(`${path}.message`, "InvalidField", "must be a text");
    }
    const { approval } = rule;
    if (approval === undefined) return;
    if (rule.action !== "RequireApproval") {
      this.report(`${path}.approval`, "Contradictory", "only a RequireApproval rule asks for approval");
    }
    if (!isRecord(approval)) {
      this.report(`${path}.approval`, "InvalidField", "must be an object");
      return;
    }
    const approvalFields = ["required", "timeout", "grant", "window", "reasonRequired", "breakGlass"];
    this.unknownFields(`${path}.approval`, approval, approvalFields);
    const { required, timeout, window, grant } = approval;
    if (required !== undefined && !(Number.isSafeInteger(required) && Number(required) >= 1)) {
      this.report(`${path}.approval.required`, "InvalidField", "must be 1 or more");
    }
    for (const [key, value] of Object.entries({ timeout, window })) {
      if (value !== undefined && durationMs(String(value)) === undefined) {
        this.report(`${path}.approval.${key}`, "InvalidField", "must be a duration such as 10m");
      }
    }
    this.oneOf(`${path}.approval.grant`, grant, ["Once", "Window"]);
    if ((grant === "Window") !== (window !== undefined)) {
      this.report(
        `${path}.approval.window`,
        "Contradictory",
        "window belongs to grant: Window, and only to it",
      );
    }
  }

  private compileMatch(
    path: string,
    match: unknown,
    objectsMatcher: typeof objectMatcher,
  ): { readonly rule: Omit<CompiledRule, "ref" | "action">; readonly enforcement: Enforcement } {
    const none = { rule: { unbounded: false }, enforcement: "authoritative" } as const;
    if (!isRecord(match)) {
      this.report(path, "InvalidField", "must be an object");
      return none;
    }
    this.unknownFields(path, match, ["operations", "objects", "commands", "unbounded", "cel"]);
    for (const key of ["operations", "objects", "commands"]) {
      const list = match[key];
      if (list !== undefined && (!isStringList(list) || list.length === 0)) {
        this.report(
          `${path}.${key}`,
          "InvalidField",
          "must list at least one entry; leave it out to match all",
        );
        return none;
      }
    }
    const { operations, objects, commands, unbounded, cel } = match as RuleMatch;
    for (const [index, operation] of (operations ?? []).entries()) {
      this.oneOf(`${path}.operations[${index}]`, operation, operationNames);
    }
    for (const [index, word] of (commands ?? []).entries()) {
      if (word.slice(0, -1).includes("*")) {
        this.report(`${path}.commands[${index}]`, "InvalidField", "a * may only stand at the end");
      }
    }
    if (unbounded !== undefined && unbounded !== true) {
      this.report(`${path}.unbounded`, "InvalidField", "may only be true; leave it out to match all");
    }
    if (unbounded === true && operations !== undefined && !operations.includes("write")) {
      this.report(
        `${path}.unbounded`,
        "Contradictory",
        "only a write is unbounded: this rule matches nothing",
      );
    }
    let program: CelProgram | undefined;
    if (cel !== undefined) {
      const compilation = compileCel(cel);
      if (compilation.kind === "compiled") program = compilation.program;
      else this.report(`${path}.cel`, compilation.reason, compilation.message);
    }
    // Whether a WHERE is always true is a best effort, and so is what a text seems to say.
    const isHeuristic = unbounded === true || program?.reads.text || program?.reads.claimedByClient;
    return {
      rule: {
        ...(operations && { operations: new Set(operations as readonly Operation[]) }),
        ...(objects && { object: objectsMatcher(objects) }),
        ...(commands && { word: wordMatcher(commands) }),
        unbounded: unbounded === true,
        ...(program && { cel: program }),
      },
      enforcement: isHeuristic ? "heuristic" : "authoritative",
    };
  }

  private profileRules(profile: ProfileName): CompiledRule[] {
    const masksReads = profile === "SchemaOnly" && this.spec.schemaOnlyReads === "MaskAll";
    const bundle = masksReads ? [...profiles.SchemaOnly, ...maskedReads] : profiles[profile];
    return bundle.map(({ operations, part, object }) => ({
      ref: { policy: this.policyName(), rule: `profile/${profile}`, enforcement: "authoritative" },
      action: "Allow",
      ...(operations && { operations: new Set(operations) }),
      ...(part && { part }),
      ...(object && { object }),
      unbounded: false,
    }));
  }

  /** A name that tells a namespaced policy from a cluster's of the same name. */
  private policyName(): string {
    const { kind, name } = this.document;
    return policyName({ kind, policy: name });
  }

  private oneOf(path: string, value: unknown, allowed: readonly string[]): void {
    if (value === undefined || allowed.includes(value as string)) return;
    this.report(path, "InvalidField", `must be one of ${allowed.join(", ")}`);
  }

  /** A misspelt key would silently widen a rule, so it is an error here too, whatever the schema check said. */
  private unknownFields(path: string, value: object, allowed: readonly string[]): void {
    for (const key of Object.keys(value)) {
      if (!allowed.includes(key)) {
        this.report(
          `${path}.${key}`,
          "UnknownField",
          `there is no such field; known are ${allowed.join(", ")}`,
        );
      }
    }
  }
}

const specFields =
  "mode resources subjects profile schemaOnlyReads rules masking inference maskedWrites limits namespaceSelector requires".split(
    " ",
  );
const maskFields = ["tags", "columns", "patterns", "customPatterns", "with", "format", "liftable"];
const subjectKinds: readonly SubjectKind[] = ["Human", "Workload", "Agent"];

/** Every operation there is, in the order of the model. */
export const operationNames: readonly Operation[] = [
  "read",
  "write",
  "define",
  "control",
  "export",
  "execute",
  "privilege",
  "session",
];

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isStringList(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((entry) => typeof entry === "string" && entry !== "");
}

function isSound(selector: LabelSelector): boolean {
  return selectorProblem(selector) === undefined;
}

/** The same text for the same match, whatever the order of keys and list entries. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).sort().join()}]`;
  if (!isRecord(value)) return JSON.stringify(value) ?? "null";
  const entries = Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}:${canonical(one)}`);
  return `{${entries.sort().join()}}`;
}
