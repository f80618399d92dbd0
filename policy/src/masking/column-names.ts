/**
 * The names that the server gives result columns without AS (FigureColname in its parse_target.c). Any other rule would let a masked column
 * go by the name of one that is not masked.
 */
import { listOf, nodeOf, stringOf, type TreeNode, tagOf, textOf } from "../sql/tree.ts";

/** The name of a result column without AS; undefined where only the server knows it: `(SELECT * FROM t)`. */
export function columnName(value: TreeNode | undefined): string | undefined {
  const { name } = figured(value);
  return name === nothing ? "?column?" : name;
}

/** A name, and whether a cast or a CASE around it keeps it. */
interface Figured {
  readonly name: string | undefined;
  readonly isStrong: boolean;
}

const nothing = "";
const none: Figured = { name: nothing, isStrong: false };

function strong(name: string | undefined): Figured {
  return { name, isStrong: true };
}

function figured(value: TreeNode | undefined): Figured {
  const tag = tagOf(value) ?? "";
  const node = nodeOf(value, tag);
  switch (tag) {
    case "ColumnRef":
      return strongOr(lastName(listOf(node, "fields")), none);
    case "FuncCall":
      return strongOr(lastName(listOf(node, "funcname")), none);
    case "A_Indirection":
      return strongOr(lastName(listOf(node, "indirection")), () => figured(nodeOf(node, "arg")));
    case "CollateClause":
      return figured(nodeOf(node, "arg"));
    case "TypeCast": {
      const inner = figured(nodeOf(node, "arg"));
      if (inner.isStrong) return inner;
      return { name: lastName(listOf(nodeOf(node, "typeName"), "names")) ?? inner.name, isStrong: false };
    }
    case "CaseExpr": {
      const inner = figured(nodeOf(node, "defresult"));
      return inner.isStrong ? inner : { name: "case", isStrong: false };
    }
    case "SubLink":
      return sublink(node);
    default: {
      const name = fixedNames[tag] ?? namesByField(tag, node);
      return name === undefined ? none : strong(name);
    }
  }
}

function strongOr(name: string | undefined, otherwise: Figured | (() => Figured)): Figured {
  if (name !== undefined) return strong(name);
  return typeof otherwise === "function" ? otherwise() : otherwise;
}

function lastName(items: readonly TreeNode[]): string | undefined {
  return items.map(stringOf).findLast((name) => name !== undefined);
}

function sublink(node: TreeNode | undefined): Figured {
  const kind = textOf(node, "subLinkType");
  if (kind === "EXISTS_SUBLINK") return strong("exists");
  if (kind === "ARRAY_SUBLINK") return strong("array");
  if (kind !== "EXPR_SUBLINK") return none;
  let query = nodeOf(nodeOf(node, "subselect"), "SelectStmt");
  // The names of a set operation are those of its first query.
  for (let first = query; first !== undefined; first = nodeOf(first, "larg")) query = first;
  if (query?.valuesLists !== undefined) return strong("column1");
  const target = nodeOf(listOf(query, "targetList")[0], "ResTarget");
  const value = nodeOf(target, "val");
  return strong(textOf(target, "name") || (isStar(value) ? undefined : columnName(value)));
}

function isStar(value: TreeNode | undefined): boolean {
  const steps = [
    ...listOf(nodeOf(value, "ColumnRef"), "fields"),
    ...listOf(nodeOf(value, "A_Indirection"), "indirection"),
  ];
  return tagOf(steps.at(-1)) === "A_Star";
}

const fixedNames: Readonly<Record<string, string>> = {
  CoalesceExpr: "coalesce",
  A_ArrayExpr: "array",
  RowExpr: "row",
  GroupingFunc: "grouping",
  MergeSupportFunc: "merge_action",
  XmlSerialize: "xmlserialize",
  JsonParseExpr: "json",
  JsonScalarExpr: "json_scalar",
  JsonSerializeExpr: "json_serialize",
  JsonObjectConstructor: "json_object",
  JsonArrayConstructor: "json_array",
  JsonArrayQueryConstructor: "json_array",
  JsonObjectAgg: "json_objectagg",
  JsonArrayAgg: "json_arrayagg",
};

/** Names that a field of the node tells. */
function namesByField(tag: string, node: TreeNode | undefined): string | undefined {
  const field = {
    A_Expr: "kind",
    MinMaxExpr: "op",
    SQLValueFunction: "op",
    XmlExpr: "op",
    JsonFuncExpr: "op",
  }[tag];
  const value = field === undefined ? "" : textOf(node, field);
  switch (tag) {
    case "A_Expr":
      return value === "AEXPR_NULLIF" ? "nullif" : undefined;
    case "MinMaxExpr":
      return value === "IS_LEAST" ? "least" : "greatest";
    case "SQLValueFunction":
      // With a precision, it goes by the same name.
      return value
        .replace(/^SVFOP_/, "")
        .replace(/_N$/, "")
        .toLowerCase();
    case "XmlExpr":
      return value === "IS_DOCUMENT" ? undefined : value.replace(/^IS_/, "").toLowerCase();
    case "JsonFuncExpr":
      return value.replace(/_OP$/, "").toLowerCase();
    default:
      return undefined;
  }
}
