/** Reads a journal from its first byte and says how far its chain holds; never trusts a byte that it has not hashed. */
import { createHash, type Hash, type KeyObject } from "node:crypto";
import { createReadStream } from "node:fs";
import {
  type ChainLine,
  chainStart,
  isSigned,
  journalSeed,
  noHash,
  parseChainLine,
} from "./journal-format.ts";

/** What a scan found. The tail is what follows the last whole block. */
export interface Scan {
  /** The last block whose hash holds; -1 where there is none. */
  readonly block: number;
  readonly hash: string;
  /** Where that block ends. */
  readonly bytes: number;
  /** The size of the file. */
  readonly size: number;
  readonly tail: { readonly bytes: number; readonly sha256: string };
  /** The first thing that no crash and no truncation explains. */
  readonly error: string | undefined;
  /** True where the last block is the closing one and its signature holds. */
  readonly isFinal: boolean;
  readonly signedBlock: number;
  /** The newest head of the log that a signed block names. */
  readonly logHeads: readonly string[];
}

/** What a scan tells of each block that holds, in order. */
export interface ScannedBlock {
  readonly chain: ChainLine;
  readonly lines: readonly string[];
}

/** What to scan, and what to ask of it. */
export interface ScanRequest {
  readonly path: string;
  readonly journal: string;
  /** Without a key signatures are not judged. */
  readonly key?: KeyObject | undefined;
  /** A log signs every block; a session its closing one and some others. */
  readonly everyBlockSigned?: boolean;
  /** Blocks that the log has noted, with their hashes. */
  readonly heads?: ReadonlyMap<number, { readonly hash: string }>;
  /** The journal's bytes, where it is not a plain file. */
  readonly chunks?: (() => AsyncIterable<Buffer>) | undefined;
  /** Called where the lines themselves are wanted. */
  readonly onBlock?: (block: ScannedBlock) => void;
}

/** What stands in place of a journal's bytes is none of them; its message is the scan's finding. */
export class DamagedJournal extends Error {
  override readonly name = "DamagedJournal";
}

/** A line longer than this is no line of ours. */
const lineBytesMax = 256 * 1024 * 1024;
const newline = 0x0a;
const chainStartBytes = Buffer.from(chainStart);
const recordStartBytes = Buffer.from('{"kind":"');

/** Scans a journal; rejects only where the file cannot be read (ENOENT among others). */
export async function scanJournal(request: ScanRequest): Promise<Scan> {
  const scanner = new Scanner(request);
  const stream = request.chunks?.() ?? createReadStream(request.path, { highWaterMark: 256 * 1024 });
  let carried: Buffer[] = [];
  let carriedBytes = 0;
  for await (const chunk of untilDamaged(stream as AsyncIterable<Buffer>, scanner)) {
    scanner.size += chunk.length;
    let start = 0;
    for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, start)) {
      const piece = chunk.subarray(start, end + 1);
      scanner.line(carried.length === 0 ? piece : Buffer.concat([...carried, piece]));
      carried = [];
      carriedBytes = 0;
      start = end + 1;
    }
    if (start < chunk.length && scanner.error === undefined) {
      carried.push(chunk.subarray(start));
      carriedBytes += chunk.length - start;
      if (carriedBytes > lineBytesMax) scanner.error = "a line is longer than any that is written";
    }
  }
  return scanner.end(Buffer.concat(carried));
}

async function* untilDamaged(stream: AsyncIterable<Buffer>, scanner: Scanner): AsyncGenerator<Buffer> {
  try {
    yield* stream;
  } catch (error) {
    if (!(error instanceof DamagedJournal)) throw error;
    scanner.error ??= error.message;
  }
}

/** Scans, or says that there is no such file. */
export async function scanOrAbsent(request: ScanRequest): Promise<Scan | undefined> {
  return scanJournal(request).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
}

class Scanner {
  size = 0;
  error: string | undefined;
  readonly #request: ScanRequest;
  #block = -1;
  #hash = noHash;
  #bytes = 0;
  #seen = 0;
  #isFinal = false;
  #signedBlock = -1;
  #blockHash: Hash;
  #tailHash = createHash("sha256");
  #records = 0;
  #lines: string[] = [];
  #logHeads: string[] = [];

  constructor(request: ScanRequest) {
    this.#request = request;
    this.#blockHash = createHash("sha256").update(journalSeed(request.journal));
  }

  /** Takes one line with its newline. */
  line(line: Buffer): void {
    if (this.error !== undefined) return;
    this.#seen += line.length;
    if (this.#isFinal) {
      this.error = "something follows the closing block";
    } else if (startsWith(line, chainStartBytes)) {
      this.#chain(line);
    } else if (startsWith(line, recordStartBytes)) {
      this.#blockHash.update(line);
      this.#tailHash.update(line);
      this.#records++;
      if (this.#request.onBlock) this.#lines.push(line.toString("utf8", 0, line.length - 1));
    } else {
      this.error = `block ${this.#block + 1} holds a line that is no record`;
    }
  }

  end(rest: Buffer): Scan {
    if (rest.length > 0 && this.#isFinal) this.error ??= "something follows the closing block";
    this.#tailHash.update(rest);
    return {
      block: this.#block,
      hash: this.#hash,
      bytes: this.#bytes,
      size: this.size,
      tail: { bytes: this.size - this.#bytes, sha256: this.#tailHash.digest("hex") },
      error: this.error,
      isFinal: this.#isFinal,
      signedBlock: this.#signedBlock,
      logHeads: this.#logHeads,
    };
  }

  #chain(line: Buffer): void {
    const chain = parseChainLine(line.toString("latin1", 0, line.length - 1));
    this.error =
      chain === undefined ? `the chain line of block ${this.#block + 1} is malformed` : this.#flaw(chain);
    if (chain === undefined || this.error !== undefined) return;
    this.#block = chain.block;
    this.#hash = chain.hash;
    this.#bytes = this.#seen;
    this.#isFinal = chain.final;
    if (chain.signature !== undefined) this.#signedBlock = chain.block;
    // Heads of the log only grow: of each log the last is enough.
    if (chain.log !== undefined && chain.signature !== undefined) {
      const name = chain.log.slice(0, chain.log.indexOf(":") + 1);
      if (this.#logHeads.at(-1)?.startsWith(name)) this.#logHeads.pop();
      this.#logHeads.push(chain.log);
    }
    this.#request.onBlock?.({ chain, lines: this.#lines });
    this.#blockHash = createHash("sha256").update(line);
    this.#tailHash = createHash("sha256");
    this.#records = 0;
    this.#lines = [];
  }

  #flaw(chain: ChainLine): string | undefined {
    const expected = this.#block + 1;
    if (chain.block !== expected) return `block ${chain.block} stands where block ${expected} was due`;
    if (chain.records !== this.#records)
      return `block ${expected} holds ${this.#records} records, not ${chain.records}`;
    if (chain.previous !== this.#hash) return `block ${expected} does not follow the block before it`;
    if (this.#blockHash.update(chain.prefix).digest("hex") !== chain.hash) {
      return `the bytes of block ${expected} do not have its hash`;
    }
    const { key, journal, everyBlockSigned, heads } = this.#request;
    // Between signatures anybody can compute a chain anew: there the log's word counts.
    if ((heads?.get(expected)?.hash ?? chain.hash) !== chain.hash)
      return `block ${expected} is not the one that the log noted`;
    if (key === undefined) return undefined;
    const mustBeSigned = chain.final || everyBlockSigned === true;
    if (chain.signature === undefined) return mustBeSigned ? `block ${expected} is not signed` : undefined;
    return isSigned(key, journal, chain)
      ? undefined
      : `the signature of block ${expected} is not the recorder's`;
  }
}

function startsWith(line: Buffer, start: Buffer): boolean {
  return line.length > start.length && line.compare(start, 0, start.length, 0, start.length) === 0;
}
