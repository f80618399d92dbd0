import type { Duplex } from "node:stream";
import { encodeFrame, type Frame, FrameError, FrameReader } from "./frames.ts";

/** Bounds of one connection. */
export interface ConnectionLimits {
  /** The longest frame that is read. */
  readonly frameBytesMax: number;
  /** Bytes that may wait to be written before the connection is given up. */
  readonly queuedBytesMax: number;
  /** How often something is sent where there is nothing to say. */
  readonly heartbeatMs: number;
  /** A connection that says nothing for so long is dead, whatever TCP believes. */
  readonly silenceMs: number;
}

/** Defaults; each use narrows what it can. */
export const defaultConnectionLimits: ConnectionLimits = {
  frameBytesMax: 1024 * 1024,
  queuedBytesMax: 16 * 1024 * 1024,
  heartbeatMs: 5_000,
  silenceMs: 15_000,
};

/**
 * Frames over a TLS socket, both ways, with heartbeats: a half-open connection ends after `silenceMs`. Reading is
 * pulled: no further bytes are taken from the socket while a message is being worked on.
 */
export class FramedConnection {
  readonly #socket: Duplex;
  readonly #limits: ConnectionLimits;
  readonly #reader: FrameReader;
  readonly #timer: NodeJS.Timeout;
  #heardAt = performance.now();
  #saidAt = performance.now();
  #failure: Error | undefined;

  constructor(socket: Duplex, limits: Partial<ConnectionLimits> = {}) {
    this.#socket = socket;
    this.#limits = { ...defaultConnectionLimits, ...limits };
    this.#reader = new FrameReader(this.#limits.frameBytesMax);
    socket.on("error", (error) => {
      this.#failure ??= error;
    });
    const { heartbeatMs, silenceMs } = this.#limits;
    this.#timer = setInterval(() => this.#beat(), Math.min(heartbeatMs, silenceMs) / 2);
    this.#timer.unref();
    socket.once("close", () => clearInterval(this.#timer));
  }

  /** Lets longer frames in, once the other side is known. */
  set frameBytesMax(bytes: number) {
    this.#reader.frameBytesMax = bytes;
  }

  /** Bytes that wait to be written: who sends much looks here first. */
  get queuedBytes(): number {
    return this.#socket.writableLength;
  }

  get isClosed(): boolean {
    return this.#socket.destroyed;
  }

  /** Sends a message; a connection whose other side does not read is ended instead of buffered without bound. */
  send(header: object, body?: Uint8Array): void {
    if (this.#socket.destroyed) return;
    this.#saidAt = performance.now();
    this.#socket.cork();
    for (const part of encodeFrame(header, body)) this.#socket.write(part);
    this.#socket.uncork();
    if (this.#socket.writableLength > this.#limits.queuedBytesMax)
      this.end(new Error("the peer does not read"));
  }

  /** Sends bytes that `encodeFrame` gave: the same message to many is encoded once. */
  sendEncoded(parts: readonly Uint8Array[]): void {
    if (this.#socket.destroyed) return;
    this.#saidAt = performance.now();
    for (const part of parts) this.#socket.write(part);
    if (this.#socket.writableLength > this.#limits.queuedBytesMax)
      this.end(new Error("the peer does not read"));
  }

  /** Resolves when what was sent has left for the system, or the connection is over. */
  async drained(): Promise<void> {
    if (this.#socket.destroyed || !this.#socket.writableNeedDrain) return;
    await new Promise<void>((resolve) => {
      const done = () => {
        this.#socket.off("drain", done);
        this.#socket.off("close", done);
        resolve();
      };
      this.#socket.on("drain", done);
      this.#socket.on("close", done);
    });
  }

  /** The messages in order, heartbeats left out; ends with the connection and throws what broke it. */
  async *messages(): AsyncGenerator<Frame, void, undefined> {
    try {
      for await (const chunk of this.#socket as AsyncIterable<Buffer>) {
        this.#heardAt = performance.now();
        for (const frame of this.#reader.push(chunk)) {
          if (!isHeartbeat(frame.header)) yield frame;
        }
        // Working on what came may have taken long; the other side is not to blame for that.
        this.#heardAt = performance.now();
      }
    } catch (error) {
      if (error instanceof FrameError) this.end(error);
      throw this.#failure ?? error;
    } finally {
      this.end();
    }
    if (this.#failure) throw this.#failure;
  }

  /** Ends the connection at once; a reason is thrown to whoever reads messages. */
  end(reason?: Error): void {
    this.#failure ??= reason;
    clearInterval(this.#timer);
    this.#socket.destroy();
  }

  /** Ends the connection after what was sent has been written, or a moment later. */
  finish(): void {
    clearInterval(this.#timer);
    this.#socket.end();
    setTimeout(() => this.#socket.destroy(), finishMs).unref();
  }

  #beat(): void {
    const now = performance.now();
    // Nothing is read while the reader is paused, so bytes that wait count as heard.
    const isWaiting = this.#socket.readableLength > 0;
    if (now - this.#heardAt > this.#limits.silenceMs && !isWaiting) {
      this.end(new Error("the peer fell silent"));
    } else if (now - this.#saidAt >= this.#limits.heartbeatMs) {
      this.send(heartbeat);
    }
  }
}

const finishMs = 1_000;
const heartbeat = { kind: "heartbeat" };

function isHeartbeat(header: unknown): boolean {
  return typeof header === "object" && header !== null && "kind" in header && header.kind === "heartbeat";
}
