/** What a literal in a parse tree is, with or without a cast. */
import { listOf, namesOf, nodeOf, sameTree, type TreeNode, textOf } from "./tree.ts";

/** A literal text, with or without a cast. */
export function textConstant(value: TreeNode | undefined): string | undefined {
  const inner = nodeOf(nodeOf(value, "TypeCast"), "arg") ?? value;
  const text = nodeOf(nodeOf(inner, "A_Const"), "sval");
  return text === undefined ? undefined : textOf(text, "sval");
}

/** A literal true or false, with or without a cast. */
export function booleanConstant(node: TreeNode | undefined): boolean | undefined {
  const inner = nodeOf(nodeOf(node, "TypeCast"), "arg");
  const constant = nodeOf(inner ?? node, "A_Const");
  const boolean = nodeOf(constant, "boolval");
  if (boolean !== undefined) return boolean.boolval === true;
  const type = namesOf(nodeOf(nodeOf(node, "TypeCast"), "typeName"), "names").at(-1);
  const text = nodeOf(constant, "sval");
  if (text === undefined || type !== "bool") return undefined;
  return /^\s*(t|y|on|1)/i.test(textOf(text, "sval"));
}

/** `'{}'`, `ARRAY[]::int[]`. */
export function isEmptyArray(node: TreeNode | undefined): boolean {
  const inner = nodeOf(nodeOf(node, "TypeCast"), "arg");
  if (inner !== undefined) return isEmptyArray(inner);
  const text = nodeOf(nodeOf(node, "A_Const"), "sval");
  if (text !== undefined) return /^\s*\{\s*\}\s*$/.test(textOf(text, "sval"));
  return (
    nodeOf(node, "A_ArrayExpr") !== undefined && listOf(nodeOf(node, "A_ArrayExpr"), "elements").length === 0
  );
}

/** NULL, with or without casts. */
export function isNullConstant(node: TreeNode | undefined): boolean {
  const inner = nodeOf(nodeOf(node, "TypeCast"), "arg");
  if (inner !== undefined) return isNullConstant(inner);
  return nodeOf(node, "A_Const")?.isnull === true;
}

/** A literal number without a cast. */
export function numberConstant(node: TreeNode | undefined): number | undefined {
  const constant = nodeOf(node, "A_Const");
  const integer = nodeOf(constant, "ival");
  if (integer !== undefined) return Number(integer.ival ?? 0);
  const decimal = nodeOf(constant, "fval");
  return decimal === undefined ? undefined : Number(textOf(decimal, "fval"));
}

/** True of literals without a cast. */
export const areLiterals = (values: readonly (TreeNode | undefined)[]) =>
  values.every((value) => nodeOf(value, "A_Const") !== undefined);

/** True of expressions that are all written the same. */
export const areAlike = (values: readonly (TreeNode | undefined)[]) =>
  values.every((value) => sameTree(value, values[0]));
