/** `sallyport verify`: whether recordings are what was written, told offline from the folder and the public key. */
import type { KeyObject } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import type { FindingStatus, PublishedHead, Verification } from "@sallyport/sidecar";
import type { Command } from "commander";
import { CliFailure } from "../failure.ts";
import { coloured, counted, type OutputFormat, printable, table, withOutput, writeJson } from "../output.ts";
import { readRecordings } from "../recordings.ts";
import { exitCodes, type Invocation, type Terminal } from "../terminal.ts";
import { inFolder } from "../values.ts";

interface VerifyOptions {
  readonly publicKey: string;
  readonly expectedHead?: string;
  readonly writeHead?: string;
  readonly wrappingKeys?: string;
  readonly all: boolean;
  readonly output: OutputFormat;
}

/** Adds options and action. */
export function configure(command: Command, invocation: Invocation): void {
  withOutput(command)
    .description("prove that recordings are unchanged, or say what was changed, cut, torn or is missing")
    .argument("<dir>", "folder of recordings")
    .requiredOption("--public-key <file>", "the recorder's public key, kept away from the recordings")
    .option("--expected-head <file>", "a head written earlier: finds the newest sessions removed")
    .option("--write-head <file>", "keep today's head for the next verification")
    .option("--wrapping-keys <files>", "of a recorder's volume: files with the keys that open it")
    .option("--all", "list every session, the unchanged ones too", false)
    .addHelpText("after", help)
    .action(async (dir: string, options: VerifyOptions) => {
      const { terminal } = invocation;
      const found = await verified(dir, options, terminal);
      if (options.output === "json") writeJson(terminal, found);
      else writeFindings(found, options.all, terminal);
      if (!found.ok) invocation.exitCode = exitCodes.finding;
      else if (options.writeHead !== undefined) await keepHead(options.writeHead, found.head, terminal);
    });
}

const help = `
Findings:
  changed  bytes differ from what was written
  cut      the end is missing
  torn     a crash ended it; what is there holds
  missing  the log knows it, and it is gone
The exit code is 1 when anything is found.

Examples:
  sallyport verify recordings --public-key recording.pub.pem
  sallyport verify recordings --public-key recording.pub.pem --expected-head yesterday.json --write-head today.json
  sallyport verify volume/ --public-key recorder.pub.pem --wrapping-keys wrapping.key`;

async function verified(dir: string, options: VerifyOptions, terminal: Terminal): Promise<Verification> {
  const { publicKey, expectedHead } = options;
  const { loadPublicKey } = await import("@sallyport/sidecar");
  const key = await loadPublicKey(inFolder(terminal.cwd, publicKey)).catch((cause: unknown) => {
    throw new CliFailure(`cannot use the public key ${publicKey}`, {
      next: "Name the recorder's public key in PEM form; the gateway writes one beside its private key.",
      cause,
    });
  });
  const head = expectedHead === undefined ? undefined : await readHead(expectedHead, terminal);
  if (options.wrappingKeys !== undefined)
    return verifiedVolume(dir, options.wrappingKeys, { key, head, terminal });
  return readRecordings(dir, terminal, ({ verifyRecordings }, folder) =>
    verifyRecordings(folder, key, { expectedHead: head }),
  );
}

/** A recorder's volume is sealed: without the keys that open it nothing could be said of its sessions. */
async function verifiedVolume(
  dir: string,
  wrappingKeys: string,
  {
    key,
    head,
    terminal,
  }: { readonly key: KeyObject; readonly head: PublishedHead | undefined; readonly terminal: Terminal },
): Promise<Verification> {
  const { readVolume } = await import("@sallyport/sidecar/recorder-volume");
  const files = wrappingKeys.split(",").map((file) => inFolder(terminal.cwd, file));
  try {
    const volume = await readVolume(inFolder(terminal.cwd, dir), files);
    return await volume.verify(key, { expectedHead: head });
  } catch (cause) {
    throw new CliFailure(`cannot read the volume ${dir}`, {
      next: "Name the folder of a recorder's volume, and files of 32 bytes that its namespaces' keys are wrapped with.",
      cause,
    });
  }
}

function writeFindings({ ok, log, sessions, pruned }: Verification, all: boolean, terminal: Terminal): void {
  const shown = sessions.filter(({ status }) => all || !isGood(status));
  if (shown.length > 0) {
    const rows = shown.map(({ sessionId, status, detail }) => [sessionId, status, detail]);
    terminal.out(`${table(["SESSION", "FINDING", "DETAIL"], rows, terminal.columns)}\n`);
  }
  terminal.out(`log: ${log.status}, ${printable(log.detail)}\n`);
  const counts = statuses
    .map((status) => ({ status, count: sessions.filter((session) => session.status === status).length }))
    .filter(({ count }) => count > 0)
    .map(({ status, count }) => `${count} ${status}`);
  const removed = pruned === 0 ? "" : `; ${pruned} removed at the end of their retention`;
  const total = counted(sessions.length, "session");
  terminal.out(`${total}${counts.length === 0 ? "" : `: ${counts.join(", ")}`}${removed}\n`);
  const verdict = ok ? coloured(terminal, "green", "unchanged") : coloured(terminal, "red", "NOT AS WRITTEN");
  terminal.out(`${verdict}\n`);
}

const statuses: readonly FindingStatus[] = ["ok", "open", "changed", "cut", "torn", "missing"];
const isGood = (status: FindingStatus): boolean => status === "ok" || status === "open";

async function readHead(file: string, terminal: Terminal): Promise<PublishedHead> {
  const next = 'Name a file that `sallyport verify --write-head` wrote: {"log": …, "block": …, "hash": …}.';
  try {
    const head: unknown = JSON.parse(await readFile(inFolder(terminal.cwd, file), "utf8"));
    if (isHead(head)) return head;
  } catch (cause) {
    throw new CliFailure(`cannot read the expected head ${file}`, { next, cause });
  }
  throw new CliFailure(`${file} holds no head`, { next });
}

function isHead(value: unknown): value is PublishedHead {
  if (typeof value !== "object" || value === null) return false;
  const { log, block, hash, chains } = value as Partial<Record<keyof PublishedHead, unknown>>;
  const isOne = typeof log === "string" && Number.isSafeInteger(block) && typeof hash === "string";
  if (!isOne || chains === undefined) return isOne;
  // The heads of further processes, by their number.
  if (typeof chains !== "object" || chains === null) return false;
  return Object.entries(chains).every(([chain, head]) => /^[1-9]\d{0,3}$/.test(chain) && isHead(head));
}

async function keepHead(file: string, head: PublishedHead | undefined, terminal: Terminal): Promise<void> {
  if (head === undefined) return;
  await writeFile(inFolder(terminal.cwd, file), `${JSON.stringify(head)}\n`).catch((cause: unknown) => {
    throw new CliFailure(`cannot write the head to ${file}`, {
      next: "Name a file that can be written.",
      cause,
    });
  });
}
