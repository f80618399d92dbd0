import { randomBytes } from "node:crypto";
import type { ProtectedResource } from "@sallyport/crds";
import { isConflict, type KubeClient, type KubeObject } from "../../kube/index.ts";
import { renderGatewayKey } from "../../placement/index.ts";
import { kinds } from "../kinds.ts";

/** How often a settled resource is looked at: somebody may delete the secret, and pods that start later would wait for it. */
export const keyCheckMs = 600_000;
const againAfterMs = keyCheckMs / 2;
const keyBytes = 32;
const knownMax = 10_000;

/** Makes the secrets that gateways share. The operator may create Secrets and read none: it tries, and one is there. */
export class GatewayKeys {
  readonly #client: KubeClient;
  readonly #madeAt = new Map<string, number>();

  constructor(client: KubeClient) {
    this.#client = client;
  }

  /** Makes a resource's secret where there is none. */
  async ensure(resource: ProtectedResource, signal: AbortSignal): Promise<void> {
    const { uid = "" } = resource.metadata;
    const now = performance.now();
    if (now - (this.#madeAt.get(uid) ?? Number.NEGATIVE_INFINITY) < againAfterMs) return;
    const secret = renderGatewayKey(resource, randomBytes(keyBytes));
    try {
      await this.#client.create(kinds.secret, secret as unknown as KubeObject, {
        fieldManager: "sallyport-gateway-key",
        signal,
      });
    } catch (error) {
      if (!isConflict(error)) throw error;
    }
    if (this.#madeAt.size >= knownMax) this.#madeAt.clear();
    this.#madeAt.set(uid, now);
  }
}
