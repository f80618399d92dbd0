/** The contract: custom resources as types, schemas and checks. */
export type * from "./types.generated.ts";
