import type { SessionEffect } from "@sallyport/policy";
import { expect, test } from "vitest";
import { SessionNames, type SessionNamesOptions } from "./session-names.ts";
import { catalogRow, FakeServer, shopRows } from "./testing.ts";

async function session(options: Partial<SessionNamesOptions> = {}) {
  const server = new FakeServer();
  await server.catalog.refresh(false);
  const make = (account = "ann") =>
    new SessionNames({
      catalog: server.catalog,
      account,
      reportsSearchPath: false,
      initialSearchPath: '"$user", public',
      prepared: () => undefined,
      ...options,
    });
  return { server, names: make(), make };
}

const table = (
  name: string,
  more: Partial<Extract<SessionEffect, { kind: "createRelation" }>> = {},
): SessionEffect => ({
  kind: "createRelation",
  name,
  temporary: false,
  relationKind: "table",
  columns: ["mine"],
  ...more,
});
const temporary = (name: string) => table(name, { temporary: true, onCommit: "preserve" });
const action = (
  what: Extract<SessionEffect, { kind: "transaction" }>["action"],
  name?: string,
): SessionEffect => ({ kind: "transaction", action: what, ...(name === undefined ? {} : { name }) });
const path = (...names: readonly string[]): SessionEffect => ({
  kind: "setSearchPath",
  path: names,
  local: false,
});

test.for([
  ['"$user", public', ["pg_temp", "pg_catalog", "public"]],
  ["nowhere, shop", ["pg_temp", "pg_catalog", "shop"]],
  ["shop, pg_catalog, pg_temp", ["shop", "pg_catalog", "pg_temp"]],
  ["closed, sealed, public", ["pg_temp", "pg_catalog", "public"]],
  ["public, public", ["pg_temp", "pg_catalog", "public"]],
  ["", ["pg_temp", "pg_catalog"]],
  ['"', undefined],
] as const)("search_path %s is looked up in this order", async ([initialSearchPath, schemas]) => {
  const { names } = await session({ initialSearchPath });
  expect(names.searchPath).toEqual(schemas);
});

test("an unknown search_path finds nothing that is not qualified", async () => {
  const { names } = await session();
  names.apply({ kind: "setSearchPath", local: false });
  expect(names.searchPath).toBeUndefined();
  expect(names.relation(undefined, "users")).toBeUndefined();
  expect(names.functions(undefined, "lower")).toEqual([]);
  expect(names.relation("public", "users")?.schema).toBe("public");
  expect(names.isPrivate).toBe(true);
});

test("functions and operators of every schema in the path count, but not those of pg_temp", async () => {
  const { names } = await session({ initialSearchPath: "shop, public" });
  names.apply({
    kind: "createFunction",
    schema: "pg_temp",
    name: "lower",
    language: "sql",
    securityDefiner: false,
  });
  expect(names.functions(undefined, "lower").map((found) => found.schema)).toEqual(["pg_catalog", "public"]);
  expect(names.functions("pg_temp", "lower")).toHaveLength(1);
  expect(names.operatorFunctions(undefined, "===").map((found) => found.name)).toEqual(["f"]);
  expect(names.operatorFunctions("public", "===")).toEqual([]);
  expect(names.type(undefined, "even")?.functions).toHaveLength(1);
});

test("a replaced function keeps its committed body beside the new one until it is committed", async () => {
  const { names } = await session();
  names.apply({
    kind: "createFunction",
    schema: "shop",
    name: "f",
    language: "sql",
    body: "SELECT 1",
    securityDefiner: false,
  });
  expect(names.functions("shop", "f").map((found) => found.language)).toEqual(["sql", "plpgsql"]);
});

test("sessions without changes of their own share a version; those with have one each", async () => {
  const { names, make } = await session();
  const other = make();
  expect(names.version).toBe(other.version);
  expect(names.version).not.toBe(make("root").version);
  names.apply(temporary("mine"));
  names.ready("I", false);
  other.apply(temporary("mine"));
  other.ready("I", false);
  expect([names.isPrivate, other.isPrivate]).toEqual([true, true]);
  expect(names.version).not.toBe(other.version);
  const { version } = names;
  names.ready("I", false);
  expect(names.version).toBe(version);
  names.apply({ kind: "discardAll" });
  other.apply({ kind: "discardAll" });
  expect([names.isPrivate, names.version]).toEqual([false, other.version]);
});

test("a private version changes with the catalog as well", async () => {
  const { names, server } = await session();
  names.apply(path("shop"));
  const { version } = names;
  expect(names.version).toBe(version);
  server.change([...shopRows]);
  await server.catalog.refresh(true);
  expect(names.version).not.toBe(version);
});

test("committed changes of the catalog are read before anything else is judged", async () => {
  const { names, server } = await session();
  names.apply({ kind: "catalogChanged" });
  expect(names.isFresh).toBe(true);
  names.ready("I", false);
  expect(names.isFresh).toBe(false);
  server.change([...shopRows, catalogRow("relation", 999, 1, "late", "r", ["id"], null, false, null)]);
  await names.refresh(false);
  expect(names.relation(undefined, "late")?.schema).toBe("public");
});

test("who waited for a reading judges by it, though it took longer than it stays fresh", async () => {
  const { server, names } = await session();
  Object.defineProperty(server, "gate", {
    get: () => {
      server.nowMs += 1_500;
    },
  });
  expect(await names.readAnew(() => names.isFresh)).toBe(true);
  expect(names.isFresh).toBe(false);
  server.failure = new Error("gone");
  expect(await names.readAnew(() => "judged")).toBeUndefined();
});

test("in a transaction the session sees its own changes, and the catalog is read at its end", async () => {
  const { names } = await session();
  names.apply(action("begin"));
  names.ready("T", false);
  names.apply(table("late"));
  names.ready("T", false);
  expect([names.isFresh, names.relation(undefined, "late")?.columns]).toEqual([true, ["mine"]]);
  names.apply(action("commit"));
  expect(names.isFresh).toBe(false);
  expect(names.relation(undefined, "late")).toBeUndefined();
});

test("a block that is rolled back has changed no catalog", async () => {
  const { names } = await session();
  for (const end of [action("rollback"), action("commit")]) {
    names.apply(action("begin"));
    names.ready("T", false);
    names.apply(table("late"));
    names.ready("E", true);
    names.apply(end);
    names.ready("I", false);
    expect([names.isFresh, names.relation(undefined, "late")]).toEqual([true, undefined]);
  }
});

test.for<readonly [what: string, before: readonly SessionEffect[], inside: readonly SessionEffect[]]>([
  ["before the block in one flight", [table("late"), action("begin")], []],
  [
    "after a block that was committed in the flight",
    [action("begin")],
    [action("commit"), table("late"), action("rollback")],
  ],
  [
    "after a block that was rolled back in the flight",
    [action("begin")],
    [action("rollback"), action("begin"), table("late"), action("rollback")],
  ],
])(
  "what may have run outside of it is looked for, though a block is rolled back: %s",
  async ([, before, inside]) => {
    const { names } = await session();
    for (const effect of before) names.apply(effect);
    names.ready("T", false);
    for (const effect of inside) names.apply(effect);
    if (inside.length === 0) names.apply(action("rollback"));
    names.ready("I", false);
    expect(names.isFresh).toBe(false);
  },
);

test("after DISCARD it is looked first whether anything has changed, and after a definition what has", async () => {
  const { names, server } = await session();
  names.apply({ kind: "discardAll" });
  names.apply({ kind: "catalogChanged", isUnlikely: true });
  names.ready("I", false);
  expect(names.isFresh).toBe(false);
  await names.refresh(false);
  expect(server.asked).toEqual(["catalog", "likeness"]);
  names.apply(table("late"));
  names.apply({ kind: "catalogChanged", isUnlikely: true });
  names.ready("I", false);
  await names.refresh(false);
  expect(server.asked.slice(2)).toEqual(["changes", "catalog"]);
});

test.for([
  ["an error outside a transaction", (names: SessionNames) => names.ready("I", true)],
  [
    "a rollback",
    (names: SessionNames) => {
      names.apply(action("rollback"));
      names.ready("I", false);
    },
  ],
  [
    "a failed transaction that ends",
    (names: SessionNames) => {
      names.ready("E", true);
      names.ready("I", false);
    },
  ],
] as const)("%s takes everything back", async ([, end]) => {
  const { names } = await session();
  const { version } = names;
  names.apply(table("late"));
  names.apply(temporary("users"));
  names.apply({ kind: "dropRelation", schema: "public", name: "users" });
  names.apply(path("shop"));
  end(names);
  await names.refresh(false);
  expect(names.relation(undefined, "late")).toBeUndefined();
  expect(names.relation(undefined, "users")?.schema).toBe("public");
  expect([names.isPrivate, names.version]).toEqual([false, version]);
});

test("a table renamed in a transaction is still known by its old name to those who judge", async () => {
  const { names } = await session();
  names.apply({ kind: "renameRelation", schema: "shop", name: "users", to: "harmless" });
  expect(names.relation("shop", "users")).toBeUndefined();
  expect(names.relation("shop", "harmless")?.reads).toEqual([
    { name: "shop.users", kind: "relation", direct: false },
  ]);
});

test("a temporary table whose fate at commit is unknown stands for what it hides", async () => {
  const { names } = await session();
  names.apply(table("users", { temporary: true }));
  expect(names.relation(undefined, "users")?.schema).toBe("pg_temp");
  names.ready("I", false);
  const users = names.relation(undefined, "users");
  expect([users?.schema, users?.columns]).toEqual(["public", ["id", "name", "mine"]]);
  names.apply(table("other", { temporary: true }));
  names.ready("I", false);
  expect(names.relation(undefined, "other")?.schema).toBe("pg_temp");
});

test("what may have dropped a temporary table makes its name mean what it hides", async () => {
  const { names } = await session();
  names.apply(temporary("users"));
  names.apply({ kind: "catalogChanged" });
  names.ready("I", false);
  expect(names.relation(undefined, "users")?.schema).toBe("pg_temp");
  names.apply({ kind: "catalogChanged" });
  expect(names.relation(undefined, "users")?.schema).toBe("public");
});

test("what was judged with a prepared statement is never shared", async () => {
  const { names, make } = await session({
    prepared: (name) => (name === "p" ? { text: "", parts: [] } : undefined),
  });
  names.prepared("unknown");
  expect(names.isPrivate).toBe(false);
  const { version } = names;
  names.prepared("p");
  expect([names.isPrivate, names.version === version]).toEqual([true, false]);
  expect(make().version).toBe(version);
});

test("a report of the server outranks every effect", async () => {
  const { names } = await session({ reportsSearchPath: true });
  names.apply(path("public"));
  names.reportSearchPath("shop");
  names.ready("I", false);
  expect(names.relation(undefined, "users")?.schema).toBe("shop");
  expect(names.isPrivate).toBe(true);
  names.reportSearchPath('"$user", public');
  names.ready("I", false);
  expect(names.isPrivate).toBe(false);
});

test("a session that changes too much gets no answer that counts as fresh", async () => {
  const { names } = await session();
  for (let at = 0; at < 5000; at += 1) names.apply(temporary(`t${at}`));
  expect(names.isFresh).toBe(false);
});

test("schemas and types made in a transaction exist at once", async () => {
  const { names } = await session();
  names.apply({ kind: "createSchema", name: "fresh" });
  names.apply(path("fresh"));
  names.apply({ kind: "createType", name: "kind" });
  expect(names.schemaExists("fresh")).toBe(true);
  expect(names.type(undefined, "kind")?.schema).toBe("fresh");
  names.ready("I", true);
  expect([names.schemaExists("fresh"), names.type("fresh", "kind")]).toEqual([false, undefined]);
});

test("what a transaction hangs on relations makes them opaque until it ends, temporary ones for good", async () => {
  const { names } = await session();
  const read = () => names.relation("public", "users");
  names.apply(temporary("mine"));
  names.apply({ kind: "catalogChanged" });
  expect(read()).toMatchObject({ hasRules: false, functions: [] });
  names.apply({ kind: "catalogChanged", code: "relations" });
  expect(names.isPrivate).toBe(true);
  expect(read()).toMatchObject({ hasRules: true, functions: [{ language: "unknown" }] });
  expect(names.relation("pg_catalog", "pg_class")).toMatchObject({ hasRules: false, functions: [] });
  names.ready("T", false);
  expect(read()?.hasRules).toBe(true);
  names.ready("I", false);
  expect(read()).toMatchObject({ hasRules: false, functions: [] });
  expect(names.relation("pg_temp", "mine")?.hasRules).toBe(true);
});

test("an operator, a cast or a type of this transaction makes every operator and type opaque", async () => {
  const { names } = await session();
  names.apply({ kind: "catalogChanged", code: "everything" });
  names.apply({ kind: "catalogChanged", code: "relations" });
  expect(names.operatorFunctions(undefined, "=")).toMatchObject([{ language: "unknown" }]);
  expect(names.type("pg_catalog", "int4")?.functions).toMatchObject([{ language: "unknown" }]);
  names.ready("I", true);
  expect(names.operatorFunctions(undefined, "=")).toEqual([]);
});

test("CREATE TABLE IF NOT EXISTS hides nothing of what is there", async () => {
  const rows = [...shopRows, catalogRow("trigger", 101, 4, [[201, "shop", "f"]])];
  const { server, names } = await session();
  server.change(rows);
  await names.refresh(true);
  names.apply(table("users", { schema: "public" }));
  expect(names.relation("public", "users")).toMatchObject({
    triggers: [{ function: { name: "f" } }],
    columns: ["id", "name", "mine"],
  });
});

test.for([
  ["the account's own", undefined, [false, false, false, false]],
  ["the account's own", { user: "ann", isHeld: false }, [true, true, true, false]],
  ["the credential's", { user: "login", isHeld: true }, [true, false, true, false]],
  ["of the server's settings", { user: "login", isHeld: false }, [false, false, true, false]],
] as const)("what leads back to a role %s: %o", async ([, login, answers]) => {
  const { names } = await session({ login });
  expect([undefined, "none", "ann", "login"].map((role) => names.leadsBack(role))).toEqual(answers);
});

test("a role of the server's settings may be left at any time: both have their schema in the path", async () => {
  const { names } = await session({ login: { user: "shop", isHeld: false }, initialSearchPath: '"$user"' });
  for (const effect of [undefined, { kind: "discardAll" }] as const) {
    if (effect !== undefined) names.apply(effect);
    expect(names.searchPath).toEqual(["pg_temp", "pg_catalog", "ann", "shop"]);
    expect(names.hasMovedRole).toBe(true);
  }
});

test("a function of pg_catalog alone means itself along any path, until somebody may have made another", async () => {
  const { names, make } = await session();
  names.apply({ kind: "setSearchPath", local: false });
  const found = ["count", "lower", "no_such"].map((name) => names.isBuiltinAlone(name));
  expect(found).toEqual([true, false, false]);
  const made = { schema: "public", name: "count", language: "sql", securityDefiner: false } as const;
  names.apply({ kind: "createFunction", ...made });
  expect(names.isBuiltinAlone("count")).toBe(false);
  const other = make();
  other.apply({ kind: "catalogChanged" });
  expect(other.isBuiltinAlone("count")).toBe(false);
});

/** Something that a body may have made. */
const perhaps = (made: SessionEffect): SessionEffect => {
  if (made.kind !== "createRelation" && made.kind !== "createSchema") throw new Error(made.kind);
  return { kind: "perhaps", made };
};

test("what a body may have made is known until a rollback, or the commit that the catalog shows it after", async () => {
  const { names } = await session();
  names.apply(action("begin"));
  names.apply(action("savepoint", "s"));
  names.apply(perhaps(table("fresh", { schema: "public" })));
  expect(names.relation(undefined, "fresh")).toMatchObject({ schema: "public", mayBeMissing: true });
  names.apply(action("rollbackTo", "s"));
  expect(names.relation(undefined, "fresh")).toBeUndefined();
  names.apply(perhaps(table("fresh", { schema: "public" })));
  names.apply(perhaps(temporary("heap")));
  names.ready("I", false);
  expect(names.relation(undefined, "fresh")).toBeUndefined();
  expect(names.relation(undefined, "heap")?.mayBeMissing).toBe(true);
});

test("a name that a body may have given to something is that and what it was, until it is surely made", async () => {
  const { names } = await session({ initialSearchPath: "front, public" });
  names.apply(perhaps({ kind: "createSchema", name: "front" }));
  names.apply(
    perhaps(table("users", { schema: "front", reads: [{ name: "hr.pay", kind: "relation", direct: true }] })),
  );
  const either = names.relation(undefined, "users");
  expect(either).toMatchObject({ schema: "public", hasUnsureColumns: true });
  expect(either?.mayBeMissing).toBeUndefined();
  expect(either?.reads.map(({ name }) => name)).toEqual(expect.arrayContaining(["front.users", "hr.pay"]));
  names.apply({ kind: "dropRelation", name: "users" });
  expect(names.relation(undefined, "users")?.schema).toBe("public");
  names.apply(table("users", { schema: "front" }));
  expect(names.relation(undefined, "users")?.schema).toBe("front");
});

test("what moves to a name that nobody tells leaves nothing known that a body may have made", async () => {
  const { names } = await session();
  names.apply(perhaps(temporary("heap")));
  expect(names.hasMovedNames).toBe(false);
  names.apply({ kind: "catalogChanged", moves: true });
  expect(names.hasMovedNames).toBe(true);
  names.ready("I", false);
  expect(names.hasMovedNames).toBe(false);
  expect(names.relation(undefined, "heap")).toBeUndefined();
});

test("schemas that change their names in a circle are found by each of them", async () => {
  const { names } = await session();
  for (const [name, to] of [
    ["public", "old"],
    ["shop", "public"],
    ["old", "shop"],
  ] as const)
    names.apply({ kind: "renameSchema", name, to });
  expect(names.relation("old", "users")?.reads.map(({ name }) => name)).toContain("public.users");
  for (const schema of ["old", "shop", "public"]) {
    expect(names.relation(schema, "nosuch")).toBeUndefined();
    expect(names.functions(schema, "nosuch")).toEqual([]);
    expect(names.type(schema, "nosuch")).toBeUndefined();
  }
  names.ready("I", true);
  expect(names.relation("old", "users")).toBeUndefined();
});
