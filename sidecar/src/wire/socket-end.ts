import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { countBuffersWithTheHeap } from "./bulk-memory.ts";
import {
  isWriteLasting,
  type NativeHandle,
  nativeHandle,
  readBytes,
  tellEnd,
  type WriteRequest,
  writeRequest,
} from "./native-stream.ts";

/** What a relay is told by one of its sockets. */
export interface SocketListener {
  /** True where nothing refers to the chunk any more: its memory may be read into again. */
  data(chunk: Buffer): boolean | undefined;
  /** What was written has left. */
  drained(): void;
  /** Nothing more comes. */
  closed(): void;
}

/** One socket of a relay, with the least that lies between it and the system. */
export interface SocketEnd {
  /** False where the other side should stop until `drained`. */
  write(bytes: Uint8Array): boolean;
  /** False where what was written last may still be read from its own memory. */
  readonly hasTakenAll: boolean;
  pause(): void;
  resume(): void;
  /** Starts reading; what the socket has read before comes first. */
  listen(listener: SocketListener): void;
  unlisten(): void;
}

/** The end for a socket whose login is over: on its native handle, or by streams where that is not to be had. */
export function socketEnd(socket: Socket, by: "handle" | "stream" = "handle"): SocketEnd {
  const handle = by === "handle" ? nativeHandle(socket) : undefined;
  return handle === undefined ? new StreamEnd(socket) : new NativeEnd(socket, handle);
}

/** All that both kinds do alike: to hear of the end. */
abstract class ListeningEnd {
  protected readonly socket: Socket;
  protected listener: SocketListener | undefined;
  private readonly onClosed = () => this.listener?.closed();
  protected readonly onDrain = () => this.listener?.drained();

  constructor(socket: Socket) {
    this.socket = socket;
  }

  listen(listener: SocketListener): void {
    this.listener = listener;
    this.socket.on("drain", this.onDrain);
    this.socket.on("close", this.onClosed);
    this.socket.on("end", this.onClosed);
    this.socket.on("error", this.onClosed);
  }

  unlisten(): void {
    this.listener = undefined;
    this.socket.off("drain", this.onDrain);
    this.socket.off("close", this.onClosed);
    this.socket.off("end", this.onClosed);
    // The error listener stays until the socket is gone: a socket without one would end the process.
  }
}

class StreamEnd extends ListeningEnd implements SocketEnd {
  private readonly onData = (chunk: Buffer) => void this.listener?.data(chunk);
  /** A stream may keep what it is given. */
  readonly hasTakenAll = false;

  write(bytes: Uint8Array): boolean {
    return this.socket.write(bytes);
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  override listen(listener: SocketListener): void {
    super.listen(listener);
    this.socket.on("data", this.onData);
  }

  override unlisten(): void {
    super.unlisten();
    this.socket.off("data", this.onData);
  }
}

/**
 * Reads into one buffer that all sockets share, and writes without a stream where the socket is plain. A TLS handle
 * takes only one write at a time and aborts the process on a second, so these go through the socket's stream.
 */
class NativeEnd extends ListeningEnd implements SocketEnd {
  private readonly handle: NativeHandle;
  private readonly isPlain: boolean;
  private isStreamFilled = true;
  private request: WriteRequest | undefined;
  private lastingBytes = 0;
  hasTakenAll = false;
  private isPaused = false;
  /** Chunks that came while it was paused. */
  private readonly kept: Buffer[] = [];
  private keptBytes = 0;
  /** True while the handle does not read, because enough is kept. */
  private isStopped = false;
  /** The end that came behind what is kept. */
  private endedBy = 0;
  /** Memory for the next read of a stream; no other connection ever reads into it. */
  private spare: Buffer | undefined;
  /** Node's own reader: it turns the end, and errors, into events. */
  private readonly tell: NativeHandle["onread"];

  constructor(socket: Socket, handle: NativeHandle) {
    super(socket);
    this.handle = handle;
    this.tell = handle.onread;
    this.isPlain = !(socket instanceof TLSSocket);
  }

  write(bytes: Uint8Array): boolean {
    const { socket } = this;
    if (!this.isPlain) {
      // A stream that holds nothing gives a write to its handle at once, and TLS encrypts or copies it before it returns.
      this.hasTakenAll = socket.writableLength === 0 && socket.writableCorked === 0;
      return socket.write(bytes);
    }
    this.hasTakenAll = false;
    // What the stream still holds from the login goes first.
    if (this.isStreamFilled && this.isStillFilled()) return socket.write(bytes);
    if (socket.destroyed) return true;
    const request = this.request ?? writeRequest((status) => this.written(status));
    this.request = request;
    const failed = this.handle.writeBuffer(request, bytes);
    if (failed !== 0) {
      socket.destroy();
      return true;
    }
    if (!isWriteLasting()) {
      this.hasTakenAll = true;
      return true;
    }
    this.request = undefined;
    request.buffer = bytes;
    return this.lasting(request, bytes.length);
  }

  private isStillFilled(): boolean {
    this.isStreamFilled = this.socket.writableLength > 0;
    return this.isStreamFilled;
  }

  /** The system took a part only: the request belongs to the write from now on. */
  private lasting(request: WriteRequest, length: number): boolean {
    this.lastingBytes += length;
    request.oncomplete = (status) => {
      this.lastingBytes -= length;
      this.written(status);
    };
    return this.lastingBytes < lastingBytesMax;
  }

  private written(status: number): void {
    if (status < 0) this.socket.destroy();
    else if (this.lastingBytes === 0) this.listener?.drained();
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
    for (let chunk = this.kept.shift(); chunk !== undefined; chunk = this.kept.shift()) {
      this.keptBytes -= chunk.length + chunkBytes;
      this.listener?.data(chunk);
      if (this.isPaused) return;
    }
    if (this.socket.destroyed) return;
    if (this.endedBy < 0) {
      tellEnd(this.handle, this.tell, this.endedBy);
      this.endedBy = 0;
    } else if (this.isStopped) {
      this.isStopped = false;
      this.handle.reading = true;
      this.handle.readStart();
    }
  }

  override listen(listener: SocketListener): void {
    super.listen(listener);
    const { socket, handle } = this;
    const early: Buffer | null = socket.read();
    handle.useUserBuffer(shared);
    handle.onread = () => {
      const count = readBytes();
      if (count > 0) this.read(count);
      else if (count < 0) this.ended(count);
      return undefined;
    };
    // The stream gets no more bytes, but must flow to say that it ended.
    socket.resume();
    handle.reading = true;
    handle.readStart();
    if (early !== null) process.nextTick(() => this.take(early));
  }

  /** What a stream brings is most often gone when the listener returns: the next read takes its place. */
  private read(count: number): void {
    if (count < bulkBytes || this.isPaused || this.kept.length > 0 || this.listener === undefined) {
      this.spare = undefined;
      this.take(copied(count));
      return;
    }
    countBuffersWithTheHeap();
    const memory = this.spare ?? Buffer.allocUnsafeSlow(shared.length);
    this.spare = undefined;
    shared.copy(memory, 0, 0, count);
    if (this.listener.data(memory.subarray(0, count)) === true) this.spare = memory;
  }

  /**
   * While it is paused it reads on for a while, and keeps what comes: so it hears of a peer that has gone, and a short
   * pause costs no call of the system.
   */
  private take(chunk: Buffer): void {
    if (!this.isPaused && this.kept.length === 0) {
      this.listener?.data(chunk);
      return;
    }
    if (this.listener === undefined) return;
    this.kept.push(chunk);
    this.keptBytes += chunk.length + chunkBytes;
    if (this.keptBytes < keptBytesMax || this.isStopped) return;
    this.isStopped = true;
    this.handle.reading = false;
    this.handle.readStop();
  }

  /** The end comes after what is kept; a broken connection is broken at once. */
  private ended(count: number): void {
    if (count === endOfStream && this.kept.length > 0) this.endedBy = count;
    else tellEnd(this.handle, this.tell, count);
  }
}

/** libuv's UV_EOF. */
const endOfStream = -4095;

/** Roughly what a chunk takes beside its bytes, of which a record of TLS may have one. */
export const chunkBytes = 128;

/** Memory for what is read ahead of a paused side. */
const keptBytesMax = 128 * 1024;

/** Bytes that one side may owe the system before the other side is asked to stop. */
const lastingBytesMax = 64 * 1024;

const shared = Buffer.allocUnsafeSlow(64 * 1024);

/** A copy of its own size: who gets it may keep it, while the next read overwrites the shared buffer. */
function copied(count: number): Buffer {
  const chunk = Buffer.allocUnsafe(count);
  // A call out of JavaScript costs more than a short loop.
  if (count > shortBytes) shared.copy(chunk, 0, 0, count);
  else for (let at = 0; at < count; at += 1) chunk[at] = shared[at] ?? 0;
  return chunk;
}

const shortBytes = 192;

/** PostgreSQL sends rows in pieces of this size: who reads one is likely to read many. */
const bulkBytes = 8 * 1024;
