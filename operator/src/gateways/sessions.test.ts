import type { BrokenRule, SessionReport } from "@sallyport/control";
import type { Session } from "@sallyport/crds";
import { describe, expect, test } from "vitest";
import { type EventNote, type KubeClient, silentLog } from "../kube/index.ts";
import { testResource } from "../placement/testing.ts";
import type { OperatorCaches } from "../resources/index.ts";
import { SessionWriter } from "./sessions.ts";

const report = (change: Partial<SessionReport> = {}): SessionReport => ({
  ...{
    id: "01ABC",
    cause: "age",
    state: "Live",
    user: "okta:ana",
    subjectKind: "Human",
    protocol: "postgres",
  },
  ...{ account: "main", database: "shop", clientAddress: "", startedAt: 0, commands: 1, refused: 0 },
  ...change,
});

interface Applied {
  readonly metadata: { readonly name: string };
  readonly spec?: unknown;
  readonly status?: unknown;
}

/** A writer over an API server that holds the sessions named, and a cache that may know fewer of them. */
function writer(
  live: readonly string[],
  cached: readonly string[] = live,
  { toldBefore = 0, resource = "orders", synced = Promise.resolve() } = {},
) {
  let isSynced = false;
  void synced.then(() => {
    isSynced = true;
  });
  const held = new Set(live);
  const applied: string[] = [];
  const statuses: unknown[] = [];
  const specs: unknown[] = [];
  const events: EventNote[] = [];
  const [noted, deleted]: [string[], string[]] = [[], []];
  const object = (name: string) =>
    ({
      metadata: { name, namespace: "shop" },
      spec: { sessionId: "01ABC", resource },
      status: { state: "Active", counts: { brokeGlass: toldBefore } },
    }) as Session;
  const client = {
    apply: async (_type: unknown, { metadata, spec, status }: Applied) => {
      held.add(metadata.name);
      applied.push(metadata.name);
      if (spec !== undefined) specs.push(spec);
      if (status !== undefined) statuses.push(status);
    },
    find: async (_type: unknown, { name }: { name: string }) => (held.has(name) ? object(name) : undefined),
  } as unknown as KubeClient;
  const caches = {
    protectedResources: {
      whenSynced: () => synced,
      get: ({ name }: { name: string }) => (isSynced ? testResource({}, { name }) : undefined),
    },
    sessions: {
      whenSynced: () => synced,
      get: ({ name }: { name: string }) => (isSynced && cached.includes(name) ? object(name) : undefined),
      onChange: () => undefined,
    },
  } as unknown as OperatorCaches;
  const made = new SessionWriter({
    ...{ client, caches, log: silentLog, signal: new AbortController().signal, clock: () => new Date(0) },
    ttlAfterFinished: "36h",
    events: { record: (note) => events.push(note) },
    noted: (_resource, id) => noted.push(id),
    deleted: (_resource, id) => deleted.push(id),
  });
  const settled = (...reports: SessionReport[]) => settledOf("shop/orders", ...reports);
  const settledOf = async (from: string, ...reports: SessionReport[]) => {
    made.take(from, reports);
    // The writer works through what waits in promises alone.
    for (let turn = 0; turn < 50; turn += 1) await Promise.resolve();
  };
  return { settled, settledOf, applied, specs, statuses, events, noted, deleted };
}
const name = "session-01abc";

test("a session gets its object, and its gateway is told so", async () => {
  const { settled, applied, noted, deleted } = writer([]);
  await settled(report({ noted: false }));
  expect([...new Set(applied)]).toEqual([name]);
  expect(noted).toEqual(["01ABC"]);
  expect(deleted).toEqual([]);
});

test("an object says for how long it is kept after its session", async () => {
  const { settled, specs } = writer([]);
  await settled(report());
  expect(specs).toMatchObject([{ sessionId: "01ABC", ttlAfterFinished: "36h" }]);
});

test("a session whose object was deleted while nobody was there ends, and gets no object again", async () => {
  const { settled, applied, deleted } = writer([]);
  await settled(report({ noted: true }));
  expect(deleted).toEqual(["01ABC"]);
  await settled(report({ noted: true }));
  expect(applied).toEqual([]);
});

test("what an operator that begins is told before its lists are complete is written once they are", async () => {
  const lists = Promise.withResolvers<void>();
  const { settled, applied, statuses } = writer([name], [name], { synced: lists.promise });
  await settled(report({ noted: true }));
  expect(applied).toEqual([]);
  lists.resolve();
  await settled();
  expect(applied).toEqual([name]);
  expect(statuses).toMatchObject([{ state: "Active" }]);
});

test("a session that this replica's cache does not know yet does not end", async () => {
  const { settled, deleted } = writer([name], []);
  await settled(report({ noted: true }));
  expect(deleted).toEqual([]);
});

test("a session that no operator has noted, or of a gateway that cannot be told, does not end", async () => {
  for (const change of [{ noted: false }, {}]) {
    const { settled, applied, deleted } = writer([]);
    await settled(report(change));
    expect(deleted).toEqual([]);
    expect(applied).toContain(name);
  }
});

describe("what went past approval by break-glass", () => {
  const use = (count: number, change: Partial<BrokenRule> = {}): BrokenRule => ({
    ...{ policy: "prod", rule: "fixes", count, reason: "incident 7" },
    ...change,
  });
  const broken = (count: number, rules: readonly BrokenRule[] = [use(count)]) =>
    report({ cause: "held", noted: false, brokeGlass: { count, rules } });

  test("is a warning on its resource that says who, which rule, in which session and why", async () => {
    const { settled, events, statuses } = writer([]);
    await settled(broken(2));
    expect(events).toEqual([
      {
        regarding: expect.objectContaining({ kind: "ProtectedResource", metadata: expect.anything() }),
        ...{ type: "Warning", reason: "BreakGlass", action: "PassApproval", times: 2 },
        note: `okta:ana went past the approval that prod/fixes asks for, by break-glass, in ${name}: incident 7`,
      },
    ]);
    expect(events[0]?.regarding.metadata.name).toBe("orders");
    expect(statuses).toMatchObject([{ counts: { brokeGlass: 2 } }]);
  });

  test("is told once for each use, however often the report comes, and counted in the object at once", async () => {
    const { settled, events, statuses } = writer([]);
    for (const count of [1, 1, 4, 4]) await settled(broken(count));
    expect(events.map(({ times }) => times)).toEqual([1, 3]);
    expect(new Set(events.map(({ note }) => note)).size).toBe(1);
    expect(statuses.at(-1)).toMatchObject({ counts: { brokeGlass: 4 } });
  });

  test("is not told again by an operator that comes later, but for what is new to it", async () => {
    const { settled, events } = writer([name], [name], { toldBefore: 3 });
    await settled(broken(3));
    expect(events).toEqual([]);
    await settled(broken(5));
    expect(events.map(({ times }) => times)).toEqual([2]);
  });

  test("of several rules is told of each, the newest uses first", async () => {
    const { settled, events } = writer([name], [name], { toldBefore: 2 });
    await settled(broken(6, [use(3), use(2, { rule: "schema" }), use(1, { rule: "old" })]));
    expect(events.map(({ note, times }) => [/prod\/\w+/.exec(note)?.[0], times])).toEqual([
      ["prod/fixes", 3],
      ["prod/schema", 1],
    ]);
  });

  test("is told although the session's object was deleted meanwhile", async () => {
    const { settled, applied, events } = writer([]);
    await settled(report({ noted: true }));
    await settled(broken(1));
    expect(applied).toEqual([]);
    expect(events).toHaveLength(1);
  });

  test("is on the reporting gateway's own resource alone, whatever session it names", async () => {
    const { settled, settledOf, applied, events } = writer([name], [name], { toldBefore: 7 });
    await settledOf("shop/other", broken(1), report({ state: "Ended" }));
    expect(events.map(({ regarding }) => regarding.metadata.name)).toEqual(["other"]);
    // Nor does it end, count in or hide the session of the same id.
    expect(applied).toEqual([]);
    await settled(broken(8));
    expect(events.map(({ regarding, times }) => [regarding.metadata.name, times])).toEqual([
      ["other", 1],
      ["orders", 1],
    ]);
    expect(applied).toEqual([name]);
  });

  test("shows nothing that steers a terminal, and nothing without end", async () => {
    const { settled, events } = writer([]);
    const nasty = "a\u001b[2J\n\u202eb\u2028\ud800";
    const uses = [use(1, { policy: nasty, rule: nasty, reason: `${nasty}${"😀".repeat(300)}` })];
    await settled({ ...broken(1, uses), user: nasty.repeat(100), id: `x${nasty}` });
    const [note = ""] = events.map((event) => event.note);
    expect(note).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u);
    expect(note).toContain("a [2J b");
    expect([...note].length).toBeLessThan(1_000);
  });
});
