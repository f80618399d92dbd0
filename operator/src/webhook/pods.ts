import { oneLine } from "@sallyport/control";
import type { ProtectedResource } from "@sallyport/crds";
import type { EventRecorder } from "../kube/index.ts";
import {
  type GatewaySettings,
  gatewayContainerName,
  gatewayLabel,
  injectGateway,
  type PodDocument,
} from "../placement/index.ts";
import { byAge, type OperatorCaches } from "../resources/caches.ts";
import { podDocument } from "../resources/kinds.ts";
import { isSelectedPod, serverPods } from "../resources/protected-resource/decide.ts";
import type { AdmissionRequest, AdmissionResponse } from "./review.ts";
import type { AdmissionHandler } from "./server.ts";

/** What injection reads. */
export interface InjectionParts {
  readonly caches: Pick<OperatorCaches, "protectedResources" | "services">;
  readonly settings: GatewaySettings;
  readonly events: EventRecorder;
}

/** Answers for Pods that are created: who is selected gets a gateway, everybody else nothing. */
export function podInjection({ caches, settings, events }: InjectionParts): AdmissionHandler {
  return (request: AdmissionRequest): AdmissionResponse => {
    const pod = podDocument(request.object);
    const { namespace } = request;
    if (
      request.operation !== "CREATE" ||
      request.kind !== "Pod" ||
      pod === undefined ||
      namespace === undefined
    ) {
      return { allowed: true };
    }
    // The chart's selectors say the same; a mistake in them must not stop the cluster's own pods.
    if (namespace === "kube-system" || namespace === settings.systemNamespace) return { allowed: true };
    const resource = selecting(caches.protectedResources.list(namespace), pod);
    if (resource === undefined) {
      return pod.metadata.labels?.[gatewayLabel] === undefined || holdsGateway(pod)
        ? { allowed: true }
        : { allowed: false, message: `the label ${gatewayLabel} is for pods that hold a gateway` };
    }
    const { serviceRef } = resource.spec.endpoint;
    const service = serviceRef && caches.services.get({ namespace, name: serviceRef.name });
    const injection = injectGateway(pod, resource, settings, serverPods(service, serviceRef?.port));
    if (injection.kind === "patch") return { allowed: true, patch: injection.patch };
    if (injection.kind === "unchanged") return { allowed: true };
    // Names are checked behind admission, and not every question comes from the API server.
    const name = oneLine(pod.metadata.name ?? `${pod.metadata.generateName ?? ""}…`);
    // Another net, an admission policy, refuses it; a dry run leaves no trace.
    if (!request.isDryRun) {
      const shown = name.length > nameMax ? `${name.slice(0, nameMax)}…` : name;
      const note = `The pod ${shown} gets no gateway: ${injection.message}.`;
      events.record({ regarding: resource, type: "Warning", reason: "NotInjected", action: "Inject", note });
    }
    return pod.spec.hostNetwork === true
      ? { allowed: true, warnings: [`sallyport: ${injection.message}`] }
      : { allowed: false, message: injection.message };
  };
}

const nameMax = 253;

function selecting(resources: readonly ProtectedResource[], pod: PodDocument): ProtectedResource | undefined {
  return resources.filter((resource) => isSelectedPod(resource, pod.metadata.labels)).toSorted(byAge)[0];
}

function holdsGateway({ spec }: PodDocument): boolean {
  return [...(spec.initContainers ?? []), ...spec.containers].some(
    ({ name }) => name === gatewayContainerName,
  );
}
