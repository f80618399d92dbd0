/**
 * What the catalog says of a masked column and what may be one of its values: its default, the value that older rows
 * have of a column that was added, bounds of partitions, and literals of checks and index predicates on it. Where a
 * masked column has such a thing, what the catalog stores of that kind is hidden whole, and what it prints without its
 * literals: which row of the catalog belongs to which table no lineage can tell.
 */
import { clean, derivedFrom, exactly, type Flow, isTainted } from "./flow.ts";

/** What the catalog keeps, by where it keeps it. */
export type DefinitionKind = "missing" | "default" | "bound" | "check" | "index";

/** That a column has something of that kind, with a literal in it. */
export interface ColumnDefinition {
  readonly kind: DefinitionKind;
  readonly column: string;
}

interface Shown {
  readonly kind: DefinitionKind;
  /** As the server reads it, or as somebody does. */
  readonly as: "tree" | "text";
}

const tree = (kind: DefinitionKind): Shown => ({ kind, as: "tree" });
const text = (kind: DefinitionKind): Shown => ({ kind, as: "text" });

const catalogColumns: ReadonlyMap<string, Readonly<Record<string, Shown>>> = new Map([
  ["pg_catalog.pg_attribute", { attmissingval: tree("missing") }],
  ["pg_catalog.pg_attrdef", { adbin: tree("default") }],
  ["information_schema.columns", { column_default: text("default") }],
  ["pg_catalog.pg_class", { relpartbound: tree("bound") }],
  ["pg_catalog.pg_constraint", { conbin: tree("check") }],
  ["information_schema.check_constraints", { check_clause: text("check") }],
  ["pg_catalog.pg_index", { indpred: tree("index"), indexprs: tree("index") }],
  ["pg_catalog.pg_indexes", { indexdef: text("index") }],
]);

/** Functions of pg_catalog that print a definition by the id of what has it. */
const printers: Readonly<Record<string, DefinitionKind>> = {
  pg_get_partition_constraintdef: "bound",
  pg_get_constraintdef: "check",
  pg_get_indexdef: "index",
};

const printedPrefix = "pg_catalog.definitions.";
const treeSources: ReadonlyMap<string, DefinitionKind> = new Map(
  [...catalogColumns].flatMap(([relation, columns]) =>
    Object.entries(columns).flatMap(([column, { kind, as }]) =>
      as === "tree" ? [[`${relation}.${column}`, kind] as const] : [],
    ),
  ),
);

/** Columns of a relation of the catalog that hold definitions of these kinds, each with its name as a source. */
export function definitionColumns(
  relation: string,
  kinds: () => ReadonlySet<DefinitionKind>,
): readonly (readonly [column: string, source: string])[] {
  const columns = catalogColumns.get(relation);
  if (columns === undefined) return [];
  const active = kinds();
  return Object.entries(columns).flatMap(([column, { kind, as }]) =>
    active.has(kind) ? [[column, as === "tree" ? `${relation}.${column}` : sourceOf(kind)] as const] : [],
  );
}

function sourceOf(kind: DefinitionKind): string {
  return `${printedPrefix}${kind}`;
}

/** True where the source is not a value of a table but a definition as the server prints it. */
export function isPrinted(source: string | undefined): boolean {
  return source?.startsWith(printedPrefix) === true;
}

/** The definition, and nothing else, that a value is: printed or not. */
function onlySource(flow: Flow | undefined): string | undefined {
  if (flow === undefined || !flow.isExact || flow.sources.size !== 1) return undefined;
  const [source] = flow.sources;
  return source;
}

/** True for a definition as it is printed, unchanged. */
export function isPrintedFlow(flow: Flow): boolean {
  return isPrinted(onlySource(flow));
}

/** True for a definition: whether there is one tells nothing of what it says. */
export function isDefinition(flow: Flow): boolean {
  const source = onlySource(flow);
  return isPrinted(source) || treeSources.has(source ?? "");
}

/** What a function of pg_catalog gives that prints a definition; undefined for all others, and where nothing is hidden. */
export function printedBy(
  name: string,
  args: readonly Flow[],
  kinds: ReadonlySet<DefinitionKind>,
): Flow | undefined {
  const [first, ...rest] = args;
  if (rest.some(isTainted)) return undefined;
  if (name === "pg_get_expr") {
    const kind = treeSources.get(onlySource(first) ?? "");
    return kind === undefined ? undefined : exactly(sourceOf(kind));
  }
  const kind = Object.hasOwn(printers, name) ? printers[name] : undefined;
  if (kind === undefined || !kinds.has(kind) || (first !== undefined && isTainted(first))) return undefined;
  return exactly(sourceOf(kind));
}

/** What a body may print of definitions of these kinds. */
export function printedIn(body: string, kinds: ReadonlySet<DefinitionKind>): readonly Flow[] {
  if (kinds.size === 0) return [];
  return Object.entries(printers)
    .filter(([name, kind]) => kinds.has(kind) && (new RegExp(name, "i").test(body) || /u&"/i.test(body)))
    .map(([, kind]) => exactly(sourceOf(kind)));
}

/** One of these values: a printed definition stays one beside values that depend on nothing. */
export function oneOf(flows: readonly Flow[]): Flow {
  const derived = derivedFrom(flows);
  const [source] = derived.sources;
  if (derived.sources.size !== 1 || !isPrinted(source) || derived.tellsByNull === true) return derived;
  return flows.every((flow) => !isTainted(flow) || isPrintedFlow(flow))
    ? { ...derived, isExact: true }
    : derived;
}

/** What tools look for in definitions: words of the server's own, in which no value stands. */
const wordsOfServer = /^[%^]?(?:(?:DEFAULT|nextval|gen_random_uuid|uuid_generate(?:_v\d)?)[|(%]*)+$/;

/** What it tells to compare a printed definition with a text. */
export function comparedWith(flow: Flow, constant: string | undefined): Flow {
  return isPrintedFlow(flow) && constant !== undefined && wordsOfServer.test(constant) ? clean : flow;
}
