/** What the operator's own client, caches and loop promise, on a real API server; faults are tried beside the code. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Condition,
  eventRecorder,
  isConflict,
  isExpired,
  isNotFound,
  type KubeClient,
  type KubeError,
  type KubeObject,
  kubeClient,
  kubeconfigConnection,
  LeaderElection,
  leaseIdentity,
  Reflector,
  resourceType,
  serviceAccountConnection,
  silentLog,
} from "@sallyport/operator/kube";
import { mergedConditions, writeStatus } from "@sallyport/operator/reconcile";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { livePid } from "../cluster/processes.ts";

interface ConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}
interface Grant extends KubeObject {
  readonly spec: { readonly from: readonly object[]; readonly to: readonly object[] };
  readonly status?: { readonly observedGeneration?: number; readonly conditions?: readonly Condition[] };
}

const namespace = "demo";
const configMaps = resourceType<ConfigMap>("v1", "ConfigMap", "configmaps");
const grants = resourceType<Grant>("sallyport.dev/v1alpha1", "ResourceGrant", "resourcegrants");
const grantsFile = join(import.meta.dirname, "../../crds/resourcegrants.yaml");
const header = { apiVersion: "v1", kind: "ConfigMap" };
const named = (name: string, data: Record<string, string> = {}): ConfigMap => ({
  metadata: { name, namespace },
  data,
});
const applied = (name: string, data: Record<string, string>) => ({ ...header, ...named(name, data) });
const ref = (name: string) => ({ namespace, name });

let api: ApiServer;
let client: KubeClient;
beforeAll(async () => {
  api = await startApiServer({ controllerManager: true });
  await api.kubectl("create", "namespace", namespace);
  await api.kubectl("apply", "--server-side", "-f", grantsFile);
  await api.kubectl("wait", "--for=condition=Established", "-f", grantsFile);
  client = kubeClient({ connection: await kubeconfigConnection({ file: api.kubeconfig }) });
});
afterAll(async () => {
  client?.close();
  await api?.close();
});

const failureOf = (promise: Promise<unknown>): Promise<KubeError> =>
  promise.then(
    () => Promise.reject(new Error("it did not fail")),
    (error: KubeError) => error,
  );

describe("calls", () => {
  test("an object is created once, read, replaced only in the version that was read, and deleted", async () => {
    const made = await client.create(configMaps, named("calls", { a: "1" }));
    expect(await failureOf(client.create(configMaps, named("calls")))).toMatchObject({
      reason: "AlreadyExists",
    });
    await client.patch(configMaps, ref("calls"), { kind: "merge", merge: { data: { b: "2" } } });
    expect(isConflict(await failureOf(client.replace(configMaps, made)))).toBe(true);
    expect((await client.get(configMaps, ref("calls"))).data).toEqual({ a: "1", b: "2" });
    const other = { uid: "00000000-0000-0000-0000-000000000000" };
    expect(isConflict(await failureOf(client.delete(configMaps, ref("calls"), other)))).toBe(true);
    expect(await client.delete(configMaps, ref("calls"), { uid: made.metadata.uid ?? "" })).toBe(true);
    expect(await client.delete(configMaps, ref("calls"))).toBe(false);
    expect(isNotFound(await failureOf(client.get(configMaps, ref("calls"))))).toBe(true);
  });

  test("a field that the schema does not know is refused, whichever way it is written", async () => {
    const wrong = { ...named("strict"), dta: {} };
    const ways = [
      client.create(configMaps, wrong),
      client.apply(configMaps, { ...header, ...wrong }, { fieldManager: "m" }),
    ];
    for (const error of await Promise.all(ways.map(failureOf))) expect(error.message).toContain("dta");
    expect(await client.find(configMaps, ref("strict"))).toBeUndefined();
  });

  test("a dry run writes nothing", async () => {
    await client.apply(configMaps, applied("dry", {}), { fieldManager: "m", dryRun: true });
    expect(await client.find(configMaps, ref("dry"))).toBeUndefined();
  });

  test("a list of several pages has every object once", async () => {
    const names = Array.from({ length: 25 }, (_, index) => `page-${index}`);
    await Promise.all(names.map((name) => client.create(configMaps, named(name))));
    const { items } = await client.list(configMaps, { namespace, pageSize: 4 });
    const found = items.map(({ metadata }) => metadata.name).filter((name) => name.startsWith("page-"));
    expect(found.sort()).toEqual(names.sort());
  });

  test("what an Invalid answer blames is handed on", async () => {
    const wrong = { metadata: { name: "wrong", namespace }, spec: { from: [{ namespace: "a" }], to: [{}] } };
    const error = await failureOf(client.create(grants, wrong));
    expect(error).toMatchObject({ status: 422, reason: "Invalid" });
    expect(error.causes.map(({ field }) => field)).toContain("spec.to[0]");
  });

  test("a service account is known by its files, and a rotated token is taken up", async () => {
    const folder = await mkdtemp(join(tmpdir(), "sallyport-account-"));
    try {
      const write = (name: string, text: string) => writeFile(join(folder, name), text);
      await Promise.all([
        write("namespace", namespace),
        write("ca.crt", api.caPem),
        write("token", await api.serviceAccountToken(namespace, "first")),
      ]);
      const { hostname: host, port } = new URL(api.url);
      const own = kubeClient({ connection: await serviceAccountConnection({ host, port, folder }) });
      const whoAmI = async () => {
        const review = { apiVersion: "authentication.k8s.io/v1", kind: "SelfSubjectReview" };
        const path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        const answer = await own.request({ method: "POST", path, body: review });
        return (answer as { status: { userInfo: { username: string } } }).status.userInfo.username;
      };
      expect(await whoAmI()).toBe("system:serviceaccount:demo:first");
      await write("token", "worthless");
      const later = kubeClient({ connection: await serviceAccountConnection({ host, port, folder }) });
      const body = { apiVersion: "authentication.k8s.io/v1", kind: "SelfSubjectReview" };
      const path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
      expect(await failureOf(later.request({ method: "POST", path, body }))).toMatchObject({ status: 401 });
      await write("token", await api.serviceAccountToken(namespace, "second"));
      await later.request({ method: "POST", path, body });
      later.close();
      own.close();
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("server-side apply", () => {
  const mine = { fieldManager: "mine" };

  test("O22 a field that is no longer applied goes, and those of others stay", async () => {
    await client.apply(configMaps, applied("apply", { a: "1", b: "1" }), mine);
    await client.apply(configMaps, applied("apply", { c: "1" }), { fieldManager: "other" });
    await client.apply(configMaps, applied("apply", { a: "1" }), mine);
    expect((await client.get(configMaps, ref("apply"))).data).toEqual({ a: "1", c: "1" });
  });

  test("a field of somebody else is taken only by force", async () => {
    await client.apply(configMaps, applied("force", { a: "1" }), { fieldManager: "other" });
    expect(isConflict(await failureOf(client.apply(configMaps, applied("force", { a: "2" }), mine)))).toBe(
      true,
    );
    await client.apply(configMaps, applied("force", { a: "2" }), { ...mine, force: true });
    expect((await client.get(configMaps, ref("force"))).data).toEqual({ a: "2" });
  });

  test("O62 applying the same twice changes no version", async () => {
    const first = await client.apply(configMaps, applied("same", { a: "1" }), mine);
    const second = await client.apply(configMaps, applied("same", { a: "1" }), mine);
    expect(second.metadata.resourceVersion).toBe(first.metadata.resourceVersion);
  });
});

describe("status", () => {
  const spec = { from: [{ namespace: "shop" }], to: [{ serviceName: "orders" }] };
  const write = async (status: "True" | "False", object: Grant) => {
    const { generation } = object.metadata;
    const wanted = [{ type: "Accepted", status, reason: "Checked", message: "" }] as const;
    const conditions = mergedConditions(object.status?.conditions, wanted, { generation, now: new Date() });
    const written = { observedGeneration: generation, conditions };
    return writeStatus({
      client,
      type: grants,
      object,
      status: written,
      fieldManager: "sallyport-grant-status",
    });
  };

  test("a status is written by a manager of its own, and not again while nothing changes", async () => {
    await client.create(grants, { metadata: { name: "status", namespace }, spec });
    expect(await write("True", await client.get(grants, ref("status")))).toBeDefined();
    const object = await client.get(grants, ref("status"));
    expect(object.status?.conditions?.[0]).toMatchObject({ status: "True", observedGeneration: 1 });
    expect(await write("True", object)).toBeUndefined();
    const managers = (
      object.metadata as { managedFields?: readonly { manager: string; subresource?: string }[] }
    ).managedFields;
    expect(managers).toContainEqual(
      expect.objectContaining({ manager: "sallyport-grant-status", subresource: "status" }),
    );
  });

  test("the status of an object that was made anew is not written with what was seen of the old one", async () => {
    const old = await client.create(grants, { metadata: { name: "anew", namespace }, spec });
    await client.delete(grants, ref("anew"));
    await client.create(grants, { metadata: { name: "anew", namespace }, spec });
    expect(isConflict(await failureOf(write("True", old)))).toBe(true);
  });
});

describe("caches", () => {
  test("a cache comes to what is there, also when the API server is killed and comes back", async () => {
    const stop = new AbortController();
    const reflector = new Reflector({
      client,
      type: configMaps,
      selection: { namespace, labelSelector: "cache=yes" },
      log: silentLog,
      pageSize: 3,
    });
    const running = reflector.run(stop.signal);
    const put = (name: string, value: string) => {
      const metadata = { name, namespace, labels: { cache: "yes" } };
      const object = { ...header, metadata, data: { value } };
      return client.apply(configMaps, object, { fieldManager: "m", force: true });
    };
    const values = () =>
      Object.fromEntries(reflector.list().map(({ metadata, data }) => [metadata.name, data?.value]));
    const becomes = (expected: object) =>
      vi.waitFor(() => expect(values()).toEqual(expected), { timeout: 60_000, interval: 50 });
    for (let index = 0; index < 7; index += 1) await put(`cache-${index}`, "1");
    await reflector.whenSynced(AbortSignal.timeout(10_000));
    await put("cache-0", "2");
    await client.delete(configMaps, ref("cache-6"));
    const expected = {
      ...Object.fromEntries([0, 1, 2, 3, 4, 5].map((n) => [`cache-${n}`, "1"])),
      "cache-0": "2",
    };
    await becomes(expected);
    expect(reflector.list()[0]?.metadata).not.toHaveProperty("managedFields");
    await api.restart();
    await put("cache-1", "3");
    await client.delete(configMaps, ref("cache-5"));
    const { "cache-5": _, ...left } = expected as Record<string, string>;
    await becomes({ ...left, "cache-1": "3" });
    stop.abort();
    await running;
  });

  test("a cache outlives an API server that hangs, which breaks no connection", async () => {
    const stop = new AbortController();
    const selection = { namespace, labelSelector: "hang=yes" };
    const options = { client, type: configMaps, selection, log: silentLog, silenceMs: 1000 };
    const reflector = new Reflector({ ...options, backoff: { firstMs: 100, mostMs: 500 } });
    const running = reflector.run(stop.signal);
    await reflector.whenSynced(AbortSignal.timeout(20_000));
    const pid = livePid(api.folder, "api-server");
    if (pid === undefined) throw new Error("the API server does not run");
    process.kill(pid, "SIGSTOP");
    try {
      // Longer than the watch may be silent, so that both the call and the watch are given up.
      const call = { timeoutMs: 2500, retries: 0 };
      expect(await failureOf(client.get(configMaps, ref("calls"), call))).toMatchObject({
        reason: "DeadlineExceeded",
      });
    } finally {
      process.kill(pid, "SIGCONT");
    }
    const metadata = { name: "hang", namespace, labels: { hang: "yes" } };
    await client.apply(configMaps, { ...header, metadata }, { fieldManager: "m" });
    await vi.waitFor(() => expect(reflector.list()).toHaveLength(1), { timeout: 30_000 });
    stop.abort();
    await running;
  });

  test("a watch from a version that an API server no longer keeps says so", async () => {
    const signal = AbortSignal.timeout(20_000);
    const events = client.watch(configMaps, { resourceVersion: "1", signal });
    const error = await failureOf(
      (async () => {
        for await (const event of events) expect(event.type).toBe("BOOKMARK");
      })(),
    );
    expect(isExpired(error)).toBe(true);
  });
});

describe("lease and events", () => {
  test("of two electors one leads; the other follows when it gives the lease back", async () => {
    const order: string[] = [];
    const elect = (pod: string) => {
      const stop = new AbortController();
      const identity = leaseIdentity(pod);
      // It is given back and not lost, however long the server takes for one renewal.
      const timing = { leaseMs: 60_000, renewDeadlineMs: 50_000, retryMs: 100 };
      const election = new LeaderElection({
        client,
        namespace,
        name: "operator",
        identity,
        log: silentLog,
        ...timing,
      });
      const ended = election.run(stop.signal, async (signal) => {
        order.push(pod);
        await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      });
      return { stop, ended };
    };
    const first = elect("a");
    await vi.waitFor(() => expect(order).toEqual(["a"]), { timeout: 30_000 });
    const second = elect("b");
    first.stop.abort();
    await first.ended;
    await vi.waitFor(() => expect(order).toEqual(["a", "b"]), { timeout: 30_000 });
    second.stop.abort();
    await second.ended;
    expect(
      await api.kubectl("get", "lease", "operator", "-n", namespace, "-o", "jsonpath={.spec}"),
    ).toContain('"holderIdentity":""');
  });

  test("an event and its series are what the API server takes, and kubectl shows them", async () => {
    const stop = new AbortController();
    const recorder = eventRecorder({
      client,
      reportingController: "sallyport.dev/operator",
      reportingInstance: "pod-1",
      log: silentLog,
      flushMs: 100,
    });
    const running = recorder.run(stop.signal);
    const regarding = { ...header, ...(await client.create(configMaps, named("event"))) };
    const problem = {
      regarding,
      type: "Warning",
      reason: "SecretMissing",
      action: "Resolve",
      note: "no Secret",
    } as const;
    for (let index = 0; index < 5; index += 1) recorder.record(problem);
    const seen = async () => {
      const list = await api.kubectl.json<{ items: readonly object[] }>(
        "events.events.k8s.io",
        "-n",
        namespace,
      );
      return list.items.filter((item) => (item as { reason?: string }).reason === "SecretMissing");
    };
    await vi.waitFor(
      async () => expect(await seen()).toEqual([expect.objectContaining({ type: "Warning" })]),
      {
        timeout: 10_000,
      },
    );
    recorder.record(problem);
    await vi.waitFor(
      async () =>
        expect(await seen()).toEqual([
          expect.objectContaining({ series: expect.objectContaining({ count: 6 }) }),
        ]),
      { timeout: 10_000 },
    );
    stop.abort();
    await running;
    const shown = await api.kubectl("describe", "configmap", "event", "-n", namespace);
    expect(shown).toContain("SecretMissing");
  });
});
