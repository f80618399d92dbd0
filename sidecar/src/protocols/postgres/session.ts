import type { SessionGuard } from "../../guard/index.ts";
import { ClientHalf } from "./client-half.ts";
import type { PreparedStatements } from "./prepared.ts";
import { ServerHalf } from "./server-half.ts";
import { type PostgresSessionOptions, SessionState } from "./session-state.ts";

/**
 * One PostgreSQL session after login: a state machine over both byte streams, without I/O.
 *
 *     client ─ fromClient ─▶ client-half: judge, record, permit ─▶ toUpstream
 *                                  │ what is owed ▼
 *     client ◀─ toClient ─── server-half: rewrite what is owed ◀── fromUpstream
 *
 * A refused command is not swallowed: a statement that must fail takes its place, and the server's error is rewritten.
 * The server then does the ordering, the skip to Sync and the rollback, exactly as for an error of its own.
 */
export class PostgresSession {
  private readonly state: SessionState;
  private readonly client: ClientHalf;
  private readonly server: ServerHalf;
  private readonly guard: SessionGuard;

  constructor(options: PostgresSessionOptions, statements: PreparedStatements) {
    this.state = new SessionState(statements, options.limits, options.settings);
    this.client = new ClientHalf(options, this.state);
    this.server = new ServerHalf(options, this.state);
    this.guard = options.guard;
    this.state.say = (bytes) => this.server.interject(bytes);
  }

  /** Takes bytes of the client. A promise means that nothing more may be given until it resolves. */
  fromClient(chunk: Buffer): Promise<void> | undefined {
    return this.client.take(chunk);
  }

  /** Takes bytes of the server and passes on what the client may see. Throws where the server breaks the protocol. */
  fromUpstream(chunk: Buffer): void {
    this.server.take(chunk);
  }

  /** True where the chunk that came last from that side was passed on unread, and nothing of it is kept. */
  hasPassed(from: "client" | "upstream"): boolean {
    return from === "client" ? this.client.hasPassed : this.server.hasPassed;
  }

  /** True once the server has ended the session with a FATAL error, which the client has seen. */
  get sawFatal(): boolean {
    return this.server.sawFatal;
  }

  /** True while a message of the server is half with the client: nothing else may be written to it. */
  get isMidMessage(): boolean {
    return this.server.isMidMessage;
  }

  /** Says something of the gateway's own to the client, at once or where the message on its way ends. */
  interject(bytes: Buffer): void {
    this.server.interject(bytes);
  }

  /** True when the server owes nothing. */
  get isIdle(): boolean {
    return !this.state.mustSettle && !this.state.isCopyingIn;
  }

  /** True while the server waits for the client's COPY data. */
  get isCopyingIn(): boolean {
    return this.state.isCopyingIn;
  }

  /** The session is over: whoever waits for the server is woken. */
  end(): void {
    this.state.isEnded = true;
    this.guard.cancelHold("clientGone");
    this.state.wakeSettled();
    this.state.wakeBound();
  }
}
