import { Registry } from "prom-client";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { kubeMetrics } from "./metrics.ts";
import { type WorkQueue, type WorkQueueOptions, workQueue } from "./work-queue.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
});
afterEach(() => {
  vi.useRealTimers();
});

const open = (options: Partial<WorkQueueOptions> = {}): WorkQueue =>
  workQueue({ name: "test", random: () => 1, ...options });

/** Takes what is ready, and no more. */
async function takeReady(queue: WorkQueue): Promise<readonly string[]> {
  const keys: string[] = [];
  while (queue.depth > 0) keys.push((await queue.take()) ?? "");
  return keys;
}

test("O17 a key that is added many times waits once, in the order of its first coming", async () => {
  const queue = open();
  for (const key of ["a", "b", "a", "c", "b"]) queue.add(key);
  expect(await takeReady(queue)).toEqual(["a", "b", "c"]);
});

test("a key in work is not handed out again before it is done, and then once", async () => {
  const queue = open();
  queue.add("a");
  expect(await queue.take()).toBe("a");
  queue.add("a");
  queue.add("a");
  expect(queue.depth).toBe(0);
  queue.done("a");
  expect(await takeReady(queue)).toEqual(["a"]);
  queue.done("a");
  expect(queue.depth).toBe(0);
});

test("O17 two workers never hold one key, however it comes", async () => {
  vi.useRealTimers();
  const queue = open({ backoff: { firstMs: 1, mostMs: 2 } });
  const held = new Set<string>();
  let handled = 0;
  const work = async () => {
    for (let key = await queue.take(); key !== undefined; key = await queue.take()) {
      expect(held.has(key)).toBe(false);
      held.add(key);
      await new Promise((resolve) => setImmediate(resolve));
      if (Math.random() < 0.3) queue.addRateLimited(key);
      held.delete(key);
      handled += 1;
      queue.done(key);
    }
  };
  const workers = [work(), work(), work(), work()];
  for (let step = 0; step < 500; step += 1) {
    queue.add(`k${step % 5}`);
    if (step % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await vi.waitFor(() => expect(handled).toBeGreaterThan(50), { timeout: 20_000 });
  queue.shutDown();
  await Promise.all(workers);
});

test("O18 backoff doubles from 5 ms for each failure of a key, ends at 1000 s, and starts anew after a success", async () => {
  const queue = open({ bucket: { perSecond: 1e6, burst: 1e6 } });
  const waits: number[] = [];
  for (let failure = 0; failure < 20; failure += 1) {
    queue.addRateLimited("a");
    const before = performance.now();
    vi.advanceTimersToNextTimer();
    waits.push(performance.now() - before);
    await queue.take();
    queue.done("a");
  }
  expect(waits.slice(0, 4)).toEqual([5, 10, 20, 40]);
  expect(waits.at(-1)).toBe(1_000_000);
  expect(queue.failuresOf("a")).toBe(20);
  queue.forget("a");
  queue.addRateLimited("a");
  const before = performance.now();
  vi.advanceTimersToNextTimer();
  expect(performance.now() - before).toBe(5);
});

test("jitter spreads a backoff over its upper half", async () => {
  const queue = open({ random: () => 0, backoff: { firstMs: 100, mostMs: 1000 } });
  queue.addRateLimited("a");
  vi.advanceTimersByTime(49);
  expect(queue.depth).toBe(0);
  vi.advanceTimersByTime(1);
  expect(queue.depth).toBe(1);
});

test("O18 failures of many keys share one bucket", async () => {
  const queue = open({ bucket: { perSecond: 10, burst: 3 } });
  for (let index = 0; index < 13; index += 1) queue.addRateLimited(`k${index}`);
  vi.advanceTimersByTime(6);
  expect(queue.depth).toBe(3);
  vi.advanceTimersByTime(500);
  expect(queue.depth).toBe(8);
  vi.advanceTimersByTime(600);
  expect(queue.depth).toBe(13);
});

test("of several delays the shortest holds, and an add is not held back by one", async () => {
  const queue = open();
  queue.addAfter("a", 1000);
  queue.addAfter("a", 10);
  queue.addAfter("a", 5000);
  vi.advanceTimersByTime(10);
  expect(await takeReady(queue)).toEqual(["a"]);
  queue.done("a");
  vi.advanceTimersByTime(10_000);
  expect(queue.depth).toBe(0);
  queue.addAfter("b", 60_000);
  queue.add("b");
  expect(await takeReady(queue)).toEqual(["b"]);
  queue.done("b");
  vi.advanceTimersByTime(120_000);
  expect(queue.depth).toBe(0);
});

test("a delay longer than a timer can be is kept", () => {
  const queue = open();
  queue.addAfter("a", 40 * 86_400_000);
  vi.advanceTimersByTime(39 * 86_400_000);
  expect(queue.depth).toBe(0);
  vi.advanceTimersByTime(86_400_000);
  expect(queue.depth).toBe(1);
});

test("a shut queue ends its takers, takes nothing and leaves no timer", async () => {
  const queue = open();
  const waiting = queue.take();
  queue.addAfter("a", 1000);
  queue.shutDown();
  expect(await waiting).toBeUndefined();
  queue.add("b");
  queue.addAfter("c", 1);
  expect(await queue.take()).toBeUndefined();
  expect(vi.getTimerCount()).toBe(0);
});

test("O38 the queue's metrics have the names that dashboards know", async () => {
  const registry = new Registry();
  const queue = open({ metrics: kubeMetrics(registry) });
  queue.add("a");
  queue.add("b");
  await queue.take();
  vi.advanceTimersByTime(2000);
  queue.addRateLimited("a");
  const text = await registry.metrics();
  for (const line of [
    'workqueue_depth{name="test"} 1',
    'workqueue_adds_total{name="test"} 2',
    'workqueue_retries_total{name="test"} 1',
    'workqueue_unfinished_work_seconds{name="test"} 2',
    'workqueue_longest_running_processor_seconds{name="test"} 2',
    'workqueue_queue_duration_seconds_count{name="test"} 1',
  ])
    expect(text).toContain(line);
  queue.done("a");
  expect(await registry.metrics()).toContain('workqueue_work_duration_seconds_count{name="test"} 1');
});
