/** Statements that try to get at masked values: a grammar for fast-check, and a corpus of tricks that people know. */
import fc from "fast-check";
import { versionsUnderTest } from "../targets/postgres.ts";
import { catalogTricks, youngTricks } from "./masked-tricks.ts";

/** Columns that are computed as they are read began with 18. */
const generated = (versionsUnderTest[0] ?? 18) >= 18 ? "VIRTUAL" : "STORED";

/** What the database of the leak oracle holds; `canary` gives a value that occurs nowhere else. */
export function schemaSql(canary: (kind: "text" | "number") => string): string {
  const q = () => `'${canary("text")}'`;
  const listed = q();
  const rows = (count: number, row: (n: number) => string) =>
    Array.from({ length: count }, (_, index) => row(index + 1)).join(", ");
  return `
    CREATE TYPE place AS (street text, city text);
    CREATE DOMAIN secret AS text CHECK (length(VALUE) > 3);
    CREATE DOMAIN held AS text CHECK (length(VALUE) > 3);
    CREATE DOMAIN labels AS text[];
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE TYPE person AS (called held, "n o" bigint, at place, known labels, doc jsonb, how mood);
    CREATE TABLE cust (id int PRIMARY KEY, name text, ssn text, email text, big bigint, tags text[], doc jsonb,
      home place, dom secret, raw bytea, boss person, places place[], doms held[], labelled labels, span int8range, spans int8multirange,
      loud text GENERATED ALWAYS AS (upper(email)) STORED);
    INSERT INTO cust (id, name, ssn, email, big, tags, doc, home, dom, raw, boss, places, doms, labelled, span, spans) VALUES ${rows(
      6,
      (n) => `(${n}, 'name ${n}', ${q()}, ${q()}, ${canary("number")}, ARRAY[${q()}, ${q()}],
        jsonb_build_object('k', ${q()}, 'list', jsonb_build_array(${q()})), ROW(${q()}, ${q()}), ${q()},
        ${q()}::bytea, ROW('a "b"' || ${q()}, ${canary("number")}, ROW('(,\\' || ${q()}, NULL), ARRAY[${q()}],
          jsonb_build_object('k', ${q()}), 'bad'), ARRAY[ROW(${q()}, ${q()})::place], ARRAY[${q()}], ARRAY[${q()}],
        int8range(${canary("number")}, NULL), int8multirange(int8range(${canary("number")}, NULL)))`,
    )};
    CREATE UNIQUE INDEX one_email ON cust (email);
    ALTER TABLE cust ADD CONSTRAINT long_ssn CHECK (length(ssn) > 3);
    CREATE TABLE ord (id int PRIMARY KEY, cust int REFERENCES cust DEFERRABLE INITIALLY DEFERRED, item text, total int);
    INSERT INTO ord SELECT n, 1 + n % 6, 'item ' || n, n * 10 FROM generate_series(1, 12) n;
    CREATE TABLE base (id int, code text);
    CREATE TABLE derived (extra text) INHERITS (base);
    INSERT INTO derived VALUES (1, ${q()}, 'x'), (2, ${q()}, 'y');
    CREATE TABLE part (id int, code text) PARTITION BY RANGE (id);
    CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (100);
    INSERT INTO part VALUES (1, ${q()}), (2, ${q()});
    CREATE VIEW v AS SELECT id, ssn AS s, name, email FROM cust;
    CREATE VIEW vv AS SELECT v.s || '' AS t, v.id, c.home FROM v JOIN cust c USING (id);
    CREATE MATERIALIZED VIEW mv AS SELECT id, ssn, upper(email) AS e FROM cust;
    CREATE FUNCTION all_cust() RETURNS SETOF cust LANGUAGE sql AS 'SELECT * FROM cust';
    CREATE FUNCTION ssn_of(i int) RETURNS text LANGUAGE sql STABLE AS 'SELECT ssn FROM public.cust WHERE id = i';
    CREATE FUNCTION shout(t text) RETURNS text LANGUAGE plpgsql AS
      $f$BEGIN RAISE NOTICE 'got %', t; RETURN t || '!'; END$f$;
    CREATE FUNCTION told(i int) RETURNS int LANGUAGE plpgsql AS
      $f$DECLARE s text; BEGIN SELECT ssn INTO s FROM public.cust WHERE id = i; RAISE EXCEPTION 'it is %', s; END$f$;
    CREATE FUNCTION ran(q text) RETURNS text LANGUAGE plpgsql AS
      $f$DECLARE s text; BEGIN EXECUTE q INTO s; RETURN s; END$f$;
    CREATE FUNCTION opened() RETURNS refcursor LANGUAGE plpgsql AS
      $f$DECLARE c refcursor := 'opened'; BEGIN OPEN c FOR SELECT ssn FROM public.cust; RETURN c; END$f$;
    CREATE FUNCTION told_row() RETURNS trigger LANGUAGE plpgsql AS
      $f$BEGIN RAISE NOTICE 'row %', OLD; RETURN NEW; END$f$;
    CREATE SCHEMA other;
    CREATE TABLE other.cust (id int, ssn text);
    INSERT INTO other.cust VALUES (1, 'open');
    CREATE TABLE stash (v text);
    CREATE TYPE wrap AS (v text);
    CREATE FUNCTION keep_row(c cust) RETURNS wrap LANGUAGE plpgsql AS
      $f$BEGIN INSERT INTO public.stash VALUES (c.ssn); RETURN ROW('x')::wrap; END$f$;
    CREATE CAST (cust AS wrap) WITH FUNCTION keep_row(cust);
    CREATE FUNCTION kept(t text) RETURNS boolean LANGUAGE plpgsql AS
      $f$BEGIN INSERT INTO public.stash VALUES (t); RETURN true; END$f$;
    CREATE DOMAIN keeper AS text CHECK (kept(VALUE));
    CREATE FUNCTION by_default(a text DEFAULT ssn_of(1)) RETURNS text LANGUAGE sql AS 'SELECT a';
    CREATE FUNCTION by_sign(a int, b int) RETURNS text LANGUAGE sql STABLE AS
      'SELECT ssn FROM public.cust WHERE id = a';
    CREATE OPERATOR @@@ (LEFTARG = int, RIGHTARG = int, FUNCTION = by_sign);
    CREATE FUNCTION of_order(o ord) RETURNS text LANGUAGE sql STABLE AS
      'SELECT ssn FROM public.cust WHERE id = o.cust';
    CREATE FUNCTION to_wrap(i int) RETURNS wrap LANGUAGE sql AS 'SELECT ROW(ssn)::wrap FROM public.cust WHERE id = i';
    CREATE CAST (int AS wrap) WITH FUNCTION to_wrap(int);
    CREATE FUNCTION adds(s text, i int) RETURNS text LANGUAGE sql AS
      $f$SELECT COALESCE(s, '') || (SELECT ssn FROM public.cust WHERE id = i)$f$;
    CREATE AGGREGATE told_all(int) (SFUNC = adds, STYPE = text);
    CREATE FUNCTION xmin(x v) RETURNS text LANGUAGE sql STABLE AS 'SELECT (x).s';
    CREATE FUNCTION by_loop() RETURNS SETOF text LANGUAGE plpgsql STABLE AS
      $f$DECLARE r record; BEGIN FOR r IN SELECT * FROM public.cust LOOP RETURN NEXT r.email; END LOOP; END$f$;
    CREATE FUNCTION both_of(i int) RETURNS TABLE (who text, what text) LANGUAGE sql STABLE SET search_path = public AS
      'SELECT name, ssn FROM cust WHERE id = i';
    CREATE TABLE fired (id int, note text);
    CREATE FUNCTION fills() RETURNS trigger LANGUAGE plpgsql AS
      $f$BEGIN NEW.note := (SELECT ssn FROM public.cust WHERE id = 1); RETURN NEW; END$f$;
    CREATE TRIGGER fills BEFORE INSERT ON fired FOR EACH ROW EXECUTE FUNCTION fills();
    CREATE TABLE filled (id int, note text DEFAULT ssn_of(1));
    CREATE TRIGGER told_row BEFORE UPDATE ON cust FOR EACH ROW EXECUTE FUNCTION told_row();
    CREATE FUNCTION as_const(i int) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ssn FROM public.cust WHERE id = i';
    CREATE FUNCTION names_it(t text) RETURNS text LANGUAGE plpgsql AS
      $f$BEGIN RAISE EXCEPTION 'no' USING CONSTRAINT = t, TABLE = t; END$f$;
    CREATE FUNCTION by_while(i int) RETURNS text LANGUAGE plpgsql STABLE AS
      $f$DECLARE n int := 0; s text; BEGIN WHILE n < i LOOP n := n + 1; CASE n WHEN 1 THEN NULL; ELSE RAISE NOTICE 'at %', i; END CASE;
        SELECT ssn INTO s FROM public.cust WHERE id = n; END LOOP; RETURN s; END$f$;
    CREATE FUNCTION by_keeper(i int) RETURNS text LANGUAGE plpgsql STABLE AS
      $f$DECLARE s keeper; BEGIN SELECT ssn INTO s FROM public.cust WHERE id = i; RETURN 'x'; END$f$;
    CREATE TYPE keepers AS (k keeper);
    CREATE FUNCTION lazy(i int) RETURNS text LANGUAGE plpgsql STABLE AS
      $f$DECLARE s text; BEGIN SELECT ssn INTO s FROM cust WHERE id = i; RETURN s; END$f$;
    CREATE FUNCTION lazy_sql(i int) RETURNS text LANGUAGE sql STABLE AS 'SELECT ssn FROM cust WHERE id = i';
    ALTER TABLE cust ADD COLUMN later text DEFAULT ${q()};
    ALTER TABLE cust ADD COLUMN virtual text GENERATED ALWAYS AS (upper(ssn)) ${generated};
    ALTER TABLE cust ADD COLUMN amount bigint DEFAULT ${canary("number")};
    ALTER TABLE cust ADD CONSTRAINT not_later CHECK (later <> ${q()});
    CREATE INDEX one_later ON cust (id) WHERE later = ${q()};
    CREATE INDEX by_later ON cust ((later || ${q()}));
    CREATE TABLE lists (id int, code text) PARTITION BY LIST (code);
    CREATE TABLE lists_a PARTITION OF lists FOR VALUES IN (${listed});
    CREATE TABLE lists_b PARTITION OF lists FOR VALUES IN (${q()});
    CREATE TABLE lists_rest PARTITION OF lists DEFAULT;
    INSERT INTO lists VALUES (1, ${listed}), (2, ${q()});
    CREATE FUNCTION prints_bound(i oid) RETURNS text LANGUAGE sql STABLE AS
      'SELECT pg_get_partition_constraintdef(i)';
    CREATE FUNCTION prints_default() RETURNS SETOF text LANGUAGE sql STABLE AS
      'SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef';
    CREATE VIEW printed AS SELECT conname, pg_get_constraintdef(oid) AS says, reverse(pg_get_constraintdef(oid)) AS back
      FROM pg_constraint;
    ANALYZE;`;
}

/** The columns that hold canaries. */
export const maskedColumns = [
  ..."ssn email big tags doc home dom raw boss places doms labelled later span spans amount"
    .split(" ")
    .map((name) => `public.cust.${name}`),
  "public.base.code",
  "public.part.code",
  "public.mv.ssn",
  "public.lists.code",
];

/** What people try first. */
export const tricks: readonly string[] = [
  "SELECT ssn FROM cust",
  "SELECT * FROM cust",
  "SELECT c.* FROM cust c",
  "TABLE cust",
  "SELECT c FROM cust c",
  "SELECT c::text FROM cust c",
  "SELECT (c).ssn FROM cust c",
  "SELECT (c.home).street FROM cust c",
  "SELECT (c.home).* FROM cust c",
  "SELECT home, boss, places, doms, labelled FROM cust",
  "SELECT (boss).called, (boss).at, ((boss).at).street, (boss).known, (boss).doc FROM cust",
  "SELECT (boss).*, (boss).at FROM cust",
  "SELECT boss::text, home::text::place, (boss).at::text FROM cust",
  "SELECT COALESCE(boss, boss), ARRAY[home], ROW(home, boss) FROM cust",
  "SELECT x.* FROM cust, unnest(places) x",
  "SELECT places[1], (places[1]).city, doms[1], labelled[1:1] FROM cust",
  "SELECT b.called FROM (SELECT (boss).* FROM cust) b",
  "SELECT to_jsonb(boss), jsonb_populate_record(NULL::place, to_jsonb(home)) FROM cust",
  "SELECT home = ROW('a', 'b')::place, home IS NULL, (home).city IS NULL FROM cust",
  "UPDATE cust SET home.city = (home).street WHERE id = 1 RETURNING home",
  "UPDATE cust SET name = 'x' WHERE id = 1 RETURNING boss, places, old.home, new.boss",
  "ALTER TYPE place RENAME ATTRIBUTE street TO road; SELECT home, (home).road FROM cust",
  "ALTER TYPE place ADD ATTRIBUTE more text; SELECT home, boss FROM cust",
  "ALTER TYPE place DROP ATTRIBUTE street; SELECT home, boss FROM cust",
  "CREATE TYPE place2 AS (street text, city text); SELECT home::text::place2 FROM cust",
  "SELECT (SELECT c).* FROM cust c",
  "SELECT row_to_json(c) FROM cust c",
  "SELECT to_jsonb(c) ->> 'ssn' FROM cust c",
  "SELECT jsonb_path_query(to_jsonb(c), '$.ssn') FROM cust c",
  "SELECT jsonb_each(to_jsonb(c)) FROM cust c",
  "SELECT k.* FROM cust c, jsonb_each_text(to_jsonb(c)) k",
  "SELECT json_agg(c) FROM cust c",
  "SELECT json_object_agg(id, ssn) FROM cust",
  "SELECT string_agg(ssn, ',') FROM cust",
  "SELECT array_agg(ssn) FROM cust",
  "SELECT unnest(array_agg(ssn)) FROM cust",
  "SELECT xmlforest(ssn) FROM cust",
  "SELECT xmlelement(name x, ssn) FROM cust",
  "SELECT query_to_xml('SELECT ssn FROM cust', true, false, '')",
  "SELECT table_to_xml('cust', true, false, '')",
  "SELECT max(ssn) FROM cust",
  "SELECT lag(ssn) OVER () FROM cust",
  "SELECT CASE WHEN id = 1 THEN ssn ELSE 'x' END FROM cust",
  "SELECT substr(ssn, 1, 9) FROM cust",
  "SELECT left(ssn, 9), right(ssn, 9) FROM cust",
  "SELECT reverse(ssn) FROM cust",
  "SELECT encode(ssn::bytea, 'hex') FROM cust",
  "SELECT encode(ssn::bytea, 'base64') FROM cust",
  "SELECT convert_to(ssn, 'UTF8') FROM cust",
  "SELECT ascii(ssn), length(ssn) FROM cust",
  "SELECT COALESCE(ssn, 'x') FROM cust",
  "SELECT NULLIF(ssn, 'x') FROM cust",
  "SELECT GREATEST(ssn, 'a') FROM cust",
  "SELECT ssn FROM cust UNION SELECT 'x'",
  "SELECT ssn FROM cust UNION ALL SELECT item FROM ord",
  "SELECT item FROM ord UNION ALL SELECT ssn FROM cust",
  "SELECT ssn FROM cust INTERSECT SELECT ssn FROM cust",
  "SELECT ssn FROM cust EXCEPT SELECT 'x'",
  "WITH x AS (SELECT ssn AS y FROM cust) SELECT y FROM x",
  "WITH RECURSIVE r AS (SELECT 1 AS n, ssn FROM cust UNION ALL SELECT n + 1, ssn FROM r WHERE n < 3) SELECT * FROM r",
  "SELECT l.x FROM cust c, LATERAL (SELECT c.ssn AS x) l",
  "VALUES ((SELECT ssn FROM cust LIMIT 1))",
  "SELECT (SELECT ssn FROM cust WHERE id = o.cust) FROM ord o",
  "SELECT ARRAY(SELECT ssn FROM cust)",
  "SELECT all_cust()",
  "SELECT * FROM all_cust()",
  "SELECT (all_cust()).ssn",
  "SELECT ssn_of(1)",
  "SELECT shout(ssn) FROM cust",
  "SELECT told(1)",
  "SELECT ran('SELECT ssn FROM cust')",
  "SELECT opened(); FETCH ALL FROM opened",
  "SELECT format('%s', c) FROM cust c",
  "SELECT concat_ws('', ssn, email) FROM cust",
  "SELECT loud FROM cust",
  "SELECT s FROM v",
  "SELECT t FROM vv",
  "SELECT * FROM vv",
  "SELECT e, ssn FROM mv",
  "SELECT code FROM base",
  "SELECT code FROM derived",
  "SELECT * FROM part",
  "SELECT code FROM part_low",
  "SELECT code FROM ONLY derived",
  "INSERT INTO cust (id, name) VALUES (99, 'n') RETURNING *",
  "UPDATE cust SET name = ssn RETURNING name",
  "UPDATE cust SET name = 'x' WHERE id = 1 RETURNING ssn",
  "UPDATE cust SET name = 'x' WHERE id = 1 RETURNING old.ssn, new.email",
  "DELETE FROM ord USING cust WHERE cust.id = ord.cust RETURNING ssn",
  "MERGE INTO ord USING cust ON cust.id = ord.id WHEN MATCHED THEN UPDATE SET item = 'x' RETURNING cust.ssn",
  "INSERT INTO ord SELECT 100, 1, ssn, 1 FROM cust LIMIT 1 RETURNING item",
  "CREATE TEMP TABLE copied AS SELECT ssn AS z FROM cust; SELECT z FROM copied",
  "SELECT ssn AS z INTO TEMP copied FROM cust; SELECT z FROM copied",
  "CREATE TEMP VIEW w AS SELECT ssn AS z FROM cust; SELECT z FROM w",
  "CREATE VIEW w AS SELECT ssn AS z FROM cust; SELECT z FROM w",
  "CREATE FUNCTION g() RETURNS SETOF text LANGUAGE sql AS 'SELECT ssn FROM cust'; SELECT g()",
  "CREATE FUNCTION g() RETURNS SETOF text BEGIN ATOMIC SELECT ssn FROM cust; END; SELECT g()",
  "ALTER TABLE cust RENAME ssn TO note; SELECT note FROM cust",
  "ALTER TABLE cust RENAME TO other; SELECT ssn FROM other",
  "ALTER TABLE cust SET SCHEMA pg_catalog; SELECT ssn FROM pg_catalog.cust",
  "CREATE TABLE kid () INHERITS (cust); SELECT ssn FROM kid",
  "ALTER TABLE cust ADD COLUMN clone text GENERATED ALWAYS AS (ssn) STORED; SELECT clone FROM cust",
  "ALTER TABLE cust ALTER COLUMN name TYPE text USING ssn; SELECT name FROM cust",
  "CREATE INDEX ON cust ((1 / (length(ssn) - 24)))",
  "CREATE STATISTICS st ON ssn, email FROM cust; ANALYZE cust; SELECT * FROM pg_stats_ext",
  "CREATE RULE r AS ON SELECT TO ord DO INSTEAD SELECT id, id, ssn, 1 FROM cust; SELECT * FROM ord",
  "CREATE POLICY p ON cust USING (told(id) > 0)",
  "DO $$BEGIN RAISE NOTICE '%', (SELECT ssn FROM cust LIMIT 1); END$$",
  "DO $$DECLARE r record; BEGIN FOR r IN SELECT * FROM cust LOOP RAISE WARNING '%', r; END LOOP; END$$",
  "DO $$BEGIN EXECUTE 'SELECT 1 / 0 FROM cust WHERE ssn = ssn'; END$$",
  "PREPARE s AS SELECT ssn FROM cust; EXECUTE s",
  "PREPARE s(int) AS SELECT ssn FROM cust WHERE id = $1; EXECUTE s(2)",
  "DECLARE c CURSOR FOR SELECT ssn FROM cust; FETCH ALL FROM c",
  "DECLARE c BINARY CURSOR FOR SELECT ssn, big FROM cust; FETCH 3 FROM c; FETCH BACKWARD 1 FROM c",
  "DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT ssn FROM cust; COMMIT; FETCH LAST FROM c; CLOSE c",
  "SELECT ssn::regclass FROM cust",
  "SELECT ssn::regtype, ssn::regrole FROM cust",
  "SELECT ssn::regproc FROM cust",
  "SELECT to_regclass(ssn), to_regtype(ssn) FROM cust",
  "SELECT has_table_privilege(ssn, 'SELECT') FROM cust",
  "SELECT has_schema_privilege(ssn, 'USAGE') FROM cust",
  "SELECT pg_database_size(ssn::name) FROM cust",
  "SELECT pg_encoding_to_char(1), convert_from(raw, ssn) FROM cust",
  "SELECT currval(ssn) FROM cust",
  "SELECT current_setting(ssn) FROM cust",
  "SELECT to_timestamp(ssn, ssn), to_number(ssn, ssn), make_interval(secs => ssn::float) FROM cust",
  "SELECT ssn::xml, ssn::json, ssn::inet, ssn::uuid FROM cust",
  "SELECT now() AT TIME ZONE ssn FROM cust",
  "SELECT 'x' ~ ssn, 'x' LIKE ssn || '\\\\', regexp_replace('x', 'x', ssn) FROM cust",
  "SELECT 'x' COLLATE \"C\" = ssn, ts_rank(to_tsvector(ssn), to_tsquery(ssn)) FROM cust",
  "SELECT jsonb_path_query('{}', ssn::jsonpath) FROM cust",
  "SELECT id FROM ord LIMIT (SELECT length(ssn) FROM cust LIMIT 1)",
  "SELECT id FROM ord OFFSET (SELECT ssn FROM cust LIMIT 1)::int",
  "SELECT ssn::int FROM cust",
  "SELECT ssn::date FROM cust",
  "SELECT CAST(ssn AS place) FROM cust",
  "SELECT ssn::secret::int FROM cust",
  "SELECT id FROM cust WHERE ssn::int > 0",
  "SELECT id FROM ord WHERE item = ANY (SELECT ssn FROM cust)",
  "SELECT 1 / (length(ssn) - 24) FROM cust",
  "SELECT count(*) FROM cust WHERE ssn LIKE 'a%'",
  "SELECT id FROM cust ORDER BY ssn",
  "SELECT count(DISTINCT ssn) FROM cust GROUP BY ssn",
  "INSERT INTO cust (id, email) SELECT 100, email FROM cust WHERE id = 1",
  "UPDATE cust SET email = (SELECT max(email) FROM cust)",
  "UPDATE cust SET id = 1",
  "UPDATE cust SET name = NULL, ssn = 'a' WHERE id = 1",
  "UPDATE cust SET id = NULL WHERE id = 1",
  "INSERT INTO cust (id) VALUES (1)",
  "DELETE FROM cust",
  "EXPLAIN (ANALYZE, VERBOSE) SELECT ssn FROM cust",
  "EXPLAIN (VERBOSE) SELECT id FROM cust WHERE ssn = 'x'",
  "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM cust c WHERE c.id = 1",
  "SELECT most_common_vals, histogram_bounds FROM pg_stats WHERE tablename = 'cust'",
  "SELECT histogram_bounds::text FROM pg_stats",
  "SELECT stavalues1 FROM pg_statistic",
  "SELECT * FROM pg_stats",
  "SELECT s FROM pg_stats s",
  "SELECT to_jsonb(s) FROM pg_stats s WHERE attname = 'ssn'",
  "WITH x AS (SELECT * FROM pg_stats) SELECT * FROM x",
  "SELECT query FROM pg_stat_activity",
  "SELECT * FROM pg_prepared_statements",
  "SELECT * FROM pg_cursors",
  "SELECT pg_notify('c', ssn) FROM cust",
  "LISTEN c; SELECT pg_notify('c', (SELECT ssn FROM cust LIMIT 1))",
  "SELECT set_config('application_name', ssn, false) FROM cust; SHOW application_name",
  "SELECT set_config('x.y', ssn, false) FROM cust WHERE id = 1; SELECT current_setting('x.y')",
  "SELECT lo_from_bytea(0, ssn::bytea) FROM cust",
  "SELECT pg_read_file('pg_hba.conf')",
  "SELECT get_raw_page('cust', 0)",
  "SELECT dblink('', 'SELECT ssn FROM cust')",
  "SELECT ctid, ssn FROM cust TABLESAMPLE SYSTEM (100)",
  "SELECT * FROM ROWS FROM (all_cust(), generate_series(1, 3)) AS r",
  "SELECT * FROM cust NATURAL JOIN v",
  "SELECT x.* FROM (SELECT * FROM cust) x(a, b, c, d)",
  "SELECT c FROM (SELECT * FROM cust) x(a, b, c)",
  "SELECT x.k, x.v FROM json_table((SELECT json_agg(c) FROM cust c), '$[*]' COLUMNS (k int PATH '$.id', v text PATH '$.ssn')) x",
  "SELECT * FROM json_to_recordset((SELECT json_agg(c) FROM cust c)) AS r(id int, ssn text)",
  "SELECT (json_populate_record(NULL::cust, row_to_json(c))).ssn FROM cust c",
  "SELECT JSON_OBJECT('k': ssn) FROM cust",
  "SELECT JSON_QUERY(doc, '$.k') FROM cust",
  "SELECT JSON_VALUE(doc, '$.k') FROM cust",
  "SELECT doc['k'], doc -> 'list' ->> 0, tags[1], tags[1:2] FROM cust",
  "SELECT doc #>> '{k}' FROM cust",
  "SELECT jsonb_array_elements_text(doc -> 'list') FROM cust",
  "SELECT unnest(tags) FROM cust",
  "SELECT t FROM cust, unnest(tags) t",
  "SELECT ROW(ssn, email) FROM cust",
  "SELECT (ROW(ssn, email)).f1 FROM cust",
  "SELECT ARRAY[ssn] || tags FROM cust",
  "SELECT raw, encode(raw, 'escape') FROM cust",
  "SELECT big, big + 1, big::text, to_char(big, '9999999999999999999') FROM cust",
  "SELECT dom, dom::text || 'x' FROM cust",
  "SELECT quote_literal(ssn), repeat(ssn, 2), lpad(ssn, 40, 'x') FROM cust",
  "SELECT overlay(ssn placing 'x' from 1 for 1), translate(ssn, 'a', 'b') FROM cust",
  "SELECT regexp_matches(ssn, '.*'), regexp_split_to_table(ssn, 'q') FROM cust",
  "SELECT to_tsvector('simple', ssn) FROM cust",
  'SELECT ssn COLLATE "C" FROM cust',
  "SELECT min(ssn) FILTER (WHERE id > 0), mode() WITHIN GROUP (ORDER BY ssn) FROM cust",
  "SELECT first_value(ssn) OVER (PARTITION BY name ORDER BY id) FROM cust",
  "SELECT ssn FROM cust FOR UPDATE",
  "SELECT DISTINCT ON (id) id, ssn FROM cust ORDER BY id",
  "SELECT id, (ssn, email) IN (SELECT ssn, email FROM cust) FROM cust",
  'SELECT "cust"."ssn" FROM "public"."cust"',
  'SELECT U&"s\\0073n" FROM cust',
  "SET search_path = pg_temp, public; SELECT ssn FROM cust",
  "SELECT cust FROM cust",
  "SELECT ssn(cust) FROM cust",
  "SELECT cust.all_cust FROM cust",
  "SELECT text(ssn) FROM cust",
  "SELECT textcat(ssn, 'x'), textin(textout(ssn)) FROM cust",
  "SELECT pg_typeof(ssn), hashtext(ssn), md5(ssn) FROM cust",
  "SELECT xpath('//ssn/text()', query_to_xml('SELECT ssn FROM cust', true, false, ''))",
  "SELECT cursor_to_xml('c', 1, true, false, '')",
  "SELECT 'cust'::regclass, pg_get_viewdef('v'), pg_get_constraintdef(oid) FROM pg_constraint LIMIT 1",
  "COPY (SELECT ssn FROM cust) TO STDOUT",
  "COPY cust TO STDOUT (FORMAT csv, HEADER, FORCE_QUOTE *)",
  "COPY cust (ssn, id) TO STDOUT (DELIMITER '|', NULL 'nil')",
  "COPY cust TO STDOUT (FORMAT binary)",
  "COPY (SELECT c FROM cust c) TO STDOUT CSV",
  "COPY (SELECT row_to_json(c) FROM cust c) TO STDOUT (FORMAT csv, QUOTE '''', ESCAPE '\\')",
  "COPY (DELETE FROM ord RETURNING (SELECT ssn FROM cust LIMIT 1)) TO STDOUT",
  "COPY cust TO STDOUT (ENCODING 'UTF16')",
  "COPY cust TO STDOUT (ENCODING 'LATIN1')",
  "COPY cust TO PROGRAM 'cat'",
  "COPY cust FROM STDIN",
  "COPY part TO STDOUT",
  "COPY derived TO STDOUT",
  "COPY v TO STDOUT",
  "BEGIN; INSERT INTO ord VALUES (50, 77, 'x', 1); COMMIT",
  // Two tables of one name, and which of them is meant.
  "SELECT public.cust.ssn || '' FROM other.cust, public.cust",
  "SELECT to_jsonb(public.cust.*), public.cust.* FROM other.cust, public.cust",
  "CREATE TEMP TABLE cust (ssn text); INSERT INTO cust VALUES ('x'); SELECT upper(public.cust.ssn) FROM cust, public.cust",
  // Code that reads without being called by name, next to the table itself.
  "SELECT by_default() FROM cust",
  "SELECT * FROM by_default(), cust",
  "CREATE FUNCTION g(a text DEFAULT ssn_of(1)) RETURNS text LANGUAGE sql AS 'SELECT a'; SELECT g()",
  "SELECT 1 @@@ 1 FROM cust",
  "SELECT 1 OPERATOR(public.@@@) id FROM cust",
  "SELECT o.of_order FROM ord o, cust",
  "SELECT (o).of_order FROM ord o, cust",
  "SELECT (1::wrap).v FROM cust",
  "SELECT CAST(id AS wrap) FROM cust",
  "SELECT told_all(id) FROM cust",
  "SELECT v.xmin FROM v",
  "SELECT (v).xmin FROM v, cust",
  "WITH x AS (SELECT 1 FROM cust) INSERT INTO fired SELECT 1 FROM x RETURNING note",
  "WITH x AS (SELECT 1 FROM cust) INSERT INTO filled (id) SELECT 1 FROM x RETURNING note",
  "PREPARE s(text) AS SELECT $1 FROM cust; EXECUTE s(ssn_of(1))",
  "CREATE TABLE pp (x text) PARTITION BY LIST (x); CREATE TABLE pp1 PARTITION OF pp FOR VALUES IN (ssn_of(1)); SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'pp1'",
  "ALTER TABLE ord ALTER item TYPE text USING ssn_of(1); SELECT item FROM ord",
  "ALTER TABLE ord ADD COLUMN more text DEFAULT ssn_of(1); ALTER TABLE ord ALTER more DROP DEFAULT; SELECT more FROM ord",
  "ALTER TABLE ord ALTER item SET DEFAULT ran('SELECT ssn FROM public.cust LIMIT 1'); INSERT INTO ord (id) VALUES (90) RETURNING item",
  "CREATE TRIGGER t BEFORE UPDATE ON ord FOR EACH ROW EXECUTE FUNCTION fills()",
  // Bodies that are followed, alone and next to the same code where it is not.
  "SELECT * FROM both_of(1)",
  "SELECT b FROM both_of(1) b",
  "SELECT what || '' FROM both_of(2)",
  "SELECT both_of(1), by_loop()",
  "SELECT * FROM by_loop() WITH ORDINALITY",
  "SELECT * FROM ROWS FROM (both_of(1), by_loop()) AS r(a, b, c)",
  "CREATE OR REPLACE FUNCTION both_of(i int) RETURNS TABLE (who text, what text) LANGUAGE sql AS 'SELECT ssn, name FROM public.cust'; SELECT who FROM both_of(1)",
  "INSERT INTO filled (id) SELECT 1 FROM ssn_of(1) RETURNING note",
  "SELECT by_default() FROM ssn_of(1)",
  "SELECT o.of_order, of_order(o) FROM ord o",
  "CREATE FUNCTION h() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN 'x'; END$$; DECLARE c CURSOR FOR SELECT h() FROM generate_series(1, 5); FETCH 1 FROM c; CREATE OR REPLACE FUNCTION h() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN (SELECT ssn FROM public.cust LIMIT 1); END$$; FETCH 2 FROM c",
  // Code that keeps what it is given, and what it kept.
  "SELECT c.keep_row FROM cust c; SELECT v FROM stash",
  "SELECT (c).keep_row FROM cust c; SELECT v FROM stash",
  "SELECT c::wrap FROM cust c; SELECT v FROM stash",
  "SELECT ssn::keeper FROM cust; SELECT v FROM stash",
  "SELECT ROW(ssn)::wrap, CAST(email AS keeper) FROM cust; SELECT v FROM stash",
  "SELECT setval('s', big) FROM cust",
  // A cursor that is there already keeps its rows.
  "DECLARE c CURSOR FOR SELECT upper(ssn) FROM cust; SAVEPOINT s; DECLARE c CURSOR FOR SELECT upper(name) FROM cust; ROLLBACK TO s; FETCH 2 FROM c",
  "SELECT JSON_VALUE(doc, '$.k' RETURNING keeper) FROM cust; SELECT v FROM stash",
  "SELECT t.k FROM cust, JSON_TABLE(doc, '$' COLUMNS (k keeper PATH '$.k')) t; SELECT v FROM stash",
  "SELECT 1 FROM cust, jsonb_to_record(doc) AS r(k keeper); SELECT v FROM stash",
  "SELECT jsonb_populate_record(NULL::keepers, doc) FROM cust; SELECT v FROM stash",
  "SELECT t.k FROM cust, XMLTABLE('/a' PASSING xmlelement(name a, ssn) COLUMNS k keeper PATH '.') t; SELECT v FROM stash",
  "SELECT by_keeper(1); SELECT v FROM stash",
  "SELECT by_while(3), upper(by_while(1))",
  "SELECT * FROM by_while(2) b",
  // What is given to a prepared statement, by a function that the statement itself shows masked.
  "PREPARE s(text) AS SELECT ssn_of(2), $1; EXECUTE s(ssn_of(1))",
  "PREPARE s(text) AS SELECT ssn_of(2) WHERE $1 > 'a'; EXPLAIN (VERBOSE) EXECUTE s(ssn_of(1))",
  // A function by the name of a column.
  "ALTER TABLE ord ALTER item TYPE text USING ord.of_order; SELECT item FROM ord",
  "ALTER TABLE ord ALTER item TYPE text USING (ord).of_order; SELECT item FROM ord",
  // Words of errors and of plans.
  "SELECT names_it(ssn) FROM cust",
  "EXPLAIN (VERBOSE) SELECT as_const(1)",
  "EXPLAIN SELECT id FROM ord WHERE item = as_const(1)",
  "EXPLAIN (GENERIC_PLAN, VERBOSE) SELECT id FROM ord WHERE item = as_const(1) AND id = $1",
  "SELECT format('%I', substring(ssn from '^a')) FROM cust",
  "SELECT date_part(ssn, now()), now() AT TIME ZONE ssn FROM cust",
  "SELECT to_tsquery(ssn), jsonb_path_exists('{}', ssn::jsonpath) FROM cust",
  "SELECT * FROM cust, pg_input_error_info(ssn, 'integer')",
  "WITH RECURSIVE t(n, a, b, c) AS (SELECT 1, ''::text, ''::text, ''::text UNION ALL SELECT n + 1, (SELECT ssn FROM cust LIMIT 1), a, b FROM t WHERE n < 6) SELECT c FROM t",
  // Plans of before, under names that mean something else by now.
  "SELECT lazy(1); CREATE TEMP TABLE any_name (x int); CREATE TEMP TABLE cust (id int, ssn text); SELECT lazy(1)",
  "CREATE TEMP TABLE any_name (x int); SELECT lazy(1); CREATE TEMP TABLE cust (id int, ssn text); SELECT lazy(1) || ''",
  "CREATE TEMP TABLE any_name (x int); SELECT lazy_sql(1); CREATE TEMP TABLE cust (id int, ssn text); SELECT upper(lazy_sql(1))",
  "CREATE TEMP TABLE any_name (x int); PREPARE s AS SELECT upper(ssn) FROM cust; CREATE TEMP TABLE cust (ssn text); EXECUTE s",
  "CREATE SCHEMA front; SET search_path = front, public; SELECT lazy(1); CREATE TABLE front.cust (id int, ssn text); SELECT upper(lazy(1))",
  ...catalogTricks,
  ...youngTricks,
  // Views and functions that become others.
  "ALTER VIEW v RENAME COLUMN name TO other; ALTER VIEW v RENAME COLUMN s TO name; SELECT upper(name) FROM v",
  "ALTER TABLE v RENAME COLUMN name TO other; ALTER TABLE v RENAME COLUMN s TO name; SELECT upper(name) FROM v",
  "CREATE OR REPLACE VIEW v AS SELECT id, name AS s, ssn AS name, email FROM cust; SELECT upper(name) FROM v",
  "CREATE TEMP VIEW w AS SELECT id, name FROM cust; CREATE OR REPLACE TEMP VIEW w AS SELECT id, ssn AS name FROM cust; SELECT upper(name) FROM w",
  "CREATE TEMP VIEW w AS SELECT ssn AS a, name AS b FROM cust; ALTER VIEW w RENAME a TO c; ALTER VIEW w RENAME b TO a; ALTER VIEW w RENAME c TO b; SELECT upper(b) FROM w",
  "DROP VIEW vv; ALTER VIEW v SET SCHEMA other; SELECT upper(s) FROM other.v",
  "ALTER FUNCTION ssn_of(int) RENAME TO harmless; SELECT harmless(1)",
  "CREATE FUNCTION p(text, boolean, boolean, text) RETURNS xml LANGUAGE internal AS 'query_to_xml'; SELECT p('SELECT ssn FROM cust', true, true, '')",
];

const column = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom("id", "name", "ssn", "email") },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      ..."big tags doc home dom raw boss places doms labelled loud s t e code item total cust c v x later virtual span spans amount tableoid".split(
        " ",
      ),
    ),
  },
);
const alias = fc.constantFrom("a", "b", "x");
const source = fc.constantFrom("all_cust()", "ssn_of(1)", "both_of(2)", "by_loop()", "by_default()");
const relation = fc.oneof(
  { weight: 2, arbitrary: fc.constant("cust") },
  {
    weight: 1,
    arbitrary: fc.constantFrom(..."ord v vv mv base derived part part_low lists lists_a".split(" ")),
  },
);
const reference = fc.oneof(
  { weight: 8, arbitrary: column },
  { weight: 2, arbitrary: fc.tuple(alias, column).map(([of, name]) => `${of}.${name}`) },
  { weight: 1, arbitrary: fc.tuple(alias, column).map(([of, name]) => `(${of}).${name}`) },
  { weight: 1, arbitrary: alias },
);
const constant = fc.constantFrom("1", "2", "'x'", "NULL", "true", "''", "'1 day'");

const one = (name: string) => (x: string) => `${name}(${x})`;
const ofText = (name: string) => (x: string) => `${name}((${x})::text)`;
const wrappers: readonly ((x: string, y: string) => string)[] = [
  ..."upper lower reverse md5 length ascii to_json to_jsonb quote_literal quote_nullable initcap trim hashtext abs"
    .split(" ")
    .flatMap((name) => [one(name), ofText(name), ofText(name)]),
  ..."max min count array_agg string_to_table jsonb_agg json_agg unnest cardinality shout pg_typeof any_value"
    .split(" ")
    .map(one),
  (x) => `substr((${x})::text, 1, 12)`,
  (x) => `encode((${x})::text::bytea, 'hex')`,
  (x) => `encode(convert_to((${x})::text, 'UTF8'), 'base64')`,
  (x) => `(${x})::text`,
  (x) => `(${x})::int`,
  (x) => `(${x})::jsonb`,
  (x) => `CAST(${x} AS varchar(30))`,
  (x) => `(${x}) || ''`,
  (x, y) => `concat(${x}, ${y})`,
  (x, y) => `concat_ws('-', ${y}, ${x})`,
  (x, y) => `format('%s %s', ${x}, ${y})`,
  (x, y) => `COALESCE(${x}, ${y})`,
  (x, y) => `NULLIF(${x}, ${y})`,
  (x, y) => `GREATEST(${x}, ${y})`,
  (x, y) => `CASE WHEN ${y} IS NULL THEN ${x} ELSE ${x} END`,
  (x, y) => `CASE ${y} WHEN 1 THEN 'x' ELSE ${x} END`,
  (x, y) => `ARRAY[${x}, ${y}]`,
  (x, y) => `ROW(${x}, ${y})`,
  (x, y) => `jsonb_build_object('a', ${x}, 'b', ${y})`,
  (x, y) => `JSON_ARRAY(${x}, ${y})`,
  (x) => `xmlelement(name n, ${x})`,
  (x) => `string_agg(${x}, ',')`,
  (x) => `lag(${x}) OVER ()`,
  (x, y) => `first_value(${x}) OVER (ORDER BY ${y})`,
  (x, y) => `${x} = ${y}`,
  (x) => `${x} IS NOT NULL`,
  (x) => `replace(${x}, 'a', 'b')`,
  (x) => `(${x}) ->> 'k'`,
  (x) => `(${x})[1]`,
  (x) => `(${x}).street`,
  (x) => `((${x}).at).city`,
  (x) => `(${x})::text::place`,
  (x) => `jsonb_path_query_first(to_jsonb(${x}), '$')`,
  (x) => `1 / length(${x})`,
  (x) => `overlay(${x} placing 'zz' from 2)`,
  (x) => `JSON_VALUE(${x}, '$.k')`,
  (x) => `JSON_QUERY(to_jsonb(${x}), '$')`,
  (x, y) => `JSON_VALUE(jsonb '{}', '$x' PASSING (${x})::text AS x DEFAULT ${y} ON ERROR)`,
  (x) => `JSON_EXISTS(to_jsonb(${x}), '$.k')`,
  (x) => `JSON_SCALAR((${x})::text)`,
  (x, y) => `${x} IS DISTINCT FROM ${y}`,
  (x, y) => `(${x}, 1) < (${y}, 2)`,
  (x, y) => `(ROW(${x}, ${y})).f1`,
  (x, y) => `lpad((${x})::text, length((${y})::text), 'x')`,
  (x) => `generate_series(1, length((${x})::text))`,
  (x) => `range_agg(${x})`,
  (x) => `xmlserialize(content xmlelement(name n, ${x}) AS text)`,
  (x) => `count(*) FILTER (WHERE ${x} IS NULL)`,
  (x, y) => `string_agg((${x})::text, ',' ORDER BY ${y})`,
  (x) => `string_agg((${x})::text, ',') OVER (ORDER BY id ROWS 1 PRECEDING EXCLUDE CURRENT ROW)`,
  (x) => `percentile_disc(0.5) WITHIN GROUP (ORDER BY ${x})`,
  (x) => `ROW(${x})::text`,
  (x) => `casefold((${x})::text)`,
  (x) => `array_reverse(ARRAY[${x}])`,
];

interface Grammar {
  readonly expression: string;
  readonly select: string;
  readonly from: string;
}

const grammar = fc.letrec<Grammar>((tie) => ({
  expression: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    { weight: 5, arbitrary: reference },
    { weight: 1, arbitrary: constant },
    {
      weight: 5,
      arbitrary: fc
        .tuple(fc.constantFrom(...wrappers), tie("expression"), tie("expression"))
        .map(([wrap, x, y]) => wrap(String(x), String(y))),
    },
    { weight: 1, arbitrary: tie("select").map((select) => `(${select} LIMIT 1)`) },
    { weight: 1, arbitrary: tie("select").map((select) => `ARRAY(${select})`) },
  ),
  from: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    { weight: 6, arbitrary: fc.tuple(relation, alias).map(([name, as]) => `${name} ${as}`) },
    { weight: 2, arbitrary: relation },
    {
      weight: 1,
      arbitrary: fc.tuple(relation, alias).map(([name, as]) => `${name} ${as} TABLESAMPLE BERNOULLI (100)`),
    },
    {
      weight: 1,
      arbitrary: fc
        .tuple(tie("expression"), alias)
        .map(
          ([x, as]) =>
            `cust x, JSON_TABLE(to_jsonb(${x}), '$' COLUMNS (id int PATH '$.id', ssn text PATH '$')) ${as}`,
        ),
    },
    { weight: 1, arbitrary: fc.tuple(source, alias).map(([call, as]) => `${call} ${as}`) },
    { weight: 2, arbitrary: fc.tuple(tie("select"), alias).map(([select, as]) => `(${select}) ${as}`) },
    {
      weight: 1,
      arbitrary: fc.tuple(tie("select"), alias).map(([select, as]) => `LATERAL (${select}) ${as}(ssn, c)`),
    },
    {
      weight: 1,
      arbitrary: fc
        .tuple(relation, relation, fc.constantFrom("JOIN", "LEFT JOIN", "FULL JOIN"))
        .map(([left, right, kind]) => `${left} a ${kind} ${right} b USING (id)`),
    },
    {
      weight: 1,
      arbitrary: fc
        .tuple(relation, relation, tie("expression"))
        .map(([left, right, on]) => `${left} a JOIN ${right} b ON ${on} IS NOT NULL`),
    },
  ),
  select: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    {
      weight: 6,
      arbitrary: fc
        .tuple(
          fc.array(
            fc.oneof(
              { weight: 5, arbitrary: tie("expression") },
              { weight: 1, arbitrary: fc.constantFrom("*", "a.*", "x.*") },
              { weight: 2, arbitrary: fc.tuple(tie("expression"), column).map(([x, as]) => `${x} AS ${as}`) },
            ),
            { minLength: 1, maxLength: 3 },
          ),
          fc.array(tie("from"), { minLength: 1, maxLength: 2 }),
          fc.option(tie("expression"), { freq: 6 }),
          fc.constantFrom("", "", "", "", "DISTINCT "),
          fc.constantFrom(
            "",
            "",
            "",
            "",
            " ORDER BY 1",
            " GROUP BY 1",
            " LIMIT 3",
            " FOR UPDATE",
            " GROUP BY ROLLUP (1)",
          ),
        )
        .map(
          ([targets, from, where, distinct, tail]) =>
            `SELECT ${distinct}${targets.join(", ")} FROM ${from.join(", ")}` +
            `${where === null ? "" : ` WHERE ${where} IS NOT NULL`}${tail}`,
        ),
    },
    { weight: 1, arbitrary: relation.map((name) => `TABLE ${name}`) },
    {
      weight: 1,
      arbitrary: fc
        .tuple(tie("select"), tie("select"), fc.constantFrom("UNION ALL", "UNION", "EXCEPT", "INTERSECT"))
        .map(([left, right, kind]) => `(${left}) ${kind} (${right})`),
    },
    {
      weight: 1,
      arbitrary: fc
        .tuple(tie("select"), tie("select"), fc.constantFrom("", "MATERIALIZED "))
        .map(([inner, outer, how]) => `(WITH x AS ${how}(${inner}) ${outer})`),
    },
    { weight: 1, arbitrary: tie("expression").map((x) => `SELECT ${x}`) },
  ),
}));

/** One statement, or a few, of the grammar. */
export const statements: fc.Arbitrary<string> = fc.oneof(
  { weight: 14, arbitrary: grammar.select },
  {
    weight: 1,
    arbitrary: fc
      .tuple(relation, grammar.expression, grammar.expression)
      .map(([name, x, y]) => `UPDATE ${name} a SET name = ${x} WHERE id = 1 RETURNING ${y}, *`),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(relation, grammar.expression)
      .map(([name, x]) => `UPDATE ${name} a SET id = id RETURNING ${x}`),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(relation, grammar.expression)
      .map(([name, x]) => `DELETE FROM ${name} a RETURNING ${x}`),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(grammar.select, grammar.expression)
      .map(([select, x]) => `INSERT INTO ord (item) ${select} RETURNING ${x}`),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(grammar.expression, grammar.expression, alias)
      .map(
        ([x, y, as]) =>
          `MERGE INTO ord ${as} USING cust x ON x.id = ${as}.id WHEN MATCHED THEN UPDATE SET item = ${y} RETURNING ${x}, old.*`,
      ),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(relation, grammar.expression)
      .map(([name, x]) => `UPDATE ${name} a SET id = id RETURNING WITH (OLD AS x, NEW AS b) ${x}, x, b.*`),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(
        grammar.select,
        fc.constantFrom("GENERIC_PLAN, VERBOSE", "ANALYZE, SERIALIZE, MEMORY", "VERBOSE"),
      )
      .map(([select, how]) => `EXPLAIN (${how}) ${select}`),
  },
  { weight: 1, arbitrary: grammar.select.map((select) => `EXPLAIN (ANALYZE, VERBOSE) ${select}`) },
  { weight: 1, arbitrary: grammar.select.map((select) => `PREPARE s AS ${select}; EXECUTE s; DEALLOCATE s`) },
  { weight: 1, arbitrary: grammar.select.map((select) => `DECLARE c CURSOR FOR ${select}; FETCH 2 FROM c`) },
  {
    weight: 1,
    arbitrary: grammar.select.map((select) => `CREATE TEMP TABLE t ON COMMIT DROP AS ${select}; TABLE t`),
  },
  { weight: 1, arbitrary: grammar.select.map((select) => `CREATE TEMP VIEW w AS ${select}; TABLE w`) },
);

/** True for what COPY can take in parentheses. */
export function isCopyable(sql: string): boolean {
  return /^\s*(\(|SELECT|TABLE|WITH|VALUES|UPDATE|DELETE|INSERT)/i.test(sql) && !sql.includes(";");
}
