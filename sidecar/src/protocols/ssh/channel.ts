import type { Command } from "@sallyport/policy";
import type { Holdable } from "../../guard/index.ts";
import type { CommandOutput } from "./command-output.ts";
import { made, message, standardError } from "./messages.ts";
import { Allowance, type ChannelEnd, Lane, Pipe } from "./pipe.ts";
import type { SftpGate } from "./sftp-gate.ts";
import type { AsciiSize } from "./terminal-request.ts";

/** One channel of a session: its two ends, what runs in it, and what is owed to whom. */
export class SessionChannel {
  readonly kind: "session" | "forwarded";
  /** The gateway's own number, the same to both sides. */
  readonly number: number;
  readonly fromClient: Lane;
  readonly fromUpstream: Lane;
  /** Set when both sides have confirmed. */
  toClient: Pipe | undefined;
  toUpstream: Pipe | undefined;
  clientAllowance: Allowance | undefined;
  upstreamAllowance: Allowance | undefined;
  /** Answers that the client waits for, in order: from the host, or our own. */
  private readonly owed: ("host" | boolean)[] = [];
  /** What runs: a session channel runs one thing in its life. */
  running: Running | undefined;
  isAsked = false;
  terminal: AsciiSize | undefined;
  isClientClosed = false;
  isUpstreamClosed = false;
  /** The gateway has ended it: whatever still comes is ignored. */
  isRefused = false;
  /** What waits for somebody's approval. */
  held: Holdable | undefined;
  /** Of a forwarding: what let it be, and what has gone through it. */
  forwarded: (Permitted & { readonly startedMs: number; bytes: number }) | undefined;
  /** Of a channel that the host has opened: what let it. */
  cause: Permitted | undefined;

  constructor(kind: SessionChannel["kind"], number: number, failed: (error: unknown) => void) {
    this.kind = kind;
    this.number = number;
    this.fromClient = new Lane(failed);
    this.fromUpstream = new Lane(failed);
  }

  /** What let it be; undefined while nothing runs in it. */
  get permitted(): Permitted | undefined {
    return this.running ?? this.forwarded ?? this.cause;
  }

  /** Both sides agree: bytes may flow. */
  open(client: ChannelEnd, upstream: ChannelEnd): void {
    this.clientAllowance = new Allowance(client);
    this.upstreamAllowance = new Allowance(upstream);
    this.toClient = new Pipe(client, this.upstreamAllowance.giveBack);
    this.toUpstream = new Pipe(upstream, this.clientAllowance.giveBack);
  }

  /** The host will answer. */
  owesHost(): void {
    this.owed.push("host");
  }

  /** Our own answer, in its turn. */
  answer(isSuccess: boolean): void {
    this.owed.push(isSuccess);
    this.flushAnswers();
  }

  /** The host's answer; false where it owes none. */
  answered(isSuccess: boolean): boolean {
    if (this.owed[0] !== "host") return false;
    this.owed[0] = isSuccess;
    this.flushAnswers();
    return true;
  }

  private flushAnswers(): void {
    for (let next = this.owed[0]; typeof next === "boolean"; next = this.owed[0]) {
      this.owed.shift();
      const type = next ? message.channelSuccess : message.channelFailure;
      if (this.toClient !== undefined) this.toClient.message(made(type, this.toClient.remote));
    }
  }

  /** Text of the gateway's own, on the client's standard error. */
  tell(text: string): void {
    this.toClient?.data(Buffer.from(`sallyport: ${text}\r\n`), standardError, 0);
  }
}

/** What policy has let be. */
export interface Permitted {
  /** The command's number in the recording. */
  readonly number: number;
  readonly command: Command;
}

/** What runs in a channel. */
export interface Running extends Permitted {
  readonly startedMs: number;
  readonly output: CommandOutput;
  readonly sftp?: SftpGate;
  bytes: number;
  exit?: string;
}
