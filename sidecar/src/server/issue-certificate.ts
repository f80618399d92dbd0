/**
 * Issues the gateway's own certificate, as a program of its own: `issue-certificate STATE NAME...` writes JSON.
 * What it loads for that would otherwise stay in the gateway's memory for as long as it runs.
 */
import "reflect-metadata";
import { webcrypto } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";

const leafDays = 90;
const caDays = 3650;

const [state = ".", ...names] = process.argv.slice(2);
process.stdout.write(JSON.stringify(await issue(state, names)));

/** PEM of a new leaf and its key, signed by the authority in the state folder, which is made where it is missing. */
async function issue(state: string, names: readonly string[]): Promise<{ certificate: string; key: string }> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  await mkdir(state, { recursive: true, mode: 0o700 });
  const ca = (await loadAuthority(state)) ?? (await makeAuthority(state, algorithm));
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
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
        names.map((name) => ({ type: /^[\d.]+$|:/.test(name) ? "ip" : "dns", value: name })),
      ),
      await x509.AuthorityKeyIdentifierExtension.create(ca.certificate.publicKey),
    ],
  });
  return { certificate: leaf.toString("pem"), key: await exportKey(keys.privateKey) };
}

interface Authority {
  readonly certificate: x509.X509Certificate;
  readonly key: webcrypto.CryptoKey;
}

async function loadAuthority(state: string): Promise<Authority | undefined> {
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

async function makeAuthority(state: string, algorithm: webcrypto.EcKeyGenParams): Promise<Authority> {
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
  await writeFile(join(state, "ca.key"), await exportKey(keys.privateKey), { mode: 0o600 });
  await writeFile(join(state, "ca.pem"), certificate.toString("pem"));
  return { certificate, key: keys.privateKey };
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY");
}
