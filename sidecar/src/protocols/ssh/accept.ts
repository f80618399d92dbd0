import type { Identity } from "@sallyport/policy";
import { GatewayError } from "../../wire/gateway-error.ts";
import type { DeviceLogin, ProtocolHost } from "../protocol.ts";
import {
  type Certificate,
  certifiedIdentity,
  certifiedType,
  certifyAccount,
  isInForce,
  readCertificate,
  signatureAlgorithm,
} from "./certificates.ts";
import { DeviceLogins } from "./device-logins.ts";
import { clientSignatureAlgorithms, isSignedBy, type PublicKey, type SigningKey } from "./keys.ts";
import { encoded, type Field, MalformedMessage, made, message, Reader } from "./messages.ts";
import type { Transport } from "./transport.ts";

/** A client whose identity is proven, and what it wants to reach as whom. */
export interface AcceptedClient {
  readonly identity: Identity;
  readonly host: ProtocolHost;
  /** The account that it names upstream. */
  readonly account: string;
}

export interface AcceptOptions {
  readonly transport: Transport;
  readonly host: ProtocolHost;
  readonly authority: SigningKey;
  readonly address: string;
  readonly signal: AbortSignal;
  /** Gives the login so much more time: somebody has to open a browser. */
  readonly extend: (ms: number) => void;
}

const methods = "publickey,keyboard-interactive,password";
/** Attempts with a credential; offers of keys count too, because an agent may hold many. */
const attemptsMax = 20;
/** Messages of a login that wait while one is checked. */
const waitingMax = 8;

/**
 * Leads a client through user authentication (RFC 4252): a certificate of this gateway, or a token as the password or
 * typed at a prompt. Resolves before the client is told of its success, so that whoever goes on may still refuse.
 */
export function acceptClient(options: AcceptOptions): Promise<AcceptedClient> {
  return new Promise((resolve, reject) => {
    const { transport, signal } = options;
    const login = new Login(options);
    const waiting: Buffer[] = [];
    let isBusy = false;
    const settle = (error: unknown, client?: AcceptedClient) => {
      signal.removeEventListener("abort", onAbort);
      login.end();
      transport.receiver = {
        message: () => undefined,
        ended: () => undefined,
      };
      if (client === undefined) reject(error);
      else resolve(client);
    };
    const onAbort = () => settle(new GatewayError("identityRefused", { detail: "the login took too long" }));
    const next = async (): Promise<void> => {
      if (isBusy) return;
      isBusy = true;
      try {
        for (let payload = waiting.shift(); payload !== undefined; payload = waiting.shift()) {
          const client = await login.take(payload);
          if (client !== undefined) {
            settle(undefined, client);
            return;
          }
        }
        isBusy = false;
      } catch (error) {
        settle(error);
      }
    };
    transport.receiver = {
      message: (payload) => {
        waiting.push(payload);
        if (waiting.length > waitingMax) settle(new GatewayError("protocolViolation"));
        else void next();
      },
      ended: (error) =>
        settle(new GatewayError("identityRefused", { detail: "the client left", cause: error })),
    };
    if (transport.isOver) settle(new GatewayError("identityRefused", { detail: "the client left" }));
    else if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}

/**
 * What a user name says: `account%resource`, or the account alone where the port names the resource. `%%` is `%`:
 * OpenSSH 10 takes a single one for the beginning of a token, where older ones send two as they are.
 */
export function namedBy(
  user: string,
  host: ProtocolHost,
): { readonly account: string; readonly host: ProtocolHost } | undefined {
  const at = user.lastIndexOf("%");
  if (at < 0) return accountName.test(user) ? { account: user, host } : undefined;
  const account = user.slice(0, user[at - 1] === "%" ? at - 1 : at);
  const resource = user.slice(at + 1);
  if (!accountName.test(account) || !resourceName.test(resource)) return undefined;
  const found = host.sibling(resource);
  return found === undefined ? undefined : { account, host: found };
}

/** An identity's own name may stand for the account, so `:` and `@` may be in it; `%`, blanks and controls may not. */
const accountName = /^[A-Za-z0-9._@:+/-]{1,256}$/;
const resourceName = /^[a-z0-9](?:[a-z0-9.-]{0,251})(?:\/[a-z0-9][a-z0-9.-]{0,251})?$/;

class Login {
  readonly #options: AcceptOptions;
  #attempts = 0;
  #isToldOfCertificate = false;
  #isServiceAccepted = false;
  /** Who is asked for a token now. */
  #asked: string | undefined;
  /** A code that waits to be confirmed, for whoever is asked. */
  #device: { readonly login: DeviceLogin; readonly release: () => void } | undefined;
  readonly #over = new AbortController();

  constructor(options: AcceptOptions) {
    this.#options = options;
  }

  /** Nobody waits for anything any more. */
  end(): void {
    this.#over.abort();
    this.#release();
  }

  async take(payload: Buffer): Promise<AcceptedClient | undefined> {
    const reader = new Reader(payload);
    const type = reader.byte();
    if (type === message.serviceRequest) {
      if (reader.text() !== "ssh-userauth") throw new GatewayError("protocolViolation");
      this.#isServiceAccepted = true;
      this.#send(message.serviceAccept, "ssh-userauth");
      return undefined;
    }
    if (!this.#isServiceAccepted) throw new GatewayError("protocolViolation");
    if (type === message.userauthRequest) {
      this.#asked = undefined;
      return this.#request(reader);
    }
    if (type === message.userauthInfoResponse && this.#asked !== undefined) {
      const user = this.#asked;
      const device = this.#device?.login;
      this.#asked = undefined;
      if (reader.uint32() !== 1) return this.#failed();
      const typed = reader.string();
      if (device === undefined || typed.toString("latin1").trim() !== "") return this.#byToken(user, typed);
      const token = await device.token(this.#over.signal).catch(() => undefined);
      this.#release();
      if (token === undefined) return this.#refused("the code was not confirmed");
      return this.#byToken(user, Buffer.from(token));
    }
    throw new GatewayError("protocolViolation");
  }

  async #request(reader: Reader): Promise<AcceptedClient | undefined> {
    const user = reader.text();
    if (reader.text() !== "ssh-connection") throw new GatewayError("protocolViolation");
    const method = reader.text();
    // `none` counts too: it is free to ask for and makes the gateway answer.
    this.#attempts += 1;
    if (this.#attempts > attemptsMax) {
      throw new GatewayError("identityRefused", { detail: "too many attempts to log in" });
    }
    switch (method) {
      case "publickey":
        return this.#byKey(user, reader);
      case "password": {
        // True asks to change a password: there is none here.
        if (reader.boolean()) return this.#failed();
        return this.#byToken(user, reader.string());
      }
      case "keyboard-interactive":
        return this.#ask(user);
      default:
        return this.#failed();
    }
  }

  async #ask(user: string): Promise<undefined> {
    this.#release();
    const { host: own, address, extend } = this.#options;
    const named = namedBy(user, own);
    // Whoever names nothing that exists gets a code all the same: without one they would know.
    const host = named?.host ?? own;
    const logins = host.shared("deviceLogins", () => new DeviceLogins(host));
    this.#device = await logins.begin(address, this.#over.signal);
    // The client may have left while the provider was asked.
    if (this.#over.signal.aborted) this.#release();
    this.#asked = user;
    const { issuer } = host.tokenIssuer;
    const from = issuer === undefined ? "" : ` Tokens come from ${issuer}.`;
    const paste = `aste a token for this resource (see \`sallyport token\`).${from}`;
    if (this.#device === undefined) {
      this.#send(message.userauthInfoRequest, "Sallyport", `P${paste}`, "", 1, "Token: ", false);
      return undefined;
    }
    const { url, code, expiresMs } = this.#device.login;
    extend(expiresMs);
    const instruction = `Open ${url}\nand confirm the code ${code}, then press Enter here. Or p${paste}`;
    this.#send(message.userauthInfoRequest, "Sallyport", instruction, "", 1, "Enter, or a token: ", false);
    return undefined;
  }

  #release(): void {
    this.#device?.release();
    this.#device = undefined;
  }

  async #byToken(user: string, secret: Buffer): Promise<AcceptedClient | undefined> {
    const { host: own, address } = this.#options;
    const named = namedBy(user, own);
    // Whoever names nothing that exists is asked for a token all the same, and learns no more than of what exists.
    const host = named?.host ?? own;
    const token = secret.toString("utf8").trim();
    if (token === "" || secret.length > host.limits.passwordBytesMax) return this.#failed();
    const claim = { user: named?.account ?? "", address };
    try {
      await host.mayLogIn(claim);
      const identity = await host.authenticate({ token }, claim);
      if (named === undefined)
        return this.#refused("no resource of this gateway that the token is for goes by that user name");
      return { ...named, identity };
    } catch (error) {
      if (!(error instanceof GatewayError) || error.code !== "identityRefused") throw error;
      host.report(error, "");
      return this.#refused(error.message);
    }
  }

  /**
   * `boolean has signature, string algorithm, string key[, string signature]`. Keys alone prove nobody: only
   * certificates that this gateway has issued do.
   */
  async #byKey(user: string, reader: Reader): Promise<AcceptedClient | undefined> {
    const { authority, transport, host } = this.#options;
    const hasSignature = reader.boolean();
    const algorithm = reader.text();
    const blob = reader.string();
    const named = namedBy(user, host);
    const plain = signatureAlgorithm(algorithm);
    if (certifiedType(algorithm) === undefined || !usable.has(plain)) return this.#failed();
    let certificate: Certificate;
    try {
      certificate = readCertificate(blob, authority);
    } catch (error) {
      return this.#refusedCertificate(error);
    }
    // A certificate is not good for another one: whoever has the key must show a token again.
    if (named?.account === certifyAccount) return this.#failed();
    const identity = certifiedIdentity(certificate);
    // What does not exist is answered like what the certificate is not meant for.
    if (named === undefined || identity === undefined || !isMeantFor(certificate, named.host)) {
      return this.#refused(
        "the certificate has expired or is meant for another resource; run `sallyport login`",
      );
    }
    if (!named.host.stillAccepts(identity)) return this.#refused("the identity has been revoked");
    if (!hasSignature) {
      this.#send(message.userauthPkOk, algorithm, blob);
      return undefined;
    }
    const signature = reader.string();
    if (!reader.isAtEnd) throw new GatewayError("protocolViolation");
    const key: PublicKey = { ...certificate.key, blob };
    const signedData = Buffer.concat([
      encoded(transport.sessionId),
      made(message.userauthRequest, user, "ssh-connection", "publickey", true, algorithm, blob),
    ]);
    if (!isSignedBy(key, plain, signedData, signature)) return this.#failed();
    await named.host.mayLogIn({ user: named.account, address: this.#options.address });
    return { ...named, identity };
  }

  /** Said once: an agent may hold certificates for many places, which ssh offers one after the other. */
  #refusedCertificate(error: unknown): undefined {
    if (this.#isToldOfCertificate) return this.#failed();
    this.#isToldOfCertificate = true;
    const why = error instanceof MalformedMessage ? error.message : "it cannot be read";
    return this.#refused(`a certificate is refused: ${why}; \`sallyport login\` gets one of this gateway`);
  }

  #refused(reason: string): undefined {
    this.#send(message.userauthBanner, `sallyport: ${reason}\r\n`, "");
    return this.#failed();
  }

  #failed(): undefined {
    this.#send(message.userauthFailure, methods, false);
    return undefined;
  }

  #send(type: number, ...fields: readonly Field[]): void {
    this.#options.transport.send(made(type, ...fields));
  }
}

function isMeantFor(certificate: Certificate, { resource, clock }: ProtocolHost): boolean {
  return isInForce(certificate, `${resource.namespace}/${resource.name}`, clock.nowMs());
}

const usable: ReadonlySet<string> = new Set(clientSignatureAlgorithms);
