/** Port-forward over WebSocket: SPDY frames in the payload of binary messages. */
import type { Duplex } from "node:stream";
import type { Status } from "../status.ts";
import type { StreamBridge } from "./bridge.ts";
import { inOrder, writeAll } from "./pump.ts";
import { SpdyBridge, type StreamReader } from "./spdy-bridge.ts";
import { FrameError, FrameReader, frame, type Piece } from "./websocket-frames.ts";

const binary = 2;
const closing = 8;

export class TunnelBridge implements StreamBridge {
  readonly #client: Duplex;
  readonly #upstream: Duplex;
  readonly #fromClient = new FrameReader(true);
  readonly #fromUpstream = new FrameReader(false);
  readonly #spdy: SpdyBridge;

  constructor(client: Duplex, upstream: Duplex, reader: StreamReader, onEnd: (why?: string) => void) {
    this.#client = client;
    this.#upstream = upstream;
    this.#spdy = new SpdyBridge((pieces) => writeAll(client, frame(binary, pieces, false)), false);
    const send = (pieces: readonly Buffer[]) => writeAll(upstream, frame(binary, pieces, true));
    void this.#spdy.connect({ send, reader, onEnd });
  }

  fromClient(chunk: Buffer): Promise<void> | undefined {
    return inOrder(this.#fromClient.read(chunk), (piece) =>
      this.#piece(piece, this.#upstream, true, (bytes) => this.#spdy.fromClient(bytes)),
    );
  }

  fromUpstream(chunk: Buffer): Promise<void> | undefined {
    return inOrder(this.#fromUpstream.read(chunk), (piece) =>
      this.#piece(piece, this.#client, false, (bytes) => this.#spdy.fromUpstream(bytes)),
    );
  }

  upstreamEnded(): Promise<void> | undefined {
    return this.#spdy.upstreamEnded();
  }

  cut(status: Status): void {
    this.#spdy.cut(status);
    writeAll(this.#client, frame(closing, [Buffer.from([0x03, 0xe8])], false));
  }

  close(why?: string): void {
    this.#spdy.close(why);
  }

  #piece(
    piece: Piece,
    to: Duplex,
    isMasked: boolean,
    read: (bytes: Buffer) => Promise<void> | undefined,
  ): Promise<void> | undefined {
    if (piece.opcode >= closing) {
      writeAll(to, frame(piece.opcode, [piece.bytes], isMasked));
      return undefined;
    }
    if (piece.opcode !== binary) throw new FrameError("a tunnel is binary");
    return piece.bytes.length === 0 ? undefined : read(piece.bytes);
  }
}
