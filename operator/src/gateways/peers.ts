import { isIP } from "node:net";
import {
  asksPeers,
  controlLimits,
  type GatewayPeer,
  type OperatorMessage,
  peerPort,
} from "@sallyport/control";
import type { ProtectedResource } from "@sallyport/crds";
import type { IsGateway, Told } from "../control/index.ts";
import { type KubeObject, keyOf } from "../kube/index.ts";
import { gatewayLabel, namesOf } from "../placement/index.ts";
import type { OperatorCaches } from "../resources/index.ts";

/** What gateways are told of each other. */
export type PeersMessage = Extract<OperatorMessage, { kind: "peers" }>;

/** Pods of one rollout change in a burst: one look at the end of it. */
const burstMs = 50;

/** What tells gateways of their peers. */
export interface PeerDeskParts {
  readonly caches: Pick<OperatorCaches, "pods" | "protectedResources">;
  readonly isGateway: IsGateway;
  /** What gateways' certificates are checked against, as PEM; undefined while there is nothing to sign with. */
  readonly authorities: () => string | undefined;
  /** Tells every gateway of a resource that is connected here. */
  readonly tell: (resource: string, message: PeersMessage) => void;
}

/**
 * Tells the gateways of a resource where the others are, so that a cancel request that arrives at one reaches the one that
 * has the session. Who is one is proved like a stream is: by its rendering and not by its labels; every replica tells its own.
 */
export class PeerDesk {
  readonly #parts: PeerDeskParts;
  readonly #messages = new Map<string, { readonly message: PeersMessage; readonly text: string }>();
  readonly #dirty = new Set<string>();
  #flushing: NodeJS.Timeout | undefined;
  #isComplete = false;

  constructor(parts: PeerDeskParts) {
    this.#parts = parts;
    const { caches } = parts;
    caches.pods.onChange((change) => {
      this.#touchPod(change.object);
      if (change.kind === "changed") this.#touchPod(change.before);
    });
    caches.protectedResources.onChange(({ object }) => this.#touch(keyOf(object.metadata)));
  }

  /** Every list is complete: a peer that is in none of them is gone, and may be said to be. */
  complete(): void {
    this.#isComplete = true;
    this.everything();
  }

  /** What all of them are told may be another now. */
  everything(): void {
    for (const { metadata } of this.#parts.caches.protectedResources.list()) this.#touch(keyOf(metadata));
  }

  /** A gateway has come: what it knew before it lost its stream may be of yesterday. */
  joined(resource: string, stream: Told): void {
    const found = this.#messages.get(resource)?.message;
    if (found !== undefined) stream.tell(found);
  }

  close(): void {
    clearTimeout(this.#flushing);
  }

  #touchPod({ metadata }: KubeObject): void {
    const label = metadata.labels?.[gatewayLabel];
    const resources = this.#parts.caches.protectedResources.list(metadata.namespace);
    const found = resources.find((one) => namesOf(one).label === label);
    if (found !== undefined) this.#touch(keyOf(found.metadata));
  }

  #touch(resource: string): void {
    if (!this.#isComplete) return;
    this.#dirty.add(resource);
    this.#flushing ??= setTimeout(() => this.#flush(), burstMs);
  }

  #flush(): void {
    this.#flushing = undefined;
    const keys = [...this.#dirty];
    this.#dirty.clear();
    const { caches, authorities, tell } = this.#parts;
    const trusted = authorities();
    for (const key of keys) {
      const slash = key.indexOf("/");
      const ref = { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
      const resource = caches.protectedResources.get(ref);
      if (resource === undefined || trusted === undefined || !asksPeers(resource.spec.protocol)) {
        this.#messages.delete(key);
        continue;
      }
      const message: PeersMessage = {
        kind: "peers",
        authorities: trusted,
        peers: this.#peers(key, resource),
      };
      const text = JSON.stringify(message);
      if (this.#messages.get(key)?.text === text) continue;
      this.#messages.set(key, { message, text });
      tell(key, message);
    }
  }

  /** One that is being deleted is among them: its sessions drain, and may be cancelled meanwhile. */
  #peers(key: string, resource: ProtectedResource): readonly GatewayPeer[] {
    const { caches, isGateway } = this.#parts;
    const { label } = namesOf(resource);
    return caches.pods
      .list(resource.metadata.namespace)
      .filter(({ metadata }) => metadata.labels?.[gatewayLabel] === label)
      .flatMap((pod) => {
        const { podIP: host = "", phase = "" } = pod.status ?? {};
        const podUid = pod.metadata.uid;
        if (podUid === undefined || isIP(host) === 0 || /^(Succeeded|Failed)$/.test(phase)) return [];
        const found = isGateway(pod);
        return found.kind === "gateway" && found.resource === key ? [{ podUid, host, port: peerPort }] : [];
      })
      .toSorted((a, b) => (a.podUid < b.podUid ? -1 : 1))
      .slice(0, controlLimits.peersMax);
  }
}
