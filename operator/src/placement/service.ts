import type { ProtectedResource } from "@sallyport/crds";
import type { RenderedObject } from "./model.ts";
import { gatewayLabel, keptLabel, listenPort, namesOf } from "./names.ts";
import { metadataOf } from "./shared.ts";

/** The Service that clients connect to: it leads to pods that hold a gateway, in both placements. */
export function renderService(resource: ProtectedResource): RenderedObject {
  const { service, label } = namesOf(resource);
  const port = listenPort(resource) ?? 0;
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: metadataOf(resource, service),
    spec: {
      type: "ClusterIP",
      selector: { [gatewayLabel]: label },
      ports: [{ name: resource.spec.protocol.slice(0, 15), port, protocol: "TCP", targetPort: port }],
      ...(resource.spec.protocol === "postgres" && stayingWithOneGateway),
    },
  };
}

/**
 * Gateways hand cancel requests on, so that these need it no more. What else a gateway knows of its clients it does not
 * share: failed logins, concurrent sessions, and which process numbers of `pg_terminate_backend` are whose.
 */
const stayingWithOneGateway = {
  sessionAffinity: "ClientIP",
  sessionAffinityConfig: { clientIP: { timeoutSeconds: 86_400 } },
};

/** The authorities by which gateways know the control plane. */
export function renderAuthorities(resource: ProtectedResource, controlCa: string): RenderedObject {
  const metadata = metadataOf(resource, namesOf(resource).authorities);
  return {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { ...metadata, labels: { ...metadata.labels, [keptLabel]: "true" } },
    data: { "ca.crt": controlCa },
  };
}
