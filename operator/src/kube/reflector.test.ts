import { Registry } from "prom-client";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Change } from "./cache.ts";
import { silentLog } from "./log.ts";
import { kubeMetrics } from "./metrics.ts";
import { type KubeObject, resourceType } from "./objects.ts";
import { Reflector, type ReflectorOptions } from "./reflector.ts";
import { kubeClient } from "./rest-client.ts";
import { type FakeApi, type Fault, firstTimes, type SeenRequest, startFakeApi } from "./testing.ts";

/** Long enough for a machine that is busy; a promise that holds is seen at once. */
const until = (check: () => unknown): Promise<unknown> => vi.waitFor(check, { timeout: 15_000, interval: 5 });

interface ConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}

const configMaps = resourceType<ConfigMap>("v1", "ConfigMap", "configmaps");
const folder = "/api/v1/namespaces/demo/configmaps";
const put = (name: string, value = "1", namespace = "demo") =>
  api.put(`/api/v1/namespaces/${namespace}/configmaps/${name}`, {
    metadata: { name, namespace, labels: { app: value } },
    data: { value },
  });

let api: FakeApi;
let stop: AbortController;
let running: Promise<void>[];
beforeEach(async () => {
  api = await startFakeApi();
  stop = new AbortController();
  running = [];
});
afterEach(async () => {
  stop.abort();
  await Promise.all(running);
  await api.close();
});

function start(options: Partial<ReflectorOptions<ConfigMap>> = {}): Reflector<ConfigMap> {
  const client = kubeClient({ connection: api.connection });
  const backoff = { firstMs: 1, mostMs: 20 };
  const reflector = new Reflector({ client, type: configMaps, log: silentLog, backoff, ...options });
  running.push(reflector.run(stop.signal));
  return reflector;
}

const values = (reflector: Reflector<ConfigMap>) =>
  Object.fromEntries(reflector.list().map(({ metadata, data }) => [metadata.name, data?.value]));
const becomes = (reflector: Reflector<ConfigMap>, expected: object) =>
  until(() => expect(values(reflector)).toEqual(expected));
const isList = ({ isWatch, method }: SeenRequest) => method === "GET" && !isWatch;
const lists = () => api.requests.filter(isList).length;
const watches = () => api.requests.filter(({ isWatch }) => isWatch);

test("a cache follows what is added, changed and removed, in several pages", async () => {
  for (const name of ["a", "b", "c"]) put(name);
  const reflector = start({ pageSize: 2 });
  await reflector.whenSynced(stop.signal);
  expect(values(reflector)).toEqual({ a: "1", b: "1", c: "1" });
  put("a", "2");
  put("d");
  api.remove(`${folder}/b`);
  await becomes(reflector, { a: "2", c: "1", d: "1" });
});

test("nothing is synced before the last page has come", async () => {
  for (const name of ["a", "b", "c"]) put(name);
  let isOpen = false;
  api.fault = ({ query }) => (query.has("continue") && !isOpen ? { kind: "status", status: 503 } : undefined);
  const reflector = start({ pageSize: 2 });
  await until(() => expect(lists()).toBeGreaterThan(3));
  expect(reflector.isSynced).toBe(false);
  expect(reflector.list()).toEqual([]);
  isOpen = true;
  await reflector.whenSynced(stop.signal);
  expect(reflector.list()).toHaveLength(3);
});

describe("a watch goes on after", () => {
  const faults: readonly (readonly [string, Fault])[] = [
    ["410 as a status", { kind: "status", status: 410 }],
    ["410 as an event", { kind: "error-event", code: 410 }],
    ["an ERROR of another sort", { kind: "error-event", code: 500 }],
    ["500", { kind: "status", status: 500 }],
    ["403", { kind: "status", status: 403 }],
    ["401", { kind: "status", status: 401 }],
    ["429", { kind: "status", status: 429 }],
    ["a reset", { kind: "reset" }],
    ["a reset within an event", { kind: "reset-in-body" }],
    ["an event that is cut off", { kind: "truncated" }],
    ["a line that is no event", { kind: "lines", lines: [{ type: "STRANGE" }] }],
    ["silence", { kind: "silent" }],
    ["a connection that is half open", { kind: "no-answer" }],
  ];
  test.each(faults)("%s", async (_, fault) => {
    put("a");
    api.fault = firstTimes(3, fault, ({ isWatch }) => isWatch);
    const reflector = start({ silenceMs: 200 });
    await reflector.whenSynced(stop.signal);
    put("a", "2");
    await becomes(reflector, { a: "2" });
    put("b");
    await becomes(reflector, { a: "2", b: "1" });
  });
});

test.each([
  ["a list", isList],
  ["a watch", ({ isWatch }: SeenRequest) => isWatch],
])("%s that is told when to come again does not come before", async (_, matches) => {
  put("a");
  const times: number[] = [];
  const once = firstTimes(1, { kind: "status", status: 429, retryAfterSeconds: 1 }, matches);
  api.fault = (request) => {
    if (matches(request)) times.push(performance.now());
    return once(request);
  };
  const reflector = start();
  await reflector.whenSynced(stop.signal);
  await until(() => expect(times.length).toBeGreaterThan(1));
  const [first = 0, second = 0] = times;
  expect(second - first).toBeGreaterThanOrEqual(990);
  put("b");
  await becomes(reflector, { a: "1", b: "1" });
});

test("a list that fails over and over is tried until it succeeds, and slower and slower", async () => {
  put("a");
  api.fault = firstTimes(40, { kind: "reset" }, isList);
  const reflector = start();
  await reflector.whenSynced(stop.signal);
  expect(values(reflector)).toEqual({ a: "1" });
});

test("a slow list keeps nobody from what was known before", async () => {
  put("a");
  const reflector = start({ relistMs: 50, silenceMs: 60 });
  await reflector.whenSynced(stop.signal);
  api.fault = (request) => (isList(request) ? { kind: "slow", ms: 100 } : undefined);
  put("b");
  await becomes(reflector, { a: "1", b: "1" });
  const before = lists();
  await until(() => expect(lists()).toBeGreaterThan(before));
  expect(values(reflector)).toEqual({ a: "1", b: "1" });
});

test("what changed while no watch was there is found by the list after a 410", async () => {
  put("a");
  put("b");
  const reflector = start();
  const changes: string[] = [];
  await reflector.whenSynced(stop.signal);
  reflector.onChange(({ kind, object }) => changes.push(`${kind} ${object.metadata.name}`));
  await until(() => expect(api.watches).toBe(1));
  let isDown = true;
  api.fault = () => (isDown ? { kind: "reset" } : undefined);
  api.endWatches();
  await until(() => expect(api.watches).toBe(0));
  put("a", "2");
  put("c");
  api.remove(`${folder}/b`);
  api.compact();
  isDown = false;
  await becomes(reflector, { a: "2", c: "1" });
  expect(changes.sort()).toEqual(["added c", "changed a", "removed b"]);
});

test("a watch that ended in peace goes on where it was, without a list", async () => {
  put("a");
  const reflector = start();
  await reflector.whenSynced(stop.signal);
  for (const value of ["2", "3", "4"]) {
    await until(() => expect(api.watches).toBe(1));
    api.endWatches();
    put("a", value);
    await becomes(reflector, { a: value });
  }
  expect(lists()).toBe(1);
});

test("a server that ends every watch at once is not asked without a pause", async () => {
  // When each came, and not when this test saw it: on a busy machine the next pause is half over by then.
  const cameAt: number[] = [];
  api.fault = ({ isWatch }) => {
    if (!isWatch) return undefined;
    cameAt.push(performance.now());
    return { kind: "lines", lines: [] };
  };
  const closing = setInterval(() => api.endWatches(), 1);
  try {
    start({ backoff: { firstMs: 50, mostMs: 1000 } });
    await until(() => expect(cameAt.length).toBeGreaterThan(3));
    const [third = 0, fourth = 0] = cameAt.slice(2);
    expect(fourth - third).toBeGreaterThan(30);
  } finally {
    clearInterval(closing);
  }
});

test("O29 bookmarks move a watch on, and one out of order does not move it back", async () => {
  put("a");
  const bookmark = (version: string) => ({
    type: "BOOKMARK",
    object: { metadata: { resourceVersion: version } },
  });
  api.fault = firstTimes(
    1,
    { kind: "lines", lines: [bookmark("500"), bookmark("90")] },
    ({ isWatch }) => isWatch,
  );
  const reflector = start();
  await reflector.whenSynced(stop.signal);
  await until(() => expect(api.watches).toBe(1));
  api.endWatches();
  await until(() => expect(watches()).toHaveLength(2));
  expect(watches()[1]?.query.get("resourceVersion")).toBe("500");
  expect(watches()[1]?.query.get("allowWatchBookmarks")).toBe("true");
  expect(reflector.heard).toBe("500");
});

test("what was deleted is heard of at its own version, before and after the cache began", async () => {
  put("a");
  put("b");
  api.remove(`${folder}/b`);
  const reflector = start();
  expect(reflector.heard).toBe("0");
  await reflector.whenSynced(stop.signal);
  const listed = Number(reflector.heard);
  expect(listed).toBeGreaterThan(
    Number(reflector.get({ namespace: "demo", name: "a" })?.metadata.resourceVersion),
  );
  const heard: string[] = [];
  reflector.onChange(({ kind }) => heard.push(`${kind} ${Number(reflector.heard) > listed}`));
  await until(() => expect(api.watches).toBe(1));
  api.remove(`${folder}/a`);
  await until(() => expect(heard).toEqual(["removed true"]));
});

test("a listener that throws harms neither the cache nor the other listeners", async () => {
  const errors: string[] = [];
  const log = { ...silentLog, error: (_: object, message: string) => void errors.push(message) };
  const reflector = start({ log });
  const heard: Change<ConfigMap>[] = [];
  reflector.onChange(() => {
    throw new Error("no");
  });
  const end = reflector.onChange((change) => heard.push(change));
  await reflector.whenSynced(stop.signal);
  put("a");
  await becomes(reflector, { a: "1" });
  end();
  put("b");
  await becomes(reflector, { a: "1", b: "1" });
  expect(heard).toHaveLength(1);
  expect(errors).toHaveLength(2);
});

test("indexes and namespaces follow every change", async () => {
  put("a", "red");
  put("b", "red", "other");
  const reflector = start({ indexes: { app: ({ metadata }) => [metadata.labels?.app ?? ""] } });
  await reflector.whenSynced(stop.signal);
  const names = (key: string) => reflector.byIndex("app", key).map(({ metadata }) => metadata.name);
  expect(names("red")).toEqual(["a", "b"]);
  put("a", "blue");
  await until(() => expect(names("blue")).toEqual(["a"]));
  expect(names("red")).toEqual(["b"]);
  expect(reflector.list("demo").map(({ metadata }) => metadata.name)).toEqual(["a"]);
  expect(reflector.get({ namespace: "other", name: "b" })?.data).toEqual({ value: "red" });
  expect(() => reflector.byIndex("apps", "red")).toThrow("there is no index apps");
});

test("O29 managedFields are not kept, and a selection is asked for", async () => {
  const metadata = { name: "a", namespace: "demo", managedFields: [{ manager: "x" }] };
  api.put(`${folder}/a`, { metadata });
  const reflector = start({ selection: { labelSelector: "app=1", namespace: "demo" } });
  await reflector.whenSynced(stop.signal);
  expect(reflector.list()[0]?.metadata).not.toHaveProperty("managedFields");
  expect(api.requests[0]?.path).toBe(folder);
  expect(api.requests[0]?.query.get("labelSelector")).toBe("app=1");
});

test("a write of ours is seen at once, and older news does not undo it", async () => {
  put("a");
  const reflector = start();
  await reflector.whenSynced(stop.signal);
  const known = reflector.get({ namespace: "demo", name: "a" }) as ConfigMap;
  const written = { ...known, metadata: { ...known.metadata, resourceVersion: "999" }, data: { value: "9" } };
  reflector.learn(written);
  expect(values(reflector)).toEqual({ a: "9" });
  put("a", "2");
  put("b");
  await becomes(reflector, { a: "9", b: "1" });
  reflector.learn({ ...known, metadata: { ...known.metadata, name: "gone" } });
  expect(reflector.get({ namespace: "demo", name: "gone" })).toBeUndefined();
});

test("O28 a cache knows what its client wrote before its watch does, and tells of it once", async () => {
  put("a");
  const client = kubeClient({ connection: api.connection });
  const reflector = start({ client });
  await reflector.whenSynced(stop.signal);
  await until(() => expect(api.watches).toBe(1));
  const changes: string[] = [];
  reflector.onChange(({ kind, object }) => changes.push(`${kind} ${object.metadata.name}`));
  const merge = { data: { value: "2" } };
  const ref = { namespace: "demo", name: "a" };
  await client.patch(configMaps, ref, { kind: "merge", merge });
  expect(changes.length).toBeGreaterThan(0);
  expect(values(reflector)).toEqual({ a: "2" });
  put("b");
  await becomes(reflector, { a: "2", b: "1" });
  expect(changes).toEqual(["changed a", "added b"]);
});

test("what happens between two pages of a list is heard from the watch, and no object is missed", async () => {
  for (const name of ["a", "b", "c", "d"]) put(name);
  let isHeld = false;
  api.fault = ({ query }) => {
    if (!query.has("continue") || isHeld) return undefined;
    isHeld = true;
    api.remove(`${folder}/a`);
    put("d", "2");
    return { kind: "slow", ms: 1 };
  };
  const reflector = start({ pageSize: 2 });
  await becomes(reflector, { b: "1", c: "1", d: "2" });
  expect(isHeld).toBe(true);
});

test("O16 whatever goes wrong, at random, the cache comes to what is there", async () => {
  const faults: readonly Fault[] = [
    { kind: "reset" },
    { kind: "reset-in-body" },
    { kind: "truncated" },
    { kind: "silent" },
    { kind: "no-answer" },
    { kind: "status", status: 500 },
    { kind: "status", status: 410 },
    { kind: "error-event", code: 410 },
  ];
  let isBad = true;
  api.fault = ({ isWatch }) => {
    const fault = faults[Math.floor(Math.random() * faults.length)];
    // A list that is never answered costs its whole deadline.
    const isTooSlow = !isWatch && (fault?.kind === "no-answer" || fault?.kind === "silent");
    return isBad && Math.random() < 0.5 && !isTooSlow ? fault : undefined;
  };
  const reflector = start({ silenceMs: 60, pageSize: 3 });
  for (let step = 0; step < 150; step += 1) {
    const name = `n${Math.floor(Math.random() * 12)}`;
    if (Math.random() < 0.3) api.remove(`${folder}/${name}`);
    else put(name, String(step));
    if (step % 40 === 0) api.compact();
    if (step % 25 === 0) api.endWatches();
    await new Promise((resolve) => setImmediate(resolve));
  }
  isBad = false;
  put("last");
  const expected: Record<string, unknown> = {};
  for (let index = 0; index < 12; index += 1) {
    const object = api.get(`${folder}/n${index}`) as ConfigMap | undefined;
    if (object !== undefined) expected[`n${index}`] = object.data?.value;
  }
  await becomes(reflector, { ...expected, last: "1" });
});

test("restarts and their reasons are counted", async () => {
  const registry = new Registry();
  api.fault = firstTimes(1, { kind: "error-event", code: 410 }, ({ isWatch }) => isWatch);
  const reflector = start({ metrics: kubeMetrics(registry) });
  put("a");
  await becomes(reflector, { a: "1" });
  const restart = 'sallyport_watch_restarts_total{kind="ConfigMap",reason="Expired"} 1';
  await until(async () => expect(await registry.metrics()).toContain(restart));
  expect(await registry.metrics()).toContain('sallyport_cached_objects{kind="ConfigMap"} 1');
});

test("waiting for a cache ends with its signal", async () => {
  api.fault = () => ({ kind: "no-answer" });
  const reflector = start();
  await expect(reflector.whenSynced(AbortSignal.timeout(30))).rejects.toThrow();
});
