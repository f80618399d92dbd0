/** SELECT, INSERT, UPDATE, DELETE and MERGE: where each column of what they return comes from. */
import { listOf, nodeOf, stringOf, stringsOf, type TreeNode, tagOf, textOf } from "../sql/tree.ts";
import { boundTo } from "./bound-columns.ts";
import { columnName } from "./column-names.ts";
import { columnOf, entryOf, entryOfAny } from "./columns.ts";
import { condition, flowOf, sortKey, window } from "./expressions.ts";
import { clean, derivedFrom, either, type Flow, type FlowColumn, isTainted, mixing } from "./flow.ts";
import { addFrom, defaultsOf, placedBehind, rangeVar, renamed } from "./from.ts";
import type { TracedRows } from "./model.ts";
import { asOneType } from "./object-ids.ts";
import { allOf, everythingIn, itemOf, type Level, levelBelow, type RangeEntry, type Trace } from "./trace.ts";

/** Follows one query; the answer is what its rows show. */
export function traceQuery(trace: Trace, tag: string, node: TreeNode, parent: Level | undefined): TracedRows {
  trace.spend();
  return trace.deeper(() => {
    const level = levelBelow(parent);
    withClause(trace, node, level);
    switch (tag) {
      case "InsertStmt":
        return insert(trace, node, level);
      case "UpdateStmt":
        return update(trace, node, level);
      case "DeleteStmt":
        return remove(trace, node, level);
      case "MergeStmt":
        return merge(trace, node, level);
      default:
        return select(trace, node, level);
    }
  });
}

/** How often a recursive WITH is gone through before what it depends on is taken to be everything in sight. */
const roundsMax = 8;

function withClause(trace: Trace, node: TreeNode, level: Level): void {
  const clause = nodeOf(node, "withClause");
  if (clause === undefined) return;
  const ctes = listOf(clause, "ctes").map((item) => nodeOf(item, "CommonTableExpr") ?? {});
  if (clause.recursive === true) {
    // Names may refer to later ones: start from the names of the columns and go on until nothing changes.
    for (const cte of ctes) level.ctes.set(textOf(cte, "ctename"), cteSeed(cte));
    for (let round = 0; round < roundsMax; round += 1) {
      let isStable = true;
      for (const cte of ctes) isStable = setCte(trace, cte, level) && isStable;
      if (isStable) return;
    }
    const all = derivedFrom([...level.ctes.values()].flatMap((columns) => columns.map(({ flow }) => flow)));
    for (const [name, columns] of level.ctes) {
      level.ctes.set(
        name,
        columns.map((column) => ({ name: column.name, flow: all })),
      );
    }
    return;
  }
  for (const cte of ctes) setCte(trace, cte, level);
}

function cteSeed(cte: TreeNode): readonly FlowColumn[] {
  return stringsOf(listOf(cte, "aliascolnames")).map((name) => ({ name, flow: clean }));
}

/** Follows one WITH query; true where that told nothing new. */
function setCte(trace: Trace, cte: TreeNode, level: Level): boolean {
  const name = textOf(cte, "ctename");
  const wrapped = nodeOf(cte, "ctequery") ?? {};
  const tag = tagOf(wrapped) ?? "";
  const stars = trace.stars;
  const rows = traceQuery(trace, tag, nodeOf(wrapped, tag) ?? {}, level);
  const names = stringsOf(listOf(cte, "aliascolnames"));
  let columns = renamed(placedBehind(trace, stars, rows.columns, names), names, rows.open);
  if (rows.open !== undefined && isTainted(rows.open)) {
    // Columns that nobody can count: any of them may show what any other does.
    const open = rows.open;
    columns = columns.map((column) => ({ name: column.name, flow: derivedFrom([column.flow, open]) }));
  }
  for (const field of ["search_clause", "cycle_clause"]) {
    const clause = nodeOf(cte, field);
    if (clause === undefined) continue;
    const flow = derivedFrom(columns.map((column) => column.flow));
    trace.infer(flow, field === "search_clause" ? "SEARCH" : "CYCLE");
    for (const key of ["search_seq_column", "cycle_mark_column", "cycle_path_column"]) {
      const added = textOf(clause, key);
      if (added !== "") columns = [...columns, { name: added, flow }];
    }
  }
  const before = level.ctes.get(name);
  level.ctes.set(name, columns);
  return before !== undefined && sameColumns(before, columns);
}

function sameColumns(left: readonly FlowColumn[], right: readonly FlowColumn[]): boolean {
  return (
    left.length === right.length &&
    left.every((column, index) => {
      const other = right[index];
      return (
        other !== undefined &&
        other.name === column.name &&
        other.flow.sources.size === column.flow.sources.size &&
        other.flow.tellsByNull === column.flow.tellsByNull &&
        other.flow.mixesCollations === column.flow.mixesCollations &&
        [...column.flow.sources].every((source) => other.flow.sources.has(source))
      );
    })
  );
}

function select(trace: Trace, node: TreeNode, level: Level): TracedRows {
  const rows = node.larg === undefined ? plainSelect(trace, node, level) : setOperation(trace, node, level);
  const into = nodeOf(node, "intoClause");
  if (into !== undefined) trace.find("store", allOf(rows), "SELECT INTO");
  condition(trace, node.limitCount, level, "LIMIT");
  condition(trace, node.limitOffset, level, "OFFSET");
  return rows;
}

function setOperation(trace: Trace, node: TreeNode, level: Level): TracedRows {
  const left = traceQuery(trace, "SelectStmt", nodeOf(node, "larg") ?? {}, level);
  const right = traceQuery(trace, "SelectStmt", nodeOf(node, "rarg") ?? {}, level);
  for (const [index, { flow }] of right.columns.entries())
    asOneType(trace, [left.columns[index]?.flow ?? left.open ?? clean, flow], "a set operation");
  if (right.open !== undefined) asOneType(trace, [allOf(left), allOf(right)], "a set operation");
  const columns = left.columns.map((column, index) => ({
    name: column.name,
    // The two may have different collations, and UNION ALL leaves it undecided then.
    flow: mixing(either(column.flow, right.columns[index]?.flow ?? clean)),
  }));
  const open =
    left.open === undefined && right.open === undefined && left.columns.length === right.columns.length
      ? undefined
      : derivedFrom([allOf(left), allOf(right)]);
  const rows = open === undefined ? { columns } : { columns, open };
  const isAll = textOf(node, "op") === "SETOP_UNION" && node.all === true;
  if (!isAll) trace.infer(allOf(rows), textOf(node, "op").replace("SETOP_", ""));
  order(trace, node, { level, rows });
  return rows;
}

function plainSelect(trace: Trace, node: TreeNode, level: Level): TracedRows {
  for (const item of listOf(node, "fromClause")) addFrom(trace, item, level);
  if (node.valuesLists !== undefined) {
    const rows = values(trace, node, level);
    order(trace, node, { level, rows });
    return rows;
  }
  condition(trace, node.whereClause, level, "WHERE");
  for (const item of listOf(node, "windowClause")) {
    window(trace, nodeOf(item, "WindowDef") ?? {}, level);
  }
  const rows = targetList(trace, listOf(node, "targetList"), level);
  group(trace, node, { level, rows });
  condition(trace, node.havingClause, level, "HAVING");
  const distinct = listOf(node, "distinctClause");
  // A bare DISTINCT is a list of one empty node.
  if (distinct.length > 0) {
    const isPlain = distinct.every((item) => tagOf(item) === undefined);
    if (isPlain) trace.infer(allOf(rows), "DISTINCT");
    else for (const item of distinct) trace.infer(sortFlow(trace, item, { level, rows }), "DISTINCT");
  }
  order(trace, node, { level, rows });
  return rows;
}

function values(trace: Trace, node: TreeNode, level: Level): TracedRows {
  const columns: FlowColumn[] = [];
  for (const list of listOf(node, "valuesLists")) {
    for (const [index, item] of listOf(nodeOf(list, "List"), "items").entries()) {
      const flow = flowOf(trace, item, level);
      const before = columns[index];
      if (before !== undefined) asOneType(trace, [before.flow, flow], "VALUES");
      columns[index] =
        before === undefined
          ? { name: `column${index + 1}`, flow }
          : { name: before.name, flow: mixing(either(before.flow, flow)) };
    }
  }
  return { columns };
}

interface Output {
  readonly level: Level;
  readonly rows: TracedRows;
}

function group(trace: Trace, node: TreeNode, output: Output): void {
  for (const item of listOf(node, "groupClause").flatMap(groupingItems))
    trace.infer(sortFlow(trace, item, output), "GROUP BY");
}

/** What a grouping set or a list in parentheses holds: in `GROUP BY (1, 2)`, too, numbers name result columns. */
function groupingItems(item: TreeNode): readonly TreeNode[] {
  const set = nodeOf(item, "GroupingSet");
  if (set !== undefined) return listOf(set, "content").flatMap(groupingItems);
  const row = nodeOf(item, "RowExpr");
  return row === undefined ? [item] : listOf(row, "args").flatMap(groupingItems);
}

function order(trace: Trace, node: TreeNode, output: Output): void {
  for (const item of listOf(node, "sortClause")) {
    trace.infer(sortFlow(trace, sortKey(item), output), "ORDER BY");
  }
}

/** ORDER BY, GROUP BY and DISTINCT ON name a result column by number or name, or an expression. */
function sortFlow(trace: Trace, value: unknown, output: Output): Flow {
  const item = value as TreeNode | undefined;
  const constant = nodeOf(nodeOf(item, "A_Const"), "ival");
  if (constant !== undefined) {
    const index = typeof constant.ival === "number" ? constant.ival : 0;
    return output.rows.columns[index - 1]?.flow ?? output.rows.open ?? clean;
  }
  const fields = listOf(nodeOf(item, "ColumnRef"), "fields");
  const name = fields.length === 1 ? stringOf(fields[0]) : undefined;
  const named = output.rows.columns.filter((column) => column.name === name).map((column) => column.flow);
  if (named.length === 0)
    return derivedFrom([
      flowOf(trace, value, output.level),
      name === undefined ? clean : (output.rows.open ?? clean),
    ]);
  // GROUP BY means the table's column where both have one of the name, ORDER BY the result's; either is counted.
  const isInner = output.rows.open !== undefined || mayHave(output.level, name ?? "");
  return derivedFrom(isInner ? [...named, flowOf(trace, value, output.level)] : named);
}

/** True where something in FROM has a column of that name, or may have one. */
function mayHave(level: Level, name: string): boolean {
  return level.items.some(
    (item) =>
      item.merged.some((column) => column.name === name) ||
      item.entries.some((entry) => entry.alias === name || columnOf(entry, name) !== undefined),
  );
}

/** The columns of a result list, `*` spelled out. */
export function targetList(trace: Trace, items: readonly TreeNode[], level: Level): TracedRows {
  const columns: FlowColumn[] = [];
  let open: Flow | undefined;
  for (const item of items) {
    const target = nodeOf(item, "ResTarget");
    const value = nodeOf(target, "val");
    const star = starOf(value);
    if (star === undefined) {
      const name = textOf(target, "name") || columnName(value);
      const flow = flowOf(trace, value, level);
      columns.push({ name: name ?? "", flow });
      // Whatever name is not found may be this one's.
      if (name === undefined && isTainted(flow)) open = derivedFrom([open ?? clean, flow]);
      continue;
    }
    const expanded = expand(trace, star, value, level);
    trace.see(allOf(expanded));
    columns.push(...expanded.columns);
    if (expanded.open !== undefined) open = derivedFrom([open ?? clean, expanded.open, everythingIn(level)]);
  }
  return open === undefined ? { columns } : { columns, open };
}

/** What stands before a `*`: names, or nothing; undefined where there is no star. */
function starOf(value: TreeNode | undefined): readonly string[] | undefined {
  const column = nodeOf(value, "ColumnRef");
  const steps =
    column === undefined ? listOf(nodeOf(value, "A_Indirection"), "indirection") : listOf(column, "fields");
  if (tagOf(steps.at(-1)) !== "A_Star") return undefined;
  return column === undefined ? ["(expression)"] : stringsOf(steps);
}

function expand(
  trace: Trace,
  star: readonly string[],
  value: TreeNode | undefined,
  level: Level,
): TracedRows {
  const alias = star.at(-1);
  trace.stars += alias === undefined ? level.items.flatMap((item) => item.entries).length : 1;
  if (nodeOf(value, "A_Indirection") !== undefined) return composite(trace, value, level);
  if (alias === undefined) {
    const columns = level.items.flatMap((item) => item.star);
    return level.items.some((item) => item.isStarOpen) ? { columns, open: everythingIn(level) } : { columns };
  }
  const entry = star.length > 1 ? entryOfAny(level, alias) : entryOf(level, alias);
  // A composite column, or a table of another schema.
  if (entry === undefined) return { columns: [], open: everythingIn(level) };
  return entry.open === undefined ? { columns: entry.columns } : { columns: entry.columns, open: entry.open };
}

/** `(expression).*` gives the fields of a composite value, of which the text says neither names nor number. */
function composite(trace: Trace, value: TreeNode | undefined, level: Level): TracedRows {
  const arg = nodeOf(nodeOf(value, "A_Indirection"), "arg");
  const fields = listOf(nodeOf(arg, "ColumnRef"), "fields");
  const entry = fields.length === 1 ? entryOf(level, stringOf(fields[0]) ?? "") : undefined;
  if (entry !== undefined && entry.open === undefined) return { columns: entry.columns };
  return { columns: [], open: flowOf(trace, arg, level) };
}

function target(trace: Trace, node: TreeNode, level: Level): RangeEntry {
  const entry = rangeVar(trace, nodeOf(node, "relation") ?? {}, undefined);
  level.items.push(itemOf(entry));
  return entry;
}

/** Notes that a column gets a value: a masked one, or a masked value in another. */
function assign(trace: Trace, entry: RangeEntry, column: string, value: Flow): void {
  const known = entry.columns.find((candidate) => candidate.name === column)?.flow ?? entry.open ?? clean;
  trace.find("write", known, `column ${column}`);
  trace.find("store", value, `column ${column}`);
}

function insert(trace: Trace, node: TreeNode, level: Level): TracedRows {
  // The source does not see the target.
  const wrapped = nodeOf(node, "selectStmt");
  const source = nodeOf(wrapped, "SelectStmt");
  const rows: TracedRows =
    source === undefined ? { columns: [] } : traceQuery(trace, "SelectStmt", source, level);
  subscripts(trace, listOf(node, "cols"), level);
  const entry = target(trace, node, level);
  trace.filled = derivedFrom([trace.filled, defaultsOf(trace, nodeOf(node, "relation") ?? {})]);
  const listed = listOf(node, "cols").map((item) => textOf(nodeOf(item, "ResTarget"), "name"));
  const columns = listed.length > 0 ? listed : entry.columns.map((column) => column.name);
  // INSERT … DEFAULT VALUES gives nothing of the asker's.
  if (source !== undefined) {
    const given =
      listed.length > 0 || rows.open !== undefined ? columns : columns.slice(0, rows.columns.length);
    for (const [index, column] of given.entries()) {
      assign(trace, entry, column, rows.columns[index]?.flow ?? rows.open ?? clean);
    }
    trace.find("store", allOf(rows), "INSERT");
  }
  const conflict = nodeOf(node, "onConflictClause");
  const table = nodeOf(node, "relation") ?? {};
  if (conflict !== undefined) onConflict(trace, conflict, { entry, level, table });
  return returning(trace, node, { entry, level });
}

/** Subscripts of the columns that an INSERT lists are kept as the bounds of arrays: `INSERT INTO t (a[1]) …`. */
function subscripts(trace: Trace, columns: readonly TreeNode[], level: Level): void {
  for (const item of columns) condition(trace, nodeOf(item, "ResTarget")?.indirection, level, "a subscript");
}

interface Target {
  readonly entry: RangeEntry;
  readonly level: Level;
}

interface ChangedTarget extends Target {
  /** The table whose rows are changed, as the statement names it. */
  readonly table: TreeNode;
}

function onConflict(trace: Trace, conflict: TreeNode, { entry, level, table }: ChangedTarget): void {
  const inner: Level = {
    ...level,
    items: [...level.items, itemOf({ ...entry, alias: "excluded" })],
  };
  setClause(trace, conflict, { entry, level: inner, table });
  condition(trace, conflict.whereClause, inner, "WHERE");
  const infer = nodeOf(conflict, "infer");
  condition(trace, infer?.whereClause, level, "ON CONFLICT");
}

function setClause(trace: Trace, node: TreeNode, { entry, level, table }: ChangedTarget): void {
  const changed = listOf(node, "targetList").map((item) => textOf(nodeOf(item, "ResTarget"), "name"));
  if (changed.length > 0)
    trace.infer(boundTo(trace, table, changed), `a constraint on column ${changed.join(", ")}`);
  for (const item of listOf(node, "targetList")) {
    const column = nodeOf(item, "ResTarget");
    if (nodeOf(nodeOf(column, "val"), "SetToDefault") !== undefined)
      trace.filled = derivedFrom([trace.filled, allOf(entry)]);
    assign(trace, entry, textOf(column, "name"), flowOf(trace, column?.val, level));
    condition(trace, column?.indirection, level, "a subscript");
  }
}

function update(trace: Trace, node: TreeNode, level: Level): TracedRows {
  const entry = target(trace, node, level);
  for (const item of listOf(node, "fromClause")) addFrom(trace, item, level);
  const table = nodeOf(node, "relation") ?? {};
  setClause(trace, node, { entry, level, table });
  condition(trace, node.whereClause, level, "WHERE");
  return returning(trace, node, { entry, level });
}

function remove(trace: Trace, node: TreeNode, level: Level): TracedRows {
  const entry = target(trace, node, level);
  for (const item of listOf(node, "usingClause")) addFrom(trace, item, level);
  condition(trace, node.whereClause, level, "WHERE");
  return returning(trace, node, { entry, level });
}

function merge(trace: Trace, node: TreeNode, level: Level): TracedRows {
  const entry = target(trace, node, level);
  const source = nodeOf(node, "sourceRelation");
  if (source !== undefined) {
    const around: Level = { parent: level.parent, ctes: level.ctes, items: [] };
    addFrom(trace, source, around);
    // RETURNING * shows the source's columns before the target's.
    level.items.unshift(...around.items);
  }
  condition(trace, node.joinCondition, level, "MERGE ON");
  const table = nodeOf(node, "relation") ?? {};
  for (const item of listOf(node, "mergeWhenClauses")) {
    const clause = nodeOf(item, "MergeWhenClause") ?? {};
    condition(trace, clause.condition, level, "WHEN");
    if (textOf(clause, "commandType") === "CMD_INSERT") mergeInsert(trace, clause, { entry, level });
    else setClause(trace, clause, { entry, level, table });
  }
  return returning(trace, node, { entry, level });
}

function mergeInsert(trace: Trace, clause: TreeNode, { entry, level }: Target): void {
  subscripts(trace, listOf(clause, "targetList"), level);
  const listed = listOf(clause, "targetList").map((item) => textOf(nodeOf(item, "ResTarget"), "name"));
  const columns = listed.length > 0 ? listed : entry.columns.map((column) => column.name);
  for (const [index, value] of listOf(clause, "values").entries()) {
    assign(trace, entry, columns[index] ?? "", flowOf(trace, value, level));
  }
}

function returning(trace: Trace, node: TreeNode, { entry, level }: Target): TracedRows {
  const clause = nodeOf(node, "returningClause");
  if (clause === undefined) return { columns: [] };
  const names = new Map([
    ["RETURNING_OPTION_OLD", "old"],
    ["RETURNING_OPTION_NEW", "new"],
  ]);
  for (const item of listOf(clause, "options")) {
    const option = nodeOf(item, "ReturningOption");
    names.set(textOf(option, "option"), textOf(option, "value"));
  }
  // `old` and `new` are names, and no part of `*`; an alias of the same name goes before them.
  const images = [...names.values()].map((alias) => ({ ...entry, alias }));
  const hidden = { entries: images, star: [], merged: [], isStarOpen: false };
  const outer: Level = { parent: level.parent, ctes: level.ctes, items: [hidden] };
  const inner: Level = { parent: outer, ctes: level.ctes, items: level.items };
  return targetList(trace, listOf(clause, "exprs"), inner);
}
