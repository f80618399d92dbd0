/**
 * What a change of a column tells of masked ones: a check, a unique or foreign key or a computed column that takes both fails by
 * the value of the other. A row that is put in has no value that its writer does not give.
 */
import { type RelationInfo, relationNamed } from "../sql/names.ts";
import type { TreeNode } from "../sql/tree.ts";
import { clean, derivedFrom, exactly, type Flow } from "./flow.ts";
import { relationsMeant } from "./from.ts";
import type { Trace } from "./trace.ts";

/** The masked columns that a change of these columns of the table tells of, through a view those of the tables behind it. */
export function boundTo(trace: Trace, target: TreeNode, columns: readonly string[]): Flow {
  if (trace.masked.isEmpty) return clean;
  const flows: Flow[] = [];
  // Behind a view columns may have other names: there each is any.
  const reached = new Map<RelationInfo, readonly string[] | "any">();
  for (const relation of relationsMeant(trace, target)) reached.set(relation, columns);
  for (const [relation, changed] of reached) {
    flows.push(...boundIn(trace, relation, changed));
    for (const each of relation.children) reach(trace, reached, each, changed);
    for (const { kind, name: read } of relation.reads)
      if (kind === "relation") reach(trace, reached, read, "any");
  }
  return derivedFrom(flows);
}

function reach(
  trace: Trace,
  reached: Map<RelationInfo, readonly string[] | "any">,
  name: string,
  changed: readonly string[] | "any",
): void {
  const relation = relationNamed(trace.names, name);
  // A Map grows while it is walked, and keeps what it has.
  if (relation !== undefined && !reached.has(relation)) reached.set(relation, changed);
}

function boundIn(trace: Trace, relation: RelationInfo, changed: readonly string[] | "any"): Flow[] {
  const masked = relation.bound === undefined ? undefined : trace.masked.of(relation, trace.names);
  if (masked === undefined) return [];
  return (relation.bound ?? []).flatMap((together) => {
    const isTouched = changed === "any" || together.some((column) => changed.includes(column));
    return isTouched
      ? together.flatMap((column) => masked.get(column) ?? []).map((source) => exactly(source))
      : [];
  });
}
