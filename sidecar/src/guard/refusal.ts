import type { ErrorCode } from "../wire/gateway-error.ts";

/** Why a command may not run, in words for the client. */
export interface Refusal {
  readonly kind: "refusal";
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string;
  /** True where nothing of it could be recorded. */
  readonly isUnrecorded?: true;
}

/** Makes a refusal. */
export function refusal(code: ErrorCode, message: string, hint?: string): Refusal {
  return { kind: "refusal", code, message, ...(hint === undefined ? {} : { hint }) };
}
