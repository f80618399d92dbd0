import type { ProtectedResource, ProtectedResourceSpec } from "@sallyport/crds";
import type { GatewaySettings } from "./model.ts";

/** Settings as a chart gives them. */
export const testSettings: GatewaySettings = {
  image:
    "registry.example.com/sallyport@sha256:1111111111111111111111111111111111111111111111111111111111111111",
  imagePullPolicy: "IfNotPresent",
  acceptedImages: [
    "registry.example.com/sallyport@sha256:0000000000000000000000000000000000000000000000000000000000000000",
  ],
  control: "sallyport-control.sallyport-system.svc:8443",
  recorderPort: 7444,
  recorder: "sallyport-recorder-0.sallyport-recorder.sallyport-system.svc:7444",
  systemNamespace: "sallyport-system",
  drainSeconds: 30,
  userId: 65532,
  kubernetesNamespaces: ["access"],
  impersonatorRole: "sallyport-impersonator",
};

/** A resource as the API server holds it, defaults filled in. */
export function testResource(
  spec: Partial<ProtectedResourceSpec> = {},
  metadata: Partial<ProtectedResource["metadata"]> = {},
): ProtectedResource {
  return {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "ProtectedResource",
    metadata: {
      name: "orders",
      namespace: "shop",
      uid: "4be0643f-1d98-473b-97cd-ca98a65347dd",
      generation: 1,
      ...metadata,
    },
    spec: {
      protocol: "postgres",
      endpoint: { serviceRef: { name: "orders-db", port: 5432 } },
      placement: { mode: "Shared" },
      listen: {},
      tls: { upstream: { mode: "verify-full" } },
      credentials: [{ name: "default", secretRef: { name: "orders-db-login" } }],
      identity: { providers: ["okta"] },
      enforcement: "Enforce",
      recording: { mode: "Required", durability: "Accepted", content: ["commands"] },
      bypassProtection: { networkPolicy: "Enforce", exec: "Enforce" },
      ...spec,
    },
  };
}
