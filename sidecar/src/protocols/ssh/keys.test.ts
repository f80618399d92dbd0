import { createHash, generateKeyPairSync, type KeyObject, randomBytes, sign } from "node:crypto";
import { expect, test } from "vitest";
import {
  derivedKey,
  hostKeysOf,
  isSignedBy,
  publicKeyOf,
  readPublicKey,
  signed,
  signingKeyOf,
} from "./keys.ts";
import { encoded } from "./messages.ts";

test("S20 whoever shares the secret derives the same host key, and for another purpose or secret another", () => {
  const secret = randomBytes(32);
  const [one, two] = [derivedKey(secret, "host key v1"), derivedKey(Buffer.from(secret), "host key v1")];
  expect(one.blob).toEqual(two.blob);
  expect(derivedKey(secret, "user authority v1").blob).not.toEqual(one.blob);
  expect(derivedKey(randomBytes(32), "host key v1").blob).not.toEqual(one.blob);
});

test.each([
  ["Ed25519", () => generateKeyPairSync("ed25519").privateKey, "ssh-ed25519"],
  ["RSA", () => generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey, "rsa-sha2-512"],
  ["P-256", () => generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey, "ecdsa-sha2-nistp256"],
  ["P-384", () => generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey, "ecdsa-sha2-nistp384"],
  ["P-521", () => generateKeyPairSync("ec", { namedCurve: "P-521" }).privateKey, "ecdsa-sha2-nistp521"],
] as const)(
  "S18 a signature of an %s key counts for its data, its algorithm and nothing else",
  (_, make, algorithm) => {
    const own = signingKeyOf(make().export({ type: "pkcs8", format: "pem" }).toString());
    if (own === undefined) throw new Error("the key cannot be read");
    const key = readPublicKey(own.blob);
    const data = randomBytes(64);
    const signature = signed(own, data);
    expect(isSignedBy(key, algorithm, data, signature)).toBe(true);
    expect(isSignedBy(key, algorithm, randomBytes(64), signature)).toBe(false);
    expect(isSignedBy(key, "ssh-rsa", data, signature)).toBe(false);
    expect(isSignedBy(key, algorithm, data, Buffer.concat([signature, Buffer.of(0)]))).toBe(false);
    expect(Object.keys(hostKeysOf(own))).toContain(algorithm);
    expect(publicKeyOf(`${own.type} ${own.blob.toString("base64")} comment`)?.blob).toEqual(own.blob);
  },
);

test("S18 SHA-1 signatures of RSA keys are refused", () => {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const own = signingKeyOf(privateKey.export({ type: "pkcs8", format: "pem" }).toString());
  const key = readPublicKey(own?.blob ?? Buffer.alloc(0));
  expect(isSignedBy(key, "ssh-rsa", Buffer.alloc(1), encoded("ssh-rsa", Buffer.alloc(256)))).toBe(false);
});

test("a short RSA key is none", () => {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 1024 });
  const own = signingKeyOf(privateKey.export({ type: "pkcs8", format: "pem" }).toString());
  expect(() => readPublicKey(own?.blob ?? Buffer.alloc(0))).toThrow();
});

test.each(["ed25519", "P-256"] as const)(
  "S18 a security key's %s signature counts for its application, with a touch, and for nothing else",
  (kind) => {
    const isEd25519 = kind === "ed25519";
    const { privateKey } = (
      isEd25519 ? generateKeyPairSync("ed25519") : generateKeyPairSync("ec", { namedCurve: "P-256" })
    ) as { readonly privateKey: KeyObject };
    const plain = signingKeyOf(privateKey.export({ type: "pkcs8", format: "pem" }).toString());
    if (plain === undefined) throw new Error("the key cannot be read");
    const type = `sk-${plain.type}@openssh.com`;
    const keyFor = (application: string) => {
      const fields = plain.blob.subarray(4 + plain.type.length);
      return readPublicKey(encoded(type, { raw: fields }, application));
    };
    const data = randomBytes(64);
    const digest = (of: string | Buffer) => createHash("sha256").update(of).digest();
    const flagged = (flags: number, counter: number) => Buffer.concat([Buffer.of(flags), encoded(counter)]);
    /** As the device signs (PROTOCOL.u2f), and as it says that it has. */
    const bySigning = (flags: number, counter: number, said = flagged(flags, counter)) => {
      const whole = Buffer.concat([digest("ssh:"), flagged(flags, counter), digest(data)]);
      const raw = isEd25519 ? sign(null, whole, privateKey) : undefined;
      const inner = raw === undefined ? signed(plain, whole).subarray(4 + plain.type.length) : encoded(raw);
      return Buffer.concat([encoded(type), inner, said]);
    };
    const good = bySigning(1, 7);
    expect(isSignedBy(keyFor("ssh:"), type, data, good)).toBe(true);
    expect(isSignedBy(keyFor("ssh:elsewhere"), type, data, good)).toBe(false);
    expect(isSignedBy(keyFor("ssh:"), type, randomBytes(64), good)).toBe(false);
    expect(isSignedBy(keyFor("ssh:"), plain.type, data, good)).toBe(false);
    // Nobody has touched it; or says so, where the device has signed otherwise; or counts on.
    expect(isSignedBy(keyFor("ssh:"), type, data, bySigning(0, 7))).toBe(false);
    expect(isSignedBy(keyFor("ssh:"), type, data, bySigning(0, 7, flagged(1, 7)))).toBe(false);
    expect(isSignedBy(keyFor("ssh:"), type, data, bySigning(1, 7, flagged(1, 8)))).toBe(false);
    expect(isSignedBy(keyFor("ssh:"), type, data, Buffer.concat([good, Buffer.of(0)]))).toBe(false);
  },
);
