/** Certificates for the servers and clients of the tests and the demo: one authority, and what it issues. */
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";

/** A certificate with its private key, both as PEM. */
export interface IssuedCertificate {
  readonly certPem: string;
  readonly keyPem: string;
}

/** An authority of its own: nothing else trusts it, and its key never leaves this process. */
export interface Authority {
  readonly caPem: string;
  issue(request: {
    readonly commonName: string;
    /** What Kubernetes reads as groups. */
    readonly organizations?: readonly string[];
    readonly dnsNames?: readonly string[];
    readonly ipAddresses?: readonly string[];
    readonly usage: "server" | "client";
    /** Days from now; negative for one that has run out. */
    readonly days?: number;
  }): Promise<IssuedCertificate>;
}

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const dayMs = 86_400_000;

/** Makes a new authority; with an `organization`, its own certificate says that it may name nobody of another one. */
export async function createAuthority(
  name = "Sallyport test authority",
  { organization }: { readonly organization?: string } = {},
): Promise<Authority> {
  x509.cryptoProvider.set(webcrypto);
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    keys,
    signingAlgorithm: algorithm,
    notBefore: new Date(Date.now() - dayMs),
    notAfter: new Date(Date.now() + 30 * dayMs),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ...(organization === undefined ? [] : [permitted(organization)]),
    ],
  });
  return {
    caPem: `${ca.toString("pem")}\n`,
    issue: (request) => issue(ca, keys.privateKey, request),
  };
}

/** NameConstraints (RFC 5280, 4.2.1.10) with one permitted subtree: the directory names that begin with O=. */
function permitted(organization: string): x509.Extension {
  const der = (tag: number, ...inside: readonly Uint8Array[]) => {
    const content = Buffer.concat(inside);
    return Buffer.concat([Buffer.of(tag, content.length), content]);
  };
  const ofOrganization = der(0x30, Buffer.from("060355040a", "hex"), der(0x0c, Buffer.from(organization)));
  const name = der(0x30, der(0x31, ofOrganization));
  const subtrees = der(0xa0, der(0x30, der(0xa4, name)));
  return new x509.Extension("2.5.29.30", true, der(0x30, subtrees));
}

async function issue(
  ca: x509.X509Certificate,
  signingKey: webcrypto.CryptoKey,
  request: Parameters<Authority["issue"]>[0],
): Promise<IssuedCertificate> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const days = request.days ?? 30;
  const usage =
    request.usage === "server" ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth;
  const names: x509.JsonGeneralName[] = [
    ...(request.dnsNames ?? []).map((value) => ({ type: "dns" as const, value })),
    ...(request.ipAddresses ?? []).map((value) => ({ type: "ip" as const, value })),
  ];
  const certificate = await x509.X509CertificateGenerator.create({
    subject: [...(request.organizations ?? []).map((name) => ({ O: [name] })), { CN: [request.commonName] }],
    issuer: ca.subject,
    publicKey: keys.publicKey,
    signingKey,
    signingAlgorithm: algorithm,
    notBefore: new Date(Date.now() - (days < 0 ? 30 : 1) * dayMs),
    notAfter: new Date(Date.now() + days * dayMs),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([usage]),
      ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
      await x509.AuthorityKeyIdentifierExtension.create(ca.publicKey),
    ],
  });
  return { certPem: `${certificate.toString("pem")}\n`, keyPem: await privateKeyPem(keys.privateKey) };
}

async function privateKeyPem(key: webcrypto.CryptoKey): Promise<string> {
  return `${x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY")}\n`;
}
