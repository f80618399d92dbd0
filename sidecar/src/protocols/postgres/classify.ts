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

const columnsQuery = `SELECT n.nspname AS schema, c.relname AS table, a.attname AS column, t.typcategory AS category
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  WHERE c.relkind IN ('r', 'p', 'm', 'f') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  ORDER BY n.nspname, c.relname, a.attnum LIMIT 20000`;

/** What is proposed from the answers of `query`; tables that cannot be read are judged by names alone. */
export async function proposals(
  query: (sql: string) => Promise<readonly SideRow[]>,
  sample: number,
): Promise<readonly TagProposal[]> {
  const tables = new Map<string, { readonly from: string; readonly columns: Column[] }>();
  for (const { schema, table, column, category } of await query(columnsQuery)) {
    const name = `${schema ?? ""}.${table ?? ""}`;
    const found = tables.get(name) ?? { from: `${quoted(schema)}.${quoted(table)}`, columns: [] };
    found.columns.push({ name: column ?? "", category: category ?? "" });
    tables.set(name, found);
  }
  const found: TagProposal[] = [];
  for (const [name, { from, columns }] of tables) {
    const list = columns.map(
      (column, index) => `pg_catalog.left(${quoted(column.name)}::pg_catalog.text, 2000) AS "c${index}"`,
    );
    const rows = await query(`SELECT ${list.join(", ")} FROM ${from} LIMIT ${sample}`).catch(() => []);
    for (const [index, column] of columns.entries()) {
      const values = rows.flatMap((row) => row[`c${index}`] ?? []);
      const proposal = byValues(values) ?? byName(column);
      // A dot in a name would be read as the border of two parts.
      const isSayable = name.split(".").length === 2 && !column.name.includes(".");
      if (proposal !== undefined && isSayable) found.push({ ...proposal, column: `${name}.${column.name}` });
    }
  }
  return found;
}

interface Column {
  readonly name: string;
  /** Of its type, as pg_type.typcategory says: B boolean, D date or time, N number, S text, and others. */
  readonly category: string;
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

/** Words of names, and the types that can hold such a thing, for most of them text and what is kept like it. */
const byWords: readonly { readonly tag: string; readonly words: RegExp; readonly not?: RegExp }[] = [
  { tag: "email", words: /e_?mail/ },
  { tag: "ssn", words: /(^|_)(ssn|social_?security|tax_?id|national_?id|passport)/, not: /[BD]/ },
  { tag: "phone", words: /phone|mobile|(^|_)(fax|tel)(_|$)/, not: /[BD]/ },
  { tag: "credit-card", words: /card_?(no|num|number)|(^|_)(pan|cc_?num|cvv|cvc)(_|$)/, not: /[BD]/ },
  { tag: "bank-account", words: /iban|account_?(no|num|number)/, not: /[BD]/ },
  { tag: "birth-date", words: /birth|(^|_)dob(_|$)/, not: /[BN]/ },
  { tag: "secret", words: /passw|secret|api_?key|token|private_?key/ },
  { tag: "address", words: /street|address|(^|_)(zip|postal|postcode)(_|$)/, not: /[BD]/ },
  { tag: "name", words: /(first|last|full|sur|given|family|maiden)_?name/ },
  { tag: "salary", words: /salary|wage(s|_|$)|income/, not: /[BD]/ },
  { tag: "ip-address", words: /(^|_)ip(_|$)|ip_?addr/ },
];
const notText = /[BDN]/;

function byName({ name, category }: Column): Omit<TagProposal, "column"> | undefined {
  const folded = name.replace(/([a-z])([A-Z])/g, "$1_$2").toLowerCase();
  // The key of another table says nothing of anybody; ids of taxes and nations are of people.
  if (/_id$/.test(folded) && category === "N" && !/(tax|national)_id$/.test(folded)) return undefined;
  const found = byWords.find(({ words, not = notText }) => words.test(folded) && !not.test(category));
  return found === undefined ? undefined : { tag: found.tag, why: "by its name" };
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
