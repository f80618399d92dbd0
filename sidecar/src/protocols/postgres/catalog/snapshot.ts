/** The committed catalog of one database at one moment: what a name means there. Nothing in it changes once it is made. */
import type { ColumnDefinition, FunctionInfo, RelationInfo, RelationKind, TypeInfo } from "@sallyport/policy";
import type { FieldType, TypeShape } from "../masking/type-shape.ts";
import type { ColumnOrigin } from "../statement-judge.ts";
import { none } from "./row-values.ts";

/** Names to things, keyed by `schema` NUL `name`. */
export interface CatalogSnapshot {
  /** The column with that attribute number of the relation with that oid. */
  column(table: number, attribute: number): ColumnOrigin | undefined;
  /** The type's oid of a column given as `schema.table.column`; a domain's is that of what it is made of. */
  columnType(source: string): number | undefined;
  /** What a type of users' own making consists of; undefined: nobody knows. */
  typeShape(oid: number): TypeShape | undefined;
  /** False where a definition could not be printed because a transaction had locked what it names. */
  readonly isComplete: boolean;
  /** Schemas by name; the accounts that may look into one, or `everyone`. */
  readonly schemas: ReadonlyMap<string, "everyone" | ReadonlySet<string>>;
  relation(schema: string, name: string): RelationInfo | undefined;
  /** By relation, as `schema.name`: of which columns the catalog keeps literals. */
  readonly definitions: ReadonlyMap<string, readonly ColumnDefinition[]>;
  /** By relation, as `schema.name`: what expressions of its indexes and statistics call, of those that call anything. */
  readonly upkeep: ReadonlyMap<string, readonly FunctionInfo[]>;
  /** Names of the relations that a user made in this schema. */
  relationsIn(schema: string): readonly string[];
  /** Schemas in which a user made a relation or a function of this name. */
  schemasWith(name: string): readonly string[];
  functions(schema: string, name: string): readonly FunctionInfo[];
  /** True where pg_catalog has a function of that name, and no other schema has one. */
  isBuiltinAlone(name: string): boolean;
  operatorFunctions(schema: string, operator: string): readonly FunctionInfo[];
  type(schema: string, name: string): TypeInfo | undefined;
}

/** The key of a qualified name; NUL cannot be part of an identifier. */
export function keyOf(schema: string, name: string): string {
  return `${schema}\0${name}`;
}

/** Of a domain what it is made of, of a composite its fields, of an array its elements, by their oids. */
export type MadeType =
  | { readonly kind: "domain"; readonly base: number }
  | { readonly kind: "composite"; readonly fields: readonly number[] }
  | { readonly kind: "array"; readonly element: number }
  | { readonly kind: "enum"; readonly labels: readonly string[] }
  | { readonly kind: "other" };

/** A relation that the server itself brings; its columns are words. */
export interface BuiltinRelation {
  readonly kind: RelationKind;
  readonly columns: string;
}

/** A relation with the attribute numbers and the types of its columns, in their order. */
export interface StoredRelation {
  readonly info: RelationInfo;
  readonly numbers: readonly number[];
  readonly types: readonly number[];
}

/** What a snapshot is made of. */
export interface SnapshotParts {
  readonly isComplete: boolean;
  readonly schemas: CatalogSnapshot["schemas"];
  readonly relations: ReadonlyMap<string, RelationInfo>;
  readonly stored: ReadonlyMap<number, StoredRelation>;
  readonly functions: ReadonlyMap<string, readonly FunctionInfo[]>;
  readonly operators: ReadonlyMap<string, readonly FunctionInfo[]>;
  readonly types: ReadonlyMap<string, TypeInfo>;
  readonly madeTypes: ReadonlyMap<number, MadeType>;
  readonly builtinRelations: ReadonlyMap<string, BuiltinRelation>;
  readonly builtinFunctions: ReadonlySet<string>;
  readonly builtinTypes: ReadonlySet<string>;
  readonly definitions: CatalogSnapshot["definitions"];
  readonly upkeep: CatalogSnapshot["upkeep"];
}

/** A snapshot over parts that have been joined already. */
export class Snapshot implements CatalogSnapshot {
  readonly isComplete: boolean;
  readonly schemas: CatalogSnapshot["schemas"];
  readonly definitions: CatalogSnapshot["definitions"];
  readonly upkeep: CatalogSnapshot["upkeep"];
  private readonly parts: SnapshotParts;
  private typesBySource: ReadonlyMap<string, number> | undefined;
  /** Names of functions outside pg_catalog. */
  private ownFunctions: ReadonlySet<string> | undefined;
  private readonly shapes = new Map<number, TypeShape | undefined>();

  constructor(parts: SnapshotParts) {
    this.isComplete = parts.isComplete;
    this.schemas = parts.schemas;
    this.definitions = parts.definitions;
    this.upkeep = parts.upkeep;
    this.parts = parts;
  }

  relation(schema: string, name: string): RelationInfo | undefined {
    const key = keyOf(schema, name);
    const own = this.parts.relations.get(key);
    if (own !== undefined) return own;
    const builtin = this.parts.builtinRelations.get(key);
    if (builtin === undefined) return undefined;
    const columns = builtin.columns.split(" ");
    return { ...plainRelation, schema, name, kind: builtin.kind, columns };
  }

  column(table: number, attribute: number): ColumnOrigin | undefined {
    const found = this.parts.stored.get(table);
    if (found === undefined) return undefined;
    const { info, numbers } = found;
    return { relation: info, column: info.columns[numbers.indexOf(attribute)] };
  }

  columnType(source: string): number | undefined {
    this.typesBySource ??= new Map(
      [...this.parts.stored.values()].flatMap(({ info, types }) =>
        info.columns.map(
          (name, index) => [`${info.schema}.${info.name}.${name}`, types[index] ?? 0] as const,
        ),
      ),
    );
    const type = this.typesBySource.get(source);
    return type === undefined ? undefined : this.beneathDomains(type);
  }

  typeShape(oid: number): TypeShape | undefined {
    const known = this.shapes.get(oid);
    if (known !== undefined || this.shapes.has(oid)) return known;
    const shape = this.shapeWithin(oid, { fields: shapeFieldsMax, depth: shapeDepthMax });
    this.shapes.set(oid, shape);
    return shape;
  }

  /** Undefined also for a type with more fields, those of its fields included, than are left. */
  private shapeWithin(oid: number, left: { fields: number; readonly depth: number }): TypeShape | undefined {
    const made = this.parts.madeTypes.get(oid);
    if (made?.kind === "array" || made?.kind === "enum") return made;
    if (made?.kind !== "composite" || left.depth === 0) return undefined;
    left.fields -= made.fields.length;
    if (left.fields < 0) return undefined;
    const inner = { fields: left.fields, depth: left.depth - 1 };
    const fields = made.fields.map((declared): FieldType => {
      const type = this.beneathDomains(declared);
      const shape = this.shapeWithin(type, inner);
      return { declared, oid: type, ...(shape === undefined ? {} : { shape }) };
    });
    left.fields = inner.fields;
    return { kind: "composite", fields };
  }

  private beneathDomains(oid: number): number {
    let type = oid;
    for (let depth = 0; depth < domainDepthMax; depth += 1) {
      const made = this.parts.madeTypes.get(type);
      if (made?.kind !== "domain") break;
      type = made.base;
    }
    return type;
  }

  relationsIn(schema: string): readonly string[] {
    return [...this.parts.relations.values()]
      .filter((each) => each.schema === schema)
      .map(({ name }) => name);
  }

  schemasWith(name: string): readonly string[] {
    const end = keyOf("", name);
    const found = new Set<string>();
    for (const keys of [this.parts.relations.keys(), this.parts.functions.keys()])
      for (const key of keys) if (key.endsWith(end)) found.add(key.slice(0, -end.length));
    return [...found];
  }

  functions(schema: string, name: string): readonly FunctionInfo[] {
    const own = this.parts.functions.get(keyOf(schema, name)) ?? none;
    if (schema !== "pg_catalog" || !this.parts.builtinFunctions.has(name)) return own;
    return [builtinFunction(schema, name), ...own];
  }

  isBuiltinAlone(name: string): boolean {
    this.ownFunctions ??= new Set(
      [...this.parts.functions.values()]
        .flat()
        .flatMap((info) => (info.schema === "pg_catalog" ? [] : [info.name])),
    );
    return this.functions("pg_catalog", name).length > 0 && !this.ownFunctions.has(name);
  }

  operatorFunctions(schema: string, operator: string): readonly FunctionInfo[] {
    return this.parts.operators.get(keyOf(schema, operator)) ?? none;
  }

  type(schema: string, name: string): TypeInfo | undefined {
    const own = this.parts.types.get(keyOf(schema, name));
    if (own !== undefined) return own;
    if (schema === "pg_catalog" && this.parts.builtinTypes.has(name))
      return { schema, name, functions: none };
    // A table's rows have a type of its name, and the type of arrays of T is named _T.
    const relation = this.parts.relations.get(keyOf(schema, name));
    if (relation !== undefined && rowKinds.has(relation.kind))
      return { schema, name, functions: relation.functions };
    return name.startsWith("_") && name.length > 1 ? this.type(schema, name.slice(1)) : undefined;
  }
}

/** A field that lies deeper, or beyond so many, is of a type that nobody knows, and so NULL. */
const shapeDepthMax = 8;
const shapeFieldsMax = 2000;
const domainDepthMax = 32;
const rowKinds: ReadonlySet<RelationKind> = new Set([
  "table",
  "partitionedTable",
  "view",
  "materializedView",
  "foreignTable",
  "compositeType",
]);

/** What a relation has when nothing is known to hang on it. */
export const plainRelation = {
  temporary: false,
  reads: none,
  children: none,
  cascades: none,
  triggers: none,
  hasRules: false,
  functions: none,
} as const satisfies Partial<RelationInfo>;

/** A function that the server itself brings. */
export function builtinFunction(schema: string, name: string): FunctionInfo {
  return { schema, name, language: "internal", securityDefiner: false, settings: none };
}
