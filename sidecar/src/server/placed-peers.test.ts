import "reflect-metadata";
import { createPublicKey, type KeyObject, randomBytes, webcrypto } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, createServer, connect as dial, type Server, type Socket } from "node:net";
import { connect as dialTls } from "node:tls";
import {
  BasicConstraintsExtension,
  PublicKey,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from "@peculiar/x509";
import { type GatewayPeer, gatewayUri, peerNumber, peerProtocol } from "@sallyport/control";
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { readOrder } from "./cancel-order.ts";
import { type HandOver, PlacedPeers, type PlacedPeersLimits } from "./placed-peers.ts";
import type { CancelOrder } from "./shared-state.ts";

const algorithm = { name: "Ed25519" } as const;
const window = { notBefore: new Date(Date.now() - 60_000), notAfter: new Date(Date.now() + 3_600_000) };

interface Authority {
  readonly pem: string;
  sign(key: KeyObject, uri: string): Promise<string>;
}

async function makeAuthority(name: string): Promise<Authority> {
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, [
    "sign",
    "verify",
  ])) as webcrypto.CryptoKeyPair;
  const ca = await X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    keys,
    ...window,
    extensions: [new BasicConstraintsExtension(true, 0, true)],
  });
  return {
    pem: ca.toString("pem"),
    sign: async (key, uri) => {
      const spki = createPublicKey(key).export({ type: "spki", format: "der" });
      const leaf = await X509CertificateGenerator.create({
        subject: "CN=gateway",
        issuer: ca.subject,
        publicKey: await new PublicKey(spki).export(),
        signingKey: keys.privateKey,
        serialNumber: randomBytes(16).toString("hex"),
        ...window,
        extensions: [new SubjectAlternativeNameExtension([{ type: "url", value: uri }])],
      });
      return leaf.toString("pem");
    },
  };
}

interface Gateway {
  readonly peers: PlacedPeers;
  readonly podUid: string;
  readonly taken: CancelOrder[];
  /** Ids that it gives away, by what was denied. */
  readonly denials: Map<string, string>;
  readonly results: HandOver[];
  readonly warned: string[];
  /** Where the others reach it. */
  readonly peer: GatewayPeer;
  /** What signs for it, and its key: what somebody would have who stole both. */
  readonly stolen: { key: KeyObject; certificate: string };
}

let authority: Authority;
let other: Authority;
const cleanups: (() => void)[] = [];
beforeAll(async () => {
  [authority, other] = await Promise.all([makeAuthority("first"), makeAuthority("second")]);
});
afterEach(() => {
  for (const clean of cleanups.splice(0)) clean();
});

const resource = "shop/orders";

/** Pods that have the same number. */
const twins = Array.from({ length: 4_000 }, (_, at) => `twin-${at}`)
  .filter((uid) => peerNumber(uid) === peerNumber("twin-0"))
  .slice(0, 6);

interface Change {
  readonly resource?: string;
  readonly by?: Authority;
  readonly limits?: Partial<PlacedPeersLimits>;
  readonly take?: (order: CancelOrder) => Promise<boolean>;
}

/** A gateway that listens; `adopt` tells it who the others are. */
async function gateway(podUid: string, change: Change = {}): Promise<Gateway> {
  const [namespace = "", name = ""] = (change.resource ?? resource).split("/");
  const [taken, results, warned]: [CancelOrder[], HandOver[], string[]] = [[], [], []];
  const stolen = {} as Gateway["stolen"];
  const denials = new Map<string, string>();
  const peers = new PlacedPeers({
    resource: change.resource ?? resource,
    listen: { host: "127.0.0.1", port: 0 },
    certificate: async (key) => {
      const certificate = await (change.by ?? authority).sign(
        key,
        gatewayUri({ namespace, resource: name, podUid }),
      );
      Object.assign(stolen, { key, certificate });
      return { certificate, authorities: "" };
    },
    take: (order) => {
      taken.push(order);
      return change.take?.(order) ?? Promise.resolve(order.processId === 5);
    },
    give: ({ digest }) => {
      const id = denials.get(digest);
      denials.delete(digest);
      return id;
    },
    onHandOver: (result) => results.push(result),
    log: { info: () => undefined, warn: (_, message) => warned.push(message) },
    limits: { dialMs: 10_000, exchangeMs: 10_000, denialMs: 10_000, ...change.limits },
  });
  cleanups.push(() => peers.close());
  peers.adopt(podUid, authority.pem, []);
  await vi.waitFor(() => expect(peers.port).toBeGreaterThan(0), { timeout: 10_000 });
  const peer = { podUid, host: "127.0.0.1", port: peers.port ?? 0 };
  return { peers, podUid, taken, denials, results, warned, peer, stolen };
}

function introduce(...gateways: readonly Gateway[]): void {
  const all = gateways.map(({ peer }) => peer);
  for (const { peers, podUid } of gateways) peers.adopt(podUid, authority.pem, all);
}

const orderFor = (podUid: string, processId = 5): CancelOrder => ({
  resource,
  replica: peerNumber(podUid),
  process: 0,
  processId,
  keyHex: "00ff00ff",
});

/** Whatever ended it. */
const closed = (socket: Socket) => new Promise<void>((resolve) => socket.once("close", () => resolve()));

async function listening(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

describe("a cancel order between gateways of a resource", () => {
  it("reaches the one that its number names, and that one's answer comes back", async () => {
    const [a, b, c] = await Promise.all([gateway("pod-a"), gateway("pod-b"), gateway("pod-c")]);
    introduce(a, b, c);
    expect(await a.peers.handOver(orderFor("pod-b"))).toBe(true);
    expect(await a.peers.handOver(orderFor("pod-b", 6))).toBe(false);
    expect(b.taken).toEqual([orderFor("pod-b"), orderFor("pod-b", 6)]);
    expect(c.taken).toEqual([]);
    expect(a.results).toEqual(["done", "missed"]);
  });

  it("goes nowhere where nobody has its number, and never to the gateway itself", async () => {
    const [a, b] = await Promise.all([gateway("pod-a"), gateway("pod-b")]);
    introduce(a, b);
    expect(await a.peers.handOver(orderFor("pod-gone"))).toBe(false);
    expect(await a.peers.handOver(orderFor("pod-a"))).toBe(false);
    expect([...a.taken, ...b.taken]).toEqual([]);
    expect(a.results).toEqual([]);
  });

  it("is offered to each of those that have the same number, at most four, and done where one has the session", async () => {
    const a = await gateway("pod-a");
    const all = await Promise.all(
      twins.map((uid, index) => gateway(uid, { take: () => Promise.resolve(index === 3) })),
    );
    introduce(a, ...all);
    expect(await a.peers.handOver(orderFor(twins[0] ?? "", 9))).toBe(true);
    const askedOf = () => all.map(({ taken }) => taken.length);
    await vi.waitFor(() => expect(askedOf()).toEqual([1, 1, 1, 1, 0, 0]), { timeout: 10_000 });
  });

  it("is never handed on: who takes it answers for its own sessions alone", async () => {
    const [a, b, c] = await Promise.all([gateway("pod-a"), gateway(twins[0] ?? ""), gateway(twins[1] ?? "")]);
    introduce(b, c);
    a.peers.adopt("pod-a", authority.pem, [b.peer]);
    b.peers.adopt(b.podUid, authority.pem, [a.peer, c.peer]);
    expect(await a.peers.handOver(orderFor(b.podUid, 9))).toBe(false);
    expect(b.taken).toHaveLength(1);
    expect(c.taken).toEqual([]);
  });

  it("is given up where the peer is gone or does not speak, and soon", async () => {
    const a = await gateway("pod-a", { limits: { dialMs: 100 } });
    const silent = await listening(createServer(() => undefined));
    const gone = await listening(createServer());
    cleanups.pop()?.();
    const peer = (podUid: string, port: number) => ({ podUid, host: "127.0.0.1", port });
    a.peers.adopt("pod-a", authority.pem, [peer("pod-gone", gone), peer("pod-silent", silent)]);
    for (const uid of ["pod-gone", "pod-silent"]) expect(await a.peers.handOver(orderFor(uid))).toBe(false);
    expect(a.results).toEqual(["missed", "missed"]);
  });

  it("is given up where the peer does not answer in time", async () => {
    const a = await gateway("pod-a", { limits: { exchangeMs: 200 } });
    const slow = await gateway("pod-slow", { take: () => new Promise(() => undefined) });
    introduce(a, slow);
    expect(await a.peers.handOver(orderFor("pod-slow"))).toBe(false);
    await vi.waitFor(() => expect(slow.taken).toHaveLength(1), { timeout: 10_000 });
  });

  it("is bounded: beyond so many at once nothing is sent, and soon it is again", async () => {
    const [a, b] = await Promise.all([
      gateway("pod-a", { limits: { ordersPerSecond: 2 } }),
      gateway("pod-b"),
    ]);
    introduce(a, b);
    const answers = await Promise.all(Array.from({ length: 40 }, () => a.peers.handOver(orderFor("pod-b"))));
    const limited = answers.filter((isDone) => !isDone).length;
    expect(limited).toBeGreaterThanOrEqual(30);
    expect(b.taken).toHaveLength(40 - limited);
    expect(a.results.filter((result) => result === "limited")).toHaveLength(limited);
    await vi.waitFor(async () => expect(await a.peers.handOver(orderFor("pod-b"))).toBe(true), {
      timeout: 10_000,
    });
  });

  it("is taken so many times a second from whoever sends it", async () => {
    const [a, b] = await Promise.all([
      gateway("pod-a"),
      gateway("pod-b", { limits: { ordersPerSecond: 1 } }),
    ]);
    introduce(a, b);
    const answers = await Promise.all(Array.from({ length: 20 }, () => a.peers.handOver(orderFor("pod-b"))));
    expect(answers.filter(Boolean).length).toBe(b.taken.length);
    expect(b.taken.length).toBeLessThan(15);
  });
});

describe("a denial", () => {
  const digest = "0a".repeat(32);
  const id = "0123456789ab";
  const asked = { resource, digest };

  it("is given away by whichever gateway has it, once", async () => {
    const [a, b, c, d] = await Promise.all(["pod-a", "pod-b", "pod-c", "pod-d"].map((uid) => gateway(uid)));
    if (!a || !b || !c || !d) throw new Error("a gateway is missing");
    introduce(a, b, c, d);
    expect(await a.peers.takeDenial(asked)).toBeUndefined();
    c.denials.set(digest, id);
    expect(await a.peers.takeDenial({ resource, digest: "0b".repeat(32) })).toBeUndefined();
    const both = await Promise.all([a.peers.takeDenial(asked), b.peers.takeDenial(asked)]);
    expect(both.filter((one) => one !== undefined)).toEqual([id]);
    expect(await d.peers.takeDenial(asked)).toBeUndefined();
    // Its own it knows without asking, and cancels are counted alone.
    a.denials.set(digest, id);
    expect(await a.peers.takeDenial(asked)).toBeUndefined();
    expect([a.results, a.warned]).toEqual([[], []]);
  });

  it("is waited for no longer than a moment, whoever is gone or silent; who has it is not held up", async () => {
    const a = await gateway("pod-a", { limits: { denialMs: 300 } });
    const b = await gateway("pod-b");
    const silent = await listening(createServer(() => undefined));
    const gone = await listening(createServer());
    cleanups.pop()?.();
    const others = [silent, gone].map((port, at) => ({ podUid: `pod-${at}`, host: "127.0.0.1", port }));
    introduce(a, b);
    a.peers.adopt("pod-a", authority.pem, others);
    const before = performance.now();
    expect(await a.peers.takeDenial(asked)).toBeUndefined();
    expect(performance.now() - before).toBeLessThan(5_000);
    const patient = await gateway("pod-c", { limits: { denialMs: 60_000, dialMs: 60_000 } });
    introduce(patient, b);
    patient.peers.adopt("pod-c", authority.pem, [...others, b.peer]);
    b.denials.set(digest, id);
    expect(await patient.peers.takeDenial(asked)).toBe(id);
  });

  it("is not given to a gateway of another resource, and what is no id is none", async () => {
    const [a, b] = await Promise.all([gateway("pod-a"), gateway("pod-b")]);
    introduce(a, b);
    b.denials.set(digest, id);
    expect(await a.peers.takeDenial({ resource: "shop/stock", digest })).toBeUndefined();
    expect(await a.peers.takeDenial({ resource, digest: `${digest}0` })).toBeUndefined();
    expect(b.denials.size).toBe(1);
    for (const odd of ["", "0123456789a", "0123456789abc", "0123456789aB", "x".repeat(500)]) {
      b.denials.set(digest, odd);
      expect(await a.peers.takeDenial(asked)).toBeUndefined();
    }
  });

  it("is asked for so many times a second, each gateway that is asked counted", async () => {
    const a = await gateway("pod-a", { limits: { ordersPerSecond: 1 } });
    const [b, c] = await Promise.all([gateway("pod-b"), gateway("pod-c")]);
    introduce(a, b, c);
    const digests = Array.from({ length: 20 }, (_, at) => at.toString(16).padStart(64, "0"));
    for (const one of digests) for (const other of [b, c]) other.denials.set(one, id);
    const found = await Promise.all(digests.map((one) => a.peers.takeDenial({ resource, digest: one })));
    const given = found.filter((one) => one === id).length;
    expect([given > 0, given < 10]).toEqual([true, true]);
  });

  it("is no cancel request to a gateway of before, which closes without an answer", () => {
    expect(readOrder(JSON.stringify({ kind: "denial", ...asked }))).toBeUndefined();
  });
});

describe("an order is not given away or taken", () => {
  it.each<[string, string, Change, string]>([
    ["another pod of the resource", "pod-c", {}, "pod-b"],
    ["a gateway of another resource", "pod-b", { resource: "shop/stock" }, "pod-b"],
    ["a gateway of another namespace's resource", "pod-b", { resource: "other/orders" }, "pod-b"],
  ])("where the address is that of %s", async (_, uid, change, named) => {
    const [a, liar] = await Promise.all([gateway("pod-a"), gateway(uid, change)]);
    liar.peers.adopt(uid, authority.pem, [a.peer]);
    a.peers.adopt("pod-a", authority.pem, [{ ...liar.peer, podUid: named }]);
    expect(await a.peers.handOver(orderFor(named))).toBe(false);
    expect(liar.taken).toEqual([]);
  });

  it("where the certificate is of another authority, whichever side shows it", async () => {
    const [a, forged] = await Promise.all([gateway("pod-a"), gateway("pod-b", { by: other })]);
    introduce(a, forged);
    expect(await a.peers.handOver(orderFor("pod-b"))).toBe(false);
    expect(await forged.peers.handOver(orderFor("pod-a"))).toBe(false);
    expect([...a.taken, ...forged.taken]).toEqual([]);
  });

  it("by a gateway that is not listed any more, whatever certificate it still has", async () => {
    const [a, gone] = await Promise.all([gateway("pod-a"), gateway("pod-gone")]);
    introduce(a, gone);
    a.peers.adopt("pod-a", authority.pem, []);
    expect(await gone.peers.handOver(orderFor("pod-a"))).toBe(false);
    expect(a.taken).toEqual([]);
    const digest = "1f".repeat(32);
    a.denials.set(digest, "0123456789ab");
    expect(await gone.peers.takeDenial({ resource, digest })).toBeUndefined();
    expect(a.denials.size).toBe(1);
    expect(a.warned).toEqual(["a stranger's order was refused", "a stranger's order was refused"]);
  });

  it("from who shows no certificate, speaks another protocol, or says what is no order", async () => {
    const [a, b] = await Promise.all([gateway("pod-a"), gateway("pod-b")]);
    introduce(a, b);
    const framed = (text: string) => {
      const body = Buffer.from(text);
      return Buffer.concat([Buffer.from([body.length >> 8, body.length & 0xff]), body]);
    };
    const good = framed(JSON.stringify(orderFor("pod-b")));
    const answers = async (options: object, bytes: Buffer) => {
      const socket = dialTls({
        ...{ host: "127.0.0.1", port: b.peer.port, ca: authority.pem, checkServerIdentity: () => undefined },
        ...{ key: a.stolen.key.export({ type: "pkcs8", format: "pem" }), cert: a.stolen.certificate },
        ALPNProtocols: [peerProtocol],
        ...options,
      });
      const got: Buffer[] = [];
      socket.on("error", () => undefined);
      socket.on("data", (chunk: Buffer) => got.push(chunk));
      socket.write(bytes);
      await closed(socket);
      return Buffer.concat(got).toString("hex");
    };
    expect(await answers({}, good)).toBe("01");
    expect(await answers({ key: undefined, cert: undefined }, good)).toBe("");
    expect(await answers({ ALPNProtocols: ["postgresql"] }, good)).toBe("");
    for (const text of ["", "{}", "null", "[]", JSON.stringify({ ...orderFor("pod-b"), keyHex: "zz" })])
      expect(await answers({}, framed(text))).toBe("");
    expect(await answers({}, framed(JSON.stringify({ ...orderFor("pod-b"), resource: "shop/stock" })))).toBe(
      "",
    );
    expect(await answers({}, Buffer.concat([Buffer.from([0xff, 0xff]), Buffer.alloc(100)]))).toBe("");
    const plain = dial(b.peer.port, "127.0.0.1");
    plain.on("error", () => undefined);
    plain.write(good);
    plain.resume();
    await closed(plain);
    expect(b.taken).toHaveLength(1);
  });

  it("to an address that is none: a list may say what it likes", async () => {
    const a = await gateway("pod-a");
    const peer = (host: string, port: number) => ({ podUid: "pod-b", host, port });
    const hostile = [peer("db.internal", 5432), peer("", 1), peer("127.0.0.1", 0), peer("127.0.0.1", 70_000)];
    a.peers.adopt("pod-a", authority.pem, hostile);
    expect(await a.peers.handOver(orderFor("pod-b"))).toBe(false);
    expect(a.results).toEqual([]);
  });
});

it("an authority that follows another is taken over by gateways that run", async () => {
  const a = await gateway("pod-a");
  const b = await gateway("pod-b", { by: other });
  const both = `${authority.pem}\n${other.pem}`;
  a.peers.adopt("pod-a", both, [b.peer]);
  b.peers.adopt("pod-b", both, [a.peer]);
  expect(await a.peers.handOver(orderFor("pod-b"))).toBe(true);
  expect(await b.peers.handOver(orderFor("pod-a"))).toBe(true);
});
