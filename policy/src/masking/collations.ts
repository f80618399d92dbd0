/**
 * Which values may have an undecided collation. The server finds that out where such a value is compared or changed to another case,
 * and fails there: not for NULL, so that the failure tells whether a masked value has become NULL (`substring(ssn from '^1')`).
 */
import { isNode, namesOf, nodeOf, type TreeNode, tagOf } from "../sql/tree.ts";
import { textTypes } from "./safe-functions.ts";

/** How many values of an expression may bring a collation of their own; constants have none. */
export function collationsIn(value: unknown, known: WeakMap<object, number>): number {
  if (Array.isArray(value))
    return value.reduce((count: number, item) => count + collationsIn(item, known), 0);
  if (!isNode(value)) return 0;
  const before = known.get(value);
  if (before !== undefined) return before;
  const count = counted(value, known);
  known.set(value, count);
  return count;
}

function counted(wrapped: TreeNode, known: WeakMap<object, number>): number {
  const tag = tagOf(wrapped) ?? "";
  const node = nodeOf(wrapped, tag);
  if (node === undefined) return fieldsIn(wrapped, known);
  switch (tag) {
    case "ColumnRef":
    case "ParamRef":
    case "SQLValueFunction":
    case "SubLink":
      return 1;
    // Conditions give the value nothing.
    case "CaseExpr":
      return collationsIn(node.args, known) + collationsIn(node.defresult, known);
    case "CaseWhen":
      return collationsIn(node.result, known);
    case "CollateClause":
      return 1 + collationsIn(node.arg, known);
    case "TypeCast":
      return collationsIn(node.arg, known) + (isPlainText(nodeOf(node, "typeName")) ? 0 : 1);
    case "FuncCall":
      return Math.max(1, fieldsIn(node, known));
    default:
      return fieldsIn(node, known);
  }
}

function fieldsIn(node: TreeNode, known: WeakMap<object, number>): number {
  let count = 0;
  for (const field in node) count += collationsIn(node[field], known);
  return count;
}

/** A cast keeps the collation of what it is given, but to a domain with one; `name` has one always. */
function isPlainText(type: TreeNode | undefined): boolean {
  const name = namesOf(type, "names").at(-1) ?? "";
  return name !== "name" && textTypes.has(name);
}
