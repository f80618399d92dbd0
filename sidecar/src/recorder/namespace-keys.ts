import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { diskStorage } from "../recording/storage.ts";
import { replaceWhole } from "../recording/whole-file.ts";

/**
 * Envelope encryption: one key a namespace, made by the recorder and kept on its volume wrapped by a key that is not
 * there. Who removes a namespace's wrapped key has made its recordings unreadable for good.
 */
export class NamespaceKeys {
  readonly #folder: string;
  readonly #isReadOnly: boolean;
  readonly #wrappingKeys: readonly Buffer[];
  readonly #keys = new Map<string, Promise<Buffer>>();

  /** The first wrapping key wraps; the others only unwrap, so that it can be changed. */
  constructor(
    folder: string,
    wrappingKeys: readonly Buffer[],
    options: { readonly isReadOnly?: boolean } = {},
  ) {
    if (wrappingKeys.length === 0 || wrappingKeys.some((key) => key.length !== keyBytes)) {
      throw new Error(`a wrapping key is ${keyBytes} bytes`);
    }
    this.#folder = folder;
    this.#isReadOnly = options.isReadOnly === true;
    this.#wrappingKeys = wrappingKeys;
  }

  /** The key of one session's file; made where the namespace has none yet and `create` says so. */
  async fileKey(namespace: string, sessionId: string, create: boolean): Promise<Buffer> {
    const key = await this.#keyOf(namespace, create);
    return Buffer.from(hkdfSync("sha256", key, "", `sallyport recording v1\n${sessionId}`, keyBytes));
  }

  #keyOf(namespace: string, create: boolean): Promise<Buffer> {
    const known = this.#keys.get(namespace);
    if (known !== undefined) return known;
    const loading = this.#load(namespace, create);
    this.#keys.set(namespace, loading);
    // A failure is not for ever: the next one tries again.
    loading.catch(() => this.#keys.delete(namespace));
    return loading;
  }

  async #load(namespace: string, create: boolean): Promise<Buffer> {
    const path = join(this.#folder, `${encodeURIComponent(namespace)}.json`);
    const stored = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
      return undefined;
    });
    if (stored === undefined) {
      if (!create || this.#isReadOnly) throw new Error(`the key of namespace ${namespace} is gone`);
      const key = randomBytes(keyBytes);
      await this.#store(path, namespace, key);
      return key;
    }
    const { wrapped } = JSON.parse(stored) as { readonly wrapped?: unknown };
    if (typeof wrapped !== "string") throw new Error(`the key of namespace ${namespace} is malformed`);
    const bytes = Buffer.from(wrapped, "base64");
    for (const [place, wrapping] of this.#wrappingKeys.entries()) {
      const key = open256(wrapping, bytes, aadOf(namespace));
      if (key === undefined) continue;
      if (place > 0 && !this.#isReadOnly) await this.#store(path, namespace, key);
      return key;
    }
    throw new Error(`no wrapping key opens the key of namespace ${namespace}`);
  }

  /** On disk, its name included, before anything is encrypted with it. */
  async #store(path: string, namespace: string, key: Buffer): Promise<void> {
    const [wrapping] = this.#wrappingKeys;
    if (wrapping === undefined) throw new Error("there is no wrapping key");
    const wrapped = seal256(wrapping, key, aadOf(namespace)).toString("base64");
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await replaceWhole(path, `${JSON.stringify({ version: 1, wrapped })}\n`, 0o600);
    await diskStorage.syncFolder(this.#folder);
  }
}

/** Reads a wrapping key: 32 bytes, as they are or in base64. */
export async function loadWrappingKey(path: string): Promise<Buffer> {
  const bytes = await readFile(path);
  if (bytes.length === keyBytes) return bytes;
  const decoded = Buffer.from(bytes.toString("latin1").trim(), "base64");
  if (decoded.length !== keyBytes) throw new Error(`${path} does not hold a key of ${keyBytes} bytes`);
  return decoded;
}

/** Names a wrapping key in logs. */
export function wrappingKeyName(key: Buffer): string {
  return createHash("sha256").update("sallyport wrapping key\n").update(key).digest("hex").slice(0, 16);
}

const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;

/** What `seal256` adds to a text. */
export const sealBytes = nonceBytes + tagBytes;

/** AES-256-GCM with a random nonce: nonce ‖ ciphertext ‖ tag. */
export function seal256(key: Buffer, plain: Uint8Array, aad: Buffer): Buffer {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(aad);
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/** Opens what `seal256` made; undefined where a byte of it, the key or the context is another. */
export function open256(key: Buffer, sealed: Buffer, aad: Buffer): Buffer | undefined {
  if (sealed.length < sealBytes) return undefined;
  const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(0, nonceBytes), {
    authTagLength: tagBytes,
  });
  decipher.setAAD(aad).setAuthTag(sealed.subarray(sealed.length - tagBytes));
  const plain = decipher.update(sealed.subarray(nonceBytes, sealed.length - tagBytes));
  try {
    return Buffer.concat([plain, decipher.final()]);
  } catch {
    // The tag does not fit: nothing of the text may be used.
    return undefined;
  }
}

function aadOf(namespace: string): Buffer {
  return Buffer.from(`sallyport namespace key v1\n${namespace}`);
}
