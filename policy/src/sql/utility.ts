/** Which statements the server takes at Parse without looking at what they name. */
import { parseStatements } from "./parser.ts";
import { Rejected } from "./rejection.ts";
import { tagOf } from "./tree.ts";

/** Statements that are analysed when they are prepared; of all others the server looks at nothing before they run. */
const analysed = new Set(
  `SelectStmt InsertStmt UpdateStmt DeleteStmt MergeStmt DeclareCursorStmt ExplainStmt CreateTableAsStmt CallStmt
  ReturnStmt PLAssignStmt`.split(/\s+/),
);

/** True where the text is one utility statement: PostgreSQL prepares it, and fails when it runs. */
export function isLoneUtility(sql: string): boolean {
  try {
    const statements = parseStatements(sql);
    const tag = tagOf(statements[0]?.node);
    return statements.length === 1 && tag !== undefined && !analysed.has(tag);
  } catch (error) {
    if (error instanceof Rejected) return false;
    throw error;
  }
}
