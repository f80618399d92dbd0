import { isUtf8 } from "node:buffer";

/**
 * What the server takes a name of a statement or portal in Parse, Bind and the like for: its tables of these keep 63 bytes
 * of a name (NAMEDATALEN) and compare no more, so that two longer names which begin alike are one. Also in the middle of a
 * character; such a half one is told from every text by the NUL in front, which no name holds.
 */
export function serverName(name: string): string {
  if (name.length <= charactersAlwaysShort || Buffer.byteLength(name) <= nameBytesMax) return name;
  const kept = Buffer.from(name).subarray(0, nameBytesMax);
  return isUtf8(kept) ? kept.toString("utf8") : `\0${kept.toString("latin1")}`;
}

const nameBytesMax = 63;
/** A UTF-16 unit has three bytes of UTF-8 at most. */
const charactersAlwaysShort = nameBytesMax / 3;
