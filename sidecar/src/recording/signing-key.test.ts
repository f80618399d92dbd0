import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { keyFingerprint, loadPublicKey, loadSigningKey, publicKeyPath } from "./signing-key.ts";
import { recordingFolder } from "./testing.ts";

test("a missing key is made once, for its owner alone, with its public key beside it", async () => {
  const place = await recordingFolder();
  try {
    const path = join(place.folder, "recording.key.pem");
    await expect(loadSigningKey(path, { create: false })).rejects.toThrow("cannot be read");
    const keys = await Promise.all([
      loadSigningKey(path, { create: true }),
      loadSigningKey(path, { create: true }),
    ]);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const again = await loadSigningKey(path, { create: false });
    const published = await loadPublicKey(publicKeyPath(path));
    expect(publicKeyPath(path)).toBe(join(place.folder, "recording.pub.pem"));
    expect(new Set([...keys, again, published].map(keyFingerprint)).size).toBe(1);
    expect(await readFile(publicKeyPath(path), "utf8")).not.toContain("PRIVATE");
  } finally {
    await place.remove();
  }
});

test("what is no Ed25519 key is refused without quoting the file", async () => {
  const place = await recordingFolder();
  try {
    const path = join(place.folder, "k.pem");
    await loadSigningKey(path, { create: true });
    await writeFile(path, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    const error = await loadSigningKey(path, { create: true }).catch((reason: Error) => reason);
    expect(String(error)).toContain("is not a private key in PEM form");
    expect(String(error)).not.toContain("c2VjcmV0");
  } finally {
    await place.remove();
  }
});
