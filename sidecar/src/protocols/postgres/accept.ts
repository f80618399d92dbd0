import type { Channel } from "../../wire/channel.ts";
import { GatewayError } from "../../wire/gateway-error.ts";
import type { Limits } from "../../wire/limits.ts";
import { authenticationFrame, errorFrame, frontend, negotiateFrame } from "./frames.ts";
import { asksForReplication, readStartupPacket, type StartupPacket } from "./startup.ts";

/** A client that has said who it wants to be; not yet believed. */
export interface Greeting {
  readonly kind: "greeting";
  readonly user: string;
  /** The database asked for; the user's name where none was named, as in PostgreSQL. */
  readonly database: string;
  readonly minor: 0 | 2;
  readonly parameters: ReadonlyMap<string, string>;
}

/** What a new connection wants: a session, or the end of another's statement. */
export type Accepted =
  | Greeting
  | { readonly kind: "cancel"; readonly processId: number; readonly key: Buffer };

/** What start-up needs of its connection. */
export interface AcceptOptions {
  readonly limits: Limits;
  /** Answers TLS on the channel; `required` where the client began without asking. */
  readonly startTls: (alpn: "required" | "optional") => Promise<void>;
}

const tlsHandshake = 0x16;

/**
 * Leads a client up to its StartupMessage: direct TLS or SSLRequest, GSSENCRequest, version negotiation.
 * Nothing is asked of policy or of the server before TLS stands, so that no token travels in the clear.
 */
export async function acceptClient(channel: Channel, options: AcceptOptions): Promise<Accepted | undefined> {
  const first = await channel.peek();
  if (first === undefined) return undefined;
  if (first === tlsHandshake) await options.startTls("required");
  let hasAskedGss = false;
  for (;;) {
    const packet = await readStartupPacket(channel, options.limits.startupBytesMax);
    switch (packet.kind) {
      case "cancel":
        return packet;
      case "ancient":
        // Protocol 2 has no fields in its errors: one letter and a text.
        channel.write(
          Buffer.from("EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\0"),
        );
        return undefined;
      case "gssRequest":
        if (hasAskedGss || channel.hasBuffered) throw new GatewayError("protocolViolation");
        hasAskedGss = true;
        channel.write(Buffer.from("N"));
        break;
      case "tlsRequest":
        if (channel.secured !== undefined)
          throw new GatewayError("protocolViolation", { detail: "TLS inside TLS" });
        channel.write(Buffer.from("S"));
        // Bytes that came before our answer were not sent by somebody who waited for TLS: told behind the S, as the server
        // does, so that a client that has only changed its mind and said goodbye reads the answer that it expects.
        if (channel.hasBuffered) throw new GatewayError("protocolViolation", { detail: "bytes before TLS" });
        await options.startTls("optional");
        break;
      case "startup":
        return greet(channel, packet);
    }
  }
}

function greet(channel: Channel, packet: Extract<StartupPacket, { kind: "startup" }>): Greeting {
  if (channel.secured === undefined && !channel.isLocal) {
    throw new GatewayError("tlsRequired", { hint: "Use sslmode=verify-full and the gateway's CA." });
  }
  const { parameters } = packet;
  const user = parameters.get("user") ?? "";
  if (user === "") {
    throw new GatewayError("identityRefused", {
      detail: "no PostgreSQL user name specified in startup packet",
    });
  }
  if (asksForReplication(parameters)) {
    throw new GatewayError("identityRefused", {
      detail: "replication connections are not allowed through the gateway",
    });
  }
  if (packet.mustNegotiate) channel.write(negotiateFrame(packet.offeredMinor, packet.unknownOptions));
  const database = parameters.get("database");
  return {
    kind: "greeting",
    user,
    database: database === undefined || database === "" ? user : database,
    minor: packet.minor,
    parameters,
  };
}

/** Asks for the password, which carries the token. */
export async function askForToken(channel: Channel, limits: Limits): Promise<string> {
  channel.write(authenticationFrame(3));
  const head = await channel.read(5);
  const length = head.readInt32BE(1);
  if (head[0] !== frontend.password || length < 5 || length > limits.passwordBytesMax) {
    throw new GatewayError("protocolViolation", { detail: "expected a password message" });
  }
  const body = await channel.read(length - 4);
  if (body.indexOf(0) !== body.length - 1) {
    throw new GatewayError("protocolViolation", { detail: "invalid password packet" });
  }
  return body.toString("utf8", 0, body.length - 1);
}

/** The ErrorResponse with which a connection ends. */
export function fatalFrame(error: GatewayError, id: string): Buffer {
  const hint = error.hint ?? `Ask the operators of the gateway about id ${id}.`;
  return errorFrame({ severity: "FATAL", sqlstate: error.sqlstate, message: error.message, hint });
}
