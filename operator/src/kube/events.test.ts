import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type EventNote, type EventRecorderOptions, eventRecorder } from "./events.ts";
import { silentLog } from "./log.ts";
import { kubeClient } from "./rest-client.ts";
import { type FakeApi, type Fault, firstTimes, startFakeApi } from "./testing.ts";

/** Long enough for a machine that is busy; a promise that holds is seen at once. */
const until = (check: () => unknown): Promise<unknown> => vi.waitFor(check, { timeout: 15_000, interval: 5 });

let api: FakeApi;
let stop: AbortController;
beforeEach(async () => {
  api = await startFakeApi();
  stop = new AbortController();
});
afterEach(() => api.close());

function start(options: Partial<EventRecorderOptions> = {}) {
  const recorder = eventRecorder({
    client: kubeClient({ connection: api.connection }),
    reportingController: "sallyport.dev/operator",
    reportingInstance: "pod-1",
    log: silentLog,
    flushMs: 50,
    ...options,
  });
  const ended = recorder.run(stop.signal);
  const end = (): Promise<void> => {
    stop.abort();
    return ended;
  };
  return { recorder, end };
}

const note = (more: Partial<EventNote> = {}): EventNote => ({
  regarding: {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "ProtectedResource",
    metadata: { name: "shop", namespace: "demo", uid: "u1" },
  },
  type: "Warning",
  reason: "SecretMissing",
  action: "ResolveCredentials",
  note: "the Secret shop-db is not there",
  ...more,
});
const created = () => api.requests.filter(({ method }) => method === "POST").map(({ body }) => body);
const patched = () => api.requests.filter(({ method }) => method === "PATCH").map(({ body }) => body);

test("an event says what happened to what, and who saw it", async () => {
  const { recorder, end } = start();
  recorder.record(note());
  await until(() => expect(created()).toHaveLength(1));
  expect(created()[0]).toMatchObject({
    apiVersion: "events.k8s.io/v1",
    kind: "Event",
    metadata: { namespace: "demo", name: expect.stringMatching(/^shop\.[0-9a-f]{16}$/) },
    eventTime: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/),
    reportingController: "sallyport.dev/operator",
    reportingInstance: "pod-1",
    action: "ResolveCredentials",
    reason: "SecretMissing",
    type: "Warning",
    note: "the Secret shop-db is not there",
    regarding: { apiVersion: "sallyport.dev/v1alpha1", kind: "ProtectedResource", name: "shop", uid: "u1" },
  });
  await end();
});

test("what happened several times before it was told is a series from the start", async () => {
  const { recorder, end } = start();
  recorder.record(note({ times: 3 }));
  await until(() => expect(created()).toHaveLength(1));
  expect(created()[0]).toMatchObject({ series: { count: 3 } });
  recorder.record(note({ times: 4 }));
  await end();
  expect(created()).toHaveLength(1);
  expect(patched().at(-1)).toMatchObject({ series: { count: 7 } });
});

test("a note is cut to the bytes that the API server takes, and not within a character", async () => {
  const { recorder, end } = start();
  recorder.record(note({ note: `x${"😀".repeat(300)}` }));
  await until(() => expect(created()).toHaveLength(1));
  await end();
  const [told] = created() as readonly { readonly note: string }[];
  expect(Buffer.byteLength(told?.note ?? "")).toBeLessThanOrEqual(1_024);
  expect(told?.note).toMatch(/^x(😀){255}…$/u);
});

test("O37 repeats become the series of the first event, however many there are", async () => {
  const { recorder, end } = start();
  recorder.record(note());
  await until(() => expect(created()).toHaveLength(1));
  for (let index = 0; index < 500; index += 1) recorder.record(note());
  await end();
  expect(created()).toHaveLength(1);
  expect(patched().length).toBeLessThan(5);
  expect(patched().at(-1)).toMatchObject({ series: { count: 501 } });
});

test("a repeat after a long silence is a new event", async () => {
  const { recorder, end } = start({ seriesMs: 0 });
  recorder.record(note());
  recorder.record(note());
  await end();
  expect(created()).toHaveLength(2);
});

test("a series whose event the API server has forgotten is written anew", async () => {
  const { recorder, end } = start();
  recorder.record(note());
  await until(() => expect(created()).toHaveLength(1));
  const { name } = (created()[0] as { metadata: { name: string } }).metadata;
  api.remove(`/apis/events.k8s.io/v1/namespaces/demo/events/${name}`);
  recorder.record(note());
  await end();
  expect(created()).toHaveLength(2);
  expect(created()[1]).toMatchObject({ series: { count: 2 } });
});

test("O37 one object that has too much to say is held back, others are not", async () => {
  const { recorder, end } = start({ burst: 3 });
  for (let index = 0; index < 50; index += 1) recorder.record(note({ note: `problem ${index}` }));
  const other = { ...note().regarding, metadata: { name: "other", namespace: "demo", uid: "u2" } };
  recorder.record(note({ regarding: other }));
  await end();
  expect(created()).toHaveLength(4);
});

test("who can cause many events of one kind hides none of another on the same object", async () => {
  const { recorder, end } = start({ burst: 3 });
  for (let index = 0; index < 50; index += 1)
    recorder.record(note({ reason: "NotInjected", note: `The pod p-${index} gets no gateway` }));
  recorder.record(note({ reason: "BreakGlass", note: "alice went past the approval" }));
  await end();
  expect(created()).toHaveLength(4);
  expect(created().at(-1)).toMatchObject({ reason: "BreakGlass" });
});

test("what many objects have to say at once is told without a pause, and then nothing more is", async () => {
  const { recorder, end } = start({ flushMs: 600_000 });
  const many = 1_100;
  for (let at = 0; at < many; at += 1) {
    const metadata = { name: `shop-${at}`, namespace: "demo", uid: `u${at}` };
    recorder.record(note({ regarding: { kind: "ProtectedResource", metadata } }));
  }
  // One after the other: on a busy machine each takes its time.
  await vi.waitFor(() => expect(api.requests).toHaveLength(many), { timeout: 60_000, interval: 20 });
  await end();
  expect(created()).toHaveLength(many);
  expect(api.requests).toHaveLength(many);
}, 90_000);

test.each<[string, Fault, number]>([
  ["500", { kind: "status", status: 500 }, 1],
  ["429 with Retry-After", { kind: "status", status: 429, retryAfterSeconds: 1 }, 2],
  // Nobody knows whether it was written: it is not told twice.
  ["a reset", { kind: "reset" }, 1],
])("an event that met %s harms no later one", async (_, fault, tries) => {
  api.fault = firstTimes(1, fault, ({ method }) => method === "POST");
  const { recorder, end } = start();
  recorder.record(note());
  await until(() => expect(created()).toHaveLength(tries));
  recorder.record(note({ note: "another" }));
  await until(() => expect(created()).toContainEqual(expect.objectContaining({ note: "another" })));
  await end();
});

test("failures are outlived, and what is waiting at the end is still written", async () => {
  api.fault = ({ path }) => (path.includes("/gone/") ? { kind: "status", status: 403 } : undefined);
  const { recorder, end } = start();
  const gone = { ...note().regarding, metadata: { name: "shop", namespace: "gone", uid: "u3" } };
  recorder.record(note({ regarding: gone }));
  recorder.record(note());
  await end();
  expect(created()).toHaveLength(2);
});

test("an API server that never answers does not keep a process from ending", async () => {
  api.fault = () => ({ kind: "no-answer" });
  const { recorder, end } = start();
  recorder.record(note());
  const begunAt = performance.now();
  await end();
  expect(performance.now() - begunAt).toBeLessThan(4000);
});

test("a long note is cut to what the API server takes, and a cluster-wide object's events are in default", async () => {
  const { recorder, end } = start();
  const regarding = {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "IdentityProvider",
    metadata: { name: "okta" },
  };
  recorder.record(note({ regarding, note: "x".repeat(5000) }));
  await end();
  expect(created()[0]).toMatchObject({ metadata: { namespace: "default" } });
  expect(Buffer.byteLength((created()[0] as { note: string }).note)).toBe(1024);
});
