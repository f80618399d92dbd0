/**
 * Reads what lies in a folder, but never what somebody is about to write: `cp` and editors empty a file first, and a
 * policy of which only the first document is there has lost its Deny.
 */
import { readdir, stat } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";
import { depthMax, isManifestFile, isPassedOver } from "@sallyport/crds";

/** How long nothing may have changed before it is read; pauses within one write are far shorter. */
const settledMs = 200;
/**
 * How long after a look whoever reads early begins: a file system's clock may stand still for some milliseconds, and a
 * change within them that keeps the size would not show.
 */
const earlyMs = 20;
/** Who is still writing after as many looks is waited for no more, two seconds or so; whoever asks next begins anew. */
const looksMax = 10;

/** What a folder looked like. */
export interface Look {
  readonly fingerprint: string;
  /** When the look was over, on a clock that never goes back. */
  readonly atMs: number;
}

/** Takes a look. */
export async function lookAt(fingerprint: () => Promise<string>): Promise<Look> {
  return { fingerprint: await fingerprint(), atMs: performance.now() };
}

/** Reads after a look without waiting; what it finds counts only if the next look sees the same. */
export function readEarly<T>(read: () => Promise<T>): Promise<T> {
  const reading = setTimeout(earlyMs).then(read);
  // It fails, if it does, where it is awaited.
  reading.catch(() => undefined);
  return reading;
}

/**
 * Reads once two looks in a row saw the same, and again where a third one, after reading, sees something else. Throws
 * where that goes on. What was read early, between the first look and the second, is taken where those saw the same.
 */
export async function readSettled<T>(options: {
  readonly fingerprint: () => Promise<string>;
  readonly read: () => Promise<T>;
  /** The first look, where somebody has taken it already. */
  readonly first: Look;
  /** What `readEarly` reads after the first look. */
  readonly early?: Promise<T>;
  readonly signal?: AbortSignal;
  /** Waits for some milliseconds; by the clock where absent. */
  readonly pause?: (ms: number) => Promise<unknown>;
}): Promise<{ readonly value: T; readonly fingerprint: string }> {
  const { fingerprint, read, first, early, signal } = options;
  const pause = options.pause ?? ((ms: number) => setTimeout(ms, undefined, signal && { signal }));
  let last = first;
  for (let looks = 0; looks < looksMax; looks += 1) {
    await pause(Math.max(0, Math.ceil(last.atMs + settledMs - performance.now())));
    const isEarly = looks === 0 && early !== undefined;
    // What fails where somebody is writing is read again below.
    if (isEarly) await early.catch(() => undefined);
    const seen = last.fingerprint;
    last = await lookAt(fingerprint);
    if (last.fingerprint !== seen) continue;
    if (isEarly) return { value: await early, fingerprint: seen };
    const value = await read();
    last = await lookAt(fingerprint);
    if (last.fingerprint === seen) return { value, fingerprint: seen };
  }
  throw new Error("somebody goes on writing there");
}

/** A text that differs whenever a manifest below the folder has changed. */
export const manifestsFingerprint = (folder: string): Promise<string> =>
  fingerprintOf(folder, { isPassedOver, isRead: isManifestFile });

/** A text that differs whenever a file below the folder has changed. */
export const folderFingerprint = (folder: string): Promise<string> =>
  fingerprintOf(folder, { isPassedOver: () => false, isRead: () => true });

/** Names, sizes and times: the time of change too, because a copy can set the other one back. */
async function fingerprintOf(
  folder: string,
  which: { readonly isPassedOver: (name: string) => boolean; readonly isRead: (name: string) => boolean },
): Promise<string> {
  const lines: string[] = [];
  const walk = async (path: string, depth: number): Promise<void> => {
    if (depth > depthMax) return;
    for (const name of (await readdir(path)).sort()) {
      if (which.isPassedOver(name)) continue;
      // `join` goes through the path by characters, and this runs every second.
      const full = `${path}/${name}`;
      const info = await stat(full).catch(() => undefined);
      if (info?.isDirectory()) await walk(full, depth + 1);
      else if (which.isRead(name))
        lines.push(`${full} ${info?.size} ${info?.mtimeMs} ${info?.ctimeMs} ${info?.ino}`);
    }
  };
  await walk(folder, 0);
  return lines.join("\n");
}
