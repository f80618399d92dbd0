/**
 * Whether a condition holds a write back at all: no WHERE, one that is true for every row, or one that does not even
 * look at the rows it is about. Where the text does not tell, the write counts as unbounded.
 */
import type { RelationInfo } from "./names.ts";
import { parseDefinition } from "./parser.ts";
import { Rejected } from "./rejection.ts";
import {
  eachNode,
  isNode,
  listOf,
  namesOf,
  nodeOf,
  sameTree,
  stringsOf,
  type TreeNode,
  tagOf,
  textOf,
} from "./tree.ts";
import type { Scope, Walk } from "./walk.ts";

/** A write whose condition is in question. */
export interface ConditionedWrite {
  readonly relation: RelationInfo;
  readonly alias: string;
  readonly where: unknown;
  /** The FROM or USING items beside the target. */
  readonly from: unknown;
}

/** A write as a condition of a subquery sees it. */
interface JudgedWrite extends ConditionedWrite {
  /** Subqueries that the condition stands in, whose tables are nearer than the target. */
  readonly inside?: readonly TreeNode[] | undefined;
  /** The alias of the row being written, where the subquery's own table of the same rows is looked at. */
  readonly outer?: string;
}

/** `always` and `never` are certain; `some` holds rows back; `unknown` says nothing about the target's rows. */
type Truth = "always" | "never" | "some" | "unknown";

/** True where nothing in the condition holds rows of the target back. */
export function isUnbounded(walk: Walk, scope: Scope, write: ConditionedWrite): boolean {
  if (!isNode(write.where)) return true;
  const looks = { left: 20_000 };
  const truth = new Judge(walk, scope, write, looks).truth(write.where);
  // An answer that we ran out of looks for is no answer.
  return truth === "always" || truth === "unknown" || looks.left <= 0;
}

/** MERGE changes whatever its join matches, and with NOT MATCHED BY SOURCE whatever it does not match. */
export function isMergeUnbounded(
  walk: Walk,
  scope: Scope,
  merge: { readonly relation: RelationInfo; readonly alias: string; readonly node: TreeNode },
): boolean {
  const { relation, alias, node } = merge;
  const from = [node.sourceRelation];
  const isFree = (where: unknown) => isUnbounded(walk, scope, { relation, alias, where, from });
  const isJoinFree = isFree(node.joinCondition);
  return listOf(node, "mergeWhenClauses").some((item) => {
    const clause = nodeOf(item, "MergeWhenClause") ?? {};
    const command = textOf(clause, "commandType");
    if (command !== "CMD_UPDATE" && command !== "CMD_DELETE") return false;
    const isMatched = textOf(clause, "matchKind") === "MERGE_WHEN_MATCHED";
    return (isMatched ? isJoinFree : true) && isFree(clause.condition);
  });
}

/** True where a query gives all rows of the table that they are put into again. */
export function readsWhole(
  walk: Walk,
  scope: Scope,
  write: Pick<ConditionedWrite, "relation" | "alias">,
  select: TreeNode,
): boolean {
  const all = { ...write, where: undefined, from: undefined };
  return new Judge(walk, scope, all, { left: 20_000 }).isWholeTarget(select);
}

const comparisons = new Set(["=", "<>", "!=", "<", "<=", ">", ">=", "~~", "!~~", "~~*", "!~~*", "~", "~*"]);
const complements: Readonly<Record<string, string>> = {
  "=": "<>",
  "<>": "=",
  "<": ">=",
  ">=": "<",
  ">": "<=",
  "<=": ">",
};
/** Equal sides make these true (or null, for null rows, which is no condition worth the name). */
const reflexive = new Set(["=", "<=", ">=", "~~", "~~*"]);
const irreflexive = new Set(["<>", "<", ">", "!~~", "!~~*"]);
/** What these say of a row is the same for all rows that hold something. */
const idleFunctions = new Set(["num_nulls", "num_nonnulls", "pg_typeof", "pg_column_size"]);
/** Functions that are what LIKE and regular expressions call. */
const matchingFunctions: ReadonlyMap<string, string> = new Map(
  ["", "text", "bpchar", "name", "bytea"].flatMap((type) => [
    [`${type}like`, "~~"],
    [`${type === "" ? "not" : `${type}n`}like`, "!~~"],
    [`${type}iclike`, "~~*"],
    [`${type}icnlike`, "!~~*"],
    [`${type}regexeq`, "~"],
    [`${type}regexne`, "!~"],
    [`${type}icregexeq`, "~*"],
    [`${type}icregexne`, "!~*"],
  ]),
);
/** Without GROUP BY these give one row of no rows. */
const aggregates = new Set(
  `count sum avg min max array_agg string_agg json_agg jsonb_agg bool_and bool_or every any_value`.split(" "),
);
/** Never below zero. */
const naturalFunctions = new Set(
  "length char_length character_length octet_length bit_length abs cardinality strpos position".split(" "),
);
/** System columns that tell nothing of a row that its writer could mean. */
const idleColumns = new Set(["tableoid", "cmin", "cmax", "xmin", "xmax"]);

/** With equal sides these are a constant; `=` stands for NULLIF too. */
const selfCancelling = /^([-/%#=]|.*(eq|le|ge))$/;

class Judge {
  readonly #walk: Walk;
  readonly #scope: Scope;
  readonly #write: JudgedWrite;
  readonly #isAlone: boolean;
  readonly #looks: { left: number };
  /** WITH queries being looked into, as RECURSIVE ones name themselves. */
  readonly #withs = new Set<string>();

  constructor(walk: Walk, scope: Scope, write: JudgedWrite, looks: { left: number }) {
    this.#looks = looks;
    this.#walk = walk;
    this.#scope = scope;
    this.#write = write;
    this.#isAlone = !Array.isArray(write.from) || write.from.length === 0;
  }

  truth(value: unknown): Truth {
    if (!isNode(value) || !this.#mayLook()) return "unknown";
    const tag = tagOf(value) ?? "";
    const node = nodeOf(value, tag) ?? {};
    switch (tag) {
      case "A_Const":
        return this.#constant(node);
      case "BoolExpr":
        return this.#boolean(node);
      case "NullTest":
        return this.#nullTest(node);
      case "BooleanTest":
        return this.#booleanTest(node);
      case "A_Expr":
        return this.#comparison(node);
      case "SubLink":
        return this.#subquery(node);
      case "TypeCast":
        return this.#cast(node);
      case "CoalesceExpr":
        return this.#coalesce(listOf(node, "args"));
      case "CaseExpr":
        return this.#case(node);
      case "CurrentOfExpr":
        return "some";
      case "FuncCall":
        return this.#call(value, node);
      default:
        return this.#mentionsTarget(value) ? "some" : "unknown";
    }
  }

  /** `textlike(a, '%')` is `a LIKE '%'`. */
  #call(value: TreeNode, node: TreeNode): Truth {
    const name = namesOf(node, "funcname").at(-1) ?? "";
    const operator = name === "regexp_like" ? "~" : matchingFunctions.get(name);
    if (operator !== undefined && this.#matchesEverything(operator, listOf(node, "args")[1])) {
      return operator.startsWith("!") ? "never" : "always";
    }
    return this.#mentionsTarget(value) && !this.#cancelsOut(value) ? "some" : "unknown";
  }

  /** Conditions built to make us look for ever are unbounded. */
  #mayLook(cost = 1): boolean {
    this.#looks.left -= cost;
    return this.#looks.left > 0;
  }

  #constant(node: TreeNode): Truth {
    this.#walk.literalsMatter = true;
    const boolean = nodeOf(node, "boolval");
    if (boolean !== undefined) return boolean.boolval === true ? "always" : "never";
    if (node.isnull === true) return "never";
    const text = nodeOf(node, "sval");
    if (text === undefined) return "unknown";
    const word = textOf(text, "sval").trim().toLowerCase();
    if (word !== "" && ["true", "yes", "on", "1"].some((on) => on.startsWith(word) && word !== "o")) {
      return "always";
    }
    return "unknown";
  }

  #boolean(node: TreeNode): Truth {
    const args = listOf(node, "args");
    const first = nodeOf(args[0], "BoolExpr");
    if (textOf(node, "boolop") === "NOT_EXPR" && textOf(first, "boolop") === "NOT_EXPR") {
      return this.truth(listOf(first, "args")[0]);
    }
    const truths = args.map((arg) => this.truth(arg));
    switch (textOf(node, "boolop")) {
      case "NOT_EXPR":
        return truths[0] === "always" ? "never" : truths[0] === "never" ? "always" : this.#negated(args[0]);
      case "AND_EXPR":
        if (truths.includes("never")) return "never";
        if (truths.includes("some")) return "some";
        return truths.every((truth) => truth === "always") ? "always" : "unknown";
      default:
        if (truths.includes("always") || this.#hasComplements(args)) return "always";
        if (truths.includes("unknown")) return "unknown";
        return truths.includes("some") ? "some" : "never";
    }
  }

  /** NOT of something that is neither always nor never: `NOT (a = 1 AND a <> 1)` is true of every row. */
  #negated(arg: TreeNode | undefined): Truth {
    const inner = nodeOf(arg, "BoolExpr");
    if (inner !== undefined && textOf(inner, "boolop") !== "NOT_EXPR") {
      // De Morgan, so that contradictions and complements inside are seen.
      const boolop = textOf(inner, "boolop") === "AND_EXPR" ? "OR_EXPR" : "AND_EXPR";
      return this.#boolean({ boolop, args: listOf(inner, "args").map(negation) });
    }
    const negated = negation(arg ?? {});
    if (nodeOf(negated, "BoolExpr") === undefined) return this.truth(negated);
    return this.#mentionsTarget(arg) ? this.truth(arg) : "unknown";
  }

  /** `a = 1 OR a <> 1`, `a IS NULL OR a IS NOT NULL`, `a > 3 OR a < 5`, `x OR NOT x`: one pass, whatever the length. */
  #hasComplements(args: readonly TreeNode[]): boolean {
    const seen = new Set<string>();
    const differing = new Map<string, string>();
    for (const arg of args) {
      const { left, right } = differenceOf(arg) ?? { left: "", right: "" };
      const other = left === "" ? undefined : differing.get(left);
      // `a <> 1 OR a <> 2`, as `NOT (a = 1 AND a = 2)` is.
      if (other !== undefined && this.#literal() && other !== right) return true;
      differing.set(left, right);
      const { is, opposites } = complementKeys(arg);
      this.#looks.left -= Math.ceil((is[0]?.length ?? 0) / 200);
      if (opposites.some((opposite) => seen.has(opposite))) return this.#literal();
      for (const key of is) seen.add(key);
    }
    return false;
  }

  /** Marks that the answer came from looking at constants. */
  #literal(): true {
    this.#walk.literalsMatter = true;
    return true;
  }

  #nullTest(node: TreeNode): Truth {
    const arg = nodeOf(node, "arg");
    const isNull = textOf(node, "nulltesttype") === "IS_NULL";
    if (nodeOf(arg, "A_Const") !== undefined) {
      this.#literal();
      return (nodeOf(arg, "A_Const")?.isnull === true) === isNull ? "always" : "never";
    }
    // IS NOT NULL of a column or a whole row is the classic condition that is none.
    if (!isNull || this.#cancelsOut(arg)) return "unknown";
    const expression = nodeOf(arg, "A_Expr");
    if (textOf(expression, "kind") === "AEXPR_OP" && operandsOf(expression).some(isNullConstant))
      return "unknown";
    return this.#mentionsTarget(arg) ? "some" : "unknown";
  }

  #booleanTest(node: TreeNode): Truth {
    const inner = this.truth(nodeOf(node, "arg"));
    switch (textOf(node, "booltesttype")) {
      case "IS_TRUE":
        return inner;
      case "IS_NOT_FALSE":
        return inner === "never" ? "unknown" : inner;
      case "IS_FALSE":
      case "IS_NOT_TRUE":
        return inner === "always" ? "never" : inner === "never" ? "always" : inner;
      case "IS_UNKNOWN":
        return this.#mentionsTarget(node.arg) ? "some" : "unknown";
      default:
        return "unknown";
    }
  }

  #comparison(node: TreeNode): Truth {
    const kind = textOf(node, "kind");
    const operator = namesOf(node, "name").at(-1) ?? "";
    const left = nodeOf(node, "lexpr");
    const right = nodeOf(node, "rexpr");
    if (kind.startsWith("AEXPR_OP_") || kind === "AEXPR_IN") return this.#membership(node, left, right);
    if (kind.includes("BETWEEN")) return this.#between(left, right);
    if (sameTree(left, right) && left !== undefined) {
      this.#walk.literalsMatter = true;
      if (kind === "AEXPR_NOT_DISTINCT") return "always";
      if (kind === "AEXPR_DISTINCT") return "never";
      if (reflexive.has(operator)) return "always";
      return irreflexive.has(operator) ? "never" : "unknown";
    }
    const truthOfBoolean = this.#againstBoolean(operator, left, right);
    if (truthOfBoolean !== undefined) return truthOfBoolean;
    if (!this.#mentionsTarget(node)) return this.#constants(operator, left, right);
    if (kind === "AEXPR_DISTINCT" && isNullConstant(right)) return "unknown";
    // Null for every row: its negation, and IS NOT TRUE of it, are no conditions.
    if (kind === "AEXPR_OP" && (isNullConstant(left) || isNullConstant(right))) return "never";
    if (this.#matchesEverything(operator, right)) return operator.startsWith("!") ? "never" : "always";
    if (this.#isSelfComparison(left, right)) return "unknown";
    if (this.#cancelsOut(left) || this.#cancelsOut(right)) return "unknown";
    if (this.#isBelowAll(operator, left, right) || this.#isExtreme(left, right)) return "unknown";
    if (this.#isOwnValue(left) || this.#isOwnValue(right)) return "unknown";
    if (this.#readsWholeTarget(left) || this.#readsWholeTarget(right)) return "unknown";
    if (this.#isSelfJoin(left, right)) return "unknown";
    return comparisons.has(operator) || this.#mentionsTarget(left) || this.#mentionsTarget(right)
      ? "some"
      : "unknown";
  }

  /** `(id IS NULL) = false`: the test itself, or its negation. */
  #againstBoolean(
    operator: string,
    left: TreeNode | undefined,
    right: TreeNode | undefined,
  ): Truth | undefined {
    if (operator !== "=" && operator !== "<>") return undefined;
    const [test, boolean] =
      booleanOf(right) === undefined ? [right, booleanOf(left)] : [left, booleanOf(right)];
    if (test === undefined || boolean === undefined || nodeOf(test, "A_Const") !== undefined)
      return undefined;
    this.#literal();
    if ((operator === "=") === boolean) return this.truth(test);
    return this.#boolean({ boolop: "NOT_EXPR", args: [test] });
  }

  /** `id - id`, `id * 0`, `id % 1`, `nullif(id, id)`: columns of which nothing is left. */
  #cancelsOut(value: TreeNode | undefined): boolean {
    let isIdle = false;
    eachNode(value, (tag, node) => {
      if (isIdle || tag === "SelectStmt" || !this.#mayLook(0.1)) return true;
      if (tag === "A_Expr") isIdle = this.#cancel(namesOf(node, "name").at(-1) ?? "", operandsOf(node));
      if (tag === "FuncCall") {
        const name = namesOf(node, "funcname").at(-1) ?? "";
        const operands = listOf(node, "args");
        isIdle =
          idleFunctions.has(name) || this.#isFoundAlways(name, operands) || this.#cancel(name, operands);
      }
      if (tag === "CaseExpr" && areLiterals(resultsOf(node)))
        isIdle = this.#literal() && areAlike(resultsOf(node));
      return isIdle;
    });
    return isIdle;
  }

  #cancel(name: string, operands: readonly (TreeNode | undefined)[]): boolean {
    const [left, right] = operands;
    if (left === undefined || right === undefined || operands.length !== 2) return false;
    if (selfCancelling.test(name) && sameTree(left, right) && this.#mentionsTarget(left)) return true;
    const [first, second] = [numberOf(left), numberOf(right)];
    if (first !== undefined || second !== undefined) this.#literal();
    if (name === "*" || name === "&") return first === 0 || second === 0;
    return (name === "%" || name === "mod") && Math.abs(second ?? 0) === 1;
  }

  /** `length(a) >= 0`, `a * a >= 0`, `a >= ''`, `ctid >= '(0,0)'`: nothing lies below. */
  #isBelowAll(operator: string, left: TreeNode | undefined, right: TreeNode | undefined): boolean {
    const isTurned = operator === "<=" || operator === "<";
    const [value, bound] = isTurned ? [right, left] : [left, right];
    if (!isTurned && operator !== ">=" && operator !== ">") return false;
    const isStrict = operator === "<" || operator === ">";
    const isNatural = naturalFunctions.has(nameOfCall(value)) || isSquare(nodeOf(value, "A_Expr"));
    const number = isNatural ? numberOf(bound) : undefined;
    if (number !== undefined && this.#literal()) return isStrict ? number < 0 : number <= 0;
    const text = textConstant(bound);
    if (text === undefined) return false;
    this.#literal();
    if (nameOfColumn(value) === "ctid") return /^\(0,[01]\)$/.test(text);
    return text === "" && !isStrict;
  }

  /** A search for the empty text, which is everywhere. */
  #isFoundAlways(name: string, operands: readonly TreeNode[]): boolean {
    if (name !== "position" && name !== "strpos" && name !== "starts_with") return false;
    const texts = operands.map(textConstant);
    return texts.some((text) => text !== undefined) && this.#literal() && texts.includes("");
  }

  /** `greatest(a, 1) >= 1`: whatever a is. */
  #isExtreme(left: TreeNode | undefined, right: TreeNode | undefined): boolean {
    return [
      [left, right],
      [right, left],
    ].some(([side, other]) =>
      listOf(nodeOf(side, "MinMaxExpr"), "args").some(
        (arg) =>
          nodeOf(arg, "A_Const") !== undefined &&
          nodeOf(other, "A_Const") !== undefined &&
          this.#literal() &&
          sameTree(arg, other),
      ),
    );
  }

  /** `(SELECT x.id FROM t x WHERE x.id = t.id)`: the row's own value. */
  #isOwnValue(value: TreeNode | undefined): boolean {
    const select = nodeOf(nodeOf(nodeOf(value, "SubLink"), "subselect"), "SelectStmt");
    if (select === undefined) return false;
    if (this.#ownColumnSelected(select) !== undefined) return true;
    if (hasLimit(select) || !this.#isSelfExists(select)) return false;
    return listOf(select, "targetList").every(
      (target) => nodeOf(nodeOf(nodeOf(target, "ResTarget"), "val"), "ColumnRef") !== undefined,
    );
  }

  /** Two literals: equal kinds are compared, everything else stays unknown, which is unbounded as well. */
  #constants(operator: string, left: TreeNode | undefined, right: TreeNode | undefined): Truth {
    const first = numberOf(left);
    const second = numberOf(right);
    if (first === undefined || second === undefined) return "unknown";
    this.#literal();
    switch (operator) {
      case "=":
        return first === second ? "always" : "never";
      case "<>":
        return first !== second ? "always" : "never";
      case "<":
        return first < second ? "always" : "never";
      case ">":
        return first > second ? "always" : "never";
      default:
        return "unknown";
    }
  }

  /** `a IN (…)`, `a = ANY (…)`: true of all where a itself, or the whole table's column, is in the list. */
  #membership(node: TreeNode, left: TreeNode | undefined, right: TreeNode | undefined): Truth {
    if (!this.#mentionsTarget(node)) return "unknown";
    if (isEmptyArray(right)) {
      this.#literal();
      return textOf(node, "kind") === "AEXPR_OP_ALL" ? "always" : "never";
    }
    const list = listOf(nodeOf(right, "List"), "items");
    const elements = list.length > 0 ? list : listOf(nodeOf(right, "A_ArrayExpr"), "elements");
    // `(a = 1) IN (true, false)`
    const booleans = new Set(elements.map(booleanOf));
    if (booleans.has(true) || booleans.has(false)) this.#literal();
    if (booleans.has(true) && booleans.has(false)) return "unknown";
    if (this.#cancelsOut(left)) return "unknown";
    if (elements.some((item) => sameTree(item, left) || this.#isSelfComparison(left, item))) return "unknown";
    if (this.#readsWholeTarget(node)) return "unknown";
    return "some";
  }

  #between(left: TreeNode | undefined, right: TreeNode | undefined): Truth {
    const bounds = listOf(nodeOf(right, "List"), "items");
    if (bounds.some((bound) => sameTree(bound, left) || this.#isSelfComparison(left, bound)))
      return "unknown";
    if (this.#cancelsOut(left) || bounds.some((bound) => this.#readsWholeTarget(bound))) return "unknown";
    return this.#mentionsTarget(left) || this.#mentionsTarget(right) ? "some" : "unknown";
  }

  #subquery(node: TreeNode): Truth {
    const kind = textOf(node, "subLinkType");
    const select = nodeOf(nodeOf(node, "subselect"), "SelectStmt") ?? {};
    if (kind === "EXISTS_SUBLINK") {
      // Only a subquery that looks at the row being written can tell rows apart.
      if (!this.#isCorrelated(select) || this.#isSelfExists(select)) return "unknown";
      return this.#existence(select);
    }
    if (!this.#mentionsTarget(node.testexpr) && !this.#isCorrelated(select)) return "unknown";
    if (kind === "ANY_SUBLINK" && this.#isOwnColumnAgain(node.testexpr, select)) return "unknown";
    if (kind === "EXPR_SUBLINK" && listOf(select, "fromClause").length === 0) return this.#expression(select);
    return this.isWholeTarget(select) ? "unknown" : "some";
  }

  /** Whether rows are found for all rows of the target alike: what is selected or sorted by holds none back. */
  #existence(select: TreeNode): Truth {
    if (nodeOf(select, "larg") !== undefined) {
      const sides = ["larg", "rarg"].map((side) => this.#existence(nodeOf(select, side) ?? {}));
      if (textOf(select, "op") !== "SETOP_UNION") return sides.includes("some") ? "some" : "unknown";
      return sides.every((side) => side === "some" || side === "never") ? "some" : "unknown";
    }
    const { whereClause, havingClause, fromClause } = select;
    if (havingClause === undefined && select.groupClause === undefined && isAggregated(select))
      return "unknown";
    if (this.#correlates(select, [fromClause, havingClause])) return "some";
    if (!this.#correlates(select, [whereClause])) return "unknown";
    const truth = this.#inside(select).truth(whereClause);
    // True of all that is there; whether anything is, nobody knows.
    return truth === "always" && fromClause !== undefined ? "unknown" : truth;
  }

  /** `(SELECT id = id)`: nothing but the expression. */
  #expression(select: TreeNode): Truth {
    const values = listOf(select, "targetList").map((item) => nodeOf(nodeOf(item, "ResTarget"), "val"));
    const conditions = [select.whereClause, select.havingClause].filter(isNode);
    if (values.length !== 1 || nodeOf(select, "larg") !== undefined) return "unknown";
    return this.#boolean({ boolop: "AND_EXPR", args: [...values, ...conditions] });
  }

  /** `id IN (SELECT id FROM other)` where no table of the subquery has an `id`: the row's own, so that it is always in. */
  #isOwnColumnAgain(test: unknown, select: TreeNode): boolean {
    const names = stringsOf(listOf(isNode(test) ? nodeOf(test, "ColumnRef") : undefined, "fields"));
    return this.#ownColumnSelected(select) === (names.at(-1) ?? "");
  }

  /** The column of the row being written that the subquery gives back, whatever it reads. */
  #ownColumnSelected(select: TreeNode): string | undefined {
    const [target, ...more] = listOf(select, "targetList");
    const [row] = listOf(select, "valuesLists");
    const value = nodeOf(nodeOf(target, "ResTarget"), "val") ?? listOf(nodeOf(row, "List"), "items")[0];
    const column = nodeOf(value, "ColumnRef");
    const names = stringsOf(listOf(column, "fields"));
    const name = names.at(-1);
    if (name === undefined || more.length > 0 || names.length < listOf(column, "fields").length)
      return undefined;
    const levels = [...(this.#write.inside ?? []), select];
    return this.#isOwnColumn(levels, column ?? {}, this.#seemsOuterColumn) ? name : undefined;
  }

  /** Judges conditions of a subquery, whose own tables stand beside the target. */
  #inside(select: TreeNode): Judge {
    const from = listOf(select, "fromClause");
    const inside = [...(this.#write.inside ?? []), select];
    const write = { ...this.#write, inside, from: from.length === 0 ? this.#write.from : from };
    return new Judge(this.#walk, this.#scope, write, this.#looks);
  }

  #cast(node: TreeNode): Truth {
    const arg = nodeOf(node, "arg");
    const constant = nodeOf(arg, "A_Const");
    if (constant !== undefined) {
      this.#literal();
      const integer = nodeOf(constant, "ival");
      if (integer !== undefined) return (integer.ival ?? 0) === 0 ? "never" : "always";
    }
    return this.truth(arg);
  }

  #coalesce(args: readonly TreeNode[]): Truth {
    for (const arg of args) {
      if (isNullConstant(arg)) continue;
      const truth = this.truth(arg);
      if (truth !== "never") return truth;
    }
    return "never";
  }

  #case(node: TreeNode): Truth {
    // Without ELSE, NULL.
    const truths = resultsOf(node).map((result) => (result === undefined ? "never" : this.truth(result)));
    if (truths.every((truth) => truth === "always")) return "always";
    if (truths.every((truth) => truth === "some")) return "some";
    if (!truths.includes("some") && !truths.includes("never")) return "unknown";
    const isDecisive = listOf(node, "args").some((item) => {
      const condition = nodeOf(nodeOf(item, "CaseWhen"), "expr");
      return this.truth(condition) === "some";
    });
    return isDecisive ? "some" : "unknown";
  }

  /** LIKE '%', SIMILAR TO '%', ~ '.*' and the like, and their negations. */
  #matchesEverything(operator: string, right: TreeNode | undefined): boolean {
    if (!/^(!?~~\*?|!?~\*?|\^@)$/.test(operator)) return false;
    const call = nodeOf(right, "FuncCall");
    const name = namesOf(call, "funcname").at(-1);
    const isSimilar = name === "similar_to_escape";
    const isEscaped = isSimilar || name === "like_escape";
    const text = nodeOf(nodeOf(isEscaped ? listOf(call, "args")[0] : right, "A_Const"), "sval");
    if (text === undefined) return false;
    this.#literal();
    const pattern = textOf(text, "sval");
    if (operator === "^@") return pattern === "";
    if (isSimilar || operator.includes("~~")) return /^%+$/.test(pattern);
    return pattern === "" || /^[\^$.*]*$/.test(pattern);
  }

  /** Both sides look at the same columns of the target and nothing else: `id + 0 = id`. */
  #isSelfComparison(left: TreeNode | undefined, right: TreeNode | undefined): boolean {
    const first = this.#columns(left);
    const second = this.#columns(right);
    return first.length > 0 && second.length > 0 && first.every((name) => second.includes(name));
  }

  /** `t.id = other.id` where the other is the same table again. */
  #isSelfJoin(left: TreeNode | undefined, right: TreeNode | undefined): boolean {
    const first = stringsOf(listOf(nodeOf(left, "ColumnRef"), "fields"));
    const second = stringsOf(listOf(nodeOf(right, "ColumnRef"), "fields"));
    if (first.length === 0 || second.length === 0) return false;
    if (first.at(-1) !== second.at(-1) && this.#isAlone) return false;
    return [first, second].some((names) => {
      const alias = names.at(-2);
      if (alias === undefined || alias === this.#write.alias || alias === this.#write.outer) return false;
      return this.#isTargetAgain(alias);
    });
  }

  /** A FROM item that shows the whole target: the table again, or a subquery or WITH query over all of it. */
  #isTargetAgain(alias: string): boolean {
    const relation = this.#scope.aliases.get(alias);
    const own = this.#write.relation;
    if (relation !== undefined) {
      return (relation.name === own.name && relation.schema === own.schema) || this.#isWholeView(relation);
    }
    let isAgain = false;
    eachNode(this.#write.from, (tag, node) => {
      if (tag === "JoinExpr" && textOf(nodeOf(node, "alias"), "aliasname") === alias) {
        const sides = [node.larg, node.rarg];
        if (sides.some((side) => isNode(side) && this.#heldWhole(side) !== undefined)) isAgain = true;
      }
      if (tag === "RangeSubselect" && textOf(nodeOf(node, "alias"), "aliasname") === alias) {
        const select = nodeOf(nodeOf(node, "subquery"), "SelectStmt") ?? {};
        if (this.isWholeTarget(select)) isAgain = true;
        return true;
      }
      if (tag === "RangeVar") {
        const shown = textOf(nodeOf(node, "alias"), "aliasname") || textOf(node, "relname");
        if (shown === alias && this.#isWholeWith(textOf(node, "relname"))) isAgain = true;
      }
      return false;
    });
    return isAgain;
  }

  #isWholeWith(name: string): boolean {
    const query = this.#scope.ctes.get(name);
    if (query === undefined || this.#withs.has(name)) return false;
    this.#withs.add(name);
    const isWhole = this.isWholeTarget(nodeOf(query, "SelectStmt") ?? {});
    this.#withs.delete(name);
    return isWhole;
  }

  /** A subquery over the target that leaves no row out. */
  isWholeTarget(select: TreeNode): boolean {
    if (!this.#mayLook()) return true;
    for (const side of ["larg", "rarg"]) {
      const inner = nodeOf(select, side);
      if (inner !== undefined && this.isWholeTarget(inner)) return true;
    }
    if (hasLimit(select)) return false;
    if (select.havingClause !== undefined && this.truth(select.havingClause) !== "always") return false;
    const own = new Map<string, TreeNode>();
    for (const item of listOf(nodeOf(select, "withClause"), "ctes")) {
      const cte = nodeOf(item, "CommonTableExpr");
      own.set(textOf(cte, "ctename"), nodeOf(nodeOf(cte, "ctequery"), "SelectStmt") ?? {});
    }
    const held = listOf(select, "fromClause").flatMap((item) => this.#heldWhole(item, own) ?? []);
    if (held.length === 0) return false;
    if (select.whereClause === undefined) return true;
    return held.some((alias) => this.#isFreeFor(alias, select.whereClause, select.fromClause));
  }

  /** True where the condition holds back no row of the table that has this alias. */
  #isFreeFor(alias: string, where: unknown, from: unknown): boolean {
    const isAlone = listOf({ from }, "from").length === 1;
    const outer = this.#write.alias;
    const seen = isAlone ? undefined : from;
    const write = { ...this.#write, where, alias, outer, inside: undefined, from: seen };
    const truth = new Judge(this.#walk, this.#scope, write, this.#looks).truth(where);
    return truth === "always" || truth === "unknown";
  }

  /** The alias by which a FROM item shows all rows of the target; undefined where it does not. */
  #heldWhole(item: TreeNode, own?: ReadonlyMap<string, TreeNode>): string | undefined {
    const rangeVar = nodeOf(item, "RangeVar");
    if (rangeVar !== undefined) {
      const name = textOf(rangeVar, "relname");
      const nearer = own?.get(name);
      const isWhole =
        (nearer !== undefined && this.isWholeTarget(nearer)) ||
        this.#namesTarget(rangeVar) ||
        this.#isWholeWith(name);
      return isWhole ? textOf(nodeOf(rangeVar, "alias"), "aliasname") || name : undefined;
    }
    const nested = nodeOf(item, "RangeSubselect");
    if (nested !== undefined) {
      const select = nodeOf(nodeOf(nested, "subquery"), "SelectStmt");
      const isWhole = select !== undefined && this.isWholeTarget(select);
      return isWhole ? textOf(nodeOf(nested, "alias"), "aliasname") : undefined;
    }
    const join = nodeOf(item, "JoinExpr");
    return join === undefined ? undefined : this.#heldByJoin(join, own);
  }

  /** An outer join keeps the rows of its side; another one those that its condition does not hold back. */
  #heldByJoin(join: TreeNode, own: ReadonlyMap<string, TreeNode> | undefined): string | undefined {
    const type = textOf(join, "jointype");
    const isCondition = join.usingClause !== undefined || join.isNatural === true;
    const kept = { larg: type === "JOIN_LEFT", rarg: type === "JOIN_RIGHT" };
    for (const side of ["larg", "rarg"] as const) {
      const alias = this.#heldWhole(nodeOf(join, side) ?? {}, own);
      if (alias === undefined) continue;
      if (kept[side] || type === "JOIN_FULL") return alias;
      if (isCondition) continue;
      if (join.quals === undefined || this.#isFreeFor(alias, join.quals, [{}, {}])) return alias;
    }
    return undefined;
  }

  /** A view that shows all of the target. */
  #isWholeView(relation: RelationInfo): boolean {
    if (relation.kind !== "view" || relation.definition === undefined || !this.#mayLook(10)) return false;
    const own = this.#write.relation;
    if (!relation.reads.some(({ name }) => name === `${own.schema}.${own.name}`)) return false;
    try {
      const [statement] = parseDefinition(relation.definition);
      return this.isWholeTarget(nodeOf(statement?.node, "SelectStmt") ?? {});
    } catch (error) {
      // A definition that cannot be read is judged as code that nobody can read.
      if (error instanceof Rejected) return false;
      throw error;
    }
  }

  #namesTarget(rangeVar: TreeNode): boolean {
    const schema = textOf(rangeVar, "schemaname");
    const { relation } = this.#write;
    const name = textOf(rangeVar, "relname");
    if (name === relation.name && (schema === "" || schema === relation.schema)) return true;
    const found = this.#walk.names.relation(schema === "" ? undefined : schema, name);
    return found !== undefined && this.#isWholeView(found);
  }

  #readsWholeTarget(value: TreeNode | undefined): boolean {
    let isWhole = false;
    eachNode(value, (tag, node) => {
      if (tag === "SelectStmt" && this.isWholeTarget(node)) isWhole = true;
      return false;
    });
    return isWhole;
  }

  /** EXISTS over the target joined to itself: every row finds at least itself. */
  #isSelfExists(select: TreeNode): boolean {
    return listOf(select, "fromClause").some((item) => {
      const rangeVar = nodeOf(item, "RangeVar");
      return (
        rangeVar !== undefined && this.#namesTarget(rangeVar) && isEquality(nodeOf(select, "whereClause"))
      );
    });
  }

  /** True where the subquery names a column of the row being written. */
  #isCorrelated(select: TreeNode): boolean {
    return this.#correlates(select, [select]);
  }

  /** The same of parts of it; what a table of the subquery is called is not the target's. */
  #correlates(select: TreeNode, parts: readonly unknown[]): boolean {
    let isCorrelated = false;
    const visit = (levels: readonly TreeNode[]) => (tag: string, node: TreeNode) => {
      if (isCorrelated || !this.#mayLook(0.1)) return true;
      if (tag === "SelectStmt") eachNode(node, visit([...levels, node]));
      else if (tag === "ColumnRef") isCorrelated = this.#isOwnColumn(levels, node);
      return tag === "SelectStmt" || tag === "ColumnRef";
    };
    for (const part of parts) eachNode(part, visit([...(this.#write.inside ?? []), select]));
    return isCorrelated;
  }

  /** True where a column in these subqueries is one of the row being written. */
  #isOwnColumn(levels: readonly TreeNode[], column: TreeNode, isOuter = this.#isOuterColumn): boolean {
    const names = stringsOf(listOf(column, "fields"));
    const alias = names.at(-2);
    if (alias !== undefined) return levels.every((level) => this.#isOwnAlias(level, alias));
    return levels.every((level) => isOuter.call(this, level, names[0] ?? ""));
  }

  /** True where the alias is the target's, and no table of the subquery has taken it. */
  #isOwnAlias(select: TreeNode, alias: string): boolean {
    return alias === this.#write.alias && !aliasesOf(listOf(select, "fromClause")).has(alias);
  }

  /** An unqualified name in a subquery means the target only if nothing nearer has it; that is taken as certain only
   * where the subquery reads from no table of its own. */
  #isOuterColumn(select: TreeNode, name: string): boolean {
    return listOf(select, "fromClause").length === 0 && this.#write.relation.columns.includes(name);
  }

  /** The same where no table that the subquery reads from is known to have such a column. */
  #seemsOuterColumn(select: TreeNode, name: string): boolean {
    if (!this.#write.relation.columns.includes(name) || select.withClause !== undefined) return false;
    return listOf(select, "fromClause").every((item) => {
      const rangeVar = nodeOf(item, "RangeVar");
      if (rangeVar === undefined || listOf(nodeOf(rangeVar, "alias"), "colnames").length > 0) return false;
      const schema = rangeVar.schemaname === undefined ? undefined : textOf(rangeVar, "schemaname");
      const table = textOf(rangeVar, "relname");
      if (schema === undefined && this.#scope.ctes.has(table)) return false;
      const found = this.#walk.names.relation(schema, table);
      return found?.temporary === false && found.columns.length > 0 && !found.columns.includes(name);
    });
  }

  #mentionsTarget(value: unknown): boolean {
    return this.#columns(value).length > 0;
  }

  /** The target's columns that an expression names, outside of subqueries' own tables. */
  #columns(value: unknown): readonly string[] {
    const found: string[] = [];
    eachNode(isNode(value) ? { value } : value, (tag, node) => {
      if (!this.#mayLook(0.1)) return true;
      if (tag === "SelectStmt") {
        // `(SELECT id)` is the column itself.
        if (listOf(node, "fromClause").length === 0 && node.withClause === undefined) return false;
        if (this.#isCorrelated(node)) found.push("subquery");
        return true;
      }
      if (tag !== "ColumnRef") return false;
      const name = this.#targetColumn(node);
      if (name !== undefined) found.push(name);
      return true;
    });
    return found;
  }

  #targetColumn(node: TreeNode): string | undefined {
    const names = stringsOf(listOf(node, "fields"));
    const name = names.at(-1);
    const alias = names.at(-2);
    // Whole rows (`t.*`, `t`) tell no rows apart by themselves.
    if (name === undefined || names.length < listOf(node, "fields").length) return undefined;
    if (idleColumns.has(name)) return undefined;
    const { inside } = this.#write;
    if (inside !== undefined) return this.#isOwnColumn(inside, node) ? name : undefined;
    if (alias !== undefined) return alias === this.#write.alias ? name : undefined;
    if (name === this.#write.alias) return undefined;
    if (this.#isAlone) return name;
    return this.#write.relation.columns.includes(name) ? name : undefined;
  }
}

/** The negation of a test, folded into it where it has an opposite. */
function negation(item: TreeNode): TreeNode {
  const nullTest = nodeOf(item, "NullTest");
  if (nullTest !== undefined) {
    const nulltesttype = textOf(nullTest, "nulltesttype") === "IS_NULL" ? "IS_NOT_NULL" : "IS_NULL";
    return { NullTest: { ...nullTest, nulltesttype } };
  }
  const expression = nodeOf(item, "A_Expr");
  const opposite = complements[namesOf(expression, "name").at(-1) ?? ""];
  if (expression !== undefined && opposite !== undefined && textOf(expression, "kind") === "AEXPR_OP") {
    return { A_Expr: { ...expression, name: [{ String: { sval: opposite } }] } };
  }
  return { BoolExpr: { boolop: "NOT_EXPR", args: [item] } };
}

/** What a test is, and what beside it would leave no row out, as texts that can be looked up. */
function complementKeys(item: TreeNode): {
  readonly is: readonly string[];
  readonly opposites: readonly string[];
} {
  const not = nodeOf(item, "BoolExpr");
  // Whole conditions are taken apart elsewhere; written out at every level they would cost the square of their depth.
  const part = not === undefined ? item : (listOf(not, "args")[0] ?? {});
  if (nodeOf(part, "BoolExpr") !== undefined || (not !== undefined && not.boolop !== "NOT_EXPR")) {
    return { is: [], opposites: [] };
  }
  const whole = textOfTree(item);
  if (not?.boolop === "NOT_EXPR") {
    return {
      is: [`not ${textOfTree(listOf(not, "args")[0])}`],
      opposites: [`is ${textOfTree(listOf(not, "args")[0])}`],
    };
  }
  const is = [`is ${whole}`];
  const opposites = [`not ${whole}`];
  const nullTest = nodeOf(item, "NullTest");
  if (nullTest !== undefined) {
    const isNull = textOf(nullTest, "nulltesttype") === "IS_NULL";
    is.push(`${isNull ? "null" : "value"} ${textOfTree(nullTest.arg)}`);
    opposites.push(`${isNull ? "value" : "null"} ${textOfTree(nullTest.arg)}`);
  }
  const expression = nodeOf(item, "A_Expr");
  const kind = textOf(expression, "kind");
  if (expression === undefined || !kindsCompared.has(kind)) return { is, opposites };
  const operator = kind === "AEXPR_OP" ? (namesOf(expression, "name").at(-1) ?? "") : kindsCompared.get(kind);
  if (operator === undefined) return { is, opposites };
  const left = textOfTree(expression.lexpr);
  const equation = `${left} ${textOfTree(expression.rexpr)}`;
  is.push(`${operator} ${equation}`);
  const opposite = complements[operator];
  if (opposite !== undefined) opposites.push(`${opposite} ${equation}`);
  // Bounds that open opposite ways may overlap, which takes arithmetic to tell: opposite is enough.
  if (operator === "<" || operator === "<=") is.push(`below ${left}`);
  if (operator === ">" || operator === ">=") is.push(`above ${left}`);
  if (operator === "<" || operator === "<=") opposites.push(`above ${left}`);
  if (operator === ">" || operator === ">=") opposites.push(`below ${left}`);
  return { is, opposites };
}

const kindsCompared: ReadonlyMap<string, string> = new Map([
  ["AEXPR_OP", ""],
  ["AEXPR_DISTINCT", "<>"],
  ["AEXPR_NOT_DISTINCT", "="],
]);

/** `a <> 1`, as texts of its sides. */
function differenceOf(item: TreeNode): { readonly left: string; readonly right: string } | undefined {
  const expression = nodeOf(item, "A_Expr");
  const isDifference =
    (textOf(expression, "kind") === "AEXPR_OP" && namesOf(expression, "name").at(-1) === "<>") ||
    textOf(expression, "kind") === "AEXPR_DISTINCT";
  const right = nodeOf(expression, "rexpr");
  if (!isDifference || nodeOf(right, "A_Const") === undefined) return undefined;
  return { left: textOfTree(expression?.lexpr), right: textOfTree(right) };
}

function operandsOf(expression: TreeNode | undefined): readonly (TreeNode | undefined)[] {
  return [nodeOf(expression, "lexpr"), nodeOf(expression, "rexpr")];
}

function isSquare(expression: TreeNode | undefined): boolean {
  const [left, right] = operandsOf(expression);
  return namesOf(expression, "name").at(-1) === "*" && left !== undefined && sameTree(left, right);
}

function nameOfCall(value: TreeNode | undefined): string {
  return namesOf(nodeOf(value, "FuncCall"), "funcname").at(-1) ?? "";
}

function nameOfColumn(value: TreeNode | undefined): string {
  return stringsOf(listOf(nodeOf(value, "ColumnRef"), "fields")).at(-1) ?? "";
}

/** A literal text, with or without a cast. */
function textConstant(value: TreeNode | undefined): string | undefined {
  const inner = nodeOf(nodeOf(value, "TypeCast"), "arg") ?? value;
  const text = nodeOf(nodeOf(inner, "A_Const"), "sval");
  return text === undefined ? undefined : textOf(text, "sval");
}

function resultsOf(node: TreeNode): readonly (TreeNode | undefined)[] {
  const results = listOf(node, "args").map((item) => nodeOf(nodeOf(item, "CaseWhen"), "result"));
  return [...results, nodeOf(node, "defresult")];
}

/** LIMIT ALL and LIMIT NULL are none. */
function hasLimit(select: TreeNode): boolean {
  return select.limitCount !== undefined && !isNullConstant(nodeOf(select, "limitCount"));
}

function isAggregated(select: TreeNode): boolean {
  let is = false;
  eachNode(select.targetList, (tag, node) => {
    if (tag === "SelectStmt" || is) return true;
    is =
      tag === "FuncCall" && node.over === undefined && aggregates.has(namesOf(node, "funcname").at(-1) ?? "");
    return is;
  });
  return is;
}

/** What the tables of a FROM clause are called in it. */
function aliasesOf(items: readonly TreeNode[]): ReadonlySet<string> {
  const found = new Set<string>();
  const left = [...items];
  for (let item = left.pop(); item !== undefined; item = left.pop()) {
    const node = nodeOf(item, tagOf(item) ?? "");
    const alias = textOf(nodeOf(node, "alias"), "aliasname") || textOf(node, "relname");
    if (alias !== "") found.add(alias);
    if (tagOf(item) !== "JoinExpr" && tagOf(item) !== "RangeTableSample") continue;
    for (const side of ["larg", "rarg", "relation"]) {
      const inner = nodeOf(node, side);
      if (inner !== undefined) left.push(inner);
    }
  }
  return found;
}

const areLiterals = (values: readonly (TreeNode | undefined)[]) =>
  values.every((value) => nodeOf(value, "A_Const") !== undefined);

const areAlike = (values: readonly (TreeNode | undefined)[]) =>
  values.every((value) => sameTree(value, values[0]));

function textOfTree(value: unknown): string {
  return JSON.stringify(value, (key, inner) => (key === "location" ? undefined : inner)) ?? "";
}

function isEquality(where: TreeNode | undefined): boolean {
  return ["=", "<=", ">="].includes(namesOf(nodeOf(where, "A_Expr"), "name").at(-1) ?? "");
}

/** A literal true or false, with or without a cast. */
function booleanOf(node: TreeNode | undefined): boolean | undefined {
  const inner = nodeOf(nodeOf(node, "TypeCast"), "arg");
  const constant = nodeOf(inner ?? node, "A_Const");
  const boolean = nodeOf(constant, "boolval");
  if (boolean !== undefined) return boolean.boolval === true;
  const type = namesOf(nodeOf(nodeOf(node, "TypeCast"), "typeName"), "names").at(-1);
  const text = nodeOf(constant, "sval");
  if (text === undefined || type !== "bool") return undefined;
  return /^\s*(t|y|on|1)/i.test(textOf(text, "sval"));
}

/** `'{}'`, `ARRAY[]::int[]`. */
function isEmptyArray(node: TreeNode | undefined): boolean {
  const inner = nodeOf(nodeOf(node, "TypeCast"), "arg");
  if (inner !== undefined) return isEmptyArray(inner);
  const text = nodeOf(nodeOf(node, "A_Const"), "sval");
  if (text !== undefined) return /^\s*\{\s*\}\s*$/.test(textOf(text, "sval"));
  return (
    nodeOf(node, "A_ArrayExpr") !== undefined && listOf(nodeOf(node, "A_ArrayExpr"), "elements").length === 0
  );
}

function isNullConstant(node: TreeNode | undefined): boolean {
  const constant = nodeOf(node, "A_Const");
  if (constant !== undefined) return constant.isnull === true;
  return node !== undefined && isNullConstantCast(node);
}

function isNullConstantCast(node: TreeNode): boolean {
  const cast = nodeOf(node, "TypeCast");
  return cast !== undefined && isNullConstant(nodeOf(cast, "arg"));
}

function numberOf(node: TreeNode | undefined): number | undefined {
  const constant = nodeOf(node, "A_Const");
  const integer = nodeOf(constant, "ival");
  if (integer !== undefined) return Number(integer.ival ?? 0);
  const decimal = nodeOf(constant, "fval");
  return decimal === undefined ? undefined : Number(textOf(decimal, "fval"));
}
