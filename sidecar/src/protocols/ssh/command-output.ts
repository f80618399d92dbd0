import type { SessionGuard } from "../../guard/index.ts";
import { HoldBack, OutputMask, OutputPatterns } from "../../terminal/index.ts";
import { standardError } from "./messages.ts";

/** What the output of one command is made of. */
export interface CommandOutputOptions {
  readonly guard: SessionGuard;
  /** The command's number in the recording. */
  readonly number: number;
  /** False where it moves files: what goes through it is neither masked nor recorded. */
  readonly isText: boolean;
  readonly hasTerminal: boolean;
  readonly onPattern: (pattern: string) => void;
  /** True while what follows cannot arrive, or the client takes nothing. */
  readonly isStopped: () => boolean;
  /** Does it when what has arrived before is done. */
  readonly inTurn: (task: () => Promise<void> | undefined) => void;
  /** `credit`: bytes of the host that these stand for. */
  readonly toClient: (bytes: Buffer, stream: number | undefined, credit: number) => void;
}

/** As recordings name them: standard output and standard error. */
type Stream = "o" | "e";

/** How long the end of a chunk that may begin a masked value is held back. */
const maskHoldMs = 40;

/** What a command writes, on its way to people: masked, recorded as its client sees it, and only then shown. */
export class CommandOutput {
  readonly #options: CommandOutputOptions;
  /** Streams are kept where they are for people; of what moves files only sizes are. */
  readonly isRecorded: boolean;
  #masks: ReadonlyMap<Stream, OutputMask>;
  readonly #holdBacks: Readonly<Record<Stream, HoldBack>>;
  #isOver = false;

  constructor(options: CommandOutputOptions) {
    this.#options = options;
    this.isRecorded = options.isText && options.guard.recordsRows;
    this.#masks = this.#newMasks();
    this.#holdBacks = { o: this.#holdBack("o"), e: this.#holdBack("e") };
  }

  /** Takes bytes of the host; `type` is that of extended data. */
  push(data: Buffer, type: number | undefined): Promise<void> | undefined {
    const stream = type === undefined ? "o" : "e";
    const mask = this.#masks.get(stream);
    if (mask === undefined) return this.#show(data, type, data.length);
    const shown = mask.push(data);
    this.#holdBacks[stream].pushed(data.length, mask.heldBytes, shown.length > 0);
    // Held bytes are paid for at once: they are few, and never more than one end of a chunk.
    return this.#show(shown, type, data.length);
  }

  /** Shows what is held back: its rest does not come. */
  async flush(): Promise<void> {
    await this.#flush("o");
    await this.#flush("e");
  }

  /** Masks what comes from now on as policy asks for now. */
  async policyChanged(): Promise<void> {
    await this.flush();
    this.#masks = this.#newMasks();
  }

  /** The command is accounted for: what is still held is shown to nobody. */
  end(): void {
    this.#isOver = true;
    for (const holdBack of Object.values(this.#holdBacks)) holdBack.stop();
  }

  #newMasks(): ReadonlyMap<Stream, OutputMask> {
    const { isText, guard, onPattern } = this.#options;
    const patterns = new OutputPatterns(isText ? guard.masking.patterns : []);
    if (patterns.isEmpty) return new Map();
    return new Map<Stream, OutputMask>([
      ["o", new OutputMask(patterns, onPattern)],
      ["e", new OutputMask(patterns, onPattern)],
    ]);
  }

  #holdBack(stream: Stream): HoldBack {
    const { hasTerminal, isStopped, inTurn } = this.#options;
    return new HoldBack({
      ms: maskHoldMs,
      hasTerminal,
      isStopped,
      letGo: () => inTurn(() => this.#flush(stream)),
    });
  }

  #flush(stream: Stream): Promise<void> | undefined {
    if (this.#isOver) return undefined;
    this.#holdBacks[stream].stop();
    const rest = this.#masks.get(stream)?.flush();
    if (rest === undefined || rest.length === 0) return undefined;
    return this.#show(rest, stream === "e" ? standardError : undefined, 0);
  }

  #show(bytes: Buffer, type: number | undefined, credit: number): Promise<void> | undefined {
    const { guard, number, toClient } = this.#options;
    const pending =
      this.isRecorded && bytes.length > 0
        ? guard.stream(number, type === standardError ? "e" : "o", bytes)
        : undefined;
    if (pending === undefined) {
      toClient(bytes, type, credit);
      return undefined;
    }
    return pending.then(() => {
      // The channel may have been closed while it was written down: nothing may follow that.
      if (!this.#isOver) toClient(bytes, type, credit);
    });
  }
}
