import { afterEach, expect, test, vi } from "vitest";
import { catalogRow, FakeServer, shopRows } from "./testing.ts";

afterEach(() => void vi.useRealTimers());

const withTable = [...shopRows, catalogRow("relation", 999, 1, "late", "r", ["id"], null, false, null)];

test("the catalog is read once, and a fingerprint tells that it still holds", async () => {
  const server = new FakeServer();
  expect(server.catalog.isFresh).toBe(false);
  await server.catalog.refresh(false);
  const { version } = server.catalog;
  expect(server.asked).toEqual(["fingerprint", "catalog"]);
  server.nowMs = 1001;
  expect(server.catalog.isFresh).toBe(false);
  await server.catalog.refresh(false);
  expect(server.asked).toEqual(["fingerprint", "catalog", "fingerprint"]);
  expect([server.catalog.isFresh, server.catalog.version]).toEqual([true, version]);
});

test("a change is read, under a version that no other catalog has", async () => {
  const server = new FakeServer();
  const other = new FakeServer();
  await server.catalog.refresh(false);
  const { version } = server.catalog;
  server.change(withTable);
  await server.catalog.refresh(false);
  expect(server.catalog.version).toBe(version);
  await server.catalog.refresh(true);
  await other.catalog.refresh(true);
  expect(server.catalog.snapshot.relation("public", "late")?.columns).toEqual(["id"]);
  expect(new Set([version, server.catalog.version, other.catalog.version]).size).toBe(3);
});

test("who asks at the same time shares one reading", async () => {
  const server = new FakeServer();
  await Promise.all([1, 2, 3].map(() => server.catalog.refresh(false)));
  expect(server.asked).toEqual(["fingerprint", "catalog"]);
});

test("a forced refresh never takes an answer that began before it was asked", async () => {
  const server = new FakeServer();
  const gate = Promise.withResolvers<void>();
  server.gate = gate.promise;
  const early = server.catalog.refresh(false);
  server.change(withTable);
  const late = [server.catalog.refresh(true), server.catalog.refresh(true)];
  gate.resolve();
  await early;
  await Promise.all(late);
  expect(server.catalog.snapshot.relation("public", "late")).toBeDefined();
  expect(server.asked.filter((what) => what === "fingerprint")).toHaveLength(2);
});

test("a reading that began before an invalidation does not make it fresh", async () => {
  const server = new FakeServer();
  const gate = Promise.withResolvers<void>();
  server.gate = gate.promise;
  const early = server.catalog.refresh(false);
  server.catalog.invalidate();
  const late = server.catalog.refresh(false);
  gate.resolve();
  await early;
  expect(server.catalog.isFresh).toBe(false);
  await late;
  expect(server.catalog.isFresh).toBe(true);
});

test("a failed reading rejects, is counted, and leaves the catalog to grow old", async () => {
  const server = new FakeServer();
  await server.catalog.refresh(false);
  server.failure = new Error("gone");
  await expect(server.catalog.refresh(true)).rejects.toThrow("gone");
  expect([server.catalog.failures, server.catalog.lastError?.message]).toEqual([1, "gone"]);
  server.nowMs = 1001;
  expect(server.catalog.isFresh).toBe(false);
  server.failure = undefined;
  await server.catalog.refresh(false);
  expect([server.catalog.isFresh, server.catalog.lastError]).toEqual([true, undefined]);
});

test("a server that does not answer is given up after five seconds, and its late answer counts for nothing", async () => {
  vi.useFakeTimers();
  const server = new FakeServer();
  const gate = Promise.withResolvers<void>();
  server.gate = gate.promise;
  const refusal = expect(server.catalog.refresh(false)).rejects.toThrow("too long");
  await vi.advanceTimersByTimeAsync(5000);
  await refusal;
  gate.resolve();
  await vi.advanceTimersByTimeAsync(0);
  expect(server.catalog.isFresh).toBe(false);
});

test("while it is retained it is read before it grows old, failures included; released, it rests", async () => {
  vi.useFakeTimers();
  const server = new FakeServer();
  server.catalog.retain();
  server.catalog.retain();
  await vi.advanceTimersByTimeAsync(700);
  expect(server.catalog.isFresh).toBe(true);
  server.failure = new Error("gone");
  server.nowMs = 700;
  await vi.advanceTimersByTimeAsync(1400);
  expect(server.catalog.failures).toBe(2);
  server.catalog.release();
  server.failure = undefined;
  await vi.advanceTimersByTimeAsync(700);
  expect(server.catalog.lastError).toBeUndefined();
  server.catalog.release();
  const count = server.asked.length;
  await vi.advanceTimersByTimeAsync(10_000);
  expect(server.asked).toHaveLength(count);
});

test("readings in the background do not overlap, however slow the server is", async () => {
  vi.useFakeTimers();
  const server = new FakeServer();
  const gate = Promise.withResolvers<void>();
  server.gate = gate.promise;
  server.catalog.retain();
  await vi.advanceTimersByTimeAsync(4000);
  expect(server.asked).toHaveLength(1);
  server.catalog.release();
  gate.resolve();
  await vi.advanceTimersByTimeAsync(0);
});

test("rows that are not the catalog's are refused", async () => {
  const server = new FakeServer();
  server.rows = [{ kind: "relation", data: "{}" }];
  await expect(server.catalog.refresh(false)).rejects.toThrow(TypeError);
  expect(server.catalog.isFresh).toBe(false);
});

const moment = (fingerprint: string) => catalogRow("moment", "1 2", "755", "builtins", fingerprint);
const shopOids = [101, 102, 103, 104];
const dated = [...shopRows, moment("1"), catalogRow("relations", shopOids)];
const small = shopRows.filter(({ kind }) => !/^(relation|builtin\w+)$/.test(String(kind)));
const late = catalogRow("relation", 999, 1, "late", "r", ["id"], null, false, null);

test("after a definition only what has changed is asked for, and the rest is kept", async () => {
  const server = new FakeServer();
  server.rows = dated;
  await server.catalog.refresh(false);
  server.changes = [...small, moment("2"), catalogRow("relations", [101, 102, 999]), late];
  server.catalog.invalidate();
  await server.catalog.refresh(true);
  expect(server.asked).toEqual(["fingerprint", "catalog", "changes"]);
  const { snapshot } = server.catalog;
  expect(snapshot.relation("public", "late")?.columns).toEqual(["id"]);
  expect(snapshot.relation("shop", "users")?.columns).toEqual(["id"]);
  expect(snapshot.relation("closed", "users")).toBeUndefined();
  expect(snapshot.relation("pg_catalog", "pg_class")?.columns).toEqual(["oid", "relname"]);
  expect(snapshot.functions("pg_catalog", "lower")).toHaveLength(1);
});

test("a definition that was rolled back changes no version", async () => {
  const server = new FakeServer();
  server.rows = dated;
  await server.catalog.refresh(false);
  const { version } = server.catalog;
  server.changes = [...small, moment("1"), catalogRow("relations", shopOids)];
  server.catalog.invalidate();
  await server.catalog.refresh(true);
  expect([server.asked.at(-1), server.catalog.version]).toEqual(["changes", version]);
});

test("where columns have changed their hash is left to a later reading, which asks for it with what has changed since", async () => {
  const server = new FakeServer();
  server.rows = dated;
  await server.catalog.refresh(false);
  const oids = catalogRow("relations", [...shopOids, 999]);
  server.changes = [...small, catalogRow("moment", "1 2", "760", "builtins", null), oids, late];
  server.catalog.invalidate();
  await server.catalog.refresh(true);
  expect(server.catalog.snapshot.relation("public", "late")).toBeDefined();
  server.fingerprint = "2";
  server.changes = [...small, moment("2"), oids];
  await server.catalog.refresh(true);
  const { version } = server.catalog;
  await server.catalog.refresh(true);
  expect(server.asked).toEqual(["fingerprint", "catalog", "changes", "changes", "fingerprint"]);
  expect(server.catalog.version).toBe(version);
  expect(server.catalog.snapshot.relation("public", "late")).toBeDefined();
});

test("in the background nothing is read that a session has just read", async () => {
  vi.useFakeTimers();
  const server = new FakeServer();
  server.catalog.retain();
  server.nowMs = 600;
  await server.catalog.refresh(true);
  const count = server.asked.length;
  server.nowMs = 700;
  await vi.advanceTimersByTimeAsync(700);
  expect(server.asked).toHaveLength(count);
  server.nowMs = 1400;
  await vi.advanceTimersByTimeAsync(700);
  expect(server.asked).toHaveLength(count + 1);
  server.catalog.release();
});

test.for([
  ["another process of the server", catalogRow("moment", "3 4", "755", "builtins", "2")],
  ["other builtins", catalogRow("moment", "1 2", "755", "other", "2")],
  ["a relation that is neither kept nor told", moment("2"), catalogRow("relations", [101, 998])],
  ["no list of what there is", moment("2")],
  ["rows that are none", { kind: "relation", data: "{}" }],
] as const)("where changes do not fit, everything is read: %s", async ([, ...changes]) => {
  const server = new FakeServer();
  server.rows = dated;
  await server.catalog.refresh(false);
  server.change([...dated.slice(0, -2), late, moment("1+"), catalogRow("relations", [...shopOids, 999])]);
  server.changes = changes;
  server.catalog.invalidate();
  await server.catalog.refresh(true);
  expect(server.asked).toEqual(["fingerprint", "catalog", "changes", "catalog"]);
  expect(server.catalog.snapshot.relation("public", "late")).toBeDefined();
});

test("what was read long ago is no ground for changes", async () => {
  const server = new FakeServer();
  server.rows = dated;
  await server.catalog.refresh(false);
  server.nowMs = 3_600_000;
  server.catalog.invalidate();
  await server.catalog.refresh(true);
  expect(server.asked.at(-1)).toBe("catalog");
});

/** Does something while the server has its answer in work. */
function whenAsked(server: FakeServer, work: () => void): void {
  Object.defineProperty(server, "gate", { get: () => void work() });
}

test("who waited for a reading has it, though a busy server took longer than it stays fresh", async () => {
  const server = new FakeServer();
  await server.catalog.refresh(false);
  const { asked } = server;
  whenAsked(server, () => {
    server.nowMs += 1_500;
  });
  expect(await server.catalog.readAnew()).toBe(true);
  expect(server.catalog.isFresh).toBe(false);
  expect(asked).toEqual(["fingerprint", "catalog", "fingerprint"]);
});

test("a reading during which something was invalidated is followed by another, and the third is the last", async () => {
  const server = new FakeServer();
  await server.catalog.refresh(false);
  let changes = 1;
  whenAsked(server, () => {
    changes -= 1;
    if (changes >= 0) server.catalog.invalidate();
  });
  expect(await server.catalog.readAnew()).toBe(true);
  changes = Number.POSITIVE_INFINITY;
  expect(await server.catalog.readAnew()).toBe(false);
});
