/**
 * Foreign tables: where their rows come from is said by their options, and where these say nothing by their names and
 * those of their columns and schemas. A file, a program or another table is made of one by a change of these alone.
 */
import { type NameResolver, type RelationInfo, relationNamed } from "./names.ts";
import { listOf, nodeOf, type TreeNode, textOf } from "./tree.ts";

/** True for a definition that makes rows of a foreign table come from elsewhere than before. */
export function leadsElsewhere(names: NameResolver, tag: string, node: TreeNode): boolean {
  const rangeVar = nodeOf(node, "relation");
  const schema = rangeVar?.schemaname === undefined ? undefined : textOf(rangeVar, "schemaname");
  const relation = rangeVar === undefined ? undefined : names.relation(schema, textOf(rangeVar, "relname"));
  switch (tag) {
    case "AlterTableStmt": {
      const subtypes = listOf(node, "cmds").map((item) => textOf(nodeOf(item, "AlterTableCmd"), "subtype"));
      // Nothing but a foreign table has such options.
      if (subtypes.some((subtype) => /GenericOptions$/.test(subtype))) return true;
      return subtypes.includes("AT_AddColumn") && isForeignInPart(names, relation);
    }
    case "RenameStmt": {
      const type = textOf(node, "renameType");
      if (type === "OBJECT_SCHEMA") return hasForeignTable(names, textOf(node, "subname"));
      return type === "OBJECT_COLUMN" ? isForeignInPart(names, relation) : renamesForeign(relation, type);
    }
    case "AlterObjectSchemaStmt":
      return isForeign(relation);
    default:
      return false;
  }
}

function renamesForeign(relation: RelationInfo | undefined, type: string): boolean {
  return /TABLE$/.test(type) && isForeign(relation);
}

function isForeign(relation: RelationInfo | undefined): boolean {
  return relation?.kind === "foreignTable";
}

/** Columns are added and renamed in partitions and children, too. */
function isForeignInPart(names: NameResolver, relation: RelationInfo | undefined): boolean {
  return (
    isForeign(relation) || relation?.children.some((name) => isForeign(relationNamed(names, name))) === true
  );
}

function hasForeignTable(names: NameResolver, schema: string): boolean {
  return (names.relationsIn?.(schema) ?? []).some((name) => isForeign(names.relation(schema, name)));
}
