import type { Socket } from "node:net";
import { type SecureContext, TLSSocket } from "node:tls";
import { GatewayError } from "./gateway-error.ts";

/** What a protocol's login needs of a connection: exact reads with a deadline, writes, TLS. */
export interface Channel {
  /** Reads exactly `count` bytes; rejects at the end of the stream or when the deadline passes. */
  read(count: number): Promise<Buffer>;
  /** The next byte without taking it; undefined at the end of the stream. */
  peek(): Promise<number | undefined>;
  write(bytes: Uint8Array): void;
  readonly secured: TLSSocket | undefined;
  /** True when bytes wait that were read before TLS began: somebody stuffed them. */
  readonly hasBuffered: boolean;
  readonly remoteAddress: string;
  /** True for a Unix domain socket, which no network can read. */
  readonly isLocal: boolean;
}

/** How TLS is answered. */
export interface TlsServerOptions {
  readonly secureContext: SecureContext;
  readonly requestCert: boolean;
  readonly fragmentBytes: number;
}

/** A socket in its login phase. `detach` hands it over to the relay with whatever was read too far. */
export class SocketChannel implements Channel {
  socket: Socket;
  secured: TLSSocket | undefined;
  readonly remoteAddress: string;
  readonly isLocal: boolean;
  private waiting: (() => void) | undefined;
  private ended = false;
  private failure: Error | undefined;
  private buffer: Buffer = Buffer.alloc(0);
  private readonly onReadable = () => this.wake();
  private readonly onEnd = () => {
    this.ended = true;
    this.wake();
  };
  private readonly onError = (error: Error) => {
    this.failure ??= error;
    this.wake();
  };
  private readonly signal: AbortSignal;

  constructor(socket: Socket, signal: AbortSignal) {
    this.socket = socket;
    this.signal = signal;
    this.remoteAddress = socket.remoteAddress ?? "local";
    this.isLocal = socket.remoteAddress === undefined;
    signal.addEventListener("abort", this.onReadable, { once: true });
    this.attach();
  }

  get hasBuffered(): boolean {
    return this.buffer.length > 0 || this.socket.readableLength > 0;
  }

  async read(count: number): Promise<Buffer> {
    while (this.buffer.length < count) await this.fill();
    const bytes = this.buffer.subarray(0, count);
    this.buffer = this.buffer.subarray(count);
    return bytes;
  }

  async peek(): Promise<number | undefined> {
    while (this.buffer.length === 0) {
      if (this.ended) return undefined;
      await this.fill();
    }
    return this.buffer[0];
  }

  write(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  /** Answers a TLS handshake on this socket; bytes already read are fed to it. */
  async upgrade(
    options: TlsServerOptions,
    alpn: "required" | "optional",
    names: readonly string[] = ["postgresql"],
  ): Promise<TLSSocket> {
    this.release();
    if (this.buffer.length > 0) this.socket.unshift(this.buffer);
    this.buffer = Buffer.alloc(0);
    const secured = new TLSSocket(this.socket, {
      isServer: true,
      secureContext: options.secureContext,
      requestCert: options.requestCert,
      rejectUnauthorized: false,
      ALPNCallback: ({ protocols }) => names.find((name) => protocols.includes(name)),
    });
    secured.setMaxSendFragment(options.fragmentBytes);
    this.socket = secured;
    this.attach();
    await this.handshake(secured);
    if (alpn === "required" && !names.includes(secured.alpnProtocol || "")) {
      throw new GatewayError("protocolViolation", {
        detail: `direct TLS needs the ALPN protocol ${names.join(" or ")}`,
      });
    }
    this.secured = secured;
    return secured;
  }

  /** Stops reading and returns the socket; buffered bytes go back into its stream. */
  detach(): Socket {
    this.release();
    this.signal.removeEventListener("abort", this.onReadable);
    if (this.buffer.length > 0) this.socket.unshift(this.buffer);
    this.buffer = Buffer.alloc(0);
    return this.socket;
  }

  private async handshake(secured: TLSSocket): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const settle = (error?: Error) => {
        secured.off("secure", onSecure);
        secured.off("error", onFail);
        secured.off("close", onClose);
        this.signal.removeEventListener("abort", onAbort);
        if (error) reject(error);
        else resolve();
      };
      const onSecure = () => settle();
      const onFail = (error: Error) => settle(new GatewayError("protocolViolation", { cause: error }));
      const onClose = () => settle(new GatewayError("protocolViolation", { detail: "closed during TLS" }));
      const onAbort = () => settle(loginTookTooLong("the TLS handshake did not come to its end"));
      secured.on("secure", onSecure);
      secured.on("error", onFail);
      secured.on("close", onClose);
      if (this.signal.aborted) onAbort();
      else this.signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  private async fill(): Promise<void> {
    for (;;) {
      if (this.signal.aborted) throw loginTookTooLong("the client sent nothing more");
      if (this.failure) throw this.failure;
      const chunk: Buffer | null = this.socket.read();
      if (chunk !== null) {
        this.buffer = this.buffer.length === 0 ? chunk : Buffer.concat([this.buffer, chunk]);
        return;
      }
      if (this.ended)
        throw new GatewayError("protocolViolation", { detail: "the connection ended too early" });
      await new Promise<void>((resolve) => {
        this.waiting = resolve;
      });
    }
  }

  private wake(): void {
    const waiting = this.waiting;
    this.waiting = undefined;
    waiting?.();
  }

  private attach(): void {
    this.socket.on("readable", this.onReadable);
    this.socket.on("end", this.onEnd);
    this.socket.on("close", this.onEnd);
    this.socket.on("error", this.onError);
  }

  private release(): void {
    this.socket.off("readable", this.onReadable);
    this.socket.off("end", this.onEnd);
    this.socket.off("close", this.onEnd);
    // The error listener stays: a socket without one would end the process.
  }
}

/** The log tells what was waited for; a client in the middle of TLS cannot be told anything. */
function loginTookTooLong(waitedFor: string): GatewayError {
  return new GatewayError("identityRefused", {
    detail: "login took too long",
    cause: new Error(`login took too long: ${waitedFor}`),
  });
}
