/** What a session's masks make of its results: which rows and copies are rewritten, and how. */
import { createHmac, hkdfSync } from "node:crypto";
import {
  hideAll,
  type MaskDecision,
  ofWhole,
  type SessionMasking,
  type ValueMaskChoice,
} from "@sallyport/policy";
import { GatewayError } from "../../../wire/gateway-error.ts";
import type { Judged, LiveNames, StatementMasks } from "../statement-judge.ts";
import { CopyMask } from "./copy-mask.ts";
import { PatternMask } from "./pattern-mask.ts";
import { type DescribedColumn, type MaskingContext, RowMask } from "./row-mask.ts";
import { shapeShown } from "./type-shape.ts";

/** What masks of all sessions of a resource share. */
export interface MaskingServices {
  /** Makes hashes that nobody without it can test guesses against. */
  readonly key: Buffer;
  readonly onMasked: (values: number) => void;
  readonly onPattern: (pattern: string) => void;
}

/** What one session's masks rest on. */
export interface SessionMasksOptions extends MaskingServices {
  /** What policy hides now. */
  readonly masking: () => SessionMasking;
  readonly names: Pick<LiveNames, "columnAt" | "columnType" | "typeShape"> &
    Parameters<SessionMasking["columns"]["of"]>[1];
}

interface DeclaredCursor {
  readonly decision: MaskDecision;
  readonly isHeld: boolean;
  /** Of names when it was declared, where what it runs depends on them. */
  readonly version: number | undefined;
}

/** The masks of one session and the cursors that they hold for, as the server has made them one after the other. */
export class SessionMasks {
  readonly onMasked: (values: number) => void;
  /** A keyed hash of a value for recordings. */
  readonly hashOf: (value: string) => string;
  readonly #options: SessionMasksOptions;
  readonly #valueKey: Buffer;
  readonly #cursors = new Map<string, DeclaredCursor>();
  #context: MaskingContext | undefined;

  constructor(options: SessionMasksOptions) {
    this.#options = options;
    this.onMasked = options.onMasked;
    this.#valueKey = derived(options.key, "values");
    const recordKey = derived(options.key, "recordings");
    this.hashOf = (value) => createHmac("sha256", recordKey).update(value).digest("hex").slice(0, 16);
  }

  /** True where a text of its own, such as a notification's, is searched for patterns. */
  get hasPatterns(): boolean {
    return this.#options.masking().patterns.length > 0;
  }

  /** True where errors that belong to no statement may show values. */
  get hidesColumns(): boolean {
    return !this.#options.masking().columns.isEmpty;
  }

  /** A text outside any result, without what the session's patterns find in it. */
  text(value: Buffer): Buffer {
    return this.#current().patterns.applyToText(value);
  }

  /** What hides the rows of a result with these columns. */
  rows(columns: readonly DescribedColumn[], masks: StatementMasks | undefined): RowMask {
    const context = this.#current();
    return new RowMask(columns, this.#decision(masks, columns.length), context);
  }

  /** What hides the data of a COPY that has so many columns; undefined: it may pass as it is. */
  copy(count: number, isBinary: boolean, masks: StatementMasks | undefined): CopyMask | undefined {
    const context = this.#current();
    const decision = this.#decision(masks, count);
    if (decision.kind !== "mask" && context.patterns.isEmpty) return undefined;
    const options = masks?.copyOut;
    if (options === undefined || (options.kind === "binary") !== isBinary || !options.isUtf8) {
      throw new GatewayError("unsupported", { detail: "the data of this COPY cannot be masked" });
    }
    const columns = Array.from({ length: count }, (_, index) => {
      const choice = choiceAt(decision, index, count);
      const oid = this.#typeOf(choice);
      const shape = oid === undefined ? undefined : this.#options.names.typeShape?.(oid);
      return { oid, mask: choice, shape: choice === undefined ? undefined : shapeShown(shape, choice) };
    });
    const format = { ...options, forceQuote: options.forcesQuotes ? ("all" as const) : [] };
    return new CopyMask(format, columns, { patterns: context.patterns, key: context.key });
  }

  /** A cursor was declared; its rows are hidden by that decision. */
  declared(name: string, { decision, isHeld = false, runsCode }: StatementMasks): void {
    this.#current();
    const version = runsCode === true ? this.#options.names.version : undefined;
    // Beyond the bound a cursor is one that nobody knows: everything of it is hidden.
    if (this.#cursors.size < cursorsMax || this.#cursors.has(name))
      this.#cursors.set(name, { decision, isHeld, version });
    else this.#cursors.delete(name);
  }

  /**
   * The server has made a portal of the protocol, which SQL may fetch from: portals and cursors share their names, and the one
   * that was made last is the one that is there.
   */
  bound(name: string, { masks, readsPrepared }: Pick<Judged, "masks" | "readsPrepared">): void {
    if (this.#options.masking().isEmpty) return;
    const [first] = masks ?? [];
    // What a FETCH or an EXECUTE would give is decided when the server runs it, which nobody sees here.
    const isOfAnother = readsPrepared || first?.fetches !== undefined;
    this.declared(name, {
      ...first,
      decision: isOfAnother ? hideAll : (first?.decision ?? plain),
      isHeld: false,
    });
  }

  /** The transaction is over, and with it every cursor that was not held. */
  transactionEnded(): void {
    for (const [name, { isHeld }] of this.#cursors) if (!isHeld) this.#cursors.delete(name);
  }

  #decision(masks: StatementMasks | undefined, count: number): MaskDecision {
    if (masks === undefined) return hideAll;
    // More or fewer columns than the text says, and none of them masked: one of both is not what it seems.
    if (masks.width !== undefined && masks.width !== count && masks.decision.kind === "plain") return hideAll;
    if (masks.fetches === undefined) return masks.decision;
    const cursor = this.#cursors.get(masks.fetches);
    if (cursor === undefined) return hideAll;
    // Its functions may be others by now, and run anew for each row.
    const isOld = cursor.version !== undefined && cursor.version !== this.#options.names.version;
    return isOld ? hideAll : cursor.decision;
  }

  #typeOf(choice: ValueMaskChoice | undefined): number | undefined {
    // What the server prints is a text, of whatever column.
    if (choice?.hidesLiterals === true) return textOid;
    const [source] = choice?.columns ?? [];
    return choice?.isExact === true && source !== undefined
      ? this.#options.names.columnType?.(source)
      : undefined;
  }

  #current(): MaskingContext {
    const masking = this.#options.masking();
    if (this.#context?.masking === masking) return this.#context;
    // Decided under masks that hold no longer: nobody knows what to hide of these.
    this.#cursors.clear();
    const rules = masking.patterns.map(({ patterns, customPatterns, ...method }) => ({
      patterns,
      customPatterns,
      method,
    }));
    this.#context = {
      masking,
      patterns: new PatternMask(rules, this.#valueKey, this.#options.onPattern),
      originOf: (table, attribute) => this.#originOf(masking, table, attribute),
      isStored: (table, attribute) =>
        storedKinds.has(this.#options.names.columnAt?.(table, attribute)?.relation.kind ?? ""),
      shapeOf: (type) => this.#options.names.typeShape?.(type),
      key: this.#valueKey,
    };
    return this.#context;
  }

  #originOf(masking: SessionMasking, table: number, attribute: number): string | undefined {
    const { names } = this.#options;
    // System columns have numbers below zero, and hold no data.
    if (attribute < 0) return undefined;
    const origin = names.columnAt?.(table, attribute);
    const masked = origin === undefined ? undefined : masking.columns.of(origin.relation, names);
    if (origin === undefined || masked === undefined) return undefined;
    if (origin.column !== undefined) return masked.get(origin.column);
    // The whole row, or a column that is newer than the catalog in memory.
    const [first] = masked.values();
    return first;
  }
}

const cursorsMax = 1000;
const plain: MaskDecision = { kind: "plain" };
const textOid = 25;
const storedKinds: ReadonlySet<string> = new Set(["table", "partitionedTable", "foreignTable"]);

function derived(key: Buffer, purpose: string): Buffer {
  return Buffer.from(hkdfSync("sha256", key, Buffer.alloc(0), `sallyport masking ${purpose}`, 32));
}

function choiceAt(decision: MaskDecision, index: number, count: number): ValueMaskChoice | undefined {
  if (decision.kind !== "mask") return undefined;
  const { columns, rest } = decision;
  if (rest !== undefined || (columns.length === count && decision.mayShift !== true))
    return columns[index] ?? rest;
  // Another number of columns than the text says, or they may have changed places: nobody knows which is which.
  const some = columns.find((choice) => choice !== undefined);
  return some === undefined ? undefined : ofWhole(some);
}
