/**
 * The recordings of several processes in one folder. Each process writes a chain of logs of its own, the first one at
 * the top, the others below `processes/`; the first one's log names the others before they take sessions, so that a
 * chain that is removed as a whole is missed too.
 *
 *     recordings/log  recordings/sessions                    the first process (or the only one)
 *     recordings/processes/1/log  …/1/sessions               the second
 */
import type { KeyObject } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { logNames, readLogs } from "./log-history.ts";
import type { PublishedHead, Recorded } from "./model.ts";
import {
  listSessions as listOfChain,
  type ReadSessionOptions,
  readSession as readOfChain,
  type SessionSummary,
} from "./sessions.ts";
import {
  type LogFinding,
  type Verification,
  type VerifyOptions,
  verifyRecordings as verifyChain,
} from "./verify.ts";

const chainsFolder = "processes";

/** Where a process records below the folder of recordings: the first at the top. */
export function chainFolder(folder: string, chain: number): string {
  return chain === 0 ? folder : join(folder, chainsFolder, String(chain));
}

/** The chains that a folder holds, the first one left out. */
export async function chainsIn(folder: string): Promise<readonly number[]> {
  const entries = await readdir(join(folder, chainsFolder)).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  return entries
    .filter((entry) => /^[1-9]\d{0,3}$/.test(entry))
    .map(Number)
    .sort((a, b) => a - b);
}

/** Lists the sessions of all processes, oldest first. */
export async function listSessions(folder: string): Promise<readonly SessionSummary[]> {
  const all: SessionSummary[] = [...(await listOfChain(folder))];
  for (const chain of await chainsIn(folder)) {
    for (const found of await listOfChain(chainFolder(folder, chain))) {
      all.push({ ...found, path: join(chainsFolder, String(chain), found.path) });
    }
  }
  return all.sort((a, b) => a.startedAt - b.startedAt);
}

/** Reads a session's records in order, whichever process wrote them. */
export async function* readSession(
  folder: string,
  sessionId: string,
  options: ReadSessionOptions = {},
): AsyncGenerator<Recorded, void, undefined> {
  for (const chain of await chainsIn(folder)) {
    const below = chainFolder(folder, chain);
    const { sessions } = await readLogs(below, await logNames(below), undefined);
    if (!sessions.has(sessionId)) continue;
    yield* readOfChain(below, sessionId, options);
    return;
  }
  yield* readOfChain(folder, sessionId, options);
}

/** Verifies the chains of all processes; the log's finding is the first that is not good. */
export async function verifyRecordings(
  folder: string,
  publicKey: KeyObject,
  options: VerifyOptions = {},
): Promise<Verification> {
  const { expectedHead } = options;
  const first = await verifyChain(folder, publicKey, { expectedHead });
  const own = await readLogs(folder, await logNames(folder), publicKey);
  const known = new Set([...own.chains, ...Object.keys(expectedHead?.chains ?? {}).map(Number)]);
  const chains = [...new Set([...known, ...(await chainsIn(folder))])].sort((a, b) => a - b);
  if (chains.length === 0) return first;
  const logs: LogFinding[] = [wrongStart(own.logs, undefined) ?? first.log];
  const sessions = [...first.sessions];
  const heads: Record<string, PublishedHead> = {};
  let { pruned } = first;
  for (const chain of chains) {
    const below = chainFolder(folder, chain);
    const head = expectedHead?.chains?.[String(chain)];
    const found = await verifyChain(below, publicKey, head === undefined ? {} : { expectedHead: head });
    const history = await readLogs(below, await logNames(below), publicKey);
    const log = wrongStart(history.logs, chain) ?? found.log;
    // Its own log is all that a chain has before the first one names it; what is there must hold all the same.
    logs.push({ ...log, detail: `process ${chain}: ${log.detail}` });
    sessions.push(...found.sessions);
    pruned += found.pruned;
    if (found.head !== undefined) heads[String(chain)] = found.head;
  }
  const isGood = ({ status }: LogFinding) => status === "ok" || status === "open";
  const worst = logs.find((log) => !isGood(log)) ?? logs.find(({ status }) => status === "open") ?? logs[0];
  return {
    ok: logs.every(isGood) && sessions.every(isGood),
    log: worst ?? first.log,
    sessions,
    pruned,
    head: first.head === undefined ? undefined : { ...first.head, chains: heads },
  };
}

/** A chain that was put in another's place says so in the start of its logs, which is signed. */
function wrongStart(
  logs: readonly { readonly name: string; readonly start: { readonly chain?: number } | undefined }[],
  chain: number | undefined,
): LogFinding | undefined {
  const other = logs.find(({ start }) => start !== undefined && start.chain !== chain);
  if (other === undefined) return undefined;
  const { name, start } = other;
  return { status: "changed", detail: `${name} belongs to process ${start?.chain ?? 0}` };
}
