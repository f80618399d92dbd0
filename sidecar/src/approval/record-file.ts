import { createHash } from "node:crypto";
import { closeSync, fdatasyncSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";

/** One line of the record. `hash` is over the line before it and everything else of this one. */
interface Entry {
  readonly n: number;
  readonly at: string;
  readonly event: string;
  readonly previous: string;
  readonly hash: string;
  readonly [field: string]: unknown;
}

const begin = "0".repeat(64);

/**
 * The record of approvals: a file of JSON lines, each chained to the one before it by its hash and synced before it
 * counts. It tells what was asked and decided; nothing is ever read back to be acted on.
 */
export class ApprovalRecord {
  private readonly file: number;
  private count = 0;
  private previous = begin;
  private size: number;

  /** Opens the file and checks its chain; throws where it was changed. A line that a crash has torn is cut off. */
  constructor(path: string) {
    this.file = openSync(path, "a+", 0o600);
    try {
      const kept = this.check();
      ftruncateSync(this.file, kept);
      this.size = kept;
    } catch (error) {
      closeSync(this.file);
      throw error;
    }
  }

  /** Appends an entry; throws where it cannot be stored, and then it is not there. */
  write(event: string, fields: Readonly<Record<string, unknown>>, nowMs: number): void {
    const body = { n: this.count + 1, at: new Date(nowMs).toISOString(), event, ...fields };
    const hash = hashOf(this.previous, body);
    const line = Buffer.from(`${JSON.stringify({ ...body, previous: this.previous, hash })}\n`);
    try {
      for (let at = 0; at < line.length; ) at += writeSync(this.file, line, at);
      fdatasyncSync(this.file);
    } catch (error) {
      ftruncateSync(this.file, this.size);
      throw error;
    }
    this.size += line.length;
    this.count += 1;
    this.previous = hash;
  }

  close(): void {
    closeSync(this.file);
  }

  /** Reads the whole chain, a piece at a time; gives back the length of what is whole. */
  private check(): number {
    const { size } = fstatSync(this.file);
    const piece = Buffer.alloc(64 * 1024);
    let rest = Buffer.alloc(0);
    let whole = 0;
    for (let at = 0; at < size; ) {
      const count = readSync(this.file, piece, 0, piece.length, at);
      if (count === 0) break;
      at += count;
      let bytes = Buffer.concat([rest, piece.subarray(0, count)]);
      for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10)) {
        this.checkLine(bytes.toString("utf8", 0, end));
        whole += end + 1;
        bytes = bytes.subarray(end + 1);
      }
      rest = Buffer.from(bytes);
      if (rest.length > lineBytesMax) throw changed(this.count + 1);
    }
    return whole;
  }

  private checkLine(line: string): void {
    let entry: Entry;
    try {
      entry = JSON.parse(line) as Entry;
    } catch {
      throw changed(this.count + 1);
    }
    const { previous, hash, ...body } = entry;
    if (body.n !== this.count + 1 || previous !== this.previous || hash !== hashOf(previous, body))
      throw changed(this.count + 1);
    this.count = body.n;
    this.previous = hash;
  }
}

const lineBytesMax = 1024 * 1024;

function hashOf(previous: string, body: object): string {
  return createHash("sha256").update(previous).update(JSON.stringify(body)).digest("hex");
}

function changed(line: number): Error {
  return new Error(`the record of approvals was changed at line ${line}; move it away to start a new one`);
}
