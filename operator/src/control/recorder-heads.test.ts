import { expect, test } from "vitest";
import { type EventNote, silentLog } from "../kube/index.ts";
import { keepRecorderHeads, parseHead, publishHeads, type RecorderHead } from "./recorder-heads.ts";

const head = (block: number, log = "log-00000001-1"): RecorderHead => ({
  log,
  block,
  hash: `hash-${log}-${block}`,
});
const over = new AbortController().signal;

test("a head is published once it is new, and one recorder that fails holds up no other", async () => {
  const published = new Map<string, RecorderHead>();
  const told: string[] = [];
  const options = {
    recorders: () => ["a", "b"],
    read: async (recorder: string) => {
      if (recorder === "a") throw new Error("it is down");
      return head(3);
    },
    publish: async (recorder: string) => void told.push(recorder),
    wentBack: () => undefined,
    log: silentLog,
  };
  await publishHeads(options, published, over);
  await publishHeads(options, published, over);
  expect(told).toEqual(["b"]);
});

test("a log that went back is not published over the head that shows it", async () => {
  const published = new Map([["a", head(9)]]);
  const told: RecorderHead[] = [];
  const errors: string[] = [];
  const warned: unknown[] = [];
  const options = (read: RecorderHead) => ({
    recorders: () => ["a"],
    read: async () => read,
    publish: async (_: string, each: RecorderHead) => void told.push(each),
    log: { ...silentLog, error: (_: object, message: string) => void errors.push(message) },
    wentBack: (recorder: string, before: RecorderHead) => void warned.push([recorder, before]),
  });
  await publishHeads(options(head(4)), published, over);
  expect(errors).toEqual(["a recorder's log is shorter than it was"]);
  // The newest log was removed: the recorder begins another one under its number, later and as long.
  await publishHeads(options(head(12, "log-00000001-7")), published, over);
  // A block of that place was written anew.
  await publishHeads(options({ ...head(9), hash: "another" }), published, over);
  expect([errors.length, told]).toEqual([3, []]);
  expect(warned).toEqual(Array(3).fill(["a", head(9)]));
  // A restart begins a new log, which is a step forward.
  await publishHeads(options(head(0, "log-00000002-5")), published, over);
  expect(told).toEqual([head(0, "log-00000002-5")]);
  expect(warned).toHaveLength(3);
});

test("people are warned of a log that went back, on what holds its head, once however long it stays so", async () => {
  const ending = new AbortController();
  const notes: EventNote[] = [];
  const metadata = { name: "heads", namespace: "system", uid: "of-the-heads" };
  const client = {
    find: async () => ({ metadata, data: { "r-0": JSON.stringify(head(9)) } }),
    apply: async () => {
      throw new Error("nothing is to be published");
    },
  } as unknown as Parameters<typeof keepRecorderHeads>[0]["client"];
  let block = 3;
  await keepRecorderHeads({
    ...{ client, recorders: ["r-0.r:7444"], namespace: "system", name: "heads", log: silentLog },
    ...{ signal: ending.signal, authorities: () => "pem", everyMs: 1 },
    read: async () => head(++block),
    events: {
      record: (note) => {
        if (notes.push(note) === 2) ending.abort();
      },
    },
  });
  const [first, second] = notes;
  expect(first).toMatchObject({
    regarding: { kind: "ConfigMap", metadata },
    ...{ type: "Warning", reason: "RecorderLogWentBack" },
    note: expect.stringMatching(/^r-0 .*log-00000001-1/),
  });
  // Equal events are one event's series.
  expect(second).toEqual(first);
});

test("a head that could not be published is told at the next turn", async () => {
  const published = new Map<string, RecorderHead>();
  let isUp = false;
  const options = {
    recorders: () => ["a"],
    read: async () => head(1),
    publish: async () => {
      if (!isUp) throw new Error("the API server is down");
    },
    wentBack: () => undefined,
    log: silentLog,
  };
  await publishHeads(options, published, over);
  expect(published.size).toBe(0);
  isUp = true;
  await publishHeads(options, published, over);
  expect(published.get("a")).toEqual(head(1));
});

test("an answer that is no head is an error, and a recorder without one says so", () => {
  expect(parseHead({ head: null })).toBeUndefined();
  expect(parseHead({ head: head(1) })).toEqual(head(1));
  expect(() => parseHead({ head: { log: 7 } })).toThrow("no head");
});

test("the loop ends with its signal, and does without recorders that cannot be checked yet", async () => {
  const ending = new AbortController();
  let looked = 0;
  const client = {
    find: async () => {
      looked++;
      ending.abort();
      return undefined;
    },
    apply: async () => {
      throw new Error("nothing is to be published");
    },
  } as unknown as Parameters<typeof keepRecorderHeads>[0]["client"];
  const recorders = ["recorder-0.recorder.system.svc:7444"];
  const run = {
    client,
    recorders,
    namespace: "system",
    name: "heads",
    log: silentLog,
    signal: ending.signal,
    events: { record: () => undefined },
  };
  await keepRecorderHeads({ ...run, authorities: () => undefined });
  expect(looked).toBe(1);
});

test("where earlier logs ended stays published, guarded by admission, and no recorder takes back another's head", async () => {
  const ending = new AbortController();
  const written: { readonly labels: unknown; readonly data: Readonly<Record<string, string>> }[] = [];
  const kept = {
    data: { "r-0": JSON.stringify(head(9)), "r-0.earlier": JSON.stringify([head(4, "log-00000000-1")]) },
  };
  const client = {
    find: async () => kept,
    apply: async (
      _: unknown,
      { metadata, data }: { metadata: { labels: unknown }; data: typeof kept.data },
    ) => {
      written.push({ labels: metadata.labels, data });
      if (written.length === 2) ending.abort();
    },
  } as unknown as Parameters<typeof keepRecorderHeads>[0]["client"];
  const heads: Record<string, RecorderHead> = {
    "r-0.r:7444": head(2, "log-00000003-8"),
    "r-1.r:7444": head(5, "log-00000001-2"),
  };
  await keepRecorderHeads({
    ...{ client, recorders: Object.keys(heads), namespace: "system", name: "heads", log: silentLog },
    ...{ signal: ending.signal, authorities: () => "pem", read: async (recorder) => heads[recorder] },
    events: { record: () => undefined },
  });
  const last = written.at(-1);
  expect(last?.labels).toEqual({ "sallyport.dev/kept": "true" });
  expect(JSON.parse(last?.data["r-0"] ?? "")).toEqual(heads["r-0.r:7444"]);
  expect(JSON.parse(last?.data["r-1"] ?? "")).toEqual(heads["r-1.r:7444"]);
  expect(JSON.parse(last?.data["r-0.earlier"] ?? "")).toEqual([head(4, "log-00000000-1"), head(9)]);
});
