/** Whether a condition holds a write back at all: no WHERE, or one that is true for every row. */
import type { RelationInfo } from "./names.ts";
import type { TreeNode } from "./tree.ts";
import type { Scope, Walk } from "./walk.ts";

/** A write whose condition is in question. */
export interface ConditionedWrite {
  readonly relation: RelationInfo;
  readonly alias: string;
  readonly where: unknown;
  readonly from: unknown;
}

export function isUnbounded(_walk: Walk, _scope: Scope, write: ConditionedWrite): boolean {
  return write.where === undefined;
}

export function isMergeUnbounded(
  _walk: Walk,
  _scope: Scope,
  _merge: { readonly relation: RelationInfo; readonly alias: string; readonly node: TreeNode },
): boolean {
  return false;
}
