/** Every bound of the gateway in one place: no queue, frame, wait or retry is without one. */
export interface Limits {
  /** Longest start-up packet (PostgreSQL's own MAX_STARTUP_PACKET_LENGTH). */
  readonly startupBytesMax: number;
  /** Longest password message, and so the longest token. */
  readonly passwordBytesMax: number;
  /** Longest SQL text in Query or Parse. */
  readonly statementBytesMax: number;
  /** Longest Bind, parameters included. */
  readonly bindBytesMax: number;
  /** Longest message of the server that the gateway must read whole (errors, notices, tags, parameters). */
  readonly replyBytesMax: number;
  /** Prepared statements and portals that one session may hold. */
  readonly preparedMax: number;
  /** Characters of the texts of those. */
  readonly preparedTextMax: number;
  /** Messages sent to the server and not yet answered. */
  readonly owedMax: number;
  /** Time for TLS, start-up and login of a client; as long as PostgreSQL gives (authentication_timeout). */
  readonly loginMs: number;
  /** Time to dial and log in to the server. */
  readonly upstreamLoginMs: number;
  /** Time that a statement waits for the catalog or the recording before it is refused. */
  readonly judgeWaitMs: number;
  /** Age at which the catalog is read again. */
  readonly catalogAgeMs: number;
  /** Connections that have not logged in yet, over all clients. */
  readonly pendingLoginsMax: number;
  /** Those of one client address, so that one alone cannot keep the rest out. */
  readonly pendingLoginsByAddressMax: number;
  /** Live sessions of the process. */
  readonly sessionsMax: number;
  /** Longest time between SIGTERM and the end of the last session. */
  readonly drainMs: number;
  /** Largest record of a TLS stream: libpq's asynchronous clients can stall on larger ones. */
  readonly tlsFragmentBytes: number;
  /** Time that a command may be held for approval inside a transaction, whose locks others wait for. */
  readonly holdInTransactionMs: number;
  /** Time between two notices that a command is held. */
  readonly holdNoticeMs: number;
  /** Bytes of a command's parameters or rows kept in a recording. */
  readonly recordedParameterBytesMax: number;
}

/** The limits of a gateway whose start says nothing else. */
export const defaultLimits: Limits = {
  startupBytesMax: 10_000,
  passwordBytesMax: 65_536,
  statementBytesMax: 8 * 1024 * 1024,
  bindBytesMax: 64 * 1024 * 1024,
  replyBytesMax: 1024 * 1024,
  preparedMax: 10_000,
  preparedTextMax: 64 * 1024 * 1024,
  owedMax: 100_000,
  loginMs: 60_000,
  upstreamLoginMs: 10_000,
  judgeWaitMs: 10_000,
  catalogAgeMs: 1_000,
  pendingLoginsMax: 512,
  pendingLoginsByAddressMax: 256,
  sessionsMax: 10_000,
  drainMs: 30_000,
  tlsFragmentBytes: 8_192,
  holdInTransactionMs: 60_000,
  holdNoticeMs: 5_000,
  recordedParameterBytesMax: 65_536,
};
