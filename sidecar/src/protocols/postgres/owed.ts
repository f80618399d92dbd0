import type { SessionEffect } from "@sallyport/policy";
import type { CopyMask } from "./masking/copy-mask.ts";
import type { DescribedColumn, RowMask } from "./masking/row-mask.ts";
import type { PortalEntry, StatementEntry } from "./prepared.ts";
import type { SqlRefusal } from "./refusals.ts";
import type { RowBound } from "./row-bound.ts";
import type { StatementMasks } from "./statement-judge.ts";

/** The columns of a portal, once the server has described it. */
export interface Described {
  columns: readonly DescribedColumn[] | undefined;
}

/** What a message sent to the server makes it owe; `query` also stands for FunctionCall, `probe` for a SkipProbe. */
export type OwedKind = "query" | "parse" | "bind" | "describe" | "execute" | "close" | "sync" | "probe";

/**
 * What the server owes for one message sent to it. One class for all kinds, with what some of them lack left empty:
 * every answer goes through these, and V8 reads the fields of one shape without a look-up.
 */
export class Owed {
  readonly kind: OwedKind;
  /** Counts Syncs: an error skips to the end of its segment. */
  readonly segment: number;
  /** query, parse: why the statement was replaced by one that fails. */
  refusal: SqlRefusal | undefined = undefined;
  /** parse: the statement that it makes; close: the mark that it leaves. */
  entry: StatementEntry | undefined = undefined;
  /** bind: the portal that it makes. */
  portal: PortalEntry | undefined = undefined;
  /** query, execute: the effects of each statement of the text, applied as each completes. */
  effects: readonly (readonly SessionEffect[])[] = none;
  /** True where one of the effects changes what names mean. */
  changesNames = false;
  /** query, execute: how many statements have completed. */
  completed = 0;
  /** execute: the limit on its rows, where policy sets one. */
  bound: RowBound | undefined = undefined;
  /** query, execute: how rows of each statement of the text are hidden; undefined: they pass unread. */
  masks: readonly StatementMasks[] | undefined = undefined;
  /** True where an error or notice meanwhile may show values that are masked for the session. */
  hidesErrors = false;
  /** describe: where its columns are kept; execute: where they are found. */
  described: Described | undefined = undefined;
  /** query, execute: what hides the rows that come now. */
  rowMask: RowMask | undefined = undefined;
  copyMask: CopyMask | undefined = undefined;
  /** describe: nothing of its answer is for the client, the columns included. */
  isSwallowed = false;
  /** The client has not asked for this: its answer is for the gateway alone. */
  isHidden = false;
  /** query: true once something has come that a ReadyForQuery may follow. */
  isAnswered = false;
  /** query, execute: whether its one row is the session's application_name. */
  showsName = false;
  /** query, execute: whether the text may ask for COPY's own messages. */
  mayCopy = false;
  /** execute: whether it may take COPY data, and so ignore a Sync behind it. */
  mayTakeData = false;
  /** query, execute: the command's number in the recording; 0 where it has none. */
  number = 0;
  startedMs = 0;
  rows = 0;
  bytes = 0;
  tag: string | undefined = undefined;
  sqlstate: string | undefined = undefined;
  /** query, sync: how many of both had been sent before it. */
  ends = 0;
  /** sync: sent while COPY data was expected; the server ignores it unless the copy had already failed. */
  maybe = false;
  /** query, execute: something else was executed before it in its segment. */
  isBehindOthers = false;
  /** query, execute: how many CopyDone and CopyFail the client has sent behind it; sync: how many it had by then. */
  copyEnds = 0;

  constructor(kind: OwedKind, segment: number) {
    this.kind = kind;
    this.segment = segment;
  }

  /** True where the server's rows and tags belong to this. */
  get isRunning(): boolean {
    return this.kind === "query" || this.kind === "execute";
  }
}

const none: readonly (readonly SessionEffect[])[] = [];

/**
 * What is owed, in the order sent: a ring. PostgreSQL answers in order, so the head tells what an incoming message
 * means.
 */
export class OwedQueue {
  private ring: (Owed | undefined)[] = new Array<Owed | undefined>(8).fill(undefined);
  private head = 0;
  length = 0;
  /** How many entries carry effects that change what names mean. */
  unsettled = 0;

  push(entry: Owed): void {
    if (this.length === this.ring.length) this.grow();
    this.ring[(this.head + this.length) & (this.ring.length - 1)] = entry;
    this.length += 1;
    if (entry.changesNames) this.unsettled += 1;
  }

  first(): Owed | undefined {
    return this.ring[this.head];
  }

  at(index: number): Owed | undefined {
    return index < this.length ? this.ring[(this.head + index) & (this.ring.length - 1)] : undefined;
  }

  shift(): Owed | undefined {
    const entry = this.ring[this.head];
    if (entry === undefined) return undefined;
    this.ring[this.head] = undefined;
    this.head = (this.head + 1) & (this.ring.length - 1);
    this.length -= 1;
    if (entry.changesNames) this.unsettled -= 1;
    return entry;
  }

  /** Twice as long, the head in front; the lengths are powers of two. */
  private grow(): void {
    const entries = [...this.ring.slice(this.head), ...this.ring.slice(0, this.head)];
    this.ring = entries.concat(new Array<undefined>(entries.length).fill(undefined));
    this.head = 0;
  }
}
