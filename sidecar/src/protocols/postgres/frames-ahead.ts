import { frontend, lengthAt } from "./frames.ts";

/**
 * Looks through what a client sends while its command is held, for the one message that must not wait: Terminate.
 * Follows the lengths of messages and keeps nothing but the start of one.
 */
export class FramesAhead {
  /** Bytes of the message on its way that are still to come. */
  private left = 0;
  private head = Buffer.alloc(0);

  /** True once the client has said Terminate. */
  sees(chunk: Buffer): boolean {
    let at = 0;
    while (at < chunk.length) {
      if (this.left > 0) {
        const taken = Math.min(this.left, chunk.length - at);
        this.left -= taken;
        at += taken;
        continue;
      }
      const taken = Math.min(5 - this.head.length, chunk.length - at);
      this.head = Buffer.concat([this.head, chunk.subarray(at, at + taken)]);
      at += taken;
      if (this.head[0] === frontend.terminate) return true;
      if (this.head.length < 5) return false;
      // A length that cannot be is refused when the message is read; nothing behind it can be told apart.
      this.left = Math.max(0, lengthAt(this.head, 0) - 4);
      this.head = Buffer.alloc(0);
    }
    return false;
  }
}
