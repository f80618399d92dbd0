/**
 * What everything rests on, on the oldest server that is supported: every other scenario runs on the newest unless
 * SALLYPORT_POSTGRES says otherwise, and an old server reports less, knows fewer messages and has other catalogs.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { versionsUnderTest } from "../targets/postgres.ts";
import { type Shop, startShop } from "../targets/shop.ts";
import {
  bind,
  cancelRequest,
  execute,
  frame,
  keyOf,
  parse,
  password,
  query,
  type ServerMessage,
  startup,
  WireClient,
} from "../targets/wire-client.ts";

const [version = 14] = versionsUnderTest.toSorted((a, b) => a - b);
let shop: Shop;
const tables = `
  CREATE TABLE note (n int PRIMARY KEY, word text);
  CREATE TABLE payroll (n int);
  INSERT INTO payroll VALUES (1);
  CREATE SCHEMA hr;
  CREATE TABLE hr.note (n int, secret text);
  INSERT INTO hr.note VALUES (7, 'of hr');
  CREATE TABLE person (n int, mail text, loud text GENERATED ALWAYS AS (upper(mail)) STORED);
  INSERT INTO person VALUES (1, 'ann@example.com');
  CREATE VIEW people AS SELECT loud FROM person;
  CREATE FUNCTION hr.more(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + (SELECT max(n) FROM hr.note)';
  CREATE TABLE wage (n int, salary int, bonus int CHECK (bonus < salary), grade int, UNIQUE (salary, grade), at int);
  CREATE UNIQUE INDEX ON wage (at) WHERE salary > 100;
  INSERT INTO wage VALUES (1, 99, 2, 3, 4);
  CREATE VIEW paid AS SELECT n AS k, bonus AS b FROM wage;
  CREATE TABLE counted (n int, m int GENERATED ALWAYS AS (hr.more(n)) STORED);`;

beforeAll(async () => {
  shop = await startShop({
    version,
    initSql: tables,
    policies: `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: all}
spec:
  resources: {names: [shop]}
  subjects: [{user: "local:ann"}, {user: "local:bounded"}, {user: "local:masked"}]
  profile: Admin
  rules:
    - {name: closed, match: {objects: ["public.payroll", "hr.note"]}, action: Deny}
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: bounded}
spec:
  resources: {names: [shop]}
  subjects: [{user: "local:bounded"}]
  profile: Admin
  limits: {rows: 3, affectedRows: 2}
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: masked}
spec:
  resources: {names: [shop]}
  subjects: [{user: "local:masked"}]
  profile: Admin
  rules:
    - {name: closed, match: {objects: ["hr.note"]}, action: Deny}
  masking:
    - {columns: [public.person.mail, public.wage.salary], with: Redact}
`,
  });
});
afterAll(() => shop?.stop());

const sync = frame("S");

async function ask(client: WireClient, ...messages: Uint8Array[]): Promise<string> {
  client.send(...messages);
  return brief(await client.until("Z"));
}
const sql = (client: WireClient, text: string) => ask(client, query(text));

/** Letters of the answers, with SQLSTATE, tag, status, or a row's first value. */
function brief(messages: readonly ServerMessage[]): string {
  return messages
    .filter(({ type }) => type !== "S")
    .map(({ type, body, fields }) => {
      if (type === "E" || type === "N") return `${type}${fields.C}`;
      if (type === "C") return `C(${body.toString("utf8", 0, body.length - 1)})`;
      if (type === "Z") return `Z${body.toString()}`;
      if (type === "D") return `D${body.toString("utf8", 6, 6 + body.readInt32BE(2))}`;
      return type;
    })
    .join(" ");
}

const kept = async () => (await shop.server.query("SELECT n FROM note ORDER BY n")).map(({ n }) => n);

async function session(user = "ann"): Promise<WireClient> {
  await shop.server.query("TRUNCATE note");
  return shop.logIn({ user });
}

describe(`PostgreSQL ${version}`, () => {
  it("lets people in as who they are, and nobody else", async () => {
    expect(shop.server.version).toBe(version);
    const client = await session();
    const seen =
      "SELECT split_part(application_name, '/', 1) FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    expect(await sql(client, seen)).toBe("T Dlocal:ann C(SELECT 1) ZI");
    expect(await sql(client, "SHOW server_version_num")).toMatch(new RegExp(`^T D${version}`));
    client.close();
    const stranger = await shop.secured();
    stranger.send(startup({ user: "shop", database: "shop" }), password("no token"));
    expect(brief(await stranger.untilClosed())).toBe("R E28000");
  });

  it("masks what is computed of a masked column, and knows what computes it", async () => {
    const client = await session("masked");
    expect(await sql(client, "SELECT mail FROM person")).toBe("T D*** C(SELECT 1) ZI");
    expect(await sql(client, "SELECT loud FROM person")).toBe("T D*** C(SELECT 1) ZI");
    expect(await sql(client, "SELECT loud FROM people")).toBe("T D*** C(SELECT 1) ZI");
    expect(await sql(client, "SELECT n FROM person WHERE loud < 'B'")).toBe("E42501 ZI");
    expect(await sql(client, "COPY person (loud) TO STDOUT")).not.toContain("ANN");
    expect(await sql(client, "INSERT INTO counted VALUES (1)")).toBe("E42501 ZI");
    client.close();
  });

  it("does not tell of a masked column by what a constraint takes together with it", async () => {
    const client = await session("masked");
    for (const set of ["bonus = 50", "grade = 3", "at = 4", "n = 2, bonus = 50"]) {
      expect(await sql(client, `UPDATE wage SET ${set}`), set).toBe("E42501 ZI");
    }
    expect(await sql(client, "UPDATE paid SET b = 50")).toBe("E42501 ZI");
    expect(await sql(client, "UPDATE wage SET n = 2")).toBe("C(UPDATE 1) ZI");
    await sql(client, "ALTER TABLE wage DROP CONSTRAINT wage_check");
    expect(await sql(client, "UPDATE wage SET bonus = 50")).toBe("C(UPDATE 1) ZI");
    client.close();
  });

  it("tells a login's failure at the server without the account that the gateway has there", async () => {
    const client = await shop.secured();
    client.send(startup({ user: "shop", database: "nowhere" }));
    client.send(password(shop.gateway.issuer.token({ user: "ann" })));
    const answer = await client.untilClosed();
    expect(brief(answer)).toBe("R E3D000");
    expect(answer.at(-1)?.body.toString()).not.toContain("postgres");
  });

  it("refuses a simple query as the server would, and the connection goes on", async () => {
    const client = await session();
    expect(await sql(client, "SELECT * FROM payroll")).toBe("E42501 ZI");
    expect(await sql(client, "INSERT INTO note VALUES (1); SELECT * FROM payroll")).toBe("E42501 ZI");
    expect(await sql(client, "BEGIN")).toBe("C(BEGIN) ZT");
    expect(await sql(client, "INSERT INTO note VALUES (2)")).toBe("C(INSERT 0 1) ZT");
    expect(await sql(client, "SAVEPOINT a")).toBe("C(SAVEPOINT) ZT");
    expect(await sql(client, "DELETE FROM payroll WHERE n = 1")).toBe("E42501 ZE");
    expect(await sql(client, "SELECT 1")).toBe("E25P02 ZE");
    expect(await sql(client, "ROLLBACK TO a")).toBe("C(ROLLBACK) ZT");
    expect(await sql(client, "COMMIT")).toBe("C(COMMIT) ZI");
    expect(await kept()).toEqual([2]);
    client.close();
  });

  it("refuses at Parse and skips to Sync, and what stands before it in the pipeline is undone", async () => {
    const client = await session();
    const insert = [parse("", "INSERT INTO note VALUES ($1)", [23]), bind("", "", "1"), execute()];
    const refused = [parse("", "SELECT n FROM payroll"), bind("", ""), frame("D", "P\0"), execute()];
    expect(await ask(client, ...insert, ...refused, ...insert, sync)).toBe("1 2 C(INSERT 0 1) E42501 ZI");
    expect(await kept()).toEqual([]);
    expect(await ask(client, ...insert, sync)).toBe("1 2 C(INSERT 0 1) ZI");
    client.send(...refused, frame("H"));
    expect(brief(await client.until("E"))).toBe("E42501");
    expect(await ask(client, sync)).toBe("ZI");
    expect(await kept()).toEqual([1]);
    client.close();
  });

  it("answers a deep pipeline in order, refusals in their places", async () => {
    const client = await session();
    const many = Array.from({ length: 300 }, (_, n) =>
      n % 100 === 50
        ? [parse("", "TABLE payroll"), bind("", ""), execute(), sync]
        : [parse("", `INSERT INTO note VALUES (${n}) RETURNING n`), bind("", ""), execute(), sync],
    );
    client.send(...many.flat());
    for (let n = 0; n < 300; n += 1) {
      const wanted = n % 100 === 50 ? "E42501 ZI" : `1 2 D${n} C(INSERT 0 1) ZI`;
      expect(brief(await client.until("Z"))).toBe(wanted);
    }
    expect(await kept()).toHaveLength(297);
    client.close();
  });

  it("knows at every moment what an unqualified name means, whether the server reports search_path or not", async () => {
    const client = await session();
    const refused = "E42501 ZI";
    const empty = "T C(SELECT 0) ZI";
    // Since 18 the server says where an expression has led; before, nothing that depends on it is let through.
    const unfollowed = version >= 18 ? refused : "E0A000 ZI";
    expect(await sql(client, "SELECT * FROM note")).toBe(empty);
    await sql(client, "SET search_path = hr, public");
    expect(await sql(client, "SELECT * FROM note")).toBe(refused);
    await sql(client, "RESET search_path");
    expect(await sql(client, "SELECT * FROM note")).toBe(empty);
    await sql(client, "SELECT set_config('search_path', 'hr', false)");
    expect(await sql(client, "SELECT * FROM note")).toBe(refused);
    await sql(client, "RESET ALL");
    expect(await sql(client, "SELECT * FROM note")).toBe(empty);
    await sql(client, "BEGIN");
    await sql(client, "SET LOCAL search_path = hr");
    expect(await sql(client, "SELECT * FROM note")).toBe("E42501 ZE");
    await sql(client, "ROLLBACK");
    expect(await sql(client, "SELECT * FROM note")).toBe(empty);
    await sql(client, "BEGIN");
    await sql(client, "SET search_path = hr");
    await sql(client, "SAVEPOINT a");
    await sql(client, "SET search_path TO DEFAULT");
    expect(await sql(client, "SELECT * FROM note")).toBe("T C(SELECT 0) ZT");
    await sql(client, "ROLLBACK TO a");
    expect(await sql(client, "SELECT * FROM note")).toBe("E42501 ZE");
    await sql(client, "ROLLBACK");
    await sql(client, "SET search_path = hr");
    await sql(client, "DISCARD ALL");
    expect(await sql(client, "SELECT * FROM note")).toBe(empty);
    await sql(client, "SELECT set_config('search_path', 'h' || 'r', false)");
    expect(await sql(client, "SELECT * FROM note")).toBe(unfollowed);
    expect(await sql(client, "SELECT * FROM public.note")).toBe(empty);
    await sql(client, "DO $$BEGIN PERFORM set_config('search_path', 'hr', false); END$$");
    expect(await sql(client, "SELECT * FROM note")).toBe(unfollowed);
    await sql(client, "SET search_path = public");
    expect(await sql(client, "SELECT * FROM note")).toBe(empty);
    client.close();
  });

  it("takes the path that a client, its account or its database begins with", async () => {
    await shop.server.query("CREATE DATABASE other", [], "postgres");
    await shop.server.query(tables, [], "other");
    await shop.server.query("ALTER DATABASE other SET search_path = hr", [], "postgres");
    const begin = async (parameters: Record<string, string>) => {
      const client = await shop.secured();
      client.send(startup({ user: "shop", ...parameters }));
      client.send(password(shop.gateway.issuer.token({ user: "ann" })));
      await client.until("Z");
      return client;
    };
    for (const parameters of [{ database: "other" }, { database: "shop", options: "-c search_path=hr" }]) {
      const client = await begin(parameters);
      expect(await sql(client, "SELECT * FROM note")).toBe("E42501 ZI");
      await sql(client, "SET search_path = public");
      expect(await sql(client, "SELECT * FROM note")).toBe("T C(SELECT 0) ZI");
      await sql(client, "RESET search_path");
      expect(await sql(client, "SELECT * FROM note")).toBe("E42501 ZI");
      client.close();
    }
  });

  it("sees what others define, and what a transaction has made, renamed and dropped", async () => {
    const client = await session();
    expect(await sql(client, "SELECT * FROM made")).toBe("E42P01 ZI");
    await shop.server.query("CREATE TABLE made (m int); CREATE VIEW pay AS SELECT * FROM payroll");
    await expect.poll(() => sql(client, "SELECT m FROM made")).toBe("T C(SELECT 0) ZI");
    expect(await sql(client, "SELECT * FROM pay")).toBe("E42501 ZI");
    expect(
      await sql(client, "BEGIN; CREATE TABLE fresh (f int); ALTER TABLE fresh RENAME TO fresher"),
    ).toContain("ZT");
    expect(await sql(client, "SELECT f FROM fresher")).toBe("T C(SELECT 0) ZT");
    expect(await sql(client, "ROLLBACK")).toBe("C(ROLLBACK) ZI");
    expect(await sql(client, "SELECT f FROM fresher")).toBe("E42P01 ZI");
    await shop.server.query("DROP VIEW pay; DROP TABLE made");
    client.close();
  });

  it("cancels by the keys that it gave, of both lengths, and by no other", async () => {
    for (const protocol of [0x30000, 0x30002]) {
      const client = await shop.secured();
      client.send(startup({ user: "shop", database: "shop" }, protocol));
      client.send(password(shop.gateway.issuer.token({ user: "ann" })));
      const key = keyOf(await client.until("Z"));
      expect(key.length).toBe(protocol === 0x30000 ? 8 : 36);
      client.send(query("SELECT pg_sleep(73)"));
      const running =
        "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(73)' AND state = 'active'";
      await expect.poll(() => shop.server.query(running)).toHaveLength(1);
      for (const sent of [Buffer.concat([key.subarray(0, 4), Buffer.alloc(key.length - 4, 1)]), key]) {
        const canceller = await WireClient.connect(shop.gateway.port);
        canceller.send(cancelRequest(sent));
        expect(await canceller.untilClosed()).toEqual([]);
        if (sent !== key) expect(await shop.server.query(running)).toHaveLength(1);
      }
      expect(brief(await client.until("Z"))).toBe("T E57014 ZI");
      client.close();
    }
  });

  it("copies in and out, in text and binary, and recovers from errors in the middle", async () => {
    const client = await session();
    const rows = [frame("d", "1\tone\n2\ttwo\n"), frame("d", "3\tthree\n"), frame("c")];
    expect(await ask(client, query("COPY note FROM STDIN"), ...rows)).toBe("G C(COPY 3) ZI");
    const binary = "COPY note TO STDOUT (FORMAT binary)";
    client.send(query(binary));
    const data = (await client.until("Z"))
      .filter(({ type }) => type === "d")
      .map(({ body }) => frame("d", body));
    await shop.server.query("TRUNCATE note");
    expect(await ask(client, query("COPY note FROM STDIN BINARY"), ...data, frame("c"))).toBe(
      "G C(COPY 3) ZI",
    );
    expect(await kept()).toEqual([1, 2, 3]);
    const garbage = [frame("d", "x\ty\n"), frame("d", "9\tz\n"), frame("c")];
    expect(await ask(client, query("COPY note FROM STDIN"), ...garbage)).toBe("G E22P02 ZI");
    expect(await ask(client, query("COPY note FROM STDIN"), frame("f", "enough\0"))).toBe("G E57014 ZI");
    const portal = [parse("", "COPY note TO STDOUT"), bind("", ""), execute(), sync];
    expect(await ask(client, ...portal)).toBe("1 2 H d d d c C(COPY 3) ZI");
    expect(await sql(client, "COPY payroll TO STDOUT")).toBe("E42501 ZI");
    expect(await ask(client, query("COPY payroll FROM STDIN"), frame("d", "5\n"), frame("c"))).toBe(
      "E42501 ZI",
    );
    expect(await kept()).toEqual([1, 2, 3]);
    client.close();
  });

  it("ends what goes beyond the limits on rows, and undoes writes beyond them", async () => {
    const client = await session("bounded");
    expect(await sql(client, "INSERT INTO note VALUES (1), (2)")).toBe("C(INSERT 0 2) ZI");
    expect(await sql(client, "SELECT generate_series(1, 3)")).toBe("T D1 D2 D3 C(SELECT 3) ZI");
    const tooMany = await sql(client, "SELECT generate_series(1, 4)");
    expect(tooMany).toBe("T D1 D2 D3 E54G01 ZI");
    expect(await sql(client, "INSERT INTO note VALUES (3), (4), (5)")).toBe("E54G02 ZI");
    expect(await kept()).toEqual([1, 2]);
    const portal = [parse("", "SELECT generate_series(1, 9)"), bind("", ""), execute("", 2), execute("", 2)];
    expect(await ask(client, ...portal, sync)).toBe("1 2 D1 D2 s D3 E54G01 ZI");
    client.close();
  });
});
