import { sqlParserReady } from "@sallyport/policy";
import { errorTable, GatewayError } from "../../wire/gateway-error.ts";
import type { PostgresSessionOptions, SessionState } from "./session-state.ts";
import type { Judged } from "./statement-judge.ts";

/**
 * Verdicts of one session at the time when they can be had: at once where names are known, or once the server has
 * answered what changes them and the catalog is fresh.
 */
export class TimelyJudge {
  private readonly options: PostgresSessionOptions;
  private readonly state: SessionState;
  /** Sends what waits for the server, and a Flush: without one it keeps what it owes until Sync. */
  private readonly flush: () => void;

  constructor(options: PostgresSessionOptions, state: SessionState, flush: () => void) {
    this.options = options;
    this.state = state;
    this.flush = flush;
  }

  /** True where nothing on its way to the server changes names, and the catalog is new enough. */
  get knowsNames(): boolean {
    return this.state.owed.unsettled === 0 && this.options.names.isFresh;
  }

  /** The verdict at once; undefined where it must wait. `plannedAt` as the judge takes it. */
  now(text: string, plannedAt?: number): Judged | undefined {
    if (!this.knowsNames) return undefined;
    const judged = this.options.judge.judge(text, plannedAt);
    if (judged.readsPrepared && this.state.mustSettle) return undefined;
    if (judged.rejection === undefined) return judged;
    return isUnknownName(judged) || isOvertaken(judged) ? undefined : judged;
  }

  /** The verdict in good time, for `then`; nothing follows where the session ended or skips to Sync meanwhile. */
  async later(
    text: string,
    then: (judged: Judged) => Promise<void> | undefined,
    plannedAt?: number,
  ): Promise<void> {
    const judged = await this.waitFor(text, plannedAt);
    if (!this.state.isIgnored) await then(judged);
  }

  /** Waits until the server has answered everything. */
  async settled(): Promise<void> {
    this.flush();
    await this.state.settled();
    // It waits for COPY data, and ends the session over anything else.
    if (this.state.isStuckInCopy)
      throw new GatewayError("protocolViolation", { detail: "unexpected message during COPY" });
  }

  /** Goes on when the server has answered everything; nothing follows where the session ended or skips to Sync meanwhile. */
  async whenSettled(then: () => Promise<void> | undefined): Promise<void> {
    await this.settled();
    if (!this.state.isIgnored) await then();
  }

  private async waitFor(text: string, plannedAt: number | undefined): Promise<Judged> {
    const { judge, names, guard } = this.options;
    try {
      if (this.state.owed.unsettled > 0) await this.settled();
      let judged = await this.whenFresh(text, plannedAt);
      if (judged.readsPrepared && this.state.mustSettle) {
        await this.settled();
        judged = await this.whenFresh(text, plannedAt);
      }
      // Somebody else may have made it a moment ago: look once more before refusing.
      if (!isUnknownName(judged) || this.state.isEnded) return judged;
      await names.refresh(true);
      return await this.whenFresh(text, plannedAt);
    } catch (error) {
      // What is refused leaves as a message that may not be there either: the server says so.
      if (error instanceof GatewayError && this.state.isStuckInCopy) return judge.unavailable(text);
      // Without a catalog nothing can be judged: the statement is refused, the session goes on.
      guard.note("catalogUnavailable", { cause: error instanceof Error ? error.message : "unknown" });
      return judge.unavailable(text);
    }
  }

  /** Where the machine is so busy that a reading is old before it is used, another one follows, for a while. */
  private async whenFresh(text: string, plannedAt: number | undefined): Promise<Judged> {
    const { judge, names, clock, limits } = this.options;
    const startedMs = clock.monotonicMs();
    for (let attempt = 1; ; attempt += 1) {
      // A statement of somebody else may have ended the parser: the next instance is on its way.
      if (attempt > 1) await sqlParserReady();
      if (!names.isFresh) await names.refresh(false);
      const judged = judge.judge(text, plannedAt);
      const isOver = attempt === attemptsMax || clock.monotonicMs() - startedMs > limits.judgeWaitMs;
      if (!isOvertaken(judged) || isOver || this.state.isEnded) return judged;
    }
  }
}

function isUnknownName({ rejection }: Judged): boolean {
  const state = rejection?.sqlstate;
  return state === "42P01" || state === "42883" || state === "3F000" || state === "42704";
}

/** How often a statement is judged again because the catalog grew old meanwhile. */
const attemptsMax = 10;

/** The catalog grew too old between the look at its age and the analysis, or the parser is restarting. */
function isOvertaken({ rejection }: Judged): boolean {
  return rejection?.sqlstate === errorTable.catalogUnavailable.sqlstate;
}
