import { createHash } from "node:crypto";
import type { ProtectedResource } from "@sallyport/crds";
import type { OwnerReference } from "./model.ts";

/** The container that is a gateway, in both placements; admission knows it by this name. */
export const gatewayContainerName = "sallyport-gateway";

/** The audience of the tokens by which gateways prove themselves to the control plane. */
export const controlAudience = "control.sallyport.dev";

/** Carried by the pods that hold a gateway; its value names the resource. */
export const gatewayLabel = "sallyport.dev/gateway";

/** Carried by everything made for a resource. */
export const resourceLabel = "sallyport.dev/resource";

/** Carried by pods: which rendering of the gateway they hold. */
export const renderingAnnotation = "sallyport.dev/rendering";

/** Carried by everything made for a resource: what it was rendered as, so that what is left out since is found out. */
export const renderedAnnotation = "sallyport.dev/rendered";

/** Carried by namespaces that opted in to injection and to closed exec. */
export const protectionLabel = "sallyport.dev/protection";

/** Carried by what admission lets the operator alone write: accepted policies, and what gateways trust. */
export const keptLabel = "sallyport.dev/kept";

/** The key of the Secret that gateways share, and the file's name in the gateway. */
export const maskingKeyName = "masking.key";

/** The admin port of every gateway: probes and metrics. */
export const adminPort = 9464;

/** Clients' ports of Shared gateways: above 1024, for a gateway has no capability to open a lower one. */
const sharedPorts: Readonly<Record<string, number>> = { postgres: 5432, kubernetes: 6443, ssh: 2222 };

/** Those beside the server, where the protocol's own port is taken. */
const sidecarPorts: Readonly<Record<string, number>> = { postgres: 15_432, kubernetes: 16_443, ssh: 2222 };

/** Names of everything made for a resource; the same on every call. */
export interface ResourceNames {
  /** Deployment, ServiceAccount, PodDisruptionBudget and HorizontalPodAutoscaler. */
  readonly gateway: string;
  readonly service: string;
  /** The NetworkPolicy of the gateway's pods. */
  readonly gatewayPolicy: string;
  /** The NetworkPolicy of the server's pods. */
  readonly serverPolicy: string;
  readonly authorities: string;
  /** The Secret with what hashes and host keys are derived from. */
  readonly key: string;
  /** The value of the labels that name the resource. */
  readonly label: string;
}

/** Derives the names of a resource's objects. */
export function namesOf(resource: ProtectedResource): ResourceNames {
  const { name } = resource.metadata;
  const gateway = childName(name, "gateway");
  return {
    gateway,
    service: resource.spec.listen.serviceName ?? gateway,
    gatewayPolicy: gateway,
    serverPolicy: childName(name, "server"),
    authorities: childName(name, "gateway-ca"),
    key: childName(name, "gateway-key"),
    label: labelValue(name),
  };
}

/** The port that clients connect to, on the Service and on the gateway. */
export function listenPort(resource: ProtectedResource): number | undefined {
  const { listen, placement, protocol } = resource.spec;
  if (listen.port !== undefined) return listen.port;
  return (placement.mode === "Shared" ? sharedPorts : sidecarPorts)[protocol];
}

/** A name of at most 63 characters that is a DNS label, whatever the owner is called. */
export function childName(owner: string, suffix: string): string {
  const dashed = owner.replaceAll(/[^a-z0-9-]/g, "-");
  const label = /^[a-z]/.test(dashed) ? dashed : `r-${dashed}`;
  const whole = `${label}-${suffix}`;
  if (label === owner && whole.length <= 63) return whole;
  // Cut or altered names could meet: the hash of the whole name keeps them apart.
  const kept = label.slice(0, 63 - suffix.length - 10).replace(/-+$/, "");
  return `${kept}-${shortHash(owner)}-${suffix}`;
}

/** A label's value that stands for a name of any length. */
export function labelValue(name: string): string {
  if (name.length <= 63) return name;
  return `${name.slice(0, 54).replace(/[-.]+$/, "")}-${shortHash(name)}`;
}

/** The labels of everything made for a resource. */
export function labelsOf(resource: ProtectedResource): Readonly<Record<string, string>> {
  const { label } = namesOf(resource);
  return {
    "app.kubernetes.io/name": "sallyport-gateway",
    "app.kubernetes.io/instance": label,
    "app.kubernetes.io/component": "gateway",
    "app.kubernetes.io/part-of": "sallyport",
    "app.kubernetes.io/managed-by": "sallyport-operator",
    [resourceLabel]: label,
  };
}

/** Makes a resource the owner of what is rendered for it. */
export function ownerOf(resource: ProtectedResource): OwnerReference {
  return {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "ProtectedResource",
    name: resource.metadata.name,
    uid: resource.metadata.uid ?? "",
    controller: true,
    blockOwnerDeletion: true,
  };
}

function shortHash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 8);
}
