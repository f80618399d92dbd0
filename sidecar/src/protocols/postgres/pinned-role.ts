/**
 * Sessions of a credential with a role run as that role. It is a start-up setting of the session upstream, so RESET ROLE,
 * RESET ALL and DISCARD ALL lead back to it (seen on PostgreSQL 14 and 18; `connectUpstream` lets nobody in where they do
 * not); statements that would leave it are refused.
 */
import type { SqlAnalyser } from "./statement-judge.ts";

/** An analyser that refuses to move the role, whatever the policy says. */
export function withPinnedRole(analyser: SqlAnalyser): SqlAnalyser {
  return {
    ...analyser,
    analyse: (sql, names, options) => {
      const analysis = analyser.analyse(sql, names, options);
      if (analysis.kind !== "analysed") return analysis;
      const moves = analysis.statements.some(({ parts }) =>
        parts.some(({ words }) => words.some((word) => leaving.has(word))),
      );
      if (!moves) return analysis;
      return {
        kind: "rejected",
        sqlstate: "42501",
        message: "the role of this session is set by the gateway",
        hint: "RESET ROLE leads back to it; connect as another user for another role.",
      };
    },
  };
}

const leaving: ReadonlySet<string> = new Set(["SET ROLE", "SET SESSION AUTHORIZATION"]);
