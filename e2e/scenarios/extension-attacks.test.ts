/**
 * Extensions in an attacker's hands: what a database has installed beside the server's own lets nobody read what rules and
 * masks close, nor reach files, programs and other servers; and what they are installed for goes on working.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { query, type ServerMessage } from "../targets/wire-client.ts";

let server: PostgresServer;
let gateway: Gateway;

const extensions =
  `amcheck autoinc bloom btree_gin btree_gist citext cube dblink dict_int earthdistance file_fdw fuzzystrmatch
  hstore insert_username intagg intarray isn lo ltree moddatetime pageinspect pg_buffercache pg_freespacemap pg_prewarm
  pg_stat_statements pg_surgery pg_trgm pg_visibility pgcrypto pgrowlocks pgstattuple postgres_fdw refint seg sslinfo
  tablefunc tcn tsm_system_rows unaccent uuid-ossp xml2`.split(/\s+/);

const secret = "Quetzalcoatlus";
const schema = ({ port, password, dataDir }: PostgresServer) => `
CREATE SCHEMA hr;
CREATE TABLE hr.salaries (id int PRIMARY KEY, note text);
INSERT INTO hr.salaries VALUES (1, '${secret} closed');
CREATE TABLE people (id int PRIMARY KEY, name text, ssn text, pay int, nick citext, tags hstore, path ltree, ids int[],
  spot point, size cube, book isbn13, span seg, changed timestamp, by text);
INSERT INTO people VALUES (1, 'Ann', '${secret} masked', 40, 'Annie', 'a=>1', 'top.left', '{1,2}', '(1,2)', '(1,2)',
  '978-3-16-148410-0', '1..2');
CREATE TABLE notes (id int PRIMARY KEY, note text, changed timestamp, by text);
INSERT INTO notes VALUES (1, 'plain');
CREATE TRIGGER changed BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION moddatetime(changed);
CREATE TRIGGER changed_by BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION insert_username(by);
CREATE TABLE told (ssn text PRIMARY KEY, note text);
INSERT INTO told VALUES ('${secret} told', 'x');
CREATE TRIGGER told AFTER UPDATE ON told FOR EACH ROW EXECUTE FUNCTION triggered_change_notification();
CREATE TABLE rooms (room int, during tsrange, EXCLUDE USING gist (room WITH =, during WITH &&));
CREATE INDEX ON people USING gin (name gin_trgm_ops);
CREATE INDEX ON people USING bloom (ssn, name);
CREATE INDEX people_ssn ON people (ssn);
CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '${port}', dbname 'shop');
CREATE USER MAPPING FOR PUBLIC SERVER here OPTIONS (user 'postgres', password '${password}');
CREATE SCHEMA far;
CREATE FOREIGN TABLE far.notes (id int, note text) SERVER here OPTIONS (schema_name 'public');
CREATE FOREIGN TABLE far.people_elsewhere (id int, name text) SERVER here OPTIONS (schema_name 'public', table_name 'people');
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE far.version (line text) SERVER files OPTIONS (filename 'PG_VERSION');
CREATE FOREIGN TABLE far.people_here (id int, ssn text) SERVER here OPTIONS (schema_name 'public', table_name 'people');
COPY people (name, ssn) TO '${dataDir}/people.csv' CSV;
CREATE FOREIGN TABLE far.people_filed (id int, ssn text) SERVER files OPTIONS (filename 'people.csv', format 'csv');
CREATE TABLE far.parts (id int, note text) PARTITION BY RANGE (id);
CREATE FOREIGN TABLE far.part PARTITION OF far.parts FOR VALUES FROM (0) TO (9) SERVER here
  OPTIONS (schema_name 'public', table_name 'notes');
CREATE VIEW asked AS SELECT * FROM dblink('dbname=shop', 'SELECT note FROM hr.salaries') AS x (note text);
CREATE TEXT SEARCH DICTIONARY numbers (TEMPLATE = intdict_template);
`;

const smallSchema = `
CREATE EXTENSION citext; CREATE EXTENSION hstore;
CREATE TABLE people (id int PRIMARY KEY, name text, ssn text, pay int, nick citext, tags hstore);
INSERT INTO people VALUES (1, 'Ann', '${secret} masked', 40, 'Annie', 'a=>1');
`;

const maskedColumns =
  "public.people.ssn, public.people.pay, public.told.ssn, far.people_here.ssn, far.people_filed.ssn";
const masks = `  masking: [{columns: [${maskedColumns}], with: Redact}]`;
const closed = `  rules: [{name: closed, match: {objects: ["hr.*"]}, action: Deny}]`;
const policies = [
  policyDocument("shop", "reader", `  profile: ReadOnly\n${closed}`),
  policyDocument("shop", "writer", `  profile: ReadWrite\n${closed}`),
  policyDocument("shop", "developer", `  profile: ReadWrite\n${closed}`),
  policyDocument("shop", "developer", "  profile: SchemaOnly", "developer-schema"),
  policyDocument("shop", "strict", `  profile: Admin\n${masks}`),
  policyDocument("shop", "loose", `  profile: Admin\n${masks}\n  inference: Allow`),
  policyDocument("shop", "masked", `  profile: ReadOnly\n${masks}`),
].join("");

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    database: "shop",
    settings: { shared_preload_libraries: "pg_stat_statements" },
  });
  for (const name of extensions) await server.query(`CREATE EXTENSION "${name}"`);
  await server.query(schema(server));
  await server.query("CREATE DATABASE small");
  await server.query(smallSchema, [], "small");
  gateway = await startGateway({ server, policies });
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

/** What each statement comes to, alone in its session; fails where an answer holds a secret. */
async function outcomes(
  user: string,
  statements: readonly string[],
  database = "shop",
): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  const client = await gateway.connectWire({ user }, database);
  for (const sql of statements) {
    client.send(query(sql));
    const messages = await client.until("Z");
    expect(Buffer.concat(messages.map(({ body }) => body)).toString("latin1"), sql).not.toContain(secret);
    found[sql] = outcomeOf(messages);
  }
  client.close();
  return found;
}

function outcomeOf(messages: readonly ServerMessage[]): string {
  const error = messages.find(({ type }) => type === "E");
  return error === undefined ? "passed" : `${error.fields.C}`;
}

const all = (statements: readonly string[], outcome: string) =>
  Object.fromEntries(statements.map((sql) => [sql, outcome]));

/** Each makes rows of a foreign table come from somewhere else. */
const redirections = [
  "ALTER FOREIGN TABLE far.notes OPTIONS (SET schema_name 'hr', ADD table_name 'salaries')",
  "ALTER TABLE far.notes OPTIONS (SET schema_name 'hr', ADD table_name 'salaries')",
  "ALTER FOREIGN TABLE IF EXISTS far.people_elsewhere ALTER name OPTIONS (ADD column_name 'ssn')",
  "ALTER FOREIGN TABLE far.people_elsewhere ADD COLUMN ssn text",
  "ALTER TABLE far.people_elsewhere RENAME name TO ssn",
  "ALTER FOREIGN TABLE far.notes RENAME TO told",
  "ALTER TABLE far.notes RENAME TO told",
  "ALTER FOREIGN TABLE far.notes SET SCHEMA public",
  "ALTER TABLE far.parts ADD COLUMN by text",
  "ALTER TABLE far.parts RENAME note TO by",
  "ALTER SCHEMA far RENAME TO away",
  "ALTER FOREIGN TABLE far.version OPTIONS (SET filename '/etc/passwd')",
  "ALTER FOREIGN TABLE far.version OPTIONS (DROP filename, ADD program 'id')",
];

test("whoever changes the schema leads no foreign table to another table, file or program", async () => {
  expect(await outcomes("developer", redirections)).toEqual(all(redirections, "42501"));
});

test("nor does anybody to whom something is masked", async () => {
  const inBlock = `DO $$ BEGIN ${redirections[0]}; END $$`;
  const tried = [...redirections, inBlock];
  expect(await outcomes("strict", tried)).toEqual(all(tried, "42501"));
});

test("changes of foreign tables that leave their rows where they come from are changes of the schema", async () => {
  const changes = [
    "ALTER FOREIGN TABLE far.notes ALTER note SET DEFAULT 'x'",
    "ALTER FOREIGN TABLE far.people_elsewhere ALTER name SET NOT NULL",
    "ALTER TABLE notes ADD COLUMN more text",
    "ALTER TABLE notes RENAME more TO less",
    "COMMENT ON FOREIGN TABLE far.notes IS 'x'",
  ];
  expect(await outcomes("developer", changes)).toEqual(all(changes, "passed"));
});

test("what of extensions runs a text, reads tables by name, pages, files or others' statements is closed to reader and writer", async () => {
  const tried = [
    "SELECT * FROM asked",
    "SELECT dblink_exec('dbname=shop', 'DELETE FROM notes')",
    "SELECT dblink_build_sql_insert('hr.salaries', '1', 1, '{1}', '{2}')",
    "SELECT * FROM connectby('hr.salaries', 'note', 'id', '1', 1) AS t (a text, b int, level int)",
    "SELECT * FROM xpath_table('id', 'note', 'hr.salaries', '/', 'true') AS t (a int, b text)",
    "SELECT xslt_process('<a/>', '<b/>')",
    "SELECT heap_page_items(get_raw_page('hr.salaries', 0))",
    "SELECT * FROM bt_page_items('hr.salaries_pkey', 1)",
    "SELECT * FROM pgrowlocks('hr.salaries')",
    "SELECT * FROM verify_heapam('hr.salaries')",
    "SELECT pg_prewarm('hr.salaries')",
    "SELECT heap_force_kill('notes', ARRAY['(0,1)']::tid[])",
    "SELECT * FROM pg_stat_statements",
    "SELECT query FROM pg_stat_statements(true)",
    "SELECT isn_weak(true)",
    "IMPORT FOREIGN SCHEMA hr FROM SERVER here INTO far",
    "ALTER SERVER here OPTIONS (SET dbname 'postgres')",
  ];
  for (const user of ["reader", "writer"])
    expect(await outcomes(user, tried), user).toEqual(all(tried, "42501"));
});

test("who has masks is shown no masked value by what extensions read, compute or compare, whatever the profile", async () => {
  const unfollowed = [
    "SELECT heap_page_items(get_raw_page('people', 0))",
    "SELECT * FROM bt_page_items('people_ssn', 1)",
    "SELECT query FROM pg_stat_statements",
    "SELECT dblink_build_sql_insert('people', '1', 1, '{1}', '{2}')",
    "SELECT * FROM crosstab('SELECT id, name, ssn FROM people') AS x (a int, b text)",
    "SELECT * FROM connectby('people', 'ssn', 'id', '1', 1) AS t (a text, b int, level int)",
    "SELECT * FROM xpath_table('id', 'ssn', 'people', '/', 'true') AS t (a int, b text)",
    "CREATE FUNCTION raw(text, int) RETURNS bytea LANGUAGE c AS '$libdir/pageinspect', 'get_raw_page'",
    "ALTER FUNCTION get_raw_page(text, bigint) RENAME TO raw",
    "ALTER FUNCTION ltree_addtext(ltree, text) RENAME TO hs_concat",
  ];
  for (const user of ["strict", "loose"])
    expect(await outcomes(user, unfollowed), user).toEqual(all(unfollowed, "42501"));
  const computed = [
    "SELECT hstore(people) FROM people",
    "SELECT people.hstore FROM people",
    "SELECT (each(hstore(p))).value FROM people p",
    "SELECT unaccent('unaccent', ssn) FROM people",
    "SELECT name FROM people WHERE ssn % 'Quetzal'",
    "SELECT name FROM people ORDER BY ssn <-> 'Quetzal'",
    "SELECT levenshtein(ssn, 'Quetzal'), soundex(ssn), digest(ssn, 'sha256'), crypt(ssn, 'ab') FROM people",
    "SELECT ssn::citext FROM people",
    "SELECT int_array_enum(ARRAY[pay]) FROM people",
  ];
  expect(await outcomes("strict", computed)).toEqual(all(computed, "42501"));
  const failing = ["SELECT ssn::isbn13 FROM people", "SELECT text2ltree(ssn) FROM people"];
  expect(await outcomes("strict", failing)).toEqual(all(failing, "42501"));
  for (const outcome of Object.values(await outcomes("loose", failing))) expect(outcome).toMatch(/^(22|42)/);
  await outcomes("loose", computed);
});

test("a trigger that tells everybody of the keys tells nobody of masked ones by the own statement", async () => {
  const told = ["LISTEN tcn", "UPDATE told SET note = 'y'", "SELECT 1"];
  expect(await outcomes("strict", told)).toMatchObject({ "UPDATE told SET note = 'y'": "42501" });
});

test("a masked column of a foreign table is hidden as any other, also where the server quotes the line that it read", async () => {
  const shown = ["SELECT ssn FROM far.people_here", "SELECT p, to_json(p) FROM far.people_here p"];
  const told = [
    "SELECT id FROM far.people_here WHERE ssn > 'Q'",
    "CREATE TABLE kept AS TABLE far.people_here",
  ];
  const failing = ["SELECT id FROM far.people_filed", "COPY (SELECT id FROM far.people_filed) TO STDOUT"];
  expect(await outcomes("strict", [...shown, ...told, ...failing])).toEqual({
    ...all(shown, "passed"),
    ...all(told, "42501"),
    ...all(failing, "22P02"),
  });
});

test("a function that nobody reviewed is not taken for another by another name", async () => {
  const renamed = [
    "ALTER FUNCTION populate_record(anyelement, hstore) RENAME TO filled",
    "SELECT filled(NULL::notes, 'note=>x')",
  ];
  expect(Object.values(await outcomes("developer", renamed))).toEqual(["passed", "42501"]);
});

test("beside citext and hstore a masked column is shown, joined to texts and aggregated as without them", async () => {
  const shown = [
    "SELECT max(ssn), min(pay), avg(pay), count(ssn) FROM people",
    "SELECT name || ' ' || ssn FROM people",
    "SELECT to_jsonb(people) -> 'ssn' FROM people",
    "SELECT max(nick), min(nick) FROM people GROUP BY nick",
    "SELECT pg_catalog.split_part(ssn, ' ', 1), concat(name, ssn) FROM people",
  ];
  expect(await outcomes("strict", shown, "small")).toEqual(all(shown, "passed"));
  // A text that is no label makes the operator of ltree fail.
  expect(await outcomes("strict", ["SELECT path || ssn FROM people"])).toEqual({
    "SELECT path || ssn FROM people": "42501",
  });
});

test("what extensions are installed for works for reader and writer", async () => {
  const reads = [
    "SELECT nick, count(*), max(nick) FROM people WHERE nick = 'ANNIE' GROUP BY nick",
    "SELECT replace(nick, 'a', 'b'), regexp_match(nick, 'an'), split_part(nick, 'n', 1) FROM people",
    "SELECT tags -> 'a', akeys(tags), tags::json FROM people WHERE tags ? 'a'",
    "SELECT nlevel(path), path || 'x' FROM people WHERE path <@ 'top' AND path ~ 'top.*'::lquery",
    "SELECT sort(ids), ids & '{1}' FROM people WHERE ids && '{1}' AND ids @@ '1|3'::query_int",
    "SELECT similarity(name, 'An') FROM people WHERE name % 'Ann' ORDER BY name <-> 'An'",
    "SELECT unaccent(name), soundex(name), levenshtein(name, 'x') FROM people",
    "SELECT size <-> '(3,4)'::cube, book, span FROM people WHERE span && '0..9' AND is_valid(book)",
    "SELECT earth_distance(ll_to_earth(1, 2), ll_to_earth(3, 4)), spot <@> '(0,0)' FROM people",
    "SELECT name FROM people TABLESAMPLE system_rows(1)",
    "SELECT room FROM rooms ORDER BY room <-> 3",
    "SELECT to_tsvector('simple', name), ts_lexize('numbers', '12') FROM people",
    "SELECT note FROM far.notes JOIN far.people_elsewhere USING (id)",
    "SELECT line FROM far.version",
    "SELECT * FROM far.parts",
  ];
  for (const user of ["reader", "writer"])
    expect(await outcomes(user, reads), user).toEqual(all(reads, "passed"));
  const writes = [
    "UPDATE notes SET note = 'changed' WHERE id = 1",
    "UPDATE far.notes SET note = 'from afar' WHERE id = 1",
    "INSERT INTO far.notes VALUES (2, 'new')",
    "INSERT INTO rooms VALUES (1, '[2026-01-01,2026-01-02)')",
    "INSERT INTO people (id, name, book) VALUES (2, 'Bob', '978-0-11-000222-4')",
  ];
  expect(await outcomes("writer", writes)).toEqual(all(writes, "passed"));
});
