import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/**
 * Gives back what loading took and nobody holds any more: 8 MB, most of them a young generation that V8 has grown for
 * it and would not shrink before memory runs out. Takes some 50 ms, so it is for the start alone.
 */
export function giveBackStartupMemory(): void {
  // Little survives a transaction: to wake other threads for it costs more than they take over.
  setFlagsFromString("--no-parallel-scavenge");
  // V8 puts `gc` into contexts that are made while the flag is set; ours stays without it.
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("globalThis.gc");
  setFlagsFromString("--no-expose-gc");
  // Only a collection of last resort shrinks the young generation.
  if (typeof collect === "function") collect({ type: "major", execution: "sync", flavor: "last-resort" });
}
