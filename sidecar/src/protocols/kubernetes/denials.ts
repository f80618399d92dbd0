/**
 * kubectl answers a refused WebSocket by asking again with SPDY, and shows the second refusal only. Both are one
 * decision: the second gets the first one's id and no record of its own, whichever process or replica it reaches.
 */
import { createHash } from "node:crypto";
import type { Identity } from "@sallyport/policy";
import type { HttpHead } from "../../wire/http-server.ts";
import { type ApiRequest, targetOf } from "./request.ts";

const rememberedMs = 10_000;
const rememberedMax = 1_000;

/** What was refused here over WebSocket a moment ago: each accounts for one SPDY request. */
export class Denials {
  readonly #denials = new Map<string, { readonly id: string; readonly untilMs: number }>();
  readonly #nowMs: () => number;

  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
  }

  remember(digest: string, id: string): void {
    if (this.#denials.size >= rememberedMax) this.#denials.delete([...this.#denials.keys()][0] ?? "");
    this.#denials.set(digest, { id, untilMs: this.#nowMs() + rememberedMs });
  }

  /** The id of a denial, once. */
  take(digest: string): string | undefined {
    const known = this.#denials.get(digest);
    this.#denials.delete(digest);
    return known === undefined || known.untilMs < this.#nowMs() ? undefined : known.id;
  }
}

/** What must be the same of two refusals that are one: who asked, in which run of kubectl, for exactly what, and the answer. */
export function digestOfDenial(
  { user }: Identity,
  head: HttpHead,
  request: ApiRequest,
  message: string,
): string {
  const told = [user, runOf(head), targetOf(request), message];
  return createHash("sha256").update(JSON.stringify(told)).digest("hex");
}

/** What a run of kubectl calls itself, from 1.22 on; "" where a client does not say. */
export function runOf({ headers }: HttpHead): string {
  const run = headers["kubectl-session"];
  return typeof run === "string" && run.length <= runLengthMax ? run : "";
}

const runLengthMax = 64;
