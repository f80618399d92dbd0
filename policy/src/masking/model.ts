/** What lineage says of a statement; pure types. */
import type { Flow, FlowColumn } from "./flow.ts";

/** A use of a masked column that shows or changes something without being a plain result. */
export interface LineageFinding {
  readonly kind: /** A condition, an order, a group or an expression whose outcome tells of the value. */
    | "inference"
    /** A masked column is given a value. */
    | "write"
    /** A masked value is put where no mask follows it. */
    | "store"
    /** A masked column is read by something that cannot be followed. */
    | "opaque"
    /** A definition would change what is masked, or tell of its values. */
    | "define";
  /** The masked columns concerned, as `schema.table.column`. */
  readonly columns: readonly string[];
  /** Where, in words of SQL: `WHERE`, `ORDER BY`, `function app.f`. */
  readonly where: string;
}

/** Rows that a query gives: its columns in order, or more than can be counted. */
export interface TracedRows {
  readonly columns: readonly FlowColumn[];
  /** Set where the number of columns is unknown: what any of them may depend on. */
  readonly open?: Flow;
}

/** What one statement shows and does with masked columns. */
export interface StatementLineage {
  /** What the rows show that the statement itself returns, as rows or as COPY data; of PREPARE, those of an EXECUTE. */
  readonly rows: TracedRows;
  /** DECLARE: the cursor that `rows` belong to; the statement itself returns none. */
  readonly declares?: string;
  /** FETCH: the cursor whose rows the statement returns. */
  readonly fetches?: string;
  /** True where a relation with masked columns takes part, or something that nobody can follow: errors may show values. */
  readonly touches: boolean;
  /** True where the text names a masked column, shown or not: another literal beside it may be another finding. */
  readonly namesMasked?: true;
  /** True where functions outside pg_catalog run, whose bodies may be others before all rows have been fetched. */
  readonly runsCode?: true;
  /** True where columns of one relation may be taken for another's: `*` stands for several, and they may change till it runs. */
  readonly mayShift?: true;
  readonly findings: readonly LineageFinding[];
}
