/** A gateway of protocol kubernetes in front of the API server of the cluster that it runs in. */
import type { ProtectedResource } from "@sallyport/crds";
import type { GatewaySettings, RenderedObject } from "./model.ts";
import { listenPort, namesOf, resourceLabel } from "./names.ts";

/** Why a resource cannot be placed as it is written; a reason of docs/reference/conditions.md. */
export interface PlacementFault {
  readonly reason: string;
  readonly message: string;
}

/** The right that the label's bearer gives to gateways' accounts; admission knows the operator's own by it. */
export const bindingLabel = "sallyport.dev/impersonation";

/** The names by which every cluster's API server is known, and its certificate good. */
const apiServers: ReadonlySet<string> = new Set([
  "kubernetes.default.svc",
  "kubernetes.default.svc.cluster.local",
]);

/** Whether a resource stands for the API server of its own cluster, reached by the gateway's service account. */
export function isOwnCluster({ spec }: ProtectedResource): boolean {
  return spec.protocol === "kubernetes" && spec.options?.ownCluster === true;
}

/** What this release's placement cannot do, or may not do in the resource's namespace. */
export function placementFault(
  resource: ProtectedResource,
  settings: GatewaySettings,
): PlacementFault | undefined {
  const { metadata, spec } = resource;
  const { credentials, endpoint, placement, protocol, tls } = spec;
  const port = listenPort(resource);
  if (placement.mode === "Shared" && port !== undefined && port < 1024) {
    return { reason: "PortNotAllowed", message: "A gateway has no right to open a port below 1024." };
  }
  if (protocol !== "kubernetes") return undefined;
  const namespace = metadata.namespace ?? "default";
  // Its gateway's account may speak for users: who creates pods in the namespace could as well.
  if (!settings.kubernetesNamespaces.includes(namespace)) {
    const message = `Protocol kubernetes is for namespaces that the chart lists (kubernetes.namespaces); ${namespace} is none.`;
    return { reason: "NamespaceNotListed", message };
  }
  if (placement.mode === "Sidecar") {
    return { reason: "PlacementUnsupported", message: "Protocol kubernetes is placed as Shared." };
  }
  const { mode } = tls.upstream;
  if (mode !== "verify-full") {
    const message = "A token of the API server goes only to where the certificate proves: verify-full.";
    return { reason: "UpstreamNotVerified", message };
  }
  if (!isOwnCluster(resource)) return undefined;
  if (endpoint.host === undefined || !apiServers.has(endpoint.host) || endpoint.port !== 443) {
    const message = "With options.ownCluster the endpoint is the host kubernetes.default.svc, port 443.";
    return { reason: "EndpointMismatch", message };
  }
  if (credentials.length !== 1) {
    const message = "With options.ownCluster there is one credential: the gateway's service account.";
    return { reason: "CredentialsMismatch", message };
  }
  if (tls.upstream.caRef === undefined) {
    const message =
      "With options.ownCluster tls.upstream.caRef names the file for the cluster's authorities.";
    return { reason: "CaMissing", message };
  }
  return undefined;
}

/**
 * What stands in the place of a Secret: the files that the gateway would find there, from its service account. The name
 * that the credential gives is that of the folder alone.
 */
export function ownClusterSources({ spec }: ProtectedResource): readonly unknown[] {
  const folder = spec.credentials[0]?.secretRef.name ?? "";
  const { caRef } = spec.tls.upstream;
  const path = `${caRef?.name ?? folder}/${caRef?.key ?? "ca.crt"}`;
  const authorities = { name: "kube-root-ca.crt", items: [{ key: "ca.crt", path }] };
  return [
    { serviceAccountToken: { expirationSeconds: 3600, path: `${folder}/password` } },
    { configMap: authorities },
    { downwardAPI: { items: [{ path: `${folder}/username`, fieldRef: { fieldPath: "metadata.name" } }] } },
  ];
}

/** What gives a gateway's account the right to speak for the users that the chart names. */
export function renderImpersonation(resource: ProtectedResource, settings: GatewaySettings): RenderedObject {
  const { gateway, label } = namesOf(resource);
  const namespace = resource.metadata.namespace ?? "default";
  return {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRoleBinding",
    metadata: {
      // Names of this kind may hold colons, and names of namespaces none: no two resources share one.
      name: `${settings.impersonatorRole}:${namespace}:${gateway}`,
      labels: {
        "app.kubernetes.io/managed-by": "sallyport-operator",
        "app.kubernetes.io/part-of": "sallyport",
        [bindingLabel]: settings.impersonatorRole,
        [resourceLabel]: label,
      },
    },
    roleRef: {
      apiGroup: "rbac.authorization.k8s.io",
      kind: "ClusterRole",
      name: settings.impersonatorRole,
    },
    subjects: [{ kind: "ServiceAccount", name: gateway, namespace }],
  };
}
