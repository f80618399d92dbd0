import type { Reach } from "@sallyport/control";
import type { ProtectedResource, ResourceGrant } from "@sallyport/crds";
import { isOwnCluster } from "../../placement/index.ts";
import type { Service } from "../kinds.ts";

/** What is known of the cluster's own addresses. */
export interface ClusterRanges {
  readonly services: readonly string[];
  readonly pods: readonly string[];
  /** Nodes and API servers. */
  readonly nodes: readonly string[];
  /** False where ranges of pods or Services could not be found out: then every private address counts as the cluster's. */
  readonly isComplete: boolean;
}

/** What a resource's reach is made of. */
export interface ReachFacts {
  /** All Services of the cluster. */
  readonly services: readonly Service[];
  /** The grants that name the resource or its namespace. */
  readonly grants: readonly ResourceGrant[];
  readonly ranges: ClusterRanges;
  /** The addresses of pods that a grant's selector finds. */
  readonly grantedPods: (grant: ResourceGrant) => readonly GrantedPod[];
  readonly clusterDomain: string;
}

/** A pod that a grant opens, and the ports; all where absent. */
export interface GrantedPod {
  readonly address: string;
  readonly ports?: readonly number[];
}

type Allowed = Reach["allowed"][number];

const privateRanges = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"];
const allowedMax = 1024;

/**
 * Which addresses a resource's gateway may dial. A name of the cluster's own that the resource has a right to is trusted
 * to lead where its Service says; any other name is judged by the address that it resolves to.
 */
export function reachOf(resource: ProtectedResource, facts: ReachFacts): Reach {
  if (resource.spec.placement.mode === "Sidecar") return { ownPod: true, forbidden: [], allowed: [] };
  const { services, pods, nodes, isComplete } = facts.ranges;
  const forbidden = [...services, ...pods, ...nodes, ...(isComplete ? [] : privateRanges)];
  const allowed = [...own(resource, facts), ...granted(resource, facts)];
  return {
    ownPod: false,
    forbidden: [...new Set(forbidden)].sort(),
    allowed: unique(allowed).slice(0, allowedMax),
  };
}

function own(resource: ProtectedResource, facts: ReachFacts): readonly Allowed[] {
  if (isOwnCluster(resource)) {
    // The API server that the gateway runs under, which every pod may reach.
    return facts.services
      .filter(({ metadata }) => metadata.namespace === "default" && metadata.name === "kubernetes")
      .flatMap((service) => virtual(service, [443]));
  }
  const { serviceRef } = resource.spec.endpoint;
  const namespace = resource.metadata.namespace ?? "default";
  const inNamespace = facts.services.filter(({ metadata }) => metadata.namespace === namespace);
  if (serviceRef !== undefined) {
    const service = inNamespace.find(({ metadata }) => metadata.name === serviceRef.name);
    return service === undefined ? [] : addressesOf(service, [serviceRef.port], facts.ranges);
  }
  const named = clusterName(resource.spec.endpoint.host ?? "", facts.clusterDomain);
  const { port } = resource.spec.endpoint;
  return inNamespace.flatMap((service) => {
    const isNamed = named?.namespace === namespace && named.service === service.metadata.name;
    // Whatever name led there: a Service of the resource's own namespace is open to it, by its own address.
    return isNamed
      ? addressesOf(service, port === undefined ? undefined : [port], facts.ranges)
      : virtual(service);
  });
}

function granted(resource: ProtectedResource, facts: ReachFacts): readonly Allowed[] {
  const namespace = resource.metadata.namespace ?? "default";
  const { host = "" } = resource.spec.endpoint;
  const named = clusterName(host, facts.clusterDomain);
  return facts.grants
    .filter(({ spec }) =>
      spec.from.some(
        (from) =>
          from.namespace === namespace &&
          (from.names === undefined || from.names.includes(resource.metadata.name)),
      ),
    )
    .flatMap((grant) => [
      ...grant.spec.to.flatMap(({ serviceName, ports }) => {
        const service = facts.services.find(
          ({ metadata }) => metadata.name === serviceName && metadata.namespace === grant.metadata.namespace,
        );
        if (service === undefined) return [];
        const isNamed =
          named?.namespace === service.metadata.namespace && named?.service === service.metadata.name;
        return isNamed ? addressesOf(service, ports, facts.ranges) : virtual(service, ports);
      }),
      ...facts
        .grantedPods(grant)
        .map(({ address, ports }) => ({ range: single(address), ...(ports && { ports }) })),
    ]);
}

/** Where a Service's own name leads: to its address, or to pods of its namespace where it has none. */
function addressesOf(
  service: Service,
  ports: readonly number[] | undefined,
  { pods, nodes, isComplete }: ClusterRanges,
): readonly Allowed[] {
  const isHeadless = service.spec?.clusterIP === "None";
  // Without a selector somebody has written the addresses by hand: they prove nothing.
  if (!isHeadless || Object.keys(service.spec?.selector ?? {}).length === 0) return virtual(service, ports);
  const ranges = isComplete ? [...pods, ...nodes] : [...pods, ...nodes, ...privateRanges];
  return ranges.map((range) => ({ range, ...(ports && { ports }) }));
}

function virtual({ spec }: Service, ports?: readonly number[]): readonly Allowed[] {
  if (spec?.type === "ExternalName") return [];
  const addresses = new Set([...(spec?.clusterIPs ?? []), ...(spec?.clusterIP ? [spec.clusterIP] : [])]);
  addresses.delete("None");
  return [...addresses].map((address) => ({ range: single(address), ...(ports && { ports }) }));
}

/** A name that the cluster's own DNS answers and nobody else; undefined for any other. */
export function clusterName(
  host: string,
  clusterDomain: string,
): { readonly service: string; readonly namespace: string } | undefined {
  const plain = host.toLowerCase().replace(/\.$/, "");
  const inside = plain.endsWith(`.svc.${clusterDomain}`) ? plain.slice(0, -clusterDomain.length - 1) : plain;
  const labels = inside.split(".");
  if (labels.length < 3 || labels.at(-1) !== "svc") return undefined;
  const [service = "", namespace = ""] = labels.slice(-3);
  return { service, namespace };
}

function unique(allowed: readonly Allowed[]): readonly Allowed[] {
  const byText = new Map(allowed.map((entry) => [JSON.stringify(entry), entry]));
  return [...byText].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, entry]) => entry);
}

/** The range that holds one address. */
export const single = (address: string): string => `${address}/${address.includes(":") ? 128 : 32}`;
