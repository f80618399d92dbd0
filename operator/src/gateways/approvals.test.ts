import type { ApprovalAsk } from "@sallyport/control";
import type { Approval, ProtectedResource } from "@sallyport/crds";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Told } from "../control/index.ts";
import { type Cache, type Change, type KubeClient, KubeError, silentLog } from "../kube/index.ts";
import { ApprovalDesk } from "./approvals.ts";

const digest = `hmac-sha256:${"0".repeat(64)}`;
const ask: ApprovalAsk = {
  id: "orders-1a2b3c4d",
  session: "s1",
  request: {
    requester: "alice",
    command: "DROP TABLE t",
    digest,
    lastsMs: 60_000,
    policies: [{ kind: "AccessPolicy", policy: "prod", rule: "schema", ruleHash: "sha256:r", required: 1 }],
  },
};
const yes = { approver: "bob", decision: "Approved" as const };

/** A desk over a store of Approvals, with what its gateway was told. */
function desk() {
  const stored = new Map<string, Approval>();
  const writes = { wait: Promise.resolve() };
  let listen: (change: Change<Approval>) => void = () => undefined;
  const caches = {
    approvals: {
      onChange: (listener: typeof listen) => {
        listen = listener;
      },
      get: ({ name }: { readonly name: string }) => stored.get(name),
      list: () => [...stored.values()],
    } as unknown as Cache<Approval>,
    protectedResources: {
      get: () => ({ metadata: { name: "orders", namespace: "shop", uid: "r" } }),
    } as unknown as Cache<ProtectedResource>,
  };
  const put = (object: Approval, kind: "changed" | "removed" = "changed") => {
    if (kind === "removed") stored.delete(object.metadata.name);
    else stored.set(object.metadata.name, object);
    listen({ kind, object } as Change<Approval>);
  };
  const client = {
    create: async (_: unknown, object: Approval) => {
      await writes.wait;
      const there = stored.get(object.metadata.name);
      // It changes in this very moment, which is what somebody who means it would see to.
      if (there !== undefined) put({ ...there });
      if (there !== undefined)
        throw new KubeError({ status: 409, reason: "AlreadyExists", message: "it is there" });
      put(object);
    },
    get: async (_: unknown, { name }: { readonly name: string }) => stored.get(name),
    find: async (_: unknown, { name }: { readonly name: string }) => stored.get(name),
    patch: async (
      _: unknown,
      { name }: { readonly name: string },
      { merge }: { merge: Partial<Approval> },
    ) => {
      const before = stored.get(name) as Approval;
      put({ ...before, status: { ...before.status, ...merge.status } });
    },
  } as unknown as KubeClient;
  const made = new ApprovalDesk({
    client,
    caches,
    isGuarded: async () => true,
    log: silentLog,
    signal: new AbortController().signal,
    clock: () => new Date(),
  });
  return { desk: made, put, stored, writes };
}

function gateway(uid = "pod-1") {
  const told: unknown[] = [];
  const stream: Told & { isOver: boolean } = {
    gateway: { pod: { uid } },
    isOver: false,
    tell: (message) => void told.push("decision" in message ? message.decision : message),
  };
  return { stream, told };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Lets everything run that waits for nothing but other code. */
const settle = () => vi.advanceTimersByTimeAsync(0);

async function held() {
  const all = desk();
  const client = gateway();
  all.desk.asked("shop/orders", ask, client.stream);
  await settle();
  const object = all.stored.get(ask.id) as Approval;
  expect(object.spec.request).toMatchObject({ command: "DROP TABLE t", digest, sessionId: "s1" });
  return { ...all, ...client, object };
}

test("a request outlives its resource: no owner takes the record away", async () => {
  const { object } = await held();
  expect(object.metadata).not.toHaveProperty("ownerReferences");
});

test("its gateway learns who approved it", async () => {
  const { put, told, object } = await held();
  put({ ...object, spec: { ...object.spec, decisions: [yes] }, status: { phase: "Approved" } });
  expect(told).toEqual([{ kind: "approved", by: ["bob"] }]);
});

test("whoever gives up before the request is written leaves no open one behind", async () => {
  const { desk: busy, stored, writes } = desk();
  const { stream } = gateway();
  const { promise, resolve } = Promise.withResolvers<void>();
  writes.wait = promise;
  busy.asked("shop/orders", ask, stream);
  busy.ended("shop/orders", ask.id, "Cancelled");
  await settle();
  expect(stored.size).toBe(0);
  resolve();
  await settle();
  expect(stored.get(ask.id)?.status?.phase).toBe("Cancelled");
});

test("a status that somebody wrote over no decisions approves nothing", async () => {
  const { put, told, object } = await held();
  put({ ...object, status: { phase: "Approved" } });
  expect(told).toEqual([]);
});

test("another request that takes the name of one that was withdrawn approves nothing of it", async () => {
  const { desk: busy, put, told, object, stored } = await held();
  put(object, "removed");
  expect(told).toEqual([{ kind: "cancelled" }]);
  const { digest: _, sessionId: __, ...rest } = object.spec.request;
  const wish: Approval = {
    ...object,
    spec: { request: { ...rest, type: "Access", duration: "10m" }, decisions: [yes] },
    status: { phase: "Approved" },
  };
  put(wish);
  // A gateway that heard nothing of the removal asks again, while the other one changes again and again.
  const again = gateway();
  busy.asked("shop/orders", ask, again.stream);
  put({ ...wish, metadata: { ...wish.metadata, annotations: { changed: "1" } } });
  await settle();
  put({ ...wish, metadata: { ...wish.metadata, annotations: { changed: "2" } } });
  expect(again.told).toEqual([{ kind: "unavailable", message: "the name is taken" }]);
  expect(stored.get(ask.id)?.spec.request.type).toBe("Access");
});

test("a second gateway cannot take over what another one holds", async () => {
  const { desk: busy, put, told, object } = await held();
  const other = gateway("pod-2");
  busy.asked("shop/orders", { ...ask, session: "s2" }, other.stream);
  await settle();
  expect(other.told).toEqual([{ kind: "unavailable", message: "the name is taken" }]);
  put({ ...object, spec: { ...object.spec, decisions: [yes] }, status: { phase: "Approved" } });
  expect(told).toEqual([{ kind: "approved", by: ["bob"] }]);
});

test("a gateway that comes back keeps what it asks for again, and what it does not know is cancelled", async () => {
  const { desk: busy, put, stored, object } = await held();
  put({ ...object, metadata: { ...object.metadata, name: "orders-lost" } });
  put({ ...object, metadata: { ...object.metadata, name: "other-pod", labels: {} } });
  const back = gateway();
  busy.joined("shop/orders", back.stream);
  busy.asked("shop/orders", ask, back.stream);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(stored.get(ask.id)?.status?.phase).toBeUndefined();
  expect(stored.get("orders-lost")?.status?.phase).toBe("Cancelled");
  expect(stored.get("other-pod")?.status?.phase).toBeUndefined();
});

test("a gateway that has left again before it could ask loses nothing", async () => {
  const { desk: busy, stored } = await held();
  const back = gateway();
  busy.joined("shop/orders", back.stream);
  back.stream.isOver = true;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(stored.get(ask.id)?.status?.phase).toBeUndefined();
});

/** Asks until it is told no; withdrawing each at once leaves nothing held. */
async function asksOf(all: ReturnType<typeof desk>, requester: (n: number) => string, withdraws: boolean) {
  const { stream, told } = gateway();
  const request = ask.request as object;
  let made = 0;
  for (; made < 2_500 && told.length === 0; made++) {
    const id = `orders-${requester(made)}-${made}`;
    all.desk.asked(
      "shop/orders",
      { ...ask, id, request: { ...request, requester: requester(made) } },
      stream,
    );
    await settle();
    if (withdraws && told.length === 0) all.desk.ended("shop/orders", id, "Cancelled");
    await settle();
    // What was cancelled itself is told as well.
    if (withdraws) told.splice(0, told.length, ...told.filter((one) => JSON.stringify(one).includes("many")));
  }
  return { made: made - 1, told };
}

const tooMany = { kind: "unavailable", message: "too many requests for approval were made" };

test.each([
  ["holds", false],
  ["asks and withdraws", true],
])("somebody who %s without end leaves others their room", async (_, withdraws) => {
  const all = desk();
  expect(await asksOf(all, () => "mallory", withdraws)).toEqual({ made: 300, told: [tooMany] });
  expect(all.stored.size).toBe(300);
  const other = gateway();
  all.desk.asked("shop/orders", ask, other.stream);
  await settle();
  expect(all.stored.has(ask.id)).toBe(true);
  // A minute later there are twelve more.
  await vi.advanceTimersByTimeAsync(60_500);
  const later = gateway();
  const request = { ...(ask.request as object), requester: "mallory" };
  all.desk.asked("shop/orders", { ...ask, id: "orders-later", request }, later.stream);
  await settle();
  expect(later.told).toEqual(withdraws ? [] : [tooMany]);
});

test("what has run counts for nobody any more, also where another replica was told so", async () => {
  const all = desk();
  const gateways = gateway();
  const request = ask.request as object;
  for (let made = 0; made < 300; made++) {
    const id = `orders-${made}`;
    all.desk.asked("shop/orders", { ...ask, id, request }, gateways.stream);
    await settle();
    const object = all.stored.get(id) as Approval;
    const decided = { ...object, spec: { ...object.spec, decisions: [yes] } };
    all.put({ ...decided, status: { phase: "Approved" } });
    all.put({ ...decided, status: { phase: "Used" } });
  }
  await vi.advanceTimersByTimeAsync(60_500);
  const later = gateway();
  all.desk.asked("shop/orders", { ...ask, id: "orders-later", request }, later.stream);
  await settle();
  expect(later.told).toEqual([]);
  expect(all.stored.has("orders-later")).toBe(true);
});

test("a gateway that makes its requesters up has its resource's share, and no other's", async () => {
  const all = desk();
  const { made, told } = await asksOf(all, (n) => `user-${n}`, true);
  expect([made >= 2_000 && made < 2_200, told]).toEqual([true, [tooMany]]);
  all.desk.asked("shop/other", ask, gateway().stream);
  await settle();
  expect(all.stored.has(ask.id)).toBe(true);
});
