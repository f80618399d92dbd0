/** A table-driven NameResolver over testdata/sql/schema.sql, for tests of anything that analyses SQL. */
import catalog from "../../testdata/sql/pg-catalog.json" with { type: "json" };
import { isKnownType } from "./builtin-types.ts";
import type { FunctionInfo, NameResolver, PreparedInfo, RelationInfo, TypeInfo } from "./names.ts";

/** What a test may change of the schema's own story. */
export interface TestNames {
  readonly searchPath?: readonly string[] | undefined;
  readonly isFresh?: boolean;
  readonly relations?: readonly RelationInfo[];
  readonly functions?: readonly FunctionInfo[];
  readonly types?: readonly TypeInfo[];
  readonly prepared?: Readonly<Record<string, PreparedInfo>>;
  readonly definitions?: NameResolver["definitions"];
}

/** A relation with nothing behind it, but for what is given. */
export function testRelation(name: string, columns: string, more: Partial<RelationInfo> = {}): RelationInfo {
  const [schema = "", table = ""] = name.split(".");
  return {
    schema,
    name: table,
    kind: "table",
    temporary: false,
    columns: columns.split(" "),
    reads: [],
    children: [],
    cascades: [],
    triggers: [],
    hasRules: false,
    functions: [],
    ...more,
  };
}

/** A function of that name, language and body. */
export function testFunction(
  name: string,
  language: string,
  body?: string,
  more: Partial<FunctionInfo> = {},
): FunctionInfo {
  const [schema = "", plain = ""] = name.split(".");
  return {
    schema,
    name: plain,
    language,
    ...(body === undefined ? {} : { body }),
    securityDefiner: false,
    settings: [],
    ...more,
  };
}

/** The resolver of schema.sql, with what a test adds. */
export function testNames(changes: TestNames = {}): NameResolver {
  const searchPath = "searchPath" in changes ? changes.searchPath : ["pg_temp", "pg_catalog", "public"];
  const relations = byName([...schemaRelations, ...catalogRelations, ...(changes.relations ?? [])]);
  const functions = new Map<string, FunctionInfo[]>();
  for (const info of [...schemaFunctions, ...catalogFunctions, ...(changes.functions ?? [])]) {
    const key = `${info.schema}.${info.name}`;
    functions.set(key, [...(functions.get(key) ?? []), info]);
  }
  const types = byName([...schemaTypes, ...(changes.types ?? [])]);
  const schemas = (schema: string | undefined): readonly string[] =>
    schema === undefined ? (searchPath ?? []) : [schema];
  return {
    version: 1,
    searchPath,
    isFresh: changes.isFresh ?? true,
    relation: (schema, name) => first(schemas(schema), (candidate) => relations.get(`${candidate}.${name}`)),
    functions: (schema, name) =>
      schemas(schema).flatMap((candidate) => functions.get(`${candidate}.${name}`) ?? []),
    isBuiltinAlone: (name) =>
      functions.has(`pg_catalog.${name}`) &&
      ![...functions.keys()].some((key) => key.endsWith(`.${name}`) && !key.startsWith("pg_catalog.")),
    operatorFunctions: (schema, operator) =>
      operator === "=" && schemas(schema).includes("evil") ? (functions.get("evil.equals") ?? []) : [],
    type: (schema, name) =>
      first(schemas(schema), (candidate) =>
        candidate === "pg_catalog" && isKnownType(name)
          ? { schema: candidate, name, functions: [] }
          : types.get(`${candidate}.${name}`),
      ),
    relationsIn: (schema) =>
      [...relations.values()].filter((info) => info.schema === schema).map((info) => info.name),
    // The session began as pg_monitor, which logged in.
    leadsBack: (role) => role === undefined || role === "none" || role === "pg_monitor",
    schemaExists: (name) => ["public", "app", "evil", "pg_catalog", "information_schema"].includes(name),
    prepared: (name) => changes.prepared?.[name],
    ...(changes.definitions === undefined ? {} : { definitions: changes.definitions }),
  };
}

function first<Value>(
  schemas: readonly string[],
  find: (schema: string) => Value | undefined,
): Value | undefined {
  for (const schema of schemas) {
    const found = find(schema);
    if (found !== undefined) return found;
  }
  return undefined;
}

function byName<Item extends { readonly schema: string; readonly name: string }>(
  items: readonly Item[],
): ReadonlyMap<string, Item> {
  return new Map(items.map((item) => [`${item.schema}.${item.name}`, item]));
}

const relationRef = (name: string) => ({ name, kind: "relation" as const, direct: false });

const logChange = testFunction(
  "app.log_change",
  "plpgsql",
  "BEGIN INSERT INTO app.audit (what) VALUES (TG_OP || ' ' || NEW.id); RETURN NEW; END",
);

const isFine = testFunction(
  "evil.is_fine",
  "plpgsql",
  "BEGIN DELETE FROM public.documents; RETURN true; END",
);

const schemaRelations: readonly RelationInfo[] = [
  testRelation("public.customers", "id name email ssn balance", {
    cascades: [{ relation: "public.orders", on: "delete" }],
  }),
  testRelation("public.orders", "id customer_id total status", {
    cascades: [{ relation: "public.order_items", on: "delete" }],
  }),
  testRelation("public.order_items", "id order_id sku quantity"),
  testRelation("public.pgbench_accounts", "aid bid abalance filler"),
  testRelation("public.documents", "id title body"),
  testRelation("public.customers_pkey", "id", { kind: "index" }),
  testRelation("public.ticket_seq", "last_value log_cnt is_called", { kind: "sequence" }),
  testRelation("app.events", "id at kind", { kind: "partitionedTable", children: ["app.events_2025"] }),
  testRelation("app.events_2025", "id at kind"),
  testRelation("app.audit", "id what"),
  testRelation("app.watched", "id name", {
    triggers: [{ events: ["insert", "update"], function: logChange }],
  }),
  testRelation("app.secrets", "id secret"),
  testRelation("evil.customers", "id name"),
  testRelation("public.rich_customers", "id name", {
    kind: "view",
    definition: "SELECT id, name FROM public.customers WHERE balance > 1000",
    reads: [relationRef("public.customers")],
  }),
  testRelation("app.counted", "n", {
    kind: "view",
    definition: "SELECT count(*) AS n FROM public.orders",
    reads: [relationRef("public.orders")],
  }),
  testRelation("app.totals", "customer_id total", {
    kind: "materializedView",
    definition: "SELECT customer_id, sum(total) AS total FROM public.orders GROUP BY customer_id",
    reads: [relationRef("public.orders")],
  }),
];

const schemaFunctions: readonly FunctionInfo[] = [
  logChange,
  testFunction("app.order_count", "sql", "SELECT count(*) FROM public.orders"),
  testFunction("app.add_one", "sql", "SELECT n + 1"),
  testFunction("app.purge", "sql", "DELETE FROM public.order_items WHERE quantity = 0"),
  testFunction("app.atomic_count", "sql", "BEGIN ATOMIC SELECT count(*) FROM public.orders; END"),
  testFunction("app.wipe", "plpgsql", " BEGIN DELETE FROM public.order_items; END "),
  testFunction("app.dynamic", "plpgsql", "BEGIN EXECUTE 'DELETE FROM ' || t; END"),
  testFunction(
    "app.peek",
    "plpgsql",
    "DECLARE r app.secrets; BEGIN SELECT * INTO r FROM app.secrets LIMIT 1; RETURN r.secret; END",
    { securityDefiner: true },
  ),
  testFunction("app.nested", "sql", "SELECT app.order_count()"),
  testFunction("app.hidden_default", "plpgsql", "DECLARE r record := app.purge(); BEGIN NULL; END"),
  testFunction(
    "app.loop_a",
    "plpgsql",
    "BEGIN IF n <= 0 THEN RETURN 0; END IF; RETURN app.loop_a(n - 1); END",
  ),
  testFunction("app.touch", "plpgsql", "BEGIN DELETE FROM public.documents; RETURN c.name; END"),
  testFunction(
    "app.archive",
    "plpgsql",
    "BEGIN UPDATE public.orders SET status = 'archived' WHERE status = 'done'; END",
  ),
  testFunction("evil.lower", "plpgsql", "BEGIN DELETE FROM public.documents; RETURN $1; END"),
  testFunction("evil.equals", "plpgsql", "BEGIN DELETE FROM public.documents; RETURN true; END"),
  isFine,
];

const schemaTypes: readonly TypeInfo[] = [
  { schema: "evil", name: "word", functions: [isFine] },
  { schema: "app", name: "mood", functions: [] },
];

const catalogFunctions: readonly FunctionInfo[] = catalog.functions.map((name) => ({
  schema: "pg_catalog",
  name,
  language: "internal",
  securityDefiner: false,
  settings: [],
}));

const catalogRelations: readonly RelationInfo[] = [
  ...catalog.relations.map((entry) =>
    testRelation(`pg_catalog.${entry.replace(/:v$/, "")}`, "oid", {
      kind: entry.endsWith(":v") ? "view" : "table",
    }),
  ),
  testRelation("information_schema.tables", "table_catalog table_schema table_name", { kind: "view" }),
  testRelation("information_schema.columns", "table_schema table_name column_name", { kind: "view" }),
];
