import type { SessionGuard } from "../../guard/index.ts";
import { GatewayError } from "../../wire/gateway-error.ts";
import type { Limits } from "../../wire/limits.ts";
import type { ApplicationName } from "./application-name.ts";
import type { SessionMasks } from "./masking/session-masks.ts";
import { type Owed, OwedQueue } from "./owed.ts";
import { Portals, type PreparedStatements } from "./prepared.ts";
import type { ProcessIds } from "./process-ids.ts";
import type { RowBound } from "./row-bound.ts";
import { SessionSettings } from "./session-settings.ts";
import type { SkipProbe } from "./skip-probe.ts";
import type { LiveNames, StatementJudge } from "./statement-judge.ts";

/** What a session is made of. */
export interface PostgresSessionOptions {
  readonly guard: SessionGuard;
  readonly judge: StatementJudge;
  readonly names: LiveNames;
  readonly limits: Limits;
  /** Random, per connection: the name that a substituted statement cannot resolve. */
  readonly nonce: string;
  readonly applicationName: ApplicationName;
  /** What the server and the clients call the processes of live sessions. */
  readonly processIds?: ProcessIds;
  /** While a command is held: reads the client on, within a bound, and shows what comes. */
  readonly readAhead?: (watch: (chunk: Buffer) => void) => void;
  /** What is known of the session's settings when it begins. */
  readonly settings?: SessionSettings;
  /** What the session's masks rest on. */
  readonly masks: SessionMasks;
  readonly toClient: (bytes: Uint8Array) => void;
  readonly toUpstream: (bytes: Uint8Array) => void;
  /** The client said Terminate. */
  readonly onTerminate: () => void;
  /** Milliseconds of a monotonic clock, and of the calendar. */
  readonly clock: { monotonicMs(): number; nowMs(): number };
}

/** What both directions of a session read and write; whoever changes a field says so in its own file. */
export class SessionState {
  readonly owed = new OwedQueue();
  readonly statements: PreparedStatements;
  readonly portals = new Portals();
  /** How many Syncs the client has sent. */
  segment = 0;
  /** How many Syncs and Queries have been sent: each may end a transaction, and what was bound in it. */
  private ends = 0;
  /** After a refusal in extended mode nothing counts until Sync, as in the server. */
  isSkipping = false;
  isCopyingIn = false;
  /** The Query or Execute that was sent last. */
  private commanded: Owed | undefined = undefined;
  /** The Execute whose COPY data may come next; undefined where it has been answered, or more was sent behind it. */
  private fed: Owed | undefined = undefined;
  /** The unanswered Execute whose data the last Sync may stand in: it counts where the copy fails before it. */
  private doubted: Owed | undefined = undefined;
  /** Such a copy has failed: whether the server skips up to the next Sync, nobody can tell. */
  private maySkip = false;
  /**
   * How many Syncs of the row at the head have been answered ahead of doubtful ones before them. Which one an answer was for shows
   * by what comes behind the last of them: only their number counts.
   */
  answeredAhead = 0;
  /** What asks the server whether it skips, until it has said so. */
  probe: SkipProbe | undefined = undefined;
  /** CopyInResponses of the command at the head of the queue. */
  copiesBegun = 0;
  isEnded = false;
  /** What the server said last: idle, in a transaction, or in a failed one. */
  transaction: "I" | "T" | "E" = "I";
  /** The segment of the last Execute: up to its Sync there may be an implicit transaction. */
  executedIn = -1;
  /** The segment of the last Execute of anything but BEGIN: what it set is reported with the answer to its Sync. */
  mayHaveSetIn = -1;
  /** How many commands have been sent that the server runs. */
  runs = 0;
  readonly settings: SessionSettings;
  /** Says something of the gateway's own to the client, between messages. */
  say: (bytes: Buffer) => void = () => undefined;
  /** The statement that runs under a limit on rows; what the client sends meanwhile waits. */
  bound: RowBound | undefined = undefined;
  /** Called once such a statement is over, however it ended. */
  onBoundOver: (bound: RowBound) => void = () => undefined;
  private readonly owedMax: number;
  private waiters: (() => void)[] = [];
  private roomWaiters: (() => void)[] = [];
  private boundWaiters: (() => void)[] = [];

  constructor(statements: PreparedStatements, limits: Limits, settings = new SessionSettings()) {
    this.statements = statements;
    this.settings = settings;
    this.owedMax = limits.owedMax;
  }

  /** The server now owes this. */
  push(entry: Owed): void {
    if (entry.kind === "sync") this.syncSent();
    else {
      if (entry.isRunning) this.commanded = entry;
      this.fed = entry.kind === "execute" && entry.mayTakeData ? entry : undefined;
    }
    if (entry.portal !== undefined) entry.portal.ends = this.ends;
    if (entry.kind === "sync" || entry.kind === "query") {
      entry.ends = this.ends;
      this.ends += 1;
    }
    // A cursor can only be made where the portal of its name is gone, which SQL may have closed.
    if (entry.masks !== undefined)
      for (const { declares } of entry.masks) if (declares !== undefined) this.portals.delete(declares);
    this.owed.push(entry);
  }

  private syncSent(): void {
    const { fed } = this;
    this.doubted = fed?.copyEnds === 0 ? fed : undefined;
    // One that is sent behind a failure, or behind the end of the data, is answered.
    this.maySkip = false;
  }

  /** The client has ended the data of a copy. */
  copyEnded(): void {
    this.isCopyingIn = false;
    if (this.commanded !== undefined) this.commanded.copyEnds += 1;
  }

  /** How many copies the client had ended when it sent what comes now. */
  get copyEndsSent(): number {
    return this.commanded?.copyEnds ?? 0;
  }

  /** An Execute has been answered, or skipped; `hasFailed`: while it took COPY data. */
  executed(entry: Owed, hasFailed: boolean): void {
    if (this.fed === entry) this.fed = undefined;
    if (this.doubted !== entry) return;
    this.doubted = undefined;
    this.maySkip = hasFailed;
  }

  /**
   * True where it is not known whether the server will read what is sent now: the last Sync was sent among COPY data, and
   * counts only where the copy failed before it (docs/decisions/0020).
   */
  get isInDoubt(): boolean {
    return this.doubted !== undefined || this.maySkip;
  }

  /** The server has answered a Sync, or was asked: from here on it skips nothing that the gateway sends. */
  doubtOver(): void {
    this.maySkip = false;
  }

  /** True where the server would ignore a Sync that is sent now, unless its copy has failed already. */
  get mayIgnoreSync(): boolean {
    if (!this.isCopyingIn) return false;
    const last = this.owed.at(this.owed.length - 1);
    return last !== undefined && (last.kind === "sync" ? last.maybe : last.isRunning && last.mayCopy);
  }

  /** True where so much is owed that the client must not be read until the server has answered some of it. */
  get isFull(): boolean {
    return this.owed.length >= this.owedMax;
  }

  /** Waits until the server has answered half of what may be owed, or the session ends. */
  async room(): Promise<void> {
    while (!this.hasRoom) {
      // The server takes COPY data and answers nothing else: what it owes are Syncs that it may have ignored.
      if (this.isCopyingIn)
        throw new GatewayError("tooLarge", { detail: "too many unanswered messages during COPY" });
      await new Promise<void>((resolve) => this.roomWaiters.push(resolve));
    }
  }

  private get hasRoom(): boolean {
    return this.isEnded || this.owed.length <= this.owedMax / 2;
  }

  /** True where, while a message waited here, the session ended or an error made the server skip to Sync. */
  get isIgnored(): boolean {
    return this.isEnded || this.isSkipping;
  }

  /** True while the server owes anything but a Sync that it may have ignored. */
  get mustSettle(): boolean {
    let ahead = this.answeredAhead;
    for (let index = 0; ; index += 1) {
      const entry = this.owed.at(index);
      if (entry === undefined) return false;
      if (entry.kind !== "sync") return true;
      if (entry.maybe) continue;
      if (ahead === 0) return true;
      ahead -= 1;
    }
  }

  /** Waits until the statement under a limit is over, or takes COPY data, or the session ends. */
  async boundMoved(): Promise<void> {
    while (this.bound !== undefined && !this.isCopyingIn && !this.isEnded)
      await new Promise<void>((resolve) => this.boundWaiters.push(resolve));
  }

  /** Waits until the statement under a limit is over, or the session ends. */
  async boundOver(): Promise<void> {
    while (this.bound !== undefined && !this.isEnded)
      await new Promise<void>((resolve) => this.boundWaiters.push(resolve));
  }

  /** Wakes who waits for the statement under a limit. */
  wakeBound(): void {
    const { boundWaiters } = this;
    this.boundWaiters = [];
    for (const wake of boundWaiters) wake();
  }

  /** True while the server waits for COPY data and nothing has been sent behind the command that asked for it. */
  get isStuckInCopy(): boolean {
    if (!this.isCopyingIn) return false;
    for (let index = 1; ; index += 1) {
      const entry = this.owed.at(index);
      if (entry === undefined) return true;
      if (entry.kind !== "sync" || !entry.maybe) return false;
    }
  }

  private get mustWait(): boolean {
    return this.mustSettle && !this.isStuckInCopy && !this.isEnded;
  }

  /** Waits until the server owes nothing, or waits itself for COPY data, or the session ends. */
  async settled(): Promise<void> {
    while (this.mustWait) {
      await new Promise<void>((resolve) => this.waiters.push(resolve));
    }
  }

  /** Wakes who waits for the server, if there is nothing left to wait for. */
  wakeSettled(): void {
    if (this.roomWaiters.length > 0 && (this.hasRoom || this.isCopyingIn)) {
      const { roomWaiters } = this;
      this.roomWaiters = [];
      for (const wake of roomWaiters) wake();
    }
    if (this.waiters.length === 0 || this.mustWait) return;
    const { waiters } = this;
    this.waiters = [];
    for (const wake of waiters) wake();
  }
}
