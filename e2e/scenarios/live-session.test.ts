/** What happens to a session after login: reloads, withdrawn access, deadlines, cancel, drain, and a lost peer. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";

let server: PostgresServer;
let gateway: Gateway;

const policy = (body: string, name = "all") => `---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: ${name}}
spec:
  resources: {names: [shop]}
${body}
`;
const readWrite = policy(`  subjects: [{group: "local:staff"}]
  profile: ReadWrite
  rules:
  - {name: functions, match: {operations: [execute, define, control]}, action: Allow}`);
const ann = { user: "ann", groups: ["staff"] };

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    database: "shop",
    initSql:
      "CREATE TABLE orders (id int, note text); INSERT INTO orders SELECT n, 'note' FROM generate_series(1, 100) n;",
  });
  gateway = await startGateway({ server, policies: readWrite });
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

async function sqlstateOf(promise: Promise<unknown>): Promise<string | undefined> {
  try {
    await promise;
    return undefined;
  } catch (error) {
    return (error as pg.DatabaseError).code ?? String(error);
  }
}

/** Resolves with the SQLSTATE of the FATAL error that ends an idle session. */
function endOf(client: pg.Client): Promise<string | undefined> {
  return new Promise((resolve) => {
    client.on("error", (error) => {
      if (error instanceof pg.DatabaseError && error.code !== undefined) resolve(error.code);
    });
    client.on("end", () => resolve(undefined));
  });
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  const line = text.split("\n").find((each) => each.startsWith(name));
  return Number(line?.split(" ").at(-1));
}

describe("a reload", () => {
  it("reaches a live session: a new Deny holds for its next statement", async () => {
    const client = await gateway.connect(ann);
    expect((await client.query("SELECT count(*)::int AS n FROM orders")).rows).toEqual([{ n: 100 }]);
    await gateway.write(
      "policies.yaml",
      readWrite +
        policy(
          `  subjects: [{group: "local:staff"}]
  rules: [{name: closed, match: {objects: ["public.orders"]}, action: Deny, message: closed for stocktaking}]`,
          "closed",
        ),
    );
    await vi.waitFor(
      async () => expect(await sqlstateOf(client.query("SELECT count(*) FROM orders"))).toBe("42501"),
      { timeout: 10_000, interval: 100 },
    );
    await gateway.write("policies.yaml", readWrite);
    await vi.waitFor(async () => void (await client.query("SELECT count(*) FROM orders")), {
      timeout: 10_000,
    });
    await client.end();
  });

  it("reaches a statement that was prepared before it (C8)", async () => {
    const client = await gateway.connect(ann);
    const prepared = { name: "count", text: "SELECT count(*) FROM orders" };
    await client.query(prepared);
    await gateway.write(
      "policies.yaml",
      readWrite +
        policy(
          `  subjects: [{group: "local:staff"}]
  rules: [{name: closed, match: {objects: ["public.orders"]}, action: Deny}]`,
          "closed",
        ),
    );
    await vi.waitFor(async () => expect(await sqlstateOf(client.query(prepared))).toBe("42501"), {
      timeout: 10_000,
    });
    await gateway.write("policies.yaml", readWrite);
    await vi.waitFor(async () => void (await client.query(prepared)), { timeout: 10_000 });
    await client.end();
  });

  it("of broken manifests keeps the last accepted set, and the metrics say so", async () => {
    const client = await gateway.connect(ann);
    await gateway.write(
      "policies.yaml",
      "kind: AccessPolicy\napiVersion: sallyport.dev/v1alpha1\nspec: [nonsense",
    );
    await vi.waitFor(async () => expect(await metric("sallyport_manifests_accepted")).toBe(0), {
      timeout: 10_000,
    });
    expect((await client.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    const other = await gateway.connect(ann);
    await other.end();
    await gateway.write("policies.yaml", readWrite);
    await vi.waitFor(async () => expect(await metric("sallyport_manifests_accepted")).toBe(1), {
      timeout: 10_000,
    });
    await client.end();
  });

  it("that withdraws access ends the session with 57P01", async () => {
    const client = await gateway.connect(ann);
    const ended = endOf(client);
    await gateway.write(
      "policies.yaml",
      policy(`  subjects: [{user: "local:somebody-else"}]\n  profile: ReadOnly`),
    );
    expect(await ended).toBe("57P01");
    expect(await sqlstateOf(gateway.connect(ann))).toBe("42501");
    await gateway.write("policies.yaml", readWrite);
    await vi.waitFor(async () => void (await (await gateway.connect(ann)).end()), { timeout: 10_000 });
  });
});

describe("deadlines", () => {
  it("end a session at its token's expiry", async () => {
    const client = await gateway.connect({ ...ann, lifetimeSeconds: 8 });
    expect(await endOf(client)).toBe("57P01");
  });
});

describe("the session's own changes", () => {
  it("can be used at once: its tables, inside and outside a transaction, and temporary ones", async () => {
    const client = await gateway.connect(ann);
    await client.query("CREATE TABLE made (id int)");
    await client.query("INSERT INTO made VALUES (1)");
    await client.query("BEGIN");
    await client.query("CREATE TABLE made_inside (id int)");
    expect((await client.query("SELECT count(*)::int AS n FROM made_inside")).rows).toEqual([{ n: 0 }]);
    await client.query("ROLLBACK");
    expect(await sqlstateOf(client.query("SELECT * FROM made_inside"))).toBe("42P01");
    await client.query("CREATE TEMP TABLE orders (id text)");
    expect((await client.query("SELECT * FROM orders")).rows).toEqual([]);
    await client.query("DROP TABLE pg_temp.orders");
    expect((await client.query("SELECT count(*)::int AS n FROM orders")).rows).toEqual([{ n: 100 }]);
    await client.query("DROP TABLE made");
    await client.end();
  });

  it("are seen by another session of the gateway within a second", async () => {
    const [one, two] = await Promise.all([gateway.connect(ann), gateway.connect(ann)]);
    await one.query("CREATE TABLE shared_soon (id int)");
    expect((await two.query("SELECT * FROM shared_soon")).rows).toEqual([]);
    await one.query("DROP TABLE shared_soon");
    await one.end();
    await two.end();
  });
});

describe("at the server", () => {
  const running = (sql: string) =>
    server.query(`SELECT application_name FROM pg_stat_activity WHERE state = 'active' AND query = '${sql}'`);

  it("A18: the session shows who it is, and cannot change that part of its name", async () => {
    const client = await gateway.connect(ann, { application_name: "report" });
    const { rows } = await client.query("SELECT current_setting('application_name') AS name");
    expect(rows[0].name).toMatch(/^local:ann\/[0-9a-f-]{36} report$/);
    await client.end();
  });

  it("B1: a cancel request reaches the statement, with a key that is not the server's", async () => {
    const client = await gateway.connect(ann);
    const sleeping = sqlstateOf(client.query("SELECT pg_sleep(61)"));
    await vi.waitFor(async () => expect((await running("SELECT pg_sleep(61)")).length).toBe(1), {
      timeout: 20_000,
    });
    const { processID, secretKey } = client as unknown as { processID: number; secretKey: number };
    const backends = await server.query("SELECT pid FROM pg_stat_activity");
    expect(backends.map(({ pid }) => pid)).not.toContain(processID);
    const canceller = new pg.Client({ host: gateway.host, port: gateway.port, ssl: { ca: gateway.caPem } });
    (canceller as unknown as { cancel(client: unknown, query: unknown): void }).cancel(
      { ...client, processID, secretKey, activeQuery: "q", host: gateway.host, port: gateway.port },
      "q",
    );
    expect(await sleeping).toBe("57014");
    await client.end();
  });

  it("C25: a client that vanishes takes its statement with it", async () => {
    const client = await gateway.connect(ann);
    client.on("error", () => undefined);
    const lost = sqlstateOf(client.query("SELECT pg_sleep(62)"));
    await vi.waitFor(async () => expect((await running("SELECT pg_sleep(62)")).length).toBe(1), {
      timeout: 20_000,
    });
    (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
    await lost;
    await vi.waitFor(async () => expect((await running("SELECT pg_sleep(62)")).length).toBe(0), {
      timeout: 10_000,
    });
  });

  it("a backend that dies in mid-session ends that session alone", async () => {
    const [one, two] = await Promise.all([gateway.connect(ann), gateway.connect(ann)]);
    const ended = endOf(one);
    await server.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = " +
        `(SELECT pid FROM pg_stat_activity WHERE query = 'SELECT ''me''' LIMIT 1)`,
    );
    await one.query("SELECT 'me'");
    await server.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT ''me'''",
    );
    expect(await ended).toBe("57P01");
    expect((await two.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    await two.end();
  });
});

describe("limits", () => {
  it("hold: sessions at once, statements a minute, idleness", async () => {
    const limited = policy(
      `  subjects: [{user: "local:bob"}]
  profile: ReadOnly
  limits: {concurrentSessions: 1, statementsPerMinute: 5, idle: 4s}`,
      "limited",
    );
    await gateway.write("limited.yaml", limited);
    const bob = { user: "bob", groups: [] };
    let client: pg.Client | undefined;
    await vi.waitFor(
      async () => {
        client = await gateway.connect(bob);
      },
      { timeout: 10_000, interval: 200 },
    );
    if (client === undefined) throw new Error("bob could not log in");
    expect(await sqlstateOf(gateway.connect(bob))).toBe("53300");
    const ended = endOf(client);
    const states: (string | undefined)[] = [];
    for (let count = 0; count < 8; count += 1) states.push(await sqlstateOf(client.query("SELECT 1")));
    expect(states.filter((state) => state === "53400").length).toBeGreaterThan(0);
    expect(states.filter((state) => state === undefined).length).toBeGreaterThanOrEqual(4);
    expect(await ended).toBe("57P05");
  });
});

describe("observing", () => {
  it("G10: enforcement Audit decides and records, and lets everything through", async () => {
    const observed = await startGateway({
      server,
      policies: policy(`  subjects: [{group: "local:staff"}]\n  profile: ReadOnly`),
      resource: { enforcement: "Audit" },
    });
    try {
      const client = await observed.connect(ann);
      await client.query("CREATE TABLE observed (id int)");
      await client.query("INSERT INTO observed VALUES (1)");
      expect(await sqlstateOf(client.query("SELECT * FROM no_such_table"))).toBe("42P01");
      await client.query("DROP TABLE observed");
      await client.end();
    } finally {
      await observed.stop();
    }
  });
});

describe("SIGTERM", () => {
  it("tells sessions, refuses new ones, and ends the rest with 57P01 after the deadline", async () => {
    const other = await startGateway({ server, policies: readWrite });
    const client = await other.connect(ann);
    const notices: string[] = [];
    client.on("notice", ({ message }) => notices.push(String(message)));
    const ended = endOf(client);
    const stopped = other.stop();
    expect(await ended).toBe("57P01");
    expect(notices.join()).toContain("shutting down");
    expect(await stopped).toBe(0);
  });
});
