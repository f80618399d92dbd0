import { createHash, type Hash, type KeyObject } from "node:crypto";
import {
  chainStart,
  isSigned,
  journalSeed,
  noHash,
  parseChainLine,
  sessionJournal,
} from "../recording/journal-format.ts";

/** A journal that its gateway could not have written so: it is not taken further. */
export class BrokenJournal extends Error {
  override readonly name = "BrokenJournal";
}

/** A whole block's place. */
export interface Followed {
  readonly block: number;
  readonly hash: string;
  /** Where the block ends. */
  readonly bytes: number;
}

const chainStartBytes = Buffer.from(chainStart);
const recordStartBytes = Buffer.from('{"kind":"');
const closingStartBytes = Buffer.from('{"kind":"closing"');
/** Every line is longer than the longest start that tells lines apart. */
const startBytes = closingStartBytes.length;
const chainBytesMax = 4096;
const closingBytesMax = 4096;
const newline = 0x0a;

/**
 * Follows a journal as it comes in, in pieces of any size: checks each block's hash and each signature against the
 * gateway's key, and keeps no more than one chain line and the session's first line.
 */
export class ChainFollower {
  readonly #journal: string;
  readonly #key: KeyObject;
  readonly #openingBytesMax: number;
  #head: Followed = { block: -1, hash: noHash, bytes: 0 };
  #isFinal = false;
  #bytes = 0;
  #records = 0;
  #hash: Hash;
  /** The current line: unknown until enough of it is there, then hashed on or kept. */
  #line: { kind: "unknown" | "chain"; kept: Buffer[]; bytes: number } | { kind: "record" } | undefined;
  #opening: Buffer[] | undefined = [];
  #openingBytes = 0;
  #openingLine: string | undefined;
  #closing: Buffer[] | undefined;
  #closingBytes = 0;

  constructor(sessionId: string, key: KeyObject, openingBytesMax = 512 * 1024) {
    this.#journal = sessionJournal(sessionId);
    this.#key = key;
    this.#openingBytesMax = openingBytesMax;
    this.#hash = createHash("sha256").update(journalSeed(this.#journal));
  }

  get head(): Followed {
    return this.#head;
  }

  /** Bytes taken so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The closing block is there: nothing may follow. */
  get isFinal(): boolean {
    return this.#isFinal;
  }

  /** The first line, once it is whole. */
  get openingLine(): string | undefined {
    return this.#openingLine;
  }

  /** What the closing record counted, once the journal is closed. */
  get counts(): { readonly commands?: number; readonly refused?: number } {
    if (!this.#isFinal || this.#closing === undefined) return {};
    try {
      const { commands, refused } = JSON.parse(Buffer.concat(this.#closing).toString()) as Record<
        string,
        unknown
      >;
      const isCounted = Number.isSafeInteger(commands) && Number.isSafeInteger(refused);
      return isCounted ? { commands: Number(commands), refused: Number(refused) } : {};
    } catch {
      // A closing record longer than any of ours: the counts are a convenience.
      return {};
    }
  }

  /** Takes the next bytes; throws a BrokenJournal where they do not follow. */
  push(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#isFinal) throw new BrokenJournal("something follows the closing block");
      const end = bytes.indexOf(newline, at);
      const stop = end < 0 ? bytes.length : end + 1;
      this.#piece(bytes.subarray(at, stop), end >= 0);
      at = stop;
    }
  }

  #piece(piece: Buffer, isEnd: boolean): void {
    this.#bytes += piece.length;
    this.#keepOpening(piece, isEnd);
    if (this.#line?.kind === "record") {
      this.#hash.update(piece);
      if (this.#closing !== undefined && this.#closingBytes < closingBytesMax) {
        this.#closing.push(Buffer.from(piece));
        this.#closingBytes += piece.length;
      }
    } else {
      this.#line ??= { kind: "unknown", kept: [], bytes: 0 };
      this.#line.kept.push(Buffer.from(piece));
      this.#line.bytes += piece.length;
      this.#settleKind();
    }
    if (isEnd) this.#endLine();
  }

  #settleKind(): void {
    const line = this.#line;
    if (line === undefined || line.kind === "record") return;
    if (line.kind === "unknown" && line.bytes >= startBytes) {
      const start = Buffer.concat(line.kept);
      if (start.subarray(0, chainStartBytes.length).equals(chainStartBytes)) line.kind = "chain";
      else {
        if (!start.subarray(0, recordStartBytes.length).equals(recordStartBytes)) {
          throw new BrokenJournal("a line is no record");
        }
        this.#hash.update(start);
        const isClosing = start.subarray(0, startBytes).equals(closingStartBytes);
        this.#closing = isClosing ? [start] : undefined;
        this.#closingBytes = start.length;
        this.#line = { kind: "record" };
        return;
      }
    }
    if (line.bytes > chainBytesMax) throw new BrokenJournal("a chain line is too long");
  }

  #endLine(): void {
    const line = this.#line;
    this.#line = undefined;
    if (line === undefined || line.kind === "unknown") throw new BrokenJournal("a line is no record");
    if (line.kind === "record") this.#records++;
    else this.#chain(Buffer.concat(line.kept));
  }

  #chain(line: Buffer): void {
    const chain = parseChainLine(line.toString("latin1", 0, line.length - 1));
    if (chain === undefined) throw new BrokenJournal("a chain line is malformed");
    const isNext = chain.block === this.#head.block + 1 && chain.previous === this.#head.hash;
    const digest = this.#hash.update(chain.prefix).digest("hex");
    if (!isNext || chain.records !== this.#records || digest !== chain.hash) {
      throw new BrokenJournal(`block ${this.#head.block + 1} does not follow`);
    }
    const isUnsigned = chain.signature === undefined;
    if (isUnsigned ? chain.final : !isSigned(this.#key, this.#journal, chain)) {
      throw new BrokenJournal(`block ${chain.block} is not signed by its gateway`);
    }
    this.#head = { block: chain.block, hash: chain.hash, bytes: this.#bytes };
    this.#isFinal = chain.final;
    this.#hash = createHash("sha256").update(line);
    this.#records = 0;
  }

  #keepOpening(piece: Buffer, isEnd: boolean): void {
    if (this.#opening === undefined) return;
    this.#opening.push(Buffer.from(piece));
    this.#openingBytes += piece.length;
    if (this.#openingBytes > this.#openingBytesMax) throw new BrokenJournal("the opening is too long");
    if (!isEnd) return;
    this.#openingLine = Buffer.concat(this.#opening).toString("utf8").trimEnd();
    this.#opening = undefined;
  }
}
