/**
 * SFTP version 3 (draft-ietf-secsh-filexfer-02, OpenSSH's PROTOCOL section 4):
 *
 *     uint32 length   byte type   uint32 request id   …fields of the type…
 */
import { encoded, type Field } from "./messages.ts";

/** Packet types. */
export const sftp = {
  init: 1,
  version: 2,
  open: 3,
  close: 4,
  read: 5,
  write: 6,
  lstat: 7,
  fstat: 8,
  setstat: 9,
  fsetstat: 10,
  opendir: 11,
  readdir: 12,
  remove: 13,
  mkdir: 14,
  rmdir: 15,
  realpath: 16,
  stat: 17,
  rename: 18,
  readlink: 19,
  symlink: 20,
  status: 101,
  handle: 102,
  data: 103,
  name: 104,
  attrs: 105,
  extended: 200,
  extendedReply: 201,
} as const;

/** Codes of a status. */
export const sftpStatus = { noSuchFile: 2, permissionDenied: 3, failure: 4, unsupported: 8 } as const;

/** Flags of an open. */
export const openFlags = { read: 1, write: 2, append: 4, create: 8, truncate: 16 } as const;

/** Largest packet; OpenSSH's own bound. */
const packetBytesMax = 256 * 1024;

/** Cuts a stream into packets, length included. */
export class SftpSplitter {
  #rest: Buffer = Buffer.alloc(0);

  /** The packets that are whole now; throws where one is longer than any may be. */
  push(chunk: Buffer): readonly Buffer[] {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const packets: Buffer[] = [];
    while (bytes.length >= 4) {
      const length = bytes.readUInt32BE(0);
      if (length < 1 || length > packetBytesMax) throw new Error("an SFTP packet of that length");
      if (bytes.length < 4 + length) break;
      packets.push(bytes.subarray(0, 4 + length));
      bytes = bytes.subarray(4 + length);
    }
    this.#rest = bytes;
    return packets;
  }
}

/** A packet of its type and fields. */
export function sftpPacket(type: number, ...fields: readonly Field[]): Buffer {
  const body = encoded(...fields);
  return Buffer.concat([encoded(1 + body.length), Buffer.of(type), body]);
}
