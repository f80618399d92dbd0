/**
 * Keys and signatures of SSH (RFC 4253 6.6, RFC 5656, RFC 8332, RFC 8709, OpenSSH's PROTOCOL.u2f) on Node's crypto.
 * ssh2 accepts SHA-1 signatures and knows no security keys, so what proves an identity is verified here.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  hkdfSync,
  type KeyObject,
  sign,
  verify,
} from "node:crypto";
import { type LibraryHostKey, parseKey } from "./library.ts";
import { encoded, MalformedMessage, Reader } from "./messages.ts";

/** A public key of a client or server. */
export interface PublicKey {
  /** `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa`, `sk-…`. */
  readonly type: string;
  readonly key: KeyObject;
  /** The blob as it goes over the wire. */
  readonly blob: Buffer;
  /** Of a key in a security device: what it was made for. */
  readonly application?: string;
}

const curves: Readonly<
  Record<string, { readonly name: string; readonly jwk: string; readonly hash: string }>
> = {
  nistp256: { name: "nistp256", jwk: "P-256", hash: "sha256" },
  nistp384: { name: "nistp384", jwk: "P-384", hash: "sha384" },
  nistp521: { name: "nistp521", jwk: "P-521", hash: "sha512" },
};

/** Least bits of an RSA key. */
const rsaBitsMin = 2048;

/** Reads the fields of a key that follow its type; also those inside of a certificate. */
export function readKeyFields(type: string, reader: Reader): Omit<PublicKey, "blob"> {
  switch (type) {
    case "ssh-ed25519":
      return { type, key: ed25519Key(reader.string()) };
    case "sk-ssh-ed25519@openssh.com":
      return { type, key: ed25519Key(reader.string()), application: reader.text() };
    case "ecdsa-sha2-nistp256":
    case "ecdsa-sha2-nistp384":
    case "ecdsa-sha2-nistp521":
      return { type, key: ecdsaKey(reader, type.slice("ecdsa-sha2-".length)) };
    case "sk-ecdsa-sha2-nistp256@openssh.com":
      return { type, key: ecdsaKey(reader, "nistp256"), application: reader.text() };
    case "ssh-rsa": {
      const e = unsigned(reader.string()).toString("base64url");
      const n = unsigned(reader.string());
      if (n.length * 8 < rsaBitsMin || n.length > 2048) throw new MalformedMessage("an RSA key of that size");
      const key = createPublicKey({ key: { kty: "RSA", n: n.toString("base64url"), e }, format: "jwk" });
      return { type, key };
    }
    default:
      throw new MalformedMessage("a key of an unknown type");
  }
}

/** Reads a whole key blob. */
export function readPublicKey(blob: Buffer): PublicKey {
  const reader = new Reader(blob);
  const found = readKeyFields(reader.text(), reader);
  if (!reader.isAtEnd) throw new MalformedMessage("bytes after a key");
  return { ...found, blob };
}

/** Reads `ssh-ed25519 AAAA… comment`, as in known_hosts and authorized_keys; undefined where it is none. */
export function publicKeyOf(line: string): PublicKey | undefined {
  const [type, base64] = line.trim().split(/\s+/);
  try {
    const key = readPublicKey(Buffer.from(base64 ?? "", "base64"));
    return key.type === type ? key : undefined;
  } catch {
    return undefined;
  }
}

/** `SHA256:…`, as OpenSSH prints it. */
export function fingerprint(blob: Uint8Array): string {
  return `SHA256:${createHash("sha256").update(blob).digest("base64").replace(/=+$/, "")}`;
}

/** Whether `signature` is the key's over `data`, by `algorithm` as negotiated. */
export function isSignedBy(key: PublicKey, algorithm: string, data: Buffer, signature: Buffer): boolean {
  try {
    const reader = new Reader(signature);
    if (reader.text() !== algorithm || algorithmsOf(key.type).includes(algorithm) === false) return false;
    const bytes = reader.string();
    if (key.application !== undefined) return isSignedByDevice(key, data, bytes, reader);
    if (!reader.isAtEnd) return false;
    return isRawSignature(key, algorithm, data, bytes);
  } catch {
    return false;
  }
}

/** Signatures that are verified, from clients and for hosts. `ssh-rsa` (SHA-1) and DSA are not here. */
export const signatureAlgorithms = [
  "ssh-ed25519",
  "ecdsa-sha2-nistp256",
  "ecdsa-sha2-nistp384",
  "ecdsa-sha2-nistp521",
  "rsa-sha2-512",
  "rsa-sha2-256",
] as const;

/** What clients may sign by: also keys that live in security devices. */
export const clientSignatureAlgorithms: readonly string[] = [
  ...signatureAlgorithms,
  "sk-ssh-ed25519@openssh.com",
  "sk-ecdsa-sha2-nistp256@openssh.com",
];

/** The signature algorithms that a key may be used with. */
export function algorithmsOf(type: string): readonly string[] {
  return type === "ssh-rsa" ? ["rsa-sha2-512", "rsa-sha2-256"] : [type];
}

/** A private key of the gateway's own. */
export interface SigningKey {
  readonly key: KeyObject;
  readonly type: string;
  readonly blob: Buffer;
}

/** Signs as SSH wants it: the algorithm and the signature. */
export function signed(own: SigningKey, data: Buffer): Buffer {
  const algorithm = own.type === "ssh-rsa" ? "rsa-sha2-512" : own.type;
  return encoded(algorithm, rawSignature(own, algorithm, data));
}

/** Reads a private key in OpenSSH's or PKCS forms; undefined where it is none that can be used without a passphrase. */
export function signingKeyOf(text: string): SigningKey | undefined {
  try {
    return signingKey(createPrivateKey(text.includes("OPENSSH PRIVATE KEY") ? pemOf(text) : text));
  } catch {
    return undefined;
  }
}

/**
 * A key that every process and replica of the gateway derives alike from the secret that they share, so that clients
 * meet the same host key wherever they arrive and after every rollout.
 */
export function derivedKey(secret: Buffer, purpose: string): SigningKey {
  const seed = Buffer.from(hkdfSync("sha256", secret, "sallyport ssh", purpose, 32));
  // PKCS #8 of an Ed25519 key is this prefix and the seed (RFC 8410, section 7).
  const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
  return signingKey(createPrivateKey({ key: der, format: "der", type: "pkcs8" }));
}

/** A key of ours in the form in which ssh2's key exchange asks for one, by each algorithm that it can sign with. */
export function hostKeysOf(own: SigningKey): Readonly<Record<string, LibraryHostKey>> {
  const entry = (algorithm: string): LibraryHostKey => ({
    type: own.type,
    getPublicSSH: () => own.blob,
    sign: (data, hash) =>
      sign(own.type === "ssh-ed25519" ? null : (hash ?? hashOf(algorithm)), data, own.key),
  });
  return Object.fromEntries(algorithmsOf(own.type).map((algorithm) => [algorithm, entry(algorithm)]));
}

function signingKey(key: KeyObject): SigningKey {
  const jwk = key.export({ format: "jwk" });
  const bytes = (text: string | undefined) => Buffer.from(text ?? "", "base64url");
  if (jwk.kty === "OKP" && jwk.crv === "Ed25519")
    return { key, type: "ssh-ed25519", blob: encoded("ssh-ed25519", bytes(jwk.x)) };
  if (jwk.kty === "RSA")
    return { key, type: "ssh-rsa", blob: encoded("ssh-rsa", mpint(bytes(jwk.e)), mpint(bytes(jwk.n))) };
  const curve = Object.values(curves).find((one) => one.jwk === jwk.crv);
  if (curve === undefined) throw new MalformedMessage("a key of an unknown type");
  const type = `ecdsa-sha2-${curve.name}`;
  const point = Buffer.concat([Buffer.of(4), bytes(jwk.x), bytes(jwk.y)]);
  return { key, type, blob: encoded(type, curve.name, point) };
}

function pemOf(text: string): string {
  const parsed = parseKey(text);
  const first = Array.isArray(parsed) ? parsed[0] : parsed;
  if (first === undefined || first instanceof Error) throw new MalformedMessage("no private key");
  return first.getPrivatePEM();
}

function ed25519Key(bytes: Buffer): KeyObject {
  if (bytes.length !== 32) throw new MalformedMessage("an Ed25519 key has 32 bytes");
  return createPublicKey({
    key: { kty: "OKP", crv: "Ed25519", x: bytes.toString("base64url") },
    format: "jwk",
  });
}

function ecdsaKey(reader: Reader, name: string): KeyObject {
  const curve = curves[name];
  const said = reader.text();
  const point = reader.string();
  const size = (point.length - 1) / 2;
  if (curve === undefined || said !== name || point[0] !== 4) throw new MalformedMessage("no point");
  const x = point.subarray(1, 1 + size).toString("base64url");
  const y = point.subarray(1 + size).toString("base64url");
  return createPublicKey({ key: { kty: "EC", crv: curve.jwk, x, y }, format: "jwk" });
}

/** PROTOCOL.u2f: the device signs a hash of the application, flags, a counter and a hash of the data. */
function isSignedByDevice(key: PublicKey, data: Buffer, bytes: Buffer, reader: Reader): boolean {
  const flags = reader.byte();
  const counter = reader.uint32();
  // Without the touch of a person, whoever holds the machine holds the key.
  if (!reader.isAtEnd || (flags & 1) === 0) return false;
  const digest = (of: string | Buffer) => createHash("sha256").update(of).digest();
  const whole = Buffer.concat([
    digest(key.application ?? ""),
    Buffer.of(flags),
    encoded(counter),
    digest(data),
  ]);
  return isRawSignature(
    key,
    key.type.includes("ecdsa") ? "ecdsa-sha2-nistp256" : "ssh-ed25519",
    whole,
    bytes,
  );
}

function isRawSignature(key: PublicKey, algorithm: string, data: Buffer, bytes: Buffer): boolean {
  if (algorithm === "ssh-ed25519") return bytes.length === 64 && verify(null, data, key.key, bytes);
  if (algorithm.startsWith("rsa-")) return verify(hashOf(algorithm), data, key.key, bytes);
  const reader = new Reader(bytes);
  const size = sizeOf(algorithm);
  const pair = Buffer.concat([padded(reader.string(), size), padded(reader.string(), size)]);
  return reader.isAtEnd && verify(hashOf(algorithm), data, { key: key.key, dsaEncoding: "ieee-p1363" }, pair);
}

function rawSignature(own: SigningKey, algorithm: string, data: Buffer): Buffer {
  if (algorithm === "ssh-ed25519") return sign(null, data, own.key);
  if (algorithm.startsWith("rsa-")) return sign(hashOf(algorithm), data, own.key);
  const pair = sign(hashOf(algorithm), data, { key: own.key, dsaEncoding: "ieee-p1363" });
  const half = pair.length / 2;
  return encoded(mpint(pair.subarray(0, half)), mpint(pair.subarray(half)));
}

const sizeOf = (algorithm: string) => (algorithm.endsWith("521") ? 66 : algorithm.endsWith("384") ? 48 : 32);

const hashOf = (algorithm: string) =>
  algorithm.endsWith("521") || algorithm === "rsa-sha2-512"
    ? "sha512"
    : algorithm.endsWith("384")
      ? "sha384"
      : "sha256";

function unsigned(bytes: Buffer): Buffer {
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start += 1;
  return bytes.subarray(start);
}

function padded(bytes: Buffer, size: number): Buffer {
  const plain = unsigned(bytes);
  if (plain.length > size) throw new MalformedMessage("a signature that is too long");
  return Buffer.concat([Buffer.alloc(size - plain.length), plain]);
}

function mpint(bytes: Buffer): Buffer {
  const plain = unsigned(bytes);
  return (plain[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.of(0), plain]) : plain;
}
