/** One append-only file with its chain: lines are taken at once, stored block by block, in order, and never twice. */
import type { KeyObject } from "node:crypto";
import { dirname } from "node:path";
import { journalSeed, noHash, parseChainLine, sealBlock, sealLines } from "./journal-format.ts";
import { LineWriter } from "./line-writer.ts";
import type { Storage } from "./storage.ts";

/** A stored place in a journal. */
export interface Head {
  readonly block: number;
  readonly hash: string;
  /** Where the block ends in the file. */
  readonly bytes: number;
}

/** How the next block is to be closed. */
export interface Seal {
  readonly log?: string | undefined;
  readonly final?: boolean;
  readonly key?: KeyObject | undefined;
}

/** A block that storage has not taken whole yet: it is written again at the same place until it is. */
interface Unwritten {
  readonly bytes: Buffer;
  readonly records: number;
  readonly next: Place;
  taken: number;
}

/** The end of the chain: what the next block builds on. */
interface Place extends Head {
  readonly line: string;
}

/** The file of one journal: lines in blocks, each chained to the one before. */
export class JournalFile {
  readonly path: string;
  readonly #journal: string;
  readonly #storage: Storage;
  /** What no block holds yet, behind the chain line that its block will build on; made with the first record. */
  #writer: LineWriter | undefined;
  #from = 0;
  #capacity = capacityMin;
  #records = 0;
  #fd = -1;
  #written: Place;
  #synced: Place;
  #unwritten: Unwritten | undefined;
  #isFolderSynced = false;
  #isSuspect = false;

  constructor(storage: Storage, path: string, journal: string) {
    this.path = path;
    this.#journal = journal;
    this.#storage = storage;
    this.#written = { block: -1, hash: noHash, bytes: 0, line: journalSeed(journal) };
    this.#synced = this.#written;
  }

  /** Takes a line; it is stored by a later `write`. */
  append(line: string): void {
    this.begin().text(line);
    this.took();
  }

  /** Where the next line is to be written; `took` follows, or `cut` where it could not be written whole. */
  begin(): LineWriter {
    if (this.#writer !== undefined) return this.#writer;
    const { line } = this.#unwritten?.next ?? this.#written;
    const writer = new LineWriter(this.#capacity + line.length);
    writer.text(line);
    this.#from = writer.length;
    this.#writer = writer;
    return writer;
  }

  /** A whole line was written. */
  took(): void {
    this.#records++;
  }

  /** Records that no block holds yet. */
  get buffered(): number {
    return this.#records;
  }

  /** Records taken and not yet stored. */
  get unacknowledged(): number {
    return this.#records + (this.#unwritten?.records ?? 0);
  }

  /** Bytes buffered. */
  get bufferedLength(): number {
    return this.#writer === undefined ? 0 : this.#writer.length - this.#from;
  }

  get head(): Head {
    return this.#written;
  }

  get syncedHead(): Head {
    return this.#synced;
  }

  /** True while a block waits to be written again after a failure. */
  get isBehind(): boolean {
    return this.#unwritten !== undefined;
  }

  /**
   * Stores the waiting block, or seals what is buffered and stores that; calls must not overlap. `seal` is asked at
   * the moment from which nothing more goes into the block.
   */
  async write(seal: () => Seal): Promise<void> {
    if (this.#fd < 0) this.#fd = await this.#storage.create(this.path);
    this.#unwritten ??= this.#seal(seal);
    const block = this.#unwritten;
    if (block === undefined) return;
    while (block.taken < block.bytes.length) {
      const position = this.#written.bytes + block.taken;
      const taken = await this.#storage.write(this.#fd, block.bytes.subarray(block.taken), position);
      if (taken <= 0) throw new Error("storage took no bytes");
      block.taken += taken;
    }
    this.#unwritten = undefined;
    this.#written = block.next;
  }

  /** Makes everything written survive a loss of power; calls must not overlap, writes may. */
  async sync(): Promise<void> {
    if (this.#fd < 0) return;
    const target = this.#written;
    if (!this.#isFolderSynced) await this.#storage.syncFolder(dirname(this.path));
    this.#isFolderSynced = true;
    if (this.#isSuspect) await this.#rewriteUnsynced(target);
    try {
      await this.#storage.sync(this.#fd);
    } catch (error) {
      this.#isSuspect = this.#storage.keepsUnsynced !== true;
      throw error;
    }
    this.#isSuspect = false;
    this.#synced = target;
  }

  async close(): Promise<void> {
    const fd = this.#fd;
    this.#fd = -1;
    if (fd >= 0) await this.#storage.close(fd);
  }

  #seal(seal: () => Seal): Unwritten | undefined {
    const writer = this.#writer;
    if (writer === undefined || this.#records === 0) return undefined;
    const closing = seal();
    const { block, hash, bytes: position } = this.#written;
    const sealed = sealLines(writer, this.#from, {
      journal: this.#journal,
      number: block + 1,
      records: this.#records,
      previous: hash,
      ...closing,
    });
    const next = {
      block: block + 1,
      hash: sealed.hash,
      bytes: position + sealed.bytes.length,
      line: sealed.chainLine,
    };
    const unwritten = { bytes: sealed.bytes, records: this.#records, next, taken: 0 };
    // The next block will be about as long; a session that fell silent holds no buffer.
    this.#capacity = Math.min(capacityMax, Math.max(capacityMin, sealed.bytes.length));
    this.#writer = undefined;
    this.#records = 0;
    return unwritten;
  }

  /**
   * After a failed fsync Linux drops the dirty mark of pages that it could not store, and the next fsync lies. So
   * what was not synced is read back, compared with the chain's end and written anew before syncing again.
   */
  async #rewriteUnsynced(target: Place): Promise<void> {
    const length = target.bytes - this.#synced.bytes;
    if (length === 0) return;
    const bytes = Buffer.alloc(length);
    for (let done = 0; done < length; ) {
      const count = await this.#storage.read(this.#fd, bytes.subarray(done), this.#synced.bytes + done);
      if (count <= 0) throw new Error("what was written cannot be read back");
      done += count;
    }
    if (!this.#holdsChain(bytes, target)) throw new Error("what was written reads back differently");
    for (let done = 0; done < length; ) {
      done += await this.#storage.write(this.#fd, bytes.subarray(done), this.#synced.bytes + done);
    }
  }

  #holdsChain(bytes: Buffer, target: Place): boolean {
    let { line, hash, block } = this.#synced as Place;
    let lines = "";
    let records = 0;
    for (const text of bytes.toString().split("\n").slice(0, -1)) {
      const chain = parseChainLine(text);
      if (!chain) {
        lines += `${text}\n`;
        records++;
        continue;
      }
      const { log, final } = chain;
      const again = sealBlock({
        journal: this.#journal,
        number: block + 1,
        lines,
        records,
        previousLine: line,
        previous: hash,
        log,
        final,
      });
      if (again.hash !== chain.hash) return false;
      block++;
      hash = again.hash;
      line = `${text}\n`;
      lines = "";
      records = 0;
    }
    return line === target.line;
  }
}

const capacityMin = 1024;
const capacityMax = 64 * 1024;
