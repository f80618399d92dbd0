/** Which tests of a condition are each other's opposite. */
import { listOf, namesOf, nodeOf, type TreeNode, textOf } from "./tree.ts";

/** The negation of a test, folded into it where it has an opposite. */
export function negation(item: TreeNode): TreeNode {
  const nullTest = nodeOf(item, "NullTest");
  if (nullTest !== undefined) {
    const nulltesttype = textOf(nullTest, "nulltesttype") === "IS_NULL" ? "IS_NOT_NULL" : "IS_NULL";
    return { NullTest: { ...nullTest, nulltesttype } };
  }
  const expression = nodeOf(item, "A_Expr");
  const opposite = complements[namesOf(expression, "name").at(-1) ?? ""];
  if (expression !== undefined && opposite !== undefined && textOf(expression, "kind") === "AEXPR_OP") {
    return { A_Expr: { ...expression, name: [{ String: { sval: opposite } }] } };
  }
  return { BoolExpr: { boolop: "NOT_EXPR", args: [item] } };
}

/** What a test is, and what beside it would leave no row out, as texts that can be looked up. */
export function complementKeys(item: TreeNode): {
  readonly is: readonly string[];
  readonly opposites: readonly string[];
} {
  const not = nodeOf(item, "BoolExpr");
  // Whole conditions are taken apart elsewhere; written out at every level they would cost the square of their depth.
  const part = not === undefined ? item : (listOf(not, "args")[0] ?? {});
  if (nodeOf(part, "BoolExpr") !== undefined || (not !== undefined && not.boolop !== "NOT_EXPR")) {
    return { is: [], opposites: [] };
  }
  const whole = textOfTree(item);
  if (not?.boolop === "NOT_EXPR") {
    return {
      is: [`not ${textOfTree(listOf(not, "args")[0])}`],
      opposites: [`is ${textOfTree(listOf(not, "args")[0])}`],
    };
  }
  const is = [`is ${whole}`];
  const opposites = [`not ${whole}`];
  const nullTest = nodeOf(item, "NullTest");
  if (nullTest !== undefined) {
    const isNull = textOf(nullTest, "nulltesttype") === "IS_NULL";
    is.push(`${isNull ? "null" : "value"} ${textOfTree(nullTest.arg)}`);
    opposites.push(`${isNull ? "value" : "null"} ${textOfTree(nullTest.arg)}`);
  }
  const expression = nodeOf(item, "A_Expr");
  const kind = textOf(expression, "kind");
  if (expression === undefined || !kindsCompared.has(kind)) return { is, opposites };
  const operator = kind === "AEXPR_OP" ? (namesOf(expression, "name").at(-1) ?? "") : kindsCompared.get(kind);
  if (operator === undefined) return { is, opposites };
  const left = textOfTree(expression.lexpr);
  const equation = `${left} ${textOfTree(expression.rexpr)}`;
  is.push(`${operator} ${equation}`);
  const opposite = complements[operator];
  if (opposite !== undefined) opposites.push(`${opposite} ${equation}`);
  // Bounds that open opposite ways may overlap, which takes arithmetic to tell: opposite is enough.
  if (operator === "<" || operator === "<=") is.push(`below ${left}`);
  if (operator === ">" || operator === ">=") is.push(`above ${left}`);
  if (operator === "<" || operator === "<=") opposites.push(`above ${left}`);
  if (operator === ">" || operator === ">=") opposites.push(`below ${left}`);
  return { is, opposites };
}

/** `a <> 1`, as texts of its sides. */
export function differenceOf(item: TreeNode): { readonly left: string; readonly right: string } | undefined {
  const expression = nodeOf(item, "A_Expr");
  const isDifference =
    (textOf(expression, "kind") === "AEXPR_OP" && namesOf(expression, "name").at(-1) === "<>") ||
    textOf(expression, "kind") === "AEXPR_DISTINCT";
  const right = nodeOf(expression, "rexpr");
  if (!isDifference || nodeOf(right, "A_Const") === undefined) return undefined;
  return { left: textOfTree(expression?.lexpr), right: textOfTree(right) };
}

const complements: Readonly<Record<string, string>> = {
  "=": "<>",
  "<>": "=",
  "<": ">=",
  ">=": "<",
  ">": "<=",
  "<=": ">",
};

const kindsCompared: ReadonlyMap<string, string> = new Map([
  ["AEXPR_OP", ""],
  ["AEXPR_DISTINCT", "<>"],
  ["AEXPR_NOT_DISTINCT", "="],
]);

function textOfTree(value: unknown): string {
  return JSON.stringify(value, (key, inner) => (key === "location" ? undefined : inner)) ?? "";
}
