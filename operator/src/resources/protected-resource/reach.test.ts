import type { ResourceGrant } from "@sallyport/crds";
import { describe, expect, test } from "vitest";
import { testResource } from "../../placement/testing.ts";
import type { Service } from "../kinds.ts";
import { clusterName, type ReachFacts, reachOf } from "./reach.ts";

const service = (namespace: string, name: string, spec: NonNullable<Service["spec"]>): Service => ({
  metadata: { namespace, name },
  spec,
});
const selector = { app: "db" };
const facts: ReachFacts = {
  services: [
    service("shop", "orders-db", { clusterIP: "10.96.0.1", clusterIPs: ["10.96.0.1", "fd00::1"], selector }),
    service("shop", "other-db", { clusterIP: "10.96.0.2", selector }),
    service("shop", "headless", { clusterIP: "None", selector }),
    service("shop", "by-hand", { clusterIP: "None" }),
    service("shop", "alias", { type: "ExternalName" }),
    service("bank", "ledger", { clusterIP: "10.96.9.9", selector }),
    service("bank", "ledger-pods", { clusterIP: "None", selector }),
  ],
  grants: [],
  ranges: { services: ["10.96.0.0/12"], pods: ["10.244.0.0/16"], nodes: ["192.0.2.1/32"], isComplete: true },
  grantedPods: () => [],
  clusterDomain: "cluster.local",
};
const grant = (to: ResourceGrant["spec"]["to"], names?: string[]): ResourceGrant => ({
  apiVersion: "sallyport.dev/v1alpha1",
  kind: "ResourceGrant",
  metadata: { name: "shop", namespace: "bank" },
  spec: { from: [{ namespace: "shop", ...(names && { names }) }], to },
});
const behind = (endpoint: object) => testResource({ endpoint } as Parameters<typeof testResource>[0]);
const rangesOf = (endpoint: object, more: Partial<ReachFacts> = {}) =>
  reachOf(behind(endpoint), { ...facts, ...more }).allowed.map(({ range }) => range);

test("a Service's own addresses are open at its port, and the cluster is closed", () => {
  expect(reachOf(behind({ serviceRef: { name: "orders-db", port: 5432 } }), facts)).toEqual({
    ownPod: false,
    forbidden: ["10.244.0.0/16", "10.96.0.0/12", "192.0.2.1/32"],
    allowed: [
      { range: "10.96.0.1/32", ports: [5432] },
      { range: "fd00::1/128", ports: [5432] },
    ],
  });
});

test("a headless Service leads to pods, one that was written by hand or is an alias to nothing of the cluster", () => {
  expect(rangesOf({ serviceRef: { name: "headless", port: 5432 } })).toEqual([
    "10.244.0.0/16",
    "192.0.2.1/32",
  ]);
  expect(rangesOf({ serviceRef: { name: "by-hand", port: 5432 } })).toEqual([]);
  expect(rangesOf({ serviceRef: { name: "alias", port: 5432 } })).toEqual([]);
});

test("a gateway before the cluster's own API server reaches that, and nothing else of the cluster", () => {
  const resource = testResource({
    protocol: "kubernetes",
    options: { ownCluster: true },
    endpoint: { host: "kubernetes.default.svc", port: 443 },
  });
  const api = service("default", "kubernetes", { clusterIP: "10.96.0.100" });
  const { allowed } = reachOf(resource, { ...facts, services: [...facts.services, api] });
  expect(allowed).toEqual([{ range: "10.96.0.100/32", ports: [443] }]);
});

test("a sidecar reaches its own pod", () => {
  const resource = testResource({
    placement: { mode: "Sidecar", podSelector: { matchLabels: selector } },
  } as Parameters<typeof testResource>[0]);
  expect(reachOf(resource, facts)).toEqual({ ownPod: true, forbidden: [], allowed: [] });
});

test("whatever name is given, Services of the own namespace are open and no others", () => {
  const open = ["10.96.0.1/32", "10.96.0.2/32", "fd00::1/128"];
  for (const host of ["db.example.com", "10.96.9.9", "ledger.bank.svc", "orders.shop.svc.example.com"]) {
    expect(rangesOf({ host, port: 5432 })).toEqual(open);
  }
  expect(rangesOf({ host: "headless.shop.svc", port: 5432 })).toContain("10.244.0.0/16");
  expect(rangesOf({ host: "headless.shop.svc.evil.com", port: 5432 })).not.toContain("10.244.0.0/16");
});

describe("a grant", () => {
  const host = { host: "ledger.bank.svc", port: 5432 };
  test("opens its Service, for whom it names", () => {
    const to = [{ serviceName: "ledger", ports: [5432] }];
    const opened = { range: "10.96.9.9/32", ports: [5432] };
    expect(reachOf(behind(host), { ...facts, grants: [grant(to)] }).allowed).toContainEqual(opened);
    expect(rangesOf(host, { grants: [grant(to, ["somebody-else"])] })).not.toContain("10.96.9.9/32");
    const others = { ...grant(to), spec: { from: [{ namespace: "attic" }], to } };
    expect(rangesOf(host, { grants: [others] })).not.toContain("10.96.9.9/32");
  });
  test("of a headless Service opens pods to its own name alone", () => {
    const grants = [grant([{ serviceName: "ledger-pods" }])];
    expect(rangesOf({ host: "ledger-pods.bank.svc", port: 1 }, { grants })).toContain("10.244.0.0/16");
    expect(rangesOf({ host: "db.example.com", port: 1 }, { grants })).not.toContain("10.244.0.0/16");
  });
  test("of pods opens these pods", () => {
    const grants = [grant([{ podSelector: { matchLabels: selector }, ports: [5432] }])];
    const grantedPods = () => [{ address: "10.244.1.7", ports: [5432] }];
    const found = reachOf(behind({ host: "10.244.1.7", port: 5432 }), { ...facts, grants, grantedPods });
    expect(found.allowed).toContainEqual({ range: "10.244.1.7/32", ports: [5432] });
  });
});

test("where the cluster's ranges are not known, every private address is taken for one of them", () => {
  const ranges = { ...facts.ranges, pods: [], isComplete: false };
  const { forbidden } = reachOf(behind({ host: "db.example.com", port: 5432 }), { ...facts, ranges });
  expect(forbidden).toEqual(expect.arrayContaining(["10.0.0.0/8", "192.168.0.0/16", "fc00::/7"]));
});

test.each([
  ["db.shop.svc", { service: "db", namespace: "shop" }],
  ["pg-0.db.shop.svc.cluster.local.", { service: "db", namespace: "shop" }],
  ["db.shop.svc.example.com", undefined],
  ["db.shop", undefined],
  ["svc", undefined],
])("%s is read as a name of the cluster or not", (host, expected) => {
  expect(clusterName(host, "cluster.local")).toEqual(expected);
});
