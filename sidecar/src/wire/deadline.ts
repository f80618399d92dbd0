/**
 * Time that something may take. `AbortSignal.timeout` would live on until the time has passed, with all that its
 * listeners hold, and then make an error with a stack for each login of a minute ago.
 */
export class Deadline {
  private readonly controller = new AbortController();
  private readonly timer: NodeJS.Timeout;

  constructor(milliseconds: number) {
    this.timer = setTimeout(() => this.controller.abort(), milliseconds).unref();
  }

  /** Aborts once the time has passed, unless it was met. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** It was in time, or does not matter any more. */
  met(): void {
    clearTimeout(this.timer);
  }
}
