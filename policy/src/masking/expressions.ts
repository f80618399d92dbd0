/** Expressions: what a value depends on, and which uses of a masked value tell of it without showing it. */
import {
  isNode,
  listOf,
  namesOf,
  nodeOf,
  qualifiedOf,
  stringConstantOf,
  stringOf,
  type TreeNode,
  tagOf,
  textOf,
} from "../sql/tree.ts";
import { collationsIn } from "./collations.ts";
import { columnFlow, entryOf, fieldOf } from "./columns.ts";
import { comparedWith, isDefinition, isPrintedFlow, oneOf, printedBy } from "./definitions.ts";
import { clean, derivedFrom, type Flow, isTainted, mixing, nullTelling, objectId } from "./flow.ts";
import { asOneType, castToType, resultOf } from "./object-ids.ts";
import {
  isSafeBehindOperator,
  isSafeFormat,
  isSafeNumberFormat,
  isSafeOperator,
  maySortMasked,
  textTypes,
} from "./safe-functions.ts";
import { allOf, type Level, type Trace } from "./trace.ts";

/** The flow of any part of an expression: of one node, or of a list of them taken together. */
export function flowOf(trace: Trace, value: unknown, level: Level | undefined): Flow {
  if (Array.isArray(value)) return derivedFrom(value.map((item) => flowOf(trace, item, level)));
  if (!isNode(value)) return clean;
  trace.spend();
  const tag = tagOf(value);
  const node = tag === undefined ? undefined : nodeOf(value, tag);
  if (tag === undefined || node === undefined) return fieldsFlow(trace, value, level);
  return trace.deeper(() => withCollations(trace, value, nodeFlow(trace, tag, node, level)));
}

/** The value of an expression, marked where it may have got a collation from more than one of its parts. */
function withCollations(trace: Trace, value: unknown, flow: Flow): Flow {
  if (!isTainted(flow) || flow.mixesCollations === true) return flow;
  return collationsIn(value, trace.collations) > 1 ? mixing(flow) : flow;
}

/** A condition: what it depends on shows in which rows there are. */
export function condition(trace: Trace, value: unknown, level: Level | undefined, where: string): void {
  if (value !== undefined) trace.infer(flowOf(trace, value, level), where);
}

function nodeFlow(trace: Trace, tag: string, node: TreeNode, level: Level | undefined): Flow {
  switch (tag) {
    case "ParamRef":
      return trace.takesObjectIds ? objectId : clean;
    case "A_Const":
    case "SetToDefault":
    case "SQLValueFunction":
    case "GroupingFunc":
    case "MergeSupportFunc":
    case "CurrentOfExpr":
    case "TypeName":
    case "String":
      return clean;
    case "ColumnRef":
      return columnFlow(trace, level, node);
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
      return coalesced(trace, listOf(node, "args"), level);
    case "RowExpr":
      return derivedFrom([flowOf(trace, node.args, level)]);
    case "MinMaxExpr":
      return alike(trace, listOf(node, "args"), level);
    case "A_ArrayExpr":
      return alike(trace, listOf(node, "elements"), level);
    case "A_Indirection":
      return indirection(trace, node, level);
    case "NullTest": {
      const flow = flowOf(trace, node.arg, level);
      // Whether there is a default is no secret; whether there is a value is one.
      if (isDefinition(flow)) return clean;
      trace.infer(flow, "an expression");
      return derivedFrom([flow]);
    }
    case "SubLink":
      return sublink(trace, node, level);
    case "MultiAssignRef":
      return flowOf(trace, node.source, level);
    case "SelectStmt":
    case "InsertStmt":
    case "UpdateStmt":
    case "DeleteStmt":
    case "MergeStmt": {
      return allOf(trace.query(trace, tag, node, level));
    }
    default: {
      // NOT, AND, IS NULL, IS TRUE, JSON and XML constructors and whatever comes: what is not known may tell.
      const flow = fieldsFlow(trace, node, level);
      trace.infer(flow, "an expression");
      return derivedFrom([madeTypes(trace, node, flow)]);
    }
  }
}

/** Values that the server makes ones of one type. */
function alike(trace: Trace, items: readonly TreeNode[], level: Level | undefined): Flow {
  const flows = items.map((item) => flowOf(trace, item, level));
  asOneType(trace, flows, "a value beside an object id");
  return derivedFrom(flows);
}

/** What becomes of a value that is taken apart into values of all types that the tree names. */
export function madeTypes(trace: Trace, tree: unknown, value: Flow): Flow {
  if (!isTainted(value)) return value;
  if (Array.isArray(tree)) return tree.reduce((flow: Flow, item) => madeTypes(trace, item, flow), value);
  if (!isNode(tree)) return value;
  let flow = value;
  for (const field in tree) {
    flow =
      field === "typeName" ? typeFlow(trace, nodeOf(tree, field), flow) : madeTypes(trace, tree[field], flow);
  }
  return flow;
}

function fieldsFlow(trace: Trace, node: TreeNode, level: Level | undefined): Flow {
  const flows: Flow[] = [];
  for (const field in node) {
    const value = node[field];
    if (typeof value === "object" && value !== null) flows.push(flowOf(trace, value, level));
  }
  const flow = derivedFrom(flows);
  return node.typeName === undefined ? flow : typeFlow(trace, nodeOf(node, "typeName"), flow);
}

function cast(trace: Trace, node: TreeNode, level: Level | undefined): Flow {
  const flow = flowOf(trace, node.arg, level);
  const type = nodeOf(node, "typeName");
  const { schema, name } = qualifiedOf(namesOf(type, "names"));
  const shown = typeFlow(trace, type, flow);
  if (!isTainted(flow)) return isTainted(shown) ? shown : castToType(type);
  // A path may put another type of that name first: a domain with a check, for one.
  const known = trace.names.type(schema, name);
  const isText = textTypes.has(name) && known?.schema === "pg_catalog";
  if (!isText || type?.arrayBounds !== undefined) trace.infer(flow, `a cast to ${name}`);
  // A text that is cut may have half a literal at its end, and that is no longer one.
  else if (isPrintedFlow(flow) && known?.functions.length === 0 && type?.typmods === undefined) return flow;
  return derivedFrom([shown]);
}

/** What a value becomes that is made one of that type: its casts and its domain's checks may be anybody's code. */
function typeFlow(trace: Trace, type: TreeNode | undefined, value: Flow): Flow {
  const { schema, name } = qualifiedOf(namesOf(type, "names"));
  if (name === "") return value;
  return trace.runs(trace.names.type(schema, name)?.functions ?? [], value, `type ${name}`);
}

function call(trace: Trace, node: TreeNode, level: Level | undefined): Flow {
  const { schema, name } = qualifiedOf(namesOf(node, "funcname"));
  const isWithinGroup = node.agg_within_group === true;
  const args = listOf(node, "args");
  const values = args.map((item) => withCollations(trace, args, flowOf(trace, item, level)));
  const printed = isBuiltin(trace, schema, name)
    ? printedBy(name, values, trace.masked.definitions(trace.names))
    : undefined;
  if (printed !== undefined) return printed;
  const flows: Flow[] = [trace.invoke(schema, name, values), resultOf(trace, schema, name)];
  if (name === "lag" || name === "lead") asOneType(trace, values, `function ${name}`);
  const [value, ...more] = values;
  if (value !== undefined && more.length === 0) flows.push(castByCall(trace, { schema, name }, value));
  // An array may have fewer elements than the format asks for.
  if (name === "format" && (node.func_variadic === true || !isSafeFormat(stringConstantOf(args[0])))) {
    trace.infer(derivedFrom(values), "function format");
  }
  if (name === "to_char" && !isSafeNumberFormat(stringConstantOf(args[1]))) {
    trace.infer(derivedFrom(values), "function to_char");
  }
  const keys = listOf(node, "agg_order").map((item) => flowOf(trace, sortKey(item), level));
  const order = keys.length === 1 && keys[0] !== undefined ? keys[0] : derivedFrom(keys);
  if (isWithinGroup) {
    trace.infer(derivedFrom(values), `function ${name}`);
    const isSafe = maySortMasked(name, order);
    flows.push(isSafe ? order : trace.invoke(schema, name, [order]));
    if (!isSafe) trace.infer(order, `function ${name}`);
  } else trace.infer(order, "ORDER BY");
  if (node.agg_distinct === true) trace.infer(derivedFrom(flows), "DISTINCT");
  condition(trace, node.agg_filter, level, "FILTER");
  const over = nodeOf(node, "over");
  if (over !== undefined) window(trace, over, level);
  return derivedFrom(flows);
}

/** Where no function takes the value as it is, a call is a cast to the type of that name: a domain with a check, for one. */
function castByCall(
  trace: Trace,
  { schema, name }: { readonly schema: string | undefined; readonly name: string },
  value: Flow,
): Flow {
  const type = trace.names.type(schema, name);
  // Functions by the names of the server's own types are given no masked value anyway.
  if (type === undefined || type.schema === "pg_catalog") return clean;
  trace.infer(value, `a cast to ${name}`);
  return trace.runs(type.functions, value, `type ${name}`);
}

function isBuiltin(trace: Trace, schema: string | undefined, name: string): boolean {
  return trace.names.functions(schema, name).every((info) => info.schema === "pg_catalog");
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
  const { schema, name } = qualifiedOf(namesOf(node, "name"));
  const behind = trace.names.operatorFunctions(schema, name);
  const isOwn = behind.length > 0;
  const constant = isOwn ? undefined : stringConstantOf(nodeOf(node, "rexpr"));
  const left = comparedWith(flowOf(trace, node.lexpr, level), constant);
  const right = flowOf(trace, node.rexpr, level);
  if (name === "||") asOneType(trace, [left, right], "operator ||");
  const given = derivedFrom([left, right]);
  const flow = trace.runs(behind, given, `operator ${name}`);
  if (!isTainted(flow)) return clean;
  const isSafe =
    textOf(node, "kind") === "AEXPR_OP" &&
    isSafeOperator(name) &&
    behind.every(isSafeBehindOperator) &&
    (schema ?? "pg_catalog") === "pg_catalog";
  if (!isSafe) trace.infer(flow, `operator ${name}`);
  return isSafe && name === "||" ? flow : nullTelling(flow);
}

/** COALESCE computes what comes next only where all before is NULL: whether that happens must not tell of a value. */
function coalesced(trace: Trace, args: readonly TreeNode[], level: Level | undefined): Flow {
  const flows: Flow[] = [];
  for (const item of args) {
    const flow = flowOf(trace, item, level);
    const before = derivedFrom(flows);
    if (before.tellsByNull === true && !isInert(item, flow)) trace.infer(before, "COALESCE");
    flows.push(flow);
  }
  asOneType(trace, flows, "COALESCE");
  return oneOf(flows);
}

/** True for what neither fails nor does anything: constants, and masked columns themselves. */
function isInert(node: TreeNode | undefined, flow: Flow): boolean {
  const tag = tagOf(node);
  return tag === "A_Const" || tag === "ParamRef" || (tag === "ColumnRef" && flow.isExact);
}

function choice(trace: Trace, node: TreeNode, level: Level | undefined): Flow {
  condition(trace, node.arg, level, "CASE");
  const flows = [flowOf(trace, node.defresult, level)];
  for (const item of listOf(node, "args")) {
    const when = nodeOf(item, "CaseWhen");
    condition(trace, when?.expr, level, "CASE");
    flows.push(flowOf(trace, when?.result, level));
  }
  asOneType(trace, flows, "CASE");
  return oneOf(flows);
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
    if (entry !== undefined) return trace.see(fieldOf(trace, entry, field));
  }
  let flow = flowOf(trace, node.arg, level);
  for (const step of steps) {
    const name = stringOf(step);
    if (name === undefined && flow.tellsByNull === true && !hasInertSubscripts(step)) {
      trace.infer(flow, "a subscript");
    }
    // `(value).f` calls f(value) where the value has no such field.
    const isFunction =
      name !== undefined &&
      trace.names.functions(undefined, name).some((info) => info.schema !== "pg_catalog");
    flow = isFunction ? trace.invoke(undefined, name, [flow]) : nullTelling(flow);
  }
  return flow;
}

/** Subscripts are computed only where what they are of is not NULL. */
function hasInertSubscripts(step: TreeNode): boolean {
  const indices = nodeOf(step, "A_Indices");
  return ["lidx", "uidx"].every((field) => {
    const index = nodeOf(indices, field);
    return index === undefined || isInert(index, clean);
  });
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
  const inner = allOf(rows);
  if (kind === "EXPR_SUBLINK" || kind === "ARRAY_SUBLINK" || kind === "MULTIEXPR_SUBLINK") return inner;
  const flow = derivedFrom([inner, flowOf(trace, node.testexpr, level)]);
  trace.infer(flow, "a comparison");
  return flow;
}
