import { expect, test } from "vitest";
import type { Cache } from "./cache.ts";
import { CacheByNamespace } from "./cache-by-namespace.ts";
import type { KubeObject } from "./objects.ts";
import { Store } from "./store.ts";

const object = (namespace: string, name: string): KubeObject => ({ metadata: { namespace, name } });

/** A namespace's cache as the test fills it. */
function part(heard: string, isSynced: boolean, ...objects: readonly KubeObject[]): Cache<KubeObject> {
  const store = new Store<KubeObject>({ name: ({ metadata }) => [metadata.name] });
  for (const one of objects) store.set(one);
  return {
    ...{ heard, isSynced, whenSynced: () => Promise.resolve() },
    get: ({ namespace = "", name }) => store.get(`${namespace}/${name}`),
    list: (namespace) => store.list(namespace),
    byIndex: (index, key) => store.byIndex(index, key),
    onChange: () => () => undefined,
  };
}

test("several namespaces answer as one cache, each for itself, and none that is not among them", () => {
  const shop = part("9", true, object("shop", "orders"), object("shop", "stock"));
  const store = part("10", true, object("store", "orders"));
  const both = new CacheByNamespace(new Map(Object.entries({ shop, store })));
  expect(both.list().length).toBe(3);
  expect(both.list("shop").map(({ metadata }) => metadata.name)).toEqual(["orders", "stock"]);
  expect(both.byIndex("name", "orders").map(({ metadata }) => metadata.namespace)).toEqual(["shop", "store"]);
  expect(both.get({ namespace: "store", name: "orders" })).toBe(store.list()[0]);
  expect(both.get({ namespace: "store", name: "stock" })).toBeUndefined();
  expect(both.list("elsewhere")).toEqual([]);
  expect([both.heard, both.heardOf("shop"), both.heardOf("elsewhere")]).toEqual(["10", "9", "0"]);
});

test("nothing is concluded before each namespace's list is complete", () => {
  const parts = { shop: part("1", true), store: part("0", false) };
  expect(new CacheByNamespace(new Map(Object.entries(parts))).isSynced).toBe(false);
});
