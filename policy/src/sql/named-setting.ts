/** set_config fed from pg_settings, as pg_dump writes it to set only what the server knows. */
import { listOf, nodeOf, stringConstantOf, stringsOf, type TreeNode, textOf } from "./tree.ts";
import type { Walk } from "./walk.ts";

/**
 * `SELECT set_config(name, …) FROM pg_settings WHERE name = 'literal'` read as `set_config('literal', …)`: the only row
 * that it can run for has that name. Anything else stays as it is.
 */
export function withNamedSetting(walk: Walk, select: TreeNode): TreeNode {
  const name = onlySetting(walk, select);
  if (name === undefined) return select;
  return { ...select, targetList: listOf(select, "targetList").map((target) => replaced(target, name)) };
}

function onlySetting(walk: Walk, select: TreeNode): TreeNode | undefined {
  const froms = listOf(select, "fromClause");
  const from = nodeOf(froms[0], "RangeVar");
  if (froms.length !== 1 || from === undefined || textOf(from, "relname") !== "pg_settings") return undefined;
  if (select.withClause !== undefined || from.alias !== undefined) return undefined;
  const schema = from.schemaname === undefined ? undefined : textOf(from, "schemaname");
  if (walk.names.relation(schema, "pg_settings")?.schema !== "pg_catalog") return undefined;
  const where = nodeOf(nodeOf(select, "whereClause"), "A_Expr");
  if (where === undefined || textOf(where, "kind") !== "AEXPR_OP") return undefined;
  if (stringsOf(listOf(where, "name")).join(".") !== "=" || !isName(nodeOf(where, "lexpr"))) return undefined;
  // An operator of somebody's own may hold for every row.
  if (walk.names.operatorFunctions(undefined, "=").length > 0) return undefined;
  const right = nodeOf(where, "rexpr");
  return nodeOf(right, "A_Const") !== undefined && stringConstantOf(right) !== undefined ? right : undefined;
}

function replaced(target: TreeNode, name: TreeNode): TreeNode {
  const result = nodeOf(target, "ResTarget");
  const call = nodeOf(nodeOf(result, "val"), "FuncCall");
  const [first, ...rest] = listOf(call, "args");
  if (call === undefined || result === undefined || !isName(first)) return target;
  if (stringsOf(listOf(call, "funcname")).at(-1) !== "set_config") return target;
  return { ResTarget: { ...result, val: { FuncCall: { ...call, args: [name, ...rest] } } } };
}

function isName(value: TreeNode | undefined): boolean {
  const column = nodeOf(value, "ColumnRef");
  return column !== undefined && stringsOf(listOf(column, "fields")).join(".") === "name";
}
