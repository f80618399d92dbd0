/** The secret that masks hash with: the same over restarts and replicas, so that a hash of today joins one of yesterday. */
import { hkdfSync, randomBytes } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { createWhole } from "../recording/whole-file.ts";

const bytesMin = 32;

/** Reads the secret from `file`; where none is named, from the state folder, made there at first use. */
export async function loadMaskingKey(file: string, state: string): Promise<Buffer> {
  const path = file === "" ? join(state, "masking.key") : file;
  if (file === "") {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    // Another process may make it at the same moment: the first one's is read by both.
    await createWhole(path, `${randomBytes(bytesMin).toString("hex")}\n`, 0o600);
  }
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw new Error(`the masking key ${path} cannot be read`, { cause });
  });
  const secret = Buffer.from(bytes.toString("latin1").trim(), "latin1");
  if (secret.length < bytesMin) throw new Error(`the masking key ${path} has fewer than ${bytesMin} bytes`);
  return secret;
}

/** What gateways that share the secret seal cancel keys with. */
export function sealingSecretOf(maskingKey: Buffer): Buffer {
  return Buffer.from(hkdfSync("sha256", maskingKey, Buffer.alloc(0), "sallyport cancel keys", bytesMin));
}
