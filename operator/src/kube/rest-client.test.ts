import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Registry } from "prom-client";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { serviceAccountConnection } from "./connection.ts";
import { isConflict, isExpired, isNotFound, type KubeError } from "./error.ts";
import { kubeMetrics } from "./metrics.ts";
import { resourceType } from "./objects.ts";
import { kubeClient } from "./rest-client.ts";
import { type FakeApi, firstTimes, startFakeApi } from "./testing.ts";

const configMaps = resourceType<{
  metadata: { name: string; namespace: string };
  data?: Record<string, string>;
}>("v1", "ConfigMap", "configmaps");
const folder = "/api/v1/namespaces/demo/configmaps";
const ref = { namespace: "demo", name: "a" };
const object = (name: string) => ({ metadata: { name, namespace: "demo" }, data: { key: "value" } });

let api: FakeApi;
beforeEach(async () => {
  api = await startFakeApi();
});
afterEach(() => api.close());

const open = () => kubeClient({ connection: api.connection });
const failureOf = (promise: Promise<unknown>): Promise<KubeError> =>
  promise.then(
    () => Promise.reject(new Error("it did not fail")),
    (error: KubeError) => error,
  );

/** What passes by itself, as the servers and proxies of a network show it. */
const passing = [
  ["a reset connection", { kind: "reset" }],
  ["a reset within the answer", { kind: "reset-in-body" }],
  ["an answer that is cut off", { kind: "truncated" }],
  ["500", { kind: "status", status: 500 }],
  ["503", { kind: "status", status: 503 }],
] as const;

describe("a call that may be repeated outlives", () => {
  test.each([
    ...passing,
    ["429", { kind: "status", status: 429 }],
    ["504", { kind: "status", status: 504 }],
  ] as const)("%s", async (_, fault) => {
    api.put(`${folder}/a`, object("a"));
    api.fault = firstTimes(2, fault);
    expect((await open().get(configMaps, ref)).data).toEqual({ key: "value" });
    expect(api.requests).toHaveLength(3);
  });

  test("O30 a server that takes the connection and never answers, by its deadline", async () => {
    api.put(`${folder}/a`, object("a"));
    api.fault = firstTimes(1, { kind: "no-answer" });
    expect((await open().get(configMaps, ref, { timeoutMs: 1_000 })).data).toEqual({ key: "value" });
  });
});

describe("server-side apply outlives", () => {
  const applied = { apiVersion: "v1", kind: "ConfigMap", ...object("a") };
  const apply = (options: { timeoutMs?: number } = {}) =>
    open().apply(configMaps, applied, { fieldManager: "m", force: true, ...options });

  test.each([...passing, ["429", { kind: "status", status: 429, retryAfterSeconds: 1 }]] as const)(
    "%s: it says the same twice and means it once",
    async (_, fault) => {
      api.fault = firstTimes(2, fault);
      expect((await apply()).data).toEqual({ key: "value" });
      expect(api.requests.map(({ method, body }) => [method, body])).toEqual(
        Array(3).fill(["PATCH", expect.objectContaining({ data: { key: "value" } })]),
      );
    },
  );

  test("a connection that is half open", async () => {
    api.fault = firstTimes(1, { kind: "no-answer" });
    expect((await apply({ timeoutMs: 1_000 })).data).toEqual({ key: "value" });
  });
});

test("O18 Retry-After is obeyed, for writes too: nothing was done yet", async () => {
  api.fault = firstTimes(1, { kind: "status", status: 429, retryAfterSeconds: 1 });
  const begunAt = performance.now();
  await open().create(configMaps, object("a"));
  expect(performance.now() - begunAt).toBeGreaterThanOrEqual(990);
});

test("a Retry-After that is too long to wait for is handed to the caller", async () => {
  api.fault = () => ({ kind: "status", status: 429, retryAfterSeconds: 120 });
  const error = await failureOf(open().get(configMaps, ref));
  expect(error).toMatchObject({ status: 429, retryAfterMs: 120_000 });
  expect(api.requests).toHaveLength(1);
});

test("a create whose answer was lost is not sent twice", async () => {
  api.fault = () => ({ kind: "reset" });
  expect(await failureOf(open().create(configMaps, object("a")))).toMatchObject({
    status: 0,
    reason: "Unreachable",
  });
  expect(api.requests).toHaveLength(1);
});

test("tries are bounded", async () => {
  api.fault = () => ({ kind: "status", status: 500 });
  expect(await failureOf(open().get(configMaps, ref))).toMatchObject({
    status: 500,
    reason: "InternalError",
  });
  expect(api.requests).toHaveLength(4);
});

test("an aborted call ends at once, also while it waits for another try", async () => {
  const abort = new AbortController();
  api.fault = (request) => {
    if (request.path.endsWith("/a")) abort.abort();
    return { kind: "status", status: 429, retryAfterSeconds: 9 };
  };
  const begunAt = performance.now();
  await failureOf(open().get(configMaps, ref, { signal: abort.signal }));
  expect(performance.now() - begunAt).toBeLessThan(5000);
});

test("what is not there is undefined for find, an error for get, and already deleted for delete", async () => {
  const client = open();
  expect(await client.find(configMaps, ref)).toBeUndefined();
  expect(isNotFound(await failureOf(client.get(configMaps, ref)))).toBe(true);
  expect(await client.delete(configMaps, ref)).toBe(false);
});

test("O16 a delete spares an object that was made anew under the same name", async () => {
  api.put(`${folder}/a`, object("a"));
  expect(isConflict(await failureOf(open().delete(configMaps, ref, { uid: "another" })))).toBe(true);
  expect(api.get(`${folder}/a`)).toBeDefined();
});

test("a JSON patch whose test does not hold is a conflict", async () => {
  api.put(`${folder}/a`, object("a"));
  const operations = [{ op: "test", path: "/data/key", value: "other" }] as const;
  const error = await failureOf(open().patch(configMaps, ref, { kind: "json", operations }));
  expect(isConflict(error)).toBe(true);
});

test("O15 every write is validated strictly and says whose it is", async () => {
  const client = open();
  const header = { apiVersion: "v1", kind: "ConfigMap" };
  await client.create(configMaps, object("a"), { fieldManager: "m" });
  await client.replace(configMaps, object("a"), { fieldManager: "m" });
  await client.patch(configMaps, ref, { kind: "merge", merge: {} }, { fieldManager: "m" });
  await client.apply(configMaps, { ...header, ...object("a") }, { fieldManager: "m", force: true });
  expect(api.requests.map(({ query }) => query.get("fieldValidation"))).toEqual(Array(4).fill("Strict"));
  expect(api.requests.map(({ query }) => query.get("fieldManager"))).toEqual(Array(4).fill("m"));
  expect(api.requests.map(({ query }) => query.get("force"))).toEqual([null, null, null, "true"]);
});

test("O29 a list is read page by page, and its objects say what they are", async () => {
  for (let index = 0; index < 7; index += 1) api.put(`${folder}/a${index}`, object(`a${index}`));
  const { items } = await open().list(configMaps, { pageSize: 3 });
  expect(items).toHaveLength(7);
  expect(items[0]).toMatchObject({ apiVersion: "v1", kind: "ConfigMap" });
  expect(api.requests).toHaveLength(3);
});

test("a list whose pages expired is read anew in one piece", async () => {
  for (let index = 0; index < 7; index += 1) api.put(`${folder}/a${index}`, object(`a${index}`));
  api.fault = ({ query }) => {
    if (query.has("continue")) {
      api.put(`${folder}/b`, object("b"));
      api.compact();
    }
    return undefined;
  };
  expect((await open().list(configMaps, { pageSize: 3 })).items).toHaveLength(8);
  expect(api.requests.at(-1)?.query.has("limit")).toBe(false);
});

test("a name cannot lead to another address", async () => {
  await failureOf(open().get(configMaps, { namespace: "demo", name: "../secrets/x?y" }));
  expect(api.requests[0]?.path).toBe(`${folder}/..%2Fsecrets%2Fx%3Fy`);
});

test("a rotated token is read again when the old one is refused", async () => {
  const files = await mkdtemp(join(tmpdir(), "sallyport-kube-"));
  try {
    const write = (name: string, text: string) => writeFile(join(files, name), text);
    await Promise.all([write("namespace", "demo\n"), write("token", "old\n"), write("ca.crt", "x")]);
    const { hostname: host, port } = new URL(api.url);
    const connection = await serviceAccountConnection({ host, port, folder: files, scheme: "http" });
    const client = kubeClient({ connection });
    api.put(`${folder}/a`, object("a"));
    api.token = "old";
    await client.get(configMaps, ref);
    await write("token", "new");
    api.token = "new";
    await client.get(configMaps, ref);
    expect(api.requests.map(({ authorization }) => authorization)).toEqual([
      "Bearer old",
      "Bearer old",
      "Bearer new",
    ]);
  } finally {
    await rm(files, { recursive: true });
  }
});

test("O39 errors carry no token", async () => {
  const connection = {
    ...api.connection,
    credentials: () => Promise.resolve({ authorization: "Bearer secret" }),
  };
  api.fault = () => ({ kind: "reset" });
  const error = await failureOf(kubeClient({ connection }).create(configMaps, object("a")));
  expect(JSON.stringify([error.message, error.stack, String(error.cause)])).not.toContain("secret");
});

test("calls are counted by method and answer", async () => {
  const registry = new Registry();
  const client = kubeClient({ connection: api.connection, metrics: kubeMetrics(registry) });
  await client.find(configMaps, ref);
  expect(await registry.metrics()).toContain('rest_client_requests_total{method="GET",code="404"} 1');
});

describe("a watch", () => {
  const follow = async (options: { silenceMs?: number } = {}) => {
    const names: string[] = [];
    const signal = AbortSignal.timeout(5000);
    const events = open().watch(configMaps, {
      namespace: "demo",
      resourceVersion: "100",
      signal,
      ...options,
    });
    const error = await failureOf(
      (async () => {
        for await (const event of events)
          if (event.type !== "BOOKMARK") names.push(event.object.metadata.name);
      })(),
    );
    return { names, error };
  };

  test.each([
    ["410 as a status", { kind: "status", status: 410 }],
    ["410 as an event", { kind: "error-event", code: 410 }],
  ] as const)("%s says that the version is gone", async (_, fault) => {
    api.fault = () => fault;
    expect(isExpired((await follow()).error)).toBe(true);
  });

  test("an event that is cut off is no event, and the watch has failed", async () => {
    api.fault = () => ({ kind: "truncated" });
    const { names, error } = await follow();
    expect(names).toEqual([]);
    expect(error).toMatchObject({ status: 0, reason: "Unreachable" });
  });

  test("one that says nothing is given up, whether it was accepted or not", async () => {
    for (const kind of ["silent", "no-answer"] as const) {
      api.fault = () => ({ kind });
      expect((await follow({ silenceMs: 100 })).error).toMatchObject({
        status: 0,
        reason: "DeadlineExceeded",
      });
    }
  });

  test("events that come in several pieces are put together", async () => {
    const long = {
      type: "ADDED",
      object: { metadata: { name: "x".repeat(300_000), resourceVersion: "101" } },
    };
    api.fault = firstTimes(1, { kind: "lines", lines: [long, { ...long, type: "MODIFIED" }] });
    const events = open().watch(configMaps, { resourceVersion: "100", signal: AbortSignal.timeout(5000) });
    const lengths: number[] = [];
    for await (const event of events) {
      if (event.type !== "BOOKMARK") lengths.push(event.object.metadata.name.length);
      if (lengths.length === 2) break;
    }
    expect(lengths).toEqual([300_000, 300_000]);
  });
});
