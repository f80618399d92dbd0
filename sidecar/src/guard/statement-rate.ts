/** A token bucket of one minute: `perMinute` statements at once, refilled evenly. */
export class StatementRate {
  private tokens: number;
  private at: number | undefined;
  private readonly perMinute: number;

  constructor(perMinute: number) {
    this.perMinute = perMinute;
    this.tokens = perMinute;
  }

  /** Takes one statement at `nowMs`; false when the minute's allowance is used up. */
  take(nowMs: number): boolean {
    const elapsed = this.at === undefined ? 0 : Math.max(0, nowMs - this.at);
    this.at = nowMs;
    this.tokens = Math.min(this.perMinute, this.tokens + (elapsed * this.perMinute) / 60_000);
    if (this.tokens < 1) return false;
    this.tokens -= 1;
    return true;
  }
}
