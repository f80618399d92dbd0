import { isIP } from "node:net";
import { isRange, type Reach } from "@sallyport/control";
import type { ProtectedResource, ResourceGrant } from "@sallyport/crds";
import { type KubeClient, type KubeObject, keyOf, type Log, pause, resourceType } from "../kube/index.ts";
import {
  type ClusterRanges,
  type GrantedPod,
  labelSelectorText,
  type OperatorCaches,
  reachOf,
  single,
} from "../resources/index.ts";

/** What finds the cluster's addresses. */
export interface ClusterAddressesParts {
  readonly client: KubeClient;
  readonly caches: Pick<OperatorCaches, "nodes" | "pods" | "services" | "resourceGrants">;
  /** Ranges of pods, Services and nodes that the chart was told. */
  readonly configured: readonly string[];
  readonly clusterDomain: string;
  /** Every reach may be another one now. */
  readonly onChange: () => void;
  readonly log: Log;
  readonly podsEveryMs?: number;
}

interface ServiceRange extends KubeObject {
  readonly spec?: { readonly cidrs?: readonly string[] };
}
interface EndpointSlice extends KubeObject {
  readonly endpoints?: readonly { readonly addresses?: readonly string[] }[];
}
interface AddressedPod extends KubeObject {
  readonly status?: { readonly podIPs?: readonly { readonly ip: string }[] };
}

const serviceRanges = resourceType<ServiceRange>(
  "networking.k8s.io/v1",
  "ServiceCIDR",
  "servicecidrs",
  "Cluster",
);
const endpointSlices = resourceType<EndpointSlice>("discovery.k8s.io/v1", "EndpointSlice", "endpointslices");
const podType = resourceType<AddressedPod>("v1", "Pod", "pods");
const rangesEveryMs = 300_000;
const grantedPodsMax = 512;

/** Knows which addresses are the cluster's own, and says for each resource which of them its gateway may dial. */
export class ClusterAddresses {
  readonly #parts: ClusterAddressesParts;
  #services: readonly string[] = [];
  #servers: readonly string[] = [];
  #granted = new Map<string, readonly GrantedPod[]>();
  #shown = "";
  #rangesAtMs = Number.NEGATIVE_INFINITY;

  constructor(parts: ClusterAddressesParts) {
    this.#parts = parts;
  }

  /** What a resource's gateway is told. */
  reachOf(resource: ProtectedResource): Reach {
    const { caches, clusterDomain } = this.#parts;
    return reachOf(resource, {
      services: caches.services.list(),
      grants: caches.resourceGrants.list(),
      ranges: this.#ranges(),
      grantedPods: (grant) => this.#granted.get(keyOf(grant.metadata)) ?? [],
      clusterDomain,
    });
  }

  /** Looks once; what cannot be read is unknown, and more is forbidden then. */
  async look(signal: AbortSignal): Promise<void> {
    const { client, log, onChange } = this.#parts;
    if (performance.now() - this.#rangesAtMs >= rangesEveryMs) {
      this.#rangesAtMs = performance.now();
      try {
        const { items } = await client.list(serviceRanges, { signal, retries: 0 });
        this.#services = items.flatMap(({ spec }) => spec?.cidrs ?? []).filter(isRange);
      } catch (error) {
        log.debug({ err: error }, "the ranges of Services are not known to this API server");
      }
      try {
        const ref = { namespace: "default", name: "kubernetes" };
        const slice = await client.find(endpointSlices, ref, { signal, retries: 0 });
        const addresses = slice?.endpoints?.flatMap((endpoint) => endpoint.addresses ?? []) ?? [];
        this.#servers = addresses.filter((address) => isIP(address) !== 0).map(single);
      } catch (error) {
        log.debug({ err: error }, "the API servers' addresses could not be read");
      }
    }
    try {
      await this.#lookForGranted(signal);
    } catch (error) {
      if (signal.aborted) throw error;
      log.warn({ err: error }, "the pods that grants open could not be listed");
    }
    const now = JSON.stringify([this.#ranges(), [...this.#granted]]);
    if (now === this.#shown) return;
    this.#shown = now;
    onChange();
  }

  /** Looks again and again: pods that a grant's selector finds come and go. */
  async run(signal: AbortSignal): Promise<void> {
    const { podsEveryMs = 10_000 } = this.#parts;
    while (!signal.aborted) {
      await pause(podsEveryMs, signal);
      await this.look(signal).catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
    }
  }

  async #lookForGranted(signal: AbortSignal): Promise<void> {
    const found = new Map<string, readonly GrantedPod[]>();
    for (const grant of this.#parts.caches.resourceGrants.list()) {
      const pods = await this.#podsOf(grant, signal);
      if (pods.length > 0) found.set(keyOf(grant.metadata), pods);
    }
    this.#granted = found;
  }

  async #podsOf({ metadata, spec }: ResourceGrant, signal: AbortSignal): Promise<readonly GrantedPod[]> {
    const { namespace = "default" } = metadata;
    const pods: GrantedPod[] = [];
    for (const { podSelector, ports } of spec.to) {
      if (podSelector === undefined) continue;
      const labelSelector = labelSelectorText(podSelector);
      const { items } = await this.#parts.client.list(podType, {
        ...{ namespace, signal },
        ...(labelSelector !== "" && { labelSelector }),
        // Pods on the node's own network would open everything else that listens there.
        fieldSelector: "spec.hostNetwork=false",
      });
      for (const { status } of items)
        for (const { ip } of status?.podIPs ?? []) pods.push({ address: ip, ...(ports && { ports }) });
    }
    pods.sort((a, b) => (a.address < b.address ? -1 : 1));
    return pods.slice(0, grantedPodsMax);
  }

  #ranges(): ClusterRanges {
    const { caches, configured } = this.#parts;
    const nodes = caches.nodes.list();
    const pods = nodes.flatMap(({ spec }) => spec?.podCIDRs ?? []).filter(isRange);
    const addresses = nodes.flatMap(({ status }) => status?.addresses ?? []).map(({ address }) => address);
    const isKnown = nodes.length > 0 && nodes.every(({ spec }) => (spec?.podCIDRs ?? []).length > 0);
    return {
      services: [...this.#services, ...configured].sort(),
      pods: [...new Set([...pods, ...configured])].sort(),
      nodes: [...addresses.filter((address) => isIP(address) !== 0).map(single), ...this.#servers].sort(),
      // Who names the ranges has named all of them; what is found by itself must be whole.
      isComplete: configured.length > 0 || (isKnown && this.#services.length > 0),
    };
  }
}
