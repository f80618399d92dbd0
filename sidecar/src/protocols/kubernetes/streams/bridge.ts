/** What stands between a client's stream and the server's: it reads both, and can end them with a Status. */
import { GatheredBytes } from "../../../wire/gathered-bytes.ts";
import type { Status } from "../status.ts";
import { FrameError } from "./websocket-frames.ts";

/** What stands between the two sides of an upgraded connection: bytes go in as they come, and out once they may. */
export interface StreamBridge {
  fromClient(chunk: Buffer): Promise<void> | undefined;
  fromUpstream(chunk: Buffer): Promise<void> | undefined;
  /** The server's side is over: shows what is held back. */
  upstreamEnded(): Promise<void> | undefined;
  /** Tells the client why its stream ends here. */
  cut(status: Status): void;
  /** The stream is over; says so in the recording. */
  close(why?: string): void;
}

/** Longest message that is read whole: a Status, a size. */
export const messageMax = 64 * 1024;

/** What a client has sent before its command may run: kept up to a bound, in bytes of memory. */
export class HeldInput<T> {
  #items: T[] = [];
  #bytes = 0;

  /** `bytes`: of the payload. An item without any takes memory, too. */
  push(item: T, bytes: number): void {
    this.#bytes += bytes + itemBytes;
    if (this.#bytes > heldBytesMax) throw new FrameError("too much was sent before the command may run");
    this.#items.push(item);
  }

  /** All of it, in order; none is kept. */
  take(): readonly T[] {
    const items = this.#items;
    this.#items = [];
    return items;
  }
}

/** Of memory, for what one client has sent too early. */
export const heldBytesMax = 1024 * 1024;
/** Roughly what an object with a buffer takes beside its bytes. */
const itemBytes = 256;

/** A message that comes in slices, however small these are. */
export class Message {
  readonly #slices = new GatheredBytes();

  /** The message, with the last slice of it. */
  push(slice: Buffer, isLast: boolean, max = messageMax): Buffer | undefined {
    if (this.#slices.length + slice.length > max) throw new FrameError("a message is too long");
    if (isLast && this.#slices.length === 0) return slice;
    this.#slices.push(slice);
    return isLast ? this.#slices.take() : undefined;
  }
}
