import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/**
 * Gives back what loading took and nobody holds any more: 8 MB, most of them a young generation that V8 has grown for
 * it and would not shrink before memory runs out. Takes some 50 ms, so it is for the start alone.
 */
export function giveBackStartupMemory(): void {
  // Little survives a transaction: to wake other threads for it costs more than they take over.
  setFlagsFromString("--no-parallel-scavenge");
  collect();
}

/**
 * Has V8 optimise later what runs at start, until the function is called that it gives. Some hundred functions run often
 * enough there, most of them never again: the compilers' pages, their threads' memory and the code made up 8 MB.
 */
export function optimiseLess(): () => void {
  setFlagsFromString("--invocation-count-for-maglev=4000");
  // V8's own, in Node 24.
  return () => setFlagsFromString("--invocation-count-for-maglev=400");
}

/**
 * Gives back what many logins in a row have left: 35 KB each, which V8 would keep for another fifteen seconds or, where
 * more is going on, for good. Waits until no more logins come: the 80 ms that it takes for a thousand sessions are a
 * tenth of what 200 logins took.
 */
export class LoginGarbage {
  private logins = 0;
  private timer: NodeJS.Timeout | undefined;

  /** A login is over, however it ended. */
  loggedIn(): void {
    this.logins += 1;
    if (this.logins < manyLogins) return;
    if (this.timer !== undefined) this.timer.refresh();
    else this.timer = setTimeout(() => this.giveBack(), quietMs).unref();
  }

  /** Nothing is collected from here on. */
  close(): void {
    clearTimeout(this.timer);
    this.logins = Number.NEGATIVE_INFINITY;
  }

  private giveBack(): void {
    this.logins = 0;
    this.timer = undefined;
    collect();
  }
}

const manyLogins = 200;
const quietMs = 1_000;

let gc: unknown;

function collect(): void {
  if (gc === undefined) {
    // V8 puts `gc` into contexts that are made while the flag is set; ours stays without it.
    setFlagsFromString("--expose-gc");
    gc = runInNewContext("globalThis.gc");
    setFlagsFromString("--no-expose-gc");
  }
  // Only a collection of last resort shrinks the young generation.
  if (typeof gc === "function") gc({ type: "major", execution: "sync", flavor: "last-resort" });
}
