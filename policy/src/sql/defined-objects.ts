/** Which objects a definition names, and what a refusal calls them. */
import type { ObjectRef } from "../model.ts";
import { Rejected } from "./rejection.ts";
import { findRelation, functionObject, relationOf, searchPathKnown } from "./relations.ts";
import { isNode, listOf, namesOf, nodeOf, qualifiedOf, stringOf, type TreeNode, textOf } from "./tree.ts";
import type { Walk } from "./walk.ts";

/** Judges one kind of statement; the answer is its command tag. */
export type Handler = (walk: Walk, node: TreeNode, text: string) => string;

export function schemaOf(rangeVar: TreeNode): string | undefined {
  return rangeVar.schemaname === undefined ? undefined : textOf(rangeVar, "schemaname");
}

export function isTemporary(rangeVar: TreeNode): boolean {
  return textOf(rangeVar, "relpersistence") === "t" || /^pg_temp(_\d+)?$/.test(schemaOf(rangeVar) ?? "");
}

/** A name that is being made: in its own schema, or where an unqualified CREATE goes. */
export function newName(walk: Walk, schema: string | undefined, name: string, location?: unknown): string {
  searchPathKnown(walk, schema);
  if (schema !== undefined && !walk.names.schemaExists(schema)) {
    const position = typeof location === "number" && walk.isDirect ? { position: location } : {};
    throw new Rejected(
      { sqlstate: "3F000", message: `schema "${schema}" does not exist`, ...position },
      true,
    );
  }
  return `${schema ?? walk.names.creationSchema}.${name}`;
}

/** The relation as objects; where it is missing and may be, every place where it could be. */
export function namedRelation(walk: Walk, rangeVar: TreeNode, isOptional: boolean): readonly ObjectRef[] {
  const found = findRelation(walk, rangeVar);
  if (found !== undefined) {
    const children = found.children.map((name) => ({ name, kind: "relation" as const, direct: false }));
    return [walk.relationObject(found), ...children];
  }
  if (!isOptional) relationOf(walk, rangeVar);
  const schemas = schemaOf(rangeVar) === undefined ? (walk.names.searchPath ?? []) : [schemaOf(rangeVar)];
  return schemas
    .filter((schema) => schema !== "pg_catalog" && schema !== "pg_temp")
    .map((schema) => walk.object("relation", `${schema}.${textOf(rangeVar, "relname")}`));
}

/** The statement's own words for a kind of object. */
export function objectWord(kind: string): string {
  const word = kind.replace("OBJECT_", "").replaceAll("_", " ");
  if (word.startsWith("TS")) return `TEXT SEARCH ${word.slice(2)}`;
  return word === "MATVIEW" ? "MATERIALIZED VIEW" : word === "TABCONSTRAINT" ? "TABLE" : word;
}

export function objectsIn(walk: Walk, node: TreeNode, field: string): readonly ObjectRef[] {
  const value = node[field];
  if (Array.isArray(value)) {
    const names = namesOf(node, field);
    if (names.length > 0) return [qualifiedObject(walk, "function", names)];
    return listOf(node, field).flatMap((item) => {
      const rangeVar = nodeOf(item, "RangeVar");
      return rangeVar === undefined ? [] : [walk.relationObject(relationOf(walk, rangeVar))];
    });
  }
  if (!isNode(value)) return [];
  if (typeof value.relname === "string") return namedRelation(walk, value, true);
  const list = nodeOf(value, "List");
  if (list !== undefined) return [qualifiedObject(walk, "other", namesOf(list, "items"))];
  const withArguments = nodeOf(value, "ObjectWithArgs");
  if (withArguments !== undefined)
    return [qualifiedObject(walk, "function", namesOf(withArguments, "objname"))];
  const name = stringOf(value);
  if (name === undefined) return [];
  const type = textOf(node, "objectType");
  return [
    walk.object(
      type === "OBJECT_DATABASE" ? "database" : type === "OBJECT_EVENT_TRIGGER" ? "other" : "schema",
      name,
    ),
  ];
}

export function qualifiedObject(walk: Walk, kind: ObjectRef["kind"], names: readonly string[]): ObjectRef {
  const { schema, name } = qualifiedOf(names);
  if (schema !== undefined) return walk.object(kind, `${schema}.${name}`);
  searchPathKnown(walk, schema);
  const found = kind === "function" ? walk.names.functions(undefined, name)[0] : undefined;
  return found === undefined
    ? walk.object(kind, `${walk.names.creationSchema}.${name}`)
    : { ...functionObject(found), direct: walk.isDirect };
}

export const renamedRelations = new Set([
  "OBJECT_TABLE",
  "OBJECT_VIEW",
  "OBJECT_MATVIEW",
  "OBJECT_SEQUENCE",
  "OBJECT_FOREIGN_TABLE",
]);

export const relationDrops = new Set([...renamedRelations, "OBJECT_INDEX"]);

/** What a kind and a list of names stand for: a relation with its children, a schema with all in it, or another thing. */
export function memberObjects(walk: Walk, node: TreeNode, type: string): readonly ObjectRef[] {
  const member = nodeOf(node, "object");
  const names = namesOf(nodeOf(member, "List"), "items");
  if (type === "OBJECT_SCHEMA") return schemaObjects(walk, stringOf(member) ?? "");
  if (names.length === 0) return objectsIn(walk, node, "object");
  // Of a column, the relation.
  if (type === "OBJECT_COLUMN") return namedRelation(walk, rangeVarOf(names.slice(0, -1)), true);
  return relationDrops.has(type)
    ? namedRelation(walk, rangeVarOf(names), true)
    : [qualifiedObject(walk, "other", names)];
}

/** A schema with all that goes where it goes: dropped with it, or found under another name. */
export function schemaObjects(walk: Walk, schema: string): readonly ObjectRef[] {
  const inside = walk.names.relationsIn(schema).map((name) => `${schema}.${name}`);
  return [
    walk.object("schema", schema),
    ...inside.map((name) => ({ name, kind: "relation" as const, direct: false })),
  ];
}

export function rangeVarOf(names: readonly string[]): TreeNode {
  const { schema, name } = qualifiedOf(names);
  return { relname: name, ...(schema === undefined ? {} : { schemaname: schema }) };
}
