import type { CommandPart, SessionLimits, Verdict } from "@sallyport/policy";
import type { Holdable, Permit, Refusal } from "../../guard/index.ts";
import type { RecordedParameter } from "./bind.ts";
import { parseFrame, queryFrame } from "./frames.ts";
import type { Holds } from "./holds.ts";
import type { Outbox } from "./outbox.ts";
import { type Described, Owed } from "./owed.ts";
import { StatementEntry } from "./prepared.ts";
import type { PreparedRoom } from "./prepared-room.ts";
import { hashedParameter, recorded } from "./recorded-text.ts";
import { type SqlRefusal, sqlRefusal } from "./refusals.ts";
import { isBounded, type RowBound } from "./row-bound.ts";
import type { PostgresSessionOptions, SessionState } from "./session-state.ts";
import type { Judged } from "./statement-judge.ts";
import type { TimelyJudge } from "./timely-judge.ts";

/**
 * What becomes of a judged command: it is recorded and permitted, and the server owes the answer of what runs; or it is
 * refused, and a statement that must fail takes its place. Moves `isSkipping`, `bound`, `executedIn`
 * and what is known of settings.
 */
export class Admission {
  private readonly options: PostgresSessionOptions;
  private readonly state: SessionState;
  private readonly up: Outbox;

  constructor(options: PostgresSessionOptions, state: SessionState, up: Outbox) {
    this.options = options;
    this.state = state;
    this.up = up;
  }

  // ---------------------------------------------------------------- permits

  /** Records the command and asks for its permit. */
  request(
    judged: Judged,
    parameters: readonly RecordedParameter[] | undefined,
    holdable?: Holdable,
  ): Permit | Refusal | Promise<Permit | Refusal> {
    const { masks, clock } = this.options;
    const { text, verdict } = recorded(judged, masks.hashOf);
    const at = clock.nowMs();
    const values = judged.hidesLiterals
      ? parameters?.map((value) => hashedParameter(value, masks.hashOf))
      : parameters;
    const record = values === undefined ? { text, verdict, at } : { text, verdict, at, parameters: values };
    const outcome = this.options.guard.request(record, judged.needsDisk, holdable);
    if (judged.command.parts[0]?.operation === "session") this.readReason(judged.text, verdict.action);
    return outcome;
  }

  /** Goes on with what the guard has said; nothing follows where the session ended or skips to Sync meanwhile. */
  async unlessIgnored(
    outcome: Promise<Permit | Refusal>,
    then: (outcome: Permit | Refusal) => undefined,
  ): Promise<void> {
    const settled = await outcome;
    if (!this.state.isIgnored) then(settled);
  }

  /** True where the policy in force allows what was bound under an earlier one, by what was approved at Bind. */
  isStillAllowed(now: Judged, bound: Judged): boolean {
    if (now.verdict.action !== "RequireApproval") return now.verdict.action === "Allow";
    const approved = (bound.verdict.satisfied ?? []).map(({ terms }) => terms.ruleText);
    return this.options.guard.decide(now.command, undefined, new Set(approved)).action === "Allow";
  }

  /** `SET sallyport.reason = '...'` is said to the gateway: it reads it, and the server keeps it as a setting. */
  private readReason(text: string, action: Verdict["action"]): void {
    const reason = action === "Allow" ? reasonIn(text) : undefined;
    if (reason !== undefined) this.options.guard.giveReason(reason);
  }

  // ---------------------------------------------------------------- what runs

  /** The text that the server gets: the client's, with the gateway's part in front of a name that it sets. */
  sentText({ text, nameSettings }: Judged): string {
    return nameSettings === undefined ? text : this.options.applicationName.textFor(text, nameSettings);
  }

  /** The limits that a permitted statement runs under; undefined: none. */
  limitsOn(judged: Judged): SessionLimits | undefined {
    const limits = this.options.guard.rowLimits;
    return limits === undefined || judged.rejection !== undefined || !isBounded(judged) ? undefined : limits;
  }

  /** The server runs a judged text from now on: what it owes has the text's effects, and is masked as it is. */
  run(owed: Owed, judged: Judged, number: number): void {
    owed.effects = judged.effects;
    owed.changesNames = this.changesNames(judged);
    owed.mayCopy = judged.mayCopy;
    owed.mayTakeData = judged.mayTakeData;
    owed.masks = judged.masks;
    owed.hidesErrors = judged.hidesErrors;
    this.state.settings.run(judged.command);
    this.begin(owed, number, judged.command.parts.every(beginsTransaction));
  }

  /** The server works on it from now on; `number` is the command's in the recording. */
  begin(owed: Owed, number: number, setsNothing = false): void {
    owed.isBehindOthers = this.state.mayHaveSetIn === owed.segment;
    this.state.runs += 1;
    if (owed.kind === "execute") {
      this.state.executedIn = owed.segment;
      if (!setsNothing) this.state.mayHaveSetIn = owed.segment;
    }
    owed.number = number;
    owed.startedMs = this.options.clock.monotonicMs();
  }

  /** The same for an Execute under a limit on rows: what the client sends waits until it is over. */
  runBounded(bound: RowBound, number: number, described: Described | undefined): void {
    const owed = new Owed("execute", this.state.segment);
    owed.bound = bound;
    owed.described = described;
    this.run(owed, bound.judged, number);
    this.state.push(owed);
    this.state.bound = bound;
  }

  /** True where what follows it in the pipeline must wait for its answer to be judged by the names that it leaves. */
  private changesNames({ changesNames, endsTransaction }: Judged): boolean {
    return changesNames || (endsTransaction && this.options.names.mayChangeAtEnd);
  }

  // ---------------------------------------------------------------- refusals

  /** A statement that must fail, in place of a Query. */
  refuseQuery(refusal: SqlRefusal, failing = this.failing(refusal)): undefined {
    const owed = new Owed("query", this.state.segment);
    owed.refusal = refusal;
    this.up.own(queryFrame(failing));
    this.state.push(owed);
  }

  /**
   * A statement that must fail, prepared in place of a message of the extended protocol; all until Sync is skipped by the
   * server. `dropped` is the mark of a name that a Parse takes away even so.
   */
  refuseExtended(refusal: SqlRefusal, dropped?: StatementEntry): undefined {
    this.up.own(parseFrame(dropped === undefined ? this.options.nonce : "", this.failing(refusal)));
    const owed = new Owed("parse", this.state.segment);
    owed.refusal = refusal;
    owed.entry = dropped;
    if (dropped !== undefined) this.state.statements.put(dropped);
    this.state.push(owed);
    this.state.isSkipping = true;
  }

  /** Refuses a message of the extended protocol whose verdict is known not to allow it; `name` is that of a Parse. */
  refuseJudged(judged: Judged, name?: string): Promise<void> | undefined {
    const refuse = (outcome: Permit | Refusal): undefined => {
      if (outcome.kind === "permit") return;
      // A Parse of the unnamed statement drops the old one, also where it fails: here too.
      const dropped = name === "" ? new StatementEntry("", judged, this.state.segment) : undefined;
      this.refuseExtended(sqlRefusal(outcome, judged), dropped);
    };
    const outcome = this.request(judged, undefined);
    return outcome instanceof Promise ? this.unlessIgnored(outcome, refuse) : refuse(outcome);
  }

  /**
   * The server finds a syntax error, or in Bind an unknown statement, before it looks at the transaction, and everything else
   * after it (25P02): what fails in place of the first two must be a syntax error too.
   */
  private failing(refusal: SqlRefusal): string {
    const name = `"${this.options.nonce}"`;
    return refusal.sqlstate === "42601" || refusal.isFoundFirst ? name : `SELECT ${name}`;
  }
}

/** Drivers send it in the segment of what they begin the transaction for. */
const beginsTransaction = ({ words: [word] }: CommandPart) =>
  word === "BEGIN" || word === "START TRANSACTION";

/** What the client's messages are judged and sent with; made once for a session. */
export interface QueryParts {
  readonly options: PostgresSessionOptions;
  readonly state: SessionState;
  readonly up: Outbox;
  readonly judge: TimelyJudge;
  readonly holds: Holds;
  readonly admission: Admission;
  readonly room: PreparedRoom;
}

/** The reason that a SET gives; only a plain literal, alone in its text. */
function reasonIn(text: string): string | undefined {
  const found = /^\s*set\s+(?:session\s+)?sallyport\.reason\s*(?:=|\bto\b)\s*'((?:[^']|'')*)'\s*;?\s*$/i.exec(
    text,
  );
  return found?.[1]?.replaceAll("''", "'");
}
