import { randomBytes } from "node:crypto";
import type { ProtectedResource } from "@sallyport/crds";
import { isConflict, type KubeClient, type KubeObject } from "../../kube/index.ts";
import { renderGatewayKey } from "../../placement/index.ts";
import { kinds } from "../kinds.ts";

const againAfterMs = 20_000;
const keyBytes = 32;
const knownMax = 10_000;

/** Makes the secrets that gateways share. The operator may create Secrets and read none: it tries, and one is there. */
export class GatewayKeys {
  readonly #client: Pick<KubeClient, "create">;
  readonly #monotonicMs: () => number;
  readonly #triedAt = new Map<string, number>();

  constructor(client: Pick<KubeClient, "create">, monotonicMs: () => number = () => performance.now()) {
    this.#client = client;
    this.#monotonicMs = monotonicMs;
  }

  /**
   * Makes a resource's secret where there is none. It is tried once; and again while a pod does not start, which may
   * wait for a secret that somebody has deleted: those that run have read it.
   */
  async ensure(resource: ProtectedResource, isPodWaiting: boolean, signal: AbortSignal): Promise<void> {
    const { uid = "" } = resource.metadata;
    const now = this.#monotonicMs();
    const triedAt = this.#triedAt.get(uid);
    if (triedAt !== undefined && !(isPodWaiting && now - triedAt >= againAfterMs)) return;
    const secret = renderGatewayKey(resource, randomBytes(keyBytes));
    try {
      await this.#client.create(kinds.secret, secret as unknown as KubeObject, {
        fieldManager: "sallyport-gateway-key",
        signal,
      });
    } catch (error) {
      if (!isConflict(error)) throw error;
    }
    if (this.#triedAt.size >= knownMax) this.#triedAt.clear();
    this.#triedAt.set(uid, now);
  }
}
