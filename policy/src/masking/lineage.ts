/**
 * Lineage: for one statement, which masked columns each column of its rows shows, and every other way in which the
 * statement would tell of, change or carry away a masked value. Pure; fails closed: what cannot be followed is a
 * finding.
 */

import type { CommandPart } from "../model.ts";
import type { SessionEffect } from "../sql/analysis.ts";
import { builtinEffect, isReadBuiltin, readsNoRow } from "../sql/builtin-functions.ts";
import { leadsElsewhere } from "../sql/foreign-tables.ts";
import {
  type FunctionInfo,
  type NameResolver,
  namesakes,
  possiblePath,
  type RelationInfo,
  relationNamed,
} from "../sql/names.ts";
import { parseStatements } from "../sql/parser.ts";
import { parseSearchPath } from "../sql/search-path-value.ts";
import {
  eachNode,
  isNode,
  listOf,
  namesOf,
  nodeOf,
  qualifiedOf,
  stringConstantOf,
  stringsOf,
  type TreeNode,
  tagOf,
  textOf,
} from "../sql/tree.ts";
import { relationName } from "../sql/walk.ts";
import { printedIn } from "./definitions.ts";
import { condition, flowOf } from "./expressions.ts";
import { clean, derivedFrom, exactly, type Flow, isTainted } from "./flow.ts";
import { rangeVar, relationEntry } from "./from.ts";
import { followedBody } from "./function-bodies.ts";
import type { LineageFinding, StatementLineage, TracedRows } from "./model.ts";
import { takesObjectIds } from "./object-ids.ts";
import { traceQuery } from "./queries.ts";
import { isNameBehindOperator } from "./safe-functions.ts";
import { allOf, itemOf, levelBelow, type MaskedColumns, type RangeEntry, Trace } from "./trace.ts";

/** Stands for every masked column, where nobody can tell which. */
export const anyColumn = "*";

const nothing: TracedRows = { columns: [] };
const queryTags = new Set(["SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"]);

/** Follows one statement that analysis has accepted; `parts` and the rest are what it found. */
export function lineageOf(
  statement: TreeNode,
  parts: readonly CommandPart[],
  names: NameResolver,
  masked: MaskedColumns,
  found: {
    readonly effects?: readonly SessionEffect[];
    /** The statements of bodies that it may run. */
    readonly inBodies?: readonly TreeNode[];
  } = {},
): StatementLineage {
  if (masked.isEmpty) return { rows: nothing, findings: [], touches: false };
  const trace = new Trace({ names, masked, query: traceQuery, body: followedBody, reach: functionReach });
  const result = statementRows(trace, statement, parts);
  const { effects = [], inBodies = [] } = found;
  createdFunctions(trace, [statement, ...inBodies], effects);
  for (const inside of inBodies) {
    const tag = tagOf(inside) ?? "";
    defined(trace, tag, nodeOf(inside, tag) ?? {}, tagOf(statement) === "DoStmt" ? "DO" : "a function");
  }
  if (trace.unsure.size > 0 && readsMasked(trace, parts)) {
    const where = `a statement with ${[...trace.unsure].join(", ")}, whose columns are not sure,`;
    trace.find("opaque", exactly(anyColumn), where);
  }
  const findings = unique(trace.findings);
  const touches = findings.length > 0 || isTainted(allOf(result.rows)) || touchesMasked(trace, parts);
  const runsCode = parts.some(({ objects }) =>
    objects.some(({ kind, name }) => kind === "function" && !name.startsWith("pg_catalog.")),
  );
  const namesMasked = isTainted(trace.seen) || trace.followedFunctions.size > 0;
  return {
    ...result,
    findings,
    touches,
    ...(namesMasked ? { namesMasked } : {}),
    ...(runsCode ? { runsCode } : {}),
    ...(trace.stars > 1 ? { mayShift: true } : {}),
  };
}

type Rows = Omit<StatementLineage, "findings" | "touches" | "namesMasked" | "runsCode" | "mayShift">;

/** True where masked values may take part in the statement, whether its rows show them or not. */
function touchesMasked(trace: Trace, parts: readonly CommandPart[]): boolean {
  return parts.some((part) => part.enforcement === "heuristic") || readsMasked(trace, parts);
}

function readsMasked(trace: Trace, parts: readonly CommandPart[]): boolean {
  const names = new Set([...relationsOf(parts), ...trace.followed]);
  for (const name of names) {
    const relation = relationNamed(trace.names, name);
    if (relation !== undefined && trace.masked.of(relation, trace.names) !== undefined) return true;
  }
  return false;
}

function statementRows(trace: Trace, wrapped: TreeNode, parts: readonly CommandPart[]): Rows {
  const tag = tagOf(wrapped) ?? "";
  const node = nodeOf(wrapped, tag) ?? {};
  const rows = followed(trace, tag, node);
  if (rows === undefined) {
    definition(trace, { tag, node, parts });
    return { rows: nothing };
  }
  unfollowed(trace, parts);
  return rows;
}

/** The rows of a statement that reads; undefined for all others. */
function followed(trace: Trace, tag: string, node: TreeNode): Rows | undefined {
  if (queryTags.has(tag)) return { rows: traceQuery(trace, tag, node, undefined) };
  switch (tag) {
    case "CopyStmt":
      return { rows: copy(trace, node) };
    case "ExplainStmt":
      explain(trace, node);
      return { rows: nothing };
    case "PrepareStmt":
      return { rows: prepared(trace, node) };
    case "ExecuteStmt":
      // What is given stands in the rows and in the plan, where nobody follows it.
      trace.find("opaque", flowOf(trace, node.params, undefined), "EXECUTE");
      return { rows: executed(trace, textOf(node, "name")) };
    case "DeclareCursorStmt":
      return { rows: inner(trace, node), declares: textOf(node, "portalname") };
    case "FetchStmt":
      return { rows: nothing, fetches: textOf(node, "portalname") };
    case "CreateTableAsStmt":
      trace.find("store", allOf(inner(trace, node)), "CREATE TABLE AS");
      return { rows: nothing };
    case "ViewStmt":
      // A view is followed wherever it is read; its author's conditions are the asker's own here.
      createdView(trace, nodeOf(node, "view"), inner(trace, node));
      return { rows: nothing };
    default:
      return undefined;
  }
}

/**
 * A plan shows conditions, which are findings, and no values but those that the planner has computed: what a function
 * gives that calls itself immutable, and the defaults of a row. Where it is run, it tells how much memory the values took.
 */
function explain(trace: Trace, node: TreeNode): void {
  inner(trace, node);
  for (const name of trace.followedFunctions) {
    const { schema, name: plain } = qualifiedOf(name.split("."));
    trace.find("opaque", trace.functionReach(schema, plain), `EXPLAIN of function ${name}`);
  }
  const isOn = (name: string) =>
    listOf(node, "options").some((item) => {
      const option = nodeOf(item, "DefElem");
      return textOf(option, "defname") === name && !isOff(nodeOf(option, "arg"));
    });
  if (isOn("verbose")) trace.find("opaque", trace.filled, "EXPLAIN VERBOSE");
  if (!isOn("analyze")) return;
  trace.infer(trace.seen, "EXPLAIN ANALYZE");
  // It counts the rows of each partition.
  for (const name of trace.followed) {
    const relation = relationNamed(trace.names, name);
    if (relation !== undefined) trace.infer(trace.placeOf(relation).all, "EXPLAIN ANALYZE");
  }
}

function isOff(value: TreeNode | undefined): boolean {
  const { String: text, Boolean: boolean, Integer: integer } = value ?? {};
  if (isNode(boolean)) return boolean.boolval !== true;
  if (isNode(integer)) return integer.ival === undefined || integer.ival === 0;
  return isNode(text) && /^(false|off)$/i.test(textOf(text, "sval"));
}

function inner(trace: Trace, node: TreeNode): TracedRows {
  const wrapped = nodeOf(node, "query") ?? {};
  const tag = tagOf(wrapped) ?? "";
  const query = nodeOf(wrapped, tag) ?? {};
  if (queryTags.has(tag)) return traceQuery(trace, tag, query, undefined);
  return followed(trace, tag, query)?.rows ?? nothing;
}

/**
 * Names are followed before a statement runs, and what they stand for may be replaced while it waits for a lock or for
 * the statements before it. So nobody to whom something is masked says what shows it, but to the own session.
 */
function createdView(trace: Trace, view: TreeNode | undefined, rows: TracedRows): void {
  const isTemporary =
    textOf(view, "relpersistence") === "t" || /^pg_temp(_\d+)?$/.test(textOf(view, "schemaname"));
  if (!isTemporary) trace.find("define", allOf(rows), "CREATE VIEW");
}

function createdFunctions(
  trace: Trace,
  statements: readonly TreeNode[],
  effects: readonly SessionEffect[],
): void {
  const nodes = statements
    .map((statement) => nodeOf(statement, "CreateFunctionStmt"))
    .filter((node) => node !== undefined);
  if (nodes.length === 0) return;
  for (const effect of effects) {
    const made = effect.kind === "perhaps" ? effect.made : effect;
    if (made.kind !== "createFunction") continue;
    for (const node of nodes)
      if (qualifiedOf(namesOf(node, "funcname")).name === made.name) createdFunction(trace, node, made);
  }
}

/**
 * A function that would give masked values, do anything with them, or that nobody can read: also by what its names mean along
 * another path than this, and with what it is given by statements and code of others that call it.
 */
function createdFunction(
  trace: Trace,
  node: TreeNode,
  made: Extract<SessionEffect, { kind: "createFunction" }>,
): void {
  const { body, language, name, securityDefiner } = made;
  const parameters = listOf(node, "parameters").map((item) => {
    const parameter = nodeOf(item, "FunctionParameter");
    const mode = textOf(parameter, "mode");
    return {
      name: textOf(parameter, "name"),
      isResult: /OUT$|TABLE$/.test(mode),
      isGiven: !/_OUT$|TABLE$/.test(mode),
    };
  });
  const info: FunctionInfo = {
    ...{ schema: made.schema ?? "", name, language, securityDefiner, parameters },
    ...(body === undefined ? {} : { body }),
    settings: pathSetting(node),
  };
  const where = node.is_procedure === true ? "CREATE PROCEDURE" : "CREATE FUNCTION";
  const isGiven = parameters.some((parameter) => parameter.isGiven);
  if (
    (isGiven && (isBuiltinName(trace, name) || !trace.onlyReads(info))) ||
    replacesTrigger(trace, node, made)
  )
    trace.find("define", exactly(anyColumn), where);
  trace.find("define", derivedFrom(reachElsewhere(trace, info)), where);
  const reach = language === "sql" || language === "plpgsql" ? bodyReach(trace, info) : [exactly(anyColumn)];
  if (reach.length === 0) return;
  // What it says of its conditions is found where it is called; here it is enough that it shows nothing.
  const alone = trace.apart();
  const rows = alone.body(alone, info);
  if (rows !== undefined && !isTainted(allOf(rows)) && alone.findings.length === 0) return;
  trace.find("define", derivedFrom(reach), where);
}

/** True where a call of a function of the server's own may come to mean one of that name. */
function isBuiltinName(trace: Trace, name: string): boolean {
  return trace.names.functions("pg_catalog", name).length > 0;
}

/** A trigger gets whole rows, of tables that may be masked and others' to write: what is there stays what it is. */
function replacesTrigger(
  trace: Trace,
  node: TreeNode,
  { schema, name }: Extract<SessionEffect, { kind: "createFunction" }>,
): boolean {
  const isTrigger = namesOf(nodeOf(node, "returnType"), "names").at(-1)?.endsWith("trigger") === true;
  return isTrigger && node.replace === true && trace.names.functions(schema, name).length > 0;
}

/** What a body may read of masked columns once its names are looked up along whatever path. */
function reachElsewhere(trace: Trace, info: FunctionInfo): readonly Flow[] {
  const flows: Flow[] = [];
  const here = new Set(possiblePath(trace.names));
  for (const { objects } of trace.partsOf(info)) {
    for (const { kind, name } of objects) {
      const dot = name.indexOf(".");
      const plain = name.slice(dot + 1);
      for (const schema of trace.names.schemasWith?.(plain) ?? []) {
        if (here.has(schema) || schema === name.slice(0, dot)) continue;
        if (kind === "function") flows.push(trace.functionReach(schema, plain));
        const relation = kind === "relation" ? trace.names.relation(schema, plain) : undefined;
        if (relation !== undefined) flows.push(...maskedBehind(trace, relation));
      }
    }
  }
  return flows;
}

/** A path of its own for a function, or none any more: its names then mean something else, also in a call that waits. */
function pathAltered(trace: Trace, node: TreeNode, where: string): void {
  const sets = listOf(node, "actions").some(
    (item) => nodeOf(nodeOf(nodeOf(item, "DefElem"), "arg"), "VariableSetStmt") !== undefined,
  );
  if (!sets) return;
  const { schema, name } = qualifiedOf(namesOf(nodeOf(node, "func"), "objname"));
  for (const info of trace.names.functions(schema, name))
    trace.find("define", derivedFrom([...bodyReach(trace, info), ...reachElsewhere(trace, info)]), where);
}

/**
 * What the operators, casts and calls of a statement that waits may come to run, with the values that it gives them. A
 * domain without code of users that is called like no type of the server's runs nothing of which that is true.
 */
function isSetBetween(trace: Trace, tag: string, node: TreeNode): boolean {
  if (tag === "CreateCastStmt" || tag === "CreateOpClassStmt") return true;
  if (tag === "DefineStmt") return /^OBJECT_(AGGREGATE|OPERATOR|TYPE)$/.test(textOf(node, "kind"));
  const made = typeNameFields[tag];
  if (made !== undefined) {
    const { name } = qualifiedOf(namesOf(node, made));
    return (
      trace.names.type("pg_catalog", name) !== undefined || (made === "domainname" && callsUsers(trace, node))
    );
  }
  const type = textOf(node, tag === "RenameStmt" ? "renameType" : "objectType");
  if (!moves.has(tag)) return false;
  const given = nodeOf(nodeOf(node, "object"), "ObjectWithArgs");
  const { name: old } = qualifiedOf(
    given === undefined
      ? namesOf(nodeOf(nodeOf(node, "object"), "List"), "items")
      : namesOf(given, "objname"),
  );
  const name = tag === "RenameStmt" ? textOf(node, "newname") : old;
  if (/^OBJECT_(FUNCTION|PROCEDURE|ROUTINE|AGGREGATE)$/.test(type))
    return isBuiltinName(trace, name) || isNameBehindOperator(name);
  if (type === "OBJECT_OPERATOR") return true;
  return /^OBJECT_(TYPE|DOMAIN)$/.test(type) && trace.names.type("pg_catalog", name) !== undefined;
}

const typeNameFields: Readonly<Record<string, string>> = {
  CreateDomainStmt: "domainname",
  CreateEnumStmt: "typeName",
  CreateRangeStmt: "typeName",
};

/** True where it calls a function of users, by name or by an operator. */
function callsUsers(trace: Trace, node: TreeNode): boolean {
  let does = false;
  eachNode(node, (tag, inside) => {
    const names =
      tag === "FuncCall" ? namesOf(inside, "funcname") : tag === "A_Expr" ? namesOf(inside, "name") : [];
    if (names.length === 0) return false;
    const { schema, name } = qualifiedOf(names);
    const found =
      tag === "FuncCall" ? trace.names.functions(schema, name) : trace.names.operatorFunctions(schema, name);
    does ||= found.some((info) => info.schema !== "pg_catalog" && info.isReviewed !== true);
    return false;
  });
  return does;
}

/** Code that fetches from a cursor that it is told the name of, and not the FETCH of a query. */
const fetchesCursor =
  /\bfetch\b(?!\s+(?:first|next)(?:\s+(?:\([^)]*\)|[^\s(]+))?\s+rows?\s+(?:only|with)\b)/i;

/** The search_path that CREATE FUNCTION sets for the body, as the catalog will have it. */
function pathSetting(node: TreeNode): readonly string[] {
  const settings: string[] = [];
  for (const item of listOf(node, "options")) {
    const set = nodeOf(nodeOf(nodeOf(item, "DefElem"), "arg"), "VariableSetStmt");
    if (textOf(set, "name") !== "search_path") continue;
    const schemas = listOf(set, "args").map((value) => stringConstantOf(value) ?? "");
    settings.push(`search_path=${schemas.map((schema) => `"${schema.replaceAll('"', '""')}"`).join(", ")}`);
  }
  return settings;
}

/** A prepared statement is followed anew each time: names may mean something else by now. */
function executed(trace: Trace, name: string): TracedRows {
  const known = trace.names.prepared(name);
  if (known === undefined) return nothing;
  const [statement] = parseStatements(known.text);
  const tag = tagOf(statement?.node) ?? "";
  const node = nodeOf(statement?.node, tag) ?? {};
  if (tag === "PrepareStmt") return prepared(trace, node);
  return trace.deeper(() => followed(trace, tag, node)?.rows ?? nothing);
}

function prepared(trace: Trace, node: TreeNode): TracedRows {
  trace.takesObjectIds = takesObjectIds(node);
  return inner(trace, node);
}

function copy(trace: Trace, node: TreeNode): TracedRows {
  const target = nodeOf(node, "relation");
  const rows = target === undefined ? inner(trace, node) : relationRows(trace, node, target);
  const isFile = textOf(node, "filename") !== "";
  if (node.is_from === true) {
    trace.find("write", allOf(rows), "COPY");
    copiedWhere(trace, node, target);
    // It may be the server's own, or what a program makes of them.
    if (isFile) trace.find("opaque", exactly(anyColumn), "COPY from a file");
    return nothing;
  }
  if (node.is_program === true) trace.find("opaque", exactly(anyColumn), "COPY to a program");
  if (isFile) trace.find("store", allOf(rows), "COPY to a file");
  return rows;
}

/** How many rows are put in tells of the defaults that they were filled with. */
function copiedWhere(trace: Trace, node: TreeNode, target: TreeNode | undefined): void {
  if (node.whereClause === undefined || target === undefined) return;
  const level = levelBelow(undefined);
  level.items.push(itemOf(rangeVar(trace, target, undefined)));
  condition(trace, node.whereClause, level, "WHERE");
}

/** All that an entry shows; where there may be more columns than are listed, any may be any. */
function rowsOf(entry: RangeEntry): TracedRows {
  const { columns, open } = entry;
  return open === undefined ? { columns } : { columns, open: allOf(entry) };
}

function relationRows(trace: Trace, node: TreeNode, target: TreeNode): TracedRows {
  const all = rowsOf(rangeVar(trace, target, undefined));
  const listed = stringsOf(listOf(node, "attlist"));
  if (listed.length === 0) return withoutGenerated(trace, target, all);
  const columns = listed.map((name) => ({
    name,
    flow: all.columns.find((column) => column.name === name)?.flow ?? all.open ?? allOf(all),
  }));
  return { columns };
}

/** COPY of a table leaves generated columns out, unless they are listed. */
function withoutGenerated(trace: Trace, target: TreeNode, rows: TracedRows): TracedRows {
  const schema = target.schemaname === undefined ? undefined : textOf(target, "schemaname");
  const { generated } = trace.names.relation(schema, textOf(target, "relname")) ?? {};
  if (generated === undefined) return rows;
  return { ...rows, columns: rows.columns.filter(({ name }) => !generated.has(name)) };
}

/** Code that runs with reading and writing a relation, whatever the statement calls by name. */
function attached(trace: Trace, part: CommandPart): void {
  for (const object of part.objects) {
    if (object.kind !== "relation") continue;
    const relation = relationNamed(trace.names, object.name);
    if (relation === undefined) continue;
    const { functions, readFunctions = functions, triggers } = relation;
    const run =
      part.operation === "read" || part.operation === "export"
        ? readFunctions
        : [...functions, ...triggers.map((trigger) => trigger.function)];
    trace.find("opaque", derivedFrom(reaches(trace, run)), object.name);
  }
}

/** Relations with masked columns that analysis saw being read and lineage did not follow. */
function unfollowed(trace: Trace, parts: readonly CommandPart[]): void {
  for (const part of parts) {
    // Code that runs unseen: of triggers, defaults, casts, operators, policies, cascades.
    for (const object of part.objects) if (object.kind === "function") ran(trace, object.name);
    attached(trace, part);
    catalogWritten(trace, part);
    if (part.operation !== "read" && part.operation !== "export" && part.operation !== "execute") {
      if (part.operation === "privilege") statistics(trace, part);
      continue;
    }
    for (const object of part.objects) {
      if (object.kind !== "relation" || trace.followed.has(object.name)) continue;
      const flow = maskedOf(trace, object.name);
      const by = part.objects.findLast((other) => other.kind === "function")?.name;
      trace.find("opaque", flow, by === undefined ? object.name : `function ${by}`);
    }
  }
}

/** Rows of the catalog are what tables and columns are called: after this a mask may find none of its own. */
function catalogWritten(trace: Trace, { operation, enforcement, objects }: CommandPart): void {
  if (operation !== "execute" || enforcement !== "heuristic") return;
  const written = objects.find(({ kind, name }) => kind === "relation" && name.startsWith("pg_catalog."));
  if (written !== undefined) trace.find("opaque", exactly(anyColumn), `a write to ${written.name}`);
}

function ran(trace: Trace, name: string): void {
  const dot = name.indexOf(".");
  const schema = name.slice(0, dot);
  if (schema === "pg_catalog" || trace.followedFunctions.has(name)) return;
  trace.find("opaque", trace.functionReach(schema, name.slice(dot + 1)), `function ${name}`);
}

/** Catalogs that hold samples of the data. */
const sampleCatalogs = new Set(
  "pg_statistic pg_stats pg_statistic_ext_data pg_stats_ext pg_stats_ext_exprs pg_largeobject".split(" "),
);

function statistics(trace: Trace, part: CommandPart): void {
  for (const { name } of part.objects) {
    if (!name.startsWith("pg_catalog.") || !sampleCatalogs.has(name.slice("pg_catalog.".length))) continue;
    trace.find("opaque", exactly(anyColumn), name);
  }
}

function maskedOf(trace: Trace, name: string): Flow {
  const relation = relationNamed(trace.names, name);
  if (relation === undefined) return clean;
  return allOf(relationEntry(trace, relation, ""));
}

/** What calling any function of that name may read of masked columns, by whatever overload. */
function functionReach(trace: Trace, schema: string | undefined, name: string): Flow {
  const flows: Flow[] = [];
  for (const info of trace.names.functions(schema, name)) {
    if (info.schema === "pg_catalog") {
      flows.push(builtinReach(name));
      continue;
    }
    if (info.language === "c" && readsAnything.test(info.name)) flows.push(exactly(anyColumn));
    flows.push(...bodyReach(trace, info));
  }
  return derivedFrom(flows);
}

/** What the body of a function may read of masked columns. */
function bodyReach(trace: Trace, info: FunctionInfo): readonly Flow[] {
  const flows: Flow[] = [...printedIn(info.body ?? "", trace.masked.definitions(trace.names))];
  if (info.language === "plpgsql" && fetchesCursor.test(info.body ?? "")) flows.push(exactly(anyColumn));
  const own = info.settings.filter((setting) => /^search_path\s*=/i.test(setting));
  const path = own.flatMap((setting) => parseSearchPath(setting.slice(setting.indexOf("=") + 1)) ?? []);
  for (const part of trace.partsOf(info)) {
    // What is assembled at run time may read anything; compiled code is the administrator's own.
    if (part.enforcement === "heuristic" && info.language !== "c") flows.push(exactly(anyColumn));
    for (const object of part.objects) {
      if (object.kind !== "relation") continue;
      const dot = object.name.indexOf(".");
      // A body that was planned before keeps to what its names meant then.
      const schemas = new Set([object.name.slice(0, dot), ...path, ...possiblePath(trace.names)]);
      for (const relation of namesakes(trace.names, schemas, object.name.slice(dot + 1))) {
        flows.push(...maskedBehind(trace, relation));
      }
    }
  }
  return flows;
}

/** The masked columns of a relation and, of a view, of what it reads. */
function maskedBehind(trace: Trace, relation: RelationInfo): readonly Flow[] {
  const flows: Flow[] = [];
  const seen = new Set<RelationInfo>([relation]);
  for (const found of seen) {
    for (const source of trace.masked.of(found, trace.names)?.values() ?? []) flows.push(exactly(source));
    for (const read of found.reads) {
      const behind = read.kind === "relation" ? relationNamed(trace.names, read.name) : undefined;
      if (behind !== undefined) seen.add(behind);
    }
  }
  return flows;
}

/**
 * Functions of known extensions that run a text, ask another server, show pages of tables, plans and other people's
 * statements, or tell everybody who listens what keys are written.
 */
const readsAnything =
  /^(dblink|crosstab|connectby$|xpath_table$|pg_get_wal_|run_command_on_|schedule(_in_database)?$|get_raw_page|heap_page_item|tuple_data_split$|\w+_page_items|gin_leafpage_items|pg_stat_statements$|pg_stat_monitor|pg_qualstats|pg_show_plans|pg_store_plans|pg_background_launch|pg_dirtyread$|plv8_|postgres_fdw_|pg_file_|pg_logdir_ls|triggered_change_notification$|check_(primary|foreign)_key$)/;

/** Functions of pg_catalog that run a text, read a table by its name, files, or what replication decodes. */
function builtinReach(name: string): Flow {
  // What another session is doing at this moment, word for word.
  if (name === "pg_stat_get_backend_activity") return exactly(anyColumn);
  if (isReadBuiltin(name) || readsNoRow(name) || name === "set_config") return clean;
  const effect = builtinEffect(name);
  if (effect.kind === "sequence") return clean;
  if (effect.kind !== "operation") return exactly(anyColumn);
  const { operation } = effect;
  const isReading = operation === "privilege" || operation === "execute" || operation === "export";
  return isReading ? exactly(anyColumn) : clean;
}

interface Definition {
  readonly tag: string;
  readonly node: TreeNode;
  readonly parts: readonly CommandPart[];
}

/** Statements on a table with masked columns that never tell of its values, whatever they say. */
const harmless = new Set(
  `VacuumStmt LockStmt TruncateStmt DropStmt CommentStmt GrantStmt ReindexStmt RefreshMatViewStmt
  CreateFunctionStmt SecLabelStmt AlterOwnerStmt`.split(/\s+/),
);

/** Statements that do not tell of its values unless they name a masked column. */
const harmlessUnlessNamed = new Set(["CreateStmt", "IndexStmt", "AlterTableStmt"]);

/** What opens a way over another server, which may be this one: names there have no masks. */
const elsewhere = new Set(
  `CreateForeignServerStmt AlterForeignServerStmt CreateUserMappingStmt AlterUserMappingStmt
  CreateForeignTableStmt ImportForeignSchemaStmt CreateSubscriptionStmt AlterSubscriptionStmt CreateExtensionStmt
  CreateFdwStmt AlterFdwStmt`.split(/\s+/),
);

/** Kinds of ALTER TABLE that leave masks, and the columns of those who read meanwhile, where they are. */
const harmlessAlterations = new Set(
  `AT_AddColumn AT_ColumnDefault AT_SetNotNull AT_DropNotNull AT_SetStatistics AT_SetStorage
  AT_SetCompression AT_AddConstraint AT_ValidateConstraint AT_DropConstraint AT_DropCluster
  AT_SetRelOptions AT_ResetRelOptions AT_SetLogged AT_SetUnLogged AT_AlterColumnType AT_ReplicaIdentity
  AT_SetTableSpace AT_ChangeOwner AT_AddIdentity AT_SetIdentity AT_DropIdentity`.split(/\s+/),
);

/** Everything that is no query: on tables with masked columns, only what surely tells nothing of them. */
function definition(trace: Trace, { tag, node, parts }: Definition): void {
  const where = parts[0]?.words[0] ?? tag;
  if (tag === "CreateFunctionStmt") called(trace, { parameters: node.parameters }, where);
  if (harmless.has(tag)) return;
  defined(trace, tag, node, where);
  called(trace, node, where);
  copied(trace, node, where);
  if (tag === "CreateStmt" && node.partbound !== undefined) placed(trace, node, where);
  if (tag === "DoStmt") printed(trace, node, where);
  for (const name of relationsOf(parts)) {
    const relation = relationNamed(trace.names, name);
    if (relation !== undefined && moves.has(tag)) trace.find("define", shownBy(trace, relation), where);
    const columns = relation === undefined ? undefined : trace.masked.of(relation, trace.names);
    if (relation === undefined || columns === undefined) continue;
    const flow = derivedFrom([...columns.values()].map(exactly));
    const isHarmless =
      harmlessUnlessNamed.has(tag) &&
      listOf(node, "cmds").every((item) =>
        harmlessAlterations.has(textOf(nodeOf(item, "AlterTableCmd"), "subtype")),
      ) &&
      !mentions(node, new Set([...columns.keys(), relation.name])) &&
      !(columns.has(relation.columns[0] ?? "") && refersToKey(trace, node, relation));
    if (!isHarmless) trace.find(tag === "DoStmt" || tag === "CallStmt" ? "opaque" : "define", flow, where);
  }
  if (tag !== "DoStmt" && tag !== "CallStmt") return;
  if (parts.some((part) => part.enforcement === "heuristic")) {
    trace.find("opaque", exactly(anyColumn), where);
  }
}

/** What opens masked values to others by the kind of statement that it is, wherever it stands. */
function defined(trace: Trace, tag: string, node: TreeNode, where: string): void {
  if (tag === "AlterFunctionStmt") pathAltered(trace, node, where);
  if (isSetBetween(trace, tag, node)) trace.find("define", exactly(anyColumn), where);
  if (elsewhere.has(tag) || leadsElsewhere(trace.names, tag, node))
    trace.find("define", exactly(anyColumn), where);
  if (altersTypedTables(tag, node)) trace.find("define", exactly(anyColumn), where);
  // The server looks at the values of all columns of the domain, and fails for one that does not pass.
  const isChecked = tag === "AlterDomainStmt" && /^[COV]$/.test(textOf(node, "subtype"));
  if (isChecked) trace.find("define", exactly(anyColumn), where);
}

/** `ALTER TYPE … CASCADE` does the same to the columns of all tables `OF` the type, of which the catalog at hand does not tell. */
function altersTypedTables(tag: string, node: TreeNode): boolean {
  const isCascade = (alteration: TreeNode | undefined) => textOf(alteration, "behavior") === "DROP_CASCADE";
  if (tag === "RenameStmt") return textOf(node, "renameType") === "OBJECT_ATTRIBUTE" && isCascade(node);
  return (
    tag === "AlterTableStmt" &&
    textOf(node, "objtype") === "OBJECT_TYPE" &&
    listOf(node, "cmds").some((item) => isCascade(nodeOf(item, "AlterTableCmd")))
  );
}

/** `LIKE … INCLUDING DEFAULTS`: what the catalog keeps of a masked column would go to a column that is not. */
function copied(trace: Trace, node: TreeNode, where: string): void {
  eachNode(node, (tag, inside) => {
    if (tag !== "TableLikeClause") return false;
    const of = nodeOf(inside, "relation");
    const schema = of?.schemaname === undefined ? undefined : textOf(of, "schemaname");
    const relation = trace.names.relation(schema, textOf(of, "relname"));
    const kept = relation === undefined ? undefined : trace.names.definitions?.get(relationName(relation));
    if (relation === undefined || kept === undefined || !inside.options) return false;
    const masked = trace.masked.of(relation, trace.names);
    trace.find("define", derivedFrom(kept.flatMap(({ column }) => flowsOf(masked?.get(column)))), where);
    return false;
  });
}

/** A new partition fails where its bound meets another's, or a row of the default partition: that tells of its key. */
function placed(trace: Trace, node: TreeNode, where: string): void {
  for (const item of listOf(node, "inhRelations")) {
    const parent = nodeOf(item, "RangeVar");
    const schema = parent?.schemaname === undefined ? undefined : textOf(parent, "schemaname");
    const relation = trace.names.relation(schema, textOf(parent, "relname"));
    if (relation !== undefined) trace.find("define", trace.placeOf(relation).all, where);
  }
}

/** Code that prints definitions, and may say in a notice what they are. */
function printed(trace: Trace, node: TreeNode, where: string): void {
  const kinds = trace.masked.definitions(trace.names);
  eachNode(node, (tag, inside) => {
    if (tag !== "String") return false;
    const text = textOf(inside, "sval");
    trace.find("opaque", derivedFrom(printedIn(text, kinds)), where);
    if (fetchesCursor.test(text)) trace.find("opaque", exactly(anyColumn), where);
    return false;
  });
}

function flowsOf(source: string | undefined): readonly Flow[] {
  return source === undefined ? [] : [exactly(source)];
}

/** True where a new foreign key means the relation's primary key without naming it, which its first column is then taken for. */
function refersToKey(trace: Trace, node: TreeNode, relation: RelationInfo): boolean {
  let isFound = false;
  eachNode(node, (tag, inside) => {
    if (tag !== "Constraint" || textOf(inside, "contype") !== "CONSTR_FOREIGN") return false;
    const table = nodeOf(inside, "pktable");
    const schema = table?.schemaname === undefined ? undefined : textOf(table, "schemaname");
    const key = trace.names.relation(schema, textOf(table, "relname"));
    isFound ||= listOf(inside, "pk_attrs").length === 0 && key?.name === relation.name;
    return false;
  });
  return isFound;
}

/** Statements that give something another name or place: what stood for it may then stand for something else. */
const moves = new Set(["RenameStmt", "AlterObjectSchemaStmt"]);

function shownBy(trace: Trace, relation: RelationInfo): Flow {
  const isView = relation.kind === "view" || relation.kind === "materializedView";
  return isView ? allOf(relationEntry(trace, relation, "")) : clean;
}

/** Code that the statement names and that reads masked values, now or when somebody else writes: defaults, bounds, USING. */
function called(trace: Trace, node: TreeNode, where: string): void {
  const names: (readonly string[])[] = [namesOf(node, "funcname")];
  const flows: Flow[] = [];
  eachNode(node, (tag, inside) => {
    if (tag === "FuncCall") names.push(namesOf(inside, "funcname"));
    else if (tag === "ObjectWithArgs") names.push(namesOf(inside, "objname"));
    // `t.f` and `(t).f` may be f(t).
    else if (tag === "ColumnRef") names.push(namesOf(inside, "fields").slice(1).slice(-1));
    else if (tag === "A_Indirection") {
      names.push(...namesOf(inside, "indirection").map((name) => [name]));
    } else if (tag === "A_Expr") {
      const { schema, name } = qualifiedOf(namesOf(inside, "name"));
      flows.push(...reaches(trace, trace.names.operatorFunctions(schema, name)));
    } else if (tag === "TypeCast") {
      const { schema, name } = qualifiedOf(namesOf(nodeOf(inside, "typeName"), "names"));
      flows.push(...reaches(trace, trace.names.type(schema, name)?.functions ?? []));
    }
    return false;
  });
  for (const parts of names) {
    const { schema, name } = qualifiedOf(parts);
    if (name !== "") flows.push(trace.functionReach(schema, name));
  }
  trace.find("define", derivedFrom(flows), where);
}

function reaches(trace: Trace, infos: readonly FunctionInfo[]): readonly Flow[] {
  return infos.map((info) => trace.functionReach(info.schema, info.name));
}

function relationsOf(parts: readonly CommandPart[]): ReadonlySet<string> {
  const names = new Set<string>();
  for (const part of parts) {
    for (const object of part.objects) if (object.kind === "relation") names.add(object.name);
  }
  return names;
}

/** True where an expression, an index or a key in the tree names one of these. */
function mentions(node: TreeNode, wanted: ReadonlySet<string>): boolean {
  let isFound = false;
  eachNode(node, (tag, inside) => {
    if (isFound) return true;
    // The table itself is named here, and nothing of it shown.
    if (tag === "RangeVar") return true;
    const texts = ["sval", "name", "colname"].map((field) => inside[field]);
    isFound = texts.some((text) => typeof text === "string" && wanted.has(text));
    return isFound;
  });
  return isFound;
}

function unique(findings: readonly LineageFinding[]): readonly LineageFinding[] {
  const seen = new Set<string>();
  return findings.filter((finding) => {
    const key = `${finding.kind}|${finding.where}|${finding.columns.join(",")}`;
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}
