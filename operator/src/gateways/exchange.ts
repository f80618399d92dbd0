import {
  type Cache,
  type KubeClient,
  type Log,
  type ObjectRef,
  pause,
  refOf,
  type UntypedObject,
} from "../kube/index.ts";
import type { GatewayReport, GatewayReports } from "../resources/index.ts";
import { kinds } from "../resources/index.ts";

/** Carried by the objects through which replicas tell each other what their gateways say. */
export const reportsLabel = "sallyport.dev/reports-of";

/** What the exchange is made of. */
export interface ReportExchangeParts {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly podName: string;
  readonly prefix: string;
  /** This replica's own streams. */
  readonly own: GatewayReports;
  /** The ConfigMaps of all replicas. */
  readonly others: Cache<UntypedObject>;
  readonly onChange: (resource: ObjectRef) => void;
  readonly log: Log;
}

const publishEveryMs = 1_000;
const bytesMax = 900_000;
/** A replica that was killed cannot take its word back: it renews it, and an old word counts no more. */
const renewEveryMs = 30_000;
const keptMs = 90_000;
const deadMs = 600_000;

/**
 * Gateways are connected to any replica, and the leader tells of all of them: each replica publishes what its own
 * gateways say, a second after it changed at the most, and reads the others'.
 */
export class ReportExchange implements GatewayReports {
  readonly #parts: ReportExchangeParts;
  readonly #known = new Set<string>();
  readonly #heard = new Map<string, ReadonlyMap<string, readonly GatewayReport[]>>();
  #published = "";
  #publishedAt = 0;

  constructor(parts: ReportExchangeParts) {
    this.#parts = parts;
    parts.others.onChange((change) =>
      this.#hear(change.kind === "removed" ? undefined : change.object, change.object),
    );
  }

  /** What every gateway of a resource says, on whichever replica. */
  of(resource: string): readonly GatewayReport[] {
    const reports = new Map<string, GatewayReport>();
    for (const told of this.#heard.values())
      for (const one of told.get(resource) ?? []) reports.set(one.podUid, one);
    for (const one of this.#parts.own.of(resource)) reports.set(one.podUid, one);
    return [...reports.values()];
  }

  /** A gateway of this replica said something. */
  note(resource: string): void {
    this.#known.add(resource);
  }

  /** Publishes until the signal, then takes the word back. */
  async run(signal: AbortSignal): Promise<void> {
    const { client, log, namespace } = this.#parts;
    while (!signal.aborted) {
      try {
        await this.#publish(signal);
      } catch (error) {
        if (!signal.aborted) log.warn({ err: error }, "what gateways say could not be published");
      }
      await pause(publishEveryMs, signal);
    }
    if (this.#published === "") return;
    await client
      .delete(kinds.configMap, { namespace, name: this.#name() }, { timeoutMs: 3_000 })
      .catch((error: unknown) => log.warn({ err: error }, "what gateways said could not be taken back"));
  }

  async #publish(signal: AbortSignal): Promise<void> {
    const { own, client, namespace, podName } = this.#parts;
    const all: { readonly resource: string; readonly reports: readonly GatewayReport[]; bytes: number }[] =
      [];
    for (const resource of this.#known) {
      const reports = own.of(resource);
      if (reports.length === 0) this.#known.delete(resource);
      else all.push({ resource, reports, bytes: Buffer.byteLength(JSON.stringify({ [resource]: reports })) });
    }
    // What a ConfigMap may hold is bounded. Whoever says most is left out, and is told of by its pods alone: one resource's
    // gateways take no other's room.
    all.sort((a, b) => a.bytes - b.bytes || (a.resource < b.resource ? -1 : 1));
    const told: Record<string, readonly GatewayReport[]> = {};
    let left = bytesMax;
    for (const { resource, reports, bytes } of all) {
      left -= bytes;
      if (left < 0) break;
      told[resource] = reports;
    }
    const text = JSON.stringify(told);
    await this.#forgetTheDead(signal);
    const isStale = performance.now() - this.#publishedAt >= renewEveryMs;
    if (text === this.#published || (text === "{}" && this.#published === "")) {
      if (!isStale || text === "{}") return;
    }
    const labels = {
      "app.kubernetes.io/part-of": "sallyport",
      "sallyport.dev/kept": "true",
      [reportsLabel]: podName,
    };
    const applied = {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: this.#name(), namespace, labels },
      data: { reports: text, at: String(Date.now()) },
    };
    await client.apply(kinds.configMap, applied, { fieldManager: "sallyport-reports", force: true, signal });
    this.#published = text;
    this.#publishedAt = performance.now();
  }

  /** What a replica said that was killed long ago. */
  async #forgetTheDead(signal: AbortSignal): Promise<void> {
    const { client, others } = this.#parts;
    for (const { data, metadata } of others.list()) {
      const at = Number((data as { readonly at?: string } | undefined)?.at);
      if (Date.now() - at < deadMs) continue;
      const uid = metadata.uid === undefined ? {} : { uid: metadata.uid };
      await client.delete(kinds.configMap, metadata, { ...uid, signal });
    }
  }

  #hear(object: UntypedObject | undefined, { metadata }: UntypedObject): void {
    const from = metadata.labels?.[reportsLabel] ?? "";
    if (from === this.#parts.podName) return;
    const before = this.#heard.get(from) ?? new Map<string, readonly GatewayReport[]>();
    const next = object === undefined ? new Map() : reportsOf(object);
    if (next.size === 0) this.#heard.delete(from);
    else this.#heard.set(from, next);
    for (const resource of new Set([...before.keys(), ...next.keys()])) {
      const isSame = JSON.stringify(before.get(resource)) === JSON.stringify(next.get(resource));
      if (!isSame) this.#parts.onChange(refOf(resource));
    }
  }

  #name(): string {
    return `${this.#parts.podName}-reports`;
  }
}

function reportsOf(object: UntypedObject): ReadonlyMap<string, readonly GatewayReport[]> {
  const data = object.data as { readonly reports?: string; readonly at?: string } | undefined;
  // Clocks of one cluster's nodes differ by less than what is left of this.
  if (data?.reports === undefined || Date.now() - Number(data.at) > keptMs) return new Map();
  try {
    return new Map(Object.entries(JSON.parse(data.reports) as Record<string, readonly GatewayReport[]>));
  } catch {
    // Another release's form: that replica's gateways are not told of until it is replaced.
    return new Map();
  }
}
