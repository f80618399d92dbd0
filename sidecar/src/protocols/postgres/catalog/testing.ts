/** A server's catalog for tests: rows as `catalogQuery` gives them, behind a clock that stands still until moved. */
import { LiveCatalog } from "./live-catalog.ts";
import { catalogQuery, fingerprintQuery } from "./queries.ts";

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

/** A catalog whose server, clock and failures the test moves. */
export class FakeServer {
  rows = shopRows;
  fingerprint = "1";
  nowMs = 0;
  failure: Error | undefined;
  readonly asked: ("fingerprint" | "catalog" | "changes")[] = [];
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
    const isWhole = sql === catalogQuery;
    this.asked.push(sql === fingerprintQuery ? "fingerprint" : isWhole ? "catalog" : "changes");
    const { fingerprint, rows, changes } = this;
    await this.gate;
    if (this.failure !== undefined) throw this.failure;
    if (sql === fingerprintQuery) return [{ fingerprint }];
    return isWhole ? rows : changes;
  }
}
