/**
 * The gateway's own login at the server, as a state machine: backend messages in, frames to send out.
 *
 *     StartupMessage → R(10 SASL mechanisms) → p(client-first) → R(11 server-first) → p(client-final)
 *                    → R(12 server-final, verified) → R(0 ok) → S* K N* Z
 *
 * It opens nothing and waits for nothing but the key derivation. RFC 5802, 7677, 5929;
 * https://www.postgresql.org/docs/18/sasl-authentication.html
 */
import { createHash, createHmac, pbkdf2, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { endpointBinding } from "./channel-binding.ts";
import { backend, frame, frontend, readErrorFields } from "./frames.ts";
import { saslPrepared } from "./saslprep.ts";

/** Who logs in at the server, and by what. */
export interface UpstreamLoginOptions {
  readonly user: string;
  /** Absent where the server takes the account by certificate or trust. */
  readonly password?: string;
  /** DER of the server's certificate; absent without TLS. */
  readonly serverCertificate?: Uint8Array;
  /** `require` also refuses servers that ask for no authentication. Default `prefer`. */
  readonly channelBinding?: "disable" | "prefer" | "require";
  /** Methods that hand the server the password, or what equals it; none by default. */
  readonly allowed?: { readonly cleartext?: boolean; readonly md5?: boolean };
  readonly randomBytes: (size: number) => Uint8Array;
  /** Default a million; PostgreSQL's own default is 4096. */
  readonly iterationsMax?: number;
}

/** What a server said of the session that it opened. */
export interface UpstreamSession {
  readonly parameters: ReadonlyMap<string, string>;
  /** Absent where the server gives no key to cancel with. */
  readonly cancelKey?: { readonly processId: number; readonly key: Buffer };
  /** The notices of the login, each a whole NoticeResponse body. */
  readonly notices: readonly Buffer[];
  /** The newest minor protocol version that both sides speak. */
  readonly minor: number;
}

/** Why a login failed. `publicText` and `sqlstate` are for the client and name no account and no host. */
export interface UpstreamLoginFailure {
  readonly kind: "failed";
  readonly sqlstate: string;
  readonly publicText: string;
  /** For the log: the server's own words where it refused. */
  readonly logText: string;
  readonly serverSqlstate?: string;
  /** The setting that the server would not take, as it writes the name. */
  readonly setting?: string;
  readonly hint?: string;
}

/** What a message of the server's asks next. */
export type UpstreamLoginStep =
  | { readonly kind: "continue"; readonly send: readonly Buffer[] }
  | { readonly kind: "done"; readonly session: UpstreamSession }
  | UpstreamLoginFailure;

/** SSLRequest: asks the server for TLS; it answers `S` or `N`. */
export const sslRequest = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);

/** StartupMessage with `user` first; undefined where a name or value holds NUL or a name is empty. */
export function startupMessage(
  parameters: readonly (readonly [name: string, value: string])[],
  minor: 0 | 2,
): Buffer | undefined {
  const isSendable = parameters.every(
    ([name, value]) => name !== "" && !name.includes("\0") && !value.includes("\0"),
  );
  if (!isSendable) return undefined;
  const body = Buffer.from(`${parameters.map(([name, value]) => `${name}\0${value}\0`).join("")}\0`);
  const head = Buffer.allocUnsafe(8);
  head.writeInt32BE(8 + body.length, 0);
  head.writeInt32BE((3 << 16) | minor, 4);
  return Buffer.concat([head, body]);
}

const authentication = { ok: 0, cleartext: 3, md5: 5, sasl: 10, saslContinue: 11, saslFinal: 12 } as const;

const messagesMax = 1000;
const bodyBytesMax = 64 * 1024;
const noticesMax = 50;
const parametersMax = 200;
const cancelKeyBytesMax = 256;
const nonceBytes = 18;
const deriveKey = promisify(pbkdf2);

type State =
  | { readonly kind: "expectingRequest" }
  | { readonly kind: "expectingServerFirst"; readonly exchange: Exchange }
  | { readonly kind: "derivingKey" }
  | { readonly kind: "expectingServerFinal"; readonly serverSignature: Buffer }
  | { readonly kind: "expectingOk" }
  | { readonly kind: "expectingReady" }
  | { readonly kind: "ended" };

interface Exchange {
  readonly nonce: string;
  readonly clientFirstBare: string;
  /** The gs2 header with the binding data behind it: what the client-final message repeats. */
  readonly bindingInput: Buffer;
  readonly password: string;
}

/** One login. Feed it each backend message in turn, awaiting each step; it never throws. */
export class UpstreamLogin {
  readonly #options: UpstreamLoginOptions;
  readonly #parameters = new Map<string, string>();
  readonly #notices: Buffer[] = [];
  #state: State = { kind: "expectingRequest" };
  #cancelKey: UpstreamSession["cancelKey"];
  #minor: number;
  #messages = 0;

  /** `minor` is what the StartupMessage asked for. */
  constructor(options: UpstreamLoginOptions, minor: 0 | 2 = 0) {
    this.#options = options;
    this.#minor = minor;
  }

  /** Takes a message without its type and length. A promise only where a key must be derived. */
  receive(type: number, body: Buffer): UpstreamLoginStep | Promise<UpstreamLoginStep> {
    this.#messages += 1;
    if (this.#messages > messagesMax || body.length > bodyBytesMax)
      return this.#fail("the server sends too much before it is ready");
    if (this.#state.kind === "ended" || this.#state.kind === "derivingKey")
      return this.#fail("the server sent a message out of turn");
    switch (type) {
      case backend.errorResponse:
        return this.#refused(body);
      case backend.noticeResponse:
        if (this.#notices.length < noticesMax) this.#notices.push(Buffer.from(body));
        return nothing;
      case backend.authentication:
        return this.#authenticate(body);
      case backend.negotiateProtocolVersion:
        return this.#negotiate(body);
      default:
        return this.#state.kind === "expectingReady"
          ? this.#settle(type, body)
          : this.#fail("the server sent a message out of turn");
    }
  }

  #authenticate(body: Buffer): UpstreamLoginStep | Promise<UpstreamLoginStep> {
    if (body.length < 4) return this.#fail("the server's authentication request is malformed");
    const data = body.subarray(4);
    const state = this.#state;
    switch (body.readInt32BE(0)) {
      case authentication.ok:
        if (state.kind === "expectingRequest" && this.#options.channelBinding === "require")
          return this.#fail("the server asks for no authentication, and channel binding is required");
        // Before server-final the server has not shown that it knows the account: it may be anyone.
        if (state.kind !== "expectingRequest" && state.kind !== "expectingOk")
          return this.#fail("the server ended authentication before it proved itself");
        this.#state = { kind: "expectingReady" };
        return nothing;
      case authentication.cleartext:
        return this.#sendPassword("cleartext", (password) => password);
      case authentication.md5: {
        const salt = Buffer.from(data.subarray(0, 4));
        if (data.length !== 4) return this.#fail("the server's authentication request is malformed");
        return this.#sendPassword("md5", (password) => {
          const inner = md5(Buffer.from(password + this.#options.user));
          return `md5${md5(Buffer.concat([Buffer.from(inner), salt]))}`;
        });
      }
      case authentication.sasl:
        return this.#startSasl(data);
      case authentication.saslContinue:
        return state.kind === "expectingServerFirst"
          ? this.#continueSasl(state.exchange, data)
          : this.#fail("the server sent a message out of turn");
      case authentication.saslFinal:
        return state.kind === "expectingServerFinal"
          ? this.#verifyServer(state.serverSignature, data)
          : this.#fail("the server sent a message out of turn");
      default:
        return this.#fail("the server asks for a way of authentication that is not supported");
    }
  }

  #sendPassword(method: "cleartext" | "md5", answer: (password: string) => string): UpstreamLoginStep {
    if (this.#state.kind !== "expectingRequest") return this.#fail("the server sent a message out of turn");
    if (this.#options.allowed?.[method] !== true || this.#options.channelBinding === "require")
      return this.#fail(`the server asks for ${method} authentication, which is not allowed`);
    const { password } = this.#options;
    if (password === undefined || password.includes("\0"))
      return this.#fail("the server asks for a password, and there is none that can be sent");
    this.#state = { kind: "expectingOk" };
    return send(frame(frontend.password, Buffer.from(`${answer(password)}\0`)));
  }

  #startSasl(data: Buffer): UpstreamLoginStep {
    if (this.#state.kind !== "expectingRequest") return this.#fail("the server sent a message out of turn");
    const { password, channelBinding = "prefer", serverCertificate } = this.#options;
    if (password === undefined)
      return this.#fail("the server asks for a password, and none is configured for this account");
    const offered = data.toString("latin1").split("\0");
    const binding =
      serverCertificate === undefined || channelBinding === "disable"
        ? undefined
        : endpointBinding(serverCertificate);
    const isBound = binding !== undefined && offered.includes("SCRAM-SHA-256-PLUS");
    if (!isBound && channelBinding === "require")
      return this.#fail("channel binding is required, and the server does not offer it or cannot have it");
    if (!isBound && !offered.includes("SCRAM-SHA-256"))
      return this.#fail("the server offers no SASL mechanism that is supported");
    // "y" tells the server that we could have bound: where it offered PLUS, somebody took that from its list.
    let gs2Header = binding === undefined ? "n,," : "y,,";
    if (isBound) gs2Header = "p=tls-server-end-point,,";
    const nonce = Buffer.from(this.#options.randomBytes(nonceBytes)).toString("base64");
    // The server takes the user from the StartupMessage and ignores this one.
    const clientFirstBare = `n=,r=${nonce}`;
    const bindingInput = Buffer.concat([Buffer.from(gs2Header), isBound ? binding : Buffer.alloc(0)]);
    this.#state = {
      kind: "expectingServerFirst",
      exchange: { nonce, clientFirstBare, bindingInput, password },
    };
    const response = Buffer.from(gs2Header + clientFirstBare);
    const length = Buffer.allocUnsafe(4);
    length.writeInt32BE(response.length, 0);
    const mechanism = Buffer.from(isBound ? "SCRAM-SHA-256-PLUS\0" : "SCRAM-SHA-256\0");
    return send(frame(frontend.password, Buffer.concat([mechanism, length, response])));
  }

  #continueSasl(exchange: Exchange, data: Buffer): UpstreamLoginStep | Promise<UpstreamLoginStep> {
    const serverFirst = data.toString("latin1");
    const found = /^r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/]{4,}={0,2}),i=([1-9]\d{0,9})(?:,.*)?$/.exec(
      serverFirst,
    );
    const [, nonce = "", salt = "", count = ""] = found ?? [];
    if (found === null) return this.#fail("the server's SCRAM message is malformed");
    if (!nonce.startsWith(exchange.nonce) || nonce.length === exchange.nonce.length)
      return this.#fail("the server's SCRAM nonce is not built on ours");
    const iterations = Number(count);
    if (iterations > (this.#options.iterationsMax ?? 1_000_000))
      return this.#fail("the server asks for more SCRAM iterations than are allowed");
    this.#state = { kind: "derivingKey" };
    return this.#prove(exchange, serverFirst, nonce, Buffer.from(salt, "base64"), iterations);
  }

  async #prove(
    exchange: Exchange,
    serverFirst: string,
    nonce: string,
    salt: Buffer,
    iterations: number,
  ): Promise<UpstreamLoginStep> {
    const salted = await deriveKey(saslPrepared(exchange.password), salt, iterations, 32, "sha256");
    if (this.#state.kind !== "derivingKey") return this.#fail("the server sent a message out of turn");
    const clientKey = hmac(salted, "Client Key");
    const storedKey = createHash("sha256").update(clientKey).digest();
    const withoutProof = `c=${exchange.bindingInput.toString("base64")},r=${nonce}`;
    const authMessage = `${exchange.clientFirstBare},${serverFirst},${withoutProof}`;
    const clientSignature = hmac(storedKey, authMessage);
    const proof = Buffer.from(clientKey.map((byte, index) => byte ^ (clientSignature[index] ?? 0)));
    this.#state = {
      kind: "expectingServerFinal",
      serverSignature: hmac(hmac(salted, "Server Key"), authMessage),
    };
    return send(
      frame(frontend.password, Buffer.from(`${withoutProof},p=${proof.toString("base64")}`, "latin1")),
    );
  }

  #verifyServer(expected: Buffer, data: Buffer): UpstreamLoginStep {
    const found = /^v=([A-Za-z0-9+/]{43}=)(?:,.*)?$/.exec(data.toString("latin1"));
    const signature = Buffer.from(found?.[1] ?? "", "base64");
    if (signature.length !== expected.length || !timingSafeEqual(signature, expected))
      return this.#fail(
        "the server does not know the account's secret: it may not be the server it claims to be",
      );
    this.#state = { kind: "expectingOk" };
    return nothing;
  }

  #negotiate(body: Buffer): UpstreamLoginStep {
    if (this.#state.kind !== "expectingRequest" || body.length < 8)
      return this.#fail("the server's protocol negotiation is malformed");
    const version = body.readInt32BE(0);
    // The documentation speaks of the minor version alone, servers send the whole: both forms are read.
    const minor = version & 0xffff;
    if ((version >> 16 !== 3 && version >> 16 !== 0) || minor > this.#minor)
      return this.#fail("the server wants a protocol version that was not asked for");
    if (body.readInt32BE(4) !== 0) return this.#fail("the server refuses options that were not asked for");
    this.#minor = minor;
    return nothing;
  }

  #settle(type: number, body: Buffer): UpstreamLoginStep {
    switch (type) {
      case backend.parameterStatus: {
        const middle = body.indexOf(0);
        const end = body.indexOf(0, middle + 1);
        if (middle <= 0 || end !== body.length - 1)
          return this.#fail("the server's parameter report is malformed");
        this.#parameters.set(body.toString("utf8", 0, middle), body.toString("utf8", middle + 1, end));
        return this.#parameters.size > parametersMax
          ? this.#fail("the server sends too much before it is ready")
          : nothing;
      }
      case backend.backendKeyData:
        if (body.length < 8 || body.length > 4 + cancelKeyBytesMax)
          return this.#fail("the server's cancel key is malformed");
        this.#cancelKey = { processId: body.readUInt32BE(0), key: Buffer.from(body.subarray(4)) };
        return nothing;
      case backend.readyForQuery:
        if (body.length !== 1 || body[0] !== 0x49) return this.#fail("the server is not idle after login");
        this.#state = { kind: "ended" };
        return {
          kind: "done",
          session: {
            parameters: this.#parameters,
            notices: this.#notices,
            minor: this.#minor,
            ...(this.#cancelKey === undefined ? {} : { cancelKey: this.#cancelKey }),
          },
        };
      default:
        return this.#fail("the server sent a message out of turn");
    }
  }

  #refused(body: Buffer): UpstreamLoginStep {
    this.#state = { kind: "ended" };
    const fields = readErrorFields(body);
    const serverSqlstate = /^[0-9A-Z]{5}$/.exec(fields.get("C") ?? "")?.[0] ?? "XX000";
    const known = publicTexts.get(serverSqlstate);
    const setting = aboutSetting.exec(fields.get("M") ?? "")?.[1];
    const hint = fields.get("H");
    return {
      kind: "failed",
      sqlstate: known === undefined ? "08006" : serverSqlstate,
      publicText: known ?? defaultPublicText,
      logText: fields.get("M")?.slice(0, 1000) ?? "the server gave no message",
      serverSqlstate,
      ...(setting === undefined ? {} : { setting }),
      ...(hint === undefined ? {} : { hint }),
    };
  }

  #fail(logText: string): UpstreamLoginFailure {
    this.#state = { kind: "ended" };
    return { kind: "failed", sqlstate: "08006", publicText: defaultPublicText, logText };
  }
}

/** `unrecognized configuration parameter "x"`, `invalid value for parameter "x": "y"` and their like. */
const aboutSetting = /\bparameter "([^"]+)"/;

const defaultPublicText = "the gateway could not log in to the database server";

/** What a client may know of a server's refusal; none of it names the account or the host. */
const publicTexts: ReadonlyMap<string, string> = new Map([
  ["3D000", "the database does not exist"],
  ["53300", "the database server has no connection left"],
  ["57P03", "the database server is not ready for connections yet"],
]);

const nothing: UpstreamLoginStep = { kind: "continue", send: [] };

function send(message: Buffer): UpstreamLoginStep {
  return { kind: "continue", send: [message] };
}

function hmac(key: Uint8Array, text: string): Buffer {
  return createHmac("sha256", key).update(text, "latin1").digest();
}

/** PostgreSQL's own md5 method, for servers that still use it and only where it is allowed. */
function md5(bytes: Uint8Array): string {
  return createHash("md5").update(bytes).digest("hex");
}
