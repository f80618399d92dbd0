import { generateKeyPairSync, randomBytes } from "node:crypto";
import type { Identity } from "@sallyport/policy";
import { expect, test } from "vitest";
import {
  certifiedIdentity,
  certifiedType,
  isInForce,
  issueCertificate,
  readCertificate,
} from "./certificates.ts";
import { derivedKey, isSignedBy, readPublicKey, type SigningKey, signed, signingKeyOf } from "./keys.ts";
import { encoded } from "./messages.ts";

const authority = derivedKey(randomBytes(32), "user authority v1");
const pem = (pair: ReturnType<typeof generateKeyPairSync>) =>
  signingKeyOf(pair.privateKey.export({ type: "pkcs8", format: "pem" }).toString()) as SigningKey;
const keys = {
  ed25519: pem(generateKeyPairSync("ed25519") as never),
  p256: pem(generateKeyPairSync("ec", { namedCurve: "P-256" }) as never),
  p521: pem(generateKeyPairSync("ec", { namedCurve: "P-521" }) as never),
  rsa: pem(generateKeyPairSync("rsa", { modulusLength: 2048 }) as never),
};
const identity: Identity = {
  provider: "local",
  user: "local:alice",
  groups: ["g"],
  kind: "Human",
  claims: { sub: "alice" },
};
const issue = (own: SigningKey, by = authority) =>
  issueCertificate({
    key: readPublicKey(own.blob),
    identity,
    principal: "default/web",
    authority: by,
    validAfter: 1000,
    validBefore: 2000,
  });

test.each(Object.entries(keys))("a signature by %s verifies, and over other data does not", (_name, own) => {
  const algorithm = own.type === "ssh-rsa" ? "rsa-sha2-512" : own.type;
  const key = readPublicKey(own.blob);
  const signature = signed(own, Buffer.from("data"));
  expect(isSignedBy(key, algorithm, Buffer.from("data"), signature)).toBe(true);
  expect(isSignedBy(key, algorithm, Buffer.from("date"), signature)).toBe(false);
  expect(isSignedBy(key, "ssh-rsa", Buffer.from("data"), signature)).toBe(false);
  expect(isSignedBy(key, algorithm, Buffer.from("data"), Buffer.concat([signature, Buffer.of(0)]))).toBe(
    false,
  );
});

test.each(Object.entries(keys))(
  "a certificate for %s says who it stands for, from when until when",
  (_name, own) => {
    const { type, blob } = issue(own);
    expect(certifiedType(type)).toBe(own.type);
    const certificate = readCertificate(blob, authority);
    expect(certifiedIdentity(certificate)).toEqual(identity);
    expect(isInForce(certificate, "default/web", 1_500_000)).toBe(true);
    expect(isInForce(certificate, "default/web", 999_000)).toBe(false);
    expect(isInForce(certificate, "default/web", 2_000_000)).toBe(false);
    expect(isInForce(certificate, "default/other", 1_500_000)).toBe(false);
  },
);

test("no byte of a certificate can be changed, and none be cut or added", () => {
  const { blob } = issue(keys.ed25519);
  for (let at = 0; at < blob.length; at += 1) {
    const changed = Buffer.from(blob);
    changed[at] = (changed[at] ?? 0) ^ 1;
    expect(() => readCertificate(changed, authority), `byte ${at}`).toThrow();
  }
  expect(() => readCertificate(blob.subarray(0, -1), authority)).toThrow();
  expect(() => readCertificate(Buffer.concat([blob, Buffer.of(0)]), authority)).toThrow();
});

test("a certificate of another authority, and a plain key, are refused", () => {
  const other = derivedKey(randomBytes(32), "user authority v1");
  expect(() => readCertificate(issue(keys.ed25519, other).blob, authority)).toThrow();
  expect(() => readCertificate(keys.ed25519.blob, authority)).toThrow();
});

test("replicas that share the secret derive the same key, other purposes another", () => {
  const secret = randomBytes(32);
  expect(derivedKey(secret, "host key v1").blob).toEqual(derivedKey(secret, "host key v1").blob);
  expect(derivedKey(secret, "host key v1").blob).not.toEqual(derivedKey(secret, "user authority v1").blob);
});

test("short RSA keys and unknown kinds are no keys", () => {
  const short = generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey.export({ format: "jwk" });
  const blob = encoded(
    "ssh-rsa",
    Buffer.from(short.e ?? "", "base64url"),
    Buffer.from(short.n ?? "", "base64url"),
  );
  expect(() => readPublicKey(blob)).toThrow();
  expect(() => readPublicKey(encoded("ssh-dss", randomBytes(64)))).toThrow();
});
