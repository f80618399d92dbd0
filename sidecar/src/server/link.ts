/** Questions and answers between two processes of one gateway, over the channel that Node keeps between them. */

/** The end of a channel; `send` gives back false or throws where nobody listens any more. */
export interface LinkEnd {
  send(message: object): void;
}

/** What one side answers, by the name of the question. */
export type Answers = Readonly<Record<string, (argument: never) => unknown>>;

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

/** Longer than a cancel request may take upstream. */
const answerMs = 15_000;
const waitingMax = 20_000;

/** One side: asks the other what `Theirs` lists, and answers by `mine`. */
export class Link<Theirs extends Answers> {
  private readonly end: LinkEnd;
  private readonly mine: Answers;
  private readonly waiting = new Map<number, Waiting>();
  private last = 0;

  constructor(end: LinkEnd, mine: Answers) {
    this.end = end;
    this.mine = mine;
  }

  /** Asks and waits for the answer, for a bounded time. */
  ask<Name extends keyof Theirs & string>(
    name: Name,
    argument: Parameters<Theirs[Name]>[0],
    waitMs = answerMs,
  ): Promise<Awaited<ReturnType<Theirs[Name]>>> {
    return new Promise((resolve, reject) => {
      if (this.waiting.size >= waitingMax) {
        reject(new Error("too many questions between the gateway's processes"));
        return;
      }
      this.last += 1;
      const id = this.last;
      const timer = setTimeout(() => this.settle(id, undefined, "no answer in time"), waitMs);
      timer.unref();
      // The type of the answer is the one that the other side's table gives for this name.
      const answer = resolve as (value: unknown) => void;
      this.waiting.set(id, { resolve: answer, reject, timer });
      this.transmit({ link: "ask", id, name, argument });
    });
  }

  /** Says something that needs no answer. */
  tell<Name extends keyof Theirs & string>(name: Name, argument: Parameters<Theirs[Name]>[0]): void {
    this.transmit({ link: "ask", id: 0, name, argument });
  }

  /** Takes a message of the channel; what is none of ours is left alone. */
  receive(message: unknown): void {
    if (!isLinkMessage(message)) return;
    if (message.link === "answer") {
      this.settle(message.id, message.value, message.error);
      return;
    }
    void this.answer(message.id, message.name, message.argument);
  }

  /** The other side is gone: nobody waits for it any longer. */
  close(): void {
    for (const id of [...this.waiting.keys()]) this.settle(id, undefined, "the other process has ended");
  }

  private async answer(id: number, name: string, argument: unknown): Promise<void> {
    const found = Object.hasOwn(this.mine, name) ? this.mine[name] : undefined;
    try {
      if (found === undefined) throw new Error("an unknown question");
      const value = await found(argument as never);
      if (id !== 0) this.transmit({ link: "answer", id, value });
    } catch (error) {
      const text = error instanceof Error ? error.message : "failed";
      if (id !== 0) this.transmit({ link: "answer", id, error: text });
    }
  }

  private settle(id: number, value: unknown, error: string | undefined): void {
    const waiting = this.waiting.get(id);
    if (waiting === undefined) return;
    this.waiting.delete(id);
    clearTimeout(waiting.timer);
    if (error === undefined) waiting.resolve(value);
    else waiting.reject(new Error(error));
  }

  private transmit(message: object): void {
    try {
      this.end.send(message);
    } catch {
      // The other process is ending: whoever waits learns it by `close` or by time.
    }
  }
}

type LinkMessage =
  | { readonly link: "ask"; readonly id: number; readonly name: string; readonly argument: unknown }
  | { readonly link: "answer"; readonly id: number; readonly value?: unknown; readonly error?: string };

/** The channel is between our own processes; this tells our messages from those of Node and its cluster. */
function isLinkMessage(message: unknown): message is LinkMessage {
  if (typeof message !== "object" || message === null || !("link" in message)) return false;
  return message.link === "ask" || message.link === "answer";
}
