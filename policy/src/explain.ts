/** Why a verdict is what it is, for people: which policies applied, which rules matched, and what was left over. */

import { type CompiledPolicy, type CompiledRule, namesSubject, type PolicySet } from "./compile.ts";
import type { DecisionFacts, Mismatch, SessionBindings } from "./judge.ts";
import { coverage, mismatch, Reading } from "./judge.ts";
import type {
  ApprovalTerms,
  Command,
  CommandPart,
  Enforcement,
  Identity,
  Operation,
  ResourceFacts,
  Verdict,
  VerdictAction,
} from "./model.ts";
import { howToSayWhy } from "./say-why.ts";

/** One policy, and why it applies to this session or does not. */
export interface PolicyExplanation {
  readonly kind: CompiledPolicy["kind"];
  readonly namespace?: string;
  readonly policy: string;
  /** The generation in force; absent for a policy that was never accepted. */
  readonly generation?: number;
  readonly mode?: "Enforce" | "Audit";
  readonly applies: boolean;
  readonly why: string;
}

/** One rule of an applied policy, judged against one part. */
export interface RuleExplanation {
  readonly policy: string;
  readonly rule: string;
  readonly mode: "Enforce" | "Audit";
  readonly action: VerdictAction;
  readonly enforcement: Enforcement;
  readonly matched: boolean;
  readonly why: string;
}

/** One part of the command, and what the Enforce rules together say of it. */
export interface PartExplanation {
  readonly operation: Operation;
  readonly words: readonly string[];
  readonly objects: readonly string[];
  readonly enforcement: Enforcement;
  readonly action: VerdictAction;
  readonly why: string;
  readonly rules: readonly RuleExplanation[];
}

/** The whole story of one decision. */
export interface Explanation {
  readonly verdict: Verdict;
  readonly policies: readonly PolicyExplanation[];
  readonly parts: readonly PartExplanation[];
}

interface Case {
  readonly set: PolicySet;
  readonly resource: ResourceFacts;
  readonly identity: Identity;
  readonly bindings: SessionBindings;
  readonly verdict: Verdict;
}

/** Judges every rule against every part, matched or not; slower than a decision, and never used for one. */
export function explainCommand(subject: Case, command: Command, facts: DecisionFacts): Explanation {
  const { set, resource, identity, bindings, verdict } = subject;
  const accepted = set.policies.map((policy) => explainPolicy(policy, resource, identity));
  const invalid = set.invalid.map((policy) => {
    const applies = policy.namesResource(resource);
    const { kind, namespace, name } = policy;
    const why = applies ? "PolicyInvalid: it was never accepted, so what it names denies" : notThisResource;
    return { kind, ...(namespace !== undefined && { namespace }), policy: name, applies, why };
  });
  const applied = set.policies.filter((_, index) => accepted[index]?.applies);
  const reading = new Reading(command, facts, bindings);
  const parts = command.parts.map((part) => explainPart(part, applied, reading));
  return { verdict, policies: [...accepted, ...invalid], parts };
}

function explainPolicy(
  policy: CompiledPolicy,
  resource: ResourceFacts,
  identity: Identity,
): PolicyExplanation {
  const { kind, namespace, name, generation, mode } = policy;
  const isSubject = namesSubject(policy.subjects, identity);
  const isResource = policy.namesResource(resource);
  const why = !isResource
    ? notThisResource
    : !isSubject
      ? `its subjects do not name ${identity.user}`
      : `it names ${resource.name} and ${identity.user}`;
  const at = namespace === undefined ? {} : { namespace };
  return { kind, ...at, policy: name, generation, mode, applies: isResource && isSubject, why };
}

const notThisResource = "it does not name this resource";

function explainPart(
  part: CommandPart,
  policies: readonly CompiledPolicy[],
  reading: Reading,
): PartExplanation {
  const rules = policies.flatMap(({ mode, rules }) =>
    rules.map((rule) => explainRule(rule, mode, part, reading)),
  );
  const enforced = policies.filter((policy) => policy.mode === "Enforce").flatMap((policy) => policy.rules);
  const matching = (action: VerdictAction) =>
    rules.find((rule) => rule.mode === "Enforce" && rule.matched && rule.action === action);
  const deny = matching("Deny");
  const approve = matching("RequireApproval");
  const allow = coverage(
    enforced.filter((rule) => rule.action === "Allow"),
    part,
    reading,
  );
  const outcome = (): { readonly action: VerdictAction; readonly why: string } => {
    if (deny)
      return { action: "Deny", why: `rule ${deny.rule} of ${deny.policy} denies it, and any Deny wins` };
    if (approve) {
      const terms = enforced.find(
        ({ ref }) => ref.policy === approve.policy && ref.rule === approve.rule,
      )?.terms;
      const asks = terms === undefined ? "" : `: ${termsText(terms, reading.command.protocol)}`;
      return {
        action: "RequireApproval",
        why: `rule ${approve.rule} of ${approve.policy} asks for approval${asks}`,
      };
    }
    if (allow.isCovered) {
      const { policy, rule } = allow.rule.ref;
      return { action: "Allow", why: `rule ${rule} of ${policy} allows it` };
    }
    const left = allow.object === undefined ? "it" : allow.object.name;
    return { action: "Deny", why: `no Allow rule covers ${left}, and what nothing matches is denied` };
  };
  return {
    operation: part.operation,
    words: part.words,
    objects: part.objects.map((object) => (object.direct ? object.name : `${object.name} (indirect)`)),
    enforcement: part.enforcement,
    ...outcome(),
    rules,
  };
}

/** What a rule asks of approvers, and what they give by it. */
function termsText(
  { required, timeoutMs, grant, windowMs = 0, ...more }: ApprovalTerms,
  protocol: string,
): string {
  const way = howToSayWhy(protocol);
  const who = required === 1 ? "one person other than who asks" : `${required} people other than who asks`;
  const gives = grant === "Once" ? "for this one command" : `for ${spanText(windowMs)} from then on`;
  const reason = more.reasonRequired ? `, with a reason${way === undefined ? "" : ` (${way})`}` : "";
  const glass =
    more.breakGlassGroup === undefined
      ? ""
      : `; members of ${more.breakGlassGroup} pass with a reason and without approval`;
  return `${who}, within ${spanText(timeoutMs)}, ${gives}${reason}${glass}`;
}

function spanText(ms: number): string {
  const units = [
    ["d", 86_400_000],
    ["h", 3_600_000],
    ["m", 60_000],
    ["s", 1_000],
  ] as const;
  const [unit, size] = units.find(([, length]) => ms >= length && ms % length === 0) ?? (["ms", 1] as const);
  return `${ms / size}${unit}`;
}

function explainRule(
  rule: CompiledRule,
  mode: "Enforce" | "Audit",
  part: CommandPart,
  reading: Reading,
): RuleExplanation {
  const failed = mismatch(rule, part, reading);
  const covered =
    rule.action === "Allow" && failed === undefined ? coverage([rule], part, reading) : undefined;
  const object =
    covered?.isCovered === false ? (covered.object?.name ?? "a command without objects") : undefined;
  const why =
    failed !== undefined
      ? mismatchText(failed, rule)
      : object === undefined
        ? "every key matches"
        : `does not cover ${object}`;
  const { ref, action } = rule;
  return { ...ref, mode, action, matched: failed === undefined && object === undefined, why };
}

function mismatchText(failed: Mismatch, { operations = new Set() }: CompiledRule): string {
  return failed === "operations"
    ? `another operation; it is for ${[...operations].join(", ")}`
    : mismatches[failed];
}

const mismatches: Readonly<Record<Exclude<Mismatch, "operations">, string>> = {
  commands: "none of its commands",
  profile: "not among the statements of the profile",
  objects: "none of its objects",
  unbounded: "the write is bounded",
  cel: "its expression is false, or failed in an Allow rule",
};
