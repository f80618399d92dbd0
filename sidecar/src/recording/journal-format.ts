/**
 * The bytes of a journal: record lines, and after each block of them one chain line.
 *
 *   {"kind":"command",…}\n                      record lines, JSON, no raw newline inside
 *   {"kind":"response",…}\n
 *   {"chain":N,"records":2,"previous":"<hash of block N-1>"[,"log":"<head>"][,"final":true]   ← hashed up to here
 *     ,"hash":"<hex>"[,"signature":"<hex>"]}\n
 *
 * hash = SHA-256(chain line of block N-1 ‖ the block's record lines ‖ the chain line up to the hash); block 0 has
 * the journal's name in place of a chain line, so that no block fits into another journal. The whole format is in
 * docs/reference/recording-format.md.
 */
import { hash, type KeyObject, sign, verify } from "node:crypto";
import type { Identity, Verdict } from "@sallyport/policy";
import { LineWriter } from "./line-writer.ts";
import type {
  CommandRecord,
  RecordedVerdict,
  ResponseRecord,
  SessionCounts,
  SessionOpening,
} from "./model.ts";

/** A parsed chain line. */
export interface ChainLine {
  readonly block: number;
  readonly records: number;
  readonly previous: string;
  /** The log's head when this was signed: `<log>:<block>:<hash>`. */
  readonly log: string | undefined;
  readonly final: boolean;
  readonly hash: string;
  readonly signature: string | undefined;
  /** The line up to its hash, which the hash covers. */
  readonly prefix: string;
}

/** What stands before block 0 in place of a chain line. */
export function journalSeed(journal: string): string {
  return `sallyport journal v1 ${journal}\n`;
}

/** The name under which a session's journal is chained and signed. */
export function sessionJournal(sessionId: string): string {
  return `session:${sessionId}`;
}

/** The name under which a log is chained and signed. */
export function logJournal(log: string): string {
  return `log:${log}`;
}

/** The first `previous` of a journal. */
export const noHash = "0".repeat(64);

/** A closed block: the bytes to store, and the chain line that the next one builds on. */
export interface SealedBlock {
  readonly bytes: Buffer;
  readonly chainLine: string;
  readonly hash: string;
}

/** What a block is closed with, beside its lines. */
export interface BlockClosing {
  readonly journal: string;
  readonly number: number;
  readonly records: number;
  readonly previous: string;
  readonly log?: string | undefined;
  readonly final?: boolean;
  readonly key?: KeyObject | undefined;
}

/** Closes a block over its record lines. */
export function sealBlock(
  block: BlockClosing & { readonly lines: string; readonly previousLine: string },
): SealedBlock {
  const writer = new LineWriter(512 + block.previousLine.length + block.lines.length);
  writer.text(block.previousLine);
  const from = writer.length;
  writer.text(block.lines);
  return sealLines(writer, from, block);
}

/** Closes a block that was written behind the previous chain line, which ends at `from`; ends the writer's use. */
export function sealLines(writer: LineWriter, from: number, block: BlockClosing): SealedBlock {
  let prefix = `{"chain":${block.number},"records":${block.records},"previous":"${block.previous}"`;
  if (block.log !== undefined) prefix += `,"log":"${block.log}"`;
  if (block.final === true) prefix += ',"final":true';
  writer.text(prefix);
  const digest = hash("sha256", writer.written(), "hex");
  let end = `,"hash":"${digest}"`;
  if (block.key) end += `,"signature":"${signHead(block.key, block.journal, block.number, digest)}"`;
  end += "}\n";
  writer.text(end);
  return { bytes: writer.written(from), chainLine: prefix + end, hash: digest };
}

const chainForm =
  // The form is exact: a byte that the hash does not cover cannot take another value unnoticed.
  /^(\{"chain":(0|[1-9]\d{0,14}),"records":([1-9]\d{0,14}),"previous":"([0-9a-f]{64})"(?:,"log":"([\w.:-]+)")?(,"final":true)?),"hash":"([0-9a-f]{64})"(?:,"signature":"([0-9a-f]{128})")?\}$/;

/** How every chain line begins, and no record line. */
export const chainStart = '{"chain":';

/** Reads a chain line without its newline; undefined where it is not exactly one. */
export function parseChainLine(line: string): ChainLine | undefined {
  const match = chainForm.exec(line);
  if (!match) return undefined;
  const [, prefix = "", block, records, previous = "", log, final, digest = "", signature] = match;
  return {
    block: Number(block),
    records: Number(records),
    previous,
    log,
    final: final !== undefined,
    hash: digest,
    signature,
    prefix,
  };
}

/** True where the signature of a head is the key's. */
export function isSigned(key: KeyObject, journal: string, chain: ChainLine): boolean {
  if (chain.signature === undefined) return false;
  const head = signedHead(journal, chain.block, chain.hash);
  return verify(null, head, key, Buffer.from(chain.signature, "hex"));
}

function signHead(key: KeyObject, journal: string, block: number, digest: string): string {
  return sign(null, signedHead(journal, block, digest), key).toString("hex");
}

function signedHead(journal: string, block: number, digest: string): Buffer {
  return Buffer.from(`sallyport head v1\n${journal}\n${block}\n${digest}\n`);
}

/** Encodes what a record keeps of a verdict. */
export function encodeVerdict(verdict: Verdict): string {
  const kept: RecordedVerdict = {
    action: verdict.action,
    ...(verdict.rule && { policy: verdict.rule.policy, rule: verdict.rule.rule }),
    enforcement: verdict.rule?.enforcement ?? verdict.enforcement,
    ...(verdict.message !== "" && { message: verdict.message }),
    ...(verdict.audit.length > 0 && {
      audit: verdict.audit.map(({ policy, action, rule }) => ({
        policy,
        action,
        ...(rule && { rule: rule.rule }),
      })),
    }),
  };
  return JSON.stringify(kept);
}

/**
 * A verdict as command lines have it. What was prepared runs again and again under the same verdict: then its text is
 * not encoded anew either.
 */
export class EncodedVerdict {
  private readonly verdict: Uint8Array;
  private text: string | undefined;
  /** The member `sql` with that text, and `verdict`; made when the text comes a second time. */
  private both: Uint8Array | undefined;

  constructor(verdict: Verdict) {
    this.verdict = Buffer.from(encodeVerdict(verdict));
  }

  /** Writes the members `sql` and `verdict`. */
  write(writer: LineWriter, text: string): void {
    const isKnown = text === this.text;
    if (isKnown && this.both !== undefined) {
      writer.literal(this.both);
      return;
    }
    const start = writer.length;
    writer.literal(literals.sql);
    writer.json(text);
    writer.literal(literals.verdict);
    writer.literal(this.verdict);
    this.both = isKnown ? Uint8Array.prototype.slice.call(writer.written(start)) : undefined;
    this.text = text.length > keptLength ? undefined : text;
  }
}

/** Longer texts are not kept as bytes. */
const keptLength = 4096;

/** Writes the line of a command. */
export function writeCommand(
  writer: LineWriter,
  n: number,
  record: CommandRecord,
  verdict: EncodedVerdict,
): void {
  writer.literal(literals.command);
  writer.number(n);
  writer.literal(literals.at);
  writer.literal(timeDigits(record.at));
  verdict.write(writer, record.text);
  if (record.cached === true) writer.literal(literals.cached);
  if (record.parameters !== undefined) writeParameters(writer, record.parameters);
  writer.literal(literals.end);
}

function writeParameters(writer: LineWriter, parameters: NonNullable<CommandRecord["parameters"]>): void {
  writer.literal(literals.parameters);
  for (let index = 0; index < parameters.length; index += 1) {
    const value = parameters[index] ?? null;
    if (index > 0) writer.literal(literals.comma);
    if (value === null) writer.literal(literals.null);
    else if (typeof value === "string") writer.json(value);
    else writer.text(JSON.stringify(value));
  }
  writer.literal(literals.endOfList);
}

/** Writes the line of a response. */
export function writeResponse(writer: LineWriter, n: number, at: number, record: ResponseRecord): void {
  writer.literal(literals.response);
  writer.number(n);
  writer.literal(literals.at);
  writer.literal(timeDigits(at));
  if (record.tag !== undefined) {
    writer.literal(literals.tag);
    writer.json(record.tag);
  }
  if (record.sqlstate !== undefined) {
    writer.literal(literals.sqlstate);
    writer.json(record.sqlstate);
  }
  writer.literal(literals.rows);
  writer.number(record.rows);
  writer.literal(literals.bytes);
  writer.number(record.bytes);
  writer.literal(literals.ms);
  writeMilliseconds(writer, record.ms);
  writer.literal(literals.end);
}

/** Three decimals, put together from integers: printing a fraction costs ten times as much. */
function writeMilliseconds(writer: LineWriter, ms: number): void {
  const microseconds = Math.max(0, Math.round(ms * 1000));
  const whole = Math.floor(microseconds / 1000);
  const rest = microseconds - whole * 1000;
  writer.number(whole);
  writer.literal(rest < 10 ? literals.pointAndTwoZeros : rest < 100 ? literals.pointAndZero : literals.point);
  writer.number(rest);
}

// Many records fall into one millisecond, and all of a quarter of an hour begin with the same digits.
let lastTime = 0;
let lastSeconds = Number.NaN;
let lastDigits: Uint8Array = Buffer.from("0");

/** The digits of a time in milliseconds; to be copied before the next call. Printing a number this large takes a fraction's way. */
function timeDigits(at: number): Uint8Array {
  if (at === lastTime) return lastDigits;
  const seconds = Math.floor(at / 1e6);
  if (seconds === lastSeconds && Number.isInteger(at)) {
    let rest = at - seconds * 1e6;
    for (let place = lastDigits.length - 1, left = 6; left > 0; left -= 1, place -= 1) {
      const tens = (rest / 10) | 0;
      lastDigits[place] = 0x30 + rest - 10 * tens;
      rest = tens;
    }
  } else {
    lastDigits = Buffer.from(String(at));
    lastSeconds = Number.isInteger(at) && at >= 1e6 ? seconds : Number.NaN;
  }
  lastTime = at;
  return lastDigits;
}

const literals = {
  command: Buffer.from('{"kind":"command","n":'),
  response: Buffer.from('{"kind":"response","n":'),
  at: Buffer.from(',"at":'),
  sql: Buffer.from(',"sql":'),
  verdict: Buffer.from(',"verdict":'),
  cached: Buffer.from(',"cached":true'),
  parameters: Buffer.from(',"parameters":['),
  null: Buffer.from("null"),
  comma: Buffer.from(","),
  endOfList: Buffer.from("]"),
  tag: Buffer.from(',"tag":'),
  sqlstate: Buffer.from(',"sqlstate":'),
  rows: Buffer.from(',"rows":'),
  bytes: Buffer.from(',"bytes":'),
  ms: Buffer.from(',"ms":'),
  point: Buffer.from("."),
  pointAndZero: Buffer.from(".0"),
  pointAndTwoZeros: Buffer.from(".00"),
  end: Buffer.from("}\n"),
} as const;

/** The line that opens a session: who and where, and never the token or the claims. */
export function openingLine(opening: SessionOpening): string {
  const { identity } = opening;
  return recordLine({
    kind: "opening",
    at: Date.parse(opening.startedAt),
    sessionId: opening.sessionId,
    namespace: opening.namespace,
    resource: opening.resource,
    protocol: opening.protocol,
    ...recordedIdentity(identity),
    account: opening.account,
    database: opening.database,
    clientAddress: opening.clientAddress,
  });
}

function recordedIdentity(identity: Identity): Readonly<Record<string, unknown>> {
  return {
    user: identity.user,
    groups: identity.groups,
    subject: identity.kind,
    provider: identity.provider,
    ...(identity.serviceAccount && { serviceAccount: identity.serviceAccount }),
    ...(identity.onBehalfOf !== undefined && { onBehalfOf: identity.onBehalfOf }),
    ...(identity.tokenId !== undefined && { tokenId: identity.tokenId }),
  };
}

/** The line that closes a session. */
export function closingLine(at: number, reason: string, counts: SessionCounts): string {
  return recordLine({ kind: "closing", at, reason, ...counts });
}

/** Any record as a line; `kind` must be its first member. */
export function recordLine(record: { readonly kind: string; readonly [member: string]: unknown }): string {
  return `${JSON.stringify(record)}\n`;
}
