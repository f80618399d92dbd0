/** The walkers of all concerns together: each is handed to the others, because their files must not import in circles. */
import { walkFunction } from "./bodies.ts";
import { walkExpression } from "./expressions.ts";
import { walkQuery } from "./queries.ts";
import { walkStatement } from "./statements.ts";
import type { Walkers } from "./walk.ts";

export const walkers: Walkers = {
  expression: walkExpression,
  query: walkQuery,
  statement: walkStatement,
  functionInfo: walkFunction,
};
