/**
 * A session's policy: gathered once, then asked for each command. Synchronous and allocation-poor, because every
 * statement of every session passes here.
 */
import { policyName } from "@sallyport/crds/pure";
import { type CelBindings, celIdentity, celResource, celSession } from "./cel.ts";
import { type CompiledPolicy, type CompiledRule, namesSubject, type PolicySet } from "./compile.ts";
import { type Explanation, explainCommand } from "./explain.ts";
import { type DecisionFacts, Reading, RuleTable, type SessionBindings } from "./judge.ts";
import { strictestLimits } from "./limits.ts";
import { type CompiledMask, type PolicyMasking, SessionMasking } from "./masking/session-masking.ts";
import type {
  ApprovalTerms,
  Command,
  CommandPart,
  Identity,
  ObjectRef,
  ResourceFacts,
  RuleRef,
  SessionFacts,
  SessionLimits,
  Verdict,
} from "./model.ts";
import { profileHints } from "./profiles.ts";

/** Who asks for what, through which connection. */
export interface SessionContext {
  readonly resource: ResourceFacts;
  readonly identity: Identity;
  readonly session: SessionFacts;
}

/** What lifts the liftable masks of one policy now. */
export interface MaskLift {
  /** As masks name it: `cluster/` stands before a ClusterAccessPolicy's name. */
  readonly policy: string;
  readonly by: "approval" | "breakGlass";
  readonly rule: string;
  /** The rule whose approval or break-glass it is. */
  readonly ruleText: string;
}

/** The policies of one session, compiled together. */
export interface SessionPolicy {
  /** Whether the session may exist at all: denied where no policy names it, or a policy was never accepted. */
  readonly mayConnect: Verdict;
  readonly limits: SessionLimits;
  /** What is hidden from the session; without the liftable masks of the policies that `lifts` names. */
  masking(lifts?: readonly MaskLift[]): SessionMasking;
  /** True where some mask may be lifted at all. */
  readonly hasLiftableMasks: boolean;
  /** Which policies' liftable masks an open window of one of their own rules lifts, or break-glass with a reason. */
  lifts(facts: Pick<DecisionFacts, "approved" | "reason">): readonly MaskLift[];
  /** Whether rules tell one file that is moved from another: those that decide, or only those that report. */
  readonly namesFiles: "Enforce" | "Audit" | undefined;
  /** True where some rule that decides reads the time: what is denied now may have been allowed a moment ago. */
  readonly readsTime: boolean;
  /** How sure each rule in force is, for status and records. */
  readonly ruleStatuses: readonly RuleRef[];
  /** What the rules ask that want approval of anything. */
  readonly approvalTerms: readonly ApprovalTerms[];
  decide(command: Command, facts: DecisionFacts): Verdict;
  explain(command: Command, facts: DecisionFacts): Explanation;
}

/**
 * Gathers every policy that names the subject and the resource, cluster floors included. A floor needs no rank of its
 * own: any Deny wins, wherever it is written, and what a ClusterAccessPolicy allows is allowed like anything else.
 */
export function forSession(set: PolicySet, context: SessionContext): SessionPolicy {
  return new GatheredPolicy(set, context);
}

/** How sure each rule is that applies to a resource, whoever asks; for the resource's status. */
export function ruleStatuses(set: PolicySet, resource: ResourceFacts): readonly RuleRef[] {
  return set.policies
    .filter((policy) => policy.namesResource(resource))
    .flatMap((policy) => policy.rules.map((rule) => rule.ref));
}

interface AuditTable {
  readonly policy: string;
  readonly table: RuleTable;
}

class GatheredPolicy implements SessionPolicy {
  readonly mayConnect: Verdict;
  readonly limits: SessionLimits;
  readonly namesFiles: SessionPolicy["namesFiles"];
  readonly readsTime: boolean;
  readonly ruleStatuses: readonly RuleRef[];
  readonly approvalTerms: readonly ApprovalTerms[];
  private readonly maskings: readonly PolicyMasking[];
  private readonly made = new Map<string, SessionMasking>();
  private readonly set: PolicySet;
  private readonly context: SessionContext;
  private readonly bindings: SessionBindings;
  private readonly table: RuleTable;
  private readonly audits: readonly AuditTable[];
  private readonly hint: string;

  constructor(set: PolicySet, context: SessionContext) {
    const { resource, identity, session } = context;
    this.set = set;
    this.context = context;
    this.bindings = {
      identity: celIdentity(identity),
      resource: celResource(resource),
      session: celSession(session),
    };
    const applied = set.policies.filter(
      (policy) => policy.namesResource(resource) && namesSubject(policy.subjects, identity),
    );
    const enforced = applied.filter((policy) => policy.mode === "Enforce");
    const settle = (policy: CompiledPolicy) => policy.rules.flatMap((rule) => settled(rule, this.bindings));
    const rules = enforced.flatMap(settle);
    this.table = new RuleTable(rules);
    this.audits = applied
      .filter((policy) => policy.mode === "Audit")
      .map((policy) => ({ policy: policy.name, table: new RuleTable(settle(policy)) }));
    this.namesFiles = strictest(applied.filter((policy) => policy.rules.some((rule) => rule.namesFiles)));
    this.readsTime = rules.some(({ cel }) => cel?.reads.time === true);
    this.ruleStatuses = applied.flatMap((policy) => policy.rules.map((rule) => rule.ref));
    this.approvalTerms = termsOf(rules);
    this.limits = strictestLimits(enforced.map((policy) => policy.limits));
    this.maskings = enforced.flatMap((policy) => policy.maskingOn(resource) ?? []);
    this.hint = hintFor(enforced);
    this.mayConnect = this.connectVerdict(enforced, rules);
  }

  masking(lifts: readonly MaskLift[] = []): SessionMasking {
    const lifted = new Set(lifts.map(({ policy }) => policy));
    const key = [...lifted].sort().join(",");
    const known = this.made.get(key);
    if (known !== undefined) return known;
    const isHeld = (mask: CompiledMask) => !(mask.liftable && lifted.has(mask.ref.policy));
    const maskings = this.maskings.map((one) => ({ ...one, masks: one.masks.filter(isHeld) }));
    const masking = new SessionMasking(maskings);
    this.made.set(key, masking);
    return masking;
  }

  get hasLiftableMasks(): boolean {
    return this.maskings.some(({ masks }) => masks.some(({ liftable }) => liftable));
  }

  lifts(facts: Pick<DecisionFacts, "approved" | "reason">): readonly MaskLift[] {
    const liftable = new Set(
      this.maskings.flatMap(({ masks }) =>
        masks.filter((mask) => mask.liftable).map(({ ref }) => ref.policy),
      ),
    );
    if (liftable.size === 0) return [];
    return this.approvalTerms.flatMap((terms) => {
      const policy = policyName(terms);
      // A window of one policy opens nothing that another one hides.
      const by = liftable.has(policy) ? this.satisfies(terms, facts, "Window") : undefined;
      return by === undefined ? [] : [{ policy, by, rule: terms.rule, ruleText: terms.ruleText }];
    });
  }

  decide(command: Command, facts: DecisionFacts): Verdict {
    if (this.mayConnect.action === "Deny") return this.mayConnect;
    const reading = new Reading(command, facts, this.bindings);
    const verdict = this.judge(command.parts, reading);
    return this.audits.length === 0 ? verdict : this.withAudit(verdict, command, facts);
  }

  explain(command: Command, facts: DecisionFacts): Explanation {
    const { set, context, bindings } = this;
    return explainCommand(
      { set, ...context, bindings, verdict: this.decide(command, facts) },
      command,
      facts,
    );
  }

  /** Any Deny wins, then what nothing matches, then RequireApproval, then Allow; part by part, the strictest. */
  private judge(parts: readonly CommandPart[], reading: Reading): Verdict {
    for (const part of parts) {
      const rule = this.table.denies(part, reading);
      if (rule !== undefined) return this.deniedBy(rule, part, reading);
    }
    const asking: { readonly rule: CompiledRule; readonly part: CommandPart }[] = [];
    const satisfied: NonNullable<Verdict["satisfied"]>[number][] = [];
    let allowing: CompiledRule | undefined;
    let isHeuristic = false;
    for (const part of parts) {
      isHeuristic ||= part.enforcement === "heuristic";
      const rules = this.table.asking(part, reading);
      if (rules.length > 0) {
        for (const rule of rules) {
          const by = this.satisfaction(rule, reading.facts);
          if (by === undefined) asking.push({ rule, part });
          else if (rule.terms !== undefined) satisfied.push({ terms: rule.terms, by });
        }
        continue;
      }
      const coverage = this.table.covers(part, reading);
      if (!coverage.isCovered) return this.unmatched(part, coverage.object, reading);
      allowing ??= coverage.rule;
      isHeuristic ||= coverage.isHeuristic;
    }
    const [first] = asking;
    if (first !== undefined) return this.approvalBy(first.rule, first.part, asking, reading);
    return {
      action: "Allow",
      ...(allowing !== undefined && { rule: allowing.ref }),
      message: allowing?.message ?? "",
      ...(satisfied.length > 0 && { satisfied }),
      limits: this.limits,
      audit: noAudit,
      // What was approved once, or for a while, is asked anew each time.
      cacheable: reading.isCacheable && satisfied.length === 0,
      readsText: reading.readsText,
      enforcement: isHeuristic || reading.restsOnHeuristic ? "heuristic" : "authoritative",
    };
  }

  /** What satisfies a RequireApproval: an approval of this very rule, or break-glass with a reason. */
  private satisfaction(rule: CompiledRule, facts: DecisionFacts): "approval" | "breakGlass" | undefined {
    return rule.terms === undefined ? undefined : this.satisfies(rule.terms, facts);
  }

  private satisfies(
    terms: ApprovalTerms,
    facts: Pick<DecisionFacts, "approved" | "reason">,
    grant = terms.grant,
  ): "approval" | "breakGlass" | undefined {
    if (terms.grant === grant && facts.approved?.has(terms.ruleText) === true) return "approval";
    const isInGroup =
      terms.breakGlassGroup !== undefined && this.context.identity.groups.includes(terms.breakGlassGroup);
    return isInGroup && (facts.reason ?? "").trim() !== "" ? "breakGlass" : undefined;
  }

  private deniedBy(rule: CompiledRule, part: CommandPart, reading: Reading): Verdict {
    const message =
      rule.message ??
      `${describe(part, objectOf(rule, part))} is denied by rule ${rule.ref.rule} of policy ${rule.ref.policy}`;
    return this.refusal({ rule: rule.ref, message, reading, isHeuristic: isHeuristicOf(rule, part) });
  }

  private approvalBy(
    rule: CompiledRule,
    part: CommandPart,
    asking: readonly { readonly rule: CompiledRule }[],
    reading: Reading,
  ): Verdict {
    const { ref } = rule;
    const isHeuristic = isHeuristicOf(rule, part) || reading.restsOnHeuristic;
    const asks =
      rule.message ??
      `${describe(part, objectOf(rule, part))} needs approval by rule ${ref.rule} of policy ${ref.policy}`;
    if (this.set.features.approvals) {
      return {
        ...this.refusal({ rule: ref, message: asks, reading, isHeuristic }),
        action: "RequireApproval",
        asks: termsOf(asking.map((one) => one.rule)),
        cacheable: false,
      };
    }
    const message = `${asks}; no approval service is configured, so it is denied`;
    const hint = "ask whoever runs this gateway to configure approvals, or to change the rule";
    return this.refusal({ rule: ref, message, hint, reading, isHeuristic });
  }

  private unmatched(part: CommandPart, object: ObjectRef | undefined, reading: Reading): Verdict {
    const isHeuristic = part.enforcement === "heuristic" || reading.restsOnHeuristic;
    const message = `no policy allows ${describe(part, object ?? part.objects.find((one) => one.direct))}`;
    // A SELECT may be more than a read: this is the word that a rule would say.
    const hint = `${wordOf(part)} counts as ${part.operation}${this.hint === "" ? "" : `; ${this.hint}`}`;
    return this.refusal({ message, hint, reading, isHeuristic });
  }

  private refusal(cause: {
    readonly rule?: RuleRef;
    readonly message: string;
    readonly hint?: string;
    readonly reading: Reading;
    readonly isHeuristic: boolean;
  }): Verdict {
    const { rule, hint, reading } = cause;
    return {
      action: "Deny",
      ...(rule !== undefined && { rule }),
      message: cause.message,
      ...(hint !== undefined && hint !== "" && { hint }),
      limits: this.limits,
      audit: noAudit,
      cacheable: reading.isCacheable,
      readsText: reading.readsText,
      enforcement: cause.isHeuristic ? "heuristic" : "authoritative",
    };
  }

  /** What each Audit policy would say by itself; it decides nothing, but what it read bounds what may be cached. */
  private withAudit(verdict: Verdict, command: Command, facts: DecisionFacts): Verdict {
    const reading = new Reading(command, facts, this.bindings);
    const audit = this.audits.flatMap(({ policy, table }) => {
      const opinion = opinionOf(table, command.parts, reading);
      return opinion === undefined ? [] : [{ policy, action: opinion.action, rule: opinion.ref }];
    });
    return {
      ...verdict,
      audit,
      cacheable: verdict.cacheable && reading.isCacheable,
      readsText: verdict.readsText === true || reading.readsText,
    };
  }

  private connectVerdict(enforced: readonly CompiledPolicy[], rules: readonly CompiledRule[]): Verdict {
    const { resource, identity } = this.context;
    const verdict = {
      limits: this.limits,
      audit: noAudit,
      cacheable: true,
      readsText: false,
      enforcement: "authoritative",
    } as const;
    const broken = this.set.invalid.find((policy) => policy.namesResource(resource));
    if (broken !== undefined) {
      const message = `PolicyInvalid: policy ${broken.name} cannot be compiled, so ${resource.name} denies everything`;
      const hint = "ask whoever maintains the policy; `sallyport validate` lists what is wrong with it";
      return { ...verdict, action: "Deny", message, hint };
    }
    if (rules.some((rule) => rule.action !== "Deny")) return { ...verdict, action: "Allow", message: "" };
    const message =
      enforced.length === 0
        ? `no policy names ${identity.user} for ${resource.name}`
        : `no policy allows ${identity.user} anything on ${resource.name}`;
    return {
      ...verdict,
      action: "Deny",
      message,
      hint: "ask for a policy that names you or one of your groups",
    };
  }
}

function strictest(policies: readonly CompiledPolicy[]): CompiledPolicy["mode"] | undefined {
  return policies.find(({ mode }) => mode === "Enforce")?.mode ?? policies[0]?.mode;
}

const noAudit: Verdict["audit"] = [];

/** The terms of rules, each once. */
function termsOf(rules: readonly CompiledRule[]): readonly ApprovalTerms[] {
  const terms = new Map<string, ApprovalTerms>();
  for (const rule of rules) if (rule.terms !== undefined) terms.set(rule.terms.ruleText, rule.terms);
  return [...terms.values()];
}

/**
 * Answers once what cannot change during a session: a CEL key that reads neither the command nor the time. What the
 * client says of itself stays, so that its label does.
 */
function settled(rule: CompiledRule, bindings: SessionBindings): readonly CompiledRule[] {
  const { cel, ...rest } = rule;
  if (cel === undefined || cel.reads.command || cel.reads.time || cel.reads.claimedByClient) return [rule];
  const all: CelBindings = { ...bindings, command: undefined, time: null };
  return (cel.evaluate(all) ?? rule.action !== "Allow") ? [rest] : [];
}

/** The strictest thing that a table says of a command; undefined where it says nothing of some part. */
function opinionOf(
  table: RuleTable,
  parts: readonly CommandPart[],
  reading: Reading,
): CompiledRule | undefined {
  const first = (find: (part: CommandPart) => CompiledRule | undefined): CompiledRule | undefined => {
    for (const part of parts) {
      const rule = find(part);
      if (rule !== undefined) return rule;
    }
    return undefined;
  };
  const strict =
    first((part) => table.denies(part, reading)) ?? first((part) => table.asksApproval(part, reading));
  if (strict !== undefined) return strict;
  const coverages = parts.map((part) => table.covers(part, reading));
  const allowing = coverages[0];
  return allowing?.isCovered && coverages.every((one) => one.isCovered) ? allowing.rule : undefined;
}

function isHeuristicOf(rule: CompiledRule, part: CommandPart): boolean {
  return rule.ref.enforcement === "heuristic" || part.enforcement === "heuristic";
}

/** Names a part in the user's own words: never a value, only words of the protocol and names of objects. */
function describe(part: CommandPart, object: ObjectRef | undefined): string {
  const word = wordOf(part);
  return object === undefined ? word : `${word} on ${object.name.slice(0, 200)}`;
}

/** The object that a rule is met for: sooner one that the statement names than one that it reaches. */
function objectOf({ object }: CompiledRule, { objects }: CommandPart): ObjectRef | undefined {
  const met = objects.filter((one) => object?.(one) ?? one.direct);
  return met.find((one) => one.direct) ?? met[0];
}

function wordOf(part: CommandPart): string {
  return part.words[0] ?? part.operation;
}

function hintFor(policies: readonly CompiledPolicy[]): string {
  const names = new Set(policies.map((policy) => policy.profile).filter((profile) => profile !== "None"));
  return [...names].map((profile) => profileHints[profile]).join("; ");
}
