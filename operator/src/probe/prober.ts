import type { ProtectedResource } from "@sallyport/crds";
import {
  type KubeClient,
  type KubeObject,
  keyOf,
  type Log,
  type ObjectRef,
  pause,
  refOf,
  resourceType,
} from "../kube/index.ts";
import { type GatewaySettings, listenPort, namesOf } from "../placement/index.ts";
import { labelSelectorText, type OperatorCaches, type ProbeResult, serverPods } from "../resources/index.ts";
import {
  type Address,
  addressesMax,
  type ProbeOwner,
  type ProbePod,
  probePod,
  readFindings,
  type Trial,
} from "./probe-pod.ts";

/** What the prober is made of. */
export interface ProberParts {
  readonly client: KubeClient;
  readonly caches: Pick<OperatorCaches, "protectedResources" | "services" | "pods">;
  readonly settings: GatewaySettings;
  /** The resource with what is required of it. */
  readonly floored: (resource: ProtectedResource) => ProtectedResource;
  /** The name of its pod, in the operator's namespace. */
  readonly podName: string;
  /** The operator's own pod, which the probe's goes with. */
  readonly operatorPod: string;
  readonly onChange: (resource: ObjectRef) => void;
  readonly log: Log;
  readonly lookEveryMs?: number;
  readonly podMs?: number;
}

/** A server's pod. */
interface ServerPod extends KubeObject {
  readonly spec: {
    readonly containers: readonly {
      readonly ports?: readonly { readonly name?: string; readonly containerPort: number }[];
    }[];
  };
  readonly status?: {
    readonly podIP?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

interface Found {
  readonly result: ProbeResult;
  readonly atMs: number;
}

const serverPodType = resourceType<ServerPod>("v1", "Pod", "pods");
const probePodType = resourceType<ProbePod>("v1", "Pod", "pods");
const againAfterMs = 600_000;
/** What could not be found out, or was reached before the policies bound, is tried again sooner. */
const retryAfterMs = 60_000;
/** A finding that could not be renewed for so long is none. */
const staleAfterMs = 3 * againAfterMs;
const resourcesMax = 64;
const podsOfResourceMax = 3;

/**
 * Keeps a finding for each resource whose server runs in the cluster. One pod at a time dials the servers of many
 * resources, from the operator's namespace, and the gateways beside them, so that a network in which nothing is reached
 * passes for nothing. What could not be tried is unknown, and so is a finding that grew old.
 */
export class Prober {
  readonly #parts: ProberParts;
  readonly #found = new Map<string, Found>();

  constructor(parts: ProberParts) {
    this.#parts = parts;
  }

  /** What is known of a resource; unknown where no probe has told, or none of late. */
  of(resource: ProtectedResource): ProbeResult {
    const found = this.#found.get(findingKey(resource));
    return found === undefined || performance.now() - found.atMs > staleAfterMs ? "unknown" : found.result;
  }

  /** Probes while this replica leads. */
  async run(signal: AbortSignal): Promise<void> {
    const { log, lookEveryMs = 10_000 } = this.#parts;
    // Another replica may have led meanwhile: what was found before is of no use.
    this.#found.clear();
    while (!signal.aborted) {
      try {
        await this.#round(signal);
      } catch (error) {
        if (!signal.aborted) log.warn({ err: error }, "a probe could not be made");
      }
      await pause(lookEveryMs, signal);
    }
  }

  async #round(signal: AbortSignal): Promise<void> {
    const all = this.#parts.caches.protectedResources.list();
    const alive = new Set(all.map(findingKey));
    for (const key of this.#found.keys()) if (!alive.has(key)) this.#found.delete(key);
    const due = all
      .filter((resource) => this.#isDue(resource))
      .toSorted((a, b) => this.#age(a) - this.#age(b));
    const trials: Trial[] = [];
    let addresses = 0;
    for (const resource of due) {
      if (trials.length >= resourcesMax || addresses >= addressesMax - 2 * podsOfResourceMax) break;
      const trial = await this.#trial(resource, signal);
      if (trial === undefined) {
        this.#note(resource, "unknown");
        // What costs no call to find out is looked at again at once.
        if (this.#gateways(resource).length === 0) this.#found.delete(findingKey(resource));
        continue;
      }
      trials.push(trial);
      addresses += trial.gateways.length + trial.servers.length;
    }
    if (trials.length === 0) return;
    const asked = new Set(trials.map(({ key }) => key));
    let findings: ReadonlyMap<string, ProbeResult> = new Map();
    try {
      findings = await this.#dialled(trials, signal);
    } finally {
      if (!signal.aborted) {
        for (const resource of due.filter((one) => asked.has(findingKey(one)))) {
          const trial = trials.find(({ key }) => key === findingKey(resource));
          const isSame = await this.#isUnchanged(resource, trial, signal);
          this.#note(resource, isSame ? (findings.get(findingKey(resource)) ?? "unknown") : "unknown");
        }
      }
    }
  }

  #isDue(resource: ProtectedResource): boolean {
    const { bypassProtection } = this.#parts.floored(resource).spec;
    if (bypassProtection.networkPolicy !== "Enforce") return false;
    const found = this.#found.get(findingKey(resource));
    const keptMs = found?.result === "refused" ? againAfterMs : retryAfterMs;
    return found === undefined || performance.now() - found.atMs >= keptMs;
  }

  #age(resource: ProtectedResource): number {
    return this.#found.get(findingKey(resource))?.atMs ?? 0;
  }

  #note(resource: ProtectedResource, result: ProbeResult): void {
    const key = findingKey(resource);
    const before = this.#found.get(key)?.result ?? "unknown";
    this.#found.set(key, { result, atMs: performance.now() });
    if (before !== result) this.#parts.onChange(refOf(keyOf(resource.metadata)));
  }

  /** A pod that was replaced meanwhile was not what was dialled: silence of an address that is gone is no refusal. */
  async #isUnchanged(
    resource: ProtectedResource,
    before: Trial | undefined,
    signal: AbortSignal,
  ): Promise<boolean> {
    const now = await this.#trial(resource, signal).catch(() => undefined);
    const stands = new Set(now?.servers.map(textOf));
    return before?.servers.every((address) => stands.has(textOf(address))) === true;
  }

  async #trial(resource: ProtectedResource, signal: AbortSignal): Promise<Trial | undefined> {
    const gateways = this.#gateways(resource);
    // Without a gateway that could be reached nothing can be concluded: no call is made for it.
    if (gateways.length === 0) return undefined;
    const servers = await this.#servers(resource, signal);
    return servers.length === 0 ? undefined : { key: findingKey(resource), gateways, servers };
  }

  #gateways(resource: ProtectedResource): readonly Address[] {
    const { namespace = "default" } = resource.metadata;
    const port = listenPort(resource);
    if (port === undefined) return [];
    return this.#parts.caches.pods
      .byIndex("resource", `${namespace}/${namesOf(resource).label}`)
      .filter(
        ({ metadata, status }) => status?.phase === "Running" && metadata.deletionTimestamp === undefined,
      )
      .flatMap(({ status }) => (status?.podIP === undefined ? [] : [{ host: status.podIP, port }]))
      .slice(0, podsOfResourceMax);
  }

  /** The server's pods that are ready, by their own addresses: a Service would show what its rules say, too. */
  async #servers(resource: ProtectedResource, signal: AbortSignal): Promise<readonly Address[]> {
    const { client, caches } = this.#parts;
    const { namespace = "default" } = resource.metadata;
    const { serviceRef } = resource.spec.endpoint;
    if (serviceRef === undefined) return [];
    const server = serverPods(caches.services.get({ namespace, name: serviceRef.name }), serviceRef.port);
    if (server === undefined) return [];
    const labelSelector = labelSelectorText({ matchLabels: server.selector });
    const { items } = await client.list(serverPodType, { namespace, labelSelector, signal });
    return items
      .flatMap(({ metadata, spec, status }) => {
        const ports = spec.containers.flatMap((container) => container.ports ?? []);
        const port =
          typeof server.targetPort === "number"
            ? server.targetPort
            : ports.find(({ name }) => name === server.targetPort)?.containerPort;
        const isReady = status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True");
        const host = status?.podIP;
        if (host === undefined || port === undefined) return [];
        return isReady === true && metadata.deletionTimestamp === undefined ? [{ host, port }] : [];
      })
      .slice(0, podsOfResourceMax);
  }

  /** Starts the pod and waits for its last words, a minute at most. */
  async #dialled(trials: readonly Trial[], signal: AbortSignal): Promise<ReadonlyMap<string, ProbeResult>> {
    const { client, settings, podName, podMs = 60_000 } = this.#parts;
    const ref = { namespace: settings.systemNamespace, name: podName };
    await this.#remove(ref, signal);
    const owner = await this.#owner(signal);
    const { metadata } = await client.create(
      probePodType,
      probePod({ name: podName, settings, owner }, trials),
      { signal },
    );
    try {
      const deadline = performance.now() + podMs;
      while (performance.now() < deadline && !signal.aborted) {
        await pause(500, signal);
        const pod = await client.find(probePodType, ref, { signal });
        // Somebody put another pod in its place: what that one says is not ours.
        if (pod === undefined || pod.metadata.uid !== metadata.uid) return new Map();
        if (pod.status?.phase === "Failed") return new Map();
        if (pod.status?.phase === "Succeeded") return readFindings(pod, trials);
      }
      return new Map();
    } finally {
      await this.#remove(ref, AbortSignal.timeout(5_000)).catch(() => undefined);
    }
  }

  /** An operator that is uninstalled, or killed, removes nothing any more: garbage collection does. */
  async #owner(signal: AbortSignal): Promise<ProbeOwner | undefined> {
    const { client, settings, operatorPod: name } = this.#parts;
    const ref = { namespace: settings.systemNamespace, name };
    const uid = (await client.find(probePodType, ref, { signal }))?.metadata.uid;
    return uid === undefined ? undefined : { name, uid };
  }

  async #remove(ref: ObjectRef, signal: AbortSignal): Promise<void> {
    const { client } = this.#parts;
    for (let look = 0; look < 40; look += 1) {
      if (!(await client.delete(probePodType, ref, { gracePeriodSeconds: 0, signal }))) return;
      await pause(250, signal);
    }
    throw new Error("the last probe's pod does not go");
  }
}

const textOf = ({ host, port }: Address): string => `${host} ${port}`;

/** A resource that was changed, or made anew under its name, has to be tried again. */
function findingKey({ metadata }: ProtectedResource): string {
  return `${keyOf(metadata)} ${metadata.uid ?? ""} ${metadata.generation ?? 0}`;
}
