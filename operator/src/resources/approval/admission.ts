import type { Approval } from "@sallyport/crds";
import { type KubeClient, KubeError, type Log, pause } from "../../kube/index.ts";
import { kinds } from "../kinds.ts";

/** What finds out whether the API server checks Approvals. */
export interface ApprovalAdmissionParts {
  readonly client: KubeClient;
  /** Where the probe is tried; the policies bind every namespace. */
  readonly namespace: string;
  readonly log: Log;
  /** The answer is another one, or the first. */
  readonly onChange: (isInForce: boolean) => void;
}

const keptMs = 1_000;
const everyMs = 15_000;

/**
 * Whether admission for Approvals is in force. It is not asked whether the policies exist: they bind some moments later, and
 * a binding may be gone. What they must refuse, to the operator too, is tried in a dry run instead.
 */
export class ApprovalAdmission {
  readonly #parts: ApprovalAdmissionParts;
  #answer: Promise<boolean> | undefined;
  #askedAt = Number.NEGATIVE_INFINITY;
  #last: boolean | undefined;

  constructor(parts: ApprovalAdmissionParts) {
    this.#parts = parts;
  }

  /** What was found last; undefined before the first time. */
  get isInForce(): boolean | undefined {
    return this.#last;
  }

  /** Finds out now: what was found before a decision was made says nothing of that decision. */
  checkAnew(signal: AbortSignal): Promise<boolean> {
    this.#askedAt = performance.now();
    const answer = this.#probe(signal);
    // Whoever asks next is told no older answer than this.
    this.#answer = answer;
    answer.catch(() => {
      if (this.#answer === answer) this.#answer = undefined;
    });
    return answer;
  }

  /** Finds out, at most once a second; throws where the API server cannot be asked. */
  check(signal: AbortSignal): Promise<boolean> {
    const isOld = performance.now() - this.#askedAt > keptMs;
    return this.#answer === undefined || isOld ? this.checkAnew(signal) : this.#answer;
  }

  /** Finds out again and again until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.check(signal);
      } catch (error) {
        if (!signal.aborted)
          this.#parts.log.warn({ err: error }, "admission for Approvals could not be tried");
      }
      await pause(everyMs, signal);
    }
  }

  async #probe(signal: AbortSignal): Promise<boolean> {
    const { client, namespace, log, onChange } = this.#parts;
    const isInForce = await isRefused(client, namespace, signal);
    if (isInForce !== this.#last) {
      this.#last = isInForce;
      if (isInForce) log.info({}, "admission for Approvals is in force");
      else log.error({}, "admission for Approvals is not in force: nothing is approved");
      onChange(isInForce);
    }
    return isInForce;
  }
}

async function isRefused(client: KubeClient, namespace: string, signal: AbortSignal): Promise<boolean> {
  const forged: Approval = {
    apiVersion: "sallyport.dev/v1alpha1",
    kind: "Approval",
    metadata: { name: "sallyport-probe", namespace },
    spec: {
      request: {
        type: "Access",
        requester: "sallyport:probe",
        resource: "probe",
        policies: [{ kind: "AccessPolicy", policy: "probe", rule: "probe", required: 1 }],
        duration: "1m",
      },
      decisions: [{ approver: "sallyport:approver", decision: "Approved" }],
    },
  };
  try {
    await client.create(kinds.approval, forged, { dryRun: true, signal });
    return false;
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    // Older policies do not check for which policies a decision is: what one says of that could not be believed.
    if (error.reason === "Forbidden")
      return /without decisions; .* each for the policies/.test(error.message);
    // The kind is not there, or not like this: then nothing is in force either.
    if (error.reason === "NotFound" || error.reason === "Invalid" || error.reason === "BadRequest")
      return false;
    throw error;
  }
}
