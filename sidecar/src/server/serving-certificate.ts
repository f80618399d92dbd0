import { webcrypto } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

/** What the gateway shows to clients, and the authority that they verify it with. */
export interface ServingCertificate {
  readonly certificate: string;
  readonly key: string;
  /** PEM of the authority, where the gateway issued the certificate itself. */
  readonly caPath: string;
}

const leafDays = 90;
const caDays = 3650;

/**
 * The certificate of a gateway that was given none: an authority of its own, kept in the state folder, and a leaf
 * made anew at every start. Clients verify with `ca.pem`.
 */
export async function issueServingCertificate(
  state: string,
  names: readonly string[],
): Promise<ServingCertificate> {
  await import("reflect-metadata");
  const x509 = await import("@peculiar/x509");
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  await mkdir(state, { recursive: true, mode: 0o700 });
  const caPath = join(state, "ca.pem");
  const ca = (await loadAuthority(x509, state)) ?? (await makeAuthority(x509, state, algorithm));
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const all = [...new Set(["localhost", "127.0.0.1", "::1", hostname(), ...names])];
  const leaf = await x509.X509CertificateGenerator.create({
    serialNumber: Buffer.from(webcrypto.getRandomValues(new Uint8Array(16))).toString("hex"),
    subject: "CN=sallyport gateway",
    issuer: ca.certificate.subject,
    notBefore: new Date(Date.now() - 300_000),
    notAfter: new Date(Date.now() + leafDays * 86_400_000),
    publicKey: keys.publicKey,
    signingKey: ca.key,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(
        all.map((name) => ({ type: /^[\d.]+$|:/.test(name) ? "ip" : "dns", value: name })),
      ),
      await x509.AuthorityKeyIdentifierExtension.create(ca.certificate.publicKey),
    ],
  });
  const key = await exportKey(x509, keys.privateKey);
  return { certificate: leaf.toString("pem"), key, caPath };
}

type X509 = typeof import("@peculiar/x509");
interface Authority {
  readonly certificate: InstanceType<X509["X509Certificate"]>;
  readonly key: webcrypto.CryptoKey;
}

async function loadAuthority(x509: X509, state: string): Promise<Authority | undefined> {
  let pem: [string, string];
  try {
    pem = await Promise.all([
      readFile(join(state, "ca.pem"), "utf8"),
      readFile(join(state, "ca.key"), "utf8"),
    ]);
  } catch {
    // No authority yet: the caller makes one.
    return undefined;
  }
  const der = x509.PemConverter.decodeFirst(pem[1]);
  const usage = { name: "ECDSA", namedCurve: "P-256" };
  const key = await webcrypto.subtle.importKey("pkcs8", der, usage, false, ["sign"]);
  return { certificate: new x509.X509Certificate(pem[0]), key };
}

async function makeAuthority(
  x509: X509,
  state: string,
  algorithm: webcrypto.EcKeyGenParams,
): Promise<Authority> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: Buffer.from(webcrypto.getRandomValues(new Uint8Array(16))).toString("hex"),
    name: "CN=sallyport gateway CA",
    notBefore: new Date(Date.now() - 300_000),
    notAfter: new Date(Date.now() + caDays * 86_400_000),
    keys,
    signingAlgorithm: { ...algorithm, hash: "SHA-256" },
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  await writeFile(join(state, "ca.key"), await exportKey(x509, keys.privateKey), { mode: 0o600 });
  await writeFile(join(state, "ca.pem"), certificate.toString("pem"));
  return { certificate, key: keys.privateKey };
}

async function exportKey(x509: X509, key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY");
}
