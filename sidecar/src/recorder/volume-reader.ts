import type { KeyObject } from "node:crypto";
import { join } from "node:path";
import { logNames, readLogs } from "../recording/log-history.ts";
import type { Verification, VerifyOptions } from "../recording/verify.ts";
import { loadWrappingKey, NamespaceKeys } from "./namespace-keys.ts";
import { undamagedChunks, verifyVolume } from "./recording-volume.ts";
import { readSealed } from "./sealed-file.ts";

/** A recorder's volume, or a copy of one, for whoever holds the wrapping keys: nothing is changed in it. */
export interface VolumeReader {
  /** Says of every recording whether it is what was written. */
  verify(publicKey: KeyObject, options?: VerifyOptions): Promise<Verification>;
  /** The ids of the sessions that its logs know, oldest first. */
  sessions(): Promise<readonly string[]>;
  /** A session's journal in plain text; throws where no log knows it, and behind the last piece that is as it was written. */
  read(sessionId: string): Promise<AsyncGenerator<Buffer, void, undefined>>;
}

/** Opens a volume for reading. */
export async function readVolume(folder: string, wrappingKeyFiles: readonly string[]): Promise<VolumeReader> {
  const wrapping = await Promise.all(wrappingKeyFiles.map(loadWrappingKey));
  const keys = new NamespaceKeys(join(folder, "keys"), wrapping, { isReadOnly: true });
  const history = async () => readLogs(folder, await logNames(folder), undefined);
  return {
    verify: (publicKey, options) => verifyVolume(folder, publicKey, keys, options),
    sessions: async () => [...(await history()).sessions.keys()],
    async read(sessionId) {
      const entry = (await history()).sessions.get(sessionId);
      if (entry === undefined) throw new Error(`there is no session ${sessionId}`);
      const { namespace, path } = entry.opened;
      const key = await keys.fileKey(namespace, sessionId, false);
      return undamagedChunks(readSealed(join(folder, path), key, sessionId));
    },
  };
}
