import type { ApprovalAsk } from "@sallyport/control";
import type { Approval } from "@sallyport/crds";
import type { Told } from "../control/index.ts";
import { type KubeClient, KubeError, type Log, type ObjectRef, refOf } from "../kube/index.ts";
import { gatewayPodLabel, isBorneOut, kinds, type OperatorCaches } from "../resources/index.ts";
import { AskBudget } from "./ask-budget.ts";

/** What turns gateways' asks into Approval objects. */
export interface ApprovalDeskParts {
  readonly client: KubeClient;
  readonly caches: Pick<OperatorCaches, "approvals" | "protectedResources">;
  /** Whether admission checks who decides, found out now. */
  readonly isGuarded: (signal: AbortSignal) => Promise<boolean>;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly clock: () => Date;
}

/** Time for a gateway that has come to say what it holds. */
const asksAgainMs = 30_000;
const heldMax = 10_000;
/** What of all may be one resource's: each request is an object that stays until its retention is over. */
const ofResource = { heldMax: 2_000, burst: 2_000, perSecond: 1 };
/** What of a resource's may be one requester's. */
const ofRequester = { heldMax: 300, burst: 300, perSecond: 0.2 };
const commandCharactersMax = 32_768;
const lastsMsMax = 86_400_000;

/**
 * Makes an Approval for each command that a gateway holds, and tells that gateway what became of it, on whichever replica
 * it is connected to. A gateway that comes back asks again: it finds the object that is there already.
 */
export class ApprovalDesk {
  readonly #parts: ApprovalDeskParts;
  /** Who holds which command, by `namespace/name` of its request. */
  readonly #asking = new Map<string, Asking>();
  /** What is being written: its end waits for that, or it would find nothing to close. */
  readonly #opening = new Map<string, Promise<void>>();
  readonly #resources = new AskBudget(ofResource);
  readonly #requesters = new AskBudget(ofRequester);

  constructor(parts: ApprovalDeskParts) {
    this.#parts = parts;
    parts.caches.approvals.onChange(({ kind, object }) => {
      if (kind !== "removed") this.#tellOutcome(object);
      else if (this.#isAsked(object)) this.#tell(keyOf(object), { kind: "cancelled" });
    });
  }

  /** Takes an ask of a gateway of this resource. */
  asked(resource: string, ask: ApprovalAsk, stream: Told): void {
    const key = `${refOf(resource).namespace ?? ""}/${ask.id}`;
    const opening = this.#open(resource, ask, stream)
      .catch((error: unknown) => {
        const { log, signal } = this.#parts;
        if (signal.aborted) return;
        log.warn({ resource, approval: ask.id, err: error }, "an approval could not be asked for");
        const message = "the request could not be written";
        stream.tell({ kind: "decision", id: ask.id, decision: { kind: "unavailable", message } });
      })
      .finally(() => {
        if (this.#opening.get(key) === opening) this.#opening.delete(key);
      });
    this.#opening.set(key, opening);
  }

  /**
   * A gateway has come, and asks again at once for what it holds. What its pod asked for and it does not know was held by a
   * process that is gone: the pod's container was started again.
   */
  joined(resource: string, stream: Told): void {
    const podUid = stream.gateway?.pod.uid;
    const { namespace = "", name } = refOf(resource);
    const { caches, signal } = this.#parts;
    const before = caches.approvals.list(namespace).filter(({ metadata, spec, status }) => {
      const isOfPod = podUid !== undefined && metadata.labels?.[gatewayPodLabel] === podUid;
      return isOfPod && spec.request.resource === name && (status?.phase ?? "Pending") === "Pending";
    });
    if (before.length === 0) return;
    const timer = setTimeout(() => {
      // Where it has left again, whoever serves it next finds out.
      if (signal.aborted || stream.isOver === true) return;
      for (const { metadata } of before) {
        const now = caches.approvals.get(metadata);
        const isPending = now !== undefined && (now.status?.phase ?? "Pending") === "Pending";
        const isHeld = this.#asking.get(keyOf({ metadata }))?.stream === stream;
        if (isPending && !isHeld) this.ended(resource, metadata.name, "Cancelled");
      }
    }, asksAgainMs);
    timer.unref();
  }

  /** The command is not held any longer, or has run. */
  ended(resource: string, id: string, phase: "Cancelled" | "Used"): void {
    const { namespace = "", name } = refOf(resource);
    const key = `${namespace}/${id}`;
    const close = async () => {
      await this.#opening.get(key);
      this.#asking.delete(key);
      await this.#close({ namespace, name: id }, name, phase);
    };
    close().catch((error: unknown) => {
      const { log, signal } = this.#parts;
      if (!signal.aborted) log.info({ approval: id, phase, err: error }, "an approval is closed already");
    });
  }

  async #close(ref: ObjectRef, resource: string, phase: "Cancelled" | "Used"): Promise<void> {
    const { client, signal, clock } = this.#parts;
    const found = await client.find(kinds.approval, ref, { signal });
    const request = found?.spec.request;
    // A gateway ends what was asked for its own resource alone.
    if (request?.type !== "Statement" || request.resource !== resource) return;
    const isWindow = found?.status?.grantedUntil !== undefined;
    // What a window lets through outlives the session that asked first; it is over with the window.
    if (isWindow && (phase === "Cancelled" || found.status?.usedAt !== undefined)) return;
    const at = clock()
      .toISOString()
      .replace(/\.\d+Z$/, "Z");
    const used = { usedAt: at, ...(isWindow ? {} : { phase }) };
    const status = phase === "Used" ? used : { phase, decidedAt: at };
    await client.patch(
      kinds.approval,
      ref,
      { kind: "merge", merge: { status } },
      { subresource: "status", fieldManager: "sallyport-approval-status", signal },
    );
  }

  async #open(resource: string, ask: ApprovalAsk, stream: Told): Promise<void> {
    const { client, caches, signal, clock } = this.#parts;
    const owner = caches.protectedResources.get(refOf(resource));
    const podUid = stream.gateway?.pod.uid;
    const refuse = (message: string) =>
      stream.tell({ kind: "decision", id: ask.id, decision: { kind: "unavailable", message } });
    if (owner === undefined || podUid === undefined) return refuse("the resource is not known");
    const request = requestOf(ask, owner.metadata.name, clock());
    if (request === undefined) return refuse("the request cannot be read, or is too long to be shown whole");
    if (this.#asking.size >= heldMax) return refuse("too many requests wait for approval");
    const { namespace = "" } = owner.metadata;
    const object: Approval = {
      apiVersion: "sallyport.dev/v1alpha1",
      kind: "Approval",
      metadata: {
        name: ask.id,
        namespace,
        // No owner: what was decided stays on record when the resource is deleted, until its retention is over.
        labels: { [gatewayPodLabel]: podUid },
      },
      spec: { request, decisions: [] },
    };
    if (!(await this.#parts.isGuarded(signal)))
      return refuse("the admission policies for Approvals are not in force");
    // A name that another command is held under is not taken over.
    const before = this.#asking.get(keyOf(object));
    if (before !== undefined && (before.digest !== request.digest || before.sessionId !== ask.session))
      return refuse("the name is taken");
    const { requester } = request;
    // What it comes back for is there already.
    const isNew = before === undefined && caches.approvals.get({ namespace, name: ask.id }) === undefined;
    if (isNew && !this.#mayAsk(resource, requester))
      return refuse("too many requests for approval were made");
    const asking = { stream, digest: request.digest, sessionId: ask.session, resource, requester };
    this.#asking.set(keyOf(object), asking);
    try {
      await client.create(kinds.approval, object, { fieldManager: "sallyport-approval", signal });
    } catch (error) {
      if (!(error instanceof KubeError) || error.reason !== "AlreadyExists") {
        this.#asking.delete(keyOf(object));
        throw error;
      }
      const there = await client.get(kinds.approval, { namespace, name: ask.id }, { signal });
      if (this.#isAsked(there)) this.#tellOutcome(there);
      else {
        this.#asking.delete(keyOf(object));
        refuse("the name is taken");
      }
    }
  }

  /** One user, or one gateway, leaves the others and the cluster's store their room. */
  #mayAsk(resource: string, requester: string): boolean {
    const own = [...this.#asking.values()].filter((asking) => asking.resource === resource);
    if (own.length >= ofResource.heldMax) return false;
    if (own.filter((asking) => asking.requester === requester).length >= ofRequester.heldMax) return false;
    return this.#requesters.take(`${resource} ${requester}`) && this.#resources.take(resource);
  }

  /** Whether it is the request for the command that is held under its name; somebody else's of that name says nothing of it. */
  #isAsked(approval: Approval): boolean {
    const { digest, sessionId, type } = approval.spec.request;
    const asking = this.#asking.get(keyOf(approval));
    return (
      asking !== undefined &&
      type === "Statement" &&
      digest === asking.digest &&
      sessionId === asking.sessionId
    );
  }

  #tellOutcome(approval: Approval): void {
    if (!this.#isAsked(approval)) return;
    // Perhaps another replica was told that it has run: of this one there is nothing to tell any more.
    if (approval.status?.phase === "Used") this.#asking.delete(keyOf(approval));
    const outcome = outcomeOf(approval);
    if (outcome !== undefined) this.#tell(keyOf(approval), outcome);
  }

  #tell(key: string, decision: Outcome): void {
    const stream = this.#asking.get(key)?.stream;
    if (stream === undefined) return;
    // What is approved can still be taken back.
    if (decision.kind !== "approved") this.#asking.delete(key);
    stream.tell({ kind: "decision", id: key.slice(key.indexOf("/") + 1), decision });
  }
}

type Outcome =
  | { readonly kind: "approved"; readonly by: readonly string[] }
  | { readonly kind: "denied"; readonly by: string; readonly comment?: string }
  | { readonly kind: "expired" | "cancelled" | "revoked" };

interface Asking {
  readonly stream: Told;
  readonly digest: string | undefined;
  readonly sessionId: string;
  readonly resource: string;
  readonly requester: string;
}

function outcomeOf(approval: Approval): Outcome | undefined {
  const { spec, status } = approval;
  const { decisions = [] } = spec;
  switch (status?.phase) {
    case "Approved":
      if (!isBorneOut(approval)) return undefined;
      return { kind: "approved", by: decisions.map(({ approver }) => approver) };
    case "Denied": {
      const denial = decisions.find(({ decision }) => decision === "Denied");
      const { approver: by = "", comment } = denial ?? {};
      return { kind: "denied", by, ...(comment === undefined ? {} : { comment }) };
    }
    case "Expired":
      return { kind: "expired" };
    case "Revoked":
      return { kind: "revoked" };
    case "Cancelled":
      return { kind: "cancelled" };
    default:
      return undefined;
  }
}

/** The request as the object keeps it; undefined where what the gateway sent is none. The schema checks the rest. */
function requestOf(ask: ApprovalAsk, resource: string, now: Date): Approval["spec"]["request"] | undefined {
  if (typeof ask.request !== "object" || ask.request === null) return undefined;
  const asked = ask.request as Readonly<Record<string, unknown>>;
  const { requester, onBehalfOf, subject, subjectKind, command, digest, reason, lastsMs, policies } = asked;
  const isReadable =
    typeof requester === "string" &&
    typeof command === "string" &&
    command.length <= commandCharactersMax &&
    typeof digest === "string" &&
    typeof lastsMs === "number" &&
    lastsMs > 0 &&
    Array.isArray(policies);
  if (!isReadable) return undefined;
  const expiresAt = new Date(now.getTime() + Math.min(lastsMs, lastsMsMax)).toISOString();
  return {
    type: "Statement",
    requester,
    ...(typeof onBehalfOf === "string" && { onBehalfOf }),
    ...(typeof subject === "string" && { subject }),
    ...((subjectKind === "Human" || subjectKind === "Workload" || subjectKind === "Agent") && {
      subjectKind,
    }),
    resource,
    policies: policies as Approval["spec"]["request"]["policies"],
    command,
    digest,
    sessionId: ask.session,
    ...(typeof reason === "string" && { reason }),
    expiresAt,
  };
}

const keyOf = ({ metadata }: Pick<Approval, "metadata">): string => `${metadata.namespace}/${metadata.name}`;
