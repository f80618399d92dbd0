import { expect, test } from "vitest";
import { silentLog } from "../kube/index.ts";
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
  const options = (read: RecorderHead) => ({
    recorders: () => ["a"],
    read: async () => read,
    publish: async (_: string, each: RecorderHead) => void told.push(each),
    log: { ...silentLog, error: (_: object, message: string) => void errors.push(message) },
  });
  await publishHeads(options(head(4)), published, over);
  expect(errors).toEqual(["a recorder's log is shorter than it was"]);
  // A restart begins a new log, which is a step forward.
  await publishHeads(options(head(0, "log-00000002-5")), published, over);
  expect(told).toEqual([head(0, "log-00000002-5")]);
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
  };
  await keepRecorderHeads({ ...run, authorities: () => undefined });
  expect(looked).toBe(1);
});
