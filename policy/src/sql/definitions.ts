/** Definitions that name one object and bind little, and GRANT. */
import type { ObjectRef, Operation } from "../model.ts";
import { bindsCode, leanOn, supportFunctions, walkRunning } from "./bound-code.ts";
import {
  type Handler,
  namedRelation,
  objectsIn,
  objectWord,
  qualifiedObject,
  schemaObjects,
} from "./defined-objects.ts";
import { leadsElsewhere } from "./foreign-tables.ts";
import { codeMoved, movedAside } from "./moved-and-dropped.ts";
import { isNode, listOf, namesOf, nodeOf, qualifiedOf, stringOf, type TreeNode, textOf } from "./tree.ts";
import { scopeBelow, type Walk } from "./walk.ts";

/** A definition that names its object in `field`, as a RangeVar or a list of names. */
export function simpleDefinition(
  word: string,
  field: string,
  second?: string,
  operation: Operation = "define",
): Handler {
  return (walk, node) => {
    const objects = [
      ...objectsIn(walk, node, field),
      ...(second === undefined ? [] : objectsIn(walk, node, second)),
    ];
    const full = word.startsWith("ALTER") && word.split(" ").length === 1 ? alterWord(node) : word;
    walk.add(operation, full, objects);
    const isMoved = word === "ALTER" && node.newschema !== undefined;
    if (isMoved && leadsElsewhere(walk.names, "AlterObjectSchemaStmt", node))
      walk.add("privilege", full, objects);
    if (objects.length === 0) leanOn(walk, node, full);
    else leanOn(walk, { ...node, [field]: undefined }, full);
    if (word === "CREATE INDEX") walkRunning(walk, node, scopeBelow(undefined, word));
    const isRead = word.startsWith("CREATE") || relationCode.has(word);
    const hasCode = isRead && (bindsCode(walk, full, node) || relationCode.has(word));
    const isCode = isMoved && node.relation === undefined;
    const code = isCode ? ("everything" as const) : hasCode ? ("relations" as const) : undefined;
    if (isMoved) {
      const to = { schema: textOf(node, "newschema") };
      movedAside(walk, nodeOf(node, "relation"), to);
      const made = codeMoved(walk, node, textOf(node, "objectType"), to);
      if (made !== undefined) walk.effects.push(made);
    }
    walk.effects.push({
      kind: "catalogChanged",
      ...(code === undefined ? {} : { code }),
      ...(isMoved && { moves: true }),
    });
    return full;
  };
}

/** Definitions after which a relation does what nobody reads in its name. */
const relationCode = new Set(["CREATE TRIGGER", "CREATE RULE", "CREATE POLICY", "ALTER POLICY"]);

function alterWord(node: TreeNode): string {
  return `ALTER ${objectWord(textOf(node, "objectType"))}`;
}

/** A definition of something that is no relation, named by a list of strings, a bare node or a RangeVar. */
export function namedObject(word: string, kind: ObjectRef["kind"], field: string): Handler {
  return (walk, node) => {
    const value = node[field];
    let objects: readonly ObjectRef[] = [];
    if (Array.isArray(value)) objects = [qualifiedObject(walk, kind, namesOf(node, field))];
    else if (isNode(value) && typeof value.relname === "string") objects = namedRelation(walk, value, true);
    else if (isNode(value)) objects = [qualifiedObject(walk, kind, namesOf(value, "objname"))];
    walk.add("define", word, objects);
    if (word.startsWith("CREATE") && kind === "type") {
      walk.effects.push({ kind: "createType", ...qualifiedOf(namesOf(node, field)) });
    }
    const hasCode = bindsCode(walk, word, node);
    walk.effects.push({ kind: "catalogChanged", ...(hasCode ? { code: "everything" as const } : {}) });
    return word;
  };
}

/** An aggregate is what its support functions are: a body that calls them, as the catalog will tell it. */
export function createAggregate(walk: Walk, node: TreeNode, text: string): string {
  const tag = namedObject("CREATE AGGREGATE", "other", "defnames")(walk, node, text);
  const called = supportFunctions(node.definition).map((names) => `${names.map(quoted).join(".")}()`);
  const body = `SELECT ${called.join(", ")}`;
  const made = qualifiedOf(namesOf(node, "defnames"));
  walk.effects.push({ kind: "createFunction", ...made, language: "sql", body, securityDefiner: false });
  return tag;
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A range type brings its multirange type, named by an option or as PostgreSQL derives it. */
export function createRange(walk: Walk, node: TreeNode, text: string): string {
  const { name, ...schema } = qualifiedOf(namesOf(node, "typeName"));
  const derived = name.includes("range") ? name.replace("range", "multirange") : `${name}_multirange`;
  let multirange: { readonly schema?: string; readonly name: string } = { ...schema, name: derived };
  for (const item of listOf(node, "params")) {
    const option = nodeOf(item, "DefElem") ?? {};
    if (textOf(option, "defname") !== "multirange_type_name") continue;
    multirange = qualifiedOf(namesOf(nodeOf(nodeOf(option, "arg"), "TypeName") ?? {}, "names"));
  }
  walk.effects.push({ kind: "createType", ...multirange });
  const tag = namedObject("CREATE TYPE", "type", "typeName")(walk, node, text);
  // Both bring functions of their own names, which are the server's own code.
  const made = { kind: "createFunction", language: "internal", securityDefiner: false } as const;
  walk.effects.push(
    { ...made, ...schema, name, body: "range_constructor3" },
    { ...made, ...multirange, body: "multirange_constructor2" },
  );
  return tag;
}

/** GRANT and REVOKE on things, relations resolved. */
export function privilegeGrant(walk: Walk, node: TreeNode): string {
  const word = node.is_grant === true ? "GRANT" : "REVOKE";
  const isWholeSchema = textOf(node, "targtype") === "ACL_TARGET_ALL_IN_SCHEMA";
  const objects = listOf(node, "objects").flatMap((item) => {
    if (isWholeSchema) return schemaObjects(walk, stringOf(item) ?? "");
    const rangeVar = nodeOf(item, "RangeVar");
    if (rangeVar !== undefined) return namedRelation(walk, rangeVar, false);
    return objectsIn(walk, { item }, "item");
  });
  walk.add("privilege", word, objects);
  return word;
}
