import { generateKeyPairSync, randomBytes } from "node:crypto";
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
