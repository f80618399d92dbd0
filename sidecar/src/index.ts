/** The gateway, and what the command line uses of it: identity, recording and verification. */
export type * from "./identity/model.ts";
export type * from "./recording/model.ts";
