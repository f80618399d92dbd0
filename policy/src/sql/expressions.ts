/** Expressions: every function, operator, cast and subquery in them, found whatever they hide in. */
import { columnFunction, functionCall, operatorCall, typeUse } from "./functions.ts";
import { readRelation, relationOf } from "./relations.ts";
import { isNode, listOf, namesOf, stringOf, type TreeNode, textOf } from "./tree.ts";
import type { Scope, Walk } from "./walk.ts";

/** Walks any part of an expression; fields that are not known are walked like all others, never skipped. */
export function walkExpression(walk: Walk, value: unknown, scope: Scope): void {
  if (Array.isArray(value)) {
    for (const item of value) walkExpression(walk, item, scope);
    return;
  }
  if (!isNode(value)) return;
  walk.spend();
  for (const key in value) {
    const inner = value[key];
    if (Array.isArray(inner)) {
      for (const item of inner) walkExpression(walk, item, scope);
    } else if (isNode(inner)) {
      walkNode(walk, key, inner, scope);
    }
  }
}

function walkNode(walk: Walk, key: string, node: TreeNode, scope: Scope): void {
  switch (key) {
    case "A_Const":
    case "ParamRef":
    case "A_Star":
    case "String":
      return;
    case "ColumnRef":
      columnFunctions(walk, node, scope);
      return;
    case "FuncCall":
      functionCall(walk, node, scope);
      walkExpression(walk, node, scope);
      return;
    case "A_Expr":
      for (const names of operatorNames(node)) operatorCall(walk, names, scope.word);
      walkExpression(walk, node, scope);
      return;
    case "SubLink":
      operatorCall(walk, node.operName === undefined ? ["="] : namesOf(node, "operName"), scope.word);
      walkExpression(walk, node, scope);
      return;
    case "SortBy":
      if (node.useOp !== undefined) operatorCall(walk, namesOf(node, "useOp"), scope.word);
      walkExpression(walk, node, scope);
      return;
    case "CaseExpr":
      if (node.arg !== undefined) operatorCall(walk, ["="], scope.word);
      walkExpression(walk, node, scope);
      return;
    case "SelectStmt":
    case "InsertStmt":
    case "UpdateStmt":
    case "DeleteStmt":
    case "MergeStmt":
      walk.walkers.query(walk, key, node, scope);
      return;
    case "typeName":
    case "TypeName":
      typeUse(walk, node, scope.word);
      walkExpression(walk, node, scope);
      return;
    case "A_Indirection":
      for (const item of listOf(node, "indirection")) {
        const name = stringOf(item);
        if (name !== undefined) columnFunction(walk, name, scope.word);
      }
      walkExpression(walk, node, scope);
      return;
    case "RangeVar":
      readRelation(walk, relationOf(walk, node, true), scope.word, node.inh !== true);
      return;
    default:
      walkExpression(walk, node, scope);
  }
}

/** `t.f` calls `f(t)` where t has no column f; only when every t in sight has the column is it surely one. */
function columnFunctions(walk: Walk, node: TreeNode, scope: Scope): void {
  const fields = listOf(node, "fields");
  if (fields.length < 2) return;
  const name = stringOf(fields.at(-1));
  const alias = stringOf(fields.at(-2));
  if (name === undefined || alias === undefined) return;
  let isColumn = false;
  for (let level: Scope | undefined = scope; level !== undefined; level = level.parent) {
    if (!level.aliases.has(alias)) continue;
    const relation = level.aliases.get(alias);
    isColumn = relation?.columns.includes(name) === true && relation.hasUnsureColumns !== true;
    if (!isColumn) break;
  }
  if (!isColumn) columnFunction(walk, name, scope.word);
}

function operatorNames(node: TreeNode): readonly (readonly string[])[] {
  const names = namesOf(node, "name");
  const kind = textOf(node, "kind");
  // BETWEEN is spelled by its word in the tree and runs the comparison operators.
  if (kind.includes("BETWEEN")) return [["<"], [">"], ["<="], [">="]];
  return [names];
}

/** The clause of a node, as a wrapped node, for callers that walk fields one by one. */
export function walkFields(walk: Walk, node: TreeNode, fields: readonly string[], scope: Scope): void {
  for (const field of fields) {
    const value = node[field];
    if (value !== undefined) walkExpression(walk, value, scope);
  }
}
