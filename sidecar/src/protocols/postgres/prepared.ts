import type { PreparedInfo } from "@sallyport/policy";
import { errorTable } from "../../wire/gateway-error.ts";
import type { DescribedColumn } from "./masking/row-mask.ts";
import type { SqlRefusal } from "./refusals.ts";
import { serverName } from "./server-name.ts";
import type { Judged } from "./statement-judge.ts";

/** A prepared statement as the session believes it to be, before and after the server has confirmed it. */
export class StatementEntry {
  readonly name: string;
  /** The name as far as the server tells it from others. */
  readonly key: string;
  readonly judged: Judged;
  readonly segment: number;
  /** False until ParseComplete: an error earlier in the segment makes the server skip it. */
  confirmed = false;
  /** What the name meant before, while unconfirmed. */
  previous: StatementEntry | undefined = undefined;
  /** Set where the server has a statement that must fail in its place: the Parse that the client has sent. */
  standsFor: Buffer | undefined = undefined;
  /** A text that reads values of the types that Parse has named by number, where these are a user's. */
  typesText: string | undefined = undefined;
  /** True where something else is executed before it in its segment, which may change settings. */
  isBehindOthers = false;
  /** The settings by which the server has read its literals; absent: they are not known. */
  readBy: string | undefined = undefined;
  /** True for the mark that Close leaves until CloseComplete. */
  readonly isClosed: boolean;

  constructor(name: string, judged: Judged, segment: number, isClosed = false) {
    this.name = name;
    this.key = serverName(name);
    this.judged = judged;
    this.segment = segment;
    this.isClosed = isClosed;
  }

  /** The same statement, judged anew; for a portal, and not for the names. */
  judgedAs(judged: Judged): StatementEntry {
    const entry = new StatementEntry(this.name, judged, this.segment);
    entry.typesText = this.typesText;
    entry.readBy = this.readBy;
    return entry;
  }
}

/** A portal that Bind has made. */
export class PortalEntry {
  readonly name: string;
  readonly statement: StatementEntry;
  /** The number under which Bind was recorded. */
  readonly number: number;
  readonly segment: number;
  /** False until BindComplete: an error may make the server skip its Bind, and the name then means what it meant before. */
  confirmed = false;
  /** `changes` of the prepared statements when it was bound. */
  preparedChanges = 0;
  /** Where its Bind was held: how many commands the server had been sent to run by then, or with its own last Execute. */
  heldAt: number | undefined = undefined;
  /** How many Syncs and Queries had been sent before its Bind. */
  ends = 0;
  /** Why Execute must fail: the server has a statement that does in its place. */
  refusal: SqlRefusal | undefined = undefined;
  /** Its columns as the server described them to the gateway; read where masks need them. */
  readonly described: { columns: readonly DescribedColumn[] | undefined } = { columns: undefined };
  /** Rows that the client has of it, over all Executes; counted where policy limits them. */
  rowsReturned = 0;

  constructor(name: string, statement: StatementEntry, number: number, segment: number) {
    this.name = name;
    this.statement = statement;
    this.number = number;
    this.segment = segment;
  }
}

/** What a statement fails with that the server has another in place of. */
function failureOf({ rejection, verdict }: Judged): NonNullable<PreparedInfo["rejection"]> {
  const hint = verdict.hint === undefined || verdict.hint === "" ? {} : { hint: verdict.hint };
  return rejection ?? { sqlstate: errorTable.denied.sqlstate, message: verdict.message, ...hint };
}

/**
 * Portals by name. The unnamed one stands apart: most transactions make it and end it, and a Map would be rebuilt for
 * each of them.
 */
export class Portals {
  private unnamed: PortalEntry | undefined;
  private readonly named = new Map<string, PortalEntry>();

  /** How many have a name. */
  get size(): number {
    return this.named.size;
  }

  get(name: string): PortalEntry | undefined {
    return name === "" ? this.unnamed : this.named.get(serverName(name));
  }

  /** The statements of those that have a name; one may have been closed since. */
  *statements(): Generator<StatementEntry> {
    for (const { statement } of this.named.values()) yield statement;
  }

  set(name: string, portal: PortalEntry): void {
    if (name === "") this.unnamed = portal;
    else this.named.set(serverName(name), portal);
  }

  delete(name: string): void {
    if (name === "") this.unnamed = undefined;
    else this.named.delete(serverName(name));
  }

  clear(): void {
    this.unnamed = undefined;
    this.named.clear();
  }

  /** The transaction is over: forgets what was made before the Sync or Query that has ended it. */
  endUpTo(ends: number): void {
    if (this.unnamed !== undefined && this.unnamed.ends <= ends) this.unnamed = undefined;
    if (this.named.size === 0) return;
    for (const [name, portal] of this.named) if (portal.ends <= ends) this.named.delete(name);
  }
}

/**
 * Prepared statements by name. Changes count at once, because what follows in the pipeline relies on them, and are
 * taken back when the server's error shows that it skipped them. Each name is a chain from newest to confirmed.
 */
export class PreparedStatements {
  private readonly byName = new Map<string, StatementEntry>();
  /** What was looked up for analysis: a verdict made meanwhile rests on what it meant then. */
  private readonly lookedUp = new Set<string>();
  /** How often a name was given or taken away. */
  changes = 0;

  /** How many have a name. */
  get size(): number {
    return this.byName.size - (this.byName.has("") ? 1 : 0);
  }

  /** How long the texts of those are that are kept, portals' included. Several portals of one that is closed count each. */
  textLength(portals: Portals): number {
    let length = 0;
    for (const { judged, isClosed } of this.byName.values()) if (!isClosed) length += judged.text.length;
    for (const { name, judged } of portals.statements())
      if (this.get(name)?.judged.text !== judged.text) length += judged.text.length;
    return length;
  }

  get(name: string): StatementEntry | undefined {
    const entry = this.byName.get(serverName(name));
    return entry?.isClosed ? undefined : entry;
  }

  /** What `EXECUTE name` would run, for analysis. */
  lookUp(name: string): PreparedInfo | undefined {
    this.lookedUp.add(name);
    const entry = this.get(name);
    if (entry?.standsFor !== undefined) return { parts: [], text: "", rejection: failureOf(entry.judged) };
    return entry && { parts: entry.judged.command.parts, text: entry.judged.text };
  }

  /** The names that were looked up for analysis since this was asked last. */
  takeLookedUp(): readonly string[] {
    if (this.lookedUp.size === 0) return none;
    const names = [...this.lookedUp];
    this.lookedUp.clear();
    return names;
  }

  /** The newest link of the name's chain, closing marks included. */
  newest(name: string): StatementEntry | undefined {
    return this.byName.get(serverName(name));
  }

  put(entry: StatementEntry): void {
    if (entry.name !== "") this.changes += 1;
    entry.previous = this.byName.get(entry.key);
    this.byName.set(entry.key, entry);
  }

  confirm(entry: StatementEntry): void {
    entry.confirmed = true;
    entry.previous = undefined;
    if (entry.isClosed && this.byName.get(entry.key) === entry) this.byName.delete(entry.key);
  }

  /** Takes back a change that the server never made. `failed` tells the message that raised the error itself. */
  revert(entry: StatementEntry, failed: boolean): void {
    // A Parse of the unnamed statement drops the old one before it fails.
    const before = failed && entry.name === "" && !entry.isClosed ? undefined : entry.previous;
    let link = this.byName.get(entry.key);
    if (link === entry) {
      if (before === undefined) this.byName.delete(entry.key);
      else this.byName.set(entry.key, before);
      return;
    }
    while (link !== undefined && link.previous !== entry) link = link.previous;
    if (link !== undefined) link.previous = before;
  }

  delete(name: string): void {
    this.changes += 1;
    this.byName.delete(serverName(name));
  }

  /** DEALLOCATE ALL and DISCARD ALL: the server keeps the unnamed statement, which no SQL can name. */
  clear(): void {
    this.changes += 1;
    const unnamed = this.byName.get("");
    this.byName.clear();
    if (unnamed !== undefined) this.byName.set("", unnamed);
  }
}

const none: readonly string[] = [];
