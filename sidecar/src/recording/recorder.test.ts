import { generateKeyPairSync } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Recorded, Recorder } from "./model.ts";
import { openNull } from "./null-recorder.ts";
import { createRecorder, type RecorderOptions } from "./recorder.ts";
import { listSessions, readSession } from "./sessions.ts";
import {
  allowedCommand,
  deniedCommand,
  type FailingStorage,
  failingStorage,
  opening,
  recordingFolder,
  until,
} from "./testing.ts";
import { verifyRecordings } from "./verify.ts";

const { privateKey, publicKey } = generateKeyPairSync("ed25519");
let place: Awaited<ReturnType<typeof recordingFolder>>;
let storage: FailingStorage;
let recorders: Recorder[];

beforeEach(async () => {
  place = await recordingFolder();
  storage = failingStorage();
  recorders = [];
});

afterEach(async () => {
  storage.bytesLeft = Number.POSITIVE_INFINITY;
  storage.syncError = undefined;
  for (const recorder of recorders) await recorder.close().catch(() => undefined);
  await place.remove();
});

async function record(limits: RecorderOptions["limits"] = {}): Promise<Recorder> {
  const quick = { flushMs: 5, retryMs: 5, retryMsMax: 20, closeMs: 2000, ...limits };
  const recorder = await createRecorder({ folder: place.folder, key: privateKey, storage, limits: quick });
  recorders.push(recorder);
  return recorder;
}

async function recordsOf(sessionId: string): Promise<Recorded[]> {
  const records: Recorded[] = [];
  for await (const entry of readSession(place.folder, sessionId)) records.push(entry);
  return records;
}

const statuses = async () => {
  const { sessions } = await verifyRecordings(place.folder, publicKey);
  return Object.fromEntries(sessions.map(({ sessionId, status }) => [sessionId, status]));
};

test("a session is read back as it was recorded, without the token's claims", async () => {
  const recorder = await record();
  const session = recorder.open(opening("one"));
  const sql = "SELECT 'a\nb\u2028\ud800', 1";
  const n = session.command({
    ...allowedCommand(sql),
    parameters: ["x", null, { binary: "AAE=" }],
    cached: true,
  });
  session.response(n, { tag: "SELECT 1", rows: 1, bytes: 20, ms: 1.23456 });
  session.rows(n, Buffer.from("plain text"));
  session.rows(n, Buffer.from([0, 255]));
  session.event("reload", { generation: 2 });
  const refused = session.command(deniedCommand("DELETE FROM orders"));
  session.response(refused, { sqlstate: "42501", rows: 0, bytes: 0, ms: 0 });
  await session.close("client left");
  await recorder.close();

  const records = await recordsOf("one");
  expect(records.map(({ kind }) => kind)).toEqual([
    "opening",
    "command",
    "response",
    "rows",
    "rows",
    "event",
    "command",
    "response",
    "closing",
  ]);
  expect(records[0]).toMatchObject({ user: "local:alice", subject: "Human", groups: ["local:analysts"] });
  expect(JSON.stringify(records)).not.toContain("claim-value");
  expect(records[1]).toMatchObject({
    n: 1,
    sql,
    cached: true,
    parameters: ["x", null, { binary: "AAE=" }],
    verdict: {
      action: "Allow",
      policy: "shop/analysts",
      rule: "profile/ReadOnly",
      enforcement: "authoritative",
    },
  });
  expect(records[2]).toMatchObject({ tag: "SELECT 1", rows: 1, bytes: 20, ms: 1.235 });
  expect(records[3]).toEqual({ kind: "rows", n: 1, text: "plain text" });
  expect(records[4]).toEqual({ kind: "rows", n: 1, base64: "AP8=" });
  expect(records[6]).toMatchObject({ verdict: { action: "Deny", message: "no unbounded writes" } });
  expect(records[8]).toMatchObject({ reason: "client left", commands: 2, refused: 1, rows: 1, bytes: 20 });
  const verification = await verifyRecordings(place.folder, publicKey);
  expect(verification).toMatchObject({
    ok: true,
    log: { status: "ok" },
    sessions: [{ sessionId: "one", status: "ok" }],
  });
  expect(await listSessions(place.folder)).toMatchObject([
    { sessionId: "one", user: "local:alice", state: "closed", commands: 2, refused: 1 },
  ]);
});

test("at most 256 records are unacknowledged, and room comes when they are stored", async () => {
  const recorder = await record();
  const session = recorder.open(opening("one"));
  let taken = 0;
  while (session.command(allowedCommand("SELECT 1")) > 0) taken++;
  expect(taken).toBe(255); // the opening is the 256th
  await session.room();
  expect(session.command(allowedCommand("SELECT 2"))).toBe(256);
  await session.close("done");
});

test("nothing more is taken while a record has been unacknowledged for a second", async () => {
  const recorder = await record({ flushMs: 100_000 });
  const session = recorder.open(opening("one"));
  const at = Date.now();
  expect(session.command({ ...allowedCommand("SELECT 1"), at: at + 900 })).toBe(1);
  expect(session.command({ ...allowedCommand("SELECT 1"), at: at + 1500 })).toBe(-1);
  await session.stored("Accepted");
  expect(session.command({ ...allowedCommand("SELECT 1"), at: at + 1500 })).toBe(2);
});

test("Durable resolves only after the log and the session were synced, together for all who wait", async () => {
  const recorder = await record();
  const sessions = ["one", "two", "three"].map((id) => recorder.open(opening(id)));
  storage.synced.length = 0;
  await Promise.all(
    sessions.map((session) => {
      session.command(allowedCommand("SELECT 1"));
      session.command(allowedCommand("SELECT 2"));
      return session.stored("Durable");
    }),
  );
  const names = storage.synced.map((path) => /(log|one|two|three)[^/]*\.journal$/.exec(path)?.[1]);
  expect(names[0]).toBe("log");
  expect(names.slice(1).sort()).toEqual(["one", "three", "two"]);
});

test("a full disk refuses commands, loses nothing, and recording goes on when there is space", async () => {
  const recorder = await record();
  const session = recorder.open(opening("one"));
  const first = session.command(allowedCommand("SELECT 'before'"));
  await session.stored("Durable");
  storage.bytesLeft = 37; // a write cut short, then none at all
  const second = session.command(allowedCommand("SELECT 'accepted'"));
  await expect(session.stored("Accepted")).rejects.toThrow("recording is not possible: ENOSPC");
  expect(session.failure?.message).not.toContain(place.folder);
  expect(session.command(allowedCommand("SELECT 'refused'"))).toBe(-1);
  await expect(session.room()).rejects.toThrow("ENOSPC");
  session.response(second, { tag: "SELECT 1", rows: 1, bytes: 1, ms: 1 });
  storage.bytesLeft = Number.POSITIVE_INFINITY;
  await until(() => session.failure === undefined);
  const third = session.command(allowedCommand("SELECT 'after'"));
  expect([first, second, third]).toEqual([1, 2, 3]);
  await session.close("done");
  const text = JSON.stringify(await recordsOf("one"));
  for (const word of ["before", "accepted", "after", "recording resumed"]) expect(text).toContain(word);
  expect(text).not.toContain("'refused'");
  await recorder.close();
  expect((await verifyRecordings(place.folder, publicKey)).ok).toBe(true);
});

test("a disk that is full for one session's file leaves the others alone", async () => {
  const recorder = await record();
  const one = recorder.open(opening("one"));
  const two = recorder.open(opening("two"));
  await Promise.all([one.stored("Accepted"), two.stored("Accepted")]);
  storage.only = "one.journal";
  storage.bytesLeft = 0;
  one.command(allowedCommand("SELECT 1"));
  await expect(one.stored("Accepted")).rejects.toThrow("ENOSPC");
  two.command(allowedCommand("SELECT 1"));
  await two.stored("Durable");
  expect(recorder.failure).toBeUndefined();
});

test("a log that cannot be written refuses new sessions' commands; idle ones that leave are forgotten", async () => {
  const recorder = await record();
  storage.bytesLeft = 0;
  const session = recorder.open(opening("one"));
  await expect(session.stored("Accepted")).rejects.toThrow("ENOSPC");
  expect(recorder.failure).toBeDefined();
  expect(session.command(allowedCommand("SELECT 1"))).toBe(-1);
  await expect(session.close("refused")).rejects.toThrow("ENOSPC");
  storage.bytesLeft = Number.POSITIVE_INFINITY;
  const next = recorder.open(opening("two"));
  await until(() => recorder.failure === undefined);
  expect(next.command(allowedCommand("SELECT 1"))).toBe(1);
  await next.close("done");
  await recorder.close();
  expect((await verifyRecordings(place.folder, publicKey)).ok).toBe(true);
});

test("after a failed fsync nothing is called durable until what was written is written again and synced", async () => {
  const recorder = await record();
  const session = recorder.open(opening("one"));
  await session.stored("Durable");
  storage.only = "one.journal";
  storage.syncError = "EIO";
  session.command(allowedCommand("SELECT 1"));
  await expect(session.stored("Durable")).rejects.toThrow("EIO");
  expect(session.command(allowedCommand("SELECT 2"))).toBe(-1);
  storage.syncError = undefined;
  await until(() => session.failure === undefined);
  expect(session.command(allowedCommand("SELECT 2"))).toBe(2);
  await session.stored("Durable");
  await session.close("done");
  await recorder.close();
  expect((await verifyRecordings(place.folder, publicKey)).ok).toBe(true);
});

test("rows beyond the bound are left out, and the recording says so", async () => {
  const recorder = await record({ rowBytesMax: 10 });
  const session = recorder.open(opening("one"));
  const n = session.command(allowedCommand("SELECT 1"));
  for (let i = 0; i < 5; i++) session.rows(n, Buffer.from("sixsix"));
  await session.close("done");
  const rows = (await recordsOf("one")).filter(({ kind }) => kind === "rows");
  expect(rows).toEqual([
    { kind: "rows", n, text: "sixsix" },
    { kind: "rows", n, text: "sixs", cut: true },
  ]);
});

test("a live session is open, its heads are noted in the log, and follow ends with its closing", async () => {
  const recorder = await record({ headMs: 10 });
  const session = recorder.open(opening("one"));
  session.command(allowedCommand("SELECT 1"));
  await session.stored("Accepted");
  expect(await statuses()).toEqual({ one: "open" });
  const followed: string[] = [];
  const following = (async () => {
    for await (const { kind } of readSession(place.folder, "one", { follow: true })) followed.push(kind);
  })();
  const log = join(place.folder, "log");
  await until(async () => {
    const texts = await Promise.all((await readdir(log)).map((name) => readFile(join(log, name), "utf8")));
    return texts.join().includes('"kind":"head"');
  });
  session.command(allowedCommand("SELECT 2"));
  await session.close("done");
  await following;
  expect(followed).toEqual(["opening", "command", "command", "closing"]);
  expect(recorder.publishedHead()).toMatchObject({ log: expect.stringMatching(/^log-00000001-/) });
});

test("a folder that is being written verifies at any moment", async () => {
  const recorder = await record({ headMs: 3 });
  let isDone = false;
  const writing = (async () => {
    for (let i = 0; !isDone; i++) {
      const session = recorder.open(opening(`session-${i}`));
      for (let n = 0; n < 3; n++) {
        session.command(allowedCommand(`SELECT ${n}`));
        await session.stored(n === 1 ? "Durable" : "Accepted");
      }
      await session.close("done");
      if (i % 5 === 0) await recorder.prune({ olderThanMs: 300 });
    }
  })();
  const bad: unknown[] = [];
  for (let i = 0; i < 15; i++) {
    const { log, sessions } = await verifyRecordings(place.folder, publicKey);
    bad.push(...[log, ...sessions].filter(({ status }) => status !== "ok" && status !== "open"));
  }
  isDone = true;
  await writing;
  expect(bad).toEqual([]);
});

test("ids that could name another file are refused, and so is an id in use", async () => {
  const recorder = await record();
  for (const id of ["", "../x", "a/b", ".hidden", "a.b", "x".repeat(200)]) {
    expect(() => recorder.open(opening(id))).toThrow("a session id is");
  }
  recorder.open(opening("one"));
  expect(() => recorder.open(opening("one"))).toThrow("used twice");
  const strange = recorder.open(opening("two", { namespace: "../../etc", resource: ".." }));
  await strange.close("done");
  expect((await listSessions(place.folder)).find(({ sessionId }) => sessionId === "two")?.path).toMatch(
    /^sessions\/%2E%2E%2F%2E%2E%2Fetc\/%2E%2E\/\d{4}-\d\d-\d\d\/two\.journal$/,
  );
});

test("a second recorder on the same folder is refused while the first one lives", async () => {
  const recorder = await record();
  await expect(record()).rejects.toThrow("are being written by process");
  await recorder.close();
  await (await record()).close();
  expect((await verifyRecordings(place.folder, publicKey)).log.status).toBe("ok");
});

test("pruned sessions are gone and not missing; open and younger ones stay", async () => {
  const recorder = await record();
  await recorder.open(opening("old")).close("done");
  await recorder.open(opening("other", { resource: "billing" })).close("done");
  const live = recorder.open(opening("live"));
  await live.stored("Accepted");
  expect(await recorder.prune({ olderThanMs: 60_000 })).toBe(0);
  expect(await recorder.prune({ olderThanMs: -1, resource: "orders-db" })).toBe(1);
  await live.close("done");
  await recorder.close();
  expect(await statuses()).toEqual({ other: "ok", live: "ok" });
  expect(await verifyRecordings(place.folder, publicKey)).toMatchObject({ ok: true, pruned: 1 });
  await expect(recordsOf("old")).rejects.toThrow("removed at the end of its retention");
});

test("a closed session takes nothing, and a closed recorder closes what was open", async () => {
  const recorder = await record();
  const session = recorder.open(opening("one"));
  const other = recorder.open(opening("two"));
  other.command(allowedCommand("SELECT 1"));
  await session.close("done");
  expect(session.command(allowedCommand("SELECT 1"))).toBe(-1);
  await expect(session.room()).rejects.toThrow("closed");
  await recorder.close();
  expect(() => recorder.open(opening("three"))).toThrow("closed");
  expect(await statuses()).toEqual({ one: "ok", two: "ok" });
});

test("a closing that comes while the file is being made still ends the journal", async () => {
  const recorder = await record();
  let release = () => {};
  storage.held = new Promise((resolve) => {
    release = resolve;
  });
  const session = recorder.open(opening("one"));
  session.command(allowedCommand("SELECT 1"));
  const closed = session.close("at once");
  release();
  storage.held = undefined;
  await closed;
  expect(await statuses()).toEqual({ one: "ok" });
});

test("the null recorder takes everything and keeps nothing", async () => {
  const session = openNull().open(opening("one"));
  expect(session.command(allowedCommand("SELECT 1"))).toBe(1);
  expect(session.command(allowedCommand("SELECT 1"))).toBe(2);
  await session.stored("Durable");
  await session.close("done");
  expect(session.failure).toBeUndefined();
});
