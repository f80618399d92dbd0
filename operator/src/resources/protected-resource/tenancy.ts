import { isIP } from "node:net";
import type { ProtectedResource, ResourceGrant } from "@sallyport/crds";
import type { OperatorCaches } from "../caches.ts";
import type { Service } from "../kinds.ts";

/** A Service of another namespace that an endpoint leads to. */
export interface ForeignTarget {
  readonly namespace: string;
  readonly service?: string;
}

/**
 * Where an endpoint's host leads outside the resource's namespace; undefined where it does not, as far as its text
 * tells. Names that resolve to such an address are found when they are dialled.
 */
export function foreignTarget(
  { metadata, spec }: ProtectedResource,
  services: readonly Service[],
): ForeignTarget | undefined {
  const { host } = spec.endpoint;
  const own = metadata.namespace ?? "default";
  if (host === undefined) return undefined;
  if (isIP(host) !== 0) {
    const owner = services.find(({ spec }) => spec?.clusterIP === host || spec?.clusterIPs?.includes(host));
    if (owner === undefined || owner.metadata.namespace === own) return undefined;
    return { namespace: owner.metadata.namespace ?? "", service: owner.metadata.name };
  }
  const labels = host.toLowerCase().replace(/\.$/, "").split(".");
  // service.namespace.svc[.cluster.domain], and pod-or-host.service.namespace.svc for headless Services.
  const at = labels.indexOf("svc");
  if (at >= 2) {
    const [service, namespace] = labels.slice(at - 2, at);
    return namespace === own ? undefined : { namespace: namespace ?? "", ...(service && { service }) };
  }
  if (labels.includes("pod") && labels.length >= 3) {
    const namespace = labels[labels.indexOf("pod") - 1] ?? "";
    return namespace === own ? undefined : { namespace };
  }
  // Resolvers complete `service.namespace` with the cluster's domain.
  const [service, namespace] = labels;
  const completes = services.some(
    ({ metadata }) => metadata.name === service && metadata.namespace === namespace,
  );
  if (labels.length !== 2 || namespace === undefined || namespace === own || !completes) return undefined;
  return { namespace, ...(service && { service }) };
}

/** Whether a ResourceGrant of the target's namespace lets the resource reach it. */
export function isGranted(
  { metadata, spec }: ProtectedResource,
  target: ForeignTarget,
  grants: readonly ResourceGrant[],
): boolean {
  const own = metadata.namespace ?? "default";
  const { port } = spec.endpoint;
  return grants.some((grant) => {
    if (grant.metadata.namespace !== target.namespace) return false;
    const names = grant.spec.from.filter(({ namespace }) => namespace === own);
    if (!names.some(({ names }) => names === undefined || names.includes(metadata.name))) return false;
    return grant.spec.to.some(({ serviceName, podSelector, ports }) => {
      // Which pods these are, and whether the name leads to one of them, the gateway's dial decides by address.
      if (podSelector !== undefined)
        return ports === undefined || (port !== undefined && ports.includes(port));
      const isService = serviceName !== undefined && serviceName === target.service;
      return isService && (ports === undefined || (port !== undefined && ports.includes(port)));
    });
  });
}

/** Whether what an endpoint says may be reached from its namespace. */
export function mayReach(
  resource: ProtectedResource,
  caches: Pick<OperatorCaches, "services" | "resourceGrants">,
): { readonly target?: ForeignTarget; readonly isAllowed: boolean } {
  const target = foreignTarget(resource, caches.services.list());
  if (target === undefined) return { isAllowed: true };
  return { target, isAllowed: isGranted(resource, target, caches.resourceGrants.list(target.namespace)) };
}
