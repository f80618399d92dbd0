/** SQL analysis: a text and the names of a session in, what each statement does out. Pure, synchronous, fails closed. */
import type { CommandPart } from "../model.ts";
import type { Analysis, SqlRejection, StatementAnalysis } from "./analysis.ts";
import { walkFunction } from "./bodies.ts";
import { walkExpression } from "./expressions.ts";
import type { FunctionInfo, NameResolver } from "./names.ts";
import { NameOverlay } from "./overlay.ts";
import { type ParsedStatement, parseStatements, tooComplex } from "./parser.ts";
import { walkQuery } from "./queries.ts";
import { positionAt, Rejected } from "./rejection.ts";
import { loneCallOf } from "./settings.ts";
import { walkStatement } from "./statements.ts";
import { hasMoreTokensThan } from "./token-count.ts";
import { tagOf } from "./tree.ts";
import { Walk, type Walkers } from "./walk.ts";

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

const walkers: Walkers = {
  expression: walkExpression,
  query: walkQuery,
  statement: walkStatement,
  functionInfo: walkFunction,
};

/** Statements whose parts may depend on structure alone. */
const shapeOnly = new Set(["SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt"]);

/** Says what a text would do on the server, or the error that answers it. */
export function analyseSql(sql: string, names: NameResolver, limits: SqlLimits = limitsDefault): Analysis {
  try {
    if (sql.length > limits.textMax || hasMoreTokensThan(limits.tokensMax, sql)) throw tooComplex();
    const parsed = parseStatements(sql);
    if (parsed.length > limits.statementsMax) throw tooComplex();
    return analyseAll(parsed, new NameOverlay(names), limits);
  } catch (error) {
    if (error instanceof Rejected) return withPosition(sql, error.rejection);
    // Our own stack ended on a tree that the parser could still build.
    if (error instanceof RangeError) return tooComplex().rejection;
    throw error;
  }
}

function analyseAll(parsed: readonly ParsedStatement[], overlay: NameOverlay, limits: SqlLimits): Analysis {
  const statements: StatementAnalysis[] = [];
  let literalsMatter = false;
  for (const { node, text } of parsed) {
    const walk = new Walk(overlay, walkers, limits.nodesMax);
    walk.loneCall = loneCallOf(node);
    const tag = walkStatement(walk, node, text);
    const statement = { text, tag, parts: walk.parts.build(), effects: walk.effects };
    statements.push(statement);
    for (const effect of statement.effects) overlay.apply(effect);
    if (walk.namesUnknownAfter) overlay.becomeUnknown();
    literalsMatter ||=
      walk.literalsMatter || statement.effects.length > 0 || !shapeOnly.has(tagOf(node) ?? "");
  }
  return { kind: "analysed", statements, literalsMatter };
}

/** Name errors carry byte offsets from 0 up to here; syntax errors have their position already. */
function withPosition(sql: string, rejection: SqlRejection): SqlRejection {
  if (rejection.position === undefined || rejection.sqlstate === "42601") return rejection;
  return { ...rejection, position: positionAt(sql, rejection.position) };
}

/** What calling a function would do, by its body; an opaque part where nobody can read it. */
export function functionParts(names: NameResolver, info: FunctionInfo): readonly CommandPart[] {
  const walk = new Walk(new NameOverlay(names), walkers, limitsDefault.nodesMax);
  walkFunction(walk, info, "SELECT");
  return walk.parts.build();
}
