import type { Socket } from "node:net";
import { GatewayError } from "../../wire/gateway-error.ts";
import { hostKeyAlgorithms, judgeHostKey, type PinnedKey } from "./host-keys.ts";
import { fingerprint, type SigningKey, signed } from "./keys.ts";
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
  /** The server must show one of them, or a certificate of one of them. */
  readonly hostKeys: readonly PinnedKey[];
  /** Whom certificates must be for, at what time; none are taken without. */
  readonly expected?: { readonly host: string; readonly port: number; readonly nowMs: () => number };
  readonly signal: AbortSignal;
}

/** Banners of one login; servers send one. */
const bannersMax = 32;

/**
 * Becomes a client of a server: key exchange against pinned host keys, then publickey or password. Says of the server's
 * key why it is refused; nothing is sent that could be of use to whoever stands in the server's place.
 */
export function logIn(options: LogInOptions): Promise<Transport> {
  return new Promise((resolve, reject) => {
    const { hostKeys, expected, signal } = options;
    let refusedKey: GatewayError | undefined;
    let isTried = false;
    let banners = 0;
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
        refusedKey ?? new GatewayError(isTried ? "upstreamLoginFailed" : "upstreamUnreachable", why(cause)),
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
          banners += 1;
          if (banners > bannersMax) failed(new Error("the server sends banners without end"));
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
        keyAlgorithms: hostKeyAlgorithms(hostKeys),
        expectedKey: (blob) => {
          const { host = "", port = 0, nowMs = () => 0 } = expected ?? {};
          const judged = judgeHostKey(blob, { keys: hostKeys, host, port, nowMs: nowMs() });
          if (judged.kind === "refused") refusedKey = unexpected(blob, judged.reason);
          return judged.kind === "refused" ? undefined : judged.key;
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

function unexpected(blob: Buffer, reason: string | undefined): GatewayError {
  const server = "of the server behind the gateway is";
  if (reason !== undefined) {
    return new GatewayError("upstreamUnreachable", {
      detail: `the host certificate ${server} refused: ${reason}`,
      hint: "Whoever runs the gateway must find out why.",
    });
  }
  return new GatewayError("upstreamUnreachable", {
    detail: `the host key ${server} not the expected one`,
    hint: `It showed ${fingerprint(blob)}. Whoever runs the gateway must find out why before pinning it.`,
  });
}

/** The library says it in no other way: the server has no key of a kind that is pinned, or no certificate. */
function why(cause: unknown): { readonly cause: unknown; readonly detail?: string } {
  const isOfAnotherKind = cause instanceof Error && cause.message.includes("no matching host key format");
  if (!isOfAnotherKind) return { cause };
  return {
    cause,
    detail: "the server behind the gateway has no host key or certificate of a kind that is pinned",
  };
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
