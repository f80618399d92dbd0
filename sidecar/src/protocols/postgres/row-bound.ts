import type { CommandPart, SessionLimits } from "@sallyport/policy";
import type { PortalEntry } from "./prepared.ts";
import type { SqlRefusal } from "./refusals.ts";
import type { Judged } from "./statement-judge.ts";

/**
 * The bound on one running statement: how many rows it may return, and how many it may change.
 *
 * The statement runs in the extended protocol, and nothing follows it to the server before it is known how it ended. Where it
 * went too far, a statement that must fail is sent next: no Sync has been sent, so that nothing of it is committed, and the
 * transaction is what an error of the server's own would have left (docs/decisions/0009).
 */
export class RowBound {
  readonly rowsMax: number | undefined;
  readonly affectedMax: number | undefined;
  /** True where the client asked with Query, and gets neither ParseComplete nor BindComplete. */
  readonly isSimple: boolean;
  readonly judged: Judged;
  private readonly portal: PortalEntry | undefined;
  exceeded: "rows" | "affectedRows" | "uncountable" | undefined = undefined;
  /** The server has ended the statement with an error. */
  hasFailed = false;
  isOver = false;

  constructor(limits: SessionLimits, judged: Judged, portal: PortalEntry | undefined, isSimple: boolean) {
    this.rowsMax = limits.rows;
    this.affectedMax = limits.affectedRows;
    this.judged = judged;
    this.portal = portal;
    this.isSimple = isSimple;
    this.rows = portal?.rowsReturned ?? 0;
  }

  /** Rows of this portal that the client has, those of earlier Executes included. */
  private rows: number;

  /** What Execute may ask for: one row more than the client may have tells that there are more. */
  rowsToAsk(asked: number): number {
    if (this.rowsMax === undefined) return asked;
    const most = this.rowsMax - this.rows + 1;
    if (asked > 0 && asked < most) return asked;
    return most > 0x7fffffff ? 0 : most;
  }

  /** Whether the client may have one more row. */
  takeRow(): boolean {
    if (this.exceeded !== undefined) return false;
    // Each row that a write returns is one that it has changed.
    const isPastWrites = this.affectedMax !== undefined && this.writes && this.rows >= this.affectedMax;
    if (isPastWrites) this.exceeded = "affectedRows";
    else if (this.rowsMax !== undefined && this.rows >= this.rowsMax) this.exceeded = "rows";
    if (this.exceeded !== undefined) return false;
    this.rows += 1;
    if (this.portal !== undefined) this.portal.rowsReturned = this.rows;
    return true;
  }

  /** Looks at how many rows a command says that it has changed. */
  takeTag(tag: string): void {
    if (this.affectedMax === undefined || this.exceeded !== undefined) return;
    const verb = tag.split(" ", 1)[0] ?? "";
    if (verb === "PREPARE" || verb === "DECLARE" || verb === "EXPLAIN") return;
    const count = Number(/ (\d+)$/.exec(tag)?.[1] ?? 0);
    const changes = changesIn(this.judged);
    // WITH x AS (DELETE …) SELECT says how many rows it returns, and not how many are gone.
    if (changes.some((part) => verbOf(part) !== verb)) this.exceeded = "uncountable";
    else if ((changes.length > 0 || this.fills) && count > this.affectedMax) this.exceeded = "affectedRows";
  }

  get refusal(): SqlRefusal {
    const { exceeded } = this;
    if (exceeded === "rows")
      return {
        sqlstate: rowsExceeded,
        message: `the result has more than the ${this.rowsMax} rows that the access policy allows`,
        hint: "Ask for fewer rows, or ask for a higher limits.rows.",
      };
    if (exceeded === "uncountable") return uncountable;
    return {
      sqlstate: affectedExceeded,
      message: `the statement would change more than the ${this.affectedMax} rows that the access policy allows`,
      hint: "Nothing of it remains. Change fewer rows at a time, or ask for a higher limits.affectedRows.",
    };
  }

  private get writes(): boolean {
    return this.judged.command.parts.some(({ operation }) => operation === "write");
  }

  /** CREATE TABLE AS and its like report what they have written as rows selected. */
  private get fills(): boolean {
    return this.judged.command.parts.some(({ operation }) => operation === "define");
  }
}

/** Why a statement cannot run under these limits at all; undefined: it can. */
export function unboundable(limits: SessionLimits, judged: Judged): SqlRefusal | undefined {
  const { command, effects } = judged;
  if (effects.length > 1) return severalStatements;
  if (limits.affectedRows === undefined) return undefined;
  const words = command.parts.map(({ words }) => words[0] ?? "");
  if (words.includes("DO") || words.includes("CALL")) return uncountable;
  const changes = changesIn(judged);
  const verbs = new Set(changes.map(verbOf));
  const isCounted = verbs.size === 1 && countable.has([...verbs][0] ?? "");
  return changes.length === 0 || (isCounted && !mayHideChanges(judged.text)) ? undefined : uncountable;
}

/** The parts that change rows of what the statement itself names; what its triggers change is not in its tag either. */
function changesIn({ command }: Judged): readonly CommandPart[] {
  return command.parts.filter(
    ({ operation, words, objects }) =>
      operation === "write" &&
      words[0] !== "SELECT FOR UPDATE" &&
      (objects.length === 0 || objects.some(({ direct }) => direct)),
  );
}

/** What the tag of a statement with this part begins with; a trigger's part begins with the statement's own verb. */
function verbOf({ words }: CommandPart): string | undefined {
  // COPY of a query that writes tells how many rows came out of it, and not how many it has changed.
  if (words[0] === "COPY" && words.length > 1) return undefined;
  return words[0] === "EXECUTE" ? words[1] : words[0];
}

/** Two writes of one kind on one table are one part: by its words alone a WITH may hold one that no tag counts. */
function mayHideChanges(text: string): boolean {
  return /\bwith\b/i.test(text) && (text.match(/\b(?:insert|update|delete|merge)\b/gi)?.length ?? 0) > 1;
}

/** Whether limits on rows concern a statement: those that only move the session or the transaction pass as they are. */
export function isBounded({ command }: Judged): boolean {
  return command.parts.some(({ operation, words }) => operation !== "session" || words[0] === "SHOW");
}

const countable = new Set(["INSERT", "UPDATE", "DELETE", "MERGE", "COPY"]);

/** SQLSTATEs of class 54, program limit exceeded, that PostgreSQL leaves free. */
const rowsExceeded = "54G01";
const affectedExceeded = "54G02";
const uncountableState = "54G03";

const uncountable: SqlRefusal = {
  sqlstate: uncountableState,
  message:
    "the access policy limits how many rows may change, and this statement does not tell how many it changes",
  hint: "Send each INSERT, UPDATE, DELETE or MERGE as a statement of its own.",
};

const severalStatements: SqlRefusal = {
  sqlstate: uncountableState,
  message: "the access policy limits rows, and this text has several statements",
  hint: "Send them one by one.",
};
