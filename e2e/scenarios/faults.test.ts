/**
 * What breaks around the gateway: itself killed, the server killed, a network that stands still, clients that do not read or
 * that come by the thousand. Nothing accepted is lost, other sessions go on, memory stays bounded; figures are printed.
 *
 * SALLYPORT_SLOW_MB sets what a slow reader asks for (1024 for the full run), SALLYPORT_LOAD_SECONDS how long the mixed load
 * runs (1800 for the full run). A full disk is in bad-input.test.ts.
 */
import { readFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { listSessions, loadPublicKey, readSession, verifyRecordings } from "@sallyport/sidecar";
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { query, WireClient } from "../targets/wire-client.ts";

const slowMegabytes = Number(process.env.SALLYPORT_SLOW_MB ?? 128);
const loadSeconds = Number(process.env.SALLYPORT_LOAD_SECONDS ?? 8);
const policies = `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: all}
spec: {resources: {names: [shop]}, subjects: [{user: "local:ann"}], profile: Admin}
`;
const ann = { user: "ann" };

let server: PostgresServer;
let gateway: Gateway;

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    database: "shop",
    initSql: "CREATE TABLE note (n int PRIMARY KEY, word text)",
  });
  gateway = await startGateway({ server, policies });
});
beforeEach(async () => {
  await server.query("TRUNCATE note");
});
afterAll(async () => {
  await gateway?.stop();
  await server?.stop();
});

const print = (text: string) => process.stdout.write(`faults: ${text}\n`);
const count = async () => (await server.query("SELECT count(*)::int AS n FROM note"))[0]?.n;

async function residentMegabytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024;
}

async function metric(name: string, of = gateway): Promise<number> {
  const text = await (await fetch(`${of.adminUrl}/metrics`)).text();
  return Number(
    text
      .split("\n")
      .find((line) => line.startsWith(name))
      ?.split(" ")
      .at(-1) ?? 0,
  );
}

/** A client whose end by the other side is no failure of the test. */
async function join(of: Gateway): Promise<pg.Client> {
  const client = await of.connect(ann);
  client.on("error", () => undefined);
  return client;
}

test("a gateway killed in mid-transaction: the server rolls back, and the journal holds up to its last record", async () => {
  const killed = await startGateway({
    server,
    policies,
    resource: { recording: { mode: "Required", durability: "Durable", content: ["commands", "responses"] } },
  });
  try {
    const client = await join(killed);
    await client.query("INSERT INTO note VALUES (1, 'committed')");
    await client.query("BEGIN");
    for (let n = 2; n < 30; n += 1) await client.query("INSERT INTO note VALUES ($1, 'open')", [n]);
    await killed.kill9();
    await expect.poll(count, { timeout: 10_000 }).toBe(1);
    const open = "SELECT count(*)::int AS n FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    await expect.poll(async () => (await server.query(open))[0]?.n, { timeout: 10_000 }).toBe(0);
    const key = await loadPublicKey(killed.publicKeyFile);
    const found = await verifyRecordings(killed.recordingDir, key);
    const [session] = await listSessions(killed.recordingDir);
    let recorded = 0;
    for await (const record of readSession(killed.recordingDir, session?.sessionId ?? ""))
      if (JSON.stringify(record).includes("INSERT INTO note")) recorded += 1;
    print(`killed -9: ${recorded} of 29 answered INSERTs are in the journal`);
    // Durable: every command that was answered is in the journal, which a crash may have ended but nobody has changed.
    expect(recorded).toBe(29);
    expect(JSON.stringify(found)).not.toMatch(/"status":"(changed|cut|missing)"/);
  } finally {
    await killed.stop();
  }
});

test("a server killed and started again: sessions end with a code, the next login works, nothing answered is lost", async () => {
  const clients = await Promise.all(Array.from({ length: 5 }, () => join(gateway)));
  await clients[0]?.query("INSERT INTO note VALUES (1, 'kept')");
  const broken = clients.map((client) => client.query("SELECT pg_sleep(60)").catch((error) => error.code));
  const asleep = "SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
  await expect.poll(async () => (await server.query(asleep))[0]?.n, { timeout: 10_000 }).toBe(5);
  await server.kill9();
  const codes = await Promise.all(broken);
  for (const code of codes) expect(["08006", "57P02", "57P01"]).toContain(code);
  await expect(gateway.connect(ann)).rejects.toMatchObject({ code: "08006" });
  const before = performance.now();
  await server.restart();
  await expect
    .poll(
      async () => {
        const client = await gateway.connect(ann).catch(() => undefined);
        const result = await client?.query("SELECT word FROM note").catch(() => undefined);
        await client?.end();
        return result?.rows;
      },
      { timeout: 20_000 },
    )
    .toEqual([{ word: "kept" }]);
  print(
    `server restarted: served again ${Math.round(performance.now() - before)} ms after its start was asked for`,
  );
});

test("a network that stands still holds up its own sessions alone, and lets them go when their clients leave", async () => {
  const links = new Set<Socket>();
  const proxy = createServer((near) => {
    const far = connect(server.port, "127.0.0.1");
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      links.add(from);
      from.on("data", (chunk) => to.write(chunk));
      from.on("error", () => to.destroy()).on("close", () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const { port } = proxy.address() as AddressInfo;
  const behind = await startGateway({
    server: { ...server, host: server.host, port } as PostgresServer,
    policies,
  });
  try {
    const stalled = await join(behind);
    for (const link of links) link.pause();
    const answer = stalled.query("SELECT 1").catch(() => "ended");
    const before = performance.now();
    await expect
      .poll(
        async () => {
          const fresh = await behind.connect(ann).catch(() => undefined);
          fresh?.on("error", () => undefined);
          const rows = await fresh?.query("SELECT count(*)::int AS n FROM note").then(
            (result) => result.rows,
            () => undefined,
          );
          await fresh?.end();
          return rows;
        },
        { timeout: 25_000 },
      )
      .toEqual([{ n: 0 }]);
    print(`network stalled: new sessions served after ${Math.round(performance.now() - before)} ms`);
    void stalled.end();
    (stalled as unknown as { connection: { stream: Socket } }).connection.stream.destroy();
    await answer;
    await expect.poll(() => metric("sallyport_sessions{", behind), { timeout: 10_000 }).toBe(0);
  } finally {
    await behind.stop();
    for (const link of links) link.destroy();
    proxy.close();
  }
}, 60_000);

test("a reader that does not read costs no memory, and gets everything in the end", async () => {
  const password = await gateway.token(ann);
  const login = { port: gateway.port, ca: gateway.caPem, user: "shop", database: "shop", password };
  const slow = await WireClient.logIn(login);
  const other = await join(gateway);
  const before = await residentMegabytes(gateway.pid);
  slow.socket.removeAllListeners("data");
  slow.socket.pause();
  slow.send(query(`SELECT repeat('x', 1000000) FROM generate_series(1, ${slowMegabytes})`));
  const waits = "SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
  await expect.poll(async () => (await server.query(waits))[0]?.n, { timeout: 10_000 }).toBe(1);
  const held = (await residentMegabytes(gateway.pid)) - before;
  expect((await other.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  let bytes = 0;
  let highest = held;
  await new Promise<void>((resolve) => {
    slow.socket.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes >= slowMegabytes * 1_000_000 && chunk.at(-6) === 0x5a) resolve();
    });
    slow.socket.resume();
  });
  highest = Math.max(highest, (await residentMegabytes(gateway.pid)) - before);
  print(
    `slow reader of ${slowMegabytes} MB: ${held.toFixed(0)} MB held while it slept, ${highest.toFixed(0)} MB at the end`,
  );
  expect(bytes).toBeGreaterThan(slowMegabytes * 1_000_000);
  // Room for garbage: without backpressure it would be all that was asked for.
  expect(held).toBeLessThan(Math.min(96, slowMegabytes * 0.75));
  slow.close();
  await other.end();
}, 600_000);

test("a thousand connections opened and dropped in a second leave nothing behind", async () => {
  const other = await join(gateway);
  const before = await residentMegabytes(gateway.pid);
  const began = performance.now();
  const sockets = await Promise.all(
    Array.from(
      { length: 1_000 },
      () =>
        new Promise<Socket>((resolve) => {
          const socket = connect(gateway.port, "127.0.0.1", () => resolve(socket));
          socket.on("error", () => resolve(socket));
        }),
    ),
  );
  for (const [index, socket] of sockets.entries()) {
    if (index % 2 === 0) socket.write(Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]));
    socket.destroy();
  }
  const took = performance.now() - began;
  expect((await other.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  await expect.poll(() => metric("sallyport_sessions{"), { timeout: 10_000 }).toBe(1);
  const fresh = await gateway.connect(ann);
  await fresh.end();
  const grown = (await residentMegabytes(gateway.pid)) - before;
  print(
    `1,000 connections opened and dropped in ${Math.round(took)} ms: memory ${grown.toFixed(0)} MB higher`,
  );
  expect(grown).toBeLessThan(96);
  await other.end();
});

test("under mixed load nothing answered is lost and memory stays flat", async () => {
  const until = performance.now() + loadSeconds * 1_000;
  const samples: number[] = [];
  let kept = 0;
  let statements = 0;
  const worker = async (index: number) => {
    let client = await join(gateway);
    for (let round = 0; performance.now() < until; round += 1) {
      const key = index * 10_000_000 + round;
      statements += 6;
      await client.query("INSERT INTO note VALUES ($1, 'load')", [key]);
      kept += 1;
      await client.query(`SELECT ${key} AS distinct_text, count(*) FROM note WHERE n = ${key}`);
      await client.query("SELEC 1").catch(() => undefined);
      await client.query("BEGIN");
      await client.query("INSERT INTO note VALUES ($1, 'rolled back')", [-key - 1]);
      await client.query("ROLLBACK");
      if (round % 50 === 49) {
        await client.end();
        client = await join(gateway);
      }
    }
    await client.end();
  };
  const sampler = (async () => {
    while (performance.now() < until) {
      samples.push(await residentMegabytes(gateway.pid));
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  })();
  await Promise.all([...Array.from({ length: 8 }, (_, index) => worker(index)), sampler]);
  expect(await count()).toBe(kept);
  const half = samples.slice(Math.floor(samples.length / 2));
  const growth = (half.at(-1) ?? 0) - (half[0] ?? 0);
  print(
    `mixed load for ${loadSeconds} s: ${statements} statements, ${kept} rows kept, memory ${samples[0]?.toFixed(0)} to ` +
      `${samples.at(-1)?.toFixed(0)} MB, ${growth.toFixed(0)} MB in the second half`,
  );
  expect(growth).toBeLessThan(64);
}, 2_400_000);
