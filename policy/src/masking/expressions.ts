/** Expressions: what a value depends on, and which uses of a masked value tell of it without showing it. */
import { isReadBuiltin } from "../sql/builtin-functions.ts";
import {
  isNode,
  listOf,
  namesOf,
  nodeOf,
  qualifiedOf,
  stringOf,
  type TreeNode,
  tagOf,
  textOf,
} from "../sql/tree.ts";
import { columnFlow, columnOf, entryOf } from "./columns.ts";
import { clean, derivedFrom, type Flow, isTainted } from "./flow.ts";
import { isSafeOperator, mayTakeMasked, textTypes } from "./safe-functions.ts";
import type { Level, Trace } from "./trace.ts";

/** The flow of any part of an expression: of one node, or of a list of them taken together. */
export function flowOf(trace: Trace, value: unknown, level: Level | undefined): Flow {
  if (Array.isArray(value)) return derivedFrom(value.map((item) => flowOf(trace, item, level)));
  if (!isNode(value)) return clean;
  trace.spend();
  const tag = tagOf(value);
  const node = tag === undefined ? undefined : nodeOf(value, tag);
  if (tag === undefined || node === undefined) return fieldsFlow(trace, value, level);
  return trace.deeper(() => nodeFlow(trace, tag, node, level));
}

/** A condition: what it depends on shows in which rows there are. */
export function condition(trace: Trace, value: unknown, level: Level | undefined, where: string): void {
  if (value !== undefined) trace.infer(flowOf(trace, value, level), where);
}

function nodeFlow(trace: Trace, tag: string, node: TreeNode, level: Level | undefined): Flow {
  switch (tag) {
    case "A_Const":
    case "ParamRef":
    case "SetToDefault":
    case "SQLValueFunction":
    case "GroupingFunc":
    case "MergeSupportFunc":
    case "CurrentOfExpr":
    case "TypeName":
    case "String":
      return clean;
    case "ColumnRef":
      return columnFlow(level, node);
    case "ResTarget":
      return flowOf(trace, node.val, level);
    case "NamedArgExpr":
      return flowOf(trace, node.arg, level);
    case "CollateClause":
      return derivedFrom([flowOf(trace, node.arg, level)]);
    case "TypeCast":
      return cast(trace, node, level);
    case "FuncCall":
      return call(trace, node, level);
    case "A_Expr":
      return operator(trace, node, level);
    case "CaseExpr":
      return choice(trace, node, level);
    case "CoalesceExpr":
    case "MinMaxExpr":
    case "RowExpr":
      return derivedFrom([flowOf(trace, node.args, level)]);
    case "A_ArrayExpr":
      return derivedFrom([flowOf(trace, node.elements, level)]);
    case "A_Indirection":
      return indirection(trace, node, level);
    case "SubLink":
      return sublink(trace, node, level);
    case "MultiAssignRef":
      return flowOf(trace, node.source, level);
    case "SelectStmt":
    case "InsertStmt":
    case "UpdateStmt":
    case "DeleteStmt":
    case "MergeStmt": {
      const rows = trace.query(trace, tag, node, level);
      return derivedFrom([...rows.columns.map((column) => column.flow), rows.open ?? clean]);
    }
    default: {
      // NOT, AND, IS NULL, IS TRUE, JSON and XML constructors and whatever comes: what is not known may tell.
      const flow = fieldsFlow(trace, node, level);
      trace.infer(flow, "an expression");
      return derivedFrom([flow]);
    }
  }
}

function fieldsFlow(trace: Trace, node: TreeNode, level: Level | undefined): Flow {
  const flows: Flow[] = [];
  for (const field in node) {
    const value = node[field];
    if (typeof value === "object" && value !== null) flows.push(flowOf(trace, value, level));
  }
  return derivedFrom(flows);
}

function cast(trace: Trace, node: TreeNode, level: Level | undefined): Flow {
  const flow = flowOf(trace, node.arg, level);
  if (!isTainted(flow)) return flow;
  const type = nodeOf(node, "typeName");
  const { schema, name } = qualifiedOf(namesOf(type, "names"));
  const isText = (schema === undefined || schema === "pg_catalog") && textTypes.has(name);
  if (!isText || type?.arrayBounds !== undefined) trace.infer(flow, `a cast to ${name}`);
  return derivedFrom([flow]);
}

function call(trace: Trace, node: TreeNode, level: Level | undefined): Flow {
  const { schema, name } = qualifiedOf(namesOf(node, "funcname"));
  const reach = trace.functionReach(schema, name);
  trace.find("opaque", reach, `function ${schema === undefined ? "" : `${schema}.`}${name}`);
  const isBuiltin = trace.names.functions(schema, name).every((info) => info.schema === "pg_catalog");
  const isWithinGroup = node.agg_within_group === true;
  const flows: Flow[] = [reach];
  // What it does beyond its result may keep the value: a setting, a notification, a table.
  const keeps = !(isBuiltin ? isReadBuiltin(name) : trace.functionOnlyReads(schema, name));
  for (const [index, item] of listOf(node, "args").entries()) {
    const flow = flowOf(trace, item, level);
    if (!isBuiltin || !mayTakeMasked(name, index)) trace.infer(flow, `function ${name}`);
    if (keeps) trace.find("store", flow, `function ${name}`);
    flows.push(flow);
  }
  const order = flowOf(trace, listOf(node, "agg_order").map(sortKey), level);
  if (isWithinGroup) {
    if (!isBuiltin || !mayTakeMasked(name, 0)) trace.infer(order, `function ${name}`);
    if (keeps) trace.find("store", order, `function ${name}`);
    flows.push(order);
  } else trace.infer(order, "ORDER BY");
  if (node.agg_distinct === true) trace.infer(derivedFrom(flows), "DISTINCT");
  condition(trace, node.agg_filter, level, "FILTER");
  const over = nodeOf(node, "over");
  if (over !== undefined) window(trace, over, level);
  return derivedFrom(flows);
}

/** A window: its partitions and order show in what comes out. */
export function window(trace: Trace, node: TreeNode, level: Level | undefined): void {
  condition(trace, node.partitionClause, level, "PARTITION BY");
  trace.infer(flowOf(trace, listOf(node, "orderClause").map(sortKey), level), "ORDER BY");
  condition(trace, node.startOffset, level, "a window frame");
  condition(trace, node.endOffset, level, "a window frame");
}

/** The expression of a SortBy. */
export function sortKey(item: TreeNode): unknown {
  return nodeOf(item, "SortBy")?.node;
}

function operator(trace: Trace, node: TreeNode, level: Level | undefined): Flow {
  const flow = derivedFrom([flowOf(trace, node.lexpr, level), flowOf(trace, node.rexpr, level)]);
  if (!isTainted(flow)) return clean;
  const { schema, name } = qualifiedOf(namesOf(node, "name"));
  const behind = trace.names.operatorFunctions(schema, name);
  const isOwn = behind.length > 0;
  if (behind.some((info) => !trace.onlyReads(info))) trace.find("store", flow, `operator ${name}`);
  const isSafe =
    textOf(node, "kind") === "AEXPR_OP" &&
    isSafeOperator(name) &&
    !isOwn &&
    (schema ?? "pg_catalog") === "pg_catalog";
  if (!isSafe) trace.infer(flow, `operator ${name}`);
  return flow;
}

function choice(trace: Trace, node: TreeNode, level: Level | undefined): Flow {
  condition(trace, node.arg, level, "CASE");
  const flows = [flowOf(trace, node.defresult, level)];
  for (const item of listOf(node, "args")) {
    const when = nodeOf(item, "CaseWhen");
    condition(trace, when?.expr, level, "CASE");
    flows.push(flowOf(trace, when?.result, level));
  }
  return derivedFrom(flows);
}

/** `(row).field` and `array[i]`. */
function indirection(trace: Trace, node: TreeNode, level: Level | undefined): Flow {
  const steps = listOf(node, "indirection");
  for (const step of steps) {
    if (tagOf(step) === "A_Indices") condition(trace, nodeOf(step, "A_Indices"), level, "a subscript");
  }
  const field = stringOf(steps[0]);
  const column = nodeOf(nodeOf(node, "arg"), "ColumnRef");
  const fields = listOf(column, "fields");
  if (steps.length === 1 && field !== undefined && fields.length === 1) {
    const entry = entryOf(level, stringOf(fields[0]) ?? "");
    const known = entry === undefined ? undefined : columnOf(entry, field);
    if (known !== undefined) return known;
  }
  return derivedFrom([flowOf(trace, node.arg, level)]);
}

function sublink(trace: Trace, node: TreeNode, level: Level | undefined): Flow {
  const kind = textOf(node, "subLinkType");
  const wrapped = nodeOf(node, "subselect") ?? {};
  const tag = tagOf(wrapped) ?? "";
  const rows = trace.query(trace, tag, nodeOf(wrapped, tag) ?? {}, level);
  if (kind === "EXISTS_SUBLINK") return clean;
  const [only] = rows.columns;
  // A scalar subquery is its one value; which rows there are is its own conditions' matter.
  if (kind === "EXPR_SUBLINK" && only !== undefined && rows.columns.length === 1 && rows.open === undefined) {
    return only.flow;
  }
  const inner = derivedFrom([...rows.columns.map((column) => column.flow), rows.open ?? clean]);
  if (kind === "EXPR_SUBLINK" || kind === "ARRAY_SUBLINK" || kind === "MULTIEXPR_SUBLINK") return inner;
  const flow = derivedFrom([inner, flowOf(trace, node.testexpr, level)]);
  trace.infer(flow, "a comparison");
  return flow;
}
