import type { SessionGuard } from "../../guard/index.ts";
import { GatewayError } from "../../wire/gateway-error.ts";
import type { Limits } from "../../wire/limits.ts";
import type { ApplicationName } from "./application-name.ts";
import type { SessionMasks } from "./masking/session-masks.ts";
import { type Owed, OwedQueue } from "./owed.ts";
import { Portals, type PreparedStatements } from "./prepared.ts";
import type { ProcessIds } from "./process-ids.ts";
import type { RowBound } from "./row-bound.ts";
import type { LiveNames, StatementJudge } from "./statement-judge.ts";

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
  /** After a refusal in extended mode nothing counts until Sync, as in the server. */
  /** How many Syncs and Queries have been sent: each may end a transaction, and what was bound in it. */
  private ends = 0;
  isSkipping = false;
  isCopyingIn = false;
  /** CopyDone and CopyFail that the client has sent since its last Query or Execute. */
  copyEndsSent = 0;
  /** CopyInResponses of the command at the head of the queue. */
  copiesBegun = 0;
  isEnded = false;
  /** What the server said last: idle, in a transaction, or in a failed one. */
  transaction: "I" | "T" | "E" = "I";
  /** The segment of the last Execute: up to its Sync there may be an implicit transaction. */
  executedIn = -1;
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

  constructor(statements: PreparedStatements, limits: Limits) {
    this.statements = statements;
    this.owedMax = limits.owedMax;
  }

  /** The server now owes this. */
  push(entry: Owed): void {
    if (entry.isRunning) this.copyEndsSent = 0;
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
    for (let index = 0; ; index += 1) {
      const entry = this.owed.at(index);
      if (entry === undefined) return false;
      if (entry.kind !== "sync" || !entry.maybe) return true;
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
