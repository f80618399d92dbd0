/** What auditors read: which sessions there were, and what one of them holds. Reading proves nothing; see verify.ts. */
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { chainStart } from "./journal-format.ts";
import { logNames, readLogs, type SessionEntry } from "./log-history.ts";
import type { Recorded } from "./model.ts";

/** One session as the logs know it. */
export interface SessionSummary {
  readonly sessionId: string;
  readonly namespace: string;
  readonly resource: string;
  readonly protocol: string;
  readonly user: string;
  readonly subject: string;
  readonly database: string;
  readonly startedAt: number;
  readonly endedAt: number | undefined;
  readonly state: "open" | "closed" | "torn" | "pruned";
  readonly commands: number | undefined;
  readonly refused: number | undefined;
  /** Of the journal, below the folder. */
  readonly path: string;
}

/** Lists the sessions of a folder, oldest first. */
export async function listSessions(folder: string): Promise<readonly SessionSummary[]> {
  const { sessions } = await readLogs(folder, await logNames(folder), undefined);
  return [...sessions].map(([sessionId, entry]) => summary(sessionId, entry));
}

function summary(sessionId: string, entry: SessionEntry): SessionSummary {
  const { opened, closed, recovered } = entry;
  const isTorn = recovered !== undefined || entry.isAbsent;
  const ended = closed ? "closed" : isTorn ? "torn" : "open";
  return {
    sessionId,
    namespace: opened.namespace,
    resource: opened.resource,
    protocol: opened.protocol,
    user: opened.user,
    subject: opened.subject,
    database: opened.database,
    startedAt: opened.at,
    endedAt: closed?.at ?? recovered?.at,
    state: entry.isPruned ? "pruned" : ended,
    commands: closed?.commands,
    refused: closed?.refused,
    path: opened.path,
  };
}

/** How to read a session. */
export interface ReadSessionOptions {
  /** Go on until the session closes. */
  readonly follow?: boolean;
  readonly signal?: AbortSignal;
}

const followMs = 200;
const chunkBytes = 256 * 1024;
/** A line longer than this is no line of ours. */
const lineBytesMax = 256 * 1024 * 1024;

/** Reads a session's records in order; throws where no log knows the session. */
export async function* readSession(
  folder: string,
  sessionId: string,
  options: ReadSessionOptions = {},
): AsyncGenerator<Recorded, void, undefined> {
  const { sessions } = await readLogs(folder, await logNames(folder), undefined);
  const entry = sessions.get(sessionId);
  if (entry === undefined) throw new Error(`there is no session ${sessionId}`);
  const file = await open(join(folder, entry.opened.path), "r").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
    const reason = entry.isPruned ? "was removed at the end of its retention" : "is missing: run verify";
    throw new Error(`the recording of session ${sessionId} ${reason}`);
  });
  try {
    yield* recordsOf(file, options);
  } finally {
    await file.close();
  }
}

async function* recordsOf(
  file: FileHandle,
  options: ReadSessionOptions,
): AsyncGenerator<Recorded, void, undefined> {
  const chunk = Buffer.allocUnsafe(chunkBytes);
  let carried: Buffer[] = [];
  let carriedBytes = 0;
  for (let position = 0; ; ) {
    if (options.signal?.aborted) return;
    const { bytesRead } = await file.read(chunk, 0, chunkBytes, position);
    position += bytesRead;
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0 && end < bytesRead; end = chunk.indexOf(0x0a, start)) {
      const line = Buffer.concat([...carried, chunk.subarray(start, end)]).toString();
      carried = [];
      carriedBytes = 0;
      start = end + 1;
      const record = parseRecord(line);
      if (record) yield record;
      if (record?.kind === "closing") return;
    }
    if (start < bytesRead) carried.push(Buffer.from(chunk.subarray(start, bytesRead)));
    carriedBytes += bytesRead - start;
    if (carriedBytes > lineBytesMax) throw new Error("a line is longer than any that is written: run verify");
    if (bytesRead > 0) continue;
    if (options.follow !== true) return;
    await setTimeout(followMs, undefined, { signal: options.signal }).catch(() => undefined);
  }
}

const kinds = new Set(["opening", "command", "response", "rows", "stream", "event", "closing"]);

/** Reads a record line; undefined for a chain line, and for what someone else wrote there. */
function parseRecord(line: string): Recorded | undefined {
  if (line.startsWith(chainStart)) return undefined;
  try {
    const record: unknown = JSON.parse(line);
    const isRecord = typeof record === "object" && record !== null && "kind" in record;
    return isRecord && kinds.has(String(record.kind)) ? (record as Recorded) : undefined;
  } catch {
    return undefined;
  }
}
