import { randomBytes } from "node:crypto";
import { isOwner } from "@sallyport/crds/pure";
import type { BoardListener } from "./board.ts";
import { ApprovalBoard } from "./board.ts";
import type {
  ApprovalListener,
  ApprovalService,
  ApproverRule,
  CancelReason,
  Grant,
  GrantHolder,
  Hold,
  HoldOutcome,
  HoldRequest,
} from "./model.ts";
import type { ApprovalRecord } from "./record-file.ts";

/** The board as a session's process reaches it: in this process, or in the first one. */
export interface RemoteBoard {
  /** Undefined where it is open; else why it cannot be asked. */
  open(name: string, request: HoldRequest): Promise<string | undefined>;
  cancel(name: string, reason: CancelReason): void;
  used(name: string): void;
}

const tickMs = 500;

/** The line that tells an approver what to run. */
export type HowToApprove = (name: string, request: HoldRequest) => string;

/** What the sessions of one process hold by; one timer for all of them, and only while something is held or granted. */
export class BoardService implements ApprovalService {
  private readonly board: RemoteBoard;
  private readonly nowMs: () => number;
  private readonly pending = new Map<string, (outcome: HoldOutcome) => void>();
  private readonly listeners = new Set<ApprovalListener>();
  /** Windows by whom they are for, the one that lasts longest last. */
  private grants = new Map<string, readonly Grant[]>();
  private timer: NodeJS.Timeout | undefined;
  private readonly onTick: () => boolean;
  private readonly howToApprove: HowToApprove;

  /** `onTick` says whether the timer must go on although nothing is held here. */
  constructor(
    board: RemoteBoard,
    nowMs: () => number,
    onTick: () => boolean = () => false,
    howToApprove: HowToApprove = (name) => `sallyport approve ${name}`,
  ) {
    this.board = board;
    this.nowMs = nowMs;
    this.onTick = onTick;
    this.howToApprove = howToApprove;
  }

  hold(request: HoldRequest): Hold {
    const name = approvalName(request.resource);
    const outcome = new Promise<HoldOutcome>((resolve) => this.pending.set(name, resolve));
    this.board.open(name, request).then(
      (refusal) => {
        if (refusal !== undefined) this.settled(name, { kind: "unavailable", message: refusal });
      },
      () => this.settled(name, { kind: "unavailable", message: "approvals cannot be asked for now" }),
    );
    this.startTimer();
    return {
      name,
      howToApprove: this.howToApprove(name, request),
      expiresAt: this.nowMs() + request.timeoutMs,
      outcome,
      cancel: (reason) => {
        // Settled here first: nothing that the board may still say can let it run.
        this.settled(name, { kind: "cancelled", reason });
        this.board.cancel(name, reason);
      },
    };
  }

  granted(
    { user, kind, kubernetesUsername, onBehalfOf }: GrantHolder,
    resource: string,
  ): ReadonlyMap<string, string> | undefined {
    if (this.grants.size === 0) return undefined;
    const found = [
      ...(this.grants.get(keyOf("user", user, resource)) ?? []),
      ...(typeof kubernetesUsername === "string"
        ? (this.grants.get(keyOf("kubernetesUsername", kubernetesUsername, resource)) ?? [])
        : []),
    ];
    if (found.length === 0) return undefined;
    const now = this.nowMs();
    const live = found.filter(
      ({ until, onlyUser, approvedBy = [], kind: asked = kind }) =>
        until > now &&
        asked === kind &&
        (onlyUser === undefined || onlyUser === user) &&
        !(onBehalfOf !== undefined && approvedBy.some((name) => isOwner(onBehalfOf, name))),
    );
    return new Map(live.map(({ ruleText, approval }) => [ruleText, approval]));
  }

  used(name: string): void {
    this.board.used(name);
  }

  listen(listener: ApprovalListener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** The board has closed a request. */
  settled(name: string, outcome: HoldOutcome): void {
    const settle = this.pending.get(name);
    this.pending.delete(name);
    settle?.(outcome);
  }

  revoked(name: string): void {
    for (const listener of [...this.listeners]) listener.revoked(name);
  }

  grantsChanged(grants: readonly Grant[]): void {
    const byHolder = new Map<string, Grant[]>();
    for (const grant of grants.toSorted((a, b) => a.until - b.until)) {
      const key = keyOf(grant.named ?? "user", grant.subject, grant.resource);
      const of = byHolder.get(key) ?? [];
      of.push(grant);
      byHolder.set(key, of);
    }
    this.grants = byHolder;
    for (const listener of [...this.listeners]) listener.tick(this.nowMs());
    this.startTimer();
  }

  /** Nobody can decide any longer: what is held ends. */
  close(): void {
    for (const name of [...this.pending.keys()])
      this.settled(name, { kind: "cancelled", reason: "gatewayEnded" });
    clearInterval(this.timer);
    this.timer = undefined;
  }

  startTimer(): void {
    this.timer ??= setInterval(() => {
      const goesOn = this.onTick();
      const now = this.nowMs();
      for (const listener of [...this.listeners]) listener.tick(now);
      if (goesOn || this.pending.size > 0 || this.grants.size > 0) return;
      clearInterval(this.timer);
      this.timer = undefined;
    }, tickMs);
    this.timer.unref();
  }
}

/** A board of this process, and the service on it. */
export class LocalApprovals {
  readonly board: ApprovalBoard;
  readonly service: BoardService;
  private readonly others = new Set<BoardListener>();
  private readonly record: ApprovalRecord;

  constructor(record: ApprovalRecord, approvers: readonly ApproverRule[], nowMs: () => number = Date.now) {
    this.record = record;
    // What was held before is gone with the process that held it.
    record.write("started", { cancels: "everything that was open before" }, nowMs());
    const everybody = (tell: (listener: BoardListener) => void) => {
      tell(this.service);
      for (const listener of this.others) tell(listener);
    };
    this.board = new ApprovalBoard({
      approvers,
      nowMs,
      record: (event, fields) => record.write(event, fields, nowMs()),
      listener: {
        settled: (name, outcome) => everybody((one) => one.settled(name, outcome)),
        revoked: (name) => everybody((one) => one.revoked(name)),
        grantsChanged: (grants) => everybody((one) => one.grantsChanged(grants)),
      },
    });
    this.service = new BoardService(this.remote(), nowMs, () => {
      this.board.tick();
      return !this.board.isIdle;
    });
  }

  /** Also tells sessions of another process. */
  tell(listener: BoardListener): () => void {
    this.others.add(listener);
    listener.grantsChanged(this.board.grants);
    return () => this.others.delete(listener);
  }

  /** The board for whoever holds. */
  remote(): RemoteBoard {
    return {
      open: async (name, request) => {
        const answer = this.board.openStatement(name, request);
        this.service.startTimer();
        return answer.kind === "refused" ? answer.message : undefined;
      },
      cancel: (name, reason) => this.board.cancel(name, reason),
      used: (name) => this.board.used(name),
    };
  }

  /** Ends everything that waits: after a restart nobody knows what it was. */
  close(): void {
    for (const { name } of this.board.all()) this.board.cancel(name, "gatewayEnded");
    this.service.close();
    this.record.close();
  }
}

/** A name that can be said and typed: the resource's own, and what tells its requests apart. */
export function approvalName(resource: string): string {
  return `${resource.slice(resource.indexOf("/") + 1).slice(0, 40)}-${randomBytes(4).toString("hex")}`;
}

const keyOf = (named: string, subject: string, resource: string) => `${named}\n${resource}\n${subject}`;
