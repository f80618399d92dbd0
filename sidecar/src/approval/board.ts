import { oneLine } from "@sallyport/control";
import { isOwner, isSameName } from "@sallyport/crds/pure";
import type { ApprovalTerms } from "@sallyport/policy";
import type {
  AccessRequest,
  Approval,
  ApproverRule,
  CancelReason,
  Decision,
  Grant,
  HoldOutcome,
  HoldRequest,
  Named,
  Phase,
} from "./model.ts";

/** What was refused, in words for whoever asked. */
export interface BoardRefusal {
  readonly kind: "refused";
  readonly reason:
    | "NotFound"
    | "SelfApproval"
    | "NotHuman"
    | "ApproverIdentityUnknown"
    | "NotAnApprover"
    | "AlreadyDecided"
    | "Closed"
    | "TooMany"
    | "NotAllowed"
    | "RecordUnavailable";
  readonly message: string;
}

/** What a person who decides, asks or revokes is told. */
export type BoardAnswer = { readonly kind: "done"; readonly approval: Approval } | BoardRefusal;

/** An approver with the groups that the provider vouches for. */
export interface Approver extends Named {
  readonly groups: readonly string[];
}

/** Told of what ends; called once a change is on record. */
export interface BoardListener {
  settled(name: string, outcome: HoldOutcome): void;
  revoked(name: string): void;
  grantsChanged(grants: readonly Grant[]): void;
}

/** What the board needs. */
export interface BoardOptions {
  readonly approvers: readonly ApproverRule[];
  readonly nowMs: () => number;
  /** Puts a change on record, durably; what it throws keeps the change from happening. */
  readonly record: (event: string, fields: Readonly<Record<string, unknown>>) => void;
  readonly listener: BoardListener;
}

const openMax = 1000;
const openByRequesterMax = 200;
const closedKeptMax = 1000;
const commentCharactersMax = 1024;

/**
 * All requests of one gateway and what was decided about them: one state machine in memory, every step on record before
 * it counts. Finality is here: a request that is closed takes no decision, and nobody decides twice.
 */
export class ApprovalBoard {
  private readonly approvals = new Map<string, Approval>();
  private grantList: readonly Grant[] = [];
  private readonly options: BoardOptions;

  constructor(options: BoardOptions) {
    this.options = options;
  }

  get isIdle(): boolean {
    return this.grantList.length === 0 && !this.all().some(isOpen);
  }

  get grants(): readonly Grant[] {
    return this.grantList;
  }

  all(): readonly Approval[] {
    return [...this.approvals.values()];
  }

  find(name: string): Approval | undefined {
    return this.approvals.get(name);
  }

  openStatement(name: string, request: HoldRequest): BoardAnswer {
    const { timeoutMs, ...asked } = request;
    return this.open({ ...asked, name, type: "Statement", ...this.fresh(timeoutMs) });
  }

  openAccess(name: string, request: AccessRequest): BoardAnswer {
    const { timeoutMs, ...asked } = request;
    if (!asked.asks.every(({ grant }) => grant === "Window"))
      return refused("NotAllowed", "the rule approves each command by itself (grant: Once): run the command");
    return this.open({ ...asked, name, type: "Access", inTransaction: false, ...this.fresh(timeoutMs) });
  }

  private fresh(timeoutMs: number) {
    const createdAt = this.options.nowMs();
    const phase: Phase = "Pending";
    const decisions: Decision[] = [];
    return { createdAt, expiresAt: createdAt + timeoutMs, phase, decisions };
  }

  private open(approval: Approval): BoardAnswer {
    const open = this.all().filter(isOpen);
    const own = open.filter(({ requester }) => requester.user === approval.requester.user);
    if (open.length >= openMax || own.length >= openByRequesterMax)
      return refused("TooMany", "too many requests wait for approval");
    if (this.approvals.has(approval.name)) return refused("TooMany", "the name is taken; try again");
    if (approval.requester.kubernetesUsername === null)
      return refused("ApproverIdentityUnknown", "your identity provider does not say who you are elsewhere");
    const { asks, ...rest } = approval;
    const policies = asks.map(({ ruleText: _, ...terms }) => terms);
    const isRecorded = this.record("asked", { ...rest, policies });
    if (isRecorded !== undefined) return isRecorded;
    this.approvals.set(approval.name, approval);
    this.forgetOldest();
    return { kind: "done", approval };
  }

  decide(name: string, by: Approver, decision: Decision["decision"], comment?: string): BoardAnswer {
    const approval = this.approvals.get(name);
    if (approval === undefined) return notFound(name);
    this.expire(approval);
    const unfit = unfitToDecide(approval.requester, by);
    if (unfit !== undefined) return unfit;
    if (approval.phase !== "Pending")
      return refused("Closed", `${name} is ${approval.phase} already; decisions are final`);
    const countsFor = approval.asks.flatMap((ask, index) => (this.isApprover(by, ask) ? [index] : []));
    if (countsFor.length === 0)
      return refused("NotAnApprover", `${by.user} may not decide about ${rulesOf(approval.asks)}`);
    if (approval.decisions.some((made) => isSamePerson(made, by)))
      return refused("AlreadyDecided", `you have decided about ${name} already; another person must`);
    const made: Decision = {
      approver: by.user,
      ...(by.kubernetesUsername === undefined ? {} : { kubernetesUsername: by.kubernetesUsername }),
      decision,
      ...(comment === undefined || comment.trim() === "" ? {} : { comment: plainText(comment) }),
      at: this.options.nowMs(),
      countsFor,
    };
    const isRecorded = this.record("decided", { name, ...made });
    if (isRecorded !== undefined) return isRecorded;
    approval.decisions.push(made);
    if (decision === "Denied") {
      const { comment: said } = made;
      this.close(approval, "Denied", { kind: "denied", by: by.user, ...(said ? { comment: said } : {}) });
    } else if (isSatisfied(approval)) this.approve(approval);
    return { kind: "done", approval };
  }

  /** The asking side is gone, or no longer wants it. */
  cancel(name: string, reason: CancelReason): void {
    const approval = this.approvals.get(name);
    if (approval === undefined || !isOpen(approval) || approval.type === "Access") return;
    // What a window of it allows outlives the session that asked first.
    if (approval.phase === "Approved" && approval.asks.some(({ grant }) => grant === "Window")) return;
    approval.cancelledBy = reason;
    // It is over whether or not that can be written: what is not asked for any more must not run.
    this.record("cancelled", { name, reason });
    this.close(approval, "Cancelled", { kind: "cancelled", reason });
  }

  /** Takes an approval back: its requester may, and everybody who may approve it. */
  revoke(name: string, by: Approver, reason?: string): BoardAnswer {
    const approval = this.approvals.get(name);
    if (approval === undefined) return notFound(name);
    this.expire(approval);
    const isRequester = isSamePerson({ ...approval.requester, approver: approval.requester.user }, by);
    const mayApprove = by.kind === "Human" && approval.asks.some((ask) => this.isApprover(by, ask));
    if (!isRequester && !mayApprove) return refused("NotAnApprover", `you may not take ${name} back`);
    if (approval.phase !== "Approved")
      return refused("Closed", `${name} is ${approval.phase}; only what is approved can be taken back`);
    const at = this.options.nowMs();
    const said = reason === undefined ? {} : { reason: plainText(reason) };
    const isRecorded = this.record("revoked", { name, by: by.user, ...said });
    if (isRecorded !== undefined) return isRecorded;
    approval.revocation = { by: by.user, at, ...said };
    approval.phase = "Revoked";
    this.dropGrants((grant) => grant.approval === name);
    this.options.listener.revoked(name);
    return { kind: "done", approval };
  }

  /** What was approved once has run. A window stays open for more of it. */
  used(name: string): void {
    const approval = this.approvals.get(name);
    if (approval?.phase !== "Approved") return;
    approval.usedAt = this.options.nowMs();
    this.record("used", { name });
    if (approval.asks.every(({ grant }) => grant === "Once")) approval.phase = "Used";
  }

  /** Ends what is due. */
  tick(): void {
    for (const approval of this.approvals.values()) this.expire(approval);
    const now = this.options.nowMs();
    this.dropGrants(({ until }) => until <= now);
  }

  private approve(approval: Approval): void {
    approval.phase = "Approved";
    const by = approval.decisions.map(({ approver }) => approver);
    const now = this.options.nowMs();
    const grants = approval.asks.flatMap((ask) => grantOf(approval, ask, now));
    this.record("approved", { name: approval.name, by, grantedUntil: grants.map(({ until }) => until) });
    if (grants.length > 0) {
      approval.expiresAt = Math.max(...grants.map(({ until }) => until));
      this.grantList = [...this.grantList, ...grants];
      this.options.listener.grantsChanged(this.grantList);
    }
    this.options.listener.settled(approval.name, { kind: "approved", by });
  }

  private expire(approval: Approval): void {
    if (this.options.nowMs() < approval.expiresAt) return;
    if (approval.phase === "Pending") {
      this.record("expired", { name: approval.name });
      this.close(approval, "Expired", { kind: "expired" });
    } else if (approval.phase === "Approved" && approval.asks.some(({ grant }) => grant === "Window")) {
      approval.phase = "Expired";
      this.record("expired", { name: approval.name });
    }
  }

  private close(approval: Approval, phase: Phase, outcome: HoldOutcome): void {
    const wasPending = approval.phase === "Pending";
    approval.phase = phase;
    if (wasPending) this.options.listener.settled(approval.name, outcome);
  }

  private dropGrants(isOver: (grant: Grant) => boolean): void {
    const left = this.grantList.filter((grant) => !isOver(grant));
    if (left.length === this.grantList.length) return;
    this.grantList = left;
    this.options.listener.grantsChanged(left);
  }

  private isApprover(by: Approver, ask: ApprovalTerms): boolean {
    return this.options.approvers.some(
      ({ policy, group }) => (policy === undefined || policy === ask.policy) && by.groups.includes(group),
    );
  }

  /** True for who may decide about something of it; they may see it as well. */
  maySee(approval: Approval, by: Approver): boolean {
    const isRequester = isSamePerson({ ...approval.requester, approver: approval.requester.user }, by);
    return isRequester || approval.asks.some((ask) => this.isApprover(by, ask));
  }

  private record(event: string, fields: Readonly<Record<string, unknown>>): BoardRefusal | undefined {
    try {
      this.options.record(event, fields);
      return undefined;
    } catch {
      return refused("RecordUnavailable", "the record of approvals cannot be written; nothing is decided");
    }
  }

  private forgetOldest(): void {
    let closed = this.approvals.size - this.all().filter(isOpen).length;
    for (const [name, approval] of this.approvals) {
      if (closed <= closedKeptMax) return;
      if (isOpen(approval)) continue;
      this.approvals.delete(name);
      closed -= 1;
    }
  }
}

/** True while something can still become of it. */
function isOpen({ phase }: Approval): boolean {
  return phase === "Pending" || phase === "Approved";
}

/** Approvals that count, and needed, over all rules: `1/2`. */
export function progressOf(approval: Approval): string {
  const counts = approval.asks.map((ask, index) => Math.min(ask.required, approvalsOf(approval, index)));
  const required = approval.asks.reduce((sum, ask) => sum + ask.required, 0);
  return `${counts.reduce((sum, count) => sum + count, 0)}/${required}`;
}

function approvalsOf({ decisions }: Approval, index: number): number {
  return decisions.filter(({ decision, countsFor }) => decision === "Approved" && countsFor.includes(index))
    .length;
}

function isSatisfied(approval: Approval): boolean {
  return approval.asks.every((ask, index) => approvalsOf(approval, index) >= ask.required);
}

function grantOf(approval: Approval, ask: ApprovalTerms, now: number): readonly Grant[] {
  if (ask.grant !== "Window" || ask.windowMs === undefined) return [];
  const lastsMs = Math.min(ask.windowMs, approval.durationMs ?? ask.windowMs);
  const { resource, requester, name, decisions } = approval;
  const approvedBy = decisions.flatMap(({ approver: user, kubernetesUsername }) =>
    namesOf({ user, ...(kubernetesUsername === undefined ? {} : { kubernetesUsername }) }),
  );
  const until = now + lastsMs;
  const { user: subject, kind } = requester;
  return [{ approval: name, subject, kind, resource, ruleText: ask.ruleText, until, approvedBy }];
}

function unfitToDecide(requester: Named, by: Approver): BoardRefusal | undefined {
  if (by.kind !== "Human" || by.isServiceAccount)
    return refused("NotHuman", `only people decide; ${by.user} is a ${by.kind.toLowerCase()}`);
  if (by.kubernetesUsername === null)
    return refused(
      "ApproverIdentityUnknown",
      "your identity provider does not say who you are elsewhere, so nobody can tell that you are not the requester",
    );
  const own = namesOf(by);
  const { onBehalfOf } = requester;
  const asking = namesOf(requester);
  const isOwn = (name: string) =>
    asking.some((one) => isSameName(one, name)) || (onBehalfOf !== undefined && isOwner(onBehalfOf, name));
  if (own.some(isOwn)) return refused("SelfApproval", "you cannot decide your own request");
  return undefined;
}

function namesOf({ user, kubernetesUsername }: Pick<Named, "user" | "kubernetesUsername">): string[] {
  return typeof kubernetesUsername === "string" ? [user, kubernetesUsername] : [user];
}

function isSamePerson(made: Pick<Decision, "approver" | "kubernetesUsername">, by: Named): boolean {
  const { kubernetesUsername } = made;
  const before = namesOf({
    user: made.approver,
    ...(kubernetesUsername === undefined ? {} : { kubernetesUsername }),
  });
  return namesOf(by).some((name) => before.some((one) => isSameName(one, name)));
}

function rulesOf(asks: readonly ApprovalTerms[]): string {
  return asks.map(({ policy, rule }) => `${policy}/${rule}`).join(", ");
}

function plainText(text: string): string {
  return oneLine(text.slice(0, commentCharactersMax));
}

function notFound(name: string): BoardRefusal {
  return refused("NotFound", `there is no request ${name.slice(0, 100)}`);
}

function refused(reason: BoardRefusal["reason"], message: string): BoardRefusal {
  return { kind: "refused", reason, message };
}
