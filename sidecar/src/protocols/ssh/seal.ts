import { createCipheriv, type KeyObject, randomFillSync } from "node:crypto";
import type { LibraryProtocol } from "./library.ts";

/** What the library keeps of AES-GCM toward the peer; it counts on for the packets of its own key exchange. */
interface GcmState {
  readonly _encSSLName: "aes-128-gcm" | "aes-256-gcm";
  readonly _encKey: KeyObject | Uint8Array;
  readonly _encIV: Uint8Array;
  outSeqno: number;
}

/**
 * Seals a packet of AES-GCM (RFC 5647, 7.3) into pieces for the socket; undefined where another cipher is in use, or keys
 * are being exchanged. The library would copy a payload into a packet of its own first, and ask for random bytes each time.
 *
 *     uint32 length (AAD)   byte padding length   payload   padding   16 bytes of tag
 */
export function sealed(
  { _cipher: cipher, _kexinit }: LibraryProtocol,
  payload: Uint8Array,
  more: Uint8Array | undefined,
): readonly Buffer[] | undefined {
  if (_kexinit !== undefined || !isGcm(cipher)) return undefined;
  const plainLength = 1 + payload.length + (more?.length ?? 0);
  const paddingLength = blockBytes + 4 - ((plainLength + 4) % blockBytes || blockBytes);
  const head = Buffer.allocUnsafe(5 + payload.length);
  head.writeUInt32BE(plainLength + paddingLength, 0);
  head[4] = paddingLength;
  head.set(payload, 5);
  const length = head.subarray(0, 4);
  const sealing = createCipheriv(cipher._encSSLName, cipher._encKey, cipher._encIV);
  sealing.setAAD(length);
  const first = sealing.update(head.subarray(4));
  const middle = more === undefined ? undefined : sealing.update(more);
  const last = sealing.update(padding(paddingLength));
  sealing.final();
  countOn(cipher);
  const tag = sealing.getAuthTag();
  if (middle === undefined) return [Buffer.concat([length, first, last, tag])];
  return [Buffer.concat([length, first]), middle, Buffer.concat([last, tag])];
}

const blockBytes = 16;

function isGcm(cipher: unknown): cipher is GcmState {
  const state = cipher as Partial<GcmState> | undefined;
  const isKnown = state?._encSSLName === "aes-128-gcm" || state?._encSSLName === "aes-256-gcm";
  return isKnown && state._encIV instanceof Uint8Array && state._encIV.length === 12;
}

/** The last eight bytes of the nonce are a number, one more for each packet. */
function countOn(cipher: GcmState): void {
  const nonce = cipher._encIV;
  for (let at = nonce.length - 1; at >= 4; at -= 1) {
    nonce[at] = ((nonce[at] ?? 0) + 1) & 0xff;
    if (nonce[at] !== 0) break;
  }
  cipher.outSeqno = (cipher.outSeqno + 1) >>> 0;
}

const random = Buffer.alloc(8 * 1024);
let used = random.length;

function padding(length: number): Buffer {
  if (used + length > random.length) {
    randomFillSync(random);
    used = 0;
  }
  used += length;
  return random.subarray(used - length, used);
}
