import type { SessionReport } from "@sallyport/control";

/** Bounds of what one resource's gateways may make the operator write. */
export interface IntakeLimits {
  readonly liveMax: number;
  readonly writesPerSecond: number;
  readonly waitingMax: number;
}

/** Gateways say each minute what lives: of what is silent for so long another replica was told the end, or nobody. */
const silentMs = 300_000;

/** What the design says. */
export const defaultIntakeLimits: IntakeLimits = { liveMax: 500, writesPerSecond: 20, waitingMax: 2_000 };

/**
 * Passes on the sessions of one resource at a bounded rate. Of a session that waits only the latest report counts;
 * beyond the live ones that may have an object, sessions are only in the recorder's list. What went past approval by
 * break-glass has as many places again, and is not kept out by reports of anything else: nobody hides it in a crowd.
 */
export class SessionIntake {
  readonly #limits: IntakeLimits;
  readonly #pass: (reports: readonly SessionReport[]) => void;
  /** When each live session was last heard of, the longest silent first. */
  readonly #live = new Map<string, number>();
  readonly #waiting = new Map<string, SessionReport>();
  #tokens: number;
  #filledAt: number;
  #timer: NodeJS.Timeout | undefined;
  /** Reports that had no place. */
  dropped = 0;

  constructor(pass: (reports: readonly SessionReport[]) => void, limits: IntakeLimits = defaultIntakeLimits) {
    this.#pass = pass;
    this.#limits = limits;
    this.#tokens = limits.writesPerSecond;
    this.#filledAt = performance.now();
  }

  take(reports: readonly SessionReport[]): void {
    for (const report of reports) {
      const isKnown = this.#live.delete(report.id);
      if (report.state === "Live") {
        if (!isKnown && !this.#hasPlace(report)) {
          this.dropped++;
          continue;
        }
        this.#live.set(report.id, performance.now());
      }
      if (this.#waiting.has(report.id) || this.#makeRoom(report)) this.#waiting.set(report.id, report);
      else this.dropped++;
    }
    this.#release();
  }

  #hasPlace({ brokeGlass }: SessionReport): boolean {
    const places = this.#limits.liveMax * (brokeGlass === undefined ? 1 : 2);
    for (const [id, heardAt] of this.#live) {
      if (this.#live.size < places || performance.now() - heardAt < silentMs) break;
      this.#live.delete(id);
    }
    return this.#live.size < places;
  }

  #makeRoom({ brokeGlass }: SessionReport): boolean {
    if (this.#waiting.size < this.#limits.waitingMax) return true;
    if (brokeGlass === undefined) return false;
    for (const [id, other] of this.#waiting) {
      if (other.brokeGlass !== undefined) continue;
      this.#waiting.delete(id);
      this.dropped++;
      return true;
    }
    return false;
  }

  /** Nobody is left who could report these as ended. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #release(): void {
    const { writesPerSecond } = this.#limits;
    const now = performance.now();
    this.#tokens = Math.min(
      writesPerSecond,
      this.#tokens + ((now - this.#filledAt) / 1000) * writesPerSecond,
    );
    this.#filledAt = now;
    const released: SessionReport[] = [];
    for (const [id, report] of this.#waiting) {
      if (this.#tokens < 1) break;
      this.#tokens--;
      this.#waiting.delete(id);
      released.push(report);
    }
    if (released.length > 0) this.#pass(released);
    if (this.#waiting.size > 0 && this.#timer === undefined) {
      this.#timer = setTimeout(() => {
        this.#timer = undefined;
        this.#release();
      }, 1000 / writesPerSecond);
      this.#timer.unref();
    }
  }
}
