import { isUtf8 } from "node:buffer";
import type { Command, SessionEffect } from "@sallyport/policy";
import type { Permit, Refusal, SessionGuard } from "../../guard/index.ts";
import { errorTable, GatewayError } from "../../wire/gateway-error.ts";
import type { Limits } from "../../wire/limits.ts";
import { setNameStatement } from "./application-name.ts";
import { type BindParts, type RecordedParameter, readBind, recordedParameters } from "./bind.ts";
import {
  backend,
  errorFrame,
  flushFrame,
  frontend,
  lengthAt,
  parseFrame,
  queryFrame,
  readErrorFields,
} from "./frames.ts";
import { Outbox } from "./outbox.ts";
import { type Owed, OwedQueue, type Running, type SqlRefusal } from "./owed.ts";
import type { PortalEntry, PreparedStatements, StatementEntry } from "./prepared.ts";
import { recorded } from "./recorded-text.ts";
import type { Judged, LiveNames, StatementJudge } from "./statement-judge.ts";

export interface PostgresSessionOptions {
  readonly guard: SessionGuard;
  readonly judge: StatementJudge;
  readonly names: LiveNames;
  readonly limits: Limits;
  /** Random, per connection: the name that a substituted statement cannot resolve. */
  readonly nonce: string;
  /** What stands in front of the client's part of application_name. */
  readonly applicationPrefix: string;
  readonly toClient: (bytes: Uint8Array) => void;
  readonly toUpstream: (bytes: Uint8Array) => void;
  /** The client said Terminate. */
  readonly onTerminate: () => void;
  /** Milliseconds of a monotonic clock, and of the calendar. */
  readonly clock: { monotonicMs(): number; nowMs(): number };
}

/**
 * One PostgreSQL session after login: a state machine over both byte streams, without I/O.
 *
 *     client ─ fromClient ─▶ judge, record, permit ─▶ toUpstream
 *     client ◀─ toClient ─── rewrite what is owed ◀── fromUpstream
 *
 * A refused command is not swallowed: a statement that must fail takes its place, and the server's error is rewritten.
 * The server then does the ordering, the skip to Sync and the rollback, exactly as for an error of its own.
 */
export class PostgresSession {
  private readonly options: PostgresSessionOptions;
  private readonly owed = new OwedQueue();
  private readonly statements: PreparedStatements;
  private readonly portals = new Map<string, PortalEntry>();
  private readonly up = new Outbox();
  private readonly down = new Outbox();

  private clientParts: Buffer[] = [];
  private clientHeld = 0;
  private clientNeeds = 0;
  private clientStreaming = 0;
  /** Whether the frame that streams is dropped: decided at its start, for half a frame would shift all behind it. */
  private isDroppingFrame = false;
  private upstreamParts: Buffer[] = [];
  private upstreamHeld = 0;
  private upstreamNeeds = 0;
  private upstreamStreaming = 0;
  private isStreamingRows = false;

  private segment = 0;
  /** After a refusal in extended mode nothing counts until Sync, as in the server. */
  private isSkipping = false;
  private isCopyingIn = false;
  /** CopyDone and CopyFail that the client has sent since its last Query or Execute. */
  private copyEndsSent = 0;
  /** CopyInResponses of the command at the head of the queue. */
  private copiesBegun = 0;
  private failedSinceReady = false;
  /** The server ignores everything up to the next Sync. */
  private isServerSkipping = false;
  private settleWaiters: (() => void)[] = [];
  private isEnded = false;

  constructor(options: PostgresSessionOptions, statements: PreparedStatements) {
    this.options = options;
    this.statements = statements;
  }

  /** True once the server has ended the session with a FATAL error, which the client has seen. */
  sawFatal = false;

  /** True when the server owes nothing. */
  get isIdle(): boolean {
    return !this.mustSettle() && !this.isCopyingIn;
  }

  /** The session is over: whoever waits for the server is woken. */
  end(): void {
    this.isEnded = true;
    this.wakeSettled();
  }

  // ---------------------------------------------------------------- client to server

  /** Takes bytes of the client. A promise means that nothing more may be given until it resolves. */
  fromClient(chunk: Buffer): Promise<void> | undefined {
    if (this.clientHeld > 0) {
      this.clientParts.push(chunk);
      this.clientHeld += chunk.length;
      if (this.clientHeld < this.clientNeeds) return undefined;
      chunk = Buffer.concat(this.clientParts, this.clientHeld);
      this.clientParts = [];
      this.clientHeld = 0;
    }
    return this.readClient(chunk, 0);
  }

  private readClient(chunk: Buffer, start: number): Promise<void> | undefined {
    let at = start;
    while (at < chunk.length) {
      if (this.clientStreaming > 0) {
        const taken = Math.min(this.clientStreaming, chunk.length - at);
        if (!this.isDroppingFrame) this.up.pass(chunk, at, at + taken);
        this.clientStreaming -= taken;
        at += taken;
        continue;
      }
      if (chunk.length - at < 5) {
        this.holdClient(chunk, at, 5);
        break;
      }
      const type = chunk[at] ?? 0;
      const size = lengthAt(chunk, at) + 1;
      this.checkClientSize(type, size);
      if (type === frontend.copyData) {
        this.clientStreaming = size;
        this.isDroppingFrame = this.isSkipping;
        continue;
      }
      if (chunk.length - at < size) {
        this.holdClient(chunk, at, size);
        break;
      }
      const end = at + size;
      const pending = this.clientMessage(type, chunk, at, end);
      at = end;
      if (pending !== undefined) {
        this.flushUp();
        return this.continueClient(pending, chunk, at);
      }
      if (this.isEnded) break;
    }
    this.flushUp();
    return undefined;
  }

  private async continueClient(pending: Promise<void>, chunk: Buffer, at: number): Promise<void> {
    await pending;
    if (this.isEnded) return;
    await this.readClient(chunk, at);
  }

  private holdClient(chunk: Buffer, at: number, needs: number): void {
    const rest = at === 0 ? chunk : Buffer.from(chunk.subarray(at));
    this.clientParts = [rest];
    this.clientHeld = rest.length;
    this.clientNeeds = needs;
  }

  private checkClientSize(type: number, size: number): void {
    const { limits } = this.options;
    if (size < 5) throw new GatewayError("protocolViolation", { detail: "invalid message length" });
    const isLong = type === frontend.query || type === frontend.parse;
    const bound =
      type === frontend.copyData
        ? 0x40000000
        : isLong
          ? limits.statementBytesMax
          : type === frontend.bind || type === frontend.functionCall
            ? limits.bindBytesMax
            : 10_000;
    if (size > bound) {
      throw new GatewayError(isLong || type === frontend.bind ? "tooLarge" : "protocolViolation", {
        ...(isLong ? { hint: `Statements may have ${limits.statementBytesMax} bytes here.` } : {}),
      });
    }
  }

  private clientMessage(type: number, chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    if (type === frontend.sync) {
      this.isSkipping = false;
      this.up.pass(chunk, at, end);
      const { segment, isCopyingIn: maybe, copyEndsSent: copyEnds } = this;
      this.push({ kind: "sync", segment, maybe, copyEnds });
      this.segment += 1;
      return undefined;
    }
    if (type === frontend.terminate) {
      this.up.pass(chunk, at, end);
      this.flushUp();
      this.isEnded = true;
      this.options.onTerminate();
      return undefined;
    }
    if (this.isSkipping) return undefined;
    switch (type) {
      case frontend.query:
        return this.query(chunk, at, end);
      case frontend.parse:
        return this.parse(chunk, at, end);
      case frontend.bind:
        return this.bind(chunk, at, end);
      case frontend.execute:
        return this.execute(chunk, at, end);
      case frontend.describe:
        this.up.pass(chunk, at, end);
        this.push({ kind: "describe", segment: this.segment });
        return undefined;
      case frontend.close:
        return this.close(chunk, at, end);
      case frontend.flush:
        this.up.pass(chunk, at, end);
        return undefined;
      case frontend.copyDone:
      case frontend.copyFail:
        this.isCopyingIn = false;
        this.copyEndsSent += 1;
        this.up.pass(chunk, at, end);
        return undefined;
      case frontend.functionCall:
        return this.functionCall(chunk, at, end);
      default:
        throw new GatewayError("protocolViolation", { detail: `invalid frontend message type ${type}` });
    }
  }

  private query(chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    const text = readText(chunk, at + 5, end);
    const judged = this.judgeNow(text);
    if (judged !== undefined) return this.admitQuery(judged, chunk, at, end);
    return this.judgeLater(text, (later) => this.admitQuery(later, chunk, at, end));
  }

  private admitQuery(judged: Judged, chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    return this.admit(judged, undefined, (outcome) => {
      const refusal = this.refusalIn(outcome, judged);
      const running = outcome.kind === "permit" ? this.running(outcome) : undefined;
      const effects = refusal === undefined ? judged.effects : [];
      if (outcome.kind !== "permit") this.up.own(queryFrame(this.failing(refusal)));
      else if (judged.applicationName === undefined) this.up.passCommand(outcome, chunk, at, end);
      else this.up.ownCommand(outcome, queryFrame(this.namedAs(judged.applicationName)));
      this.push({
        kind: "query",
        segment: this.segment,
        refusal,
        running,
        effects,
        completed: 0,
      });
    });
  }

  private namedAs(value: string): string {
    return setNameStatement(this.options.applicationPrefix, value);
  }

  private parse(chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    const nameEnd = chunk.indexOf(0, at + 5);
    const sqlEnd = nameEnd < 0 ? -1 : chunk.indexOf(0, nameEnd + 1);
    if (sqlEnd < 0 || sqlEnd + 3 > end)
      throw new GatewayError("protocolViolation", { detail: "malformed Parse" });
    const name = readText(chunk, at + 5, nameEnd + 1);
    const text = readText(chunk, nameEnd + 1, sqlEnd + 1);
    if (end - sqlEnd - 3 !== 4 * chunk.readUInt16BE(sqlEnd + 1))
      throw new GatewayError("protocolViolation", { detail: "malformed Parse" });
    const judged = this.judgeNow(text);
    if (judged !== undefined) return this.admitParse(judged, name, chunk, at, end);
    return this.judgeLater(text, (later) => this.admitParse(later, name, chunk, at, end));
  }

  private admitParse(
    judged: Judged,
    name: string,
    chunk: Buffer,
    at: number,
    end: number,
  ): Promise<void> | undefined {
    const preview = this.options.guard.preview(judged.verdict);
    if (preview !== undefined) {
      if (this.statements.size >= this.options.limits.preparedMax) {
        throw new GatewayError("tooLarge", { detail: "too many prepared statements in one session" });
      }
      const segment = this.segment;
      const entry = { name, judged, segment, confirmed: false, previous: undefined, isClosed: false };
      this.statements.put(entry);
      if (judged.applicationName === undefined) this.up.passCommand(preview, chunk, at, end);
      else this.up.ownCommand(preview, parseFrame(name, this.namedAs(judged.applicationName)));
      this.push({ kind: "parse", segment: this.segment, refusal: undefined, entry });
      return undefined;
    }
    return this.admit(judged, undefined, (outcome) => {
      const refusal = this.refusalIn(outcome, judged);
      if (refusal !== undefined) this.refuseExtended(refusal);
    });
  }

  private bind(chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    const message = readBind(chunk, at + 5, end);
    if (message === undefined) throw new GatewayError("protocolViolation", { detail: "malformed Bind" });
    const entry = this.statements.newest(message.statement);
    if (entry !== undefined && !entry.confirmed && entry.segment !== this.segment) {
      return this.afterSettled(() => this.bindTo(message, end));
    }
    return this.bindTo(message, end);
  }

  private bindTo(message: BindParts, end: number): Promise<void> | undefined {
    const entry = this.statements.get(message.statement);
    if (entry === undefined) return this.bindUnknown(message, end);
    const { judged } = entry;
    const isCurrent =
      this.owed.unsettled === 0 && this.options.names.isFresh && this.options.judge.isCurrent(judged);
    const now = isCurrent ? judged : this.judgeNow(judged.text);
    if (now !== undefined) return this.admitBind(now, entry, message, end);
    return this.judgeLater(judged.text, (later) => this.admitBind(later, entry, message, end));
  }

  private bindUnknown(message: BindParts, end: number): undefined {
    if (!this.options.guard.isObserving) {
      this.refuseExtended(unknownStatement(message.statement));
      return undefined;
    }
    const judged = this.options.judge.judgeCommand({ protocol: "postgres", text: "", parts: [] });
    const permit = this.options.guard.preview(judged.verdict);
    if (permit === undefined) return undefined;
    const { segment } = this;
    const statement = {
      name: message.statement,
      judged,
      segment,
      confirmed: true,
      previous: undefined,
      isClosed: false,
    };
    this.up.passCommand(permit, message.chunk, message.at, end);
    this.push({ kind: "bind", segment, portal: { name: message.portal, statement, number: 0, segment } });
    return undefined;
  }

  private admitBind(
    judged: Judged,
    entry: StatementEntry,
    message: BindParts,
    end: number,
  ): Promise<void> | undefined {
    const values = recordedParameters(message, this.options.limits.recordedParameterBytesMax);
    return this.admit(judged, values, (outcome) => {
      const refusal = this.refusalIn(outcome, judged);
      if (refusal !== undefined) this.refuseExtended(refusal);
      if (outcome.kind !== "permit") return;
      if (this.portals.size >= this.options.limits.preparedMax) {
        throw new GatewayError("tooLarge", { detail: "too many portals in one session" });
      }
      const statement = judged === entry.judged ? entry : { ...entry, judged };
      const portal = { name: message.portal, statement, number: outcome.number, segment: this.segment };
      this.portals.set(message.portal, portal);
      this.up.passCommand(outcome, message.chunk, message.at, end);
      this.push({ kind: "bind", segment: this.segment, portal });
    });
  }

  private execute(chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    const nameEnd = chunk.indexOf(0, at + 5);
    if (nameEnd < 0 || nameEnd + 5 !== end)
      throw new GatewayError("protocolViolation", { detail: "malformed Execute" });
    const name = nameEnd === at + 5 ? "" : readText(chunk, at + 5, nameEnd + 1);
    const portal = this.portals.get(name);
    if (portal !== undefined) {
      const { judged } = portal.statement;
      const now = this.options.judge.reconsidered(judged);
      if (now !== judged && now.verdict.action !== "Allow" && !this.options.guard.isObserving) {
        return this.admit(now, undefined, (outcome) => {
          const refusal = this.refusalIn(outcome, now);
          if (refusal !== undefined) this.refuseExtended(refusal);
        });
      }
      // The permit is Bind's: this portal was judged and recorded there, and the policy still allows it.
      this.up.pass(chunk, at, end);
      const { effects } = portal.statement.judged;
      const running = this.runningAs(portal.number);
      this.push({ kind: "execute", segment: this.segment, running, effects: effects[0] ?? [] });
      return undefined;
    }
    const judged = this.options.judge.judgeCommand(fetchCommand(name));
    return this.admit(judged, undefined, (outcome) => {
      const refusal = this.refusalIn(outcome, judged);
      if (refusal !== undefined) return this.refuseExtended(refusal);
      if (outcome.kind !== "permit") return;
      this.up.passCommand(outcome, chunk, at, end);
      this.push({ kind: "execute", segment: this.segment, running: this.running(outcome), effects: [] });
    });
  }

  private close(chunk: Buffer, at: number, end: number): undefined {
    const what = chunk[at + 5];
    const name = readText(chunk, at + 6, end);
    let closed: StatementEntry | undefined;
    const entry = what === 0x53 ? this.statements.get(name) : undefined;
    if (entry !== undefined) {
      closed = { ...entry, segment: this.segment, confirmed: false, previous: undefined, isClosed: true };
      this.statements.put(closed);
    } else if (what === 0x50) this.portals.delete(name);
    this.up.pass(chunk, at, end);
    this.push({ kind: "close", segment: this.segment, closed });
    return undefined;
  }

  /** FunctionCall names a function by its oid alone: refused whatever policy says, unless it is only observed. */
  private functionCall(chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    const judged = this.options.judge.judgeCommand(functionCallCommand);
    return this.admit(judged, undefined, (outcome) => {
      const isPassed = outcome.kind === "permit" && this.options.guard.isObserving;
      if (isPassed) this.up.passCommand(outcome, chunk, at, end);
      else this.up.own(queryFrame(this.failing(functionCallRefusal)));
      this.push({
        kind: "query",
        segment: this.segment,
        refusal: isPassed ? undefined : functionCallRefusal,
        running: isPassed ? this.running(outcome) : undefined,
        effects: [],
        completed: 0,
      });
    });
  }

  /** A statement that must fail, prepared in place of the refused message; all until Sync is skipped by the server. */
  private refuseExtended(refusal: SqlRefusal): void {
    this.up.own(parseFrame(this.options.nonce, this.failing(refusal)));
    this.push({ kind: "parse", segment: this.segment, refusal, entry: undefined });
    this.isSkipping = true;
  }

  /**
   * The server finds a syntax error, or in Bind an unknown statement, before it looks at the transaction, and everything else
   * after it (25P02): what fails in place of the first two must be a syntax error too.
   */
  private failing(refusal: SqlRefusal | undefined): string {
    const name = `"${this.options.nonce}"`;
    return refusal?.sqlstate === "42601" || refusal?.isFoundFirst ? name : `SELECT ${name}`;
  }

  private admit(
    judged: Judged,
    parameters: readonly RecordedParameter[] | undefined,
    then: (outcome: Permit | Refusal) => void,
  ): Promise<void> | undefined {
    const { text, verdict } = recorded(judged);
    const at = this.options.clock.nowMs();
    const record = parameters === undefined ? { text, verdict, at } : { text, verdict, at, parameters };
    const answer = this.options.guard.request(record, judged.needsDisk);
    if (answer instanceof Promise) return answer.then((later) => this.unlessIgnored(() => then(later)));
    then(answer);
    return undefined;
  }

  private unlessIgnored(then: () => void): void {
    if (!this.isIgnored) then();
  }

  /** True where, while a message waited here, the session ended or an error made the server skip to Sync. */
  private get isIgnored(): boolean {
    return this.isEnded || this.isSkipping;
  }

  private refusalIn(outcome: Permit | Refusal, judged: Judged): SqlRefusal | undefined {
    if (outcome.kind === "permit") return undefined;
    const refusal = outcome;
    const { rejection } = judged;
    const isRejection = rejection !== undefined && refusal.code === "denied";
    const sqlstate = isRejection ? rejection.sqlstate : errorTable[refusal.code].sqlstate;
    if (isRejection) return rejection;
    return { sqlstate, message: refusal.message, ...(refusal.hint ? { hint: refusal.hint } : {}) };
  }

  /** The verdict at once, where names are known: fresh, and no statement of the pipeline still changing them. */
  private judgeNow(text: string): Judged | undefined {
    if (this.owed.unsettled > 0 || !this.options.names.isFresh) return undefined;
    const judged = this.options.judge.judge(text);
    if (judged.readsPrepared && this.mustSettle()) return undefined;
    return isUnknownName(judged) || isOvertaken(judged) ? undefined : judged;
  }

  /** The verdict once the server has answered what changes names, and the catalog is fresh. */
  private async judgeLater(text: string, then: (judged: Judged) => Promise<void> | undefined): Promise<void> {
    const { judge, names } = this.options;
    let judged: Judged;
    try {
      if (this.owed.unsettled > 0) await this.settled();
      judged = await this.judgeFresh(text);
      if (judged.readsPrepared && this.mustSettle()) {
        await this.settled();
        judged = await this.judgeFresh(text);
      }
      // Somebody else may have made it a moment ago: look once more before refusing.
      if (isUnknownName(judged) && !this.isEnded) {
        await names.refresh(true);
        judged = await this.judgeFresh(text);
      }
    } catch (error) {
      // Without a catalog nothing can be judged: the statement is refused, the session goes on.
      this.options.guard.note("catalogUnavailable", {
        cause: error instanceof Error ? error.message : "unknown",
      });
      judged = judge.unavailable(text);
    }
    if (!this.isIgnored) await then(judged);
  }

  /** Where the machine is so busy that a reading is old before it is used, another one follows, for a while. */
  private async judgeFresh(text: string): Promise<Judged> {
    const { judge, names, clock, limits } = this.options;
    const startedMs = clock.monotonicMs();
    for (let attempt = 1; ; attempt += 1) {
      if (!names.isFresh) await names.refresh(false);
      const judged = judge.judge(text);
      const isOver = attempt === attemptsMax || clock.monotonicMs() - startedMs > limits.judgeWaitMs;
      if (!isOvertaken(judged) || isOver || this.isEnded) return judged;
    }
  }

  private async afterSettled(then: () => Promise<void> | undefined): Promise<void> {
    await this.settled();
    if (!this.isIgnored) await then();
  }

  private async settled(): Promise<void> {
    // Without a Flush the server keeps what it owes until Sync, and the client waits for us.
    this.up.own(flushFrame);
    this.flushUp();
    while (this.mustSettle() && !this.isEnded) {
      await new Promise<void>((resolve) => this.settleWaiters.push(resolve));
    }
  }

  private mustSettle(): boolean {
    for (let index = 0; ; index += 1) {
      const entry = this.owed.at(index);
      if (entry === undefined) return false;
      if (entry.kind !== "sync" || !entry.maybe) return true;
    }
  }

  private push(entry: Owed): void {
    if (this.owed.length >= this.options.limits.owedMax) {
      throw new GatewayError("tooLarge", { detail: "too many unanswered messages in one pipeline" });
    }
    if (entry.kind === "query" || entry.kind === "execute") this.copyEndsSent = 0;
    this.owed.push(entry);
  }

  private running(permit: Permit): Running | undefined {
    return this.runningAs(permit.number);
  }

  private runningAs(number: number): Running | undefined {
    const startedMs = this.options.clock.monotonicMs();
    return { number, startedMs, rows: 0, bytes: 0, tag: undefined, sqlstate: undefined };
  }

  private flushUp(): void {
    if (!this.up.isEmpty) this.up.flush(this.options.toUpstream);
  }

  // ---------------------------------------------------------------- server to client

  /** Takes bytes of the server and passes on what the client may see. Throws where the server breaks the protocol. */
  fromUpstream(chunk: Buffer): void {
    if (this.upstreamHeld > 0) {
      this.upstreamParts.push(chunk);
      this.upstreamHeld += chunk.length;
      if (this.upstreamHeld < this.upstreamNeeds) return;
      chunk = Buffer.concat(this.upstreamParts, this.upstreamHeld);
      this.upstreamParts = [];
      this.upstreamHeld = 0;
    }
    this.readUpstream(chunk);
    if (!this.down.isEmpty) this.down.flush(this.options.toClient);
    if (this.settleWaiters.length > 0 && !this.mustSettle()) this.wakeSettled();
  }

  private readUpstream(chunk: Buffer): void {
    const { length } = chunk;
    let at = 0;
    while (at < length) {
      if (this.upstreamStreaming > 0) {
        const taken = Math.min(this.upstreamStreaming, length - at);
        this.down.pass(chunk, at, at + taken);
        if (this.isStreamingRows) this.recordRows(chunk, at, at + taken);
        this.upstreamStreaming -= taken;
        at += taken;
        continue;
      }
      if (length - at < 5) {
        this.holdUpstream(chunk, at, 5);
        return;
      }
      const type = chunk[at] ?? 0;
      const size = lengthAt(chunk, at) + 1;
      if (size < 5)
        throw new GatewayError("upstreamProtocol", { detail: "invalid message length of the server" });
      if (type === backend.dataRow || type === backend.copyData) {
        at = this.passRows(chunk, at, size);
        continue;
      }
      if (isReadWhole(type)) {
        if (size > this.options.limits.replyBytesMax) {
          throw new GatewayError("upstreamProtocol", { detail: "a message of the server is too long" });
        }
        if (length - at < size) {
          this.holdUpstream(chunk, at, size);
          return;
        }
        this.upstreamMessage(type, chunk, at, at + size);
        at += size;
        continue;
      }
      this.answered(type);
      this.isStreamingRows = type === backend.rowDescription;
      this.upstreamStreaming = size;
    }
  }

  /** Counts and passes the run of rows that starts at `at`; most bytes of most answers go through here. */
  private passRows(chunk: Buffer, at: number, firstSize: number): number {
    const running = this.runningNow();
    const { length } = chunk;
    const type = chunk[at];
    const from = at;
    let rows = 0;
    let size = firstSize;
    let next = at;
    for (;;) {
      rows += 1;
      next += size;
      if (next + 5 > length || chunk[next] !== type) break;
      size = lengthAt(chunk, next) + 1;
      if (size < 5)
        throw new GatewayError("upstreamProtocol", { detail: "invalid message length of the server" });
    }
    const end = Math.min(next, length);
    this.upstreamStreaming = next - end;
    this.isStreamingRows = true;
    this.down.pass(chunk, from, end);
    this.recordRows(chunk, from, end);
    if (running !== undefined) {
      running.rows += rows;
      running.bytes += next - from;
    }
    return end;
  }

  /** The rows, their description before them, as the client gets them; the recording cuts them at its bound. */
  private recordRows(chunk: Buffer, from: number, end: number): void {
    if (!this.options.guard.recordsRows) return;
    const running = this.runningNow();
    if (running !== undefined && running.number > 0)
      this.options.guard.rows(running.number, chunk.subarray(from, end));
  }

  private holdUpstream(chunk: Buffer, at: number, needs: number): void {
    const rest = Buffer.from(chunk.subarray(at));
    this.upstreamParts = [rest];
    this.upstreamHeld = rest.length;
    this.upstreamNeeds = needs;
  }

  private runningNow(): Running | undefined {
    const first = this.owed.first();
    return first?.kind === "query" || first?.kind === "execute" ? first.running : undefined;
  }

  /** Messages that need no reading: each ends or begins what the head of the queue owes. */
  private answered(type: number): void {
    this.skipMaybeSyncs();
    const first = this.owed.first();
    switch (type) {
      case backend.parseComplete:
        if (first?.kind !== "parse" || first.refusal !== undefined) throw unexpected(type);
        if (first.entry !== undefined) this.statements.confirm(first.entry);
        this.owed.shift();
        return;
      case backend.bindComplete:
        this.expectAndShift(first, "bind", type);
        return;
      case backend.closeComplete:
        if (first?.kind === "close" && first.closed !== undefined) this.statements.confirm(first.closed);
        this.expectAndShift(first, "close", type);
        return;
      case backend.noData:
        this.expectAndShift(first, "describe", type);
        return;
      case backend.rowDescription:
        if (first?.kind === "describe") this.owed.shift();
        else if (first?.kind !== "query") throw unexpected(type);
        return;
      case backend.parameterDescription:
        if (first?.kind !== "describe") throw unexpected(type);
        return;
      case backend.emptyQueryResponse:
      case backend.portalSuspended:
        if (first?.kind === "execute") this.finishExecute();
        else if (first?.kind !== "query" || type === backend.portalSuspended) throw unexpected(type);
        return;
      case backend.copyInResponse:
        if (first?.kind !== "query" && first?.kind !== "execute") throw unexpected(type);
        this.copiesBegun += 1;
        this.isCopyingIn = this.copyEndsSent < this.copiesBegun;
        this.markMaybeSyncs();
        return;
      case backend.copyOutResponse:
        if (first?.kind !== "query" && first?.kind !== "execute") throw unexpected(type);
        return;
      case backend.functionCallResponse:
        if (first?.kind !== "query") throw unexpected(type);
        return;
      case backend.copyDone:
        return;
      default:
        throw unexpected(type);
    }
  }

  private expectAndShift(first: Owed | undefined, kind: Owed["kind"], type: number): void {
    if (first?.kind !== kind) throw unexpected(type);
    this.owed.shift();
  }

  /** A Sync sent while the server took COPY data is ignored by it, as are those pipelined behind the COPY's start. */
  private markMaybeSyncs(): void {
    for (let index = 1; ; index += 1) {
      const entry = this.owed.at(index);
      if (entry?.kind !== "sync" || entry.copyEnds >= this.copiesBegun) return;
      entry.maybe = true;
    }
  }

  private hasSyncBehindOthers(): boolean {
    if (this.owed.first()?.kind === "sync") return false;
    for (let index = 0; ; index += 1) {
      const entry = this.owed.at(index);
      if (entry === undefined) return false;
      if (entry.kind === "sync") return true;
    }
  }

  private skipMaybeSyncs(): void {
    for (let first = this.owed.first(); first?.kind === "sync" && first.maybe; first = this.owed.first()) {
      this.owed.shift();
    }
  }

  private upstreamMessage(type: number, chunk: Buffer, at: number, end: number): void {
    switch (type) {
      case backend.commandComplete:
        this.skipMaybeSyncs();
        this.commandComplete(chunk.toString("utf8", at + 5, end - 1));
        this.down.pass(chunk, at, end);
        return;
      case backend.readyForQuery:
        this.readyForQuery(chunk[at + 5] ?? 0);
        this.down.pass(chunk, at, end);
        return;
      case backend.errorResponse:
        this.errorResponse(chunk, at, end);
        return;
      case backend.parameterStatus:
        this.parameterStatus(chunk, at, end);
        this.down.pass(chunk, at, end);
        return;
      case backend.noticeResponse:
      case backend.notificationResponse:
        this.down.pass(chunk, at, end);
        return;
      default:
        throw unexpected(type);
    }
  }

  private commandComplete(tag: string): void {
    this.isCopyingIn = false;
    const first = this.owed.first();
    if (first?.kind === "execute") {
      if (first.running !== undefined) first.running.tag = tag;
      const { effects } = first;
      this.finishExecute();
      // The copy went through: the server has ignored every Sync that came before its end.
      this.skipMaybeSyncs();
      this.applyEffects(effects, tag);
      return;
    }
    if (first?.kind !== "query") throw unexpected(backend.commandComplete);
    if (first.running !== undefined) first.running.tag = tag;
    this.applyEffects(first.effects[first.completed] ?? [], tag);
    first.completed += 1;
  }

  private applyEffects(effects: readonly SessionEffect[], tag: string): void {
    for (const effect of effects) {
      // COMMIT of a failed transaction answers ROLLBACK.
      const isRolledBack = effect.kind === "transaction" && effect.action === "commit" && tag === "ROLLBACK";
      this.options.names.apply(isRolledBack ? { kind: "transaction", action: "rollback" } : effect);
      if (effect.kind === "prepare") {
        const judged = this.options.judge.judgePrepared(effect);
        const segment = this.segment;
        this.statements.put({
          name: effect.name,
          judged,
          segment,
          confirmed: true,
          previous: undefined,
          isClosed: false,
        });
      } else if (effect.kind === "deallocate") {
        if (effect.name === undefined) this.statements.clear();
        else this.statements.delete(effect.name);
      } else if (effect.kind === "discardAll") {
        this.statements.clear();
        this.portals.clear();
      }
    }
  }

  private finishExecute(): void {
    this.copiesBegun = 0;
    const entry = this.owed.shift();
    if (entry?.kind === "execute") this.report(entry.running);
  }

  private report(running: Running | undefined): void {
    if (running === undefined || running.number === 0) return;
    const { rows, bytes, tag, sqlstate } = running;
    const ms = this.options.clock.monotonicMs() - running.startedMs;
    this.options.guard.response(running.number, { rows, bytes, ms, tag, sqlstate });
  }

  private readyForQuery(status: number): void {
    this.isCopyingIn = false;
    this.copiesBegun = 0;
    // The head may be a Sync that the server has ignored while it copied; the ready one is then behind it.
    const first = this.owed.first();
    if (first?.kind !== "query" && first?.kind !== "sync") throw unexpected(backend.readyForQuery);
    this.owed.shift();
    const next = this.owed.first();
    // Had the server ignored the doubtful Sync, it would have skipped what stands up to the next one: nobody can tell.
    if (this.isServerSkipping && first.kind === "sync" && first.maybe && this.hasSyncBehindOthers())
      throw new GatewayError("protocolViolation", {
        detail: "a Sync during COPY with more pipelined behind it",
      });
    this.isServerSkipping = false;
    // Whether this answers the doubtful Sync or the one behind it will show by what comes next.
    if (first.kind === "sync" && first.maybe && next?.kind === "sync") next.maybe = true;
    if (first.kind === "query") this.report(first.running);
    if (status === 0x49) {
      for (const [name, portal] of this.portals)
        if (portal.segment <= first.segment) this.portals.delete(name);
    }
    const letter = status === 0x49 ? "I" : status === 0x54 ? "T" : "E";
    this.options.names.ready(letter, this.failedSinceReady);
    this.failedSinceReady = false;
  }

  private errorResponse(chunk: Buffer, at: number, end: number): void {
    this.isCopyingIn = false;
    this.failedSinceReady = true;
    const fields = readErrorFields(chunk.subarray(at + 5, end));
    const sqlstate = fields.get("C") ?? "XX000";
    if (fields.get("V") === "FATAL" || fields.get("V") === "PANIC") this.sawFatal = true;
    // An error cannot answer a Sync: one at the head was ignored by the server.
    this.skipMaybeSyncs();
    const first = this.owed.first();
    const refusal = first?.kind === "query" || first?.kind === "parse" ? first.refusal : undefined;
    const isOurs = refusal !== undefined && (fields.get("M") ?? "").includes(this.options.nonce);
    if (isOurs) this.down.own(errorFrame({ severity: "ERROR", ...refusal }));
    else this.down.pass(chunk, at, end);
    if (first?.kind === "query") {
      if (first.running !== undefined) first.running.sqlstate = sqlstate;
      return;
    }
    this.skipToSync(sqlstate);
  }

  /** The server ignores everything up to the next Sync: take back what it will not do. */
  private skipToSync(sqlstate: string): void {
    this.isServerSkipping = true;
    this.copiesBegun = 0;
    const skipped: Owed[] = [];
    for (let first = this.owed.first(); first !== undefined; first = this.owed.first()) {
      if (first.kind === "sync") break;
      skipped.push(first);
      this.owed.shift();
    }
    if (this.owed.length === 0 && skipped.length > 0) this.isSkipping = true;
    for (let index = skipped.length - 1; index >= 0; index -= 1) {
      const entry = skipped[index];
      if (entry === undefined) continue;
      if (entry.kind === "parse" && entry.entry !== undefined)
        this.statements.revert(entry.entry, index === 0);
      if (entry.kind === "close" && entry.closed !== undefined) this.statements.revert(entry.closed, false);
      if (entry.kind === "bind" && this.portals.get(entry.portal.name) === entry.portal) {
        this.portals.delete(entry.portal.name);
      }
      if (entry.kind === "execute" && entry.running !== undefined && index === 0) {
        entry.running.sqlstate = sqlstate;
        this.report(entry.running);
      }
    }
  }

  private parameterStatus(chunk: Buffer, at: number, end: number): void {
    const nameEnd = chunk.indexOf(0, at + 5);
    const name = chunk.toString("latin1", at + 5, nameEnd);
    const value = chunk.toString("utf8", nameEnd + 1, end - 1);
    // What we parse must be what the server parses: these two decide where a literal ends.
    if (name === "standard_conforming_strings" && value !== "on") throw parserUnsafe(name);
    if (name === "client_encoding" && value !== "UTF8") throw parserUnsafe(name);
    if (name === "search_path") this.options.names.reportSearchPath(value);
  }

  private wakeSettled(): void {
    const waiters = this.settleWaiters;
    this.settleWaiters = [];
    for (const wake of waiters) wake();
  }
}

/** Messages that must be read whole before anything of them is passed on. */
function isReadWhole(type: number): boolean {
  return (
    type === backend.commandComplete ||
    type === backend.readyForQuery ||
    type === backend.errorResponse ||
    type === backend.noticeResponse ||
    type === backend.parameterStatus ||
    type === backend.notificationResponse
  );
}

/** A NUL-terminated UTF-8 text that ends right before `end`. */
function readText(chunk: Buffer, from: number, end: number): string {
  const body = chunk.subarray(from, end - 1);
  if (end <= from || chunk[end - 1] !== 0 || body.includes(0)) {
    throw new GatewayError("protocolViolation", { detail: "a text holds a NUL byte or does not end in one" });
  }
  if (!isUtf8(body)) throw new GatewayError("invalidEncoding");
  return body.toString("utf8");
}

function isUnknownName({ rejection }: Judged): boolean {
  const state = rejection?.sqlstate;
  return state === "42P01" || state === "42883" || state === "3F000" || state === "42704";
}

/** How often a statement is judged again because the catalog grew old meanwhile. */
const attemptsMax = 10;

/** The catalog grew too old between the look at its age and the analysis. */
function isOvertaken({ rejection }: Judged): boolean {
  return rejection?.sqlstate === errorTable.catalogUnavailable.sqlstate;
}

function unexpected(type: number): GatewayError {
  const letter = type > 0x20 && type < 0x7f ? String.fromCharCode(type) : String(type);
  return new GatewayError("upstreamProtocol", { detail: `unexpected message ${letter} of the server` });
}

function parserUnsafe(name: string): GatewayError {
  return new GatewayError("unsupported", {
    detail: `${name} was changed, so statements can no longer be judged`,
  });
}

function unknownStatement(name: string): SqlRefusal {
  const message =
    name === "" ? "unnamed prepared statement does not exist" : `prepared statement "${name}" does not exist`;
  return { sqlstate: "26000", message, isFoundFirst: true };
}

const functionCallRefusal: SqlRefusal = {
  sqlstate: "42501",
  message: "the FunctionCall message is not allowed",
  hint: "Call the function with SELECT.",
};

const functionCallCommand: Command = {
  protocol: "postgres",
  text: "FunctionCall",
  parts: [
    {
      operation: "execute",
      words: ["FUNCTION CALL"],
      objects: [],
      unbounded: false,
      enforcement: "heuristic",
    },
  ],
};

function fetchCommand(portal: string): Command {
  const objects: Command["parts"][number]["objects"] = [];
  const part = {
    operation: "read",
    words: ["FETCH"],
    objects,
    unbounded: false,
    enforcement: "authoritative",
  } as const;
  return { protocol: "postgres", text: `FETCH FROM "${portal.replaceAll('"', '""')}"`, parts: [part] };
}
