/** Maintenance of tables and indexes: what keeps them in order, and the code that it calls over their rows. */
import type { ObjectRef } from "../model.ts";
import { type Handler, namedRelation } from "./defined-objects.ts";
import { type FunctionInfo, relationNamed } from "./names.ts";
import { unknownCode } from "./overlay.ts";
import { runFunctions } from "./relations.ts";
import { listOf, nodeOf, stringOf, type TreeNode, textOf } from "./tree.ts";
import { Walk } from "./walk.ts";

/** What computes indexes anew; of a table by its name alone, as nothing here tells whose an index is. */
export function maintenance(word: string, isIndex = false): Handler {
  return (walk, node) => {
    const rangeVar = nodeOf(node, "relation");
    const name = textOf(node, "name");
    const objects = rangeVar === undefined ? [] : namedRelation(walk, rangeVar, isIndex);
    walk.add("control", word, name === "" ? objects : [walk.object("other", name)]);
    runUpkeep(walk, word, rangeVar === undefined || isIndex ? undefined : objects);
    return word;
  };
}

/** Judges what expressions of indexes and statistics call, over the rows of these tables or of all. */
function runUpkeep(walk: Walk, word: string, tables: readonly ObjectRef[] | undefined): void {
  for (const [name, functions] of walk.names.upkeep) {
    if (tables !== undefined && !tables.some((table) => table.name === name)) continue;
    const object: ObjectRef = { name, kind: "relation", direct: false };
    runFunctions(
      walk,
      functions.filter((info) => doesMore(walk, info, word)),
      object,
      word,
    );
  }
  const isUnknown = tables?.some(({ name }) =>
    relationNamed(walk.names, name)?.functions.includes(unknownCode),
  );
  if (isUnknown ?? walk.names.hasUnknownCode) walk.addOpaque(word, tables ?? []);
}

/** True where a function does more than compute from its arguments: whoever may keep a table in order may have that done. */
function doesMore(walk: Walk, info: FunctionInfo, word: string): boolean {
  const inner = new Walk(walk.names, walk.walkers, 100_000);
  inner.walkers.functionInfo(inner, info, word);
  const parts = inner.parts.build();
  return parts.some(
    ({ operation, objects }) => operation !== "read" || objects.some(({ kind }) => kind === "relation"),
  );
}

/** VACUUM and ANALYZE. */
export function vacuum(walk: Walk, node: TreeNode): string {
  const word = node.is_vacuumcmd === true ? "VACUUM" : "ANALYZE";
  const relations = listOf(node, "rels")
    .map((item) => nodeOf(nodeOf(item, "VacuumRelation"), "relation"))
    .filter((rangeVar) => rangeVar !== undefined);
  const objects = relations.flatMap((rangeVar) => namedRelation(walk, rangeVar, false));
  walk.add("control", word, objects);
  if (word === "ANALYZE" || listOf(node, "options").some(isComputing))
    runUpkeep(walk, word, relations.length === 0 ? undefined : objects);
  return word;
}

/** FULL writes indexes anew, and ANALYZE statistics. */
function isComputing(item: TreeNode): boolean {
  const option = nodeOf(item, "DefElem");
  return /^(full|analyze)$/i.test(textOf(option, "defname")) && !isOff(option);
}

/** False, off, no and 0 as DefElem values; everything that is not clearly one of them counts as on. */
export function isOff(option: TreeNode | undefined): boolean {
  const argument = nodeOf(option, "arg");
  const text = stringOf(argument)?.toLowerCase();
  if (text !== undefined) return ["off", "false", "no", "0"].includes(text);
  const integer = nodeOf(argument, "Integer");
  if (integer !== undefined) return (integer.ival ?? 0) === 0;
  const boolean = nodeOf(argument, "Boolean");
  return boolean !== undefined && boolean.boolval !== true;
}
