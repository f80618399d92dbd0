import { readdir, readFile, truncate, unlink, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { connect as connectTcp, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { FramedConnection, type GatewayName, recordingProtocol } from "@sallyport/control";
import { afterEach, beforeAll, expect, test } from "vitest";
import { RecorderLink, type RecorderLinkOptions } from "../control/recorder-link.ts";
import { createRemoteRecorder } from "../control/remote-recorder.ts";
import type { Recorder } from "../recording/model.ts";
import { allowedCommand, deniedCommand, opening, until } from "../recording/testing.ts";
import { type RecordingVolume, verifyVolume } from "./recording-volume.ts";
import {
  credentialsOf,
  startTestRecorder,
  type TestAuthority,
  type TestRecorder,
  type TestVolume,
  testAuthority,
  testGateway,
  testVolume,
} from "./testing.ts";

let authority: TestAuthority;
const cleanups: (() => Promise<unknown> | unknown)[] = [];
beforeAll(async () => {
  authority = await testAuthority();
});
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean();
});

/** A machine that stalls for a second is not a recorder that is gone. */
const patient = {
  retryMs: 20,
  retryMsMax: 60,
  graceMs: 150,
  dialMs: 8_000,
  answerMs: 8_000,
  heartbeatMs: 100,
  silenceMs: 8_000,
};
/** For tests that wait until a limit is over. */
const hasty = { ...patient, dialMs: 3_000, answerMs: 3_000, silenceMs: 3_000 };

async function makeVolume(change = {}): Promise<TestVolume> {
  const made = await testVolume(change);
  cleanups.push(made.remove);
  return made;
}

async function start(
  place: TestVolume,
  port = 0,
  beats?: Parameters<typeof startTestRecorder>[3],
): Promise<TestRecorder> {
  const recorder = await startTestRecorder({ ...place.options, keys: place.keys() }, authority, port, beats);
  cleanups.push(() => recorder.stop().catch(() => undefined));
  return recorder;
}

interface LinkedGateway {
  readonly link: RecorderLink;
  readonly recorder: Recorder;
}

async function linked(
  port: () => number,
  name: GatewayName = testGateway,
  change: Partial<RecorderLinkOptions> = {},
): Promise<LinkedGateway> {
  const credentials = await credentialsOf(authority, name);
  const link = new RecorderLink({
    address: () => `127.0.0.1:${port()}`,
    credentials: async () => credentials,
    retentionMs: () => 1_000_000,
    limits: patient,
    log: { info: () => undefined, warn: () => undefined },
    ...change,
  });
  const recorder = await createRemoteRecorder(link, credentials.signingKey);
  link.start();
  cleanups.push(() => link.stop(0));
  await until(() => link.failure === undefined);
  return { link, recorder };
}

async function textOf(volume: RecordingVolume, session: string): Promise<string> {
  const kept = volume.find("shop", session);
  if (kept === undefined) return "";
  let text = "";
  for await (const chunk of await volume.read(kept)) text += chunk.toString();
  return text;
}

test("a session's journal arrives sealed, signed by its gateway, and verifies", async () => {
  const place = await makeVolume();
  const { volume, port, stop } = await start(place);
  const { recorder } = await linked(() => port);
  const session = recorder.open(opening("s-1", { mode: "Required" }));
  session.command(allowedCommand("select secret_marker"));
  session.command(deniedCommand("delete from orders"));
  await session.stored("Durable");
  expect(await textOf(volume, "s-1")).toContain("secret_marker");
  await session.close("client left");
  await until(() => volume.find("shop", "s-1")?.state === "closed");
  expect(volume.find("shop", "s-1")).toMatchObject({
    commands: 2,
    refused: 1,
    finalHash: session.finalHash,
    retentionMs: 1_000_000,
  });
  const { path } = volume.find("shop", "s-1") ?? { path: "" };
  expect((await readFile(join(place.folder, path))).includes("secret_marker")).toBe(false);
  expect(await volume.verify()).toMatchObject({ ok: true, sessions: [{ status: "ok" }] });
  await stop();
  const { publicKey } = volume;
  const offline = await verifyVolume(place.folder, publicKey, place.keys());
  expect(offline).toMatchObject({ ok: true, log: { status: "ok" } });
});

test("what was acknowledged survives a recorder that dies mid-session, and the session goes on", async () => {
  const place = await makeVolume();
  const first = await start(place);
  let { port } = first;
  const { recorder } = await linked(() => port);
  const session = recorder.open(opening("s-1", { mode: "Required" }));
  session.command(allowedCommand("select 1"));
  await session.stored("Durable");
  await first.stop();
  const second = await start(place);
  port = second.port;
  await until(() => recorder.failure === undefined);
  session.command(allowedCommand("select 2"));
  await until(() =>
    session.stored("Durable").then(
      () => true,
      () => false,
    ),
  );
  await session.close("client left");
  await until(() => second.volume.find("shop", "s-1")?.state === "closed");
  const text = await textOf(second.volume, "s-1");
  expect(text).toContain("select 1");
  expect(text).toContain("select 2");
  expect(await second.volume.verify()).toMatchObject({ ok: true, sessions: [{ status: "ok" }] });
});

test("while the recorder is away Required refuses, and what was taken before is delivered later", async () => {
  const place = await makeVolume();
  const first = await start(place);
  let { port } = first;
  const { recorder } = await linked(() => port);
  const session = recorder.open(opening("s-1", { mode: "Required" }));
  session.command(allowedCommand("select 1"));
  await session.stored("Accepted");
  await first.stop();
  session.command(allowedCommand("select 2"));
  await expect(session.stored("Accepted")).rejects.toThrow("recording is not possible");
  await until(() => recorder.failure !== undefined);
  expect(session.failure).toBeDefined();
  expect(session.command(allowedCommand("select 3"))).toBe(-1);
  const second = await start(place);
  port = second.port;
  await until(() =>
    session.stored("Durable").then(
      () => true,
      () => false,
    ),
  );
  expect(await textOf(second.volume, "s-1")).toContain("select 2");
});

test("while the recorder is away BestEffort goes on recording into the spool", async () => {
  const place = await makeVolume();
  const first = await start(place);
  let { port } = first;
  const { recorder, link } = await linked(() => port);
  const session = recorder.open(opening("s-1", { mode: "BestEffort" }));
  await first.stop();
  await until(() => recorder.failure !== undefined);
  for (let n = 0; n < 1000; n++) {
    expect(session.command(allowedCommand(`select ${n}`))).toBe(n + 1);
    if (n % 100 === 0) await session.stored("Accepted");
  }
  await session.close("client left");
  expect(link.spoolBytes).toBeGreaterThan(0);
  const second = await start(place);
  port = second.port;
  await until(() => second.volume.find("shop", "s-1")?.state === "closed");
  expect(await textOf(second.volume, "s-1")).toContain("select 999");
  await until(() => link.spoolBytes === 0);
  expect(await second.volume.verify()).toMatchObject({ ok: true });
});

test("the spool is bounded: what does not fit is not taken", async () => {
  const { port } = await start(await makeVolume());
  const limits = { ...patient, spoolBytesMax: 4096 };
  const { link } = await linked(() => port, testGateway, { limits });
  const storage = link.storage(true);
  const fd = await storage.create("sessions/shop/orders-db/2026-01-01/s-1.journal");
  await storage.write(fd, Buffer.alloc(4000, "a"), 0);
  await expect(storage.write(fd, Buffer.alloc(200, "b"), 4000)).rejects.toMatchObject({ code: "ENOSPC" });
});

test("a full volume refuses commands and takes them again when there is room", async () => {
  const place = await makeVolume();
  const { volume, port } = await start(place);
  const { recorder, link } = await linked(() => port);
  const session = recorder.open(opening("s-1", { mode: "Required" }));
  session.command(allowedCommand("select 1"));
  await session.stored("Durable");
  expect(link.refusal).toBeUndefined();
  place.storage.only = "sessions/";
  place.storage.bytesLeft = 10;
  session.command(allowedCommand("select 2"));
  await expect(session.stored("Durable")).rejects.toThrow();
  expect(link.refusal).toContain("volume is full");
  place.storage.bytesLeft = Number.POSITIVE_INFINITY;
  await until(() =>
    session.stored("Durable").then(
      () => true,
      () => false,
    ),
  );
  expect(link.refusal).toBeUndefined();
  await session.close("client left");
  await until(() => volume.find("shop", "s-1")?.state === "closed");
  const text = await textOf(volume, "s-1");
  expect(text.match(/select 2/g)).toHaveLength(1);
  expect(await volume.verify()).toMatchObject({ ok: true });
});

test("a namespace that has used up its quota is refused, another one is not", async () => {
  const place = await makeVolume({ quotaBytes: 3_000 });
  const { port } = await start(place);
  const shop = await linked(() => port);
  const other = await linked(() => port, { ...testGateway, namespace: "other" });
  const session = shop.recorder.open(opening("s-1", { mode: "Required" }));
  session.command(allowedCommand("x".repeat(5_000)));
  await expect(session.stored("Accepted")).rejects.toThrow("quota");
  expect([shop.link.refusal, other.link.refusal]).toEqual([expect.stringContaining("quota"), undefined]);
  const neighbour = other.recorder.open(opening("s-2", { mode: "Required", namespace: "other" }));
  neighbour.command(allowedCommand("select 1"));
  await neighbour.stored("Durable");
});

test("a failed fsync acknowledges nothing, and nothing is lost by it", async () => {
  const place = await makeVolume();
  const { volume, port } = await start(place);
  const { recorder } = await linked(() => port);
  const session = recorder.open(opening("s-1", { mode: "Required" }));
  session.command(allowedCommand("select 1"));
  await session.stored("Durable");
  place.storage.only = "sessions/";
  place.storage.syncError = "EIO";
  session.command(allowedCommand("select 2"));
  await expect(session.stored("Durable")).rejects.toThrow();
  place.storage.syncError = undefined;
  await until(() =>
    session.stored("Durable").then(
      () => true,
      () => false,
    ),
  );
  await session.close("client left");
  await until(() => volume.find("shop", "s-1")?.state === "closed");
  expect(await volume.verify()).toMatchObject({ ok: true, sessions: [{ status: "ok" }] });
});

test("a slow recorder slows Required down and in the end refuses", async () => {
  const place = await makeVolume();
  const { port } = await start(place);
  const { recorder } = await linked(() => port, testGateway, { limits: hasty });
  const session = recorder.open(opening("s-1", { mode: "Required" }));
  session.command(allowedCommand("select 1"));
  await session.stored("Durable");
  const gate = Promise.withResolvers<void>();
  place.storage.held = gate.promise;
  let taken = 0;
  while (session.command(allowedCommand("select 2")) > 0) taken++;
  expect(taken).toBeLessThanOrEqual(256);
  await expect(session.room()).rejects.toThrow();
  place.storage.held = undefined;
  gate.resolve();
  await until(() =>
    session.room().then(
      () => true,
      () => false,
    ),
  );
});

test("connections that are cut at any byte lose and repeat nothing", async () => {
  const place = await makeVolume();
  const { volume, port } = await start(place);
  const proxy = await cuttingProxy(port);
  const { recorder } = await linked(() => proxy.port);
  const session = recorder.open(opening("s-1", { mode: "Required" }));
  let sent = 0;
  for (let round = 0; round < 25; round++) {
    proxy.cutAfter(200 + round * 137);
    for (let n = 0; n < 20; n++) if (session.command(allowedCommand(`select ${sent}`)) > 0) sent++;
    await until(() =>
      session.stored("Accepted").then(
        () => true,
        () => false,
      ),
    );
  }
  proxy.cutAfter(Number.POSITIVE_INFINITY);
  await session.close("client left").catch(() => undefined);
  await until(() => volume.find("shop", "s-1")?.state === "closed");
  expect(proxy.cuts).toBeGreaterThan(5);
  const lines = (await textOf(volume, "s-1")).split("\n").filter((line) => line.includes('"kind":"command"'));
  expect(lines.map((line) => JSON.parse(line).n)).toEqual(Array.from({ length: sent }, (_, n) => n + 1));
  expect(await volume.verify()).toMatchObject({ ok: true });
});

test("a connection that falls silent is given up by the gateway", async () => {
  const place = await makeVolume();
  const { port } = await start(place);
  const proxy = await cuttingProxy(port);
  const { recorder, link } = await linked(() => proxy.port, testGateway, { limits: hasty });
  const session = recorder.open(opening("s-1", { mode: "Required" }));
  await session.stored("Durable");
  proxy.freeze();
  session.command(allowedCommand("select 1"));
  await expect(session.stored("Accepted")).rejects.toThrow();
  await until(() => proxy.connections > 1);
  proxy.thaw();
  await until(() => link.failure === undefined);
  await until(() =>
    session.stored("Durable").then(
      () => true,
      () => false,
    ),
  );
});

test("verify tells changed, cut, missing and torn apart on the volume", async () => {
  const place = await makeVolume();
  const { volume, port, stop } = await start(place);
  const { recorder, link } = await linked(() => port);
  const ids = ["s-changed", "s-cut", "s-missing", "s-torn", "s-whole"];
  for (const id of ids) {
    const session = recorder.open(opening(id, { mode: "Required" }));
    session.command(allowedCommand("select 1"));
    await session.stored("Durable");
    session.command(allowedCommand("select 2"));
    await session.stored("Durable");
    if (id !== "s-torn") await session.close("client left");
  }
  const paths = new Map(ids.map((id) => [id, join(place.folder, volume.find("shop", id)?.path ?? "")]));
  await until(() => volume.find("shop", "s-whole")?.state === "closed");
  await link.stop(0);
  await stop();
  const pathOf = (id: string) => paths.get(id) ?? "";
  const bytes = await readFile(pathOf("s-changed"));
  bytes.writeUInt8(bytes.readUInt8(bytes.length - 40) ^ 1, bytes.length - 40);
  await writeFile(pathOf("s-changed"), bytes);
  await truncate(pathOf("s-cut"), 400);
  await unlink(pathOf("s-missing"));
  const torn = await readFile(pathOf("s-torn"));
  await truncate(pathOf("s-torn"), torn.length - 7);
  const found = await verifyVolume(place.folder, volume.publicKey, place.keys());
  const statuses = Object.fromEntries(found.sessions.map(({ sessionId, status }) => [sessionId, status]));
  expect(statuses).toMatchObject({ "s-changed": "changed", "s-missing": "missing", "s-whole": "ok" });
  expect(statuses["s-cut"]).toBe("cut");
  expect(["torn", "cut"]).toContain(statuses["s-torn"]);
  expect(found.ok).toBe(false);
});

test("what is read of a changed recording ends in an error, and not as if that had been all", async () => {
  const place = await makeVolume();
  const { volume, port } = await start(place);
  const { recorder } = await linked(() => port);
  const session = recorder.open(opening("s-1", { mode: "Required" }));
  session.command(allowedCommand("select 'first'"));
  await session.stored("Durable");
  session.command(allowedCommand("select 'second'"));
  await session.close("client left");
  await until(() => volume.find("shop", "s-1")?.state === "closed");
  const path = join(place.folder, volume.find("shop", "s-1")?.path ?? "");
  const bytes = await readFile(path);
  bytes.writeUInt8(bytes.readUInt8(bytes.length - 40) ^ 1, bytes.length - 40);
  await writeFile(path, bytes);
  const kept = volume.find("shop", "s-1");
  let text = "";
  const read = async () => {
    for await (const chunk of kept ? await volume.read(kept) : []) text += chunk.toString();
  };
  await expect(read()).rejects.toThrow("does not decrypt");
  expect(text).toContain("first");
});

test("a volume whose gateway keys were taken away still records, and verify says what is wrong", async () => {
  const place = await makeVolume();
  const first = await start(place);
  let { port } = first;
  const { recorder } = await linked(() => port);
  const before = recorder.open(opening("s-1", { mode: "Required" }));
  await before.stored("Durable");
  await first.stop();
  for (const name of await readdir(join(place.folder, "gateways")))
    await unlink(join(place.folder, "gateways", name));
  const second = await start(place);
  port = second.port;
  await until(() => recorder.failure === undefined);
  const after = recorder.open(opening("s-2", { mode: "Required" }));
  await until(() => after.stored("Durable").then(yes, no));
  const { sessions } = await second.volume.verify();
  expect(Object.fromEntries(sessions.map(({ sessionId, status }) => [sessionId, status]))).toMatchObject({
    "s-2": "open",
  });
});

test("a log that lost its newest sessions is found against a head kept elsewhere", async () => {
  const place = await makeVolume();
  const { volume, port, stop } = await start(place);
  const { recorder, link } = await linked(() => port);
  await recorder.open(opening("s-1", { mode: "Required" })).close("client left");
  await until(() => volume.find("shop", "s-1")?.state === "closed");
  const head = volume.head;
  await link.stop(0);
  await stop();
  const [log = ""] = await readdir(join(place.folder, "log"));
  await truncate(join(place.folder, "log", log), 300);
  const found = await verifyVolume(place.folder, volume.publicKey, place.keys(), { expectedHead: head });
  expect(found).toMatchObject({ ok: false, log: { status: "cut" } });
});

test("a gateway cannot write to another resource's, namespace's or gateway's recording", async () => {
  const place = await makeVolume();
  const { volume, port } = await start(place);
  const owner = await linked(() => port);
  const session = owner.recorder.open(opening("s-1", { mode: "Required" }));
  await session.stored("Durable");
  const day = new Date().toISOString().slice(0, 10);
  const paths = [
    `sessions/other/orders-db/${day}/s-2.journal`,
    `sessions/shop/other-db/${day}/s-2.journal`,
    `sessions/shop/orders-db/${day}/../../../../log/s-2.journal`,
    `log/log-00000001-1.journal`,
    `sessions/shop/orders-db/${day}/s-2.journal.bak`,
  ];
  for (const path of paths)
    expect(await firstAnswer(port, testGateway, path)).toMatchObject({ code: "forbidden" });
  const kept = volume.find("shop", "s-1")?.path ?? "";
  // Another pod of the same resource has another key: the session is not its own.
  const other = { ...testGateway, podUid: "pod-2" };
  expect(await firstAnswer(port, other, kept)).toMatchObject({ code: "conflict" });
  session.command(allowedCommand("select 1"));
  await session.stored("Durable");
});

test("a journal that opens another session than its path says is refused", async () => {
  const { port, volume } = await start(await makeVolume());
  const connection = await connected(port, testGateway);
  const day = new Date().toISOString().slice(0, 10);
  connection.send({
    kind: "open",
    file: 1,
    path: `sessions/shop/orders-db/${day}/s-1.journal`,
    retentionMs: 0,
  });
  const line = { kind: "opening", sessionId: "s-9", namespace: "shop", resource: "orders-db", at: 1 };
  connection.send({ kind: "append", file: 1, at: 0 }, Buffer.from(`${JSON.stringify(line)}\n`));
  const answers = connection.messages();
  expect((await answers.next()).value).toMatchObject({ header: { kind: "opened", bytes: 0 } });
  expect((await answers.next()).value).toMatchObject({ header: { kind: "failed", code: "forbidden" } });
  expect(volume.list("shop")).toEqual([]);
  connection.end();
});

test("bytes that do not follow, or that no key signed, are refused", async () => {
  const { port } = await start(await makeVolume());
  const day = new Date().toISOString().slice(0, 10);
  const forged = [
    `{"chain":0,"records":1,"previous":"${"0".repeat(64)}","hash":"${"1".repeat(64)}"}\n`,
    "no record at all, and long enough\n",
  ];
  for (const [index, text] of forged.entries()) {
    const connection = await connected(port, testGateway);
    const path = `sessions/shop/orders-db/${day}/f-${index}.journal`;
    connection.send({ kind: "open", file: 1, path, retentionMs: 0 });
    connection.send({ kind: "append", file: 1, at: 0 }, Buffer.from(text));
    const answers = connection.messages();
    await answers.next();
    expect((await answers.next()).value).toMatchObject({ header: { kind: "failed", code: "broken" } });
    connection.end();
  }
  const connection = await connected(port, testGateway);
  const path = `sessions/shop/orders-db/${day}/gap.journal`;
  connection.send({ kind: "open", file: 1, path, retentionMs: 0 });
  connection.send({ kind: "append", file: 1, at: 7 }, Buffer.from("late"));
  const answers = connection.messages();
  await answers.next();
  expect((await answers.next()).value).toMatchObject({ header: { kind: "failed", code: "protocol" } });
  connection.end();
});

test("a frame that is too long ends the connection", async () => {
  const { port } = await start(await makeVolume());
  const connection = await connected(port, testGateway);
  connection.send({ kind: "append", file: 1, at: 0 }, Buffer.alloc(1024 * 1024));
  await until(() => connection.isClosed);
});

test("a certificate of another authority, or that names no gateway, gets no stream", async () => {
  const { port } = await start(await makeVolume());
  const stranger = await testAuthority();
  const foreign = await stranger.gateway(testGateway);
  await expect(firstMessage(port, foreign)).rejects.toThrow();
  const nameless = await authority.gateway(testGateway, "https://gateway.example/shop");
  await expect(firstMessage(port, nameless)).rejects.toThrow();
  const server = await authority.server();
  await expect(firstMessage(port, server)).rejects.toThrow();
});

test("recordings are removed when their retention is over, and verify knows why", async () => {
  let now = Date.now();
  const place = await makeVolume({ now: () => now });
  const { volume, port } = await start(place);
  const { recorder } = await linked(() => port);
  await recorder.open(opening("s-1", { mode: "Required" })).close("client left");
  await until(() => volume.find("shop", "s-1")?.state === "closed");
  expect(await volume.prune()).toBe(0);
  now += 1_000_001;
  expect(await volume.prune()).toBe(1);
  expect(await volume.verify()).toMatchObject({ ok: true, pruned: 1, sessions: [] });
  expect(volume.used("shop")).toBeLessThan(100);
});

test("a recorder that died between the word of a removal and the removal ends it when it is back", async () => {
  let now = Date.now();
  const place = await makeVolume({ now: () => now });
  const { volume, port, stop } = await start(place);
  const { recorder, link } = await linked(() => port);
  await recorder.open(opening("s-1", { mode: "Required" })).close("client left");
  await until(() => volume.find("shop", "s-1")?.state === "closed");
  const path = join(place.folder, volume.find("shop", "s-1")?.path ?? "");
  const sealed = await readFile(path);
  now += 1_000_001;
  expect(await volume.prune()).toBe(1);
  await link.stop(0);
  // As it is found after a crash: the log has no end, and the file is there.
  Object.assign(place.storage, { bytesLeft: 0, only: "/log/" });
  await expect(stop()).rejects.toThrow("ENOSPC");
  Object.assign(place.storage, { bytesLeft: Number.POSITIVE_INFINITY });
  await writeFile(path, sealed);
  await start(place);
  await expect(readFile(path)).rejects.toThrow("ENOENT");
});

test("a session that comes again after its recording was removed is a recording like any other", async () => {
  let now = Date.now();
  const place = await makeVolume({ now: () => now });
  const first = await start(place);
  let { port } = first;
  const { recorder } = await linked(() => port);
  // A gateway whose last answer was lost, or one that means to: the id is free again.
  const record = async (volume: RecordingVolume, statement: string) => {
    const session = recorder.open(opening("s-1", { mode: "Required" }));
    session.command(allowedCommand(statement));
    await session.close("client left");
    await until(() => volume.find("shop", "s-1")?.state === "closed");
  };
  await record(first.volume, "select 1");
  now += 1_000_001;
  expect(await first.volume.prune()).toBe(1);
  await record(first.volume, "select 'another'");
  const used = first.volume.used("shop");
  expect(await first.volume.verify()).toMatchObject({ ok: true, sessions: [{ status: "ok" }] });
  await first.stop();
  const { volume, ...second } = await start(place);
  port = second.port;
  expect(volume.find("shop", "s-1")).toMatchObject({ state: "closed", commands: 1 });
  expect(await textOf(volume, "s-1")).toContain("another");
  expect(volume.used("shop")).toBe(used);
  now += 1_000_001;
  expect(await volume.prune()).toBe(1);
  expect(await volume.verify()).toMatchObject({ ok: true, sessions: [] });
});

test("a gateway that has nothing to record hears from the recorder before it gives the connection up", async () => {
  const { port } = await start(await makeVolume(), 0, {});
  const connection = await connected(port, testGateway, { silenceMs: 2_000, heartbeatMs: 500 });
  let ended = false;
  const reading = (async () => {
    for await (const _ of connection.messages());
  })().finally(() => {
    ended = true;
  });
  reading.catch(() => undefined);
  const opened = performance.now();
  await until(() => ended || performance.now() - opened > 2_600);
  expect(ended).toBe(false);
  connection.end();
});

const yes = () => true;
const no = () => false;

/** Opens a stream as a gateway, beneath the link. */
async function connected(
  port: number,
  name: GatewayName,
  limits: ConstructorParameters<typeof FramedConnection>[1] = {},
): Promise<FramedConnection> {
  const { certificate, key } = await authority.gateway(name);
  const socket = connectTls({
    host: "127.0.0.1",
    port,
    cert: certificate,
    key,
    ca: authority.pem,
    ALPNProtocols: [recordingProtocol],
  });
  await new Promise((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
  return new FramedConnection(socket, limits);
}

async function firstAnswer(port: number, name: GatewayName, path: string): Promise<unknown> {
  const connection = await connected(port, name);
  connection.send({ kind: "open", file: 1, path, retentionMs: 0 });
  const { value } = await connection.messages().next();
  connection.end();
  return value?.header;
}

async function firstMessage(port: number, { certificate, key }: { certificate: string; key: string }) {
  const socket = connectTls({
    host: "127.0.0.1",
    port,
    cert: certificate,
    key,
    ca: authority.pem,
    ALPNProtocols: [recordingProtocol],
  });
  const connection = new FramedConnection(socket);
  connection.send({ kind: "open", file: 1, path: "x", retentionMs: 0 });
  const { done } = await connection.messages().next();
  if (done) throw new Error("ended");
}

interface CuttingProxy {
  readonly port: number;
  readonly cuts: number;
  readonly connections: number;
  cutAfter(bytes: number): void;
  freeze(): void;
  thaw(): void;
}

/** A way to the recorder that breaks where a test says. */
async function cuttingProxy(target: number): Promise<CuttingProxy> {
  let left = Number.POSITIVE_INFINITY;
  let cuts = 0;
  let connections = 0;
  let isFrozen = false;
  const sockets = new Set<Socket>();
  const server: Server = createServer((near) => {
    connections++;
    const far = connectTcp(target, "127.0.0.1");
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => sockets.delete(socket));
    }
    near.on("data", (chunk) => {
      if (isFrozen) return;
      if (chunk.length >= left) {
        far.write(chunk.subarray(0, left));
        left = Number.POSITIVE_INFINITY;
        cuts++;
        near.resetAndDestroy();
        far.end();
      } else {
        left -= chunk.length;
        far.write(chunk);
      }
    });
    far.on("data", (chunk) => {
      if (!isFrozen) near.write(chunk);
    });
    near.on("close", () => far.destroy());
    far.on("close", () => near.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanups.push(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return {
    port: (server.address() as AddressInfo).port,
    get cuts() {
      return cuts;
    },
    get connections() {
      return connections;
    },
    cutAfter(bytes) {
      left = bytes;
    },
    freeze() {
      isFrozen = true;
    },
    thaw() {
      isFrozen = false;
    },
  };
}
