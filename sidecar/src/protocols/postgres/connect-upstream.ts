import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import { certificateOf, dial, readByte, secure, type UpstreamTarget } from "../../wire/dial.ts";
import { GatewayError } from "../../wire/gateway-error.ts";
import { defaultLimits, type Limits } from "../../wire/limits.ts";
import type { UpstreamAccount } from "../protocol.ts";
import { inAscii } from "./client-encodings.ts";
import { backend, lengthAt, queryFrame } from "./frames.ts";
import { sslRequest, startupMessage, UpstreamLogin, type UpstreamLoginStep } from "./upstream-login.ts";

/** Which server, as which account, in which database. */
export interface ConnectOptions {
  readonly target: UpstreamTarget;
  readonly account: UpstreamAccount;
  readonly database: string;
  readonly settings: ReadonlyMap<string, string>;
  readonly applicationName: string;
  /** UTF8 where absent; of another one, nothing that the server says at login may be more than ASCII. */
  readonly encoding?: string | undefined;
  readonly signal: AbortSignal;
}

/** A connection to the server that is logged in and idle; its socket is paused. */
export interface UpstreamSession {
  readonly socket: Socket;
  readonly target: UpstreamTarget;
  readonly parameters: ReadonlyMap<string, string>;
  /** What the server said beside letting it in, each a whole NoticeResponse body. */
  readonly notices: readonly Buffer[];
  /** search_path at login: what the account, the database and the client have set. */
  readonly searchPath: string;
  /** Who the session runs as and who logged in: ALTER ROLE … SET role and the like tell them apart. */
  readonly roles: { readonly current: string; readonly session: string };
  readonly cancelKey: { readonly processId: number; readonly key: Buffer } | undefined;
  /** Bytes that came behind the first ReadyForQuery. */
  readonly rest: Buffer;
}

/** Dials the server, secures the connection as the resource says, and logs in with the gateway's account. */
export async function connectUpstream(options: ConnectOptions): Promise<UpstreamSession> {
  const { target, signal } = options;
  const socket = await openSecured(target, signal);
  try {
    return await login(socket, options);
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

async function openSecured(target: UpstreamTarget, signal: AbortSignal): Promise<Socket> {
  const plain = await dial(target, signal);
  if (target.tls.mode === "disable" || target.host.startsWith("/")) return plain;
  try {
    plain.write(sslRequest);
    const answer = await readByte(plain, signal);
    // Never fall back to plain text: whoever sits between could have said N.
    if (answer !== 0x53)
      throw new GatewayError("upstreamUnreachable", { cause: new Error("the server refuses TLS") });
    if (plain.readableLength > 0) throw new GatewayError("upstreamProtocol", { detail: "bytes before TLS" });
    return await secure(plain, target, signal);
  } catch (error) {
    plain.destroy();
    throw error;
  }
}

async function login(socket: Socket, options: ConnectOptions): Promise<UpstreamSession> {
  const { account } = options;
  const parameters: [string, string][] = [
    ["user", account.username],
    ["database", options.database],
    ["client_encoding", options.encoding ?? "UTF8"],
    ["application_name", options.applicationName],
    ...options.settings,
    ...(account.role === undefined ? [] : [["role", account.role] satisfies [string, string]]),
  ];
  const startup = startupMessage(parameters, 0);
  if (startup === undefined)
    throw new GatewayError("unsupported", { detail: "a start-up setting cannot be sent" });
  const certificate = certificateOf(socket);
  const exchange = new UpstreamLogin({
    user: account.username,
    randomBytes,
    ...(account.password === undefined ? {} : { password: account.password }),
    ...(certificate === undefined ? {} : { serverCertificate: certificate }),
  });
  const reader = new MessageReader(socket, options.signal);
  try {
    socket.write(startup);
    for (;;) {
      const message = await reader.next();
      const step: UpstreamLoginStep = await exchange.receive(message.type, message.body);
      if (step.kind === "continue") for (const bytes of step.send) socket.write(bytes);
      else if (step.kind === "failed") throw loginFailure(step, options.settings);
      else {
        const { session } = step;
        refuseUnsafe(session.parameters, options.encoding ?? "UTF8");
        const [searchPath, current, own] = await beginning(socket, reader, account.role);
        if (account.role !== undefined && current !== account.role) throw roleNotHeld();
        if (options.encoding !== undefined) refuseUnreadable([...session.parameters.values(), searchPath]);
        return {
          socket,
          target: options.target,
          parameters: session.parameters,
          notices: session.notices,
          searchPath,
          roles: { current, session: own },
          cancelKey: session.cancelKey,
          rest: reader.release(),
        };
      }
    }
  } finally {
    reader.release();
  }
}

/**
 * search_path, current_user and session_user: no server reports all of them. Asked once, before the client can. What leads
 * back to a role is said first, as not every server takes it so: before 14.14, 15.9, 16.5 and 17.1 it leads to the account.
 */
async function beginning(
  socket: Socket,
  reader: MessageReader,
  role: string | undefined,
): Promise<readonly [searchPath: string, current: string, session: string]> {
  const asked = "SELECT pg_catalog.current_setting('search_path'), current_user, session_user";
  socket.write(queryFrame(role === undefined ? asked : `RESET SESSION AUTHORIZATION; ${asked}`));
  let values: readonly (string | undefined)[] = [];
  for (;;) {
    const { type, body } = await reader.next();
    if (type === backend.dataRow) values = textsOf(body);
    if (type !== backend.readyForQuery) continue;
    const [searchPath, current, session] = values;
    if (searchPath === undefined || current === undefined || session === undefined)
      throw new GatewayError("upstreamProtocol");
    return [searchPath, current, session];
  }
}

/** DataRow: int16 count, and for each value int32 length, text. */
function textsOf(row: Buffer): readonly (string | undefined)[] {
  const texts: (string | undefined)[] = [];
  let at = 2;
  while (at + 4 <= row.length) {
    const end = at + 4 + Math.max(0, row.readInt32BE(at));
    texts.push(end > row.length ? undefined : row.toString("utf8", at + 4, end));
    at = end;
  }
  return texts;
}

function roleNotHeld(): GatewayError {
  return new GatewayError("upstreamLoginFailed", {
    detail: "the server does not hold the session to the role of its credential",
    hint: "PostgreSQL does from 14.15, 15.10, 16.6 and 17.2 on, where nothing at login sets another role.",
  });
}

/** Settings under which what we parse is not what the server parses. */
function refuseUnsafe(parameters: ReadonlyMap<string, string>, asked: string): void {
  const conforming = parameters.get("standard_conforming_strings");
  const encoding = parameters.get("client_encoding");
  if ((conforming !== undefined && conforming !== "on") || (encoding !== undefined && encoding !== asked)) {
    throw new GatewayError("unsupported", {
      detail: "the server's standard_conforming_strings must be on and client_encoding what was asked for",
    });
  }
  if (parameters.get("server_encoding") === "SQL_ASCII") {
    throw new GatewayError("unsupported", { detail: "databases with the encoding SQL_ASCII are not served" });
  }
}

/** In another encoding the bytes of a name are another name. */
function refuseUnreadable(values: readonly string[]): void {
  for (const value of values)
    if (inAscii(value) !== value)
      throw new GatewayError("unsupported", {
        detail: "client_encoding must be UTF8 here, as a setting of the server is more than ASCII",
      });
}

function loginFailure(
  step: Extract<UpstreamLoginStep, { kind: "failed" }>,
  settings: ReadonlyMap<string, string>,
): GatewayError {
  const cause = new Error(step.logText);
  const state = step.serverSqlstate;
  const isAsked = [...settings.keys()].some((name) => name.toLowerCase() === step.setting?.toLowerCase());
  // About a setting that the client has chosen the server says nothing but the name and the value that it was given.
  if (state !== undefined && isAsked) {
    const { logText: detail, hint } = step;
    return new GatewayError("settingRefused", {
      detail,
      sqlstate: state,
      cause,
      ...(hint === undefined ? {} : { hint }),
    });
  }
  if (state === "3D000") return new GatewayError("unknownDatabase", { cause });
  if (state === "53300") return new GatewayError("tooManySessions", { cause });
  if (state === "57P03" || state === "57P01") return new GatewayError("upstreamUnreachable", { cause });
  return new GatewayError("upstreamLoginFailed", { cause });
}

/**
 * Asks the server to cancel what a session runs, over a connection of its own; resolves when the server has taken it,
 * which it tells by closing. Failures change nothing.
 */
export async function cancelUpstream(session: UpstreamSession, limits: Limits | undefined): Promise<void> {
  const { cancelKey } = session;
  if (cancelKey === undefined) return;
  const signal = AbortSignal.timeout((limits ?? defaultLimits).upstreamLoginMs);
  try {
    const socket = await openSecured(session.target, signal);
    const request = Buffer.alloc(12 + cancelKey.key.length);
    request.writeInt32BE(request.length, 0);
    request.writeInt32BE(80877102, 4);
    request.writeUInt32BE(cancelKey.processId, 8);
    cancelKey.key.copy(request, 12);
    socket.end(request);
    socket.resume();
    await new Promise<void>((resolve) => {
      socket.once("close", resolve);
      socket.setTimeout(limits?.upstreamLoginMs ?? defaultLimits.upstreamLoginMs, () => socket.destroy());
    });
  } catch {
    // The server is gone or full: then nothing runs that a cancel could reach, or the user asks again.
  }
}

/** Reads messages one by one during login. */
class MessageReader {
  private buffer: Buffer = Buffer.alloc(0);
  private wake: () => void = () => undefined;
  private isOver = false;
  private isReleased = false;
  private readonly socket: Socket;
  private readonly signal: AbortSignal;
  private readonly onData = (chunk: Buffer) => {
    this.buffer = this.buffer.length === 0 ? chunk : Buffer.concat([this.buffer, chunk]);
    this.wake();
  };
  private readonly onOver = () => {
    this.isOver = true;
    this.wake();
  };

  constructor(socket: Socket, signal: AbortSignal) {
    this.socket = socket;
    this.signal = signal;
    socket.on("data", this.onData);
    socket.on("end", this.onOver);
    socket.on("close", this.onOver);
    signal.addEventListener("abort", this.onOver, { once: true });
  }

  async next(): Promise<{ type: number; body: Buffer }> {
    for (;;) {
      if (this.buffer.length >= 5) {
        const size = lengthAt(this.buffer, 0) + 1;
        if (size < 5 || size > defaultLimits.replyBytesMax) throw new GatewayError("upstreamProtocol");
        if (this.buffer.length >= size) {
          const message = { type: this.buffer[0] ?? 0, body: this.buffer.subarray(5, size) };
          this.buffer = this.buffer.subarray(size);
          return message;
        }
      }
      if (this.isOver || this.socket.destroyed || this.signal.aborted) {
        throw new GatewayError("upstreamUnreachable", { cause: new Error("closed during login") });
      }
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  /** Stops reading and returns what was read too far. */
  release(): Buffer {
    if (!this.isReleased) {
      this.isReleased = true;
      this.socket.pause();
      this.socket.off("data", this.onData);
      this.socket.off("end", this.onOver);
      this.socket.off("close", this.onOver);
      this.signal.removeEventListener("abort", this.onOver);
    }
    const { buffer } = this;
    this.buffer = Buffer.alloc(0);
    return buffer;
  }
}
