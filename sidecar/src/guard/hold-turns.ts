/**
 * Commands of one connection that wait for approval. A guard keeps one hold open: one command is asked about at a time,
 * the others wait for their turn.
 */
export class HoldTurns {
  #last: Promise<unknown> = Promise.resolve();
  #count = 0;

  /** Whoever takes a turn now waits for another's end first. */
  get isTaken(): boolean {
    return this.#count > 0;
  }

  /** Runs when those before are done, never at once; undefined where too many wait already. */
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
