/**
 * Masks of one session: what its policies hide from it, and what that means for one statement. Pure; of several masks
 * on a value the strictest holds, and what is computed from a masked value is never shown in part.
 */
import type { RuleRef, Verdict } from "../model.ts";
import { isPrinted } from "./definitions.ts";
import { type Flow, isTainted } from "./flow.ts";
import { anyColumn } from "./lineage.ts";
import { MaskedColumnSet } from "./masked-columns.ts";
import type { LineageFinding, StatementLineage } from "./model.ts";
import type { PatternName } from "./patterns.ts";

/** How a value is hidden, strictest first. */
export const maskMethods = ["Null", "Redact", "Replace", "Hash", "Partial"] as const;

/** How a masked value is shown, as `with` of an entry says it. */
export type MaskMethodName = (typeof maskMethods)[number];

/** A masking entry of a policy, its tags turned into columns. */
export interface CompiledMask {
  readonly ref: RuleRef;
  /** `schema.table.column`, `*` for any run of characters within a part. */
  readonly columns: readonly string[];
  readonly patterns: readonly PatternName[];
  readonly customPatterns: readonly { readonly name: string; readonly regex: string }[];
  readonly with: MaskMethodName;
  readonly format?: string;
  readonly liftable: boolean;
}

/** What one policy says of masking. */
export interface PolicyMasking {
  readonly masks: readonly CompiledMask[];
  readonly inference: "Deny" | "Allow";
  readonly maskedWrites: "Deny" | "Allow";
}

/** The mask that holds for one value. */
export interface ValueMaskChoice {
  readonly with: MaskMethodName;
  readonly format?: string;
  /** The entry that asked for it. */
  readonly ref: RuleRef;
  /** The masked columns that the value shows. */
  readonly columns: readonly string[];
  /** True where the value is the one column's own, and of its type. */
  readonly isExact: boolean;
  /** Of a JSON column: the parts that are hidden, each by its own mask, where not all of it is. */
  readonly paths?: readonly JsonPathChoice[];
  /** True where NULL is hidden too, because it tells of the value. */
  readonly hidesNull?: true;
  /** True of a definition that the server has printed: its literals alone are hidden. */
  readonly hidesLiterals?: true;
}

/** The mask of one part of a JSON column. */
export interface JsonPathChoice {
  readonly path: readonly string[];
  readonly with: MaskMethodName;
  readonly format?: string;
}

/** The choice for all of the value, also where it was for parts of it alone. */
export function ofWhole({ paths: _, hidesLiterals: __, ...choice }: ValueMaskChoice): ValueMaskChoice {
  return { ...choice, with: choice.with === "Null" ? "Null" : "Redact", isExact: false };
}

/** Hides whatever a result shows: for rows of which nobody knows where they come from. */
export const hideAll: MaskDecision = {
  kind: "mask",
  columns: [],
  rest: {
    with: "Redact",
    ref: { policy: "(masking)", rule: "masking", enforcement: "authoritative" },
    columns: ["*"],
    isExact: false,
  },
};

/** What masking makes of a statement. */
export type MaskDecision =
  | { readonly kind: "plain" }
  /** Refused: what the user is told, and by which entry. */
  | { readonly kind: "deny"; readonly message: string; readonly hint: string; readonly ref: RuleRef }
  | {
      readonly kind: "mask";
      /** One for each column of the rows, in order; undefined: as it is. */
      readonly columns: readonly (ValueMaskChoice | undefined)[];
      /** True where a column may be another than the text says, though there are as many. */
      readonly mayShift?: true;
      /** Of columns beyond those: set where their number is not known from the text. */
      readonly rest?: ValueMaskChoice;
    };

const plain: MaskDecision = { kind: "plain" };

/** The verdict, or a refusal by the masks where policy would let the command through. */
export function refusedByMasks(verdict: Verdict, decisions: readonly MaskDecision[]): Verdict {
  const denied = decisions.find((decision) => decision.kind === "deny");
  if (denied === undefined || verdict.action === "Deny") return verdict;
  const { message, hint, ref } = denied;
  return { ...verdict, action: "Deny", rule: ref, message, hint };
}

/** Everything that is hidden from one session. */
export class SessionMasking {
  readonly columns: MaskedColumnSet;
  readonly inference: "Deny" | "Allow";
  readonly maskedWrites: "Deny" | "Allow";
  /** Entries that look for patterns in every value. */
  readonly patterns: readonly CompiledMask[];
  readonly #masks: readonly { readonly mask: CompiledMask; readonly set: MaskedColumnSet }[];
  readonly #choices = new Map<string, ValueMaskChoice>();

  constructor(policies: readonly PolicyMasking[]) {
    const held = policies.flatMap(({ masks }) => masks);
    const masking = policies.filter(({ masks }) => masks.length > 0);
    this.columns = new MaskedColumnSet(held.flatMap((mask) => mask.columns));
    this.patterns = held.filter((mask) => mask.patterns.length + mask.customPatterns.length > 0);
    this.inference = masking.some((policy) => policy.inference === "Deny") ? "Deny" : "Allow";
    this.maskedWrites = masking.some((policy) => policy.maskedWrites === "Deny") ? "Deny" : "Allow";
    this.#masks = held
      .filter((mask) => mask.columns.length > 0)
      .map((mask) => ({ mask, set: new MaskedColumnSet(mask.columns) }));
  }

  /** True where nothing is hidden. */
  get isEmpty(): boolean {
    return this.columns.isEmpty && this.patterns.length === 0;
  }

  /** What becomes of a statement of that lineage. */
  decide(lineage: StatementLineage): MaskDecision {
    for (const finding of lineage.findings) {
      const denied = this.#refusal(finding);
      if (denied !== undefined) return denied;
    }
    const { rows } = lineage;
    const columns = rows.columns.map((column) => this.#choice(column.flow));
    const rest = rows.open === undefined ? undefined : this.#choice(rows.open);
    if (rest === undefined && columns.every((choice) => choice === undefined)) return plain;
    // Where the number of columns is open, so is which is which: all are hidden alike.
    if (rest !== undefined) return { kind: "mask", columns: [], rest };
    return lineage.mayShift === true ? { kind: "mask", columns, mayShift: true } : { kind: "mask", columns };
  }

  /** The mask of a column whose origin the server names, where lineage had none: the second witness. */
  maskOf(source: string): ValueMaskChoice {
    return this.#strictest([source], true);
  }

  #choice(flow: Flow): ValueMaskChoice | undefined {
    if (!isTainted(flow)) return undefined;
    const choice = this.#strictest([...flow.sources].sort(), flow.isExact);
    if (flow.isExact && choice.columns.every(isPrinted)) return { ...choice, hidesLiterals: true };
    return flow.tellsByNull === true ? { ...choice, hidesNull: true } : choice;
  }

  #strictest(sources: readonly string[], isExact: boolean): ValueMaskChoice {
    const key = `${isExact}|${sources.join("|")}`;
    const known = this.#choices.get(key);
    if (known !== undefined) return known;
    const masks = this.#masks.filter(({ set }) => sources.some((source) => covers(set, source)));
    const sorted = masks.toSorted((left, right) => rank(left.mask) - rank(right.mask));
    const paths = isExact ? pathsOf(sorted, sources[0] ?? "") : undefined;
    const whole = chosen(sorted[0]?.mask, sources, isExact);
    const choice = paths === undefined ? whole : { ...whole, paths };
    this.#choices.set(key, choice);
    return choice;
  }

  #refusal(finding: LineageFinding): MaskDecision | undefined {
    const { ref } = this.#strictest(finding.columns, false);
    const named = finding.columns.includes(anyColumn) ? "masked columns" : finding.columns.join(", ");
    const deny = (message: string, hint: string): MaskDecision => ({ kind: "deny", message, hint, ref });
    switch (finding.kind) {
      case "inference":
        if (this.inference === "Allow") return undefined;
        return deny(
          `${finding.where} would tell of ${named}, which is masked for you`,
          "Masked columns may be shown, but not compared, sorted, grouped or computed with.",
        );
      case "write":
        if (this.maskedWrites === "Allow") return undefined;
        return deny(
          `${finding.where} would write ${named}, which is masked for you`,
          "Whoever sees a column masked does not write it; leave it out of the statement.",
        );
      case "store":
        return deny(
          `${finding.where} would store values of ${named}, which is masked for you`,
          "Masked values may be shown, but not copied to another place.",
        );
      case "opaque":
        return deny(
          `${finding.where} reads ${named}, which is masked for you, in a way that cannot be followed`,
          "Read the table itself, or a view of it.",
        );
      case "define":
        return deny(
          `${finding.where} would touch ${named}, which is masked for you`,
          "Somebody who sees the column unmasked must make this change.",
        );
    }
  }
}

/** The parts of a JSON column that these masks hide, strictest first; undefined where one of them hides all of it. */
function pathsOf(
  masks: readonly { readonly mask: CompiledMask; readonly set: MaskedColumnSet }[],
  source: string,
): readonly JsonPathChoice[] | undefined {
  const choices: JsonPathChoice[] = [];
  for (const { mask, set } of masks) {
    const paths = set.pathsOf(source);
    if (paths === undefined) return undefined;
    const method = { with: mask.with, ...(mask.format === undefined ? {} : { format: mask.format }) };
    choices.push(...paths.map((path) => ({ path, ...method })));
  }
  return choices.length === 0 ? undefined : choices;
}

const unknownRef: RuleRef = { policy: "(masking)", rule: "masking", enforcement: "authoritative" };

function chosen(
  mask: CompiledMask | undefined,
  sources: readonly string[],
  isExact: boolean,
): ValueMaskChoice {
  // A source that no entry names is one of those that always go: other people's statements.
  if (mask === undefined) return { with: "Redact", ref: unknownRef, columns: sources, isExact };
  // What is computed from a value keeps nothing of it, not even by a hash: the computation could undo it.
  if (!isExact && (mask.with === "Partial" || mask.with === "Hash")) {
    return { with: "Redact", ref: mask.ref, columns: sources, isExact };
  }
  return {
    with: mask.with,
    ...(mask.format === undefined ? {} : { format: mask.format }),
    ref: mask.ref,
    columns: sources,
    isExact,
  };
}

function rank(mask: CompiledMask): number {
  return maskMethods.indexOf(mask.with);
}

function covers(set: MaskedColumnSet, source: string): boolean {
  return source === anyColumn || set.names(source);
}
