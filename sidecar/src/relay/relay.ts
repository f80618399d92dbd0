/**
 * The relay: moves bytes between two sockets through one session, one synchronous step a chunk.
 * Backpressure goes both ways: a side that does not take what is written to it stops the other side's reading,
 * and a command that must wait stops the client's reading.
 */
import type { Socket } from "node:net";

/** A protocol's session as the relay drives it. */
export interface RelayedSession {
  /** A promise: give nothing more until it resolves. */
  fromClient(chunk: Buffer): Promise<void> | undefined;
  fromUpstream(chunk: Buffer): void;
  /** The connection is over; whatever waits must stop waiting. */
  end(): void;
}

export type RelayEnd =
  | { readonly kind: "clientClosed" }
  | { readonly kind: "upstreamClosed" }
  /** The gateway ended it, and has told the client why. */
  | { readonly kind: "ended" }
  | { readonly kind: "failed"; readonly error: unknown };

/** Writers that a session is built with; `Relay.run` connects them to the sockets. */
export class Relay {
  private readonly client: Socket;
  private readonly upstream: Socket;
  private isHolding = false;
  private isUpstreamFull = false;
  private finish: ((end: RelayEnd) => void) | undefined;
  /** Bytes through the relay since it began. */
  bytesToClient = 0;
  bytesToUpstream = 0;
  /** When the client last sent something, on the monotonic clock. */
  lastClientMs = performance.now();

  constructor(client: Socket, upstream: Socket) {
    this.client = client;
    this.upstream = upstream;
  }

  readonly toClient = (bytes: Uint8Array): void => {
    this.bytesToClient += bytes.length;
    if (!this.client.write(bytes)) this.upstream.pause();
  };

  readonly toUpstream = (bytes: Uint8Array): void => {
    this.bytesToUpstream += bytes.length;
    if (this.upstream.write(bytes)) return;
    this.isUpstreamFull = true;
    this.client.pause();
  };

  /** Relays until one side closes or the session fails; destroys neither socket. */
  run(session: RelayedSession): Promise<RelayEnd> {
    return new Promise<RelayEnd>((resolve) => {
      this.finish = (end) => {
        if (this.finish === undefined) return;
        this.finish = undefined;
        this.unlisten();
        session.end();
        resolve(end);
      };
      const onClientData = (chunk: Buffer) => this.clientData(session, chunk);
      const onUpstreamData = (chunk: Buffer) => {
        try {
          session.fromUpstream(chunk);
        } catch (error) {
          this.stop({ kind: "failed", error });
        }
      };
      this.client.on("data", onClientData);
      this.client.on("drain", this.onClientDrain);
      this.client.on("close", this.onClientClosed);
      this.client.on("end", this.onClientClosed);
      this.client.on("error", this.onClientClosed);
      this.upstream.on("data", onUpstreamData);
      this.upstream.on("drain", this.onUpstreamDrain);
      this.upstream.on("close", this.onUpstreamClosed);
      this.upstream.on("end", this.onUpstreamClosed);
      this.upstream.on("error", this.onUpstreamClosed);
      this.unlisten = () => {
        this.client.off("data", onClientData);
        this.client.off("drain", this.onClientDrain);
        this.client.off("close", this.onClientClosed);
        this.client.off("end", this.onClientClosed);
        this.upstream.off("data", onUpstreamData);
        this.upstream.off("drain", this.onUpstreamDrain);
        this.upstream.off("close", this.onUpstreamClosed);
        this.upstream.off("end", this.onUpstreamClosed);
        // The error listeners stay until the sockets are gone: a socket without one would end the process.
      };
      if (this.client.destroyed) this.onClientClosed();
      else if (this.upstream.destroyed) this.onUpstreamClosed();
    });
  }

  /** Ends the relay from outside: expiry, revocation, drain. */
  stop(end: RelayEnd): void {
    this.finish?.(end);
  }

  private unlisten: () => void = () => undefined;

  private clientData(session: RelayedSession, chunk: Buffer): void {
    this.lastClientMs = performance.now();
    let pending: Promise<void> | undefined;
    try {
      pending = session.fromClient(chunk);
    } catch (error) {
      this.stop({ kind: "failed", error });
      return;
    }
    if (pending === undefined) return;
    this.isHolding = true;
    this.client.pause();
    pending.then(
      () => {
        this.isHolding = false;
        if (!this.isUpstreamFull) this.client.resume();
      },
      (error: unknown) => this.stop({ kind: "failed", error }),
    );
  }

  private readonly onClientDrain = () => {
    this.upstream.resume();
  };

  private readonly onUpstreamDrain = () => {
    this.isUpstreamFull = false;
    if (!this.isHolding) this.client.resume();
  };

  private readonly onClientClosed = () => this.stop({ kind: "clientClosed" });
  private readonly onUpstreamClosed = () => this.stop({ kind: "upstreamClosed" });
}
