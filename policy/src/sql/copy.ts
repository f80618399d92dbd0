/** COPY: to the client is an export, from the client a write, and files or programs of the server a privilege. */
import { walkFields } from "./expressions.ts";
import { readRelation, relationOf, writeRelation } from "./relations.ts";
import { nodeOf, type TreeNode, tagOf, textOf } from "./tree.ts";
import { scopeBelow, type Walk } from "./walk.ts";

/** Judges a COPY; the answer is its tag. */
export function copy(walk: Walk, node: TreeNode): string {
  const isFrom = node.is_from === true;
  const filename = textOf(node, "filename");
  if (filename !== "") {
    // A program's text may hold a password: only that there is one is told.
    const file = node.is_program === true ? "program" : filename;
    walk.add("privilege", "COPY", [walk.object("file", file)]);
  }
  const rangeVar = nodeOf(node, "relation");
  if (rangeVar !== undefined)
    copyRelation(walk, rangeVar, { isFrom, isToClient: !isFrom && filename === "" });
  const query = nodeOf(node, "query");
  if (query !== undefined) copyQuery(walk, query, filename === "");
  walkFields(walk, node, ["whereClause"], scopeBelow(undefined, "COPY"));
  return "COPY";
}

function copyRelation(
  walk: Walk,
  rangeVar: TreeNode,
  way: { readonly isFrom: boolean; readonly isToClient: boolean },
): void {
  const relation = relationOf(walk, rangeVar);
  if (way.isFrom) {
    writeRelation(walk, relation, { event: "insert", word: "COPY", unbounded: false });
    return;
  }
  readRelation(walk, relation, "COPY");
  if (way.isToClient) walk.add("export", "COPY", [walk.relationObject(relation)]);
}

function copyQuery(walk: Walk, query: TreeNode, isToClient: boolean): void {
  const tag = tagOf(query) ?? "";
  walk.within({ words: [...walk.frame.words, "COPY"] }, () => {
    walk.walkers.query(walk, tag, nodeOf(query, tag) ?? {}, undefined);
  });
  if (!isToClient) return;
  const objects = walk.parts.build().flatMap((part) => part.objects);
  walk.add(
    "export",
    "COPY",
    objects.filter((object) => object.kind === "relation"),
  );
}
