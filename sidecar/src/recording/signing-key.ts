/** The recorder's Ed25519 key: the private part signs heads, the public part is all that `verify` needs. */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { createWhole } from "./whole-file.ts";

/** Reads the private key; creates it (0600) with its public key beside it where it is missing and may be made. */
export async function loadSigningKey(
  path: string,
  options: { readonly create: boolean },
): Promise<KeyObject> {
  const existing = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" && options.create) return undefined;
    throw new Error(`recording key ${path} cannot be read`, { cause: error });
  });
  const key = existing === undefined ? await createSigningKey(path) : ed25519Private(existing, path);
  const pem = createPublicKey(key).export({ type: "spki", format: "pem" });
  // A mounted Secret is read-only: there the public key is handed out by other means.
  await createWhole(publicKeyPath(path), String(pem), 0o644).catch(() => undefined);
  return key;
}

/** Reads a public key for `verify`; a private key's file is taken for its public part. */
export async function loadPublicKey(path: string): Promise<KeyObject> {
  const pem = await readFile(path, "utf8");
  const key = createPublicKey(pem);
  if (key.asymmetricKeyType !== "ed25519") throw new Error(`${path} does not hold an Ed25519 key`);
  return key;
}

/** Where the public key of a private key's file lies: `x.key.pem` → `x.pub.pem`. */
export function publicKeyPath(privateKeyPath: string): string {
  return `${privateKeyPath.replace(/(\.key)?(\.pem)?$/, "")}.pub.pem`;
}

/** Names a key in the log: SHA-256 of its public part. */
export function keyFingerprint(key: KeyObject): string {
  const publicKey = key.type === "private" ? createPublicKey(key) : key;
  return createHash("sha256")
    .update(publicKey.export({ type: "spki", format: "der" }))
    .digest("hex");
}

async function createSigningKey(path: string): Promise<KeyObject> {
  const { privateKey } = generateKeyPairSync("ed25519");
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const pem = privateKey.export({ type: "pkcs8", format: "pem" });
  // Where another process was first, its key counts.
  return (await createWhole(path, String(pem), 0o600))
    ? privateKey
    : ed25519Private(await readFile(path, "utf8"), path);
}

function ed25519Private(pem: string, path: string): KeyObject {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    // The parser's own error may quote the file.
    throw new Error(`recording key ${path} is not a private key in PEM form`);
  }
  if (key.asymmetricKeyType !== "ed25519") throw new Error(`recording key ${path} is not an Ed25519 key`);
  return key;
}
