/** Statements that make relations, and schemas with what is in them. */
import type { ObjectRef } from "../model.ts";
import type { SessionEffect } from "./analysis.ts";
import { bindsCode, defineWhatIsRead, inheritsCode, isSerial, leanOn, walkRunning } from "./bound-code.ts";
import { type Handler, isTemporary, newName, schemaOf } from "./defined-objects.ts";
import { NameOverlay } from "./overlay.ts";
import { areColumnsSure, onCommitOf, resultColumns } from "./queries.ts";
import { Rejected } from "./rejection.ts";
import { findRelation, searchPathKnown } from "./relations.ts";
import { listOf, nodeOf, stringsOf, type TreeNode, tagOf, textOf } from "./tree.ts";
import { type Scope, scopeBelow, type Walk } from "./walk.ts";

type MadeKind = (SessionEffect & { kind: "createRelation" })["relationKind"];

function makeRelation(
  walk: Walk,
  made: {
    readonly word: string;
    readonly rangeVar: TreeNode;
    readonly kind: MadeKind;
    readonly columns: readonly string[];
    readonly reads?: readonly ObjectRef[];
    readonly hasCode?: boolean;
    readonly hasUnsureColumns?: boolean;
    /** The node that says ON COMMIT, where the statement can. */
    readonly onCommit?: TreeNode;
  },
): void {
  const { word, rangeVar, kind, columns, reads, onCommit, hasCode, hasUnsureColumns } = made;
  const name = textOf(rangeVar, "relname");
  const temporary = isTemporary(rangeVar);
  const schema = schemaOf(rangeVar);
  const shown = temporary ? `pg_temp.${name}` : newName(walk, schema, name, rangeVar.location);
  walk.add("define", word, [walk.object("relation", shown)]);
  walk.effects.push(
    {
      kind: "createRelation",
      ...(schema === undefined || temporary ? {} : { schema }),
      name,
      temporary,
      relationKind: kind,
      columns,
      ...(reads === undefined ? {} : { reads }),
      ...(hasCode === true ? { hasCode } : {}),
      ...(hasUnsureColumns === true ? { hasUnsureColumns } : {}),
      ...(temporary ? { onCommit: onCommitOf(onCommit) } : {}),
    },
    { kind: "catalogChanged" },
  );
}

/** CREATE TABLE and its kin; tables that it leans on (LIKE, INHERITS, REFERENCES, PARTITION OF) are named too. */
export function createRelation(word: string, kind: MadeKind, field = "relation"): Handler {
  return (walk, node) => {
    const columns = listOf(node, "tableElts")
      .map((item) => textOf(nodeOf(item, "ColumnDef"), "colname"))
      .filter((column) => column !== "");
    const rangeVar = nodeOf(node, field) ?? {};
    const { relation: _own, sequence: _sequence, ...rest } = node;
    leanOn(walk, rest, word);
    // Bounds of a partition are computed when it is made.
    walkRunning(walk, node.partbound, scopeBelow(undefined, word));
    const hasCode = bindsCode(walk, word, rest) || inheritsCode(walk, rest);
    // Its rows are those of what it inherits from.
    const parents = listOf(node, "inhRelations").flatMap((item) => {
      const found = findRelation(walk, nodeOf(item, "RangeVar") ?? {});
      return found === undefined ? [] : [{ ...walk.relationObject(found), direct: false }];
    });
    const reads = parents.length === 0 ? {} : { reads: parents };
    const hasUnsureColumns =
      parents.length > 0 ||
      node.ofTypename !== undefined ||
      listOf(node, "tableElts").some((item) => tagOf(item) === "TableLikeClause");
    makeRelation(walk, {
      word,
      rangeVar,
      kind,
      columns,
      onCommit: node,
      hasCode,
      hasUnsureColumns,
      ...reads,
    });
    for (const item of listOf(node, "tableElts"))
      ownSequence(walk, rangeVar, nodeOf(item, "ColumnDef"), word);
    return word;
  };
}

/**
 * A serial or identity column brings a sequence of its own. Perhaps: where its name is taken, or as long as names may be,
 * the server finds another.
 */
export function ownSequence(
  walk: Walk,
  rangeVar: TreeNode,
  column: TreeNode | undefined,
  word: string,
): void {
  if (column === undefined || !(isSerial(word, column) || isIdentity(column))) return;
  const schema = schemaOf(rangeVar);
  const temporary = isTemporary(rangeVar);
  const made = {
    ...({ kind: "createRelation", relationKind: "sequence", temporary } as const),
    ...(schema === undefined || temporary ? {} : { schema }),
    name: `${textOf(rangeVar, "relname")}_${textOf(column, "colname")}_seq`,
    columns: ["last_value", "log_cnt", "is_called"],
  };
  walk.effects.push({ kind: "perhaps", made });
}

function isIdentity(column: TreeNode): boolean {
  return listOf(column, "constraints").some(
    (item) => textOf(nodeOf(item, "Constraint"), "contype") === "CONSTR_IDENTITY",
  );
}

/**
 * CREATE VIEW runs nothing, but opens its tables to whoever reads it: they are objects of the definition, so that
 * an Allow rule must cover them as well.
 */
export function createView(walk: Walk, node: TreeNode): string {
  const word = "CREATE VIEW";
  const rangeVar = nodeOf(node, "view") ?? {};
  const query = nodeOf(node, "query") ?? {};
  const { result: scope, reads } = defineWhatIsRead(walk, word, (inner) => {
    const tag = tagOf(query) ?? "";
    return inner.walkers.query(inner, tag, nodeOf(query, tag) ?? {}, undefined);
  });
  const aliases = stringsOf(listOf(node, "aliases"));
  const columns = aliases.length > 0 ? aliases : resultColumns(nodeOf(query, "SelectStmt") ?? {}, scope);
  const hasUnsureColumns = !isNamedWhole(nodeOf(query, "SelectStmt") ?? {}, aliases, scope);
  makeRelation(walk, { word, rangeVar, kind: "view", columns, reads, hasUnsureColumns });
  if (isTemporary(rangeVar) || schemaOf(rangeVar) !== undefined) return word;
  // A view of temporary relations is one itself, whatever the statement says.
  if (reads.some(({ kind, name }) => kind === "relation" && name.startsWith("pg_temp."))) {
    const made = walk.effects.findLast((effect) => effect.kind === "createRelation");
    if (made !== undefined) walk.effects.push({ kind: "perhaps", made: { ...made, temporary: true } });
  }
  return word;
}

/** True where the list of names, or else the query, tells all columns. */
function isNamedWhole(query: TreeNode, names: readonly string[], scope: Scope | undefined): boolean {
  const isSure = areColumnsSure(query, scope);
  return isSure && (names.length === 0 || names.length === resultColumns(query, scope).length);
}

/** CREATE TABLE AS and CREATE MATERIALIZED VIEW: a definition, and a read of the query. */
export function createTableAs(walk: Walk, node: TreeNode): string {
  const isView = textOf(node, "objtype") === "OBJECT_MATVIEW";
  const word = isView ? "CREATE MATERIALIZED VIEW" : "CREATE TABLE AS";
  const into = nodeOf(node, "into") ?? {};
  const rangeVar = nodeOf(into, "rel") ?? {};
  const query = nodeOf(node, "query") ?? {};
  const tag = tagOf(query) ?? "";
  const named = stringsOf(listOf(into, "colNames"));
  let columns = named;
  let hasUnsureColumns = true;
  walk.within({ words: [...walk.frame.words, word] }, () => {
    if (tag === "ExecuteStmt") walk.walkers.statement(walk, query, "");
    else {
      const scope = walk.walkers.query(walk, tag, nodeOf(query, tag) ?? {}, undefined);
      const select = nodeOf(query, "SelectStmt") ?? {};
      if (columns.length === 0) columns = resultColumns(select, scope);
      hasUnsureColumns = !isNamedWhole(select, named, scope);
    }
  });
  // EXPLAIN without ANALYZE makes nothing.
  if (walk.frame.isPlanOnly) return word;
  makeRelation(walk, {
    word,
    rangeVar,
    kind: isView ? "materializedView" : "table",
    columns,
    hasUnsureColumns,
    onCommit: into,
  });
  return word;
}

/** CREATE SCHEMA, whose elements are statements of their own inside it. */
export function createSchema(walk: Walk, node: TreeNode): string {
  const role = nodeOf(node, "authrole");
  const given = textOf(node, "schemaname") || textOf(role, "rolename");
  const name = given || "current_user";
  walk.add("define", "CREATE SCHEMA", [walk.object("schema", name)]);
  if (role !== undefined)
    walk.add("privilege", "CREATE SCHEMA", [walk.object("role", textOf(role, "rolename"))]);
  const effect: SessionEffect = { kind: "createSchema", name };
  walk.effects.push(effect, { kind: "catalogChanged" });
  const elements = elementsInOrder(given, listOf(node, "schemaElts"));
  if (elements.length > 0) {
    walk.names.apply(effect);
    schemaElements(walk, name, elements);
  }
  return "CREATE SCHEMA";
}

/**
 * The elements of CREATE SCHEMA as the server makes them, whatever their order: a view may stand before its table. `schema`
 * is "" where it is called like the session's own role, which only the server knows.
 */
function elementsInOrder(schema: string, elements: readonly TreeNode[]): readonly TreeNode[] {
  const placed = elements.map((element) => {
    const tag = tagOf(element) ?? "";
    const node = nodeOf(element, tag) ?? {};
    const other = schemaOf(nodeOf(node, elementNames[tag] ?? "") ?? node);
    if (other !== undefined && schema !== "" && other !== schema) {
      const message = `CREATE specifies a schema (${other}) different from the one being created (${schema})`;
      throw new Rejected({ sqlstate: "42P15", message }, true);
    }
    return { element, place: Object.keys(elementNames).indexOf(tag) };
  });
  const last = Object.keys(elementNames).length;
  const at = (place: number) => (place < 0 ? last : place);
  return placed.sort((a, b) => at(a.place) - at(b.place)).map(({ element }) => element);
}

/** What CREATE SCHEMA may hold, in the order in which it is made, with the field of its name; GRANT comes last. */
const elementNames: Readonly<Record<string, string>> = {
  CreateSeqStmt: "sequence",
  CreateStmt: "relation",
  ViewStmt: "view",
  IndexStmt: "relation",
  CreateTrigStmt: "relation",
};

/** Elements are made in the new schema, and look there first. */
function schemaElements(walk: Walk, schema: string, elements: readonly TreeNode[]): void {
  searchPathKnown(walk, undefined);
  const before = walk.effects.length;
  walk.withNames(new NameOverlay(walk.names), [schema, ...(walk.names.searchPath ?? [])], () => {
    for (const element of elements) {
      const known = walk.effects.length;
      walk.walkers.statement(walk, element, "");
      for (const effect of walk.effects.slice(known)) walk.names.apply(effect);
    }
  });
  for (const made of walk.effects.splice(before)) {
    const isPlaceless = made.kind === "createRelation" && !made.temporary && made.schema === undefined;
    walk.effects.push(isPlaceless ? { ...made, schema } : made);
  }
}
