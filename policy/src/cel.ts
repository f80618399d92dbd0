/**
 * CEL in policy, with a bounded cost. The library bounds nothing (measured: six nested comprehensions over ten
 * elements took 2.6 s), so what may be expensive is refused when a policy is compiled, and what a client can make
 * large is refused when it is evaluated. Every refusal is an error, and an error fails closed.
 */
import { type CelInput, celEnv, isCelError, parse, plan } from "@bufbuild/cel";
import { RE2JS } from "re2js";
import type { Command, CommandPart, FactValue, Identity, ResourceFacts, SessionFacts } from "./model.ts";

/** What an expression reads; it decides what may be cached, and how sure a rule can be. */
export interface CelReads {
  readonly identity: boolean;
  readonly resource: boolean;
  readonly session: boolean;
  /** Anything of the command. */
  readonly command: boolean;
  /** The command's text or argv: the answer may change with a literal. */
  readonly text: boolean;
  readonly time: boolean;
  /** What the client says of itself, which is no evidence (`session.applicationName`). */
  readonly claimedByClient: boolean;
}

/** An expression that was checked, and what it reads. */
export interface CelProgram {
  readonly source: string;
  readonly reads: CelReads;
  /** True or false, or undefined for an error of any kind, a result that is no boolean included. */
  evaluate(bindings: CelBindings): boolean | undefined;
}

/** The variables of one evaluation; undefined marks one that is too large to be given to an expression. */
export interface CelBindings {
  readonly identity: CelInput | undefined;
  readonly resource: CelInput;
  readonly session: CelInput;
  readonly command: CelInput | undefined;
  readonly time: CelInput;
}

/** What became of the text of a condition. */
export type CelCompilation =
  | { readonly kind: "compiled"; readonly program: CelProgram }
  | { readonly kind: "invalid"; readonly reason: "InvalidCel" | "InvalidRegex"; readonly message: string };

/** Bounds on what a policy author may write and a client may make large; the product bounds one evaluation. */
export const celBounds = {
  sourceChars: 4_096,
  bracketDepth: 24,
  treeDepth: 64,
  treeNodes: 512,
  listElements: 128,
  comprehensionDepth: 2,
  comprehensions: 4,
  regexChars: 1_024,
  textChars: 16_384,
  /** Elements that one comprehension may meet in lists that come with the command or the identity. */
  inputElements: 1_024,
  /** The same where comprehensions nest, since the work is the square. */
  nestedInputElements: 32,
  /** Length of any text that a pattern meets inside a comprehension. */
  loopedRegexChars: 1_024,
} as const;

type Expr = ReturnType<typeof parse>["expr"];

/** Compiles an expression, or says what is wrong with it in words for the policy's author. */
export function compileCel(source: string): CelCompilation {
  if (typeof source !== "string" || source.trim() === "") return invalid("must be a CEL expression");
  if (source.length > celBounds.sourceChars) {
    return invalid(`is longer than ${celBounds.sourceChars} characters`);
  }
  if (bracketDepth(source) > celBounds.bracketDepth) {
    return invalid(`nests brackets deeper than ${celBounds.bracketDepth}`);
  }
  try {
    const { expr } = parse(source);
    const survey = new Survey();
    survey.visit(expr, { depth: 1, comprehensionDepth: 0, inRange: false, names: variableNames });
    const isNested = survey.deepestComprehension > 1;
    const evaluate = plan(environment, expr);
    const reads = { ...survey.reads };
    if (isNested && survey.longestList > celBounds.nestedInputElements) {
      return invalid(
        `nests comprehensions beside a list of more than ${celBounds.nestedInputElements} elements`,
      );
    }
    const size = {
      elements: isNested ? celBounds.nestedInputElements : celBounds.inputElements,
      chars: survey.matchesInLoop ? celBounds.loopedRegexChars : Number.POSITIVE_INFINITY,
    };
    const loops = survey.comprehensions > 0;
    return {
      kind: "compiled",
      program: {
        source,
        reads,
        evaluate: (bindings) => {
          if (reads.identity && bindings.identity === undefined) return undefined;
          if (reads.command && bindings.command === undefined) return undefined;
          if (loops && reads.identity && !isWithin(bindings.identity, size)) return undefined;
          if (loops && reads.command && !isWithin(bindings.command, size)) return undefined;
          // Only what the expression reads is bound, and that was checked above.
          const result = evaluate({ ...bindings } as Record<string, CelInput>);
          return typeof result === "boolean" ? result : undefined;
        },
      },
    };
  } catch (error) {
    if (error instanceof CelRefusal) return { kind: "invalid", reason: error.reason, message: error.message };
    // The parser throws a syntax error with a position, or a RangeError for what nests too deep.
    return invalid(error instanceof Error ? error.message.slice(0, 300) : "cannot be parsed");
  }
}

/** What became of the text of an expression over claims. */
export type ClaimTextCompilation =
  | {
      readonly kind: "compiled";
      /** The text that the expression gives, or undefined for an error of any kind. */
      readonly evaluate: (claims: Readonly<Record<string, unknown>>) => string | undefined;
    }
  | { readonly kind: "invalid"; readonly message: string };

/** Compiles an expression over `claims` that gives a text: how a provider maps its subjects to other names. */
export function compileClaimText(source: string): ClaimTextCompilation {
  if (source.length > celBounds.sourceChars || bracketDepth(source) > celBounds.bracketDepth)
    return { kind: "invalid", message: "is too long or nests too deep" };
  try {
    const { expr } = parse(source);
    const survey = new Survey();
    const names = new Set([...variableNames, "claims"]);
    survey.visit(expr, { depth: 1, comprehensionDepth: 0, inRange: false, names });
    const { reads, comprehensions } = survey;
    if (comprehensions > 0) throw new CelRefusal("may not hold a comprehension");
    if (reads.identity || reads.resource || reads.session || reads.command || reads.time)
      throw new CelRefusal("may read claims alone");
    const evaluate = plan(environment, expr);
    return {
      kind: "compiled",
      evaluate: (all) => {
        const claims = celValue(all, { left: celBounds.inputElements }, 0);
        if (claims === undefined) return undefined;
        const result = evaluate({ claims });
        return typeof result === "string" ? result : undefined;
      },
    };
  } catch (error) {
    return { kind: "invalid", message: error instanceof Error ? error.message.slice(0, 300) : "is no CEL" };
  }
}

/** Checks a regular expression of a policy with the linear engine that will run it; undefined where it is good. */
export function regexProblem(pattern: string): string | undefined {
  if (typeof pattern !== "string" || pattern === "") return "must be a regular expression";
  if (pattern.length > celBounds.regexChars) return `is longer than ${celBounds.regexChars} characters`;
  try {
    RE2JS.compile(pattern);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message.slice(0, 200) : "cannot be compiled";
  }
}

/** The identity as CEL sees it; undefined where its claims are too large to reason about safely. */
export function celIdentity(identity: Identity): CelInput | undefined {
  const budget = { left: celBounds.inputElements };
  const claims = celValue(identity.claims, budget, 0);
  if (claims === undefined || identity.groups.length > celBounds.inputElements) return undefined;
  const { serviceAccount } = identity;
  return fields({
    provider: identity.provider,
    user: identity.user,
    groups: [...identity.groups],
    kind: identity.kind,
    claims,
    ...(identity.onBehalfOf === undefined ? {} : { onBehalfOf: identity.onBehalfOf }),
    ...(serviceAccount && { serviceAccount: fields({ ...serviceAccount }) }),
  });
}

/** The resource as CEL sees it. */
export function celResource(resource: ResourceFacts): CelInput {
  return fields({
    namespace: resource.namespace,
    name: resource.name,
    labels: fields(resource.labels),
    namespaceLabels: fields(resource.namespaceLabels),
    protocol: resource.protocol,
  });
}

/** The session as CEL sees it. */
export function celSession(session: SessionFacts): CelInput {
  return fields({
    database: session.database,
    account: session.account,
    applicationName: session.applicationName,
    clientAddress: session.clientAddress,
  });
}

/**
 * One part of a command as CEL sees it: `words`, `operations`, `objects` and `unbounded` are the judged part's own,
 * as the rule's other keys are; `text` and `argv` are the whole command's. Undefined where it is too large.
 */
export function celCommand(command: Command, part: CommandPart): CelInput | undefined {
  if (command.text.length > celBounds.textChars || part.objects.length > celBounds.inputElements)
    return undefined;
  return fields({
    text: command.text,
    words: [...part.words],
    operations: [part.operation],
    objects: part.objects.map((object) => object.name),
    unbounded: part.unbounded,
    ...(command.argv === undefined ? {} : { argv: [...command.argv] }),
    ...(command.facts === undefined ? {} : { facts: celFacts(command.facts) }),
  });
}

function celFacts(facts: NonNullable<Command["facts"]>): CelInput {
  const entries = Object.entries(facts).map(([name, fact]): [string, CelInput] => [name, celFact(fact)]);
  return new Map(entries);
}

function celFact(fact: FactValue): CelInput {
  if (typeof fact !== "object") return fact;
  return isTexts(fact) ? [...fact] : fields(fact);
}

function isTexts(fact: FactValue): fact is readonly string[] {
  return Array.isArray(fact);
}

/** The moment of a decision as a CEL timestamp, whose accessors speak UTC unless they are given a zone. */
export function celTime(nowMs: number): CelInput {
  const date = new Date(nowMs);
  // Without a time every expression that reads it is an error, and an error fails closed.
  if (Number.isNaN(date.getTime())) return null;
  const value = toTimestamp({ text: date.toISOString() });
  return isCelError(value) ? null : value;
}

const variableFields: Readonly<Record<string, ReadonlySet<string> | undefined>> = {
  identity: new Set(["provider", "user", "groups", "kind", "serviceAccount", "onBehalfOf", "claims"]),
  resource: new Set(["namespace", "name", "labels", "namespaceLabels", "protocol"]),
  session: new Set(["database", "account", "applicationName", "clientAddress"]),
  command: new Set(["text", "words", "operations", "argv", "facts", "objects", "unbounded"]),
  time: undefined,
};
const variableNames: ReadonlySet<string> = new Set(Object.keys(variableFields));
const typeNames: ReadonlySet<string> = new Set(
  "bool int uint double string bytes list map null_type type".split(" "),
);

/** Patterns are literals of policies and few; compiling one takes longer than running it. */
const environment = celEnv({ re2: { compile: cachedRegex } });
const toTimestamp = plan(celEnv(), parse("timestamp(text)").expr);
const regexes = new Map<string, { test(text: string): boolean }>();
const regexesMax = 1_000;

function cachedRegex(pattern: string): { test(text: string): boolean } {
  const known = regexes.get(pattern);
  if (known) return known;
  const compiled = RE2JS.compile(pattern);
  const matcher = { test: (text: string) => compiled.matcher(text).find() };
  if (regexes.size >= regexesMax) regexes.clear();
  regexes.set(pattern, matcher);
  return matcher;
}

class CelRefusal extends Error {
  readonly reason: "InvalidCel" | "InvalidRegex";
  constructor(message: string, reason: "InvalidCel" | "InvalidRegex" = "InvalidCel") {
    super(message);
    this.reason = reason;
  }
}

interface Place {
  readonly depth: number;
  /** Inside the range of a comprehension, where adding lists would escape the bounds on their size. */
  readonly inRange: boolean;
  readonly comprehensionDepth: number;
  readonly names: ReadonlySet<string>;
}

/** Walks an expression once: refuses what costs too much or names nothing, and notes what is read. */
class Survey {
  nodes = 0;
  comprehensions = 0;
  deepestComprehension = 0;
  longestList = 0;
  matchesInLoop = false;
  reads = {
    identity: false,
    resource: false,
    session: false,
    command: false,
    text: false,
    time: false,
    claimedByClient: false,
  };

  visit(expr: Expr | undefined, place: Place): void {
    if (expr === undefined) return;
    this.nodes += 1;
    if (this.nodes > celBounds.treeNodes) throw new CelRefusal(`has more than ${celBounds.treeNodes} terms`);
    if (place.depth > celBounds.treeDepth) throw new CelRefusal(`nests deeper than ${celBounds.treeDepth}`);
    const inner = { ...place, depth: place.depth + 1 };
    const { exprKind } = expr;
    switch (exprKind.case) {
      case "constExpr":
        return;
      case "identExpr":
        this.readVariable(exprKind.value.name, undefined, place);
        return;
      case "selectExpr": {
        const { operand, field } = exprKind.value;
        if (operand?.exprKind.case === "identExpr" && variableNames.has(operand.exprKind.value.name)) {
          this.nodes += 1;
          this.readVariable(operand.exprKind.value.name, field, place);
          return;
        }
        this.visit(operand, inner);
        return;
      }
      case "callExpr": {
        const call = exprKind.value;
        if (!operators.has(call.function) && environment.funcs.find(call.function) === undefined) {
          throw new CelRefusal(`unknown function ${JSON.stringify(call.function)}`);
        }
        if (call.function === "matches") this.surveyRegex(call.args.at(-1), place);
        if (call.function === "_+_" && place.inRange && !isAccumulation(call.args[0])) {
          throw new CelRefusal("adds in the range of a comprehension, whose length could not be bounded");
        }
        this.visit(call.target, inner);
        for (const argument of call.args) this.visit(argument, inner);
        return;
      }
      case "listExpr":
        this.surveyList(exprKind.value.elements.length);
        for (const element of exprKind.value.elements) this.visit(element, inner);
        return;
      case "structExpr": {
        const { messageName, entries } = exprKind.value;
        if (messageName !== "") throw new CelRefusal(`unknown message ${JSON.stringify(messageName)}`);
        this.surveyList(entries.length);
        for (const entry of entries) {
          if (entry.keyKind.case === "mapKey") this.visit(entry.keyKind.value, inner);
          this.visit(entry.value, inner);
        }
        return;
      }
      case "comprehensionExpr": {
        const loop = exprKind.value;
        this.comprehensions += 1;
        const comprehensionDepth = place.comprehensionDepth + 1;
        this.deepestComprehension = Math.max(this.deepestComprehension, comprehensionDepth);
        if (comprehensionDepth > celBounds.comprehensionDepth) {
          throw new CelRefusal(`nests comprehensions deeper than ${celBounds.comprehensionDepth}`);
        }
        if (this.comprehensions > celBounds.comprehensions) {
          throw new CelRefusal(`has more than ${celBounds.comprehensions} comprehensions`);
        }
        this.visit(loop.iterRange, { ...inner, inRange: true });
        this.visit(loop.accuInit, inner);
        const names = new Set([...place.names, loop.iterVar, loop.iterVar2, loop.accuVar]);
        for (const body of [loop.loopCondition, loop.loopStep, loop.result]) {
          this.visit(body, { ...inner, comprehensionDepth, names });
        }
        return;
      }
      default:
        throw new CelRefusal("has an empty term");
    }
  }

  private surveyList(elements: number): void {
    this.longestList = Math.max(this.longestList, elements);
    if (elements > celBounds.listElements) {
      throw new CelRefusal(`has a list or map of more than ${celBounds.listElements} elements`);
    }
  }

  /** A pattern made from data would let a client choose what is compiled; only a literal can be checked here. */
  private surveyRegex(pattern: Expr | undefined, place: Place): void {
    const constant = pattern?.exprKind.case === "constExpr" ? pattern.exprKind.value.constantKind : undefined;
    if (constant?.case !== "stringValue") {
      throw new CelRefusal("the pattern of matches must be a literal", "InvalidRegex");
    }
    const problem = regexProblem(constant.value);
    if (problem !== undefined) throw new CelRefusal(`regular expression: ${problem}`, "InvalidRegex");
    this.matchesInLoop ||= place.comprehensionDepth > 0;
    if (place.comprehensionDepth > 1) throw new CelRefusal("uses matches inside nested comprehensions");
  }

  private readVariable(name: string, field: string | undefined, place: Place): void {
    if (!variableNames.has(name)) {
      if (place.names.has(name) || typeNames.has(name)) return;
      throw new CelRefusal(
        `unknown name ${JSON.stringify(name)}; there are ${[...variableNames].join(", ")}`,
      );
    }
    const known = variableFields[name];
    if (field !== undefined && known !== undefined && !known.has(field)) {
      throw new CelRefusal(
        `${name} has no field ${JSON.stringify(field)}; there are ${[...known].join(", ")}`,
      );
    }
    // A variable used whole may be indexed by anything: it counts as read in full.
    const all = field === undefined;
    const { reads } = this;
    if (name === "identity") reads.identity = true;
    if (name === "resource") reads.resource = true;
    if (name === "time") reads.time = true;
    if (name === "session") {
      reads.session = true;
      reads.claimedByClient ||= all || field === "applicationName";
    }
    if (name === "command") {
      reads.command = true;
      reads.text ||= all || field === "text" || field === "argv" || field === "facts";
    }
  }
}

/** Operators that the planner handles itself and that are therefore in no function table. */
const operators: ReadonlySet<string> = new Set(
  "_&&_ _||_ _?_:_ _[_] !_ -_ @in @not_strictly_false __not_strictly_false__".split(" "),
);

/** How the macros build lists: only they can name this variable. */
function isAccumulation(operand: Expr | undefined): boolean {
  return operand?.exprKind.case === "identExpr" && operand.exprKind.value.name.startsWith("@");
}

/** Depth of brackets outside string literals; the parser is recursive, so this comes before it. */
function bracketDepth(source: string): number {
  let depth = 0;
  let deepest = 0;
  for (const character of source.replaceAll(/"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/gs, "")) {
    if ("([{".includes(character)) deepest = Math.max(deepest, ++depth);
    else if (")]}".includes(character)) depth -= 1;
  }
  return deepest;
}

/** Whether nothing in a binding is larger than a comprehension may meet. */
function isWithin(value: unknown, size: { readonly elements: number; readonly chars: number }): boolean {
  if (typeof value === "string") return value.length <= size.chars;
  const values = Array.isArray(value) ? value : value instanceof Map ? [...value.values()] : [];
  return values.length <= size.elements && values.every((one) => isWithin(one, size));
}

/** Token claims as CEL values, bounded in number and depth; undefined where a bound is met. */
function celValue(value: unknown, budget: { left: number }, depth: number): CelInput | undefined {
  budget.left -= 1;
  if (budget.left < 0 || depth > 8) return undefined;
  if (value === null || typeof value === "boolean" || typeof value === "number") return value;
  if (typeof value === "string") return value.length <= celBounds.textChars ? value : undefined;
  if (Array.isArray(value)) {
    const list = value.map((one) => celValue(one, budget, depth + 1));
    return list.every((one) => one !== undefined) ? list : undefined;
  }
  if (typeof value !== "object") return undefined;
  const map = new Map<string, CelInput>();
  for (const [key, one] of Object.entries(value)) {
    if (one === undefined) continue;
    const converted = celValue(one, budget, depth + 1);
    if (converted === undefined) return undefined;
    map.set(key, converted);
  }
  return map;
}

function fields(values: Readonly<Record<string, CelInput>>): ReadonlyMap<string, CelInput> {
  return new Map(Object.entries(values));
}

function invalid(message: string): CelCompilation {
  return { kind: "invalid", reason: "InvalidCel", message };
}
