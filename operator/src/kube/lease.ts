/** Which replica reconciles: one lease, held by one of them (15/10/2 s). */
import { randomUUID } from "node:crypto";
import { pause } from "./backoff.ts";
import type { KubeClient } from "./client.ts";
import { isConflict, KubeError } from "./error.ts";
import type { Log } from "./log.ts";
import type { KubeMetrics } from "./metrics.ts";
import { type KubeObject, resourceType } from "./objects.ts";

/** Which lease, for whom, and how quick. */
export interface LeaderElectionOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly name: string;
  /** Unique for each process; see `leaseIdentity`. */
  readonly identity: string;
  readonly log: Log;
  readonly metrics?: KubeMetrics;
  /** Others wait so long after the last renewal that they saw: 15 s. */
  readonly leaseMs?: number;
  /** Who could not renew for so long stops leading: 10 s. */
  readonly renewDeadlineMs?: number;
  /** How often is tried: 2 s. */
  readonly retryMs?: number;
}

/** The lease went to somebody else, or may have: the process has to end, for it may still be acting. */
export class LeaseLostError extends Error {
  constructor() {
    super("the lease was lost");
    this.name = "LeaseLostError";
  }
}

/** Who a process is to the lease: its pod, and this run of it. */
export function leaseIdentity(podName: string): string {
  return `${podName}_${randomUUID()}`;
}

interface Lease extends KubeObject {
  readonly spec?: {
    readonly holderIdentity?: string;
    readonly leaseDurationSeconds?: number;
    readonly acquireTime?: string;
    readonly renewTime?: string;
    readonly leaseTransitions?: number;
  };
}

const leases = resourceType<Lease>("coordination.k8s.io/v1", "Lease", "leases");

/** One process's part in the election. */
export class LeaderElection {
  readonly #options: LeaderElectionOptions;
  readonly #leaseMs: number;
  readonly #renewDeadlineMs: number;
  readonly #retryMs: number;
  /** What was last seen, and when by our own clock: no other clock decides who leads. */
  #seen: { readonly version: string; readonly at: number } | undefined;
  #isLeader = false;
  #mayHold = false;

  constructor(options: LeaderElectionOptions) {
    this.#options = options;
    this.#leaseMs = options.leaseMs ?? 15_000;
    this.#renewDeadlineMs = options.renewDeadlineMs ?? 10_000;
    this.#retryMs = options.retryMs ?? 2_000;
  }

  get isLeader(): boolean {
    return this.#isLeader;
  }

  /**
   * Waits for the lease, then leads until the signal. `lead` gets a signal that also ends with the lease, and has
   * come to rest when it returns: only then is the lease given back. Throws LeaseLostError where the lease is lost.
   */
  async run(signal: AbortSignal, lead: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { name, log, metrics } = this.#options;
    metrics?.leader.set({ name }, 0);
    if (!(await this.#acquire(signal))) {
      // A write that the signal cut off may have taken it.
      if (this.#mayHold) await this.#release();
      return;
    }
    this.#isLeader = true;
    metrics?.leader.set({ name }, 1);
    log.info({ lease: name }, "leading");
    const lost = new AbortController();
    const over = new AbortController();
    const renewing = this.#renew(lost, over.signal);
    let failure: unknown;
    try {
      await Promise.race([lead(AbortSignal.any([signal, lost.signal])), aborted(lost.signal)]);
    } catch (error) {
      failure = error;
    }
    over.abort();
    await renewing;
    this.#isLeader = false;
    metrics?.leader.set({ name }, 0);
    if (lost.signal.aborted) throw new LeaseLostError();
    await this.#release();
    if (failure !== undefined) throw failure;
  }

  async #acquire(signal: AbortSignal): Promise<boolean> {
    const { name, log } = this.#options;
    while (!signal.aborted) {
      try {
        if (await this.#tryToHold(signal, this.#renewDeadlineMs)) return true;
      } catch (error) {
        if (signal.aborted) break;
        if (!isConflict(error))
          log.warn({ lease: name, problem: textOf(error) }, "the lease could not be read or taken");
      }
      await pause(this.#retryMs * (1 + 0.2 * Math.random()), signal);
    }
    return false;
  }

  /** Renews until `over`; a lease that could not be renewed in time is lost. */
  async #renew(lost: AbortController, over: AbortSignal): Promise<void> {
    const { name, log } = this.#options;
    let renewedAt = performance.now();
    while (await pause(this.#retryMs, over)) {
      const leftMs = this.#renewDeadlineMs - (performance.now() - renewedAt);
      try {
        if (leftMs > 0 && !(await this.#tryToHold(over, leftMs))) {
          log.error({ lease: name }, "the lease has another holder");
          lost.abort();
          return;
        }
        if (leftMs > 0) renewedAt = performance.now();
      } catch (error) {
        if (over.aborted) return;
        log.warn({ lease: name, problem: textOf(error) }, "the lease could not be renewed");
      }
      if (performance.now() - renewedAt >= this.#renewDeadlineMs) {
        log.error({ lease: name }, "the lease was not renewed in time");
        lost.abort();
        return;
      }
    }
  }

  /** True where the lease is ours for another while; false where somebody else holds it. */
  async #tryToHold(signal: AbortSignal, timeoutMs: number): Promise<boolean> {
    const { client, namespace, name, identity } = this.#options;
    const call = { signal, timeoutMs, retries: 0 };
    const found = await client.find(leases, { namespace, name }, call);
    const now = microTime(new Date());
    const spec = {
      holderIdentity: identity,
      leaseDurationSeconds: Math.max(1, Math.ceil(this.#leaseMs / 1000)),
      renewTime: now,
    };
    if (found === undefined) {
      this.#mayHold = true;
      const lease = {
        metadata: { name, namespace },
        spec: { ...spec, acquireTime: now, leaseTransitions: 0 },
      };
      await client.create(leases, lease, call);
      return true;
    }
    const holder = found.spec?.holderIdentity ?? "";
    const isOurs = holder === identity;
    if (!isOurs && holder !== "" && !this.#isExpired(found)) return false;
    this.#mayHold = true;
    await client.replace(
      leases,
      {
        metadata: found.metadata,
        spec: isOurs
          ? { ...found.spec, ...spec }
          : { ...spec, acquireTime: now, leaseTransitions: (found.spec?.leaseTransitions ?? 0) + 1 },
      },
      call,
    );
    return true;
  }

  /** Whether nobody has touched the lease since we first saw it like this, for its whole length. */
  #isExpired({ metadata, spec }: Lease): boolean {
    const now = performance.now();
    const version = metadata.resourceVersion ?? "";
    if (this.#seen?.version !== version) this.#seen = { version, at: now };
    const lengthMs = Math.max(this.#leaseMs, (spec?.leaseDurationSeconds ?? 0) * 1000);
    return now - this.#seen.at > lengthMs;
  }

  /** Gives the lease back, so that the next one need not wait for its end. */
  async #release(): Promise<void> {
    const { client, name, namespace, identity, log } = this.#options;
    const call = { timeoutMs: 3000, retries: 1 };
    try {
      // Read anew: a renewal may have been cut off after it was written.
      const lease = await client.get(leases, { namespace, name }, call);
      if (lease.spec?.holderIdentity !== identity) return;
      const spec = {
        ...lease.spec,
        holderIdentity: "",
        leaseDurationSeconds: 1,
        renewTime: microTime(new Date()),
      };
      await client.replace(leases, { metadata: lease.metadata, spec }, call);
      log.info({ lease: name }, "lease given back");
    } catch (error) {
      const problem = textOf(error);
      log.warn({ lease: name, problem }, "the lease could not be given back; it runs out by itself");
    }
  }
}

/** metav1.MicroTime. */
export function microTime(date: Date): string {
  return date.toISOString().replace("Z", "000Z");
}

const textOf = (error: unknown): string => (error instanceof KubeError ? error.message : String(error));

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
