import {
  type Command,
  type SessionLimits,
  SessionMasking,
  type SessionPolicy,
  type Verdict,
} from "@sallyport/policy";
import type { CommandRecord, RecordedStream, ResponseRecord, SessionRecording } from "../recording/model.ts";
import { type ErrorCode, errorTable, GatewayError } from "../wire/gateway-error.ts";
import { makePermit, type Permit } from "./permit.ts";
import { StatementRate } from "./statement-rate.ts";

/** Why a command may not run, in words for the client. */
export interface Refusal {
  readonly kind: "refusal";
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string;
}

/** Limits of a policy that a statement can reach. */
export type ReachedLimit = "rows" | "affectedRows" | "statementsPerMinute";

export interface SessionGuardOptions {
  readonly policy: SessionPolicy;
  readonly recording: SessionRecording;
  readonly recordingMode: "Required" | "BestEffort" | "Off";
  readonly durability: "Accepted" | "Durable";
  /** True where the rows that the client sees are recorded too. */
  readonly recordsRows: boolean;
  /** Audit: decide and record, but let everything through. */
  readonly enforcement: "Enforce" | "Audit";
  readonly now: () => number;
  readonly onDecision: (verdict: Verdict) => void;
  /** A limit of the policy was reached. */
  readonly onLimit?: (limit: ReachedLimit) => void;
}

const nothingMasked = new SessionMasking([]);

/** Operations whose record must be on disk before they run, whatever the resource says. */
const durableOperations: ReadonlySet<string> = new Set(["define", "privilege", "export"]);

/** One session's way to permits. Synchronous unless storage must be waited for. */
export class SessionGuard {
  readonly recording: SessionRecording;
  private policy: SessionPolicy;
  private rate: StatementRate | undefined;
  private readonly options: SessionGuardOptions;

  constructor(options: SessionGuardOptions) {
    this.options = options;
    this.recording = options.recording;
    this.policy = options.policy;
    this.rate = rateOf(options.policy);
  }

  /** Replaces the policy of a live session; what is judged next is judged by the new one. */
  adopt(policy: SessionPolicy): void {
    this.policy = policy;
    this.rate = rateOf(policy);
  }

  decide(command: Command, parameters?: readonly unknown[]): Verdict {
    const facts = { nowMs: this.options.now(), ...(parameters === undefined ? {} : { parameters }) };
    return this.policy.decide(command, facts);
  }

  /** Records a judged command and permits or refuses it. `needsDisk` is `mustBeDurable` of its command. */
  request(record: CommandRecord, needsDisk: boolean): Permit | Refusal | Promise<Permit | Refusal> {
    this.options.onDecision(record.verdict);
    const limited = this.rate !== undefined && !this.rate.take(record.at);
    if (limited) {
      this.note("rateExceeded", {});
      this.options.onLimit?.("statementsPerMinute");
    }
    const number = this.recording.command(record);
    if (number < 0) return this.whenRoom(record, needsDisk, limited);
    const refusal = limited ? rateRefusal : this.refusalOf(record.verdict);
    if (refusal !== undefined) return refusal;
    if (needsDisk || this.options.durability === "Durable") return this.whenStored(number);
    return makePermit(number);
  }

  /** True where everything passes and is only recorded. */
  get isObserving(): boolean {
    return this.options.enforcement === "Audit";
  }

  /** What policy hides from the session. */
  get masking(): SessionMasking {
    return this.isObserving ? nothingMasked : this.policy.masking(false);
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
    this.recording.response(number, record);
  }

  private refusalOf(verdict: Verdict): Refusal | undefined {
    if (verdict.action === "Allow" || this.options.enforcement === "Audit") return undefined;
    const code = verdict.action === "Deny" ? "denied" : "approvalNeeded";
    return {
      kind: "refusal",
      code,
      message: verdict.message,
      ...(verdict.hint ? { hint: verdict.hint } : {}),
    };
  }

  private async whenRoom(
    record: CommandRecord,
    needsDisk: boolean,
    limited: boolean,
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
    if (refusal !== undefined) return refusal;
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
