/**
 * Approvals against a real PostgreSQL, attack first: nothing gets past a hold, nobody approves their own request, what
 * was approved is what runs, and it runs once. G1 to G7 and B6 of the cases.
 */
import { execFile } from "node:child_process";
import { readdir, readFile, readlink, rename, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Gateway, sallyportCommand, spawnGateway, startGateway } from "../targets/gateway.ts";
import { heldNoticesIn } from "../targets/held-notices.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { until } from "../targets/until.ts";
import { cancelRequest, frame, int32s, query, WireClient } from "../targets/wire-client.ts";

const policies = (more = "") => `---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: dev}
spec:
  resources: {names: [shop]}
  subjects: [{group: "local:dev"}, {kind: Agent}]
  profile: Admin
  rules:
    - name: schema
      match: {operations: [define], objects: ["public.*"]}
      action: RequireApproval
      approval: {required: 1, timeout: 60s}
    - name: notes
      match: {operations: [write], objects: ["public.note"]}
      action: RequireApproval
      approval: {required: 1, timeout: 60s}
    - name: two
      match: {operations: [write], objects: ["public.vault"]}
      action: RequireApproval
      approval: {required: 2, timeout: 60s}
    - name: short
      match: {operations: [write], objects: ["public.brief"]}
      action: RequireApproval
      approval: {required: 1, timeout: 1s}
    - name: window
      match: {operations: [write, read], objects: ["public.windowed"]}
      action: RequireApproval
      approval: {required: 1, timeout: 60s, grant: Window, window: 8s}
    - name: glass
      match: {operations: [write], objects: ["public.glass"]}
      action: RequireApproval
      approval: {required: 1, timeout: 60s, breakGlass: {group: "local:oncall"}}
    - name: why
      match: {operations: [write], objects: ["public.why"]}
      action: RequireApproval
      approval: {required: 1, timeout: 60s, reasonRequired: true}
${more}
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: second}
spec:
  resources: {names: [shop]}
  subjects: [{group: "local:dev"}]
  rules:
    - name: both
      match: {operations: [write], objects: ["public.shared"]}
      action: RequireApproval
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: third}
spec:
  resources: {names: [shop]}
  subjects: [{group: "local:dev"}]
  rules:
    - name: both
      match: {operations: [write], objects: ["public.shared"]}
      action: RequireApproval
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: late}
spec:
  resources: {names: [shop]}
  subjects: [{group: "local:late"}]
  profile: ReadOnly
  rules:
    - name: timeouts
      match: {operations: [session], objects: [statement_timeout]}
      action: RequireApproval
      approval: {required: 1, timeout: 60s, grant: Window, window: 60s}
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: hides}
spec:
  resources: {names: [shop]}
  subjects: [{group: "local:viewers"}]
  rules:
    - name: see
      match: {operations: [privilege], objects: ["public.people"]}
      action: RequireApproval
      approval: {required: 1, timeout: 60s, grant: Window, window: 8s, breakGlass: {group: "local:support"}}
  masking:
    - {columns: [public.people.mail], with: Redact, liftable: true}
    - {columns: [public.people.card], with: Redact}
  inference: Allow
`;

interface Person {
  readonly user: string;
  readonly groups?: readonly string[];
  readonly kind?: "Human" | "Workload" | "Agent";
  readonly claims?: Readonly<Record<string, unknown>>;
}
const named = (user: string, groups: readonly string[], mail = `${user}@example.com`): Person => ({
  user,
  groups,
  claims: { mail },
});
const dora = named("dora", ["dev", "oncall"]);
const lea = named("lea", ["leads", "second-leads"]);
const max = named("max", ["leads"]);
const tom = named("tom", ["third-leads"]);

let server: PostgresServer;
let gateway: Gateway;
const clients: pg.Client[] = [];

beforeAll(async () => {
  const tables = ["note", "vault", "brief", "windowed", "glass", "why", "shared", "other"];
  server = await startPostgres({
    tls: true,
    database: "shop",
    initSql: [
      ...tables.map((name) => `CREATE TABLE ${name} (n int, word text);`),
      "CREATE TABLE people (mail text, card text);",
      "INSERT INTO people SELECT 'm@x', '4000' FROM generate_series(1, 3);",
    ].join("\n"),
  });
  gateway = await startGateway({
    server,
    policies: policies(),
    provider: { kubernetesUsername: "claims.mail", claims: { onBehalfOf: "owner" } },
    args: [
      "--approvers",
      "dev=local:leads,hides=local:leads,late=local:leads,second=local:second-leads,third=local:third-leads,dev=local:self-leads",
    ],
  });
});
beforeEach(async () => {
  await server.query("TRUNCATE note, vault, brief, windowed, glass, why, shared, other");
});
afterAll(async () => {
  for (const client of clients) await client.end().catch(() => undefined);
  await gateway?.stop();
  await server?.stop();
});

interface Session {
  readonly client: pg.Client;
  readonly notices: { readonly message: string; readonly detail: string; readonly hint: string }[];
}

async function session(person: Person = dora): Promise<Session> {
  const client = await gateway.connect(person);
  client.on("error", () => undefined);
  clients.push(client);
  const notices: Session["notices"] = [];
  client.on("notice", ({ message = "", detail = "", hint = "" }) => notices.push({ message, detail, hint }));
  return { client, notices };
}

const stateDir = () => dirname(gateway.recordingDir);

interface View {
  readonly name: string;
  readonly phase: string;
  readonly command?: string;
  readonly parameters?: readonly string[];
  readonly digest?: string;
  readonly inTransaction?: boolean;
  readonly reason?: string;
  readonly approvals?: readonly View[];
}

/** Asks the gateway over its socket, as the command line does. */
function ask(
  person: Person | string,
  path: string,
  body?: object,
): Promise<{ readonly status: number; readonly body: View }> {
  const token = typeof person === "string" ? person : gateway.issuer.token(person);
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        socketPath: join(stateDir(), "approvals/socket"),
        path: `/v1/approvals${path}`,
        method: body === undefined ? "GET" : "POST",
        headers: { authorization: `Bearer ${token}` },
      },
      (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (piece: string) => {
          text += piece;
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) }));
      },
    );
    sent.on("error", reject);
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

const decide = (person: Person | string, name: string, decision: string, comment?: string) =>
  ask(person, `/${name}/decisions`, { decision, comment });

/** The name of the request that a session was told of last. */
async function heldName({ notices }: Session, after = 0): Promise<string> {
  const notice = await until(() => notices[after]);
  return /^held for approval (\S+):/.exec(notice.message)?.[1] ?? "";
}

/** Runs a statement that is held; its outcome, whatever it is. */
function run(client: pg.Client, sql: string, values?: unknown[]): Promise<unknown> {
  return client.query(sql, values).catch((error: unknown) => error);
}

const count = async (table: string) => (await server.query(`SELECT count(*)::int AS n FROM ${table}`))[0]?.n;
const phase = async (name: string, person = lea) => (await ask(person, `/${name}`)).body.phase;

describe("a held command", () => {
  test("runs once, and only once, when a second person has approved it (G1, G2)", async () => {
    const one = await session();
    const outcome = run(one.client, "ALTER TABLE note ADD COLUMN IF NOT EXISTS extra int");
    const name = await heldName(one);
    expect(one.notices[0]?.detail).toMatch(/Asked by dev\/schema \(1\)\. Time left: /);
    expect(one.notices[0]?.hint).toContain(`sallyport approve ${name}`);
    const columns = "SELECT count(*)::int AS n FROM information_schema.columns WHERE column_name = 'extra'";
    expect((await server.query(columns))[0]?.n).toBe(0);
    expect((await decide(lea, name, "Approved")).body).toMatchObject({ phase: "Approved", progress: "1/1" });
    expect(await outcome).toMatchObject({ command: "ALTER" });
    expect((await server.query(columns))[0]?.n).toBe(1);
    await until(async () => (await phase(name)) === "Used");
    // An approval is not a licence: the same text asks again, and the old approval opens nothing.
    const again = run(one.client, "ALTER TABLE note DROP COLUMN extra");
    const next = await heldName(one, 1);
    expect(next).not.toBe(name);
    expect(await decide(lea, name, "Approved")).toMatchObject({ status: 409 });
    expect((await server.query(columns))[0]?.n).toBe(1);
    await decide(lea, next, "Approved");
    expect(await again).toMatchObject({ command: "ALTER" });
  });

  test("tells its client again, every few seconds, what waits, who is asked, how to approve and what time is left (G1)", async () => {
    const one = await session();
    const outcome = run(one.client, "INSERT INTO note VALUES (1)");
    const name = await heldName(one);
    await until(() => one.notices[1]);
    const printed = one.notices.map(({ message, detail, hint }) => `${message}\n${detail}\n${hint}\n`);
    const [first, second] = heldNoticesIn(printed.join(""));
    expect(first).toEqual({
      name,
      asked: "INSERT on public.note needs approval by rule notes of policy dev",
      rules: "dev/notes (1)",
      how: `sallyport approve ${name}`,
      secondsLeft: expect.any(Number),
    });
    // The rule gives a minute.
    expect(first?.secondsLeft).toBeLessThanOrEqual(60);
    expect(second).toEqual({ ...first, secondsLeft: expect.any(Number) });
    // Five seconds later: on a machine that is busy some more, and never less.
    expect(second?.secondsLeft).toBeLessThanOrEqual((first?.secondsLeft ?? 0) - 4);
    await decide(lea, name, "Denied");
    await outcome;
    const told = one.notices.length;
    expect((await one.client.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    expect(one.notices).toHaveLength(told);
  });

  test("goes with exactly its parameters, which the approver has seen (G2)", async () => {
    const one = await session();
    const outcome = run(one.client, "INSERT INTO note VALUES ($1, $2)", [7, "seven; DROP"]);
    const name = await heldName(one);
    const { body } = await ask(lea, `/${name}`);
    expect(body.command).toBe("INSERT INTO note VALUES ($1, $2)");
    expect(body.parameters).toEqual(["7", "seven; DROP"]);
    expect(body.digest).toMatch(/^hmac-sha256:[0-9a-f]{64}$/);
    await decide(lea, name, "Approved");
    expect(await outcome).toMatchObject({ rowCount: 1 });
    expect(await server.query("SELECT n, word FROM note")).toEqual([{ n: 7, word: "seven; DROP" }]);
  });

  test("costs the gateway no socket of its own, however many are held", async () => {
    const sessions = await Promise.all(Array.from({ length: 12 }, () => session()));
    const outcomes = (table: string) =>
      sessions.map(({ client }) => run(client, `INSERT INTO ${table} VALUES (1)`));
    // What the first statements bring along, such as names read anew, is there before anything is counted.
    await Promise.all(outcomes("other"));
    const sockets = async () => {
      const folder = `/proc/${gateway.pid}/fd`;
      const targets = (await readdir(folder)).map((fd) => readlink(join(folder, fd)).catch(() => ""));
      return (await Promise.all(targets)).filter((target) => target.startsWith("socket:")).length;
    };
    const before = await sockets();
    const held = outcomes("note");
    const names = await Promise.all(sessions.map((one) => heldName(one)));
    // A connection that only looked something up may still be closing.
    await until(async () => (await sockets()) <= before);
    expect(await count("note")).toBe(0);
    for (const name of names) await decide(lea, name, "Denied");
    expect(await Promise.all(held)).toEqual(names.map(() => expect.objectContaining({ code: "42501" })));
    await Promise.all(sessions.map(({ client }) => client.end()));
  });

  test("is denied with the approver's comment, and the session goes on (G3)", async () => {
    const one = await session();
    const outcome = run(one.client, "INSERT INTO note VALUES (1)");
    await decide(lea, await heldName(one), "Denied", "not before\nthe backup");
    expect(await outcome).toMatchObject({
      code: "42501",
      message: expect.stringMatching(/was denied by local:lea: not before the backup/),
    });
    expect((await one.client.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
    expect(await count("note")).toBe(0);
  });

  test("expires with 42501, and nothing has run (G3)", async () => {
    const one = await session();
    const outcome = run(one.client, "INSERT INTO brief VALUES (1)");
    const name = await heldName(one);
    expect(await outcome).toMatchObject({ code: "42501", message: expect.stringMatching(/expired/) });
    expect(await decide(lea, name, "Approved")).toMatchObject({ status: 409 });
    expect(await count("brief")).toBe(0);
  });

  test("fails a transaction as an error of the server's own would, and asks for less time in one (G3)", async () => {
    const one = await session();
    await one.client.query("BEGIN");
    const outcome = run(one.client, "INSERT INTO note VALUES (1)");
    const name = await heldName(one);
    const { body } = await ask(lea, `/${name}`);
    expect(body.inTransaction).toBe(true);
    expect(one.notices[0]?.detail).toContain("keeps its locks");
    await decide(lea, name, "Denied");
    expect(await outcome).toMatchObject({ code: "42501" });
    expect(await run(one.client, "SELECT 1")).toMatchObject({ code: "25P02" });
    expect((await one.client.query("COMMIT")).command).toBe("ROLLBACK");
  });

  test("ends at once with 57014 where its client cancels it (B6)", async () => {
    const one = await session();
    const outcome = run(one.client, "INSERT INTO note VALUES (1)");
    const name = await heldName(one);
    const begun = performance.now();
    const { processID, secretKey } = one.client as unknown as { processID: number; secretKey: number };
    const canceller = await WireClient.connect(gateway.port);
    await canceller.startTls(gateway.caPem);
    canceller.send(cancelRequest(int32s(processID, secretKey)));
    expect(await outcome).toMatchObject({ code: "57014" });
    expect(performance.now() - begun).toBeLessThan(3_000);
    expect(await phase(name)).toBe("Cancelled");
    expect(await decide(lea, name, "Approved")).toMatchObject({ status: 409 });
    expect(await count("note")).toBe(0);
  });

  test.each([
    ["disconnects", (wire: WireClient) => wire.socket.destroy()],
    ["says Terminate", (wire: WireClient) => wire.send(frame("X", Buffer.alloc(0)))],
    [
      "has a pipeline behind it and says Terminate",
      (wire: WireClient) => wire.send(query("INSERT INTO other VALUES (1)"), frame("X", Buffer.alloc(0))),
    ],
    [
      "has a pipeline behind it and disconnects",
      (wire: WireClient) => {
        wire.send(query("INSERT INTO other VALUES (1)"));
        wire.socket.end();
      },
    ],
  ])("never runs where its client %s (G4)", async (_, leave) => {
    const wire = await rawClient(dora);
    wire.send(query("INSERT INTO note VALUES (1)"));
    const [notice] = await wire.until("N");
    const name = /approval (\S+):/.exec(notice?.fields.M ?? "")?.[1] ?? "";
    leave(wire);
    await until(async () => (await phase(name)) === "Cancelled");
    expect(await decide(lea, name, "Approved")).toMatchObject({ status: 409 });
    expect(await count("note")).toBe(0);
    expect(await count("other")).toBe(0);
  });

  test("keeps the order of the pipeline behind it, and disturbs no other session (G1, G7)", async () => {
    const [one, other] = [await session(), await session()];
    const order: string[] = [];
    const note = (what: string) => () => void order.push(what);
    const all = [
      one.client.query("SELECT 1").then(note("before")),
      one.client.query("INSERT INTO note VALUES (1)").then(note("held")),
      one.client.query("SELECT count(*) FROM note").then(note("behind")),
    ];
    const name = await heldName(one);
    expect((await other.client.query("SELECT 2 AS two")).rows).toEqual([{ two: 2 }]);
    await decide(lea, name, "Approved");
    await Promise.all(all);
    expect(order).toEqual(["before", "held", "behind"]);
  });

  test("stays in order where messages are already on their way behind it, in one write (G7)", async () => {
    const wire = await rawClient(dora);
    wire.send(query("SELECT 'a'"), query("INSERT INTO note VALUES (1)"), query("SELECT 'b' FROM note"));
    const before = await wire.until("Z");
    expect(before.map(({ type }) => type).join("")).toBe("TDCZ");
    const [notice] = await wire.until("N");
    await decide(lea, /approval (\S+):/.exec(notice?.fields.M ?? "")?.[1] ?? "", "Approved");
    expect((await wire.until("Z")).filter(({ type }) => type !== "N").map(({ type }) => type)).toEqual([
      "C",
      "Z",
    ]);
    expect((await wire.until("Z")).map(({ type }) => type).join("")).toBe("TDCZ");
    wire.socket.destroy();
  });

  test("of several statements is one request that lists them all, and all or none run (G7)", async () => {
    const one = await session();
    const sql = "INSERT INTO other VALUES (1); INSERT INTO note VALUES (2); INSERT INTO other VALUES (3)";
    const denied = run(one.client, sql);
    const name = await heldName(one);
    expect((await ask(lea, `/${name}`)).body.command).toBe(sql);
    await decide(lea, name, "Denied");
    expect(await denied).toMatchObject({ code: "42501" });
    expect(await count("other")).toBe(0);
    const allowed = run(one.client, sql);
    await decide(lea, await heldName(one, 1), "Approved");
    await allowed;
    expect([await count("other"), await count("note")]).toEqual([2, 1]);
  });

  test("may be a COPY, whose data follows the approval", async () => {
    const wire = await rawClient(dora);
    wire.send(query("COPY note FROM STDIN"));
    const [notice] = await wire.until("N");
    await decide(lea, /approval (\S+):/.exec(notice?.fields.M ?? "")?.[1] ?? "", "Approved");
    await wire.until("G");
    wire.send(frame("d", Buffer.from("4\tfour\n")), frame("c", Buffer.alloc(0)));
    await wire.until("Z");
    expect(await count("note")).toBe(1);
    wire.socket.destroy();
  });

  test("is nothing but refused where it is longer than can be shown whole", async () => {
    const one = await session();
    const outcome = await run(one.client, `INSERT INTO note VALUES (1, '${"x".repeat(33_000)}')`);
    expect(outcome).toMatchObject({ code: "54000" });
    expect(await count("note")).toBe(0);
  });

  test("wants a reason first where the rule says so, and the approver reads it", async () => {
    const one = await session();
    const first = await run(one.client, "INSERT INTO why VALUES (1)");
    expect(first).toMatchObject({ code: "42501", hint: expect.stringContaining("SET sallyport.reason") });
    await one.client.query("SET sallyport.reason = 'ticket 12'");
    const outcome = run(one.client, "INSERT INTO why VALUES (1)");
    const name = await heldName(one);
    expect((await ask(lea, `/${name}`)).body.reason).toBe("ticket 12");
    await decide(lea, name, "Approved");
    expect(await outcome).toMatchObject({ rowCount: 1 });
  });

  test("shows what EXECUTE would run", async () => {
    const one = await session();
    const prepared = run(one.client, "PREPARE p AS INSERT INTO note VALUES (5)");
    const first = await heldName(one);
    await decide(lea, first, "Approved");
    await prepared;
    const outcome = run(one.client, "EXECUTE p");
    const name = await heldName(one, 1);
    expect((await ask(lea, `/${name}`)).body.command).toContain("INSERT INTO note VALUES (5)");
    await decide(lea, name, "Approved");
    await outcome;
    expect(await count("note")).toBe(1);
  });

  test("fifty at once are fifty requests, each with its own outcome (G7)", async () => {
    const sessions = await Promise.all(Array.from({ length: 50 }, () => session()));
    const outcomes = sessions.map(({ client }, n) => run(client, `INSERT INTO note VALUES (${n})`));
    const names = await Promise.all(sessions.map((one) => heldName(one)));
    expect(new Set(names).size).toBe(50);
    await Promise.all(names.map((name, n) => decide(lea, name, n % 2 === 0 ? "Approved" : "Denied")));
    const settled = await Promise.all(outcomes);
    expect(settled.filter((one) => one instanceof pg.DatabaseError)).toHaveLength(25);
    const rows = await server.query("SELECT n FROM note");
    expect(rows.map(({ n }) => Number(n)).every((n) => n % 2 === 0)).toBe(true);
    expect(rows).toHaveLength(25);
    // The server has a hundred places for all tests of this file.
    await Promise.all(sessions.map(({ client }) => client.end()));
  });
});

describe("who may decide", () => {
  const refused: readonly (readonly [string, Person | string, number])[] = [
    ["the requester", { ...dora, groups: ["dev", "leads"] }, 403],
    ["the requester under another name (G5)", named("d.ora", ["leads"], "dora@example.com"), 403],
    ["somebody in no group that may approve (G5)", named("eve", ["dev"]), 403],
    ["a program", { ...named("ci", ["leads"]), kind: "Workload" }, 403],
    ["an agent", { ...named("bot", ["leads"]), kind: "Agent" }, 403],
    ["somebody whom the provider cannot map (G5)", { user: "nobody", groups: ["leads"] }, 403],
    ["a token that nobody signed", "a.b.c", 404],
  ];
  test.each(refused)("not %s", async (_, person, status) => {
    const one = await session();
    const outcome = run(one.client, "INSERT INTO note VALUES (1)");
    const name = await heldName(one);
    expect(await decide(person, name, "Approved")).toMatchObject({ status });
    expect(await phase(name)).toBe("Pending");
    await decide(lea, name, "Denied");
    expect(await outcome).toMatchObject({ code: "42501" });
    expect(await count("note")).toBe(0);
  });

  test("not an agent's owner (G5)", async () => {
    const agent: Person = { user: "bot", kind: "Agent", claims: { mail: "bot@example.com", owner: "lea" } };
    const one = await session(agent);
    const outcome = run(one.client, "INSERT INTO note VALUES (1)");
    const name = await heldName(one);
    expect(await decide(lea, name, "Approved")).toMatchObject({
      status: 403,
      body: { reason: "SelfApproval" },
    });
    expect((await decide(max, name, "Approved")).status).toBe(200);
    expect(await outcome).toMatchObject({ rowCount: 1 });
  });

  test("two people where two are asked, and one of them counts once under any name (G5)", async () => {
    const one = await session();
    const outcome = run(one.client, "INSERT INTO vault VALUES (1)");
    const name = await heldName(one);
    expect((await decide(lea, name, "Approved")).body).toMatchObject({ phase: "Pending", progress: "1/2" });
    expect(await decide(lea, name, "Approved")).toMatchObject({ status: 409 });
    const alias = named("lea2", ["leads"], "lea@example.com");
    expect(await decide(alias, name, "Approved")).toMatchObject({ status: 409 });
    expect(await count("vault")).toBe(0);
    expect((await decide(max, name, "Approved")).body).toMatchObject({ phase: "Approved", progress: "2/2" });
    expect(await outcome).toMatchObject({ rowCount: 1 });
  });

  test("one denial ends what two were asked for", async () => {
    const one = await session();
    const outcome = run(one.client, "INSERT INTO vault VALUES (1)");
    const name = await heldName(one);
    await decide(lea, name, "Approved");
    await decide(max, name, "Denied");
    expect(await outcome).toMatchObject({ code: "42501" });
  });

  test("the approvers of each policy that asks, each for their own", async () => {
    const one = await session();
    const outcome = run(one.client, "INSERT INTO shared VALUES (1)");
    const name = await heldName(one);
    expect(await decide(max, name, "Approved")).toMatchObject({ status: 403 });
    expect((await decide(lea, name, "Approved")).body).toMatchObject({ phase: "Pending", progress: "1/2" });
    expect((await decide(tom, name, "Approved")).body.phase).toBe("Approved");
    expect(await outcome).toMatchObject({ rowCount: 1 });
  });

  test("requests are seen by their requester and by who may decide, and by nobody else", async () => {
    const one = await session();
    const outcome = run(one.client, "INSERT INTO note VALUES (1)");
    const name = await heldName(one);
    expect((await ask(dora, `/${name}`)).status).toBe(200);
    expect((await ask(named("eve", ["dev"]), `/${name}`)).status).toBe(404);
    const list = (await ask(named("eve", ["dev"]), "")).body.approvals ?? [];
    expect(list).toEqual([]);
    await decide(lea, name, "Denied");
    await outcome;
  });
});

describe("a policy that is edited in mid-hold", () => {
  const reloads = async (): Promise<number> => {
    const metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
    const found = metrics.matchAll(
      /^sallyport_manifest_reloads_total\{[^}]*result="accepted"[^}]*\} (\d+)/gm,
    );
    return [...found].reduce((sum, [, value]) => sum + Number(value), 0);
  };
  /** Resolves once every process of the gateway has the new policies in force. */
  async function edit(text: string): Promise<void> {
    const before = await reloads();
    // In one step: half a file would be a policy as well.
    const next = join(stateDir(), "next-policies.yaml");
    await writeFile(next, text);
    await rename(next, join(gateway.configDir, "policies.yaml"));
    const processes = Number(process.env.SALLYPORT_TEST_PROCESSES ?? 1);
    await until(async () => (await reloads()) >= before + processes);
  }
  // Also where a test has failed, so that it stays the only one.
  afterEach(() => edit(policies()));
  async function held(): Promise<readonly [Promise<unknown>, string, Session]> {
    const one = await session();
    const outcome = run(one.client, "INSERT INTO note VALUES (1)");
    return [outcome, await heldName(one), one];
  }

  test("voids the hold where the governing rule changed", async () => {
    const [outcome, name] = await held();
    const changed = policies().replace(
      /(name: notes\n.*\n.*\n\s+approval: \{required: )1/,
      (_, before: string) => `${before}2`,
    );
    expect(changed).not.toBe(policies());
    await edit(changed);
    expect(await outcome).toMatchObject({ code: "42501", message: expect.stringMatching(/is void/) });
    expect(await decide(lea, name, "Approved")).toMatchObject({ status: 409 });
  });

  test("voids the hold where it denies now", async () => {
    const [outcome] = await held();
    await edit(policies(`    - name: never\n      match: {objects: ["public.note"]}\n      action: Deny`));
    expect(await outcome).toMatchObject({ code: "42501", message: expect.stringMatching(/is void/) });
    expect(await count("note")).toBe(0);
  });

  test("leaves the hold alone where something else changed", async () => {
    const [outcome, name, { client }] = await held();
    await edit(policies(`    - name: unrelated\n      match: {objects: ["hr.*"]}\n      action: Deny`));
    expect((await decide(lea, name, "Approved")).body.phase).toBe("Approved");
    expect(await outcome).toMatchObject({ rowCount: 1 });
    expect((await client.query("SELECT 1")).rowCount).toBe(1);
  });
});

describe("what is approved is what runs", () => {
  test("a function or view that does something else since, to the same tables, is not what was approved", async () => {
    const tidy = (where: string) => `CREATE OR REPLACE FUNCTION tidy() RETURNS void LANGUAGE sql
      AS 'UPDATE note SET word = ''tidied'' WHERE ${where}'`;
    const due = (where: string) => `CREATE OR REPLACE VIEW due AS SELECT n, word FROM note WHERE ${where}`;
    await server.query(`${tidy("n = 1")}; ${due("n = 1")}; INSERT INTO note VALUES (1), (2), (3)`);
    const one = await session();
    for (const sql of ["SELECT tidy()", "UPDATE due SET word = 'tidied' WHERE n > 0"]) {
      const first = run(one.client, sql);
      const name = await heldName(one, one.notices.length);
      await server.query(`${tidy("n > 0")}; ${due("n > 0")}`);
      await decide(lea, name, "Approved");
      expect([sql, await first]).toMatchObject([
        sql,
        { code: "42501", message: expect.stringMatching(/is void/) },
      ]);
      expect([sql, await count("note WHERE word = 'tidied'")]).toEqual([sql, 0]);
      await server.query(`${tidy("n = 1")}; ${due("n = 1")}`);
    }
    const again = run(one.client, "SELECT tidy()");
    await decide(lea, await heldName(one, one.notices.length), "Approved");
    expect(await again).toMatchObject({ rowCount: 1 });
    expect(await count("note WHERE word = 'tidied'")).toBe(1);
    await server.query("DROP FUNCTION tidy; DROP VIEW due");
  });

  test("a name that means another table since is not the one that was approved", async () => {
    const one = await session();
    await server.query("CREATE TABLE note_a (n int)");
    const outcome = run(one.client, "INSERT INTO note VALUES (1)");
    const name = await heldName(one);
    await server.query("ALTER TABLE note RENAME TO note_old; CREATE VIEW note AS SELECT n FROM note_a");
    await decide(lea, name, "Approved");
    const settled = await outcome;
    await server.query("DROP VIEW note; ALTER TABLE note_old RENAME TO note; DROP TABLE note_a");
    expect(settled).toMatchObject({ code: "42501", message: expect.stringMatching(/is void/) });
    // Names are known anew within a second.
    await until(async () => ((await run(one.client, "TABLE note_a")) as { code?: string }).code === "42P01");
  });

  test("two statements held in turn are two requests, though their texts are the same", async () => {
    const [one, two] = [await session(), await session()];
    const [first, second] = [
      run(one.client, "INSERT INTO note VALUES (1)"),
      run(two.client, "INSERT INTO note VALUES (1)"),
    ];
    const [a, b] = [await heldName(one), await heldName(two)];
    const digests = [(await ask(lea, `/${a}`)).body.digest, (await ask(lea, `/${b}`)).body.digest];
    expect(digests[0]).not.toBe(digests[1]);
    await decide(lea, a, "Approved");
    expect(await first).toMatchObject({ rowCount: 1 });
    expect(await count("note")).toBe(1);
    await decide(lea, b, "Denied");
    expect(await second).toMatchObject({ code: "42501" });
  });
});

describe("windows", () => {
  test("an approved window lets more through until it ends, and what runs on it ends with it", async () => {
    const one = await session();
    const first = run(one.client, "INSERT INTO windowed VALUES (1)");
    await decide(lea, await heldName(one), "Approved");
    await first;
    const asked = one.notices.length;
    const other = await session();
    expect(await run(other.client, "INSERT INTO windowed VALUES (2)")).toMatchObject({ rowCount: 1 });
    expect(one.notices).toHaveLength(asked);
    const running = await run(other.client, "SELECT pg_sleep(20) FROM windowed");
    expect(running).toMatchObject({ code: "57014" });
    const late = run(other.client, "INSERT INTO windowed VALUES (3)");
    const name = await heldName(other);
    await decide(lea, name, "Denied");
    const hint = "Ask for it first: sallyport request default/shop --rule dev/window";
    expect(await late).toMatchObject({ code: "42501", hint });
    expect(await count("windowed")).toBe(2);
  });

  test("access that was asked for and taken back ends within a second", async () => {
    const asked = await ask(dora, "", { resource: "default/shop", rule: "dev/window", reason: "release" });
    expect(asked.body).toMatchObject({ type: "Access", phase: "Pending" });
    const { name } = asked.body;
    expect(await decide(dora, name, "Approved")).toMatchObject({ status: 403 });
    await decide(lea, name, "Approved");
    const one = await session();
    expect(await run(one.client, "INSERT INTO windowed VALUES (1)")).toMatchObject({ rowCount: 1 });
    const running = run(one.client, "SELECT pg_sleep(20) FROM windowed");
    await until(
      async () =>
        (
          await server.query(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'",
          )
        ).length,
    );
    const begun = performance.now();
    expect((await ask(dora, `/${name}/revocation`, { reason: "done" })).body.phase).toBe("Revoked");
    expect(await running).toMatchObject({ code: "57014" });
    expect(performance.now() - begun).toBeLessThan(2_000);
  });

  test("a login that needs approval says how to ask for it, and passes once its window is open", async () => {
    const lena = named("lena", ["late"]);
    const logIn = () => gateway.connect(lena, { statement_timeout: 5_000 });
    const refused = await logIn().catch((error: unknown) => error);
    const hint = "Ask for it first: sallyport request default/shop --rule late/timeouts";
    expect(refused).toMatchObject({ code: "42501", hint });
    const asked = await ask(lena, "", { resource: "default/shop", rule: "late/timeouts" });
    await decide(lea, asked.body.name, "Approved");
    const client = await logIn();
    const { rows } = await client.query("SHOW statement_timeout");
    await client.end();
    expect(rows).toEqual([{ statement_timeout: "5s" }]);
  });

  test("only rules with a window can be asked for, and only ones that ask", async () => {
    expect((await ask(dora, "", { resource: "default/shop", rule: "dev/notes" })).status).toBe(400);
    expect((await ask(dora, "", { resource: "default/shop", rule: "dev/nothing" })).status).toBe(404);
    expect((await ask(dora, "", { resource: "default/none", rule: "dev/window" })).status).toBe(401);
  });
});

test("break-glass passes for its group with a reason, and the recording says so", async () => {
  const one = await session();
  await one.client.query("SET sallyport.reason = 'incident 7'");
  expect(await run(one.client, "INSERT INTO glass VALUES (1)")).toMatchObject({ rowCount: 1 });
  const outsider = await session({
    ...dora,
    user: "dan",
    groups: ["dev"],
    claims: { mail: "dan@example.com" },
  });
  await outsider.client.query("SET sallyport.reason = 'me too'");
  const held = run(outsider.client, "INSERT INTO glass VALUES (2)");
  await decide(lea, await heldName(outsider), "Denied");
  expect(await held).toMatchObject({ code: "42501" });
  const metrics = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  expect(metrics).toMatch(/sallyport_break_glass_total\{[^}]*resource="default\/shop"[^}]*\} 1/);
});

describe("masks marked liftable", () => {
  const vic = named("vic", ["dev", "viewers"]);
  const people = "SELECT mail, card FROM people LIMIT 1";
  const shown = async ({ client }: Session) => (await client.query(people)).rows[0];
  const hidden = { mail: "***", card: "***" };
  const lifted = { mail: "m@x", card: "***" };

  test("are lifted by an approved window, the others are not, and they hold again when it ends", async () => {
    const one = await session(vic);
    const other = await session({ ...vic, user: "dan", claims: { mail: "dan@example.com" } });
    await one.client.query({ name: "kept", text: people });
    expect(await shown(one)).toEqual(hidden);
    const { name } = (await ask(vic, "", { resource: "default/shop", rule: "hides/see" })).body;
    await decide(lea, name, "Approved");
    expect(await shown(one)).toEqual(lifted);
    expect((await one.client.query({ name: "kept", text: people })).rows[0]).toEqual(lifted);
    expect(await shown(other)).toEqual(hidden);
    // Its rows would go on showing what is hidden: what runs under the window ends with it.
    expect(await run(one.client, "SELECT mail, pg_sleep(20) FROM people")).toMatchObject({ code: "57014" });
    expect(await shown(one)).toEqual(hidden);
    expect((await one.client.query({ name: "kept", text: people })).rows[0]).toEqual(hidden);
  });

  test("hold at once when the window is taken back", async () => {
    const one = await session(vic);
    const { name } = (await ask(vic, "", { resource: "default/shop", rule: "hides/see" })).body;
    await decide(lea, name, "Approved");
    expect(await shown(one)).toEqual(lifted);
    await ask(lea, `/${name}/revocation`, {});
    expect(await shown(one)).toEqual(hidden);
  });

  test("are lifted by break-glass with a reason, for its group, and by no other approval", async () => {
    const support = named("sue", ["dev", "viewers", "support"]);
    const one = await session(support);
    expect(await shown(one)).toEqual(hidden);
    await one.client.query("SET sallyport.reason = 'ticket 9'");
    expect(await shown(one)).toEqual(lifted);
    const outsider = await session(vic);
    await outsider.client.query("SET sallyport.reason = 'ticket 9'");
    expect(await shown(outsider)).toEqual(hidden);
    const { name } = (await ask(vic, "", { resource: "default/shop", rule: "dev/window" })).body;
    await decide(lea, name, "Approved");
    expect(await shown(outsider)).toEqual(hidden);
  });
});

test("who approves is shown no literal and no parameter that meets a masked column", async () => {
  const one = await session(named("vic", ["dev", "viewers"]));
  const select = "INSERT INTO note SELECT 1, 'x' FROM people WHERE mail =";
  for (const [at, values] of [undefined, ["canary@example.com"]].entries()) {
    const text = `${select} ${values === undefined ? "'canary@example.com'" : "$1"}`;
    const outcome = run(one.client, text, values);
    const name = await heldName(one, at);
    const { body } = await ask(lea, `/${name}`);
    expect(JSON.stringify(body)).toContain("INSERT INTO note SELECT");
    expect(JSON.stringify(body)).not.toContain("canary");
    await decide(lea, name, "Approved");
    expect(await outcome).toMatchObject({ rowCount: 0 });
  }
});

test("a server that ends an idle transaction in mid-hold ends the request", async () => {
  const one = await session();
  await one.client.query("SET idle_in_transaction_session_timeout = '3s'");
  await one.client.query("BEGIN");
  const outcome = run(one.client, "INSERT INTO note VALUES (1)");
  const name = await heldName(one);
  expect(await outcome).toBeInstanceOf(Error);
  await until(async () => (await phase(name)) === "Cancelled");
  expect(await count("note")).toBe(0);
});

test("the command line lists, approves and waits; the requester's own token is refused", async () => {
  const one = await session();
  const outcome = run(one.client, "INSERT INTO note VALUES (9)");
  const name = await heldName(one);
  const sallyport = async (person: Person, ...args: readonly string[]) =>
    promisify(execFile)(process.execPath, [...sallyportCommand, ...args, "--state", stateDir()], {
      env: { PATH: process.env.PATH, SALLYPORT_TOKEN: gateway.issuer.token(person) },
    }).catch((error: { code: number; stdout: string; stderr: string }) => error);
  expect((await sallyport(lea, "approvals")).stdout).toContain(name);
  const own = await sallyport({ ...dora, groups: ["leads"] }, "approve", name);
  expect(own).toMatchObject({ code: 1, stderr: expect.stringContaining("your own request") });
  expect((await sallyport(lea, "approve", name)).stdout).toContain("Approved");
  expect(await outcome).toMatchObject({ rowCount: 1 });
  expect((await sallyport(dora, "wait", name, "--output", "json")).stdout).toMatch(
    /"phase": "(Used|Approved)"/,
  );
});

describe("a second gateway on the same folder of state", () => {
  // Its recordings are elsewhere, so that nothing but the approvals themselves can refuse it.
  test.each([1, 2])(
    "is refused, with %i process(es), and takes no request from the first",
    async (processes) => {
      const one = await session();
      const outcome = run(one.client, "INSERT INTO note VALUES (1)");
      const name = await heldName(one);
      const second = spawnGateway({
        configDir: gateway.configDir,
        stateDir: stateDir(),
        port: gateway.port,
        args: [
          ...["--recordings", join(stateDir(), "elsewhere")],
          ...["--processes", String(processes), "--approvers", "dev=local:leads"],
        ],
      });
      await expect(second).rejects.toThrow(`approvals are being written by process ${gateway.pid}`);
      expect((await decide(lea, name, "Approved")).body).toMatchObject({ phase: "Approved" });
      expect(await outcome).toMatchObject({ rowCount: 1 });
    },
  );
});

describe("the gateway's end", () => {
  test("killed in mid-hold, it leaves nothing that could run, and the record is whole (G4)", async () => {
    const one = await session();
    const outcome = run(one.client, "INSERT INTO note VALUES (1)");
    await heldName(one);
    await gateway.kill9();
    expect(await outcome).toBeInstanceOf(Error);
    expect(await count("note")).toBe(0);
    const record = await readFile(join(stateDir(), "approvals/record.jsonl"), "utf8");
    expect(record).toContain('"event":"asked"');
    await writeFile(join(stateDir(), "approvals/copy"), record);
  });
});

const rawClient = (person: Person): Promise<WireClient> => gateway.connectWire(person);
