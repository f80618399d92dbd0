/** Joins the rows of `catalogQuery` into a snapshot of the catalog. Pure. */
import {
  type ColumnDefinition,
  type FunctionInfo,
  isEstimator,
  isReadBuiltin,
  type ObjectRef,
  type RelationInfo,
  type RelationKind,
  type TypeInfo,
} from "@sallyport/policy";
import type { EarlierReading } from "./queries.ts";
import {
  definitionKindOf,
  listOf,
  type NamedFunction,
  namedFunctionsOf,
  none,
  numberOf,
  numbersOf,
  orNone,
  relationKindOf,
  textOf,
  textsOf,
  type Use,
  useOf,
  wordsOf,
} from "./row-values.ts";
import {
  type BuiltinRelation,
  builtinFunction,
  type CatalogSnapshot,
  keyOf,
  type MadeType,
  Snapshot,
  type StoredRelation,
} from "./snapshot.ts";

/** Joins the rows into what names mean. */
export function buildSnapshot(rows: Iterable<Record<string, unknown>>): CatalogSnapshot {
  return readCatalog(rows, undefined).snapshot;
}

/** A snapshot, and what the next reading may keep of it. */
export interface CatalogReading {
  readonly snapshot: CatalogSnapshot;
  /** Absent where the rows do not say when they were read. */
  readonly kept: KeptCatalog | undefined;
}

/** What need not be read again while it has not changed. */
export interface KeptCatalog extends EarlierReading {
  readonly relations: ReadonlyMap<number, RelationRow>;
  readonly builtins: Builtins;
}

/**
 * Joins rows into what names mean; what is not among them, because it has stayed as it was, comes from `before`.
 * Throws where something is in neither: then everything must be read.
 */
export function readCatalog(
  rows: Iterable<Record<string, unknown>>,
  before: KeptCatalog | undefined,
): CatalogReading {
  const builder = new Builder();
  for (const row of rows) builder.take(rowOf(row));
  builder.complete(before);
  return { snapshot: builder.build(), kept: builder.kept() };
}

/** A row of `catalogQuery`: what it describes, and a JSON array. */
interface CatalogRow {
  readonly kind: string;
  readonly data: readonly unknown[];
}

function rowOf(row: Record<string, unknown>): CatalogRow {
  const { kind, data } = row;
  if (typeof kind !== "string" || typeof data !== "string") throw new TypeError("not a row of the catalog");
  const parsed: unknown = JSON.parse(data);
  if (!Array.isArray(parsed)) throw new TypeError("not a row of the catalog");
  return { kind, data: parsed };
}

interface RelationRow {
  readonly schema: number;
  readonly name: string;
  readonly kind: RelationKind;
  readonly columns: readonly string[];
  readonly definition: string | undefined;
  readonly hasRules: boolean;
  readonly types: readonly number[];
  /** Attribute numbers and types of the columns, in their order. */
  readonly numbers: readonly number[];
  readonly columnTypes: readonly number[];
  readonly ofColumns: OfColumns;
}

/** What hangs on a relation's columns. */
interface OfColumns {
  /** Columns of which the catalog keeps literals. */
  readonly definitions: readonly ColumnDefinition[];
  readonly defaultBuiltins: readonly FunctionInfo[];
  /** Of generated columns and of checks. */
  readonly builtins: readonly FunctionInfo[];
  readonly generated: ReadonlyMap<string, readonly string[]> | undefined;
}

interface TypeRow {
  readonly schema: number;
  readonly name: string;
  readonly parts: readonly number[];
  readonly made: MadeType;
}

interface TriggerRow {
  readonly type: number;
  readonly functions: readonly NamedFunction[];
  readonly isDeferrable: boolean;
}

/** What the server itself brings. */
interface Builtins {
  readonly relations: ReadonlyMap<string, BuiltinRelation>;
  readonly functions: ReadonlySet<string>;
  readonly types: ReadonlySet<string>;
}

class Builder {
  private isComplete = true;
  private readonly schemaNames = new Map<number, string>();
  private readonly schemas = new Map<string, "everyone" | ReadonlySet<string>>();
  private builtinRelations = new Map<string, BuiltinRelation>();
  private builtinFunctions: ReadonlySet<string> | undefined;
  private builtinTypes: ReadonlySet<string> = new Set();
  private relations = new Map<number, RelationRow>();
  private moment: Pick<EarlierReading, "moment" | "fingerprint"> | undefined;
  /** All that there are, where the rows say so. */
  private relationOids: readonly number[] | undefined;
  private readonly children = new Map<number, number[]>();
  private readonly parents = new Map<number, number[]>();
  private readonly definitions = new Map<number, ColumnDefinition[]>();
  private readonly bound = new Map<number, (readonly string[])[]>();
  private readonly cascades = new Map<number, { relation: number; onDelete: boolean; onUpdate: boolean }[]>();
  private readonly triggers = new Map<number, TriggerRow[]>();
  private readonly reads = new Map<number, Use[]>();
  private readonly relationUses = new Map<number, Use[]>();
  private readonly upkeepUses = new Map<number, Use[]>();
  private readonly typeUses = new Map<number, Use[]>();
  private readonly defaultUses = new Map<number, Use[]>();
  private readonly columnDefaultUses = new Map<number, Use[]>();
  /** Functions of known extensions. */
  private readonly reviewed = new Set<number>();
  private readonly relationBuiltins = new Map<number, readonly FunctionInfo[]>();
  private readonly typeBuiltins = new Map<number, readonly FunctionInfo[]>();
  private readonly defaultBuiltins = new Map<number, readonly FunctionInfo[]>();
  private readonly types = new Map<number, TypeRow>();
  private readonly arrays = new Map<number, MadeType>();
  private readonly functionRows: {
    oid: number;
    schema: number;
    info: Omit<FunctionInfo, "schema"> & { readonly row?: number };
    types: readonly number[];
  }[] = [];
  private readonly functions = new Map<number, FunctionInfo>();
  private readonly operators = new Map<
    number,
    { schema: number; name: string; functions: readonly NamedFunction[] }
  >();

  take({ kind, data }: CatalogRow): void {
    const [a, b, c, d, e, f, g, h, i, j, k, l, m] = data;
    switch (kind) {
      case "schema": {
        this.schemaNames.set(numberOf(a), textOf(b));
        // No list at all of an unlisted schema means that no account may look into it.
        this.schemas.set(textOf(b), data.length > 2 && c === null ? "everyone" : new Set(textsOf(c)));
        return;
      }
      case "moment":
        this.moment = {
          moment: { server: textOf(a), xmin: textOf(b), builtins: textOf(c) },
          fingerprint: textOf(d),
        };
        return;
      case "relations":
        this.relationOids = numbersOf(a);
        return;
      case "builtinFunctions":
        this.builtinFunctions = new Set(wordsOf(a));
        return;
      case "builtinTypes":
        this.builtinTypes = new Set(wordsOf(a));
        return;
      case "builtinRelation":
        this.builtinRelations.set(keyOf(textOf(a), textOf(b)), {
          kind: relationKindOf(c),
          columns: d === null ? "" : textOf(d),
        });
        return;
      case "relation":
        if ((d === "v" || d === "m") && typeof f !== "string") this.isComplete = false;
        this.relations.set(numberOf(a), {
          schema: numberOf(b),
          name: textOf(c),
          kind: relationKindOf(d),
          columns: textsOf(e),
          definition: typeof f === "string" ? f : d === "v" || d === "m" ? unreadableDefinition : undefined,
          hasRules: g === true,
          types: numbersOf(h),
          numbers: numbersOf(i),
          columnTypes: numbersOf(j),
          ofColumns: ofColumnsOf(k),
        });
        return;
      case "child":
        push(this.children, numberOf(a), numberOf(b));
        push(this.parents, numberOf(b), numberOf(a));
        return;
      case "definition": {
        const definition = definitionKindOf(b);
        for (const column of textsOf(c)) push(this.definitions, numberOf(a), { kind: definition, column });
        return;
      }
      case "bound":
        push(this.bound, numberOf(a), textsOf(b));
        return;
      case "cascade":
        push(this.cascades, numberOf(a), {
          relation: numberOf(b),
          onDelete: c === true,
          onUpdate: d === true,
        });
        return;
      case "trigger":
        push(this.triggers, numberOf(a), {
          type: numberOf(b),
          functions: namedFunctionsOf(c),
          isDeferrable: d === true,
        });
        return;
      case "read":
        push(this.reads, numberOf(a), useOf(b, c));
        return;
      case "relationUse":
        push(this.relationUses, numberOf(a), useOf(b, c));
        return;
      case "upkeepUse":
        push(this.upkeepUses, numberOf(a), useOf(b, c));
        return;
      case "columnDefaultUse":
        push(this.columnDefaultUses, numberOf(a), useOf(b, c));
        return;
      case "extension":
        for (const each of numbersOf(b)) this.reviewed.add(each);
        return;
      case "relationBuiltins":
        this.relationBuiltins.set(numberOf(a), unreviewed(wordsOf(b)));
        return;
      case "typeBuiltins":
        this.typeBuiltins.set(numberOf(a), unreviewed(wordsOf(b)));
        return;
      case "defaultBuiltins":
        this.defaultBuiltins.set(numberOf(a), unreviewed(wordsOf(b)));
        return;
      case "defaultUse":
        push(this.defaultUses, numberOf(a), useOf(b, c));
        return;
      case "typeUse":
        push(this.typeUses, numberOf(a), useOf(b, c));
        return;
      case "type":
        this.types.set(numberOf(a), {
          schema: numberOf(b),
          name: textOf(c),
          parts: [numberOf(d), ...numbersOf(e)].filter((oid) => oid !== 0),
          made: madeOf(numberOf(d), numbersOf(g), textsOf(h)),
        });
        if (typeof f === "number" && f !== 0) this.arrays.set(f, { kind: "array", element: numberOf(a) });
        return;
      case "function": {
        const body = typeof e === "string" ? (f === true ? statementsOf(e) : e) : undefined;
        if (f === true && body === undefined) this.isComplete = false;
        const info = {
          name: textOf(c),
          language: textOf(d),
          ...(body === undefined ? {} : { body }),
          securityDefiner: g === true,
          settings: textsOf(h),
          // Rows of a test's catalog may leave these out.
          ...(Array.isArray(l)
            ? { parameters: parametersOf(textsOf(j), textsOf(k)), returns: textsOf(l), row: numberOf(m) }
            : {}),
        };
        this.functionRows.push({ oid: numberOf(a), schema: numberOf(b), info, types: numbersOf(i) });
        return;
      }
      case "operator":
        this.operators.set(numberOf(a), {
          schema: numberOf(b),
          name: textOf(c),
          functions: namedFunctionsOf(d),
        });
        return;
      default:
        throw new TypeError("not a row of the catalog");
    }
  }

  /** Puts what has stayed as it was beside what has been read. */
  complete(before: KeptCatalog | undefined): void {
    if (before === undefined) return;
    const now = this.moment?.moment;
    if (now?.server !== before.moment.server || now.builtins !== before.moment.builtins)
      throw new TypeError("the server is not the one that was read");
    if (this.builtinFunctions === undefined) {
      this.builtinFunctions = before.builtins.functions;
      this.builtinTypes = before.builtins.types;
      this.builtinRelations = new Map(before.builtins.relations);
    }
    if (this.relationOids === undefined) throw new TypeError("the catalog does not say what there is");
    const read = this.relations;
    this.relations = new Map();
    for (const each of this.relationOids) {
      const row = read.get(each) ?? before.relations.get(each);
      if (row === undefined) throw new TypeError("a relation is neither old nor new");
      this.relations.set(each, row);
    }
  }

  kept(): KeptCatalog | undefined {
    const { moment, relations, relationOids } = this;
    if (moment === undefined || relationOids === undefined || this.builtinFunctions === undefined)
      return undefined;
    return {
      ...moment,
      ruled: [...relations].filter(([, { hasRules }]) => hasRules).map(([oid]) => oid),
      relations,
      builtins: {
        relations: this.builtinRelations,
        functions: this.builtinFunctions,
        types: this.builtinTypes,
      },
    };
  }

  build(): CatalogSnapshot {
    const functions = new Map<string, FunctionInfo[]>();
    const typed: { oid: number; runs: FunctionInfo[]; types: readonly number[] }[] = [];
    for (const { oid, schema, info, types } of this.functionRows) {
      const { row, ...facts } = info;
      const returnsRow = row === undefined ? undefined : this.relationName(row);
      const runs: FunctionInfo[] = [];
      const hasDefaults = this.defaultUses.has(oid) || this.defaultBuiltins.has(oid);
      const found = {
        schema: this.schemaNames.get(schema) ?? unknownSchema,
        ...facts,
        ...(this.reviewed.has(oid) ? ({ isReviewed: true } as const) : {}),
        ...(returnsRow === undefined ? {} : { returnsRow }),
        ...(types.length === 0 && !hasDefaults ? {} : { runs }),
      };
      if (types.length > 0 || hasDefaults) typed.push({ oid, runs, types });
      this.functions.set(oid, found);
      push(functions, keyOf(found.schema, found.name), found);
    }
    // Types name functions and functions types, so these are filled in once all functions are there.
    for (const { oid, runs, types } of typed) {
      runs.push(...this.functionsOfTypes(types), ...this.functionsBehind(this.defaultUses.get(oid)));
      runs.push(...(this.defaultBuiltins.get(oid) ?? []));
    }
    const relations = new Map<string, RelationInfo>();
    const stored = new Map<number, StoredRelation>();
    for (const [oid, row] of this.relations) {
      const info = this.relationInfo(oid, row);
      relations.set(keyOf(info.schema, info.name), info);
      if (row.numbers.length === row.columns.length)
        stored.set(oid, { info, numbers: row.numbers, types: row.columnTypes });
    }
    const types = new Map<string, TypeInfo>();
    for (const [oid, row] of this.types) {
      const schema = this.schemaNames.get(row.schema) ?? unknownSchema;
      types.set(keyOf(schema, row.name), { schema, name: row.name, functions: this.functionsOfTypes([oid]) });
    }
    const operators = new Map<string, FunctionInfo[]>();
    for (const row of this.operators.values()) {
      const key = keyOf(this.schemaNames.get(row.schema) ?? unknownSchema, row.name);
      for (const named of this.withoutEstimators(row.functions))
        push(operators, key, this.operatorFunction(named));
    }
    return new Snapshot({
      isComplete: this.isComplete,
      schemas: this.schemas,
      relations,
      stored,
      functions,
      operators,
      types,
      madeTypes: new Map([...this.arrays, ...[...this.types].map(([oid, { made }]) => [oid, made] as const)]),
      builtinRelations: this.builtinRelations,
      builtinFunctions: this.builtinFunctions ?? new Set(),
      builtinTypes: this.builtinTypes,
      definitions: new Map(
        [...this.relations].flatMap(([oid, { ofColumns }]) => {
          const name = this.relationName(oid);
          const found = [...ofColumns.definitions, ...(this.definitions.get(oid) ?? [])];
          return name === undefined || found.length === 0 ? [] : [[name, found] as const];
        }),
      ),
      upkeep: new Map(
        [...this.upkeepUses].flatMap(([oid, uses]) => {
          const name = this.relationName(oid);
          const found = this.functionsBehind(uses);
          return name === undefined || found.length === 0 ? [] : [[name, found] as const];
        }),
      ),
    });
  }

  private relationInfo(oid: number, row: RelationRow): RelationInfo {
    const cascades = new Map<string, { relation: string; on: "delete" | "update" }>();
    // Rows of a table are rows of its children and theirs, with the triggers, checks and keys that hang on them there.
    const family = this.familyOf(oid);
    for (const { relation, onDelete, onUpdate } of family.flatMap((each) => this.cascades.get(each) ?? [])) {
      const name = this.relationName(relation);
      if (name === undefined) continue;
      if (onDelete) cascades.set(`d ${name}`, { relation: name, on: "delete" });
      if (onUpdate) cascades.set(`u ${name}`, { relation: name, on: "update" });
    }
    return {
      schema: this.schemaNames.get(row.schema) ?? unknownSchema,
      name: row.name,
      kind: row.kind,
      temporary: false,
      columns: row.columns,
      ...(row.definition === undefined ? {} : { definition: withoutSemicolon(row.definition) }),
      reads: orNone(this.readsOf(oid)),
      children: orNone(family.slice(1).flatMap((child) => this.relationName(child) ?? [])),
      ...this.originsOf(oid),
      ...this.boundOf(oid),
      cascades: orNone([...cascades.values()]),
      triggers: orNone(
        family
          .flatMap((each) => this.triggers.get(each) ?? [])
          .flatMap(({ type, functions, isDeferrable }) =>
            functions.map((named) => ({
              events: eventsOf(type),
              function: this.functionInfo(named),
              ...(isDeferrable && { isDeferrable }),
            })),
          ),
      ),
      hasRules: row.hasRules,
      ...this.codeOf(family),
    };
  }

  /** What runs with a table's rows; defaults only with those that are written. */
  private codeOf(family: readonly number[]): Pick<RelationInfo, "functions" | "readFunctions"> {
    const always = family.flatMap((each) => [
      ...this.functionsBehind(this.relationUses.get(each)),
      ...(this.relationBuiltins.get(each) ?? []),
      ...(this.relations.get(each)?.ofColumns.builtins ?? []),
      ...this.functionsOfTypes(this.relations.get(each)?.types ?? []),
    ]);
    const defaults = family.flatMap((each) => [
      ...this.functionsBehind(this.columnDefaultUses.get(each)),
      ...(this.relations.get(each)?.ofColumns.defaultBuiltins ?? []),
    ]);
    const functions = orNone([...new Set([...always, ...defaults])]);
    return defaults.length === 0 ? { functions } : { functions, readFunctions: orNone([...new Set(always)]) };
  }

  /** Where values of the relation's columns may also stand: what it is a child of, what a column is computed from. */
  private originsOf(oid: number): Pick<RelationInfo, "parents" | "generated"> {
    const parents = this.parents.get(oid)?.flatMap((parent) => this.relationName(parent) ?? []);
    const generated = this.relations.get(oid)?.ofColumns.generated;
    return {
      ...(parents === undefined ? {} : { parents }),
      ...(generated === undefined ? {} : { generated }),
    };
  }

  private boundOf(oid: number): Pick<RelationInfo, "bound"> {
    const computed = [...(this.relations.get(oid)?.ofColumns.generated?.values() ?? [])];
    const bound = [...(this.bound.get(oid) ?? []), ...computed.filter((sources) => sources.length > 1)];
    return bound.length === 0 ? {} : { bound };
  }

  /** The table, its children, their children: each once. */
  private familyOf(oid: number): readonly number[] {
    if (!this.children.has(oid)) return [oid];
    const family = new Set([oid]);
    // A Set grows while it is walked.
    for (const member of family) for (const child of this.children.get(member) ?? []) family.add(child);
    return [...family];
  }

  private readsOf(oid: number): ObjectRef[] {
    const refs = new Map<string, ObjectRef>();
    const uses = this.reads.get(oid) ?? [];
    for (const use of uses) {
      const name = use.what === "relation" ? this.relationName(use.oid) : undefined;
      if (name !== undefined) refs.set(`relation ${name}`, { name, kind: "relation", direct: false });
    }
    for (const { schema, name } of this.functionsBehind(uses)) {
      refs.set(`function ${schema}.${name}`, { name: `${schema}.${name}`, kind: "function", direct: false });
    }
    return [...refs.values()];
  }

  private functionsBehind(uses: readonly Use[] | undefined): FunctionInfo[] {
    const found = new Set<FunctionInfo>();
    for (const use of uses ?? []) {
      if (use.what === "function") {
        const info = this.functions.get(use.oid);
        if (info !== undefined) found.add(info);
      } else if (use.what === "operator") {
        for (const named of this.withoutEstimators(this.operators.get(use.oid)?.functions ?? []))
          found.add(this.functionInfo(named));
      }
    }
    return [...found];
  }

  private functionsOfTypes(oids: readonly number[]): FunctionInfo[] {
    const found = new Set<FunctionInfo>();
    const seen = new Set(oids);
    // A Set grows while it is walked: parts of parts are reached, each once.
    for (const oid of seen) {
      for (const info of this.functionsBehind(this.typeUses.get(oid))) found.add(info);
      for (const info of this.typeBuiltins.get(oid) ?? []) found.add(info);
      for (const inner of this.types.get(oid)?.parts ?? []) seen.add(inner);
    }
    return [...found];
  }

  /** An operator of users may be another name for what the server does at a call alone: `pg_read_file`, `nextval`. */
  private operatorFunction(named: NamedFunction): FunctionInfo {
    const info = this.functionInfo(named);
    const { schema, name } = info;
    const isReviewed = schema !== "pg_catalog" || isReadBuiltin(name);
    return isReviewed ? info : unreviewedFunction(name);
  }

  /** Estimators of the server, which most operators of extensions have, tell the planner alone. */
  private withoutEstimators(functions: readonly NamedFunction[]): readonly NamedFunction[] {
    return functions.filter(
      ([oid, schema, name]) => schema !== "pg_catalog" || !isEstimator(name) || this.functions.has(oid),
    );
  }

  private functionInfo([oid, schema, name]: NamedFunction): FunctionInfo {
    return this.functions.get(oid) ?? builtinFunction(schema, name);
  }

  private relationName(oid: number): string | undefined {
    const row = this.relations.get(oid);
    return row === undefined ? undefined : `${this.schemaNames.get(row.schema) ?? unknownSchema}.${row.name}`;
  }
}

/** Lists of names of columns with a literal, by kind, then names of functions, then names of columns with their sources. */
function ofColumnsOf(value: unknown): OfColumns {
  // Indexes, sequences and composite types have no such thing.
  if (value === null || value === undefined) return noColumns;
  const [missing, defaults, checks, defaultBuiltins, builtins, generated] = listOf(value);
  const pairs = listOf(generated).map((pair) => {
    const [name, sources] = listOf(pair);
    return [textOf(name), textsOf(sources)] as const;
  });
  return {
    definitions: orNone([
      ...textsOf(missing).map((column) => ({ kind: "missing", column }) as const),
      ...textsOf(defaults).map((column) => ({ kind: "default", column }) as const),
      ...textsOf(checks).map((column) => ({ kind: "check", column }) as const),
    ]),
    defaultBuiltins: unreviewed(wordsOf(defaultBuiltins)),
    builtins: unreviewed(wordsOf(builtins)),
    generated: pairs.length === 0 ? undefined : new Map(pairs),
  };
}

const noColumns: OfColumns = {
  definitions: none,
  defaultBuiltins: none,
  builtins: none,
  generated: undefined,
};

function madeOf(base: number, fields: readonly number[], labels: readonly string[]): MadeType {
  if (base !== 0) return { kind: "domain", base };
  if (labels.length > 0) return { kind: "enum", labels };
  return fields.length === 0 ? { kind: "other" } : { kind: "composite", fields };
}

/** Modes are i, o, b, v and t; without any, all are i. */
function parametersOf(
  names: readonly string[],
  modes: readonly string[],
): NonNullable<FunctionInfo["parameters"]> {
  return names.map((name, index) => ({ name, isResult: /^[obt]$/.test(modes[index] ?? "i") }));
}

// No parser takes it, so a view whose definition is not known counts as code that nobody can read.
const unreadableDefinition = "unknown definition";

// An object whose schema was not read belongs to no schema that a name can mean.
const unknownSchema = "\0";

/**
 * What an expression of the catalog calls in pg_catalog and nobody has reviewed as a read: code that cannot be judged,
 * as its arguments are not known here. A default that draws from its sequence is the one exception.
 */
function unreviewed(names: readonly string[]): readonly FunctionInfo[] {
  return orNone(names.filter((name) => !isReadBuiltin(name) && name !== "nextval").map(unreviewedFunction));
}

function unreviewedFunction(name: string): FunctionInfo {
  return builtinFunction("pg_catalog expression", name);
}

/** The bits of pg_trigger.tgtype: https://github.com/postgres/postgres/blob/REL_18_STABLE/src/include/catalog/pg_trigger.h */
const eventBits = [
  [4, "insert"],
  [8, "delete"],
  [16, "update"],
  [32, "truncate"],
] as const;

function eventsOf(type: number): ("insert" | "update" | "delete" | "truncate")[] {
  return eventBits.filter(([bit]) => (type & bit) !== 0).map(([, event]) => event);
}

/** The statements of a SQL-standard body, ready to be parsed: without BEGIN ATOMIC … END, SELECT for RETURN. */
function statementsOf(body: string): string {
  const atomic = /^\s*BEGIN ATOMIC\b([\s\S]*)\bEND\s*$/.exec(body);
  if (atomic?.[1] !== undefined) return atomic[1].trim();
  return body.replace(/^\s*RETURN\b/, "SELECT");
}

function withoutSemicolon(definition: string): string {
  return definition.trim().replace(/;$/, "");
}

function push<Key, Value>(map: Map<Key, Value[]>, key: Key, value: Value): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}
