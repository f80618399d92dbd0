import type { Command } from "@sallyport/policy";
import type { Permit, Refusal } from "../../guard/index.ts";
import type { Permitted } from "./channel.ts";
import { command } from "./commands.ts";
import { MalformedMessage, made, message, type Reader } from "./messages.ts";
import { type GlobalRequest, portForward, type RemoteForward, socketForward } from "./remote-forward.ts";
import type { Transport } from "./transport.ts";

/** What the forwards of one connection are made of. */
export interface RemoteForwardsOptions {
  readonly client: Transport;
  readonly upstream: Transport;
  /** The resource's `forwarding.remote`. */
  readonly offered: readonly string[];
  readonly judge: (asked: Command) => Promise<Permit | Refusal>;
  readonly isDenied: (permitted: Permitted) => boolean;
  readonly refused: (noted: RemoteForward["noted"]) => void;
  readonly failed: (error: unknown) => void;
}

/** Global requests that wait for an answer. */
const waitingMax = 32;
/** Places of one connection at which the host listens. */
const listenersMax = 32;

/** Where the host listens for one client (`-R`), and the global requests by which it comes to (RFC 4254, 7.1). */
export class RemoteForwards {
  readonly #options: RemoteForwardsOptions;
  /** By what the host's channels will say. */
  readonly #listeners = new Map<string, Listening>();
  #count = 0;
  #turn: Promise<void> = Promise.resolve();
  #awaited: ((answer: Reader | undefined) => void) | undefined;

  constructor(options: RemoteForwardsOptions) {
    this.#options = options;
  }

  /** Takes a global request of the client, and answers it; false where it is about something else. */
  request(name: string, wantsReply: boolean, reader: Reader): boolean {
    const forward = this.#forward(name.replace(/^cancel-/, ""), reader);
    if (forward === undefined) return false;
    this.#inTurn(() => this.#listen(forward, name.startsWith("cancel-"), wantsReply));
    return true;
  }

  /** Answers another global request of the client, when those before are answered. */
  answer(isSuccess: boolean): void {
    const type = isSuccess ? message.requestSuccess : message.requestFailure;
    this.#inTurn(() => this.#options.client.send(made(type)));
  }

  /** The host's answer to a global request; undefined is its refusal. */
  answered(answer: Reader | undefined): void {
    this.#awaited?.(answer);
  }

  /** What lets the host open channels that come from there. */
  permitted(origin: string): Permitted | undefined {
    return this.#listeners.get(origin)?.permitted;
  }

  /** Stops what is denied now. */
  policyChanged(): void {
    for (const [key, { permitted }] of this.#listeners)
      if (this.#options.isDenied(permitted)) this.#stop(key);
  }

  /** Stops what that permit began; false where it began nothing here. */
  withdraw(number: number): boolean {
    const begun = [...this.#listeners].filter(([, { permitted }]) => permitted.number === number);
    for (const [key] of begun) this.#stop(key);
    return begun.length > 0;
  }

  #forward(name: string, reader: Reader): RemoteForward | undefined {
    const { offered } = this.#options;
    if (name === "tcpip-forward") return portForward(reader.text(), reader.uint32(), offered);
    if (name === "streamlocal-forward@openssh.com") return socketForward(reader.text(), offered);
    return undefined;
  }

  /** One after the other: answers carry no number. */
  #inTurn(task: () => Promise<void> | void): void {
    if (this.#count >= waitingMax) throw new MalformedMessage("too many global requests");
    this.#count += 1;
    this.#turn = this.#turn.then(task).catch(this.#options.failed);
    this.#turn = this.#turn.then(() => {
      this.#count -= 1;
    });
  }

  async #listen(forward: RemoteForward, isCancel: boolean, wantsReply: boolean): Promise<void> {
    const reply = (payload: Buffer) => {
      if (wantsReply) this.#options.client.send(payload);
    };
    const permitted = isCancel ? undefined : await this.#permit(forward);
    if ((isCancel ? this.#listeners.get(forward.key()) : permitted) === undefined) {
      this.#options.refused(forward.noted);
      return reply(made(message.requestFailure));
    }
    const answer = await this.#ask(isCancel ? forward.end() : forward.begin);
    if (answer === undefined) return reply(made(message.requestFailure));
    const { rest } = answer;
    const bound = rest.length >= 4 ? answer.uint32() : undefined;
    if (permitted === undefined) this.#listeners.delete(forward.key());
    else this.#listeners.set(forward.key(bound), { permitted, end: forward.end(bound) });
    // Policy may have changed while the host was asked.
    if (permitted !== undefined && this.#options.isDenied(permitted)) {
      this.#stop(forward.key(bound));
      return reply(made(message.requestFailure));
    }
    reply(made(message.requestSuccess, { raw: rest }));
  }

  async #permit({ object, isOffered }: RemoteForward): Promise<Permitted | undefined> {
    if (!isOffered || this.#listeners.size >= listenersMax) return undefined;
    const asked = command(`forward.remote ${object.name}`, "session", ["forward.remote"], [object]);
    const answer = await this.#options.judge(asked);
    return answer.kind === "permit" ? { number: answer.number, command: asked } : undefined;
  }

  /** Only ever one at a time. */
  async #ask({ name, fields }: GlobalRequest): Promise<Reader | undefined> {
    const answer = await new Promise<Reader | undefined>((resolve) => {
      this.#awaited = resolve;
      this.#options.upstream.send(made(message.globalRequest, name, true, ...fields));
    });
    this.#awaited = undefined;
    return answer;
  }

  #stop(key: string): void {
    const listening = this.#listeners.get(key);
    this.#listeners.delete(key);
    if (listening === undefined) return;
    this.#inTurn(async () => void (await this.#ask(listening.end)));
  }
}

/** A place at which the host listens for the client. */
interface Listening {
  readonly permitted: Permitted;
  readonly end: GlobalRequest;
}
