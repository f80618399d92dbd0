/** exec and attach over WebSocket: `v5.channel.k8s.io` and `v4.channel.k8s.io`, a channel in the first byte of a message. */
import type { Duplex } from "node:stream";
import type { Status } from "../status.ts";
import { messageMax, type StreamBridge } from "./bridge.ts";
import { inOrder, writeAll } from "./pump.ts";
import type { OutputStream, Terminal } from "./terminal.ts";
import { FrameError, FrameReader, frame, type Piece } from "./websocket-frames.ts";

const channels = { stdin: 0, stdout: 1, stderr: 2, status: 3, resize: 4, close: 255 } as const;
const binary = 2;
const closing = 8;
const ping = 9;
const pong = 10;
const heldBytesMax = 1024 * 1024;

/** Bridges the channels of one command. Until it has a server, what the client sends is kept. */
export class ChannelBridge implements StreamBridge {
  readonly #client: Duplex;
  readonly #begunMs = performance.now();
  readonly #fromClient = new FrameReader(true);
  readonly #fromUpstream = new FrameReader(false);
  readonly #onTyped: () => void;
  #upstream: Duplex | undefined;
  #terminal: Terminal | undefined;
  #held: Piece[] = [];
  #heldBytes = 0;
  #clientChannel = 0;
  #serverChannel = 0;
  #message: Buffer[] = [];
  #clientMessage: Buffer[] = [];
  #isCut = false;

  constructor(client: Duplex, onTyped: () => void) {
    this.#client = client;
    this.#onTyped = onTyped;
  }

  /** Begins to speak with the server; what the client has sent meanwhile goes first. */
  connect(upstream: Duplex, terminal: Terminal): Promise<void> | undefined {
    this.#upstream = upstream;
    this.#terminal = terminal;
    const held = this.#held;
    this.#held = [];
    return inOrder(held.values(), (piece) => this.#clientPiece(piece));
  }

  /** Where output goes that may be shown. */
  readonly show = (stream: OutputStream, bytes: Buffer): void => {
    if (!this.#isCut) this.#toClient(channels[stream], bytes);
  };

  /** A line of the gateway's own, on stderr. */
  notice(text: string): void {
    this.#toClient(channels.stderr, Buffer.from(`${text}\r\n`));
  }

  fromClient(chunk: Buffer): Promise<void> | undefined {
    return inOrder(this.#fromClient.read(chunk), (piece) => this.#clientPiece(piece));
  }

  fromUpstream(chunk: Buffer): Promise<void> | undefined {
    return inOrder(this.#fromUpstream.read(chunk), (piece) => this.#serverPiece(piece));
  }

  upstreamEnded(): Promise<void> | undefined {
    return this.#terminal?.flush();
  }

  cut(status: Status): void {
    if (this.#isCut) return;
    void this.#terminal?.flush();
    this.#isCut = true;
    const message = frame(
      binary,
      [Buffer.from([channels.status]), Buffer.from(JSON.stringify(status))],
      false,
    );
    writeAll(this.#client, [...message, ...frame(closing, [Buffer.from([0x03, 0xe8])], false)]);
  }

  close(why?: string): void {
    this.#terminal?.close(performance.now() - this.#begunMs, why);
  }

  #clientPiece(piece: Piece): Promise<void> | undefined {
    const upstream = this.#upstream;
    if (upstream === undefined) {
      // Clients give up on who does not answer their pings.
      if (piece.opcode === ping) writeAll(this.#client, frame(pong, [piece.bytes], false));
      else {
        this.#heldBytes += piece.bytes.length;
        if (this.#heldBytes > heldBytesMax)
          throw new FrameError("too much was sent before the command may run");
        this.#held.push({ ...piece, bytes: Buffer.from(piece.bytes) });
      }
      return undefined;
    }
    if (piece.opcode >= closing) {
      writeAll(upstream, frame(piece.opcode, [piece.bytes], true));
      return undefined;
    }
    if (piece.opcode !== binary) throw new FrameError("channels are binary");
    let { bytes } = piece;
    if (piece.isFirst) {
      if (bytes.length === 0) {
        if (!piece.isLast) throw new FrameError("a message without a channel");
        writeAll(upstream, frame(binary, [], true));
        return undefined;
      }
      this.#clientChannel = bytes[0] ?? 0;
      bytes = bytes.subarray(1);
    }
    const channel = this.#clientChannel;
    if (channel === channels.stdin) {
      this.#onTyped();
      const recorded = this.#terminal?.input(bytes);
      const send = () => writeAll(upstream, frame(binary, [Buffer.from([channel]), bytes], true));
      if (recorded !== undefined) return recorded.then(send);
      send();
      return undefined;
    }
    if (channel !== channels.resize && channel !== channels.close)
      throw new FrameError("a channel clients do not have");
    const message = whole(this.#clientMessage, bytes, piece.isLast);
    if (message === undefined) return undefined;
    if (channel === channels.resize) this.#terminal?.resized(message);
    writeAll(upstream, frame(binary, [Buffer.from([channel]), message], true));
    return undefined;
  }

  #serverPiece(piece: Piece): Promise<void> | undefined {
    const terminal = this.#terminal;
    if (this.#isCut || terminal === undefined) return undefined;
    if (piece.opcode >= closing) {
      const pass = () => writeAll(this.#client, frame(piece.opcode, [piece.bytes], false));
      const waits = piece.opcode === closing ? terminal.flush() : undefined;
      if (waits !== undefined) return waits.then(pass);
      pass();
      return undefined;
    }
    let { bytes } = piece;
    if (piece.isFirst) {
      if (bytes.length === 0) {
        writeAll(this.#client, frame(binary, [], false));
        return undefined;
      }
      this.#serverChannel = bytes[0] ?? 0;
      bytes = bytes.subarray(1);
    }
    const channel = this.#serverChannel;
    if (channel === channels.stdout || channel === channels.stderr) {
      // The server opens its channels with an empty message each.
      if (bytes.length > 0) return terminal.output(channel === channels.stdout ? "stdout" : "stderr", bytes);
      if (piece.isFirst) this.#toClient(channel, bytes);
      return undefined;
    }
    const message = whole(this.#message, bytes, piece.isLast);
    if (message === undefined) return undefined;
    const pass = () => this.#toClient(channel, message);
    const waits = channel === channels.status && message.length > 0 ? terminal.ended(message) : undefined;
    if (waits !== undefined) return waits.then(pass);
    pass();
    return undefined;
  }

  #toClient(channel: number, bytes: Buffer): void {
    writeAll(this.#client, frame(binary, [Buffer.from([channel]), bytes], false));
  }
}

/** Collects a message; it, once it is whole. */
function whole(parts: Buffer[], bytes: Buffer, isLast: boolean): Buffer | undefined {
  parts.push(Buffer.from(bytes));
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  if (length > messageMax) throw new FrameError("a message is too long");
  return isLast ? Buffer.concat(parts.splice(0)) : undefined;
}
