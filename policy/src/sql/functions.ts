/** Calls: by name, through an operator, a cast or `t.f`; each judged by the strictest of what the name may mean. */
import { builtinEffect, isReadBuiltin } from "./builtin-functions.ts";
import { isKnownType } from "./builtin-types.ts";
import type { RelationInfo } from "./names.ts";
import { parseStatements } from "./parser.ts";
import { Rejected } from "./rejection.ts";
import { findRelation, functionObject, readRelation, searchPathKnown, writeRelation } from "./relations.ts";
import { setConfigCall } from "./settings.ts";
import {
  listOf,
  namesOf,
  nodeOf,
  qualifiedOf,
  regclassArgument,
  stringConstantOf,
  type TreeNode,
  tagOf,
} from "./tree.ts";
import { type Scope, scopeBelow, type Walk } from "./walk.ts";

/** Judges the call itself; the caller walks the arguments. */
export function functionCall(walk: Walk, node: TreeNode, scope: Scope): void {
  const { schema, name } = qualifiedOf(namesOf(node, "funcname"));
  callByName(walk, { schema, name, node }, scope.word);
}

interface NamedCall {
  readonly schema: string | undefined;
  readonly name: string;
  readonly node: TreeNode | undefined;
}

/** Judges every function that the name may mean; 42883 where it means none. */
export function callByName(walk: Walk, call: NamedCall, word: string): void {
  const { name, node } = call;
  // A pool unlocks what is locked after RESET ALL, in one text: what that resets the path to is not known by then.
  const isSure = call.schema === undefined && walk.names.searchPath === undefined;
  const schema = isSure && walk.names.isBuiltinAlone(name) ? "pg_catalog" : call.schema;
  searchPathKnown(walk, schema);
  const found = walk.names.functions(schema, name);
  for (const info of found) {
    if (info.schema !== "pg_catalog") walk.walkers.functionInfo(walk, info, word);
    // Named, so that a Deny rule finds it.
    if (info.isReviewed === true) walk.add("read", word, [functionObject(info)]);
  }
  const isCast = mayBeCast(node) && castByName(walk, schema, name, word);
  const isBuiltin = schema === "pg_catalog" || found.some((info) => info.schema === "pg_catalog");
  if (isBuiltin && (found.length > 0 || isReadBuiltin(name))) builtinCall(walk, name, node, word);
  else if (found.length === 0 && !isCast) throw unknownFunction(walk, { ...call, schema }, word);
}

/** One plain argument, which may be cast by a call: `inet('::1')`. */
function mayBeCast(node: TreeNode | undefined): boolean {
  const [argument, ...more] = listOf(node, "args");
  return argument !== undefined && more.length === 0 && nodeOf(argument, "NamedArgExpr") === undefined;
}

/**
 * `type(value)` is a cast where no function of that name takes the value as it is. Which of the two it is depends on the
 * value's type: what the cast runs counts in any case. False where there is no such type.
 */
function castByName(walk: Walk, schema: string | undefined, name: string, word: string): boolean {
  const type = walk.names.type(schema, name);
  if (type === undefined) return (schema === undefined || schema === "pg_catalog") && isKnownType(name);
  for (const info of type.functions) walk.walkers.functionInfo(walk, info, word);
  return true;
}

function unknownFunction(walk: Walk, { schema, name, node }: NamedCall, word: string): Rejected {
  const kind = word === "CALL" ? "procedure" : "function";
  const location = node?.location;
  const position = typeof location === "number" && walk.isDirect ? { position: location } : {};
  if (schema !== undefined && !walk.names.schemaExists(schema)) {
    return new Rejected(
      { sqlstate: "3F000", message: `schema "${schema}" does not exist`, ...position },
      true,
    );
  }
  return new Rejected(
    {
      sqlstate: "42883",
      message: `${kind} ${schema === undefined ? "" : `${schema}.`}${name}() does not exist`,
      hint: `No ${kind} of that name is known, whatever its arguments.`,
      ...position,
    },
    true,
  );
}

/** A pg_catalog function: read if reviewed as such, else what the table says, else a privilege. */
function builtinCall(walk: Walk, name: string, node: TreeNode | undefined, word: string): void {
  if (isReadBuiltin(name)) return;
  if (name === "set_config") {
    setConfigCall(walk, node);
    return;
  }
  const effect = builtinEffect(name);
  const object = walk.object("function", `pg_catalog.${name}`);
  const first = listOf(node, "args")[0];
  switch (effect.kind) {
    case "sequence":
      walk.literalsMatter = true;
      sequenceCall(walk, first, object, word);
      return;
    case "query":
      walk.literalsMatter = true;
      queryCall(walk, stringConstantOf(first), object, word);
      return;
    case "relation":
      walk.literalsMatter = true;
      relationCall(walk, stringConstantOf(first), object, word);
      return;
    case "operation":
      walk.add(effect.operation, effect.word ?? word, [object]);
      return;
  }
}

function sequenceCall(
  walk: Walk,
  argument: TreeNode | undefined,
  object: ReturnType<Walk["object"]>,
  word: string,
): void {
  const text = stringConstantOf(argument);
  const named = text === undefined ? undefined : relationByText(walk, text);
  const sequences = named === undefined ? sequencesOfColumn(walk, argument) : [named];
  if (sequences.length === 0) walk.addOpaque(word, [object]);
  for (const sequence of sequences) {
    writeRelation(walk, sequence, { event: "update", word, unbounded: false });
  }
}

/**
 * What `pg_get_serial_sequence('table', 'column')` may give. The server keeps the sequence of a column in the schema of its
 * table; which one of them it is, the catalog at hand does not tell, so that all of them count.
 */
function sequencesOfColumn(walk: Walk, argument: TreeNode | undefined): readonly RelationInfo[] {
  const call = nodeOf(regclassArgument(argument) ?? argument, "FuncCall");
  const { schema, name } = qualifiedOf(namesOf(call, "funcname"));
  if (name !== "pg_get_serial_sequence") return [];
  if (walk.names.functions(schema, name).some((info) => info.schema !== "pg_catalog")) return [];
  const text = stringConstantOf(listOf(call, "args")[0]);
  const table = text === undefined ? undefined : relationByText(walk, text);
  // A table that was moved in this transaction reads as what it was, and so do its sequences.
  if (table === undefined || table.reads.length > 0) return [];
  return (walk.names.relationsIn?.(table.schema) ?? []).flatMap((each) => {
    const found = walk.names.relation(table.schema, each);
    return found?.kind === "sequence" ? [found] : [];
  });
}

function relationCall(
  walk: Walk,
  text: string | undefined,
  object: ReturnType<Walk["object"]>,
  word: string,
): void {
  const relation = text === undefined ? undefined : relationByText(walk, text);
  if (relation === undefined) walk.addOpaque(word, [object]);
  else readRelation(walk, relation, word);
}

/** query_to_xml and its kin run the text that they are given. */
function queryCall(
  walk: Walk,
  text: string | undefined,
  object: ReturnType<Walk["object"]>,
  word: string,
): void {
  if (text === undefined) {
    walk.addOpaque(word, [object]);
    return;
  }
  for (const statement of parseStatements(text)) {
    const tag = tagOf(statement.node) ?? "";
    const inner = nodeOf(statement.node, tag);
    if (inner === undefined || !queryTags.has(tag)) walk.addOpaque(word, [object]);
    else walk.walkers.query(walk, tag, inner, scopeBelow(undefined, word));
  }
}

const queryTags = new Set(["SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"]);

/** Reads `a.b` or `"A".b` as regclass does, through the parser; undefined where it is no relation. */
function relationByText(walk: Walk, text: string): ReturnType<typeof findRelation> {
  if (!/^[\w$."]{1,200}$/.test(text)) return undefined;
  const [statement] = parseStatements(`TABLE ${text}`);
  const from = listOf(nodeOf(statement?.node, "SelectStmt"), "fromClause")[0];
  const rangeVar = nodeOf(from, "RangeVar");
  return rangeVar === undefined ? undefined : findRelation(walk, rangeVar);
}

/** Judges functions behind an operator that is not one of pg_catalog's own. */
export function operatorCall(walk: Walk, names: readonly string[], word: string): void {
  const { schema, name } = qualifiedOf(names);
  if (schema === "pg_catalog") return;
  searchPathKnown(walk, schema);
  for (const info of walk.names.operatorFunctions(schema, name)) walk.walkers.functionInfo(walk, info, word);
}

/** Judges what a cast to the type runs; 42704 for a type that does not exist. */
export function typeUse(walk: Walk, node: TreeNode, word: string): void {
  const names = namesOf(node, "names");
  if (names.length === 0 || node.pct_type === true) return;
  const { schema, name } = qualifiedOf(names);
  // The grammar's own words (`::int`) are types of pg_catalog; casts to these may be anybody's.
  const isBuiltin = schema === "pg_catalog";
  if (!isBuiltin) searchPathKnown(walk, schema);
  const found = walk.names.type(schema, name);
  if (found === undefined) {
    if (isBuiltin) return;
    if (schema === undefined && isKnownType(name)) return;
    if (walk.names.relation(schema, name) !== undefined) return;
    const location = node.location;
    throw new Rejected(
      {
        sqlstate: "42704",
        message: `type "${schema === undefined ? name : `${schema}.${name}`}" does not exist`,
        ...(typeof location === "number" && walk.isDirect ? { position: location } : {}),
      },
      true,
    );
  }
  for (const info of found.functions) walk.walkers.functionInfo(walk, info, word);
}

/** `x.f` as a call: only functions outside pg_catalog can do harm that way, as none of its own takes any row. */
export function columnFunction(walk: Walk, name: string, word: string): void {
  if (walk.names.searchPath === undefined) {
    searchPathKnown(walk, undefined);
    return;
  }
  for (const info of walk.names.functions(undefined, name)) {
    if (info.schema !== "pg_catalog") walk.walkers.functionInfo(walk, info, word);
  }
}
