/**
 * SFTP version 3 (draft-ietf-secsh-filexfer-02, OpenSSH's PROTOCOL section 4):
 *
 *     uint32 length   byte type   uint32 request id   …fields of the type…
 */
import { GatheredBytes } from "../../wire/gathered-bytes.ts";
import { encoded, type Field, type Reader } from "./messages.ts";

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

/** Which attributes follow. */
export const attributeFlags = { size: 1, owner: 2, permissions: 4 } as const;

/** Largest packet; OpenSSH's own bound. */
const packetBytesMax = 256 * 1024;

/** Cuts a stream into packets, length included. */
export class SftpSplitter {
  /** A packet that is not whole. */
  readonly #kept = new GatheredBytes();
  /** Length of the packet that is begun; 0 while that is not known. */
  #wanted = 0;

  /** The packets that are whole now; throws where one is longer than any may be. */
  push(chunk: Buffer): readonly Buffer[] {
    const bytes = this.#withKept(chunk);
    if (bytes === undefined) return [];
    const packets: Buffer[] = [];
    let at = 0;
    this.#wanted = 0;
    while (bytes.length - at >= 4) {
      const length = bytes.readUInt32BE(at);
      if (length < 1 || length > packetBytesMax) throw new Error("an SFTP packet of that length");
      this.#wanted = 4 + length;
      if (bytes.length - at < this.#wanted) break;
      packets.push(bytes.subarray(at, at + this.#wanted));
      at += this.#wanted;
      this.#wanted = 0;
    }
    this.#kept.push(bytes.subarray(at));
    return packets;
  }

  /** What was kept with what has come; undefined where no packet is whole yet, and it is kept. */
  #withKept(chunk: Buffer): Buffer | undefined {
    const isEnough = this.#kept.length + chunk.length >= Math.max(4, this.#wanted);
    if (isEnough && this.#kept.length === 0) return chunk;
    this.#kept.push(chunk);
    return isEnough ? this.#kept.take() : undefined;
  }
}

/** A packet of its type and fields. */
export function sftpPacket(type: number, ...fields: readonly Field[]): Buffer {
  const body = encoded(...fields);
  return Buffer.concat([encoded(1 + body.length), Buffer.of(type), body]);
}

/** Whether attributes (section 5 of the draft) are those of a folder; undefined where they do not say what they are of. */
export function isFolder(attributes: Reader): boolean | undefined {
  const flags = attributes.uint32();
  if ((flags & attributeFlags.size) !== 0) attributes.uint64();
  if ((flags & attributeFlags.owner) !== 0) {
    attributes.uint32();
    attributes.uint32();
  }
  if ((flags & attributeFlags.permissions) === 0) return undefined;
  // The type of a file as `stat` has it; servers that leave it out say nothing.
  const type = attributes.uint32() & 0o170_000;
  return type === 0 ? undefined : type === 0o040_000;
}
