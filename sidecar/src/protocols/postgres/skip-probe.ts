import { backend, closeStatementFrame, flushFrame, frontend, readErrorFields, syncFrame } from "./frames.ts";

/**
 * Asks a server that has failed while it took COPY data on which side of a Sync within that data it did. It ignores a
 * Sync that comes before the failure and skips all up to the next one; a Sync behind it ends the skipping.
 *
 *     sent:                                Close   Sync   Close Close Flush
 *     it still skips:                              Z      3     3
 *     it has answered Syncs of the data:   Z… 3    Z      3     3
 *
 * Closing what nobody has made changes nothing, in a failed transaction either.
 */
export class SkipProbe {
  /** The type of the message that waits for what this finds out. */
  readonly waiting: number;
  /** How many Syncs may be answered before it. */
  private readonly syncs: number;
  /** What each ReadyForQuery before the first CloseComplete has said. */
  private readonly statuses: number[] = [];
  private closes = 0;
  /** True once one has come between two CloseCompletes: the probe's own Sync. */
  private hasOwn = false;

  constructor(waiting: number, syncs: number) {
    this.waiting = waiting;
    this.syncs = syncs;
  }

  /** What is sent; no statement may have that name. */
  static message(name: string): Buffer {
    const close = closeStatementFrame(name);
    return Buffer.concat([close, syncFrame, close, close, flushFrame]);
  }

  /** Takes a ReadyForQuery with its status, or a CloseComplete; false where that cannot come now. */
  take(type: number, status: number): boolean {
    if (this.isOver) return false;
    if (type !== backend.readyForQuery) {
      this.closes += 1;
      const mayFollow = this.closes === 1 || this.hasOwn;
      return this.statuses.length === 1 || (this.statuses.length > 1 && mayFollow);
    }
    if (this.closes === 0) return this.statuses.push(status) <= this.syncs;
    if (this.closes > 1 || this.hasOwn) return false;
    this.hasOwn = true;
    return true;
  }

  /** True once all has been answered. */
  get isOver(): boolean {
    return this.closes === (this.hasOwn ? 3 : 2);
  }

  /** True where the server has ignored every Sync of the data, and would still skip. */
  get isSkipped(): boolean {
    return this.isOver && !this.hasOwn;
  }

  /** What the server has answered to Syncs of the data, one status each. */
  get answered(): readonly number[] {
    return this.isSkipped ? [] : this.statuses;
  }

  /**
   * An ErrorResponse as it would be without the probe: a server that still waits for data ends the session over the probe's
   * first message, and names its type in place of that of the message that waits.
   */
  told(error: Buffer): Buffer {
    const fields = readErrorFields(error.subarray(5));
    const own = named(frontend.close);
    if (fields.get("C") !== "08P01" || !fields.get("M")?.includes(own)) return error;
    const told = Buffer.from(error);
    told.write(named(this.waiting), error.indexOf(own), "latin1");
    return told;
  }
}

/** A message type as PostgreSQL names it in its errors. */
function named(type: number): string {
  return `0x${type.toString(16).toUpperCase().padStart(2, "0")}`;
}
