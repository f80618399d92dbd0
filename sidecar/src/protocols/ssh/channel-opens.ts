import type { Command } from "@sallyport/policy";
import type { SessionGuard } from "../../guard/index.ts";
import { plainAddress, resolveAddresses } from "../../wire/resolve.ts";
import { type Permitted, SessionChannel } from "./channel.ts";
import { type CommandJudge, saidOf } from "./command-judge.ts";
import { command, file, lexicalPath, thing } from "./commands.ts";
import {
  type Destination,
  destinationOf,
  type Forwarding,
  isLoopbackName,
  mayLeadSomewhere,
} from "./forwarding.ts";
import { encoded, MalformedMessage, made, message, Reader } from "./messages.ts";
import { type ChannelEnd, packetBytesMax, windowBytes } from "./pipe.ts";
import { originOf } from "./remote-forward.ts";
import type { RemoteForwards } from "./remote-forwards.ts";
import type { Transport } from "./transport.ts";

/** What the opens of one connection are made of. */
export interface ChannelOpensOptions {
  readonly client: Transport;
  readonly upstream: Transport;
  readonly guard: SessionGuard;
  readonly judge: CommandJudge;
  readonly remote: RemoteForwards;
  readonly forwarding: Forwarding;
  /** The host's own SSH port: nothing is forwarded to it. */
  readonly ownPort: number;
  /** The connection's channels, by number: one that both sides agree on is put there. */
  readonly channels: Map<number, SessionChannel>;
  readonly nowMs: () => number;
  readonly resolve?: typeof resolveAddresses;
  /** Policy has come to deny a channel while the host was asked for it. */
  readonly denied: (channel: SessionChannel) => void;
  readonly failed: (error: unknown) => void;
}

const channelsMax = 64;
const resolveMs = 5_000;

const openFailure = { prohibited: 1, connectFailed: 2, unknownType: 3, shortage: 4 } as const;

/**
 * The channels that one side asks for and the other has not agreed to yet (RFC 4254, 5.1): what the client asks for is
 * judged first, and the host opens only what was permitted before.
 */
export class ChannelOpens {
  readonly #options: ChannelOpensOptions;
  readonly #client: Transport;
  readonly #upstream: Transport;
  readonly #channels: Map<number, SessionChannel>;
  /** Opens that a side has not answered; each side answers its own only. */
  readonly #asksUpstream = new Map<number, Answered>();
  readonly #asksClient = new Map<number, Answered>();
  /** Places of opens that are being decided. */
  #deciding = 0;
  #mayOpenSessions = true;
  #isOver = false;
  #last = 0;
  /** What lets the host open channels of that type. */
  readonly #permittedTypes = new Map<string, Permitted>();

  constructor(options: ChannelOpensOptions) {
    this.#options = options;
    this.#client = options.client;
    this.#upstream = options.upstream;
    this.#channels = options.channels;
  }

  /** Whether a channel had that number: messages may still be on their way to one that is over. */
  wasOpen(number: number): boolean {
    return number > 0 && number <= this.#last;
  }

  /** The client opens no more sessions, by its own word. */
  noMoreSessions(): void {
    this.#mayOpenSessions = false;
  }

  /** Lets the host open channels of a type. */
  permit(type: string, permitted: Permitted): void {
    this.#permittedTypes.set(type, permitted);
  }

  /** Lets the host open nothing any more of what is denied now. */
  policyChanged(): void {
    for (const [type, permitted] of this.#permittedTypes)
      if (this.#options.judge.isDenied(permitted.command)) this.#permittedTypes.delete(type);
  }

  /** Takes back what that permit lets the host open; false where it lets it open nothing. */
  withdraw(number: number): boolean {
    const begun = [...this.#permittedTypes].filter(([, permitted]) => permitted.number === number);
    for (const [type] of begun) this.#permittedTypes.delete(type);
    return begun.length > 0;
  }

  /** The connection is over: the host is asked for nothing that is still being decided. */
  end(): void {
    this.#isOver = true;
  }

  // ------------------------------------------------------------ of the client

  /** The client asks for a channel. */
  fromClient(reader: Reader): undefined {
    const type = reader.text();
    const remote = reader.uint32();
    const window = reader.uint32();
    const packetMax = Math.min(reader.uint32(), packetBytesMax);
    const refuse = (code: number, text: string): undefined => {
      this.#client.send(made(message.channelOpenFailure, remote, code, text, ""));
    };
    // A maximum of 0 could never be sent anything.
    if (packetMax === 0) return refuse(openFailure.shortage, "a packet size of 0");
    if (this.#places() >= channelsMax) return refuse(openFailure.shortage, "too many channels");
    const client = { transport: this.#client, remote, window, packetMax };
    switch (type) {
      case "session":
        if (!this.#mayOpenSessions) return refuse(openFailure.prohibited, "no more sessions were asked for");
        return this.#askUpstream({ kind: "session", type, extra: Buffer.alloc(0), client });
      case "direct-tcpip": {
        // A name that is no text is no name; whoever speaks SOCKS to the client chooses it.
        const host = reader.string().toString("utf8");
        const port = reader.uint32();
        const origin = reader.rest;
        return this.#forward({ type, client, refuse }, async () => {
          const found = await this.#destination(host, port);
          if (found === undefined) return undefined;
          const extra = Buffer.concat([encoded(found.address, port), origin]);
          return { asked: forwardCommand(found), extra };
        });
      }
      case "direct-streamlocal@openssh.com": {
        const path = reader.text();
        const extra = Buffer.concat([encoded(path), reader.rest]);
        return this.#forward({ type, client, refuse }, async () => {
          const isOffered = path === lexicalPath(path) && this.#options.forwarding.sockets.includes(path);
          if (!isOffered) return undefined;
          const asked = command(`forward.socket ${path}`, "session", ["forward.socket"], [file(path)]);
          return { asked, extra };
        });
      }
      default:
        this.#options.guard.note("openRefused", { type: type.slice(0, 64) });
        return refuse(openFailure.prohibited, "not offered");
    }
  }

  /** Judges a channel to somewhere else; it has a place among the others while it is decided whether it will be one. */
  #forward({ type, client, refuse }: Asking, find: () => Promise<Found | undefined>): undefined {
    const decide = async () => {
      const found = await find();
      if (found === undefined) return refuse(openFailure.prohibited, "forwarding there is not offered");
      const { asked, extra } = found;
      const answer = await this.#options.judge.judge(asked);
      if (answer.kind === "refusal") return refuse(openFailure.prohibited, saidOf(answer, "; "));
      const permitted = { number: answer.number, command: asked };
      return this.#askUpstream({ kind: "forwarded", type, extra, client, permitted });
    };
    this.#deciding += 1;
    decide().then(() => {
      this.#deciding -= 1;
    }, this.#options.failed);
  }

  async #destination(host: string, port: number): Promise<Destination | undefined> {
    const { resolve = resolveAddresses, forwarding, ownPort, guard } = this.#options;
    const isName = /^[^\s\p{C}]{1,255}$/u.test(host) && port >= 1 && port <= 65_535;
    // Nobody is asked about a name that leads nowhere anyhow: the question alone tells others of it.
    if (!isName || !mayLeadSomewhere(port, forwarding.local)) {
      guard.note("forwardingRefused", { host: host.slice(0, 255), port });
      return undefined;
    }
    const addresses = isLoopbackName(host) ? ["127.0.0.1"] : await resolve(host, resolveMs, this);
    const address = plainAddress(this.#upstream.socket.remoteAddress ?? "");
    const found = destinationOf({ host, port, addresses }, forwarding.local, { port: ownPort, address });
    if (found === undefined) guard.note("forwardingRefused", { host: host.slice(0, 255), port });
    return found;
  }

  #askUpstream({ kind, type, extra, client, permitted }: Open): undefined {
    if (this.#isOver) return;
    const { judge, guard, nowMs, denied, failed } = this.#options;
    const number = this.#number();
    const startedMs = nowMs();
    this.#asksUpstream.set(number, (isConfirmed, fields) => {
      if (!isConfirmed) {
        if (permitted !== undefined) {
          const ms = nowMs() - startedMs;
          guard.response(permitted.number, { tag: "failed", rows: 0, bytes: 0, ms });
        }
        this.#client.send(made(message.channelOpenFailure, client.remote, { raw: fields.rest }));
        return;
      }
      const channel = new SessionChannel(kind, number, failed);
      this.#channels.set(number, channel);
      channel.open(client, endOf(this.#upstream, fields));
      if (permitted !== undefined) channel.forwarded = { ...permitted, startedMs, bytes: 0 };
      this.#confirm(this.#client, client.remote, number, fields.rest);
      // Policy may have changed while the host was asked.
      if (permitted !== undefined && judge.isDenied(permitted.command)) denied(channel);
    });
    this.#ask(this.#upstream, type, number, extra);
  }

  // ------------------------------------------------------------ of the host

  /** The host opens channels only for what was permitted before. */
  fromUpstream(reader: Reader): undefined {
    const type = reader.text();
    const remote = reader.uint32();
    const window = reader.uint32();
    const packetMax = Math.min(reader.uint32(), packetBytesMax);
    const extra = reader.rest;
    const isFit = packetMax > 0 && this.#places() < channelsMax;
    const origin = originOf(type, new Reader(extra));
    const cause = () =>
      origin === undefined ? this.#permittedTypes.get(type) : this.#options.remote.permitted(origin);
    const refuse = () =>
      this.#upstream.send(
        made(message.channelOpenFailure, remote, openFailure.prohibited, "not permitted", ""),
      );
    if (!isFit || cause() === undefined) {
      this.#options.guard.note("openRefused", { type: type.slice(0, 64) });
      refuse();
      return;
    }
    const number = this.#number();
    this.#asksClient.set(number, (isConfirmed, fields) => {
      if (!isConfirmed) {
        this.#upstream.send(made(message.channelOpenFailure, remote, { raw: fields.rest }));
        return;
      }
      // What let it may have been taken back while the client was asked.
      const stillPermitted = cause();
      if (stillPermitted === undefined) {
        this.#client.send(made(message.channelClose, fields.uint32()));
        refuse();
        return;
      }
      const channel = new SessionChannel("forwarded", number, this.#options.failed);
      channel.cause = stillPermitted;
      this.#channels.set(number, channel);
      const end = endOf(this.#client, fields);
      channel.open(end, { transport: this.#upstream, remote, window, packetMax });
      this.#confirm(this.#upstream, remote, number, fields.rest);
    });
    this.#ask(this.#client, type, number, extra);
  }

  // ------------------------------------------------------------ answers

  /** The client's answer to an open of the host; false where it was asked for none. */
  answeredByClient(isConfirmed: boolean, reader: Reader): boolean {
    return answer(this.#asksClient, isConfirmed, reader);
  }

  /** The host's answer to an open of the client; false where it was asked for none. */
  answeredByUpstream(isConfirmed: boolean, reader: Reader): boolean {
    return answer(this.#asksUpstream, isConfirmed, reader);
  }

  #ask(to: Transport, type: string, number: number, extra: Buffer): void {
    to.send(made(message.channelOpen, type, number, windowBytes, packetBytesMax, { raw: extra }));
  }

  #confirm(to: Transport, remote: number, number: number, rest: Buffer): void {
    const raw = rest;
    to.send(made(message.channelOpenConfirmation, remote, number, windowBytes, packetBytesMax, { raw }));
  }

  /** One that no channel has, and no open that is not answered. */
  #number(): number {
    do this.#last = (this.#last + 1) % 0x7fff_ffff;
    while (
      this.#channels.has(this.#last) ||
      this.#asksUpstream.has(this.#last) ||
      this.#asksClient.has(this.#last)
    );
    return this.#last;
  }

  #places(): number {
    return this.#channels.size + this.#asksUpstream.size + this.#asksClient.size + this.#deciding;
  }
}

/** An open of the client that is put to the host. */
interface Open {
  readonly kind: SessionChannel["kind"];
  readonly type: string;
  /** The type's own fields. */
  readonly extra: Buffer;
  readonly client: ChannelEnd;
  readonly permitted?: Permitted;
}

/** An open of the client that must be judged. */
interface Asking {
  readonly type: string;
  readonly client: ChannelEnd;
  readonly refuse: (code: number, text: string) => undefined;
}

/** What is judged, and the fields with which the host is asked. */
interface Found {
  readonly asked: Command;
  readonly extra: Buffer;
}

/** Told of the answer to an open: the fields of a confirmation, or of a failure, behind the channel's number. */
type Answered = (isConfirmed: boolean, fields: Reader) => void;

/** Hands an answer to whoever asked for the channel; false where nobody did. */
function answer(asks: Map<number, Answered>, isConfirmed: boolean, reader: Reader): boolean {
  const number = reader.uint32();
  const answered = asks.get(number);
  asks.delete(number);
  answered?.(isConfirmed, reader);
  return answered !== undefined;
}

function endOf(transport: Transport, confirmed: Reader): ChannelEnd {
  const remote = confirmed.uint32();
  const window = confirmed.uint32();
  const packetMax = Math.min(confirmed.uint32(), packetBytesMax);
  if (packetMax === 0) throw new MalformedMessage("a packet size of 0");
  return { transport, remote, window, packetMax };
}

function forwardCommand({ name, alias }: Destination): Command {
  const other = alias === undefined ? [] : [{ ...thing(alias), direct: false }];
  return command(`forward.local ${name}`, "session", ["forward.local"], [thing(name), ...other]);
}
