import type { Permit } from "../../guard/index.ts";

/**
 * What leaves toward one side, in order. Neighbouring messages of one chunk leave as one slice of it, so that a
 * chunk in which nothing is rewritten is forwarded without a copy and with a single write.
 */
export class Outbox {
  private pieces: Uint8Array[] = [];
  private chunk: Buffer | undefined;
  private from = 0;
  private to = 0;

  /** Passes a message that carries no command (Sync, Describe, a reply): no permit is needed. */
  pass(chunk: Buffer, from: number, to: number): void {
    if (chunk === this.chunk && from === this.to) {
      this.to = to;
      return;
    }
    this.cut();
    this.chunk = chunk;
    this.from = from;
    this.to = to;
  }

  /** Passes a message that carries a command: only with its permit. */
  passCommand(_permit: Permit, chunk: Buffer, from: number, to: number): void {
    this.pass(chunk, from, to);
  }

  /** Adds bytes of the gateway's own. */
  own(bytes: Uint8Array): void {
    this.cut();
    this.pieces.push(bytes);
  }

  /** Adds a command in other words than the client's: only with its permit. */
  ownCommand(_permit: Permit, bytes: Uint8Array): void {
    this.own(bytes);
  }

  get isEmpty(): boolean {
    return this.pieces.length === 0 && this.chunk === undefined;
  }

  /** Hands everything over, in order. */
  flush(write: (bytes: Uint8Array) => void): void {
    const { chunk, pieces } = this;
    // Most often a chunk leaves as it came.
    if (pieces.length === 0 && chunk !== undefined && this.from === 0 && this.to === chunk.length) {
      this.chunk = undefined;
      if (chunk.length > 0) write(chunk);
      return;
    }
    this.cut();
    if (pieces.length === 0) return;
    this.pieces = [];
    if (pieces.length > 8) write(Buffer.concat(pieces));
    else for (const piece of pieces) write(piece);
  }

  private cut(): void {
    if (this.chunk !== undefined && this.to > this.from)
      this.pieces.push(this.chunk.subarray(this.from, this.to));
    this.chunk = undefined;
  }
}
