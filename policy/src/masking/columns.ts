/** Column references: what a name means at a level, as the server looks it up, and everything where it is not found. */
import { listOf, stringOf, type TreeNode } from "../sql/tree.ts";
import { clean, derivedFrom, type Flow, isTainted, objectId } from "./flow.ts";
import { allOf, everythingIn, type Level, type RangeEntry, type Trace } from "./trace.ts";

/** Columns that every table has; none of them holds data. */
const systemColumns = new Set(["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"]);

/** The flow of a ColumnRef outside a result list's `*`. */
export function columnFlow(trace: Trace, level: Level | undefined, node: TreeNode): Flow {
  return trace.see(namedFlow(trace, level, node));
}

function namedFlow(trace: Trace, level: Level | undefined, node: TreeNode): Flow {
  const fields = listOf(node, "fields");
  const name = stringOf(fields.at(-1));
  const alias = stringOf(fields.at(-2));
  if (alias === undefined) return name === undefined ? everythingIn(level) : bareColumn(level, name);
  const entry = fields.length > 2 ? entryOfAny(level, alias) : entryOf(level, alias);
  // `a.b` where a is no alias: a field of a composite column, or a table by its schema.
  if (entry === undefined) return everythingIn(level);
  return name === undefined ? allOf(entry) : fieldOf(trace, entry, name);
}

/**
 * The entry that `schema.table` means: tables of one name in different schemas may stand side by side, or one of them
 * further out, and then it may be any of them.
 */
export function entryOfAny(level: Level | undefined, alias: string): RangeEntry | undefined {
  const found: RangeEntry[] = [];
  for (let at = level; at !== undefined; at = at.parent) {
    for (const item of at.items) found.push(...item.entries.filter((entry) => entry.alias === alias));
  }
  return found.length < 2 ? found[0] : { alias, columns: [], open: derivedFrom(found.map(allOf)) };
}

/** The entry of that alias at the nearest level that has one. */
export function entryOf(level: Level | undefined, alias: string): RangeEntry | undefined {
  for (let at = level; at !== undefined; at = at.parent) {
    for (const item of at.items) {
      const entry = item.entries.find((candidate) => candidate.alias === alias);
      if (entry !== undefined) return entry;
    }
  }
  return undefined;
}

/** What `entry.name` is: a column, or f(t) by the name `t.f`. */
export function fieldOf(trace: Trace, entry: RangeEntry, name: string): Flow {
  if (entry.columns.some((column) => column.name === name)) return columnOf(entry, name) ?? clean;
  // Views and subqueries have no system columns: there, too, the name may be a function's.
  // None of pg_catalog takes a row there but those that print it, whole.
  const isFunction = trace.names.functions(undefined, name).some((info) => info.schema !== "pg_catalog");
  if (!isFunction) return systemColumns.has(name) ? systemColumn([entry], name) : allOf(entry);
  return trace.invoke(undefined, name, [allOf(entry)]);
}

/** Of the system columns only `tableoid` may tell of a value: where rows are put by one. */
function systemColumn(entries: readonly RangeEntry[], name: string): Flow {
  return name === "tableoid"
    ? derivedFrom([objectId, ...entries.map((entry) => entry.place ?? clean)])
    : clean;
}

/** The flow of a column of an entry; undefined where it has none of that name. */
export function columnOf(entry: RangeEntry, name: string): Flow | undefined {
  const found = entry.columns.filter((column) => column.name === name);
  const [only] = found;
  if (only === undefined) return entry.open;
  return found.length === 1 ? only.flow : derivedFrom(found.map((column) => column.flow));
}

/** True where an entry whose columns are all known has one of that name. */
function hasColumn({ items }: Level, name: string): boolean {
  return items.some(({ entries }) =>
    entries.some(({ columns, open }) => open === undefined && columns.some((column) => column.name === name)),
  );
}

/** Masked columns of that name around a query: where its own is dropped while the statement waits for a lock, one of them is meant. */
function furtherOut(level: Level | undefined, name: string): readonly Flow[] {
  const flows: Flow[] = [];
  for (let at = level; at !== undefined; at = at.parent)
    for (const { entries } of at.items)
      for (const { columns } of entries)
        for (const column of columns)
          if (column.name === name && isTainted(column.flow)) flows.push(column.flow);
  return flows;
}

function bareColumn(level: Level | undefined, name: string): Flow {
  for (let at = level; at !== undefined; at = at.parent) {
    const flows: Flow[] = [];
    let isFound = false;
    for (const item of at.items) {
      const merged = item.merged.find((column) => column.name === name);
      if (merged !== undefined) {
        flows.push(merged.flow);
        isFound = true;
        continue;
      }
      for (const entry of item.entries) {
        const flow = columnOf(entry, name);
        if (flow === undefined) continue;
        const isListed = entry.columns.some((column) => column.name === name);
        // Beside a column of that name it can be no other entry's: the server would call it ambiguous.
        if (isListed || isTainted(flow) || !hasColumn(at, name)) flows.push(flow);
        isFound ||= entry.open === undefined || isListed;
      }
    }
    const [only] = flows;
    if (isFound && only !== undefined) {
      const own = derivedFrom(flows);
      flows.push(
        ...furtherOut(at.parent, name).filter(({ sources }) =>
          [...sources].some((source) => !own.sources.has(source)),
        ),
      );
      return flows.length === 1 ? only : derivedFrom(flows);
    }
    const row = at.items.flatMap((item) => item.entries).find((entry) => entry.alias === name);
    if (row !== undefined) return derivedFrom([allOf(row), ...flows]);
    if (systemColumns.has(name) && at.items.length > 0) {
      return systemColumn(
        at.items.flatMap((item) => item.entries),
        name,
      );
    }
    // It may be a column that nobody listed.
    if (flows.length > 0) return derivedFrom([...flows, everythingIn(at.parent)]);
  }
  return everythingIn(level);
}
