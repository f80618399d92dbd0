/**
 * What SQL analysis asks of a live session: names to things. The gateway answers from the catalog and the session's
 * own uncommitted changes; tests answer from a table. Every answer is synchronous: the catalog is in memory.
 */
import type { ColumnDefinition } from "../masking/definitions.ts";
import type { CommandPart, ObjectRef } from "../model.ts";

/** What a relation is, as pg_class tells kinds apart. */
export type RelationKind =
  | "table"
  | "partitionedTable"
  | "view"
  | "materializedView"
  | "foreignTable"
  | "sequence"
  | "index"
  | "compositeType";

/** A relation and everything that reading or writing it reaches without being named in the statement. */
export interface RelationInfo {
  readonly schema: string;
  readonly name: string;
  readonly kind: RelationKind;
  readonly temporary: boolean;
  readonly columns: readonly string[];
  /** True where it may have others than these, or in another order: it was made or altered by what no catalog shows yet. */
  readonly hasUnsureColumns?: true;
  /** True where a body may have made it in this transaction, or not: its name then means what it would mean without it. */
  readonly mayBeMissing?: true;
  /** `SELECT …` of a view or materialized view, as pg_get_viewdef prints it (all names qualified). */
  readonly definition?: string;
  /** Relations and functions a view or rule reads: qualified, found through pg_depend. */
  readonly reads: readonly ObjectRef[];
  /** Inheritance children and partitions, qualified names. */
  readonly children: readonly string[];
  /** What it inherits from or is a partition of, qualified names; absent: not known to have any. */
  readonly parents?: readonly string[];
  /** Generated columns, each with the columns of the same table that it is computed from; absent: none. */
  readonly generated?: ReadonlyMap<string, readonly string[]>;
  /** Columns that one constraint, unique index or generated column takes together; absent: none. */
  readonly bound?: readonly (readonly string[])[];
  /** Tables that a DELETE or key UPDATE here changes through ON DELETE/UPDATE CASCADE, SET NULL, SET DEFAULT. */
  readonly cascades: readonly { readonly relation: string; readonly on: "delete" | "update" }[];
  /** Functions that fire on a write, by event. */
  readonly triggers: readonly {
    readonly events: readonly ("insert" | "update" | "delete" | "truncate")[];
    readonly function: FunctionInfo;
    /** True where it may be put off to the end of the transaction. */
    readonly isDeferrable?: true;
  }[];
  /** True where a rewrite rule other than a view's own SELECT rule exists: writes to it are opaque. */
  readonly hasRules: boolean;
  /** Functions run by row security policies, defaults, checks and generated columns (not pg_catalog ones). */
  readonly functions: readonly FunctionInfo[];
  /** Of those, the ones that a mere read runs (row security); absent: a read is taken to run them all. */
  readonly readFunctions?: readonly FunctionInfo[];
}

/** A function that SQL may call, with what tells what a call does. */
export interface FunctionInfo {
  readonly schema: string;
  readonly name: string;
  /** `sql`, `plpgsql`, `internal`, `c` or another language's name. */
  readonly language: string;
  /** Source text for sql and plpgsql; for BEGIN ATOMIC bodies what pg_get_functiondef prints after RETURN or BEGIN. */
  readonly body?: string;
  readonly securityDefiner: boolean;
  /** `SET name = value` clauses of the function. */
  readonly settings: readonly string[];
  /** Its parameters and the columns of its result that have names, in order; absent: not known. */
  readonly parameters?: readonly { readonly name: string; readonly isResult: boolean }[];
  /** True for code of a known extension that does nothing but compute from its arguments. */
  readonly isReviewed?: true;
  /** The types of the columns of its result; those outside pg_catalog with a schema before them. Absent: not known. */
  readonly returns?: readonly string[];
  /** The relation whose rows it returns, as `schema.name`. */
  readonly returnsRow?: string;
  /** What the types of its parameters and result run (checks of domains), and the defaults of its parameters. */
  readonly runs?: readonly FunctionInfo[];
}

/** A type, with what values of it run. */
export interface TypeInfo {
  readonly schema: string;
  readonly name: string;
  /** Functions that a cast to it runs and that are not in pg_catalog (domain checks, input functions, casts). */
  readonly functions: readonly FunctionInfo[];
  /** As of a relation. */
  readonly mayBeMissing?: true;
}

/** A statement that the session has prepared under a name. */
export interface PreparedInfo {
  readonly parts: readonly CommandPart[];
  readonly text: string;
  /** Set where the server has a utility statement that must fail in its place: what EXECUTE is answered. */
  readonly rejection?: {
    readonly sqlstate: string;
    readonly message: string;
    readonly detail?: string;
    readonly hint?: string;
    readonly position?: number;
  };
}

/** What names mean to the session at this moment. */
export interface NameResolver {
  /** Changes whenever any answer may change; part of the key of every cached decision. */
  readonly version: number;
  /** True where what a text has changed so far lies over the names of that version. */
  readonly isAltered?: boolean;
  /** The schemas that unqualified names are looked up in, pg_catalog and pg_temp made explicit; undefined if unknown. */
  readonly searchPath: readonly string[] | undefined;
  /** Those, and all others that the server may come to look in: closed to the account now, or of a role it has moved to. */
  readonly possiblePath?: readonly string[] | undefined;
  /** True where something that is left to run in this transaction may change the path. */
  readonly isPathLate?: boolean;
  /** True where code of an earlier statement may still run in this transaction, by the names of then. */
  readonly runsLater?: boolean;
  /** True where the session may run as another role than it began as: what it may enter is not known. */
  readonly hasMovedRole?: boolean;
  /**
   * True where moving to that role, or resetting it (undefined), leads to the one that the session began as, and so changes
   * no rights. Absent: nobody knows.
   */
  leadsBack?(role: string | undefined): boolean;
  /** False while the catalog is too old or missing to answer. */
  readonly isFresh: boolean;
  relation(schema: string | undefined, name: string): RelationInfo | undefined;
  /** Names of the relations in a schema, for statements that change all of them at once. */
  relationsIn?(schema: string): readonly string[];
  /** The schemas that have a relation or a function of that name, for what may be looked up along another path. */
  schemasWith?(name: string): readonly string[];
  /** Every overload that the name may mean, pg_catalog ones included (language `internal`). */
  functions(schema: string | undefined, name: string): readonly FunctionInfo[];
  /** What this transaction, or the text before, has made under that name: a function that is bound elsewhere may be it by now. */
  madeFunctions?(schema: string, name: string): readonly FunctionInfo[];
  /** True where no schema has a function of that name but pg_catalog, so that it means that one along any path. */
  isBuiltinAlone?(name: string): boolean;
  /** Functions behind operators of that name outside pg_catalog that the name may mean here. */
  operatorFunctions(schema: string | undefined, operator: string): readonly FunctionInfo[];
  type(schema: string | undefined, name: string): TypeInfo | undefined;
  schemaExists(name: string): boolean;
  /** True where a body may have made that schema in this transaction, or not. */
  schemaMayBeMissing?(name: string): boolean;
  /** True where something may have got the name of what may be missing: nothing is known then to be what a body made. */
  readonly hasMovedNames?: boolean;
  /** By relation, as `schema.name`: of which columns the catalog keeps literals; absent: of none that is known. */
  readonly definitions?: ReadonlyMap<string, readonly ColumnDefinition[]>;
  /** By relation, as `schema.name`: what expressions of its indexes and statistics call; absent: nothing that is known. */
  readonly upkeep?: ReadonlyMap<string, readonly FunctionInfo[]>;
  /** True where code that nobody knows may hang on temporary relations of the session. */
  readonly hasTemporaryCode?: boolean;
  /** SQL or wire prepared statement; undefined where the session has none of that name. */
  prepared(name: string): PreparedInfo | undefined;
}

/** The relation of that name, given as `schema.name`. */
export function relationNamed(names: NameResolver, name: string): RelationInfo | undefined {
  const dot = name.indexOf(".");
  return dot < 0 ? undefined : names.relation(name.slice(0, dot), name.slice(dot + 1));
}

/** The names of what the relation inherits from or is a partition of, and of theirs: its rows are theirs, too. */
export function ancestorsOf(names: NameResolver, relation: RelationInfo): ReadonlySet<string> {
  const found = new Set(relation.parents);
  for (const name of found) for (const parent of relationNamed(names, name)?.parents ?? []) found.add(parent);
  return found;
}

/** Every schema that an unqualified name may come to be looked up in. */
export function possiblePath(names: NameResolver): readonly string[] {
  return names.possiblePath ?? names.searchPath ?? [];
}

/** The relations of that name in these schemas. */
export function namesakes(
  names: NameResolver,
  schemas: Iterable<string>,
  name: string,
): readonly RelationInfo[] {
  const found: RelationInfo[] = [];
  for (const schema of schemas) {
    const relation = names.relation(schema, name);
    if (relation !== undefined) found.push(relation);
  }
  return found;
}
