/** SQL analysis: a text and the names of a session in, what each statement does out. Pure, synchronous, fails closed. */
import { copyOutOptions } from "../masking/copy-options.ts";
import { lineageOf } from "../masking/lineage.ts";
import type { StatementLineage } from "../masking/model.ts";
import type { MaskedColumns } from "../masking/trace.ts";
import type { CommandPart } from "../model.ts";
import type { Analysis, SessionEffect, SqlRejection, StatementAnalysis } from "./analysis.ts";
import { nameSettingOf } from "./name-setting.ts";
import type { NameResolver } from "./names.ts";
import { NameOverlay } from "./overlay.ts";
import { forgetLargeText, type ParsedStatement, parseStatements, tooComplex } from "./parser.ts";
import { positionAt, Rejected } from "./rejection.ts";
import { partsBehind } from "./relations.ts";
import { loneCallOf } from "./settings.ts";
import { walkStatement } from "./statements.ts";
import { hasMoreTokensThan } from "./token-count.ts";
import { type TreeNode, tagOf } from "./tree.ts";
import { codeOf, Walk } from "./walk.ts";
import { walkers } from "./walkers.ts";

/** Bounds on what one text may cost. */
export interface SqlLimits {
  /** Characters in one text. */
  readonly textMax: number;
  /** Tokens in one text: what parsing costs, and for how long nobody else is served. */
  readonly tokensMax: number;
  /** Statements in one text. */
  readonly statementsMax: number;
  /** Nodes of the tree, those of bodies and views behind it included. */
  readonly nodesMax: number;
}

const limitsDefault: SqlLimits = {
  textMax: 16 * 1024 * 1024,
  tokensMax: 400_000,
  statementsMax: 10_000,
  nodesMax: 2_000_000,
};

/** Statements whose parts may depend on structure alone. */
const shapeOnly = new Set(["SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt"]);

/** What an analysis is bounded by, and what it looks for beyond parts and effects. */
export interface AnalysisOptions {
  readonly limits?: SqlLimits;
  /** Columns whose values are followed through each statement; absent or empty: none are. */
  readonly masked?: MaskedColumns;
  /** True where the server may have planned the text before, and keeps to what its names meant then. */
  readonly isKept?: boolean;
}

/** Says what a text would do on the server, or the error that answers it. */
export function analyseSql(sql: string, names: NameResolver, options: AnalysisOptions = {}): Analysis {
  const analysis = analyseOnce(sql, names, options);
  // Names that grew old while it was parsed: the caller reads them anew and asks again.
  if (analysis.kind !== "rejected" || analysis.sqlstate !== namesTooOld) forgetLargeText();
  return analysis;
}

/** The answer where the catalog is too old, or cannot be read. */
const namesTooOld = "57P03";

function analyseOnce(sql: string, names: NameResolver, options: AnalysisOptions): Analysis {
  const { limits = limitsDefault } = options;
  try {
    if (sql.length > limits.textMax || hasMoreTokensThan(limits.tokensMax, sql)) throw tooComplex();
    const parsed = parseStatements(sql);
    if (parsed.length > limits.statementsMax) throw tooComplex();
    return analyseAll(parsed, new NameOverlay(names), options);
  } catch (error) {
    if (error instanceof Rejected) return withPosition(sql, error.rejection);
    // Our own stack ended on a tree that the parser could still build.
    if (error instanceof RangeError) return tooComplex().rejection;
    throw error;
  }
}

function analyseAll(
  parsed: readonly ParsedStatement[],
  overlay: NameOverlay,
  options: AnalysisOptions,
): Analysis {
  const { masked } = options;
  const statements: StatementAnalysis[] = [];
  let literalsMatter = false;
  for (const { node, text, start, end } of parsed) {
    const { walk, names, tag, parts } = walkedUntilKnown(node, text, overlay, options);
    const lineage =
      masked?.isEmpty === false
        ? lineageOf(node, parts, names, masked, { effects: walk.effects, inBodies: walk.inBodies })
        : undefined;
    const copyOut = copyOutOptions(node);
    const nameSetting = nameSettingOf(node);
    statements.push({
      text,
      tag,
      parts,
      effects: walk.effects,
      ...(walk.behind.size > 0 && { behind: partsBehind(walk, parts) }),
      ...(walk.reached.size > 0 && { code: codeOf(walk.reached) }),
      ...(lineage && { lineage }),
      ...(copyOut && { copyOut }),
      ...(nameSetting && { applicationName: { ...nameSetting, start, end } }),
    });
    // `ORDER BY 1` and `ORDER BY 2` tell of different columns.
    literalsMatter ||= lineage !== undefined && concernsMasked(lineage);
    for (const effect of walk.effects) overlay.apply(effect);
    if (walk.namesUnknownAfter) overlay.becomeUnknown();
    literalsMatter ||= walk.literalsMatter || walk.effects.length > 0 || !shapeOnly.has(tagOf(node) ?? "");
  }
  return { kind: "analysed", statements, literalsMatter };
}

/** One walk of a statement, and what it has found. */
interface Walked {
  readonly walk: Walk;
  /** The names that it was walked with. */
  readonly names: NameOverlay;
  readonly tag: string;
  readonly parts: readonly CommandPart[];
}

/**
 * Walks a statement until nothing new is found: what its code makes is there when that code runs again, in a loop, for another
 * row, by another call.
 */
function walkedUntilKnown(
  node: TreeNode,
  text: string,
  names: NameOverlay,
  options: AnalysisOptions,
): Walked {
  let found = walked(node, text, names, options);
  if (!mayMakeAgain(found.walk, node)) return found;
  for (let pass = 1; pass < passesMax; pass += 1) {
    const later = new NameOverlay(names);
    for (const effect of found.walk.effects) if (isOfNames(effect)) later.apply(effect);
    const next = walked(node, text, later, options);
    if (whatCounts(next) === whatCounts(found)) return next;
    found = next;
  }
  found.walk.addOpaque(found.tag, []);
  return { ...found, parts: found.walk.parts.build() };
}

/** Views of views of views, each made by the one code that reads the last of them. */
const passesMax = 6;

function walked(node: TreeNode, text: string, names: NameOverlay, options: AnalysisOptions): Walked {
  const { limits = limitsDefault, isKept = false } = options;
  const walk = new Walk(names, walkers, limits.nodesMax);
  walk.frame = { ...walk.frame, isKept };
  walk.loneCall = loneCallOf(node);
  const tag = walkStatement(walk, node, text);
  return { walk, names, tag, parts: walk.parts.build() };
}

/** True where code that makes something may run again: all but a block without a loop that calls nothing. */
function mayMakeAgain({ effects, reached }: Walk, node: TreeNode): boolean {
  if (!effects.some(({ kind }) => kind === "perhaps")) return false;
  return tagOf(node) !== "DoStmt" || reached.size > 0 || /\bloop\b/i.test(JSON.stringify(node));
}

function isOfNames({ kind }: SessionEffect): boolean {
  return kind === "perhaps" || kind === "alterColumns" || kind === "catalogChanged";
}

function whatCounts({ parts, walk }: Walked): string {
  return JSON.stringify([parts, walk.effects.filter(isOfNames)]);
}

function concernsMasked({ rows, findings, namesMasked }: StatementLineage): boolean {
  return (
    namesMasked === true ||
    findings.length > 0 ||
    rows.open !== undefined ||
    rows.columns.some((column) => column.flow.sources.size > 0)
  );
}

/** Name errors carry byte offsets from 0 up to here; syntax errors have their position already. */
function withPosition(sql: string, rejection: SqlRejection): SqlRejection {
  if (rejection.position === undefined || rejection.sqlstate === "42601") return rejection;
  return { ...rejection, position: positionAt(sql, rejection.position) };
}
