/** Reads what the API server says about a failure. */
import { KubeError, type StatusCause } from "./error.ts";

/** A KubeError from a metav1.Status. */
export function statusError(body: unknown, httpStatus: number, retryAfterSeconds?: number): KubeError {
  const said = (typeof body === "object" && body !== null ? body : {}) as {
    readonly message?: unknown;
    readonly reason?: unknown;
    readonly code?: unknown;
    readonly details?: { readonly retryAfterSeconds?: unknown; readonly causes?: unknown };
  };
  const status = typeof said.code === "number" ? said.code : httpStatus;
  const seconds = retryAfterSeconds ?? said.details?.retryAfterSeconds;
  const causes = said.details?.causes;
  return new KubeError({
    status,
    reason: typeof said.reason === "string" && said.reason !== "" ? said.reason : reasonOf(status),
    message: typeof said.message === "string" ? said.message : `the API server answered ${status}`,
    ...(typeof seconds === "number" && seconds >= 0 ? { retryAfterMs: seconds * 1000 } : {}),
    ...(Array.isArray(causes) ? { causes: causes as StatusCause[] } : {}),
  });
}

const reasons: ReadonlyMap<number, string> = new Map([
  [401, "Unauthorized"],
  [403, "Forbidden"],
  [404, "NotFound"],
  [409, "Conflict"],
  [410, "Expired"],
  [422, "Invalid"],
  [429, "TooManyRequests"],
  [500, "InternalError"],
  [503, "ServiceUnavailable"],
]);

const reasonOf = (status: number): string => reasons.get(status) ?? "Unknown";
