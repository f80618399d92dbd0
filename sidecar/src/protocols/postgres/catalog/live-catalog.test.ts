import { afterEach, expect, test, vi } from "vitest";
import { catalogRow, FakeServer, momentRow, shopRows } from "./testing.ts";

afterEach(() => void vi.useRealTimers());

const withTable = [...shopRows, catalogRow("relation", 999, 1, "late", "r", ["id"], null, false, null)];

test("the catalog is read once, and one look tells that it still holds", async () => {
  const server = new FakeServer();
  expect(server.catalog.isFresh).toBe(false);
  await server.catalog.refresh(false);
  const { version } = server.catalog;
  expect(server.asked).toEqual(["catalog"]);
  server.nowMs = 1001;
  expect(server.catalog.isFresh).toBe(false);
  await server.catalog.refresh(false);
  expect(server.asked).toEqual(["catalog", "likeness"]);
  expect([server.catalog.isFresh, server.catalog.version]).toEqual([true, version]);
});

test("where columns may be newer, or the server another, the whole fingerprint tells, and is the ground from then on", async () => {
  const server = new FakeServer();
  await server.catalog.refresh(false);
  const { version } = server.catalog;
  server.likeness = null;
  server.nowMs = 3_599_000;
  await server.catalog.refresh(true);
  server.likeness = undefined;
  server.nowMs = 7_000_000;
  await server.catalog.refresh(true);
  expect(server.asked).toEqual(["catalog", "likeness", "fingerprint", "likeness"]);
  expect([server.catalog.isFresh, server.catalog.version]).toEqual([true, version]);
  server.nowMs = 7_200_000;
  await server.catalog.refresh(true);
  expect(server.asked.slice(4)).toEqual(["fingerprint"]);
});

test.for([
  ["b o 1", ["likeness", "fingerprint"]],
  ["b o 2", ["likeness", "fingerprint", "catalog"]],
  ["b o ?", ["likeness", "catalog"]],
] as const)(
  "another server is not asked for changes since a reading that it has not seen: %s",
  async ([now, asked]) => {
    const server = new FakeServer();
    await server.catalog.refresh(false);
    if (now === "b o ?") {
      server.changes = [...small, momentRow(now), catalogRow("relations", shopOids)];
      server.catalog.invalidate(true);
      await server.catalog.refresh(true);
    }
    const before = server.asked.length;
    server.likeness = null;
    server.server = "3 4";
    server.fingerprint = now;
    await server.catalog.refresh(true);
    expect(server.asked.slice(before)).toEqual(asked);
    expect(server.catalog.isFresh).toBe(true);
    server.likeness = undefined;
    await server.catalog.refresh(true);
    expect(server.asked.slice(before + asked.length)).toEqual(["likeness"]);
  },
);

test("where it does not hold any more, what has changed is asked for", async () => {
  const server = new FakeServer();
  await server.catalog.refresh(false);
  const { version } = server.catalog;
  server.fingerprint = "b o 2";
  server.changes = [...small, momentRow("b o 2"), catalogRow("relations", [...shopOids, 999]), late];
  server.likeness = null;
  await server.catalog.refresh(true);
  expect(server.asked).toEqual(["catalog", "likeness", "fingerprint", "changes"]);
  expect(server.catalog.version).not.toBe(version);
  expect(server.catalog.snapshot.relation("public", "late")).toBeDefined();
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
  expect(server.asked).toEqual(["catalog"]);
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
  expect(server.asked.slice(0, 2)).toEqual(["catalog", "likeness"]);
});

test("a reading that began before an invalidation does not make it fresh", async () => {
  const server = new FakeServer();
  const gate = Promise.withResolvers<void>();
  server.gate = gate.promise;
  const early = server.catalog.refresh(false);
  server.catalog.invalidate(true);
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

const shopOids = [101, 102, 103, 104];
const small = shopRows.filter(({ kind }) => !/^(relation|builtin\w+)$/.test(String(kind)));
const late = catalogRow("relation", 999, 1, "late", "r", ["id"], null, false, null);

test("after a definition only what has changed is asked for, and the rest is kept", async () => {
  const server = new FakeServer();
  await server.catalog.refresh(false);
  server.changes = [...small, momentRow("b o 2"), catalogRow("relations", [101, 102, 999]), late];
  server.catalog.invalidate(true);
  await server.catalog.refresh(true);
  expect(server.asked).toEqual(["catalog", "changes"]);
  const { snapshot } = server.catalog;
  expect(snapshot.relation("public", "late")?.columns).toEqual(["id"]);
  expect(snapshot.relation("shop", "users")?.columns).toEqual(["id"]);
  expect(snapshot.relation("closed", "users")).toBeUndefined();
  expect(snapshot.relation("pg_catalog", "pg_class")?.columns).toEqual(["oid", "relname"]);
  expect(snapshot.functions("pg_catalog", "lower")).toHaveLength(1);
});

test("a definition that was rolled back changes no version", async () => {
  const server = new FakeServer();
  await server.catalog.refresh(false);
  const { version } = server.catalog;
  server.changes = [...small, momentRow("b o 1"), catalogRow("relations", shopOids)];
  server.catalog.invalidate(true);
  await server.catalog.refresh(true);
  expect([server.asked.at(-1), server.catalog.version]).toEqual(["changes", version]);
});

test("where columns have changed their hash is left to a reading in the background; until then a look does without", async () => {
  vi.useFakeTimers();
  const server = new FakeServer();
  await server.catalog.refresh(false);
  const oids = catalogRow("relations", [...shopOids, 999]);
  server.changes = [...small, momentRow("b o2 ?"), oids, late];
  server.fingerprint = "b o2 ?";
  server.catalog.invalidate(true);
  await server.catalog.refresh(true);
  expect(server.catalog.snapshot.relation("public", "late")).toBeDefined();
  const { version } = server.catalog;
  await server.catalog.refresh(true);
  expect(server.asked).toEqual(["catalog", "changes", "likeness"]);
  expect(server.catalog.version).toBe(version);
  server.changes = [...small, momentRow("b o2 2"), oids];
  server.catalog.retain();
  server.nowMs = 700;
  await vi.advanceTimersByTimeAsync(700);
  server.catalog.release();
  server.fingerprint = "b o2 2";
  server.likeness = null;
  await server.catalog.refresh(true);
  expect(server.asked.slice(3)).toEqual(["changes", "likeness", "fingerprint"]);
  expect(server.catalog.snapshot.relation("public", "late")).toBeDefined();
});

test("columns that have changed twice are not taken for those of the first time", async () => {
  const server = new FakeServer();
  await server.catalog.refresh(false);
  const changed = (column: string) => [
    ...small,
    momentRow("b o ?"),
    catalogRow("relations", [...shopOids]),
    catalogRow("relation", 102, 2, "users", "r", [column], null, false, null),
  ];
  const columns = () => server.catalog.snapshot.relation("shop", "users")?.columns;
  for (const column of ["first", "second"]) {
    server.changes = changed(column);
    server.catalog.invalidate(true);
    await server.catalog.refresh(true);
    expect(columns()).toEqual([column]);
  }
  server.likeness = null;
  server.changes = changed("third");
  await server.catalog.refresh(true);
  expect(columns()).toEqual(["third"]);
  expect(server.asked).toEqual(["catalog", "changes", "changes", "likeness", "changes"]);
});

test("after what seldom changes anything it is looked first whether it has", async () => {
  const server = new FakeServer();
  await server.catalog.refresh(false);
  server.catalog.invalidate(false);
  expect(server.catalog.isRead).toBe(false);
  await server.catalog.refresh(false);
  expect(server.asked).toEqual(["catalog", "likeness"]);
  server.catalog.invalidate(true);
  server.catalog.invalidate(false);
  server.changes = [...small, momentRow("b o 1"), catalogRow("relations", shopOids)];
  await server.catalog.refresh(false);
  expect(server.asked.slice(2)).toEqual(["changes"]);
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
  ["another process of the server", momentRow("b o 2", "3 4")],
  ["other builtins", momentRow("b o 2", "1 2", "other")],
  ["a relation that is neither kept nor told", momentRow("b o 2"), catalogRow("relations", [101, 998])],
  ["no list of what there is", momentRow("b o 2")],
  ["rows that are none", { kind: "relation", data: "{}" }],
] as const)("where changes do not fit, everything is read: %s", async ([, ...changes]) => {
  const server = new FakeServer();
  await server.catalog.refresh(false);
  server.change(withTable);
  server.changes = changes;
  server.catalog.invalidate(true);
  await server.catalog.refresh(true);
  expect(server.asked).toEqual(["catalog", "changes", "catalog"]);
  expect(server.catalog.snapshot.relation("public", "late")).toBeDefined();
});

test("what was read long ago is no ground for changes", async () => {
  const server = new FakeServer();
  await server.catalog.refresh(false);
  server.nowMs = 3_600_000;
  server.catalog.invalidate(true);
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
  expect(asked).toEqual(["catalog", "likeness"]);
});

test("a reading during which something was invalidated is followed by another, and the third is the last", async () => {
  const server = new FakeServer();
  await server.catalog.refresh(false);
  let changes = 1;
  whenAsked(server, () => {
    changes -= 1;
    if (changes >= 0) server.catalog.invalidate(true);
  });
  expect(await server.catalog.readAnew()).toBe(true);
  changes = Number.POSITIVE_INFINITY;
  expect(await server.catalog.readAnew()).toBe(false);
});
