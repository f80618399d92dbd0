import type { Command, Verdict } from "@sallyport/policy";
import {
  type Holdable,
  HoldTurns,
  mustBeDurable,
  type Permit,
  type Refusal,
  refusal,
  type SessionGuard,
} from "../../guard/index.ts";
import type { SessionChannel } from "./channel.ts";

/** What the judge of one connection is made of. */
export interface CommandJudgeOptions {
  readonly guard: SessionGuard;
  readonly nowMs: () => number;
  /** Tells everybody of the connection what waits, where no channel asks. */
  readonly say: (text: string) => void;
}

/** What is judged beside the command itself. */
export interface Asked {
  /** The channel that asks: it is told what it waits for, and nothing waits for one that is closed. */
  readonly channel?: SessionChannel;
  /** The client's own bytes; the command's text where they are absent. */
  readonly bytes?: Buffer;
  /** Looks anew at what the command is about. */
  readonly again?: () => Promise<Command>;
}

/** Brings the commands of one connection before the guard: those that wait for approval take turns. */
export class CommandJudge {
  readonly #options: CommandJudgeOptions;
  readonly #guard: SessionGuard;
  readonly #holds = new HoldTurns();

  constructor(options: CommandJudgeOptions) {
    this.#options = options;
    this.#guard = options.guard;
  }

  /** Whether policy denies it now; what it would ask about it does not deny. */
  isDenied(command: Command): boolean {
    return !this.#guard.isObserving && this.#guard.decide(command).action === "Deny";
  }

  /** A decision, recorded; held where somebody must be asked. */
  async judge(command: Command, asked: Asked = {}): Promise<Permit | Refusal> {
    const answer = await this.#answer(command, asked);
    if (answer.kind === "refusal" || !this.isDenied(command)) return answer;
    // While it was written down policy has come to deny it.
    this.#guard.response(answer.number, { tag: "not run", rows: 0, bytes: 0, ms: 0 });
    return refusal("denied", policyHasChanged);
  }

  async #answer(command: Command, { channel, bytes, again }: Asked): Promise<Permit | Refusal> {
    let about = command.text;
    const look = async () => {
      const now = (await again?.()) ?? command;
      about = now.text;
      return now;
    };
    const holdable: Holdable = {
      command,
      inTransaction: false,
      // Asked for when its turn comes: the client may have left by then.
      get isPointless() {
        return channel?.isClientClosed === true;
      },
      get bytes() {
        return [bytes ?? Buffer.from(about)];
      },
      explained: "",
      tell: ({ message: text, detail, hint }) => {
        const said = `${text}\r\n${detail}\r\n${hint}`;
        if (channel === undefined) this.#options.say(said);
        else channel.tell(said);
      },
      begun: () => undefined,
      rejudge: async (approved) => this.#guard.decide(await look(), undefined, approved),
    };
    const request = async (found: Verdict) => {
      const record = { text: command.text, verdict: found, at: this.#options.nowMs() };
      return this.#guard.request(record, mustBeDurable(command), holdable);
    };
    const verdict = this.#guard.decide(command);
    if (verdict.action !== "RequireApproval") return request(verdict);
    const mustWait = this.#holds.isTaken;
    const turn = this.#holds.take(async () => {
      if (mustWait && (await look()).text !== command.text)
        return refusal("denied", "what it is about has changed while it waited", "Run it again.");
      return request(this.#guard.decide(command));
    });
    if (turn === undefined)
      return refusal("approvalNeeded", "too many commands of this connection wait for approval");
    if (mustWait) channel?.tell("this waits for approval, behind another command of the same connection");
    if (channel !== undefined) channel.held = holdable;
    try {
      return await turn;
    } finally {
      if (channel !== undefined) channel.held = undefined;
    }
  }
}

/** What clients are told where a new policy denies what an earlier one has permitted. */
export const policyHasChanged = "the access policy has changed";

/** A refusal as its client reads it. */
export const saidOf = ({ message, hint }: Refusal, between: string): string =>
  hint === undefined ? message : `${message}${between}${hint}`;
