/** Says of every recording whether it is what was written, with nothing but the folder and the public key. */
import type { KeyObject } from "node:crypto";
import { glob, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { sessionJournal } from "./journal-format.ts";
import { DamagedJournal, type Scan, scanOrAbsent } from "./journal-scan.ts";
import {
  isSameEnd,
  type LogFile,
  type LogHistory,
  logNames,
  readLogs,
  type SessionEntry,
} from "./log-history.ts";
import type { PublishedHead } from "./model.ts";

/**
 * What was found. `ok`: closed and unchanged. `open`: no closing yet, unchanged so far. `changed`: bytes differ from
 * what was written. `cut`: the end is missing. `torn`: a crash ended it; what is there holds. `missing`: gone.
 */
export type FindingStatus = "ok" | "open" | "changed" | "cut" | "torn" | "missing";

/** The finding about one session's journal. */
export interface SessionFinding {
  readonly sessionId: string;
  readonly status: FindingStatus;
  readonly detail: string;
}

/** The finding about the logs as a whole. */
export interface LogFinding {
  readonly status: FindingStatus;
  readonly detail: string;
}

/** All findings; `ok` where every one of them is `ok` or `open`. */
export interface Verification {
  readonly ok: boolean;
  readonly log: LogFinding;
  readonly sessions: readonly SessionFinding[];
  /** Sessions whose retention had ended and that the log says were removed. */
  readonly pruned: number;
  /** The newest stored head of the log. */
  readonly head: PublishedHead | undefined;
}

/** What a verification may be held against. */
export interface VerifyOptions {
  /** A head that was published once: a log that no longer reaches it was cut. */
  readonly expectedHead?: PublishedHead | undefined;
  /** Where journals are not plain files signed by the log's own key: a recorder's volume. */
  readonly journals?: JournalReader;
}

/** How journals are read that are sealed, and whose signature each bears. */
export interface JournalReader {
  read(entry: SessionEntry): Promise<AsyncIterable<Buffer>>;
  keyOf(entry: SessionEntry): Promise<KeyObject>;
}

/** Verifies a folder of recordings offline. */
export async function verifyRecordings(
  folder: string,
  publicKey: KeyObject,
  options: VerifyOptions = {},
): Promise<Verification> {
  const history = await readLogs(folder, await logNames(folder), publicKey);
  const logHeads = new Set<string>();
  const sessions: SessionFinding[] = [];
  let pruned = 0;
  const gone: string[] = [];
  const halfWritten: { readonly index: number; readonly path: string; readonly size: number }[] = [];
  for (const [sessionId, entry] of history.sessions) {
    const path = join(folder, entry.opened.path);
    const { journals } = options;
    const scan = await scanSession({ sessionId, entry, path, publicKey, journals });
    if (scan === undefined) {
      gone.push(sessionId);
      continue;
    }
    // A gateway that streams names a log of its own, which the recorder does not keep.
    if (!options.journals) for (const head of scan.logHeads) logHeads.add(head);
    const finding = judge(entry, scan);
    if (finding.status === "torn" && entry.recovered === undefined) {
      const size = options.journals ? await sizeOf(path) : scan.size;
      halfWritten.push({ index: sessions.length, path, size });
    }
    sessions.push({ sessionId, ...finding });
  }
  // A live recorder has gone on since: what is there now is held against what its log says now.
  const unknown = await unknownJournals(folder, history);
  const isLive = history.logs.at(-1)?.isStopped === false;
  const later = isLive ? await readLogs(folder, await logNames(folder), publicKey) : history;
  const laterPaths = new Set([...later.sessions.values()].map(({ opened }) => opened.path));
  for (const sessionId of gone) {
    const entry = later.sessions.get(sessionId) ?? history.sessions.get(sessionId);
    if (entry === undefined || entry.isPruned) pruned++;
    else {
      const finding = absent(later.logs, entry);
      const path = join(folder, entry.opened.path);
      if (finding.status === "torn") halfWritten.push({ index: sessions.length, path, size: -1 });
      sessions.push({ sessionId, ...finding });
    }
  }
  // A live session may have been seen before its file was made or within a write.
  if (halfWritten.length > 0) await setTimeout(growthWaitMs);
  for (const { index, path, size } of halfWritten) {
    const finding = sessions[index];
    if (finding === undefined || !(await hasGrown(path, size))) continue;
    sessions[index] = { ...finding, status: "open", detail: "it is being written" };
  }
  for (const path of unknown) {
    if (laterPaths.has(path)) continue;
    const sessionId = basename(path, ".journal");
    const journal = sessionJournal(sessionId);
    const scan = await scanOrAbsent({ path: join(folder, path), journal, key: publicKey });
    // Where our own signature is in it, the log that knew it was cut: its heads say so.
    if (!options.journals) for (const head of scan?.logHeads ?? []) logHeads.add(head);
    sessions.push({ sessionId, status: "changed", detail: `no log knows ${path}` });
  }
  const log = findLog(later.logs, logHeads, options.expectedHead);
  const isGood = ({ status }: LogFinding) => status === "ok" || status === "open";
  return {
    ok: isGood(log) && sessions.every(isGood),
    log,
    sessions,
    pruned,
    head: headOf(later.logs),
  };
}

async function scanSession(session: {
  readonly sessionId: string;
  readonly entry: SessionEntry;
  readonly path: string;
  readonly publicKey: KeyObject;
  readonly journals: JournalReader | undefined;
}): Promise<Scan | undefined> {
  const { sessionId, entry, path, publicKey, journals } = session;
  const request = { path, journal: sessionJournal(sessionId), heads: entry.heads };
  if (journals === undefined) return scanOrAbsent({ ...request, key: publicKey });
  const [key, chunks] = await Promise.all([journals.keyOf(entry), journals.read(entry)]).catch(() => []);
  // Without its key or its gateway's nothing can be said for it.
  if (key === undefined || chunks === undefined) {
    const unreadable = async function* (): AsyncGenerator<Buffer> {
      yield* [];
      throw new DamagedJournal("the keys to it are not there or are others");
    };
    return scanOrAbsent({ ...request, chunks: unreadable });
  }
  return scanOrAbsent({ ...request, key, chunks: () => chunks });
}

/** Longer than a write takes to go on. */
const growthWaitMs = 100;

/** Says whether the logs follow each other without a gap and reach every head that is known of them. */
function findLog(
  logs: readonly LogFile[],
  sessionHeads: ReadonlySet<string>,
  expectedHead: PublishedHead | undefined,
): LogFinding {
  const expected = [...sessionHeads].map(parseHead);
  if (expectedHead) expected.push(expectedHead);
  let sequence = 1;
  let previous: LogFile | undefined;
  for (const log of logs) {
    const { name, scan, start } = log;
    if (log.sequence > sequence) return { status: "missing", detail: `the log before ${name} is gone` };
    if (log.sequence < sequence) return { status: "changed", detail: `${name} stands beside another log` };
    if (scan.error !== undefined) return { status: "changed", detail: `${name}: ${scan.error}` };
    if (start === undefined && scan.block >= 0) {
      return { status: "changed", detail: `${name} does not begin with its start` };
    }
    const link = start?.previous ?? null;
    if (start !== undefined && link?.log !== previous?.name) {
      return { status: "changed", detail: `${name} follows ${link?.log ?? "no log"}, not ${previous?.name}` };
    }
    if (link && previous && !isSameEnd(previous.scan, link)) {
      const status = previous.scan.size < link.size ? "cut" : "changed";
      return { status, detail: `${previous.name} does not end as ${name} found it` };
    }
    // A log without a whole block wrote nothing down: whoever came next names it and what came before alike.
    previous = log;
    sequence++;
  }
  for (const head of expected) {
    const log = logs.find(({ name }) => name === head.log);
    if (!log) return { status: logs.length > 0 ? "cut" : "missing", detail: `${head.log} is gone` };
    const there = log.hashes[head.block];
    if (there === undefined) return { status: "cut", detail: `${head.log} ends before block ${head.block}` };
    if (there !== head.hash)
      return { status: "changed", detail: `block ${head.block} of ${head.log} is another` };
  }
  if (previous === undefined) return { status: "missing", detail: "there is no log" };
  if (previous.scan.tail.bytes > 0) {
    return { status: "torn", detail: `${previous.name} ends within block ${previous.scan.block + 1}` };
  }
  if (!previous.isStopped) return { status: "open", detail: `${previous.name} has no end yet` };
  return { status: "ok", detail: `${logs.length} logs, the last one stopped` };
}

/** Decides about a journal that is there. */
function judge(entry: SessionEntry, scan: Scan): LogFinding {
  const { closed, recovered } = entry;
  if (scan.error !== undefined) return { status: "changed", detail: scan.error };
  const lastHead = Math.max(-1, ...entry.heads.keys());
  const end = closed ?? entry.heads.get(lastHead);
  if (scan.block < lastHead) {
    const isShorter = end !== undefined && scan.size < end.bytes && !scan.isFinal;
    const detail = `it ends after block ${scan.block}, and the log knows block ${lastHead}`;
    return { status: isShorter ? "cut" : "changed", detail };
  }
  if (closed) {
    const isWhole = scan.isFinal && scan.block === closed.block && scan.hash === closed.hash;
    if (isWhole && scan.size === closed.bytes) return { status: "ok", detail: `${closed.block + 1} blocks` };
    return { status: "changed", detail: "it does not end as the log says it was closed" };
  }
  if (recovered) {
    if (isSameEnd(scan, recovered)) {
      const detail = `a crash ended it after block ${scan.block}, ${scan.tail.bytes} bytes into the next`;
      return { status: "torn", detail };
    }
    const status = scan.size < recovered.size ? "cut" : "changed";
    return { status, detail: "it does not end as it was found after the crash" };
  }
  if (entry.isAbsent) return { status: "changed", detail: "the log says that its file was not there" };
  if (scan.isFinal) return { status: "ok", detail: "closed; the log ends before it says so" };
  if (scan.tail.bytes > 0) {
    return { status: "torn", detail: `it ends within block ${scan.block + 1}, and nothing closed it` };
  }
  const unsigned = scan.block - scan.signedBlock;
  return { status: "open", detail: `${scan.block + 1} blocks, the last ${unsigned} not signed yet` };
}

/** Decides about a journal that is not there. */
function absent(logs: readonly LogFile[], entry: SessionEntry): LogFinding {
  const log = logs.find(({ name }) => name === entry.log);
  // The log notes a session before its file is made, and no further block before that: only there a crash explains it.
  const wasLast = log?.scan.block === entry.openedBlock && !log.isStopped;
  if (entry.heads.size === 0 && (wasLast || entry.isUnwritten)) {
    return { status: "torn", detail: "a crash or a failing disk kept its first block from being written" };
  }
  return { status: "missing", detail: "the log knows it, and its file is gone" };
}

async function unknownJournals(folder: string, history: LogHistory): Promise<readonly string[]> {
  const known = new Set([...history.sessions.values()].map(({ opened }) => opened.path));
  const found: string[] = [];
  for await (const path of glob("sessions/**/*.journal", { cwd: folder })) {
    if (!known.has(path)) found.push(path);
  }
  return found;
}

async function hasGrown(path: string, size: number): Promise<boolean> {
  return (await sizeOf(path)) > size;
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    (found) => found.size,
    () => -1,
  );
}

function headOf(logs: readonly LogFile[]): PublishedHead | undefined {
  const log = logs.findLast(({ scan }) => scan.block >= 0);
  return log && { log: log.name, block: log.scan.block, hash: log.scan.hash };
}

function parseHead(text: string): PublishedHead {
  const [log = "", block = "", hash = ""] = text.split(":");
  return { log, block: Number(block), hash };
}
