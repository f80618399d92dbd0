/** Masks a stream of output as it passes: a line is held until it ends, and at most 20 ms, passing on included. */
import { OutputMask, type OutputPatterns } from "../../terminal/index.ts";

/** Longest time that bytes are held back; with the timer and the way to the client they are 20 ms late at most. */
export const holdBackMs = 18;

/** Masks one stream; `emit` gets what may be shown, in order. */
export class StreamMask {
  readonly #mask: OutputMask;
  readonly #emit: (bytes: Buffer) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(patterns: OutputPatterns, emit: (bytes: Buffer) => void) {
    this.#mask = new OutputMask(patterns);
    this.#emit = emit;
  }

  push(bytes: Buffer): void {
    if (this.#mask.isEmpty) {
      this.#emit(bytes);
      return;
    }
    const shown = this.#mask.push(bytes);
    if (shown.length > 0) this.#emit(shown);
    if (this.#mask.heldBytes > 0) this.#timer ??= setTimeout(() => this.flush(), holdBackMs);
  }

  /** Lets everything go that is held back: its time is over, or the stream is. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const shown = this.#mask.flush();
    if (shown.length > 0) this.#emit(shown);
  }
}
