/**
 * PostgreSQL messages that the gateway itself makes, and the cutting of messages out of a stream.
 *
 *     +------+-----------------+------------------+
 *     | type | length (int32)  | body             |   length counts itself, not the type
 *     +------+-----------------+------------------+
 *
 * https://www.postgresql.org/docs/18/protocol-message-formats.html
 */
import { isUtf8 } from "node:buffer";
import { malformedText } from "./malformed.ts";

/** Message types by their letter; frontend and backend share letters, so the direction is in the name. */
export const frontend = {
  bind: 0x42,
  close: 0x43,
  copyData: 0x64,
  copyDone: 0x63,
  copyFail: 0x66,
  describe: 0x44,
  execute: 0x45,
  flush: 0x48,
  functionCall: 0x46,
  parse: 0x50,
  password: 0x70,
  query: 0x51,
  sync: 0x53,
  terminate: 0x58,
} as const;

export const backend = {
  authentication: 0x52,
  backendKeyData: 0x4b,
  bindComplete: 0x32,
  closeComplete: 0x33,
  commandComplete: 0x43,
  copyBothResponse: 0x57,
  copyData: 0x64,
  copyDone: 0x63,
  copyInResponse: 0x47,
  copyOutResponse: 0x48,
  dataRow: 0x44,
  emptyQueryResponse: 0x49,
  errorResponse: 0x45,
  functionCallResponse: 0x56,
  negotiateProtocolVersion: 0x76,
  noData: 0x6e,
  noticeResponse: 0x4e,
  notificationResponse: 0x41,
  parameterDescription: 0x74,
  parameterStatus: 0x53,
  parseComplete: 0x31,
  portalSuspended: 0x73,
  readyForQuery: 0x5a,
  rowDescription: 0x54,
} as const;

/** The length field of the message that starts at `at`: at least 4 in a well-formed message. */
export function lengthAt(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at + 1] ?? 0) << 24) |
    ((bytes[at + 2] ?? 0) << 16) |
    ((bytes[at + 3] ?? 0) << 8) |
    (bytes[at + 4] ?? 0)
  );
}

/** A NUL-terminated UTF-8 text that ends right before `end`. */
export function readText(chunk: Buffer, from: number, end: number): string {
  const last = end - 1;
  if (end <= from || chunk[last] !== 0) throw malformedText(chunk.subarray(from, end));
  if (last - from <= shortBytes && isPlain(chunk, from, last)) return chunk.toString("latin1", from, last);
  const body = chunk.subarray(from, last);
  if (body.includes(0) || !isUtf8(body)) throw malformedText(chunk.subarray(from, end));
  return body.toString("utf8");
}

/** Where the first NUL byte from there on stands; -1 where there is none. */
export function zeroAt(chunk: Buffer, from: number): number {
  // Names are short: most often the loop ends before a call out of JavaScript would have begun.
  const near = Math.min(chunk.length, from + nearBytes);
  for (let at = from; at < near; at += 1) if (chunk[at] === 0) return at;
  return chunk.indexOf(0, Math.max(from, near));
}

const nearBytes = 64;

/** True where there are only ASCII characters, and no NUL among them. */
function isPlain(chunk: Buffer, from: number, end: number): boolean {
  for (let at = from; at < end; at += 1) {
    const byte = chunk[at] ?? 0;
    if (byte === 0 || byte > 0x7e) return false;
  }
  return true;
}

/** Up to here a loop is faster than three calls out of JavaScript. */
const shortBytes = 512;

/** A whole message of the given type. */
export function frame(type: number, body: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(5 + body.length);
  bytes[0] = type;
  bytes.writeInt32BE(4 + body.length, 1);
  bytes.set(body, 5);
  return bytes;
}

const cString = (text: string) => Buffer.from(`${text}\0`);

/** Query: one SQL text. */
export function queryFrame(sql: string): Buffer {
  return frame(frontend.query, cString(sql));
}

/** Parse: a named statement without parameter types. */
export function parseFrame(name: string, sql: string): Buffer {
  return frame(frontend.parse, Buffer.concat([cString(name), cString(sql), Buffer.from([0, 0])]));
}

/** Parse: another text under the name, and with the parameter types, of the message that stands at `at`. */
export function otherTextFrame(chunk: Buffer, at: number, end: number, sql: string): Buffer {
  const nameEnd = chunk.indexOf(0, at + 5) + 1;
  const types = chunk.indexOf(0, nameEnd) + 1;
  return frame(
    frontend.parse,
    Buffer.concat([chunk.subarray(at + 5, nameEnd), cString(sql), chunk.subarray(types, end)]),
  );
}

/** Close: a prepared statement by its name. */
export function closeStatementFrame(name: string): Buffer {
  return frame(frontend.close, cString(`S${name}`));
}

/** Bind: the unnamed statement to the unnamed portal, without parameters, results as text. */
export const bindFrame = frame(frontend.bind, Buffer.alloc(8));

/** Bind: a statement by its name to the unnamed portal, parameters and results as text. */
export function bindTextsFrame(statement: string, values: readonly (string | null)[]): Buffer {
  const texts = values.flatMap((value) => {
    const text = Buffer.from(value ?? "");
    const length = Buffer.alloc(4);
    length.writeInt32BE(value === null ? -1 : text.length);
    return [length, text];
  });
  const count = Buffer.alloc(2);
  count.writeUInt16BE(values.length);
  // No formats of parameters and none of results: all are text.
  const none = Buffer.alloc(2);
  return frame(frontend.bind, Buffer.concat([cString(""), cString(statement), none, count, ...texts, none]));
}

/** Describe: the unnamed portal. */
export const describeFrame = frame(frontend.describe, cString("P"));

/** Describe: a portal by its name. */
export function describePortalFrame(portal: string): Buffer {
  return frame(frontend.describe, cString(`P${portal}`));
}

/** Execute: a portal, and after how many rows to stop; 0: at the end. */
export function executeFrame(portal: string, rows: number): Buffer {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(rows);
  return frame(frontend.execute, Buffer.concat([cString(portal), count]));
}

/** Sync: ends what an error skips, and an implicit transaction. */
export const syncFrame = frame(frontend.sync, Buffer.alloc(0));

/** Flush: asks the server to send what it has. */
export const flushFrame = frame(frontend.flush, Buffer.alloc(0));

/** Terminate: the client is gone. */
export const terminateFrame = frame(frontend.terminate, Buffer.alloc(0));

/** The fields of an ErrorResponse or NoticeResponse by their letter. */
export interface ErrorFields {
  readonly severity: "ERROR" | "FATAL" | "NOTICE" | "WARNING";
  readonly sqlstate: string;
  readonly message: string;
  readonly detail?: string;
  readonly hint?: string;
  /** Counts characters of the statement from 1. */
  readonly position?: number;
}

/** ErrorResponse or NoticeResponse, by severity. */
export function errorFrame(fields: ErrorFields): Buffer {
  const isNotice = fields.severity === "NOTICE" || fields.severity === "WARNING";
  const parts = [`S${fields.severity}`, `V${fields.severity}`, `C${fields.sqlstate}`, `M${fields.message}`];
  if (fields.detail !== undefined) parts.push(`D${fields.detail}`);
  if (fields.hint !== undefined) parts.push(`H${fields.hint}`);
  if (fields.position !== undefined) parts.push(`P${fields.position}`);
  const body = parts.map((part) => `${part.replaceAll("\0", "")}\0`).join("");
  return frame(isNotice ? backend.noticeResponse : backend.errorResponse, Buffer.from(`${body}\0`));
}

/** The fields of an ErrorResponse body (without type and length), by letter. */
export function readErrorFields(body: Buffer): Map<string, string> {
  const fields = new Map<string, string>();
  let at = 0;
  while (at < body.length && body[at] !== 0) {
    const end = body.indexOf(0, at + 1);
    if (end < 0) break;
    fields.set(String.fromCharCode(body[at] ?? 0), body.toString("utf8", at + 1, end));
    at = end + 1;
  }
  return fields;
}

/** NoticeResponse with a body of the server's. */
export function noticeFrame(body: Buffer): Buffer {
  return frame(backend.noticeResponse, body);
}

/** ParameterStatus: what the server reports of a setting. */
export function parameterStatusFrame(name: string, value: string): Buffer {
  return frame(backend.parameterStatus, Buffer.concat([cString(name), cString(value)]));
}

/** BackendKeyData: process id and cancel key. */
export function backendKeyDataFrame(processId: number, key: Uint8Array): Buffer {
  const body = Buffer.allocUnsafe(4 + key.length);
  body.writeUInt32BE(processId, 0);
  body.set(key, 4);
  return frame(backend.backendKeyData, body);
}

/** Authentication request with a code alone (0: ok, 3: clear-text password). */
export function authenticationFrame(code: number): Buffer {
  const body = Buffer.alloc(4);
  body.writeInt32BE(code, 0);
  return frame(backend.authentication, body);
}

/** ReadyForQuery in the idle state. */
export const readyFrame = frame(backend.readyForQuery, Buffer.from("I"));

/** NegotiateProtocolVersion: the newest minor version that we speak, and the options that we do not know. */
export function negotiateFrame(minor: number, unknown: readonly string[]): Buffer {
  const head = Buffer.alloc(8);
  head.writeInt32BE((3 << 16) | minor, 0);
  head.writeInt32BE(unknown.length, 4);
  return frame(backend.negotiateProtocolVersion, Buffer.concat([head, ...unknown.map(cString)]));
}
