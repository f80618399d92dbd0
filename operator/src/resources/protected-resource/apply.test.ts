import type { IdentityProvider, ProtectedResourceSpec } from "@sallyport/crds";
import { expect, test } from "vitest";
import { testResource, testSettings } from "../../placement/testing.ts";
import { decideResource, existingKey, type ResourceDecision, type ResourceFacts } from "./decide.ts";

const decide = (placement: Partial<ProtectedResourceSpec["placement"]>, before?: ResourceDecision) => {
  const owned = (before?.apply ?? []).map((object) => ({
    ...object,
    metadata: { ...object.metadata, resourceVersion: "7" },
  }));
  const facts: ResourceFacts = {
    resource: testResource({ placement: { mode: "Shared", ...placement } }),
    namespaceLabels: {},
    service: {
      metadata: { name: "orders-db", namespace: "shop" },
      spec: { selector: { app: "db" }, ports: [{ port: 5432 }] },
    },
    providers: [{ metadata: { name: "okta" }, spec: { type: "oidc", prefix: "okta:" } } as IdentityProvider],
    ...{ pods: [], neighbours: [], policies: [], reports: [] },
    owned,
    existing: new Map(owned.map((object) => [existingKey(object.kind, object.metadata.name), object])),
    reach: { isAllowed: true },
    ...{ settings: testSettings, controlCa: "", probe: "unknown" },
    exec: { closed: [], open: [], unknown: [] },
  };
  return decideResource(facts);
};
const kindsOf = ({ apply }: ResourceDecision) => apply.map(({ kind }) => kind);
const podTemplate = { nodeSelector: { disk: "fast" } };

test("O27 what is there as it was asked for is not written again", () => {
  const first = decide({ podTemplate });
  expect(kindsOf(first)).toContain("Deployment");
  expect(kindsOf(decide({ podTemplate }, first))).toEqual([]);
});

test("O22 what is no longer asked for is reason enough to write the object that holds it", () => {
  expect(kindsOf(decide({}, decide({ podTemplate })))).toEqual(["Deployment"]);
});
