import type { ProtectedResource } from "@sallyport/crds";
import type { RenderedGateway } from "./gateway-container.ts";
import type { GatewaySettings, RenderedObject } from "./model.ts";
import { gatewayLabel, labelsOf, namesOf, ownerOf, renderingAnnotation, resourceLabel } from "./names.ts";

/** Seconds that a pod gets beyond the drain of its sessions, to close recordings and exit. */
const exitSeconds = 15;

/** The Deployment of a Shared placement; replicas are left to an autoscaler where there is one. */
export function renderDeployment(
  resource: ProtectedResource,
  gateway: RenderedGateway,
  settings: GatewaySettings,
): RenderedObject {
  const { placement } = resource.spec;
  const { gateway: name, label } = namesOf(resource);
  const selector = { "app.kubernetes.io/name": "sallyport-gateway", [resourceLabel]: label };
  const patch = placement.podTemplate ?? {};
  const own = { ...labelsOf(resource), [gatewayLabel]: label };
  return {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: metadataOf(resource, name),
    spec: {
      ...(placement.autoscaling === undefined && { replicas: placement.replicas ?? 2 }),
      selector: { matchLabels: selector },
      revisionHistoryLimit: 3,
      // A new gateway takes sessions before an old one drains.
      strategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
      template: {
        metadata: {
          labels: { ...unreserved(patch.labels), ...own },
          annotations: { ...unreserved(patch.annotations), [renderingAnnotation]: gateway.rendering },
        },
        spec: {
          serviceAccountName: name,
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          shareProcessNamespace: false,
          terminationGracePeriodSeconds: settings.drainSeconds + exitSeconds,
          securityContext: {
            runAsNonRoot: true,
            runAsUser: settings.userId,
            runAsGroup: settings.userId,
            fsGroup: settings.userId,
            seccompProfile: { type: "RuntimeDefault" },
          },
          topologySpreadConstraints: ["kubernetes.io/hostname", "topology.kubernetes.io/zone"].map(
            (topologyKey) => ({
              maxSkew: 1,
              topologyKey,
              whenUnsatisfiable: "ScheduleAnyway",
              labelSelector: { matchLabels: selector },
            }),
          ),
          ...(patch.nodeSelector && { nodeSelector: patch.nodeSelector }),
          ...(patch.priorityClassName && { priorityClassName: patch.priorityClassName }),
          ...(patch.tolerations && { tolerations: patch.tolerations }),
          containers: [gateway.container],
          volumes: gateway.volumes,
        },
      },
    },
  };
}

/** The account that the gateway's pods run as: a name for TokenReview, without any right. */
export function renderServiceAccount(resource: ProtectedResource): RenderedObject {
  return {
    apiVersion: "v1",
    kind: "ServiceAccount",
    metadata: metadataOf(resource, namesOf(resource).gateway),
    automountServiceAccountToken: false,
  };
}

/** Keeps node drains from ending more than one gateway at a time. */
export function renderDisruptionBudget(resource: ProtectedResource): RenderedObject {
  const { gateway, label } = namesOf(resource);
  return {
    apiVersion: "policy/v1",
    kind: "PodDisruptionBudget",
    metadata: metadataOf(resource, gateway),
    spec: {
      maxUnavailable: 1,
      selector: { matchLabels: { "app.kubernetes.io/name": "sallyport-gateway", [resourceLabel]: label } },
    },
  };
}

/** Scales the Deployment where the resource asks for it. */
export function renderAutoscaler(resource: ProtectedResource): RenderedObject | undefined {
  const { autoscaling } = resource.spec.placement;
  if (autoscaling === undefined) return undefined;
  const { gateway } = namesOf(resource);
  const { minReplicas, maxReplicas, targetCPUUtilizationPercentage: averageUtilization } = autoscaling;
  return {
    apiVersion: "autoscaling/v2",
    kind: "HorizontalPodAutoscaler",
    metadata: metadataOf(resource, gateway),
    spec: {
      scaleTargetRef: { apiVersion: "apps/v1", kind: "Deployment", name: gateway },
      minReplicas,
      maxReplicas,
      metrics: [
        { type: "Resource", resource: { name: "cpu", target: { type: "Utilization", averageUtilization } } },
      ],
    },
  };
}

/** Name, labels and owner of an object made for a resource. */
export function metadataOf(resource: ProtectedResource, name: string): RenderedObject["metadata"] {
  return {
    name,
    namespace: resource.metadata.namespace ?? "default",
    labels: labelsOf(resource),
    ownerReferences: [ownerOf(resource)],
  };
}

/** What users may add to the pods: nothing that the operator, admission or another injector goes by. */
function unreserved(entries: Readonly<Record<string, string>> = {}): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(entries).filter(
      ([key]) => !/^([^/]*\.)?(sallyport\.dev|kubernetes\.io|k8s\.io)\//.test(key),
    ),
  );
}
