/** What an expression or a subquery sees of the rows that a write is about. */
import { isNullConstant } from "./literals.ts";
import type { RelationInfo } from "./names.ts";
import { parseDefinition } from "./parser.ts";
import { Rejected } from "./rejection.ts";
import {
  eachNode,
  isNode,
  listOf,
  namesOf,
  nodeOf,
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
export interface JudgedWrite extends ConditionedWrite {
  /** Subqueries that the condition stands in, whose tables are nearer than the target. */
  readonly inside?: readonly TreeNode[] | undefined;
  /** The alias of the row being written, where the subquery's own table of the same rows is looked at. */
  readonly outer?: string;
}

/** `always` and `never` are certain; `some` holds rows back; `unknown` says nothing about the target's rows. */
export type Truth = "always" | "never" | "some" | "unknown";

/** What all judgments of one statement's condition share. */
export interface Judging {
  readonly walk: Walk;
  readonly scope: Scope;
  readonly looks: Looks;
  /** What a condition says of the rows of a write. */
  readonly truth: (write: JudgedWrite, where: unknown) => Truth;
}

/** How much of a condition is looked at: one that was built to make us look for ever is unbounded. */
export class Looks {
  left = 20_000;

  may(cost = 1): boolean {
    this.left -= cost;
    return this.left > 0;
  }
}

/** The rows of one write. */
export class WrittenRows {
  readonly #judging: Judging;
  readonly #write: JudgedWrite;
  readonly #isAlone: boolean;
  /** WITH queries being looked into, as RECURSIVE ones name themselves. */
  readonly #withs = new Set<string>();

  constructor(judging: Judging, write: JudgedWrite) {
    this.#judging = judging;
    this.#write = write;
    this.#isAlone = !Array.isArray(write.from) || write.from.length === 0;
  }

  /** The write as conditions of a subquery see it, whose own tables stand beside the target. */
  within(select: TreeNode): JudgedWrite {
    const from = listOf(select, "fromClause");
    const inside = [...(this.#write.inside ?? []), select];
    return { ...this.#write, inside, from: from.length === 0 ? this.#write.from : from };
  }

  /** True where an expression names a column of the target. */
  mentions(value: unknown): boolean {
    return this.#columns(value).length > 0;
  }

  /** True where the subquery names a column of the row being written. */
  isCorrelated(select: TreeNode): boolean {
    return this.correlates(select, [select]);
  }

  /** The same of parts of it; what a table of the subquery is called is not the target's. */
  correlates(select: TreeNode, parts: readonly unknown[]): boolean {
    let isCorrelated = false;
    const visit = (levels: readonly TreeNode[]) => (tag: string, node: TreeNode) => {
      if (isCorrelated || !this.#judging.looks.may(0.1)) return true;
      if (tag === "SelectStmt") eachNode(node, visit([...levels, node]));
      else if (tag === "ColumnRef") isCorrelated = this.#isOwnColumn(levels, node);
      return tag === "SelectStmt" || tag === "ColumnRef";
    };
    for (const part of parts) eachNode(part, visit([...(this.#write.inside ?? []), select]));
    return isCorrelated;
  }

  /** Both sides look at the same columns of the target and nothing else: `id + 0 = id`. */
  isSelfComparison(left: TreeNode | undefined, right: TreeNode | undefined): boolean {
    const first = this.#columns(left);
    const second = this.#columns(right);
    return first.length > 0 && second.length > 0 && first.every((name) => second.includes(name));
  }

  /** `t.id = other.id` where the other is the same table again. */
  isSelfJoin(left: TreeNode | undefined, right: TreeNode | undefined): boolean {
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

  /** EXISTS over the target joined to itself: every row finds at least itself. */
  isSelfExists(select: TreeNode): boolean {
    return listOf(select, "fromClause").some((item) => {
      const rangeVar = nodeOf(item, "RangeVar");
      return (
        rangeVar !== undefined && this.#namesTarget(rangeVar) && isEquality(nodeOf(select, "whereClause"))
      );
    });
  }

  /** `(SELECT x.id FROM t x WHERE x.id = t.id)`: the row's own value. */
  isOwnValue(value: TreeNode | undefined): boolean {
    const select = nodeOf(nodeOf(nodeOf(value, "SubLink"), "subselect"), "SelectStmt");
    if (select === undefined) return false;
    if (this.#ownColumnSelected(select) !== undefined) return true;
    if (hasLimit(select) || !this.isSelfExists(select)) return false;
    return listOf(select, "targetList").every(
      (target) => nodeOf(nodeOf(nodeOf(target, "ResTarget"), "val"), "ColumnRef") !== undefined,
    );
  }

  /** `id IN (SELECT id FROM other)` where no table of the subquery has an `id`: the row's own, so that it is always in. */
  isOwnColumnAgain(test: unknown, select: TreeNode): boolean {
    const names = stringsOf(listOf(isNode(test) ? nodeOf(test, "ColumnRef") : undefined, "fields"));
    return this.#ownColumnSelected(select) === (names.at(-1) ?? "");
  }

  /** A subquery over the target that leaves no row out. */
  isWhole(select: TreeNode): boolean {
    if (!this.#judging.looks.may()) return true;
    for (const side of ["larg", "rarg"]) {
      const inner = nodeOf(select, side);
      if (inner !== undefined && this.isWhole(inner)) return true;
    }
    if (hasLimit(select)) return false;
    if (
      select.havingClause !== undefined &&
      this.#judging.truth(this.#write, select.havingClause) !== "always"
    )
      return false;
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

  /** True where a subquery of it gives all rows of the target. */
  readsWhole(value: TreeNode | undefined): boolean {
    let isWhole = false;
    eachNode(value, (tag, node) => {
      if (tag === "SelectStmt" && this.isWhole(node)) isWhole = true;
      return false;
    });
    return isWhole;
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

  /** A FROM item that shows the whole target: the table again, or a subquery or WITH query over all of it. */
  #isTargetAgain(alias: string): boolean {
    const relation = this.#judging.scope.aliases.get(alias);
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
        if (this.isWhole(select)) isAgain = true;
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
    const query = this.#judging.scope.ctes.get(name);
    if (query === undefined || this.#withs.has(name)) return false;
    this.#withs.add(name);
    const isWhole = this.isWhole(nodeOf(query, "SelectStmt") ?? {});
    this.#withs.delete(name);
    return isWhole;
  }

  /** True where the condition holds back no row of the table that has this alias. */
  #isFreeFor(alias: string, where: unknown, from: unknown): boolean {
    const isAlone = listOf({ from }, "from").length === 1;
    const outer = this.#write.alias;
    const seen = isAlone ? undefined : from;
    const write = { ...this.#write, where, alias, outer, inside: undefined, from: seen };
    const truth = this.#judging.truth(write, where);
    return truth === "always" || truth === "unknown";
  }

  /** The alias by which a FROM item shows all rows of the target; undefined where it does not. */
  #heldWhole(item: TreeNode, own?: ReadonlyMap<string, TreeNode>): string | undefined {
    const rangeVar = nodeOf(item, "RangeVar");
    if (rangeVar !== undefined) {
      const name = textOf(rangeVar, "relname");
      const nearer = own?.get(name);
      const isWhole =
        (nearer !== undefined && this.isWhole(nearer)) ||
        this.#namesTarget(rangeVar) ||
        this.#isWholeWith(name);
      return isWhole ? textOf(nodeOf(rangeVar, "alias"), "aliasname") || name : undefined;
    }
    const nested = nodeOf(item, "RangeSubselect");
    if (nested !== undefined) {
      const select = nodeOf(nodeOf(nested, "subquery"), "SelectStmt");
      const isWhole = select !== undefined && this.isWhole(select);
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
    if (relation.kind !== "view" || relation.definition === undefined || !this.#judging.looks.may(10))
      return false;
    const own = this.#write.relation;
    if (!relation.reads.some(({ name }) => name === `${own.schema}.${own.name}`)) return false;
    try {
      const [statement] = parseDefinition(relation.definition);
      return this.isWhole(nodeOf(statement?.node, "SelectStmt") ?? {});
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
    const found = this.#judging.walk.names.relation(schema === "" ? undefined : schema, name);
    return found !== undefined && this.#isWholeView(found);
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
      if (schema === undefined && this.#judging.scope.ctes.has(table)) return false;
      const found = this.#judging.walk.names.relation(schema, table);
      return found?.temporary === false && found.columns.length > 0 && !found.columns.includes(name);
    });
  }

  /** The target's columns that an expression names, outside of subqueries' own tables. */
  #columns(value: unknown): readonly string[] {
    const found: string[] = [];
    eachNode(isNode(value) ? { value } : value, (tag, node) => {
      if (!this.#judging.looks.may(0.1)) return true;
      if (tag === "SelectStmt") {
        // `(SELECT id)` is the column itself.
        if (listOf(node, "fromClause").length === 0 && node.withClause === undefined) return false;
        if (this.isCorrelated(node)) found.push("subquery");
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

/** System columns that tell nothing of a row that its writer could mean. */
const idleColumns = new Set(["tableoid", "cmin", "cmax", "xmin", "xmax"]);

/** LIMIT ALL and LIMIT NULL are none. */
export function hasLimit(select: TreeNode): boolean {
  return select.limitCount !== undefined && !isNullConstant(nodeOf(select, "limitCount"));
}

function isEquality(where: TreeNode | undefined): boolean {
  return ["=", "<=", ">="].includes(namesOf(nodeOf(where, "A_Expr"), "name").at(-1) ?? "");
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
