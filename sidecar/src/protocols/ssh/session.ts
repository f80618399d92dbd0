import type { SessionGuard } from "../../guard/index.ts";
import type { RelayEnd } from "../../relay/relay.ts";
import { GatewayError } from "../../wire/gateway-error.ts";
import type { resolveAddresses } from "../../wire/resolve.ts";
import type { PolicyChange } from "../protocol.ts";
import type { SessionChannel } from "./channel.ts";
import { ChannelOpens } from "./channel-opens.ts";
import { ChannelRequests } from "./channel-requests.ts";
import { CommandJudge, policyHasChanged } from "./command-judge.ts";
import { isTransfer } from "./commands.ts";
import type { Forwarding } from "./forwarding.ts";
import { MalformedMessage, made, message, Reader } from "./messages.ts";
import { RemoteForwards } from "./remote-forwards.ts";
import type { Transport } from "./transport.ts";

/** What a session is made of. */
export interface SshSessionOptions {
  readonly client: Transport;
  readonly upstream: Transport;
  readonly guard: SessionGuard;
  readonly forwarding: Forwarding;
  /** Names of variables that the resource lets clients set, beside the usual ones. */
  readonly environment: readonly string[];
  /** The host's own SSH port: nothing is forwarded to it. */
  readonly ownPort: number;
  readonly onPattern: (pattern: string) => void;
  readonly nowMs: () => number;
  readonly resolve?: typeof resolveAddresses;
}

/** Messages of one channel that wait while one is judged; their data is bounded by the window. */
const waitingMax = 2048;
const notAtThisTime = "the access policy does not allow this at this time";

/**
 * Carries the channels of one client to one host. Every request that makes the host do something is judged by itself,
 * whatever else goes through the same connection; data flows only in channels in which something was permitted.
 */
export class SshSession {
  readonly #options: SshSessionOptions;
  readonly #client: Transport;
  readonly #upstream: Transport;
  readonly #guard: SessionGuard;
  readonly #judge: CommandJudge;
  readonly #channels = new Map<number, SessionChannel>();
  readonly #remote: RemoteForwards;
  readonly #opens: ChannelOpens;
  readonly #requests: ChannelRequests;
  #lastClientMs = performance.now();
  #isSlowed = false;
  #finish: ((end: RelayEnd) => void) | undefined;

  constructor(options: SshSessionOptions) {
    this.#options = options;
    this.#client = options.client;
    this.#upstream = options.upstream;
    this.#guard = options.guard;
    this.#judge = new CommandJudge({
      guard: options.guard,
      nowMs: options.nowMs,
      say: (text) => this.say(text),
    });
    this.#remote = new RemoteForwards({
      ...{ client: options.client, upstream: options.upstream, offered: options.forwarding.remote },
      judge: (asked) => this.#judge.judge(asked),
      isDenied: ({ command: asked }) => this.#judge.isDenied(asked),
      refused: (noted) => this.#guard.note("forwardingRefused", noted),
      failed: this.#failed,
    });
    this.#opens = new ChannelOpens({
      ...options,
      judge: this.#judge,
      remote: this.#remote,
      channels: this.#channels,
      denied: (channel) => this.#endChannel(channel, policyHasChanged),
      failed: this.#failed,
    });
    this.#requests = new ChannelRequests({ ...options, judge: this.#judge, opens: this.#opens });
  }

  /** When the client last did something. That it is still there, as programs say by themselves, is no use of it. */
  get lastClientMs(): number {
    return this.#lastClientMs;
  }

  /** Carries until one side ends, or `stop`. */
  run(): Promise<RelayEnd> {
    return new Promise((resolve) => {
      this.#finish = (end) => {
        this.#finish = undefined;
        this.#close();
        resolve(end);
      };
      this.#listen(this.#client, this.#upstream, (payload) => this.#fromClient(payload), "clientClosed");
      this.#listen(this.#upstream, this.#client, (payload) => this.#fromUpstream(payload), "upstreamClosed");
      this.#guard.onCancelRunning = (number) => this.#withdraw(number);
      if (this.#client.isOver) this.stop({ kind: "clientClosed" });
      else if (this.#upstream.isOver) this.stop({ kind: "upstreamClosed" });
    });
  }

  stop(end: RelayEnd): void {
    this.#finish?.(end);
  }

  /** Tells everybody who looks at a terminal or waits for a command. */
  say(text: string): void {
    for (const channel of this.#channels.values()) {
      if (channel.running !== undefined && !isTransfer(channel.running.command)) channel.tell(text);
    }
  }

  /** What the new policy denies ends; what it would only ask about has been asked about. */
  policyChanged(what: PolicyChange): void {
    // A policy that no longer lets the whole session be ends it right after this, with another reason.
    queueMicrotask(() => {
      if (this.#finish !== undefined) this.#adoptPolicy(what);
    });
  }

  #adoptPolicy(what: PolicyChange): void {
    this.#opens.policyChanged();
    this.#remote.policyChanged();
    for (const channel of this.#channels.values()) {
      const { running, permitted } = channel;
      if (permitted !== undefined && this.#judge.isDenied(permitted.command)) {
        this.#endChannel(channel, what === "time" ? notAtThisTime : policyHasChanged);
        continue;
      }
      if (what === "time") {
        running?.sftp?.timePassed();
        continue;
      }
      running?.sftp?.policyChanged();
      if (running === undefined || running.sftp !== undefined || isTransfer(running.command)) continue;
      channel.fromUpstream.push(() => running.output.policyChanged());
    }
  }

  /** An approval was taken back: what it let run ends, and nothing else of the connection. */
  #withdraw(number: number): void {
    const taken = "the approval was taken back";
    let isFound = false;
    for (const channel of this.#channels.values()) {
      if (channel.running?.sftp?.withdraw(number) === true) isFound = true;
      if (channel.permitted?.number !== number) continue;
      this.#endChannel(channel, taken);
      isFound = true;
    }
    if (this.#remote.withdraw(number)) isFound = true;
    if (this.#opens.withdraw(number)) isFound = true;
    // What nobody can name any more cannot be let go on.
    if (!isFound) this.stop({ kind: "failed", error: new GatewayError("sessionRevoked", { detail: taken }) });
  }

  /** Ends one channel for both sides: the client is told why, and what runs gets a signal where the host passes it on. */
  #endChannel(channel: SessionChannel, text: string): void {
    if (channel.isRefused || channel.isUpstreamClosed) return;
    const { toClient, toUpstream, running } = channel;
    if (channel.kind === "session") channel.tell(text);
    if (running !== undefined) running.exit = "ended by the gateway";
    channel.isRefused = true;
    this.#ended(channel);
    toClient?.bare(message.channelEof);
    if (!channel.isClientClosed) toClient?.bare(message.channelClose);
    toUpstream?.clear();
    if (channel.isClientClosed) return;
    if (running !== undefined && toUpstream !== undefined)
      toUpstream.message(made(message.channelRequest, toUpstream.remote, "signal", false, "TERM"));
    toUpstream?.bare(message.channelClose);
  }

  #listen(
    from: Transport,
    to: Transport,
    take: (payload: Buffer) => void,
    ended: "clientClosed" | "upstreamClosed",
  ) {
    const resume = () => from.socket.resume();
    from.receiver = {
      message: (payload) => {
        try {
          take(payload);
        } catch (error) {
          this.#failed(error);
        }
        if (to.isFull && !from.socket.isPaused()) {
          from.socket.pause();
          to.socket.once("drain", resume);
        }
      },
      ended: (error) =>
        this.stop(error === undefined ? { kind: ended } : { kind: "failed", error: broken(ended, error) }),
    };
  }

  readonly #failed = (error: unknown): void =>
    this.stop({
      kind: "failed",
      error: error instanceof GatewayError ? error : new GatewayError("protocolViolation", { cause: error }),
    });

  #close(): void {
    this.#opens.end();
    for (const channel of [...this.#channels.values()]) {
      channel.fromClient.close();
      channel.fromUpstream.close();
      this.#ended(channel);
    }
    this.#channels.clear();
  }

  // ------------------------------------------------------------ from the client

  #fromClient(payload: Buffer): undefined {
    const reader = new Reader(payload);
    const type = reader.byte();
    switch (type) {
      case message.globalRequest:
        return this.#globalFromClient(reader);
      case message.requestSuccess:
      case message.requestFailure:
        return;
      case message.channelOpen:
        this.#touch();
        return this.#opens.fromClient(reader);
      case message.channelOpenConfirmation:
      case message.channelOpenFailure: {
        const isConfirmed = type === message.channelOpenConfirmation;
        if (!this.#opens.answeredByClient(isConfirmed, reader)) throw new MalformedMessage("no such channel");
        return;
      }
      case message.channelWindowAdjust:
      case message.channelData:
      case message.channelExtendedData:
      case message.channelEof:
      case message.channelClose:
      case message.channelRequest:
      case message.channelSuccess:
      case message.channelFailure:
        this.#touch();
        return this.#channelFromClient(type, reader);
      default:
        // Authentication is over, and nothing else is known.
        this.#client.send(made(message.unimplemented, this.#client.lastSequence));
    }
  }

  #touch(): void {
    this.#lastClientMs = performance.now();
  }

  #channelFromClient(type: number, reader: Reader): undefined {
    const number = reader.uint32();
    const channel = this.#channels.get(number);
    if (channel === undefined) {
      if (this.#opens.wasOpen(number)) return;
      throw new MalformedMessage("no such channel");
    }
    if (channel.isClientClosed || channel.toUpstream === undefined) return;
    if (channel.fromClient.length > waitingMax) throw new MalformedMessage("too many messages wait");
    switch (type) {
      case message.channelWindowAdjust:
        channel.toClient?.grant(reader.uint32());
        return;
      case message.channelData: {
        const data = reader.string();
        if (channel.clientAllowance?.take(data.length) !== true)
          throw new MalformedMessage("beyond the window");
        channel.fromClient.push(() => this.#dataFromClient(channel, data));
        return;
      }
      case message.channelExtendedData:
        throw new MalformedMessage("clients have no standard error");
      case message.channelEof:
        channel.fromClient.push(() => this.#endFromClient(channel));
        return;
      case message.channelRequest: {
        const request = { name: reader.text(), wantsReply: reader.boolean(), rest: reader.rest };
        channel.fromClient.push(() => this.#requests.take(channel, request));
        return;
      }
      case message.channelClose:
        if (channel.held !== undefined) {
          this.#guard.cancelHold("clientGone", channel.held);
          channel.fromClient.close();
          this.#clientClosed(channel);
        } else
          channel.fromClient.push(() => {
            this.#clientClosed(channel);
            return undefined;
          });
        return;
      default:
        // The client's answer to a request of the host, which wanted none that we hand on.
        return;
    }
  }

  #clientClosed(channel: SessionChannel): undefined {
    channel.isClientClosed = true;
    channel.toClient?.clear();
    if (!channel.isRefused) channel.toUpstream?.bare(message.channelClose);
    this.#forgetIfClosed(channel);
  }

  #dataFromClient(channel: SessionChannel, data: Buffer): Promise<void> | undefined {
    const { running } = channel;
    if (channel.isRefused || channel.isUpstreamClosed) {
      channel.clientAllowance?.giveBack(data.length);
      return undefined;
    }
    if (channel.kind === "session" && running === undefined) {
      throw new MalformedMessage("data before anything runs");
    }
    if (running?.sftp !== undefined) return running.sftp.fromClient(data);
    channel.toUpstream?.data(data);
    return undefined;
  }

  #endFromClient(channel: SessionChannel): undefined {
    if (!channel.isRefused) channel.toUpstream?.bare(message.channelEof);
    return undefined;
  }

  // ------------------------------------------------------------ global requests

  #globalFromClient(reader: Reader): undefined {
    const name = reader.text();
    const wantsReply = reader.boolean();
    if (name === "no-more-sessions@openssh.com") {
      this.#opens.noMoreSessions();
      if (wantsReply) this.#remote.answer(true);
      return;
    }
    if (!this.#remote.request(name, wantsReply, reader) && wantsReply) this.#remote.answer(false);
  }

  // ------------------------------------------------------------ from the host

  #fromUpstream(payload: Buffer): undefined {
    const reader = new Reader(payload);
    const type = reader.byte();
    switch (type) {
      case message.globalRequest: {
        reader.text();
        // Host keys and questions whether somebody is there: the gateway answers for itself.
        if (reader.boolean()) this.#upstream.send(made(message.requestFailure));
        return;
      }
      case message.requestSuccess:
        this.#remote.answered(reader);
        return;
      case message.requestFailure:
        this.#remote.answered(undefined);
        return;
      case message.channelOpen:
        return this.#opens.fromUpstream(reader);
      case message.channelOpenConfirmation:
      case message.channelOpenFailure: {
        const isConfirmed = type === message.channelOpenConfirmation;
        if (!this.#opens.answeredByUpstream(isConfirmed, reader)) throw new GatewayError("upstreamProtocol");
        return;
      }
      case message.userauthBanner:
        return;
      default:
        if (type >= message.channelWindowAdjust && type <= message.channelFailure)
          this.#channelFromUpstream(type, reader);
    }
  }

  #channelFromUpstream(type: number, reader: Reader): undefined {
    const number = reader.uint32();
    const channel = this.#channels.get(number);
    if (channel === undefined) {
      if (this.#opens.wasOpen(number)) return;
      throw new GatewayError("upstreamProtocol");
    }
    if (type === message.channelClose) {
      channel.fromUpstream.push(() => this.#upstreamClosed(channel));
      return;
    }
    if (channel.isRefused || channel.toClient === undefined) return;
    if (channel.fromUpstream.length > waitingMax) this.#slowDown(channel);
    switch (type) {
      case message.channelWindowAdjust:
        channel.toUpstream?.grant(reader.uint32());
        return;
      case message.channelData:
      case message.channelExtendedData: {
        const stream = type === message.channelData ? undefined : reader.uint32();
        const data = reader.string();
        if (channel.upstreamAllowance?.take(data.length) !== true) throw new GatewayError("upstreamProtocol");
        channel.fromUpstream.push(() => this.#dataFromUpstream(channel, data, stream));
        return;
      }
      case message.channelEof:
        channel.fromUpstream.push(async () => {
          await channel.running?.output.flush();
          channel.toClient?.bare(message.channelEof);
        });
        return;
      case message.channelRequest: {
        const name = reader.text();
        const wantsReply = reader.boolean();
        const { rest } = reader;
        channel.fromUpstream.push(() => this.#requestFromUpstream(channel, name, wantsReply, rest));
        return;
      }
      default: {
        const isSuccess = type === message.channelSuccess;
        channel.fromUpstream.push(() => {
          if (!channel.answered(isSuccess)) throw new GatewayError("upstreamProtocol");
          return undefined;
        });
      }
    }
  }

  /** A host that sends many small messages while its output is being recorded waits. */
  #slowDown(channel: SessionChannel): void {
    if (this.#isSlowed) return;
    this.#isSlowed = true;
    this.#upstream.socket.pause();
    channel.fromUpstream.push(() => {
      this.#isSlowed = false;
      this.#upstream.socket.resume();
      return undefined;
    });
  }

  #dataFromUpstream(
    channel: SessionChannel,
    data: Buffer,
    stream: number | undefined,
  ): Promise<void> | undefined {
    const { running } = channel;
    if (channel.isRefused || channel.isClientClosed) {
      channel.upstreamAllowance?.giveBack(data.length);
      return undefined;
    }
    if (running === undefined) {
      if (channel.kind === "session") throw new GatewayError("upstreamProtocol");
      if (channel.forwarded !== undefined) channel.forwarded.bytes += data.length;
      channel.toClient?.data(data, stream);
      return undefined;
    }
    running.bytes += data.length;
    if (running.sftp !== undefined) {
      if (stream === undefined) running.sftp.fromUpstream(data);
      else channel.toClient?.data(data, stream);
      return undefined;
    }
    return running.output.push(data, stream);
  }

  #requestFromUpstream(channel: SessionChannel, name: string, wantsReply: boolean, rest: Buffer): undefined {
    const { running, toClient } = channel;
    if (running !== undefined && (name === "exit-status" || name === "exit-signal")) {
      const reader = new Reader(rest);
      running.exit =
        name === "exit-status" ? `exit ${reader.uint32()}` : `signal ${reader.text().slice(0, 32)}`;
      // What is held stays so: a host says how a command ended while the rest of its output is on the way.
    }
    if (wantsReply && channel.toUpstream !== undefined) {
      channel.toUpstream.message(made(message.channelFailure, channel.toUpstream.remote));
    }
    if (!fromHost.has(name) || toClient === undefined) return undefined;
    toClient.message(made(message.channelRequest, toClient.remote, name, false, { raw: rest }));
    return undefined;
  }

  async #upstreamClosed(channel: SessionChannel): Promise<void> {
    await channel.running?.output.flush();
    channel.isUpstreamClosed = true;
    channel.toUpstream?.clear();
    // Each side's close goes to the other, which is also how the first one gets its answer.
    if (!channel.isRefused) channel.toClient?.bare(message.channelClose);
    this.#ended(channel);
    this.#forgetIfClosed(channel);
  }

  #forgetIfClosed(channel: SessionChannel): void {
    if (channel.isClientClosed && channel.isUpstreamClosed) this.#channels.delete(channel.number);
  }

  /** Accounts for what ran in it, once. */
  #ended(channel: SessionChannel): void {
    const { running, forwarded } = channel;
    if (forwarded !== undefined) {
      channel.forwarded = undefined;
      this.#account(forwarded.number, "closed", forwarded.bytes, forwarded.startedMs);
    }
    if (running === undefined) return;
    channel.running = undefined;
    running.output.end();
    running.sftp?.end();
    this.#account(running.number, running.exit ?? "closed", running.bytes, running.startedMs);
  }

  #account(number: number, tag: string, bytes: number, startedMs: number): void {
    this.#guard.response(number, { tag, rows: 0, bytes, ms: this.#options.nowMs() - startedMs });
  }
}

/** What a host tells of its own accord. */
const fromHost: ReadonlySet<string> = new Set(["exit-status", "exit-signal", "eow@openssh.com", "xon-xoff"]);

function broken(which: "clientClosed" | "upstreamClosed", cause: Error): GatewayError {
  return new GatewayError(which === "clientClosed" ? "protocolViolation" : "upstreamProtocol", { cause });
}
