import { waitFor } from "../cluster/processes.ts";

/** Asks every 20 ms, for 30 s at most, until the answer is true in some way, and resolves to it. */
export const until = <T>(what: () => T | Promise<T>): Promise<NonNullable<T>> =>
  waitFor(String(what), async () => ((await what()) || undefined) as NonNullable<T> | undefined, {
    ms: 30_000,
    pauseMs: 20,
  });

/**
 * The shortest time that something took, of up to five: a machine that others use delays one or the other, a product that
 * is too slow delays all. Stops at the first that took less than what is promised.
 */
export async function quickestOf(promisedMs: number, measured: () => Promise<number>): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let tries = 0; tries < 5 && best >= promisedMs; tries += 1) best = Math.min(best, await measured());
  return best;
}
