/**
 * The relay: moves bytes between two sockets through one session, one synchronous step a chunk.
 * Backpressure goes both ways: a side that does not take what is written to it stops the other side's reading,
 * and a command that must wait stops the client's reading.
 */
import type { Socket } from "node:net";
import { chunkBytes, type SocketEnd, socketEnd } from "../wire/socket-end.ts";

/** A protocol's session as the relay drives it. */
export interface RelayedSession {
  /** A promise: give nothing more until it resolves. */
  fromClient(chunk: Buffer): Promise<void> | undefined;
  fromUpstream(chunk: Buffer): void;
  /** True where the session keeps nothing of the chunk that came last from that side; absent: it may. */
  hasPassed?(from: "client" | "upstream"): boolean;
  /** The connection is over; whatever waits must stop waiting. */
  end(): void;
}

/** How a session ended. */
export type RelayEnd =
  | { readonly kind: "clientClosed" }
  | { readonly kind: "upstreamClosed" }
  /** The gateway ended it, and has told the client why. */
  | { readonly kind: "ended" }
  | { readonly kind: "failed"; readonly error: unknown };

/** Writers that a session is built with; `Relay.run` connects them to the sockets. */
export class Relay {
  private readonly sockets: readonly [client: Socket, upstream: Socket];
  private readonly client: SocketEnd;
  private readonly upstream: SocketEnd;
  private isHolding = false;
  private isUpstreamFull = false;
  /** Shown what the client sends while the session holds, and kept here meanwhile. */
  private watch: ((chunk: Buffer) => void) | undefined;
  private ahead: Buffer[] = [];
  private aheadBytes = 0;
  /** Counts writes that may still be read from their own memory. */
  private lasting = 0;
  private finish: ((end: RelayEnd) => void) | undefined;
  /** Bytes through the relay since it began. */
  bytesToClient = 0;
  bytesToUpstream = 0;
  /** When the client last sent something, on the monotonic clock. */
  lastClientMs = performance.now();

  constructor(client: Socket, upstream: Socket) {
    this.sockets = [client, upstream];
    this.client = socketEnd(client);
    this.upstream = socketEnd(upstream);
  }

  readonly toClient = (bytes: Uint8Array): void => {
    this.bytesToClient += bytes.length;
    if (!this.client.write(bytes)) this.upstream.pause();
    if (!this.client.hasTakenAll) this.lasting += 1;
  };

  readonly toUpstream = (bytes: Uint8Array): void => {
    this.bytesToUpstream += bytes.length;
    const isTaken = this.upstream.write(bytes);
    if (!this.upstream.hasTakenAll) this.lasting += 1;
    if (isTaken) return;
    this.isUpstreamFull = true;
    this.client.pause();
  };

  /**
   * For a session that holds for long: goes on reading the client, within a bound, so that `watch` sees what it says
   * and the relay hears of its end. What was read is given to the session once it has resolved.
   */
  readonly readAhead = (watch: (chunk: Buffer) => void): void => {
    this.watch = watch;
    for (const chunk of this.ahead) watch(chunk);
    if (this.isHolding && this.aheadBytes < aheadBytesMax) this.client.resume();
  };

  /** Relays until one side closes or the session fails; destroys neither socket. */
  run(session: RelayedSession): Promise<RelayEnd> {
    return new Promise<RelayEnd>((resolve) => {
      this.finish = (end) => {
        if (this.finish === undefined) return;
        this.finish = undefined;
        this.client.unlisten();
        this.upstream.unlisten();
        session.end();
        resolve(end);
      };
      this.client.listen({
        data: (chunk) => this.clientData(session, chunk),
        drained: () => this.upstream.resume(),
        closed: this.onClientClosed,
      });
      this.upstream.listen({
        data: (chunk) => this.upstreamData(session, chunk),
        drained: this.onUpstreamDrained,
        closed: this.onUpstreamClosed,
      });
      const [client, upstream] = this.sockets;
      if (client.destroyed) this.onClientClosed();
      else if (upstream.destroyed) this.onUpstreamClosed();
    });
  }

  /** Ends the relay from outside: expiry, revocation, drain. */
  stop(end: RelayEnd): void {
    this.finish?.(end);
  }

  /** True where all of the chunk has left, and nothing of it is kept. */
  private clientData(session: RelayedSession, chunk: Buffer): boolean {
    const before = this.lasting;
    this.lastClientMs = performance.now();
    if (this.isHolding) {
      this.ahead.push(chunk);
      this.aheadBytes += chunk.length + chunkBytes;
      if (this.aheadBytes >= aheadBytesMax) this.client.pause();
      this.watch?.(chunk);
      return false;
    }
    let pending: Promise<void> | undefined;
    try {
      pending = session.fromClient(chunk);
    } catch (error) {
      this.stop({ kind: "failed", error });
      return false;
    }
    if (pending === undefined) return this.lasting === before && session.hasPassed?.("client") === true;
    this.isHolding = true;
    if (this.watch === undefined) this.client.pause();
    pending.then(
      () => {
        this.isHolding = false;
        this.watch = undefined;
        if (this.ahead.length > 0) this.giveAhead(session);
        if (!this.isHolding && !this.isUpstreamFull) this.client.resume();
      },
      (error: unknown) => this.stop({ kind: "failed", error }),
    );
    return false;
  }

  /** What was read ahead, in order; a message of it may hold again. */
  private giveAhead(session: RelayedSession): void {
    this.client.pause();
    for (let next = this.ahead.shift(); next !== undefined; next = this.ahead.shift()) {
      this.aheadBytes -= next.length + chunkBytes;
      this.clientData(session, next);
      if (this.isHolding || this.finish === undefined) return;
    }
  }

  private upstreamData(session: RelayedSession, chunk: Buffer): boolean {
    const before = this.lasting;
    try {
      session.fromUpstream(chunk);
    } catch (error) {
      this.stop({ kind: "failed", error });
      return false;
    }
    return this.lasting === before && session.hasPassed?.("upstream") === true;
  }

  private readonly onUpstreamDrained = () => {
    this.isUpstreamFull = false;
    if (!this.isHolding) this.client.resume();
  };

  private readonly onClientClosed = () => this.stop({ kind: "clientClosed" });
  private readonly onUpstreamClosed = () => this.stop({ kind: "upstreamClosed" });
}

/** Memory for what is read ahead of a session that holds. */
const aheadBytesMax = 256 * 1024;
