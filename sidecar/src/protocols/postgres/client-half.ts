import { GatewayError } from "../../wire/gateway-error.ts";
import { Admission } from "./admission.ts";
import { isReadAsAscii, notAscii } from "./client-encodings.ts";
import { ExtendedQuery } from "./extended-query.ts";
import { flushFrame, frontend, lengthAt, syncFrame } from "./frames.ts";
import { HeldBytes } from "./held-bytes.ts";
import { Holds } from "./holds.ts";
import { MalformedMessage, malformed } from "./malformed.ts";
import { Outbox } from "./outbox.ts";
import { Owed } from "./owed.ts";
import { PreparedRoom } from "./prepared-room.ts";
import type { SqlRefusal } from "./refusals.ts";
import type { RowBound } from "./row-bound.ts";
import type { PostgresSessionOptions, SessionState } from "./session-state.ts";
import { SimpleQuery } from "./simple-query.ts";
import { SkipProbe } from "./skip-probe.ts";
import { TimelyJudge } from "./timely-judge.ts";

/**
 * The client's messages on their way to the server: each is read, judged, recorded and permitted, or replaced by a
 * statement that must fail. Moves `segment`, `isSkipping`, `isEnded` and the copy marks of the state.
 */
export class ClientHalf {
  private readonly options: PostgresSessionOptions;
  private readonly state: SessionState;
  private readonly judge: TimelyJudge;
  private readonly up = new Outbox();
  private readonly admission: Admission;
  private readonly simple: SimpleQuery;
  private readonly extended: ExtendedQuery;
  private readonly held = new HeldBytes();
  /** Bytes left of a frame that is passed on while it comes. */
  private streaming = 0;
  /** Whether the frame that streams is dropped: decided at its start, for half a frame would shift all behind it. */
  private isDroppingFrame = false;
  /** A statement under a limit that has ended while a CopyData was on its way. */
  private overdue: RowBound | undefined = undefined;
  /** Bytes of the chunk at hand that are passed on unread, and so are kept nowhere here. */
  private passed = 0;
  /** True where those were all of the chunk that came last. */
  hasPassed = false;

  constructor(options: PostgresSessionOptions, state: SessionState) {
    this.options = options;
    this.state = state;
    this.judge = new TimelyJudge(options, state, () => {
      this.up.own(flushFrame);
      this.flush();
    });
    this.admission = new Admission(options, state, this.up);
    const { up, judge, admission } = this;
    const holds = new Holds(options, state, judge);
    const room = new PreparedRoom(state, options.limits);
    const parts = { options, state, up, judge, holds, admission, room };
    this.simple = new SimpleQuery(parts);
    this.extended = new ExtendedQuery(parts);
    state.onBoundOver = (bound) => this.afterBound(bound);
  }

  /** Takes bytes of the client. A promise means that nothing more may be given until it resolves. */
  take(chunk: Buffer): Promise<void> | undefined {
    this.passed = 0;
    this.hasPassed = false;
    const whole = this.held.isEmpty ? chunk : this.held.add(chunk);
    if (whole === undefined) return undefined;
    const pending = this.read(whole, 0);
    this.hasPassed = pending === undefined && whole === chunk && this.passed === chunk.length;
    return pending;
  }

  private read(chunk: Buffer, start: number): Promise<void> | undefined {
    const { length } = chunk;
    let at = start;
    while (at < length && !this.state.isEnded) {
      if (this.streaming > 0) {
        const taken = Math.min(this.streaming, length - at);
        if (!this.isDroppingFrame) this.up.pass(chunk, at, at + taken);
        this.streaming -= taken;
        this.passed += taken;
        at += taken;
        if (this.streaming === 0 && this.overdue !== undefined) this.afterBound(this.overdue);
        continue;
      }
      if (length - at < 5) {
        this.held.hold(chunk, at, 5);
        break;
      }
      const type = chunk[at] ?? 0;
      const size = lengthAt(chunk, at) + 1;
      this.checkSize(type, size);
      if (type === frontend.copyData) {
        this.streaming = size;
        this.isDroppingFrame = this.state.isSkipping;
        continue;
      }
      if (length - at < size) {
        this.held.hold(chunk, at, size);
        break;
      }
      if (this.state.isFull && type !== frontend.terminate) return this.whenRoom(chunk, at);
      const end = at + size;
      const pending = this.message(type, chunk, at, end);
      at = end;
      if (pending !== undefined) {
        this.flush();
        return this.continueAfter(pending, chunk, at);
      }
    }
    this.flush();
    return undefined;
  }

  private async continueAfter(pending: Promise<void>, chunk: Buffer, at: number): Promise<void> {
    await pending;
    // Also where nothing is left to read: what has been permitted meanwhile leaves there.
    if (!this.state.isEnded) await this.read(chunk, at);
  }

  /** A pipeline may be as long as the client likes: its end waits in the client's socket, not here. */
  private async whenRoom(chunk: Buffer, at: number): Promise<void> {
    // What the server has answered may lie in its own buffer until it is asked for.
    this.up.own(flushFrame);
    this.flush();
    await this.state.room();
    if (!this.state.isEnded) await this.read(chunk, at);
  }

  private flush(): void {
    if (!this.up.isEmpty) this.up.flush(this.options.toUpstream);
  }

  private checkSize(type: number, size: number): void {
    if (size < 5) throw new GatewayError("protocolViolation", { detail: "invalid message length" });
    if (size > smallBytesMax && size > this.bytesMax(type)) {
      const { bindBytesMax, statementBytesMax } = this.options.limits;
      if (type === frontend.query || type === frontend.parse)
        throw new GatewayError("tooLarge", { hint: `Statements may have ${statementBytesMax} bytes here.` });
      if (type !== frontend.bind) throw new GatewayError("protocolViolation");
      const hint = `The parameters of one Bind may have ${bindBytesMax} bytes here. Send the data in parts, or by COPY.`;
      throw new GatewayError("tooLarge", { hint });
    }
  }

  private bytesMax(type: number): number {
    switch (type) {
      case frontend.copyData:
        return 0x40000000;
      case frontend.query:
      case frontend.parse:
        return this.options.limits.statementBytesMax;
      case frontend.bind:
      case frontend.functionCall:
        return this.options.limits.bindBytesMax;
      default:
        return 10_000;
    }
  }

  private message(type: number, chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    if (this.state.bound !== undefined && type !== frontend.terminate)
      return this.whileBound(type, chunk, at, end);
    if (type === frontend.sync) {
      this.sync(chunk, at, end);
      return undefined;
    }
    if (type === frontend.terminate) {
      this.up.pass(chunk, at, end);
      this.flush();
      this.state.isEnded = true;
      this.options.onTerminate();
      return undefined;
    }
    if (this.state.isSkipping) return undefined;
    if (this.state.isInDoubt && !isOfCopy(type)) return this.whenCertain(type, chunk, at, end);
    if (this.options.judge.isOutsideUtf8 && !isReadAsAscii(type, chunk, at, end)) {
      this.refuseMalformed(type, notAscii);
      return undefined;
    }
    try {
      return this.command(type, chunk, at, end);
    } catch (error) {
      if (!(error instanceof MalformedMessage)) throw error;
      this.refuseMalformed(type, error.refusal);
      return undefined;
    }
  }

  private command(type: number, chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    switch (type) {
      case frontend.query:
        return this.simple.query(chunk, at, end);
      case frontend.parse:
        return this.extended.parse(chunk, at, end);
      case frontend.bind:
        return this.extended.bind(chunk, at, end);
      case frontend.execute:
        return this.extended.execute(chunk, at, end);
      case frontend.describe:
        this.extended.describe(chunk, at, end);
        return undefined;
      case frontend.close:
        this.extended.close(chunk, at, end);
        return undefined;
      case frontend.flush:
        // While the server takes COPY data it does not look into one.
        if (end - at !== 5 && !this.state.isCopyingIn) throw malformed("long");
        this.up.pass(chunk, at, end);
        return undefined;
      case frontend.copyDone:
      case frontend.copyFail:
        this.state.copyEnded();
        this.up.pass(chunk, at, end);
        return undefined;
      case frontend.functionCall:
        return this.simple.functionCall(chunk, at, end);
      default:
        throw new GatewayError("protocolViolation", { detail: `invalid frontend message type ${type}` });
    }
  }

  /** The server alone would say so too, and go on with the next Query or Sync. */
  private refuseMalformed(type: number, refusal: SqlRefusal): void {
    if (type === frontend.query) this.admission.refuseQuery(refusal);
    else this.admission.refuseExtended(refusal);
  }

  private sync(chunk: Buffer, at: number, end: number): void {
    const { state } = this;
    state.isSkipping = false;
    this.up.pass(chunk, at, end);
    const entry = new Owed("sync", state.segment);
    entry.maybe = state.mayIgnoreSync;
    entry.copyEnds = state.copyEndsSent;
    state.push(entry);
    state.segment += 1;
  }

  /**
   * Takes a message once it is known whether the server will read it or skips up to the next Sync: what it is taken for
   * here must be what it is there.
   */
  private async whenCertain(type: number, chunk: Buffer, at: number, end: number): Promise<void> {
    const { state } = this;
    // The copy's end may lie in the server's buffer until it is asked for.
    this.up.own(flushFrame);
    this.flush();
    await state.settled();
    if (state.isInDoubt && !state.isEnded) {
      // Also while it still waits for data: then it ends the session over this, as it would over the client's message.
      state.probe = new SkipProbe(type, state.owed.length);
      state.push(new Owed("probe", state.segment));
      this.up.own(SkipProbe.message(this.options.nonce));
      this.flush();
      await state.settled();
    }
    if (!state.isEnded) await this.message(type, chunk, at, end);
  }

  // ---------------------------------------------------------------- limits on rows

  /** The server has ended a statement under a limit: what must follow it leaves before anything of the client's. */
  private afterBound(bound: RowBound): void {
    const { state } = this;
    // In the middle of a CopyData it would be read as a part of it.
    this.overdue = this.streaming > 0 ? bound : undefined;
    if (this.overdue !== undefined) return;
    state.bound = undefined;
    if (bound.exceeded !== undefined) {
      this.options.guard.rowLimitReached(bound.exceeded === "rows" ? "rows" : "affectedRows");
      if (!bound.hasFailed) this.admission.refuseExtended(bound.refusal);
    }
    if (bound.isSimple) {
      state.isSkipping = false;
      this.up.own(syncFrame);
      state.push(new Owed("sync", state.segment));
      state.segment += 1;
    }
    this.flush();
    state.wakeBound();
  }

  /** What the client sends while a statement runs under a limit waits for its end, but for the data of its COPY. */
  private async whileBound(type: number, chunk: Buffer, at: number, end: number): Promise<void> {
    const { state } = this;
    await state.boundMoved();
    if (state.isEnded) return;
    if (state.bound === undefined) {
      await this.message(type, chunk, at, end);
      return;
    }
    // The server ignores these while it takes COPY data; a Sync counts where the copy has failed already.
    if (type === frontend.flush) return;
    if (type === frontend.sync) {
      this.sync(chunk, at, end);
      return;
    }
    if (type !== frontend.copyDone && type !== frontend.copyFail)
      throw new GatewayError("protocolViolation", { detail: `unexpected message type ${type} during COPY` });
    state.copyEnded();
    this.up.pass(chunk, at, end);
    this.up.own(flushFrame);
    this.flush();
    await state.boundOver();
  }
}

/** The messages that belong to COPY data: the server takes them, or drops them, whatever it does. */
function isOfCopy(type: number): boolean {
  return type === frontend.copyDone || type === frontend.copyFail || type === frontend.flush;
}

/** No bound of any message is below this. */
const smallBytesMax = 10_000;
