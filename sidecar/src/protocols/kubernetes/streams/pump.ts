/** Moves one direction of a stream: a chunk at a time, no further read while one is handled or its target is full. */
import type { Duplex } from "node:stream";

/** One chunk handled; a promise: nothing more is read until it resolves. */
export type Handle = (chunk: Buffer) => Promise<void> | undefined;

/** Pumps until `from` ends or closes, or `handle` fails. */
export function pump(from: Duplex, to: Duplex, early: Buffer, handle: Handle): Promise<void> {
  return new Promise((resolve, reject) => {
    let busy: Promise<void> = Promise.resolve();
    let isDone = false;
    const settle = (error?: unknown) => {
      if (isDone) return;
      isDone = true;
      from.off("data", onData);
      if (error === undefined) busy.then(resolve, reject);
      else reject(error as Error);
    };
    const onData = (chunk: Buffer) => {
      let pending: Promise<void> | undefined;
      try {
        pending = handle(chunk);
      } catch (error) {
        settle(error);
        return;
      }
      const isFull = to.writableNeedDrain;
      if (pending === undefined && !isFull) return;
      from.pause();
      busy = (pending ?? Promise.resolve()).then(() => drained(to));
      busy.then(() => {
        if (!isDone) from.resume();
      }, settle);
    };
    from.once("end", () => settle());
    from.once("close", () => settle());
    from.on("data", onData);
    if (early.length > 0) onData(early);
    else from.resume();
    if (from.destroyed) settle();
  });
}

/** Resolves when a stream takes more, or is closed. */
export function drained(to: Duplex): Promise<void> {
  if (!to.writableNeedDrain || to.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      to.off("drain", done);
      to.off("close", done);
      resolve();
    };
    to.once("drain", done);
    to.once("close", done);
  });
}

/** Handles items one after the other; a promise where one of them has to be waited for. */
export function inOrder<T>(
  items: Iterator<T>,
  one: (item: T) => Promise<void> | undefined,
): Promise<void> | undefined {
  for (let next = items.next(); next.done !== true; next = items.next()) {
    const pending = one(next.value);
    if (pending !== undefined) return pending.then(() => inOrder(items, one));
  }
  return undefined;
}

/**
 * Writes pieces, with whatever else of this round of events goes to the same stream: TLS hands what it read over in slices
 * of 16 KB, and each would be encrypted and sent by itself.
 */
export function writeAll(to: Duplex, pieces: readonly Buffer[]): void {
  if (to.destroyed || !to.writable) return;
  if (!gathering.has(to)) {
    gathering.add(to);
    to.cork();
    setImmediate(() => {
      gathering.delete(to);
      to.uncork();
    });
  }
  for (const piece of pieces) to.write(piece);
}

const gathering = new WeakSet<Duplex>();

/** Sends what `writeAll` has gathered: the stream is about to be destroyed. */
export function flush(to: Duplex): void {
  while (to.writableCorked > 0) to.uncork();
}
