import { isAscii, isUtf8 } from "node:buffer";
import type { SessionEffect } from "@sallyport/policy";
import { GatewayError } from "../../wire/gateway-error.ts";
import { fieldsInAscii } from "./client-encodings.ts";
import {
  backend,
  type ErrorFields,
  errorFrame,
  frame,
  lengthAt,
  parameterStatusFrame,
  readErrorFields,
} from "./frames.ts";
import { HeldBytes } from "./held-bytes.ts";
import { ByteSink } from "./masking/byte-sink.ts";
import { CopyMask } from "./masking/copy-mask.ts";
import { scrubbed, toldState } from "./masking/error-scrub.ts";
import { describedColumns, type RowMask } from "./masking/row-mask.ts";
import { Outbox } from "./outbox.ts";
import type { Owed, OwedKind } from "./owed.ts";
import { type PortalEntry, StatementEntry } from "./prepared.ts";
import { RepeatedText } from "./repeated-text.ts";
import type { RowBound } from "./row-bound.ts";
import { serverName } from "./server-name.ts";
import type { PostgresSessionOptions, SessionState } from "./session-state.ts";
import type { SkipProbe } from "./skip-probe.ts";
import { isUtf8Name } from "./startup.ts";

/**
 * The server's messages on their way to the client. Each answers what the head of the queue of owed answers says;
 * errors of substituted statements are rewritten, everything else passes as it is. Moves `isCopyingIn`, `copiesBegun`,
 * `answeredAhead` and, where an error ends the pipeline, `isSkipping` of the state.
 */
export class ServerHalf {
  private readonly options: PostgresSessionOptions;
  private readonly state: SessionState;
  private readonly down = new Outbox();
  private readonly held = new HeldBytes();
  private readonly tags = new RepeatedText();
  /** Bytes left of a message that is passed on while it comes. */
  private streaming = 0;
  private isStreamingRows = false;
  /** Whether the message that streams is kept from the client. */
  private isDropping = false;
  /** The statement under a limit that has just ended. */
  private boundOver: RowBound | undefined = undefined;
  /** What the command at the head of the queue has announced: rows, or the data of a COPY. */
  private announced: "nothing" | "rows" | "copy" = "nothing";
  private failedSinceReady = false;
  /** What waits for the end of a message; a few notices at most. */
  private readonly interjected: Buffer[] = [];
  /** Bytes of the chunk at hand that are passed on unread, and so are kept nowhere here. */
  private passed = 0;
  /** True where those were all of the chunk that came last. */
  hasPassed = false;
  /** True once the server has ended the session with a FATAL error, which the client has seen. */
  sawFatal = false;

  constructor(options: PostgresSessionOptions, state: SessionState) {
    this.options = options;
    this.state = state;
  }

  /** Takes bytes of the server and passes on what the client may see. Throws where the server breaks the protocol. */
  take(chunk: Buffer): void {
    this.passed = 0;
    this.hasPassed = false;
    const whole = this.held.isEmpty ? chunk : this.held.add(chunk);
    if (whole === undefined) return;
    try {
      this.read(whole);
    } finally {
      // Also where the server breaks the protocol: a message that has begun must end before an error can follow it.
      if (!this.down.isEmpty) this.down.flush(this.options.toClient);
    }
    this.hasPassed = whole === chunk && this.passed === chunk.length;
    const { boundOver } = this;
    if (boundOver !== undefined && this.streaming === 0) {
      this.boundOver = undefined;
      this.state.onBoundOver(boundOver);
    }
    if (this.state.bound !== undefined && this.state.isCopyingIn) this.state.wakeBound();
    this.state.wakeSettled();
  }

  /** True while the client has the beginning of a message whose end is still to come. */
  get isMidMessage(): boolean {
    return this.streaming > 0 && !this.isDropping;
  }

  /** Says something of the gateway's own, between two messages of the server and never within one. */
  interject(bytes: Buffer): void {
    if (this.isMidMessage) this.interjected.push(bytes);
    else this.options.toClient(bytes);
  }

  private read(chunk: Buffer): void {
    const { length } = chunk;
    let at = 0;
    while (at < length) {
      if (this.streaming > 0) {
        const taken = Math.min(this.streaming, length - at);
        if (!this.isDropping) {
          this.down.pass(chunk, at, at + taken);
          if (this.isStreamingRows) this.recordRows(chunk, at, at + taken);
        }
        this.streaming -= taken;
        this.passed += taken;
        if (this.streaming === 0 && this.interjected.length > 0)
          for (const bytes of this.interjected.splice(0)) this.down.own(bytes);
        at += taken;
        continue;
      }
      if (length - at < 5) {
        this.held.hold(chunk, at, 5);
        return;
      }
      const type = chunk[at] ?? 0;
      const size = lengthAt(chunk, at) + 1;
      if (size < 5) throw invalidLength();
      if (type === backend.dataRow || type === backend.copyData) {
        const next = this.passRows(chunk, at, size);
        if (next < 0) return;
        at = next;
        continue;
      }
      if (isReadWhole(type) || this.isForProbe(type) || this.isReadForMasks(type)) {
        if (size > this.options.limits.replyBytesMax) {
          throw new GatewayError("upstreamProtocol", { detail: "a message of the server is too long" });
        }
        if (length - at < size) {
          this.held.hold(chunk, at, size);
          return;
        }
        this.message(type, chunk, at, at + size);
        at += size;
        continue;
      }
      if (isBare(type) && size !== 5) throw malformed();
      this.isDropping = this.isHidden(type);
      this.answered(type);
      this.isStreamingRows = type === backend.rowDescription;
      this.streaming = size;
    }
  }

  // ---------------------------------------------------------------- rows

  /** Counts and passes the run of rows that starts at `at`; most bytes of most answers go through here. */
  private passRows(chunk: Buffer, at: number, firstSize: number): number {
    const { length } = chunk;
    const type = chunk[at] ?? 0;
    this.skipMaybeSyncs();
    if (!this.isRowOwed(type)) throw unexpected(type);
    const first = this.state.owed.first();
    const mask = first?.masks === undefined ? undefined : this.maskOf(first, type);
    if (first !== undefined && mask !== undefined) return this.passMaskedRows(first, mask, chunk, at);
    const bound = first?.bound;
    if (bound !== undefined) return this.passBoundedRow(bound, chunk, at, firstSize);
    if (first?.showsName) return this.passName(first, chunk, at, firstSize);
    this.isDropping = false;
    let rows = 0;
    let size = firstSize;
    let next = at;
    for (;;) {
      rows += 1;
      next += size;
      if (next + 5 > length || chunk[next] !== type) break;
      size = lengthAt(chunk, next) + 1;
      if (size < 5) throw invalidLength();
    }
    const end = Math.min(next, length);
    this.streaming = next - end;
    this.passed += end - at;
    this.isStreamingRows = true;
    this.down.pass(chunk, at, end);
    this.recordRows(chunk, at, end);
    const running = this.running();
    if (running !== undefined) {
      running.rows += rows;
      running.bytes += next - at;
    }
    return end;
  }

  /** The row of SHOW application_name, as the client has called itself; -1 where it has not come whole yet. */
  private passName(owed: Owed, chunk: Buffer, at: number, size: number): number {
    const end = at + size;
    if (size > nameRowBytesMax || chunk[at] !== backend.dataRow)
      throw new GatewayError("upstreamProtocol", { detail: "that is no name" });
    if (end > chunk.length) {
      this.held.hold(chunk, at, size);
      return -1;
    }
    if (size < 11 || chunk.readUInt16BE(at + 5) !== 1 || chunk.readInt32BE(at + 7) !== size - 11)
      throw malformed();
    const own = Buffer.from(this.options.applicationName.shown(chunk.toString("utf8", at + 11, end)));
    const head = Buffer.alloc(6);
    head.writeUInt16BE(1);
    head.writeInt32BE(own.length, 2);
    const row = frame(backend.dataRow, Buffer.concat([head, own]));
    this.down.own(row);
    this.recordRows(row, 0, row.length);
    owed.rows += 1;
    owed.bytes += row.length;
    return end;
  }

  /** What must read the rows of the command at the head; undefined: they pass as they are. */
  private maskOf(owed: Owed, type: number): RowMask | CopyMask | undefined {
    if (type === backend.copyData) return owed.copyMask;
    if (owed.rowMask === undefined) {
      const columns = owed.described?.columns;
      // Rows of which the server has not said what they are: nobody knows what to hide.
      if (columns === undefined) throw unexpected(type);
      owed.rowMask = this.options.masks.rows(columns, owed.masks?.[owed.completed]);
    }
    return owed.rowMask.isIdle ? undefined : owed.rowMask;
  }

  /** A run of rows, or of messages of a COPY, with what is hidden of them; -1 where the first has not come whole yet. */
  private passMaskedRows(owed: Owed, mask: RowMask | CopyMask, chunk: Buffer, at: number): number {
    const { length } = chunk;
    const type = chunk[at] ?? 0;
    const sink = new ByteSink(length - at + 256);
    const { bound } = owed;
    let next = at;
    let rows = 0;
    // Rows that no mask has changed leave as a slice of the chunk.
    let plainFrom = at;
    let isPlain = true;
    while (next + 5 <= length && chunk[next] === type) {
      const size = lengthAt(chunk, next) + 1;
      if (size < 5) throw invalidLength();
      if (size > maskedBytesMax)
        throw new GatewayError("tooLarge", { detail: "a row is too large to be masked" });
      const end = next + size;
      if (end > length) break;
      const isTrailer = type === backend.copyData && size === 7;
      const isLeft = bound !== undefined && (isTrailer ? bound.exceeded !== undefined : !bound.takeRow());
      rows += isTrailer || isLeft ? 0 : 1;
      const begin = sink.length;
      const isChanged = isLeft || this.maskInto(mask, chunk, next, end, sink);
      if (isChanged && isPlain) {
        // What was plain so far stands in front.
        const changed = sink.length > begin ? Buffer.from(sink.since(begin)) : undefined;
        sink.cutTo(0);
        sink.range(chunk, plainFrom, next);
        if (changed !== undefined) sink.bytes(changed);
        isPlain = false;
      } else if (!isChanged && !isPlain) sink.range(chunk, next, end);
      next = end;
    }
    if (next === at) {
      this.held.hold(chunk, at, lengthAt(chunk, at) + 1);
      return -1;
    }
    plainFrom = at;
    const masked = isPlain ? chunk.subarray(plainFrom, next) : sink.since(0);
    if (isPlain) this.down.pass(chunk, plainFrom, next);
    else if (masked.length > 0) this.down.own(masked);
    owed.rows += rows;
    owed.bytes += masked.length;
    if (mask.maskedColumns > 0) this.options.masks.onMasked(mask.maskedColumns * rows);
    this.recordRows(masked, 0, masked.length);
    return next;
  }

  /** Adds one message to the sink, masked; false where it is to pass as it is. */
  private maskInto(
    mask: RowMask | CopyMask,
    chunk: Buffer,
    at: number,
    end: number,
    sink: ByteSink,
  ): boolean {
    if (!(mask instanceof CopyMask)) return mask.rewrite(chunk, at, end, sink);
    const begin = sink.length;
    sink.byte(backend.copyData);
    sink.int32(0);
    if (!mask.pushRow(chunk, at + 5, end, sink)) {
      const data = mask.push(chunk.subarray(at + 5, end));
      if (data === undefined) {
        sink.cutTo(begin);
        return true;
      }
      sink.bytes(data);
    }
    sink.setInt32(begin + 1, sink.length - begin - 1);
    return true;
  }

  /** Announcements that masks must read before rows come. */
  private isReadForMasks(type: number): boolean {
    if (type !== backend.rowDescription && type !== backend.copyOutResponse) return false;
    this.skipMaybeSyncs();
    const first = this.state.owed.first();
    if (first === undefined) return false;
    // Only a Describe that asks for the columns of a portal reads them without masks of its own.
    return first.masks !== undefined || (first.kind === "describe" && first.described !== undefined);
  }

  /** What the rows to come are. */
  private announcedFor(first: Owed, type: number, message: Buffer): void {
    const { masks } = this.options;
    if (type === backend.rowDescription) {
      const columns = describedColumns(message);
      if (first.kind === "describe") {
        if (first.described !== undefined) first.described.columns = columns;
      } else first.rowMask = masks.rows(columns, first.masks?.[first.completed]);
    } else {
      if (message.length < 8) throw malformed();
      first.copyMask = masks.copy(message.readUInt16BE(6), message[5] === 1, first.masks?.[first.completed]);
    }
  }

  /** One row of a statement under a limit. The last message of binary COPY data is no row. */
  private passBoundedRow(bound: RowBound, chunk: Buffer, at: number, size: number): number {
    const { length } = chunk;
    const isTrailer = chunk[at] === backend.copyData && size === 7;
    const end = Math.min(at + size, length);
    this.streaming = at + size - end;
    this.isStreamingRows = true;
    this.isDropping = isTrailer ? bound.exceeded !== undefined : !bound.takeRow();
    if (this.isDropping) return end;
    this.down.pass(chunk, at, end);
    this.recordRows(chunk, at, end);
    const running = this.running();
    if (running !== undefined) {
      running.rows += isTrailer ? 0 : 1;
      running.bytes += size;
    }
    return end;
  }

  /** Answers to what only the gateway has asked, and the end of a statement that went too far. */
  private isHidden(type: number): boolean {
    this.skipMaybeSyncs();
    const first = this.state.owed.first();
    if (first?.bound?.exceeded !== undefined) return true;
    return first?.isHidden === true && (first.isSwallowed || type !== backend.rowDescription);
  }

  /** The rows, their description before them, as the client gets them; the recording cuts them at its bound. */
  private recordRows(chunk: Buffer, from: number, end: number): void {
    if (!this.options.guard.recordsRows) return;
    const running = this.running();
    if (running !== undefined && running.number > 0)
      this.options.guard.rows(running.number, chunk.subarray(from, end));
  }

  /** Rows belong to the command at the head alone: what was refused, or has announced none, has none. */
  private isRowOwed(type: number): boolean {
    if (type === backend.copyData) return this.announced === "copy";
    const first = this.state.owed.first();
    if (first?.refusal !== undefined) return false;
    if (first?.kind === "execute") return this.announced !== "copy";
    return this.announced === "rows";
  }

  private running(): Owed | undefined {
    const first = this.state.owed.first();
    return first?.isRunning ? first : undefined;
  }

  // ---------------------------------------------------------------- what is owed

  /** Messages that need no reading: each ends or begins what the head of the queue owes. */
  private answered(type: number): void {
    const { state } = this;
    this.skipMaybeSyncs();
    const first = state.owed.first();
    // What was replaced by a statement that must fail has no answer but an error.
    if (first?.refusal !== undefined) throw unexpected(type);
    switch (type) {
      case backend.parseComplete:
        if (first?.kind !== "parse") throw unexpected(type);
        if (first.entry !== undefined) {
          state.statements.confirm(first.entry);
          if (!first.entry.isBehindOthers) first.entry.readBy = state.settings.values;
        }
        state.owed.shift();
        return;
      case backend.bindComplete:
        this.shiftOnly("bind", type);
        if (first?.portal !== undefined) this.portalMade(first.portal);
        return;
      case backend.closeComplete:
        if (first?.kind === "close" && first.entry !== undefined) state.statements.confirm(first.entry);
        this.shiftOnly("close", type);
        return;
      case backend.noData:
        this.shiftOnly("describe", type);
        return;
      case backend.rowDescription:
        if (first?.kind === "describe") state.owed.shift();
        else if (first?.kind !== "query" || this.announced !== "nothing") throw unexpected(type);
        else this.announced = "rows";
        return;
      case backend.parameterDescription:
        if (first?.kind !== "describe") throw unexpected(type);
        return;
      case backend.emptyQueryResponse:
      case backend.portalSuspended:
        // The rows so far may have run what changes names.
        if (type === backend.portalSuspended) this.applyEffects(first?.effects[first.completed] ?? [], "");
        if (first?.kind === "execute") this.finishExecute();
        else if (first?.kind !== "query" || type === backend.portalSuspended) throw unexpected(type);
        else first.isAnswered = true;
        return;
      case backend.copyInResponse:
        if (!first?.mayCopy || this.announced !== "nothing") throw unexpected(type);
        state.copiesBegun += 1;
        state.isCopyingIn = first.copyEnds < state.copiesBegun;
        this.markMaybeSyncs();
        return;
      case backend.copyOutResponse:
        if (!first?.mayCopy || this.announced !== "nothing") throw unexpected(type);
        this.announced = "copy";
        return;
      case backend.functionCallResponse:
        if (first?.kind !== "query") throw unexpected(type);
        first.isAnswered = true;
        return;
      case backend.copyDone:
        if (this.announced !== "copy") throw unexpected(type);
        this.announced = "nothing";
        first?.copyMask?.finish();
        return;
      default:
        throw unexpected(type);
    }
  }

  private portalMade(portal: PortalEntry): void {
    portal.confirmed = true;
    // SQL cannot name the unnamed one.
    if (portal.name !== "") this.options.masks.bound(serverName(portal.name), portal.statement.judged);
  }

  private shiftOnly(kind: OwedKind, type: number): void {
    if (this.state.owed.shift()?.kind !== kind) throw unexpected(type);
  }

  private skipMaybeSyncs(): void {
    const { state } = this;
    for (let first = state.owed.first(); first?.kind === "sync"; first = state.owed.first()) {
      if (!first.maybe) {
        if (state.answeredAhead === 0) return;
        state.answeredAhead -= 1;
      }
      state.owed.shift();
    }
    state.answeredAhead = 0;
  }

  /** A Sync sent while the server took COPY data is ignored by it, as are those pipelined behind the COPY's start. */
  private markMaybeSyncs(): void {
    for (let index = 1; ; index += 1) {
      const entry = this.state.owed.at(index);
      if (entry?.kind !== "sync" || entry.copyEnds >= this.state.copiesBegun) return;
      entry.maybe = true;
    }
  }

  /** Both answers that a probe has; nothing else is owed behind it. */
  private isForProbe(type: number): boolean {
    return (
      this.state.probe !== undefined && (type === backend.closeComplete || type === backend.readyForQuery)
    );
  }

  /** Reads an answer to the question whether the server skips; the client gets those to Syncs of its own. */
  private probed(probe: SkipProbe, type: number, status: number): void {
    const { state } = this;
    if (!probe.take(type, status)) throw unexpected(type);
    if (!probe.isOver) return;
    state.probe = undefined;
    for (const ready of probe.answered) {
      this.readyForQuery(ready);
      this.down.own(frame(backend.readyForQuery, Buffer.from([ready])));
    }
    this.skipMaybeSyncs();
    this.shiftOnly("probe", type);
    state.doubtOver();
    // The probe's own Sync has ended what the client's next one is to end.
    if (probe.isSkipped) state.isSkipping = true;
  }

  // ---------------------------------------------------------------- messages read whole

  private message(type: number, chunk: Buffer, at: number, end: number): void {
    const { probe } = this.state;
    if (probe !== undefined && this.isForProbe(type)) {
      if (end - at !== (type === backend.readyForQuery ? 6 : 5)) throw malformed();
      this.probed(probe, type, chunk[at + 5] ?? 0);
      return;
    }
    switch (type) {
      case backend.commandComplete:
        if (chunk[end - 1] !== 0) throw malformed();
        this.skipMaybeSyncs();
        if (!this.commandComplete(this.tags.read(chunk, at + 5, end - 1))) return;
        break;
      case backend.readyForQuery:
        if (end - at !== 6) throw malformed();
        this.readyForQuery(chunk[at + 5] ?? 0);
        break;
      case backend.errorResponse:
        this.errorResponse(chunk, at, end);
        return;
      case backend.parameterStatus:
        this.parameterStatus(chunk, at, end);
        return;
      case backend.rowDescription:
      case backend.copyOutResponse: {
        const first = this.state.owed.first();
        const isHidden = this.isHidden(type);
        this.answered(type);
        if (first !== undefined) this.announcedFor(first, type, chunk.subarray(at, end));
        if (isHidden) return;
        this.down.pass(chunk, at, end);
        if (type === backend.rowDescription) this.recordRows(chunk, at, end);
        return;
      }
      default:
        // Notices and notifications belong to nothing that is owed.
        if (chunk[end - 1] !== 0) throw malformed();
        if (type === backend.notificationResponse) {
          this.ownNotification(chunk, at, end);
          if (this.options.masks.hasPatterns) {
            if (this.options.judge.isOutsideUtf8) throw unreadable();
            this.down.own(this.searchedNotification(chunk, at, end));
            return;
          }
        } else if (this.hidesErrors()) {
          this.down.own(scrubbed(chunk.subarray(at, end)));
          return;
        }
        break;
    }
    this.down.pass(chunk, at, end);
  }

  /** True where an error or notice that comes now may show values that are masked. */
  private hidesErrors(): boolean {
    const first = this.state.owed.first();
    // What belongs to no statement may come from one before: checks that a Sync ends, what was sent to be logged.
    if (first === undefined || first.kind === "sync") return this.options.masks.hidesColumns;
    return first.hidesErrors;
  }

  /** A notification with what patterns find in its payload hidden. */
  private searchedNotification(chunk: Buffer, at: number, end: number): Buffer {
    const payload = chunk.indexOf(0, at + 9) + 1;
    const text = this.options.masks.text(chunk.subarray(payload, end - 1));
    const body = Buffer.concat([chunk.subarray(at + 5, payload), text, Buffer.from([0])]);
    return frame(backend.notificationResponse, body);
  }

  /** False where the statement went too far: the client must not read that it is done. */
  private commandComplete(tag: string): boolean {
    this.state.isCopyingIn = false;
    const first = this.state.owed.first();
    if (!first?.isRunning || first.refusal !== undefined) throw unexpected(backend.commandComplete);
    // One for each statement: what is more belongs to nothing.
    if (first.effects.length > 0 && first.completed >= first.effects.length)
      throw unexpected(backend.commandComplete);
    this.announced = "nothing";
    first.tag = tag;
    first.isAnswered = true;
    const effects = first.effects[first.completed] ?? [];
    if (first.masks !== undefined) this.maskedStatementOver(first);
    first.completed += 1;
    first.bound?.takeTag(tag);
    if (first.bound?.exceeded !== undefined) {
      this.finishExecute();
      return false;
    }
    if (first.kind === "execute") {
      this.finishExecute();
      // The copy went through: the server has ignored every Sync that came before its end.
      this.skipMaybeSyncs();
    }
    if (effects.length > 0) this.applyEffects(effects, tag, first.completed === 1 && !first.isBehindOthers);
    return true;
  }

  private maskedStatementOver(first: Owed): void {
    const over = first.masks?.[first.completed];
    if (over?.declares !== undefined) this.options.masks.declared(over.declares, over);
    first.rowMask = undefined;
    first.copyMask = undefined;
  }

  private finishExecute(): void {
    this.announced = "nothing";
    this.state.copiesBegun = 0;
    const entry = this.state.owed.shift();
    if (entry === undefined) return;
    this.state.executed(entry, false);
    const { bound } = entry;
    if (bound?.exceeded !== undefined) entry.sqlstate = bound.refusal.sqlstate;
    this.report(entry);
    this.endBound(bound);
  }

  private endBound(bound: RowBound | undefined): void {
    if (bound === undefined) return;
    bound.isOver = true;
    this.boundOver = bound;
  }

  /** `isFirst`: nothing has run since the server reported its settings. */
  private applyEffects(effects: readonly SessionEffect[], tag: string, isFirst = false): void {
    const { statements, portals, segment } = this.state;
    for (const effect of effects) {
      // COMMIT of a failed transaction answers ROLLBACK.
      const isRolledBack = effect.kind === "transaction" && effect.action === "commit" && tag === "ROLLBACK";
      this.options.names.apply(isRolledBack ? { kind: "transaction", action: "rollback" } : effect);
      if (effect.kind === "prepare") {
        const entry = new StatementEntry(effect.name, this.options.judge.judgePrepared(effect), segment);
        entry.confirmed = true;
        if (isFirst) entry.readBy = this.state.settings.values;
        statements.put(entry);
      } else if (effect.kind === "deallocate") {
        if (effect.name === undefined) statements.clear();
        else statements.delete(effect.name);
      } else if (effect.kind === "discardAll") {
        statements.clear();
        portals.clear();
      }
    }
  }

  private report(entry: Owed): void {
    if (entry.number === 0) return;
    const { rows, bytes, tag, sqlstate } = entry;
    const ms = this.options.clock.monotonicMs() - entry.startedMs;
    this.options.guard.response(entry.number, { rows, bytes, ms, tag, sqlstate });
  }

  private readyForQuery(status: number): void {
    const { state } = this;
    state.isCopyingIn = false;
    state.copiesBegun = 0;
    // The head may be a Sync that the server has ignored while it copied; the ready one is then behind it.
    const first = state.owed.shift();
    const isAnswered = first?.kind === "sync" || (first?.kind === "query" && first.isAnswered);
    if (first === undefined || !isAnswered) throw unexpected(backend.readyForQuery);
    if (status !== readyIdle && status !== readyInTransaction && status !== readyFailed) throw malformed();
    this.announced = "nothing";
    if (first.kind === "sync") {
      state.answeredAhead = state.owed.length === 0 ? 0 : state.answeredAhead + (first.maybe ? 1 : 0);
      state.doubtOver();
    }
    if (first.kind === "query") this.report(first);
    if (status === readyIdle) {
      state.portals.endUpTo(first.ends);
      this.options.masks.transactionEnded();
    }
    const letter = status === readyIdle ? "I" : status === readyInTransaction ? "T" : "E";
    this.state.transaction = letter;
    this.options.names.ready(letter, this.failedSinceReady);
    this.failedSinceReady = false;
  }

  private errorResponse(chunk: Buffer, at: number, end: number): void {
    this.state.isCopyingIn = false;
    this.failedSinceReady = true;
    const fields = readErrorFields(chunk.subarray(at + 5, end));
    if (fields.get("V") === "FATAL" || fields.get("V") === "PANIC") this.sawFatal = true;
    // An error cannot answer a Sync: one at the head was ignored by the server.
    this.skipMaybeSyncs();
    const first = this.state.owed.first();
    // Idle, a server has errors only to say goodbye with.
    if (chunk[end - 1] !== 0 || fields.size === 0) throw malformed();
    if ((first === undefined || first.kind === "probe") && !this.sawFatal)
      throw unexpected(backend.errorResponse);
    this.announced = "nothing";
    const refusal = first?.refusal;
    const isOurs = refusal !== undefined && (fields.get("M") ?? "").includes(this.options.nonce);
    const exceeded = first?.bound?.exceeded === undefined ? undefined : first.bound.refusal;
    const isHidden = this.hidesErrors();
    const sqlstate = isHidden ? toldState(fields) : (fields.get("C") ?? "XX000");
    if (isOurs) this.down.own(this.ownError({ severity: "ERROR", ...refusal }));
    else if (exceeded !== undefined) this.down.own(this.ownError({ severity: "ERROR", ...exceeded }));
    else if (isHidden) this.down.own(scrubbed(this.asTold(chunk, at, end)));
    else if (this.state.probe !== undefined) this.down.own(this.asTold(chunk, at, end));
    else this.down.pass(chunk, at, end);
    if (first?.kind === "query") {
      first.sqlstate = sqlstate;
      first.isAnswered = true;
    } else this.skipToSync(sqlstate);
  }

  /** An error as the server would have told it without the gateway's own question. */
  private asTold(chunk: Buffer, at: number, end: number): Buffer {
    const error = chunk.subarray(at, end);
    return this.state.probe?.told(error) ?? error;
  }

  private ownError(fields: ErrorFields): Buffer {
    return errorFrame(this.options.judge.isOutsideUtf8 ? fieldsInAscii(fields) : fields);
  }

  /** The server ignores everything up to the next Sync: take back what it will not do. */
  private skipToSync(sqlstate: string): void {
    const { state } = this;
    const hasBegun = state.copiesBegun > 0;
    state.copiesBegun = 0;
    const skipped: Owed[] = [];
    for (let first = state.owed.first(); first !== undefined; first = state.owed.first()) {
      if (first.kind === "sync") break;
      skipped.push(first);
      state.owed.shift();
    }
    if (state.owed.length === 0 && skipped.length > 0) state.isSkipping = true;
    for (let index = skipped.length - 1; index >= 0; index -= 1) {
      const entry = skipped[index];
      if (entry === undefined) continue;
      state.executed(entry, hasBegun && index === 0);
      this.takeBack(entry, index === 0, sqlstate);
    }
  }

  private takeBack(owed: Owed, hasFailed: boolean, sqlstate: string): void {
    if (owed.bound !== undefined) {
      owed.bound.hasFailed = true;
      this.endBound(owed.bound);
    }
    const { statements, portals } = this.state;
    const { kind, entry, portal } = owed;
    if (entry !== undefined) statements.revert(entry, hasFailed && kind === "parse");
    if (portal !== undefined && portals.get(portal.name) === portal) portals.delete(portal.name);
    if (kind === "execute" && hasFailed) {
      owed.sqlstate = sqlstate;
      this.report(owed);
    }
  }

  /** Clients tell their own notifications, and each other's, by the process ids that BackendKeyData gave them. */
  private ownNotification(chunk: Buffer, at: number, end: number): void {
    const { processIds } = this.options;
    if (end - at < 11) throw malformed();
    const shown = processIds?.shown(chunk.readUInt32BE(at + 5));
    if (shown !== undefined) chunk.writeUInt32BE(shown, at + 5);
  }

  private parameterStatus(chunk: Buffer, at: number, end: number): void {
    const { judge } = this.options;
    // A schema's name in bytes of another encoding would be another schema's here.
    if (judge.isOutsideUtf8 && !isAscii(chunk.subarray(at + 5, end))) throw unreadable();
    const nameEnd = chunk.indexOf(0, at + 5);
    if (
      nameEnd + 1 >= end ||
      chunk.indexOf(0, nameEnd + 1) !== end - 1 ||
      !isUtf8(chunk.subarray(at + 5, end))
    )
      throw malformed();
    const name = chunk.toString("latin1", at + 5, nameEnd);
    const value = chunk.toString("utf8", nameEnd + 1, end - 1);
    // What we parse must be what the server parses: these two decide where a literal ends.
    if (name === "standard_conforming_strings" && value !== "on") throw parserUnsafe(name);
    // PostgreSQL reports `UNICODE` as it was written, and every other spelling as UTF8.
    if (name === "client_encoding" && !isUtf8Name(value) && !judge.mayBe(value)) throw parserUnsafe(name);
    if (name === "search_path") this.options.names.reportSearchPath(value);
    this.state.settings.report(name, value);
    if (name === "application_name")
      this.down.own(parameterStatusFrame(name, this.options.applicationName.shown(value)));
    else this.down.pass(chunk, at, end);
  }
}

/** A row that is masked is held as a whole. */
const maskedBytesMax = 256 * 1024 * 1024;

/** A name has 63 bytes at most. */
const nameRowBytesMax = 512;

const readyIdle = 0x49;
const readyInTransaction = 0x54;
const readyFailed = 0x45;

/** Messages that are nothing but their type. */
function isBare(type: number): boolean {
  return (
    type === backend.parseComplete ||
    type === backend.bindComplete ||
    type === backend.closeComplete ||
    type === backend.noData ||
    type === backend.portalSuspended ||
    type === backend.emptyQueryResponse ||
    type === backend.copyDone
  );
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

function invalidLength(): GatewayError {
  return new GatewayError("upstreamProtocol", { detail: "invalid message length of the server" });
}

function malformed(): GatewayError {
  return new GatewayError("upstreamProtocol", { detail: "malformed message of the server" });
}

function unexpected(type: number): GatewayError {
  const letter = type > 0x20 && type < 0x7f ? String.fromCharCode(type) : String(type);
  return new GatewayError("upstreamProtocol", { detail: `unexpected message ${letter} of the server` });
}

function unreadable(): GatewayError {
  return new GatewayError("unsupported", {
    detail: "the server said something that is no ASCII, and client_encoding was not always UTF8",
  });
}

function parserUnsafe(name: string): GatewayError {
  return new GatewayError("unsupported", {
    detail: `${name} was changed, so statements can no longer be judged`,
  });
}
