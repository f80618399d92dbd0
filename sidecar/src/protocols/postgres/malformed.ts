import { isUtf8 } from "node:buffer";
import { GatewayError } from "../../wire/gateway-error.ts";

/** A message of the client that cannot be read. As in the server that is an error of this message, not of the session. */
export class MalformedMessage extends GatewayError {
  /** The server's own words; it reads a message before it looks at the transaction. */
  get refusal(): { readonly sqlstate: string; readonly message: string; readonly isFoundFirst: true } {
    return { sqlstate: this.sqlstate, message: this.message, isFoundFirst: true };
  }
}

/** What the server says of a message in which something else stands than its kind asks for. */
export const malformations = {
  empty: "no data left in message",
  short: "insufficient data left in message",
  string: "invalid string in message",
  long: "invalid message format",
} as const;

/** A message that is malformed in that way. */
export function malformed(what: keyof typeof malformations): MalformedMessage {
  return new MalformedMessage("protocolViolation", { detail: malformations[what] });
}

/** Why these bytes are no text with a NUL at its end and nothing behind it. */
export function malformedText(bytes: Buffer): MalformedMessage {
  const nul = bytes.indexOf(0);
  if (nul < 0) return malformed("string");
  const text = bytes.subarray(0, nul);
  return isUtf8(text) ? malformed("long") : notUtf8(text);
}

/** Says which bytes are no UTF-8, as the server does. */
export function notUtf8(text: Buffer): MalformedMessage {
  const at = validBytes(text);
  const shown = [...text.subarray(at, at + lengthBy(text[at] ?? 0))];
  const bytes = shown.map((byte) => `0x${byte.toString(16).padStart(2, "0")}`).join(" ");
  return new MalformedMessage("invalidEncoding", {
    detail: `invalid byte sequence for encoding "UTF8": ${bytes}`,
  });
}

/** How many bytes stand before the first that are no UTF-8: by blocks, then by characters, as a text may have megabytes. */
function validBytes(text: Buffer): number {
  let at = 0;
  while (at < text.length) {
    let end = Math.min(at + blockBytes, text.length);
    while (end < text.length && end > at && ((text[end] ?? 0) & 0xc0) === 0x80) end -= 1;
    if (end === at || !isUtf8(text.subarray(at, end))) break;
    at = end;
  }
  for (;;) {
    const length = lengthBy(text[at] ?? 0);
    if (at >= text.length || at + length > text.length || !isUtf8(text.subarray(at, at + length))) return at;
    at += length;
  }
}

/** How long a character is by its first byte, as PostgreSQL reads it. */
function lengthBy(first: number): number {
  if ((first & 0xe0) === 0xc0) return 2;
  if ((first & 0xf0) === 0xe0) return 3;
  return (first & 0xf8) === 0xf0 ? 4 : 1;
}

const blockBytes = 4096;
