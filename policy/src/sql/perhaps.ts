/** Relations that a body may have made, beside those that their names meant before. */
import type { ObjectRef } from "../model.ts";
import type { MadeEffect, SessionEffect } from "./analysis.ts";
import type { RelationInfo } from "./names.ts";

/**
 * What a name means of these, of which all but the last may be missing: whichever of them it is, it is judged as all. Empty:
 * nothing.
 */
export function anyOfThese(candidates: readonly RelationInfo[]): RelationInfo | undefined {
  const last = candidates.at(-1);
  if (last === undefined || candidates.length === 1) return last;
  const others = candidates.slice(0, -1);
  // What a system catalog reads is not looked at.
  const isSystem = last.schema === "pg_catalog" || last.schema === "information_schema";
  const [base, ...rest] = isSystem ? candidates : [last, ...others];
  return base === undefined ? undefined : rest.reduce(asEither, asSureAs(base, last));
}

/** A relation under another name or in another schema: rules that name it by its old one hold until the new one is committed. */
export function renamedFrom(
  relation: RelationInfo,
  to: { readonly schema: string } | { readonly name: string },
): RelationInfo {
  const { mayBeMissing: _, ...kept } = relation;
  const old: ObjectRef = { name: nameOf(relation), kind: "relation", direct: false };
  return { ...kept, ...to, reads: relation.temporary ? relation.reads : [...relation.reads, old] };
}

/** A relation that from here on may have another name or schema, as something that may have been made there. */
export function perhapsAs(
  relation: RelationInfo,
  to: { readonly schema: string } | { readonly name: string },
): SessionEffect {
  const { schema, name, temporary, columns, reads, children, functions, triggers, hasRules, kind } =
    renamedFrom(relation, to);
  const parts = children.map((child): ObjectRef => ({ name: child, kind: "relation", direct: false }));
  const made: MadeEffect = {
    ...{ kind: "createRelation", schema, name, temporary, columns, hasUnsureColumns: true },
    // Writing to it does what a view's rules do, where it has any.
    relationKind: hasRules || kind === "view" ? "view" : "table",
    hasCode: functions.length + triggers.length > 0,
    reads: [...reads, ...parts],
  };
  return { kind: "perhaps", made };
}

/** A relation that may be the other one instead. */
export function asEither(relation: RelationInfo, other: RelationInfo): RelationInfo {
  // The text of a view is one of two.
  const { definition: _, ...kept } = relation;
  const itself: ObjectRef = { name: nameOf(other), kind: "relation", direct: false };
  const reads = [...relation.reads, ...(nameOf(relation) === itself.name ? [] : [itself]), ...other.reads];
  const onRead = [
    ...(relation.readFunctions ?? relation.functions),
    ...(other.readFunctions ?? other.functions),
  ];
  return {
    ...kept,
    columns: unique([...relation.columns, ...other.columns]),
    hasUnsureColumns: true,
    reads: reads.filter(
      ({ name, kind }, at) => at === reads.findIndex((one) => one.name === name && one.kind === kind),
    ),
    children: unique([...relation.children, ...other.children]),
    parents: unique([...(relation.parents ?? []), ...(other.parents ?? [])]),
    cascades: unique([...relation.cascades, ...other.cascades]),
    triggers: unique([...relation.triggers, ...other.triggers]),
    hasRules: relation.hasRules || other.hasRules,
    functions: unique([...relation.functions, ...other.functions]),
    readFunctions: unique(onRead),
  };
}

function asSureAs(relation: RelationInfo, other: RelationInfo): RelationInfo {
  const { mayBeMissing: _, ...kept } = relation;
  return other.mayBeMissing === true ? { ...kept, mayBeMissing: true } : kept;
}

function nameOf({ temporary, schema, name }: RelationInfo): string {
  return `${temporary ? "pg_temp" : schema}.${name}`;
}

function unique<Item>(items: readonly Item[]): readonly Item[] {
  return [...new Set(items)];
}
