/** What the API server answered that was not a success. */

/** Reasons of metav1.Status that the operator looks at; others pass as they are. */
export type StatusReason =
  | "NotFound"
  | "AlreadyExists"
  | "Conflict"
  | "Invalid"
  | "Forbidden"
  | "Unauthorized"
  | "Expired"
  | "Gone"
  | "TooManyRequests"
  | "ServerTimeout"
  | "Timeout"
  | "InternalError"
  | "ServiceUnavailable"
  /** No answer: the connection was refused, was cut, or broke off within the answer. */
  | "Unreachable"
  /** No answer in time. */
  | "DeadlineExceeded"
  | (string & {});

/** What a KubeError is made from. */
export interface KubeErrorDetails {
  readonly status: number;
  readonly reason: StatusReason;
  readonly message: string;
  readonly retryAfterMs?: number;
  /** What an Invalid answer blames, as field paths. */
  readonly causes?: readonly StatusCause[];
  readonly cause?: unknown;
}

/** One field that the API server did not like. */
export interface StatusCause {
  readonly field?: string;
  readonly message?: string;
  readonly reason?: string;
}

/** A failed call: the HTTP status (0 where no answer came), the reason, and how long to wait where it was said. */
export class KubeError extends Error {
  readonly status: number;
  readonly reason: StatusReason;
  readonly retryAfterMs: number | undefined;
  readonly causes: readonly StatusCause[];

  constructor({ status, reason, message, retryAfterMs, causes = [], cause }: KubeErrorDetails) {
    super(message, { cause });
    this.name = "KubeError";
    this.status = status;
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
    this.causes = causes;
  }
}

/** Whether a call failed because there is no such object. */
export function isNotFound(error: unknown): boolean {
  return error instanceof KubeError && error.status === 404;
}

/** Whether a call failed because the object changed meanwhile, or is there already. */
export function isConflict(error: unknown): boolean {
  return error instanceof KubeError && error.status === 409;
}

/** Whether a watch or a page of a list asks for a version that is no longer kept. */
export function isExpired(error: unknown): boolean {
  return error instanceof KubeError && (error.status === 410 || error.reason === "Expired");
}

/** Whether the same call may succeed later although nobody changes anything. */
export function isTransient(error: unknown): boolean {
  return error instanceof KubeError && (error.status === 0 || error.status === 429 || error.status >= 500);
}
