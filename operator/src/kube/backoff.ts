/** Waiting, bounded and jittered, so that many who fail together do not come back together. */

/** A delay that doubles with each failure. */
export interface BackoffBounds {
  readonly firstMs: number;
  readonly mostMs: number;
}

/** The delay before try `failures + 1`: doubled for each failure, bounded, and spread over its upper half. */
export function backoffMs(
  { firstMs, mostMs }: BackoffBounds,
  failures: number,
  random = Math.random,
): number {
  const full = Math.min(mostMs, firstMs * 2 ** Math.min(Math.max(failures - 1, 0), 40));
  return full / 2 + (full / 2) * random();
}

/** Waits; false where the signal ended the wait. */
export function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  if (signal.aborted) return Promise.resolve(false);
  return new Promise((resolve) => {
    const finish = (isOver: boolean): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      resolve(isOver);
    };
    const abort = (): void => finish(false);
    const timer = setTimeout(() => finish(true), Math.min(ms, TIMER_MAX));
    signal.addEventListener("abort", abort, { once: true });
  });
}

/** Longer timers fire at once. */
export const TIMER_MAX = 2_147_483_647;
