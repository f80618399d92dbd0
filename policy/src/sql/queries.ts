/** SELECT, INSERT, UPDATE, DELETE and MERGE at any depth, with WITH names in their proper scope. */
import { isMergeUnbounded, isUnbounded, readsWhole } from "./always-true.ts";
import { walkExpression, walkFields } from "./expressions.ts";
import { operatorCall } from "./functions.ts";
import { withNamedSetting } from "./named-setting.ts";
import type { RelationInfo } from "./names.ts";
import { readRelation, relationOf, writeRelation } from "./relations.ts";
import { listOf, nodeOf, stringsOf, type TreeNode, tagOf, textOf } from "./tree.ts";
import { type Scope, scopeBelow, type Walk } from "./walk.ts";

/** Walks one query; the answer is its own level, which INSERT … SELECT and FOR UPDATE look into. */
export function walkQuery(walk: Walk, tag: string, node: TreeNode, parent: Scope | undefined): Scope {
  walk.spend();
  switch (tag) {
    case "InsertStmt":
      return insert(walk, node, scopeBelow(parent, "INSERT"));
    case "UpdateStmt":
      return update(walk, node, scopeBelow(parent, "UPDATE"));
    case "DeleteStmt":
      return remove(walk, node, scopeBelow(parent, "DELETE"));
    case "MergeStmt":
      return merge(walk, node, scopeBelow(parent, "MERGE"));
    default:
      return select(walk, node, scopeBelow(parent, "SELECT"));
  }
}

function select(walk: Walk, node: TreeNode, scope: Scope): Scope {
  withClause(walk, node, scope);
  walk.add("read", scope.word, []);
  for (const side of ["larg", "rarg"]) {
    const inner = nodeOf(node, side);
    if (inner !== undefined) walkQuery(walk, "SelectStmt", inner, scope);
  }
  for (const item of listOf(node, "fromClause")) fromItem(walk, item, scope);
  const locking = listOf(node, "lockingClause");
  if (locking.length > 0) lock(walk, locking, scope);
  walkFields(walk, withNamedSetting(walk, node), selectFields, scope);
  selectInto(walk, node, scope);
  return scope;
}

const selectFields = [
  "distinctClause",
  "targetList",
  "whereClause",
  "groupClause",
  "havingClause",
  "windowClause",
  "valuesLists",
  "sortClause",
  "limitOffset",
  "limitCount",
];

/** SELECT INTO makes a table, as CREATE TABLE AS does. */
function selectInto(walk: Walk, node: TreeNode, scope: Scope): void {
  const into = intoTarget(node);
  if (into === undefined || walk.frame.isPlanOnly) return;
  const name = textOf(into, "relname");
  const temporary = textOf(into, "relpersistence") === "t" || textOf(into, "schemaname") === "pg_temp";
  const schema = into.schemaname === undefined ? undefined : textOf(into, "schemaname");
  const shown = temporary ? "pg_temp" : (schema ?? walk.names.creationSchema);
  walk.add("define", "SELECT INTO", [walk.object("relation", `${shown}.${name}`)]);
  walk.effects.push(
    {
      kind: "createRelation",
      ...(schema === undefined ? {} : { schema }),
      name,
      temporary,
      relationKind: "table",
      columns: resultColumns(node, scope),
      hasUnsureColumns: !areColumnsSure(node, scope),
      ...(temporary ? { onCommit: onCommitOf(nodeOf(node, "intoClause")) } : {}),
    },
    { kind: "catalogChanged" },
  );
}

/** ON COMMIT, as CREATE TABLE and the INTO clause of a query spell it. */
export function onCommitOf(node: TreeNode | undefined): "preserve" | "deleteRows" | "drop" {
  const action = textOf(node, "oncommit") || textOf(node, "onCommit");
  if (action === "ONCOMMIT_DROP") return "drop";
  return action === "ONCOMMIT_DELETE_ROWS" ? "deleteRows" : "preserve";
}

/** The INTO target, which the grammar hangs on the leftmost SELECT of a UNION. */
function intoTarget(node: TreeNode): TreeNode | undefined {
  return nodeOf(nodeOf(node, "intoClause"), "rel");
}

/** The result column names as far as the text itself shows them. */
export function resultColumns(node: TreeNode, scope: Scope | undefined): readonly string[] {
  const left = nodeOf(node, "larg");
  if (left !== undefined) return resultColumns(left, scope);
  const columns: string[] = [];
  for (const item of listOf(node, "targetList")) {
    const target = nodeOf(item, "ResTarget");
    const name = textOf(target, "name");
    const fields = listOf(nodeOf(nodeOf(target, "val"), "ColumnRef"), "fields");
    const names = stringsOf(fields);
    if (name !== "") columns.push(name);
    else if (names.length === fields.length && names.length > 0) columns.push(names.at(-1) ?? "");
    else if (fields.length === 1 && scope !== undefined) {
      for (const relation of scope.aliases.values()) columns.push(...(relation?.columns ?? []));
    }
  }
  return columns;
}

/** True where `resultColumns` are all that there are: each has a name, or they are those of the one relation that is read. */
export function areColumnsSure(node: TreeNode, scope: Scope | undefined): boolean {
  const left = nodeOf(node, "larg");
  if (left !== undefined) return areColumnsSure(left, undefined);
  const targets = listOf(node, "targetList").map((item) => nodeOf(item, "ResTarget"));
  if (targets.length === 0 || node.valuesLists !== undefined) return false;
  return targets.every((target) => {
    const value = nodeOf(target, "val");
    const steps = listOf(
      nodeOf(value, "ColumnRef") ?? nodeOf(value, "A_Indirection"),
      nodeOf(value, "ColumnRef") ? "fields" : "indirection",
    );
    if (tagOf(steps.at(-1)) === "A_Star")
      return steps.length === 1 && nodeOf(value, "ColumnRef") !== undefined && isOfOne(node, scope);
    return textOf(target, "name") !== "" || nodeOf(value, "ColumnRef") !== undefined;
  });
}

/** True where FROM is one relation by its own columns. */
function isOfOne(node: TreeNode, scope: Scope | undefined): boolean {
  const [only, more] = listOf(node, "fromClause");
  const range = nodeOf(only, "RangeVar");
  const [relation, other] = scope?.aliases.values() ?? [];
  if (range === undefined || more !== undefined || relation === undefined || other !== undefined)
    return false;
  return relation.hasUnsureColumns !== true && listOf(nodeOf(range, "alias"), "colnames").length === 0;
}

/** WITH: each query sees the ones before it, all of them under RECURSIVE. */
function withClause(walk: Walk, node: TreeNode, scope: Scope): void {
  const clause = nodeOf(node, "withClause");
  if (clause === undefined) return;
  const tables = listOf(clause, "ctes").map((item) => nodeOf(item, "CommonTableExpr") ?? {});
  if (clause.recursive === true) {
    for (const table of tables) scope.ctes.set(textOf(table, "ctename"), nodeOf(table, "ctequery"));
  }
  for (const table of tables) {
    const query = nodeOf(table, "ctequery");
    const tag = tagOf(query) ?? "";
    const inner = nodeOf(query, tag);
    if (inner !== undefined) walkQuery(walk, tag, inner, scope);
    walkFields(walk, table, ["search_clause", "cycle_clause"], scope);
    scope.ctes.set(textOf(table, "ctename"), query);
  }
}

function isWithName(rangeVar: TreeNode, scope: Scope): boolean {
  if (rangeVar.schemaname !== undefined) return false;
  const name = textOf(rangeVar, "relname");
  for (let level: Scope | undefined = scope; level !== undefined; level = level.parent) {
    if (level.ctes.has(name)) return true;
  }
  return false;
}

function fromItem(walk: Walk, item: TreeNode, scope: Scope): void {
  walk.spend();
  const tag = tagOf(item) ?? "";
  const node = nodeOf(item, tag) ?? {};
  const alias = textOf(nodeOf(node, "alias"), "aliasname");
  switch (tag) {
    case "RangeVar":
      fromRelation(walk, node, alias, scope);
      return;
    case "RangeSubselect": {
      const subquery = nodeOf(nodeOf(node, "subquery"), "SelectStmt") ?? {};
      const inner = walkQuery(walk, "SelectStmt", subquery, scope);
      if (alias !== "") scope.aliases.set(alias, undefined);
      for (const locked of inner.locks) scope.locks.push({ alias, relation: locked.relation });
      return;
    }
    case "JoinExpr":
      for (const side of ["larg", "rarg"]) {
        const inner = nodeOf(node, side);
        if (inner !== undefined) fromItem(walk, inner, scope);
      }
      // USING and NATURAL compare with whatever `=` the path finds first.
      if (node.usingClause !== undefined || node.isNatural === true) {
        operatorCall(walk, ["="], scope.word);
      }
      if (alias !== "") scope.aliases.set(alias, undefined);
      walkFields(walk, node, ["quals"], scope);
      return;
    case "RangeTableSample":
      fromItem(walk, nodeOf(node, "relation") ?? {}, scope);
      walkFields(walk, node, ["args", "repeatable"], scope);
      return;
    default:
      if (alias !== "") scope.aliases.set(alias, undefined);
      walkExpression(walk, node, scope);
  }
}

function fromRelation(walk: Walk, node: TreeNode, alias: string, scope: Scope): void {
  const shown = alias === "" ? textOf(node, "relname") : alias;
  if (isWithName(node, scope)) {
    scope.aliases.set(shown, undefined);
    return;
  }
  const relation = relationOf(walk, node, true);
  const hasColumnAliases = listOf(nodeOf(node, "alias"), "colnames").length > 0;
  scope.aliases.set(shown, hasColumnAliases || scope.aliases.has(shown) ? undefined : relation);
  scope.locks.push({ alias: shown, relation });
  readRelation(walk, relation, scope.word, node.inh !== true);
}

/** FOR UPDATE and its kin take row locks and write them into the rows: a write, as locks and vacuum see it. */
function lock(walk: Walk, clauses: readonly TreeNode[], scope: Scope): void {
  for (const item of clauses) {
    const clause = nodeOf(item, "LockingClause") ?? {};
    const word = textOf(clause, "strength").endsWith("UPDATE") ? "SELECT FOR UPDATE" : "SELECT FOR SHARE";
    const wanted = listOf(clause, "lockedRels").map((rel) => textOf(nodeOf(rel, "RangeVar"), "relname"));
    for (const { alias, relation } of scope.locks) {
      if (wanted.length > 0 && !wanted.includes(alias)) continue;
      lockRelation(walk, relation, word);
    }
  }
}

function lockRelation(walk: Walk, relation: RelationInfo, word: string): void {
  const object = walk.relationObject(relation);
  const behind = relation.reads
    .filter((read) => read.kind === "relation")
    .map((read) => ({ ...read, direct: false }));
  const operation = walk.frame.isPlanOnly ? "read" : "write";
  walk.add(operation, word, relation.kind === "view" ? [object, ...behind] : [object]);
}

function target(walk: Walk, node: TreeNode, scope: Scope): { relation: RelationInfo; alias: string } {
  const rangeVar = nodeOf(node, "relation") ?? {};
  const found = relationOf(walk, rangeVar, true);
  const relation = rangeVar.inh === true ? found : { ...found, children: [] };
  const alias = textOf(nodeOf(rangeVar, "alias"), "aliasname") || textOf(rangeVar, "relname");
  scope.aliases.set(alias, relation);
  return { relation, alias };
}

/** RETURNING shows rows: a read of the target beside the write. */
function returning(walk: Walk, node: TreeNode, relation: RelationInfo, scope: Scope): void {
  const clause = node.returningClause ?? node.returningList;
  if (clause === undefined) return;
  readRelation(walk, relation, scope.word);
  walkExpression(walk, clause, scope);
}

function insert(walk: Walk, node: TreeNode, scope: Scope): Scope {
  withClause(walk, node, scope);
  const { relation, alias } = target(walk, node, scope);
  writeRelation(walk, relation, { event: "insert", word: scope.word, unbounded: false });
  scope.aliases.set("excluded", relation);
  const source = nodeOf(nodeOf(node, "selectStmt"), "SelectStmt");
  if (source !== undefined) {
    // VALUES is no read of its own.
    if (source.valuesLists !== undefined && source.withClause === undefined) {
      walkFields(walk, source, selectFields, scope);
    } else walkQuery(walk, "SelectStmt", source, scope);
  }
  const conflict = nodeOf(node, "onConflictClause");
  if (conflict !== undefined) {
    if (textOf(conflict, "action") === "ONCONFLICT_UPDATE") {
      // Its own rows put in again conflict every one.
      const unbounded =
        source !== undefined &&
        readsWhole(walk, scope, { relation, alias }, source) &&
        isUnbounded(walk, scope, { relation, alias, where: conflict.whereClause, from: undefined });
      writeRelation(walk, relation, { event: "update", word: "UPDATE", unbounded, looks: true });
    }
    walkExpression(walk, conflict, scope);
  }
  walkFields(walk, node, ["cols"], scope);
  returning(walk, node, relation, scope);
  return scope;
}

function update(walk: Walk, node: TreeNode, scope: Scope): Scope {
  withClause(walk, node, scope);
  const { relation, alias } = target(walk, node, scope);
  for (const item of listOf(node, "fromClause")) fromItem(walk, item, scope);
  const unbounded = isUnbounded(walk, scope, {
    relation,
    alias,
    where: node.whereClause,
    from: node.fromClause,
  });
  writeRelation(walk, relation, { event: "update", word: scope.word, unbounded, looks: true });
  walkFields(walk, node, ["targetList", "whereClause"], scope);
  returning(walk, node, relation, scope);
  return scope;
}

function remove(walk: Walk, node: TreeNode, scope: Scope): Scope {
  withClause(walk, node, scope);
  const { relation, alias } = target(walk, node, scope);
  for (const item of listOf(node, "usingClause")) fromItem(walk, item, scope);
  const unbounded = isUnbounded(walk, scope, {
    relation,
    alias,
    where: node.whereClause,
    from: node.usingClause,
  });
  writeRelation(walk, relation, { event: "delete", word: scope.word, unbounded, looks: true });
  walkFields(walk, node, ["whereClause"], scope);
  returning(walk, node, relation, scope);
  return scope;
}

/** MERGE is one write that carries the words of all that it may do. */
function merge(walk: Walk, node: TreeNode, scope: Scope): Scope {
  withClause(walk, node, scope);
  const { relation, alias } = target(walk, node, scope);
  const source = nodeOf(node, "sourceRelation");
  if (source !== undefined) fromItem(walk, source, scope);
  const unbounded = isMergeUnbounded(walk, scope, { relation, alias, node });
  const clauses = listOf(node, "mergeWhenClauses").map((item) => nodeOf(item, "MergeWhenClause") ?? {});
  const kinds = new Set(clauses.map((clause) => textOf(clause, "commandType")));
  const words = mergeActions.filter(([kind]) => kinds.has(kind));
  walk.within({ words: [...walk.frame.words, scope.word, ...words.map(([, , word]) => word)] }, () => {
    // DO NOTHING everywhere still looks for rows, and takes the locks of a write.
    const events = words.length === 0 ? (["update"] as const) : words.map(([, event]) => event);
    const write = { word: scope.word, unbounded: unbounded && words.length > 0, looks: true };
    for (const event of events) writeRelation(walk, relation, { event, ...write });
  });
  walkFields(walk, node, ["joinCondition", "mergeWhenClauses"], scope);
  returning(walk, node, relation, scope);
  return scope;
}

const mergeActions = [
  ["CMD_INSERT", "insert", "INSERT"],
  ["CMD_UPDATE", "update", "UPDATE"],
  ["CMD_DELETE", "delete", "DELETE"],
] as const;
