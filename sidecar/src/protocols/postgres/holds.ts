import { oneLine } from "@sallyport/control";
import type { Verdict } from "@sallyport/policy";
import type { Holdable, HoldContext } from "../../guard/index.ts";
import { fieldsInAscii } from "./client-encodings.ts";
import { errorFrame } from "./frames.ts";
import { FramesAhead } from "./frames-ahead.ts";
import type { StatementEntry } from "./prepared.ts";
import { recorded } from "./recorded-text.ts";
import type { PostgresSessionOptions, SessionState } from "./session-state.ts";
import type { Judged } from "./statement-judge.ts";
import type { TimelyJudge } from "./timely-judge.ts";

/** What one session's commands need to wait for people: names that are new, what the guard asks for, and an eye on the client. */
export class Holds {
  private readonly options: PostgresSessionOptions;
  private readonly state: SessionState;
  private readonly judge: TimelyJudge;
  /** When names were last read anew for a command that was to be held. */
  private preparedMs = Number.NEGATIVE_INFINITY;

  constructor(options: PostgresSessionOptions, state: SessionState, judge: TimelyJudge) {
    this.options = options;
    this.state = state;
    this.judge = judge;
  }

  /** True where a command waits for people instead of being refused. */
  mayHold({ verdict }: Judged): boolean {
    return verdict.action === "RequireApproval" && !this.options.guard.isObserving;
  }

  /** What people are asked about rests on no old names, and whether locks are held is known. */
  mustPrepare(judged: Judged): boolean {
    if (!this.mayHold(judged)) return false;
    return this.state.mustSettle || this.options.clock.monotonicMs() - this.preparedMs > preparedForMs;
  }

  async prepare(then: () => Promise<void> | undefined): Promise<void> {
    // A Flush that nothing needs would stop the server's own clock of idle transactions.
    if (this.state.mustSettle) await this.judge.settled();
    // Where the catalog cannot be read now, judging the text again says so.
    await this.options.names.refresh(true).catch(() => undefined);
    this.preparedMs = this.options.clock.monotonicMs();
    if (!this.state.isIgnored) await then();
  }

  /** What the guard needs to hold a command; `rest` is what the client has sent behind it. */
  heldBy(judged: Judged, bytes: readonly Buffer[], rest: Buffer, entry?: StatementEntry): Held {
    const { state, options } = this;
    // The next one is prepared by itself: what is compared later is what was true when it was asked.
    this.preparedMs = Number.NEGATIVE_INFINITY;
    const holdable: Holdable = {
      command: judged.command,
      inTransaction: state.transaction === "T" || state.executedIn === state.segment,
      isPointless: state.transaction === "E",
      bytes,
      explained: this.explained(judged),
      context: this.contextOf(judged, entry),
      tell: (notice) => {
        const fields = { severity: "NOTICE", sqlstate: "00000", ...notice } as const;
        state.say(errorFrame(options.judge.isOutsideUtf8 ? fieldsInAscii(fields) : fields));
      },
      begun: () => this.watchClient(rest),
      rejudge: async (approved) =>
        (await options.names.readAnew(() => rejudged(approved))) ?? {
          ...judged.verdict,
          action: "Deny",
          message: "the catalog cannot be read",
        },
    };
    const held: Held = { holdable, judged };
    const rejudged = (approved: ReadonlySet<string>): Verdict => {
      const again = options.judge.judge(judged.text, judged.plannedAt);
      if (again.verdict.action === "Deny") return again.verdict;
      const verdict = options.guard.decide(again.command, undefined, approved);
      if (!meansTheSame(again, judged))
        return {
          ...verdict,
          action: "Deny",
          message: "what its names mean has changed since it was asked",
        };
      held.judged = { ...again, verdict };
      return verdict;
    };
    return held;
  }

  /** What stands behind the names of prepared statements: the approvers see what would run. */
  private explained({ executes }: Judged): string {
    const shown = executes.flatMap((name) => {
      const found = this.state.statements.get(name);
      if (found === undefined) return [];
      const { text } = recorded(found.judged, this.options.masks.hashOf);
      return [`-- ${oneLine(name)} is: ${text}`];
    });
    return shown.join("\n");
  }

  /** What the text does not say: what its names mean here, and by which settings the server reads it. */
  private contextOf(judged: Judged, entry: StatementEntry | undefined): readonly HoldContext[] {
    const { state, options } = this;
    const { settings } = state;
    const { searchPath, movedRoles = [] } = options.names;
    const session = [
      `schemas ${searchPath?.map(quoted).join(", ") ?? "not known"}`,
      settings.values,
      ...(movedRoles.length === 0 ? [] : [`role perhaps ${movedRoles.map(quoted).join(", ")}`]),
      ...(state.mayHaveSetIn === state.segment ? ["settings as they were before this pipeline"] : []),
    ];
    const prepared = [
      ...(entry === undefined ? [] : [entry]),
      ...judged.executes.flatMap((name) => state.statements.get(name) ?? []),
    ];
    const readBy = new Set(prepared.map((one) => one.readBy ?? "settings that are not known"));
    readBy.delete(settings.values);
    return [
      ...touchedBy(judged).map((text) => ({ label: "Touches", text })),
      { label: "Session", text: session.join("; ") },
      ...[...readBy].map((text) => ({ label: "Prepared", text: `by ${text}` })),
      ...(settings.others.length === 0 ? [] : [{ label: "Also set", text: settings.others.join(", ") }]),
    ].map(({ label, text }) => ({ label, text: oneLine(text) }));
  }

  /** While a command is held, the client may still say that it ends. */
  private watchClient(rest: Buffer): void {
    const { options, state } = this;
    const ahead = new FramesAhead();
    const watch = (chunk: Buffer) => {
      if (!options.guard.isHolding || !ahead.sees(chunk)) return;
      state.isEnded = true;
      options.guard.cancelHold("clientGone");
      options.onTerminate();
    };
    watch(rest);
    options.readAhead?.(watch);
  }
}

/** Each part's words with its objects by their whole names; of those behind views, cascades and bodies only some. */
function touchedBy({ command, hidesLiterals }: Judged): readonly string[] {
  const lines = command.parts.map(({ words, objects, unbounded }) => {
    // A file's or a lock's name stands in the text as a literal.
    const named = objects.filter(({ kind }) => !hidesLiterals || (kind !== "file" && kind !== "other"));
    const namesOf = (isDirect: boolean) => [
      ...new Set(named.filter(({ direct }) => direct === isDirect).map(({ name }) => quoted(name))),
    ];
    const behind = namesOf(false);
    const more = behind.length > behindMax ? [`${behind.length - behindMax} more`] : [];
    const through = [...behind.slice(0, behindMax), ...more].join(", ");
    return [
      `${words.join(" ")}: ${namesOf(true).join(", ") || "nothing by name"}`,
      ...(unbounded ? [" (all rows)"] : []),
      ...(through === "" ? [] : [`, and through them ${through}`]),
    ].join("");
  });
  return [...new Set(lines)];
}

/** A partitioned table may have thousands. */
const behindMax = 20;

/** A name with a comma or a blank must not read as two. */
const quoted = (name: string) => (/^[\p{L}\p{N}_$.*-]+$/u.test(name) ? name : JSON.stringify(name));

/** True where a text touches the same things in the same way as when it was asked about. */
export function meansTheSame(again: Judged, asked: Judged): boolean {
  // Another body may touch the same things: whoever approved a call has looked at what it did then.
  return (
    JSON.stringify(again.command.parts) === JSON.stringify(asked.command.parts) &&
    JSON.stringify(again.code) === JSON.stringify(asked.code)
  );
}

/** Names that are this new are good enough to ask people about. */
const preparedForMs = 1_000;

/** A command that may be held, and what judging it anew has made of it. */
interface Held {
  readonly holdable: Holdable;
  judged: Judged;
}
