import { MalformedMessage, made, message } from "./messages.ts";
import type { Transport } from "./transport.ts";

/** Bytes that a side may send before the gateway has passed on what came before; also what one channel may hold. */
export const windowBytes = 512 * 1024;
/** Data in one message; ssh2 reads packets of up to 35000 bytes. */
export const packetBytesMax = 32 * 1024;
const creditBytesMin = windowBytes / 4;

/** Where one side of a channel is: its transport, its number there, and what it takes. */
export interface ChannelEnd {
  readonly transport: Transport;
  readonly remote: number;
  readonly window: number;
  readonly packetMax: number;
}

type Entry = Data | { readonly kind: "message"; readonly payload: Buffer };

interface Data {
  readonly kind: "data";
  readonly stream: number | undefined;
  bytes: Buffer;
  credit: number;
  /** Where small pieces are put together; `bytes` is its beginning. */
  room?: Buffer;
}

/** Pieces up to this length are put together while they wait: a window of single bytes would be a million objects. */
const smallBytesMax = 4096;
/** Messages that wait behind data that the receiver does not take. */
const queuedMax = 4096;

/**
 * One direction of a channel. What is sent keeps within the receiver's window, and the sender's window opens again only
 * when its bytes have gone on: a slow reader slows the writer, and nothing grows.
 */
export class Pipe {
  readonly #to: ChannelEnd;
  readonly #credit: (bytes: number) => void;
  #window: number;
  #queue: Entry[] = [];

  /** `credit`: so many bytes of the sender have gone on. */
  constructor(to: ChannelEnd, credit: (bytes: number) => void) {
    this.#to = to;
    this.#window = to.window;
    this.#credit = credit;
  }

  get remote(): number {
    return this.#to.remote;
  }

  /** True while the receiver takes nothing. */
  get isStopped(): boolean {
    return this.#queue.length > 0;
  }

  /** `stream` is the type of extended data; `credit` the sender's bytes that these stand for. */
  data(bytes: Buffer, stream?: number, credit = bytes.length): void {
    if (bytes.length === 0) {
      this.#credit(credit);
      return;
    }
    if (!this.#isJoined(bytes, stream, credit)) {
      if (this.#queue.length >= queuedMax * 8) throw new MalformedMessage("too many pieces wait");
      this.#queue.push({ kind: "data", stream, bytes, credit });
    }
    this.#pump();
  }

  /** True where a small piece was put behind the last one, of the same stream. */
  #isJoined(bytes: Buffer, stream: number | undefined, credit: number): boolean {
    const last = this.#queue.at(-1);
    if (last?.kind !== "data" || last.stream !== stream || bytes.length > smallBytesMax) return false;
    const length = last.bytes.length + bytes.length;
    if (length > smallBytesMax) return false;
    // Grown by doubling, so that each byte is copied twice on average.
    if (last.room === undefined || last.room.length < length) {
      last.room = Buffer.allocUnsafeSlow(Math.min(smallBytesMax, Math.max(256, length * 2)));
      last.bytes.copy(last.room);
    }
    bytes.copy(last.room, last.bytes.length);
    last.bytes = last.room.subarray(0, length);
    last.credit += credit;
    return true;
  }

  /** A message that must come after the data before it. */
  message(payload: Buffer): void {
    if (this.#queue.length >= queuedMax) throw new MalformedMessage("too many messages wait");
    this.#queue.push({ kind: "message", payload });
    this.#pump();
  }

  /** A message that says nothing but its type: end of data, or close. */
  bare(type: number): void {
    this.message(made(type, this.remote));
  }

  /** The receiver takes more. */
  grant(bytes: number): void {
    this.#window = Math.min(0xffff_ffff, this.#window + bytes);
    this.#pump();
  }

  /** Nobody reads any more: data goes, messages still arrive. */
  clear(): void {
    const dropped = this.#queue;
    this.#queue = dropped.filter(({ kind }) => kind === "message");
    for (const entry of dropped) if (entry.kind === "data") this.#credit(entry.credit);
    this.#pump();
  }

  #pump(): void {
    const { transport, remote, packetMax } = this.#to;
    for (let entry = this.#queue[0]; entry !== undefined; entry = this.#queue[0]) {
      if (entry.kind === "message") {
        this.#queue.shift();
        transport.send(entry.payload);
        continue;
      }
      if (this.#window === 0) return;
      const part = entry.bytes.subarray(0, Math.min(packetMax, this.#window));
      this.#window -= part.length;
      // `string`'s length, and its bytes without another copy.
      const head =
        entry.stream === undefined
          ? made(message.channelData, remote, part.length)
          : made(message.channelExtendedData, remote, entry.stream, part.length);
      transport.send(head, part);
      entry.bytes = entry.bytes.subarray(part.length);
      delete entry.room;
      if (entry.bytes.length > 0) continue;
      this.#queue.shift();
      this.#credit(entry.credit);
    }
  }
}

/** What one side of a channel may still send to the gateway. */
export class Allowance {
  readonly #from: { readonly transport: Transport; readonly remote: number };
  #left = windowBytes;
  #owed = 0;

  constructor(from: { readonly transport: Transport; readonly remote: number }) {
    this.#from = from;
  }

  /** False where the side sends more than it may. */
  take(bytes: number): boolean {
    this.#left -= bytes;
    return this.#left >= 0;
  }

  /** Gives back what has gone on, in few messages. */
  readonly giveBack = (bytes: number): void => {
    this.#owed += bytes;
    if (this.#owed < creditBytesMin) return;
    this.#left += this.#owed;
    this.#from.transport.send(made(message.channelWindowAdjust, this.#from.remote, this.#owed));
    this.#owed = 0;
  };
}

/** Runs tasks one after the other; those that need not wait run at once. */
export class Lane {
  readonly #waiting: (() => Promise<void> | undefined)[] = [];
  readonly #failed: (error: unknown) => void;
  #isBusy = false;
  #isClosed = false;

  constructor(failed: (error: unknown) => void) {
    this.#failed = failed;
  }

  get isBusy(): boolean {
    return this.#isBusy;
  }

  get length(): number {
    return this.#waiting.length;
  }

  push(task: () => Promise<void> | undefined): void {
    if (this.#isClosed) return;
    this.#waiting.push(task);
    if (!this.#isBusy) this.#run();
  }

  /** Nothing of what waits is done. */
  close(): void {
    this.#isClosed = true;
    this.#waiting.length = 0;
  }

  #run(): void {
    for (let task = this.#waiting.shift(); task !== undefined; task = this.#waiting.shift()) {
      let pending: Promise<void> | undefined;
      try {
        pending = task();
      } catch (error) {
        this.#failed(error);
        return;
      }
      if (pending === undefined) continue;
      this.#isBusy = true;
      pending.then(
        () => {
          this.#isBusy = false;
          this.#run();
        },
        (error: unknown) => {
          this.#isBusy = false;
          this.#failed(error);
        },
      );
      return;
    }
  }
}
