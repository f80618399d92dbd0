/**
 * Where values of several types become one type, an object id makes ids of the numbers beside it. The server fails there for a
 * number that is none: below zero, or above 4294967295, which a sum over copies of a row can be brought to.
 */
import { isKnownType } from "../sql/builtin-types.ts";
import { eachNode, listOf, namesOf, nodeOf, qualifiedOf, type TreeNode } from "../sql/tree.ts";
import { clean, type Flow, objectId } from "./flow.ts";
import type { Trace } from "./trace.ts";

/** Notes that masked values would become the type of what stands beside them, where that may be an object id. */
export function asOneType(trace: Trace, flows: readonly Flow[], where: string): void {
  const ids = flows.filter((flow) => flow.mayBeOid === true);
  // What the catalog shows of masked columns and of statements is text.
  const isNumber = ({ sources }: Flow) => [...sources].some((source) => !source.startsWith("pg_catalog."));
  for (const flow of flows) {
    const isBesideId = ids.length > 1 || (ids.length === 1 && ids[0] !== flow);
    if (isBesideId && isNumber(flow)) trace.infer(flow, where);
  }
}

/** True where a parameter of PREPARE is declared as one. */
export function takesObjectIds(node: TreeNode): boolean {
  return listOf(node, "argtypes").some((type) => castToType(nodeOf(type, "TypeName")) === objectId);
}

/** What a cast to that type makes of a value that depends on no masked column. */
export function castToType(type: TreeNode | undefined): Flow {
  const { name } = qualifiedOf(namesOf(type, "names"));
  return isKnownType(name) && !idTypes.test(name) ? clean : objectId;
}

/** What a function gives, whatever it is given: of those of users as far as the catalog tells. */
export function resultOf(trace: Trace, schema: string | undefined, name: string): Flow {
  const mayBe = trace.names
    .functions(schema, name)
    .some(
      (info) =>
        info.schema !== "pg_catalog" &&
        info.isReviewed !== true &&
        (info.returns ?? [""]).some((type) => !isKnownType(type) || idTypes.test(type)),
    );
  return mayBe || idFunctions.test(name) ? objectId : clean;
}

/** What comes of columns that are given types in the text: `AS r (o oid)`. */
export function columnsTyped(node: TreeNode): Flow {
  let flow = clean;
  eachNode(node, (tag, inside) => {
    // A ColumnDef keeps its type without a tag.
    for (const type of [tag === "TypeName" ? inside : undefined, inside.typeName])
      if (type !== undefined && castToType(type as TreeNode) === objectId) flow = objectId;
    return false;
  });
  return flow;
}

const idTypes =
  /^_?(oid|oidvector|reg(class|collation|config|database|dictionary|namespace|oper|operator|proc|procedure|role|type))$/;

const idFunctions =
  /^(oid|reg(class|type)|to_reg\w+|lo_\w+|pg_my_temp_schema|pg_filenode_relation|pg_relation_filenode|pg_partition_\w+|pg_get_\w+|pg_identify_\w+|currtid2?|aclexplode|pg_lock_status|pg_stat_\w+)$/;
