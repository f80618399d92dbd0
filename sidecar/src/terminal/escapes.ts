/** A text without escape sequences, and where each of its bytes stood; undefined: where it stands. */
export function withoutEscapes(bytes: Buffer): {
  readonly text: Buffer;
  readonly places: Uint32Array | undefined;
} {
  if (!bytes.includes(escapeByte)) return { text: bytes, places: undefined };
  const text = Buffer.allocUnsafe(bytes.length);
  const places = new Uint32Array(bytes.length);
  let length = 0;
  for (let at = 0; at < bytes.length; ) {
    if (bytes[at] === escapeByte) {
      at = endOfEscape(bytes, at);
      continue;
    }
    text[length] = bytes[at] ?? 0;
    places[length] = at;
    length += 1;
    at += 1;
  }
  return { text: text.subarray(0, length), places };
}

const escapeByte = 0x1b;

function endOfEscape(bytes: Buffer, start: number): number {
  const kind = bytes[start + 1];
  let at = start + 2;
  if (kind === 0x5b) {
    // CSI: parameters and intermediates, then one final byte.
    while (at < bytes.length && (bytes[at] ?? 0) < 0x40) at += 1;
    return Math.min(at + 1, bytes.length);
  }
  if (kind === 0x5d || kind === 0x50 || kind === 0x5f || kind === 0x5e) {
    // OSC, DCS and their like end with BEL or ESC \.
    while (at < bytes.length && bytes[at] !== 0x07 && bytes[at] !== escapeByte && bytes[at] !== 0x0a) at += 1;
    if (bytes[at] === escapeByte) return Math.min(at + 2, bytes.length);
    return bytes[at] === 0x0a ? at : Math.min(at + 1, bytes.length);
  }
  return Math.min(at, bytes.length);
}
