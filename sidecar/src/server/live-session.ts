import type { BrokenGlass } from "@sallyport/control";
import type { Identity, SessionFacts, SessionPolicy } from "@sallyport/policy";
import type { SessionGuard } from "../guard/index.ts";
import type { AdmittedSession, EndCode, PolicyChange, SessionLink } from "../protocols/protocol.ts";
import type { SessionRecording } from "../recording/model.ts";
import { GatewayError } from "../wire/gateway-error.ts";
import type { BreakGlassTally } from "./break-glass-tally.ts";

/** What a session that has logged in is made of. */
export interface LiveSessionOptions {
  readonly id: string;
  readonly resourceKey: string;
  readonly identity: Identity;
  readonly facts: SessionFacts;
  readonly guard: SessionGuard;
  readonly recording: SessionRecording;
  readonly policy: SessionPolicy;
  readonly nowMs: () => number;
  readonly onClosed: (reason: string) => void;
  /** What was decided in it so far; kept up to date by whoever opened it. */
  readonly counts: SessionTally;
  /** How often it went past approval; kept up to date likewise. */
  readonly breakGlass?: BreakGlassTally;
  /** Its recording is closed, or could not be. */
  readonly onRecorded: (reason: string) => void;
}

/** How many commands a session was judged for. */
export interface SessionTally {
  readonly commands: number;
  /** What was not let through: of what was held, only what did not run in the end. */
  readonly refused: number;
  /** What people were asked about. */
  readonly held: number;
}

/** Rules speak of hours: often enough for them, and seldom enough to cost nothing. */
const timeEveryMs = 5_000;

/** A session that policy has let in, as the server holds it: it learns of reloads and is ended by its deadlines. */
export class LiveSession implements AdmittedSession {
  readonly id: string;
  readonly resourceKey: string;
  readonly identity: Identity;
  readonly facts: SessionFacts;
  readonly guard: SessionGuard;
  private policy: SessionPolicy;
  private readonly options: LiveSessionOptions;
  private readonly startedMs: number;
  /** How long the identity was still good for when the session began. */
  private readonly validMs: number;
  private relay: SessionLink | undefined;
  private say: ((kind: "notice" | "fatal", code: EndCode) => void) | undefined;
  private ended: EndCode | undefined;
  private isClosed = false;
  private listener: (what: PolicyChange) => void = () => undefined;
  private timeFollowedMs: number;

  constructor(options: LiveSessionOptions) {
    this.options = options;
    this.id = options.id;
    this.resourceKey = options.resourceKey;
    this.identity = options.identity;
    this.facts = options.facts;
    this.guard = options.guard;
    this.policy = options.policy;
    this.guard.onMaskingChange = () => this.listener("policy");
    this.startedMs = performance.now();
    this.timeFollowedMs = this.startedMs;
    const { expiresAt } = options.identity;
    this.validMs = expiresAt === undefined ? Number.POSITIVE_INFINITY : expiresAt * 1000 - options.nowMs();
  }

  get counts(): SessionTally {
    return this.options.counts;
  }

  /** How often it went past approval; undefined while it never has. */
  get brokeGlass(): BrokenGlass | undefined {
    return this.options.breakGlass?.report;
  }

  /** Milliseconds since it began. */
  get ageMs(): number {
    return performance.now() - this.startedMs;
  }

  /** The hash of its recording's last block, once that is closed. */
  get finalHash(): string | undefined {
    return this.options.recording.finalHash;
  }

  policyKey(): object {
    return this.guard.decisionKey;
  }

  onPolicyChange(listener: (what: PolicyChange) => void): void {
    this.listener = listener;
  }

  attach(relay: SessionLink, say: (kind: "notice" | "fatal", code: EndCode) => void): void {
    this.relay = relay;
    this.say = say;
    if (this.ended !== undefined) this.end(this.ended);
  }

  /** Puts a reloaded policy in force; a session that it no longer lets in ends. */
  adopt(policy: SessionPolicy): void {
    this.policy = policy;
    this.guard.adopt(policy);
    this.listener("policy");
    this.guard.note("policyChanged", { mayConnect: policy.mayConnect.action });
    if (policy.mayConnect.action !== "Allow" && !this.guard.isObserving) this.end("sessionRevoked");
  }

  /** Ends the session when one of its deadlines has passed. */
  checkDeadlines(): void {
    const { expiresAt } = this.identity;
    const now = performance.now();
    const { idleMs, sessionDurationMs } = this.policy.limits;
    // By both clocks: a wall clock that is set back must not make a token live longer.
    const isExpired = expiresAt !== undefined && this.options.nowMs() >= expiresAt * 1000;
    if (isExpired || now - this.startedMs >= this.validMs) this.end("sessionExpired");
    else if (sessionDurationMs !== undefined && now - this.startedMs >= sessionDurationMs)
      this.end("sessionExpired");
    // Whoever waits for an approval is not idle.
    else if (this.guard.isHolding) return;
    else if (idleMs !== undefined && this.relay !== undefined && now - this.relay.lastClientMs >= idleMs)
      this.end("idle");
  }

  /** Has what runs judged anew every few seconds, where rules read the time. */
  followTime(): void {
    const now = performance.now();
    if (!this.guard.followsTime || now - this.timeFollowedMs < timeEveryMs) return;
    this.timeFollowedMs = now;
    this.listener("time");
  }

  notice(code: EndCode): void {
    if (code === "draining") this.guard.cancelHold("draining");
    this.say?.("notice", code);
  }

  end(code: EndCode): void {
    this.ended = code;
    if (this.relay === undefined) return;
    this.say?.("fatal", code);
    this.guard.note("endedByGateway", { reason: code });
    this.relay.stop({ kind: "ended" });
  }

  async close(reason: string): Promise<void> {
    if (this.isClosed) return;
    this.isClosed = true;
    const why = this.ended ?? reason;
    this.guard.close();
    this.options.onClosed(why);
    try {
      await this.options.recording.close(why);
    } catch (error) {
      throw new GatewayError("recordingUnavailable", { cause: error });
    } finally {
      this.options.onRecorded(why);
    }
  }
}
