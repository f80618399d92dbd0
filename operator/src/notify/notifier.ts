import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Approval } from "@sallyport/crds";
import { Counter, type Registry } from "prom-client";
import { type BackoffBounds, backoffMs, type Cache, type Log, pause } from "../kube/index.ts";
import { bodyOf, type NotifiedEvent, type Template } from "./template.ts";

/** What notifications are sent with. */
export interface NotifierParts {
  readonly approvals: Cache<Approval>;
  /** A mounted Secret with the files `url` and `key`, which the kubelet renews. */
  readonly folder: string;
  readonly template: Template;
  readonly registry: Registry;
  readonly log: Log;
  readonly clock: () => number;
  readonly limits?: Partial<NotifierLimits>;
}

/** Bounds of sending. */
export interface NotifierLimits {
  readonly waitingMax: number;
  readonly triesMax: number;
  readonly answerMs: number;
  readonly backoff: BackoffBounds;
}

const defaultLimits: NotifierLimits = {
  waitingMax: 1_000,
  triesMax: 6,
  answerMs: 10_000,
  backoff: { firstMs: 1_000, mostMs: 60_000 },
};
/** What was asked so shortly before this replica began to lead may not have been sent by the one before. */
const recentMs = 120_000;
const keyBytesMin = 16;

interface Waiting {
  readonly approval: Approval;
  readonly event: NotifiedEvent;
  readonly id: string;
}

/**
 * Sends what becomes of requests to one address, signed. The leader sends; a change of leaders may send twice, and the
 * receiver tells by `idempotency-key`. Nothing that fails here changes what is decided.
 */
export class ApprovalNotifier {
  readonly #parts: NotifierParts;
  readonly #limits: NotifierLimits;
  readonly #waiting: Waiting[] = [];
  /** What was told of each request that is there. */
  readonly #told = new Map<string, NotifiedEvent>();
  readonly #count: Counter<"result">;
  #isLeading = false;
  #wake: () => void = () => undefined;

  constructor(parts: NotifierParts) {
    this.#parts = parts;
    this.#limits = { ...defaultLimits, ...parts.limits };
    this.#count = new Counter({
      name: "sallyport_notifications_total",
      help: "Notifications of requests for approval, by result: sent, failed, dropped.",
      labelNames: ["result"],
      registers: [parts.registry],
    });
    parts.approvals.onChange(({ kind, object }) => {
      const id = object.metadata.uid ?? object.metadata.name;
      if (kind === "removed") this.#told.delete(id);
      else this.#look(object, this.#isLeading);
    });
  }

  /** Sends until the signal: the leader's part. */
  async run(signal: AbortSignal): Promise<void> {
    this.#isLeading = true;
    const stop = () => this.#wake();
    signal.addEventListener("abort", stop);
    try {
      for (const approval of this.#parts.approvals.list()) {
        const { creationTimestamp = "" } = approval.metadata as { readonly creationTimestamp?: string };
        const isRecent = this.#parts.clock() - Date.parse(creationTimestamp) < recentMs;
        if (isRecent && eventOf(approval) === "Requested") {
          this.#told.delete(approval.metadata.uid ?? approval.metadata.name);
          this.#look(approval, true);
        }
      }
      while (!signal.aborted) {
        const next = this.#waiting.shift();
        if (next !== undefined) await this.#send(next, signal);
        else
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
            if (signal.aborted) resolve();
          });
      }
    } finally {
      signal.removeEventListener("abort", stop);
      this.#isLeading = false;
      this.#waiting.length = 0;
    }
  }

  #look(approval: Approval, isToBeSent: boolean): void {
    const event = eventOf(approval);
    const uid = approval.metadata.uid ?? approval.metadata.name;
    if (event === undefined || this.#told.get(uid) === event) return;
    this.#told.set(uid, event);
    if (!isToBeSent) return;
    if (this.#waiting.length >= this.#limits.waitingMax) {
      // The newest is what somebody waits for.
      this.#waiting.shift();
      this.#count.inc({ result: "dropped" });
    }
    this.#waiting.push({ approval, event, id: `${uid}/${event}` });
    this.#wake();
  }

  async #send({ approval, event, id }: Waiting, signal: AbortSignal): Promise<void> {
    const { log, template } = this.#parts;
    const { triesMax, backoff } = this.#limits;
    const about = { approval: approval.metadata.name, event };
    for (let attempt = 0; attempt < triesMax && !signal.aborted; attempt++) {
      // An address of a chat is a secret: of what failed only the sort is told.
      const outcome = await this.#try(bodyOf(template, approval, event), id, signal);
      if (outcome === "sent") {
        this.#count.inc({ result: "sent" });
        return;
      }
      if (outcome.isFinal || attempt === triesMax - 1) {
        log.warn({ ...about, why: outcome.why, tries: attempt + 1 }, "a notification could not be sent");
        break;
      }
      await pause(backoffMs(backoff, attempt + 1), signal);
    }
    this.#count.inc({ result: "failed" });
  }

  async #try(
    body: string,
    id: string,
    signal: AbortSignal,
  ): Promise<"sent" | { readonly why: string; readonly isFinal: boolean }> {
    try {
      const [address, key] = await Promise.all(
        ["url", "key"].map(async (name) => (await readFile(join(this.#parts.folder, name), "utf8")).trim()),
      );
      if (address === undefined || !isUsable(address)) return { why: "the url is not https", isFinal: true };
      if (key === undefined || Buffer.byteLength(key) < keyBytesMin)
        return { why: `the key has fewer than ${keyBytesMin} bytes`, isFinal: true };
      const at = String(Math.floor(this.#parts.clock() / 1000));
      const signature = createHmac("sha256", key).update(`${at}.${body}`).digest("hex");
      const response = await fetch(address, {
        method: "POST",
        body,
        headers: {
          "content-type": "application/json",
          "idempotency-key": id,
          "x-sallyport-timestamp": at,
          "x-sallyport-signature": `v1=${signature}`,
        },
        // Who may answer for the address is who it names: nobody is followed elsewhere.
        redirect: "manual",
        signal: AbortSignal.any([signal, AbortSignal.timeout(this.#limits.answerMs)]),
      });
      await response.body?.cancel();
      if (response.ok) return "sent";
      const isPassing = response.status === 429 || response.status >= 500;
      return { why: `status ${response.status}`, isFinal: !isPassing };
    } catch (error) {
      const { name, code } = error as { readonly name?: string; readonly code?: string };
      return { why: code ?? name ?? "failed", isFinal: code === "ENOENT" };
    }
  }
}

/** Statements and tokens are not for the wire in clear; the loopback is no wire. */
function isUsable(address: string): boolean {
  if (!URL.canParse(address)) return false;
  const { protocol, hostname } = new URL(address);
  return protocol === "https:" || (protocol === "http:" && ["127.0.0.1", "[::1]"].includes(hostname));
}

function eventOf({ status }: Approval): NotifiedEvent | undefined {
  switch (status?.phase) {
    case "Pending":
      return status.conditions?.some(({ type, status: is }) => type === "Validated" && is === "True")
        ? "Requested"
        : undefined;
    case "Approved":
    case "Denied":
    case "Expired":
    case "Cancelled":
    case "Revoked":
      return status.phase;
    default:
      return undefined;
  }
}
