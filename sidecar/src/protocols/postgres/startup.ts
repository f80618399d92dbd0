/**
 * The packets that come before login, read off the wire.
 *
 *     +----------------+----------------+---------------------------------------+
 *     | length (int32) | code (int32)   | name\0 value\0 … \0  or a cancel key   |
 *     +----------------+----------------+---------------------------------------+
 *
 * https://www.postgresql.org/docs/18/protocol-flow.html#PROTOCOL-FLOW-START-UP
 */
import { isUtf8 } from "node:buffer";
import type { Channel } from "../../wire/channel.ts";
import { GatewayError } from "../../wire/gateway-error.ts";

/** What a client's first packet asks for. */
export type StartupPacket =
  | { readonly kind: "tlsRequest" }
  | { readonly kind: "gssRequest" }
  | { readonly kind: "cancel"; readonly processId: number; readonly key: Buffer }
  | {
      readonly kind: "startup";
      /** The minor version that is spoken from here on: 0 or 2. */
      readonly minor: 0 | 2;
      /** The minor version that NegotiateProtocolVersion names: the newest of ours that was asked for. */
      readonly offeredMinor: number;
      /** True where the client asked for more than we speak, or for options that we do not know. */
      readonly mustNegotiate: boolean;
      readonly unknownOptions: readonly string[];
      readonly parameters: ReadonlyMap<string, string>;
    }
  /** Protocol 2.0, whose errors have a form of their own. */
  | { readonly kind: "ancient" };

const code = { cancel: 80877102, tls: 80877103, gss: 80877104 } as const;

/** A packet whose length nobody could have meant: like the server, the gateway closes without a word, and logs it. */
export class ImpossibleLength extends GatewayError {
  constructor(of: string) {
    super("protocolViolation", { cause: new Error(`invalid length of ${of}`) });
  }
}

/** Reads one start-up packet; throws a GatewayError for anything that is none. */
export async function readStartupPacket(channel: Channel, bytesMax: number): Promise<StartupPacket> {
  const length = (await channel.read(4)).readInt32BE(0);
  if (length < 8 || length > bytesMax) throw new ImpossibleLength("startup packet");
  const body = await channel.read(length - 4);
  const version = body.readInt32BE(0);
  if (version === code.tls) return { kind: "tlsRequest" };
  if (version === code.gss) return { kind: "gssRequest" };
  if (version === code.cancel) {
    if (body.length < 12 || body.length > 8 + 256) throw new ImpossibleLength("cancel request");
    return { kind: "cancel", processId: body.readUInt32BE(4), key: Buffer.from(body.subarray(8)) };
  }
  const major = version >> 16;
  const minor = version & 0xffff;
  if (major === 2) return { kind: "ancient" };
  if (major !== 3) {
    throw new GatewayError("unsupported", {
      detail: `unsupported frontend protocol ${version >>> 16}.${minor}: server supports 3.0 to 3.2`,
    });
  }
  const parameters = readParameters(body.subarray(4));
  const unknownOptions = [...parameters.keys()].filter((name) => name.startsWith("_pq_."));
  return {
    kind: "startup",
    minor: minor >= 2 ? 2 : 0,
    offeredMinor: Math.min(minor, 2),
    mustNegotiate: minor > 2 || unknownOptions.length > 0,
    unknownOptions,
    parameters,
  };
}

function readParameters(body: Buffer): Map<string, string> {
  if (body[body.length - 1] !== 0) {
    throw new GatewayError("protocolViolation", { detail: "invalid startup packet layout" });
  }
  if (!isUtf8(body)) throw new GatewayError("invalidEncoding");
  const parameters = new Map<string, string>();
  const words = body.toString("utf8").split("\0");
  // name, value, name, value, "", and the "" behind the last NUL.
  for (let index = 0; index + 1 < words.length; index += 2) {
    const name = words[index];
    const value = words[index + 1];
    if (name === undefined || name === "" || value === undefined) {
      if (index + 2 !== words.length) break;
      return parameters;
    }
    parameters.set(name, value);
  }
  throw new GatewayError("protocolViolation", { detail: "invalid startup packet layout" });
}

/** One setting that a start-up packet asks for. */
export interface StartupSetting {
  readonly name: string;
  readonly value: string;
}

const ownParameters: ReadonlySet<string> = new Set(["user", "database", "options", "replication"]);

/** The settings of a start-up packet: direct parameters, and those inside `options` (`-c name=value`). */
export function startupSettings(parameters: ReadonlyMap<string, string>): StartupSetting[] {
  const settings: StartupSetting[] = [];
  for (const [name, value] of parameters) {
    if (!ownParameters.has(name) && !name.startsWith("_pq_.")) settings.push({ name, value });
  }
  const options = parameters.get("options");
  if (options !== undefined) settings.push(...optionSettings(splitOptions(options)));
  for (const { name } of settings) {
    if (!settingName.test(name))
      throw new GatewayError("unsupported", { detail: "invalid setting name at start-up" });
  }
  return settings;
}

const settingName = /^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*$/;

/** PostgreSQL's pg_split_opts: white space separates, a backslash takes the next character as it is. */
function splitOptions(options: string): string[] {
  const words: string[] = [];
  let word = "";
  let isOpen = false;
  for (let at = 0; at < options.length; at += 1) {
    let character = options[at] ?? "";
    if (/\s/.test(character)) {
      if (isOpen) words.push(word);
      word = "";
      isOpen = false;
      continue;
    }
    if (character === "\\" && at + 1 < options.length) {
      at += 1;
      character = options[at] ?? "";
    }
    word += character;
    isOpen = true;
  }
  if (isOpen) words.push(word);
  return words;
}

function optionSettings(words: readonly string[]): StartupSetting[] {
  const settings: StartupSetting[] = [];
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? "";
    let assignment: string | undefined;
    if (word === "-c" || word === "--") {
      index += 1;
      assignment = words[index];
    } else if (word.startsWith("-c")) assignment = word.slice(2);
    else if (word.startsWith("--")) assignment = word.slice(2);
    const equals = assignment?.indexOf("=") ?? -1;
    if (assignment === undefined || equals < 1) {
      throw new GatewayError("unsupported", {
        detail: "only -c name=value and --name=value are accepted in options",
      });
    }
    settings.push({
      name: assignment.slice(0, equals).replaceAll("-", "_"),
      value: assignment.slice(equals + 1),
    });
  }
  return settings;
}

/** True for every spelling of UTF-8 that PostgreSQL takes as client_encoding. */
export function isUtf8Name(encoding: string): boolean {
  const folded = encoding.toLowerCase().replaceAll(/[^a-z0-9]/g, "");
  return folded === "utf8" || folded === "unicode";
}

/** True where the start-up packet asks for a replication connection. */
export function asksForReplication(parameters: ReadonlyMap<string, string>): boolean {
  const value = parameters.get("replication")?.toLowerCase();
  return value !== undefined && !["false", "off", "no", "0", "f", "n", "of"].includes(value);
}
