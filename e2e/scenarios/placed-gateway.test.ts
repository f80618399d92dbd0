/** A gateway as the operator places it: policy over the control stream, recordings at the recorder, real PostgreSQL. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { ApprovalAsk, SessionReport } from "@sallyport/control";
import { loadPublicKey } from "@sallyport/sidecar";
import { readVolume } from "@sallyport/sidecar/recorder-volume";
import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startControlPlane, type TestControlPlane } from "../targets/control-plane.ts";
import { type GatewayProcess, sallyportCommand, spawnGateway } from "../targets/gateway.ts";
import { besideServer, bundleOf, localProvider, shopResource, writeSecret } from "../targets/manifests.ts";
import { freePort, type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { LocalIssuer } from "../targets/tokens.ts";
import { quickestOf } from "../targets/until.ts";

let server: PostgresServer;
let plane: TestControlPlane;
let folder: string;
let port: number;
let gateway: GatewayProcess;
let starting: Promise<GatewayProcess>;
let recorder: RecorderProcess;
let recorderPort: number;
let tokenFile: string;
let revision = 0;
const reports: SessionReport[] = [];
const asked: ApprovalAsk[] = [];
const problems = () =>
  plane.server.of("default/shop").flatMap((report) => report.problems.map(({ reason }) => reason));
const issuer = new LocalIssuer("sallyport-test", "sallyport:default/shop");

beforeAll(async () => {
  [server, plane] = await Promise.all([
    startPostgres({ tls: true }),
    startControlPlane({
      events: { sessions: (_, some) => reports.push(...some), asked: (_, ask) => asked.push(ask) },
    }),
  ]);
  folder = await mkdtemp(join(tmpdir(), "sallyport-placed-"));
  [port, recorderPort] = [await freePort(), await freePort()];
  tokenFile = await plane.gatewayPod("default/shop", "uid-1");
  recorder = await startRecorder();
  await writeSecret(join(folder, "secrets/shop"), {
    ...{ username: server.superuser, password: server.password },
    "ca.crt": server.caPem,
  });
  starting = spawnGateway({
    configDir: folder,
    stateDir: join(folder, "state"),
    port,
    args: [
      ...["--secrets", join(folder, "secrets")],
      ...["--control", plane.address, "--control-ca", plane.caFile, "--control-token", tokenFile],
      ...["--recorder", `127.0.0.1:${recorderPort}`, "--resource", "default/shop"],
      ...["--listen-port", String(port), "--policy-max-age", "3", "--drain", "2"],
    ],
  });
});
afterAll(async () => {
  await gateway?.stop();
  recorder?.child.kill("SIGKILL");
  await plane?.stop();
  await server?.stop();
  await rm(folder, { recursive: true, force: true });
});

test("the port answers 57P03 until there is policy, and lets people in when there is", async () => {
  await until(() => reached(port));
  await expect(connect()).rejects.toMatchObject({ code: "57P03" });
  await publish(policy(["read", "write", "define"]));
  plane.bundles.markComplete();
  gateway = await starting;
  const client = await connect();
  expect((await client.query("select 1 as one")).rows).toEqual([{ one: 1 }]);
  await client.end();
});

test("the certificate that clients verify is the operator's", async () => {
  const ca = await readFile(join(plane.folder, "serving-ca.crt"), "utf8");
  await until(async () => {
    const client = await connect({ ssl: { ca } }).catch(() => undefined);
    await client?.end();
    return client !== undefined;
  });
});

test("a change of policy reaches a live session within a second", async () => {
  const client = await connect();
  await client.query("create table if not exists notes (id int)");
  const took = await quickestOf(1_000, async () => {
    await client.query("insert into notes values (1)");
    const start = performance.now();
    await publish(policy(["read"]));
    await until(() => client.query("insert into notes values (2)").then(no, isDenied));
    const ms = performance.now() - start;
    await client.query("select * from notes");
    await publish(policy(["read", "write", "define"]));
    await until(() => client.query("insert into notes values (3)").then(yes, no));
    return ms;
  });
  expect(took).toBeLessThan(1_000);
  await client.end();
});

test("a session with a denied statement is reported at once, and its end with the final hash", async () => {
  const { client, id } = await denied();
  await client.end();
  await until(() => reports.some((report) => report.id === id && report.state === "Ended"));
  const ended = reports.findLast((report) => report.id === id);
  expect(ended).toMatchObject({ user: "local:alice", refused: 1, account: server.superuser });
  expect(ended?.finalHash).toMatch(/^[0-9a-f]{64}$/);
});

test("a held statement is reported while it waits, as held and not as refused; approved it never was refused", async () => {
  const asking = {
    ...{ name: "asks", match: { objects: ["public.held"] }, action: "RequireApproval" },
    approval: { required: 1, timeout: "1m" },
  };
  const { spec, ...alice } = policy(["read", "write", "define"]);
  await publish({ ...alice, spec: { ...spec, rules: [...spec.rules, asking] } });
  await server.query("create table public.held (n int)");
  const client = await connect();
  const id = await idOf(client);
  for (const decision of [
    { kind: "approved", by: ["bob"] },
    { kind: "denied", by: "bob" },
  ]) {
    asked.length = 0;
    const outcome = client.query("insert into public.held values (1)").then(
      ({ rowCount }) => rowCount,
      (error: { code?: string }) => error.code,
    );
    await until(() => asked.length === 1);
    if (decision.kind === "approved") {
      await until(() => reports.some((report) => report.id === id && report.held === 1));
      expect(reports.findLast((report) => report.id === id)).toMatchObject({
        ...{ cause: "held", state: "Live", held: 1, refused: 0 },
      });
    }
    plane.server.tell({ kind: "decision", id: asked[0]?.id ?? "", decision }, "default/shop");
    expect(await outcome).toBe(decision.kind === "approved" ? 1 : "42501");
  }
  await client.end();
  await until(() => reports.some((report) => report.id === id && report.state === "Ended"));
  expect(reports.findLast((report) => report.id === id)).toMatchObject({ held: 2, refused: 1 });
  await publish(policy(["read", "write", "define"]));
});

test("the operator can end a live session", async () => {
  const { client, id } = await denied();
  const ended = new Promise((resolve) => client.once("end", resolve));
  client.on("error", () => undefined);
  plane.server.endSession("default/shop", id, "deleted");
  await ended;
});

test("an address that the operator has given no right to is not dialled, and a gateway that was told none dials none", async () => {
  const granted = policy(["read", "write", "define"]);
  const outside = { ownPod: false, forbidden: ["10.0.0.0/8"], allowed: [{ range: "0.0.0.0/0" }] };
  for (const reach of [outside, null, { ownPod: true }]) {
    await publish(granted, reach);
    await until(() =>
      connect().then(
        (client) => client.end().then(no),
        (error: { code?: string }) => error.code === "08006",
      ),
    );
    await until(async () => problems().includes("UpstreamNotGranted"));
  }
  await publish(granted);
  await until(() => connect().then((client) => client.end().then(yes), no));
});

test("a gateway's own token is nobody's password", async () => {
  const { publicKeyPem } = issuer;
  expect(publicKeyPem).toContain("PUBLIC KEY");
  const password = issuer.token({
    user: "alice",
    claims: { aud: ["sallyport:default/shop", "control.sallyport.dev"] },
  });
  await expect(connect({ password })).rejects.toMatchObject({ code: "28000" });
  await expect(connect({ password: await readFile(tokenFile, "utf8") })).rejects.toMatchObject({
    code: "28000",
  });
});

test("while the recorder is down Required refuses; killed again and again it loses nothing acknowledged", async () => {
  await publish(policy(["read", "write", "define"]));
  const client = await connect();
  await client.query("create table if not exists kept (n int)");
  const ran: number[] = [];
  let n = 0;
  for (let round = 0; round < 3; round++) {
    const killed = new Promise<void>((resolve) => recorder.child.once("exit", () => resolve()));
    const killSoon = () => setTimeout(() => recorder.child.kill("SIGKILL"), 60 + round * 37);
    let acknowledged = 0;
    // `define` is recorded durably before it runs: each that ran must be on the recorder's disk.
    for (let hasEnded = false; !hasEnded; n++) {
      await client.query(`create table t_${n} ()`).then(
        () => {
          ran.push(n);
          acknowledged += 1;
          if (acknowledged === 2) killSoon();
        },
        (error: { code?: string }) => {
          expect(error.code).toBe("57P03");
          hasEnded = true;
        },
      );
    }
    await killed;
    await expect(client.query("create table refused ()")).rejects.toMatchObject({ code: "57P03" });
    recorder = await startRecorder();
    await until(() => client.query("create table if not exists back ()").then(yes, no));
  }
  await client.end();
  expect(ran.length).toBeGreaterThan(3);
  const text = await recorded();
  const missing = ran.filter((each) => !text.includes(`create table t_${each} ()`));
  expect(missing).toEqual([]);
  const found = await server.query("select count(*)::int as n from pg_tables where tablename like 't\\_%'");
  expect(found).toEqual([{ n: ran.length }]);
  await until(() => verified().then(({ ok }) => ok));
  const said = await sallyport("verify", join(folder, "volume"), "--wrapping-keys", join(folder, "wrapping"));
  expect(said).toMatch(/unchanged/);
});

test("a recorder that cannot open one of its ports ends instead of recording beside the other", async () => {
  const args = await recorderArgs(join(folder, "second"), 0);
  const run = promisify(execFile)(
    process.execPath,
    [...sallyportCommand, ...args, "--api", `127.0.0.1:${recorderPort}`],
    { timeout: 40_000, killSignal: "SIGKILL", env: { PATH: process.env.PATH } },
  );
  await expect(run).rejects.toMatchObject({
    code: 1,
    killed: false,
    stderr: expect.stringContaining("EADDRINUSE"),
  });
});

test("without the operator sessions go on, and nobody new is let in once policy is too old", async () => {
  const client = await connect();
  plane.server.stop();
  await client.query("select 1");
  await until(() => connect().then((other) => other.end().then(no), isUnavailable));
  expect((await client.query("select 2 as two")).rows).toEqual([{ two: 2 }]);
  await client.end();
});

async function recorded(): Promise<string> {
  const volume = await readVolume(join(folder, "volume"), [join(folder, "wrapping")]);
  let text = "";
  for (const session of await volume.sessions()) {
    for await (const chunk of await volume.read(session)) text += chunk.toString();
  }
  return text;
}

/** Runs the command line as an auditor does who holds the recorder's public key. */
async function sallyport(...args: readonly string[]): Promise<string> {
  const all = [...sallyportCommand, ...args, "--public-key", join(folder, "recorder.pub.pem")];
  return (await promisify(execFile)(process.execPath, all)).stdout;
}

async function verified() {
  const volume = await readVolume(join(folder, "volume"), [join(folder, "wrapping")]);
  return volume.verify(await loadPublicKey(join(folder, "recorder.pub.pem")));
}

function policy(operations: readonly string[]) {
  return {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "AccessPolicy",
    metadata: { name: "alice", namespace: "default" },
    spec: {
      resources: { names: ["shop"] },
      subjects: [{ user: "local:alice" }],
      rules: [{ name: "some", match: { operations: [...operations, "session"] }, action: "Allow" }],
    },
  };
}

/** Publishes the resource, its provider and a policy. */
async function publish(policy: object, reach: unknown = besideServer): Promise<void> {
  const manifests = [
    policy,
    shopResource(server),
    localProvider(issuer, { kubernetesUsername: "claims.sub" }),
  ];
  plane.bundles.set("default/shop", await bundleOf(manifests, { revision: ++revision, reach }));
}

async function connect(change: pg.ClientConfig = {}): Promise<pg.Client> {
  const client = new pg.Client({
    host: "localhost",
    port,
    user: "shop",
    database: server.database,
    password: issuer.token({ user: "alice" }),
    ssl: { rejectUnauthorized: false },
    ...change,
  });
  await client.connect();
  return client;
}

/** A live session that was denied something, and the id under which the gateway reports it. */
async function denied(): Promise<{ readonly client: pg.Client; readonly id: string }> {
  const client = await connect();
  await client.query("grant select on notes to public").catch(() => undefined);
  const id = await idOf(client);
  await until(() => reports.some((report) => report.id === id && report.state === "Live"));
  return { client, id };
}

/** A report of the session before may still be on its way: only the session itself says which it is. */
async function idOf(client: pg.Client): Promise<string> {
  const { rows } = await client.query("SELECT current_setting('application_name') AS name");
  return /[0-9a-f-]{36}/.exec(rows[0].name)?.[0] ?? "";
}

const yes = () => true;
const no = () => false;
const isDenied = (error: { code?: string }) => error.code === "42501";
const isUnavailable = (error: { code?: string }) => error.code === "57P03";

async function reached(at: number): Promise<boolean> {
  const client = new pg.Client({
    host: "localhost",
    port: at,
    user: "x",
    ssl: { rejectUnauthorized: false },
  });
  client.on("error", () => undefined);
  return client.connect().then(yes, (error: { code?: string }) => error.code !== "ECONNREFUSED");
}

interface RecorderProcess {
  readonly child: ChildProcess;
  logs(): string;
}

/** How a recorder is called that gateways of this plane record at. */
async function recorderArgs(volume: string, listenPort: number): Promise<string[]> {
  const wrapping = join(folder, "wrapping");
  await writeFile(wrapping, randomBytes(32), { flag: "wx" }).catch(() => undefined);
  const gatewayCa = join(folder, "gateway-ca.crt");
  await writeFile(gatewayCa, plane.gatewayCaPem);
  return [
    "recorder",
    ...["--volume", volume, "--tls", await plane.serverFolder(), "--gateway-ca", gatewayCa],
    ...["--signing-key", join(folder, "recorder.key.pem"), "--wrapping-keys", wrapping],
    ...["--listen", `127.0.0.1:${listenPort}`, "--api", "127.0.0.1:0"],
  ];
}

async function startRecorder(): Promise<RecorderProcess> {
  const child = spawn(
    process.execPath,
    [...sallyportCommand, ...(await recorderArgs(join(folder, "volume"), recorderPort))],
    { stdio: ["ignore", "pipe", "pipe"], env: { PATH: process.env.PATH } },
  );
  let logs = "";
  const collect = (text: string) => {
    logs += text;
  };
  child.stdout.setEncoding("utf8").on("data", collect);
  child.stderr.setEncoding("utf8").on("data", collect);
  await until(() => {
    if (child.exitCode !== null) throw new Error(`the recorder ended: ${logs}`);
    return logs.includes("the recorder is ready");
  });
  return { child, logs: () => logs };
}

async function until(isTrue: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 40_000;
  while (!(await isTrue())) {
    if (performance.now() > deadline) throw new Error(`what was waited for never came: ${isTrue}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
