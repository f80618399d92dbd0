import type { Bundle } from "@sallyport/control";
import type { AccessPolicy } from "@sallyport/crds";
import { beforeEach, expect, test } from "vitest";
import { BundleStore } from "../control/index.ts";
import type { Change, KubeObject } from "../kube/index.ts";
import { revisionKeys } from "../resources/access-policy/revision.ts";
import { type OperatorCaches, PolicyBook } from "../resources/index.ts";
import { Bundler } from "./bundles.ts";

/** A cache that the test fills. */
class Filled {
  readonly #objects = new Map<string, KubeObject>();
  readonly #listeners: ((change: Change<KubeObject>) => void)[] = [];
  get = ({ namespace = "", name }: { namespace?: string; name: string }) =>
    this.#objects.get(`${namespace}/${name}`);
  list = (namespace?: string) =>
    [...this.#objects.values()].filter(
      (one) => namespace === undefined || one.metadata.namespace === namespace,
    );
  heard = "0";
  byIndex = (_: string, key: string) => this.list().filter((one) => revisionKeys(one as never).includes(key));
  onChange = (listener: (change: Change<KubeObject>) => void) => {
    this.#listeners.push(listener);
    return () => undefined;
  };
  remove(key: string, heard: string): void {
    const object = this.#objects.get(key) as KubeObject;
    this.#objects.delete(key);
    this.heard = heard;
    for (const listener of this.#listeners) listener({ kind: "removed", object });
  }
  put(object: object): void {
    const next = object as KubeObject;
    this.heard = next.metadata.resourceVersion ?? "0";
    const key = `${next.metadata.namespace ?? ""}/${next.metadata.name}`;
    const before = this.#objects.get(key);
    this.#objects.set(key, next);
    for (const listener of this.#listeners)
      listener(before ? { kind: "changed", object: next, before } : { kind: "added", object: next });
  }
}

const names = [
  ...["protectedResources", "accessPolicies", "clusterAccessPolicies", "identityProviders"],
  ...["resourceGrants", "namespaces", "services", "revisions"],
];
let caches: Record<string, Filled>;
let bundles: BundleStore;
/** The resources whose bundles were made anew since the test asked last. */
let made: string[];
let version: number;

beforeEach(() => {
  caches = Object.fromEntries(names.map((name) => [name, new Filled()]));
  bundles = new BundleStore(0);
  made = [];
  version = 100;
  const known = caches as unknown as OperatorCaches;
  const bundler = new Bundler({
    ...{ caches: known, book: new PolicyBook(known), bundles },
    reach: ({ metadata }) => {
      made.push(metadata.name);
      return { ownPod: false, forbidden: [], allowed: [] };
    },
  });
  put("protectedResources", resource("orders"));
  put("protectedResources", resource("stock"));
  bundler.complete();
  made = [];
});

function put(cache: string, object: object): void {
  version += 1;
  const { metadata, ...rest } = object as { metadata: object };
  caches[cache]?.put({ metadata: { ...metadata, resourceVersion: String(version) }, ...rest });
}

const meta = (name: string, generation = 1) => ({ name, namespace: "shop", uid: name, generation });
const resource = (name: string, status?: object) => ({
  ...{ apiVersion: "sallyport.dev/v1alpha1", kind: "ProtectedResource", metadata: meta(name), status },
  spec: {
    protocol: "postgres",
    endpoint: { serviceRef: { name: `${name}-db`, port: 5432 } },
    identity: { providers: [] },
    listen: {},
    placement: { mode: "Shared" },
  },
});
const policy = (generation: number, spec: object, status?: object) => ({
  ...{ apiVersion: "sallyport.dev/v1alpha1", kind: "AccessPolicy", metadata: meta("readers", generation) },
  spec: {
    ...{ mode: "Enforce", subjects: [{ user: "a:ana" }], profile: "ReadOnly" },
    ...spec,
  },
  ...(status !== undefined && { status }),
});
const accepted = (acceptedGeneration: number) => ({
  acceptedGeneration,
  conditions: [{ type: "Accepted", status: "True" }],
});
const kept = (revision: number, spec: object) => ({
  ...{ apiVersion: "apps/v1", kind: "ControllerRevision", revision, data: { spec: policy(1, spec).spec } },
  metadata: {
    ...meta(`readers-policy-${revision}`),
    labels: { "sallyport.dev/kept": "true" },
    ownerReferences: [{ kind: "AccessPolicy", name: "readers", uid: "readers", controller: true }],
  },
});
const named = (...resources: string[]) => ({ resources: { names: resources } });
const broken = { rules: [{ name: "x", match: { cel: "(" }, action: "Deny" }] };

async function settled(): Promise<readonly string[]> {
  await new Promise((resolve) => setImmediate(resolve));
  return made.splice(0).sort();
}
const policiesOf = (name: string) =>
  (bundles.get(`shop/${name}`)?.documents ?? [])
    .filter(({ key }) => key.startsWith("AccessPolicy/"))
    .map(({ json }) => (JSON.parse(json) as AccessPolicy).metadata.generation);

test("a status makes no bundle anew, and neither does what concerns somebody else", async () => {
  put("accessPolicies", policy(1, named("orders")));
  expect(await settled()).toEqual(["orders"]);
  put("accessPolicies", policy(1, named("orders"), accepted(1)));
  expect(await settled()).toEqual(["orders"]);
  // Of a policy that is accepted nothing kept counts; how many resources it selects stands in its status alone.
  put("revisions", kept(1, named("orders")));
  put("accessPolicies", policy(1, named("orders"), { ...accepted(1), resources: 1 }));
  put("protectedResources", resource("orders", { address: "orders-gateway" }));
  expect(await settled()).toEqual([]);
  const service = { metadata: meta("orders-gateway"), spec: { clusterIP: "10.0.0.7" } };
  put("services", service);
  expect(await settled()).toEqual([]);
  put("services", { ...service, metadata: meta("orders-db") });
  expect(await settled()).toEqual(["orders"]);
  put("services", { ...service, metadata: meta("orders-db"), status: { loadBalancer: {} } });
  expect(await settled()).toEqual([]);
});

test("a bundle that is made later is as new as everything that was heard", async () => {
  put("accessPolicies", policy(1, named("orders"), accepted(1)));
  await settled();
  put("accessPolicies", policy(1, named("orders"), { ...accepted(1), resources: 1 }));
  put("protectedResources", { ...resource("orders"), metadata: { ...meta("orders", 2) } });
  await settled();
  expect(bundles.get("shop/orders")?.revision).toMatchObject({ policies: "104", resources: "105" });
});

test("a deletion makes a bundle newer, and what was heard since goes with it", async () => {
  put("accessPolicies", policy(1, named("orders"), accepted(1)));
  await settled();
  caches.accessPolicies?.remove("shop/readers", "150");
  await settled();
  const bundle = bundles.get("shop/orders");
  expect(bundle?.revision).toMatchObject({ policies: "150", resources: "102" });
  // Nothing that concerns anybody, and yet the operator knows now that nothing else has happened.
  if (caches.namespaces) caches.namespaces.heard = "190";
  const frame = Buffer.concat(bundles.encoded("shop/orders", undefined, bundle as Bundle).frame).toString();
  expect(frame).toContain('"policies":"150"');
  expect(frame).toContain('"namespaces":"190"');
});

test("where namespaces are watched one by one a bundle tells how far its own was followed", async () => {
  const heard: Record<string, string> = { shop: "140", other: "900" };
  for (const name of ["protectedResources", "accessPolicies"])
    Object.assign(caches[name] ?? {}, { heardOf: (namespace: string) => heard[namespace] ?? "0" });
  const known = caches as unknown as OperatorCaches;
  bundles = new BundleStore(0);
  const reach = () => ({ ownPod: false, forbidden: [], allowed: [] });
  new Bundler({ ...{ caches: known, book: new PolicyBook(known), bundles }, reach }).complete();
  const elsewhere = policy(1, named("orders"));
  put("accessPolicies", policy(1, named("orders"), accepted(1)));
  put("accessPolicies", { ...elsewhere, metadata: { ...elsewhere.metadata, namespace: "other" } });
  await settled();
  const bundle = bundles.get("shop/orders") as Bundle;
  // The other namespace's change came last; whoever followed this one less far knows less of it all the same.
  expect(bundle.revision).toMatchObject({ policies: "103" });
  const frame = Buffer.concat(bundles.encoded("shop/orders", undefined, bundle).frame).toString();
  expect(frame).toContain('"policies":"140"');
  expect(frame).not.toContain('"policies":"900"');
});

test("a generation that stays in force leaves the resource it names once a new one is accepted", async () => {
  put("accessPolicies", policy(1, named("orders"), accepted(1)));
  put("revisions", kept(1, named("orders")));
  put("accessPolicies", policy(2, { ...named("stock"), ...broken }, accepted(1)));
  await settled();
  expect([policiesOf("orders"), policiesOf("stock")]).toEqual([[2], []]);
  put("accessPolicies", policy(3, named("stock"), accepted(1)));
  await settled();
  expect([policiesOf("orders"), policiesOf("stock")]).toEqual([[], [3]]);
});

test("what was kept of a broken policy counts as soon as it is heard of", async () => {
  put("accessPolicies", policy(2, { ...named("stock"), ...broken }));
  await settled();
  expect(policiesOf("orders")).toEqual([]);
  put("revisions", kept(1, named("orders")));
  await settled();
  expect(policiesOf("orders")).toEqual([2]);
});

test("what somebody else calls a kept generation of a policy is none", async () => {
  put("accessPolicies", policy(2, { ...named("stock"), ...broken }));
  const { metadata, ...forged } = kept(99, named("orders"));
  put("revisions", { ...forged, metadata: { ...metadata, labels: { "sallyport.dev/policy": "readers" } } });
  await settled();
  expect(policiesOf("orders")).toEqual([]);
});
