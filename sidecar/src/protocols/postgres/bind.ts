import { isAscii, isUtf8 } from "node:buffer";
import { zeroAt } from "./frames.ts";
import { malformed, notUtf8 } from "./malformed.ts";
import type { RepeatedText } from "./repeated-text.ts";

/**
 * The Bind message, read in place.
 *
 *     portal\0 statement\0 int16 formats[n] int16 count { int32 length, bytes }* int16 resultFormats[n]
 *
 * https://www.postgresql.org/docs/18/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-BIND
 */
export interface BindParts {
  readonly portal: string;
  readonly statement: string;
  readonly chunk: Buffer;
  /** Where the message starts in `chunk`, its type included. */
  readonly at: number;
  readonly formatsAt: number;
  readonly formatCount: number;
  readonly valuesAt: number;
  readonly valueCount: number;
}

/** A parameter as recordings keep it. */
export type RecordedParameter = string | null | { readonly binary: string };

/** Reads the body of a Bind that lies between `from` and `end`; throws where it is malformed. */
export function readBind(chunk: Buffer, from: number, end: number, names: RepeatedText): BindParts {
  const portalEnd = zeroAt(chunk, from);
  const statementEnd = portalEnd < 0 ? -1 : zeroAt(chunk, portalEnd + 1);
  if (statementEnd < 0 || statementEnd >= end) throw malformed("string");
  const portal = portalEnd === from ? "" : chunk.toString("utf8", from, portalEnd);
  const statement = statementEnd === portalEnd + 1 ? "" : names.read(chunk, portalEnd + 1, statementEnd);
  // Either there was one in the bytes, or they are no UTF-8.
  if (portal.includes("\ufffd")) checkUtf8(chunk.subarray(from, portalEnd));
  if (statement.includes("\ufffd")) checkUtf8(chunk.subarray(portalEnd + 1, statementEnd));
  if (statementEnd + 3 > end) throw malformed("short");
  const formatCount = chunk.readUInt16BE(statementEnd + 1);
  const formatsAt = statementEnd + 3;
  const countAt = formatsAt + 2 * formatCount;
  if (countAt + 2 > end) throw malformed("short");
  const valueCount = chunk.readUInt16BE(countAt);
  let at = countAt + 2;
  for (let index = 0; index < valueCount; index += 1) {
    if (at + 4 > end) throw malformed("short");
    const length = chunk.readInt32BE(at);
    if (length < -1) throw malformed("short");
    at += 4 + Math.max(0, length);
  }
  if (at + 2 > end) throw malformed("short");
  const over = end - at - 2 - 2 * chunk.readUInt16BE(at);
  if (over !== 0) throw malformed(over < 0 ? "short" : "long");
  return {
    portal,
    statement,
    chunk,
    at: from - 5,
    formatsAt,
    formatCount,
    valuesAt: countAt + 2,
    valueCount,
  };
}

function checkUtf8(name: Buffer): void {
  if (!isUtf8(name)) throw notUtf8(name);
}

/**
 * The parameters for policy and recording, cut where together they pass `bytesMax`. Texts of an encoding that is not surely
 * UTF-8 are kept as bytes, where they are more than ASCII.
 */
export function recordedParameters(
  bind: BindParts,
  bytesMax: number,
  isOutsideUtf8 = false,
): readonly RecordedParameter[] {
  const { chunk } = bind;
  const values: RecordedParameter[] = [];
  let at = bind.valuesAt;
  let room = bytesMax;
  for (let index = 0; index < bind.valueCount; index += 1) {
    const length = chunk.readInt32BE(at);
    at += 4;
    if (length < 0) {
      values.push(null);
      continue;
    }
    const kept = Math.min(length, room);
    room -= kept;
    const isBinary =
      formatOf(bind, index) === 1 || (isOutsideUtf8 && !isAscii(chunk.subarray(at, at + kept)));
    if (isBinary) values.push({ binary: chunk.toString("base64", at, at + kept) });
    else
      values.push(
        kept < length ? `${chunk.toString("utf8", at, at + kept)}…` : chunk.toString("utf8", at, at + kept),
      );
    at += length;
  }
  return values;
}

/** The format of a parameter: 0 text, 1 binary. */
export function formatOf(bind: BindParts, index: number): number {
  if (bind.formatCount === 0) return 0;
  const at = bind.formatsAt + (bind.formatCount === 1 ? 0 : 2 * index);
  return bind.chunk.readUInt16BE(at);
}
