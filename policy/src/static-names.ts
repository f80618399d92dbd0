/** Names without a server: a resolver over relations that a case file declares, for tests and `policy test`. */
import { isKnownType } from "./sql/builtin-types.ts";
import type { FunctionInfo, NameResolver, RelationInfo, RelationKind } from "./sql/names.ts";

/**
 * Resolves the declared relations and no others. A declaration is `public.orders(id, total)`, or
 * `view public.open_orders(id) as SELECT …`; built-in functions are all taken to exist and to be built in.
 */
export function staticNames(
  declarations: readonly string[],
  searchPath: readonly string[] = ["pg_catalog", "public"],
): NameResolver {
  const relations = new Map<string, RelationInfo>();
  for (const declaration of declarations) {
    const relation = declaredRelation(declaration);
    relations.set(`${relation.schema}.${relation.name}`, relation);
  }
  const schemas = new Set(["pg_catalog", "information_schema", "public", ...searchPath]);
  for (const relation of relations.values()) schemas.add(relation.schema);
  const inSchema = (schema: string | undefined): readonly string[] =>
    schema === undefined ? searchPath : [schema];
  return {
    version: 1,
    searchPath,
    isFresh: true,
    relation: (schema, name) => {
      for (const one of inSchema(schema)) {
        const found = relations.get(`${one}.${name}`);
        if (found) return found;
      }
      return undefined;
    },
    functions: (schema, name) => (inSchema(schema).includes("pg_catalog") ? [builtIn(name)] : []),
    operatorFunctions: () => [],
    type: (schema, name) =>
      inSchema(schema).includes("pg_catalog") && isKnownType(name)
        ? { schema: "pg_catalog", name, functions: [] }
        : undefined,
    // Of the account's name nothing is known here, and no credential has set a role.
    leadsBack: (role) => role === undefined || role === "none",
    schemaExists: (name) => schemas.has(name),
    prepared: () => undefined,
  };
}

function declaredRelation(declaration: string): RelationInfo {
  const found = /^(?:(table|view)\s+)?([^\s.()]+)\.([^\s.()]+)\s*\(([^()]*)\)(?:\s+as\s+(\S[\s\S]*))?$/i.exec(
    declaration.trim(),
  );
  const [, kind, schema, name, columns, definition] = found ?? [];
  if (schema === undefined || name === undefined || columns === undefined) {
    throw new Error(`${JSON.stringify(declaration)} is no declaration such as public.orders(id, total)`);
  }
  return {
    schema,
    name,
    kind: (kind?.toLowerCase() ?? "table") as RelationKind,
    temporary: false,
    columns: columns.split(",").map((column) => column.trim()),
    ...(definition !== undefined && { definition }),
    reads: [],
    children: [],
    cascades: [],
    triggers: [],
    hasRules: false,
    functions: [],
  };
}

function builtIn(name: string): FunctionInfo {
  return { schema: "pg_catalog", name, language: "internal", securityDefiner: false, settings: [] };
}
