/**
 * What breaks around the gateway: itself killed, the server killed, a network that stands still, clients that do not read or
 * that come by the thousand, a disk that is full, a clock that jumps. Nothing accepted is lost, other sessions go on, memory
 * stays bounded; figures are printed.
 *
 * SALLYPORT_SLOW_MB sets what a slow reader asks for (1024 for the full run), SALLYPORT_LOAD_SECONDS how long the mixed load
 * runs (1800 for the full run), SALLYPORT_FAULT_ROUNDS how often the disk fills and the clock jumps (50 for the full run).
 */
import { execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { promisify } from "node:util";
import { listSessions, loadPublicKey, readSession, verifyRecordings } from "@sallyport/sidecar";
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { query, WireClient } from "../targets/wire-client.ts";

const slowMegabytes = Number(process.env.SALLYPORT_SLOW_MB ?? 128);
const loadSeconds = Number(process.env.SALLYPORT_LOAD_SECONDS ?? 8);
const faultRounds = Number(process.env.SALLYPORT_FAULT_ROUNDS ?? 2);
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
});

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

const durable = {
  recording: { mode: "Required", durability: "Durable", content: ["commands", "responses"] },
};

/** A volume for the recordings alone that can be filled and emptied while a gateway writes to it. */
interface Volume {
  readonly wrapper: readonly string[];
  readonly args: readonly string[];
  fill(gateway: Gateway): Promise<void>;
  free(gateway: Gateway): Promise<void>;
  /** A copy of what is on it. */
  copy(gateway: Gateway, to: string): Promise<void>;
}

/** A file system of one megabyte that only the gateway sees; where that is not allowed, a bound on its files. */
async function smallVolume(folder: string): Promise<Volume> {
  const inNamespace = ["unshare", "--user", "--map-root-user", "--mount"];
  const mount = `mount -t tmpfs -o size=1m tmpfs ${folder}`;
  const run = promisify(execFile);
  const mayMount = await run(inNamespace[0] ?? "", [...inNamespace.slice(1), "bash", "-c", mount], {
    timeout: 10_000,
  }).then(
    () => true,
    () => false,
  );
  const args = ["--recordings", joinPath(folder, "recordings")];
  if (!mayMount) {
    const bound = (gateway: Gateway, bytes: string) =>
      run("prlimit", ["--pid", String(gateway.pid), `--fsize=${bytes}:unlimited`], { timeout: 10_000 });
    return {
      args,
      wrapper: [],
      fill: async (gateway) => void (await bound(gateway, "1024")),
      free: async (gateway) => void (await bound(gateway, "unlimited")),
      copy: (_, to) => cp(joinPath(folder, "recordings"), to, { recursive: true }),
    };
  }
  const seen = (gateway: Gateway) => `/proc/${gateway.pid}/root${folder}`;
  return {
    args,
    wrapper: [...inNamespace, "bash", "-c", `${mount} && exec "$0" "$@"`],
    fill: async (gateway) => {
      await expect(
        writeFile(joinPath(seen(gateway), "filler"), Buffer.alloc(2_000_000)),
      ).rejects.toMatchObject({
        code: "ENOSPC",
      });
    },
    free: (gateway) => rm(joinPath(seen(gateway), "filler")),
    copy: (gateway, to) => cp(joinPath(seen(gateway), "recordings"), to, { recursive: true }),
  };
}

test("G12 a disk that fills in mid-session: statements are refused with 57P03 until there is room, and none is lost", async () => {
  const folder = await mkdtemp(joinPath(tmpdir(), "sallyport-volume-"));
  const volume = await smallVolume(folder);
  const { args, wrapper } = volume;
  const full = await startGateway({ server, policies, resource: durable, args, wrapper });
  try {
    const client = await join(full);
    let answered = 0;
    const insert = () =>
      client.query(`INSERT INTO note VALUES (${answered + 1}, 'kept')`).then(
        () => {
          answered += 1;
          return "ok";
        },
        (error: { code?: string }) => error.code,
      );
    const until = async (wanted: string) =>
      expect.poll(insert, { timeout: 20_000, interval: 1 }).toBe(wanted);
    for (let round = 0; round < faultRounds; round += 1) {
      expect(await insert()).toBe("ok");
      await volume.fill(full);
      await until("57P03");
      const refusedAt = performance.now();
      expect(await count()).toBe(answered);
      // Nobody new runs anything either, and who is there stays.
      const other = await join(full).catch((error: { code?: string }) => error.code);
      const code =
        typeof other === "string" ? other : await other?.query("SELECT 1").catch((error) => error.code);
      expect(code).toBe("57P03");
      if (typeof other === "object") await other.end();
      await volume.free(full);
      await until("ok");
      print(
        `disk full: served again ${Math.round(performance.now() - refusedAt)} ms after the first refusal`,
      );
    }
    expect(await count()).toBe(answered);
    await client.end();
    const key = await loadPublicKey(full.publicKeyFile);
    const copy = joinPath(folder, "copy");
    await expect
      .poll(
        async () => {
          await rm(copy, { recursive: true, force: true });
          await volume.copy(full, copy);
          return (await verifyRecordings(copy, key)).ok;
        },
        { timeout: 10_000 },
      )
      .toBe(true);
    const kept = new Set<string>();
    for (const { sessionId } of await listSessions(copy))
      for await (const record of readSession(copy, sessionId))
        for (const [found] of JSON.stringify(record).matchAll(/VALUES \(\d+, 'kept'\)/g)) kept.add(found);
    const missing = Array.from({ length: answered }, (_, n) => `VALUES (${n + 1}, 'kept')`).filter(
      (text) => !kept.has(text),
    );
    expect(missing).toEqual([]);
  } finally {
    await full.stop();
    await rm(folder, { recursive: true, force: true });
  }
}, 600_000);

test("a clock that jumps ends those alone whose token it has outlived, breaks no recording, and counts for logins", async () => {
  const folder = await mkdtemp(joinPath(tmpdir(), "sallyport-clock-"));
  const file = joinPath(folder, "offset");
  const moved = await startGateway({
    server,
    policies,
    resource: durable,
    environment: {
      SALLYPORT_TEST_CLOCK: file,
      NODE_OPTIONS: `--import ${joinPath(import.meta.dirname, "../targets/moved-clock.ts")}`,
    },
  });
  const jump = async (hours: number) => {
    const before = moved.logs().split("the clock is").length;
    await writeFile(file, String(hours * 3_600_000));
    process.kill(moved.pid, "SIGUSR2");
    await expect.poll(() => moved.logs().split("the clock is").length, { timeout: 10_000 }).toBe(before + 1);
  };
  try {
    const client = await moved.connect({ ...ann, lifetimeSeconds: 12 * 3600 });
    const ended = new Promise<string | undefined>((resolve) => {
      client.on("error", (error: Error & { code?: string }) => resolve(error.code));
    });
    await client.query("BEGIN");
    let n = 0;
    for (let round = 0; round < faultRounds; round += 1) {
      for (const hours of [5, -5]) {
        await jump(hours);
        n += 1;
        await client.query("INSERT INTO note VALUES ($1, 'clock')", [n]);
        // By this clock a token of an hour is too old, or not valid yet.
        await expect(moved.connect(ann)).rejects.toMatchObject({ code: "28000" });
        await jump(0);
        const fresh = await moved.connect(ann);
        expect((await fresh.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
        await fresh.end();
      }
    }
    await client.query("COMMIT");
    expect(await count()).toBe(n);
    // Past the end of its token it is over, as by the other clock.
    await jump(13);
    expect(await ended).toBe("57P01");
    await jump(0);
    const key = await loadPublicKey(moved.publicKeyFile);
    await expect
      .poll(async () => (await verifyRecordings(moved.recordingDir, key)).ok, { timeout: 10_000 })
      .toBe(true);
    expect(await moved.stop()).toBe(0);
  } finally {
    await moved.stop();
    await rm(folder, { recursive: true, force: true });
  }
}, 600_000);

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
