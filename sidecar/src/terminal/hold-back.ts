/** How long a mask may hold bytes back, and when their time does not count. */
export interface HoldBackOptions {
  readonly ms: number;
  /** Where somebody looks at a terminal, screens are drawn in large pieces that end anywhere. */
  readonly hasTerminal: boolean;
  /** True while the reader takes nothing: the rest of a line does not come for that alone. */
  readonly isStopped: () => boolean;
  readonly letGo: () => void;
}

/** After so many bytes without a pause it is no prompt that ends anywhere: its rest follows. */
const cutBytesMin = 4_096;
const cutMs = 500;

/**
 * Lets go of what a mask holds back, once nothing has followed it in time. A value whose halves come apart is not found:
 * so the time is that of the bytes that are held now, what has arrived is read first, and a reader that takes nothing, who
 * could have a value cut wherever he likes, does not make it pass.
 */
export class HoldBack {
  readonly #options: HoldBackOptions;
  #timer: NodeJS.Timeout | undefined;
  #wasStopped = false;
  /** Bytes since it last let go. */
  #flowed = 0;

  constructor(options: HoldBackOptions) {
    this.#options = options;
  }

  /** So many bytes have come: how many are held now, and whether those that were held before have gone on. */
  pushed(bytes: number, heldBytes: number, hasMoved: boolean): void {
    this.#flowed += bytes;
    if (hasMoved || heldBytes === 0) this.stop();
    if (heldBytes === 0) return;
    const { ms, hasTerminal } = this.#options;
    this.#timer ??= this.#armed(this.#flowed < cutBytesMin || hasTerminal ? ms : cutMs);
  }

  /** Nothing is held any more. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #armed(ms: number): NodeJS.Timeout {
    const timer = setTimeout(() => {
      // Timers come before sockets where a process was busy: what came meanwhile is read first.
      setImmediate(() => {
        if (this.#timer === timer) this.#due(ms);
      });
    }, ms);
    return timer;
  }

  #due(ms: number): void {
    const isStopped = this.#options.isStopped();
    const isEarly = isStopped || this.#wasStopped;
    this.#wasStopped = isStopped;
    this.#timer = isEarly ? this.#armed(ms) : undefined;
    if (isEarly) return;
    this.#flowed = 0;
    this.#options.letGo();
  }
}
