/** The control stream between the operator's server and gateways, on this machine and over sockets that break. */
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import {
  type Bundle,
  controlProtocol,
  digestOf,
  FramedConnection,
  type SessionReport,
} from "@sallyport/control";
import { BundleStore } from "@sallyport/operator/control";
import { ControlClient, type ControlClientOptions } from "@sallyport/sidecar/control";
import { afterEach, expect, test } from "vitest";
import { startControlPlane, type TestControlPlane } from "../targets/control-plane.ts";

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

async function plane(change: Parameters<typeof startControlPlane>[0] = {}): Promise<TestControlPlane> {
  const started = await startControlPlane(change);
  cleanups.push(() => started.stop());
  return started;
}

/** Comes back at once; a machine that stalls for a second is not an operator that is gone. */
const quick = {
  ...{ retryMs: 10, retryMsMax: 50, dialMs: 20_000, answerMs: 20_000 },
  ...{ heartbeatMs: 100, silenceMs: 20_000 },
};

interface TestGateway {
  readonly client: ControlClient;
  readonly got: Bundle[];
  readonly ended: string[];
}

function gateway(
  at: Pick<TestControlPlane, "address" | "caFile">,
  tokenFile: string,
  change: Partial<ControlClientOptions> = {},
): TestGateway {
  const got: Bundle[] = [];
  const ended: string[] = [];
  const client = new ControlClient({
    address: at.address,
    caFile: at.caFile,
    tokenFile,
    version: "test",
    resource: undefined,
    limits: quick,
    log: { info: ignore, warn: ignore, error: ignore },
    handlers: {
      bundle: async (bundle) => {
        got.push(bundle);
        return { accepted: true, problems: [] };
      },
      endSession: (session) => ended.push(session),
    },
    ...change,
  });
  client.start();
  cleanups.push(() => client.stop());
  return { client, got, ended };
}

const ignore = () => undefined;

function bundleOf(texts: Readonly<Record<string, string>>, version = 1): Bundle {
  const documents = Object.entries(texts).map(([name, json]) => ({ key: `AccessPolicy/shop/${name}`, json }));
  return { revision: { policies: String(version) }, documents };
}

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await new Promise((resolve) => setTimeout(resolve, 5));
}

const textsOf = (bundle: Bundle | undefined) => bundle?.documents.map(({ json }) => json).sort();

test("a gateway gets its bundle, then every change, and says what is in force", async () => {
  const at = await plane();
  at.bundles.set("shop/db", bundleOf({ a: "1", b: "1" }));
  at.bundles.markComplete();
  const { got } = gateway(at, await at.gatewayPod("shop/db", "uid-1"));
  await until(() => got.length === 1);
  expect(textsOf(got[0])).toEqual(["1", "1"]);
  at.bundles.set("shop/db", bundleOf({ a: "2", c: "3" }, 2));
  await until(() => got.length === 2);
  expect(textsOf(got[1])).toEqual(["2", "3"]);
  await until(() => at.server.of("shop/db")[0]?.isCurrent === true);
  expect(at.server.of("shop/db")).toEqual([{ podUid: "uid-1", isCurrent: true, problems: [] }]);
});

test("nothing is handed out before every list behind it is complete", async () => {
  const at = await plane();
  at.bundles.set("shop/db", bundleOf({ deny: "1" }));
  const { client, got } = gateway(at, await at.gatewayPod("shop/db", "uid-1"));
  await until(() => client.isConnected);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(got).toEqual([]);
  expect(client.newsAgeMs).toBeUndefined();
  at.bundles.markComplete();
  await until(() => got.length === 1);
});

test("a burst of changes goes out as one, and the last state wins", async () => {
  const bundles = new BundleStore(50);
  const at = await plane({ bundles });
  bundles.set("shop/db", bundleOf({ a: "0" }));
  bundles.markComplete();
  const { got } = gateway(at, await at.gatewayPod("shop/db", "uid-1"));
  await until(() => got.length === 1);
  for (let n = 1; n <= 100; n++) bundles.set("shop/db", bundleOf({ a: String(n) }, n));
  await until(() => textsOf(got.at(-1))?.[0] === "100");
  expect(got.length).toBeLessThan(5);
});

test("a gateway sees nothing but what concerns its own resource", async () => {
  const at = await plane();
  at.bundles.set("shop/db", bundleOf({ a: "ours" }));
  at.bundles.set("other/db", bundleOf({ a: "theirs" }));
  at.bundles.markComplete();
  const { got } = gateway(at, await at.gatewayPod("shop/db", "uid-1"));
  const { got: other } = gateway(at, await at.gatewayPod("other/db", "uid-2"));
  await until(() => got.length === 1 && other.length === 1);
  at.bundles.set("other/db", bundleOf({ a: "theirs 2" }));
  await until(() => other.length === 2);
  at.bundles.set("shop/db", bundleOf({ a: "ours 2" }));
  await until(() => got.length === 2);
  expect(got.flatMap(textsOf)).toEqual(["ours", "ours 2"]);
  // Asking for another resource is not in the protocol: what a pod is decides, and a gateway told otherwise leaves.
  const { client, got: astray } = gateway(at, await at.gatewayPod("shop/db", "uid-3"), {
    resource: "other/db",
  });
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(astray).toEqual([]);
  expect(client.newsAgeMs).toBeUndefined();
});

test("a secret does not travel", async () => {
  const at = await plane();
  const secret = { revision: {}, documents: [{ key: "Secret/shop/db", json: "{}" }] };
  expect(() => at.bundles.set("shop/db", secret)).toThrow("does not travel");
});

test("only a live gateway pod with a token for this audience alone opens a stream", async () => {
  const at = await plane();
  at.bundles.set("shop/db", bundleOf({ a: "1" }));
  at.bundles.markComplete();
  await at.gatewayPod("shop/db", "uid-1");
  at.pods.set("shop/app-0", { metadata: { namespace: "shop", name: "app-0", uid: "uid-app" } });
  const stranger = {
    metadata: { namespace: "evil", name: "x", uid: "uid-x", labels: { resource: "shop/db" } },
  };
  at.pods.set("evil/x", stranger);
  const pod = { namespace: "shop", pod: "gateway-uid-1", podUid: "uid-1" };
  const refusals: readonly (readonly [string, string])[] = [
    ["unauthenticated", "not a token"],
    ["unauthenticated", at.token({ ...pod, audiences: ["sallyport:shop/db"] })],
    ["unauthenticated", at.token({ ...pod, audiences: ["https://kubernetes.default.svc"] })],
    ["unauthenticated", at.token({ ...pod, audiences: ["control.sallyport.dev", "sallyport:shop/db"] })],
    ["unauthenticated", at.token({ ...pod, isAccepted: false })],
    ["unauthenticated", at.token({ ...pod, expiresInMs: -1_000 })],
    // A CI job's: a service account's token that is bound to no pod.
    ["notAGateway", at.token({ namespace: "shop", account: "ci" })],
    ["notAGateway", at.token({ ...pod, podUid: "uid-of-an-earlier-pod" })],
    // The same service account and audience in a pod that is no gateway.
    ["notAGateway", at.token({ namespace: "shop", pod: "app-0", podUid: "uid-app" })],
    // A pod elsewhere that looks like one.
    ["notAGateway", at.token({ namespace: "evil", pod: "x", podUid: "uid-x" })],
  ];
  for (const [code, token] of refusals)
    expect(await firstAnswer(at, token)).toMatchObject({ kind: "refused", code });
  expect(await firstAnswer(at, at.token(pod))).toMatchObject({ kind: "welcome", resource: "shop/db" });
});

test("a token of another audience is not even shown to the API server", async () => {
  const at = await plane();
  await firstAnswer(at, at.token({ audiences: ["sallyport:shop/db"] }));
  expect(at.reviews()).toBe(0);
});

test("a replica that is behind cannot bring an older state back", async () => {
  const [ahead, behind] = [await plane(), await plane()];
  ahead.bundles.set("shop/db", bundleOf({ deny: "new" }, 20));
  behind.bundles.set("shop/db", bundleOf({ deny: "old" }, 10));
  for (const at of [ahead, behind]) at.bundles.markComplete();
  const tokenFile = await ahead.gatewayPod("shop/db", "uid-1");
  const caFile = join(ahead.folder, "both.crt");
  await writeFile(caFile, ahead.caPem + behind.caPem);
  const switching = await redirect(ahead.port);
  const { got } = gateway({ address: switching.address, caFile }, tokenFile);
  await until(() => got.length === 1);
  await writeFile(tokenFile, await readFile(await behind.gatewayPod("shop/db", "uid-1"), "utf8"));
  switching.to(behind.port);
  await until(() => behind.reviews() > 3);
  expect(got.map(textsOf)).toEqual([["new"]]);
  // It catches up: what it says now counts.
  behind.bundles.set("shop/db", bundleOf({ deny: "newer" }, 30));
  await until(() => got.length === 2);
  expect(textsOf(got[1])).toEqual(["newer"]);
});

test("a gateway keeps its last set while the operator is away, and goes on from there", async () => {
  const at = await plane();
  at.bundles.set("shop/db", bundleOf({ a: "1" }));
  at.bundles.markComplete();
  const way = await redirect(at.port);
  const { client, got } = gateway({ ...at, address: way.address }, await at.gatewayPod("shop/db", "uid-1"));
  await until(() => got.length === 1);
  way.cut();
  await until(() => !client.isConnected);
  const before = client.newsAgeMs ?? 0;
  await until(() => (client.newsAgeMs ?? 0) > before + 100);
  at.bundles.set("shop/db", bundleOf({ a: "2" }, 2));
  way.to(at.port);
  await until(() => got.length === 2);
  expect(client.newsAgeMs).toBeLessThan(1_000);
});

test("an operator that is cut off from the cluster does not keep a gateway's policy fresh", async () => {
  let isCurrent = true;
  const at = await plane({ isCurrent: () => isCurrent });
  at.bundles.set("shop/db", bundleOf({ a: "1" }));
  at.bundles.markComplete();
  const { client, got } = gateway(at, await at.gatewayPod("shop/db", "uid-1"));
  await until(() => got.length === 1);
  isCurrent = false;
  await until(() => (client.newsAgeMs ?? 0) > 600);
  expect(client.isConnected).toBe(true);
  isCurrent = true;
  await until(() => (client.newsAgeMs ?? 0) < 300);
});

test("a connection that falls silent is given up on both sides", async () => {
  const at = await plane({ silenceMs: 1_000 });
  at.bundles.set("shop/db", bundleOf({ a: "1" }));
  at.bundles.markComplete();
  const way = await redirect(at.port);
  const limits = { ...quick, dialMs: 1_000, silenceMs: 1_000 };
  const { client, got } = gateway({ ...at, address: way.address }, await at.gatewayPod("shop/db", "uid-1"), {
    limits,
  });
  await until(() => got.length === 1);
  way.freeze();
  await until(() => at.server.of("shop/db").length === 0 && !client.isConnected);
  way.to(at.port);
  at.bundles.set("shop/db", bundleOf({ a: "2" }, 2));
  await until(() => got.length === 2);
});

test("a stream ends with its token, and opens again with the renewed one", async () => {
  const at = await plane({ recheckMs: 50 });
  at.bundles.set("shop/db", bundleOf({ a: "1" }));
  at.bundles.markComplete();
  const tokenFile = await at.gatewayPod("shop/db", "uid-1");
  const pod = { namespace: "shop", pod: "gateway-uid-1", podUid: "uid-1" };
  // Long enough to come with it, whatever else the machine does.
  await writeFile(tokenFile, at.token({ ...pod, expiresInMs: 8_000 }));
  const { client } = gateway(at, tokenFile);
  await until(() => client.isConnected);
  await until(() => !client.isConnected);
  await writeFile(tokenFile, at.token(pod));
  await until(() => client.isConnected);
});

test("a pod that is replaced or changed loses its stream", async () => {
  const at = await plane();
  at.bundles.set("shop/db", bundleOf({ a: "1" }));
  at.bundles.markComplete();
  const { got } = gateway(at, await at.gatewayPod("shop/db", "uid-1"));
  await until(() => got.length === 1);
  // An ephemeral container was added, say: it is no gateway of today's any more.
  at.pods.set("shop/gateway-uid-1", { metadata: { namespace: "shop", name: "gateway-uid-1", uid: "uid-1" } });
  await at.server.recheck("uid-1");
  await until(() => at.server.of("shop/db").length === 0);
  at.bundles.set("shop/db", bundleOf({ a: "2" }, 2));
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(got).toHaveLength(1);
});

test("frames that are too long, no JSON, or not agreed end the stream and nothing else", async () => {
  const at = await plane();
  at.bundles.set("shop/db", bundleOf({ a: "1" }));
  at.bundles.markComplete();
  const { got } = gateway(at, await at.gatewayPod("shop/db", "uid-1"));
  const token = await readFile(join(at.folder, "token-uid-1"), "utf8");
  const attacks: readonly ((connection: FramedConnection, socket: Socket) => void)[] = [
    (_, socket) => socket.write(Buffer.from([0xff, 0xff, 0xff, 0xff])),
    (_, socket) => socket.write(Buffer.from([0, 0, 0, 8, 0, 0, 0, 4, 0x7b, 0x7b, 0x7b, 0x7b])),
    (_, socket) => socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 9])),
    (connection) => connection.send({ kind: "hello", token: "x".repeat(100_000), version: "1" }),
    (connection) => connection.send({ kind: "problems", problems: [] }),
    (connection) => {
      connection.send({ kind: "hello", token, version: "1" });
      connection.send({ kind: "sessions", sessions: [{ id: 7 }] });
    },
    (connection) => {
      connection.send({ kind: "hello", token, version: "1" });
      connection.send({ kind: "problems", problems: [] }, Buffer.alloc(2 * 1024 * 1024));
    },
    (connection) => {
      connection.send({ kind: "hello", token, version: "1" });
      connection.send({ kind: "hello", token, version: "1" });
    },
  ];
  for (const attack of attacks) {
    const { connection, socket } = await connected(at);
    attack(connection, socket);
    await drain(connection);
    expect(connection.isClosed).toBe(true);
  }
  at.bundles.set("shop/db", bundleOf({ a: "2" }, 2));
  await until(() => got.length === 2);
});

test("somebody who says nothing is not kept", async () => {
  const at = await plane({ silenceMs: 1_000 });
  const { connection } = await connected(at, { heartbeatMs: 100_000 });
  await drain(connection);
  expect(connection.isClosed).toBe(true);
});

test("the operator names what a certificate says, for a key that was proved", async () => {
  const at = await plane();
  at.bundles.markComplete();
  const { client } = gateway(at, await at.gatewayPod("shop/db", "uid-1"));
  await until(() => client.isConnected);
  const key = generateKeyPairSync("ed25519").privateKey;
  const { certificate } = await client.certificate("recording", key);
  const found = new X509Certificate(certificate);
  expect(found.subjectAltName).toBe("URI:sallyport://gateway/shop/db/uid-1");
  expect(found.checkPrivateKey(key)).toBe(true);
  expect(found.verify(new X509Certificate(at.gatewayCaPem).publicKey)).toBe(true);
  // Another pod's proof does not fit: it names the pod.
  const { connection } = await connected(at);
  const messages = connection.messages();
  connection.send({
    kind: "hello",
    version: "1",
    token: await readFile(join(at.folder, "token-uid-1"), "utf8"),
  });
  const publicKey = generateKeyPairSync("ed25519").publicKey.export({ type: "spki", format: "pem" });
  connection.send({ kind: "sign", id: 1, purpose: "recording", publicKey, proof: "AAAA" });
  let answer: unknown;
  for await (const { header } of messages) {
    answer = header;
    if ((header as { kind: string }).kind === "signed") break;
  }
  expect(answer).toMatchObject({ kind: "signed", failure: "the key was not proved" });
});

test("sessions are passed on at a bounded rate, the latest word of each, and no more than may have an object", async () => {
  const passed: SessionReport[][] = [];
  const at = await plane({
    events: { sessions: (_, reports) => passed.push([...reports]) },
    intake: { liveMax: 30, writesPerSecond: 20, waitingMax: 100 },
  });
  at.bundles.markComplete();
  const limits = { ...quick, reportsPerSecond: 1_000 };
  const { client } = gateway(at, await at.gatewayPod("shop/db", "uid-1"), { limits });
  await until(() => client.isConnected);
  const start = performance.now();
  for (let n = 0; n < 50; n++) client.report(session(`s-${n}`, 1));
  await until(() => passed.flat().length >= 20);
  for (let n = 0; n < 50; n++) client.report(session(`s-${n}`, 2));
  await until(() => passed.flat().length >= 40);
  // 20 at once and 20 a second: the second 20 take a second.
  expect(performance.now() - start).toBeGreaterThan(800);
  const ids = new Set(passed.flat().map(({ id }) => id));
  expect(ids.size).toBeLessThanOrEqual(30);
});

test("what gateways say of sessions is their own resource's, and what went past approval is not lost in a crowd", async () => {
  const passed: { readonly resource: string; readonly report: SessionReport }[] = [];
  const at = await plane({
    events: {
      sessions: (resource, reports) => passed.push(...reports.map((report) => ({ resource, report }))),
    },
    intake: { liveMax: 5, writesPerSecond: 20, waitingMax: 10 },
  });
  at.bundles.set("shop/db", bundleOf({}));
  at.bundles.markComplete();
  const limits = { ...quick, reportsMax: 10, reportsPerSecond: 1_000 };
  const { client } = gateway(at, await at.gatewayPod("shop/db", "uid-1"), { limits });
  const rules = [{ policy: "prod", rule: "fixes", count: 1, reason: "incident 7" }];
  const broken = { ...session("broken", 1), brokeGlass: { count: 1, rules } };
  // Before anybody is connected, as after an operator's absence: more than can wait, and that one first of all.
  client.report({ ...broken, ...{ resource: "other/db", namespace: "other" } });
  for (let n = 0; n < 50; n++) client.report(session(`s-${n}`, 1));
  await until(() => passed.some(({ report }) => report.id === "broken"));
  expect(passed.find(({ report }) => report.id === "broken")).toEqual({
    resource: "shop/db",
    report: broken,
  });
  expect(new Set(passed.map(({ resource }) => resource))).toEqual(new Set(["shop/db"]));
});

test("the end of a session is ordered from the gateways of its resource", async () => {
  const at = await plane();
  at.bundles.set("shop/db", bundleOf({}));
  at.bundles.set("other/db", bundleOf({}));
  at.bundles.markComplete();
  const ours = gateway(at, await at.gatewayPod("shop/db", "uid-1"));
  const theirs = gateway(at, await at.gatewayPod("other/db", "uid-2"));
  await until(() => ours.got.length === 1 && theirs.got.length === 1);
  at.server.endSession("shop/db", "s-1", "deleted");
  await until(() => ours.ended.length === 1);
  expect(ours.ended).toEqual(["s-1"]);
  expect(theirs.ended).toEqual([]);
});

test("what costs calls to the API server is taken at a bounded rate from one resource's gateways, and kept from nobody else's", async () => {
  const taken: string[] = [];
  const at = await plane({
    events: {
      asked: (resource, { id }) => taken.push(`${resource} ask ${id}`),
      withdrawn: (resource, id) => taken.push(`${resource} withdraw ${id}`),
      used: (resource, id) => taken.push(`${resource} used ${id}`),
    },
    calls: { burst: 10, perSecond: 20 },
  });
  at.bundles.set("shop/db", bundleOf({}));
  at.bundles.set("other/db", bundleOf({}));
  at.bundles.markComplete();
  const ours = gateway(at, await at.gatewayPod("shop/db", "uid-1"));
  const again = gateway(at, await at.gatewayPod("shop/db", "uid-2"));
  const theirs = gateway(at, await at.gatewayPod("other/db", "uid-3"));
  await until(() => [ours, again, theirs].every(({ client }) => client.isConnected));
  const start = performance.now();
  for (let n = 0; n < 10; n++) {
    ours.client.ask({ id: `a-${n}`, session: "s-1", request: {} });
    ours.client.withdraw(`w-${n}`);
    again.client.used(`u-${n}`);
  }
  theirs.client.withdraw("w-0");
  await until(() => taken.includes("other/db withdraw w-0"));
  await until(() => taken.length === 31);
  // 10 at once and 20 a second, of both gateways together: the other 20 take a second. None is lost, and each comes in its turn.
  expect(performance.now() - start).toBeGreaterThan(900);
  const withdrawn = taken.filter((one) => one.startsWith("shop/db withdraw"));
  expect(withdrawn).toEqual(Array.from({ length: 10 }, (_, n) => `shop/db withdraw w-${n}`));
});

test.for(["before its gateways go", "after its gateways went"])(
  "nothing is held against a resource that was removed %s, once it is made again",
  async (when) => {
    const passed: string[] = [];
    const taken: string[] = [];
    const at = await plane({
      events: {
        sessions: (_, reports) => passed.push(...reports.map(({ id }) => id)),
        withdrawn: (_, id) => taken.push(id),
      },
      intake: { liveMax: 1, writesPerSecond: 20, waitingMax: 10 },
      calls: { burst: 1, perSecond: 0.001 },
    });
    at.bundles.set("shop/db", bundleOf({}));
    at.bundles.markComplete();
    const tell = async (uid: string) => {
      const { client } = gateway(at, await at.gatewayPod("shop/db", uid));
      await until(() => client.isConnected);
      client.report(session(`s-${uid}`, 1));
      client.withdraw(`w-${uid}`);
      await until(() => passed.includes(`s-${uid}`) && taken.includes(`w-${uid}`));
      return client;
    };
    const remove = () =>
      new Promise<void>((resolve) => {
        at.bundles.onChange("shop/db", resolve);
        at.bundles.remove("shop/db");
      });
    const first = await tell("uid-1");
    if (when === "before its gateways go") await remove();
    await first.stop();
    await until(() => at.server.of("shop/db").length === 0);
    if (when !== "before its gateways go") await remove();
    at.bundles.set("shop/db", bundleOf({}, 2));
    await tell("uid-2");
    expect(passed).toEqual(["s-uid-1", "s-uid-2"]);
  },
);

test("a gateway is told which sessions have an object, where it is one that can be told", async () => {
  const passed: SessionReport[] = [];
  const at = await plane({ events: { sessions: (_, reports) => passed.push(...reports) } });
  at.bundles.set("shop/db", bundleOf({}));
  at.bundles.markComplete();
  const start = async (uid: string) => {
    const noted: string[] = [];
    const ended: string[] = [];
    const handlers = {
      bundle: async () => ({ accepted: true, problems: [] }),
      endSession: (id: string) => ended.push(id),
      noted: (id: string) => noted.push(id),
    };
    const { client } = gateway(at, await at.gatewayPod("shop/db", uid), { handlers });
    await until(() => client.isConnected);
    return { client, noted, ended };
  };
  const [today, earlier] = [await start("uid-1"), await start("uid-2")];
  today.client.report({ ...session("s-1", 1), noted: false });
  earlier.client.report(session("s-2", 1));
  await until(() => passed.length === 2);
  expect(passed.find(({ id }) => id === "s-1")?.noted).toBe(false);
  at.server.noted("shop/db", "s-1");
  // Behind it on both streams, so that what was not told by then is not told.
  at.server.endSession("shop/db", "s-3", "deleted");
  await until(() => today.ended.length === 1 && earlier.ended.length === 1);
  expect(today.noted).toEqual(["s-1"]);
  expect(earlier.noted).toEqual([]);
});

test("what gateways say is wrong is known by resource until they say otherwise", async () => {
  const at = await plane();
  at.bundles.set("shop/db", bundleOf({}));
  at.bundles.markComplete();
  const { client } = gateway(at, await at.gatewayPod("shop/db", "uid-1"));
  await until(() => client.isConnected);
  client.setProblems([{ reason: "SecretMissing", message: "there is no secret db", subject: "db" }]);
  await until(() => at.server.of("shop/db")[0]?.problems.length === 1);
  expect(at.server.of("shop/db")[0]?.problems[0]).toMatchObject({ reason: "SecretMissing", subject: "db" });
  client.setProblems([]);
  await until(() => at.server.of("shop/db")[0]?.problems.length === 0);
});

test("a gateway that does not read gets the newest state, not every one in between", async () => {
  const at = await plane({ silenceMs: 60_000 });
  const big = (n: number) => bundleOf({ a: `${n}`.padEnd(3_000_000, "x") }, n);
  at.bundles.set("shop/db", big(1));
  at.bundles.markComplete();
  await at.gatewayPod("shop/db", "uid-1");
  const { connection, socket } = await connected(at, {
    heartbeatMs: 100_000,
    silenceMs: 100_000,
    frameBytesMax: 2 ** 25,
  });
  connection.send({
    kind: "hello",
    version: "1",
    token: await readFile(join(at.folder, "token-uid-1"), "utf8"),
  });
  socket.pause();
  await until(() => at.server.of("shop/db").length === 1);
  for (let n = 2; n <= 30; n++) {
    at.bundles.set("shop/db", big(n));
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
  const last = digestOf(big(30).documents);
  let bundles = 0;
  for await (const { header } of connection.messages()) {
    const message = header as { kind: string; digest?: string };
    if (message.kind !== "bundle") continue;
    bundles++;
    if (message.digest === last) break;
  }
  expect(bundles).toBeLessThan(15);
});

function session(id: string, commands: number): SessionReport {
  return {
    id,
    cause: "age",
    state: "Live",
    user: "okta:alice",
    subjectKind: "Human",
    protocol: "postgres",
    account: "app",
    database: "shop",
    clientAddress: "10.0.0.1",
    startedAt: 1,
    commands,
    refused: 0,
  };
}

async function connected(
  at: TestControlPlane,
  limits: ConstructorParameters<typeof FramedConnection>[1] = {},
) {
  const socket = connectTls({
    host: "127.0.0.1",
    port: at.port,
    ca: at.caPem,
    ALPNProtocols: [controlProtocol],
  });
  await new Promise((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
  const connection = new FramedConnection(socket, limits);
  cleanups.push(() => connection.end());
  return { connection, socket };
}

async function firstAnswer(at: TestControlPlane, token: string): Promise<unknown> {
  const { connection } = await connected(at);
  connection.send({ kind: "hello", token, version: "1" });
  const { value } = await connection.messages().next();
  connection.end();
  return value?.header;
}

/** Reads until the other side ends the connection. */
async function drain(connection: FramedConnection): Promise<void> {
  try {
    for await (const _ of connection.messages());
  } catch {
    // Reset: ended all the same.
  }
}

/** A way to a port that can be broken, frozen and led elsewhere. */
async function redirect(port: number) {
  let target: number | undefined = port;
  let isFrozen = false;
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    if (target === undefined) {
      near.destroy();
      return;
    }
    const far = connectTcp(target, "127.0.0.1");
    const wasFrozen = isFrozen;
    for (const [from, to] of [[near, far] as const, [far, near] as const]) {
      sockets.add(from);
      from.on("error", ignore);
      from.on("data", (chunk) => {
        if (!isFrozen && !wasFrozen) to.write(chunk);
      });
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const drop = () => {
    for (const socket of sockets) socket.resetAndDestroy();
  };
  cleanups.push(() => {
    server.close();
    drop();
  });
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut() {
      target = undefined;
      drop();
    },
    freeze() {
      isFrozen = true;
    },
    to(next: number) {
      target = next;
      isFrozen = false;
      drop();
    },
  };
}
