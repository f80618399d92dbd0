/**
 * How rules meet a command: the one place that says when a rule matches. Order never matters to the action; rules are
 * kept in one fixed order so that the rule that is named does not depend on it either.
 */
import { type CelBindings, celCommand, celTime } from "./cel.ts";
import type { CompiledRule } from "./compile.ts";
import { operationNames } from "./compile.ts";
import type { Command, CommandPart, ObjectRef, Operation } from "./model.ts";

/** What a decision may read beside the command. */
export interface DecisionFacts {
  readonly nowMs: number;
  /** Bound parameters; no rule of this build reads them. */
  readonly parameters?: readonly unknown[];
  /** `ruleText` of the rules whose approval has been given, for this command or for a while. */
  readonly approved?: ReadonlySet<string>;
  /** Why the user does this, in their own words: break-glass asks for it. */
  readonly reason?: string;
}

/** The CEL values that stay the same for a session. */
export type SessionBindings = Pick<CelBindings, "identity" | "resource" | "session">;

/** The key of a rule that a part did not meet. */
export type Mismatch = "operations" | "commands" | "profile" | "objects" | "unbounded" | "cel";

/** One decision under way: what it has read so far, and CEL values made once for each part. */
export class Reading {
  isCacheable = true;
  readsText = false;
  /** A heuristic rule was asked and said no: the outcome rests on that answer. */
  restsOnHeuristic = false;
  readonly command: Command;
  private readonly session: SessionBindings;
  readonly facts: DecisionFacts;
  private part: CommandPart | undefined;
  private bindings: CelBindings | undefined;
  private time: CelBindings["time"] | undefined;

  constructor(command: Command, facts: DecisionFacts, session: SessionBindings) {
    this.command = command;
    this.facts = facts;
    this.session = session;
  }

  bindingsFor(part: CommandPart, readsTime: boolean): CelBindings {
    if (this.part !== part || this.bindings === undefined) {
      const { identity, resource, session } = this.session;
      this.bindings = { identity, resource, session, command: celCommand(this.command, part), time: null };
      this.part = part;
    }
    if (!readsTime) return this.bindings;
    this.time ??= celTime(this.facts.nowMs);
    return { ...this.bindings, time: this.time };
  }
}

/**
 * Says which key of a rule a part does not meet, or undefined where the rule matches. The objects of an Allow rule are
 * not judged here: it covers objects one by one, together with other Allow rules (`coverage`).
 */
export function mismatch(rule: CompiledRule, part: CommandPart, reading: Reading): Mismatch | undefined {
  if (!concerns(rule, part)) return "operations";
  if (rule.word !== undefined && !part.words.some(rule.word)) return "commands";
  if (rule.part !== undefined && !rule.part(part)) return "profile";
  if (rule.action !== "Allow" && rule.object !== undefined && !part.objects.some(rule.object))
    return "objects";
  if (rule.unbounded && !part.unbounded) {
    // Only a write can be unbounded, so of other parts the answer is certain.
    if (part.operation === "write") reading.restsOnHeuristic = true;
    return "unbounded";
  }
  if (rule.cel === undefined) return undefined;
  const { reads } = rule.cel;
  if (reads.time) reading.isCacheable = false;
  if (reads.text) reading.readsText = true;
  const result = rule.cel.evaluate(reading.bindingsFor(part, reads.time));
  // An error makes a Deny or RequireApproval match and an Allow not match.
  if (result ?? rule.action !== "Allow") return undefined;
  if (rule.ref.enforcement === "heuristic") reading.restsOnHeuristic = true;
  return "cel";
}

/** What keeps somebody from reading, or asks first, is met by writes that tell of rows; what allows to read allows no write. */
function concerns({ operations, action }: CompiledRule, { operation, looks }: CommandPart): boolean {
  if (operations === undefined || operations.has(operation)) return true;
  return looks === true && action !== "Allow" && operations.has("read");
}

/** Rules of one mode, sorted by action and operation so that a decision looks at few of them. */
export class RuleTable {
  private readonly deny: RulesByOperation;
  private readonly approve: RulesByOperation;
  private readonly allow: RulesByOperation;

  constructor(rules: readonly CompiledRule[]) {
    const ordered = [...rules].sort(byRank);
    this.deny = byOperation(ordered.filter((rule) => rule.action === "Deny"));
    this.approve = byOperation(ordered.filter((rule) => rule.action === "RequireApproval"));
    this.allow = byOperation(ordered.filter((rule) => rule.action === "Allow"));
  }

  denies(part: CommandPart, reading: Reading): CompiledRule | undefined {
    return firstMatch(this.deny[part.operation], part, reading);
  }

  asksApproval(part: CommandPart, reading: Reading): CompiledRule | undefined {
    return firstMatch(this.approve[part.operation], part, reading);
  }

  /** Every rule that asks for approval of a part. */
  asking(part: CommandPart, reading: Reading): readonly CompiledRule[] {
    const rules = this.approve[part.operation];
    return rules.length === 0 ? rules : rules.filter((rule) => mismatch(rule, part, reading) === undefined);
  }

  /** The Allow rules that together cover a part, or what of it none covers. */
  covers(part: CommandPart, reading: Reading): Coverage {
    return coverage(this.allow[part.operation], part, reading);
  }
}

/** Whether Allow rules cover a part: the first of them and whether any was heuristic, or the first object left over. */
export type Coverage =
  | { readonly isCovered: true; readonly rule: CompiledRule; readonly isHeuristic: boolean }
  | { readonly isCovered: false; readonly object?: ObjectRef };

const nothingCovers: Coverage = { isCovered: false };

/** Covers every direct object of a part by the union of the Allow rules whose other keys it meets. */
export function coverage(rules: readonly CompiledRule[], part: CommandPart, reading: Reading): Coverage {
  let left: readonly ObjectRef[] | undefined;
  let first: CompiledRule | undefined;
  let isHeuristic = false;
  for (const rule of rules) {
    if (mismatch(rule, part, reading) !== undefined) continue;
    const ruleIsHeuristic = rule.ref.enforcement === "heuristic";
    const { object } = rule;
    if (object === undefined || (part.objects.length === 0 && coversNothingNamed(rule, part))) {
      return { isCovered: true, rule, isHeuristic: ruleIsHeuristic };
    }
    if (part.objects.length === 0) continue;
    const before: readonly ObjectRef[] = left ?? part.objects.filter((one) => mustBeCovered(one, part));
    left = before.filter((one) => !object(one));
    if (left.length < before.length || before.length === 0) {
      first ??= rule;
      isHeuristic ||= ruleIsHeuristic;
      if (left.length === 0) return { isCovered: true, rule: first, isHeuristic };
    }
  }
  const object = left?.[0] ?? part.objects.find((one) => mustBeCovered(one, part));
  return object === undefined ? nothingCovers : { isCovered: false, object };
}

/**
 * A rule that speaks of objects covers a part that names none only where there is nothing to reach: `SELECT 1`, or a
 * session statement that a profile knows. `CHECKPOINT` is not allowed by `objects: ["public.*"]`.
 */
function coversNothingNamed(rule: CompiledRule, part: CommandPart): boolean {
  return part.operation === "read" || rule.part !== undefined;
}

/** What a cursor reads was judged where it was declared; its name is no object of the data. */
function mustBeCovered(object: ObjectRef, part: CommandPart): boolean {
  return object.direct && !(part.operation === "read" && object.kind === "other");
}

type RulesByOperation = Readonly<Record<Operation, readonly CompiledRule[]>>;

function byOperation(rules: readonly CompiledRule[]): RulesByOperation {
  const entries = operationNames.map((operation) => [
    operation,
    rules.filter(
      ({ operations, action }) =>
        operations === undefined ||
        operations.has(operation) ||
        (operation === "write" && action !== "Allow" && operations.has("read")),
    ),
  ]);
  return Object.fromEntries(entries) as RulesByOperation;
}

function firstMatch(
  rules: readonly CompiledRule[],
  part: CommandPart,
  reading: Reading,
): CompiledRule | undefined {
  for (const rule of rules) if (mismatch(rule, part, reading) === undefined) return rule;
  return undefined;
}

/** Certain rules before heuristic ones, cheap before CEL, then by name: what is reported is the strongest reason. */
function byRank(a: CompiledRule, b: CompiledRule): number {
  const rank = (rule: CompiledRule) =>
    (rule.ref.enforcement === "heuristic" ? 2 : 0) + (rule.cel === undefined ? 0 : 1);
  const name = (rule: CompiledRule) => `${rule.ref.policy}/${rule.ref.rule}`;
  return rank(a) - rank(b) || (name(a) < name(b) ? -1 : Number(name(a) > name(b)));
}
