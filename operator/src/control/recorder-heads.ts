import type { Log } from "../kube/index.ts";

/** A place in a recorder's log that must still be there whenever its recordings are verified. */
export interface RecorderHead {
  readonly log: string;
  readonly block: number;
  readonly hash: string;
}

/** Where heads come from and where they are kept: outside the recorder's volume. */
export interface RecorderHeadsOptions {
  readonly recorders: () => readonly string[];
  /** Asks one recorder. */
  readonly read: (recorder: string, signal: AbortSignal) => Promise<RecorderHead | undefined>;
  /** Keeps it: a ConfigMap, an event, an object store. */
  readonly publish: (recorder: string, head: RecorderHead, signal: AbortSignal) => Promise<void>;
  readonly log: Log;
}

/** One round: every recorder's head that is new is published; one that cannot be asked does not hold up the rest. */
export async function publishHeads(
  options: RecorderHeadsOptions,
  published: Map<string, RecorderHead>,
  signal: AbortSignal,
): Promise<void> {
  await Promise.all(
    options.recorders().map(async (recorder) => {
      try {
        const head = await options.read(recorder, signal);
        const before = published.get(recorder);
        if (head === undefined || head.hash === before?.hash) return;
        // A log only grows: a step back is what the published head is there to show, and must not be overwritten.
        if (before !== undefined && isBefore(head, before)) {
          options.log.error({ recorder, head, before }, "a recorder's log is shorter than it was");
          return;
        }
        await options.publish(recorder, head, signal);
        published.set(recorder, head);
      } catch (error) {
        options.log.warn({ recorder, err: error }, "the head of a recorder could not be published");
      }
    }),
  );
}

/** Reads a recorder's answer to `GET /v1/head`. */
export function parseHead(body: unknown): RecorderHead | undefined {
  const { head } = (body ?? {}) as { readonly head?: Partial<RecorderHead> | null };
  if (head === null || head === undefined) return undefined;
  const { log, block, hash } = head;
  const isHead = typeof log === "string" && Number.isSafeInteger(block) && typeof hash === "string";
  if (!isHead) throw new Error("the recorder's answer is no head");
  return { log, block: Number(block), hash };
}

function isBefore(head: RecorderHead, other: RecorderHead): boolean {
  return head.log < other.log || (head.log === other.log && head.block < other.block);
}
