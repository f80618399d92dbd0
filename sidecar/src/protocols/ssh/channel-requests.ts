import type { Command } from "@sallyport/policy";
import { type Permit, type Refusal, refusal, type SessionGuard } from "../../guard/index.ts";
import type { Running, SessionChannel } from "./channel.ts";
import type { ChannelOpens } from "./channel-opens.ts";
import { type CommandJudge, saidOf } from "./command-judge.ts";
import { CommandOutput } from "./command-output.ts";
import { command, execCommand, isTransfer, shellCommand, thing } from "./commands.ts";
import type { Forwarding } from "./forwarding.ts";
import { made, message, NotText, Reader } from "./messages.ts";
import { SftpGate } from "./sftp-gate.ts";
import { mayBeSet, terminalOf } from "./terminal-request.ts";
import type { Transport } from "./transport.ts";

/** What the channel requests of one connection are made of. */
export interface ChannelRequestsOptions {
  readonly upstream: Transport;
  readonly guard: SessionGuard;
  readonly judge: CommandJudge;
  readonly opens: ChannelOpens;
  readonly forwarding: Forwarding;
  /** Names of variables that the resource lets clients set, beside the usual ones. */
  readonly environment: readonly string[];
  readonly onPattern: (pattern: string) => void;
  readonly nowMs: () => number;
}

/** `byte SSH_MSG_CHANNEL_REQUEST, uint32 channel, string name, boolean want reply, ...` (RFC 4254, 5.4). */
export interface ChannelRequest {
  readonly name: string;
  readonly wantsReply: boolean;
  /** The request's own fields. */
  readonly rest: Buffer;
}

/** Of a shell that finds a command and may not run it. */
const refusedStatus = 126;
/** Says to the gateway why its sender does what follows on the connection; the host never sees it. */
const reasonVariable = "SALLYPORT_REASON";

/**
 * What the client asks of its channels (RFC 4254, 6): a terminal, variables, forwardings of its agent and display, and
 * what is to run. What makes the host do something is judged; what is not known is refused.
 */
export class ChannelRequests {
  readonly #options: ChannelRequestsOptions;
  readonly #guard: SessionGuard;
  readonly #judge: CommandJudge;

  constructor(options: ChannelRequestsOptions) {
    this.#options = options;
    this.#guard = options.guard;
    this.#judge = options.judge;
  }

  /** Takes one request. A promise: nothing more of the channel's client may be given until it resolves. */
  take(channel: SessionChannel, { name, wantsReply, rest }: ChannelRequest): Promise<void> | undefined {
    if (channel.isRefused) return undefined;
    const asking: Asking = {
      channel,
      rest,
      pass: () => {
        if (wantsReply) channel.owesHost();
        const { toUpstream } = channel;
        toUpstream?.message(made(message.channelRequest, toUpstream.remote, name, wantsReply, { raw: rest }));
      },
      refuse: (why) => {
        if (why !== undefined) this.#guard.note("requestRefused", { request: name.slice(0, 64), why });
        if (wantsReply) channel.answer(false);
      },
      took: () => {
        if (wantsReply) channel.answer(true);
      },
    };
    if (channel.kind !== "session") return asking.refuse("no session");
    try {
      return this.#known(asking, name, new Reader(rest));
    } catch (error) {
      if (!(error instanceof NotText)) throw error;
      if (name !== "exec" || channel.isAsked) return asking.refuse("no UTF-8 text");
      channel.isAsked = true;
      this.#guard.note("requestRefused", { request: name, why: "no UTF-8 text" });
      refuseRun(channel, refusal("denied", "the command is no UTF-8 text"));
      return undefined;
    }
  }

  #known(asking: Asking, name: string, reader: Reader): Promise<void> | undefined {
    const { channel, pass, refuse } = asking;
    switch (name) {
      case "pty-req":
        if (channel.isAsked || channel.terminal !== undefined) return refuse("there is a terminal already");
        channel.terminal = terminalOf(reader);
        return channel.terminal === undefined ? refuse("terminal type") : pass();
      case "window-change":
        return this.#resized(asking, reader);
      case "signal":
      case "break":
        return channel.running === undefined ? refuse() : pass();
      case "eow@openssh.com":
        return pass();
      case "env":
        return this.#environment(asking, reader);
      case "shell":
        return this.#start(asking, shellCommand());
      case "exec":
        return this.#start(asking, execCommand(reader.text()));
      case "subsystem": {
        const subsystem = reader.text();
        if (subsystem !== "sftp") return refuse(`subsystem ${subsystem.slice(0, 64)}`);
        return this.#start(asking, command("subsystem sftp", "read", ["subsystem"], []));
      }
      case "auth-agent-req@openssh.com":
        if (!this.#options.forwarding.agent) return refuse("agent forwarding is not offered");
        return this.#forward(asking, "agent", "auth-agent@openssh.com");
      case "x11-req":
        if (!this.#options.forwarding.x11) return refuse("X11 forwarding is not offered");
        return this.#forward(asking, "x11", "x11");
      default:
        return refuse("unknown request");
    }
  }

  #resized({ channel, pass, refuse }: Asking, reader: Reader): undefined {
    const { terminal, running } = channel;
    if (terminal === undefined) return refuse();
    const [width, height] = [reader.uint32(), reader.uint32()];
    channel.terminal = { ...terminal, width: Math.min(width, 10_000), height: Math.min(height, 10_000) };
    if (running?.output.isRecorded === true) {
      this.#guard.note("resized", { command: running.number, width, height });
    }
    return pass();
  }

  #environment({ channel, pass, refuse, took }: Asking, reader: Reader): undefined {
    const name = reader.text();
    const value = reader.text();
    if (channel.isAsked) return refuse("something runs already");
    if (name === reasonVariable && reader.isAtEnd) {
      this.#guard.giveReason(value);
      return took();
    }
    const mayPass = reader.isAtEnd && mayBeSet(name, value, this.#options.environment);
    return mayPass ? pass() : refuse(`variable ${name.slice(0, 64)}`);
  }

  /** Once it is permitted, the host may open channels of that type. */
  async #forward({ channel, pass, refuse }: Asking, what: string, type: string): Promise<void> {
    const asked = command(`forward ${what}`, "session", [`forward.${what}`], [thing(what)]);
    const answer = await this.#judge.judge(asked, { channel });
    if (channel.isClientClosed) return;
    if (answer.kind === "refusal") return refuse();
    this.#options.opens.permit(type, { number: answer.number, command: asked });
    pass();
  }

  // ------------------------------------------------------------ what runs

  /** Judges what a session channel is asked to run; the channel runs one thing in its life (RFC 4254, 6.5). */
  async #start({ channel, pass, refuse, rest }: Asking, asked: Command): Promise<void> {
    if (channel.isAsked) return refuse("something runs already");
    channel.isAsked = true;
    const answer = await this.#judge.judge(asked, { channel, bytes: rest });
    if (channel.isClientClosed) return;
    if (answer.kind === "refusal") {
      refuseRun(channel, answer);
      return;
    }
    channel.running = this.#running(channel, asked, answer);
    pass();
  }

  #running(channel: SessionChannel, asked: Command, { number }: Permit): Running {
    const isSftp = asked.parts[0]?.words[0] === "subsystem";
    const isText = !isSftp && !isTransfer(asked);
    const { terminal } = channel;
    if (terminal !== undefined && isText) {
      const { term, width, height } = terminal;
      this.#guard.note("terminal", { command: number, term, width, height });
    }
    return {
      number,
      command: asked,
      startedMs: this.#options.nowMs(),
      output: this.#output(channel, number, isText),
      ...(isSftp ? { sftp: this.#gate(channel) } : {}),
      bytes: 0,
    };
  }

  #output(channel: SessionChannel, number: number, isText: boolean): CommandOutput {
    return new CommandOutput({
      guard: this.#guard,
      number,
      isText,
      hasTerminal: channel.terminal !== undefined,
      onPattern: this.#options.onPattern,
      isStopped: () =>
        channel.fromUpstream.isBusy ||
        channel.toClient?.isStopped === true ||
        this.#options.upstream.socket.isPaused(),
      inTurn: (task) => channel.fromUpstream.push(task),
      toClient: (bytes, stream, credit) => channel.toClient?.data(bytes, stream, credit),
    });
  }

  #gate(channel: SessionChannel): SftpGate {
    return new SftpGate({
      judge: (asked, again) => this.#judge.judge(asked, { channel, again }),
      isStillAllowed: (asked) => this.#guard.isObserving || this.#guard.decide(asked).action === "Allow",
      isDenied: (asked) => this.#judge.isDenied(asked),
      toUpstream: (bytes, credit) => channel.toUpstream?.data(bytes, undefined, credit),
      toClient: (bytes, credit) => channel.toClient?.data(bytes, undefined, credit),
      dropped: (bytes) => channel.clientAllowance?.giveBack(bytes),
      nowMs: this.#options.nowMs,
      transferred: (number, { path, readBytes, writtenBytes, isCopiedInto, sha256 }, ms) => {
        const bytes = readBytes + writtenBytes;
        const tag = writtenBytes > 0 || isCopiedInto ? "put" : "get";
        this.#guard.response(number, { tag, rows: 0, bytes, ms });
        this.#guard.note("sftpTransfer", {
          command: number,
          path,
          readBytes,
          writtenBytes,
          ...(isCopiedInto ? { copiedInto: true } : {}),
          ...(sha256 === undefined ? {} : { sha256 }),
        });
      },
    });
  }
}

/** A request, and how it goes on. */
interface Asking {
  readonly channel: SessionChannel;
  /** The request's own fields. */
  readonly rest: Buffer;
  readonly pass: () => undefined;
  readonly refuse: (why?: string) => undefined;
  /** The gateway itself has done what was asked: the host is told nothing. */
  readonly took: () => undefined;
}

/**
 * The client is told why on its standard error, and gets an exit status: a bare failure would close OpenSSH's
 * connection with all its other channels.
 */
function refuseRun(channel: SessionChannel, answer: Refusal): void {
  channel.isRefused = true;
  const { toClient, toUpstream } = channel;
  if (toClient === undefined || toUpstream === undefined) return;
  channel.answer(true);
  channel.tell(saidOf(answer, "\r\n"));
  toClient.message(made(message.channelRequest, toClient.remote, "exit-status", false, refusedStatus));
  toClient.bare(message.channelEof);
  toClient.bare(message.channelClose);
  toUpstream.clear();
  toUpstream.bare(message.channelClose);
}
