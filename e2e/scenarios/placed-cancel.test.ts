/** Two gateways of one resource, each a process of its own that only the operator joins: a cancel request works at either (B3). */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from "node:net";
import { join } from "node:path";
import type { ApprovalAsk } from "@sallyport/control";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasCommand } from "../drivers/toolchains.ts";
import { type JoinedGateways, startJoinedGateways } from "../targets/joined-gateways.ts";
import { localProvider, shopResource, writeSecret } from "../targets/manifests.ts";
import { type PostgresServer, startPostgres } from "../targets/postgres.ts";
import { LocalIssuer } from "../targets/tokens.ts";
import { until } from "../targets/until.ts";
import { cancelRequest, keyOf, password, query, startup, WireClient } from "../targets/wire-client.ts";

const hasPsql = await hasCommand("psql", ["--version"]);
const issuer = new LocalIssuer("sallyport-test", "sallyport:default/shop");
const versions = [
  ["3.0", 0x00030000, 8],
  ["3.2", 0x00030002, 36],
] as const;
const [[, protocol30]] = versions;
const asked: ApprovalAsk[] = [];
const withdrawn: string[] = [];
let server: PostgresServer;
let joined: JoinedGateways;
let gateways: JoinedGateways["gateways"];
const token = () => issuer.token({ user: "alice", claims: { mail: "alice@example.com" } });

beforeAll(async () => {
  server = await startPostgres({ tls: true, database: "shop", initSql: "CREATE TABLE item (n int)" });
  joined = await startJoinedGateways({
    ...{ resource: "default/shop", protocol: "postgres", manifests },
    events: {
      asked: (_, ask) => asked.push(ask),
      withdrawn: (_, id) => withdrawn.push(id),
    },
  });
  ({ gateways } = joined);
});
afterAll(async () => {
  await joined?.stop();
  await server?.stop();
});

const ways = [
  [0, 1],
  [1, 0],
] as const;

describe.each(versions)("by protocol %s", (_, version, keyBytes) => {
  test.each(ways)(
    "B3: a session at gateway %i is cancelled at gateway %i, again and again",
    async (own, other) => {
      const { client, key } = await logIn(own, version);
      expect(key).toHaveLength(keyBytes);
      for (let round = 0; round < 3; round += 1) {
        client.send(query(sleeping(`${version} + ${own} + ${round}`)));
        await isAsleep(`${version} + ${own} + ${round}`);
        expect(await cancel(other, key)).toBe(0);
        expect(await answered(client)).toBe("57014");
      }
      client.close();
    },
  );

  test("B6: a statement that is held ends with 57014 at once, its request is withdrawn, and nothing is sent", async () => {
    const { client, key } = await logIn(0, version);
    const before = asked.length;
    client.send(query("INSERT INTO item VALUES (1)"));
    await until(() => asked.length > before);
    expect(await cancel(1, key)).toBe(0);
    expect(await answered(client)).toBe("57014");
    await until(() => withdrawn.includes(asked.at(-1)?.id ?? ""));
    expect(await server.query("SELECT n FROM item")).toEqual([]);
    client.close();
  });
});

test("B5: a wrong key is answered by nothing wherever it arrives, is noted there, and cancels nothing", async () => {
  const { client, key } = await logIn(0, protocol30);
  client.send(query(sleeping("5")));
  await isAsleep("5");
  const before = await missedHandOvers(1);
  const misses = () => (gateways[1]?.logs().match(/a cancel request names no session/g) ?? []).length;
  const noted = misses();
  const wrong = Buffer.from(key);
  wrong[7] = (wrong[7] ?? 0) ^ 1;
  expect(await cancel(1, wrong)).toBe(0);
  // It has a session's number and a key's length, so only the gateway that has the session could tell.
  const after = await missedHandOvers(1);
  expect(after).toBe(before + 1);
  await until(() => misses() === noted + 1);
  // A long one that no gateway has issued is told by the one that gets it.
  expect(await cancel(1, Buffer.concat([key.subarray(0, 4), randomBytes(32)]))).toBe(0);
  expect(await missedHandOvers(1)).toBe(after);
  await until(() => misses() === noted + 2);
  await isAsleep("5");
  expect(await cancel(1, key)).toBe(0);
  expect(await answered(client)).toBe("57014");
  client.close();
});

if (!hasPsql) test.skip("B1: Ctrl-C of psql (NOT RUN: psql is not installed)", () => {});
else
  test.each(ways)(
    "B1: Ctrl-C of psql at gateway %i works behind a balancer that leads to gateway %i",
    async (own, other) => {
      let to = own;
      const sockets = new Set<Socket>();
      const balancer = createServer((from) => {
        const onward = connectTcp(gateways[to]?.port ?? 0, "127.0.0.1");
        for (const socket of [from, onward]) {
          sockets.add(socket);
          socket.on("error", () => undefined);
          socket.on("close", () => {
            from.destroy();
            onward.destroy();
          });
        }
        from.pipe(onward).pipe(from);
      });
      balancer.listen(0, "127.0.0.1");
      await once(balancer, "listening");
      const psql = spawn("psql", ["-X", "-c", sleeping(`10 + ${own}`)], {
        env: {
          ...{ PATH: process.env.PATH, HOME: "/nonexistent", LC_ALL: "C.UTF-8", PGGSSENCMODE: "disable" },
          ...{ PGHOST: "localhost", PGPORT: String((balancer.address() as AddressInfo).port) },
          ...{ PGSSLMODE: "verify-full", PGSSLROOTCERT: joined.caFile },
          ...{ PGUSER: "shop", PGDATABASE: "shop", PGPASSWORD: token() },
        },
        stdio: ["ignore", "ignore", "pipe"],
        timeout: 60_000,
        killSignal: "SIGKILL",
      });
      let said = "";
      psql.stderr.setEncoding("utf8").on("data", (text: string) => {
        said += text;
      });
      const ended = once(psql, "close");
      await isAsleep(`10 + ${own}`);
      to = other;
      psql.kill("SIGINT");
      await ended;
      expect(said).toContain("canceling statement due to user request");
      for (const socket of sockets) socket.destroy();
      balancer.close();
    },
  );

test("a cancel request for a gateway that is gone ends unanswered, and others go on working", async () => {
  const { client, key } = await logIn(1, protocol30);
  await gateways[1]?.kill9();
  expect(await cancel(0, key)).toBe(0);
  client.close();
  const other = await logIn(0, protocol30);
  other.client.send(query("SELECT 1"));
  expect((await other.client.until("Z")).map(({ type }) => type)).toContain("D");
  other.client.close();
});

async function logIn(at: number, version: number): Promise<{ client: WireClient; key: Buffer }> {
  const client = await WireClient.connect(gateways[at]?.port ?? 0);
  await client.startTls(joined.caPem);
  client.send(startup({ user: "shop", database: "shop" }, version));
  const before = await client.until("R");
  client.send(password(token()));
  const greeting = [...before, ...(await client.until("Z"))];
  const key = keyOf(greeting);
  if (key.length === 0) throw new Error("the gateway gave no key");
  return { client, key };
}

/** Sends a cancel request of its own connection; resolves when the gateway has closed it, with the bytes that came back. */
async function cancel(at: number, key: Buffer): Promise<number> {
  const socket = connectTcp(gateways[at]?.port ?? 0, "127.0.0.1");
  let bytes = 0;
  socket.on("data", (chunk) => {
    bytes += chunk.length;
  });
  socket.write(cancelRequest(key));
  await once(socket, "close", { signal: AbortSignal.timeout(30_000) });
  return bytes;
}

const sleeping = (mark: string) => `SELECT pg_sleep(90), ${mark}`;
const isAsleep = async (mark: string) => {
  const sql = "SELECT 1 FROM pg_stat_activity WHERE query = $1 AND state = 'active'";
  const wanted = sleeping(mark);
  await until(async () => (await server.query(sql, [wanted])).length > 0);
};
const answered = async (client: WireClient) =>
  (await client.until("Z")).find(({ type }) => type === "E")?.fields.C;

/** How often a gateway has asked others about a request that was for none of their sessions. */
async function missedHandOvers(at: number): Promise<number> {
  const series = 'sallyport_cancels_handed_over_total{resource="default/shop",result="missed"}';
  const text = await (await fetch(`${gateways[at]?.adminUrl}/metrics`)).text();
  const line = text.split("\n").find((each) => each.startsWith(`${series} `));
  return Number(line?.split(" ").at(-1) ?? 0);
}

/** The resource, its provider and its policy. */
async function manifests(secrets: string): Promise<readonly object[]> {
  await writeSecret(join(secrets, "shop"), {
    ...{ username: server.superuser, password: server.password },
    "ca.crt": server.caPem,
  });
  return [
    shopResource(server),
    localProvider(issuer, { kubernetesUsername: "claims.mail" }),
    {
      apiVersion: "sallyport.dev/v1alpha1",
      kind: "AccessPolicy",
      metadata: { name: "alice", namespace: "default" },
      spec: {
        ...{ resources: { names: ["shop"] }, subjects: [{ user: "local:alice" }], profile: "ReadWrite" },
        rules: [
          { name: "functions", match: { operations: ["execute", "control"] }, action: "Allow" },
          {
            ...{ name: "held", match: { operations: ["write"], objects: ["public.item"] } },
            ...{ action: "RequireApproval", approval: { required: 1, timeout: "5m" } },
          },
        ],
      },
    },
  ];
}
