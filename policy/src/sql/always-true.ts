/**
 * Whether a condition holds a write back at all: no WHERE, one that is true for every row, or one that does not even
 * look at the rows it is about. Where the text does not tell, the write counts as unbounded.
 */
import {
  areAlike,
  areLiterals,
  booleanConstant,
  isEmptyArray,
  isNullConstant,
  numberConstant,
  textConstant,
} from "./literals.ts";
import type { RelationInfo } from "./names.ts";
import { complementKeys, differenceOf, negation } from "./opposites.ts";
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
import {
  type ConditionedWrite,
  type JudgedWrite,
  type Judging,
  Looks,
  type Truth,
  WrittenRows,
} from "./written-rows.ts";

/** True where nothing in the condition holds rows of the target back. */
export function isUnbounded(walk: Walk, scope: Scope, write: ConditionedWrite): boolean {
  if (!isNode(write.where)) return true;
  const judging = judgingOf(walk, scope);
  const truth = judging.truth(write, write.where);
  // An answer that we ran out of looks for is no answer.
  return truth === "always" || truth === "unknown" || judging.looks.left <= 0;
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
  return new WrittenRows(judgingOf(walk, scope), all).isWhole(select);
}

function judgingOf(walk: Walk, scope: Scope): Judging {
  const judging: Judging = {
    walk,
    scope,
    looks: new Looks(),
    truth: (write, where) => new Judge(judging, write).truth(where),
  };
  return judging;
}

const comparisons = new Set(["=", "<>", "!=", "<", "<=", ">", ">=", "~~", "!~~", "~~*", "!~~*", "~", "~*"]);
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

/** With equal sides these are a constant; `=` stands for NULLIF too. */
const selfCancelling = /^([-/%#=]|.*(eq|le|ge))$/;

/** What conditions say of the rows of one write. */
class Judge {
  readonly #judging: Judging;
  readonly #rows: WrittenRows;

  constructor(judging: Judging, write: JudgedWrite) {
    this.#judging = judging;
    this.#rows = new WrittenRows(judging, write);
  }

  truth(value: unknown): Truth {
    if (!isNode(value) || !this.#judging.looks.may()) return "unknown";
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
        return this.#rows.mentions(value) ? "some" : "unknown";
    }
  }

  /** `textlike(a, '%')` is `a LIKE '%'`. */
  #call(value: TreeNode, node: TreeNode): Truth {
    const name = namesOf(node, "funcname").at(-1) ?? "";
    const operator = name === "regexp_like" ? "~" : matchingFunctions.get(name);
    if (operator !== undefined && this.#matchesEverything(operator, listOf(node, "args")[1])) {
      return operator.startsWith("!") ? "never" : "always";
    }
    return this.#rows.mentions(value) && !this.#cancelsOut(value) ? "some" : "unknown";
  }

  #constant(node: TreeNode): Truth {
    this.#judging.walk.literalsMatter = true;
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
    return this.#rows.mentions(arg) ? this.truth(arg) : "unknown";
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
      this.#judging.looks.left -= Math.ceil((is[0]?.length ?? 0) / 200);
      if (opposites.some((opposite) => seen.has(opposite))) return this.#literal();
      for (const key of is) seen.add(key);
    }
    return false;
  }

  /** Marks that the answer came from looking at constants. */
  #literal(): true {
    this.#judging.walk.literalsMatter = true;
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
    return this.#rows.mentions(arg) ? "some" : "unknown";
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
        return this.#rows.mentions(node.arg) ? "some" : "unknown";
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
      this.#judging.walk.literalsMatter = true;
      if (kind === "AEXPR_NOT_DISTINCT") return "always";
      if (kind === "AEXPR_DISTINCT") return "never";
      if (reflexive.has(operator)) return "always";
      return irreflexive.has(operator) ? "never" : "unknown";
    }
    const truthOfBoolean = this.#againstBoolean(operator, left, right);
    if (truthOfBoolean !== undefined) return truthOfBoolean;
    if (!this.#rows.mentions(node)) return this.#constants(operator, left, right);
    if (kind === "AEXPR_DISTINCT" && isNullConstant(right)) return "unknown";
    // Null for every row: its negation, and IS NOT TRUE of it, are no conditions.
    if (kind === "AEXPR_OP" && (isNullConstant(left) || isNullConstant(right))) return "never";
    if (this.#matchesEverything(operator, right)) return operator.startsWith("!") ? "never" : "always";
    if (this.#rows.isSelfComparison(left, right)) return "unknown";
    if (this.#cancelsOut(left) || this.#cancelsOut(right)) return "unknown";
    if (this.#isBelowAll(operator, left, right) || this.#isExtreme(left, right)) return "unknown";
    if (this.#rows.isOwnValue(left) || this.#rows.isOwnValue(right)) return "unknown";
    if (this.#rows.readsWhole(left) || this.#rows.readsWhole(right)) return "unknown";
    if (this.#rows.isSelfJoin(left, right)) return "unknown";
    return comparisons.has(operator) || this.#rows.mentions(left) || this.#rows.mentions(right)
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
      booleanConstant(right) === undefined ? [right, booleanConstant(left)] : [left, booleanConstant(right)];
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
      if (isIdle || tag === "SelectStmt" || !this.#judging.looks.may(0.1)) return true;
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
    if (selfCancelling.test(name) && sameTree(left, right) && this.#rows.mentions(left)) return true;
    const [first, second] = [numberConstant(left), numberConstant(right)];
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
    const number = isNatural ? numberConstant(bound) : undefined;
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

  /** Two literals: equal kinds are compared, everything else stays unknown, which is unbounded as well. */
  #constants(operator: string, left: TreeNode | undefined, right: TreeNode | undefined): Truth {
    const first = numberConstant(left);
    const second = numberConstant(right);
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
    if (!this.#rows.mentions(node)) return "unknown";
    if (isEmptyArray(right)) {
      this.#literal();
      return textOf(node, "kind") === "AEXPR_OP_ALL" ? "always" : "never";
    }
    const list = listOf(nodeOf(right, "List"), "items");
    const elements = list.length > 0 ? list : listOf(nodeOf(right, "A_ArrayExpr"), "elements");
    // `(a = 1) IN (true, false)`
    const booleans = new Set(elements.map(booleanConstant));
    if (booleans.has(true) || booleans.has(false)) this.#literal();
    if (booleans.has(true) && booleans.has(false)) return "unknown";
    if (this.#cancelsOut(left)) return "unknown";
    if (elements.some((item) => sameTree(item, left) || this.#rows.isSelfComparison(left, item)))
      return "unknown";
    if (this.#rows.readsWhole(node)) return "unknown";
    return "some";
  }

  #between(left: TreeNode | undefined, right: TreeNode | undefined): Truth {
    const bounds = listOf(nodeOf(right, "List"), "items");
    if (bounds.some((bound) => sameTree(bound, left) || this.#rows.isSelfComparison(left, bound)))
      return "unknown";
    if (this.#cancelsOut(left) || bounds.some((bound) => this.#rows.readsWhole(bound))) return "unknown";
    return this.#rows.mentions(left) || this.#rows.mentions(right) ? "some" : "unknown";
  }

  #subquery(node: TreeNode): Truth {
    const kind = textOf(node, "subLinkType");
    const select = nodeOf(nodeOf(node, "subselect"), "SelectStmt") ?? {};
    if (kind === "EXISTS_SUBLINK") {
      // Only a subquery that looks at the row being written can tell rows apart.
      if (!this.#rows.isCorrelated(select) || this.#rows.isSelfExists(select)) return "unknown";
      return this.#existence(select);
    }
    if (!this.#rows.mentions(node.testexpr) && !this.#rows.isCorrelated(select)) return "unknown";
    if (kind === "ANY_SUBLINK" && this.#rows.isOwnColumnAgain(node.testexpr, select)) return "unknown";
    if (kind === "EXPR_SUBLINK" && listOf(select, "fromClause").length === 0) return this.#expression(select);
    return this.#rows.isWhole(select) ? "unknown" : "some";
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
    if (this.#rows.correlates(select, [fromClause, havingClause])) return "some";
    if (!this.#rows.correlates(select, [whereClause])) return "unknown";
    const truth = this.#judging.truth(this.#rows.within(select), whereClause);
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

function resultsOf(node: TreeNode): readonly (TreeNode | undefined)[] {
  const results = listOf(node, "args").map((item) => nodeOf(nodeOf(item, "CaseWhen"), "result"));
  return [...results, nodeOf(node, "defresult")];
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
