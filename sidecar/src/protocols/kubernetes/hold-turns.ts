/** Requests of one connection that wait for approval: one is asked about at a time, the others wait for their turn. */
export class HoldTurns {
  #last: Promise<unknown> = Promise.resolve();
  #count = 0;

  /** Runs when those before are done, with whether there were any; undefined where too many wait already. */
  take<T>(run: (hasWaited: boolean) => Promise<T>): Promise<T> | undefined {
    if (this.#count >= waitingMax) return undefined;
    const hasWaited = this.#count > 0;
    this.#count += 1;
    const turn = this.#last.then(() => run(hasWaited));
    const done = () => {
      this.#count -= 1;
    };
    this.#last = turn.then(done, done);
    return turn;
  }
}

/** The one that is asked about included. */
const waitingMax = 16;
