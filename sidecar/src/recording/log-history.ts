/** What the logs say: every session that there was, how far it got, and how each log follows the one before. */
import type { KeyObject } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { logJournal } from "./journal-format.ts";
import { type Scan, scanJournal } from "./journal-scan.ts";
import { type FoundEnd, type LogRecord, logFolder, logSequence, parseLogRecord } from "./log-records.ts";

/** One log as it was found. */
export interface LogFile {
  readonly name: string;
  readonly sequence: number;
  readonly scan: Scan;
  readonly start: Extract<LogRecord, { kind: "start" }> | undefined;
  readonly isStopped: boolean;
  /** The hash of each block. */
  readonly hashes: readonly string[];
}

/** All that the logs say of one session. */
export interface SessionEntry {
  readonly opened: Extract<LogRecord, { kind: "opened" }>;
  readonly log: string;
  readonly openedBlock: number;
  /** Stored places of its journal that the log has noted, by block. */
  readonly heads: Map<number, { readonly hash: string; readonly bytes: number }>;
  closed?: Extract<LogRecord, { kind: "head" | "closed" }>;
  recovered?: Extract<LogRecord, { kind: "recovered" }>;
  /** Its first block could not be stored (yet); the log says so itself. */
  isUnwritten: boolean;
  isAbsent: boolean;
  isPruned: boolean;
}

/** What the logs of a folder say together. */
export interface LogHistory {
  readonly logs: readonly LogFile[];
  readonly sessions: ReadonlyMap<string, SessionEntry>;
  /** Other processes that have recorded below the folder. */
  readonly chains: ReadonlySet<number>;
}

/** The names of a folder's logs in order; none where there is no such folder. */
export async function logNames(folder: string): Promise<readonly string[]> {
  const entries = await readdir(join(folder, logFolder)).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  return entries
    .filter((entry) => entry.endsWith(".journal"))
    .map((entry) => entry.slice(0, -".journal".length))
    .filter((name) => logSequence(name) !== undefined)
    .sort((a, b) => (logSequence(a) ?? 0) - (logSequence(b) ?? 0) || (a < b ? -1 : 1));
}

/** Reads logs in order. With a key only blocks that it signed count. */
export async function readLogs(
  folder: string,
  names: readonly string[],
  key: KeyObject | undefined,
): Promise<LogHistory> {
  const logs: LogFile[] = [];
  const sessions = new Map<string, SessionEntry>();
  const chains = new Set<number>();
  for (const name of names) {
    let first: LogRecord | undefined;
    let last: LogRecord | undefined;
    const hashes: string[] = [];
    const scan = await scanJournal({
      path: join(folder, logFolder, `${name}.journal`),
      journal: logJournal(name),
      key,
      everyBlockSigned: true,
      onBlock: ({ chain, lines }) => {
        hashes.push(chain.hash);
        for (const line of lines) {
          const record = parseLogRecord(line);
          if (record?.kind === "chain") chains.add(record.chain);
          else noteSession(sessions, record, name, chain.block);
        }
        if (chain.block === 0) first = parseLogRecord(lines[0] ?? "");
        last = parseLogRecord(lines.at(-1) ?? "");
      },
    });
    logs.push({
      name,
      sequence: logSequence(name) ?? 0,
      scan,
      start: ofKind(first, "start"),
      isStopped: ofKind(last, "stopped") !== undefined && scan.isFinal,
      hashes,
    });
  }
  return { logs, sessions, chains };
}

function ofKind<K extends LogRecord["kind"]>(record: LogRecord | undefined, kind: K) {
  return record?.kind === kind ? (record as Extract<LogRecord, { kind: K }>) : undefined;
}

/** The end of a journal as a successor writes it down. */
export function foundEnd(scan: Scan): FoundEnd {
  const { block, hash, bytes, size, tail } = scan;
  return { block, hash, bytes, size, tailSha256: tail.sha256 };
}

/** True where a journal still ends as it was found once. */
export function isSameEnd(scan: Scan, end: FoundEnd): boolean {
  return (
    scan.block === end.block &&
    scan.hash === end.hash &&
    scan.size === end.size &&
    scan.tail.sha256 === end.tailSha256
  );
}

/** True where nothing more is to be expected of a session. */
export function isEnded(entry: SessionEntry): boolean {
  return entry.closed !== undefined || entry.recovered !== undefined || entry.isAbsent || entry.isPruned;
}

function noteSession(
  sessions: Map<string, SessionEntry>,
  record: Exclude<LogRecord, { kind: "chain" }> | undefined,
  log: string,
  block: number,
): void {
  if (record === undefined || record.kind === "start" || record.kind === "stopped") return;
  if (record.kind === "opened") {
    // Said twice where storage failed in between: what was noted since the first time stands. Behind its removal it is
    // another recording, of which nothing has been noted yet.
    if (sessions.get(record.session)?.isPruned === false) return;
    sessions.delete(record.session);
    sessions.set(record.session, {
      opened: record,
      log,
      openedBlock: block,
      heads: new Map(),
      isUnwritten: false,
      isAbsent: false,
      isPruned: false,
    });
    return;
  }
  const entry = sessions.get(record.session);
  // Recovery reads the newest logs only; what they say of older sessions concerns nobody there.
  if (entry === undefined) return;
  switch (record.kind) {
    case "head":
      noteHead(entry, record);
      break;
    case "closed":
      noteHead(entry, record);
      entry.closed = record;
      break;
    case "recovered":
      noteHead(entry, record);
      entry.recovered = record;
      break;
    case "unwritten":
      entry.isUnwritten = true;
      break;
    case "absent":
      entry.isAbsent = true;
      break;
    case "pruned":
      entry.isPruned = true;
      break;
    default:
      record satisfies never;
  }
}

/** What was noted while the session lived stands: what recovery found later may have been changed by then. */
function noteHead(
  entry: SessionEntry,
  head: { readonly block: number; readonly hash: string; readonly bytes: number },
) {
  if (head.block >= 0 && !entry.heads.has(head.block)) entry.heads.set(head.block, head);
}
