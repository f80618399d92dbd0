/** FROM: what each item makes visible, and what `*` makes of it. */
import { namesakes, possiblePath, type RelationInfo, relationNamed } from "../sql/names.ts";
import { parseDefinition } from "../sql/parser.ts";
import {
  listOf,
  namesOf,
  nodeOf,
  qualifiedOf,
  stringOf,
  stringsOf,
  type TreeNode,
  tagOf,
  textOf,
} from "../sql/tree.ts";
import { relationName } from "../sql/walk.ts";
import { condition, flowOf, madeTypes } from "./expressions.ts";
import { anyOf, clean, derivedFrom, exactly, type Flow, type FlowColumn, isTainted } from "./flow.ts";
import type { TracedRows } from "./model.ts";
import { columnsTyped } from "./object-ids.ts";
import {
  allOf,
  everythingIn,
  type FromItem,
  itemOf,
  type Level,
  type RangeEntry,
  type Trace,
} from "./trace.ts";

/** Adds one item of FROM to the level. */
export function addFrom(trace: Trace, wrapped: TreeNode, level: Level): void {
  level.items.push(fromItem(trace, wrapped, level));
}

function fromItem(trace: Trace, wrapped: TreeNode, level: Level): FromItem {
  trace.spend();
  const tag = tagOf(wrapped) ?? "";
  const node = nodeOf(wrapped, tag) ?? {};
  switch (tag) {
    case "RangeVar":
      return itemOf(rangeVar(trace, node, level));
    case "RangeSubselect":
      return itemOf(subselect(trace, node, level));
    case "RangeFunction":
      return itemOf(functionRange(trace, node, level));
    case "RangeTableSample": {
      condition(trace, node.args, level, "TABLESAMPLE");
      condition(trace, node.repeatable, level, "TABLESAMPLE");
      return fromItem(trace, nodeOf(node, "relation") ?? {}, level);
    }
    case "JoinExpr":
      return join(trace, node, level);
    default: {
      // XMLTABLE, JSON_TABLE and what may come: rows made of values.
      const flow = derivedFrom([madeTypes(trace, node, flowOf(trace, node, level)), columnsTyped(node)]);
      trace.infer(flow, "a function in FROM");
      const names = listOf(node, "columns").map((column) => {
        const columnTag = tagOf(column) ?? "";
        const inner = nodeOf(column, columnTag);
        return textOf(inner, "name") || textOf(inner, "colname");
      });
      const columns = names.map((name) => ({ name, flow }));
      return itemOf(aliased(node, { alias: "", columns, open: flow }));
    }
  }
}

/** The entry of a stored relation, a view or a WITH name. */
export function rangeVar(trace: Trace, node: TreeNode, level: Level | undefined): RangeEntry {
  const schema = node.schemaname === undefined ? undefined : textOf(node, "schemaname");
  const name = textOf(node, "relname");
  if (schema === undefined) {
    for (let at = level; at !== undefined; at = at.parent) {
      const columns = at.ctes.get(name);
      if (columns !== undefined) return aliased(node, { alias: name, columns });
    }
  }
  const relation = trace.names.relation(schema, name);
  // Analysis has answered 42P01 before; a name that only exists later is nothing that is masked now.
  if (relation === undefined) return aliased(node, { alias: name, columns: [], open: everythingIn(level) });
  const entry = relationEntry(trace, relation, name);
  trace.infer(trace.placeOf(relation).above, `partition ${name}`);
  return aliased(node, schema === undefined ? withNamesakes(trace, relation, entry) : entry);
}

/**
 * The server keeps to the relation that a name meant when a statement or a function's body was first planned, also where
 * another of that name now stands before it on the path, and it looks again where one has gone meanwhile. So an
 * unqualified name may be any of its namesakes along the path.
 */
function withNamesakes(trace: Trace, relation: RelationInfo, entry: RangeEntry): RangeEntry {
  const others = namesakes(trace.names, possiblePath(trace.names), relation.name)
    .filter((other) => relationName(other) !== relationName(relation))
    .map((other) => relationEntry(trace, other, ""))
    .filter((other) => isTainted(allOf(other)));
  if (others.length === 0) return entry;
  // A name in the statement was looked up among theirs, and `*` gave them in their order.
  const columns = entry.columns.map(({ name, flow }, index) => {
    const alike = others.flatMap((other) =>
      other.columns.filter((column, at) => column.name === name || at === index),
    );
    return { name, flow: anyOf([flow, ...alike.map((column) => column.flow)]) };
  });
  const own = new Set(entry.columns.map((column) => column.name));
  const beyond = others.map(({ columns: theirs, open }) =>
    allOf({ columns: theirs.filter(({ name }) => !own.has(name)), ...(open === undefined ? {} : { open }) }),
  );
  const open = derivedFrom([entry.open ?? clean, ...beyond]);
  return entry.open === undefined && !isTainted(open) ? { ...entry, columns } : { ...entry, columns, open };
}

/** The relations that the name of a table that is written may mean when it runs. */
export function relationsMeant(trace: Trace, node: TreeNode): readonly RelationInfo[] {
  const schemas = node.schemaname === undefined ? possiblePath(trace.names) : [textOf(node, "schemaname")];
  return namesakes(trace.names, schemas, textOf(node, "relname"));
}

/** What the defaults of a table tell that rows are put into, or of the table behind a view. */
export function defaultsOf(trace: Trace, node: TreeNode): Flow {
  const behind = new Set(relationsMeant(trace, node));
  const flows: Flow[] = [];
  for (const relation of behind) {
    const kept = trace.names.definitions?.get(relationName(relation)) ?? [];
    const masked = trace.masked.of(relation, trace.names);
    for (const { kind, column } of kept) {
      const source = kind === "default" ? masked?.get(column) : undefined;
      if (source !== undefined) flows.push(exactly(source));
    }
    for (const read of relation.reads) {
      const table = read.kind === "relation" ? relationNamed(trace.names, read.name) : undefined;
      if (table !== undefined) behind.add(table);
    }
  }
  return derivedFrom(flows);
}

/** The entry of a relation: a view shows what its definition reads. */
export function relationEntry(trace: Trace, relation: RelationInfo, alias: string): RangeEntry {
  const stored = trace.relationColumns(relation);
  if (relation.hasUnsureColumns === true) trace.unsure.add(relationName(relation));
  if (relation.kind !== "view" && relation.kind !== "materializedView") {
    const { all } = trace.placeOf(relation);
    return { alias, columns: stored, ...(isTainted(all) ? { place: all } : {}) };
  }
  const shown = viewColumns(trace, relation);
  const columns = stored.map(({ name, flow }, index) => {
    // A view column that is masked by its own name keeps that mask.
    if (flow.sources.size > 0) return { name, flow };
    return { name, flow: shown.columns[index]?.flow ?? shown.open ?? clean };
  });
  return shown.open === undefined ? { alias, columns } : { alias, columns, open: shown.open };
}

function viewColumns(trace: Trace, view: RelationInfo): TracedRows {
  if (view.schema === "pg_catalog" || view.schema === "information_schema") return { columns: [] };
  const key = `${view.schema}.${view.name}`;
  const { definition } = view;
  if (definition === undefined || trace.active.has(key)) return { columns: [], open: readsOf(trace, view) };
  return trace.onceFor(view, () => definedColumns(trace, view, definition));
}

function definedColumns(trace: Trace, view: RelationInfo, definition: string): TracedRows {
  const key = `${view.schema}.${view.name}`;
  trace.active.add(key);
  try {
    return trace.authored(() => {
      const [statement] = parseDefinition(definition);
      const query = nodeOf(statement?.node, "SelectStmt");
      if (query === undefined) return { columns: [], open: readsOf(trace, view) };
      const rows = trace.query(trace, "SelectStmt", query, undefined);
      // Fewer or more columns than the catalog says: one of both is older.
      if (rows.open === undefined && rows.columns.length === view.columns.length) return rows;
      return { columns: [], open: readsOf(trace, view) };
    });
  } finally {
    trace.active.delete(key);
  }
}

/** All masked columns of what a view reads, for a view whose text is not known. */
function readsOf(trace: Trace, view: RelationInfo): Flow {
  const flows: Flow[] = [];
  const seen = new Set<string>();
  const pending = [...view.reads];
  for (let read = pending.pop(); read !== undefined; read = pending.pop()) {
    if (read.kind !== "relation" || seen.has(read.name)) continue;
    seen.add(read.name);
    const relation = relationNamed(trace.names, read.name);
    if (relation === undefined) continue;
    flows.push(...trace.relationColumns(relation).map((column) => column.flow));
    pending.push(...relation.reads);
  }
  return derivedFrom(flows);
}

/** Gives an entry its alias and its columns the alias's names. */
function aliased(node: TreeNode, entry: RangeEntry): RangeEntry {
  const alias = nodeOf(node, "alias");
  if (alias === undefined) return entry;
  const names = stringsOf(listOf(alias, "colnames"));
  const columns = renamed(entry.columns, names, entry.open);
  const name = textOf(alias, "aliasname");
  return { ...entry, alias: name, columns };
}

/** The columns with the first of them renamed; where there may be more than are listed, names make them. */
export function renamed(
  columns: readonly FlowColumn[],
  names: readonly string[],
  open?: Flow,
): readonly FlowColumn[] {
  if (names.length === 0) return columns;
  const result = columns.map((column, index) => ({ name: names[index] ?? column.name, flow: column.flow }));
  if (open !== undefined) {
    for (const name of names.slice(columns.length)) result.push({ name, flow: open });
  }
  return result;
}

/**
 * The columns of a query whose names a list gives by their places, behind a `*` that may stand for another number of
 * columns when it runs: each may be any. `stars` is how many there were before the query.
 */
export function placedBehind(
  trace: Trace,
  stars: number,
  columns: readonly FlowColumn[],
  names: readonly string[],
): readonly FlowColumn[] {
  return trace.stars === stars ? columns : placed(columns, names);
}

/** Columns that a list names by their places, of which there may be others by then. */
function placed(columns: readonly FlowColumn[], names: readonly string[]): readonly FlowColumn[] {
  const all = derivedFrom(columns.map(({ flow }) => flow));
  if (names.length === 0 || !isTainted(all)) return columns;
  return columns.map(({ name }) => ({ name, flow: all }));
}

function subselect(trace: Trace, node: TreeNode, level: Level): RangeEntry {
  const outer = node.lateral === true ? level : outside(level);
  const wrapped = nodeOf(node, "subquery") ?? {};
  const tag = tagOf(wrapped) ?? "";
  const stars = trace.stars;
  const rows = trace.query(trace, tag, nodeOf(wrapped, tag) ?? {}, outer);
  const names = stringsOf(listOf(nodeOf(node, "alias"), "colnames"));
  const entry = { alias: "", columns: placedBehind(trace, stars, rows.columns, names) };
  return aliased(node, rows.open === undefined ? entry : { ...entry, open: rows.open });
}

/** The level as a subquery without LATERAL sees it: its WITH names, and what is around, but not its siblings. */
function outside(level: Level): Level {
  return { parent: level.parent, ctes: level.ctes, items: [] };
}

/** Functions that give one row of one column for each of theirs. */
function functionRange(trace: Trace, node: TreeNode, level: Level): RangeEntry {
  const columns: FlowColumn[] = [];
  const flows: Flow[] = [];
  let isCounted = node.ordinality !== true;
  for (const item of listOf(node, "functions")) {
    const [callNode, definitions] = listOf(nodeOf(item, "List"), "items");
    const flow = flowOf(trace, callNode, level);
    const list = definitions === undefined ? [] : columnDefinitions(definitions);
    const call = nodeOf(callNode, "FuncCall");
    const name = stringsOf(listOf(call, "funcname")).at(-1) ?? "";
    const given = flowOf(trace, listOf(call, "args"), level);
    const alias = textOf(nodeOf(node, "alias"), "aliasname");
    const rows = isTainted(given) || list.length > 0 ? undefined : functionRows(trace, call, alias);
    flows.push(flow);
    if (rows !== undefined) {
      columns.push(...rows);
      continue;
    }
    isCounted = false;
    trace.infer(flow, "a function in FROM");
    columns.push(...(list.length > 0 ? list : [name]).map((column) => ({ name: column, flow })));
  }
  const listed = listOf(node, "coldeflist").map((item) => textOf(nodeOf(item, "ColumnDef"), "colname"));
  const all = derivedFrom([madeTypes(trace, node, derivedFrom(flows)), columnsTyped(node)]);
  const found = listed.length > 0 ? listed.map((name) => ({ name, flow: all })) : columns;
  const own = namesOf(
    nodeOf(listOf(nodeOf(listOf(node, "functions")[0], "List"), "items")[0], "FuncCall"),
    "funcname",
  );
  const name = own.at(-1) ?? found[0]?.name ?? "";
  if (isCounted && listed.length === 0) return aliased(node, { alias: name, columns: found });
  const entry = aliased(node, { alias: name, columns: found, open: all });
  // A scalar function's column goes by its alias as well.
  if (entry.columns.some((column) => column.name === entry.alias)) return entry;
  return { ...entry, columns: [...entry.columns, { name: entry.alias, flow: all }] };
}

/** The columns of a function's rows, where its body can be followed and their names are known. */
function functionRows(
  trace: Trace,
  call: TreeNode | undefined,
  alias: string,
): readonly FlowColumn[] | undefined {
  const { schema, name } = qualifiedOf(namesOf(call, "funcname"));
  const rows = trace.called(schema, name);
  const [info, other] = trace.names.functions(schema, name);
  if (rows === undefined || info === undefined || other !== undefined) return undefined;
  const results = (info.parameters ?? []).filter(({ isResult }) => isResult).map((result) => result.name);
  const row = info.returnsRow;
  const columnNames =
    results.length > 0
      ? results
      : row === undefined
        ? [alias || name]
        : (relationNamed(trace.names, row)?.columns ?? []);
  const all = allOf(rows);
  // What comes out of a function may be of another type than what went in: no value is the column's own.
  const isEach = rows.open === undefined && rows.columns.length === columnNames.length;
  return columnNames.map((column, index) => ({
    name: column,
    flow: isEach ? derivedFrom([rows.columns[index]?.flow ?? all]) : all,
  }));
}

function columnDefinitions(node: TreeNode): readonly string[] {
  return listOf(nodeOf(node, "List"), "items").map((item) => textOf(nodeOf(item, "ColumnDef"), "colname"));
}

function join(trace: Trace, node: TreeNode, level: Level): FromItem {
  const left = fromItem(trace, nodeOf(node, "larg") ?? {}, level);
  // The right side of a join may be LATERAL to the left one.
  const within: Level = { parent: level.parent, ctes: level.ctes, items: [...level.items, left] };
  const right = fromItem(trace, nodeOf(node, "rarg") ?? {}, within);
  const inner: Level = { ...within, items: [...within.items, right] };
  condition(trace, node.quals, inner, "JOIN");
  const shared = node.isNatural === true ? commonNames(left, right) : usingNames(node);
  const merged = shared.map((name) => {
    const flow = derivedFrom([named(left, name), named(right, name)]);
    trace.infer(flow, "JOIN");
    return { name, flow };
  });
  const rest = (item: FromItem) => item.star.filter((column) => !shared.includes(column.name));
  const star = [...merged, ...rest(left), ...rest(right)];
  const isStarOpen = left.isStarOpen || right.isStarOpen;
  // NATURAL with columns that nobody can list compares what nobody can tell.
  if (node.isNatural === true && isStarOpen) trace.infer(everythingIn(inner), "NATURAL JOIN");
  const alias = nodeOf(node, "alias");
  if (alias !== undefined) {
    const entries = [...left.entries, ...right.entries];
    const open = isStarOpen ? derivedFrom(entries.map(allOf)) : undefined;
    const columns = placed(star, stringsOf(listOf(alias, "colnames")));
    return itemOf(aliased(node, { alias: "", columns, ...(open === undefined ? {} : { open }) }));
  }
  const own = nodeOf(node, "join_using_alias");
  const using = own === undefined ? [] : [{ alias: textOf(own, "aliasname"), columns: merged }];
  return {
    entries: [...left.entries, ...right.entries, ...using],
    star,
    merged: [...merged, ...left.merged, ...right.merged],
    isStarOpen,
  };
}

function usingNames(node: TreeNode): readonly string[] {
  return listOf(node, "usingClause").map((item) => stringOf(item) ?? "");
}

function commonNames(left: FromItem, right: FromItem): readonly string[] {
  const names = new Set(right.star.map((column) => column.name));
  return left.star.map((column) => column.name).filter((name) => names.has(name));
}

function named(item: FromItem, name: string): Flow {
  const found = item.star.find((column) => column.name === name);
  if (found !== undefined) return found.flow;
  return item.isStarOpen ? derivedFrom(item.entries.map(allOf)) : clean;
}
