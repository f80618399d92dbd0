/**
 * Issues the gateway's own certificate, as a program of its own: `issue-certificate STATE NAME...` writes JSON.
 * What it loads for that would otherwise stay in the gateway's memory for as long as it runs.
 */
import "reflect-metadata";
import { createPrivateKey, createPublicKey, webcrypto } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import * as x509 from "@peculiar/x509";
import { createWhole, replaceWhole } from "../recording/whole-file.ts";

const leafDays = 90;
const caDays = 3650;
const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };

const [state = ".", ...names] = process.argv.slice(2);
process.stdout.write(JSON.stringify(await issue(state, names)));

/** PEM of a new leaf and its key, signed by the authority in the state folder, which is made where it is missing. */
async function issue(state: string, names: readonly string[]): Promise<{ certificate: string; key: string }> {
  await mkdir(state, { recursive: true, mode: 0o700 });
  const ca = await authorityIn(state);
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

/**
 * The key counts: whoever is first makes it, and a certificate that is missing or another key's, as a crash can leave
 * it, is made anew. Of several that start at once each may make one; all of them verify what the key signs.
 */
async function authorityIn(state: string): Promise<Authority> {
  const key = await authorityKey(join(state, "ca.key"));
  const path = join(state, "ca.pem");
  const existing = await certificateOf(key.publicKey, path);
  if (existing !== undefined) return { certificate: existing, key: key.privateKey };
  const certificate = await selfSigned(key);
  await replaceWhole(path, certificate.toString("pem"), 0o644);
  return { certificate, key: key.privateKey };
}

/** Reads the key, made where it is missing. */
async function authorityKey(path: string): Promise<webcrypto.CryptoKeyPair> {
  const made = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  if (await createWhole(path, await exportKey(made.privateKey), 0o600)) return made;
  const key = createPrivateKey(await readFile(path, "utf8"));
  const [pkcs8, spki] = [
    key.export({ type: "pkcs8", format: "der" }),
    createPublicKey(key).export({ type: "spki", format: "der" }),
  ];
  return {
    privateKey: await webcrypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]),
    publicKey: await webcrypto.subtle.importKey("spki", spki, algorithm, true, ["verify"]),
  };
}

/** The certificate in the file, if it is this key's. */
async function certificateOf(
  key: webcrypto.CryptoKey,
  path: string,
): Promise<x509.X509Certificate | undefined> {
  try {
    const certificate = new x509.X509Certificate(await readFile(path, "utf8"));
    const own = Buffer.from(await webcrypto.subtle.exportKey("spki", key));
    return own.equals(Buffer.from(certificate.publicKey.rawData)) ? certificate : undefined;
  } catch {
    // None yet, or none that clients could read either.
    return undefined;
  }
}

async function selfSigned(keys: webcrypto.CryptoKeyPair): Promise<x509.X509Certificate> {
  return x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: Buffer.from(webcrypto.getRandomValues(new Uint8Array(16))).toString("hex"),
    name: "CN=sallyport gateway CA",
    notBefore: new Date(Date.now() - 300_000),
    notAfter: new Date(Date.now() + caDays * 86_400_000),
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", key), "PRIVATE KEY");
}
