/**
 * OpenSSH certificates (PROTOCOL.certkeys): how the gateway binds a public key to an identity for a while. It signs one
 * for whoever has shown a token, and needs to keep nothing: every replica verifies it by the key that they all derive.
 * Those of hosts are signed by an authority that the resource pins.
 *
 *     string type   string nonce   …key…   uint64 serial   uint32 kind   string key id   string principals
 *     uint64 valid after   uint64 valid before   string critical options   string extensions   string reserved
 *     string signature key   string signature
 */
import { randomBytes } from "node:crypto";
import type { Identity } from "@sallyport/policy";
import { isSignedBy, type PublicKey, readKeyFields, readPublicKey, type SigningKey, signed } from "./keys.ts";
import { encoded, MalformedMessage, Reader } from "./messages.ts";

/** A certificate whose signature has been verified. */
export interface Certificate {
  readonly key: Omit<PublicKey, "blob">;
  /** The certified key alone, as it goes over the wire. */
  readonly plain: Buffer;
  /** The authority's key. */
  readonly signer: Buffer;
  readonly keyId: string;
  readonly principals: readonly string[];
  /** Epoch seconds. */
  readonly validAfter: bigint;
  readonly validBefore: bigint;
  readonly extensions: ReadonlyMap<string, Buffer>;
}

/** The account that `sallyport login` names; no credential of a resource can be called so. */
export const certifyAccount = ".certify";

const certificateSuffix = "-cert-v01@openssh.com";
const identityExtension = "identity@sallyport.dev";
const identityBytesMax = 16 * 1024;

/** The plain type of a certificate's key, or undefined where the type names no certificate. */
export function certifiedType(type: string): string | undefined {
  if (!type.endsWith(certificateSuffix)) return undefined;
  const plain = type.slice(0, -certificateSuffix.length);
  if (plain === "rsa-sha2-256" || plain === "rsa-sha2-512") return "ssh-rsa";
  return plain.startsWith("sk-") ? `${plain}@openssh.com` : plain;
}

/** The signature algorithm that a client uses with a certificate of that algorithm name. */
export function signatureAlgorithm(algorithm: string): string {
  const plain = algorithm.slice(0, -certificateSuffix.length);
  return plain.startsWith("sk-") ? `${plain}@openssh.com` : plain;
}

/** Reads a user certificate that `authority` has signed; throws where it is anything else. */
export function readCertificate(blob: Buffer, authority: SigningKey): Certificate {
  return read(blob, userCertificate, [authority.blob]);
}

/** Reads a host's certificate that one of `authorities` (keys as they go over the wire) has signed; throws otherwise. */
export function readHostCertificate(blob: Buffer, authorities: readonly Buffer[]): Certificate {
  return read(blob, hostCertificate, authorities);
}

function read(blob: Buffer, wanted: number, authorities: readonly Buffer[]): Certificate {
  const reader = new Reader(blob);
  const type = certifiedType(reader.text());
  if (type === undefined) throw new MalformedMessage("no certificate");
  reader.string();
  const before = reader.rest;
  const key = readKeyFields(type, reader);
  const plain = encoded(type, { raw: before.subarray(0, before.length - reader.rest.length) });
  reader.uint64();
  const kind = reader.uint32();
  const keyId = reader.text();
  const principals = strings(reader.string());
  const validAfter = reader.uint64();
  const validBefore = reader.uint64();
  const critical = reader.string();
  const extensions = options(reader.string());
  reader.string();
  const signer = reader.string();
  const body = blob.subarray(0, blob.length - reader.rest.length);
  const signature = reader.string();
  if (!reader.isAtEnd || kind !== wanted) {
    throw new MalformedMessage(`it is no ${wanted === userCertificate ? "user" : "host"} certificate`);
  }
  // None is known, of users or of hosts, and one that is not understood must be refused.
  if (critical.length > 0) throw new MalformedMessage("it has a critical option that is not known");
  if (!authorities.some((one) => one.equals(signer)))
    throw new MalformedMessage("it is another authority's certificate");
  // Whether that algorithm may be used with the key is asked there: SHA-1 may not.
  if (!isSignedBy(readPublicKey(signer), new Reader(signature).text(), body, signature))
    throw new MalformedMessage("its signature is wrong");
  return { key, plain, signer, keyId, principals, validAfter, validBefore, extensions };
}

/** Whether it may be used now, as that principal. */
export function isInForce(certificate: Certificate, principal: string, nowMs: number): boolean {
  // No principals would mean anybody: OpenSSH's trap, which is none here.
  return isWithin(certificate, nowMs) && certificate.principals.includes(principal);
}

/** Whether its time has come and is not over. */
export function isWithin({ validAfter, validBefore }: Certificate, nowMs: number): boolean {
  const now = BigInt(Math.floor(nowMs / 1000));
  return now >= validAfter && now < validBefore;
}

/** Who a certificate of ours stands for; undefined where it says nothing that can be read. */
export function certifiedIdentity(certificate: Certificate): Identity | undefined {
  const found = certificate.extensions.get(identityExtension);
  if (found === undefined || found.length > identityBytesMax) return undefined;
  try {
    // Signed by the gateway's own key, so its form is the gateway's own.
    return JSON.parse(new Reader(found).string().toString("utf8")) as Identity;
  } catch {
    return undefined;
  }
}

/** Binds a key to an identity until `validBefore`; `principal` is the resource that it is for. */
export function issueCertificate(request: {
  readonly key: PublicKey;
  readonly identity: Identity;
  readonly principal: string;
  readonly authority: SigningKey;
  /** Epoch seconds. */
  readonly validAfter: number;
  readonly validBefore: number;
}): { readonly type: string; readonly blob: Buffer } {
  const { key, identity, principal, authority } = request;
  const type = `${key.type.replace(/@openssh\.com$/, "")}${certificateSuffix}`;
  const reader = new Reader(key.blob);
  reader.string();
  const claims = JSON.stringify(identity);
  if (Buffer.byteLength(claims) > identityBytesMax) throw new MalformedMessage("too many claims");
  const extensions = encoded(
    identityExtension,
    encoded(claims),
    // OpenSSH's own, in the order of their names; what they allow is judged by policy.
    ...["permit-agent-forwarding", "permit-port-forwarding", "permit-pty"].flatMap((name) => [name, ""]),
  );
  const body = encoded(
    type,
    randomBytes(32),
    { raw: reader.rest },
    { raw: uint64(BigInt(`0x${randomBytes(8).toString("hex")}`)) },
    userCertificate,
    identity.user,
    encoded(principal),
    { raw: uint64(BigInt(request.validAfter)) },
    { raw: uint64(BigInt(request.validBefore)) },
    "",
    extensions,
    "",
    authority.blob,
  );
  return { type, blob: Buffer.concat([body, encoded(signed(authority, body))]) };
}

const userCertificate = 1;
const hostCertificate = 2;
const entriesMax = 256;

function strings(bytes: Buffer): readonly string[] {
  const reader = new Reader(bytes);
  const found: string[] = [];
  while (!reader.isAtEnd && found.length < entriesMax) found.push(reader.text());
  return found;
}

function options(bytes: Buffer): ReadonlyMap<string, Buffer> {
  const reader = new Reader(bytes);
  const found = new Map<string, Buffer>();
  while (!reader.isAtEnd && found.size < entriesMax) found.set(reader.text(), reader.string());
  return found;
}

function uint64(value: bigint): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}
