/** Which columns are masked, found by name through inheritance and partitions in both directions. */
import { type NameResolver, type RelationInfo, relationNamed } from "../sql/names.ts";
import { type DefinitionKind, definitionColumns } from "./definitions.ts";
import type { MaskedColumns } from "./trace.ts";

/** Statements of other sessions: the texts may hold values of any column. */
const statementTexts: readonly (readonly [table: string, column: string])[] = [
  ["pg_stat_activity", "query"],
  ["pg_stat_statements", "query"],
  ["pg_stat_statements_info", "query"],
];

interface Matcher {
  readonly schema: RegExp;
  readonly table: RegExp;
  readonly column: RegExp;
  readonly name: string;
  /** What of a JSON column is meant; empty: the whole column. */
  readonly path: readonly string[];
}

/**
 * A set of masked columns, given as `schema.table.column` with `*` for any run of characters within a part. Of a JSON
 * column a part may be meant: `schema.table.column->key->*`.
 */
export class MaskedColumnSet implements MaskedColumns {
  readonly isEmpty: boolean;
  readonly #matchers: readonly Matcher[];
  #version: number | undefined;
  #cache = new WeakMap<RelationInfo, ReadonlyMap<string, string>>();
  #definitions: ReadonlySet<DefinitionKind> | undefined;

  constructor(patterns: readonly string[]) {
    this.isEmpty = patterns.length === 0;
    this.#matchers = patterns.map(matcher);
  }

  of(relation: RelationInfo, names: NameResolver): ReadonlyMap<string, string> | undefined {
    if (this.isEmpty) return undefined;
    const found = this.#found(relation, names);
    return found.size === 0 ? undefined : found;
  }

  /** What the catalog keeps of masked columns that may be a value of theirs. */
  definitions(names: NameResolver): ReadonlySet<DefinitionKind> {
    if (names.isAltered === true) return this.#kinds(names);
    this.#follow(names);
    this.#definitions ??= this.#kinds(names);
    return this.#definitions;
  }

  #kinds(names: NameResolver): ReadonlySet<DefinitionKind> {
    const kinds = new Set<DefinitionKind>();
    for (const [name, columns] of names.definitions ?? []) {
      const relation = relationNamed(names, name);
      const masked = relation === undefined ? undefined : this.of(relation, names);
      // What a statement of this text has dropped may be there again when the next one runs.
      for (const { kind, column } of columns)
        if (relation === undefined || masked?.has(column) === true) kinds.add(kind);
    }
    return kinds;
  }

  /** The masked columns that say in which of its partitions a row of that table is. */
  placedBy(name: string, names: NameResolver): readonly string[] {
    const keys = names.definitions?.get(name)?.filter(({ kind }) => kind === "bound");
    const relation = keys === undefined ? undefined : relationNamed(names, name);
    const masked = relation === undefined ? undefined : this.of(relation, names);
    return keys?.flatMap(({ column }) => masked?.get(column) ?? []) ?? [];
  }

  #found(relation: RelationInfo, names: NameResolver): ReadonlyMap<string, string> {
    // What a text changes on the way is true of that text alone, and its version is that of the names without it.
    if (names.isAltered === true) return this.#find(relation, names);
    this.#follow(names);
    let found = this.#cache.get(relation);
    if (found === undefined) {
      found = this.#find(relation, names);
      this.#cache.set(relation, found);
    }
    return found;
  }

  /** Forgets what was found under other names. */
  #follow(names: NameResolver): void {
    if (this.#version === names.version) return;
    this.#version = names.version;
    this.#cache = new WeakMap();
    this.#definitions = undefined;
  }

  /** True where one of the patterns names this column, given as `schema.table.column`. */
  names(source: string): boolean {
    const last = source.lastIndexOf(".");
    return this.#matches(source.slice(0, last), source.slice(last + 1));
  }

  /** The paths within this column that are masked; undefined where all of it is. */
  pathsOf(source: string): readonly (readonly string[])[] | undefined {
    const last = source.lastIndexOf(".");
    const found = this.#matching(source.slice(0, last), source.slice(last + 1));
    if (found.length === 0 || found.some(({ path }) => path.length === 0)) return undefined;
    return found.map(({ path }) => path);
  }

  /** Columns that the set names for certain in a relation of that name, for readers who have no catalog. */
  columnsNamed(schema: string, table: string): readonly string[] {
    const columns = this.#matchers
      .filter((matcher) => matcher.schema.test(schema) && matcher.table.test(table))
      .flatMap(({ name }) => (name.includes("*") ? [] : [name]));
    return [...new Set(columns)];
  }

  #find(relation: RelationInfo, names: NameResolver): ReadonlyMap<string, string> {
    const family = familyOf(relation, names);
    const found = new Map<string, string>();
    for (const column of relation.columns) {
      const source = family.find((member) => this.#matches(member, column));
      if (source !== undefined) found.set(column, `${source}.${column}`);
    }
    for (const column of generatedFrom(relation, found)) {
      // A name that no entry has: what is computed keeps nothing of the value.
      found.set(column, `${relation.schema}.${relation.name}.${column}`);
    }
    const definitions = definitionColumns(`${relation.schema}.${relation.name}`, () =>
      this.definitions(names),
    );
    for (const [column, source] of definitions) {
      if (relation.columns.includes(column)) found.set(column, source);
    }
    for (const [table, column] of statementTexts) {
      if (relation.name === table && relation.columns.includes(column)) {
        found.set(column, `${relation.schema}.${table}.${column}`);
      }
    }
    return found;
  }

  #matches(relation: string, column: string): boolean {
    return this.#matching(relation, column).length > 0;
  }

  #matching(relation: string, column: string): readonly Matcher[] {
    const dot = relation.indexOf(".");
    const schema = relation.slice(0, dot);
    const table = relation.slice(dot + 1);
    return this.#matchers.filter(
      (matcher) => matcher.schema.test(schema) && matcher.table.test(table) && matcher.column.test(column),
    );
  }
}

/** Generated columns that a masked one goes into; they cannot be made from each other. */
function generatedFrom(relation: RelationInfo, masked: ReadonlyMap<string, string>): readonly string[] {
  return [...(relation.generated ?? [])]
    .filter(([column, sources]) => !masked.has(column) && sources.some((source) => masked.has(source)))
    .map(([column]) => column);
}

/** How many relations one family of tables may have before the rest is not looked at; partitions go to thousands. */
const familyMax = 20_000;

/** The relation, all that it inherits from and all that inherits from those, as `schema.name`. */
function familyOf(relation: RelationInfo, names: NameResolver): readonly string[] {
  const own = `${relation.temporary ? "pg_temp" : relation.schema}.${relation.name}`;
  const family = new Set<string>([own]);
  // A table renamed in this transaction is still the one of its committed name.
  if (relation.kind === "table" || relation.kind === "partitionedTable") {
    for (const read of relation.reads) if (read.kind === "relation") family.add(read.name);
  }
  const pending = [...(relation.parents ?? []), ...relation.children];
  for (let name = pending.pop(); name !== undefined && family.size < familyMax; name = pending.pop()) {
    if (family.has(name)) continue;
    family.add(name);
    const member = relationNamed(names, name);
    if (member !== undefined) pending.push(...(member.parents ?? []), ...member.children);
  }
  return [...family];
}

function matcher(pattern: string): Matcher {
  const [schema = "", table = "", named = ""] = pattern.split(".");
  const [column = "", ...path] = named.split("->");
  return {
    schema: schema.includes("*") ? ordinary(schema) : glob(schema),
    table: glob(table),
    column: glob(column),
    name: column,
    path,
  };
}

/** A schema by pattern is never one of the server's own: what all tools read is named where it is meant. */
function ordinary(pattern: string): RegExp {
  return new RegExp(`^(?!pg_catalog$|information_schema$)${glob(pattern).source.slice(1)}`, "su");
}

/** `*` for any run of characters; everything else stands for itself. */
function glob(text: string): RegExp {
  const parts = text.split(/\*+/).map((part) => part.replace(/[\\^$.|?+()[\]{}]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`, "su");
}
