import { waitFor } from "../cluster/processes.ts";

/** Asks every 20 ms, for 30 s at most, until the answer is true in some way, and resolves to it. */
export const until = <T>(what: () => T | Promise<T>): Promise<NonNullable<T>> =>
  waitFor(String(what), async () => ((await what()) || undefined) as NonNullable<T> | undefined, {
    ms: 30_000,
    pauseMs: 20,
  });
