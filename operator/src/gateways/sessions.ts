import type { SessionReport } from "@sallyport/control";
import type { Session, SessionStatus } from "@sallyport/crds";
import { type KubeClient, type Log, refOf } from "../kube/index.ts";
import { kinds, type OperatorCaches } from "../resources/index.ts";

/** What writes sessions' objects. */
export interface SessionWriterParts {
  readonly client: KubeClient;
  readonly caches: Pick<OperatorCaches, "protectedResources" | "sessions">;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly clock: () => Date;
  /** The session has an object: its gateway is told. */
  readonly noted: (resource: string, session: string) => void;
  /** The object of a live session is gone: its connection ends. */
  readonly deleted: (resource: string, session: string) => void;
}

const fieldManager = "sallyport-session";
const waitingMax = 4096;
const countsEveryMs = 60_000;

/**
 * Turns gateways' reports into Session objects, on whichever replica they come in. Of a session only the latest report
 * counts; one that somebody deleted is not made again.
 */
export class SessionWriter {
  readonly #parts: SessionWriterParts;
  readonly #waiting = new Map<string, { readonly resource: string; readonly report: SessionReport }>();
  readonly #written = new Map<string, number>();
  readonly #deleted = new Set<string>();
  #isWriting = false;

  constructor(parts: SessionWriterParts) {
    this.#parts = parts;
    parts.caches.sessions.onChange(({ kind, object }) => {
      if (kind === "removed") this.#remember(object.spec.sessionId);
    });
  }

  /** Takes reports of one resource's gateways. */
  take(resource: string, reports: readonly SessionReport[]): void {
    for (const report of reports) {
      if (this.#deleted.has(report.id)) continue;
      if (this.#waiting.size >= waitingMax && !this.#waiting.has(report.id)) continue;
      this.#waiting.set(report.id, { resource, report });
    }
    if (!this.#isWriting) void this.#write();
  }

  async #write(): Promise<void> {
    const { log, signal } = this.#parts;
    this.#isWriting = true;
    try {
      for (;;) {
        const [next] = this.#waiting;
        if (next === undefined || signal.aborted) return;
        const [id, { resource, report }] = next;
        this.#waiting.delete(id);
        try {
          await this.#one(resource, report);
        } catch (error) {
          if (signal.aborted) return;
          log.warn({ resource, session: id, err: error }, "a session's object could not be written");
        }
      }
    } finally {
      this.#isWriting = false;
    }
  }

  async #one(resource: string, report: SessionReport): Promise<void> {
    const { client, caches, signal, clock } = this.#parts;
    const owner = caches.protectedResources.get(refOf(resource));
    const { namespace } = owner?.metadata ?? {};
    if (owner === undefined || namespace === undefined) return;
    const name = `session-${report.id.toLowerCase()}`;
    const status = statusOf(report, clock());
    const known = caches.sessions.get({ namespace, name });
    // It had an object once, and somebody deleted it while nobody was there to see: looked up live, for a cache may lag.
    if (known === undefined && report.noted === true && report.state === "Live") {
      if ((await client.find(kinds.session, { namespace, name }, { signal })) !== undefined) return;
      this.#remember(report.id);
      this.#parts.deleted(resource, report.id);
      return;
    }
    if (known !== undefined && report.noted === false) this.#parts.noted(resource, report.id);
    // Counts are refreshed once a minute; beginnings and ends are told at once.
    const last = this.#written.get(report.id);
    const isDue = last === undefined || performance.now() - last >= countsEveryMs;
    if (known !== undefined && known.status?.state === status.state && !isDue) return;
    const { apiVersion, kind } = kinds.session;
    if (known === undefined && last === undefined) {
      await client.apply(
        kinds.session,
        {
          apiVersion,
          kind,
          metadata: { name, namespace, ...ownership(owner.metadata) },
          ...specOf(owner.metadata.name, report),
        },
        { fieldManager, force: true, signal },
      );
    }
    const applied = { apiVersion, kind, metadata: { name, namespace }, status };
    await client.apply(kinds.session, applied, { fieldManager, force: true, subresource: "status", signal });
    if (report.state === "Live" && report.noted === false) this.#parts.noted(resource, report.id);
    if (report.state === "Ended") this.#written.delete(report.id);
    else this.#written.set(report.id, performance.now());
  }

  #remember(id: string): void {
    this.#deleted.add(id);
    this.#written.delete(id);
    if (this.#deleted.size <= waitingMax) return;
    const [oldest] = this.#deleted;
    if (oldest !== undefined) this.#deleted.delete(oldest);
  }
}

function ownership({ name, uid }: { readonly name: string; readonly uid?: string }) {
  return {
    labels: {
      "app.kubernetes.io/part-of": "sallyport",
      "app.kubernetes.io/managed-by": "sallyport-operator",
    },
    // Not its controller: a record of what happened, which goes when the resource and its namespace go.
    ownerReferences: [
      { apiVersion: "sallyport.dev/v1alpha1", kind: "ProtectedResource", name, uid: uid ?? "" },
    ],
  };
}

function specOf(resource: string, report: SessionReport): Pick<Session, "spec"> {
  const { id, protocol, user, subjectKind, account, clientAddress, startedAt } = report;
  const kind = subjectKind === "Workload" || subjectKind === "Agent" ? subjectKind : "Human";
  return {
    spec: {
      sessionId: id,
      resource,
      protocol,
      subject: { user, kind },
      ...(account !== "" && { credential: account }),
      ...(clientAddress !== "" && { client: { address: clientAddress } }),
      startedAt: new Date(startedAt).toISOString(),
    },
  };
}

function statusOf(report: SessionReport, now: Date): SessionStatus {
  const { state, endedAt, endReason, commands, refused, recorder, finalHash, id } = report;
  const isEnded = state === "Ended";
  return {
    state: isEnded ? "Ended" : "Active",
    ...(isEnded && { endedAt: new Date(endedAt ?? now.getTime()).toISOString() }),
    ...(isEnded && endReason !== undefined && { endReason: capital(endReason) }),
    observedAt: now.toISOString(),
    counts: { commands, refused },
    ...((recorder !== undefined || finalHash !== undefined) && {
      recording: {
        reference: recorder === undefined ? id : `${recorder}/${id}`,
        ...(finalHash !== undefined && {
          hash: finalHash.startsWith("sha256:") ? finalHash : `sha256:${finalHash}`,
        }),
      },
    }),
  };
}

/** Reasons are one word in CamelCase. */
function capital(reason: string): string {
  const word = reason.replaceAll(/[^A-Za-z0-9]/g, "");
  return word === "" ? "Unknown" : word[0]?.toUpperCase() + word.slice(1);
}
