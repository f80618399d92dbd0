-- The database that the SQL corpus speaks of. policy/src/sql/testing.ts tells the same story to the analyser.
CREATE SCHEMA app;
CREATE SCHEMA evil;

CREATE TABLE public.customers (id int PRIMARY KEY, name text, email text, ssn text, balance numeric DEFAULT 0);
CREATE TABLE public.orders (
  id int PRIMARY KEY,
  customer_id int REFERENCES public.customers (id) ON DELETE CASCADE,
  total numeric,
  status text
);
CREATE TABLE public.order_items (
  id int PRIMARY KEY,
  order_id int REFERENCES public.orders (id) ON DELETE CASCADE,
  sku text,
  quantity int
);
CREATE TABLE public.pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
CREATE TABLE public.documents (id int PRIMARY KEY, title text, body text);
CREATE SEQUENCE public.ticket_seq;

CREATE TABLE app.events (id int, at date, kind text) PARTITION BY RANGE (at);
CREATE TABLE app.events_2025 PARTITION OF app.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE app.audit (id int GENERATED ALWAYS AS IDENTITY, what text);
CREATE TABLE app.watched (id int PRIMARY KEY, name text);
CREATE TABLE app.secrets (id int PRIMARY KEY, secret text);
CREATE TABLE evil.customers (id int, name text);

CREATE VIEW public.rich_customers AS SELECT id, name FROM public.customers WHERE balance > 1000;
CREATE VIEW app.counted AS SELECT count(*) AS n FROM public.orders;
CREATE MATERIALIZED VIEW app.totals AS SELECT customer_id, sum(total) AS total FROM public.orders GROUP BY 1;

CREATE FUNCTION app.log_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO app.audit (what) VALUES (TG_OP || ' ' || NEW.id);
  RETURN NEW;
END $$;
CREATE TRIGGER watch AFTER INSERT OR UPDATE ON app.watched FOR EACH ROW EXECUTE FUNCTION app.log_change();

CREATE FUNCTION app.order_count() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM public.orders';
CREATE FUNCTION app.add_one(n int) RETURNS int LANGUAGE sql AS 'SELECT n + 1';
CREATE FUNCTION app.purge() RETURNS void LANGUAGE sql AS 'DELETE FROM public.order_items WHERE quantity = 0';
CREATE FUNCTION app.atomic_count() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM public.orders; END;
CREATE FUNCTION app.wipe() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.order_items; END $$;
CREATE FUNCTION app.dynamic(t text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE 'DELETE FROM ' || t;
END $$;
CREATE FUNCTION app.peek() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE r app.secrets;
BEGIN
  SELECT * INTO r FROM app.secrets LIMIT 1;
  RETURN r.secret;
END $$;
CREATE FUNCTION app.nested() RETURNS bigint LANGUAGE sql AS 'SELECT app.order_count()';
CREATE FUNCTION app.hidden_default() RETURNS void LANGUAGE plpgsql AS $$
DECLARE r record := app.purge();
BEGIN
  NULL;
END $$;
CREATE FUNCTION app.loop_a(n int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
  IF n <= 0 THEN RETURN 0; END IF;
  RETURN app.loop_a(n - 1);
END $$;
CREATE FUNCTION app.touch(c public.customers) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM public.documents;
  RETURN c.name;
END $$;
CREATE PROCEDURE app.archive() LANGUAGE plpgsql AS $$
BEGIN
  UPDATE public.orders SET status = 'archived' WHERE status = 'done';
END $$;
CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM public.documents;
  RETURN $1;
END $$;
CREATE FUNCTION evil.equals(int, int) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM public.documents;
  RETURN true;
END $$;
CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.equals);
CREATE FUNCTION evil.is_fine(text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM public.documents;
  RETURN true;
END $$;
CREATE DOMAIN evil.word AS text CHECK (evil.is_fine(VALUE));
CREATE TYPE app.mood AS ENUM ('sad', 'happy');

INSERT INTO public.customers SELECT i, 'name ' || i, 'mail' || i || '@example.com', '000-00-000' || i, i FROM generate_series(1, 5) i;
INSERT INTO public.orders SELECT i, i, i * 10, CASE WHEN i % 2 = 0 THEN 'done' ELSE 'open' END FROM generate_series(1, 5) i;
INSERT INTO public.order_items SELECT i, i, 'sku' || i, i FROM generate_series(1, 5) i;
INSERT INTO public.pgbench_accounts SELECT i, 1, 0, '' FROM generate_series(1, 10) i;
INSERT INTO public.documents SELECT i, 'title ' || i, 'body' FROM generate_series(1, 3) i;
INSERT INTO app.secrets VALUES (1, 'swordfish');
INSERT INTO app.events VALUES (1, '2025-02-03', 'login');
REFRESH MATERIALIZED VIEW app.totals;
