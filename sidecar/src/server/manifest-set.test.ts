import type { Manifest } from "@sallyport/crds";
import { expect, test } from "vitest";
import { manifestSetOf } from "./manifest-set.ts";

const resource = {
  apiVersion: "sallyport.dev/v1alpha1",
  kind: "ProtectedResource",
  metadata: { name: "orders", namespace: "shop" },
  spec: {
    protocol: "postgres",
    identity: { providers: [] },
    recording: { mode: "Off", durability: "Accepted", content: ["commands"] },
    bypassProtection: { networkPolicy: "Off", exec: "Off" },
  },
};
const floor = (spec: object) => ({
  apiVersion: "sallyport.dev/v1alpha1",
  kind: "ClusterAccessPolicy",
  metadata: { name: "floor" },
  spec: {
    resources: { selector: {} },
    subjects: [{ kind: "Human" }],
    requires: { recording: { mode: "Required" } },
    ...spec,
  },
});
const modeWith = (...policies: object[]) =>
  manifestSetOf([resource, ...policies] as unknown as Manifest[], undefined).set.resources.get("shop/orders")
    ?.spec.recording.mode;

test("a gateway records what a ClusterAccessPolicy requires, whatever the resource says", () => {
  expect(modeWith()).toBe("Off");
  expect(modeWith(floor({}))).toBe("Required");
});

test("what is required of other namespaces or resources is not required here", () => {
  expect(modeWith(floor({ resources: { names: ["else"] } }))).toBe("Off");
  const elsewhere = { namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "bank" } } };
  expect(modeWith(floor(elsewhere))).toBe("Off");
});

test("an edit that breaks the policy takes no requirement away", () => {
  const before = manifestSetOf([resource, floor({})] as unknown as Manifest[], undefined).set;
  const broken = floor({ requires: { recording: { mode: "Sometimes" } } });
  const after = manifestSetOf([resource, broken] as unknown as Manifest[], before);
  expect(after.problems).toHaveLength(1);
  expect(after.set.resources.get("shop/orders")?.spec.recording.mode).toBe("Required");
});
