import { type KubeClient, KubeError, type Log, pause } from "../kube/index.ts";
import { type ExecFindings, type OperatorCaches, protectExecLabel } from "../resources/index.ts";

/** What the prober of exec is made of. */
export interface ExecProberParts {
  readonly client: Pick<KubeClient, "request">;
  readonly caches: Pick<OperatorCaches, "namespaces">;
  /** What is known of the labelled namespaces has changed. */
  readonly onChange: () => void;
  readonly log: Log;
  /** How long a namespace that was found closed is left alone. */
  readonly againAfterMs: number;
  readonly lookEveryMs?: number;
}

/** Whether admission keeps everybody out of pods who does not come through a gateway. */
type ExecFinding = "closed" | "open" | "unknown";

interface Found {
  readonly finding: ExecFinding;
  /** The ways that are open. */
  readonly ways: readonly string[];
  readonly atMs: number;
}

/** The chart gives the operator `create` on these ways for these names alone. */
const podName = "sallyport-bypass-probe";
/** No object has such a name: what stands behind a proxy could otherwise answer in the policy's words. */
const proxiedName = "sallyport-bypass-probe_";
const ways: readonly (readonly [way: string, path: string])[] = [
  ["pods/exec", `pods/${podName}/exec?command=true`],
  ["pods/attach", `pods/${podName}/attach`],
  ["pods/portforward", `pods/${podName}/portforward`],
  ["pods/proxy", `pods/${proxiedName}/proxy/`],
  ["services/proxy", `services/${proxiedName}/proxy/`],
];
const namespacesMax = 50;
/** What is open, or could not be found out, is tried again sooner. */
const retryAfterMs = 60_000;

/**
 * Keeps a finding for each namespace in which exec should be closed. It is not asked whether the policies exist: they bind
 * some moments later, and a binding may be gone. What they must refuse, to the operator too, is tried instead: each way
 * into a pod that is not there, without an upgrade, so that nothing can run. Admission comes before the pod is looked for.
 * Ephemeral containers are not tried: of those the pod is looked for first.
 */
export class ExecProber {
  readonly #parts: ExecProberParts;
  readonly #found = new Map<string, Found>();
  #told = "";

  constructor(parts: ExecProberParts) {
    this.#parts = parts;
  }

  /** What is known of the labelled namespaces now. */
  get findings(): ExecFindings {
    const all = this.#labelled();
    const tried = all.slice(0, namespacesMax);
    const named = (finding: ExecFinding) => tried.filter((name) => this.#of(name) === finding);
    const open = named("open");
    return {
      closed: named("closed"),
      open,
      unknown: [...named("unknown"), ...all.slice(namespacesMax)],
      openWays: ways.flatMap(([way]) => (open.some((name) => this.#waysOf(name).includes(way)) ? [way] : [])),
    };
  }

  /** Tries while this replica leads. */
  async run(signal: AbortSignal): Promise<void> {
    const { log, lookEveryMs = 10_000, againAfterMs } = this.#parts;
    // Another replica may have led meanwhile: what was found before is of no use.
    this.#found.clear();
    this.#told = "";
    while (!signal.aborted) {
      try {
        await this.#round(signal);
      } catch (error) {
        if (!signal.aborted) log.warn({ err: error }, "exec could not be tried");
      }
      await pause(Math.min(lookEveryMs, againAfterMs), signal);
    }
  }

  async #round(signal: AbortSignal): Promise<void> {
    const names = this.#labelled().slice(0, namespacesMax);
    const wanted = new Set(names);
    for (const name of this.#found.keys()) if (!wanted.has(name)) this.#found.delete(name);
    for (const name of names) {
      if (!this.#isDue(name)) continue;
      const found = await this.#tried(name, signal);
      if (signal.aborted) return;
      this.#found.set(name, { ...found, atMs: performance.now() });
    }
    const told = JSON.stringify(this.findings);
    if (told === this.#told) return;
    this.#told = told;
    this.#parts.onChange();
  }

  #labelled(): readonly string[] {
    return this.#parts.caches.namespaces
      .list()
      .filter(({ metadata }) => metadata.labels?.[protectExecLabel] === "true")
      .map(({ metadata }) => metadata.name)
      .toSorted();
  }

  #isDue(name: string): boolean {
    const { againAfterMs } = this.#parts;
    const found = this.#found.get(name);
    const keptMs = found?.finding === "closed" ? againAfterMs : Math.min(retryAfterMs, againAfterMs);
    return found === undefined || performance.now() - found.atMs >= keptMs;
  }

  /** A finding that could not be renewed for long is none. */
  #of(name: string): ExecFinding {
    const found = this.#found.get(name);
    const staleAfterMs = 3 * Math.max(this.#parts.againAfterMs, 600_000);
    const isOld = found !== undefined && performance.now() - found.atMs > staleAfterMs;
    return found === undefined || isOld ? "unknown" : found.finding;
  }

  #waysOf(name: string): readonly string[] {
    return this.#found.get(name)?.ways ?? [];
  }

  /** All ways at once: one that is open is enough, and none may be left unknown. */
  async #tried(namespace: string, signal: AbortSignal): Promise<Omit<Found, "atMs">> {
    const findings = await Promise.all(
      ways.map(async ([, rest]): Promise<ExecFinding> => {
        const path = `/api/v1/namespaces/${namespace}/${rest}`;
        try {
          await this.#parts.client.request({ method: "POST", path, retries: 0, timeoutMs: 5_000, signal });
          return "open";
        } catch (error) {
          return readAnswer(error);
        }
      }),
    );
    const open = ways.flatMap(([way], at) => (findings[at] === "open" ? [way] : []));
    const isClosed = findings.every((finding) => finding === "closed");
    return { finding: open.length > 0 ? "open" : isClosed ? "closed" : "unknown", ways: open };
  }
}

/** Reads what the API server answered: without admission it would look for the pod, or miss the upgrade. */
export function readAnswer(error: unknown): ExecFinding {
  if (!(error instanceof KubeError)) return "unknown";
  if (error.status === 404 || error.status === 400) return "open";
  // From Kubernetes 1.37 on a service that is not there is one without endpoints.
  if (error.status === 503 && error.message.includes(`no endpoints available for service "${proxiedName}"`))
    return "open";
  // RBAC refuses with the same status, and so may others' policies, which say nothing of the chart's.
  const isOurs = /is closed in namespace .*; connect through the Sallyport gateway/.test(error.message);
  return error.status === 403 && isOurs ? "closed" : "unknown";
}
