/** Relations: found by name, read with all that a view reads, written with all that a write sets off. */
import type { CommandPart, ObjectRef } from "../model.ts";
import type { BehindName } from "./analysis.ts";
import {
  ancestorsOf,
  type FunctionInfo,
  namesakes,
  possiblePath,
  type RelationInfo,
  relationNamed,
} from "./names.ts";
import { parseDefinition } from "./parser.ts";
import { Rejected, settingPinned } from "./rejection.ts";
import { nodeOf, type TreeNode, tagOf, textOf } from "./tree.ts";
import { relationName, scopeBelow, type Walk } from "./walk.ts";

/** What a trigger can be for. */
export type WriteEvent = "insert" | "update" | "delete" | "truncate";

/** A write to a relation. */
interface Write {
  readonly event: WriteEvent;
  readonly word: string;
  readonly unbounded: boolean;
  /** Said of rows that are there: which ones a condition finds, and what errors quote of them, tells what they hold. */
  readonly looks?: boolean;
}

/** Catalogs that hold secrets or samples of other tables' values: reading them is a privilege. */
const guardedCatalogs = new Set(
  `pg_authid pg_shadow pg_hba_file_rules pg_ident_file_mappings pg_file_settings pg_user_mapping
  pg_user_mappings pg_statistic pg_stats pg_statistic_ext_data pg_stats_ext pg_stats_ext_exprs pg_largeobject
  pg_subscription pg_foreign_server pg_config pg_backend_memory_contexts pg_shmem_allocations
  pg_db_role_setting`.split(/\s+/),
);

/** Views of information_schema that show the options of foreign servers and user mappings, passwords included. */
const guardedViews = new Set([
  "_pg_foreign_servers",
  "_pg_user_mappings",
  "foreign_server_options",
  "user_mapping_options",
]);

/** Refuses to look an unqualified name up while the session's search_path is not known. */
export function searchPathKnown(walk: Walk, schema: string | undefined): void {
  if (!walk.names.isFresh) {
    throw new Rejected({
      sqlstate: "57P03",
      message: "the gateway cannot read the server's catalog right now",
    });
  }
  if (walk.names.isUnknown) {
    throw new Rejected(
      {
        sqlstate: "0A000",
        message: "the gateway cannot tell what names mean after the statements before",
        hint: "Send this statement in a message of its own.",
      },
      true,
    );
  }
  if (schema === undefined && walk.names.searchPath === undefined) {
    throw new Rejected(
      {
        sqlstate: "0A000",
        message: "the gateway does not know this session's search_path",
        hint: "Qualify every name with its schema, or SET search_path to a literal list in a statement of its own.",
      },
      true,
    );
  }
}

/** The relation that a RangeVar names; 42P01 where there is none, with a position only in queries, as the server does. */
export function relationOf(walk: Walk, rangeVar: TreeNode, isQuery = false): RelationInfo {
  const found = findRelation(walk, rangeVar);
  if (found !== undefined) return found;
  const schema = rangeVar.schemaname === undefined ? undefined : textOf(rangeVar, "schemaname");
  const name = textOf(rangeVar, "relname");
  const shown = schema === undefined ? name : `${schema}.${name}`;
  const location = rangeVar.location;
  throw new Rejected(
    {
      sqlstate: "42P01",
      message: `relation "${shown}" does not exist`,
      // A byte offset for now; `analyseSql` turns it into a character position.
      ...(isQuery && typeof location === "number" && walk.isDirect ? { position: location } : {}),
    },
    true,
  );
}

/** The relation that a RangeVar names, or undefined. */
export function findRelation(walk: Walk, rangeVar: TreeNode): RelationInfo | undefined {
  const schema = rangeVar.schemaname === undefined ? undefined : textOf(rangeVar, "schemaname");
  searchPathKnown(walk, schema);
  const name = textOf(rangeVar, "relname");
  const found = walk.names.relation(schema, name);
  // The name may be that of a relation that was there before, and that rules know by another.
  if (found?.mayBeMissing === true && walk.names.hasMovedNames) return undefined;
  if (found !== undefined && schema === undefined) lookBehind(walk, found, name);
  return found;
}

/**
 * What the name would mean without the relation that it means now. Nobody drops a system catalog, and no other session a
 * temporary relation; whether this one has is known. But a plan is not made anew for a temporary relation that is newer.
 */
function lookBehind(walk: Walk, found: RelationInfo, name: string): void {
  if (isSystem(found) || (found.temporary && !walk.frame.isKept)) return;
  for (const other of namesakes(walk.names, possiblePath(walk.names), name)) {
    if (other.schema === found.schema || other.temporary) continue;
    const of = relationName(found);
    const others = walk.behind.get(of) ?? new Map<string, RelationInfo>();
    walk.behind.set(of, others.set(relationName(other), other));
  }
}

/** The parts of a statement once more, for each relation that another one stands behind. */
export function partsBehind(walk: Walk, parts: readonly CommandPart[]): readonly BehindName[] {
  return [...walk.behind].map(([name, others]) => {
    const first: ObjectRef = { name, kind: "relation", direct: true };
    const isFirst = (object: ObjectRef) => object.kind === "relation" && object.name === name;
    const objects = [...others.values()].flatMap((other) => [
      { name: relationName(other), kind: "relation" as const, direct: true },
      ...ancestors(walk, other),
      ...other.children.map(indirectRelation),
      ...other.reads.map((read) => ({ ...read, direct: false })),
    ]);
    const concerned = parts.filter((part) => part.objects.some(isFirst));
    return {
      first,
      parts: concerned.map((part) => ({
        ...part,
        objects: [...part.objects.filter((object) => !isFirst(object)), ...objects],
      })),
      isLikely: walk.names.hasMovedRole || name.startsWith("pg_temp."),
    };
  });
}

/** Records a read of the relation and of everything behind it. */
export function readRelation(walk: Walk, relation: RelationInfo, word: string, onlyItself = false): void {
  const object = walk.relationObject(relation);
  if (relation.definition !== undefined) walk.reached.add(relation);
  if (isGuarded(relation)) {
    walk.add("privilege", word, [object]);
    return;
  }
  const indirect: ObjectRef[] = onlyItself ? [] : relation.children.map((name) => indirectRelation(name));
  indirect.push(...ancestors(walk, relation));
  if (!isSystem(relation)) {
    indirect.push(...relation.reads.map((read) => ({ ...read, direct: false })));
    for (const guarded of indirect) {
      if (isGuardedName(guarded.name)) walk.add("privilege", word, [object, guarded]);
    }
  }
  walk.add("read", word, indirect.length === 0 ? [object] : [object, ...indirect]);
  if (relation.kind === "view" && !isSystem(relation)) readDefinition(walk, relation, word);
  runFunctions(walk, relation.readFunctions ?? relation.functions, object, word);
}

/** Records a write and what it sets off: triggers, cascades, rules, checks, and the tables behind a view. */
export function writeRelation(walk: Walk, relation: RelationInfo, write: Write): void {
  const { event, word, unbounded, looks } = write;
  const object = walk.relationObject(relation);
  if (relation.definition !== undefined) walk.reached.add(relation);
  if (walk.frame.isPlanOnly) {
    walk.add("read", word, [object]);
    return;
  }
  const triggers = relation.triggers.filter((trigger) => trigger.events.includes(event));
  const isPassedOn = relation.kind === "view" && triggers.length === 0;
  const behind = [
    ...relation.children.map((name) => indirectRelation(name)),
    ...ancestors(walk, relation),
    // A table renamed in this transaction reads as its old name, so that rules about that one hold.
    ...(isPassedOn || relation.kind === "table" || relation.kind === "partitionedTable"
      ? relation.reads.filter((read) => read.kind === "relation")
      : []),
    ...triggers.map((trigger) => functionObject(trigger.function)),
  ].map((read) => ({ ...read, direct: false }));
  // Writing the catalog itself is a move of the superuser.
  const isCatalog = relation.schema === "pg_catalog";
  if (isCatalog && relation.name === "pg_settings") throw settingPinned("pg_settings");
  walk.add(isCatalog ? "privilege" : "write", word, [object, ...behind], {
    unbounded,
    looks: looks === true && !isCatalog,
  });
  if (isCatalog) {
    // Rows of the catalog are what names and code are: after this nobody can tell what the next statement does.
    walk.addOpaque(word, [object]);
    walk.effects.push({ kind: "catalogChanged", code: "everything" });
  }
  walk.below(`write ${event} ${relationName(relation)}`, object, word, () => {
    if (isPassedOn) writeBehindView(walk, relation, write);
    for (const cascade of relation.cascades) {
      if (cascade.on === event) writeCascade(walk, cascade.relation, word);
    }
  });
  if (relation.hasRules) walk.addOpaque(word, [object]);
  const isAtOnce = triggers.every(({ isDeferrable }) => isDeferrable !== true);
  walk.late(
    () =>
      runFunctions(
        walk,
        triggers.map((trigger) => trigger.function),
        object,
        word,
      ),
    isAtOnce,
  );
  runFunctions(walk, relation.functions, object, word);
}

/** A function as an object of its full name. */
export function functionObject(info: FunctionInfo): ObjectRef {
  return { name: `${info.schema}.${info.name}`, kind: "function", direct: false };
}

/** Judges functions that run because of what is done to an object. */
export function runFunctions(
  walk: Walk,
  functions: readonly FunctionInfo[],
  object: ObjectRef,
  word: string,
): void {
  if (functions.length === 0) return;
  walk.below(`functions ${object.name}`, object, word, () => {
    for (const info of functions) walk.walkers.functionInfo(walk, info, word);
  });
}

function writeBehindView(walk: Walk, view: RelationInfo, write: Write): void {
  for (const read of view.reads) {
    if (read.kind !== "relation") continue;
    const base = relationNamed(walk.names, read.name);
    if (base !== undefined) writeRelation(walk, base, write);
  }
}

function writeCascade(walk: Walk, name: string, word: string): void {
  const relation = relationNamed(walk.names, name);
  if (relation === undefined) {
    walk.add("write", word, [indirectRelation(name)]);
    return;
  }
  // The server may delete or update the rows that hang on it: both events count.
  for (const event of ["delete", "update"] as const) {
    writeRelation(walk, relation, { event, word, unbounded: false });
  }
}

function readDefinition(walk: Walk, view: RelationInfo, word: string): void {
  const definition = view.definition;
  const object = walk.relationObject(view);
  if (definition === undefined) {
    // Functions behind a view that was made a moment ago: known by name, but nobody has read them yet.
    if (view.reads.some((read) => read.kind === "function")) walk.addOpaque(word, [object]);
    return;
  }
  walk.below(`view ${relationName(view)}`, object, word, () => {
    walk.within({ isBody: true }, () => {
      try {
        for (const statement of parseDefinition(definition)) {
          const tag = tagOf(statement.node) ?? "";
          const inner = nodeOf(statement.node, tag);
          if (inner !== undefined) walk.walkers.query(walk, tag, inner, scopeBelow(undefined, word));
        }
      } catch (error) {
        if (!(error instanceof Rejected) || !(error.isName || error.rejection.sqlstate === "42601"))
          throw error;
        walk.addOpaque(word, []);
      }
    });
  });
}

function isSystem(relation: RelationInfo): boolean {
  return relation.schema === "pg_catalog" || relation.schema === "information_schema";
}

function isGuarded(relation: RelationInfo): boolean {
  if (relation.schema === "information_schema") return guardedViews.has(relation.name);
  return relation.schema === "pg_catalog" && guardedCatalogs.has(relation.name);
}

function isGuardedName(name: string): boolean {
  return name.startsWith("pg_catalog.") && guardedCatalogs.has(name.slice("pg_catalog.".length));
}

/** What is denied of them holds for their parts. */
function ancestors(walk: Walk, relation: RelationInfo): readonly ObjectRef[] {
  return [...ancestorsOf(walk.names, relation)].map(indirectRelation);
}

function indirectRelation(name: string): ObjectRef {
  return { name, kind: "relation", direct: false };
}
