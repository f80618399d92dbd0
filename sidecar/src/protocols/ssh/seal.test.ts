import { createDecipheriv, createSecretKey, randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import type { LibraryProtocol } from "./library.ts";
import { sealed } from "./seal.ts";

const name = "aes-256-gcm";

function cipher(nonce: Buffer) {
  const key = createSecretKey(randomBytes(32));
  return { key, state: { _encSSLName: name, _encKey: key, _encIV: nonce, outSeqno: 0xffff_fffe } };
}

test("packets of every length open with the key, and each has a nonce of its own", () => {
  // The number is about to run over several bytes, and must not reach the part that stays.
  const nonce = Buffer.concat([Buffer.alloc(4, 0xff), Buffer.alloc(7, 0xff), Buffer.from([0xf0])]);
  const { key, state } = cipher(nonce);
  const nonces = new Set<string>();
  for (let length = 0; length <= 70; length += 1) {
    const payload = randomBytes(1 + (length % 7));
    const more = length % 3 === 0 ? undefined : randomBytes(length);
    const before = Buffer.from(state._encIV);
    nonces.add(before.toString("hex"));
    const protocol = { _cipher: state } as unknown as LibraryProtocol;
    const packet = Buffer.concat(sealed(protocol, payload, more) ?? []);
    const packetLength = packet.readUInt32BE(0);
    expect([packetLength % 16, packet.length]).toEqual([0, 4 + packetLength + 16]);
    const opening = createDecipheriv(name, key, before);
    opening.setAAD(packet.subarray(0, 4)).setAuthTag(packet.subarray(-16));
    const plain = Buffer.concat([opening.update(packet.subarray(4, -16)), opening.final()]);
    const padding = plain[0] ?? 0;
    expect(padding).toBeGreaterThanOrEqual(4);
    expect(
      plain.subarray(1, plain.length - padding).equals(Buffer.concat([payload, more ?? Buffer.alloc(0)])),
    ).toBe(true);
  }
  expect(nonces.size).toBe(71);
  expect(state._encIV.subarray(0, 4).equals(Buffer.alloc(4, 0xff))).toBe(true);
  expect(state.outSeqno).toBe(69);
});

test("while keys are exchanged, and with other ciphers, the library sends", () => {
  const { state } = cipher(randomBytes(12));
  const payload = Buffer.from([2]);
  for (const protocol of [
    { _cipher: state, _kexinit: Buffer.alloc(0) },
    { _cipher: { ...state, _encSSLName: "aes-128-ctr" } },
    { _cipher: { outSeqno: 0 } },
    {},
  ])
    expect(sealed(protocol as unknown as LibraryProtocol, payload, undefined)).toBeUndefined();
});
