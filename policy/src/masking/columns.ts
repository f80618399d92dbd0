/** Column references: what a name means at a level, as the server looks it up, and everything where it is not found. */
import { listOf, stringOf, type TreeNode, tagOf } from "../sql/tree.ts";
import { clean, derivedFrom, type Flow } from "./flow.ts";
import { everythingIn, type Level, type RangeEntry, wholeRow } from "./trace.ts";

/** Columns that every table has; none of them holds data. */
const systemColumns = new Set(["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"]);

/** The flow of a ColumnRef outside a result list's `*`. */
export function columnFlow(level: Level | undefined, node: TreeNode): Flow {
  const fields = listOf(node, "fields");
  const last = fields.at(-1);
  if (tagOf(last) === "A_Star") {
    const alias = stringOf(fields.at(-2));
    return alias === undefined ? everythingIn(level) : (entryFlow(level, alias) ?? everythingIn(level));
  }
  const name = stringOf(last) ?? "";
  const alias = stringOf(fields.at(-2));
  return alias === undefined ? bareColumn(level, name) : qualifiedColumn(level, alias, name);
}

/** The whole row of an alias, or undefined where there is no such alias. */
function entryFlow(level: Level | undefined, alias: string): Flow | undefined {
  const entry = entryOf(level, alias);
  return entry === undefined ? undefined : wholeRow(entry);
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

function qualifiedColumn(level: Level | undefined, alias: string, name: string): Flow {
  const entry = entryOf(level, alias);
  // `a.b` where a is no alias: a field of a composite column, or a table by its schema.
  if (entry === undefined) return everythingIn(level);
  const flow = columnOf(entry, name);
  if (flow !== undefined) return flow;
  // `t.f` calls f(t) where t has no column of that name.
  return systemColumns.has(name) ? clean : wholeRow(entry);
}

/** The flow of a column of an entry; undefined where it has none of that name. */
export function columnOf(entry: RangeEntry, name: string): Flow | undefined {
  const found = entry.columns.filter((column) => column.name === name);
  const [only] = found;
  if (only === undefined) return entry.open;
  return found.length === 1 ? only.flow : derivedFrom(found.map((column) => column.flow));
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
        flows.push(flow);
        isFound ||= entry.open === undefined || entry.columns.some((column) => column.name === name);
      }
    }
    const [only] = flows;
    if (isFound && only !== undefined) return flows.length === 1 ? only : derivedFrom(flows);
    const row = at.items.flatMap((item) => item.entries).find((entry) => entry.alias === name);
    if (row !== undefined) return derivedFrom([wholeRow(row), ...flows]);
    if (systemColumns.has(name) && at.items.length > 0) return clean;
    // It may be a column that nobody listed.
    if (flows.length > 0) return derivedFrom([...flows, everythingIn(at.parent)]);
  }
  return everythingIn(level);
}
