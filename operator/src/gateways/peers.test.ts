import { peerPort } from "@sallyport/control";
import type { ProtectedResource } from "@sallyport/crds";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { IsGateway } from "../control/index.ts";
import type { Cache, Change, KubeObject } from "../kube/index.ts";
import type { OperatorCaches } from "../resources/index.ts";
import { PeerDesk, type PeersMessage } from "./peers.ts";

/** A cache that the test fills. */
function cache<T extends KubeObject>() {
  const objects = new Map<string, T>();
  const listeners: ((change: Change<T>) => void)[] = [];
  const key = ({ metadata }: KubeObject) => `${metadata.namespace}/${metadata.name}`;
  return {
    put: (object: T) => {
      const before = objects.get(key(object));
      objects.set(key(object), object);
      const change: Change<T> = before ? { kind: "changed", object, before } : { kind: "added", object };
      for (const listener of listeners) listener(change);
    },
    remove: (object: T) => {
      objects.delete(key(object));
      for (const listener of listeners) listener({ kind: "removed", object });
    },
    cache: {
      list: (namespace?: string) =>
        [...objects.values()].filter(
          ({ metadata }) => namespace === undefined || metadata.namespace === namespace,
        ),
      get: ({ namespace, name }: { namespace?: string; name: string }) => objects.get(`${namespace}/${name}`),
      onChange: (listener: (change: Change<T>) => void) => {
        listeners.push(listener);
        return () => undefined;
      },
    } as unknown as Cache<T>,
  };
}

type Pod = ReturnType<OperatorCaches["pods"]["list"]>[number];

const resource = (name: string, protocol = "postgres") =>
  ({
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "ProtectedResource",
    metadata: { name, namespace: "shop", uid: name },
    spec: { protocol, listen: {}, placement: { mode: "Shared" } },
  }) as unknown as ProtectedResource;

const pod = (uid: string, status: object, of = "orders", namespace = "shop") =>
  ({
    metadata: { name: uid, namespace, uid, labels: { "sallyport.dev/gateway": of } },
    spec: { containers: [] },
    status,
  }) as unknown as Pod;

const running = (podIP: string) => ({ phase: "Running", podIP });
const at = (podUid: string, host: string) => ({ podUid, host, port: peerPort });

function desk() {
  const [pods, resources] = [cache<Pod>(), cache<ProtectedResource>()];
  const told: [string, PeersMessage][] = [];
  const trusted = { pem: "ca" as string | undefined };
  /** Whose pod was not rendered by us says so by its name here. */
  const isGateway: IsGateway = ({ metadata }) =>
    metadata.name.startsWith("forged")
      ? { kind: "foreign", message: "another image" }
      : {
          kind: "gateway",
          resource: `${metadata.namespace}/${metadata.labels?.["sallyport.dev/gateway"]}`,
        };
  const made = new PeerDesk({
    caches: { pods: pods.cache, protectedResources: resources.cache },
    isGateway,
    authorities: () => trusted.pem,
    tell: (key, message) => told.push([key, message]),
  });
  const peersOf = (key: string) => told.findLast(([found]) => found === key)?.[1].peers;
  return { desk: made, pods, resources, told, trusted, peersOf };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function watched() {
  const all = desk();
  all.resources.put(resource("orders"));
  all.resources.put(resource("stock"));
  return { ...all, settle: () => vi.advanceTimersByTimeAsync(100) };
}

test("the gateways of a resource are told of each other as pods come, move and go, and nobody else is", async () => {
  const { desk: made, pods, told, peersOf, settle } = watched();
  made.complete();
  await settle();
  told.splice(0);
  pods.put(pod("b", running("10.0.0.2")));
  pods.put(pod("a", running("10.0.0.1")));
  await settle();
  // A burst is told once.
  expect(told).toEqual([
    ["shop/orders", { kind: "peers", authorities: "ca", peers: [at("a", "10.0.0.1"), at("b", "10.0.0.2")] }],
  ]);
  pods.put(pod("b", running("10.0.0.3")));
  await settle();
  expect(peersOf("shop/orders")).toEqual([at("a", "10.0.0.1"), at("b", "10.0.0.3")]);
  pods.remove(pod("a", running("10.0.0.1")));
  await settle();
  expect(peersOf("shop/orders")).toEqual([at("b", "10.0.0.3")]);
  // Nothing that matters to peers has changed.
  pods.put(pod("b", { ...running("10.0.0.3"), conditions: [] }));
  await settle();
  expect(told).toHaveLength(3);
});

test("a pod that only calls itself a gateway is none, nor is one without an address or of another resource", async () => {
  const { desk: made, pods, peersOf, settle } = watched();
  made.complete();
  pods.put(pod("forged-1", running("10.0.0.9")));
  pods.put(pod("pending", { phase: "Pending" }));
  pods.put(pod("broken", { phase: "Running", podIP: "db.internal" }));
  pods.put(pod("over", { phase: "Succeeded", podIP: "10.0.0.8" }));
  pods.put(pod("elsewhere", running("10.0.0.7"), "orders", "other"));
  pods.put(pod("stocked", running("10.0.0.6"), "stock"));
  pods.put(pod("a", running("10.0.0.1")));
  await settle();
  expect(peersOf("shop/orders")).toEqual([at("a", "10.0.0.1")]);
  expect(peersOf("shop/stock")).toEqual([at("stocked", "10.0.0.6")]);
});

test("one that is being deleted stays until it is gone: its sessions drain and may be cancelled", async () => {
  const { desk: made, pods, peersOf, settle } = watched();
  made.complete();
  const draining = pod("a", running("10.0.0.1"));
  pods.put({ ...draining, metadata: { ...draining.metadata, deletionTimestamp: "2026-01-01T00:00:00Z" } });
  await settle();
  expect(peersOf("shop/orders")).toEqual([at("a", "10.0.0.1")]);
});

test("nothing is said before every list is complete, nor without an authority, and a new one is told to all", async () => {
  const { desk: made, pods, told, trusted, settle } = watched();
  pods.put(pod("a", running("10.0.0.1")));
  await settle();
  expect(told).toEqual([]);
  trusted.pem = undefined;
  made.complete();
  await settle();
  expect(told).toEqual([]);
  trusted.pem = "new";
  made.everything();
  await settle();
  expect(told.map(([key, { authorities }]) => [key, authorities])).toEqual([
    ["shop/orders", "new"],
    ["shop/stock", "new"],
  ]);
});

test("who comes later is told what the others know, and of protocols that ask nothing nobody is", async () => {
  const { desk: made, pods, resources, peersOf, settle } = watched();
  resources.put(resource("hosts", "ssh"));
  resources.put(resource("cluster", "kubernetes"));
  made.complete();
  pods.put(pod("a", running("10.0.0.1")));
  pods.put(pod("s", running("10.0.0.2"), "hosts"));
  pods.put(pod("k", running("10.0.0.3"), "cluster"));
  await settle();
  expect(peersOf("shop/cluster")).toEqual([at("k", "10.0.0.3")]);
  const heard: unknown[] = [];
  const stream = { tell: (message: unknown) => heard.push(message) };
  made.joined("shop/orders", stream);
  made.joined("shop/hosts", stream);
  expect(heard).toEqual([{ kind: "peers", authorities: "ca", peers: [at("a", "10.0.0.1")] }]);
  made.close();
});

test("a list has a bound", async () => {
  const { desk: made, pods, peersOf, settle } = watched();
  made.complete();
  for (let n = 0; n < 300; n += 1) pods.put(pod(`p-${n}`, running(`10.0.1.${n % 250}`)));
  await settle();
  expect(peersOf("shop/orders")).toHaveLength(256);
});
