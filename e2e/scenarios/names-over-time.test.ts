/**
 * Promise: what a rule closes stays closed while names, paths, roles and prepared things change under a statement, also by
 * another session of the same attacker between the verdict and the moment when the server looks the name up.
 */
import { describe, expect, test } from "vitest";
import { policyDocument } from "../targets/policies.ts";
import { versionsUnderTest } from "../targets/postgres.ts";
import { bind, execute, frame, parse } from "../targets/wire-client.ts";
import { behindLock, errorsIn, flight, type Step, sessionsOverTime, sync } from "./steps-over-time.ts";

/** In every row that a rule closes, and nowhere else. */
const secret = "917351";

const initSql = `
CREATE ROLE app LOGIN PASSWORD 'app' NOINHERIT; CREATE ROLE hr; CREATE ROLE vault; GRANT hr, vault TO app;
GRANT CREATE ON DATABASE shop TO app; GRANT ALL ON SCHEMA public TO app;
CREATE SCHEMA hr; GRANT USAGE ON SCHEMA hr TO app, hr;
CREATE SCHEMA vault; GRANT USAGE ON SCHEMA vault TO vault;
CREATE TABLE hr.salaries (person text); INSERT INTO hr.salaries VALUES ('p ${secret}');
CREATE TABLE vault.salaries (person text); INSERT INTO vault.salaries VALUES ('v ${secret}');
GRANT ALL ON hr.salaries TO app, hr; GRANT ALL ON vault.salaries TO vault;
CREATE TABLE public.audit (note text); INSERT INTO public.audit VALUES ('kept'); GRANT ALL ON public.audit TO app;
CREATE TABLE public.notes (note text); INSERT INTO public.notes VALUES ('fine'); GRANT ALL ON public.notes TO app;
`;

/** Put back before each attack, through the gateway, which knows of it at once. */
const schemas = ["mine", "other", "typed", "viewed"];
const ground = `
DROP SCHEMA IF EXISTS old CASCADE; DROP TABLE IF EXISTS public.salaries;
CREATE TABLE mine.salaries (person text); CREATE TABLE mine.audit (note text);
CREATE TYPE typed.line AS (person text); CREATE TABLE typed.salaries OF typed.line;
CREATE VIEW viewed.salaries AS SELECT note AS person FROM mine.audit`;

const allowMine = `  rules:
  - {name: mine, match: {operations: [read, write, define], objects: ["mine", "mine.*"]}, action: Allow}
  - {name: own, match: {operations: [session]}, action: Allow}`;
const policies = [
  policyDocument(
    "shop",
    "dev",
    `  profile: Admin
  rules:
  - {name: closed, match: {objects: ["hr.*", "vault.*"]}, action: Deny}
  - {name: history, match: {operations: [write], objects: ["public.audit"]}, action: Deny}
  - {name: readable, match: {operations: [execute]}, action: Deny}`,
  ),
  policyDocument("shop", "owner", "  profile: Admin"),
  policyDocument("shop", "tenant", allowMine),
  policyDocument(
    "shop",
    "reader",
    `  profile: ReadOnly
  rules: [{name: closed, match: {objects: ["hr.*"]}, action: Deny}]`,
  ),
  // Each may put a name away in one way alone.
  ...Object.entries({
    indexer: `{name: only, match: {commands: ["ALTER INDEX"]}, action: Allow}`,
    typer: `{name: only, match: {commands: ["DROP TYPE"]}, action: Allow}`,
    cascader: `{name: only, match: {commands: ["DROP TABLE"], objects: [mine.audit]}, action: Allow}`,
    mover: `{name: only, match: {commands: ["ALTER SCHEMA"], objects: [mine, "mine.*"]}, action: Allow}`,
  }).map(([user, only]) =>
    policyDocument(
      "shop",
      user,
      `  profile: ReadOnly
  rules: [${only}, {name: own, match: {operations: [session]}, action: Allow}, {name: closed, match: {objects: ["hr.*"]}, action: Deny}]`,
    ),
  ),
  policyDocument(
    "shop",
    "asker",
    `  profile: Admin
  rules:
  - {name: closed, match: {objects: ["hr.*"]}, action: Deny}
  - {name: kept, match: {operations: [define, privilege], cel: '!command.text.contains("please")'}, action: Deny}`,
  ),
].join("");

const bound = (text: string): readonly Uint8Array[] => [parse("", text), bind("q", ""), sync];
const executed: readonly Uint8Array[] = [execute("q"), sync];

const path = "SET search_path = mine, hr";
const asked = "SELECT person FROM salaries";
const setsPath = "set_config('search_path', 'hr, mine', false)";
const immutable = `CREATE FUNCTION mine.f() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
  $$BEGIN PERFORM ${setsPath}; RETURN true; END$$`;
const deferred = `SET search_path = mine; CREATE TABLE mine.late (a int);
  CREATE FUNCTION mine.tf() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM ${setsPath}; RETURN NULL; END$$;
  CREATE CONSTRAINT TRIGGER t AFTER INSERT ON mine.late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mine.tf()`;

/** Code that something is bound to by its number, and another body for it. */
const code = (more: string) => `CREATE OR REPLACE FUNCTION mine.code(int) RETURNS int LANGUAGE plpgsql AS
  $$BEGIN ${more} RETURN $1; END$$`;
const triggerCode = (more: string) => `CREATE OR REPLACE FUNCTION mine.tf() RETURNS trigger
  LANGUAGE plpgsql AS $$BEGIN ${more} RETURN NEW; END$$`;
const writes = "INSERT INTO public.audit VALUES ('x');";

const bindings: Record<string, readonly [made: string, replaced: string, used: string]> = {
  "the function of a trigger": [
    `${triggerCode("")}; CREATE TABLE mine.t (a int);
      CREATE TRIGGER t BEFORE INSERT ON mine.t FOR EACH ROW EXECUTE FUNCTION mine.tf()`,
    triggerCode(writes),
    "INSERT INTO mine.t VALUES (1)",
  ],
  "the condition of a trigger": [
    `${triggerCode("")}; ${code("")}; CREATE TABLE mine.t (a int);
      CREATE TRIGGER t BEFORE INSERT ON mine.t FOR EACH ROW WHEN (mine.code(NEW.a) > 0) EXECUTE FUNCTION mine.tf()`,
    code(writes),
    "INSERT INTO mine.t VALUES (1)",
  ],
  "a default": [
    `${code("")}; CREATE TABLE mine.t (a int, b int DEFAULT mine.code(1))`,
    code(writes),
    "INSERT INTO mine.t (a) VALUES (1)",
  ],
  "a check": [
    `${code("")}; CREATE TABLE mine.t (a int CHECK (mine.code(a) > 0))`,
    code(writes),
    "INSERT INTO mine.t VALUES (1)",
  ],
  "a domain": [
    `${code("")}; CREATE DOMAIN mine.d AS int CHECK (mine.code(VALUE) > 0)`,
    code(writes),
    "SELECT 1::mine.d",
  ],
  "an operator": [
    `${code("")}; CREATE OPERATOR mine.@@@ (RIGHTARG = int, FUNCTION = mine.code)`,
    code(writes),
    "SELECT OPERATOR(mine.@@@) 1",
  ],
};

/** Functions of indexes and statistics must be immutable, and those that they call need not be. */
const computes = (
  body: string,
) => `CREATE OR REPLACE FUNCTION mine.i(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
  $$BEGIN ${body} RETURN $1; END$$`;
const rowsKept = `CREATE TABLE mine.t (a int, b int); INSERT INTO mine.t VALUES (1, 1), (2, 2); ${code(writes)}`;

const putAway: readonly string[] = [
  "DROP TABLE mine.salaries",
  "DROP TABLE salaries, salaries",
  "DROP SCHEMA mine CASCADE",
  "ALTER SCHEMA mine RENAME TO old",
  "ALTER INDEX mine.salaries RENAME TO x",
  "ALTER TABLE mine.salaries SET SCHEMA other",
  "DO $$BEGIN DROP TABLE mine.salaries; END$$",
  "REVOKE ALL ON SCHEMA mine FROM app",
];

const attacks: Record<string, readonly Step[]> = {
  ...Object.fromEntries(
    putAway.flatMap((sql) => [
      [
        `in a transaction: ${sql}`,
        [
          ["A", path],
          ["A", "BEGIN"],
          ["A", sql],
          ["A", asked],
        ],
      ],
      [
        `in one text: ${sql}`,
        [
          ["A", path],
          ["A", `${sql}; ${asked}`],
        ],
      ],
      [
        `in one pipeline: ${sql}`,
        [
          ["A", path],
          ["A", flight(sql, asked)],
        ],
      ],
      [
        `behind a lock: ${sql}`,
        [
          ["A", path],
          ["B", path],
          ["B", "BEGIN"],
          ["B", sql],
          ["A!", asked],
          ["B", "COMMIT"],
        ],
      ],
    ]),
  ),
  "a prepared statement behind a lock": [
    ["A", path],
    ["A", `PREPARE p AS ${asked}`],
    ["B", "BEGIN"],
    ["B", "DROP TABLE mine.salaries"],
    ["A!", "EXECUTE p"],
    ["B", "COMMIT"],
  ],
  "a write to what is closed, by the name of one's own": [
    ["A", "SET search_path = mine, public"],
    ["A", "BEGIN"],
    ["A", "DROP SCHEMA mine CASCADE"],
    ["A", "INSERT INTO audit VALUES ('x')"],
    ["A", "COMMIT"],
  ],
  'a role whose schema "$user" is': [
    ["A", "CREATE TABLE public.salaries (person text)"],
    ["A", "SET ROLE hr"],
    ["A", asked],
    ["A", "RESET ROLE"],
    ["A", "DROP TABLE public.salaries"],
  ],
  'a role whose schema "$user" is, in one text': [["A", `SET ROLE hr; ${asked}`]],
  "a role that may enter what the account may not": [
    ["A", "SET search_path = vault, mine"],
    ["A", "GRANT USAGE ON SCHEMA mine TO vault; GRANT SELECT ON mine.salaries TO vault"],
    ["A", "SELECT set_config('role', 'vault', false)"],
    ["A", asked],
  ],
  "white space that is none to PostgreSQL": ["\u00a0", "\u2003", "\ufeff", "\u3000"].flatMap(
    (space): Step[] => [
      ["A", `SELECT set_config('search_path', 'mine${space},hr', false)`],
      ["A", asked],
    ],
  ),
  "commas within the quotes of a function's path": [
    ["A", "CREATE TABLE mine.aside (a int)"],
    [
      "A",
      `CREATE FUNCTION mine.f() RETURNS SETOF text LANGUAGE sql SET search_path = 'zz,mine,zz', hr AS '${asked}'`,
    ],
    ["A", "SELECT mine.f()"],
  ],
  "a function with a path of its own, not yet committed": [
    ["A", "SET search_path = mine"],
    ["A", "BEGIN"],
    ["A", `CREATE FUNCTION mine.f() RETURNS SETOF text LANGUAGE sql SET search_path = hr AS '${asked}'`],
    ["A", "SELECT mine.f()"],
  ],
  "a cursor that sets the path when it is fetched": [
    ["A", "BEGIN"],
    ["A", `DECLARE c CURSOR FOR SELECT ${setsPath}`],
    ["A", "SET search_path = mine"],
    ["A", `FETCH c; ${asked}`],
    ["A", "ROLLBACK"],
    ["A", "BEGIN"],
    ["A", `DECLARE c CURSOR FOR SELECT ${setsPath}`],
    ["A", "SET search_path = mine"],
    ["A", "FETCH c"],
    ["A", asked],
  ],
  "a cursor that a function opens, and that sets the path when it is fetched": [
    [
      "A",
      `CREATE FUNCTION mine.f(c refcursor) RETURNS void LANGUAGE plpgsql AS
        $$BEGIN OPEN c FOR SELECT ${setsPath}; END$$`,
    ],
    ["A", "BEGIN"],
    ["A", "SELECT mine.f('c')"],
    ["A", "SET search_path = mine"],
    ["A", "FETCH c"],
    ["A", asked],
  ],
  "a held cursor that sets the path at commit": [
    ["A", "BEGIN"],
    ["A", `DECLARE c CURSOR WITH HOLD FOR SELECT ${setsPath}`],
    ["A", "SET search_path = mine"],
    ["A", `COMMIT; ${asked}`],
    ["A", asked],
  ],
  "a deferred trigger that sets the path at commit": [
    ["A", deferred],
    ["A", "BEGIN"],
    ["A", "INSERT INTO mine.late VALUES (1)"],
    ["A", "SET search_path = mine"],
    ["A", `COMMIT; ${asked}`],
    ["A", asked],
  ],
  "a deferred trigger that sets the path before": [
    ["A", deferred],
    ["A", "BEGIN"],
    ["A", "INSERT INTO mine.late VALUES (1)"],
    ["A", "SET search_path = mine"],
    ["A", "SET CONSTRAINTS ALL IMMEDIATE"],
    ["A", asked],
  ],
  "a function that a plan runs": [
    ["A", immutable],
    ["A", "SET search_path = mine"],
    ["A", `EXPLAIN SELECT 1 FROM public.notes WHERE mine.f(); ${asked}`],
    ["A", "BEGIN"],
    ["A", "EXPLAIN SELECT mine.f()"],
    ["A", asked],
  ],
  "a function that Bind runs": [
    ["A", immutable],
    ["A", "SET search_path = mine"],
    ["A", [parse("", "SELECT mine.f()"), bind("", ""), parse("", asked), bind("", ""), execute(), sync]],
  ],
  "a prepared statement that sets the path": [
    ["A", immutable.replace("IMMUTABLE", "VOLATILE")],
    ["A", "PREPARE p AS SELECT mine.f()"],
    ["A", "SET search_path = mine"],
    ["A", `EXECUTE p; ${asked}`],
  ],
  "a portal that sets the path and is suspended": [
    ["A", "SET search_path = mine"],
    ["A", "BEGIN"],
    [
      "A",
      [
        parse("", "SELECT set_config('search_path', v, false) FROM (VALUES ('hr'), ('mine')) x (v)"),
        bind("q", ""),
        execute("q", 1),
        parse("", asked),
        bind("", ""),
        execute(),
        sync,
      ],
    ],
  ],
  ...Object.fromEntries(
    [
      "COPY salaries TO STDOUT",
      `COPY (${asked}) TO STDOUT`,
      "TRUNCATE salaries",
      "EXPLAIN (ANALYZE) TABLE salaries",
      "CREATE TEMP TABLE x AS TABLE salaries",
      `DECLARE c CURSOR FOR ${asked}`,
    ].map((sql) => [
      `a portal that looks its names up when it runs: ${sql}`,
      [
        ["A", "SET search_path = mine"],
        ["A", "BEGIN"],
        ["A", bound(sql)],
        ["A", "SET search_path = hr"],
        ["A", executed],
        ["A", "COMMIT"],
      ],
    ]),
  ),
  "a table of a temporary type, which goes with it": [
    ["A", "DROP TABLE mine.salaries; CREATE TYPE pg_temp.line AS (person text)"],
    ["A", `CREATE TABLE mine.salaries OF pg_temp.line; ${path}`],
    ["A", "DISCARD TEMP"],
    ["A", asked],
  ],
  "a path that a rollback in the pipeline brings back": [
    ["A", "SET search_path = hr"],
    ["A", "BEGIN"],
    ["A", "SAVEPOINT s"],
    ["A", "SET search_path = mine"],
    ["A", flight("ROLLBACK TO s", asked)],
    ["A", "ROLLBACK"],
    ["A", "BEGIN"],
    ["A", "SET search_path = mine"],
    ["A", flight("ROLLBACK", asked)],
  ],
  "a path that a commit in the pipeline brings back": [
    ["A", "SET search_path = hr"],
    ["A", "BEGIN"],
    ["A", "SET LOCAL search_path = mine"],
    ["A", flight("COMMIT", asked)],
  ],
  "a prepared statement that was described while its name meant another": [
    ["A", "CREATE TEMP TABLE aside (a int); CREATE TEMP TABLE salaries (person text)"],
    ["A", "SET search_path = hr"],
    ["A", [parse("p", asked), sync]],
    ["A", "DROP TABLE pg_temp.salaries"],
    ["A", [frame("D", "Sp\0"), sync]],
    ["A", "CREATE TEMP TABLE salaries (person text)"],
    ["A", [bind("", "p"), execute(), sync]],
    ["A", "EXECUTE p"],
  ],
  "a prepared statement that was explained while its name meant another": [
    ["A", "CREATE TEMP TABLE aside (a int); CREATE TEMP TABLE audit (note text)"],
    ["A", "PREPARE p AS INSERT INTO audit VALUES ('x')"],
    ["A", "DROP TABLE pg_temp.audit"],
    ["A", "EXPLAIN EXECUTE p"],
    ["A", "CREATE TEMP TABLE audit (note text)"],
    ["A", "EXECUTE p"],
    ["A", [bind("", "p"), execute(), sync]],
  ],
  ...Object.fromEntries(
    Object.entries(bindings).flatMap(([what, [made, replaced, used]]) => [
      [
        `${what}, replaced in the transaction`,
        [
          ["A", made],
          ["A", "BEGIN"],
          ["A", replaced],
          ["A", used],
          ["A", "COMMIT"],
        ],
      ],
      [
        `${what}, replaced in one text`,
        [
          ["A", made],
          ["A", `${replaced}; ${used}`],
        ],
      ],
      [
        `${what}, replaced in one pipeline`,
        [
          ["A", made],
          ["A", flight(replaced, used)],
        ],
      ],
    ]),
  ),
  ...Object.fromEntries(
    ["COMMIT", "SET CONSTRAINTS ALL IMMEDIATE"].map((sql) => [
      `the function of a deferred trigger, replaced before ${sql}`,
      [
        ["A", `${triggerCode("")}; CREATE TABLE mine.t (a int)`],
        [
          "A",
          `CREATE CONSTRAINT TRIGGER t AFTER INSERT ON mine.t DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION mine.tf()`,
        ],
        ["A", "BEGIN"],
        ["A", "INSERT INTO mine.t VALUES (1)"],
        ["A", triggerCode(writes)],
        ["A", sql],
        ["A", "COMMIT"],
      ],
    ]),
  ),
  ...Object.fromEntries(
    [
      [code(writes), "FETCH c"],
      [code(writes), "COMMIT"],
      [`DO $do$BEGIN ${code(writes)}; END$do$`, "FETCH c"],
      ["ALTER FUNCTION mine.code(int) SET search_path = public", "FETCH c"],
    ].map(([replaced = "", sql = ""]) => [
      `the function of a cursor, changed before ${sql}: ${replaced}`,
      [
        ["A", "SET search_path = mine"],
        ["A", code("INSERT INTO audit VALUES ('x');")],
        ["A", "ALTER FUNCTION mine.code(int) SET search_path = mine"],
        ["A", "BEGIN"],
        ["A", "DECLARE c CURSOR WITH HOLD FOR SELECT mine.code(1)"],
        ["A", replaced],
        ["A", sql],
        ["A", "COMMIT"],
      ],
    ]),
  ),
  "a function that a cursor's function calls by its name, which another one gets": [
    ["A", "CREATE FUNCTION mine.g() RETURNS int LANGUAGE plpgsql AS $$BEGIN RETURN 1; END$$"],
    ["A", `CREATE FUNCTION mine.h() RETURNS int LANGUAGE plpgsql AS $$BEGIN ${writes} RETURN 1; END$$`],
    ["A", code("PERFORM mine.g();")],
    ["A", "BEGIN"],
    ["A", "DECLARE c CURSOR FOR SELECT mine.code(1)"],
    ["A", "ALTER FUNCTION mine.g() RENAME TO g_old"],
    ["A", "ALTER FUNCTION mine.h() RENAME TO g"],
    ["A", "FETCH c"],
    ["A", "COMMIT"],
  ],
  "the function of a cursor, replaced by what was bound before": [
    ["A", "SET search_path = mine"],
    ["A", code("")],
    ["A", "BEGIN"],
    ["A", bound(code(writes))],
    ["A", "DECLARE c CURSOR FOR SELECT mine.code(1)"],
    ["A", executed],
    ["A", "FETCH c"],
    ["A", "COMMIT"],
  ],
  ...Object.fromEntries(
    ["ANALYZE mine.t", "ANALYZE", "VACUUM (ANALYZE) mine.t"].map((sql) => [
      `statistics that are computed: ${sql}`,
      [
        ["A", rowsKept],
        ["A", computes("PERFORM mine.code(1);")],
        ["A", "CREATE STATISTICS mine.s ON (mine.i(a)), b FROM mine.t"],
        ["A", sql],
      ],
    ]),
  ),
  ...Object.fromEntries(
    [
      "REINDEX TABLE mine.t",
      "REINDEX INDEX mine.x",
      "REINDEX SCHEMA mine",
      "VACUUM FULL mine.t",
      "CLUSTER mine.t USING x",
      "ANALYZE mine.t",
    ].map((sql) => [
      `an index that is computed: ${sql}`,
      [
        ["A", rowsKept],
        ["A", computes("")],
        ["A", "CREATE INDEX x ON mine.t (mine.i(a))"],
        ["A", computes("PERFORM mine.code(1);")],
        ["A", sql],
      ],
    ]),
  ),
  "a temporary table's index that is computed": [
    ["A", rowsKept],
    ["A", computes("")],
    ["A", "CREATE TEMP TABLE tt AS TABLE mine.t; CREATE INDEX ON tt (mine.i(a))"],
    ["A", computes("PERFORM mine.code(1);")],
    ["A", "ANALYZE"],
    ["A", "ANALYZE tt"],
  ],
  "a portal of EXECUTE, whose statement has become another": [
    ["A", "SET search_path = mine"],
    ["A", "BEGIN"],
    ["A", `PREPARE p AS ${asked}`],
    ["A", bound("EXECUTE p")],
    ["A", "DEALLOCATE p; SET search_path = hr"],
    ["A", executed],
  ],
};

const byTenant: Record<string, readonly Step[]> = {
  "in a transaction": [
    ["A", path],
    ["A", "BEGIN"],
    ["A", "DROP TABLE mine.salaries"],
    ["A", asked],
  ],
  "behind a lock": [
    ["A", path],
    ["B", "BEGIN"],
    ["B", "DROP TABLE mine.salaries"],
    ["A!", asked],
    ["B", "COMMIT"],
  ],
};

/** Those who may put the first relation away in one way that is easily forgotten. */
const oneWay: readonly (readonly [user: string, schema: string, sql: string])[] = [
  ["asker", "mine", "DROP TABLE mine.salaries -- please"],
  ["indexer", "mine", "ALTER INDEX mine.salaries RENAME TO x"],
  ["typer", "typed", "DROP TYPE typed.line CASCADE"],
  ["cascader", "viewed", "DROP TABLE mine.audit CASCADE"],
  ["mover", "mine", "ALTER SCHEMA mine RENAME TO old"],
];

const allowed: readonly (readonly ["dev" | "reader" | "tenant", ...string[]])[] = [
  // Who may put nothing away is judged by what a name means now.
  ["reader", "SET search_path = mine, hr", asked, "PREPARE p AS SELECT person FROM salaries", "EXECUTE p"],
  [
    "dev",
    "SET search_path = mine, public",
    asked,
    "SELECT note FROM notes",
    "EXPLAIN SELECT note FROM notes",
  ],
  ["dev", "CREATE TEMP TABLE salaries (person text)", asked, "BEGIN", "SET search_path = hr", "ROLLBACK"],
  [
    "dev",
    "SET ROLE hr",
    "RESET ROLE",
    "SELECT note FROM public.notes",
    "SET search_path = public",
    "TABLE notes",
  ],
  [
    "dev",
    "SET search_path = mine",
    "BEGIN",
    "DECLARE c CURSOR FOR SELECT person FROM salaries",
    "FETCH c",
    asked,
    "COMMIT",
  ],
  ["dev", "SELECT set_config('search_path', '\"mine\", Public', false)", asked, "TABLE notes"],
  [
    "dev",
    "SET search_path = mine",
    "BEGIN",
    "DROP TABLE salaries",
    "CREATE TABLE salaries (person text)",
    asked,
    "COMMIT",
  ],
  [
    "dev",
    `CREATE FUNCTION mine.g() RETURNS SETOF text LANGUAGE sql SET search_path = mine, pg_temp AS '${asked}'`,
    "SELECT mine.g()",
  ],
  // Whoever may keep tables in order may have functions run that only compute.
  [
    "dev",
    "CREATE TABLE mine.t (a int); CREATE INDEX ON mine.t (abs(a))",
    computes(""),
    "CREATE INDEX ON mine.t (mine.i(a)); CREATE STATISTICS mine.s ON (mine.i(a)), a FROM mine.t",
    "ANALYZE mine.t",
    "ANALYZE",
    "REINDEX TABLE mine.t",
  ],
  // A temporary table of one's own, by its name and prepared.
  [
    "dev",
    "SET search_path = public",
    "CREATE TEMP TABLE audit (note text)",
    "INSERT INTO audit VALUES ('x')",
    "PREPARE p AS INSERT INTO pg_temp.audit VALUES ('x')",
    "EXECUTE p",
  ],
  [
    "tenant",
    "SET search_path = mine",
    asked,
    "ALTER TABLE salaries ADD COLUMN more int",
    "INSERT INTO salaries VALUES ('x', 1)",
  ],
];

describe.each(versionsUnderTest)("PostgreSQL %i", (version) => {
  const sessions = sessionsOverTime({ version, initSql, policies, schemas, ground });

  const kept = () =>
    sessions.server.query(
      "SELECT (SELECT count(*) FROM hr.salaries) AS salaries, (SELECT string_agg(note, ',') FROM public.audit) AS audit",
    );
  const closed = async (user: string, steps: readonly Step[]) => {
    const before = await kept();
    const seen = await sessions.play(user, steps);
    expect(seen.filter(({ body }) => body.includes(secret))).toEqual([]);
    expect(await kept()).toEqual(before);
    expect(errorsIn(seen)).not.toEqual([]);
  };

  test.each(Object.entries(attacks))("is closed: %s", (_, steps) => closed("dev", steps));

  test("who is refused over the second relation of a name reads what to do", async () => {
    const seen = await sessions.play("dev", [
      ["A", path],
      ["A", asked],
      ["A", asked.replace("salaries", "mine.salaries")],
    ]);
    expect(seen.filter(({ type }) => type === "E").map(({ fields }) => [fields.M, fields.H])).toEqual([
      [
        "SELECT on hr.salaries is denied by rule closed of policy dev",
        expect.stringMatching(/^Name the schema/),
      ],
    ]);
  });

  test.each(Object.entries(byTenant))("is closed to whom nothing denies it: %s", (_, steps) =>
    closed("tenant", steps),
  );

  test.each(oneWay)("is closed to %s, with %s in front, who may: %s", async (user, schema, sql) => {
    const path = `SET search_path = ${schema}, hr`;
    await closed(user, [
      ["A", path],
      ["A", "BEGIN"],
      ["A", sql],
      ["A", asked],
    ]);
    await closed(user, behindLock([path], [sql], asked));
  });

  test.each(allowed)("%s may: %s", async (user, ...texts) => {
    // What code once hung on temporary tables counts until a session ends.
    await sessions.close();
    const seen = await sessions.play(
      user,
      texts.map((text): Step => ["A", text]),
    );
    expect(errorsIn(seen)).toEqual([]);
  });
});
