/**
 * One gateway or two processes of it: sessions, cancel requests (B3), limits, lock-outs, reloads, recordings and drain
 * are the same for whoever connects.
 */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listSessions, loadPublicKey, verifyRecordings } from "@sallyport/sidecar";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type Gateway, startGateway } from "../targets/gateway.ts";
import { freePort, type PostgresServer, startPostgres } from "../targets/postgres.ts";
import {
  cancelRequest,
  int32s,
  keyOf,
  password,
  query,
  startup,
  WireClient,
} from "../targets/wire-client.ts";

let server: PostgresServer;

const policies = (extra = "") => `
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: staff}
spec:
  resources: {names: [shop]}
  subjects: [{group: "local:staff"}]
  profile: ReadWrite
  rules: [{name: functions, match: {operations: [execute, control]}, action: Allow}]
---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: few}
spec:
  resources: {names: [shop]}
  subjects: [{user: "local:few"}]
  limits: {concurrentSessions: 3}
${extra}`;
const closed = `---
apiVersion: sallyport.dev/v1alpha1
kind: AccessPolicy
metadata: {name: closed}
spec:
  resources: {names: [shop]}
  subjects: [{group: "local:staff"}]
  rules: [{name: closed, match: {objects: ["public.item"]}, action: Deny}]
`;

beforeAll(async () => {
  server = await startPostgres({
    tls: true,
    database: "shop",
    initSql: "CREATE TABLE item (n int); INSERT INTO item VALUES (1);",
  });
});
afterAll(async () => {
  await server?.stop();
});

const staff = (user: string) => ({ user, groups: ["staff"] });

describe.each([1, 2])("with %i process(es)", (processes) => {
  let gateway: Gateway;

  beforeAll(async () => {
    gateway = await startGateway({
      server,
      policies: policies(),
      args: [
        ...["--processes", String(processes), "--lockout", "8"],
        ...["--failed-logins", "4", "--failed-logins-by-address", "12"],
      ],
    });
  });
  afterAll(async () => {
    await gateway?.stop();
  });

  const metricLines = async (name: string) =>
    (await (await fetch(`${gateway.adminUrl}/metrics`)).text())
      .split("\n")
      .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  const metric = async (name: string) =>
    (await metricLines(name)).reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
  /** Clients until every process has one; with random spread that takes a few. */
  const clientsEverywhere = async (user: string): Promise<pg.Client[]> => {
    const clients: pg.Client[] = [];
    const busy = async () =>
      (await metricLines("sallyport_sessions")).filter((line) => Number(line.split(" ").at(-1)) > 0).length;
    while (clients.length < 2 || (await busy()) < processes) {
      if (clients.length > 40) throw new Error("the connections do not spread");
      clients.push(await gateway.connect(staff(user)));
    }
    return clients;
  };
  const login = (from: string, token: string, user = "shop") => {
    const client = new pg.Client({
      host: "127.0.0.1",
      port: gateway.port,
      user,
      database: "shop",
      password: token,
      ssl: { ca: gateway.caPem, servername: "localhost" },
      stream: () => {
        const socket = connectTcp({ port: gateway.port, host: "127.0.0.1", localAddress: from });
        // node-postgres connects what it is given.
        socket.connect = () => socket;
        return socket;
      },
    });
    return client.connect().then(() => client);
  };
  const sqlstateOf = (promise: Promise<unknown>): Promise<string> =>
    promise.then(
      () => "ok",
      (error: unknown) => (error as pg.DatabaseError).code ?? String(error),
    );

  it("serves sessions from each process", async () => {
    const clients = await clientsEverywhere("spread");
    for (const client of clients) expect((await client.query("SELECT n FROM item")).rows).toEqual([{ n: 1 }]);
    expect(await metric("sallyport_sessions")).toBe(clients.length);
    await Promise.all(clients.map((client) => client.end()));
    await vi.waitFor(async () => expect(await metric("sallyport_sessions")).toBe(0), { timeout: 20_000 });
    expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200);
  });

  for (const version of [0x00030000, 0x00030002]) {
    it(`B3: a cancel request for protocol 3.${version & 0xffff} works wherever it arrives`, async () => {
      const client = await WireClient.connect(gateway.port);
      await client.startTls(gateway.caPem);
      client.send(startup({ user: "shop", database: "shop" }, version));
      const before = await client.until("R");
      client.send(password(gateway.issuer.token(staff("canceller"))));
      const greeting = [...before, ...(await client.until("Z"))];
      const key = keyOf(greeting);
      expect(key).toHaveLength(version === 0x00030000 ? 8 : 36);
      const request = cancelRequest(key);
      // Each from a connection of its own: with two processes, all twelve end in the session's own 1 in 4,096 times.
      for (let round = 0; round < (processes === 1 ? 2 : 12); round += 1) {
        const sleep = `SELECT pg_sleep(71), ${processes} + ${round}`;
        client.send(query(sleep));
        await expect
          .poll(() =>
            server.query("SELECT 1 FROM pg_stat_activity WHERE query = $1 AND state = 'active'", [sleep]),
          )
          .toHaveLength(1);
        const canceller = connectTcp(gateway.port, "127.0.0.1");
        canceller.write(request);
        canceller.resume();
        await once(canceller, "close");
        const answer = await client.until("Z");
        expect(answer.find(({ type }) => type === "E")?.fields.C).toBe("57014");
      }
      client.close();
    });
  }

  it("B5: guessed keys end in nothing, and after a hundred of them the address is not listened to for a while", async () => {
    const before = await metric("sallyport_logins_total");
    const send = async (from: string, key: Uint8Array) => {
      const socket = connectTcp({ port: gateway.port, host: "127.0.0.1", localAddress: from });
      socket.write(cancelRequest(key));
      const answers: Buffer[] = [];
      socket.on("data", (chunk: Buffer) => answers.push(chunk));
      await once(socket, "close");
      return Buffer.concat(answers).length;
    };
    const guess = () => send("127.0.0.9", int32s(Math.floor(Math.random() * 0x40000), 1));
    const client = await WireClient.connect(gateway.port);
    await client.startTls(gateway.caPem);
    client.send(startup({ user: "shop", database: "shop" }));
    await client.until("R");
    client.send(password(gateway.issuer.token(staff("guessed"))));
    const key = keyOf(await client.until("Z"));
    for (let done = 0; done < 104; done += 8) {
      expect(await Promise.all(Array.from({ length: 8 }, guess))).toEqual(Array(8).fill(0));
    }
    expect((await metric("sallyport_logins_total")) - before).toBeGreaterThanOrEqual(104);
    const sleep = `SELECT pg_sleep(72), ${processes}`;
    const sleeping = () =>
      server.query("SELECT 1 FROM pg_stat_activity WHERE query = $1 AND state = 'active'", [sleep]);
    client.send(query(sleep));
    await expect.poll(sleeping).toHaveLength(1);
    // The right key from there is as good as none, and does what it should from anywhere else.
    for (let round = 0; round < 4; round += 1) expect(await send("127.0.0.9", key)).toBe(0);
    expect(await sleeping()).toHaveLength(1);
    expect(await send("127.0.0.10", key)).toBe(0);
    expect((await client.until("Z")).find(({ type }) => type === "E")?.fields.C).toBe("57014");
    client.close();
  });

  it("counts concurrent sessions over all processes, however many log in at the same moment", async () => {
    const attempts = await Promise.allSettled(
      Array.from({ length: 12 }, () => gateway.connect(staff("few"))),
    );
    const inside = attempts.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
    const codes = attempts.flatMap((each) => (each.status === "rejected" ? [each.reason.code] : []));
    expect(inside).toHaveLength(3);
    expect(codes).toEqual(Array(9).fill("53300"));
    await inside[0]?.end();
    await vi.waitFor(async () => inside.push(await gateway.connect(staff("few"))), { timeout: 20_000 });
    expect(await sqlstateOf(gateway.connect(staff("few")))).toBe("53300");
    await Promise.all(inside.slice(1).map((client) => client.end()));
  });

  it("locks a user out at one address after failed logins, says for how long, and nowhere else", async () => {
    const good = gateway.issuer.token(staff("victim"));
    const bad = `${good.slice(0, -8)}AAAAAAAA`;
    // At once: on a slow machine the first would be forgotten before the last.
    const guesses = Array.from({ length: 4 }, () => sqlstateOf(login("127.0.0.7", bad)));
    expect(await Promise.all(guesses)).toEqual(Array(4).fill("28000"));
    const refusal = await login("127.0.0.7", good).catch((error: unknown) => error as pg.DatabaseError);
    expect(refusal).toMatchObject({ code: "28000" });
    expect((refusal as Error).message).toMatch(/too many failed logins .*try again in [1-8] seconds/);
    const elsewhere = await login("127.0.0.8", good);
    await elsewhere.end();
    expect(await metric("sallyport_login_lockouts_total")).toBe(1);
  });

  it("locks everybody out at one address after failed logins as many users, and nowhere else", async () => {
    const good = gateway.issuer.token(staff("neighbour"));
    const bad = `${good.slice(0, -8)}AAAAAAAA`;
    const before = await metric("sallyport_login_lockouts_total");
    const guesses = Array.from({ length: 12 }, (_, index) => login("127.0.0.6", bad, `guess${index}`));
    expect(await Promise.all(guesses.map(sqlstateOf))).toEqual(Array(12).fill("28000"));
    const refusal = await login("127.0.0.6", good).catch((error: unknown) => error as pg.DatabaseError);
    expect((refusal as Error).message).toMatch(/too many failed logins .*try again in [1-8] seconds/);
    await (await login("127.0.0.5", good)).end();
    expect(await metric("sallyport_login_lockouts_total")).toBe(before + 1);
  });

  it("a changed policy holds in every process", async () => {
    const clients = await clientsEverywhere("reload");
    await gateway.write("policies.yaml", policies(closed));
    for (const client of clients) {
      await vi.waitFor(
        async () => expect(await sqlstateOf(client.query("SELECT n FROM item"))).toBe("42501"),
        {
          timeout: 10_000,
        },
      );
    }
    await gateway.write("policies.yaml", policies());
    for (const client of clients)
      await vi.waitFor(async () => void (await client.query("SELECT n FROM item")), { timeout: 10_000 });
    await Promise.all(clients.map((client) => client.end()));
  });

  it("the recordings of all processes verify as one, and a removed session is told", async () => {
    const key = await loadPublicKey(gateway.publicKeyFile);
    await vi.waitFor(async () => expect(await metric("sallyport_sessions")).toBe(0), { timeout: 20_000 });
    const verified = await vi.waitFor(
      async () => {
        const found = await verifyRecordings(gateway.recordingDir, key);
        expect(found.sessions.filter(({ status }) => status === "ok").length).toBeGreaterThan(4);
        return found;
      },
      { timeout: 10_000 },
    );
    expect(verified).toMatchObject({ ok: true });
    const sessions = await listSessions(gateway.recordingDir);
    expect(sessions).toHaveLength(verified.sessions.length);
    const lost = sessions.find(
      ({ path, state }) => state === "closed" && (processes === 1 || path.startsWith("processes/1/")),
    );
    await rm(join(gateway.recordingDir, lost?.path ?? ""));
    const after = await verifyRecordings(gateway.recordingDir, key);
    expect(after.ok).toBe(false);
    expect(after.sessions.find(({ sessionId }) => sessionId === lost?.sessionId)?.status).toBe("missing");
  });

  // Behind the tests between them and here, which take most of that time.
  it.each([
    ["a user", "127.0.0.7", "victim"],
    ["everybody", "127.0.0.6", "neighbour"],
  ])("who was locked out gets in again at that address once the time is over: %s", async (_, from, user) => {
    const good = gateway.issuer.token(staff(user));
    await vi.waitFor(async () => (await login(from, good)).end(), { timeout: 20_000, interval: 200 });
  });

  it("a drain ends the sessions of every process with 57P01, and the exit code is 0", async () => {
    const clients = await clientsEverywhere("drained");
    const ends = clients.map(
      (client) =>
        new Promise((resolve) => {
          client.on("error", (error) => {
            if (error instanceof pg.DatabaseError) resolve(error.code);
          });
          client.on("end", () => resolve(undefined));
        }),
    );
    expect(await gateway.stop()).toBe(0);
    expect(await Promise.all(ends)).toEqual(clients.map(() => "57P01"));
  });
});

describe("two replicas", () => {
  const gateways: Gateway[] = [];
  let home: string;
  beforeAll(async () => {
    home = await mkdtemp(join(tmpdir(), "sallyport-peers-"));
    const ports = [await freePort(), await freePort()];
    const file = join(home, "peers.json");
    const peers = Object.fromEntries(ports.map((port, replica) => [replica, `127.0.0.1:${port}`]));
    await writeFile(file, JSON.stringify({ key: randomBytes(32).toString("hex"), peers }), { mode: 0o600 });
    const starting = ports.map((port, replica) => {
      const args = ["--replica", String(replica), "--peers", file, "--peer-listen", `127.0.0.1:${port}`];
      // One of them of two processes, so that the way leads through both kinds.
      args.push("--processes", String(replica + 1));
      return startGateway({ server, policies: policies(), args });
    });
    gateways.push(...(await Promise.all(starting)));
  });
  afterAll(async () => {
    for (const gateway of gateways) await gateway.stop();
    await rm(home, { recursive: true, force: true });
  });

  it.each([
    [0, 1],
    [1, 0],
  ])("B3: a cancel request for a session of replica %i works at replica %i", async (own, other) => {
    const [gateway, arrival] = [gateways[own], gateways[other]];
    if (gateway === undefined || arrival === undefined) throw new Error("no gateways");
    for (let round = 0; round < 4; round += 1) {
      const client = await WireClient.connect(gateway.port);
      await client.startTls(gateway.caPem);
      client.send(startup({ user: "shop", database: "shop" }));
      await client.until("R");
      client.send(password(gateway.issuer.token(staff("canceller"))));
      const key = keyOf(await client.until("Z"));
      const sleep = `SELECT pg_sleep(73), ${own} + ${round}`;
      client.send(query(sleep));
      await expect
        .poll(() =>
          server.query("SELECT 1 FROM pg_stat_activity WHERE query = $1 AND state = 'active'", [sleep]),
        )
        .toHaveLength(1);
      const canceller = connectTcp(arrival.port, "127.0.0.1");
      canceller.write(cancelRequest(key));
      canceller.resume();
      await once(canceller, "close");
      const answer = await client.until("Z");
      expect(answer.find(({ type }) => type === "E")?.fields.C).toBe("57014");
      client.close();
    }
  });
});

describe("two processes", () => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ server, policies: policies(), args: ["--processes", "2"] });
  });
  afterAll(async () => {
    await gateway?.stop();
  });

  it("neither lets in whom the other has already shut out", async () => {
    const mayEnter = async () => {
      try {
        await (await gateway.connect(staff("ann"))).end();
        return true;
      } catch {
        return false;
      }
    };
    for (let round = 0; round < 2; round += 1) {
      const withdrawn = policies().replace("local:staff", "local:nobody");
      await gateway.write("policies.yaml", `${withdrawn}# ${round}\n`);
      await vi.waitUntil(async () => !(await mayEnter()), { timeout: 10_000, interval: 1 });
      // From the first refusal on, whichever process they reach.
      const later = await Promise.all(Array.from({ length: 12 }, mayEnter));
      expect(later).toEqual(Array.from({ length: 12 }, () => false));
      await gateway.write("policies.yaml", `${policies()}# ${round}\n`);
      await vi.waitUntil(mayEnter, { timeout: 10_000, interval: 1 });
      expect(await Promise.all(Array.from({ length: 6 }, mayEnter))).not.toContain(false);
    }
  });

  it("one that is killed is replaced, and gives its users their places back", async () => {
    const clients: pg.Client[] = [];
    for (let count = 0; count < 3; count += 1) clients.push(await gateway.connect(staff("few")));
    for (const client of clients) client.on("error", () => undefined);
    const listening: { processes: number[] } = JSON.parse(
      await readFile(join(gateway.recordingDir, "../listening.json"), "utf8"),
    );
    expect(listening.processes).toHaveLength(2);
    for (const pid of listening.processes) {
      process.kill(pid, "SIGKILL");
      await vi.waitFor(
        async () => {
          const text = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
          expect(text).toContain("sallyport_processes 2");
          expect(gateway.logs().match(/a process of the gateway has ended/g)?.length).toBeGreaterThanOrEqual(
            listening.processes.indexOf(pid) + 1,
          );
        },
        { timeout: 40_000, interval: 100 },
      );
    }
    // Both have been killed, so all three places are free again.
    const again = await Promise.all([1, 2, 3].map(() => gateway.connect(staff("few"))));
    await Promise.all(again.map((client) => client.end()));
  });

  it("recordings of a process that are removed as a whole are missed, and so is one that takes another's place", async () => {
    const key = await loadPublicKey(gateway.publicKeyFile);
    await gateway.connect(staff("last")).then((client) => client.end());
    const before = await verifyRecordings(gateway.recordingDir, key);
    expect(before.log.status).toMatch(/ok|open/);
    expect(await readdir(join(gateway.recordingDir, "processes"))).toEqual(["1"]);
    const copy = `${gateway.recordingDir}-copy`;
    await cp(gateway.recordingDir, copy, { recursive: true });
    await rm(join(copy, "processes"), { recursive: true });
    expect((await verifyRecordings(copy, key)).log).toMatchObject({ status: "missing" });
    await cp(join(copy, "log"), join(copy, "processes/1/log"), { recursive: true });
    await cp(join(copy, "sessions"), join(copy, "processes/1/sessions"), { recursive: true });
    expect((await verifyRecordings(copy, key)).log).toMatchObject({ status: "changed" });
  });

  it("a second gateway on the same port is refused instead of taking half of the connections", async () => {
    const other = startGateway({
      server,
      policies: policies(),
      args: ["--processes", "2"],
      resource: { listen: { port: gateway.port } },
    });
    await expect(other).rejects.toThrow(/EADDRINUSE/);
  });
});
