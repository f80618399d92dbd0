/** SQL analysis: PostgreSQL's own parser and what its trees mean for policy. Pure; the names come from the caller. */
export { analyseSql, type SqlLimits } from "./analyse.ts";
export type * from "./analysis.ts";
export { isEstimator, isReadBuiltin } from "./builtin-functions.ts";
export type * from "./names.ts";
export { unknownCode, withUnknownBody, withUnknownCode } from "./overlay.ts";
export { loadSqlParser, sqlParserReady } from "./parser.ts";
export { anyOfThese, asEither, renamedFrom } from "./perhaps.ts";
export { parseSearchPath, withImplicitSchemas } from "./search-path-value.ts";
export { shapeOf } from "./shape.ts";
export { isLoneUtility } from "./utility.ts";
