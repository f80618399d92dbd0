import { oneLine, type SessionReport } from "@sallyport/control";
import type { Session, SessionStatus } from "@sallyport/crds";
import { type EventRecorder, type KubeClient, type Log, refOf } from "../kube/index.ts";
import { kinds, type OperatorCaches } from "../resources/index.ts";

/** What writes sessions' objects. */
export interface SessionWriterParts {
  readonly client: KubeClient;
  readonly caches: Pick<OperatorCaches, "protectedResources" | "sessions">;
  readonly events: Pick<EventRecorder, "record">;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly clock: () => Date;
  /** How long an object is kept after its session: each of them says so. */
  readonly ttlAfterFinished: string;
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
 * counts; one that somebody deleted is not made again. Each session is its resource's: what another resource's gateway
 * says under the same id is another session. What went past approval by break-glass is an event on the resource.
 */
export class SessionWriter {
  readonly #parts: SessionWriterParts;
  readonly #waiting = new Map<string, { readonly resource: string; readonly report: SessionReport }>();
  readonly #written = new Map<string, number>();
  readonly #deleted = new Set<string>();
  /** How often each session had gone past approval when that was last told. */
  readonly #told = new Map<string, number>();
  #isWriting = false;

  constructor(parts: SessionWriterParts) {
    this.#parts = parts;
    parts.caches.sessions.onChange(({ kind, object }) => {
      if (kind !== "removed") return;
      this.#remember(keyOf(`${object.metadata.namespace}/${object.spec.resource}`, object.spec.sessionId));
    });
  }

  /** Takes reports of one resource's gateways. */
  take(resource: string, reports: readonly SessionReport[]): void {
    for (const report of reports) {
      // Told whatever becomes of the object: neither a full queue nor its deletion hides it.
      if (report.brokeGlass !== undefined) void this.#tell(resource, report);
      const key = keyOf(resource, report.id);
      if (this.#deleted.has(key)) continue;
      if (this.#waiting.size >= waitingMax && !this.#waiting.has(key)) continue;
      this.#waiting.set(key, { resource, report });
    }
    if (!this.#isWriting) void this.#write();
  }

  /** What went past approval since it was last told; the object remembers that for an operator that comes later. */
  async #tell(resource: string, report: SessionReport): Promise<void> {
    const { caches, events, signal } = this.#parts;
    try {
      await caches.sessions.whenSynced(signal);
    } catch {
      return;
    }
    const owner = caches.protectedResources.get(refOf(resource));
    if (owner === undefined || report.brokeGlass === undefined) return;
    const { count, rules } = report.brokeGlass;
    const key = keyOf(resource, report.id);
    const name = nameOf(report);
    const known = caches.sessions.get({ namespace: owner.metadata.namespace ?? "", name });
    const remembered = known?.spec.resource === owner.metadata.name ? known.status?.counts?.brokeGlass : 0;
    let left = count - Math.max(this.#told.get(key) ?? 0, remembered ?? 0);
    if (left <= 0) return;
    this.#told.delete(key);
    this.#told.set(key, count);
    const [oldest] = this.#told.keys();
    if (this.#told.size > waitingMax && oldest !== undefined) this.#told.delete(oldest);
    for (const { policy, rule, reason, count: uses } of rules) {
      const times = Math.min(left, uses);
      if (times <= 0) continue;
      left -= times;
      const why = reason === "" ? "" : `: ${cleaned(reason, reasonMax)}`;
      events.record({
        regarding: owner,
        type: "Warning",
        reason: "BreakGlass",
        action: "PassApproval",
        note:
          `${cleaned(report.user, nameMax)} went past the approval that ${cleaned(policy, nameMax)}/` +
          `${cleaned(rule, nameMax)} asks for, by break-glass, in ${cleaned(name, nameMax)}${why}`,
        times,
      });
    }
  }

  async #write(): Promise<void> {
    const { caches, log, signal } = this.#parts;
    this.#isWriting = true;
    try {
      // Before the lists are complete no resource and no session is known, and what is said now comes again in a minute.
      await Promise.all([caches.protectedResources.whenSynced(signal), caches.sessions.whenSynced(signal)]);
      for (;;) {
        const [next] = this.#waiting;
        if (next === undefined || signal.aborted) return;
        const [key, { resource, report }] = next;
        this.#waiting.delete(key);
        try {
          await this.#one(resource, report);
        } catch (error) {
          if (signal.aborted) return;
          log.warn({ resource, session: report.id, err: error }, "a session's object could not be written");
        }
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#isWriting = false;
    }
  }

  async #one(resource: string, report: SessionReport): Promise<void> {
    const { client, caches, signal, clock, ttlAfterFinished } = this.#parts;
    const owner = caches.protectedResources.get(refOf(resource));
    const { namespace } = owner?.metadata ?? {};
    if (owner === undefined || namespace === undefined) return;
    const name = nameOf(report);
    const key = keyOf(resource, report.id);
    const status = statusOf(report, clock());
    const known = caches.sessions.get({ namespace, name });
    if (known !== undefined && known.spec.resource !== owner.metadata.name) {
      this.#parts.log.warn({ resource, session: report.id }, "a session of another resource was reported");
      return;
    }
    // It had an object once, and somebody deleted it while nobody was there to see: looked up live, for a cache may lag.
    if (known === undefined && report.noted === true && report.state === "Live") {
      if ((await client.find(kinds.session, { namespace, name }, { signal })) !== undefined) return;
      this.#remember(key);
      this.#parts.deleted(resource, report.id);
      return;
    }
    if (known !== undefined && report.noted === false) this.#parts.noted(resource, report.id);
    // Counts are refreshed once a minute; beginnings and ends are told at once.
    const last = this.#written.get(key);
    const hasBrokenMore = (report.brokeGlass?.count ?? 0) > (known?.status?.counts?.brokeGlass ?? 0);
    const isDue = last === undefined || hasBrokenMore || performance.now() - last >= countsEveryMs;
    if (known !== undefined && known.status?.state === status.state && !isDue) return;
    const { apiVersion, kind } = kinds.session;
    if (known === undefined && last === undefined) {
      await client.apply(
        kinds.session,
        {
          apiVersion,
          kind,
          metadata: { name, namespace, ...ownership(owner.metadata) },
          ...specOf(owner.metadata.name, report, ttlAfterFinished),
        },
        { fieldManager, force: true, signal },
      );
    }
    const applied = { apiVersion, kind, metadata: { name, namespace }, status };
    await client.apply(kinds.session, applied, { fieldManager, force: true, subresource: "status", signal });
    if (report.state === "Live" && report.noted === false) this.#parts.noted(resource, report.id);
    if (report.state === "Ended") this.#written.delete(key);
    else this.#written.set(key, performance.now());
  }

  #remember(key: string): void {
    this.#deleted.add(key);
    this.#written.delete(key);
    if (this.#deleted.size <= waitingMax) return;
    const [oldest] = this.#deleted;
    if (oldest !== undefined) this.#deleted.delete(oldest);
  }
}

const nameMax = 120;
const reasonMax = 200;

/** A session's id is its resource's own: another gateway may say the same. */
const keyOf = (resource: string, id: string): string => `${resource} ${id}`;
const nameOf = ({ id }: SessionReport): string => `session-${id.toLowerCase()}`;

/** Names and words that a gateway sent, for other people's terminals. */
const cleaned = (text: string, lengthMax: number): string => {
  const line = oneLine(text);
  const characters = [...line];
  return characters.length > lengthMax ? `${characters.slice(0, lengthMax).join("")}…` : line;
};

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

function specOf(resource: string, report: SessionReport, ttlAfterFinished: string): Pick<Session, "spec"> {
  const { id, protocol, user, subjectKind, account, clientAddress, startedAt } = report;
  const kind = subjectKind === "Workload" || subjectKind === "Agent" ? subjectKind : "Human";
  return {
    spec: {
      sessionId: id,
      resource,
      protocol,
      subject: { user, kind },
      ...(account !== "" && { credential: cleaned(account, nameMax) }),
      ...(clientAddress !== "" && { client: { address: clientAddress } }),
      startedAt: new Date(startedAt).toISOString(),
      ttlAfterFinished,
    },
  };
}

function statusOf(report: SessionReport, now: Date): SessionStatus {
  const { state, endedAt, endReason, recorder, finalHash, id } = report;
  const { commands, refused, held, brokeGlass } = report;
  const isEnded = state === "Ended";
  return {
    state: isEnded ? "Ended" : "Active",
    ...(isEnded && { endedAt: new Date(endedAt ?? now.getTime()).toISOString() }),
    ...(isEnded && endReason !== undefined && { endReason: capital(endReason) }),
    observedAt: now.toISOString(),
    counts: {
      ...{ commands, refused },
      ...(held !== undefined && { held }),
      ...(brokeGlass !== undefined && { brokeGlass: brokeGlass.count }),
    },
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
