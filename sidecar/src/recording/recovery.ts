/** What a new recorder does with the work of a process that died: it says in the new log how everything was found. */
import type { KeyObject } from "node:crypto";
import { join } from "node:path";
import { sessionJournal } from "./journal-format.ts";
import { scanOrAbsent } from "./journal-scan.ts";
import { foundEnd, isEnded, type LogHistory, logNames, readLogs } from "./log-history.ts";
import { type FoundEnd, type LogRecord, logSequence } from "./log-records.ts";

/** Where the new log goes on, and what it has to say first. */
export interface Recovery {
  readonly sequence: number;
  readonly previous: ({ readonly log: string } & FoundEnd) | null;
  readonly records: readonly LogRecord[];
}

/** Reads the newest logs and the sessions that they leave open; changes nothing. */
export async function recoverRecordings(folder: string, key: KeyObject, at: number): Promise<Recovery> {
  const names = await logNames(folder);
  const history = await newestLogs(folder, names, key);
  const last = history.logs.at(-1);
  const records: LogRecord[] = [];
  for (const [session, entry] of history.sessions) {
    if (isEnded(entry)) continue;
    const path = join(folder, entry.opened.path);
    const scan = await scanOrAbsent({ path, journal: sessionJournal(session), key });
    if (scan === undefined) records.push({ kind: "absent", at, session });
    else if (scan.isFinal && scan.error === undefined) {
      const { block, hash, bytes } = scan;
      records.push({ kind: "closed", at, session, block, hash, bytes, reason: "closed before a crash" });
    } else records.push({ kind: "recovered", at, session, ...foundEnd(scan) });
  }
  return {
    sequence: (logSequence(names.at(-1) ?? "") ?? 0) + 1,
    previous: last ? { log: last.name, ...foundEnd(last.scan) } : null,
    records,
  };
}

/** A log's first block settles all sessions before it, so reading starts at the newest log that has one. */
async function newestLogs(folder: string, names: readonly string[], key: KeyObject): Promise<LogHistory> {
  for (let first = names.length - 1; first > 0; first--) {
    const history = await readLogs(folder, names.slice(first), key);
    if ((history.logs[0]?.scan.block ?? -1) >= 0) return history;
  }
  return readLogs(folder, names, key);
}
