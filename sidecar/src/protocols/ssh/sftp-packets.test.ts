import { expect, test } from "vitest";
import { SftpSplitter, sftp, sftpPacket } from "./sftp-packets.ts";

test("packets are the same wherever their stream is cut", () => {
  const packets = [
    sftpPacket(sftp.init, 3),
    sftpPacket(sftp.open, 1, "/a", 1, 0),
    sftpPacket(sftp.write, 2, "h", { raw: Buffer.alloc(8) }, Buffer.alloc(50, 7)),
    sftpPacket(sftp.close, 3, "h"),
  ];
  const stream = Buffer.concat(packets);
  for (let size = 1; size <= stream.length; size += 1) {
    const splitter = new SftpSplitter();
    const found: Buffer[] = [];
    for (let at = 0; at < stream.length; at += size)
      found.push(...splitter.push(stream.subarray(at, at + size)).map((one) => Buffer.from(one)));
    expect(found).toEqual(packets);
  }
});

test.each([0, 256 * 1024 + 1, 0xffff_ffff])(
  "a packet that claims %i bytes is refused before they come",
  (length) => {
    const head = Buffer.alloc(4);
    head.writeUInt32BE(length);
    expect(() => new SftpSplitter().push(head)).toThrow("an SFTP packet of that length");
  },
);
