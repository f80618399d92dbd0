import type { SessionEffect } from "@sallyport/policy";
import type { PortalEntry, StatementEntry } from "./prepared.ts";

/** A refusal in PostgreSQL's words: what the substituted statement's error is rewritten to. */
export interface SqlRefusal {
  readonly sqlstate: string;
  readonly message: string;
  readonly detail?: string;
  readonly hint?: string;
  readonly position?: number;
  /** True where the server would find this before it looks at the transaction's state (25P02). */
  readonly isFoundFirst?: boolean;
}

/** The running account of a command that the server is answering. */
export interface Running {
  /** The command's number in the recording; 0 where it has none. */
  readonly number: number;
  readonly startedMs: number;
  rows: number;
  bytes: number;
  tag: string | undefined;
  sqlstate: string | undefined;
}

/**
 * What the server owes for a message sent to it, in the order sent. PostgreSQL answers in order, so the head of the
 * queue tells what an incoming message means. `segment` counts Syncs: an error skips to the end of its segment.
 */
export type Owed =
  | {
      readonly kind: "query";
      readonly segment: number;
      readonly refusal: SqlRefusal | undefined;
      readonly running: Running | undefined;
      /** The effects of each statement of the text, applied as each completes. */
      readonly effects: readonly (readonly SessionEffect[])[];
      completed: number;
    }
  | {
      readonly kind: "parse";
      readonly segment: number;
      readonly refusal: SqlRefusal | undefined;
      readonly entry: StatementEntry | undefined;
    }
  | { readonly kind: "bind"; readonly segment: number; readonly portal: PortalEntry }
  | { readonly kind: "describe"; readonly segment: number }
  | {
      readonly kind: "execute";
      readonly segment: number;
      readonly running: Running | undefined;
      readonly effects: readonly SessionEffect[];
    }
  | { readonly kind: "close"; readonly segment: number; readonly closed: StatementEntry | undefined }
  /**
   * `maybe`: sent while COPY data was expected; the server ignores it unless the copy had already failed.
   * `copyEnds`: how many copies of the command before it the client had ended by then.
   */
  | { readonly kind: "sync"; readonly segment: number; readonly copyEnds: number; maybe: boolean };

/** The queue of what is owed. */
export class OwedQueue {
  private entries: Owed[] = [];
  private head = 0;
  /** How many entries carry effects that change what names mean. */
  unsettled = 0;

  get length(): number {
    return this.entries.length - this.head;
  }

  push(entry: Owed): void {
    this.entries.push(entry);
    if (isUnsettling(entry)) this.unsettled += 1;
  }

  first(): Owed | undefined {
    return this.entries[this.head];
  }

  at(index: number): Owed | undefined {
    return this.entries[this.head + index];
  }

  shift(): Owed | undefined {
    const entry = this.entries[this.head];
    if (entry === undefined) return undefined;
    if (isUnsettling(entry)) this.unsettled -= 1;
    this.head += 1;
    if (this.head === this.entries.length) {
      this.entries.length = 0;
      this.head = 0;
    } else if (this.head > 1024) {
      this.entries.splice(0, this.head);
      this.head = 0;
    }
    return entry;
  }
}

/** Effects that say how names or the session changed; transaction words alone change nothing here. */
export function changesNames(effects: readonly SessionEffect[]): boolean {
  return effects.some((effect) => effect.kind !== "transaction");
}

function isUnsettling(entry: Owed): boolean {
  if (entry.kind === "execute") return entry.effects.length > 0 && changesNames(entry.effects);
  return entry.kind === "query" && entry.effects.some(changesNames);
}
