import { isIP } from "node:net";
import { asksPeers, peerPort } from "@sallyport/control";
import type { NetworkPeer, ProtectedResource } from "@sallyport/crds";
import type { PlacementInput, RenderedObject, ServerPods } from "./model.ts";
import { adminPort, gatewayLabel, listenPort, namesOf } from "./names.ts";
import { isOwnCluster } from "./own-cluster.ts";
import { metadataOf } from "./shared.ts";

/**
 * Policies are additive: they never forbid what another one allows. So the server's pods are selected and nothing is
 * allowed but what is named here; ports that others need (metrics, say) are opened by policies of their owner.
 */
export function renderNetworkPolicies(input: PlacementInput): readonly RenderedObject[] {
  const { resource, server } = input;
  const isSidecar = resource.spec.placement.mode === "Sidecar";
  const isEnforced = resource.spec.bypassProtection.networkPolicy === "Enforce";
  return [
    ...(isSidecar ? [] : [gatewayPolicy(input)]),
    ...(isEnforced && isSidecar ? [sidecarPolicy(resource)] : []),
    ...(isEnforced && !isSidecar && server !== undefined ? [serverPolicy(resource, server)] : []),
  ];
}

/** Clients and probes reach a Shared gateway; it reaches names, its control plane, issuers and the server. */
function gatewayPolicy({
  resource,
  server,
  // The API server's Service forwards 443 to its own port, and policies see the port behind the Service.
  apiServerPort = 6443,
  providers,
  settings,
}: PlacementInput): RenderedObject {
  const { gatewayPolicy: name } = namesOf(resource);
  const system = {
    namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": settings.systemNamespace } },
  };
  const { endpoint } = resource.spec;
  const egress: unknown[] = [
    { ports: [tcp(53), { protocol: "UDP", port: 53 }] },
    // Policies see the port behind the Service, which name servers choose at will.
    {
      to: [
        { namespaceSelector: {}, podSelector: { matchLabels: { "k8s-app": "kube-dns" } } },
        { namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "openshift-dns" } } },
      ],
    },
    { to: [system], ports: [tcp(portOf(settings.control)), tcp(settings.recorderPort)] },
  ];
  if (server !== undefined) {
    egress.push({ to: [{ podSelector: { matchLabels: server.selector } }], ports: [tcp(server.targetPort)] });
  } else {
    const to =
      endpoint.host !== undefined && isIP(endpoint.host) ? [{ ipBlock: single(endpoint.host) }] : undefined;
    const port = endpoint.port ?? endpoint.serviceRef?.port ?? 0;
    egress.push({
      ...(to && { to }),
      ports: [...new Set(isOwnCluster(resource) ? [port, apiServerPort] : [port])].map(tcp),
    });
  }
  const peers = peerRule(resource);
  egress.push(...peers.map(({ from: to, ports }) => ({ to, ports })));
  const issuers = issuerPorts({ resource, providers, apiServerPort });
  if (issuers.length > 0) egress.push({ ports: issuers.map(tcp) });
  return {
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: metadataOf(resource, name),
    spec: {
      podSelector: { matchLabels: { [gatewayLabel]: namesOf(resource).label } },
      policyTypes: ["Ingress", "Egress"],
      ingress: [{ ports: [tcp(listenPort(resource) ?? 0)] }, { ports: [tcp(adminPort)] }, ...peers],
      egress,
    },
  };
}

/** Only the gateway, and who is named, reach the server. */
function serverPolicy(resource: ProtectedResource, server: ServerPods): RenderedObject {
  const { serverPolicy: name, label } = namesOf(resource);
  const gateways = { podSelector: { matchLabels: { [gatewayLabel]: label } } };
  return {
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: metadataOf(resource, name),
    spec: {
      podSelector: { matchLabels: server.selector },
      policyTypes: ["Ingress"],
      ingress: [{ from: [gateways], ports: [tcp(server.targetPort)] }, ...allowed(resource)],
    },
  };
}

/** Of a pod that holds both, only the gateway's ports are reached; its own server's port is not among them. */
function sidecarPolicy(resource: ProtectedResource): RenderedObject {
  const { serverPolicy: name } = namesOf(resource);
  return {
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: metadataOf(resource, name),
    spec: {
      podSelector: resource.spec.placement.podSelector ?? {},
      policyTypes: ["Ingress"],
      ingress: [
        { ports: [tcp(listenPort(resource) ?? 0)] },
        { ports: [tcp(adminPort)] },
        ...peerRule(resource),
        ...allowed(resource),
      ],
    },
  };
}

/** Gateways of one resource hand cancel requests to each other; nobody else has anything to say there. */
function peerRule(resource: ProtectedResource) {
  if (!asksPeers(resource.spec.protocol)) return [];
  const gateways = { podSelector: { matchLabels: { [gatewayLabel]: namesOf(resource).label } } };
  return [{ from: [gateways], ports: [tcp(peerPort)] }];
}

/** Named peers may reach every port: replication and the database's own operator use several. */
function allowed(resource: ProtectedResource): readonly unknown[] {
  const { allowFrom = [] } = resource.spec.bypassProtection;
  return allowFrom.length === 0 ? [] : [{ from: allowFrom.map(peer) }];
}

function peer({ podSelector, namespaceSelector, ipBlock }: NetworkPeer): unknown {
  if (ipBlock !== undefined) return { ipBlock };
  return { ...(podSelector && { podSelector }), ...(namespaceSelector && { namespaceSelector }) };
}

function issuerPorts(
  input: Pick<PlacementInput, "resource" | "providers"> & { readonly apiServerPort: number },
): readonly number[] {
  const { resource, providers, apiServerPort } = input;
  const named = new Set(resource.spec.identity.providers);
  const ports = new Set<number>();
  for (const { metadata, spec } of providers) {
    const issuer = spec.oidc?.issuer ?? spec.kubernetes?.issuer;
    if (!named.has(metadata.name) || issuer === undefined || !URL.canParse(issuer)) continue;
    const url = new URL(issuer);
    ports.add(Number(url.port) || 443);
    if (/^kubernetes\.default\.svc/.test(url.hostname)) ports.add(apiServerPort);
  }
  return [...ports].sort((a, b) => a - b);
}

const tcp = (port: number | string) => ({ protocol: "TCP", port });
const portOf = (address: string) => Number(address.slice(address.lastIndexOf(":") + 1));
const single = (address: string) => ({ cidr: `${address}/${isIP(address) === 6 ? 128 : 32}` });
