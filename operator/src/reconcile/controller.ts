/** The loop: one worker for a key at a time, each reconciliation with a deadline, and a known answer to every failure. */
import { randomUUID } from "node:crypto";
import {
  isConflict,
  KubeError,
  type KubeMetrics,
  type KubeObject,
  keyOf,
  type Log,
  type ObjectRef,
  pause,
  refOf,
  type WorkQueue,
  workQueue,
} from "../kube/index.ts";
import { type Reconciler, TerminalError } from "./reconciler.ts";

/** What a controller is made of. */
export interface ControllerOptions<Observed, Decision> {
  /** Stands in logs and metrics: `protected-resource`. */
  readonly name: string;
  readonly reconciler: Reconciler<Observed, Decision>;
  readonly log: Log;
  readonly metrics?: KubeMetrics;
  /** Keys worked on at once: 4. */
  readonly workers?: number;
  /** One reconciliation ends after so long: 60 s. */
  readonly deadlineMs?: number;
  /** What is in work when the loop is to end gets so long: 10 s. */
  readonly drainMs?: number;
  /** Every key once more, for what no event tells: 10 hours, spread. */
  readonly resync?: { readonly everyMs?: number; keys(): Iterable<ObjectRef> };
  readonly queue?: WorkQueue;
}

/** One kind's controller. Keys may be added before it runs; a standby replica collects them. */
export class Controller<Observed, Decision> {
  readonly #options: ControllerOptions<Observed, Decision>;
  readonly #queue: WorkQueue;

  constructor(options: ControllerOptions<Observed, Decision>) {
    const { name, metrics } = options;
    this.#options = options;
    this.#queue = options.queue ?? workQueue({ name, ...(metrics === undefined ? {} : { metrics }) });
  }

  /** The key is worked on soon; what changed does not matter. */
  enqueue(ref: ObjectRef): void {
    this.#queue.add(keyOf(ref));
  }

  enqueueAfter(ref: ObjectRef, delayMs: number): void {
    this.#queue.addAfter(keyOf(ref), delayMs);
  }

  /** Works until the signal, then finishes what is in work. */
  async run(stop: AbortSignal): Promise<void> {
    const { workers = 4, drainMs = 10_000, name, metrics } = this.#options;
    const hard = new AbortController();
    let drain: NodeJS.Timeout | undefined;
    const end = (): void => {
      this.#queue.shutDown();
      drain = setTimeout(() => hard.abort(new Error("the loop ends")), drainMs);
    };
    if (stop.aborted) end();
    else stop.addEventListener("abort", end, { once: true });
    metrics?.activeWorkers.set({ controller: name }, 0);
    try {
      const loops = Array.from({ length: workers }, () => this.#work(hard.signal));
      await Promise.all([...loops, this.#resync(stop)]);
    } finally {
      clearTimeout(drain);
      stop.removeEventListener("abort", end);
    }
  }

  async #work(hard: AbortSignal): Promise<void> {
    const { name, metrics } = this.#options;
    for (;;) {
      const key = await this.#queue.take();
      if (key === undefined) return;
      metrics?.activeWorkers.inc({ controller: name });
      try {
        await this.#reconcile(key, hard);
      } finally {
        metrics?.activeWorkers.dec({ controller: name });
        this.#queue.done(key);
      }
    }
  }

  async #reconcile(key: string, hard: AbortSignal): Promise<void> {
    const { name: controller, reconciler, deadlineMs = 60_000, metrics } = this.#options;
    const reconcileId = randomUUID();
    const begunAt = performance.now();
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(new Error("a reconciliation took too long")), deadlineMs);
    const context = { ref: refOf(key), signal: AbortSignal.any([hard, deadline.signal]), reconcileId };
    try {
      const observed = await reconciler.observe(context);
      const result = await reconciler.act(reconciler.decide(observed), context);
      this.#queue.forget(key);
      if (result.kind === "requeue") this.#queue.addAfter(key, Math.max(result.afterMs, REQUEUE_MS_LEAST));
      metrics?.reconciles.inc({
        controller,
        result: result.kind === "requeue" ? "requeue_after" : "success",
      });
    } catch (error) {
      this.#failed(key, error, reconcileId, hard.aborted);
    } finally {
      clearTimeout(timer);
      metrics?.reconcileSeconds.observe({ controller }, (performance.now() - begunAt) / 1000);
    }
  }

  #failed(key: string, error: unknown, reconcileId: string, isEnding: boolean): void {
    const { name: controller, log, metrics } = this.#options;
    const { namespace, name } = refOf(key);
    const fields = { controller, namespace, name, reconcileId };
    const count = (result: string): void => metrics?.reconciles.inc({ controller, result });
    if (isEnding) return;
    if (error instanceof TerminalError) {
      this.#queue.forget(key);
      count("terminal_error");
      metrics?.reconcileErrors.inc({ controller });
      log.warn({ ...fields, problem: error.message }, "not tried again until something changes");
      return;
    }
    if (isConflict(error)) {
      count("conflict");
      log.debug(
        { ...fields, problem: error instanceof Error ? error.message : "" },
        "changed meanwhile; trying again",
      );
      this.#queue.addRateLimited(key);
      return;
    }
    if (error instanceof KubeError && error.retryAfterMs !== undefined) {
      count("requeue_after");
      log.info({ ...fields, retryAfterMs: error.retryAfterMs }, "the API server asked to come later");
      this.#queue.addAfter(key, Math.max(error.retryAfterMs, REQUEUE_MS_LEAST));
      return;
    }
    count("error");
    metrics?.reconcileErrors.inc({ controller });
    const failures = this.#queue.failuresOf(key) + 1;
    if (error instanceof KubeError) {
      log.error(
        { ...fields, failures, reason: error.reason, problem: error.message },
        "reconciliation failed",
      );
    } else log.error({ ...fields, failures, err: error }, "reconciliation failed");
    this.#queue.addRateLimited(key);
  }

  async #resync(stop: AbortSignal): Promise<void> {
    const { resync } = this.#options;
    if (resync === undefined) return;
    const everyMs = resync.everyMs ?? 10 * 3_600_000;
    while (await pause(everyMs * (0.9 + 0.2 * Math.random()), stop)) {
      // Spread, so that a resync of thousands is no burst.
      for (const ref of resync.keys())
        this.enqueueAfter(ref, Math.random() * Math.min(everyMs, 600_000) * 0.1);
    }
  }
}

/** A requeue of 0 would be a hot loop. */
const REQUEUE_MS_LEAST = 50;

/** The key of the controlling owner, where it is of this kind: events of children wake their owner. */
export function ownerKey(object: KubeObject, kind: string, apiVersion: string): ObjectRef | undefined {
  const owner = object.metadata.ownerReferences?.find((reference) => reference.controller === true);
  if (owner?.kind !== kind || owner.apiVersion !== apiVersion) return undefined;
  const { namespace } = object.metadata;
  return { name: owner.name, ...(namespace === undefined ? {} : { namespace }) };
}
