/** ALTER TABLE and its like. */
import type { ObjectRef } from "../model.ts";
import { bindsCode, isSerial, leanOn, walkRunning } from "./bound-code.ts";
import { namedRelation, objectWord, schemaOf } from "./defined-objects.ts";
import { leadsElsewhere } from "./foreign-tables.ts";
import { ownSequence } from "./made-relations.ts";
import { runFunctions } from "./relations.ts";
import { eachNode, listOf, nodeOf, qualifiedOf, type TreeNode, textOf } from "./tree.ts";
import { scopeBelow, type Walk } from "./walk.ts";

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
export function columnsAltered(walk: Walk, objects: readonly ObjectRef[]): void {
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
export function isTypeOfTransaction(walk: Walk, rangeVar: TreeNode, objectType: string): boolean {
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
