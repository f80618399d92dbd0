/** What a definition binds: code that runs later with rows or at a call, and relations that it leans on. */

import type { CommandPart, ObjectRef } from "../model.ts";
import { isReadBuiltin } from "./builtin-functions.ts";
import { schemaObjects } from "./defined-objects.ts";
import { Rejected } from "./rejection.ts";
import { findRelation } from "./relations.ts";
import { eachNode, isNode, namesOf, nodeOf, qualifiedOf, stringOf, type TreeNode, textOf } from "./tree.ts";
import { scopeBelow, Walk } from "./walk.ts";

/** LIKE, INHERITS and PARTITION OF bring the defaults, checks and triggers of another table along. */
export function inheritsCode(walk: Walk, value: unknown): boolean {
  let has = false;
  eachRangeVar(value, (rangeVar) => {
    const found = findRelation(walk, rangeVar);
    has ||= found !== undefined && found.functions.length + found.triggers.length > 0;
  });
  return has;
}

function eachRangeVar(value: unknown, visit: (rangeVar: TreeNode) => void): void {
  if (Array.isArray(value)) for (const item of value) eachRangeVar(item, visit);
  if (!isNode(value)) return;
  if (typeof value.relname === "string" && value.relpersistence !== undefined) visit(value);
  for (const key in value) eachRangeVar(value[key], visit);
}

/**
 * Defaults, checks, policies, triggers, operators, casts run later, in somebody else's statement: what they would touch
 * is an object of the definition, as with a view. True where they do more than call reviewed functions.
 */
export function bindsCode(walk: Walk, word: string, value: unknown): boolean {
  const { parts } = defineWhatIsRead(walk, word, (inner) => {
    inner.within({ isBody: true }, () => {
      eachNode(value, (tag, node) => bindNode(inner, word, tag, node));
      for (const names of functionNames(value)) bindFunction(inner, word, names);
      if (word === "CREATE OPERATOR" || word === "CREATE AGGREGATE") {
        for (const name of builtinsBound(value)) bindBuiltin(inner, word, name);
      }
    });
  });
  return parts.some((part) => part.operation !== "read" || part.objects.length > 0);
}

/** True once the node has been walked whole. */
function bindNode(inner: Walk, word: string, tag: string, node: TreeNode): boolean {
  const isStatement = queryTags.has(tag);
  if (!isStatement && !expressionTags.has(tag)) return false;
  try {
    if (tag === "ColumnDef") {
      if (isSerial(word, node)) return false;
      inner.walkers.expression(inner, { typeName: node.typeName }, scopeBelow(undefined, word));
      return false;
    }
    if (isStatement) inner.walkers.query(inner, tag, node, undefined);
    else inner.walkers.expression(inner, { [tag]: node }, scopeBelow(undefined, word));
  } catch (error) {
    if (!(error instanceof Rejected && error.isName)) throw error;
    inner.addOpaque(word, []);
  }
  return true;
}

/**
 * An integer with a sequence of its own, which is a word for the server and no type: whoever makes a type of that name is
 * not asked. A column that is altered, and one of a composite type, has a type.
 */
export function isSerial(word: string, node: TreeNode): boolean {
  const [name = "", ...rest] = namesOf(nodeOf(node, "typeName"), "names");
  const isMade = /^(CREATE|ALTER) (FOREIGN )?TABLE$/.test(word);
  return isMade && textOf(node, "colname") !== "" && rest.length === 0 && serials.has(name);
}

const serials = new Set("smallserial serial2 serial serial4 bigserial serial8".split(" "));

const queryTags = new Set(["SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"]);

/** `t.f` and `(t).f` may be f(t). */
const runningTags = new Set([
  "FuncCall",
  "A_Expr",
  "SubLink",
  "TypeCast",
  "CaseExpr",
  "ColumnRef",
  "A_Indirection",
]);

const expressionTags = new Set(["ColumnDef", ...runningTags]);

/** The function of a trigger, and those that `FUNCTION = name` gives an operator, an aggregate or a type. */
function functionNames(value: unknown): readonly (readonly string[])[] {
  const found = isNode(value) && Array.isArray(value.funcname) ? [namesOf(value, "funcname")] : [];
  collectArguments(value, found);
  eachNode(value, (tag, node) => {
    const names = tag === "DefElem" ? namesOf(nodeOf(nodeOf(node, "arg"), "TypeName"), "names") : [];
    if (names.length > 0) found.push(names);
    // `FUNCTION = 'name'` is as good as the name.
    const name = tag === "DefElem" && isFunctionOption(node) ? stringOf(nodeOf(node, "arg")) : undefined;
    if (name !== undefined) found.push([name]);
    return false;
  });
  return found;
}

/** The functions that an operator, an aggregate or a type is given by options. */
export function supportFunctions(value: unknown): readonly (readonly string[])[] {
  const found: (readonly string[])[] = [];
  eachNode(value, (tag, node) => {
    if (tag !== "DefElem" || !isFunctionOption(node)) return false;
    const argument = nodeOf(node, "arg");
    const name = stringOf(argument);
    const names = name === undefined ? namesOf(nodeOf(argument, "TypeName"), "names") : [name];
    if (names.length > 0) found.push(names);
    return false;
  });
  return found;
}

/** Functions of pg_catalog that an operator or an aggregate gets: no name of theirs stands where they are called. */
function builtinsBound(value: unknown): readonly string[] {
  return supportFunctions(value).map((names) => names.at(-1) ?? "");
}

const functionFields = new Set(
  `function procedure sfunc sfunc1 finalfunc combinefunc serialfunc deserialfunc msfunc minvfunc mfinalfunc
  canonical subtype_diff input output receive send typmod_in typmod_out analyze subscript`.split(/\s+/),
);

function isFunctionOption(option: TreeNode): boolean {
  return functionFields.has(textOf(option, "defname").toLowerCase());
}

/** Functions that are named with their arguments: of a cast, of an operator class. */
function collectArguments(value: unknown, found: (readonly string[])[]): void {
  if (Array.isArray(value)) for (const item of value) collectArguments(item, found);
  if (!isNode(value)) return;
  if (Array.isArray(value.objname)) found.push(namesOf(value, "objname"));
  for (const key in value) collectArguments(value[key], found);
}

function bindFunction(inner: Walk, word: string, names: readonly string[]): void {
  if (names.length === 0) return;
  const { schema, name } = qualifiedOf(names);
  if (schema === undefined && inner.names.searchPath === undefined) return;
  for (const info of inner.names.functions(schema, name)) {
    if (info.schema !== "pg_catalog") inner.walkers.functionInfo(inner, info, word);
  }
}

function bindBuiltin(inner: Walk, word: string, name: string): void {
  if (isReadBuiltin(name) || inner.names.functions("pg_catalog", name).length === 0) return;
  inner.addOpaque(word, [{ name: `pg_catalog.${name}`, kind: "function", direct: false }]);
}

/** Relations that a statement mentions, and those of schemas that a publication takes whole. */
export function mentionedRelations(walk: Walk, value: unknown): readonly ObjectRef[] {
  const objects: ObjectRef[] = [];
  collectMentioned(walk, value, objects);
  eachNode(value, (tag, node) => {
    const isSchema =
      tag === "PublicationObjSpec" && textOf(node, "pubobjtype") === "PUBLICATIONOBJ_TABLES_IN_SCHEMA";
    if (isSchema) objects.push(...schemaObjects(walk, textOf(node, "name")));
    return false;
  });
  return objects;
}

/** Relations and functions that a definition mentions, as objects of its own part: it binds them, but runs nothing. */
export function leanOn(walk: Walk, value: unknown, word: string): void {
  const objects: ObjectRef[] = [];
  collectMentioned(walk, value, objects);
  if (objects.length > 0) walk.add("define", word, objects);
}

function collectMentioned(walk: Walk, value: unknown, objects: ObjectRef[]): void {
  if (Array.isArray(value)) {
    for (const item of value) collectMentioned(walk, item, objects);
    return;
  }
  if (!isNode(value)) return;
  walk.spend();
  if (typeof value.relname === "string" && value.relpersistence !== undefined) {
    // A missing name may be a WITH name, or one that the statement itself makes: the server decides.
    const found = findRelation(walk, value);
    if (found !== undefined) objects.push(walk.relationObject(found));
  }
  for (const key in value) collectMentioned(walk, value[key], objects);
}

/** Walks something that will run later, and turns all that it would touch into objects of a define part. */
export function defineWhatIsRead<Result>(
  walk: Walk,
  word: string,
  inside: (inner: Walk) => Result,
): { readonly result: Result; readonly reads: readonly ObjectRef[]; readonly parts: readonly CommandPart[] } {
  const inner = new Walk(walk.names, walk.walkers, 100_000, walk.behind);
  inner.frame = { ...walk.frame, isPlanOnly: false };
  const result = inside(inner);
  const parts = inner.parts.build();
  for (const part of parts) {
    if (part.operation === "privilege") walk.add("privilege", word, part.objects);
    walk.add("define", word, part.objects);
  }
  const reads = parts.flatMap((part) => part.objects);
  return { result, reads: reads.map((object) => ({ ...object, direct: false })), parts };
}

/** Expressions of a definition that the server evaluates at once; plain columns and types run nothing. */
export function walkRunning(walk: Walk, value: unknown, scope: ReturnType<typeof scopeBelow>): void {
  eachNode(value, (tag, inner) => {
    // A domain's check runs on the new column's default.
    if (tag === "ColumnDef" && !isSerial(scope.word, inner))
      walk.walkers.expression(walk, { typeName: inner.typeName }, scope);
    if (!runningTags.has(tag)) return false;
    walk.walkers.expression(walk, { [tag]: inner }, scope);
    return true;
  });
}
