import "reflect-metadata";
import { webcrypto } from "node:crypto";
import { isIP } from "node:net";
import * as x509 from "@peculiar/x509";

/** A certificate authority, or what is left of one: without its key it is still trusted and signs no more. */
export interface Authority {
  readonly certificate: string;
  readonly key?: string;
  /** Milliseconds since the epoch at which it became what it is. */
  readonly since: number;
}

/** One authority through its rotations: what signs, what comes, what is still trusted. */
export interface AuthorityHistory {
  readonly current: Authority;
  readonly next?: Authority;
  readonly previous: readonly Authority[];
}

/** What a certificate is to say. */
export interface LeafRequest {
  readonly commonName: string;
  /** DNS names and addresses. */
  readonly names?: readonly string[];
  readonly uri?: string;
  /** A peer is both: gateways dial each other. */
  readonly usage: "server" | "client" | "peer";
  readonly lifeMs: number;
  readonly now: number;
  /** PEM (SPKI) of the key that the certificate is for. */
  readonly publicKey: string;
}

const dayMs = 86_400_000;
/** Clocks of one cluster differ by less. */
const skewMs = 300_000;

/** How long things live; every part of the rotation follows from these. */
export const lifetimes = {
  authorityMs: 3650 * dayMs,
  /** A new authority is trusted for so long before it signs. */
  overlapMs: dayMs,
  servingMs: 90 * dayMs,
  gatewayMs: 7 * dayMs,
} as const;

const algorithm = { name: "ECDSA", namedCurve: "P-256" };
const signing = { ...algorithm, hash: "SHA-256" };

/** Makes an authority that signs leaves only. */
export async function makeAuthority(commonName: string, now: number): Promise<Authority> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: `CN=${commonName}`,
    notBefore: new Date(now - skewMs),
    notAfter: new Date(now + lifetimes.authorityMs),
    keys,
    signingAlgorithm: signing,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: certificate.toString("pem"), key: await privatePem(keys.privateKey), since: now };
}

/** Signs a certificate; the names come from the caller, never from whoever asked for it. */
export async function signLeaf(authority: Authority, request: LeafRequest): Promise<string> {
  if (authority.key === undefined) throw new TypeError("an authority without its key signs nothing");
  const issuer = new x509.X509Certificate(authority.certificate);
  const signingKey = await webcrypto.subtle.importKey(
    "pkcs8",
    x509.PemConverter.decodeFirst(authority.key),
    algorithm,
    false,
    ["sign"],
  );
  const { names = [], uri, usage, now, lifeMs } = request;
  const subjects: x509.JsonGeneralName[] = [
    ...names.map((value): x509.JsonGeneralName => ({ type: isIP(value) === 0 ? "dns" : "ip", value })),
    ...(uri === undefined ? [] : [{ type: "url" as const, value: uri }]),
  ];
  const notAfter = Math.min(now + lifeMs, issuer.notAfter.getTime());
  const leaf = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: `CN=${request.commonName.slice(0, 64)}`,
    issuer: issuer.subject,
    notBefore: new Date(now - skewMs),
    notAfter: new Date(notAfter),
    publicKey: await new x509.PublicKey(x509.PemConverter.decodeFirst(request.publicKey)).export(),
    signingKey,
    signingAlgorithm: signing,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension(extendedUsages[usage]),
      new x509.SubjectAlternativeNameExtension(subjects),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  });
  return leaf.toString("pem");
}

/** A new key pair for a certificate of the operator's own. */
export async function makeKey(): Promise<{ readonly publicKey: string; readonly privateKey: string }> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const spki = await webcrypto.subtle.exportKey("spki", keys.publicKey);
  return {
    publicKey: x509.PemConverter.encode(spki, "PUBLIC KEY"),
    privateKey: await privatePem(keys.privateKey),
  };
}

/**
 * One step of an authority's rotation: at two thirds of its life the next one is made and trusted; a day later it
 * signs; the old one stays trusted until everything that it signed has expired.
 */
export async function rotated(
  history: AuthorityHistory,
  commonName: string,
  now: number,
): Promise<AuthorityHistory> {
  const previous = history.previous.filter(
    ({ since }) => now < since + lifetimes.servingMs + lifetimes.overlapMs,
  );
  const { current, next } = history;
  if (next !== undefined && now >= next.since + lifetimes.overlapMs) {
    const { certificate } = current;
    return { current: { ...next, since: now }, previous: [...previous, { certificate, since: now }] };
  }
  if (next === undefined && isDue(current.certificate, now)) {
    return { current, next: await makeAuthority(commonName, now), previous };
  }
  return { current, ...(next && { next }), previous };
}

/** Everything that is to be trusted, as PEM: the signing authority first. */
export function bundleOf({ current, next, previous }: AuthorityHistory): string {
  return [current, ...(next === undefined ? [] : [next]), ...previous]
    .map(({ certificate }) => certificate.trim())
    .join("\n")
    .concat("\n");
}

/** Whether a certificate has used up two thirds of its life, or is none. */
export function isDue(certificate: string, now: number): boolean {
  return now >= renewalOf(certificate);
}

/** When a certificate is to be renewed, in milliseconds since the epoch; 0 for a text that is none. */
export function renewalOf(certificate: string): number {
  try {
    const { notBefore, notAfter } = new x509.X509Certificate(certificate);
    return notBefore.getTime() + ((notAfter.getTime() - notBefore.getTime()) * 2) / 3;
  } catch {
    // What cannot be read cannot be served: it is replaced.
    return 0;
  }
}

/** Whether a certificate carries exactly these names and was signed by this authority. */
export async function isIssuedFor(
  certificate: string,
  names: readonly string[],
  authority: string,
): Promise<boolean> {
  try {
    const leaf = new x509.X509Certificate(certificate);
    const found = leaf
      .getExtension(x509.SubjectAlternativeNameExtension)
      ?.names.items.map(({ value }) => value);
    const isSame = found?.length === names.length && names.every((name) => found.includes(name));
    return (
      isSame && (await leaf.verify({ publicKey: new x509.X509Certificate(authority), signatureOnly: true }))
    );
  } catch {
    // The same answer for a broken certificate as for a foreign one.
    return false;
  }
}

const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;
const extendedUsages = {
  server: [serverAuth],
  client: [clientAuth],
  peer: [serverAuth, clientAuth],
};

const serialNumber = () => {
  const bytes = webcrypto.getRandomValues(new Uint8Array(16));
  // A serial number is positive.
  bytes[0] = (bytes[0] ?? 0) & 0x7f || 1;
  return Buffer.from(bytes).toString("hex");
};

async function privatePem(key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY");
}
