/**
 * An attacker with a valid account: what the rules close stays closed, whatever SQL is made of. Held means three things
 * at once: no row has changed, the closed table was never scanned, and none of its values was ever sent.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { frame, password, type ServerMessage, startup, WireClient } from "../targets/wire-client.ts";

let server: PostgresServer;
let gateway: Gateway;
/** How often the closed table had been scanned and written before the first attack. */
let scansBefore: unknown;

/** In every row of the closed table, and nowhere else. */
const secret = "917351";

const schema = `
CREATE SCHEMA hr; CREATE SCHEMA evil; CREATE SCHEMA parts;
CREATE TABLE public.customers (id int PRIMARY KEY, name text, ssn text);
CREATE TABLE public.orders (id int PRIMARY KEY, customer int REFERENCES customers ON DELETE CASCADE, note text);
CREATE TABLE public.audit (id int PRIMARY KEY, note text);
CREATE TABLE public.notes (id int, note text);
CREATE TABLE hr.salaries (person text, amount int);
INSERT INTO customers SELECT n, 'name ' || n, '078-05-' || n FROM generate_series(1, 50) n;
INSERT INTO orders SELECT n, 1 + n % 50, 'note' FROM generate_series(1, 100) n;
INSERT INTO audit SELECT n, 'kept' FROM generate_series(1, 20) n;
INSERT INTO hr.salaries SELECT 'person ' || n || ' ${secret}', ${secret} FROM generate_series(1, 10) n;
ANALYZE;
CREATE VIEW public.pay_view AS SELECT * FROM hr.salaries;
CREATE VIEW public.pay_view_twice AS SELECT person AS p FROM public.pay_view;
CREATE MATERIALIZED VIEW public.pay_matview AS SELECT * FROM hr.salaries WITH NO DATA;
CREATE FUNCTION public.pay_sql() RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT person FROM hr.salaries';
CREATE FUNCTION public.pay_atomic() RETURNS SETOF text LANGUAGE sql BEGIN ATOMIC SELECT person FROM hr.salaries; END;
CREATE FUNCTION public.pay_plpgsql() RETURNS text LANGUAGE plpgsql IMMUTABLE AS
  'DECLARE r text; BEGIN SELECT min(person) INTO r FROM hr.salaries; RETURN r; END';
CREATE FUNCTION public.pay_definer() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = hr AS
  'BEGIN RETURN (SELECT min(person) FROM salaries); END';
CREATE FUNCTION public.pay_dynamic() RETURNS text LANGUAGE plpgsql IMMUTABLE AS
  $$DECLARE r text; BEGIN EXECUTE 'SELECT min(person) FROM hr.' || 'salaries' INTO r; RETURN r; END$$;
CREATE FUNCTION public.pay_row(customers) RETURNS text LANGUAGE sql AS 'SELECT min(person) FROM hr.salaries';
CREATE FUNCTION public.pay_int(int) RETURNS text LANGUAGE sql AS 'SELECT min(person) FROM hr.salaries';
CREATE FUNCTION public.pay_step(text, int) RETURNS text LANGUAGE sql AS 'SELECT min(person) FROM hr.salaries';
CREATE AGGREGATE public.pay_aggregate(int) (SFUNC = public.pay_step, STYPE = text);
CREATE FUNCTION public.pay_compare(int, int) RETURNS text LANGUAGE sql AS 'SELECT min(person) FROM hr.salaries';
CREATE OPERATOR public.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = public.pay_compare);
CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM hr.salaries)';
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same);
CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS 'SELECT min(person) FROM hr.salaries';
CREATE TYPE public.pay AS (v text);
CREATE FUNCTION public.to_pay(int) RETURNS public.pay LANGUAGE sql AS 'SELECT ROW(min(person))::public.pay FROM hr.salaries';
CREATE CAST (int AS public.pay) WITH FUNCTION public.to_pay(int);
CREATE FUNCTION public.is_fine(text) RETURNS boolean LANGUAGE plpgsql AS
  'BEGIN RAISE NOTICE ''%'', (SELECT min(person) FROM hr.salaries); RETURN true; END';
CREATE DOMAIN public.fine AS text CHECK (public.is_fine(VALUE));
CREATE TABLE public.domain_user (v public.fine);
CREATE TABLE public.rows_guarded (v text); ALTER TABLE public.rows_guarded ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.rows_guarded FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON public.rows_guarded USING (public.is_fine(v));
CREATE TABLE public.generated (a int, b text GENERATED ALWAYS AS (public.pay_plpgsql()) STORED);
CREATE TABLE public.defaulted (a int, b text DEFAULT public.pay_plpgsql());
CREATE TABLE public.checked (a text CHECK (public.is_fine(a)));
CREATE TABLE public.xml_default (a int, b xml DEFAULT query_to_xml('SELECT person FROM hr.salaries', true, true, ''));
CREATE TABLE public.xml_checked (a int CHECK (query_to_xml('DELETE FROM public.audit RETURNING 1', true, true, '') IS NOT NULL));
CREATE FUNCTION public.wipe() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.audit; RETURN NEW; END';
CREATE TABLE public.triggered (a int); CREATE TRIGGER t BEFORE INSERT ON public.triggered FOR EACH ROW EXECUTE FUNCTION public.wipe();
CREATE TABLE public.quiet (a int);
CREATE TABLE public.ruled (a int); CREATE RULE r AS ON INSERT TO public.ruled DO ALSO DELETE FROM public.audit;
CREATE VIEW public.audit_view AS SELECT * FROM public.audit;
CREATE TABLE public.pay_parent (person text); CREATE TABLE hr.pay_child () INHERITS (public.pay_parent);
INSERT INTO hr.pay_child VALUES ('child ${secret}');
CREATE TABLE public.pay_grand (person text); CREATE TABLE public.pay_middle () INHERITS (public.pay_grand);
CREATE TABLE hr.pay_leaf () INHERITS (public.pay_middle); INSERT INTO hr.pay_leaf VALUES ('leaf ${secret}');
CREATE TABLE public.parted (a int, b text) PARTITION BY RANGE (a);
CREATE TABLE parts.low PARTITION OF public.parted FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (a);
CREATE TABLE parts.lowest PARTITION OF parts.low FOR VALUES FROM (0) TO (5);
CREATE TRIGGER t BEFORE INSERT ON parts.lowest FOR EACH ROW EXECUTE FUNCTION public.wipe();
CREATE TABLE hr.whole (a int, b text) PARTITION BY LIST (a);
CREATE TABLE public.piece PARTITION OF hr.whole FOR VALUES IN (1) PARTITION BY LIST (b);
CREATE TABLE public.crumb PARTITION OF public.piece DEFAULT;
INSERT INTO hr.whole VALUES (1, 'part ${secret}');
CREATE FUNCTION public.sneaky_when(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.audit; RETURN true; END';
CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE public.when_user (a int);
CREATE TRIGGER t BEFORE INSERT ON public.when_user FOR EACH ROW WHEN (public.sneaky_when(NEW.a)) EXECUTE FUNCTION public.nothing();
CREATE FUNCTION public.internal_notify(text, text) RETURNS void LANGUAGE internal AS 'pg_notify';
CREATE FUNCTION public.internal_xml(text, boolean, boolean, text) RETURNS xml LANGUAGE internal AS 'query_to_xml';
CREATE FUNCTION public.internal_set(text, text, boolean) RETURNS text LANGUAGE internal AS 'set_config_by_name';
CREATE SEQUENCE public.counter;
CREATE TABLE hr.notes AS SELECT person AS note FROM hr.salaries;
CREATE TABLE public.plain_domain_user (v text); CREATE DOMAIN public.plain AS text;
CREATE TABLE public.plain_user (v public.plain); INSERT INTO public.plain_user VALUES ('x');
CREATE TYPE public.fine_range AS RANGE (subtype = public.fine, multirange_type_name = public.fine_ranges);
CREATE FUNCTION public.takes_fine(public.fine) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION public.gives_fine() RETURNS public.fine LANGUAGE sql AS $$SELECT 'x'$$;
CREATE TABLE hr.salaries_open (person text); INSERT INTO hr.salaries_open VALUES ('nobody');
CREATE TYPE public.box_of AS (v text);
CREATE FUNCTION public.to_count(public.box_of) RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.audit WHERE id = 1; RETURN 1; END';
CREATE CAST (public.box_of AS int) WITH FUNCTION public.to_count(public.box_of);
CREATE OPERATOR public.@## (RIGHTARG = text, FUNCTION = pg_catalog.pg_read_file);
CREATE OPERATOR public.@#@ (RIGHTARG = regclass, FUNCTION = pg_catalog.nextval);
CREATE FUNCTION public.wipe_int(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.audit WHERE id = $1; RETURN 1; END';
`;

const policies = [
  policyDocument(
    "shop",
    "reader",
    `  profile: ReadOnly
  rules: [{name: closed, match: {objects: ["hr.*"]}, action: Deny}]`,
    "readers",
  ),
  policyDocument(
    "shop",
    "writer",
    `  profile: ReadWrite
  rules:
  - {name: closed, match: {objects: ["hr.*"]}, action: Deny}
  - {name: bounded, match: {operations: [write], unbounded: true}, action: Deny}
  - {name: history, match: {operations: [write], objects: ["public.audit"]}, action: Deny}`,
    "writers",
  ),
  policyDocument(
    "shop",
    "clerk",
    `  profile: ReadWrite
  rules: [{name: unread, match: {operations: [read, export], objects: ["hr.*"]}, action: Deny}]`,
    "clerks",
  ),
  policyDocument("shop", "job", `  profile: SchemaOnly`, "jobs"),
  policyDocument(
    "shop",
    "admin",
    `  profile: Admin
  rules:
  - {name: salaries, match: {objects: ["hr.salaries", "pg_catalog.pg_stat*"]}, action: Deny}
  - {name: bounded, match: {operations: [write], unbounded: true}, action: Deny}
  - {name: history, match: {operations: [write], objects: ["public.audit"]}, action: Deny}
  - {name: readable, match: {operations: [execute]}, action: Deny}`,
    "admins",
  ),
].join("");

beforeAll(async () => {
  server = await startPostgres({ tls: true, database: "shop", initSql: schema });
  scansBefore = await scans();
  gateway = await startGateway({ server, policies });
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

type Who = "reader" | "writer" | "clerk" | "job" | "admin";

/** What the server holds; the closed table is not read here, so that its scan count stays the attacker's. */
async function truth(): Promise<unknown> {
  const tables = "customers orders audit notes quiet triggered ruled parted".split(" ");
  const counts = tables.map(
    (table) => `(SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM public.${table} t)`,
  );
  const objects =
    "SELECT count(*) FROM pg_class c WHERE relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_')";
  const [row] =
    await server.query(`SELECT ${counts.map((count, index) => `${count} AS t${index}`).join(", ")},
    (${objects}) AS relations, (SELECT count(*) FROM pg_proc) AS functions, (SELECT count(*) FROM pg_trigger) AS triggers,
    (SELECT count(*) FROM pg_authid) AS roles, (SELECT md5(string_agg(a::text, ',')) FROM pg_auth_members a) AS members,
    (SELECT md5(string_agg(s::text, ',')) FROM pg_db_role_setting s) AS settings,
    (SELECT count(*) FROM pg_largeobject_metadata) AS large, (SELECT last_value FROM counter) AS counter,
    (SELECT count(*) FROM pg_stat_file('pg_hba.conf')) AS hba`);
  return row;
}

async function scans(): Promise<unknown> {
  const [row] = await server.query(
    "SELECT seq_scan + coalesce(idx_scan, 0) AS n, n_tup_upd + n_tup_del + n_tup_ins AS w FROM pg_stat_all_tables WHERE schemaname = 'hr' AND relname = 'salaries'",
  );
  return row;
}

const logIn = (who: Who) => gateway.connectWire({ user: who });

interface Seen {
  readonly text: string;
  readonly codes: readonly string[];
  readonly tags: readonly string[];
}

function seenIn(messages: readonly ServerMessage[]): Seen {
  return {
    text: messages.map((message) => message.body.toString("latin1")).join("\n"),
    codes: messages.flatMap((message) => (message.type === "E" ? [message.fields.C ?? ""] : [])),
    tags: messages.flatMap((message) =>
      message.type === "C" ? [message.body.toString("latin1").slice(0, -1)] : [],
    ),
  };
}

/** One connection for each identity, kept while nothing that was sent over it has done anything. */
const kept = new Map<Who, WireClient>();

/** Sends each text as a Query and collects all that comes back. */
async function run(who: Who, texts: readonly string[]): Promise<Seen> {
  const client = kept.get(who) ?? (await logIn(who));
  kept.delete(who);
  const messages: ServerMessage[] = [];
  for (const text of texts) {
    client.send(frame("Q", text, "\0"));
    const answer = await client.until("Z");
    messages.push(...answer);
    if (answer.at(-1)?.type !== "Z") break;
  }
  const seen = seenIn(messages);
  if (seen.tags.length === 0 && messages.at(-1)?.type === "Z") kept.set(who, client);
  else client.close();
  return seen;
}

const wipeLater =
  "CREATE FUNCTION public.w() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.audit WHERE id < 9; RETURN NEW; END'";
const attacks: Record<string, readonly [Who, ...string[]][]> = {
  "D9: a literal that a cast makes another one": [
    ["admin", "SELECT table_to_xml('hr.salaries_open'::varchar(11), true, true, '')"],
    ["admin", "SELECT table_to_xml('hr.salaries_open'::char(11)::text, true, true, '')"],
    ["admin", "SELECT query_to_xml('SELECT person FROM hr.salaries_open'::varchar(30), true, true, '')"],
    [
      "admin",
      "DO $$ DECLARE r text; BEGIN EXECUTE 'SELECT person FROM hr.salaries_open'::varchar(30) INTO r; RAISE NOTICE '%', r; END $$",
    ],
    ["admin", "SELECT set_config('rolex'::varchar(4), 'postgres', false)"],
  ],
  "E2: code behind casts and operators is what its function does": [
    ["reader", "SELECT ROW('x')::box_of::int"],
    ["reader", "SELECT CAST(ROW('x')::public.box_of AS pg_catalog.int4)"],
    ["reader", "SELECT ARRAY[ROW('x')::box_of]::int[]"],
    ["writer", "UPDATE notes SET id = ROW('x')::box_of::integer WHERE id = 1"],
    ["reader", "SELECT @## 'pg_hba.conf'"],
    ["reader", "SELECT OPERATOR(public.@##) 'pg_hba.conf'"],
    ["reader", "SELECT @#@ 'counter'"],
    ["job", "SELECT @## 'pg_hba.conf'"],
    ["job", "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql SET role = 'postgres' AS 'SELECT 1'"],
    ["job", "ALTER FUNCTION public.wipe_int(int) SET session_authorization = 'postgres'"],
    ["reader", "DO $$ DECLARE \u00c4 record := row(nextval('counter')); BEGIN NULL; END $$"],
    ["reader", `DO $$ DECLARE r${"0".repeat(70)} record := row(nextval('counter')); BEGIN NULL; END $$`],
    [
      "job",
      "BEGIN",
      "CREATE OPERATOR public.@@## (RIGHTARG = text, FUNCTION = pg_catalog.pg_read_file)",
      "SELECT @@## 'pg_hba.conf'",
      "ROLLBACK",
    ],
    [
      "job",
      "BEGIN",
      "CREATE OPERATOR public.@@## (RIGHTARG = text, FUNCTION = 'pg_read_file')",
      "SELECT @@## 'pg_hba.conf'",
      "ROLLBACK",
    ],
    [
      "job",
      "BEGIN",
      "CREATE OPERATOR public.@@## (RIGHTARG = int, FUNCTION = 'wipe_int')",
      "SELECT @@## 1",
      "COMMIT",
    ],
  ],
  "D1: a string that ends elsewhere without standard_conforming_strings": [
    ["writer", "SET standard_conforming_strings = off", "SELECT 'a\\''; DELETE FROM public.audit; -- '"],
    ["admin", "SET standard_conforming_strings TO 'off'", "SELECT 'a\\''; DELETE FROM public.audit; -- '"],
    ["admin", "SET LOCAL standard_conforming_strings = 0; SELECT 'a\\''; DELETE FROM public.audit; -- '"],
    ["admin", "SET \"standard_conforming_strings\" = 'of'"],
    [
      "admin",
      "SET Standard_Conforming_Strings FROM CURRENT; SET SESSION standard_conforming_strings = DEFAULT",
    ],
  ],
  "D2: the same setting by set_config, roles, databases, functions and pg_settings": [
    [
      "writer",
      "SELECT set_config('standard_conforming_strings', 'off', false)",
      "SELECT 'a\\''; DELETE FROM public.audit; -- '",
    ],
    ["writer", "SELECT set_config('standard_' || 'conforming_strings', 'off', false)"],
    ["writer", "SELECT set_config(x, 'off', false) FROM (VALUES ('standard_conforming_strings')) v (x)"],
    [
      "writer",
      "SELECT pg_catalog.set_config(setting_name => 'standard_conforming_strings', new_value => 'off', is_local => false)",
    ],
    ["admin", "SELECT set_config(E'standard\\x5fconforming_strings', 'off', false)"],
    ["admin", "SELECT set_config(U&'standard\\005fconforming_strings', 'off', false)"],
    ["admin", "SELECT public.internal_set('standard_conforming_strings', 'off', false)"],
    ["admin", "SELECT set_config('standard_conforming_strings', CASE WHEN true THEN 'off' END, false)"],
    ["admin", "ALTER ROLE postgres SET standard_conforming_strings = off"],
    ["admin", "ALTER ROLE ALL IN DATABASE shop SET client_encoding = 'SJIS'"],
    ["admin", "ALTER DATABASE shop SET standard_conforming_strings = off"],
    ["admin", "ALTER SYSTEM SET standard_conforming_strings = off"],
    [
      "admin",
      "CREATE FUNCTION public.f() RETURNS text LANGUAGE sql SET standard_conforming_strings = off AS 'SELECT 1::text'",
    ],
    ["admin", "ALTER FUNCTION public.pay_sql() SET standard_conforming_strings = off"],
    ["admin", "ALTER ROUTINE public.pay_sql() SET client_encoding = 'SJIS'"],
    ["admin", "UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings'"],
    ["admin", "UPDATE pg_catalog.pg_settings s SET setting = 'off' WHERE s.name LIKE 'standard_conf%'"],
    [
      "admin",
      "BEGIN",
      "CREATE VIEW public.s AS SELECT * FROM pg_settings",
      "UPDATE public.s SET setting = 'off' WHERE name = 'standard_conforming_strings'",
      "SELECT 'a\\''; DELETE FROM public.audit; -- '",
      "COMMIT",
    ],
    ["admin", "DO $$ BEGIN PERFORM set_config('standard_conforming_strings', 'off', false); END $$"],
    ["admin", "DO $$ BEGIN SET standard_conforming_strings = off; END $$"],
    ["writer", "WITH s AS (SELECT set_config('standard_conforming_strings', 'off', false)) SELECT * FROM s"],
    [
      "writer",
      "MERGE INTO pg_settings s USING (VALUES (1)) v ON s.name = 'standard_conforming_strings' WHEN MATCHED THEN UPDATE SET setting = 'off'",
    ],
  ],
  "D4: an encoding in which a byte can hide a quote": [
    ...["SJIS", "GBK", "GB18030", "BIG5", "UHC", "JOHAB", "LATIN1", "SQL_ASCII", "MULE_INTERNAL"].map(
      (name): [Who, ...string[]] => ["writer", `SET client_encoding = '${name}'`, "DELETE FROM public.audit"],
    ),
    ["writer", "SET NAMES 'SJIS'"],
    ["writer", "SELECT set_config('client_encoding', 'SJIS', false)"],
    ["writer", "SET client_encoding = DEFAULT; SET NAMES DEFAULT; DELETE FROM public.audit"],
  ],
  "D8: strings, names, comments and operators of every spelling": [
    ["writer", "DELETE /* where id = 1 */ FROM public.audit -- WHERE id = 1"],
    ["writer", "DELETE FROM public.audit /* /* nested */ WHERE id = 1 */"],
    ["writer", 'D\u0045LETE FROM "public"."audit" WHERE id = 1'],
    ["writer", 'DELETE FROM U&"\\0061udit" WHERE id = 1'],
    ["writer", "DELETE FROM U&\"!0061udit\" UESCAPE '!' WHERE id = 1"],
    ["writer", "SELECT $a$ ' $a$; DELETE FROM public.audit WHERE id = 1; SELECT $b$ ' $b$"],
    ["writer", "SELECT 'x'\n'y'; DELETE FROM public.audit WHERE id = 1"],
    ["writer", "SELECT E'\\''; DELETE FROM public.audit WHERE id = 1; --'"],
    ["writer", "SELECT 1 -/*x*/- 1; DELETE FROM public.audit WHERE id = 1"],
    ["writer", "SELECT 1+--\n1; DELETE FROM audit WHERE id=1"],
    ["reader", "SELECT person FROM HR.Salaries"],
    ["reader", 'SELECT person FROM "hr" . "salaries"'],
    ["reader", "SELECT person FROM/**/hr/**/./**/salaries"],
    ["reader", "TABLE hr.salaries"],
    ["reader", "TABLE ONLY hr.salaries"],
    ["reader", "SELECT person FROM shop.hr.salaries"],
    ["reader", "SELECT\u00a0person FROM hr.salaries"],
    ["reader", "SELECT person FROM hr.salaries AS customers"],
    ["reader", "SELECT person FROM hr.salaries*"],
    ["reader", "SELECT s FROM hr.salaries s"],
    ["reader", "SELECT (s).person FROM (SELECT x AS s FROM hr.salaries x) y"],
  ],
  "D10: names that mean something else on this connection": [
    ["reader", "SET search_path = hr", "SELECT person FROM salaries"],
    ["reader", "SET search_path = hr; SELECT person FROM salaries"],
    ["reader", "BEGIN; SET LOCAL search_path TO hr, public; SELECT person FROM salaries"],
    ["reader", "SELECT set_config('search_path', 'hr', false)", "SELECT person FROM salaries"],
    ["reader", "SELECT set_config('search_path', 'hr', false); SELECT person FROM salaries"],
    ["reader", "SELECT set_config('search_path', 'h' || 'r', false)", "TABLE salaries"],
    ["reader", "SELECT set_config('search_path', 'hr', true), (SELECT min(person) FROM salaries)"],
    ["reader", "SET SCHEMA 'hr'", "TABLE salaries"],
    ["reader", "SET search_path = evil, pg_catalog", "SELECT lower(name) FROM public.customers"],
    ["reader", "SELECT evil.lower(name) FROM customers"],
    ["reader", "SELECT name FROM customers WHERE name OPERATOR(evil.=) 'x'"],
    ["reader", "SET search_path = evil, public, pg_catalog", "SELECT name FROM customers WHERE name = 'x'"],
    [
      "reader",
      "SET search_path = evil, public, pg_catalog",
      "SELECT name FROM customers WHERE name IN ('x')",
    ],
    [
      "reader",
      "SET search_path = evil, public, pg_catalog",
      "SELECT CASE name WHEN 'x' THEN 1 END FROM customers",
    ],
    ["reader", "SET search_path = evil, public, pg_catalog", "SELECT nullif(name, 'x') FROM customers"],
    [
      "reader",
      "SET search_path = evil, public, pg_catalog",
      "SELECT name FROM customers WHERE name IS DISTINCT FROM 'x'",
    ],
    [
      "reader",
      "SET search_path = evil, public, pg_catalog",
      "SELECT count(*) FROM customers a JOIN customers b USING (name)",
    ],
    ["reader", "SET search_path = evil, public, pg_catalog", "SELECT name = ANY (ARRAY['x']) FROM customers"],
    [
      "reader",
      "SET search_path = evil, public, pg_catalog",
      "SELECT (name, ssn) = ('x', 'y') FROM customers",
    ],
    ["reader", "SELECT 1 === 2"],
    ["reader", "SELECT 1 OPERATOR(public.===) 2"],
    ["reader", "SELECT 1::public.pay"],
    ["reader", "SELECT CAST(1 AS pay)"],
    ["reader", "SELECT pay(1)"],
    ["reader", "SELECT ARRAY[1]::pay[]"],
    ["reader", "SELECT 'x'::public.fine"],
    ["reader", "SELECT fine 'x'"],
    ["reader", 'SELECT x FROM json_to_record(\'{"v":"x"}\') AS x (v fine)'],
    ["reader", 'SELECT * FROM json_populate_record(null::domain_user, \'{"v":"x"}\')'],
    ["reader", "SELECT (c).pay_row FROM customers c"],
    ["reader", "SELECT c.pay_row FROM customers c"],
    ["reader", "SELECT pay_row(c) FROM customers c"],
    ["reader", "SELECT pay_aggregate(id) FROM customers"],
    ["reader", "SELECT (id).pay_int FROM customers"],
    ["reader", "SELECT * FROM XMLTABLE('/a' PASSING '<a>x</a>' COLUMNS v fine PATH '.')"],
    ["reader", "SELECT * FROM JSON_TABLE('{\"a\":\"x\"}', '$' COLUMNS (v fine PATH '$.a'))"],
    ["reader", "SELECT JSON_VALUE('{\"a\":\"x\"}', '$.a' RETURNING fine)"],
    [
      "admin",
      "CREATE TEMP TABLE customers AS SELECT 1 AS id",
      "BEGIN",
      "DROP TABLE customers",
      "ALTER TABLE hr.salaries RENAME TO customers",
      "SELECT * FROM hr.customers",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "ALTER TABLE hr.salaries SET SCHEMA public",
      "SELECT * FROM public.salaries",
      "ROLLBACK",
    ],
    ["admin", "BEGIN; ALTER TABLE hr.salaries SET SCHEMA public; SELECT * FROM public.salaries; ROLLBACK"],
    ["admin", "BEGIN", "ALTER SCHEMA hr RENAME TO hr2", "SELECT * FROM hr2.salaries", "ROLLBACK"],
    ["admin", "BEGIN; ALTER SCHEMA hr RENAME TO hr2; SELECT * FROM hr2.salaries; ROLLBACK"],
    ["job", "BEGIN", "ALTER SCHEMA hr RENAME TO hr2", "SELECT * FROM hr2.salaries", "ROLLBACK"],
    [
      "admin",
      "BEGIN",
      "ALTER SCHEMA hr RENAME TO hr2",
      "ALTER TABLE hr2.salaries RENAME TO customers2",
      "SELECT person FROM hr2.customers2",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "ALTER SCHEMA hr RENAME TO hr2",
      "CREATE SCHEMA hr",
      "SELECT * FROM hr2.salaries",
      "ROLLBACK",
    ],
    ["admin", "DO $$ BEGIN ALTER SCHEMA hr RENAME TO hr2; END $$; SELECT * FROM hr2.salaries"],
  ],
  "D10: rows of a closed table are closed under the names of its partitions and children": [
    ["reader", "SELECT b FROM public.piece"],
    ["reader", "SELECT b FROM crumb"],
    ["reader", "SELECT b FROM ONLY crumb"],
    ["reader", "SELECT count(*) FROM notes, LATERAL (TABLE crumb) x"],
    ["writer", "INSERT INTO crumb VALUES (1, 'x')"],
    ["writer", "UPDATE crumb SET b = b WHERE b = 'x' RETURNING *"],
    ["writer", "DELETE FROM piece WHERE b = 'x'"],
    ["writer", "COPY piece FROM STDIN"],
    ["writer", "MERGE INTO crumb c USING notes n ON c.b = n.note WHEN MATCHED THEN DELETE"],
    [
      "admin",
      "BEGIN",
      "CREATE TABLE public.heir () INHERITS (public.audit)",
      "INSERT INTO public.heir VALUES (77, 'x')",
      "COMMIT",
    ],
    [
      "admin",
      "BEGIN; CREATE TABLE public.heir () INHERITS (public.audit); INSERT INTO public.heir VALUES (77, 'x')",
    ],
  ],
  "D12: writes that begin as reads": [
    ["reader", "WITH x AS (DELETE FROM audit RETURNING *) SELECT count(*) FROM x"],
    ["reader", "WITH x AS (INSERT INTO notes VALUES (1, 'x') RETURNING *) SELECT 1"],
    ["reader", "SELECT * INTO copied FROM audit"],
    ["reader", "SELECT * INTO TEMP copied FROM audit"],
    ["reader", "EXPLAIN ANALYZE DELETE FROM audit"],
    ["reader", "EXPLAIN (ANALYZE ON, COSTS OFF) DELETE FROM audit"],
    ["reader", "EXPLAIN (ANALYZE 1) DELETE FROM audit"],
    ["reader", 'EXPLAIN (COSTS OFF, "analyze" yes) DELETE FROM audit'],
    ["reader", "EXPLAIN (ANALYZE OFF, ANALYZE ON) DELETE FROM audit"],
    ["reader", "EXPLAIN (ANALYZE) CREATE TABLE copied AS SELECT * FROM audit"],
    ["reader", "COPY (DELETE FROM audit RETURNING *) TO STDOUT"],
    ["reader", "MERGE INTO audit a USING notes n ON a.id = n.id WHEN NOT MATCHED BY SOURCE THEN DELETE"],
    ["reader", "SELECT * FROM audit FOR UPDATE"],
    ["reader", "SELECT * FROM (SELECT * FROM audit FOR SHARE) x"],
    ["reader", "CREATE TABLE copied AS SELECT * FROM audit"],
    ["reader", "REFRESH MATERIALIZED VIEW pay_matview"],
    ["reader", "INSERT INTO audit_view VALUES (99, 'x')"],
    ["reader", "UPDATE audit_view SET note = 'x' WHERE id = 1"],
    ["reader", "TRUNCATE audit"],
    ["reader", "SELECT nextval('counter')"],
    ["reader", "SELECT setval('public.counter', 99)"],
    ["reader", "SELECT nextval('coun' || 'ter')"],
    ["reader", "SELECT query_to_xml('DELETE FROM audit', true, true, '')"],
    ["reader", "SELECT ts_stat('DELETE FROM audit RETURNING to_tsvector(note)')"],
    ["reader", "SELECT internal_xml('DELETE FROM audit', true, true, '')"],
    ["reader", "INSERT INTO notes SELECT 1, 'x'"],
    ["reader", "VALUES ((WITH d AS (DELETE FROM audit RETURNING 1) SELECT 1))"],
    ["reader", "SELECT 1; DELETE FROM audit"],
    ["reader", "BEGIN; DELETE FROM audit; COMMIT"],
    ["reader", "LOCK TABLE audit"],
    ["reader", "COPY audit FROM STDIN"],
    ["reader", "ANALYZE audit"],
    ["reader", "COMMENT ON TABLE audit IS 'x'"],
    ["reader", "CREATE TEMP TABLE t AS DELETE FROM audit RETURNING *"],
    ["writer", "INSERT INTO audit_view VALUES (99, 'x')"],
    ["writer", "UPDATE audit_view SET note = 'x' WHERE id = 1"],
    ["writer", "DELETE FROM audit_view WHERE id = 1"],
    ["writer", "WITH x AS (DELETE FROM audit WHERE id = 1 RETURNING *) INSERT INTO notes SELECT * FROM x"],
    ["writer", "INSERT INTO triggered VALUES (1)"],
    ["writer", "INSERT INTO ruled VALUES (1)"],
    ["writer", "INSERT INTO when_user VALUES (1)"],
    ["writer", "INSERT INTO parted VALUES (1, 'x')"],
    ["writer", "COPY triggered FROM STDIN"],
    [
      "writer",
      "MERGE INTO triggered t USING (VALUES (1)) v ON false WHEN NOT MATCHED THEN INSERT VALUES (1)",
    ],
    ["writer", "INSERT INTO xml_checked VALUES (1)"],
    ["writer", "INSERT INTO audit VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET note = 'x'"],
    ["writer", "UPDATE audit SET note = 'x' WHERE id = 1"],
  ],
  "D13: statements inside statements": [
    ["reader", "PREPARE p AS DELETE FROM audit", "EXECUTE p"],
    ["reader", "PREPARE p AS DELETE FROM audit; EXECUTE p"],
    ["reader", "PREPARE p AS DELETE FROM audit", "EXPLAIN ANALYZE EXECUTE p"],
    ["reader", "PREPARE p AS SELECT person FROM hr.salaries", "CREATE TEMP TABLE x AS EXECUTE p", "TABLE x"],
    ["reader", "BEGIN", "DECLARE c CURSOR FOR SELECT person FROM hr.salaries", "FETCH ALL c"],
    ["reader", "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT person FROM hr.salaries; COMMIT; FETCH ALL c"],
    [
      "reader",
      "PREPARE p AS SELECT 1",
      "DEALLOCATE p",
      "PREPARE p AS SELECT person FROM hr.salaries",
      "EXECUTE p",
    ],
    [
      "reader",
      "PREPARE p AS SELECT name FROM customers; DEALLOCATE p; PREPARE p AS TABLE hr.salaries; EXECUTE p",
    ],
    [
      "admin",
      "SET search_path = public; PREPARE p AS SELECT * FROM customers",
      "SET search_path = hr",
      "BEGIN; ALTER TABLE hr.salaries RENAME TO customers; EXECUTE p; ROLLBACK",
    ],
    ["reader", "EXPLAIN (VERBOSE) SELECT person FROM hr.salaries"],
    ["reader", "EXPLAIN (GENERIC_PLAN) SELECT person FROM hr.salaries WHERE amount = $1"],
  ],
  "D13: a prepared statement is planned anew where names mean something else": [
    ["reader", "PREPARE p AS SELECT note FROM notes", "SET search_path = hr", "EXECUTE p"],
    [
      "reader",
      "PREPARE p AS SELECT note FROM notes",
      "SET search_path = hr",
      "EXPLAIN ANALYZE EXECUTE p",
      "CREATE TEMP TABLE t AS EXECUTE p",
      "EXECUTE p",
    ],
    ["reader", "PREPARE p AS SELECT note FROM notes; SET search_path = hr; EXECUTE p"],
    [
      "admin",
      "CREATE TEMP TABLE salaries (person text)",
      "SET search_path = hr",
      "PREPARE p AS SELECT person FROM salaries",
      "DROP TABLE pg_temp.salaries",
      "EXECUTE p",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE TABLE IF NOT EXISTS public.triggered (a int)",
      "INSERT INTO public.triggered VALUES (1)",
      "COMMIT",
    ],
    [
      "admin",
      "BEGIN; CREATE TABLE IF NOT EXISTS public.triggered (a int); INSERT INTO public.triggered VALUES (1); COMMIT",
    ],
    ["admin", "BEGIN", "ALTER VIEW public.pay_view RENAME TO x", "SELECT * FROM public.x", "ROLLBACK"],
    ["admin", "ALTER SCHEMA hr RENAME TO hr2", "SELECT * FROM hr2.salaries"],
    ["admin", "CREATE TEMP TABLE t (v public.fine)", "INSERT INTO t VALUES ('x')"],
    ["admin", "ALTER TABLE public.quiet ADD COLUMN v public.fine DEFAULT 'x'"],
    ["job", "ALTER TABLE public.notes ADD COLUMN v public.fine DEFAULT 'x'"],
    [
      "job",
      "ALTER DOMAIN public.plain ADD CHECK (query_to_xml('DELETE FROM public.audit RETURNING 1', true, true, '') IS NOT NULL)",
    ],
    ["job", "ALTER DOMAIN public.plain ADD CHECK (public.is_fine(VALUE))"],
    ["reader", "SELECT takes_fine('x')"],
    ["reader", "SELECT gives_fine()"],
    ["reader", "SELECT (SELECT v FROM (VALUES ('x')) q (v))::fine"],
    [
      "admin",
      "BEGIN",
      "CREATE OPERATOR FAMILY public.f USING btree",
      "CREATE CAST (int AS public.box) WITH FUNCTION public.to_pay(int)",
      "ROLLBACK",
    ],
    [
      "admin",
      "DO $$ BEGIN CREATE TRIGGER t BEFORE INSERT ON public.quiet FOR EACH ROW EXECUTE FUNCTION public.wipe(); INSERT INTO public.quiet VALUES (1); END $$",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE FUNCTION public.f() RETURNS void LANGUAGE sql AS 'CREATE TRIGGER t BEFORE INSERT ON public.quiet FOR EACH ROW EXECUTE FUNCTION public.wipe()'",
      "SELECT public.f()",
      "INSERT INTO public.quiet VALUES (1)",
      "COMMIT",
    ],
  ],
  "names that move, WITH names and paths, in every order": [
    ["reader", "SELECT * FROM pg_stat_get_activity(pg_backend_pid())"],
    ["reader", "SELECT query FROM pg_stat_ssl s, pg_stat_activity"],
    ["reader", "SELECT * FROM pg_foreign_server"],
    ["reader", "SELECT * FROM information_schema.foreign_server_options"],
    ["reader", "SELECT * FROM pg_toast.pg_toast_1255"],
    ["reader", "SELECT * FROM pg_statistic_ext_data"],
    ["reader", "SELECT * FROM pg_mcv_list_items((SELECT stxdmcv FROM pg_statistic_ext_data))"],
    ["reader", "SELECT pg_column_size((SELECT person FROM hr.salaries LIMIT 1))"],
    ["reader", "SELECT * FROM customers WHERE EXISTS (SELECT FROM pay_view)"],
    ["reader", "SELECT row_to_json(x) FROM pay_view x"],
    ["reader", "WITH salaries AS (SELECT 1 AS person) SELECT person FROM hr.salaries"],
    [
      "reader",
      "WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT (SELECT 1 FROM hr.salaries LIMIT 1) FROM a) SELECT * FROM a LIMIT 2",
    ],
    ["reader", "WITH customers AS MATERIALIZED (TABLE hr.salaries) SELECT * FROM customers"],
    ["reader", "WITH a AS (WITH hr AS (SELECT 1) SELECT * FROM hr.salaries) SELECT * FROM a"],
    ["reader", "SELECT * FROM (WITH salaries AS (SELECT 1) SELECT * FROM salaries) x, hr.salaries"],
    [
      "reader",
      "SET search_path = hr",
      "WITH x AS (SELECT 1) SELECT * FROM (WITH salaries AS (SELECT 1) TABLE salaries) q, salaries",
    ],
    ["reader", "SET search_path = hr", "WITH a AS (TABLE salaries), salaries AS (SELECT 1) SELECT * FROM a"],
    [
      "reader",
      "SET search_path = hr",
      "SELECT (WITH salaries AS (SELECT 'x') SELECT 1), (SELECT min(person) FROM salaries)",
    ],
    ["reader", "SET search_path = hr", "WITH salaries AS (TABLE salaries) TABLE salaries"],
    [
      "reader",
      "SET search_path = hr",
      "INSERT INTO public.notes WITH salaries AS (TABLE salaries) SELECT 1, person FROM salaries",
    ],
    ["writer", "SET search_path = hr", "WITH notes AS (SELECT 1) DELETE FROM notes"],
    [
      "reader",
      "SET search_path = hr",
      "MERGE INTO public.notes USING salaries ON false WHEN NOT MATCHED THEN DO NOTHING",
    ],
    ["reader", 'SELECT * FROM "salaries", hr."salaries"'],
    ["reader", 'SET search_path TO "hr"', "SELECT salaries FROM salaries"],
    ["reader", "SET search_path TO 'hr, public'", "SELECT * FROM salaries"],
    ["reader", "SET search_path TO hr, $1", "SELECT * FROM salaries"],
    ["reader", "SET search_path TO HR", "SELECT * FROM salaries"],
    [
      "reader",
      "BEGIN",
      "SAVEPOINT a",
      "SET search_path = hr",
      "SAVEPOINT b",
      "SET search_path = public",
      "ROLLBACK TO b",
      "SELECT * FROM salaries",
      "TABLE notes",
    ],
    [
      "reader",
      "BEGIN",
      "SET LOCAL search_path = public",
      "SAVEPOINT b",
      "SET search_path = hr",
      "RELEASE b",
      "TABLE notes",
    ],
    [
      "reader",
      "BEGIN; SET search_path = hr",
      "ROLLBACK",
      "BEGIN; SET search_path = hr; COMMIT",
      "TABLE notes",
    ],
    ["reader", "SET search_path = hr; ROLLBACK; SELECT note FROM notes"],
    ["reader", "BEGIN; SET LOCAL search_path = hr; COMMIT AND CHAIN; SELECT * FROM salaries"],
    ["reader", "RESET search_path; SET search_path = hr; TABLE notes"],
    ["reader", "DISCARD ALL; SET search_path = hr; TABLE notes"],
    ["writer", "UPDATE customers SET name = (SELECT min(person) FROM hr.salaries) WHERE id = 1"],
    ["writer", "INSERT INTO notes SELECT 1, person FROM hr.salaries"],
    ["writer", "INSERT INTO notes VALUES (1, 'x') RETURNING (SELECT min(person) FROM hr.salaries)"],
    [
      "writer",
      "INSERT INTO customers VALUES (1) ON CONFLICT (id) DO UPDATE SET name = (SELECT min(person) FROM hr.salaries) WHERE customers.id = 1",
    ],
    ["writer", "UPDATE customers c SET name = s.person FROM hr.salaries s WHERE c.id = 1"],
    ["writer", "WITH a AS (SELECT 1) UPDATE customers SET name = 'x' WHERE id > 0 OR (SELECT true FROM a)"],
    [
      "writer",
      "UPDATE customers SET (name, ssn) = (SELECT person, 'x' FROM hr.salaries LIMIT 1) WHERE id = 1",
    ],
    ["writer", "UPDATE customers SET name = DEFAULT"],
    ["writer", "UPDATE ONLY customers SET name = name"],
    ["writer", "UPDATE customers SET name = 'x' WHERE CURRENT OF c"],
    ["writer", "COPY customers FROM STDIN WHERE (SELECT count(*) FROM hr.salaries) > 0"],
    ["writer", "DELETE FROM customers WHERE id >= (SELECT min(id) FROM customers)"],
    ["writer", "LOCK customers IN ACCESS EXCLUSIVE MODE"],
    ["writer", "INSERT INTO pay_parent SELECT person FROM pay_parent"],
    ["writer", "CREATE TEMP TABLE x (a int)"],
    ["job", "CREATE TABLE public.tt AS SELECT 1 WHERE EXISTS (TABLE hr.salaries)"],
    ["job", "SELECT count(*) FROM pg_class WHERE EXISTS (SELECT FROM hr.salaries)"],
    ["job", "EXPLAIN ANALYZE SELECT * FROM pg_class, hr.salaries"],
    ["job", "CREATE INDEX i ON public.customers (name) WHERE (SELECT true)"],
    ["job", "ALTER TABLE public.customers ALTER name TYPE text USING (SELECT min(person) FROM hr.salaries)"],
    [
      "job",
      "ALTER TABLE public.customers ADD COLUMN z text GENERATED ALWAYS AS (public.pay_plpgsql()) STORED",
    ],
    ["job", "ALTER TABLE public.customers ADD EXCLUDE USING gist (id WITH OPERATOR(public.===))"],
    ["job", "CREATE SEQUENCE s; SELECT setval('s', (SELECT max(amount) FROM hr.salaries))"],
    ["job", "DROP TABLE public.audit; SELECT * FROM customers"],
    ["job", "LOCK TABLE public.customers"],
    ["job", "VACUUM"],
    ["job", "REINDEX TABLE public.customers"],
    ["job", "CREATE TABLE public.q (a int) WITH (user_catalog_table = true); COPY q FROM PROGRAM 'id'"],
    ["admin", "MERGE INTO hr.salaries s USING (SELECT 1) x ON false WHEN NOT MATCHED THEN DO NOTHING"],
    [
      "admin",
      "BEGIN",
      "DROP TABLE public.quiet",
      "CREATE VIEW public.quiet AS SELECT * FROM public.audit",
      "INSERT INTO public.quiet VALUES (99,'x')",
      "COMMIT",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE TABLE public.n1 (LIKE public.defaulted INCLUDING ALL)",
      "INSERT INTO public.n1 VALUES (1) RETURNING b",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE TABLE public.n1 () INHERITS (public.checked)",
      "INSERT INTO public.n1 VALUES ('x')",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE TABLE public.n1 PARTITION OF public.parted FOR VALUES FROM (20) TO (30)",
      "ALTER TABLE public.parted ENABLE ALWAYS TRIGGER ALL",
      "INSERT INTO public.parted VALUES (21,'x')",
      "ROLLBACK",
      "DELETE FROM audit",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE TEMP TABLE e (v public.pay)",
      "INSERT INTO e SELECT 1::public.pay",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "ALTER TYPE public.pay ADD ATTRIBUTE w public.fine",
      "SELECT ROW('x','y')::public.pay",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "ALTER FUNCTION public.pay_int(int) RENAME TO harmless",
      "SELECT public.harmless(1)",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "ALTER FUNCTION public.pay_int(int) SET SCHEMA evil",
      "SELECT evil.pay_int(1)",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "ALTER OPERATOR public.=== (int, int) SET SCHEMA evil",
      "SELECT 1 OPERATOR(evil.===) 2",
      "ROLLBACK",
    ],
    ["admin", "BEGIN; ALTER FUNCTION public.pay_int(int) SET SCHEMA evil; SELECT evil.pay_int(1); ROLLBACK"],
    [
      "admin",
      "BEGIN; ALTER OPERATOR public.=== (int, int) SET SCHEMA evil; SELECT 1 OPERATOR(evil.===) 2; ROLLBACK",
    ],
    ["admin", "BEGIN", "ALTER DOMAIN public.fine RENAME TO fine2", "SELECT 'x'::public.fine2", "ROLLBACK"],
    [
      "admin",
      "BEGIN",
      "ALTER TYPE public.pay RENAME TO customers2",
      "SELECT 1::public.customers2",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "ALTER FUNCTION public.pay_int(int) RENAME TO lower",
      "SELECT public.lower(1)",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE FUNCTION public.harm2(int) RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
      "DROP FUNCTION public.harm2(int)",
      "ALTER FUNCTION public.pay_int(int) RENAME TO harm2",
      "SELECT public.harm2(1)",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN; CREATE FUNCTION public.harm2(int) RETURNS text LANGUAGE sql AS 'SELECT 1::text'; DROP FUNCTION public.harm2(int); ALTER FUNCTION public.pay_int(int) RENAME TO harm2; SELECT public.harm2(1); ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "ALTER FUNCTION public.pay_int(int) RENAME TO takes_fine",
      "SELECT public.takes_fine(1)",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "ALTER TABLE public.audit RENAME TO audit2",
      "ALTER TABLE public.notes RENAME TO audit3",
      "UPDATE public.audit2 SET note = 'y' WHERE id = 3",
      "ALTER TABLE public.audit2 RENAME TO audit",
      "ALTER TABLE public.audit3 RENAME TO notes",
      "COMMIT",
    ],
    [
      "admin",
      "BEGIN",
      "ALTER VIEW public.audit_view RENAME TO av",
      "UPDATE public.av SET note = 'y' WHERE id = 3",
      "ALTER VIEW public.av RENAME TO audit_view",
      "COMMIT",
    ],
    [
      "admin",
      "BEGIN",
      "ALTER TABLE public.audit SET SCHEMA evil",
      "UPDATE evil.audit SET note = 'y' WHERE id = 3",
      "ALTER TABLE evil.audit SET SCHEMA public",
      "COMMIT",
    ],
  ],
  "D14: grammar of PostgreSQL 18, and beyond": [
    [
      "writer",
      "UPDATE notes SET note = 'x' WHERE id = 1 RETURNING old.note, (SELECT min(person) FROM hr.salaries)",
    ],
    [
      "writer",
      "DELETE FROM customers WHERE id = 1 RETURNING WITH (OLD AS o, NEW AS n) o.*, (TABLE hr.salaries LIMIT 1)",
    ],
    [
      "writer",
      "MERGE INTO notes n USING hr.salaries s ON n.note = s.person WHEN NOT MATCHED THEN INSERT VALUES (1, s.person) RETURNING merge_action(), n.note",
    ],
    ["admin", "DELETE FROM audit WHERE PORTION OF x"],
  ],
  "D15: words of the replication protocol and of psql": [
    ["reader", "IDENTIFY_SYSTEM"],
    ["reader", "START_REPLICATION SLOT s LOGICAL 0/0"],
    ["reader", "BASE_BACKUP"],
    ["reader", "\\copy hr.salaries to stdout"],
    ["reader", "SELECT 1 \\gexec"],
  ],
  "D17, E1: code: DO, functions, triggers, rules, casts, operators, and all of it before it is committed": [
    ["reader", "DO $$ BEGIN DELETE FROM audit; END $$"],
    ["reader", "DO $$ BEGIN EXECUTE 'trun'||'cate audit'; END $$"],
    ["admin", "DO $$ BEGIN EXECUTE 'trun'||'cate audit'; END $$"],
    ["admin", "DO $$ BEGIN DELETE FROM audit WHERE id = 1; END $$"],
    [
      "admin",
      "DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM hr.salaries LOOP RAISE NOTICE '%', r; END LOOP; END $$",
    ],
    [
      "admin",
      "DO $$ DECLARE c CURSOR FOR SELECT person FROM hr.salaries; r record; BEGIN OPEN c; FETCH c INTO r; RAISE NOTICE '%', r; END $$",
    ],
    [
      "admin",
      "DO $$ DECLARE x text := (SELECT min(person) FROM hr.salaries); BEGIN RAISE NOTICE '%', x; END $$",
    ],
    [
      "admin",
      "DO $$ DECLARE x hr.salaries%ROWTYPE; BEGIN SELECT * INTO x FROM hr.salaries LIMIT 1; RAISE NOTICE '%', x; END $$",
    ],
    ["admin", "DO LANGUAGE sql 'TABLE hr.salaries'"],
    [
      "admin",
      "CREATE FUNCTION public.f() RETURNS SETOF text LANGUAGE sql AS 'SELECT person FROM hr.salaries'",
    ],
    [
      "admin",
      "CREATE FUNCTION public.f() RETURNS SETOF text BEGIN ATOMIC; SELECT person FROM hr.salaries; END",
    ],
    [
      "admin",
      "BEGIN",
      wipeLater,
      "CREATE TRIGGER t BEFORE INSERT ON public.quiet FOR EACH ROW EXECUTE FUNCTION public.w()",
      "INSERT INTO public.quiet VALUES (1)",
      "COMMIT",
    ],
    [
      "admin",
      `BEGIN; ${wipeLater}; CREATE TRIGGER t BEFORE INSERT ON public.quiet FOR EACH ROW EXECUTE FUNCTION public.w(); INSERT INTO public.quiet VALUES (1); COMMIT`,
    ],
    [
      "admin",
      "BEGIN",
      "CREATE TRIGGER t BEFORE INSERT ON public.quiet FOR EACH ROW EXECUTE FUNCTION public.wipe()",
      "INSERT INTO public.quiet VALUES (1)",
      "COMMIT",
    ],
    [
      "admin",
      "BEGIN; CREATE TRIGGER t BEFORE INSERT ON public.quiet FOR EACH ROW EXECUTE FUNCTION public.wipe(); INSERT INTO public.quiet VALUES (1); COMMIT",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE RULE r AS ON INSERT TO public.quiet DO ALSO DELETE FROM public.audit WHERE id < 9",
      "INSERT INTO public.quiet VALUES (1)",
      "COMMIT",
    ],
    [
      "admin",
      "BEGIN; CREATE RULE r AS ON INSERT TO public.quiet DO ALSO DELETE FROM public.audit WHERE id < 9; INSERT INTO public.quiet VALUES (1); COMMIT",
    ],
    ["admin", "CREATE RULE r AS ON INSERT TO public.quiet DO INSTEAD SELECT person FROM hr.salaries"],
    ["admin", "BEGIN", "ALTER TABLE public.quiet ADD COLUMN c text DEFAULT public.pay_plpgsql()", "COMMIT"],
    [
      "admin",
      "BEGIN",
      "ALTER TABLE public.quiet ADD COLUMN c text",
      "ALTER TABLE public.quiet ALTER COLUMN c SET DEFAULT public.pay_plpgsql()",
      "INSERT INTO public.quiet VALUES (1) RETURNING c",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN; ALTER TABLE public.quiet ADD COLUMN c text; ALTER TABLE public.quiet ALTER COLUMN c SET DEFAULT public.pay_plpgsql(); INSERT INTO public.quiet VALUES (1) RETURNING c; ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE VIEW public.v AS SELECT * FROM public.audit",
      "DELETE FROM public.v WHERE id = 1",
      "DROP VIEW public.v",
      "COMMIT",
    ],
    [
      "admin",
      "BEGIN; CREATE VIEW public.v AS SELECT * FROM public.audit; DELETE FROM public.v WHERE id = 1; DROP VIEW public.v; COMMIT",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE OR REPLACE VIEW public.audit_view AS SELECT * FROM public.audit",
      "DELETE FROM public.audit_view WHERE id = 1",
      "COMMIT",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE OPERATOR public.~~~~ (LEFTARG = int, RIGHTARG = int, FUNCTION = public.pay_compare)",
      "SELECT 1 ~~~~ 2",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN; CREATE OPERATOR public.~~~~ (LEFTARG = int, RIGHTARG = int, FUNCTION = public.pay_compare); SELECT 1 ~~~~ 2; ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE TYPE public.boxed AS (v text)",
      "CREATE FUNCTION public.to_boxed(int) RETURNS public.boxed LANGUAGE sql AS 'SELECT ROW(public.pay_plpgsql())::public.boxed'",
      "CREATE CAST (int AS public.boxed) WITH FUNCTION public.to_boxed(int)",
      "SELECT 1::public.boxed",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE DOMAIN public.d AS text CHECK (public.is_fine(VALUE))",
      "SELECT 'x'::public.d",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN; CREATE DOMAIN public.d AS text CHECK (public.is_fine(VALUE)); SELECT 'x'::public.d; ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE AGGREGATE public.agg (int) (SFUNC = public.pay_step, STYPE = text)",
      "SELECT public.agg(1)",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE TABLE public.t (a int, b text DEFAULT public.pay_plpgsql())",
      "INSERT INTO public.t VALUES (1) RETURNING b",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN; CREATE TABLE public.t (a int, b text DEFAULT public.pay_plpgsql()); INSERT INTO public.t VALUES (1) RETURNING b; ROLLBACK",
    ],
    [
      "admin",
      "CREATE TEMP TABLE t (a int, b text DEFAULT public.pay_plpgsql())",
      "INSERT INTO t VALUES (1) RETURNING b",
    ],
    [
      "admin",
      "CREATE TEMP TABLE t (a int, b text GENERATED ALWAYS AS (public.pay_plpgsql()) STORED)",
      "INSERT INTO t VALUES (1) RETURNING b",
    ],
    [
      "admin",
      "CREATE TEMP TABLE t (a int, b text GENERATED ALWAYS AS (public.pay_plpgsql()) VIRTUAL)",
      "INSERT INTO t VALUES (1)",
      "SELECT b FROM t",
    ],
    ["admin", "CREATE TEMP TABLE t (a text CHECK (public.is_fine(a)))", "INSERT INTO t VALUES ('x')"],
    [
      "admin",
      "CREATE TEMP TABLE t (a int)",
      "CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION public.wipe()",
      "INSERT INTO t VALUES (1)",
    ],
    [
      "admin",
      "CREATE TEMP TABLE t (a int)",
      "CREATE RULE r AS ON INSERT TO t DO ALSO DELETE FROM public.audit WHERE id = 1",
      "INSERT INTO t VALUES (1)",
    ],
    ["admin", "CREATE TEMP VIEW v AS SELECT * FROM public.audit", "DELETE FROM v WHERE id = 1"],
    [
      "admin",
      "CREATE TEMP TABLE t (a int)",
      "ALTER TABLE t ADD COLUMN b text, ALTER COLUMN b SET DEFAULT public.pay_plpgsql()",
      "INSERT INTO t VALUES (1) RETURNING b",
    ],
    [
      "admin",
      "CREATE TEMP TABLE t (a int, b xml DEFAULT query_to_xml('SELECT person FROM hr.salaries', true, true, ''))",
      "INSERT INTO t VALUES (1) RETURNING b",
    ],
    [
      "admin",
      "CREATE TABLE public.t (a int, b xml DEFAULT query_to_xml('SELECT person FROM hr.salaries', true, true, ''))",
      "INSERT INTO public.t VALUES (1) RETURNING b",
      "DROP TABLE public.t",
    ],
    [
      "admin",
      "BEGIN; CREATE TABLE public.t (a xml CHECK (query_to_xml('DELETE FROM public.audit RETURNING 1', true, true, '') IS NOT NULL)); INSERT INTO t VALUES (NULL); DROP TABLE t; COMMIT",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE POLICY p ON public.notes USING (public.is_fine(note))",
      "SET row_security = on",
      "SELECT * FROM public.notes",
      "ROLLBACK",
    ],
    ["admin", "CREATE INDEX i ON public.notes (public.pay_int(id))"],
    ["admin", "CREATE INDEX i ON public.customers ((public.is_fine(name)))"],
    ["admin", "CREATE INDEX i ON public.customers (id) WHERE public.is_fine(name)"],
    ["admin", "ALTER TABLE public.customers ADD CHECK (public.is_fine(name))"],
    ["admin", "ALTER TABLE public.customers ALTER COLUMN name TYPE text USING public.pay_int(1)"],
    [
      "admin",
      "ALTER TABLE public.customers ADD COLUMN x xml DEFAULT query_to_xml('SELECT person FROM hr.salaries', true, true, '')",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE STATISTICS s ON (public.pay_int(id)) FROM public.customers",
      "ANALYZE public.customers",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "ALTER TABLE public.quiet INHERIT hr.salaries",
      "ROLLBACK",
      "ALTER TABLE hr.salaries INHERIT public.notes",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE TABLE public.pp (person text, amount int) PARTITION BY LIST (amount)",
      "ALTER TABLE public.pp ATTACH PARTITION hr.salaries DEFAULT",
      "SELECT * FROM public.pp",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE TABLE public.pp (person text, amount int)",
      "ALTER TABLE hr.salaries INHERIT public.pp",
      "SELECT * FROM public.pp",
      "ROLLBACK",
    ],
    [
      "admin",
      "BEGIN; CREATE TABLE public.pp (person text, amount int); ALTER TABLE hr.salaries INHERIT public.pp; SELECT * FROM public.pp; ROLLBACK",
    ],
    [
      "admin",
      "BEGIN",
      "ALTER TABLE public.audit ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES public.customers ON DELETE CASCADE",
      "DELETE FROM public.customers WHERE id = 3",
      "COMMIT",
    ],
    [
      "admin",
      "BEGIN; ALTER TABLE public.audit ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES public.customers ON DELETE CASCADE; DELETE FROM public.customers WHERE id = 3; COMMIT",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE OR REPLACE FUNCTION public.pay_int(int) RETURNS text LANGUAGE sql AS 'SELECT ''x'''",
      "ROLLBACK",
      "SELECT public.pay_int(1)",
    ],
    ["admin", "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION public.wipe()"],
    ["job", "ALTER TABLE public.checked VALIDATE CONSTRAINT checked_a_check"],
    ["job", "ALTER DOMAIN public.fine VALIDATE CONSTRAINT fine_check"],
    ["job", "ALTER TABLE public.generated ALTER COLUMN a TYPE bigint"],
    ["job", "ALTER TABLE public.defaulted ADD COLUMN c int DEFAULT 1"],
    ["job", "ALTER TABLE public.checked SET UNLOGGED"],
    ["job", "CREATE TABLE public.t AS TABLE hr.salaries"],
    ["job", "CREATE MATERIALIZED VIEW public.t AS TABLE hr.salaries"],
    [
      "job",
      "CREATE TABLE public.t (a xml); ALTER TABLE public.t ADD COLUMN x xml DEFAULT query_to_xml('SELECT person FROM hr.salaries', true, true, '')",
    ],
    ["job", "ALTER TABLE public.customers ADD CHECK ((SELECT count(*) FROM hr.salaries) = 0)"],
    ["job", "ALTER TABLE public.customers ALTER COLUMN name TYPE text USING public.pay_int(1)"],
    ["job", "CREATE INDEX i ON public.customers (public.pay_int(id))"],
    [
      "job",
      "CREATE INDEX i ON public.customers ((query_to_xml('DELETE FROM public.audit', true, true, '')::text))",
    ],
    ["job", "REFRESH MATERIALIZED VIEW public.pay_matview"],
    ["job", "INSERT INTO notes VALUES (1, 'x')"],
    ["job", "SELECT name FROM customers"],
    ["job", "DO $$ BEGIN DELETE FROM audit; END $$"],
    ["job", "COPY customers TO STDOUT"],
    ["job", "CREATE UNIQUE INDEX i ON public.customers ((id / (SELECT 0)))"],
    ["job", "GRANT ALL ON public.customers TO public"],
    ["job", "CREATE SCHEMA AUTHORIZATION postgres CREATE TABLE x AS SELECT 1"],
    ["job", "CREATE SCHEMA s2 CREATE VIEW v AS SELECT 1 GRANT SELECT ON v TO public"],
    ["job", "CREATE EXTENSION plpgsql"],
    ["job", "CREATE FUNCTION public.f() RETURNS int LANGUAGE internal AS 'pg_reload_conf'"],
    ["job", "ALTER TABLE public.customers DISABLE TRIGGER ALL, ENABLE ROW LEVEL SECURITY"],
    ["job", "SELECT * FROM pg_stats"],
    ["job", "SELECT person FROM hr.salaries WHERE false"],
  ],
  "E2: functions are what their bodies do": [
    ["reader", "SELECT '[x,y]'::public.fine_range"],
    ["reader", "SELECT '{[x,y]}'::public.fine_ranges"],
    ["reader", "SELECT '{\"[x,y]\"}'::public.fine_range[]"],
    ["reader", "PREPARE q(public.fine_range) AS SELECT $1", "EXECUTE q('[x,y]')"],
    ...[
      "pay_sql()",
      "pay_atomic()",
      "pay_plpgsql()",
      "pay_definer()",
      "pay_dynamic()",
      "pay_int(1)",
      "to_pay(1)",
      "is_fine('x')",
    ].flatMap((call): [Who, ...string[]][] => [
      ["reader", `SELECT ${call}`],
      ["reader", `SELECT * FROM ${call}`],
      ["writer", `INSERT INTO notes SELECT 1, (${call})::text`],
      ["admin", `SELECT public.${call}`],
    ]),
    ["reader", "CALL pay_sql()"],
    ["reader", "SELECT * FROM customers, LATERAL pay_int(id)"],
    ["reader", "SELECT * FROM ROWS FROM (pay_sql(), pay_atomic()) x"],
    ["reader", "SELECT name FROM customers ORDER BY pay_int(id)"],
    ["reader", "SELECT name FROM customers GROUP BY name HAVING min(pay_int(1)) > ''"],
    ["reader", "SELECT name FROM customers LIMIT length(pay_int(1))"],
    ["reader", "SELECT sum(id) FILTER (WHERE pay_int(id) > '') FROM customers"],
    ["reader", "SELECT row_number() OVER (ORDER BY pay_int(id)) FROM customers"],
    ["reader", "SELECT row_number() OVER w FROM customers WINDOW w AS (PARTITION BY pay_int(id))"],
    ["reader", "SELECT * FROM customers TABLESAMPLE system (length(pay_int(1)))"],
    ["reader", "SELECT grouping(pay_int(id)) FROM customers GROUP BY ROLLUP (pay_int(id))"],
    ["reader", "SELECT COALESCE(pay_int(1)), GREATEST(pay_int(1)), XMLELEMENT(NAME a, pay_int(1))"],
    ["reader", "SELECT JSON_OBJECT('a': pay_int(1))"],
    ["reader", "SELECT * FROM rows_guarded"],
    ["reader", "SELECT internal_notify('a', 'b')"],
    ["reader", "SELECT internal_xml('SELECT person FROM hr.salaries', true, true, '')"],
    ["writer", "INSERT INTO generated VALUES (1) RETURNING b"],
    ["writer", "INSERT INTO defaulted VALUES (1) RETURNING b"],
    ["writer", "INSERT INTO defaulted DEFAULT VALUES RETURNING *"],
    ["writer", "INSERT INTO checked VALUES ('x')"],
    ["writer", "INSERT INTO domain_user VALUES ('x')"],
    ["writer", "INSERT INTO xml_default VALUES (1) RETURNING b"],
    ["writer", "COPY defaulted (a) FROM STDIN"],
    ["admin", "INSERT INTO xml_default VALUES (1) RETURNING b"],
  ],
  "E4: functions that administer the server or read its files": [
    ...`pg_terminate_backend(pg_backend_pid()) pg_cancel_backend(0) pg_reload_conf() pg_promote() pg_switch_wal()
    pg_create_restore_point('x') pg_create_physical_replication_slot('x') pg_create_logical_replication_slot('x','test_decoding')
    pg_logical_slot_get_changes('x',null,null) pg_logical_slot_peek_changes('x',null,null) pg_logical_emit_message(true,'a','b')
    pg_read_file('pg_hba.conf') pg_read_binary_file('pg_hba.conf') pg_ls_dir('.') pg_ls_logdir() pg_ls_waldir() pg_stat_file('pg_hba.conf')
    lo_import('/etc/passwd') lo_export(1,'/tmp/x') lo_create(77) lo_from_bytea(0,'x') lo_get(1) loread(0,1) lo_unlink(1)
    pg_rotate_logfile() pg_advisory_lock(1) pg_try_advisory_lock(1) pg_notify('a','b') pg_stat_reset() pg_stat_reset_shared('io')
    pg_backup_start('x') pg_export_snapshot() pg_replication_origin_create('x') pg_current_logfile() pg_hba_file_rules()
    pg_show_all_file_settings() pg_extension_config_dump('pg_class','') pg_nextoid('pg_class','oid','pg_class_oid_index')
    pg_stat_get_activity(null) pg_stat_get_backend_activity(1) pg_cursor() pg_log_backend_memory_contexts(1)
    pg_import_system_collations('public') pg_set_attribute_stats() pg_restore_relation_stats() pg_get_backend_memory_contexts()
    binary_upgrade_set_next_pg_type_oid(1) brin_summarize_new_values('x') pg_wal_replay_pause() pg_prepared_xact()
    currtid2('hr.salaries','(0,1)') pg_relation_filepath('hr.salaries')`
      .split(/\s+/)
      .filter((call) => !call.startsWith("pg_relation_filepath") && !call.startsWith("pg_cursor"))
      .flatMap((call): [Who, ...string[]][] => [
        ["reader", `SELECT ${call}`],
        // Who writes takes turns by them.
        ...(call.includes("advisory")
          ? []
          : [["writer", `SELECT * FROM pg_catalog.${call}`] as [Who, string]]),
      ]),
  ],
  "E5: COPY reaches neither programs nor files, and is no read": [
    ["reader", "COPY customers TO STDOUT"],
    ["reader", "COPY (SELECT 1) TO STDOUT"],
    ["reader", "COPY customers TO PROGRAM 'cat'"],
    ["reader", "COPY customers TO '/tmp/x'"],
    ["writer", "COPY notes FROM PROGRAM 'echo 1'"],
    ["writer", "COPY notes FROM '/etc/passwd'"],
    ["writer", "COPY (TABLE hr.salaries) TO STDOUT"],
    ["admin", "COPY hr.salaries TO STDOUT"],
    ["admin", "COPY (TABLE hr.salaries) TO STDOUT"],
    ["admin", "COPY (SELECT (SELECT min(person) FROM hr.salaries)) TO PROGRAM 'cat'"],
    ["admin", "COPY public.audit FROM STDIN"],
  ],
  "E6: reading only is decided by the statement, not by the session": [
    [
      "reader",
      "SELECT set_config('default_transaction_read_only', 'off', false)",
      "DELETE FROM audit WHERE id = 1",
    ],
    ["reader", "BEGIN READ ONLY", "SET TRANSACTION READ WRITE", "DELETE FROM audit WHERE id = 1", "COMMIT"],
    ["reader", "START TRANSACTION READ WRITE", "DELETE FROM audit WHERE id = 1", "COMMIT"],
    ["reader", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "DELETE FROM audit WHERE id = 1"],
    ["reader", "RESET ALL", "DELETE FROM audit WHERE id = 1"],
    ["reader", "DISCARD ALL", "DELETE FROM audit WHERE id = 1"],
    ["reader", "UPDATE pg_settings SET setting = 'off' WHERE name = 'default_transaction_read_only'"],
    ["reader", "SET session_replication_role = replica"],
    ["reader", "SELECT set_config('session_replication_role', 'replica', false)"],
    ["reader", "SET row_security = off"],
    ["reader", "SET local_preload_libraries = 'x'"],
    ["reader", "SET log_statement = 'none'"],
  ],
  "E7: nobody becomes somebody else": [
    ...(["reader", "writer", "job"] as const).flatMap((who): [Who, ...string[]][] => [
      [who, "SET ROLE pg_monitor"],
      [who, "SET LOCAL ROLE pg_monitor"],
      [who, "SET SESSION AUTHORIZATION postgres"],
      [who, "RESET ROLE", "SET ROLE pg_monitor"],
      [who, "SET SESSION AUTHORIZATION DEFAULT", "SET LOCAL ROLE pg_monitor"],
      [who, "SELECT set_config('role', 'pg_monitor', false)"],
      [who, "SELECT set_config('ro' || 'le', 'pg_monitor', false)"],
      [who, "SELECT set_config('session_authorization', 'postgres', false)"],
      [who, "SET \"role\" = 'pg_monitor'"],
      [who, "ALTER ROLE postgres SET search_path = hr"],
      [who, "ALTER ROLE postgres PASSWORD 'x'"],
      [who, "CREATE ROLE mine SUPERUSER"],
      [who, "GRANT pg_read_all_data TO postgres"],
      [who, "ALTER TABLE customers OWNER TO postgres"],
      [who, "REASSIGN OWNED BY postgres TO postgres"],
      [who, "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO public"],
    ]),
  ],
  "E9: nothing that reaches other servers": [
    ...(["writer", "job"] as const).flatMap((who): [Who, ...string[]][] => [
      [who, "CREATE SUBSCRIPTION s CONNECTION 'host=x password=y' PUBLICATION p"],
      [who, "CREATE SERVER s FOREIGN DATA WRAPPER w"],
      [who, "CREATE USER MAPPING FOR postgres SERVER s OPTIONS (password 'x')"],
      [who, "CREATE EXTENSION dblink"],
      [who, "CREATE PUBLICATION p FOR ALL TABLES"],
      [who, "IMPORT FOREIGN SCHEMA a FROM SERVER b INTO public"],
      [who, "ALTER SYSTEM SET archive_command = 'x'"],
      [who, "LOAD 'x'"],
      [who, "CREATE FOREIGN TABLE f (a int) SERVER s"],
      [who, "SELECT dblink('host=x', 'SELECT 1')"],
      [who, "SECURITY LABEL ON TABLE customers IS 'x'"],
      [who, "CREATE TABLESPACE t LOCATION '/tmp'"],
      [who, "CHECKPOINT"],
    ]),
  ],
  "E10: writes without bound, in every disguise": [
    ...[
      "",
      "WHERE true",
      "WHERE 1 = 1",
      "WHERE id = id",
      "WHERE id IS NOT NULL OR id IS NULL",
      "WHERE id IS NOT NULL",
      "WHERE EXISTS (SELECT 1)",
      "WHERE id IN (SELECT id FROM customers)",
      "WHERE NOT false",
      "WHERE id > 0 OR 1 = 1",
      "WHERE 'a' LIKE '%'",
      "WHERE name LIKE '%'",
      "WHERE NOT (id <> id)",
      "WHERE COALESCE(true, id = 1)",
      "WHERE (id = 1) IS NOT NULL",
      "WHERE CASE WHEN true THEN true END",
      "WHERE id = ANY (SELECT id FROM customers)",
      "WHERE id IN (SELECT c.id FROM customers c WHERE true)",
      "WHERE EXISTS (SELECT FROM customers x WHERE x.id = customers.id)",
      "WHERE 1 < 2",
      "WHERE true = true",
      "WHERE 'yes'::boolean",
      "WHERE bool 't'",
      "WHERE length('a') = 1",
      "WHERE now() > '2000-01-01'",
      "WHERE random() >= 0",
      "WHERE id IS DISTINCT FROM NULL",
      "WHERE (SELECT true)",
      "WHERE customers IS NOT NULL OR customers IS NULL",
      "WHERE id BETWEEN id AND id",
      "WHERE id >= id",
      "WHERE name || '' = name",
      "WHERE ctid = ctid",
      "WHERE tableoid IS NOT NULL",
      "WHERE (id, name) = (id, name)",
    ].map((where): [Who, ...string[]] => ["writer", `DELETE FROM customers ${where}`]),
    ["writer", "SET transform_null_equals = on", "DELETE FROM customers WHERE (id = NULL) IS NOT TRUE"],
    ["writer", "SELECT set_config('transform_null_equals', 'on', false)"],
    ["admin", "ALTER ROLE postgres SET transform_null_equals = on"],
    ["writer", "UPDATE customers SET name = 'x'"],
    ["writer", "UPDATE customers SET name = 'x' FROM (SELECT 1) y"],
    ["writer", "DELETE FROM customers USING (SELECT 1) x"],
    ["writer", "DELETE FROM customers USING orders"],
    ["writer", "DELETE FROM customers a USING customers b WHERE a.id = b.id"],
    ["writer", "MERGE INTO customers c USING (SELECT 1) x ON true WHEN MATCHED THEN DELETE"],
    ["writer", "MERGE INTO customers c USING customers d ON c.id = d.id WHEN MATCHED THEN DELETE"],
    ["writer", "MERGE INTO customers c USING notes n ON c.id = n.id WHEN NOT MATCHED BY SOURCE THEN DELETE"],
    ["writer", "TRUNCATE customers CASCADE"],
    ["writer", "TRUNCATE ONLY notes"],
    ["writer", "WITH x AS (DELETE FROM orders RETURNING 1) SELECT 1"],
    ["writer", "EXPLAIN ANALYZE DELETE FROM orders"],
    ["writer", "PREPARE p AS DELETE FROM orders", "EXECUTE p"],
    ["writer", "DELETE FROM ONLY orders"],
    [
      "writer",
      "INSERT INTO customers SELECT id, name, 'x' FROM customers ON CONFLICT (id) DO UPDATE SET ssn = 'x'",
    ],
    [
      "admin",
      "BEGIN",
      "CREATE VIEW public.v AS SELECT * FROM public.orders",
      "DELETE FROM public.v",
      "COMMIT",
    ],
    ["admin", "DO $$ BEGIN DELETE FROM public.orders; END $$"],
  ],
  "E11: NOTIFY is no way out": [
    ["reader", "LISTEN a"],
    ["reader", "NOTIFY a, 'x'"],
    ["writer", "SELECT pg_notify('a', (SELECT min(person) FROM hr.salaries))"],
    ["writer", "LISTEN a", "SELECT internal_notify('a', 'b')"],
  ],
  "E12: the catalog shows no values, statements or secrets": [
    ...(["reader", "writer", "job"] as const).flatMap((who): [Who, ...string[]][] =>
      [
        "SELECT most_common_vals FROM pg_stats WHERE tablename = 'salaries'",
        "SELECT * FROM pg_statistic",
        "SELECT stavalues1 FROM pg_catalog.pg_statistic",
        "SELECT * FROM pg_stats_ext_exprs",
        "SELECT query FROM pg_stat_activity",
        "SELECT rolpassword FROM pg_authid",
        "SELECT passwd FROM pg_shadow",
        "SELECT * FROM pg_hba_file_rules",
        "SELECT * FROM pg_file_settings",
        "SELECT * FROM pg_user_mapping",
        "SELECT * FROM pg_largeobject",
        "SELECT * FROM pg_subscription",
        "SELECT pg_stat_get_backend_activity(i) FROM pg_stat_get_backend_idset() i",
        "SELECT * FROM pg_stat_get_activity(NULL)",
        "SELECT * FROM information_schema.user_mapping_options",
        "SELECT * FROM pg_config",
        "SELECT a FROM pg_stats a",
        "SELECT query_to_xml('SELECT * FROM pg_authid', true, true, '')",
        "SELECT table_to_xml('pg_authid', true, true, '')",
        "SELECT table_to_xml('hr.salaries', true, true, '')",
        "SELECT schema_to_xml('hr', true, true, '')",
        "SELECT database_to_xml(true, true, '')",
        "SELECT cursor_to_xml('c', 1, true, true, '')",
        "SELECT query_to_xml('SELECT person FROM hr.sal' || 'aries', true, true, '')",
        "SELECT query_to_xml($$SELECT person FROM hr.salaries$$, true, true, '')",
        "SELECT * FROM ts_stat('SELECT to_tsvector(person) FROM hr.salaries')",
        "SELECT ts_rewrite('a'::tsquery, 'SELECT person::tsquery, person::tsquery FROM hr.salaries')",
        "SELECT table_to_xml(('hr.sal' || 'aries')::regclass, true, true, '')",
        "SELECT person FROM pay_view",
        "SELECT p FROM pay_view_twice",
        "SELECT person FROM pay_parent",
        "SELECT person FROM pay_grand",
        "SELECT * FROM pay_matview",
        "UPDATE pg_authid SET rolpassword = 'x' WHERE false",
        "INSERT INTO pg_proc SELECT * FROM pg_proc",
      ].map((text): [Who, ...string[]] => [who, text]),
    ),
    ["admin", "SELECT person FROM pay_view"],
    ["admin", "SELECT * FROM pay_matview, pay_view_twice"],
    ["admin", "SELECT table_to_xml('hr.salaries', true, true, '')"],
    ["admin", "SELECT query_to_xml('TABLE hr.salaries', true, true, '')"],
    ["admin", "SELECT schema_to_xml('hr', true, true, '')"],
    ["admin", "SELECT most_common_vals FROM pg_stats WHERE tablename = 'salaries'"],
    ["admin", "SELECT stavalues1 FROM pg_statistic"],
    ["admin", "SELECT public.internal_xml('TABLE hr.salaries', true, true, '')"],
    ["admin", "ANALYZE hr.salaries"],
    ["admin", "VACUUM FULL hr.salaries"],
    ["admin", "CLUSTER hr.salaries"],
    ["admin", "CREATE INDEX ON hr.salaries (person)"],
    ["admin", "BEGIN", "DELETE FROM hr.salaries WHERE amount = 1 RETURNING *"],
    ["admin", "LOCK TABLE hr.salaries"],
    ["admin", "CREATE TABLE public.t (LIKE hr.salaries)"],
    ["admin", "CREATE TABLE public.t () INHERITS (hr.salaries)"],
    ["admin", "COMMENT ON TABLE hr.salaries IS 'x'"],
    ["admin", "DROP TABLE hr.salaries"],
    ["admin", "DROP SCHEMA hr CASCADE"],
    ["admin", "TRUNCATE hr.salaries"],
    ["admin", "GRANT SELECT ON hr.salaries TO public"],
    ["admin", "GRANT SELECT ON ALL TABLES IN SCHEMA hr TO public"],
    ["admin", "ALTER TABLE hr.salaries RENAME TO s"],
    ["admin", "ALTER TABLE hr.salaries SET SCHEMA public"],
    [
      "admin",
      "ALTER VIEW public.pay_view RENAME TO p",
      "SELECT * FROM public.p",
      "ALTER VIEW public.p RENAME TO pay_view",
    ],
    ["admin", "CREATE PUBLICATION p FOR TABLE hr.salaries"],
    ["admin", "CREATE PUBLICATION p FOR ALL TABLES"],
    ["admin", "CREATE PUBLICATION p FOR TABLES IN SCHEMA hr"],
    ["admin", "ALTER EXTENSION plpgsql ADD TABLE hr.salaries"],
    ["admin", "ALTER EXTENSION plpgsql ADD SCHEMA hr"],
    ["admin", "ALTER TABLE ALL IN TABLESPACE pg_default SET TABLESPACE pg_default"],
    ["admin", "DROP OWNED BY postgres CASCADE"],
    ["admin", "REASSIGN OWNED BY postgres TO postgres"],
    ["admin", "SECURITY LABEL ON COLUMN hr.salaries.person IS 'x'"],
    ["admin", "UPDATE pg_class SET relname = 'open' WHERE relname = 'salaries'", "TABLE hr.open"],
    ["admin", "UPDATE pg_proc SET prosrc = 'DELETE FROM public.audit' WHERE proname = 'pay_sql'"],
    ["admin", "INSERT INTO pg_rewrite SELECT * FROM pg_rewrite WHERE false"],
  ],
  "who may write and not read finds no rows by a condition, and no error quotes them": [
    ["clerk", "UPDATE hr.salaries SET amount = 0 WHERE person LIKE 'person%'"],
    ["clerk", "UPDATE hr.salaries SET amount = person::int"],
    ["clerk", "UPDATE public.pay_view SET amount = person::int"],
    ["clerk", "BEGIN", "DELETE FROM hr.salaries WHERE amount > 900000", "ROLLBACK"],
    ["clerk", "WITH gone AS (DELETE FROM hr.salaries WHERE person::int > 0) SELECT 1"],
    ["clerk", "MERGE INTO hr.salaries USING notes ON person::int > 0 WHEN MATCHED THEN DO NOTHING"],
    ["clerk", "MERGE INTO hr.salaries s USING notes ON true WHEN MATCHED AND s.amount > 5 THEN DELETE"],
    ["clerk", "PREPARE q AS DELETE FROM hr.salaries WHERE person LIKE $1", "EXECUTE q('p%')"],
    ["clerk", "EXPLAIN ANALYZE DELETE FROM hr.salaries WHERE amount > 900000"],
    ["clerk", "UPDATE public.pay_parent SET person = person::int::text"],
    ["clerk", "INSERT INTO notes SELECT 1, person FROM hr.salaries"],
  ],
};

for (const [name, variants] of Object.entries(attacks)) {
  it(name, async () => {
    const found: unknown[] = [];
    let before = await truth();
    for (const [who, ...texts] of variants) {
      const seen = await run(who, texts);
      const after = seen.tags.length === 0 ? before : await truth();
      const hasLeaked = seen.text.includes(secret);
      const hasChanged = JSON.stringify(after) !== JSON.stringify(before);
      if (hasLeaked || hasChanged || seen.codes.length === 0) {
        found.push({ who, texts, codes: seen.codes, tags: seen.tags, hasLeaked, hasChanged });
      }
      before = after;
    }
    expect(found).toEqual([]);
    expect(await truth()).toEqual(before);
  });
}

const parse = (name: string, sql: string | Uint8Array) => frame("P", name, "\0", sql, "\0\0\0");
const bind = (name: string, portal = "") => frame("B", portal, "\0", name, "\0", "\0\0\0\0\0\0");
const execute = (portal = "") => frame("E", portal, "\0", "\0\0\0\0");
const sync = frame("S");
const query = (sql: string | Uint8Array) => frame("Q", sql, "\0");

/** Sends everything in one write and reads up to the answer to the last Sync or Query, or to the end. */
async function burst(
  who: Who,
  frames: readonly Uint8Array[],
  answers = 1,
): Promise<Seen & { readonly types: string }> {
  const client = await logIn(who);
  client.send(...frames);
  const messages: ServerMessage[] = [];
  for (let count = 0; count < answers; count += 1) messages.push(...(await client.until("Z")));
  client.close();
  return { ...seenIn(messages), types: messages.map((message) => message.type).join("") };
}

describe("on the wire", () => {
  const unchanged = async (inside: () => Promise<void>) => {
    const before = await truth();
    await inside();
    expect(await truth()).toEqual(before);
  };

  it("E2: types that Parse names by number run no code that their names would not", () =>
    unchanged(async () => {
      const types = [
        "public.fine",
        "public.fine[]",
        "public.plain",
        "public.plain[]",
        "public.domain_user",
        "public.fine_range",
      ];
      const rows = await server.query(`SELECT t::regtype::oid::int AS oid FROM unnest($1::text[]) t`, [
        types,
      ]);
      const number = (value: number) => Buffer.from([value >>> 24, value >>> 16, value >>> 8, value]);
      // A type of a transaction that is not over, or of none.
      types.push("nothing");
      rows.push({ oid: 0x7fffffff });
      for (const [index, { oid }] of rows.entries()) {
        const value = ["x", "{x}", "x", "{x}", "(x)", "[x,y]"][index] ?? "";
        for (const text of ["SELECT $1::text", "SELECT $1 IS NULL", "SELECT lower($1::text)"]) {
          const typed = frame("P", "\0", text, "\0", "\0\x01", number(Number(oid)));
          const bound = frame("B", "\0\0", "\0\0", "\0\x01", number(value.length), value, "\0\0");
          const seen = await burst("reader", [typed, bound, execute(), sync]);
          const { codes } = seen;
          const isOpen = types[index]?.startsWith("public.plain");
          expect({ type: types[index], text, codes, leaks: seen.text.includes(secret) }).toEqual({
            ...{ type: types[index], text, codes: isOpen ? [] : ["42501"], leaks: false },
          });
        }
      }
    }));

  it("D2: start-up options change no setting that decides how SQL is read", () =>
    unchanged(async () => {
      const settings: Record<string, string>[] = [
        { standard_conforming_strings: "off" },
        { options: "-c standard_conforming_strings=off" },
        { options: "-cstandard_conforming_strings=off" },
        { options: "--standard-conforming-strings=off" },
        { options: "-c standard\\_conforming_strings=off" },
        { options: "-c Standard_Conforming_Strings=0" },
        { client_encoding: "SJIS" },
        { options: "-c client_encoding=GBK" },
        { options: "-c role=postgres" },
        { options: "-c session_authorization=postgres" },
        { role: "postgres" },
        { options: "-c session_preload_libraries=x" },
        { options: "-c backslash_quote=on" },
        { options: "-c transform_null_equals=on" },
        { replication: "database" },
      ];
      for (const parameters of settings) {
        const client = await WireClient.connect(gateway.port);
        await client.startTls(gateway.caPem);
        client.send(startup({ user: "shop", database: "shop", ...parameters }));
        client.send(password(gateway.issuer.token({ user: "reader" })));
        client.send(query("SELECT 'a\\'; SHOW role; DELETE FROM public.audit; -- '"));
        const messages = [...(await client.until("Z")), ...(await client.until("Z"))];
        client.close();
        const seen = seenIn(messages);
        expect({ parameters, codes: seen.codes }).not.toEqual({ parameters, codes: [] });
        expect({ parameters, tags: seen.tags }).toEqual({ parameters, tags: [] });
      }
    }));

  it("D3: a setting and what relies on it in one write", () =>
    unchanged(async () => {
      const payload = query("SELECT 'a\\'; DELETE FROM public.audit; -- '");
      for (const change of [
        "SET standard_conforming_strings = off",
        "SELECT set_config('standard_conforming_strings', 'off', false)",
        "SET client_encoding = 'SJIS'",
        "ALTER ROLE postgres SET standard_conforming_strings = off",
      ]) {
        for (const who of ["writer", "admin"] as const) {
          const seen = await burst(who, [query(change), payload], 2);
          expect({ change, codes: seen.codes.length > 0 }).toEqual({ change, codes: true });
        }
      }
      await burst(
        "reader",
        [query("SET search_path = hr"), query("TABLE salaries"), query("TABLE notes")],
        3,
      ).then((seen) => expect(seen.text).not.toContain(secret));
    }));

  it("D5: a database whose bytes have no encoding is not served", async () => {
    await server.query("CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
    const refused = await gateway.connect({ user: "reader" }, { database: "ascii" }).then(
      async (client) => {
        await client.end();
        return "served";
      },
      (error: { code?: string }) => error.code,
    );
    expect(refused).toBe("0A000");
    await server.query("DROP DATABASE ascii");
  });

  it("D6, D7: invalid UTF-8 and NUL bytes reach no parser", () =>
    unchanged(async () => {
      const texts = [
        Buffer.from("SELECT '\xff'; DELETE FROM public.audit", "latin1"),
        Buffer.from([0x53, 0x45, 0x4c, 0xed, 0xa0, 0x80]),
        Buffer.concat([
          Buffer.from("SELECT '"),
          Buffer.from([0xc0, 0xa7]),
          Buffer.from("; DELETE FROM public.audit"),
        ]),
        Buffer.concat([
          Buffer.from("SELECT '"),
          Buffer.from([0x95, 0x5c]),
          Buffer.from("'; DELETE FROM public.audit"),
        ]),
        Buffer.from("SELECT 1\0; DELETE FROM public.audit"),
      ];
      for (const text of texts) {
        for (const frames of [[query(text)], [parse("", text), bind(""), execute(), sync]]) {
          const seen = await burst("writer", frames);
          expect(["22021", "08P01"]).toContain(seen.codes[0]);
          expect(seen.tags).toEqual([]);
        }
      }
    }));

  it("a FunctionCall message calls nothing", () =>
    unchanged(async () => {
      // 2559 is lastval, 3036 pg_notify, 3810 pg_is_in_recovery; no arguments, text results.
      for (const oid of [2559, 3036, 3810]) {
        const body = Buffer.from([0, 0, oid >> 8, oid & 255, 0, 0, 0, 0, 0, 0]);
        for (const who of ["reader", "admin"] as const) {
          const seen = await burst(who, [frame("F", body)]);
          expect(seen.codes).toEqual(["42501"]);
          expect(seen.types).not.toContain("V");
        }
      }
    }));

  it("a pipeline cannot run one name's statement under another's verdict", () =>
    unchanged(async () => {
      const bad = "DELETE FROM public.audit";
      const harmless = "SELECT 1";
      const flights: Uint8Array[][] = [
        [parse("p", harmless), parse("p", bad), bind("p"), execute(), sync],
        [parse("p", bad), bind("p"), execute(), sync],
        [parse("p", harmless), frame("C", "Sp\0"), parse("p", bad), bind("p"), execute(), sync],
        [parse("p", harmless), sync, parse("p", bad), sync, bind("p"), execute(), sync],
        [parse("", harmless), parse("", bad), bind(""), execute(), sync],
        [parse("", harmless), bind("", "c"), parse("", bad), bind("", "c"), execute("c"), sync],
        // What is refused when it runs, and prepared until then.
        [parse("p", "DROP TABLE public.audit"), sync, query("EXECUTE p")],
        [parse("p", "DROP TABLE public.audit"), bind("p", "c"), sync, query("BEGIN; FETCH ALL c; COMMIT")],
        [parse("", "DROP TABLE public.audit"), bind("", "c"), parse("", harmless), execute("c"), sync],
        [
          parse("p", "DROP TABLE public.audit"),
          frame("C", "Sp\0"),
          parse("p", bad),
          bind("p"),
          execute(),
          sync,
        ],
        [
          parse("p", "DROP TABLE public.audit"),
          parse("q", harmless),
          bind("q", "c"),
          bind("p", "d"),
          frame("C", "Sp\0"),
          execute("d"),
          sync,
        ],
        [
          query(`PREPARE p AS ${harmless}`),
          query("DEALLOCATE p"),
          query(`PREPARE p AS ${bad}`),
          query("EXECUTE p"),
        ],
        [query(`PREPARE p AS ${harmless}; DEALLOCATE p; PREPARE p AS ${bad}`), bind("p"), execute(), sync],
        [
          query("BEGIN"),
          query(`DECLARE c CURSOR FOR TABLE hr.salaries`),
          query("FETCH ALL c"),
          query("ROLLBACK"),
        ],
        [
          query("BEGIN"),
          query("DECLARE c CURSOR FOR SELECT 1"),
          query("CLOSE c"),
          query("DECLARE c CURSOR FOR TABLE hr.salaries"),
          execute("c"),
          sync,
        ],
        [
          parse("p", "SELECT note FROM notes"),
          sync,
          query("SET search_path = hr"),
          bind("p"),
          execute(),
          sync,
        ],
        [
          parse("p", "SELECT note FROM notes"),
          parse("s", "SET search_path = hr"),
          bind("s"),
          execute(),
          bind("p"),
          execute(),
          sync,
        ],
        [parse("p", "SELECT note FROM notes"), sync, query("SET search_path = hr"), query("EXECUTE p")],
      ];
      for (const frames of flights) {
        const ends = frames.filter((each) => each[0] === 0x53 || each[0] === 0x51).length;
        const seen = await burst("reader", frames, ends);
        expect(seen.text).not.toContain(secret);
        expect(seen.codes.length).toBeGreaterThan(0);
        expect(seen.tags.filter((tag) => /^(DELETE|FETCH [1-9])/.test(tag))).toEqual([]);
      }
    }));

  it("texts of one shape are not taken for one another", () =>
    unchanged(async () => {
      const pairs: [Who, string, string][] = [
        [
          "writer",
          "DELETE FROM customers WHERE id = 999 OR 1 = 0",
          "DELETE FROM customers WHERE id = 999 OR 1 = 1",
        ],
        ["writer", "DELETE FROM customers WHERE 'a' = 'b'", "DELETE FROM customers WHERE 'a' = 'a'"],
        [
          "writer",
          "DELETE FROM customers WHERE name LIKE 'none'",
          "DELETE FROM customers WHERE name LIKE '%'",
        ],
        [
          "writer",
          "DELETE FROM customers WHERE id > 999 AND 1 < 0",
          "DELETE FROM customers WHERE id > 0 OR 0 < 1",
        ],
        [
          "reader",
          "SELECT query_to_xml('SELECT 1', true, true, '')",
          "SELECT query_to_xml('TABLE hr.salaries', true, true, '')",
        ],
        [
          "reader",
          "SELECT table_to_xml('public.notes', true, true, '')",
          "SELECT table_to_xml('hr.notes', true, true, '')",
        ],
        [
          "reader",
          "SELECT set_config('work_mem', '4MB', false)",
          "SELECT set_config('role', 'pg_monitor', false)",
        ],
        ["reader", "SELECT 1 -- x\n", "SELECT 1 -- x\n; DELETE FROM audit"],
        ["reader", "SELECT $a$x$a$", "SELECT $a$x$a$; DELETE FROM audit"],
        ["reader", "SELECT 'x' /* y */", "SELECT 'x' /* y */; DELETE FROM audit"],
        ["reader", "SELECT 'x', 'y'", "SELECT 'x', 'y' FROM hr.salaries"],
        [
          "reader",
          "SELECT name FROM customers WHERE name = 'a'",
          "SELECT name FROM customers WHERE name = 'a' OR EXISTS (SELECT FROM hr.salaries)",
        ],
      ];
      for (const [who, first, second] of pairs) {
        const seen = await run(who, [`BEGIN; ${first}; ROLLBACK`, first, second]);
        expect(seen.text).not.toContain(secret);
        expect({ second, codes: seen.codes.length }).toEqual({ second, codes: expect.any(Number) });
        expect({ second, last: seen.codes.at(-1) ?? "ran" }).not.toEqual({ second, last: "ran" });
      }
    }));

  it("the account behind the gateway stays behind it", async () => {
    for (const who of ["reader", "writer", "job"] as const) {
      const seen = await run(who, [
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('global/pg_authid')",
        "SELECT current_setting('nothing')",
        "COPY pg_authid TO STDOUT",
        "SELECT 1/0",
      ]);
      expect(seen.text).not.toContain("SCRAM-SHA-256$");
      expect(seen.text).not.toContain(server.password);
    }
    expect(gateway.logs()).not.toContain(server.password);
  });

  it("the recording shows what ran, whatever a text holds", async () => {
    const texts = [
      "SELECT 'recorded-one' -- \u202e",
      "SELECT\n'recorded-two'\r\n",
      "/* ' */ SELECT $x$recorded-three$x$",
    ];
    await run("reader", [...texts, "SELECT 1"]);
    const client = await logIn("reader");
    client.send(parse("", "SELECT 'recorded-four'"), bind(""), execute(), sync);
    await client.until("Z");
    client.close();
    await expect
      .poll(recorded, { timeout: 10_000 })
      .toMatch(/recorded-one[\s\S]*recorded-two[\s\S]*recorded-three/);
    await expect.poll(recorded, { timeout: 10_000 }).toContain("recorded-four");
  });

  it("after all of this the closed table has never been read or written", async () => {
    for (const client of kept.values()) client.close();
    kept.clear();
    await expect
      .poll(
        async () =>
          (
            await server.query(
              "SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name LIKE 'local:%'",
            )
          )[0]?.n,
        { timeout: 10_000 },
      )
      .toBe(0);
    expect(await scans()).toEqual(scansBefore);
  });
});

async function recorded(): Promise<string> {
  const names = await readdir(gateway.recordingDir, { recursive: true, withFileTypes: true });
  const files = names.filter((entry) => entry.isFile());
  const texts = await Promise.all(files.map((entry) => readFile(join(entry.parentPath, entry.name), "utf8")));
  return texts.join("\n");
}
