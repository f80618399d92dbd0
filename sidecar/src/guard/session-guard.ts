import { randomBytes } from "node:crypto";
import { oneLine } from "@sallyport/control";
import {
  type Command,
  howToSayWhy,
  type Identity,
  type MaskLift,
  policyName,
  type SessionLimits,
  SessionMasking,
  type SessionPolicy,
  type Verdict,
} from "@sallyport/policy";
import type { ApprovalService, CancelReason } from "../approval/index.ts";
import type { CommandRecord, RecordedStream, ResponseRecord, SessionRecording } from "../recording/model.ts";
import { errorTable, GatewayError } from "../wire/gateway-error.ts";
import {
  digestOf,
  type Holdable,
  type HoldClaim,
  howToRequest,
  noticeOf,
  type OpenHold,
  type Running,
  refusalAfter,
  requesterOf,
  shownOf,
  voidRefusal,
} from "./hold.ts";
import { makePermit, type Permit } from "./permit.ts";
import { type Refusal, refusal } from "./refusal.ts";
import { StatementRate } from "./statement-rate.ts";

/** Limits of a policy that a statement can reach. */
export type ReachedLimit = "rows" | "affectedRows" | "statementsPerMinute";

/** What the guard of one session needs. */
export interface SessionGuardOptions {
  readonly policy: SessionPolicy;
  readonly recording: SessionRecording;
  readonly recordingMode: "Required" | "BestEffort" | "Off";
  readonly durability: "Accepted" | "Durable";
  /** True where the rows that the client sees are recorded too. */
  readonly recordsRows: boolean;
  /** True where what is typed into a running command is recorded too; absent: it is not. */
  readonly recordsInput?: boolean;
  /** Audit: decide and record, but let everything through. */
  readonly enforcement: "Enforce" | "Audit";
  readonly now: () => number;
  readonly onDecision: (verdict: Verdict) => void;
  /** A limit of the policy was reached. */
  readonly onLimit?: (limit: ReachedLimit) => void;
  /** Who is asked where a rule wants approval; absent: nobody can be. */
  readonly approvals?: SessionApprovals;
}

/** Approvals as one session has them. */
export interface SessionApprovals {
  readonly service: ApprovalService;
  readonly identity: Identity;
  /** `namespace/name`. */
  readonly resource: string;
  readonly sessionId: string;
  readonly holdInTransactionMs: number;
  readonly noticeMs: number;
  /** A hold has begun or ended, how, or somebody has gone past approval with a reason: then by which rule. */
  readonly onEvent: (event: "asked" | "breakGlass" | HoldEnd, use?: BreakGlassUse) => void;
}

/** One use of break-glass. */
export interface BreakGlassUse {
  /** `cluster/` stands before a ClusterAccessPolicy's name. */
  readonly policy: string;
  readonly rule: string;
  readonly reason: string;
}

/** How a hold ended, for the metrics. */
export type HoldEnd = "approved" | "denied" | "expired" | "cancelled" | "unavailable" | "void";

const nothingMasked = new SessionMasking([]);

/** Operations whose record must be on disk before they run, whatever the resource says. */
const durableOperations: ReadonlySet<string> = new Set(["define", "privilege", "export"]);

/** One session's way to permits. Synchronous unless storage must be waited for. */
export class SessionGuard {
  readonly recording: SessionRecording;
  private policy: SessionPolicy;
  private rate: StatementRate | undefined;
  private readonly options: SessionGuardOptions;
  /** Why the user does what comes next, in their own words (`howToSayWhy`). */
  private reason = "";
  private open: OpenHold | undefined;
  private readonly running = new Map<number, Running>();
  /** Commands whose approval was taken back, or over, while they ran. */
  private readonly ended = new Set<number>();
  private digestKey: Buffer | undefined;
  /** The command that is being held, from before it is asked about until it is decided; claimed before any wait. */
  private claim: HoldClaim | undefined;
  private tellHeld: () => void = () => undefined;
  private unlisten: () => void = () => undefined;
  private isListening = false;
  private isClosed = false;
  /** Cancels the command of that number upstream; set by the protocol once there is something. */
  onCancelRunning: (number: number) => void = () => undefined;
  /** Masks were lifted, or hold again: what was judged before counts no longer. */
  onMaskingChange: () => void = () => undefined;
  /** What lifts liftable masks now. */
  private lifts: readonly MaskLift[] = [];

  constructor(options: SessionGuardOptions) {
    this.options = options;
    this.recording = options.recording;
    this.policy = options.policy;
    this.rate = rateOf(options.policy);
    this.followLifts();
  }

  /** Replaces the policy of a live session; what is judged next is judged by the new one. */
  adopt(policy: SessionPolicy): void {
    this.policy = policy;
    this.rate = rateOf(policy);
    if (this.open !== undefined && !this.isStillAsked(this.open)) this.cancelHold("void");
    this.followLifts();
  }

  /** `approved`: the rules, by their text, that an approval of this very command satisfies. */
  decide(command: Command, parameters?: readonly unknown[], approved?: ReadonlySet<string>): Verdict {
    const nowMs = this.options.now();
    const { approvals } = this.options;
    if (approvals === undefined)
      return this.policy.decide(command, { nowMs, ...(parameters === undefined ? {} : { parameters }) });
    const windows = approvals.service.granted(approvals.identity, approvals.resource);
    const satisfied = windows === undefined ? approved : new Set([...windows.keys(), ...(approved ?? [])]);
    return this.policy.decide(command, {
      nowMs,
      ...(parameters === undefined ? {} : { parameters }),
      ...(satisfied === undefined ? {} : { approved: satisfied }),
      ...(this.reason === "" ? {} : { reason: this.reason }),
    });
  }

  /** Takes the user's reason for what follows; break-glass and rules that want a reason read it. */
  giveReason(reason: string): void {
    const given = oneLine(reason.trim().slice(0, reasonCharactersMax));
    if (given === this.reason) return;
    this.reason = given;
    this.note("reason", { reason: this.reason });
    this.followLifts();
  }

  /**
   * Records a judged command and permits or refuses it. `needsDisk` is `mustBeDurable` of its command; with `holdable`
   * a command that needs approval is held until it has one.
   */
  request(
    record: CommandRecord,
    needsDisk: boolean,
    holdable?: Holdable,
  ): Permit | Refusal | Promise<Permit | Refusal> {
    const outcome = this.asked(record, needsDisk, holdable);
    if (this.lifts.length === 0) return outcome;
    return outcome instanceof Promise
      ? outcome.then((settled) => this.underLifts(settled))
      : this.underLifts(outcome);
  }

  private asked(
    record: CommandRecord,
    needsDisk: boolean,
    holdable: Holdable | undefined,
  ): Permit | Refusal | Promise<Permit | Refusal> {
    const { verdict } = record;
    if (verdict.satisfied !== undefined) return this.requestSatisfied(record, needsDisk);
    const { approvals } = this.options;
    const asks = verdict.action === "RequireApproval" && approvals !== undefined && !this.isObserving;
    // Claimed here, before anything is waited for: channels of one connection ask side by side.
    if (asks && holdable !== undefined && !holdable.isPointless && this.claim === undefined) {
      const claim: HoldClaim = { holdable, number: 0, cancelled: undefined, isTakenBack: false };
      this.claim = claim;
      return this.requestHeld(record, claim, approvals).finally(() => {
        if (this.claim === claim) this.claim = undefined;
      });
    }
    return this.requestNow(record, needsDisk);
  }

  /** `entry` learns the number under which it was recorded, whatever else is recorded meanwhile. */
  private requestNow(
    record: CommandRecord,
    needsDisk: boolean,
    entry?: { number: number },
  ): Permit | Refusal | Promise<Permit | Refusal> {
    this.options.onDecision(record.verdict);
    const limited = this.rate !== undefined && !this.rate.take(record.at);
    if (limited) {
      this.note("rateExceeded", {});
      this.options.onLimit?.("statementsPerMinute");
    }
    const number = this.recording.command(record);
    if (number < 0) return this.whenRoom(record, needsDisk, limited, entry);
    if (entry !== undefined) entry.number = number;
    const refusal = limited ? rateRefusal : this.refusalOf(record.verdict);
    if (refusal !== undefined) return refusal;
    if (needsDisk || this.options.durability === "Durable") return this.whenStored(number);
    return makePermit(number);
  }

  /** True where everything passes and is only recorded. */
  get isObserving(): boolean {
    return this.options.enforcement === "Audit";
  }

  /** True where the hour alone may come to deny what was allowed. */
  get followsTime(): boolean {
    return this.policy.readsTime && !this.isObserving;
  }

  /** Whether rules tell one file of a copy from another, and what they do then; undefined: none does. */
  get namesFiles(): SessionPolicy["namesFiles"] {
    const { namesFiles } = this.policy;
    return namesFiles === "Enforce" && this.isObserving ? "Audit" : namesFiles;
  }

  /** What policy hides from the session. */
  get masking(): SessionMasking {
    return this.isObserving ? nothingMasked : this.policy.masking(this.lifts);
  }

  /** What decisions may be kept under: sessions for which masks are lifted share none with the others. */
  get decisionKey(): object {
    return this.lifts.length === 0 ? this.policy : this.masking;
  }

  /** Looks again at what lifts masks: a window has begun or ended, a reason was given, the policy is another. */
  private followLifts(): void {
    const { approvals } = this.options;
    if (approvals === undefined || this.isObserving) return;
    const { hasLiftableMasks } = this.policy;
    if (hasLiftableMasks) this.listen(approvals);
    const windows = hasLiftableMasks
      ? approvals.service.granted(approvals.identity, approvals.resource)
      : undefined;
    const { reason } = this;
    const lifts = hasLiftableMasks
      ? this.policy.lifts({ reason, ...(windows && { approved: new Set(windows.keys()) }) })
      : [];
    const keyOf = (all: readonly MaskLift[]) => all.map((lift) => `${lift.by} ${lift.ruleText}`).join("\n");
    if (keyOf(lifts) === keyOf(this.lifts)) return;
    for (const { policy, by, rule, ruleText } of lifts) {
      if (this.lifts.some((known) => known.by === by && known.ruleText === ruleText)) continue;
      this.note("masksLifted", { policy, by, approval: windows?.get(ruleText) ?? "", reason });
      if (by === "breakGlass") approvals.onEvent("breakGlass", { policy, rule, reason });
    }
    if (lifts.length === 0) this.note("masksHold", {});
    this.lifts = lifts;
    this.onMaskingChange();
  }

  /** What begins while a window lifts masks ends with it: its rows show what they hide. */
  private underLifts(outcome: Permit | Refusal): Permit | Refusal {
    const { approvals } = this.options;
    if (outcome.kind === "refusal" || outcome.number === 0 || approvals === undefined) return outcome;
    const open = approvals.service.granted(approvals.identity, approvals.resource);
    const before = this.running.get(outcome.number);
    const windows = new Map(before?.windows);
    for (const { by, ruleText } of this.lifts) {
      if (by === "approval") windows.set(ruleText, open?.get(ruleText) ?? "");
    }
    if (windows.size > 0) this.watch(outcome.number, { ...before, windows });
    return outcome;
  }

  /** The limits on rows, where policy sets any that count. */
  get rowLimits(): SessionLimits | undefined {
    const { limits } = this.policy;
    const hasNone = limits.rows === undefined && limits.affectedRows === undefined;
    return hasNone || this.isObserving ? undefined : limits;
  }

  /** A statement went beyond a limit on rows, and was undone. */
  rowLimitReached(limit: "rows" | "affectedRows"): void {
    this.note("rowLimitReached", { limit });
    this.options.onLimit?.(limit);
  }

  /** True where what is typed into a command is recorded too. */
  get recordsInput(): boolean {
    return this.options.recordsInput ?? false;
  }

  get recordsRows(): boolean {
    return this.options.recordsRows;
  }

  /** Rows of a command's answer, as the client gets them. */
  rows(number: number, chunk: Uint8Array): void {
    this.recording.rows(number, chunk);
  }

  /**
   * Bytes of a command that runs, recorded before they go on. A promise: hold them until it resolves; it rejects
   * where nothing may run unrecorded and these bytes cannot be.
   */
  stream(number: number, stream: RecordedStream, chunk: Uint8Array): Promise<void> | undefined {
    if (this.recording.stream?.(number, stream, chunk) ?? true) return undefined;
    return this.streamWhenRoom(number, stream, chunk);
  }

  private async streamWhenRoom(number: number, stream: RecordedStream, chunk: Uint8Array): Promise<void> {
    for (let attempt = 0; attempt < roomAttemptsMax; attempt++) {
      try {
        await this.recording.room();
      } catch (error) {
        if (this.options.recordingMode !== "Required") return;
        throw new GatewayError("recordingUnavailable", { cause: error });
      }
      if (this.recording.stream?.(number, stream, chunk) ?? true) return;
    }
    if (this.options.recordingMode === "Required") throw new GatewayError("recordingUnavailable");
  }

  /** A permit to prepare what Bind or Execute will ask for again; undefined where policy refuses it already. */
  preview(verdict: Verdict): Permit | undefined {
    const passes = verdict.action !== "Deny" || this.options.enforcement === "Audit";
    return passes ? makePermit(0) : undefined;
  }

  /** Records something that is not a command. */
  note(name: string, fields: Readonly<Record<string, string | number | boolean>>): void {
    this.recording.event(name, fields);
  }

  response(number: number, record: ResponseRecord): void {
    if (this.running.size > 0) this.ran(number);
    this.recording.response(number, record);
  }

  // ---------------------------------------------------------------- approvals

  /** True while a command waits for a decision, or is about to. */
  get isHolding(): boolean {
    return this.claim !== undefined;
  }

  /** Ends the hold, or only that of `which`: what is held never runs. False where nothing is held. */
  cancelHold(reason: CancelReason, which?: Holdable): boolean {
    const { open, claim } = this;
    if (claim === undefined || (which !== undefined && claim.holdable !== which)) return false;
    claim.cancelled ??= reason;
    this.open = undefined;
    open?.hold.cancel(reason);
    return true;
  }

  /** Whether what satisfied a bound command holds still, now that it is executed (again). */
  holdsStill(number: number, { satisfied = [] }: Verdict): boolean {
    const { approvals } = this.options;
    if (this.isObserving || approvals === undefined) return true;
    if (this.ended.has(number)) return false;
    const windows = approvals.service.granted(approvals.identity, approvals.resource);
    const used = new Map<string, string>();
    for (const { terms, by } of satisfied) {
      if (by !== "approval" || terms.grant !== "Window") continue;
      const approval = windows?.get(terms.ruleText);
      if (approval === undefined) return false;
      used.set(terms.ruleText, approval);
    }
    if (used.size > 0 && !this.running.has(number)) this.watch(number, { windows: used });
    return true;
  }

  /** The session is over. */
  close(): void {
    this.isClosed = true;
    this.cancelHold("sessionEnded");
    this.unlisten();
    // What was sent may have run: it is never asked for again.
    for (const number of [...this.running.keys()]) this.ran(number);
  }

  /** What windows or break-glass let through. */
  private requestSatisfied(record: CommandRecord, needsDisk: boolean): ReturnType<SessionGuard["request"]> {
    const { approvals } = this.options;
    const satisfied = record.verdict.satisfied ?? [];
    const windows =
      approvals?.service.granted(approvals.identity, approvals.resource) ?? new Map<string, string>();
    const used = new Map<string, string>();
    for (const { terms, by } of satisfied) {
      const { policy, rule, ruleText } = terms;
      if (by === "breakGlass") {
        this.note("breakGlass", { policy, rule, reason: this.reason });
        approvals?.onEvent("breakGlass", { policy: policyName(terms), rule, reason: this.reason });
        continue;
      }
      const approval = windows.get(ruleText);
      // It ended between verdict and permit.
      if (approval === undefined && !this.isObserving)
        return refusal("approvalNeeded", `the approval of ${policy}/${rule} has ended`, "Ask for a new one.");
      if (approval !== undefined) used.set(ruleText, approval);
      this.note("approvalUsed", { policy, rule, approval: approval ?? "" });
    }
    const outcome = this.requestNow(record, needsDisk);
    const watch = <T extends Permit | Refusal>(settled: T): T => {
      if (settled.kind === "permit" && used.size > 0) this.watch(settled.number, { windows: used });
      return settled;
    };
    return outcome instanceof Promise ? outcome.then(watch) : watch(outcome);
  }

  /** Holds a command until somebody has decided, and asks policy again before it may run. */
  private async requestHeld(
    record: CommandRecord,
    claim: HoldClaim,
    approvals: SessionApprovals,
  ): Promise<Permit | Refusal> {
    const { holdable } = claim;
    const recorded = await this.requestNow(record, false, claim);
    // Refused either way; a failure to record says so itself, and so does the rate.
    if (recorded.kind === "refusal" && recorded.code !== "approvalNeeded") return recorded;
    const { number } = claim;
    if (number === 0 && this.options.recordingMode === "Required")
      return this.withoutRecord(undefined, undefined);
    if (this.isClosed) return refusal("holdCancelled", "the session has ended");
    // Whoever asked left while it was recorded: nobody is asked.
    if (claim.cancelled !== undefined)
      return this.notRun(number, refusalAfter("request", { kind: "cancelled", reason: claim.cancelled }));
    const asks = record.verdict.asks ?? [];
    const shown = shownOf(record, holdable);
    const unfit = this.unfitToHold(record, holdable, approvals, shown === undefined);
    if (unfit !== undefined || shown === undefined) return this.notRun(number, unfit ?? tooLong);
    this.digestKey ??= randomBytes(32);
    const digest = digestOf(this.digestKey, holdable.bytes);
    const timeouts = asks.map(({ timeoutMs }) => timeoutMs);
    if (holdable.inTransaction) timeouts.push(approvals.holdInTransactionMs);
    const hold = approvals.service.hold({
      ...shown,
      resource: approvals.resource,
      sessionId: approvals.sessionId,
      requester: requesterOf(approvals.identity),
      digest,
      ...(this.reason === "" ? {} : { reason: this.reason }),
      inTransaction: holdable.inTransaction,
      asks,
      timeoutMs: Math.min(...timeouts),
    });
    claim.name = hold.name;
    this.listen(approvals);
    const open: OpenHold = {
      hold,
      command: holdable.command,
      asks,
      noticedMs: this.options.now(),
    };
    this.open = open;
    const tell = () =>
      holdable.tell(noticeOf(open, record.verdict.message, holdable.inTransaction, this.options.now()));
    this.tellHeld = tell;
    approvals.onEvent("asked");
    this.note("approvalAsked", { approval: hold.name, command: number, digest });
    holdable.begun();
    tell();
    const outcome = await hold.outcome;
    this.open = undefined;
    this.tellHeld = () => undefined;
    const by =
      outcome.kind === "approved" ? outcome.by.join(", ") : outcome.kind === "denied" ? outcome.by : "";
    this.note("approvalDecided", { approval: hold.name, outcome: outcome.kind, by });
    if (outcome.kind !== "approved") {
      const isVoid = outcome.kind === "cancelled" && outcome.reason === "void";
      approvals.onEvent(isVoid ? "void" : outcome.kind);
      return this.notRun(number, refusalAfter(hold.name, outcome, howToRequest(approvals.resource, asks)));
    }
    // Always on disk: what people decide about is little, and it must be known to have been decided.
    const stored = await this.whenStored(number);
    if (stored.kind === "refusal") {
      hold.cancel("sessionEnded");
      approvals.onEvent("cancelled");
      return stored;
    }
    const verdict = await holdable.rejudge(new Set(asks.map(({ ruleText }) => ruleText)));
    // While it was written down and judged again, whoever asked may have left, or an approver taken it back.
    const { cancelled } = claim;
    if (this.isClosed || cancelled !== undefined || claim.isTakenBack) {
      const reason = cancelled ?? "sessionEnded";
      hold.cancel(reason);
      approvals.onEvent("cancelled");
      const why = claim.isTakenBack
        ? voidRefusal(hold.name, "it was taken back")
        : refusalAfter(hold.name, { kind: "cancelled", reason });
      return this.notRun(number, why);
    }
    const isSame = digestOf(this.digestKey, holdable.bytes) === digest;
    if (verdict.action !== "Allow" || !isSame) {
      hold.cancel("void");
      approvals.onEvent("void");
      const why = isSame ? verdict.message : "the command is not the one that was approved";
      return this.notRun(number, voidRefusal(hold.name, why));
    }
    approvals.onEvent("approved");
    this.note("approvalRan", { approval: hold.name, command: number });
    this.watch(number, { approval: hold.name, windows: new Map() });
    return makePermit(number);
  }

  private unfitToHold(
    { verdict }: CommandRecord,
    { command }: Holdable,
    { identity }: SessionApprovals,
    isTooLong: boolean,
  ): Refusal | undefined {
    if (isTooLong) return tooLong;
    if (identity.kubernetesUsername === null)
      return refusal(
        "approvalNeeded",
        `${verdict.message}; ApproverIdentityUnknown: your identity provider does not say who you are elsewhere`,
      );
    if (this.reason === "" && (verdict.asks ?? []).some(({ reasonRequired }) => reasonRequired)) {
      const howTo = howToSayWhy(command.protocol);
      return refusal(
        "approvalNeeded",
        `${verdict.message}; a reason is required`,
        howTo === undefined ? undefined : `Say why first: ${howTo}`,
      );
    }
    return undefined;
  }

  /** The recording must not read as if it had run. */
  private notRun(number: number, outcome: Refusal): Refusal {
    if (number > 0) {
      const { sqlstate } = errorTable[outcome.code];
      this.recording.response(number, { sqlstate, rows: 0, bytes: 0, ms: 0 });
    }
    return outcome;
  }

  private isStillAsked({ command, asks }: OpenHold): boolean {
    const verdict = this.decide(command);
    if (verdict.action !== "RequireApproval") return false;
    const now = new Set((verdict.asks ?? []).map(({ ruleText }) => ruleText));
    return now.size === asks.length && asks.every(({ ruleText }) => now.has(ruleText));
  }

  private watch(number: number, running: Running): void {
    const { approvals } = this.options;
    if (approvals === undefined || number === 0) return;
    this.running.set(number, running);
    this.listen(approvals);
  }

  private ran(number: number): void {
    const { approval } = this.running.get(number) ?? {};
    this.running.delete(number);
    if (approval !== undefined) this.options.approvals?.service.used(approval);
  }

  private listen({ service, noticeMs, identity, resource }: SessionApprovals): void {
    if (this.isListening) return;
    this.isListening = true;
    this.unlisten = service.listen({
      tick: (nowMs) => {
        const { open } = this;
        if (open !== undefined && nowMs - open.noticedMs >= noticeMs) {
          open.noticedMs = nowMs;
          this.tellHeld();
        }
        if (this.policy.hasLiftableMasks) this.followLifts();
        if (this.running.size === 0) return;
        const windows = service.granted(identity, resource);
        this.endRunning("windowOver", ({ windows: used }) =>
          [...used.keys()].some((ruleText) => windows?.has(ruleText) !== true),
        );
      },
      revoked: (name) => {
        if (this.policy.hasLiftableMasks) this.followLifts();
        if (this.claim?.name === name) this.claim.isTakenBack = true;
        this.endRunning("approvalRevoked", ({ approval, windows }) =>
          [approval, ...windows.values()].includes(name),
        );
      },
    });
  }

  /** Ends what runs on an approval that holds no longer. */
  private endRunning(why: string, isMeant: (running: Running) => boolean): void {
    for (const [number, running] of [...this.running]) {
      if (!isMeant(running)) continue;
      this.note(why, { command: number });
      this.ended.add(number);
      this.ran(number);
      this.onCancelRunning(number);
    }
  }

  private refusalOf(verdict: Verdict): Refusal | undefined {
    if (verdict.action === "Allow" || this.options.enforcement === "Audit") return undefined;
    const hint = verdict.hint === "" ? undefined : verdict.hint;
    if (verdict.action === "Deny") return refusal("denied", verdict.message, hint);
    const { approvals } = this.options;
    const howToAsk = approvals && howToRequest(approvals.resource, verdict.asks ?? []);
    return refusal("approvalNeeded", verdict.message, hint ?? howToAsk);
  }

  private async whenRoom(
    record: CommandRecord,
    needsDisk: boolean,
    limited: boolean,
    entry?: { number: number },
  ): Promise<Permit | Refusal> {
    let number = -1;
    // Answers of earlier commands are recorded too and may take the room again before this command gets it.
    for (let attempt = 0; number < 0 && attempt < roomAttemptsMax; attempt++) {
      try {
        await this.recording.room();
      } catch (error) {
        return limited ? rateRefusal : this.withoutRecord(error, record.verdict);
      }
      number = this.recording.command(record);
    }
    if (entry !== undefined) entry.number = Math.max(0, number);
    if (number < 0) return limited ? rateRefusal : this.withoutRecord(this.recording.failure, record.verdict);
    const refusal = limited ? rateRefusal : this.refusalOf(record.verdict);
    if (refusal !== undefined) return refusal;
    const durable = needsDisk || this.options.durability === "Durable";
    return durable ? this.whenStored(number) : makePermit(number);
  }

  private async whenStored(number: number): Promise<Permit | Refusal> {
    try {
      await this.recording.stored("Durable");
    } catch (error) {
      const outcome = this.withoutRecord(error, undefined, number);
      // Its record will be written when storage is back; it must not read as if it had run.
      if (outcome.kind === "refusal") {
        this.response(number, { sqlstate: errorTable[outcome.code].sqlstate, rows: 0, bytes: 0, ms: 0 });
      }
      return outcome;
    }
    return makePermit(number);
  }

  // Required: what cannot be recorded does not run. BestEffort lets it run; the journal marks the gap when it is back.
  private withoutRecord(cause: unknown, verdict: Verdict | undefined, number = 0): Permit | Refusal {
    const refusal = verdict === undefined ? undefined : this.refusalOf(verdict);
    if (refusal !== undefined) return { ...refusal, isUnrecorded: true };
    if (this.options.recordingMode !== "Required") return makePermit(number);
    const error = new GatewayError("recordingUnavailable", { cause });
    return {
      kind: "refusal",
      code: error.code,
      message: error.message,
      hint: "Try again when the gateway's recording volume can be written.",
    };
  }
}

/** True where a command's record must reach the disk before the command may run. */
export function mustBeDurable(command: Command): boolean {
  return command.parts.some((part) => durableOperations.has(part.operation));
}

/** Each attempt waits for a block to be written; storage that fails ends the wait at once. */
const roomAttemptsMax = 1000;

const reasonCharactersMax = 1024;

const tooLong = refusal("tooLarge", "a command of this length cannot be held for approval");

const rateRefusal: Refusal = {
  kind: "refusal",
  code: "rateExceeded",
  message: "the statement rate that the access policy sets is exceeded",
  hint: "Wait a minute, or ask for a higher limits.statementsPerMinute.",
};

function rateOf(policy: SessionPolicy): StatementRate | undefined {
  const perMinute = policy.limits.statementsPerMinute;
  return perMinute === undefined ? undefined : new StatementRate(perMinute);
}
