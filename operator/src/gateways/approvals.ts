import type { ApprovalAsk } from "@sallyport/control";
import type { Approval } from "@sallyport/crds";
import type { Told } from "../control/index.ts";
import { type KubeClient, KubeError, type Log, type ObjectRef, refOf } from "../kube/index.ts";
import { gatewayPodLabel, kinds, type OperatorCaches } from "../resources/index.ts";

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

const heldMax = 10_000;
const commandCharactersMax = 32_768;
const lastsMsMax = 86_400_000;

/**
 * Makes an Approval for each command that a gateway holds, and tells that gateway what became of it, on whichever replica
 * it is connected to. A gateway that comes back asks again: it finds the object that is there already.
 */
export class ApprovalDesk {
  readonly #parts: ApprovalDeskParts;
  /** Where each open request is to be told, by `namespace/name`. */
  readonly #asking = new Map<string, Told>();

  constructor(parts: ApprovalDeskParts) {
    this.#parts = parts;
    parts.caches.approvals.onChange(({ kind, object }) => {
      if (kind === "removed") this.#tell(keyOf(object), { kind: "cancelled" });
      else this.#tellOutcome(object);
    });
  }

  /** Takes an ask of a gateway of this resource. */
  asked(resource: string, ask: ApprovalAsk, stream: Told): void {
    this.#open(resource, ask, stream).catch((error: unknown) => {
      const { log, signal } = this.#parts;
      if (signal.aborted) return;
      log.warn({ resource, approval: ask.id, err: error }, "an approval could not be asked for");
      const message = "the request could not be written";
      stream.tell({ kind: "decision", id: ask.id, decision: { kind: "unavailable", message } });
    });
  }

  /** The command is not held any longer, or has run. */
  ended(resource: string, id: string, phase: "Cancelled" | "Used"): void {
    const { namespace = "", name } = refOf(resource);
    this.#asking.delete(`${namespace}/${id}`);
    this.#close({ namespace, name: id }, name, phase).catch((error: unknown) => {
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
    const { namespace = "", uid } = owner.metadata;
    const object: Approval = {
      apiVersion: "sallyport.dev/v1alpha1",
      kind: "Approval",
      metadata: {
        name: ask.id,
        namespace,
        labels: { [gatewayPodLabel]: podUid },
        ...(uid === undefined
          ? {}
          : {
              ownerReferences: [
                { apiVersion: owner.apiVersion, kind: owner.kind, name: owner.metadata.name, uid },
              ],
            }),
      },
      spec: { request, decisions: [] },
    };
    if (!(await this.#parts.isGuarded(signal)))
      return refuse("the admission policies for Approvals are not in force");
    this.#asking.set(keyOf(object), stream);
    try {
      await client.create(kinds.approval, object, { fieldManager: "sallyport-approval", signal });
    } catch (error) {
      if (!(error instanceof KubeError) || error.reason !== "AlreadyExists") throw error;
      const there = await client.get(kinds.approval, { namespace, name: ask.id }, { signal });
      const { digest, sessionId, type } = there.spec.request;
      // Somebody else's of the same name: an approval of it is none of this command.
      const isOurs = type === "Statement" && digest === request.digest && sessionId === request.sessionId;
      if (isOurs) this.#tellOutcome(there);
      else {
        this.#asking.delete(keyOf(object));
        refuse("the name is taken");
      }
    }
  }

  #tellOutcome(approval: Approval): void {
    const outcome = outcomeOf(approval);
    if (outcome !== undefined) this.#tell(keyOf(approval), outcome);
  }

  #tell(key: string, decision: Outcome): void {
    const stream = this.#asking.get(key);
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

function outcomeOf({ spec, status }: Approval): Outcome | undefined {
  const { decisions = [] } = spec;
  switch (status?.phase) {
    case "Approved":
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

const keyOf = ({ metadata }: Approval): string => `${metadata.namespace}/${metadata.name}`;
