/** Masks a stream of output as it passes: a line is held until it ends, and at most 20 ms, passing on included. */
import { HoldBack, type HoldBackOptions, OutputMask, type OutputPatterns } from "../../terminal/index.ts";

/** Longest time that bytes are held back; with the timer and the way to the client they are 20 ms late at most. */
export const holdBackMs = 18;

/** Who gets the stream. */
export type Receiver = Pick<HoldBackOptions, "hasTerminal" | "isStopped">;

const plainReceiver: Receiver = { hasTerminal: false, isStopped: () => false };

/** Masks one stream; `emit` gets what may be shown, in order. */
export class StreamMask {
  readonly #mask: OutputMask;
  readonly #emit: (bytes: Buffer) => void;
  readonly #holdBack: HoldBack;

  constructor(patterns: OutputPatterns, emit: (bytes: Buffer) => void, to: Receiver = plainReceiver) {
    this.#mask = new OutputMask(patterns);
    this.#emit = emit;
    this.#holdBack = new HoldBack({ ms: holdBackMs, ...to, letGo: () => this.flush() });
  }

  push(bytes: Buffer): void {
    if (this.#mask.isEmpty) {
      this.#emit(bytes);
      return;
    }
    const shown = this.#mask.push(bytes);
    this.#holdBack.pushed(bytes.length, this.#mask.heldBytes, shown.length > 0);
    if (shown.length > 0) this.#emit(shown);
  }

  /** Lets everything go that is held back: its time is over, or the stream is. */
  flush(): void {
    this.#holdBack.stop();
    const shown = this.#mask.flush();
    if (shown.length > 0) this.#emit(shown);
  }
}
