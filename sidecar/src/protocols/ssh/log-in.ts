import type { Socket } from "node:net";
import { GatewayError } from "../../wire/gateway-error.ts";
import { algorithmsOf, fingerprint, type PublicKey, publicKeyOf, type SigningKey, signed } from "./keys.ts";
import { encoded, made, message, Reader } from "./messages.ts";
import { Transport } from "./transport.ts";

/** How a server is logged in to, and by which of its keys it is known. */
export interface LogInOptions {
  readonly socket: Socket;
  readonly user: string;
  readonly password?: string;
  readonly key?: SigningKey;
  /** A certificate for the key: its algorithm and blob. */
  readonly certificate?: { readonly type: string; readonly blob: Buffer };
  /** The server must show one of them. */
  readonly hostKeys: readonly PublicKey[];
  readonly signal: AbortSignal;
}

/** Reads host keys as known_hosts and ssh-keyscan print them; lines that are none are an error of whoever wrote them. */
export function hostKeysFrom(lines: readonly string[]): readonly PublicKey[] {
  return lines.map((line) => {
    // `host ssh-ed25519 AAAA…` or without the host.
    const fields = line.trim().split(/\s+/);
    const key = publicKeyOf(line) ?? publicKeyOf(fields.slice(1).join(" "));
    if (key === undefined)
      throw new GatewayError("unsupported", { detail: "a pinned host key cannot be read" });
    return key;
  });
}

/**
 * Becomes a client of a server: key exchange against pinned host keys, then publickey or password. Says of the server's
 * key why it is refused; nothing is sent that could be of use to whoever stands in the server's place.
 */
export function logIn(options: LogInOptions): Promise<Transport> {
  return new Promise((resolve, reject) => {
    const { hostKeys, signal } = options;
    let shown: string | undefined;
    let isTried = false;
    const settle = (error?: unknown) => {
      signal.removeEventListener("abort", onAbort);
      transport.receiver = { message: () => undefined, ended: () => undefined };
      if (error === undefined) resolve(transport);
      else {
        transport.destroy();
        reject(error);
      }
    };
    const failed = (cause: unknown) =>
      settle(
        shown === undefined
          ? new GatewayError(isTried ? "upstreamLoginFailed" : "upstreamUnreachable", { cause })
          : new GatewayError("upstreamUnreachable", {
              detail: "the host key of the server behind the gateway is not the expected one",
              hint: `It showed ${shown}. Whoever runs the gateway must find out why before pinning it.`,
              cause,
            }),
      );
    const onAbort = () => failed(new Error("the login took too long"));
    const request = () => {
      isTried = true;
      transport.send(loginRequest(options, transport.sessionId));
    };
    const take = (payload: Buffer) => {
      const reader = new Reader(payload);
      switch (reader.byte()) {
        case message.serviceAccept:
          request();
          return;
        case message.userauthSuccess:
          settle();
          return;
        case message.userauthBanner:
          return;
        case message.userauthFailure:
          failed(new Error(`the server refused the account; it would take ${reader.text().slice(0, 200)}`));
          return;
        case message.globalRequest:
          return;
        default:
          failed(new Error("the server asks for what the gateway has not"));
      }
    };
    const transport = new Transport({
      socket: options.socket,
      role: {
        kind: "client",
        keyAlgorithms: [...new Set(hostKeys.flatMap(({ type }) => algorithmsOf(type)))],
        isExpectedKey: (blob) => {
          const isExpected = hostKeys.some((key) => key.blob.equals(blob));
          if (!isExpected) shown = fingerprint(blob);
          return isExpected;
        },
      },
      receiver: {
        message: (payload) => {
          try {
            take(payload);
          } catch (error) {
            failed(error);
          }
        },
        ready: () => transport.send(made(message.serviceRequest, "ssh-userauth")),
        ended: failed,
      },
    });
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}

function loginRequest(options: LogInOptions, sessionId: Buffer): Buffer {
  const { user, key, password, certificate } = options;
  if (key === undefined) {
    return made(message.userauthRequest, user, "ssh-connection", "password", false, password ?? "");
  }
  const algorithm = certificate?.type ?? (key.type === "ssh-rsa" ? "rsa-sha2-512" : key.type);
  const blob = certificate?.blob ?? key.blob;
  const body = made(message.userauthRequest, user, "ssh-connection", "publickey", true, algorithm, blob);
  return Buffer.concat([body, encoded(signed(key, Buffer.concat([encoded(sessionId), body])))]);
}
