import type { IdentityProvider, ProtectedResource } from "@sallyport/crds";

/** A Kubernetes object as it is applied: only the fields that the operator owns. */
export interface RenderedObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly ownerReferences?: readonly OwnerReference[];
  };
  readonly [field: string]: unknown;
}

/** The object that the rendered ones are removed with. */
export interface OwnerReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller: true;
  readonly blockOwnerDeletion: true;
}

/** The pods behind the protected Service, as its selector and target port say. */
export interface ServerPods {
  readonly selector: Readonly<Record<string, string>>;
  readonly targetPort: number | string;
}

/** What the operator's own configuration says of every gateway. */
export interface GatewaySettings {
  /** With a digest, so that a gateway can be told from one that only carries the same tag. */
  readonly image: string;
  readonly imagePullPolicy: "Always" | "IfNotPresent" | "Never";
  /** Images of earlier releases whose gateways may still be supplied with policy. */
  readonly acceptedImages: readonly string[];
  /** `host:port` of the control stream. */
  readonly control: string;
  /** The port of the recorders; which of them keeps a namespace the control stream says. */
  readonly recorderPort: number;
  /** `host:port` of the first recorder; empty where there is none, and gateways keep recordings themselves. */
  readonly recorder: string;
  /** The namespace that operator and recorder run in. */
  readonly systemNamespace: string;
  readonly drainSeconds: number;
  readonly userId: number;
  /** The namespaces whose gateways may speak for users to an API server; protocol kubernetes is accepted in no other. */
  readonly kubernetesNamespaces: readonly string[];
  /** The ClusterRole by which they do so to the cluster that they run in. */
  readonly impersonatorRole: string;
}

/** Everything that the objects of one resource are made of. */
export interface PlacementInput {
  readonly resource: ProtectedResource;
  /** Absent for a host outside the cluster, or where the Service selects no pods. */
  readonly server?: ServerPods;
  /** Where the cluster's own API servers listen behind their Service. */
  readonly apiServerPort?: number;
  readonly providers: readonly IdentityProvider[];
  readonly settings: GatewaySettings;
  /** The authorities that sign the control plane's certificates, as PEM. */
  readonly controlCa: string;
}

/** What a resource should look like in its namespace. */
export interface PlacedResource {
  readonly objects: readonly RenderedObject[];
  /** Where clients connect: `service.namespace.svc:port`. */
  readonly address: string;
  /** The annotation that a gateway of today carries. */
  readonly rendering: string;
}

/** A container as it stands in a pod's specification. */
export interface ContainerSpec {
  readonly name: string;
  readonly image: string;
  readonly [field: string]: unknown;
}

/** A volume as it stands in a pod's specification. */
export interface VolumeSpec {
  readonly name: string;
  readonly [field: string]: unknown;
}
