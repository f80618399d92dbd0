import type { Permit, Refusal } from "../../guard/index.ts";
import type { Admission, QueryParts } from "./admission.ts";
import { type BindParts, readBind, recordedParameters } from "./bind.ts";
import { notAscii } from "./client-encodings.ts";
import {
  closeStatementFrame,
  describeFrame,
  describePortalFrame,
  executeFrame,
  flushFrame,
  otherTextFrame,
  readText,
} from "./frames.ts";
import { type Holds, meansTheSame } from "./holds.ts";
import { malformed } from "./malformed.ts";
import type { Outbox } from "./outbox.ts";
import { type Described, Owed } from "./owed.ts";
import { typesText, unreadableTypes, userTypesIn } from "./parameter-types.ts";
import { PortalEntry, StatementEntry } from "./prepared.ts";
import type { PreparedRoom } from "./prepared-room.ts";
import { inServersNumbers, insteadOf } from "./process-ids.ts";
import { failingWhenRun, fetchCommand, type SqlRefusal, sqlRefusal, unknownStatement } from "./refusals.ts";
import { RepeatedText } from "./repeated-text.ts";
import { RowBound, unboundable } from "./row-bound.ts";
import type { PostgresSessionOptions, SessionState } from "./session-state.ts";
import type { Judged } from "./statement-judge.ts";
import type { TimelyJudge } from "./timely-judge.ts";

/**
 * The client's messages of the extended query protocol. What Parse prepares is judged there already, but recorded and
 * permitted by Bind, where its values are known; Execute of a portal goes by Bind's permit while policy still allows it.
 *
 * https://www.postgresql.org/docs/18/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY
 */
export class ExtendedQuery {
  private readonly options: PostgresSessionOptions;
  private readonly state: SessionState;
  private readonly up: Outbox;
  private readonly judge: TimelyJudge;
  private readonly holds: Holds;
  private readonly admission: Admission;
  private readonly room: PreparedRoom;
  /** Names of statements in Bind: most sessions bind one again and again. */
  private readonly boundNames = new RepeatedText();

  constructor({ options, state, up, judge, holds, admission, room }: QueryParts) {
    this.options = options;
    this.state = state;
    this.up = up;
    this.judge = judge;
    this.holds = holds;
    this.admission = admission;
    this.room = room;
  }

  // ---------------------------------------------------------------- Parse

  /** Takes a Parse. */
  parse(chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    const nameEnd = chunk.indexOf(0, at + 5);
    const sqlEnd = nameEnd < 0 ? -1 : chunk.indexOf(0, nameEnd + 1);
    if (sqlEnd < 0 || sqlEnd >= end) throw malformed("string");
    const name = readText(chunk, at + 5, nameEnd + 1);
    const text = readText(chunk, nameEnd + 1, sqlEnd + 1);
    if (sqlEnd + 3 > end) throw malformed("short");
    const over = end - sqlEnd - 3 - 4 * chunk.readUInt16BE(sqlEnd + 1);
    if (over !== 0) throw malformed(over < 0 ? "short" : "long");
    const types = userTypesIn(chunk, sqlEnd + 1);
    if (types.length > 0) return this.parseTyped(types, text, name, chunk, at, end);
    const judged = this.judge.now(text);
    if (judged !== undefined) return this.admitParse(judged, name, chunk, at, end);
    return this.judge.later(text, (later) => this.admitParse(later, name, chunk, at, end));
  }

  /** A Parse that names types of users: reading their values must be allowed as well. */
  private async parseTyped(
    types: readonly number[],
    text: string,
    name: string,
    chunk: Buffer,
    at: number,
    end: number,
  ): Promise<void> {
    const reading = await this.readingOf(types);
    if (this.state.isIgnored) return;
    await this.whereTypesMayBeRead(reading, name, () =>
      this.judge.later(text, (judged) => {
        const pending = this.admitParse(judged, name, chunk, at, end);
        const made = this.state.statements.newest(name);
        if (made !== undefined && !made.confirmed) made.typesText = reading;
        return pending;
      }),
    );
  }

  private async readingOf(types: readonly number[]): Promise<string> {
    try {
      return await typesText(types, this.options.names);
    } catch {
      // Without a catalog nothing is known of them.
      return unreadableTypes;
    }
  }

  /** Goes on where policy lets values of these types be read; `name` is that of a Parse. */
  private whereTypesMayBeRead(
    reading: string,
    name: string | undefined,
    then: () => Promise<void> | undefined,
  ): Promise<void> {
    return this.judge.later(reading, (types) =>
      types.verdict.action === "Allow" || this.options.guard.isObserving
        ? then()
        : this.admission.refuseJudged(types, name),
    );
  }

  private admitParse(
    judged: Judged,
    name: string,
    chunk: Buffer,
    at: number,
    end: number,
  ): Promise<void> | undefined {
    if (judged.namesProcesses) {
      const other = inServersNumbers(judged.text, this.options.processIds);
      if (other !== undefined)
        return insteadOf(otherTextFrame(chunk, at, end, other), { chunk, end }, (...place) =>
          this.parse(...place),
        );
    }
    const preview = this.options.guard.preview(judged.verdict);
    if (preview === undefined) {
      const failing = failingWhenRun(judged, this.options.nonce);
      if (failing === undefined) return this.admission.refuseJudged(judged, name);
      const overfull = this.room.refusalOf(name, judged);
      if (overfull !== undefined) return this.admission.refuseExtended(overfull);
      this.up.own(otherTextFrame(chunk, at, end, failing));
      this.putStatement(judged, name).standsFor = Buffer.from(chunk.subarray(at, end));
      return undefined;
    }
    const limits = this.admission.limitsOn(judged);
    const unfit = limits === undefined ? undefined : unboundable(limits, judged);
    // Here already: once prepared, SQL could EXECUTE it without showing its text.
    if (unfit !== undefined) {
      this.admission.refuseExtended(
        unfit,
        name === "" ? new StatementEntry("", judged, this.state.segment) : undefined,
      );
      return undefined;
    }
    const overfull = this.room.refusalOf(name, judged);
    if (overfull !== undefined) return this.admission.refuseExtended(overfull);
    if (judged.nameSettings === undefined) this.up.passCommand(preview, chunk, at, end);
    else this.up.ownCommand(preview, otherTextFrame(chunk, at, end, this.admission.sentText(judged)));
    this.putStatement(judged, name);
    return undefined;
  }

  /** The server now owes ParseComplete for this statement. */
  private putStatement(judged: Judged, name: string): StatementEntry {
    const { state } = this;
    const owed = new Owed("parse", state.segment);
    owed.hidesErrors = judged.hidesErrors;
    const entry = new StatementEntry(name, judged, state.segment);
    entry.isBehindOthers = state.mayHaveSetIn === state.segment;
    owed.entry = entry;
    state.statements.put(entry);
    state.push(owed);
    return entry;
  }

  // ---------------------------------------------------------------- Bind

  /** Takes a Bind. */
  bind(chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    const message = readBind(chunk, at + 5, end, this.boundNames);
    const entry = this.state.statements.newest(message.statement);
    // What an earlier segment has left unanswered may not exist after all, and PREPARE, DEALLOCATE or DISCARD on their
    // way may change what the name means.
    const isDoubtful = entry !== undefined && !entry.confirmed && entry.segment !== this.state.segment;
    if (isDoubtful || this.state.owed.unsettled > 0) {
      return this.judge.whenSettled(() => this.bindTo(message, end));
    }
    return this.bindTo(message, end);
  }

  private bindTo(message: BindParts, end: number): Promise<void> | undefined {
    const entry = this.state.statements.get(message.statement);
    if (entry === undefined) {
      this.bindUnknown(message, end);
      return undefined;
    }
    // Its text would be sent now, in the encoding of then.
    if (entry.standsFor !== undefined && this.options.judge.isOutsideUtf8) {
      this.admission.refuseExtended(notAscii);
      return undefined;
    }
    const { typesText: reading } = entry;
    if (reading !== undefined)
      return this.whereTypesMayBeRead(reading, undefined, () => this.bindJudged(entry, message, end));
    return this.bindJudged(entry, message, end);
  }

  private bindJudged(entry: StatementEntry, message: BindParts, end: number): Promise<void> | undefined {
    const { judged } = entry;
    const isCurrent = this.judge.knowsNames && this.options.judge.isCurrent(judged);
    // The server goes by the names of Parse as long as nothing that it read there has changed: both count.
    const { text, namesVersion } = judged;
    const now = isCurrent ? judged : this.judge.now(text, namesVersion);
    if (now !== undefined) return this.admitBind(now, entry, message, end);
    return this.judge.later(text, (later) => this.admitBind(later, entry, message, end), namesVersion);
  }

  private bindUnknown(message: BindParts, end: number): void {
    const { guard, judge } = this.options;
    if (!guard.isObserving) {
      this.admission.refuseExtended(unknownStatement(message.statement));
      return;
    }
    const judged = judge.judgeCommand({ protocol: "postgres", text: "", parts: [] });
    const permit = guard.preview(judged.verdict);
    if (permit === undefined) return;
    const { segment } = this.state;
    this.up.passCommand(permit, message.chunk, message.at, end);
    const owed = new Owed("bind", segment);
    const statement = new StatementEntry(message.statement, judged, segment);
    statement.confirmed = true;
    owed.portal = new PortalEntry(message.portal, statement, 0, segment);
    this.state.push(owed);
  }

  private admitBind(
    judged: Judged,
    entry: StatementEntry,
    message: BindParts,
    end: number,
  ): Promise<void> | undefined {
    const other = judged.namesProcesses ? this.options.processIds?.inBind(message, end) : undefined;
    if (other !== undefined)
      return insteadOf(other, { chunk: message.chunk, end }, (...place) => this.bind(...place));
    const { limits: bounds, judge } = this.options;
    const values = recordedParameters(message, bounds.recordedParameterBytesMax, judge.isOutsideUtf8);
    if (this.holds.mustPrepare(judged)) return this.holds.prepare(() => this.bindTo(message, end));
    const { chunk, at } = message;
    // Before anybody permits it: what is recorded as permitted is sent.
    const full = this.room.refusalOfPortal(message.portal, judged);
    if (full !== undefined) return this.admission.refuseExtended(full);
    const held = this.holds.mayHold(judged)
      ? this.holds.heldBy(
          judged,
          [Buffer.from(judged.text), chunk.subarray(at, end)],
          chunk.subarray(end),
          entry,
        )
      : undefined;
    const outcome = this.admission.request(judged, values, held?.holdable);
    if (!(outcome instanceof Promise)) return this.sendBind(outcome, judged, entry, message, end);
    return this.admission.unlessIgnored(outcome, (later) => {
      this.sendBind(later, held?.judged ?? judged, entry, message, end);
      const portal = held === undefined ? undefined : this.state.portals.get(message.portal);
      if (portal !== undefined) portal.heldAt = this.state.runs;
    });
  }

  private sendBind(
    outcome: Permit | Refusal,
    judged: Judged,
    entry: StatementEntry,
    message: BindParts,
    end: number,
  ): undefined {
    if (outcome.kind !== "permit" && entry.standsFor === undefined) {
      this.admission.refuseExtended(sqlRefusal(outcome, judged));
      return;
    }
    const { portals, segment } = this.state;
    if (outcome.kind !== "permit") {
      const owed = new Owed("bind", segment);
      owed.portal = new PortalEntry(message.portal, entry, 0, segment);
      owed.portal.refusal = sqlRefusal(outcome, judged);
      portals.set(message.portal, owed.portal);
      this.up.pass(message.chunk, message.at, end);
      this.state.push(owed);
      return;
    }
    if (entry.standsFor !== undefined) this.putInPlace(outcome, judged, entry.standsFor, entry.name);
    const statement = judged === entry.judged ? entry : entry.judgedAs(judged);
    const owed = new Owed("bind", segment);
    owed.portal = new PortalEntry(message.portal, statement, outcome.number, segment);
    owed.portal.preparedChanges = this.state.statements.changes;
    portals.set(message.portal, owed.portal);
    owed.hidesErrors = judged.hidesErrors;
    // Functions that are called immutable run while the portal is planned, whether it is executed or not.
    for (const effects of judged.effects)
      for (const effect of effects)
        if (effect.kind === "setSearchPath" && effect.path === undefined && effect.isReset !== true)
          this.options.names.apply(effect);
    this.up.passCommand(outcome, message.chunk, message.at, end);
    this.state.push(owed);
    if (judged.masks !== undefined) this.describeForMasks(message.portal, owed.portal.described);
  }

  /** A statement that was to fail may run now: the server gets it in place of what stood for it. */
  private putInPlace(permit: Permit, judged: Judged, parse: Buffer, name: string): void {
    const { state } = this;
    if (name !== "") {
      this.up.own(closeStatementFrame(name));
      const closed = new Owed("close", state.segment);
      closed.isHidden = true;
      closed.entry = new StatementEntry(name, judged, state.segment, true);
      state.statements.put(closed.entry);
      state.push(closed);
    }
    if (judged.nameSettings === undefined) this.up.ownCommand(permit, parse);
    else this.up.ownCommand(permit, otherTextFrame(parse, 0, parse.length, this.admission.sentText(judged)));
    const made = new Owed("parse", state.segment);
    made.isHidden = true;
    made.hidesErrors = judged.hidesErrors;
    made.entry = new StatementEntry(name, judged, state.segment);
    state.statements.put(made.entry);
    state.push(made);
  }

  /** Asks what the columns of a portal are: a client that knows them already would not ask. */
  private describeForMasks(portal: string, described: Described): void {
    this.up.own(portal === "" ? describeFrame : describePortalFrame(portal));
    const owed = new Owed("describe", this.state.segment);
    owed.isHidden = true;
    owed.isSwallowed = true;
    owed.hidesErrors = true;
    owed.described = described;
    this.state.push(owed);
  }

  // ---------------------------------------------------------------- Execute

  /** Takes an Execute. */
  execute(chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    const nameEnd = chunk.indexOf(0, at + 5);
    if (nameEnd < 0 || nameEnd >= end) throw malformed("string");
    const name = readText(chunk, at + 5, nameEnd + 1);
    if (nameEnd + 5 !== end) throw malformed(nameEnd + 5 > end ? "short" : "long");
    const portal = this.state.portals.get(name);
    if (name === "") {
      // A Query that fails in a transaction leaves the server an unnamed portal whose plan is freed: an Execute of it
      // ends PostgreSQL. So the unnamed portal is one that Bind has made, and is known to have made, or none.
      if (portal === undefined) {
        this.admission.refuseExtended({ sqlstate: "34000", message: 'portal "" does not exist' });
        return undefined;
      }
      if (portal.segment !== this.state.segment && this.state.mustSettle)
        return this.judge.whenSettled(() => this.execute(chunk, at, end));
    }
    if (portal === undefined) return this.fetch(name, chunk, at, end);
    // Its Bind may have failed because of a cursor of that name, which this would run.
    if (!portal.confirmed && portal.segment !== this.state.segment && this.state.mustSettle)
      return this.judge.whenSettled(() => this.execute(chunk, at, end));
    if (portal.refusal !== undefined) {
      this.up.pass(chunk, at, end);
      const owed = new Owed("execute", this.state.segment);
      owed.refusal = portal.refusal;
      owed.hidesErrors = portal.statement.judged.hidesErrors;
      this.state.push(owed);
      this.state.isSkipping = true;
      return undefined;
    }
    // What is on its way may change what its names mean: those of a utility statement, and of functions, are looked up now.
    if (this.state.owed.unsettled > 0) return this.judge.whenSettled(() => this.execute(chunk, at, end));
    const { judged } = portal.statement;
    if (judged.readsPrepared && portal.preparedChanges !== this.state.statements.changes) {
      this.admission.refuseExtended(preparedAnew);
      return undefined;
    }
    if (this.options.judge.holdsForNames(judged))
      return this.executeJudged(this.options.judge.reconsidered(judged), portal, chunk, at, end);
    const { text, plannedAt } = judged;
    const now = this.judge.now(text, plannedAt);
    if (now !== undefined) return this.executeJudged(now, portal, chunk, at, end);
    return this.judge.later(text, (later) => this.executeJudged(later, portal, chunk, at, end), plannedAt);
  }

  /** Executes a portal that Bind has made; `now` is its statement as it is judged now. */
  private executeJudged(
    now: Judged,
    portal: PortalEntry,
    chunk: Buffer,
    at: number,
    end: number,
  ): Promise<void> | undefined {
    const { judged } = portal.statement;
    if (portal.heldAt !== undefined && portal.heldAt !== this.state.runs) {
      this.admission.refuseExtended(boundBefore);
      return undefined;
    }
    const isBoundTo =
      judged.masks !== undefined || now.masks !== undefined || judged.verdict.satisfied !== undefined;
    if (isBoundTo && now !== judged && now.rejection === undefined && !meansTheSame(now, judged)) {
      this.admission.refuseExtended(boundToOthers);
      return undefined;
    }
    if (now !== judged && !this.options.guard.isObserving && !this.admission.isStillAllowed(now, judged))
      return this.admission.refuseJudged(now);
    if (
      judged.verdict.satisfied !== undefined &&
      !this.options.guard.holdsStill(portal.number, judged.verdict)
    ) {
      this.admission.refuseExtended({ sqlstate: "42501", message: "the approval of this has ended" });
      return undefined;
    }
    const limits = this.admission.limitsOn(now);
    if (limits !== undefined) {
      const unfit = unboundable(limits, now);
      if (unfit !== undefined) this.admission.refuseExtended(unfit);
      else this.executeBounded(new RowBound(limits, now, portal, false), portal, chunk.readInt32BE(end - 4));
      return undefined;
    }
    // Masks that are newer than the portal: its columns have not been asked for yet.
    if (now.masks !== undefined && judged.masks === undefined)
      this.describeForMasks(portal.name, portal.described);
    // The permit is Bind's: this portal was judged and recorded there, and the policy still allows it.
    this.up.pass(chunk, at, end);
    const owed = new Owed("execute", this.state.segment);
    owed.showsName = now.showsName;
    owed.described = portal.described;
    this.admission.run(owed, now, portal.number);
    if (portal.heldAt !== undefined) portal.heldAt = this.state.runs;
    this.state.push(owed);
    return undefined;
  }

  private executeBounded(bound: RowBound, portal: PortalEntry, asked: number): void {
    if (bound.judged.masks !== undefined && portal.statement.judged.masks === undefined)
      this.describeForMasks(portal.name, portal.described);
    this.up.own(Buffer.concat([executeFrame(portal.name, bound.rowsToAsk(Math.max(0, asked))), flushFrame]));
    this.admission.runBounded(bound, portal.number, portal.described);
    if (portal.heldAt !== undefined) portal.heldAt = this.state.runs;
  }

  /** An Execute of a portal that no Bind has made: a cursor's, or none. */
  private fetch(name: string, chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    const judged = this.options.judge.judgeFetch(name, fetchCommand(name));
    const outcome = this.admission.request(judged, undefined);
    if (!(outcome instanceof Promise)) return this.sendFetch(outcome, judged, chunk, at, end);
    return this.admission.unlessIgnored(outcome, (later) => this.sendFetch(later, judged, chunk, at, end));
  }

  private sendFetch(
    outcome: Permit | Refusal,
    judged: Judged,
    chunk: Buffer,
    at: number,
    end: number,
  ): undefined {
    if (outcome.kind !== "permit") {
      this.admission.refuseExtended(sqlRefusal(outcome, judged));
      return;
    }
    const limits = this.admission.limitsOn(judged);
    const described: Described | undefined = judged.masks === undefined ? undefined : { columns: undefined };
    if (described !== undefined) {
      const portal = readText(chunk, at + 5, chunk.indexOf(0, at + 5) + 1);
      this.describeForMasks(portal, described);
    }
    if (limits !== undefined) {
      const nameEnd = chunk.indexOf(0, at + 5);
      const portal = readText(chunk, at + 5, nameEnd + 1);
      const bound = new RowBound(limits, judged, undefined, false);
      const asked = Math.max(0, chunk.readInt32BE(nameEnd + 1));
      this.up.ownCommand(outcome, Buffer.concat([executeFrame(portal, bound.rowsToAsk(asked)), flushFrame]));
      this.admission.runBounded(bound, outcome.number, described);
      return;
    }
    this.up.passCommand(outcome, chunk, at, end);
    const owed = new Owed("execute", this.state.segment);
    owed.masks = judged.masks;
    owed.hidesErrors = judged.hidesErrors;
    owed.described = described;
    this.admission.begin(owed, outcome.number);
    this.state.push(owed);
  }

  // ---------------------------------------------------------------- Describe and Close

  /** Takes a Describe: what was prepared or bound is the server's to tell. */
  describe(chunk: Buffer, at: number, end: number): void {
    this.up.pass(chunk, at, end);
    this.state.push(new Owed("describe", this.state.segment));
  }

  /** Takes a Close. */
  close(chunk: Buffer, at: number, end: number): void {
    const { state } = this;
    if (end === at + 5) throw malformed("empty");
    const what = chunk[at + 5];
    const name = readText(chunk, at + 6, end);
    const owed = new Owed("close", state.segment);
    const entry = what === 0x53 ? state.statements.get(name) : undefined;
    if (entry !== undefined) {
      owed.entry = new StatementEntry(name, entry.judged, state.segment, true);
      state.statements.put(owed.entry);
    } else if (what === 0x50) state.portals.delete(name);
    this.up.pass(chunk, at, end);
    state.push(owed);
  }
}

const preparedAnew: SqlRefusal = {
  sqlstate: "0A000",
  message: "statements have been prepared or deallocated since this portal was bound",
  hint: "Bind it again.",
};

const boundBefore: SqlRefusal = {
  sqlstate: "0A000",
  message: "something else has run since this portal was approved",
  hint: "Bind it again, and execute it next.",
};

const boundToOthers: SqlRefusal = {
  sqlstate: "0A000",
  message: "what its names mean has changed since this portal was bound",
  hint: "Bind it again.",
};
