/**
 * From a resource to the objects that place its gateways: pure, so that what is applied, what is injected and what a
 * gateway is later compared with come from the same few functions.
 */
import { renderGateway } from "./gateway-container.ts";
import type { PlacedResource, PlacementInput, RenderedObject } from "./model.ts";
import { listenPort, namesOf } from "./names.ts";
import { renderNetworkPolicies } from "./network-policy.ts";
import { renderAuthorities, renderService } from "./service.ts";
import {
  renderAutoscaler,
  renderDeployment,
  renderDisruptionBudget,
  renderServiceAccount,
} from "./shared.ts";

export { comparePod } from "./compare.ts";
export { hashOf, renderGateway } from "./gateway-container.ts";
export { renderGatewayKey } from "./gateway-key.ts";
export { holds, injectGateway, type PatchOperation, type PodDocument } from "./inject.ts";
export type * from "./model.ts";
export * from "./names.ts";
export { bindingLabel, isOwnCluster, placementFault, renderImpersonation } from "./own-cluster.ts";

/** Renders everything that a resource needs in its namespace; the same input gives the same objects. */
export function placeResource(input: PlacementInput): PlacedResource {
  const { resource, settings, server, controlCa } = input;
  const gateway = renderGateway(resource, settings, server);
  const isShared = resource.spec.placement.mode === "Shared";
  const autoscaler = isShared ? renderAutoscaler(resource) : undefined;
  const shared: readonly RenderedObject[] = isShared
    ? [
        renderServiceAccount(resource),
        renderDeployment(resource, gateway, settings),
        renderDisruptionBudget(resource),
        ...(autoscaler === undefined ? [] : [autoscaler]),
      ]
    : [];
  const { service } = namesOf(resource);
  return {
    objects: [
      renderAuthorities(resource, controlCa),
      ...renderNetworkPolicies(input),
      ...shared,
      renderService(resource),
    ],
    address: `${service}.${resource.metadata.namespace ?? "default"}.svc:${listenPort(resource) ?? 0}`,
    rendering: gateway.rendering,
  };
}
