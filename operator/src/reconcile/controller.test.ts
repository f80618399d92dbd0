import { Registry } from "prom-client";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { KubeError, kubeMetrics, type Log, silentLog, workQueue } from "../kube/index.ts";
import { Controller, type ControllerOptions, ownerKey } from "./controller.ts";
import { type ReconcileContext, type ReconcileResult, TerminalError } from "./reconciler.ts";

/** Long enough for a machine that is busy; a promise that holds is seen at once. */
const until = (check: () => unknown): Promise<unknown> => vi.waitFor(check, { timeout: 15_000, interval: 5 });

let stop: AbortController;
let running: Promise<void>[];
beforeEach(() => {
  stop = new AbortController();
  running = [];
});
afterEach(async () => {
  stop.abort();
  await Promise.all(running);
});

const demo = { namespace: "demo", name: "a" };
const done: ReconcileResult = { kind: "done" };

function start(
  act: (context: ReconcileContext, times: number) => Promise<ReconcileResult> | ReconcileResult,
  options: Partial<ControllerOptions<string, string>> = {},
) {
  const seen: string[] = [];
  const controller = new Controller<string, string>({
    name: "test",
    reconciler: {
      observe: ({ ref }) => Promise.resolve(`${ref.namespace}/${ref.name}`),
      decide: (observed) => `decided ${observed}`,
      act: async (decision, context) => {
        seen.push(decision);
        return act(context, seen.length);
      },
    },
    log: silentLog,
    queue: workQueue({
      name: "test",
      backoff: { firstMs: 1, mostMs: 8 },
      bucket: { perSecond: 1e6, burst: 1e6 },
    }),
    ...options,
  });
  const ended = controller.run(stop.signal);
  running.push(ended);
  return { controller, seen, ended };
}

function heardLog() {
  const lines: { level: string; fields: Record<string, unknown>; message: string }[] = [];
  const at = (level: string) => (fields: object, message: string) =>
    void lines.push({ level, fields: fields as Record<string, unknown>, message });
  const log: Log = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
  return { log, lines };
}

test("what was observed is decided on, then acted on; keys that came before the loop are worked on", async () => {
  const { controller, seen } = start(() => done);
  controller.enqueue(demo);
  await until(() => expect(seen).toEqual(["decided demo/a"]));
});

test("O17 one key is never in work twice, and what came meanwhile is not lost", async () => {
  let active = 0;
  const gate = Promise.withResolvers<void>();
  const { controller, seen } = start(async () => {
    active += 1;
    expect(active).toBe(1);
    await gate.promise;
    active -= 1;
    return done;
  });
  controller.enqueue(demo);
  await until(() => expect(active).toBe(1));
  controller.enqueue(demo);
  controller.enqueue(demo);
  gate.resolve();
  await until(() => expect(seen).toHaveLength(2));
});

test("keys are worked on side by side, but no more than there are workers", async () => {
  let active = 0;
  let most = 0;
  const { controller, seen } = start(
    async () => {
      active += 1;
      most = Math.max(most, active);
      await new Promise((resolve) => setTimeout(resolve, 5));
      active -= 1;
      return done;
    },
    { workers: 3 },
  );
  for (let index = 0; index < 12; index += 1) controller.enqueue({ namespace: "demo", name: `n${index}` });
  await until(() => expect(seen).toHaveLength(12));
  expect(most).toBe(3);
});

describe("a failure", () => {
  test("is tried again until it succeeds, and logged with what it belongs to", async () => {
    const { log, lines } = heardLog();
    const act = (_: ReconcileContext, times: number) => {
      if (times < 4) throw new Error("broken");
      return done;
    };
    const { controller, seen } = start(act, { log });
    controller.enqueue(demo);
    await until(() => expect(seen).toHaveLength(4));
    expect(lines.map(({ level }) => level)).toEqual(["error", "error", "error"]);
    expect(lines[2]?.fields).toMatchObject({ controller: "test", namespace: "demo", name: "a", failures: 3 });
    expect(lines[2]?.fields.reconcileId).toMatch(/^[-0-9a-f]{36}$/);
  });

  test("O19 that nobody but the user can mend is not tried again, until something changes", async () => {
    const queue = workQueue({ name: "test" });
    const again = [vi.spyOn(queue, "addRateLimited"), vi.spyOn(queue, "addAfter")];
    const over = vi.spyOn(queue, "done");
    const act = () => {
      throw new TerminalError("no such protocol");
    };
    const { controller, seen } = start(act, { queue });
    controller.enqueue(demo);
    await until(() => expect(over).toHaveBeenCalledTimes(1));
    for (const spy of again) expect(spy).not.toHaveBeenCalled();
    controller.enqueue(demo);
    await until(() => expect(seen).toHaveLength(2));
  });

  test("O18 by a conflict is tried again without an error", async () => {
    const { log, lines } = heardLog();
    const act = (_: ReconcileContext, times: number) => {
      if (times < 3) throw new KubeError({ status: 409, reason: "Conflict", message: "changed" });
      return done;
    };
    const { controller, seen } = start(act, { log });
    controller.enqueue(demo);
    await until(() => expect(seen).toHaveLength(3));
    expect(lines.filter(({ level }) => level === "error" || level === "warn")).toEqual([]);
  });

  test("with Retry-After waits so long", async () => {
    const act = (_: ReconcileContext, times: number) => {
      if (times < 2)
        throw new KubeError({ status: 429, reason: "TooManyRequests", message: "", retryAfterMs: 200 });
      return done;
    };
    const { controller, seen } = start(act);
    controller.enqueue(demo);
    const begunAt = performance.now();
    await until(() => expect(seen).toHaveLength(2));
    expect(performance.now() - begunAt).toBeGreaterThan(190);
  });
});

test("a key that wants to come again does, and not at once even if it says so", async () => {
  const begunAt = performance.now();
  const { controller, seen } = start((_, times) => (times < 3 ? { kind: "requeue", afterMs: 0 } : done));
  controller.enqueue(demo);
  await until(() => expect(seen).toHaveLength(3));
  expect(performance.now() - begunAt).toBeGreaterThan(90);
});

test("a reconciliation that takes too long is told to end, and tried again", async () => {
  const act = async ({ signal }: ReconcileContext, times: number) => {
    if (times > 1) return done;
    await new Promise((_, reject) =>
      signal.addEventListener("abort", () => reject(signal.reason), { once: true }),
    );
    return done;
  };
  const { controller, seen } = start(act, { deadlineMs: 20 });
  controller.enqueue(demo);
  await until(() => expect(seen).toHaveLength(2));
});

test("O30 the loop's end waits for what is in work, and takes up nothing more", async () => {
  const gate = Promise.withResolvers<void>();
  const { controller, seen, ended } = start(
    async ({ signal }) => {
      await gate.promise;
      expect(signal.aborted).toBe(false);
      return done;
    },
    { workers: 1 },
  );
  controller.enqueue(demo);
  controller.enqueue({ namespace: "demo", name: "b" });
  await until(() => expect(seen).toHaveLength(1));
  stop.abort();
  controller.enqueue({ namespace: "demo", name: "c" });
  gate.resolve();
  await ended;
  expect(seen).toEqual(["decided demo/a"]);
});

test("what does not come to rest in time is told to end", async () => {
  const { controller, seen, ended } = start(
    ({ signal }) =>
      new Promise((_, reject) =>
        signal.addEventListener("abort", () => reject(signal.reason), { once: true }),
      ),
    { drainMs: 20 },
  );
  controller.enqueue(demo);
  await until(() => expect(seen).toHaveLength(1));
  stop.abort();
  await ended;
});

test("O20 every key comes again after a while, though nothing changed", async () => {
  const { seen } = start(() => done, { resync: { everyMs: 20, keys: () => [demo] } });
  await until(() => expect(seen.length).toBeGreaterThan(2));
});

test("O38 results are counted under the names that dashboards know", async () => {
  const registry = new Registry();
  const act = (_: ReconcileContext, times: number): ReconcileResult => {
    if (times === 1) throw new Error("broken");
    if (times === 2) throw new KubeError({ status: 409, reason: "Conflict", message: "" });
    if (times === 3) return { kind: "requeue", afterMs: 1 };
    return done;
  };
  const { controller, seen } = start(act, { metrics: kubeMetrics(registry) });
  controller.enqueue(demo);
  await until(() => expect(seen).toHaveLength(4));
  await until(async () => {
    const text = await registry.metrics();
    for (const result of ["error", "conflict", "requeue_after", "success"])
      expect(text).toContain(`controller_runtime_reconcile_total{controller="test",result="${result}"} 1`);
    expect(text).toContain('controller_runtime_reconcile_errors_total{controller="test"} 1');
    expect(text).toContain('controller_runtime_reconcile_time_seconds_count{controller="test"} 4');
    expect(text).toContain('controller_runtime_active_workers{controller="test"} 0');
  });
});

test("a child wakes its controlling owner, and no other", () => {
  const owner = { apiVersion: "sallyport.dev/v1alpha1", kind: "ProtectedResource", name: "shop", uid: "u" };
  const child = (controller: boolean) => ({
    metadata: { name: "x", namespace: "demo", ownerReferences: [{ ...owner, controller }] },
  });
  const keyFrom = (controller: boolean, kind: string) => ownerKey(child(controller), kind, owner.apiVersion);
  expect(keyFrom(true, "ProtectedResource")).toEqual({ namespace: "demo", name: "shop" });
  expect(keyFrom(false, "ProtectedResource")).toBeUndefined();
  expect(keyFrom(true, "AccessPolicy")).toBeUndefined();
});
