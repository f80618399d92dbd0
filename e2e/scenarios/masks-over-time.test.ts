/**
 * Promise: a masked value is shown to nobody whom it is masked for while cursors, portals, columns, functions and paths change
 * under a statement, also by another session of the same attacker between the verdict and the moment when the server looks.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { policyDocument } from "../targets/policies.ts";
import { type PostgresServer, startPostgres, versionsUnderTest } from "../targets/postgres.ts";
import { bind, execute, frame, parse, query } from "../targets/wire-client.ts";
import { behindLock, flight, SessionsOverTime, type Step, sync } from "./steps-over-time.ts";

/** In every masked value, and nowhere else. */
const secret = "917351";

const initSql = `
CREATE ROLE app LOGIN PASSWORD 'app'; GRANT CREATE ON DATABASE shop TO app; GRANT ALL ON SCHEMA public TO app;
SET ROLE app;
CREATE TABLE public.cust (id int PRIMARY KEY, name text, ssn text, email varchar(30));
INSERT INTO public.cust VALUES (1, 'ann', 'x${secret}', 'y${secret}'), (2, 'bob', 'x${secret}', 'y${secret}');
CREATE VIEW public.v AS SELECT id, upper(ssn) AS u, name FROM public.cust;
CREATE FUNCTION public.ssn_of(i int) RETURNS text LANGUAGE sql STABLE AS 'SELECT ssn FROM public.cust WHERE id = i';
CREATE TABLE public.log (v text);
CREATE FUNCTION public.touched() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
CREATE TRIGGER touched BEFORE UPDATE ON public.cust FOR EACH ROW EXECUTE FUNCTION public.touched();
CREATE FUNCTION public.norm(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN t; END$$;
CREATE VIEW public.normed AS SELECT public.norm(ssn) AS n FROM public.cust;
CREATE FUNCTION public.norms() RETURNS trigger LANGUAGE plpgsql AS
  $$BEGIN NEW.ssn := public.norm(NEW.ssn); RETURN NEW; END$$;
CREATE TRIGGER norms BEFORE UPDATE ON public.cust FOR EACH ROW EXECUTE FUNCTION public.norms();
`;

const ground = `
DROP SCHEMA IF EXISTS mine, other CASCADE; CREATE SCHEMA mine; CREATE SCHEMA other; TRUNCATE public.log;
CREATE TABLE mine.t (a text); INSERT INTO mine.t VALUES ('a');
CREATE TABLE mine.u (x text, y text); INSERT INTO mine.u VALUES ('x', 'y');
CREATE TABLE mine.q (ssn text, z text); INSERT INTO mine.q VALUES ('q', 'q');
CREATE TABLE mine.cust (id int, name text, ssn text, email varchar(30)); INSERT INTO mine.cust VALUES (1, 'm', 'm', 'm');
CREATE TABLE mine.stash (v text);
CREATE TYPE mine.pair AS (a text, b text); CREATE TABLE mine.p (c mine.pair); INSERT INTO mine.p VALUES (ROW('a', 'b'));
CREATE OR REPLACE FUNCTION public.touched() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
CREATE OR REPLACE FUNCTION public.norm(t text) RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN t; END$$`;

const masks = "  masking: [{columns: [public.cust.ssn, public.cust.email], with: Redact}]";
const policies = [
  policyDocument("shop", "dev", `  profile: Admin\n${masks}`),
  policyDocument("shop", "loose", `  profile: Admin\n${masks}\n  inference: Allow\n  maskedWrites: Allow`),
  policyDocument("shop", "owner", "  profile: Admin"),
].join("");

const closePortal = (name: string) => frame("C", `P${name}\0`);
const hidden = "SELECT upper(ssn) FROM public.cust";
const shown = "SELECT upper(name) FROM public.cust";
const madeAs = (portal: string, sql: string) => [parse("", sql), bind(portal, "")];
const inFlight = (sql: string) => [parse("", sql), bind("", ""), execute()];
/** A cursor of a name that shows nothing, and is closed again. */
const closedCursor: readonly Step[] = [
  ["A", "BEGIN"],
  ["A", "DECLARE c CURSOR FOR SELECT 1"],
  ["A", "CLOSE c"],
];

/** Portals and cursors, which share their names. */
const cursors: Record<string, readonly Step[]> = {
  "a portal that is replaced while a FETCH of it is on its way": [
    ["A", "BEGIN"],
    [
      "A",
      [
        ...madeAs("c", hidden),
        ...inFlight("FETCH ALL FROM c"),
        closePortal("c"),
        ...madeAs("c", shown),
        sync,
      ],
    ],
    ["A", "ROLLBACK"],
    ["A", "BEGIN"],
    ["A", [...madeAs("c", hidden), sync]],
    ["A", [query("FETCH ALL FROM c"), closePortal("c"), ...madeAs("c", shown), sync]],
    ["A"],
  ],
  "a portal that is closed while a FETCH of it is on its way": [
    ...closedCursor,
    ["A", [...madeAs("c", hidden), ...inFlight("FETCH ALL FROM c"), closePortal("c"), sync]],
  ],
  "a portal whose Close is skipped": [
    ...closedCursor,
    ["A", [...madeAs("c", hidden), sync]],
    ["A", "SAVEPOINT s"],
    ["A", [...inFlight("SELECT 1/0"), closePortal("c"), sync]],
    ["A", "ROLLBACK TO s"],
    ["A", "FETCH ALL FROM c"],
  ],
  "a portal beside which DECLARE fails": [
    ...closedCursor,
    ["A", [...madeAs("c", hidden), sync]],
    ["A", "SAVEPOINT s"],
    ["A", "DECLARE c CURSOR FOR SELECT 1"],
    ["A", "ROLLBACK TO s"],
    ["A", "FETCH ALL FROM c"],
  ],
  "a portal over which Bind fails": [
    ...closedCursor,
    ["A", [...madeAs("c", hidden), sync]],
    ["A", "SAVEPOINT s"],
    ["A", [...madeAs("c", shown), sync]],
    ["A", "ROLLBACK TO s"],
    ["A", "FETCH ALL FROM c"],
  ],
  "an Execute behind a Bind that fails, of a held cursor": [
    ["A", `DECLARE c CURSOR WITH HOLD FOR ${hidden}`],
    ["A", [...madeAs("c", shown), sync, execute("c"), sync]],
    ["A"],
    ["A", "CLOSE c"],
  ],
  "an Execute behind a Bind that fails, of a portal": [
    ["A", "BEGIN"],
    ["A", [...madeAs("c", hidden), sync]],
    ["A", "SAVEPOINT s"],
    ["A", [...madeAs("c", shown), sync, query("ROLLBACK TO s"), execute("c"), sync]],
    ["A"],
    ["A"],
  ],
  "a portal over FETCH, fetched by SQL": [
    ["A", "BEGIN"],
    ["A", `DECLARE d CURSOR FOR ${hidden}`],
    ["A", [...madeAs("c", "FETCH ALL FROM d"), sync]],
    ["A", "FETCH ALL FROM c"],
  ],
  "a portal over EXECUTE, fetched by SQL after its statement was made anew": [
    ["A", "BEGIN"],
    ["A", `PREPARE p AS ${shown}`],
    ["A", [...madeAs("c", "EXECUTE p"), sync]],
    ["A", "DEALLOCATE p"],
    ["A", `PREPARE p AS ${hidden}`],
    ["A", "FETCH ALL FROM c"],
  ],
  "a portal over EXECUTE, suspended or not, whose statement was made anew": [
    ["A", "BEGIN"],
    ["A", `PREPARE p AS ${shown}`],
    ["A", [parse("", "EXECUTE p"), bind("q", ""), execute("q", 1), bind("r", ""), sync]],
    ["A", "DEALLOCATE p"],
    ["A", `PREPARE p AS ${hidden}`],
    ["A", "SAVEPOINT s"],
    ["A", [execute("q"), sync]],
    ["A", "ROLLBACK TO s"],
    ["A", [execute("r"), sync]],
  ],
  "CREATE TABLE AS EXECUTE, whose statement was made anew": [
    ["A", `PREPARE p AS ${shown}`],
    [
      "A",
      [
        ...[parse("c", "CREATE TABLE mine.k AS EXECUTE p"), bind("q", "c")],
        ...[...inFlight("DEALLOCATE p"), ...inFlight(`PREPARE p AS ${hidden}`), execute("q"), sync],
      ],
    ],
    ["A", "SELECT * FROM mine.k"],
  ],
  "a held cursor beyond its transaction": [
    ["A", "BEGIN"],
    ["A", `DECLARE c CURSOR WITH HOLD FOR ${hidden}`],
    ["A", "COMMIT AND CHAIN"],
    ["A", "FETCH 1 FROM c"],
    ["A", [execute("c"), sync]],
    ["A", "COMMIT"],
    ["A", "FETCH BACKWARD 1 FROM c"],
    ["A", "CLOSE c"],
  ],
};

/** Relations that become others. */
const relations: Record<string, readonly Step[]> = {
  "a view that a rollback in the pipeline puts back": [
    ["A", "BEGIN"],
    ["A", "SAVEPOINT s"],
    ["A", "DROP VIEW public.normed; DROP VIEW public.v"],
    ["A", "CREATE TABLE public.v (id int, u text, name text)"],
    ["A", flight("ROLLBACK TO s", "SELECT u FROM public.v")],
    ["A", "COPY (SELECT u FROM public.v) TO STDOUT"],
    ["A", "ROLLBACK"],
    ["A", flight("DROP VIEW public.v", "CREATE TABLE public.v (id int, u text, name text)", "SELECT 1/0")],
    ["A", "SELECT u FROM public.v"],
  ],
  "a view of the session that is made anew": [
    ["A", "CREATE TEMP VIEW w AS SELECT id, name AS a, ssn AS b FROM public.cust"],
    ["A", [parse("s", "SELECT upper(a) FROM w"), bind("", "s"), execute(), sync]],
    ["A", "DROP VIEW w"],
    ["A", "CREATE TEMP VIEW w AS SELECT id, ssn AS a, name AS b FROM public.cust"],
    ["A", [bind("", "s"), execute(), sync]],
    ["A", "BEGIN"],
    ["A", "SAVEPOINT s"],
    ["A", "DROP VIEW w"],
    ["A", "CREATE TEMP VIEW w AS SELECT id, name AS a, ssn AS b FROM public.cust"],
    ["A", flight("ROLLBACK TO s", "SELECT upper(a) FROM w")],
    ["A", "COPY (SELECT a FROM w) TO STDOUT"],
    ["A", "SELECT 1/0"],
  ],
  "a table that becomes part of another": [
    [
      "A",
      "CREATE TABLE mine.par (id int NOT NULL, name text, ssn text, email varchar(30)) PARTITION BY LIST (id)",
    ],
    ["A", "ALTER TABLE mine.par ATTACH PARTITION public.cust DEFAULT; SELECT upper(ssn) FROM mine.par"],
    ["A", "ALTER TABLE public.cust INHERIT mine.cust; COPY (SELECT ssn FROM mine.cust) TO STDOUT"],
  ],
  "a schema that becomes another": [
    ["A", "BEGIN"],
    ["A", "ALTER SCHEMA public RENAME TO public2"],
    ["A", "COPY public2.cust TO STDOUT"],
    ["A", "ROLLBACK"],
    ...behindLock(
      [],
      ["ALTER SCHEMA mine RENAME TO old", "ALTER SCHEMA public RENAME TO mine"],
      "SELECT upper(ssn) FROM mine.cust",
    ),
  ],
};

const attacks = { ...cursors, ...relations };

describe.each(versionsUnderTest)("PostgreSQL %i", (version) => {
  let server: PostgresServer;
  let gateway: Gateway;
  let sessions: SessionsOverTime;

  beforeAll(async () => {
    server = await startPostgres({ version, tls: true, database: "shop", initSql });
    gateway = await startGateway({ server, policies, account: { username: "app", password: "app" } });
    sessions = new SessionsOverTime(server, gateway, ground);
  });
  afterAll(async () => {
    sessions?.close();
    await gateway?.stop();
    await server?.stop();
  });

  describe.each(["dev", "loose"])("%s", (user) => {
    test.each(Object.entries(attacks))("is shown nothing: %s", async (_, steps) => {
      const seen = await sessions.play(user, steps);
      // Something was answered, or the attack was none.
      expect(seen.filter(({ type }) => type !== "Z").length).toBeGreaterThan(0);
      expect(seen.filter(({ body }) => body.includes(secret))).toEqual([]);
    });
  });
});
