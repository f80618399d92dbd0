/** Requests of one connection that wait for approval: one is asked about at a time, the others wait for their turn. */
export class HoldTurns {
  #last: Promise<unknown> = Promise.resolve();
  #count = 0;

  /** Runs when those before are done; undefined where too many wait already. */
  take<T>(run: () => Promise<T>): Promise<T> | undefined {
    if (this.#count >= waitingMax) return undefined;
    this.#count += 1;
    const turn = this.#last.then(run);
    const done = () => {
      this.#count -= 1;
    };
    this.#last = turn.then(done, done);
    return turn;
  }
}

/** The one that is asked about included. */
const waitingMax = 16;
