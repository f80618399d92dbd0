/** Failures with a public face: clients see the public text and an id, causes go to the log. */

/** One row for each way a session can fail; the SQLSTATE is what PostgreSQL would use for it. */
export const errorTable = {
  denied: { sqlstate: "42501", text: "the access policy does not allow this" },
  approvalNeeded: { sqlstate: "42501", text: "this needs approval" },
  holdCancelled: { sqlstate: "57014", text: "canceling statement due to user request" },
  identityRefused: { sqlstate: "28000", text: "the identity was refused" },
  lockedOut: { sqlstate: "28000", text: "too many failed logins" },
  tlsRequired: { sqlstate: "28000", text: "connections must use TLS" },
  unknownUser: { sqlstate: "28000", text: "no credential of this resource serves that user" },
  unknownDatabase: { sqlstate: "3D000", text: "that database is not served here" },
  protocolViolation: { sqlstate: "08P01", text: "protocol violation" },
  invalidEncoding: { sqlstate: "22021", text: 'invalid byte sequence for encoding "UTF8"' },
  unsupported: { sqlstate: "0A000", text: "not supported by the gateway" },
  settingRefused: { sqlstate: "22023", text: "the server does not take a start-up setting" },
  tooLarge: { sqlstate: "54000", text: "the message is larger than the gateway accepts" },
  tooManySessions: { sqlstate: "53300", text: "too many connections" },
  rateExceeded: { sqlstate: "53400", text: "the statement rate that the access policy sets is exceeded" },
  recordingUnavailable: {
    sqlstate: "57P03",
    text: "the recording cannot be written; nothing runs unrecorded",
  },
  policyUnavailable: { sqlstate: "57P03", text: "the gateway has no valid access policy for this resource" },
  catalogUnavailable: { sqlstate: "57P03", text: "the catalog of the server could not be read" },
  upstreamUnreachable: { sqlstate: "08006", text: "the server behind the gateway cannot be reached" },
  upstreamLoginFailed: { sqlstate: "08006", text: "the gateway could not log in to the server behind it" },
  upstreamProtocol: { sqlstate: "08P01", text: "the server behind the gateway broke the protocol" },
  credentialMissing: { sqlstate: "57P03", text: "the credential of this resource is missing in the gateway" },
  sessionExpired: { sqlstate: "57P01", text: "the session ended with the identity's token" },
  sessionRevoked: { sqlstate: "57P01", text: "the session's access was withdrawn" },
  idle: { sqlstate: "57P05", text: "the session was idle for longer than the access policy allows" },
  draining: { sqlstate: "57P01", text: "the gateway is shutting down" },
} as const;

/** The codes of the table above. */
export type ErrorCode = keyof typeof errorTable;

/** A failure of one session. `message` is safe to show; `cause` is for the log alone. */
export class GatewayError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  /** The table's, but where a server has said which. */
  readonly sqlstate: string;

  constructor(
    code: ErrorCode,
    options: { detail?: string; hint?: string; sqlstate?: string; cause?: unknown } = {},
  ) {
    super(options.detail ?? errorTable[code].text, { cause: options.cause });
    this.name = "GatewayError";
    this.code = code;
    this.hint = options.hint;
    this.sqlstate = options.sqlstate ?? errorTable[code].sqlstate;
  }
}
