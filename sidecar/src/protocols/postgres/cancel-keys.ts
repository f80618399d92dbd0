import { randomBytes, timingSafeEqual } from "node:crypto";

/** A key that a client holds; the server's own key never leaves the gateway. */
export interface CancelKey {
  readonly processId: number;
  readonly key: Buffer;
}

/** Keys of live sessions: what a CancelRequest names, and what to do then. */
export class CancelKeys {
  private readonly live = new Map<number, { readonly key: Buffer; readonly cancel: () => void }>();

  /** Makes a key of `length` bytes (4 for protocol 3.0, 32 for 3.2) that leads to `cancel`. */
  issue(length: 4 | 32, cancel: () => void): CancelKey {
    let processId = randomBytes(4).readUInt32BE(0) & 0x7fffffff;
    while (processId === 0 || this.live.has(processId))
      processId = randomBytes(4).readUInt32BE(0) & 0x7fffffff;
    const key = randomBytes(length);
    this.live.set(processId, { key, cancel });
    return { processId, key };
  }

  /** Cancels what the key names; false where there is no such session or the key is wrong. */
  cancel(processId: number, key: Buffer): boolean {
    const found = this.live.get(processId);
    if (found === undefined || found.key.length !== key.length || !timingSafeEqual(found.key, key))
      return false;
    found.cancel();
    return true;
  }

  revoke(processId: number): void {
    this.live.delete(processId);
  }
}
