import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { LeaderElection, type LeaderElectionOptions, LeaseLostError, leaseIdentity } from "./lease.ts";
import { silentLog } from "./log.ts";
import { kubeClient } from "./rest-client.ts";
import { type FakeApi, type Fault, startFakeApi } from "./testing.ts";

/** Long enough for a machine that is busy; a promise that holds is seen at once. */
const until = (check: () => unknown): Promise<unknown> => vi.waitFor(check, { timeout: 15_000, interval: 5 });

const path = "/apis/coordination.k8s.io/v1/namespaces/system/leases/operator";

let api: FakeApi;
beforeEach(async () => {
  api = await startFakeApi();
});
afterEach(() => api.close());

function elect(identity: string, options: Partial<LeaderElectionOptions> = {}) {
  const stop = new AbortController();
  const led: AbortSignal[] = [];
  const election = new LeaderElection({
    client: kubeClient({ connection: api.connection }),
    namespace: "system",
    name: "operator",
    identity,
    log: silentLog,
    // A busy machine takes a second for one renewal, and no lease is lost by that.
    leaseMs: 60_000,
    renewDeadlineMs: 50_000,
    retryMs: 20,
    ...options,
  });
  const ended = election.run(stop.signal, async (signal) => {
    led.push(signal);
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  });
  // Looked at later, by each test.
  ended.catch(() => {});
  return { election, stop, ended, led };
}

const holder = () => (api.get(path)?.spec as { holderIdentity?: string } | undefined)?.holderIdentity;
const leads = (who: ReturnType<typeof elect>) => until(() => expect(who.election.isLeader).toBe(true));

test("O33 one of two leads, and the other takes over at once when the lease is given back", async () => {
  const first = elect("a");
  await leads(first);
  const second = elect("b");
  await until(() => expect(api.requests.filter(({ method }) => method === "GET").length).toBeGreaterThan(10));
  expect(second.election.isLeader).toBe(false);
  expect(second.led).toHaveLength(0);
  const begunAt = performance.now();
  first.stop.abort();
  await first.ended;
  await leads(second);
  expect(performance.now() - begunAt).toBeLessThan(5000);
  expect(holder()).toBe("b");
  second.stop.abort();
  await second.ended;
  expect(holder()).toBe("");
});

test("what leads has come to rest before the lease is given back", async () => {
  const order: string[] = [];
  const stop = new AbortController();
  const client = kubeClient({ connection: api.connection });
  const options = {
    client,
    namespace: "system",
    name: "operator",
    identity: "a",
    log: silentLog,
    retryMs: 20,
  };
  const ended = new LeaderElection(options).run(stop.signal, async (signal) => {
    stop.abort();
    expect(signal.aborted).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 50));
    order.push(`rested while held by ${holder()}`);
  });
  await ended;
  expect(order).toEqual(["rested while held by a"]);
  expect(holder()).toBe("");
});

test("the lease of a process that died is taken, but not before its length has passed by our own clock", async () => {
  const spec = { holderIdentity: "dead", leaseDurationSeconds: 1, renewTime: "2001-01-01T00:00:00.000000Z" };
  api.put(path, { metadata: { name: "operator", namespace: "system" }, spec });
  const begunAt = performance.now();
  const second = elect("b", { leaseMs: 1000 });
  await leads(second);
  expect(performance.now() - begunAt).toBeGreaterThanOrEqual(1000);
  expect(api.get(path)?.spec).toMatchObject({ holderIdentity: "b", leaseTransitions: 1 });
  second.stop.abort();
  await second.ended;
});

test("O33 who cannot renew stops leading before anybody else may begin", async () => {
  const leaseMs = 12_000;
  const first = elect("a", { leaseMs, renewDeadlineMs: 3_000 });
  await leads(first);
  api.fault = () => ({ kind: "no-answer" });
  const begunAt = performance.now();
  await expect(first.ended).rejects.toThrow(LeaseLostError);
  expect(performance.now() - begunAt).toBeLessThan(leaseMs);
  expect(first.led[0]?.aborted).toBe(true);
  expect(first.election.isLeader).toBe(false);
});

test("a leader whose lease somebody else took loses it at the next renewal", async () => {
  const first = elect("a");
  await leads(first);
  api.put(path, { metadata: { name: "operator", namespace: "system" }, spec: { holderIdentity: "thief" } });
  await expect(first.ended).rejects.toThrow(LeaseLostError);
  expect(holder()).toBe("thief");
});

test.each<[string, Fault]>([
  ["500", { kind: "status", status: 500 }],
  ["429 with Retry-After", { kind: "status", status: 429, retryAfterSeconds: 0 }],
  ["a reset", { kind: "reset" }],
  ["a reset within the answer", { kind: "reset-in-body" }],
  ["an answer that is cut off", { kind: "truncated" }],
])("single failures of renewal are outlived: %s", async (_, fault) => {
  const first = elect("a");
  await leads(first);
  let failures = 0;
  api.fault = () => {
    failures += 1;
    return failures % 2 === 1 ? fault : undefined;
  };
  await vi.waitFor(() => expect(failures).toBeGreaterThan(12), { timeout: 50_000, interval: 5 });
  expect(first.election.isLeader).toBe(true);
  api.fault = () => undefined;
  first.stop.abort();
  await first.ended;
  expect(holder()).toBe("");
});

test("two that begin in the same moment do not both lead", async () => {
  const all = ["a", "b", "c", "d"].map((identity) => elect(identity));
  await until(() => expect(all.some(({ election }) => election.isLeader)).toBe(true));
  await until(() => expect(api.requests.length).toBeGreaterThan(40));
  expect(all.filter(({ led }) => led.length > 0)).toHaveLength(1);
  for (const { stop } of all) stop.abort();
  await Promise.all(all.map(({ ended }) => ended));
});

test("a failure of what leads is handed on, and the lease is given back", async () => {
  const client = kubeClient({ connection: api.connection });
  const options = {
    client,
    namespace: "system",
    name: "operator",
    identity: "a",
    log: silentLog,
    retryMs: 20,
  };
  const run = new LeaderElection(options).run(new AbortController().signal, () =>
    Promise.reject(new Error("broken")),
  );
  await expect(run).rejects.toThrow("broken");
  expect(holder()).toBe("");
});

test("a lease whose taking was cut off by the end of the process is given back all the same", async () => {
  let isCut = false;
  const taker = elect("a");
  api.fault = ({ method }) => {
    if (method !== "POST" || isCut) return undefined;
    isCut = true;
    const metadata = { name: "operator", namespace: "system" };
    api.put(path, { metadata, spec: { holderIdentity: "a", leaseDurationSeconds: 6 } });
    taker.stop.abort();
    return { kind: "no-answer" };
  };
  await taker.ended;
  expect(isCut).toBe(true);
  expect(taker.led).toHaveLength(0);
  expect(holder()).toBe("");
});

test("O33 two runs of one pod have two identities", () => {
  expect(leaseIdentity("pod")).toMatch(/^pod_[-0-9a-f]{36}$/);
  expect(leaseIdentity("pod")).not.toBe(leaseIdentity("pod"));
});
