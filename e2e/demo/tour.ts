/** The tour: what a visitor is shown, each step with the check that it did what it says. */
import { execFile } from "node:child_process";
import { cp, open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { type GatewayProcess, sallyportCommand } from "../targets/gateway.ts";
import type { PostgresServer } from "../targets/postgres.ts";
import type { LocalIssuer } from "../targets/tokens.ts";
import { admin, analyst, demoFolder, lead, migrationJob, type Person } from "./setting.ts";

/** What the tour walks through. */
export interface Scene {
  readonly server: PostgresServer;
  readonly gateway: GatewayProcess;
  readonly issuer: LocalIssuer;
  readonly configDir: string;
  readonly stateDir: string;
}

/** Runs every step, tells what happened, and resolves to how many did not do what they say. */
export async function runTour(scene: Scene): Promise<number> {
  let failed = 0;
  for (const [title, act] of steps) {
    const outcome = await act(scene).then(
      (told) => ({ holds: true, told }),
      (error: unknown) => ({ holds: false, told: error instanceof Error ? error.message : String(error) }),
    );
    if (!outcome.holds) failed++;
    console.log(`${outcome.holds ? "✓" : "✗"} ${title}`);
    for (const line of outcome.told.trimEnd().split("\n")) console.log(`    ${line}`);
  }
  return failed;
}

/** Resolves to what the visitor is told; throws where the step did not do what its title says. */
type Step = readonly [title: string, act: (scene: Scene) => Promise<string>];

const unbounded = "DELETE FROM orders";
const steps: readonly Step[] = [
  [
    "the analyst reads the shop's orders",
    async (scene) => {
      const sql =
        "SELECT city, count(*)::int AS customers FROM customers GROUP BY city ORDER BY city LIMIT 2";
      const rows = await as(scene, analyst, async (client) => (await client.query(sql)).rows);
      expect(rows.length === 2, "two rows come back");
      return `${sql}\n${JSON.stringify(rows)}`;
    },
  ],
  [
    "the analyst may neither change a row nor see a salary",
    (scene) =>
      as(scene, analyst, async (client) => {
        const write = await refusal(client, "UPDATE orders SET amount = 0 WHERE id = 1");
        const salary = await refusal(client, "SELECT * FROM hr.salaries");
        await client.query("SELECT 1");
        return `${write}\n${salary}\nthe connection is still usable`;
      }),
  ],
  [
    "the analyst sees masked e-mails where the administrator sees them, and cannot search for one",
    async (scene) => {
      const sql = "SELECT name, email FROM customers WHERE id = 1";
      const read = (person: Person) => as(scene, person, async (client) => (await client.query(sql)).rows);
      const [hidden, shown] = [await read(analyst), await read(admin)];
      expect(JSON.stringify(shown).includes("@example.com"), "the administrator sees the address");
      expect(
        JSON.stringify(hidden) === '[{"name":"Grace 1","email":"g***@***"}]',
        "the analyst sees its mask",
      );
      const search = "SELECT id FROM customers WHERE email LIKE 'g%'";
      const told = await as(scene, analyst, (client) => refusal(client, search));
      return `${sql}\nanalyst: ${JSON.stringify(hidden)}\nadministrator: ${JSON.stringify(shown)}\n${search}\n${told}`;
    },
  ],
  [
    "the administrator's DELETE without WHERE is refused, and no row is gone",
    async (scene) => {
      const before = await orderCount(scene);
      const told = await as(scene, admin, (client) => refusal(client, unbounded));
      const after = await orderCount(scene);
      expect(before === after && before === 1000, "the server itself counts 1000 rows before and after");
      return `${unbounded}\n${told}\ncounted on the server itself: ${before} before, ${after} after`;
    },
  ],
  [
    "nor is it let through in disguise",
    async (scene) => {
      const disguises = [
        "DELETE FROM orders WHERE true",
        "DELETE FROM orders WHERE id = id",
        "WITH gone AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM gone",
        "SELECT 1; DELETE FROM orders",
        "EXPLAIN ANALYZE DELETE FROM orders",
        "TRUNCATE orders",
      ];
      await as(scene, admin, async (client) => {
        for (const disguise of disguises) await refusal(client, disguise);
      });
      expect((await orderCount(scene)) === 1000, "the server itself still counts 1000 rows");
      return `${disguises.join("\n")}\ncounted on the server itself: 1000`;
    },
  ],
  [
    "but the administrator may delete the row that is meant",
    async (scene) => {
      const sql = "DELETE FROM orders WHERE id = 1000";
      const deleted = await as(scene, admin, async (client) => (await client.query(sql)).rowCount);
      const after = await orderCount(scene);
      expect(deleted === 1 && after === 999, "one row is gone");
      return `${sql}\ncounted on the server itself: ${after}`;
    },
  ],
  [
    "the migration job changes the schema but cannot read",
    (scene) =>
      as(scene, migrationJob, async (client) => {
        await client.query("CREATE TABLE coupons (code text PRIMARY KEY, percent int NOT NULL)");
        const told = await refusal(client, "SELECT * FROM customers");
        const exists = await scene.server.query("SELECT to_regclass('public.coupons') IS NOT NULL AS made");
        expect(exists[0]?.made === true, "the table is there on the server");
        return `CREATE TABLE coupons … worked\nSELECT * FROM customers\n${told}`;
      }),
  ],
  [
    "a change of the schema waits in the administrator's own client until a second person approves it",
    approved,
  ],
  [
    "a token that somebody else signed is worth nothing",
    async (scene) => {
      const { LocalIssuer } = await import("../targets/tokens.ts");
      const forger = new LocalIssuer("sallyport-demo", "sallyport:demo/shop");
      const error = await as({ ...scene, issuer: forger }, admin, async () => undefined).catch(
        (e: unknown) => e,
      );
      expect(error instanceof pg.DatabaseError && /^28/.test(error.code ?? ""), "the login is refused");
      return (error as Error).message;
    },
  ],
  ["psql, unchanged, works too", psqlReads],
  ["the recording plays back what was done, and verifies", replayed],
  ["a recording that somebody changed does not verify", tampered],
];

async function approved(scene: Scene): Promise<string> {
  const sql = "ALTER TABLE customers ADD COLUMN loyalty int";
  const hasColumn = async () => {
    const column = "SELECT 1 FROM information_schema.columns WHERE column_name = 'loyalty'";
    return (await scene.server.query(column)).length > 0;
  };
  return as(scene, admin, async (client) => {
    const notice = new Promise<string>((resolve) =>
      client.once("notice", ({ message = "" }) => resolve(message)),
    );
    const altered = client.query(sql);
    // Awaited below; whoever denies it meanwhile must not end the demo.
    altered.catch(() => undefined);
    const held = await notice;
    const name = /^held for approval (\S+):/.exec(held)?.[1] ?? "";
    // As somebody who may approve: it is still the requester's own.
    const own = { ...admin, groups: ["admins", "leads"] };
    const refused = await approve(scene, own, name).catch((error: { code: number; stderr: string }) => error);
    expect("code" in refused && refused.code === 1, "the administrator's own approval is refused");
    expect(!(await hasColumn()), "the table has not changed");
    const { stdout } = await approve(scene, lead, name);
    await altered;
    expect(await hasColumn(), "the table has changed once it was approved");
    return `${sql}\nNOTICE: ${held}\nadministrator: ${refused.stderr.trim()}\nlead: ${stdout.trim()}\nALTER TABLE`;
  });
}

function approve({ stateDir, issuer }: Scene, person: Person, name: string) {
  return run(process.execPath, [...sallyportCommand, "approve", name, "--state", stateDir], {
    env: { PATH: process.env.PATH, SALLYPORT_TOKEN: issuer.token(person) },
  });
}

async function psqlReads(scene: Scene): Promise<string> {
  const { gateway, issuer } = scene;
  const environment = {
    PATH: process.env.PATH,
    PGPASSWORD: issuer.token(analyst),
    PGHOST: gateway.host,
    PGPORT: String(gateway.port),
    PGUSER: "shop",
    PGDATABASE: "shop",
    PGSSLMODE: "verify-full",
    PGSSLROOTCERT: gateway.caFile,
  };
  const args = ["-X", "-At", "-c", "SELECT count(*) FROM customers"];
  const output = await run("psql", args, { env: environment }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  if (output === undefined) return "psql is not installed here: nothing was tried, nothing is claimed";
  expect(output.stdout.trim() === "200", "psql prints 200");
  return `psql ${args.slice(1).join(" ")}\n${output.stdout.trim()}`;
}

async function replayed({ gateway }: Scene): Promise<string> {
  const { recordingDir } = gateway;
  const sessions = await sallyport(["sessions", recordingDir, "--refused", "--output", "json"]);
  const list: readonly { sessionId: string; user: string }[] = JSON.parse(sessions.stdout);
  const found = list.find(({ user }) => user === "local:adam");
  expect(found !== undefined, "the administrator's session with the refused DELETE is listed");
  const { stdout } = await sallyport(["replay", recordingDir, found?.sessionId ?? ""]);
  expect(stdout.includes(unbounded), "the refused DELETE is in it");
  const verified = await sallyport(["verify", recordingDir, "--public-key", gateway.publicKeyFile]);
  return `${stdout.trim()}\n\n${verified.stdout.trim()}`;
}

async function tampered({ gateway }: Scene): Promise<string> {
  const copy = join(demoFolder, "tampered");
  await cp(gateway.recordingDir, copy, { recursive: true });
  const path = await fileWith(copy, unbounded);
  const file = await open(path, "r+");
  const offset = (await file.readFile()).indexOf(unbounded);
  await file.write("SELECT", offset, "utf8");
  await file.close();
  const outcome = await sallyport(["verify", copy, "--public-key", gateway.publicKeyFile]).catch(
    (error: { code: number; stdout: string; stderr: string }) => error,
  );
  expect("code" in outcome && outcome.code === 1, "verify ends with exit code 1");
  return `DELETE became SELECT in a copy of the recording\n${outcome.stdout}${outcome.stderr}`;
}

async function fileWith(folder: string, text: string): Promise<string> {
  for (const name of await readdir(folder, { recursive: true })) {
    const path = join(folder, name);
    if (!(await stat(path)).isFile()) continue;
    const file = await open(path);
    const holds = (await file.readFile()).includes(text);
    await file.close();
    if (holds) return path;
  }
  throw new Error("the statement stands in no file of the recording");
}

function sallyport(args: readonly string[]) {
  return run(process.execPath, [...sallyportCommand, ...args]);
}
const run = promisify(execFile);

/** A real client, connected as this person for as long as `act` takes. */
async function as<T>(scene: Scene, person: Person, act: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({
    host: scene.gateway.host,
    port: scene.gateway.port,
    user: "shop",
    database: "shop",
    password: scene.issuer.token(person),
    ssl: { ca: scene.gateway.caPem },
  });
  await client.connect();
  try {
    return await act(client);
  } finally {
    await client.end();
  }
}

/** What the client is told; throws where the statement runs, or fails for another reason than policy. */
async function refusal(client: pg.Client, sql: string): Promise<string> {
  const error: unknown = await client.query(sql).catch((e: unknown) => e);
  expect(error instanceof pg.DatabaseError, `${sql} ran`);
  const { code, message, hint } = error as pg.DatabaseError;
  expect(code === "42501", `${sql} failed with ${code}: ${message}`);
  return `ERROR 42501: ${message}${hint ? `\nHINT: ${hint}` : ""}`;
}

async function orderCount({ server }: Scene): Promise<unknown> {
  return (await server.query("SELECT count(*)::int AS n FROM orders"))[0]?.n;
}

function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`does not hold: ${what}`);
}
