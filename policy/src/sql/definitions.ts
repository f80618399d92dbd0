/** Statements that define, alter, rename or drop things, and GRANT; with what they change for later names. */
import type { CommandPart, ObjectRef, Operation } from "../model.ts";
import type { SessionEffect } from "./analysis.ts";
import { walkAtomicBody, walkBody } from "./bodies.ts";
import { isReadBuiltin } from "./builtin-functions.ts";
import { leadsElsewhere } from "./foreign-tables.ts";
import { NameOverlay } from "./overlay.ts";
import { perhapsAs } from "./perhaps.ts";
import { areColumnsSure, onCommitOf, resultColumns } from "./queries.ts";
import { Rejected } from "./rejection.ts";
import { findRelation, functionObject, relationOf, runFunctions, searchPathKnown } from "./relations.ts";
import { changeOf, functionSetting } from "./settings.ts";
import {
  eachNode,
  isNode,
  listOf,
  namesOf,
  nodeOf,
  qualifiedOf,
  stringOf,
  stringsOf,
  type TreeNode,
  tagOf,
  textOf,
} from "./tree.ts";
import { type Scope, scopeBelow, Walk } from "./walk.ts";

type Handler = (walk: Walk, node: TreeNode, text: string) => string;
type MadeKind = (SessionEffect & { kind: "createRelation" })["relationKind"];

function schemaOf(rangeVar: TreeNode): string | undefined {
  return rangeVar.schemaname === undefined ? undefined : textOf(rangeVar, "schemaname");
}

function isTemporary(rangeVar: TreeNode): boolean {
  return textOf(rangeVar, "relpersistence") === "t" || /^pg_temp(_\d+)?$/.test(schemaOf(rangeVar) ?? "");
}

/** A name that is being made: in its own schema, or where an unqualified CREATE goes. */
function newName(walk: Walk, schema: string | undefined, name: string, location?: unknown): string {
  searchPathKnown(walk, schema);
  if (schema !== undefined && !walk.names.schemaExists(schema)) {
    const position = typeof location === "number" && walk.isDirect ? { position: location } : {};
    throw new Rejected(
      { sqlstate: "3F000", message: `schema "${schema}" does not exist`, ...position },
      true,
    );
  }
  return `${schema ?? walk.names.creationSchema}.${name}`;
}

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
function ownSequence(walk: Walk, rangeVar: TreeNode, column: TreeNode | undefined, word: string): void {
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

/** LIKE, INHERITS and PARTITION OF bring the defaults, checks and triggers of another table along. */
function inheritsCode(walk: Walk, value: unknown): boolean {
  let has = false;
  eachRangeVar(value, (rangeVar) => {
    const found = findRelation(walk, rangeVar);
    has ||= found !== undefined && found.functions.length + found.triggers.length > 0;
  });
  return has;
}

function eachRangeVar(value: unknown, visit: (rangeVar: TreeNode) => void): void {
  if (Array.isArray(value)) for (const item of value) eachRangeVar(item, visit);
  if (!isNode(value)) return;
  if (typeof value.relname === "string" && value.relpersistence !== undefined) visit(value);
  for (const key in value) eachRangeVar(value[key], visit);
}

/**
 * Defaults, checks, policies, triggers, operators, casts run later, in somebody else's statement: what they would touch
 * is an object of the definition, as with a view. True where they do more than call reviewed functions.
 */
function bindsCode(walk: Walk, word: string, value: unknown): boolean {
  const { parts } = defineWhatIsRead(walk, word, (inner) => {
    inner.within({ isBody: true }, () => {
      eachNode(value, (tag, node) => bindNode(inner, word, tag, node));
      for (const names of functionNames(value)) bindFunction(inner, word, names);
      if (word === "CREATE OPERATOR" || word === "CREATE AGGREGATE") {
        for (const name of builtinsBound(value)) bindBuiltin(inner, word, name);
      }
    });
  });
  return parts.some((part) => part.operation !== "read" || part.objects.length > 0);
}

/** True once the node has been walked whole. */
function bindNode(inner: Walk, word: string, tag: string, node: TreeNode): boolean {
  const isStatement = queryTags.has(tag);
  if (!isStatement && !expressionTags.has(tag)) return false;
  try {
    if (tag === "ColumnDef") {
      if (isSerial(word, node)) return false;
      inner.walkers.expression(inner, { typeName: node.typeName }, scopeBelow(undefined, word));
      return false;
    }
    if (isStatement) inner.walkers.query(inner, tag, node, undefined);
    else inner.walkers.expression(inner, { [tag]: node }, scopeBelow(undefined, word));
  } catch (error) {
    if (!(error instanceof Rejected && error.isName)) throw error;
    inner.addOpaque(word, []);
  }
  return true;
}

/**
 * An integer with a sequence of its own, which is a word for the server and no type: whoever makes a type of that name is
 * not asked. A column that is altered, and one of a composite type, has a type.
 */
function isSerial(word: string, node: TreeNode): boolean {
  const [name = "", ...rest] = namesOf(nodeOf(node, "typeName"), "names");
  const isMade = /^(CREATE|ALTER) (FOREIGN )?TABLE$/.test(word);
  return isMade && textOf(node, "colname") !== "" && rest.length === 0 && serials.has(name);
}

const serials = new Set("smallserial serial2 serial serial4 bigserial serial8".split(" "));

const queryTags = new Set(["SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"]);
const expressionTags = new Set([
  "ColumnDef",
  "FuncCall",
  "A_Expr",
  "SubLink",
  "TypeCast",
  "CaseExpr",
  "ColumnRef",
  "A_Indirection",
]);

/** The function of a trigger, and those that `FUNCTION = name` gives an operator, an aggregate or a type. */
function functionNames(value: unknown): readonly (readonly string[])[] {
  const found = isNode(value) && Array.isArray(value.funcname) ? [namesOf(value, "funcname")] : [];
  collectArguments(value, found);
  eachNode(value, (tag, node) => {
    const names = tag === "DefElem" ? namesOf(nodeOf(nodeOf(node, "arg"), "TypeName"), "names") : [];
    if (names.length > 0) found.push(names);
    // `FUNCTION = 'name'` is as good as the name.
    const name = tag === "DefElem" && isFunctionOption(node) ? stringOf(nodeOf(node, "arg")) : undefined;
    if (name !== undefined) found.push([name]);
    return false;
  });
  return found;
}

/** The functions that an operator, an aggregate or a type is given by options. */
function supportFunctions(value: unknown): readonly (readonly string[])[] {
  const found: (readonly string[])[] = [];
  eachNode(value, (tag, node) => {
    if (tag !== "DefElem" || !isFunctionOption(node)) return false;
    const argument = nodeOf(node, "arg");
    const name = stringOf(argument);
    const names = name === undefined ? namesOf(nodeOf(argument, "TypeName"), "names") : [name];
    if (names.length > 0) found.push(names);
    return false;
  });
  return found;
}

/** Functions of pg_catalog that an operator or an aggregate gets: no name of theirs stands where they are called. */
function builtinsBound(value: unknown): readonly string[] {
  return supportFunctions(value).map((names) => names.at(-1) ?? "");
}

const functionFields = new Set(
  `function procedure sfunc sfunc1 finalfunc combinefunc serialfunc deserialfunc msfunc minvfunc mfinalfunc
  canonical subtype_diff input output receive send typmod_in typmod_out analyze subscript`.split(/\s+/),
);

function isFunctionOption(option: TreeNode): boolean {
  return functionFields.has(textOf(option, "defname").toLowerCase());
}

/** Functions that are named with their arguments: of a cast, of an operator class. */
function collectArguments(value: unknown, found: (readonly string[])[]): void {
  if (Array.isArray(value)) for (const item of value) collectArguments(item, found);
  if (!isNode(value)) return;
  if (Array.isArray(value.objname)) found.push(namesOf(value, "objname"));
  for (const key in value) collectArguments(value[key], found);
}

function bindFunction(inner: Walk, word: string, names: readonly string[]): void {
  if (names.length === 0) return;
  const { schema, name } = qualifiedOf(names);
  if (schema === undefined && inner.names.searchPath === undefined) return;
  for (const info of inner.names.functions(schema, name)) {
    if (info.schema !== "pg_catalog") inner.walkers.functionInfo(inner, info, word);
  }
}

function bindBuiltin(inner: Walk, word: string, name: string): void {
  if (isReadBuiltin(name) || inner.names.functions("pg_catalog", name).length === 0) return;
  inner.addOpaque(word, [{ name: `pg_catalog.${name}`, kind: "function", direct: false }]);
}

/** Relations that a statement mentions, and those of schemas that a publication takes whole. */
export function mentionedRelations(walk: Walk, value: unknown): readonly ObjectRef[] {
  const objects: ObjectRef[] = [];
  collectMentioned(walk, value, objects);
  eachNode(value, (tag, node) => {
    const isSchema =
      tag === "PublicationObjSpec" && textOf(node, "pubobjtype") === "PUBLICATIONOBJ_TABLES_IN_SCHEMA";
    if (isSchema) objects.push(...schemaObjects(walk, textOf(node, "name")));
    return false;
  });
  return objects;
}

/** Relations and functions that a definition mentions, as objects of its own part: it binds them, but runs nothing. */
function leanOn(walk: Walk, value: unknown, word: string): void {
  const objects: ObjectRef[] = [];
  collectMentioned(walk, value, objects);
  if (objects.length > 0) walk.add("define", word, objects);
}

function collectMentioned(walk: Walk, value: unknown, objects: ObjectRef[]): void {
  if (Array.isArray(value)) {
    for (const item of value) collectMentioned(walk, item, objects);
    return;
  }
  if (!isNode(value)) return;
  walk.spend();
  if (typeof value.relname === "string" && value.relpersistence !== undefined) {
    // A missing name may be a WITH name, or one that the statement itself makes: the server decides.
    const found = findRelation(walk, value);
    if (found !== undefined) objects.push(walk.relationObject(found));
  }
  for (const key in value) collectMentioned(walk, value[key], objects);
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

/** Walks something that will run later, and turns all that it would touch into objects of a define part. */
function defineWhatIsRead<Result>(
  walk: Walk,
  word: string,
  inside: (inner: Walk) => Result,
): { readonly result: Result; readonly reads: readonly ObjectRef[]; readonly parts: readonly CommandPart[] } {
  const inner = new Walk(walk.names, walk.walkers, 100_000, walk.behind);
  inner.frame = { ...walk.frame, isPlanOnly: false };
  const result = inside(inner);
  const parts = inner.parts.build();
  for (const part of parts) {
    if (part.operation === "privilege") walk.add("privilege", word, part.objects);
    walk.add("define", word, part.objects);
  }
  const reads = parts.flatMap((part) => part.objects);
  return { result, reads: reads.map((object) => ({ ...object, direct: false })), parts };
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

/** Subcommands that change who may do what. */
const privilegedAlterations = new Set([
  "AT_ChangeOwner",
  "AT_EnableRowSecurity",
  "AT_DisableRowSecurity",
  "AT_ForceRowSecurity",
  "AT_NoForceRowSecurity",
]);

/** ALTER TABLE and its kin: new defaults, checks and USING expressions run at once and are judged. */
export function alterTable(walk: Walk, node: TreeNode): string {
  const word = `ALTER ${objectWord(textOf(node, "objtype"))}`;
  const relation = nodeOf(node, "relation") ?? {};
  // An index that the transaction made, for a constraint perhaps, has no name here yet: the server knows it.
  const isIndex = textOf(node, "objtype") === "OBJECT_INDEX";
  const isMade = isTypeOfTransaction(walk, relation, textOf(node, "objtype"));
  const isOptional = node.missing_ok === true || isIndex || isMade;
  const objects = namedRelation(walk, relation, isOptional);
  walk.add("define", word, objects);
  if (leadsElsewhere(walk.names, "AlterTableStmt", node)) walk.add("privilege", word, objects);
  const scope = scopeBelow(undefined, word);
  let hasCode = false;
  for (const item of listOf(node, "cmds")) {
    const command = nodeOf(item, "AlterTableCmd") ?? {};
    if (privilegedAlterations.has(textOf(command, "subtype"))) walk.add("privilege", word, objects);
    const { newowner: _owner, ...rest } = command;
    leanOn(walk, rest, word);
    walkRunning(walk, rest, scope);
    const bound = { ...rest };
    hasCode = bindsCode(walk, word, bound) || hasCode || !plainAlterations.has(textOf(command, "subtype"));
    hasCode ||= setsOffWrites(rest);
    if (readsRowsAgain(command)) runOwnCode(walk, objects, word);
    if (textOf(command, "subtype") === "AT_DropColumn") columnsAltered(walk, objects);
    ownSequence(walk, ownPlace(relation, objects), nodeOf(nodeOf(command, "def"), "ColumnDef"), word);
  }
  walk.effects.push({ kind: "catalogChanged", ...(hasCode ? { code: "relations" as const } : {}) });
  return word;
}

/** The name with the schema that the relation was found in, where it was. */
function ownPlace(rangeVar: TreeNode, objects: readonly ObjectRef[]): TreeNode {
  const found = objects.find(({ kind }) => kind === "relation")?.name ?? "";
  const schema = found.slice(0, Math.max(found.indexOf("."), 0));
  return schema === "" ? rangeVar : { ...rangeVar, schemaname: schema };
}

/** A name of theirs may be nobody's now. Columns that are new come behind all others, and take no name away. */
function columnsAltered(walk: Walk, objects: readonly ObjectRef[]): void {
  for (const { name } of objects)
    walk.effects.push({ kind: "alterColumns", ...qualifiedOf(name.split(".")) });
}

/** Alterations that check, or write anew, the rows that are there: with the checks, defaults and indexes there are. */
const rewritings = new Set(
  `AT_ValidateConstraint AT_AlterColumnType AT_SetExpression AT_SetLogged AT_SetUnLogged AT_SetAccessMethod
  AT_AttachPartition AT_AddIndexConstraint`.split(/\s+/),
);

function readsRowsAgain(command: TreeNode): boolean {
  const subtype = textOf(command, "subtype");
  if (subtype !== "AT_AddColumn") return rewritings.has(subtype);
  // A default that is no constant is computed for each row.
  const column = nodeOf(nodeOf(command, "def"), "ColumnDef") ?? {};
  return listOf(column, "constraints").length > 0 || isSerial("ALTER TABLE", column);
}

/** The functions that a table's own checks, defaults, generated columns and indexes call. */
function runOwnCode(walk: Walk, objects: readonly ObjectRef[], word: string): void {
  for (const object of objects) {
    const dot = object.name.indexOf(".");
    const relation = walk.names.relation(object.name.slice(0, dot), object.name.slice(dot + 1));
    if (relation !== undefined) runFunctions(walk, relation.functions, object, word);
  }
}

/** A composite type that this transaction made is known as a type; its relation is not in the catalog yet. */
function isTypeOfTransaction(walk: Walk, rangeVar: TreeNode, objectType: string): boolean {
  if (objectType !== "OBJECT_TYPE") return false;
  return walk.names.type(schemaOf(rangeVar), textOf(rangeVar, "relname")) !== undefined;
}

/** Subcommands that add no code but that of their own expressions; others switch triggers, partitions and parents. */
const plainAlterations = new Set(
  `AT_AddColumn AT_ColumnDefault AT_DropNotNull AT_SetNotNull AT_SetStatistics AT_SetOptions AT_ResetOptions
  AT_SetStorage AT_SetCompression AT_DropColumn AT_AddConstraint AT_ValidateConstraint AT_DropConstraint
  AT_AlterColumnType AT_ChangeOwner AT_ClusterOn AT_DropCluster AT_SetLogged AT_SetUnLogged AT_SetTableSpace
  AT_SetRelOptions AT_ResetRelOptions AT_AddIdentity AT_SetIdentity AT_DropIdentity AT_ReplicaIdentity AT_AddIndex
  AT_AddIndexConstraint AT_AlterConstraint`.split(/\s+/),
);

/** Foreign keys that change the rows of one table when those of another change. */
function setsOffWrites(value: unknown): boolean {
  let does = false;
  eachNode(value, (tag, node) => {
    if (tag !== "Constraint" || textOf(node, "contype") !== "CONSTR_FOREIGN") return false;
    for (const field of ["fk_del_action", "fk_upd_action"]) {
      if (["c", "n", "d"].includes(textOf(node, field))) does = true;
    }
    return false;
  });
  return does;
}

/** `t.f` and `(t).f` may be f(t). */
const runningTags = new Set([
  "FuncCall",
  "A_Expr",
  "SubLink",
  "TypeCast",
  "CaseExpr",
  "ColumnRef",
  "A_Indirection",
]);

/** Expressions of a definition that the server evaluates at once; plain columns and types run nothing. */
export function walkRunning(walk: Walk, value: unknown, scope: ReturnType<typeof scopeBelow>): void {
  eachNode(value, (tag, inner) => {
    // A domain's check runs on the new column's default.
    if (tag === "ColumnDef" && !isSerial(scope.word, inner))
      walk.walkers.expression(walk, { typeName: inner.typeName }, scope);
    if (!runningTags.has(tag)) return false;
    walk.walkers.expression(walk, { [tag]: inner }, scope);
    return true;
  });
}

/** The relation as objects; where it is missing and may be, every place where it could be. */
export function namedRelation(walk: Walk, rangeVar: TreeNode, isOptional: boolean): readonly ObjectRef[] {
  const found = findRelation(walk, rangeVar);
  if (found !== undefined) {
    const children = found.children.map((name) => ({ name, kind: "relation" as const, direct: false }));
    return [walk.relationObject(found), ...children];
  }
  if (!isOptional) relationOf(walk, rangeVar);
  const schemas = schemaOf(rangeVar) === undefined ? (walk.names.searchPath ?? []) : [schemaOf(rangeVar)];
  return schemas
    .filter((schema) => schema !== "pg_catalog" && schema !== "pg_temp")
    .map((schema) => walk.object("relation", `${schema}.${textOf(rangeVar, "relname")}`));
}

/** The statement's own words for a kind of object. */
export function objectWord(kind: string): string {
  const word = kind.replace("OBJECT_", "").replaceAll("_", " ");
  if (word.startsWith("TS")) return `TEXT SEARCH ${word.slice(2)}`;
  return word === "MATVIEW" ? "MATERIALIZED VIEW" : word === "TABCONSTRAINT" ? "TABLE" : word;
}

/** A definition that names its object in `field`, as a RangeVar or a list of names. */
export function simpleDefinition(
  word: string,
  field: string,
  second?: string,
  operation: Operation = "define",
): Handler {
  return (walk, node) => {
    const objects = [
      ...objectsIn(walk, node, field),
      ...(second === undefined ? [] : objectsIn(walk, node, second)),
    ];
    const full = word.startsWith("ALTER") && word.split(" ").length === 1 ? alterWord(node) : word;
    walk.add(operation, full, objects);
    const isMoved = word === "ALTER" && node.newschema !== undefined;
    if (isMoved && leadsElsewhere(walk.names, "AlterObjectSchemaStmt", node))
      walk.add("privilege", full, objects);
    if (objects.length === 0) leanOn(walk, node, full);
    else leanOn(walk, { ...node, [field]: undefined }, full);
    if (word === "CREATE INDEX") walkRunning(walk, node, scopeBelow(undefined, word));
    const isRead = word.startsWith("CREATE") || relationCode.has(word);
    const hasCode = isRead && (bindsCode(walk, full, node) || relationCode.has(word));
    const isCode = isMoved && node.relation === undefined;
    const code = isCode ? ("everything" as const) : hasCode ? ("relations" as const) : undefined;
    if (isMoved) {
      const to = { schema: textOf(node, "newschema") };
      movedAside(walk, nodeOf(node, "relation"), to);
      const made = codeMoved(walk, node, textOf(node, "objectType"), to);
      if (made !== undefined) walk.effects.push(made);
    }
    walk.effects.push({
      kind: "catalogChanged",
      ...(code === undefined ? {} : { code }),
      ...(isMoved && { moves: true }),
    });
    return full;
  };
}

/** Where no effect tells for certain what a relation is called: it may stand before another one now. */
function movedAside(
  walk: Walk,
  rangeVar: TreeNode | undefined,
  to: { readonly schema: string } | { readonly name: string },
): void {
  if (rangeVar === undefined) return;
  const found = walk.names.relation(schemaOf(rangeVar), textOf(rangeVar, "relname"));
  const isRead = found?.kind !== "index" && found?.kind !== "compositeType";
  if (found !== undefined && isRead) walk.effects.push(perhapsAs(found, to));
}

/** Definitions after which a relation does what nobody reads in its name. */
const relationCode = new Set(["CREATE TRIGGER", "CREATE RULE", "CREATE POLICY", "ALTER POLICY"]);

function alterWord(node: TreeNode): string {
  return `ALTER ${objectWord(textOf(node, "objectType"))}`;
}

function objectsIn(walk: Walk, node: TreeNode, field: string): readonly ObjectRef[] {
  const value = node[field];
  if (Array.isArray(value)) {
    const names = namesOf(node, field);
    if (names.length > 0) return [qualifiedObject(walk, "function", names)];
    return listOf(node, field).flatMap((item) => {
      const rangeVar = nodeOf(item, "RangeVar");
      return rangeVar === undefined ? [] : [walk.relationObject(relationOf(walk, rangeVar))];
    });
  }
  if (!isNode(value)) return [];
  if (typeof value.relname === "string") return namedRelation(walk, value, true);
  const list = nodeOf(value, "List");
  if (list !== undefined) return [qualifiedObject(walk, "other", namesOf(list, "items"))];
  const withArguments = nodeOf(value, "ObjectWithArgs");
  if (withArguments !== undefined)
    return [qualifiedObject(walk, "function", namesOf(withArguments, "objname"))];
  const name = stringOf(value);
  if (name === undefined) return [];
  const type = textOf(node, "objectType");
  return [
    walk.object(
      type === "OBJECT_DATABASE" ? "database" : type === "OBJECT_EVENT_TRIGGER" ? "other" : "schema",
      name,
    ),
  ];
}

function qualifiedObject(walk: Walk, kind: ObjectRef["kind"], names: readonly string[]): ObjectRef {
  const { schema, name } = qualifiedOf(names);
  if (schema !== undefined) return walk.object(kind, `${schema}.${name}`);
  searchPathKnown(walk, schema);
  const found = kind === "function" ? walk.names.functions(undefined, name)[0] : undefined;
  return found === undefined
    ? walk.object(kind, `${walk.names.creationSchema}.${name}`)
    : { ...functionObject(found), direct: walk.isDirect };
}

/** A definition of something that is no relation, named by a list of strings, a bare node or a RangeVar. */
export function namedObject(word: string, kind: ObjectRef["kind"], field: string): Handler {
  return (walk, node) => {
    const value = node[field];
    let objects: readonly ObjectRef[] = [];
    if (Array.isArray(value)) objects = [qualifiedObject(walk, kind, namesOf(node, field))];
    else if (isNode(value) && typeof value.relname === "string") objects = namedRelation(walk, value, true);
    else if (isNode(value)) objects = [qualifiedObject(walk, kind, namesOf(value, "objname"))];
    walk.add("define", word, objects);
    if (word.startsWith("CREATE") && kind === "type") {
      walk.effects.push({ kind: "createType", ...qualifiedOf(namesOf(node, field)) });
    }
    const hasCode = bindsCode(walk, word, node);
    walk.effects.push({ kind: "catalogChanged", ...(hasCode ? { code: "everything" as const } : {}) });
    return word;
  };
}

/** An aggregate is what its support functions are: a body that calls them, as the catalog will tell it. */
export function createAggregate(walk: Walk, node: TreeNode, text: string): string {
  const tag = namedObject("CREATE AGGREGATE", "other", "defnames")(walk, node, text);
  const called = supportFunctions(node.definition).map((names) => `${names.map(quoted).join(".")}()`);
  const body = `SELECT ${called.join(", ")}`;
  const made = qualifiedOf(namesOf(node, "defnames"));
  walk.effects.push({ kind: "createFunction", ...made, language: "sql", body, securityDefiner: false });
  return tag;
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A range type brings its multirange type, named by an option or as PostgreSQL derives it. */
export function createRange(walk: Walk, node: TreeNode, text: string): string {
  const { name, ...schema } = qualifiedOf(namesOf(node, "typeName"));
  const derived = name.includes("range") ? name.replace("range", "multirange") : `${name}_multirange`;
  let multirange: { readonly schema?: string; readonly name: string } = { ...schema, name: derived };
  for (const item of listOf(node, "params")) {
    const option = nodeOf(item, "DefElem") ?? {};
    if (textOf(option, "defname") !== "multirange_type_name") continue;
    multirange = qualifiedOf(namesOf(nodeOf(nodeOf(option, "arg"), "TypeName") ?? {}, "names"));
  }
  walk.effects.push({ kind: "createType", ...multirange });
  const tag = namedObject("CREATE TYPE", "type", "typeName")(walk, node, text);
  // Both bring functions of their own names, which are the server's own code.
  const made = { kind: "createFunction", language: "internal", securityDefiner: false } as const;
  walk.effects.push(
    { ...made, ...schema, name, body: "range_constructor3" },
    { ...made, ...multirange, body: "multirange_constructor2" },
  );
  return tag;
}

/** Renames say where the name went, so that the next statement finds it. */
export function rename(walk: Walk, node: TreeNode): string {
  const type = textOf(node, "renameType");
  const isColumn = type === "OBJECT_COLUMN" || type === "OBJECT_TABCONSTRAINT" || type === "OBJECT_ATTRIBUTE";
  const word = `ALTER ${objectWord(isColumn ? textOf(node, "relationType") || "OBJECT_TABLE" : type)}`;
  const rangeVar = nodeOf(node, "relation");
  const isPrivileged = type === "OBJECT_ROLE" || type === "OBJECT_DATABASE";
  const objects =
    rangeVar === undefined
      ? renamedObjects(walk, node, type)
      : namedRelation(
          walk,
          rangeVar,
          node.missing_ok === true || isTypeOfTransaction(walk, rangeVar, textOf(node, "relationType")),
        );
  walk.add(isPrivileged ? "privilege" : "define", word, objects);
  if (leadsElsewhere(walk.names, "RenameStmt", node)) walk.add("privilege", word, objects);
  if (isColumn) columnsAltered(walk, objects);
  const isTold = rangeVar !== undefined && !isColumn && renamedRelations.has(type);
  if (type === "OBJECT_SCHEMA") {
    walk.effects.push({ kind: "renameSchema", name: textOf(node, "subname"), to: textOf(node, "newname") });
  }
  if (isTold) {
    const schema = schemaOf(rangeVar);
    walk.effects.push({
      kind: "renameRelation",
      ...(schema === undefined ? {} : { schema }),
      name: textOf(rangeVar, "relname"),
      to: textOf(node, "newname"),
    });
  }
  if (!isTold && !isColumn) movedAside(walk, rangeVar, { name: textOf(node, "newname") });
  const made = codeMoved(walk, node, type, { name: textOf(node, "newname") });
  if (made !== undefined) walk.effects.push(made);
  // Code under another name: nothing that is named is known to be what it was.
  const hasCode = rangeVar === undefined && !isPrivileged;
  const moves = !(isTold || isColumn || isPrivileged);
  walk.effects.push({
    kind: "catalogChanged",
    ...(hasCode && { code: "everything" }),
    ...(moves && { moves }),
  });
  return word;
}

/**
 * A type or a function by the name or in the schema that it has been given. What it runs is not told here: after such a
 * statement nobody's code is known.
 */
function codeMoved(
  walk: Walk,
  node: TreeNode,
  kind: string,
  to: { readonly schema: string } | { readonly name: string },
): SessionEffect | undefined {
  const object = nodeOf(node, "object");
  const names = [
    ...namesOf(nodeOf(object, "List"), "items"),
    ...namesOf(nodeOf(object, "ObjectWithArgs"), "objname"),
  ];
  if (names.length === 0) return undefined;
  const { schema, name } = qualifiedOf(names);
  if (kind === "OBJECT_TYPE" || kind === "OBJECT_DOMAIN") {
    const found = walk.names.type(schema, name);
    return found === undefined ? undefined : { kind: "createType", schema: found.schema, name, ...to };
  }
  if (!routines.has(kind)) return undefined;
  const found = walk.names.functions(schema, name).find((info) => info.schema !== "pg_catalog");
  if (found === undefined) return undefined;
  const made = { kind: "createFunction", language: "unknown", securityDefiner: false } as const;
  return { ...made, schema: found.schema, name, ...to };
}

const routines = new Set(["OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_ROUTINE", "OBJECT_AGGREGATE"]);

const renamedRelations = new Set([
  "OBJECT_TABLE",
  "OBJECT_VIEW",
  "OBJECT_MATVIEW",
  "OBJECT_SEQUENCE",
  "OBJECT_FOREIGN_TABLE",
]);

function renamedObjects(walk: Walk, node: TreeNode, type: string): readonly ObjectRef[] {
  const subname = textOf(node, "subname");
  if (type === "OBJECT_SCHEMA") return schemaObjects(walk, subname);
  if (type === "OBJECT_ROLE") return [walk.object("role", subname)];
  if (type === "OBJECT_DATABASE") return [walk.object("database", subname)];
  return objectsIn(walk, node, "object");
}

/** What DROP removes, by the kind of thing; who guards it where that is more than a definition. */
const privilegedDrops = new Set([
  "OBJECT_EXTENSION",
  "OBJECT_FDW",
  "OBJECT_FOREIGN_SERVER",
  "OBJECT_EVENT_TRIGGER",
  "OBJECT_LANGUAGE",
  "OBJECT_POLICY",
  "OBJECT_PUBLICATION",
  "OBJECT_TRANSFORM",
  "OBJECT_ACCESS_METHOD",
]);

const relationDrops = new Set([...renamedRelations, "OBJECT_INDEX"]);

/** DROP of anything but roles, databases and tablespaces. */
export function drop(walk: Walk, node: TreeNode): string {
  const type = textOf(node, "removeType");
  const word = `DROP ${objectWord(type)}`;
  const operation = privilegedDrops.has(type) ? "privilege" : "define";
  const isOptional = node.missing_ok === true;
  const objects: ObjectRef[] = [];
  for (const item of listOf(node, "objects")) {
    const names = namesOf(nodeOf(item, "List"), "items");
    if (relationDrops.has(type)) objects.push(...dropRelation(walk, names, type, isOptional));
    else if (type === "OBJECT_TRIGGER" || type === "OBJECT_RULE" || type === "OBJECT_POLICY") {
      objects.push(...namedRelation(walk, rangeVarOf(names.slice(0, -1)), true));
    } else if (type === "OBJECT_SCHEMA") objects.push(...schemaObjects(walk, stringOf(item) ?? ""));
    else if (names.length > 0) objects.push(qualifiedObject(walk, "other", names));
    else objects.push(...objectsIn(walk, { item }, "item"), ...droppedType(walk, item));
  }
  walk.add(operation, word, objects);
  walk.effects.push({ kind: "catalogChanged" });
  return word;
}

/** What a kind and a list of names stand for: a relation with its children, a schema with all in it, or another thing. */
export function memberObjects(walk: Walk, node: TreeNode, type: string): readonly ObjectRef[] {
  const member = nodeOf(node, "object");
  const names = namesOf(nodeOf(member, "List"), "items");
  if (type === "OBJECT_SCHEMA") return schemaObjects(walk, stringOf(member) ?? "");
  if (names.length === 0) return objectsIn(walk, node, "object");
  // Of a column, the relation.
  if (type === "OBJECT_COLUMN") return namedRelation(walk, rangeVarOf(names.slice(0, -1)), true);
  return relationDrops.has(type)
    ? namedRelation(walk, rangeVarOf(names), true)
    : [qualifiedObject(walk, "other", names)];
}

/** A schema with all that goes where it goes: dropped with it, or found under another name. */
function schemaObjects(walk: Walk, schema: string): readonly ObjectRef[] {
  const inside = walk.names.relationsIn(schema).map((name) => `${schema}.${name}`);
  return [
    walk.object("schema", schema),
    ...inside.map((name) => ({ name, kind: "relation" as const, direct: false })),
  ];
}

function droppedType(walk: Walk, item: TreeNode): readonly ObjectRef[] {
  const type = nodeOf(item, "TypeName");
  return type === undefined ? [] : [qualifiedObject(walk, "type", namesOf(type, "names"))];
}

function rangeVarOf(names: readonly string[]): TreeNode {
  const { schema, name } = qualifiedOf(names);
  return { relname: name, ...(schema === undefined ? {} : { schemaname: schema }) };
}

function dropRelation(
  walk: Walk,
  names: readonly string[],
  type: string,
  isOptional: boolean,
): readonly ObjectRef[] {
  const rangeVar = rangeVarOf(names);
  walk.effects.push({ kind: "dropRelation", ...qualifiedOf(names) });
  if (type !== "OBJECT_INDEX" && !isOptional && findRelation(walk, rangeVar) === undefined) {
    const sqlstate = "42P01";
    const message = `${objectWord(type).toLowerCase()} "${names.join(".")}" does not exist`;
    throw new Rejected({ sqlstate, message }, true);
  }
  return namedRelation(walk, rangeVar, isOptional || type === "OBJECT_INDEX");
}

/** CREATE FUNCTION and PROCEDURE: a definition of the function and of all that its body would touch. */
export function createFunction(walk: Walk, node: TreeNode, text: string): string {
  const word = node.is_procedure === true ? "CREATE PROCEDURE" : "CREATE FUNCTION";
  const { schema, name } = qualifiedOf(namesOf(node, "funcname"));
  const options = functionOptions(walk, node);
  walk.add("define", word, [walk.object("function", newName(walk, schema, name))]);
  if (options.securityDefiner)
    walk.add("define", "SECURITY DEFINER", [walk.object("function", newName(walk, schema, name))]);
  const language = options.language ?? "sql";
  const isReadable = language === "sql" || language === "plpgsql";
  if (!isReadable) walk.add("privilege", word, [walk.object("function", newName(walk, schema, name))]);
  else {
    defineWhatIsRead(walk, word, (inner) => {
      inner.within({ isBody: true }, () => {
        if (node.sql_body === undefined) walkBody(inner, language, options.body, word);
        else walkAtomicBody(inner, node.sql_body);
      });
    });
  }
  // Whose path is that of the session at this moment is known by the catalog alone.
  const body = options.isPathTaken ? undefined : (options.body ?? atomicText(text));
  walk.effects.push(
    {
      kind: "createFunction",
      ...(schema === undefined ? {} : { schema }),
      name,
      language,
      ...(body === undefined ? {} : { body }),
      securityDefiner: options.securityDefiner,
      ...(options.path === undefined ? {} : { settings: [`search_path=${options.path}`] }),
    },
    { kind: "catalogChanged" },
  );
  return word;
}

function functionOptions(
  walk: Walk,
  node: TreeNode,
): {
  readonly language: string | undefined;
  readonly body: string | undefined;
  readonly securityDefiner: boolean;
  /** Its own search_path, as the catalog keeps it. */
  readonly path: string | undefined;
  /** True for `SET search_path FROM CURRENT`. */
  readonly isPathTaken: boolean;
} {
  let path: string | undefined;
  let isPathTaken = false;
  let language: string | undefined;
  let body: string | undefined;
  let securityDefiner = false;
  for (const item of listOf(node, "options")) {
    const option = nodeOf(item, "DefElem");
    const argument = nodeOf(option, "arg");
    switch (textOf(option, "defname")) {
      case "language":
        language = stringOf(argument)?.toLowerCase();
        break;
      case "as":
        body = stringsOf(listOf(nodeOf(argument, "List"), "items"))[0] ?? stringOf(argument);
        break;
      case "security":
        securityDefiner = nodeOf(argument, "Boolean")?.boolval === true;
        break;
      case "set":
        functionSetting(walk, nodeOf(argument, "VariableSetStmt"));
        ({ path, isPathTaken } = functionPath(nodeOf(argument, "VariableSetStmt"), { path, isPathTaken }));
        break;
    }
  }
  return { language, body, securityDefiner, path, isPathTaken };
}

interface FunctionPath {
  readonly path: string | undefined;
  readonly isPathTaken: boolean;
}

/** What one more SET clause makes of a function's path. */
function functionPath(clause: TreeNode | undefined, before: FunctionPath): FunctionPath {
  if (clause === undefined) return before;
  const { name, kind, values } = changeOf(clause);
  if (name !== "search_path") return before;
  if (kind === "VAR_SET_CURRENT") return { path: undefined, isPathTaken: true };
  const path = values?.map((schema) => `"${schema.replaceAll('"', '""')}"`).join(", ");
  return { path, isPathTaken: false };
}

/** The text of a BEGIN ATOMIC or RETURN body, from its keyword on; only the first outside quotes counts. */
function atomicText(text: string): string | undefined {
  const at = text.search(/\bBEGIN\s+ATOMIC\b|\bRETURN\b/i);
  return at < 0 ? undefined : text.slice(at);
}

/** GRANT and REVOKE on things, relations resolved. */
export function privilegeGrant(walk: Walk, node: TreeNode): string {
  const word = node.is_grant === true ? "GRANT" : "REVOKE";
  const isWholeSchema = textOf(node, "targtype") === "ACL_TARGET_ALL_IN_SCHEMA";
  const objects = listOf(node, "objects").flatMap((item) => {
    if (isWholeSchema) return schemaObjects(walk, stringOf(item) ?? "");
    const rangeVar = nodeOf(item, "RangeVar");
    if (rangeVar !== undefined) return namedRelation(walk, rangeVar, false);
    return objectsIn(walk, { item }, "item");
  });
  walk.add("privilege", word, objects);
  return word;
}
