/** What SQL analysis says of a text; the contract between `policy/sql` and the PostgreSQL protocol. */
import type { CopyOutOptions } from "../masking/copy-options.ts";
import type { StatementLineage } from "../masking/model.ts";
import type { CommandPart, ObjectRef } from "../model.ts";

/** Something that a statement makes. */
export type MadeEffect =
  | {
      readonly kind: "createRelation";
      readonly schema?: string;
      readonly name: string;
      readonly temporary: boolean;
      readonly relationKind: "table" | "view" | "materializedView" | "sequence" | "foreignTable";
      readonly columns: readonly string[];
      /** True where it may have others than these, or in another order: not all of them stand in the text. */
      readonly hasUnsureColumns?: boolean;
      /** True where using it runs more than reviewed functions: defaults, checks, generated columns. */
      readonly hasCode?: boolean;
      /** A temporary table's fate at commit, where the text says so or says nothing (`preserve`). */
      readonly onCommit?: "preserve" | "deleteRows" | "drop";
      /** What a view reads, functions included; absent for anything else. */
      readonly reads?: readonly ObjectRef[];
    }
  | {
      readonly kind: "createFunction";
      readonly schema?: string;
      readonly name: string;
      readonly language: string;
      readonly body?: string;
      readonly securityDefiner: boolean;
      /** Its SET clauses, as the catalog keeps them; absent: none. */
      readonly settings?: readonly string[];
    }
  | { readonly kind: "createSchema"; readonly name: string }
  | { readonly kind: "createType"; readonly schema?: string; readonly name: string };

/** What a statement changes in its session once the server says that it succeeded. */
export type SessionEffect =
  | MadeEffect
  /** A body has made this, or has not come to it, or has undone it. */
  | { readonly kind: "perhaps"; readonly made: MadeEffect }
  | {
      readonly kind: "prepare";
      readonly name: string;
      readonly text: string;
      readonly parts: readonly CommandPart[];
    }
  /** `name` absent: all. */
  | { readonly kind: "deallocate"; readonly name?: string }
  | { readonly kind: "discardAll" }
  | {
      readonly kind: "setSearchPath";
      /** Absent: unknown, but for a reset. */
      readonly path?: readonly string[];
      readonly local: boolean;
      /** True where it goes back to what it was when the session began. */
      readonly isReset?: true;
      /** True where what changes it may run again until the transaction ends: a cursor, a deferred trigger. */
      readonly isLate?: true;
    }
  /** The session may run as another role from here on; `role` absent: nobody can tell which. */
  | { readonly kind: "setRole"; readonly role?: string }
  /** Its code may run later in the transaction: when a cursor is fetched from, or a trigger that is put off fires. */
  | { readonly kind: "runsLater" }
  | {
      readonly kind: "transaction";
      readonly action: "begin" | "commit" | "rollback" | "savepoint" | "release" | "rollbackTo";
      readonly name?: string;
    }
  /** Names may mean something else from here on (any DDL): the catalog must be read again. */
  | {
      readonly kind: "catalogChanged";
      /**
       * What may from here on run code that no name tells of: relations (triggers, rules, policies, defaults), or
       * everything (operators, casts, types too).
       */
      readonly code?: "relations" | "everything";
      /** True where something that was there may have got another name or schema, and no effect tells which. */
      readonly moves?: true;
      /** True of what seldom changes any: looking first whether it has costs less than reading what has changed. */
      readonly isUnlikely?: true;
    }
  | { readonly kind: "renameSchema"; readonly name: string; readonly to: string }
  | { readonly kind: "dropRelation"; readonly schema?: string; readonly name: string }
  /** A relation may have other columns from here on than those that were there, or one of that name was put in its place. */
  | { readonly kind: "alterColumns"; readonly schema?: string; readonly name: string }
  | { readonly kind: "renameRelation"; readonly schema?: string; readonly name: string; readonly to: string };

/** A function that a statement may run, or a view that it looks through: what it does is in a text of its own. */
export interface ReachedCode {
  readonly name: string;
  /** Empty where nobody can read it. */
  readonly text: string;
  readonly settings?: readonly string[];
  readonly securityDefiner?: boolean;
}

/** What application_name is set to by a statement that does nothing else, so that another can be written in its place. */
export interface NameSetting {
  /** A parameter is given by its number; absent: what it was when the session began. */
  readonly value?: string | { readonly parameter: number };
  readonly isLocal: boolean | { readonly parameter: number };
  /** Set where set_config does it: what the text calls the column of its row, if anything. */
  readonly call?: { readonly column?: string };
  /** Where the statement stands in the whole text, in characters. */
  readonly start: number;
  readonly end: number;
}

/**
 * A relation that an unqualified name means, and what is done where the name means another one further on in the search
 * path: the server looks names up once more when it has waited for a lock, and a drop may be in no catalog yet.
 */
export interface BehindName {
  readonly first: ObjectRef;
  readonly parts: readonly CommandPart[];
  /** True where nobody has to put the first one away: the role that the session runs as decides, or a plan of before. */
  readonly isLikely: boolean;
}

/** One statement of a text, judged as a unit. */
export interface StatementAnalysis {
  /** The statement's own text, cut out of the whole. */
  readonly text: string;
  /** The statement kind in the server's words, as in a command tag: `SELECT`, `CREATE TABLE`, `SET`. */
  readonly tag: string;
  readonly parts: readonly CommandPart[];
  readonly effects: readonly SessionEffect[];
  /** What its unqualified names would mean if what they mean now were gone; absent: nothing. */
  readonly behind?: readonly BehindName[];
  /** What stands behind names in it; absent where nothing does. */
  readonly code?: readonly ReachedCode[];
  /** Where its rows come from and what it tells of masked columns; absent where none are followed. */
  readonly lineage?: StatementLineage;
  /** COPY TO STDOUT: how its data is written. */
  readonly copyOut?: CopyOutOptions;
  readonly applicationName?: NameSetting;
}

/** An error in PostgreSQL's own words; `position` counts characters from 1, as in ErrorResponse field P. */
export interface SqlRejection {
  readonly kind: "rejected";
  readonly sqlstate: string;
  readonly message: string;
  readonly detail?: string;
  readonly hint?: string;
  readonly position?: number;
}

export type Analysis =
  | {
      readonly kind: "analysed";
      readonly statements: readonly StatementAnalysis[];
      /** True where other literals in the same shape of text could give other parts or effects. */
      readonly literalsMatter: boolean;
    }
  | SqlRejection;
