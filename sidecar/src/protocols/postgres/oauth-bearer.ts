/**
 * OAUTHBEARER, PostgreSQL 18's SASL mechanism, as the server: the token comes in the client's first message.
 *
 *     R(10 OAUTHBEARER) → p(n,,^Aauth=Bearer <token>^A^A) → ok
 *                       → p(n,,^Aauth=^A^A), or a token that is refused → R(11 discovery) → p(^A) → FATAL
 *
 * RFC 7628; https://www.postgresql.org/docs/18/sasl-authentication.html
 */
import { isUtf8 } from "node:buffer";
import type { Channel } from "../../wire/channel.ts";
import { GatewayError } from "../../wire/gateway-error.ts";
import type { Limits } from "../../wire/limits.ts";
import { backend, frame, frontend } from "./frames.ts";

/** Where a client that has no token may get one. */
export interface Discovery {
  /** Of the OpenID Connect issuer; absent where the resource has none. */
  readonly issuer?: string;
  readonly scope: string;
}

const separator = "\x01";

/** Offers the mechanism and reads the client's token; undefined where it asks where to get one. */
export async function askForBearer(channel: Channel, limits: Limits): Promise<string | undefined> {
  channel.write(saslFrame(10, "OAUTHBEARER\0\0"));
  const body = await passwordMessage(channel, limits);
  const nameEnd = body.indexOf(0);
  if (nameEnd < 0 || body.length < nameEnd + 5) throw malformed("invalid SASL response");
  if (body.toString("latin1", 0, nameEnd) !== "OAUTHBEARER")
    throw malformed("client selected an invalid SASL authentication mechanism");
  const length = body.readInt32BE(nameEnd + 1);
  let data = body.subarray(nameEnd + 5);
  if (length === -1 && data.length === 0) {
    channel.write(saslFrame(11, ""));
    data = await passwordMessage(channel, limits);
  } else if (length !== data.length) throw malformed("invalid SASL response");
  return tokenIn(data);
}

/** Tells the client where tokens come from, which ends the exchange: the login has failed. */
export async function refuseBearer(channel: Channel, limits: Limits, discovery: Discovery): Promise<void> {
  const { issuer, scope } = discovery;
  const url =
    issuer === undefined ? undefined : `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
  const answer = {
    status: "invalid_token",
    ...(url === undefined ? {} : { "openid-configuration": url }),
    scope,
  };
  channel.write(saslFrame(11, JSON.stringify(answer)));
  const end = await passwordMessage(channel, limits);
  if (end.toString("latin1") !== separator) throw malformed("client did not send a kvsep response");
}

/** The token of a client's first message; undefined where it carries none. */
export function tokenIn(data: Buffer): string | undefined {
  if (data.includes(0) || !isUtf8(data)) throw malformed("malformed OAUTHBEARER message");
  const text = data.toString("utf8");
  if (text.startsWith("p"))
    throw malformed("the client message includes channel binding data, which OAUTHBEARER has no use for");
  const [header = "", ...pairs] = text.split(separator);
  if (!/^[ny],/.test(header)) throw malformed("malformed OAUTHBEARER message");
  // An authorization identity would be a second user beside the one of the StartupMessage.
  if (!/^[ny],,$/.test(header))
    throw new GatewayError("unsupported", {
      detail: "this server does not support OAuth authorization identities",
    });
  // Each pair ends with a separator, and one more ends the message.
  if (pairs.length < 2 || pairs.at(-1) !== "" || pairs.at(-2) !== "")
    throw malformed("malformed OAUTHBEARER message");
  let auth: string | undefined;
  for (const pair of pairs.slice(0, -2)) {
    const found = /^([A-Za-z]+)=([\x20-\x7e\t\r\n]*)$/.exec(pair);
    if (found === null) throw malformed("malformed OAUTHBEARER message");
    if (found[1] !== "auth") continue;
    if (auth !== undefined) throw malformed("the OAUTHBEARER message contains several auth values");
    auth = found[2];
  }
  if (auth === undefined) throw malformed("the OAUTHBEARER message does not contain an auth value");
  if (auth === "") return undefined;
  // What is no bearer token is looked at as a token and refused as one: the client then learns where to get one.
  return /^bearer +([A-Za-z0-9._~+/-]+=*)$/i.exec(auth)?.[1] ?? "";
}

async function passwordMessage(channel: Channel, limits: Limits): Promise<Buffer> {
  const head = await channel.read(5);
  const length = head.readInt32BE(1);
  if (head[0] !== frontend.password || length < 4 || length > limits.passwordBytesMax)
    throw malformed("expected a SASL response");
  return Buffer.from(await channel.read(length - 4));
}

function saslFrame(code: number, data: string): Buffer {
  const head = Buffer.alloc(4);
  head.writeInt32BE(code, 0);
  return frame(backend.authentication, Buffer.concat([head, Buffer.from(data)]));
}

const malformed = (detail: string) => new GatewayError("protocolViolation", { detail });
