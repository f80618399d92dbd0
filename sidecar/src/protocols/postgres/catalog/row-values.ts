/** The values in a row of `catalogQuery`, checked: the catalog is the server's, and a reading that is not understood fails. */
import type { DefinitionKind, RelationKind } from "@sallyport/policy";

/** The empty list that all share which have none of a thing. */
export const none: readonly never[] = Object.freeze([]);

/** The list, or the shared empty one: most relations have none of most things. */
export function orNone<Value>(list: readonly Value[]): readonly Value[] {
  return list.length === 0 ? none : list;
}

type Referred = "relation" | "function" | "operator";
/** A function as another row names it: its own row, or the name of one that the server brings. */
export type NamedFunction = readonly [oid: number, schema: string, name: string];

/** That something refers to another object, by its oid. */
export interface Use {
  readonly what: Referred;
  readonly oid: number;
}

const relationKinds: Readonly<Record<string, RelationKind>> = {
  r: "table",
  p: "partitionedTable",
  v: "view",
  m: "materializedView",
  f: "foreignTable",
  S: "sequence",
  i: "index",
  I: "index",
  c: "compositeType",
};

/** A letter of pg_class.relkind as a kind of relation. */
export function relationKindOf(value: unknown): RelationKind {
  const kind = relationKinds[textOf(value)];
  if (kind === undefined) throw new TypeError("not a kind of relation");
  return kind;
}

const definitionKinds: ReadonlySet<string> = new Set<DefinitionKind>([
  "missing",
  "default",
  "bound",
  "check",
  "index",
]);

/** The word for a definition that keeps literals of a column. */
export function definitionKindOf(value: unknown): DefinitionKind {
  if (!isDefinitionKind(value)) throw new TypeError("not a kind of definition");
  return value;
}

function isDefinitionKind(value: unknown): value is DefinitionKind {
  return typeof value === "string" && definitionKinds.has(value);
}

/** A text; throws for anything else. */
export function textOf(value: unknown): string {
  if (typeof value !== "string") throw new TypeError("not a text of the catalog");
  return value;
}

/** A number; throws for anything else. */
export function numberOf(value: unknown): number {
  if (typeof value !== "number") throw new TypeError("not a number of the catalog");
  return value;
}

/** The array, or an empty one. */
export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : none;
}

/** A list of texts; without a list, none. */
export function textsOf(value: unknown): readonly string[] {
  return orNone(listOf(value).map(textOf));
}

/** A list of numbers; without a list, none. */
export function numbersOf(value: unknown): readonly number[] {
  return orNone(listOf(value).map(numberOf));
}

/** The words of a text; null is none. */
export function wordsOf(value: unknown): string[] {
  return value === null ? [] : textOf(value).split(" ");
}

/** A list of functions by oid, schema and name. */
export function namedFunctionsOf(value: unknown): readonly NamedFunction[] {
  return listOf(value).map((entry) => {
    const [oid, schema, name] = listOf(entry);
    return [numberOf(oid), textOf(schema), textOf(name)];
  });
}

/** What is referred to, and its oid. */
export function useOf(what: unknown, oid: unknown): Use {
  if (what !== "relation" && what !== "function" && what !== "operator") throw new TypeError("not a use");
  return { what, oid: numberOf(oid) };
}
