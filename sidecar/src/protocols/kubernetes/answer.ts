/** Failures as clients of an API server understand them. */

import type { Refusal } from "../../guard/index.ts";
import { errorTable, GatewayError } from "../../wire/gateway-error.ts";
import type { HttpExchange, HttpUpgrade } from "../../wire/http-server.ts";
import { type ApiRequest, resourceName } from "./request.ts";
import { failure, type Status } from "./status.ts";

const codes: Readonly<Record<string, number>> = {
  denied: 403,
  approvalNeeded: 403,
  identityRefused: 401,
  lockedOut: 429,
  rateExceeded: 429,
  tooManySessions: 429,
  sessionExpired: 401,
  sessionRevoked: 401,
  protocolViolation: 400,
  tooLarge: 413,
  unknownUser: 403,
};

/** A failure of the gateway as a Status; unknown ones show nothing of their cause. */
export function statusOfError(error: unknown, id: string): Status {
  if (!(error instanceof GatewayError)) return failure(500, `the gateway could not serve this (${id})`);
  const hint = error.hint === undefined ? "" : `; ${error.hint}`;
  const code = codes[error.code] ?? 503;
  return failure(code, `${error.message || errorTable[error.code].text}${hint} (${id})`);
}

/** What policy refused, worded as the API server words it. */
export function statusOfRefusal(refusal: Refusal, request: ApiRequest, id: string): Status {
  const name = request.name === "" ? "" : ` ${JSON.stringify(request.name)}`;
  const what = request.isResource ? `${resourceName(request)}${name} is forbidden: ` : "forbidden: ";
  const hint = refusal.hint === undefined ? "" : `; ${refusal.hint}`;
  const about = request.isResource ? { name: request.name, kind: request.resource } : undefined;
  return failure(codes[refusal.code] ?? 503, `${what}${refusal.message}${hint} (${id})`, about);
}

/** Answers a request with a Status. */
export function sendStatus(exchange: HttpExchange, status: Status): void {
  const body = Buffer.from(JSON.stringify(status));
  const out = exchange.respond(status.code, {
    "content-type": "application/json",
    "content-length": String(body.length),
    "cache-control": "no-cache, private",
    ...(status.code === 401 ? { "www-authenticate": 'Bearer realm="sallyport"' } : {}),
  });
  out.end(body);
}

/** Answers a refused upgrade with a Status, and closes: what comes behind it on the connection is nobody's. */
export function refuseUpgrade({ socket }: HttpUpgrade, status: Status): void {
  const body = JSON.stringify(status);
  const head = [
    `HTTP/1.1 ${status.code} ${status.reason}`,
    "Content-Type: application/json",
    `Content-Length: ${Buffer.byteLength(body)}`,
    "Connection: close",
    "",
    body,
  ];
  socket.end(head.join("\r\n"));
  socket.resume();
  setTimeout(() => socket.destroy(), 2_000).unref();
}
