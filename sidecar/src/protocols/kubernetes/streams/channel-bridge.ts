/**
 * exec and attach over WebSocket: a channel in the first byte of a message. The server is spoken to in
 * `v5.channel.k8s.io` or `v4.channel.k8s.io`; older and base64 forms of clients are translated.
 */
import type { Duplex } from "node:stream";
import { isRecord } from "../facts.ts";
import type { Status } from "../status.ts";
import { parsed } from "../upstream.ts";
import { HeldInput, heldBytesMax, Message, type StreamBridge } from "./bridge.ts";
import { inOrder, writeAll } from "./pump.ts";
import type { OutputStream, Terminal } from "./terminal.ts";
import { FrameError, FrameReader, frame, type Piece } from "./websocket-frames.ts";

const channels = { stdin: 0, stdout: 1, stderr: 2, status: 3, resize: 4, close: 255 } as const;
const text = 1;
const binary = 2;
const closing = 8;
const ping = 9;
const pong = 10;

/** How the client's form differs from the server's. */
export interface ClientForm {
  /** Text messages: the channel as a digit, then base64. */
  readonly isBase64: boolean;
  /** Before v4 the status channel holds a message where a command failed, and nothing where it did not. */
  readonly hasPlainStatus: boolean;
}

/** Bridges the channels of one command. Until it has a server, what the client sends is kept. */
export class ChannelBridge implements StreamBridge {
  readonly #client: Duplex;
  readonly #begunMs = performance.now();
  readonly #fromClient = new FrameReader(true);
  readonly #fromUpstream = new FrameReader(false);
  readonly #onTyped: () => void;
  readonly #form: ClientForm;
  #upstream: Duplex | undefined;
  #terminal: Terminal | undefined;
  readonly #held = new HeldInput<Piece>();
  #clientChannel = 0;
  #serverChannel = 0;
  readonly #message = new Message();
  readonly #clientMessage = new Message();
  readonly #encoded = new Message();
  #isCut = false;

  constructor(client: Duplex, onTyped: () => void, form: ClientForm) {
    this.#client = client;
    this.#onTyped = onTyped;
    this.#form = form;
  }

  /** Begins to speak with the server; what the client has sent meanwhile goes first. */
  connect(upstream: Duplex, terminal: Terminal): Promise<void> | undefined {
    this.#upstream = upstream;
    this.#terminal = terminal;
    return inOrder(this.#held.take().values(), (piece) => this.#clientPiece(piece));
  }

  /** Where output goes that may be shown. */
  readonly show = (stream: OutputStream, bytes: Buffer): void => {
    if (!this.#isCut) this.#toClient(channels[stream], bytes);
  };

  /** A line of the gateway's own. */
  notice(line: string, stream: OutputStream): void {
    this.#toClient(channels[stream], Buffer.from(`${line}\r\n`));
  }

  fromClient(chunk: Buffer): Promise<void> | undefined {
    return inOrder(this.#fromClient.read(chunk), (piece) => this.#anyPiece(piece));
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
    this.#toClient(channels.status, this.#statusForm(Buffer.from(JSON.stringify(status))));
    writeAll(this.#client, frame(closing, [Buffer.from([0x03, 0xe8])], false));
  }

  close(why?: string): void {
    this.#terminal?.close(performance.now() - this.#begunMs, why);
  }

  /** In base64 a message is read whole, and goes on as if it had come in binary. */
  #anyPiece(piece: Piece): Promise<void> | undefined {
    if (!this.#form.isBase64 || piece.opcode >= closing) return this.#clientPiece(piece);
    const message = this.#encoded.push(piece.bytes, piece.isLast, heldBytesMax);
    if (message === undefined) return undefined;
    const channel = (message[0] ?? 0) - 0x30;
    if (message.length > 0 && (channel < 0 || channel > 9))
      throw new FrameError("a message without a channel");
    const payload = Buffer.from(message.toString("latin1", 1), "base64");
    const bytes = message.length === 0 ? message : Buffer.concat([Buffer.from([channel]), payload]);
    return this.#clientPiece({ opcode: binary, bytes, isFirst: true, isLast: true });
  }

  #clientPiece(piece: Piece): Promise<void> | undefined {
    const upstream = this.#upstream;
    if (upstream === undefined) {
      // Clients give up on who does not answer their pings.
      if (piece.opcode === ping) writeAll(this.#client, frame(pong, [piece.bytes], false));
      else this.#held.push({ ...piece, bytes: Buffer.from(piece.bytes) }, piece.bytes.length);
      return undefined;
    }
    if (piece.opcode >= closing) {
      writeAll(upstream, frame(piece.opcode, [piece.bytes], true));
      return undefined;
    }
    // Python's client sends what it is given as text in text messages, channel byte and all; servers take both.
    if (piece.opcode !== binary && piece.opcode !== text) throw new FrameError("not a message");
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
      return this.#typed(bytes, upstream);
    }
    if (channel !== channels.resize && channel !== channels.close)
      throw new FrameError("a channel clients do not have");
    const message = this.#clientMessage.push(bytes, piece.isLast);
    if (message === undefined) return undefined;
    if (channel === channels.resize) this.#terminal?.resized(message);
    const pass = () => writeAll(upstream, frame(binary, [Buffer.from([channel]), message], true));
    const isEndOfInput = channel === channels.close && message[0] === channels.stdin;
    const ended = isEndOfInput ? this.#typed(Buffer.alloc(0), upstream, true) : undefined;
    if (ended !== undefined) return ended.then(pass);
    pass();
    return undefined;
  }

  /** Gives the command what it may be given of these bytes. */
  #typed(bytes: Buffer, upstream: Duplex, isEnd = false): Promise<void> | undefined {
    const { passed, refuse } = this.#terminal?.sift(bytes, isEnd) ?? { passed: bytes, refuse: undefined };
    // An empty message of the client's goes on as it is; what is held back is sent with what comes behind it.
    const isSent = passed.length > 0 || (bytes.length === 0 && !isEnd);
    const recorded = isSent ? this.#terminal?.input(passed) : undefined;
    const send = () => {
      if (isSent) writeAll(upstream, frame(binary, [Buffer.from([channels.stdin]), passed], true));
    };
    if (recorded === undefined) send();
    const sent = recorded?.then(send);
    return refuse === undefined ? sent : (sent ?? Promise.resolve()).then(refuse);
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
        writeAll(this.#client, frame(this.#form.isBase64 ? text : binary, [], false));
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
    const message = this.#message.push(bytes, piece.isLast);
    if (message === undefined) return undefined;
    const shown = channel === channels.status ? this.#statusForm(message) : message;
    const pass = () => this.#toClient(channel, shown);
    const waits =
      channel === channels.status && message.length > 0 ? this.#ended(message, terminal) : undefined;
    if (waits !== undefined) return waits.then(pass);
    pass();
    return undefined;
  }

  /** With the status the output is over, too. */
  #ended(message: Buffer, terminal: Terminal): Promise<void> | undefined {
    const waits = terminal.outputEnded();
    return waits === undefined ? terminal.ended(message) : waits.then(() => terminal.ended(message));
  }

  /** A Status as the client knows it. */
  #statusForm(message: Buffer): Buffer {
    if (!this.#form.hasPlainStatus) return message;
    const status = parsed(message);
    const isFailure = isRecord(status) && status.status !== "Success";
    return Buffer.from(isFailure && typeof status.message === "string" ? status.message : "");
  }

  #toClient(channel: number, bytes: Buffer): void {
    const message = this.#form.isBase64
      ? frame(text, [Buffer.from(`${channel}${bytes.toString("base64")}`)], false)
      : frame(binary, [Buffer.from([channel]), bytes], false);
    writeAll(this.#client, message);
  }
}
