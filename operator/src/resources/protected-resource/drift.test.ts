import type { ProtectedResourceSpec } from "@sallyport/crds";
import { expect, test } from "vitest";
import { gatewayLabel, injectGateway, namesOf } from "../../placement/index.ts";
import { testResource, testSettings } from "../../placement/testing.ts";
import type { Pod, Service } from "../kinds.ts";
import { decideResource, type ResourceFacts, serverPods } from "./decide.ts";

const service: Service = {
  metadata: { name: "orders-db", namespace: "shop" },
  spec: { selector: { app: "db" }, ports: [{ port: 5432 }] },
};
const spec = (placement: Partial<ProtectedResourceSpec["placement"]> = {}) => ({
  placement: { mode: "Sidecar" as const, podSelector: { matchLabels: { app: "db" } }, ...placement },
});
const earlier = spec({ resources: { limits: { memory: "200Mi" } } });

/** A pod as it was injected by the resource of its day; the higher the number, the younger. */
function pod(at: number, of = spec(), more: { isReady?: boolean; isGoing?: boolean } = {}): Pod {
  const resource = testResource(of);
  const bare = { metadata: {}, spec: { containers: [{ name: "db", image: "db" }] } };
  const injection = injectGateway(bare, resource, testSettings, serverPods(service, 5432));
  if (injection.kind !== "patch") throw new Error("nothing was injected");
  const added = (path: string) => injection.patch.find((one) => one.path === path)?.value as never;
  return {
    metadata: {
      ...{ name: `db-${at}`, namespace: "shop", uid: `uid-${at}` },
      creationTimestamp: `2026-01-01T00:00:0${at}Z`,
      labels: { app: "db", [gatewayLabel]: namesOf(resource).label },
      ...(more.isGoing === true && { deletionTimestamp: "2026-01-02T00:00:00Z" }),
    },
    spec: {
      ...bare.spec,
      initContainers: added("/spec/initContainers"),
      volumes: added("/spec/volumes"),
    },
    status: {
      phase: "Running",
      conditions: [{ type: "Ready", status: more.isReady === false ? "False" : "True" }],
    },
  } as Pod;
}

function decide(pods: readonly Pod[], rolloutPolicy?: "Report" | "Evict") {
  const facts: ResourceFacts = {
    resource: testResource(spec(rolloutPolicy === undefined ? {} : { rolloutPolicy })),
    namespaceLabels: { "sallyport.dev/protection": "enabled" },
    ...{ service, pods, providers: [], neighbours: [], policies: [], owned: [], reports: [] },
    ...{ reach: { isAllowed: true }, existing: new Map(), settings: testSettings, controlCa: "" },
    probe: "unknown",
    exec: { closed: [], open: [], unknown: [] },
  };
  const { status, evict } = decideResource(facts);
  return { outdated: status.gateways?.outdated, evicted: evict?.metadata.name };
}

test("O45 pods of an earlier configuration are counted, and left alone where nothing else is asked for", () => {
  const pods = [pod(0, earlier), pod(1, earlier), pod(2)];
  expect(decide(pods)).toEqual({ outdated: 2, evicted: undefined });
  expect(decide(pods, "Report")).toEqual({ outdated: 2, evicted: undefined });
});

test("O45 where eviction is asked for the oldest of them goes, and no pod of today", () => {
  expect(decide([pod(0), pod(2, earlier), pod(1, earlier)], "Evict")).toEqual({
    outdated: 2,
    evicted: "db-1",
  });
  expect(decide([pod(0), pod(1)], "Evict")).toEqual({ outdated: 0, evicted: undefined });
});

test("O45 the next one goes once every pod of the resource is there and ready again", () => {
  const left = pod(1, earlier);
  expect(decide([pod(0, earlier, { isGoing: true }), left], "Evict").evicted).toBeUndefined();
  expect(decide([pod(2, spec(), { isReady: false }), left], "Evict").evicted).toBeUndefined();
  expect(decide([pod(2), left], "Evict").evicted).toBe("db-1");
});
