/**
 * Proposes classification tags for the columns of a live database: by their names, and by what patterns find in a sample
 * of their values. Values are looked at and never kept.
 */
import { type PatternName, PatternScanner, patternNames } from "@sallyport/policy";
import type { UpstreamTarget } from "../../wire/dial.ts";
import { connectUpstream } from "./connect-upstream.ts";
import { SideConnection, type SideRow } from "./side-connection.ts";

/** A column, the tag proposed for it, and why. */
export interface TagProposal {
  readonly tag: string;
  /** `schema.table.column` */
  readonly column: string;
  /** In words without a value: `by its name`, `in 98 of 100 sampled values`. */
  readonly why: string;
}

/** Which database to look into, and how closely. */
export interface ClassifyOptions {
  readonly target: UpstreamTarget;
  readonly username: string;
  readonly password?: string;
  readonly database: string;
  /** Rows of each table that are looked at. */
  readonly sample: number;
}

/** Connects, looks, and tells what it would tag. */
export async function classify(options: ClassifyOptions): Promise<readonly TagProposal[]> {
  const { target, username, password, database, sample } = options;
  const upstream = await connectUpstream({
    target,
    account: { name: username, username, ...(password === undefined ? {} : { password }) },
    database,
    settings: new Map([
      ["default_transaction_read_only", "on"],
      ["statement_timeout", "10000"],
    ]),
    applicationName: "sallyport classify",
    signal: AbortSignal.timeout(15_000),
  });
  const connection = new SideConnection(upstream.socket);
  upstream.socket.resume();
  try {
    return await proposals((sql) => connection.query(sql), sample);
  } finally {
    connection.close();
  }
}

const columnsQuery = `SELECT n.nspname AS schema, c.relname AS table, a.attname AS column
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'm', 'f') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  ORDER BY n.nspname, c.relname, a.attnum LIMIT 20000`;

/** What is proposed from the answers of `query`; tables that cannot be read are judged by names alone. */
export async function proposals(
  query: (sql: string) => Promise<readonly SideRow[]>,
  sample: number,
): Promise<readonly TagProposal[]> {
  const tables = new Map<string, { readonly from: string; readonly columns: string[] }>();
  for (const { schema, table, column } of await query(columnsQuery)) {
    const name = `${schema ?? ""}.${table ?? ""}`;
    const found = tables.get(name) ?? { from: `${quoted(schema)}.${quoted(table)}`, columns: [] };
    found.columns.push(column ?? "");
    tables.set(name, found);
  }
  const found: TagProposal[] = [];
  for (const [name, { from, columns }] of tables) {
    const list = columns.map(
      (column, index) => `pg_catalog.left(${quoted(column)}::text, 2000) AS "c${index}"`,
    );
    const rows = await query(`SELECT ${list.join(", ")} FROM ${from} LIMIT ${sample}`).catch(() => []);
    for (const [index, column] of columns.entries()) {
      const values = rows.flatMap((row) => row[`c${index}`] ?? []);
      const proposal = byValues(values) ?? byName(column);
      // A dot in a name would be read as the border of two parts.
      if (proposal !== undefined && ![name.split(".").length !== 2, column.includes(".")].includes(true))
        found.push({ ...proposal, column: `${name}.${column}` });
    }
  }
  return found;
}

/** Of the values that are there, so many must have the pattern in them. */
const shareMin = 0.3;
const valuesMin = 3;
const scanner = new PatternScanner(patternNames);

function byValues(values: readonly string[]): Omit<TagProposal, "column"> | undefined {
  if (values.length < valuesMin) return undefined;
  const counts = new Map<PatternName, number>();
  for (const value of values) {
    const patterns = new Set(scanner.scan(Buffer.from(value)).map(({ pattern }) => pattern));
    for (const pattern of patterns) counts.set(pattern, (counts.get(pattern) ?? 0) + 1);
  }
  const [best] = [...counts].sort(([, left], [, right]) => right - left);
  if (best === undefined || best[1] < values.length * shareMin) return undefined;
  return { tag: tagOf(best[0]), why: `in ${best[1]} of ${values.length} sampled values` };
}

const byWords: readonly (readonly [tag: string, words: RegExp])[] = [
  ["email", /e_?mail/],
  ["ssn", /(^|_)(ssn|social_?security|tax_?id|national_?id)/],
  ["phone", /phone|mobile|(^|_)(fax|tel)(_|$)/],
  ["credit-card", /card_?(no|num|number)|(^|_)(pan|cc_?num)/],
  ["bank-account", /iban|account_?(no|num|number)/],
  ["birth-date", /birth|(^|_)dob(_|$)/],
  ["secret", /passw|secret|api_?key|token|private_?key/],
  ["address", /street|address|(^|_)(zip|postal|postcode)/],
  ["name", /(first|last|full|sur|given|family|maiden)_?name/],
  ["salary", /salary|wage|income/],
  ["ip-address", /(^|_)ip(_|$)|ip_?addr/],
];

function byName(column: string): Omit<TagProposal, "column"> | undefined {
  const folded = column.replace(/([a-z])([A-Z])/g, "$1_$2").toLowerCase();
  const found = byWords.find(([, words]) => words.test(folded));
  return found === undefined ? undefined : { tag: found[0], why: "by its name" };
}

const tags: Readonly<Partial<Record<PatternName, string>>> = {
  creditCard: "credit-card",
  ipv4: "ip-address",
  ipv6: "ip-address",
  jwt: "secret",
  privateKey: "secret",
  awsKey: "secret",
};

function tagOf(pattern: PatternName): string {
  return tags[pattern] ?? pattern;
}

function quoted(name: string | null | undefined): string {
  return `"${(name ?? "").replaceAll('"', '""')}"`;
}
