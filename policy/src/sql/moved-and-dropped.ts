/** Statements that rename, move and drop. */
import type { ObjectRef } from "../model.ts";
import { columnsAltered, isTypeOfTransaction } from "./altered-tables.ts";
import type { SessionEffect } from "./analysis.ts";
import {
  namedRelation,
  objectsIn,
  objectWord,
  qualifiedObject,
  rangeVarOf,
  relationDrops,
  renamedRelations,
  schemaObjects,
  schemaOf,
} from "./defined-objects.ts";
import { leadsElsewhere } from "./foreign-tables.ts";
import { perhapsAs } from "./perhaps.ts";
import { Rejected } from "./rejection.ts";
import { findRelation } from "./relations.ts";
import { listOf, namesOf, nodeOf, qualifiedOf, stringOf, type TreeNode, textOf } from "./tree.ts";
import type { Walk } from "./walk.ts";

/** Where no effect tells for certain what a relation is called: it may stand before another one now. */
export function movedAside(
  walk: Walk,
  rangeVar: TreeNode | undefined,
  to: { readonly schema: string } | { readonly name: string },
): void {
  if (rangeVar === undefined) return;
  const found = walk.names.relation(schemaOf(rangeVar), textOf(rangeVar, "relname"));
  const isRead = found?.kind !== "index" && found?.kind !== "compositeType";
  if (found !== undefined && isRead) walk.effects.push(perhapsAs(found, to));
}

/** Renames say where the name went, so that the next statement finds it. */
export function rename(walk: Walk, node: TreeNode): string {
  const type = textOf(node, "renameType");
  const isColumn = type === "OBJECT_COLUMN" || type === "OBJECT_TABCONSTRAINT" || type === "OBJECT_ATTRIBUTE";
  const word = `ALTER ${objectWord(isColumn ? textOf(node, "relationType") || "OBJECT_TABLE" : type)}`;
  const rangeVar = nodeOf(node, "relation");
  const isPrivileged = type === "OBJECT_ROLE" || type === "OBJECT_DATABASE";
  const objects =
    rangeVar === undefined
      ? renamedObjects(walk, node, type)
      : namedRelation(
          walk,
          rangeVar,
          node.missing_ok === true || isTypeOfTransaction(walk, rangeVar, textOf(node, "relationType")),
        );
  walk.add(isPrivileged ? "privilege" : "define", word, objects);
  if (leadsElsewhere(walk.names, "RenameStmt", node)) walk.add("privilege", word, objects);
  if (isColumn) columnsAltered(walk, objects);
  const isTold = rangeVar !== undefined && !isColumn && renamedRelations.has(type);
  if (type === "OBJECT_SCHEMA") {
    walk.effects.push({ kind: "renameSchema", name: textOf(node, "subname"), to: textOf(node, "newname") });
  }
  if (isTold) {
    const schema = schemaOf(rangeVar);
    walk.effects.push({
      kind: "renameRelation",
      ...(schema === undefined ? {} : { schema }),
      name: textOf(rangeVar, "relname"),
      to: textOf(node, "newname"),
    });
  }
  if (!isTold && !isColumn) movedAside(walk, rangeVar, { name: textOf(node, "newname") });
  const made = codeMoved(walk, node, type, { name: textOf(node, "newname") });
  if (made !== undefined) walk.effects.push(made);
  // Code under another name: nothing that is named is known to be what it was.
  const hasCode = rangeVar === undefined && !isPrivileged;
  const moves = !(isTold || isColumn || isPrivileged);
  walk.effects.push({
    kind: "catalogChanged",
    ...(hasCode && { code: "everything" }),
    ...(moves && { moves }),
  });
  return word;
}

/**
 * A type or a function by the name or in the schema that it has been given. What it runs is not told here: after such a
 * statement nobody's code is known.
 */
export function codeMoved(
  walk: Walk,
  node: TreeNode,
  kind: string,
  to: { readonly schema: string } | { readonly name: string },
): SessionEffect | undefined {
  const object = nodeOf(node, "object");
  const names = [
    ...namesOf(nodeOf(object, "List"), "items"),
    ...namesOf(nodeOf(object, "ObjectWithArgs"), "objname"),
  ];
  if (names.length === 0) return undefined;
  const { schema, name } = qualifiedOf(names);
  if (kind === "OBJECT_TYPE" || kind === "OBJECT_DOMAIN") {
    const found = walk.names.type(schema, name);
    return found === undefined ? undefined : { kind: "createType", schema: found.schema, name, ...to };
  }
  if (!routines.has(kind)) return undefined;
  const found = walk.names.functions(schema, name).find((info) => info.schema !== "pg_catalog");
  if (found === undefined) return undefined;
  const made = { kind: "createFunction", language: "unknown", securityDefiner: false } as const;
  return { ...made, schema: found.schema, name, ...to };
}

const routines = new Set(["OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_ROUTINE", "OBJECT_AGGREGATE"]);

function renamedObjects(walk: Walk, node: TreeNode, type: string): readonly ObjectRef[] {
  const subname = textOf(node, "subname");
  if (type === "OBJECT_SCHEMA") return schemaObjects(walk, subname);
  if (type === "OBJECT_ROLE") return [walk.object("role", subname)];
  if (type === "OBJECT_DATABASE") return [walk.object("database", subname)];
  return objectsIn(walk, node, "object");
}

/** What DROP removes, by the kind of thing; who guards it where that is more than a definition. */
const privilegedDrops = new Set([
  "OBJECT_EXTENSION",
  "OBJECT_FDW",
  "OBJECT_FOREIGN_SERVER",
  "OBJECT_EVENT_TRIGGER",
  "OBJECT_LANGUAGE",
  "OBJECT_POLICY",
  "OBJECT_PUBLICATION",
  "OBJECT_TRANSFORM",
  "OBJECT_ACCESS_METHOD",
]);

/** DROP of anything but roles, databases and tablespaces. */
export function drop(walk: Walk, node: TreeNode): string {
  const type = textOf(node, "removeType");
  const word = `DROP ${objectWord(type)}`;
  const operation = privilegedDrops.has(type) ? "privilege" : "define";
  const isOptional = node.missing_ok === true;
  const objects: ObjectRef[] = [];
  for (const item of listOf(node, "objects")) {
    const names = namesOf(nodeOf(item, "List"), "items");
    if (relationDrops.has(type)) objects.push(...dropRelation(walk, names, type, isOptional));
    else if (type === "OBJECT_TRIGGER" || type === "OBJECT_RULE" || type === "OBJECT_POLICY") {
      objects.push(...namedRelation(walk, rangeVarOf(names.slice(0, -1)), true));
    } else if (type === "OBJECT_SCHEMA") objects.push(...schemaObjects(walk, stringOf(item) ?? ""));
    else if (names.length > 0) objects.push(qualifiedObject(walk, "other", names));
    else objects.push(...objectsIn(walk, { item }, "item"), ...droppedType(walk, item));
  }
  walk.add(operation, word, objects);
  walk.effects.push({ kind: "catalogChanged" });
  return word;
}

function droppedType(walk: Walk, item: TreeNode): readonly ObjectRef[] {
  const type = nodeOf(item, "TypeName");
  return type === undefined ? [] : [qualifiedObject(walk, "type", namesOf(type, "names"))];
}

function dropRelation(
  walk: Walk,
  names: readonly string[],
  type: string,
  isOptional: boolean,
): readonly ObjectRef[] {
  const rangeVar = rangeVarOf(names);
  walk.effects.push({ kind: "dropRelation", ...qualifiedOf(names) });
  if (type !== "OBJECT_INDEX" && !isOptional && findRelation(walk, rangeVar) === undefined) {
    const sqlstate = "42P01";
    const message = `${objectWord(type).toLowerCase()} "${names.join(".")}" does not exist`;
    throw new Rejected({ sqlstate, message }, true);
  }
  return namedRelation(walk, rangeVar, isOptional || type === "OBJECT_INDEX");
}
