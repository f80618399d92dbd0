import type { GatewayProblem } from "@sallyport/control";
import { loadProtocol } from "../protocols/index.ts";
import type { LoopbackFinding } from "../protocols/protocol.ts";
import type { ServedResource } from "./manifest-set.ts";
import type { Secrets } from "./secrets.ts";

/** What is tried, and who is told. */
export interface LoopbackWatchOptions {
  readonly port: number;
  /** The one resource of this gateway, once the operator has said what it is. */
  readonly served: () => ServedResource | undefined;
  readonly secrets: Pick<Secrets, "account">;
  readonly onFound: (problem: GatewayProblem | undefined) => void;
}

const againMs = 600_000;
/** A server that has not started yet is tried again soon. */
const retryMs = 15_000;

/** Tries from time to time whether the server beside the gateway trusts everybody on its loopback. */
export class LoopbackWatch {
  readonly #options: LoopbackWatchOptions;
  readonly #over = new AbortController();
  #dueMs = Number.NEGATIVE_INFINITY;
  #isTrying = false;

  constructor(options: LoopbackWatchOptions) {
    this.#options = options;
    options.onFound(untried);
  }

  /** Called twice a second. */
  tick(): void {
    const served = this.#options.served();
    if (served === undefined || this.#isTrying || performance.now() < this.#dueMs) return;
    this.#isTrying = true;
    void this.#try(served).then((kind) => {
      this.#dueMs = performance.now() + (kind === "unknown" ? retryMs : againMs);
      this.#isTrying = false;
    });
  }

  /** Ends what is being tried. */
  stop(): void {
    this.#over.abort();
  }

  async #try(served: ServedResource): Promise<LoopbackFinding["kind"]> {
    const { port, onFound } = this.#options;
    const users = this.#users(served);
    try {
      const protocol = await loadProtocol(served.spec.protocol);
      const found = await protocol?.trustsLoopback?.({ port, users, signal: this.#over.signal });
      onFound(problemOf(found));
      return found?.kind ?? "unknown";
    } catch {
      // Nothing was found out: what was said before no longer stands.
      onFound(untried);
      return "unknown";
    }
  }

  #users({ facts, spec }: ServedResource): readonly string[] {
    return spec.credentials.flatMap((credential) => {
      try {
        return [this.#options.secrets.account(facts.namespace, credential, spec.endpoint).username];
      } catch {
        // A missing secret is reported elsewhere; the server can be tried without it.
        return [];
      }
    });
  }
}

const untried: GatewayProblem = {
  reason: "LoopbackNotProbed",
  message: "Whether the server trusts the containers beside it could not be tried yet.",
};

function problemOf(found: LoopbackFinding | undefined): GatewayProblem | undefined {
  switch (found?.kind) {
    case "trusted": {
      const whom = `${found.user} from ${found.host}`;
      const message = `The server lets in ${whom} without a credential, and so every container of the pod.`;
      return { reason: "LoopbackTrust", message };
    }
    case "closed":
      return undefined;
    default:
      return untried;
  }
}
