import { isDeepStrictEqual } from "node:util";
import type { ProtectedResource } from "@sallyport/crds";
import { isConflict, type KubeClient, type KubeObject, type Log, pause } from "../kube/index.ts";
import {
  bindingLabel,
  type GatewaySettings,
  isOwnCluster,
  placementFault,
  type RenderedObject,
  renderImpersonation,
} from "../placement/index.ts";
import { kinds, type OperatorCaches } from "../resources/index.ts";

/** What keeps the bindings is made of. */
export interface BindingKeeperParts {
  readonly client: KubeClient;
  readonly caches: Pick<OperatorCaches, "protectedResources">;
  readonly settings: GatewaySettings;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly lookEveryMs?: number;
}

/** A binding outlives its resource by this at most: a namespaced owner cannot take a cluster's object along. */
const lookEveryMs = 5_000;

/**
 * Makes the bindings that resources need and removes all others, while this replica leads. Where no namespace is
 * listed the operator has no right to bindings, and leaves them alone.
 */
export async function keepBindings(parts: BindingKeeperParts): Promise<void> {
  const { log, signal, settings } = parts;
  if (settings.kubernetesNamespaces.length === 0) return;
  while (!signal.aborted) {
    try {
      await keepOnce(parts);
    } catch (error) {
      if (!signal.aborted)
        log.warn({ err: error }, "the rights of gateways to speak for users could not be kept");
    }
    await pause(parts.lookEveryMs ?? lookEveryMs, signal);
  }
}

async function keepOnce({ client, caches, settings, log, signal }: BindingKeeperParts): Promise<void> {
  const type = kinds.clusterRoleBinding;
  const needed = caches.protectedResources.list().filter((resource) => isBound(resource, settings));
  const wanted = new Map(
    needed.map((resource) => renderImpersonation(resource, settings)).map((one) => [one.metadata.name, one]),
  );
  const labelSelector = `${bindingLabel}=${settings.impersonatorRole}`;
  const { items } = await client.list(type, { labelSelector, signal });
  for (const found of items) {
    const { name, uid } = found.metadata;
    const rendered = wanted.get(name);
    if (rendered !== undefined && isSame(found, rendered)) {
      wanted.delete(name);
      continue;
    }
    // What is bound cannot be changed; what was altered is made anew.
    await client.delete(type, { name }, { ...(uid !== undefined && { uid }), signal });
    log.info({ binding: name }, "a gateway's right to speak for users was taken away");
  }
  for (const rendered of wanted.values()) {
    try {
      await client.create(type, rendered as unknown as KubeObject, {
        fieldManager: "sallyport-impersonation",
        signal,
      });
      log.info({ binding: rendered.metadata.name }, "a gateway may speak for the users that the chart names");
    } catch (error) {
      if (!isConflict(error)) throw error;
      log.warn(
        { binding: rendered.metadata.name },
        "a binding of that name exists and is not the operator's",
      );
    }
  }
}

function isBound(resource: ProtectedResource, settings: GatewaySettings): boolean {
  const { metadata }: KubeObject = resource;
  return (
    metadata.deletionTimestamp === undefined &&
    isOwnCluster(resource) &&
    placementFault(resource, settings) === undefined
  );
}

function isSame(found: object, rendered: RenderedObject): boolean {
  const { roleRef, subjects } = found as { readonly roleRef?: unknown; readonly subjects?: unknown };
  return isDeepStrictEqual(roleRef, rendered.roleRef) && isDeepStrictEqual(subjects, rendered.subjects);
}
