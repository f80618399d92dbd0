import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { expect, test } from "vitest";
import { encoded, Reader } from "./messages.ts";
import { isFolder, SftpSplitter, sftp, sftpPacket } from "./sftp-packets.ts";

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

test("packets are the same in pieces of any length, none included, and later ones change no earlier one", () => {
  const bytes = fc.uint8Array({ minLength: 0, maxLength: 700 });
  const cuts = fc.array(fc.integer({ min: 0, max: 900 }), { minLength: 1, maxLength: 9 });
  fc.assert(
    fc.property(fc.array(bytes, { minLength: 1, maxLength: 8 }), cuts, (bodies, sizes) => {
      const packets = bodies.map((body) => sftpPacket(sftp.write, { raw: Buffer.from(body) }));
      const stream = Buffer.concat(packets);
      const splitter = new SftpSplitter();
      const found: Buffer[] = [];
      for (let at = 0, turn = 0; at < stream.length; turn += 1) {
        // At least one of the sizes moves it on.
        const size = (sizes[turn % sizes.length] ?? 0) + (turn % sizes.length === 0 ? 1 : 0);
        found.push(...splitter.push(Buffer.from(stream.subarray(at, at + size))));
        at += size;
      }
      expect(found.map((one) => one.toString("hex"))).toEqual(packets.map((one) => one.toString("hex")));
    }),
  );
});

/** Frees what nobody holds. */
function collect(): void {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
}

test("a packet that comes in single bytes, or in nothing at all, takes no more memory than its length", () => {
  const splitter = new SftpSplitter();
  const packet = sftpPacket(sftp.write, { raw: Buffer.alloc(200 * 1024) });
  const piece = (at: number) => packet.subarray(at, at + 1);
  for (let at = 0; at < 4; at += 1) splitter.push(piece(at));
  collect();
  const before = process.memoryUsage();
  for (let at = 4; at < packet.length - 1; at += 1) {
    // As each message of a channel has bytes of its own.
    splitter.push(Buffer.from(piece(at)));
    splitter.push(Buffer.alloc(0));
  }
  collect();
  const after = process.memoryUsage();
  const grown = after.heapUsed - before.heapUsed + (after.arrayBuffers - before.arrayBuffers);
  expect(grown).toBeLessThan(8 * 1024 * 1024);
  expect(splitter.push(piece(packet.length - 1))).toEqual([packet]);
});

test.each([0, 256 * 1024 + 1, 0xffff_ffff])(
  "a packet that claims %i bytes is refused before they come",
  (length) => {
    const head = Buffer.alloc(4);
    head.writeUInt32BE(length);
    expect(() => new SftpSplitter().push(head)).toThrow("an SFTP packet of that length");
  },
);

const eight = { raw: Buffer.alloc(8, 0x40) };

test.each([
  ["of a folder", [4, 0o040_755], true],
  ["of a file", [4, 0o100_644], false],
  ["of a link", [4, 0o120_777], false],
  ["with a size and an owner before", [7, eight, 1000, 1000, 0o040_700], true],
  ["with times behind", [12, 0o100_600, 1, 2], false],
  ["that say nothing of it", [11, eight, 1000, 1000, 1, 2], undefined],
  ["whose permissions are those alone", [4, 0o755], undefined],
] as const)("attributes %s", (_, fields, expected) => {
  expect(isFolder(new Reader(encoded(...fields)))).toBe(expected);
});
