/** Names for explaining without a server: what is not declared is taken to exist, and the reader is told so. */
import type { NameResolver } from "@sallyport/policy";

/** A resolver, and what it had to assume. */
export interface AssumedNames {
  readonly names: NameResolver;
  /** Relations that were taken to be plain tables, as `schema.name`, in the order in which they were met. */
  readonly assumed: ReadonlySet<string>;
}

/** Puts assumptions under the declared names: an undeclared relation is a table without triggers, rules or cascades. */
export function assumeTables(
  declared: NameResolver,
  columnsOf: (schema: string, name: string) => readonly string[] = () => [],
): AssumedNames {
  const assumed = new Set<string>();
  const names: NameResolver = {
    ...declared,
    relation: (schema, name) => {
      const known = declared.relation(schema, name);
      if (known !== undefined) return known;
      const home = schema ?? homeOf(name, declared.searchPath);
      const isCatalog = home === "pg_catalog" || home === "information_schema";
      if (!isCatalog) assumed.add(`${home}.${name}`);
      return {
        schema: home,
        name,
        kind: isCatalog ? "view" : "table",
        temporary: false,
        // Those that policy speaks of; there may be more.
        columns: columnsOf(home, name),
        reads: [],
        children: [],
        cascades: [],
        triggers: [],
        hasRules: false,
        functions: [],
      };
    },
    schemaExists: () => true,
  };
  return { names, assumed };
}

/** Catalog relations begin with `pg_`; all others are where the search path would find them first. */
function homeOf(name: string, searchPath: readonly string[] = []): string {
  if (name.startsWith("pg_")) return "pg_catalog";
  return searchPath.find((schema) => schema !== "pg_catalog" && schema !== "pg_temp") ?? "public";
}
