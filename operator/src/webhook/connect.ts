import { isSelectedBy } from "@sallyport/crds";
import type { KubeClient } from "../kube/index.ts";
import { gatewayContainerName } from "../placement/index.ts";
import type { PolicyBook } from "../resources/access-policy/policy-book.ts";
import type { OperatorCaches } from "../resources/caches.ts";
import { kinds, type Pod, type Service } from "../resources/kinds.ts";
import { labelSelectorText } from "../resources/label-selector.ts";
import { isSelectedPod } from "../resources/protected-resource/decide.ts";
import type { AdmissionHandler } from "./server.ts";

/** What the answer to exec, attach and port-forward reads. */
export interface ConnectParts {
  readonly client: KubeClient;
  readonly caches: Pick<OperatorCaches, "protectedResources" | "services">;
  readonly breakGlassGroup: string;
  /** Says what is required of a resource beyond what it says itself. */
  readonly book: Pick<PolicyBook, "floored">;
}

/**
 * Exec, attach, port-forward and proxy into pods that hold a gateway, or are the server behind one, come from inside
 * the pod and pass by every network policy: they are closed to all but the break-glass group.
 */
export function connectReview({ client, caches, breakGlassGroup, book }: ConnectParts): AdmissionHandler {
  return async ({ operation, resource, subResource, namespace, name, groups }) => {
    if (operation !== "CONNECT" || namespace === undefined || name === undefined) return { allowed: true };
    if (groups.includes(breakGlassGroup)) return { allowed: true };
    const resources = caches.protectedResources
      .list(namespace)
      .map((resource) => book.floored(resource))
      .filter(({ spec }) => spec.bypassProtection.exec === "Enforce");
    if (resources.length === 0) return { allowed: true };
    const message = `${resource}/${subResource ?? ""} is closed here; connect through the Sallyport gateway`;
    const target = subResource === "proxy" ? proxied(name) : name;
    const isGuarded = (pod: Pod): boolean => {
      const containers = [...(pod.spec.initContainers ?? []), ...pod.spec.containers];
      const labels = pod.metadata.labels ?? {};
      if (containers.some((container) => container.name === gatewayContainerName)) return true;
      return resources.some((one) => {
        const { serviceRef } = one.spec.endpoint;
        const service = serviceRef && caches.services.get({ namespace, name: serviceRef.name });
        const selector = service?.spec?.selector;
        const isServer = selector !== undefined && isSelectedBy({ matchLabels: selector }, labels);
        return isServer || isSelectedPod(one, labels);
      });
    };
    // Live: a pod or Service of a moment ago must not slip through a cache.
    const ref = { namespace, name: target };
    let isClosed: boolean;
    if (resource !== "services") {
      const pod = await client.find(kinds.pod, ref, { timeoutMs });
      isClosed = pod !== undefined && isGuarded(pod);
    } else if (resources.some(({ spec }) => spec.endpoint.serviceRef?.name === target)) isClosed = true;
    else {
      const service = await client.find(kinds.service, ref, { timeoutMs });
      isClosed = service !== undefined && (await leadsTo(service, client, isGuarded));
    }
    return isClosed ? { allowed: false, message } : { allowed: true };
  };
}

const timeoutMs = 2_000;

/** Any Service may select a guarded pod, whatever it is called; one that selects nothing leads where its author says. */
async function leadsTo(
  { metadata, spec }: Service,
  client: KubeClient,
  isGuarded: (pod: Pod) => boolean,
): Promise<boolean> {
  const matchLabels = spec?.selector ?? {};
  if (Object.keys(matchLabels).length === 0) return true;
  const { namespace = "" } = metadata;
  const labelSelector = labelSelectorText({ matchLabels });
  const { items } = await client.list(kinds.pod, { namespace, labelSelector, timeoutMs });
  return items.some(isGuarded);
}

/** A proxy names its target as `[scheme:]name[:port]`. */
function proxied(name: string): string {
  const parts = name.split(":");
  return (parts.length === 3 ? parts[1] : parts[0]) ?? name;
}
