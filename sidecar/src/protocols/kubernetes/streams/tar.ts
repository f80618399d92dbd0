/**
 * Heads of a tar archive, read so that no reader of archives could read another file from them.
 *
 *     0    100  108  116  124      136    148      156   157        257     263  265    297 329 337 345     500
 *     name mode uid  gid  size(12) mtime  checksum type  link(100)  magic   vers user   group   …   prefix
 *
 * https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html, "ustar Interchange Format" and "pax Header Block"
 */

/** What tar counts in. */
export const blockBytes = 512;

/** One head. */
export interface TarHead {
  readonly type: string;
  readonly size: number;
  /** The names that readers could take from the head alone, as bytes: with and without its prefix. */
  readonly names: readonly Buffer[];
}

/** Reads a block; undefined where it is no head, or two readers could differ about it. */
export function readHead(block: Buffer): TarHead | undefined {
  const size = readSize(block.subarray(124, 136));
  if (size === undefined || !hasCheckSum(block)) return undefined;
  const name = untilZero(block.subarray(0, 100));
  const prefix = untilZero(block.subarray(345, 500));
  const magic = block.toString("latin1", 257, 263);
  const whole = Buffer.concat([prefix, Buffer.from("/"), name]);
  // GNU's own format has times where the prefix would be; some readers know, some do not.
  const names = prefix.length === 0 ? [name] : magic === "ustar\0" ? [whole] : [name, whole];
  const type = String.fromCharCode(block[156] ?? 0);
  return { type: type === "\0" ? "0" : type, size, names };
}

/** True for a block of zeros: two of them end an archive. */
export function isEmptyBlock(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0);
}

/** The records of an extended head: `length key=value\n`, each counted in bytes; undefined where they are not that. */
export function readRecords(data: Buffer): readonly (readonly [string, Buffer])[] | undefined {
  const records: (readonly [string, Buffer])[] = [];
  for (let at = 0; at < data.length; ) {
    const space = data.indexOf(0x20, at);
    const digits = data.toString("latin1", at, space < 0 ? at : space);
    if (!/^[1-9]\d{0,6}$/.test(digits)) return undefined;
    const end = at + Number(digits);
    const equals = data.indexOf(0x3d, space);
    if (end > data.length || data[end - 1] !== 0x0a || equals < 0 || equals >= end) return undefined;
    records.push([data.toString("utf8", space + 1, equals), data.subarray(equals + 1, end - 1)]);
    at = end;
  }
  return records;
}

/** What stands before the first zero. */
export function untilZero(field: Buffer): Buffer {
  const end = field.indexOf(0);
  return end < 0 ? field : field.subarray(0, end);
}

function readSize(field: Buffer): number | undefined {
  // Sizes of 8 GiB and more are binary: a mark, then a number to base 256.
  if (((field[0] ?? 0) & 0x80) !== 0) {
    const size = Number(field.readBigUInt64BE(4));
    return field.readUInt32BE(0) === 0x8000_0000 && Number.isSafeInteger(size) ? size : undefined;
  }
  return octal(field);
}

/** Digits with blanks or zeros around them; what stands in between would end the number for some readers. */
function octal(field: Buffer): number | undefined {
  const match = /^[ \0]*([0-7]+)[ \0]*$/.exec(field.toString("latin1"));
  return match === null ? undefined : Number.parseInt(match[1] ?? "", 8);
}

function hasCheckSum(block: Buffer): boolean {
  let sum = 0;
  for (let at = 0; at < blockBytes; at += 1) sum += at >= 148 && at < 156 ? 0x20 : (block[at] ?? 0);
  return octal(block.subarray(148, 156)) === sum;
}
