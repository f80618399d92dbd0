import type { SessionReport } from "@sallyport/control";
import type { Session } from "@sallyport/crds";
import { expect, test } from "vitest";
import { type KubeClient, silentLog } from "../kube/index.ts";
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

/** A writer over an API server that holds the sessions named, and a cache that may know fewer of them. */
function writer(live: readonly string[], cached: readonly string[] = live) {
  const held = new Set(live);
  const applied: string[] = [];
  const [noted, deleted]: [string[], string[]] = [[], []];
  const object = (name: string) =>
    ({
      metadata: { name, namespace: "shop" },
      spec: { sessionId: "01ABC" },
      status: { state: "Active" },
    }) as Session;
  const client = {
    apply: async (_type: unknown, { metadata }: { metadata: { name: string } }) => {
      held.add(metadata.name);
      applied.push(metadata.name);
    },
    find: async (_type: unknown, { name }: { name: string }) => (held.has(name) ? object(name) : undefined),
  } as unknown as KubeClient;
  const caches = {
    protectedResources: { get: () => testResource() },
    sessions: {
      get: ({ name }: { name: string }) => (cached.includes(name) ? object(name) : undefined),
      onChange: () => undefined,
    },
  } as unknown as OperatorCaches;
  const made = new SessionWriter({
    ...{ client, caches, log: silentLog, signal: new AbortController().signal, clock: () => new Date(0) },
    noted: (_resource, id) => noted.push(id),
    deleted: (_resource, id) => deleted.push(id),
  });
  const settled = async (...reports: SessionReport[]) => {
    made.take("shop/orders", reports);
    // The writer works through what waits in promises alone.
    for (let turn = 0; turn < 50; turn += 1) await Promise.resolve();
  };
  return { settled, applied, noted, deleted };
}
const name = "session-01abc";

test("a session gets its object, and its gateway is told so", async () => {
  const { settled, applied, noted, deleted } = writer([]);
  await settled(report({ noted: false }));
  expect([...new Set(applied)]).toEqual([name]);
  expect(noted).toEqual(["01ABC"]);
  expect(deleted).toEqual([]);
});

test("a session whose object was deleted while nobody was there ends, and gets no object again", async () => {
  const { settled, applied, deleted } = writer([]);
  await settled(report({ noted: true }));
  expect(deleted).toEqual(["01ABC"]);
  await settled(report({ noted: true }));
  expect(applied).toEqual([]);
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
