import type { SessionLimits } from "@sallyport/policy";
import type { Permit, Refusal } from "../../guard/index.ts";
import type { Admission, QueryParts } from "./admission.ts";
import {
  bindFrame,
  describeFrame,
  executeFrame,
  flushFrame,
  parseFrame,
  queryFrame,
  readText,
} from "./frames.ts";
import type { Holds } from "./holds.ts";
import { largeObjectSelect } from "./large-object-call.ts";
import type { Outbox } from "./outbox.ts";
import { type Described, Owed } from "./owed.ts";
import type { PreparedRoom } from "./prepared-room.ts";
import { inServersNumbers, insteadOf } from "./process-ids.ts";
import { failingUtility, functionCallCommand, functionCallRefusal, sqlRefusal } from "./refusals.ts";
import { RowBound, unboundable } from "./row-bound.ts";
import type { PostgresSessionOptions, SessionState } from "./session-state.ts";
import type { Judged } from "./statement-judge.ts";
import type { TimelyJudge } from "./timely-judge.ts";

/**
 * The messages of the client that are a cycle of their own, up to ReadyForQuery: Query and FunctionCall.
 *
 * https://www.postgresql.org/docs/18/protocol-flow.html#PROTOCOL-FLOW-SIMPLE-QUERY
 */
export class SimpleQuery {
  private readonly options: PostgresSessionOptions;
  private readonly state: SessionState;
  private readonly up: Outbox;
  private readonly judge: TimelyJudge;
  private readonly holds: Holds;
  private readonly admission: Admission;
  private readonly room: PreparedRoom;

  constructor({ options, state, up, judge, holds, admission, room }: QueryParts) {
    this.options = options;
    this.state = state;
    this.up = up;
    this.judge = judge;
    this.holds = holds;
    this.admission = admission;
    this.room = room;
  }

  /** Takes a Query. */
  query(chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    const text = readText(chunk, at + 5, end);
    const judged = this.judge.now(text);
    if (judged !== undefined) return this.admitQuery(judged, chunk, at, end);
    return this.judge.later(text, (later) => this.admitQuery(later, chunk, at, end));
  }

  private admitQuery(judged: Judged, chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    if (judged.namesProcesses) {
      const text = inServersNumbers(judged.text, this.options.processIds);
      // What leaves is what is judged and recorded: the text with the server's numbers, from the beginning.
      if (text !== undefined)
        return insteadOf(queryFrame(text), { chunk, end }, (...place) => this.query(...place));
    }
    const limits = this.admission.limitsOn(judged);
    if (limits !== undefined && this.state.mustSettle)
      return this.judge.whenSettled(() => this.admitQuery(judged, chunk, at, end));
    if (this.holds.mustPrepare(judged)) return this.holds.prepare(() => this.query(chunk, at, end));
    const held = this.holds.mayHold(judged)
      ? this.holds.heldBy(judged, [chunk.subarray(at, end)], chunk.subarray(end))
      : undefined;
    const outcome = this.admission.request(judged, undefined, held?.holdable);
    if (!(outcome instanceof Promise)) return this.sendQuery(outcome, judged, chunk, at, end);
    return this.admission.unlessIgnored(outcome, (later) =>
      this.sendQuery(later, held?.judged ?? judged, chunk, at, end),
    );
  }

  private sendQuery(
    outcome: Permit | Refusal,
    judged: Judged,
    chunk: Buffer,
    at: number,
    end: number,
  ): undefined {
    if (outcome.kind === "refusal") {
      const { text, rejection } = judged;
      const utility = rejection === undefined ? undefined : failingUtility(text, this.options.nonce);
      this.admission.refuseQuery(sqlRefusal(outcome, judged), utility);
      return;
    }
    const limits = this.admission.limitsOn(judged);
    const unfit =
      this.room.refusalOf("", judged) ?? (limits === undefined ? undefined : unboundable(limits, judged));
    if (unfit !== undefined) {
      this.admission.refuseQuery(unfit);
      return;
    }
    if (limits !== undefined) {
      this.sendBounded(outcome, limits, judged);
      return;
    }
    this.state.portals.delete("");
    if (judged.nameSettings === undefined) this.up.passCommand(outcome, chunk, at, end);
    else this.up.ownCommand(outcome, queryFrame(this.admission.sentText(judged)));
    const owed = new Owed("query", this.state.segment);
    owed.showsName = judged.showsName;
    this.admission.run(owed, judged, outcome.number);
    this.state.push(owed);
  }

  /** A Query as the extended messages that mean the same, but for the Sync: it is sent when the limit is known to hold. */
  private sendBounded(permit: Permit, limits: SessionLimits, judged: Judged): void {
    const { state } = this;
    const bound = new RowBound(limits, judged, undefined, true);
    // A Query drops what has no name; here it is taken by the Query's own.
    state.statements.delete("");
    state.portals.delete("");
    this.up.ownCommand(permit, parseFrame("", this.admission.sentText(judged)));
    this.up.own(Buffer.concat([bindFrame, describeFrame, executeFrame("", bound.rowsToAsk(0)), flushFrame]));
    const described: Described | undefined = judged.masks === undefined ? undefined : { columns: undefined };
    for (const kind of ["parse", "bind", "describe"] as const) {
      const hidden = new Owed(kind, state.segment);
      hidden.isHidden = true;
      hidden.hidesErrors = judged.hidesErrors;
      if (kind === "describe") hidden.described = described;
      state.push(hidden);
    }
    this.admission.runBounded(bound, permit.number, described);
  }

  /** FunctionCall names a function by its oid alone: refused whatever policy says, but for large objects. */
  functionCall(chunk: Buffer, at: number, end: number): Promise<void> | undefined {
    const text = largeObjectSelect(chunk, at, end);
    if (text === undefined) {
      return this.admitFunctionCall(this.options.judge.judgeCommand(functionCallCommand), chunk, at, end);
    }
    const judged = this.judge.now(text);
    if (judged !== undefined) return this.admitFunctionCall(judged, chunk, at, end);
    return this.judge.later(text, (later) => this.admitFunctionCall(later, chunk, at, end));
  }

  private admitFunctionCall(
    judged: Judged,
    chunk: Buffer,
    at: number,
    end: number,
  ): Promise<void> | undefined {
    const outcome = this.admission.request(judged, undefined);
    if (!(outcome instanceof Promise)) return this.sendFunctionCall(outcome, judged, chunk, at, end);
    return this.admission.unlessIgnored(outcome, (later) =>
      this.sendFunctionCall(later, judged, chunk, at, end),
    );
  }

  private sendFunctionCall(
    outcome: Permit | Refusal,
    judged: Judged,
    chunk: Buffer,
    at: number,
    end: number,
  ): undefined {
    const isKnown = judged.command !== functionCallCommand;
    if (outcome.kind === "refusal" || !(isKnown || this.options.guard.isObserving)) {
      const isJudged = isKnown && outcome.kind === "refusal";
      this.admission.refuseQuery(isJudged ? sqlRefusal(outcome, judged) : functionCallRefusal);
      return;
    }
    this.up.passCommand(outcome, chunk, at, end);
    const owed = new Owed("query", this.state.segment);
    this.admission.begin(owed, outcome.number);
    this.state.push(owed);
  }
}
