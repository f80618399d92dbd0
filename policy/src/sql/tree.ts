/** The parse tree as libpg-query gives it: plain JSON, read through a few total accessors that never throw. */

/** Any JSON object of the tree. */
export interface TreeNode {
  readonly [field: string]: unknown;
}

/** True for an object that is not a list. */
export function isNode(value: unknown): value is TreeNode {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The field as a node, or undefined. */
export function nodeOf(node: TreeNode | undefined, field: string): TreeNode | undefined {
  const value = node?.[field];
  return isNode(value) ? value : undefined;
}

/** The field as a list of nodes; empty where it is absent. */
export function listOf(node: TreeNode | undefined, field: string): readonly TreeNode[] {
  const value = node?.[field];
  return Array.isArray(value) ? (value as readonly TreeNode[]) : [];
}

/** The field as text; empty where it is absent (the tree leaves out empty strings). */
export function textOf(node: TreeNode | undefined, field: string): string {
  const value = node?.[field];
  return typeof value === "string" ? value : "";
}

/** The tag of a wrapped node: `{"SelectStmt": {…}}` gives `SelectStmt`; undefined for a bare one. */
export function tagOf(node: TreeNode | undefined): string | undefined {
  for (const key in node) {
    const first = key.charCodeAt(0);
    return first >= 65 && first <= 90 ? key : undefined;
  }
  return undefined;
}

/** The text of a `String` node, or undefined. */
export function stringOf(node: TreeNode | undefined): string | undefined {
  const inner = nodeOf(node, "String");
  return inner === undefined ? undefined : textOf(inner, "sval");
}

/** The texts of a list of `String` nodes: a qualified name. */
export function namesOf(node: TreeNode | undefined, field: string): readonly string[] {
  return stringsOf(listOf(node, field));
}

/** The texts of the `String` nodes in a list. */
export function stringsOf(nodes: readonly TreeNode[]): readonly string[] {
  const names: string[] = [];
  for (const node of nodes) {
    const name = stringOf(node);
    if (name !== undefined) names.push(name);
  }
  return names;
}

/** Schema and name of a qualified name; a database part before them is dropped, as the server insists on its own. */
export function qualifiedOf(parts: readonly string[]): { readonly schema?: string; readonly name: string } {
  const name = parts.at(-1) ?? "";
  const schema = parts.at(-2);
  return schema === undefined ? { name } : { schema, name };
}

/** The value of a string constant (through casts that keep it as it is), or undefined. */
export function stringConstantOf(node: TreeNode | undefined): string | undefined {
  // What it names is looked up last of all: as a text again it would be spelled in another way.
  return textConstantOf(regclassArgument(node) ?? node);
}

/** What is made a name of a relation by `::regclass`; undefined where nothing is. */
export function regclassArgument(node: TreeNode | undefined): TreeNode | undefined {
  const cast = nodeOf(node, "TypeCast");
  return cast !== undefined && typeKept(cast) === "regclass" ? nodeOf(cast, "arg") : undefined;
}

function textConstantOf(node: TreeNode | undefined): string | undefined {
  const cast = nodeOf(node, "TypeCast");
  if (cast !== undefined) {
    return textTypesKept.has(typeKept(cast) ?? "") ? textConstantOf(nodeOf(cast, "arg")) : undefined;
  }
  const value = nodeOf(nodeOf(node, "A_Const"), "sval");
  return value === undefined ? undefined : textOf(value, "sval");
}

/** Other types, and lengths (`'secrets_public'::varchar(7)`), make another text of it. */
const textTypesKept: ReadonlySet<string> = new Set(["text", "varchar"]);

function typeKept(cast: TreeNode): string | undefined {
  const type = nodeOf(cast, "typeName");
  const names = namesOf(type, "names");
  const isPlain = type?.typmods === undefined && type?.arrayBounds === undefined;
  const isBuiltin = names.length === 1 || (names.length === 2 && names[0] === "pg_catalog");
  return isPlain && isBuiltin ? names.at(-1) : undefined;
}

/** Calls `visit` for each wrapped node below `value` that `visit` does not claim by returning true. */
export function eachNode(value: unknown, visit: (tag: string, node: TreeNode) => boolean): void {
  if (Array.isArray(value)) {
    for (const item of value) eachNode(item, visit);
    return;
  }
  if (!isNode(value)) return;
  for (const key in value) {
    const inner = value[key];
    if (typeof inner !== "object" || inner === null) continue;
    const first = key.charCodeAt(0);
    if (first >= 65 && first <= 90 && isNode(inner) && visit(key, inner)) continue;
    eachNode(inner, visit);
  }
}

/** True where both trees mean the same text: equal but for positions. */
export function sameTree(left: unknown, right: unknown): boolean {
  if (Array.isArray(left)) {
    return (
      Array.isArray(right) &&
      left.length === right.length &&
      left.every((item, index) => sameTree(item, right[index]))
    );
  }
  if (!isNode(left) || !isNode(right)) return left === right;
  for (const key of new Set([...Object.keys(left), ...Object.keys(right)])) {
    if (key === "location" || key.endsWith("_location") || key.endsWith("_start") || key.endsWith("_end")) {
      continue;
    }
    if (!sameTree(left[key], right[key])) return false;
  }
  return true;
}
