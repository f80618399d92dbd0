import { gatewayUri } from "@sallyport/control";
import type { ProtectedResource } from "@sallyport/crds";
import type { CertificateStore } from "../certificates/index.ts";
import type { CertificateOrder, IsGateway } from "../control/index.ts";
import { comparePod, type GatewaySettings, gatewayLabel, namesOf } from "../placement/index.ts";
import { type OperatorCaches, podDocument, serverPods } from "../resources/index.ts";

/** Tells gateways from anything else that runs in a pod: by today's rendering of the resource that it names. */
export function gatewayProof(
  caches: Pick<OperatorCaches, "protectedResources" | "services">,
  settings: GatewaySettings,
): IsGateway {
  return (live) => {
    const pod = podDocument(live);
    const { namespace = "", labels } = live.metadata;
    const label = labels?.[gatewayLabel];
    const resource = caches.protectedResources.list(namespace).find((one) => namesOf(one).label === label);
    if (pod === undefined || resource === undefined)
      return { kind: "foreign", message: "the pod is of no resource" };
    const { serviceRef } = resource.spec.endpoint;
    const service = serviceRef && caches.services.get({ namespace, name: serviceRef.name });
    const found = comparePod(pod, resource, settings, serverPods(service, serviceRef?.port));
    if (found.kind === "foreign") return found;
    return { kind: "gateway", resource: `${namespace}/${resource.metadata.name}` };
  };
}

/** Signs what gateways ask for; every name comes from the resource. */
export function certificateSigner(
  certificates: CertificateStore,
  caches: Pick<OperatorCaches, "protectedResources">,
  clusterDomain: string,
): (order: CertificateOrder) => Promise<{ readonly certificate: string; readonly authorities: string }> {
  return async ({ purpose, publicKey, resource: key, podUid }) => {
    const slash = key.indexOf("/");
    const ref = { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
    const resource = caches.protectedResources.get(ref);
    const authorities = certificates.held?.serverCa;
    if (resource === undefined || authorities === undefined)
      throw new Error("there is no such resource any more");
    if (purpose === "serving") {
      const names = serverNames(resource, clusterDomain);
      return { certificate: await certificates.signServing(ref.name, names, publicKey), authorities };
    }
    const uri = gatewayUri({ namespace: ref.namespace, resource: ref.name, podUid });
    const usage = purpose === "peer" ? "peer" : "client";
    return { certificate: await certificates.signGateway(ref.name, uri, publicKey, usage), authorities };
  };
}

/** The names that clients reach a resource's gateways by. */
export function serverNames(resource: ProtectedResource, clusterDomain: string): readonly string[] {
  const { service } = namesOf(resource);
  const inside = `${service}.${resource.metadata.namespace ?? "default"}`;
  return [`${inside}.svc`, service, inside, `${inside}.svc.${clusterDomain}`];
}
