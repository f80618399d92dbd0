/** A server's catalog for tests: rows as `catalogQuery` gives them, behind a clock that stands still until moved. */
import { LiveCatalog } from "./live-catalog.ts";
import { catalogQuery, fingerprintQuery, likenessQuery } from "./queries.ts";

/** One row of the catalog query. */
export function catalogRow(kind: string, ...data: readonly unknown[]): Record<string, unknown> {
  return { kind, data: JSON.stringify(data) };
}

/** Schemas public and shop, closed (to all but `root`) and pg_catalog, each of the first three with a table `users`. */
export const shopRows: readonly Record<string, unknown>[] = [
  catalogRow("schema", 11, "pg_catalog", null),
  catalogRow("schema", 1, "public", null),
  catalogRow("schema", 2, "shop", null),
  catalogRow("schema", 3, "closed", ["root"]),
  catalogRow("schema", 4, "sealed", []),
  catalogRow("builtinFunctions", "lower count"),
  catalogRow("builtinTypes", "int4 text"),
  catalogRow("builtinRelation", "pg_catalog", "pg_class", "r", "oid relname"),
  catalogRow("relation", 101, 1, "users", "r", ["id", "name"], null, false, null),
  catalogRow("relation", 102, 2, "users", "r", ["id"], null, false, null),
  catalogRow("relation", 103, 3, "users", "r", ["secret"], null, false, null),
  catalogRow("relation", 104, 2, "v", "v", ["id"], " SELECT id FROM shop.users;", false, null),
  catalogRow("read", 104, "relation", 102),
  catalogRow("function", 201, 2, "f", "plpgsql", "BEGIN END", false, true, ["search_path=shop"]),
  catalogRow("function", 202, 1, "lower", "sql", "SELECT 1", false, false, null),
  catalogRow("operator", 301, 2, "===", [[201, "shop", "f"]]),
  catalogRow("type", 401, 2, "even", 23, null),
  catalogRow("typeUse", 401, "function", 201),
];

/** When a catalog was read, by a server that has a fingerprint. */
export const momentRow = (fingerprint: string, server = "1 2", builtins = "builtins") =>
  catalogRow("moment", server, "755", builtins, fingerprint);

/** A catalog whose server, clock and failures the test moves. */
export class FakeServer {
  rows = shopRows;
  fingerprint = "b o 1";
  /** What it answers to whether an earlier reading still holds; undefined: the fingerprint. */
  likeness: string | null | undefined;
  server = "1 2";
  nowMs = 0;
  failure: Error | undefined;
  readonly asked: ("likeness" | "fingerprint" | "catalog" | "changes")[] = [];
  /** What it answers when it is asked for changes alone. */
  changes: readonly Record<string, unknown>[] = [];
  /** Set to make the server's answers wait. */
  gate: Promise<void> | undefined;
  readonly catalog = new LiveCatalog({
    query: (sql) => this.answer(sql),
    ageMs: 1000,
    monotonicMs: () => this.nowMs,
  });

  change(rows: readonly Record<string, unknown>[]): void {
    this.rows = rows;
    this.fingerprint += "+";
  }

  private async answer(sql: string): Promise<readonly Record<string, unknown>[]> {
    const what = asked.get(sql) ?? "changes";
    this.asked.push(what);
    const { fingerprint, likeness = fingerprint, server, rows, changes } = this;
    await this.gate;
    if (this.failure !== undefined) throw this.failure;
    if (what === "likeness") return [{ fingerprint: likeness, server }];
    if (what === "fingerprint") return [{ fingerprint, server, xmin: "755" }];
    return what === "changes" ? changes : [...rows, ...dated(rows, fingerprint, server)];
  }
}

const asked = new Map([
  [likenessQuery, "likeness"],
  [fingerprintQuery, "fingerprint"],
  [catalogQuery, "catalog"],
] as const);

/** What a reading of everything says of itself, where the rows do not. */
function dated(rows: readonly Record<string, unknown>[], fingerprint: string, server: string) {
  if (rows.some(({ kind }) => kind === "moment")) return [];
  const oids = rows.flatMap(({ kind, data }) => (kind === "relation" ? [JSON.parse(String(data))[0]] : []));
  return [momentRow(fingerprint, server), catalogRow("relations", oids)];
}
