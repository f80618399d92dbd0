/**
 * Keys of live sessions. The process id that a client sees is ours, and says where the session is:
 *
 *     0 | 1 | replica (8 bits) | process (6 bits) | random (16 bits)
 *
 * so that a CancelRequest that arrives anywhere finds its way. No operating system has processes with numbers as large
 * (Linux ends at 2^22): a client that passes its own to pg_terminate_backend must not end somebody else's session. The key proper is random alone, 4 bytes for protocol 3.0
 * and 32 for 3.2: with the random part of the process id a guess meets one of n sessions with n in 2^48.
 *
 * Where the gateways of a resource share a secret, the long key is 16 random bytes and a seal of 16 over them and the
 * process id (HMAC-SHA-256): whoever gets a forged one knows without asking the gateway that it names.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { CancelRoutes } from "../protocol.ts";

/** A key that a client holds; the server's own key never leaves the gateway. */
export interface CancelKey {
  readonly processId: number;
  readonly key: Buffer;
}

interface LiveKey {
  readonly key: Buffer;
  readonly cancel: () => Promise<void>;
  /** The request that is under way: more of them at the same time would each dial the server. */
  pending: Promise<void> | undefined;
}

const randomBits = 16;
const processBits = 6;

const sealBytes = 16;
const processMax = 2 ** processBits - 1;
const ownMark = 2 ** 30;

/** Keys of the live sessions of one resource in this process: what a CancelRequest names, and what to do then. */
export class CancelKeys {
  private readonly live = new Map<number, LiveKey>();
  private readonly routes: CancelRoutes;

  constructor(routes: CancelRoutes) {
    this.routes = routes;
    routes.receive((processId, key) => this.cancelHere(processId, key));
  }

  /** Makes a key of `length` bytes (4 for protocol 3.0, 32 for 3.2) that leads to `cancel`. */
  issue(length: 4 | 32, cancel: () => Promise<void>): CancelKey {
    if (this.live.size >= 2 ** (randomBits - 1)) throw new Error("too many live cancel keys");
    let processId = this.freshId();
    while (this.live.has(processId)) processId = this.freshId();
    const key = length === 32 ? this.longKey(processId) : randomBytes(length);
    this.live.set(processId, { key, cancel, pending: undefined });
    return { processId, key };
  }

  /** Cancels what the key names, here or elsewhere; resolves when that has been done, false where it led nowhere. */
  async cancel(processId: number, key: Buffer, address: string): Promise<boolean> {
    if (!(await this.routes.mayTry(address))) return false;
    const isDone = await this.cancelAnywhere(processId, key);
    if (!isDone) this.routes.missed(address);
    return isDone;
  }

  revoke(processId: number): void {
    this.live.delete(processId);
  }

  private async cancelAnywhere(processId: number, key: Buffer): Promise<boolean> {
    const place = placeIn(processId);
    if (place === undefined) return false;
    const { replica, process, mayShareNumber } = this.routes;
    if (place.replica === replica && place.process === process) {
      if (await this.cancelHere(processId, key)) return true;
      if (mayShareNumber !== true) return false;
    }
    return this.mayBeIssued(processId, key) && this.routes.forward({ ...place, processId, key });
  }

  private longKey(processId: number): Buffer {
    const { sealingSecret } = this.routes;
    if (sealingSecret === undefined) return randomBytes(32);
    const random = randomBytes(32 - sealBytes);
    return Buffer.concat([random, sealOf(sealingSecret, processId, random)]);
  }

  /** False of what no gateway of the resource has issued, as far as that can be told from the key alone. */
  private mayBeIssued(processId: number, key: Buffer): boolean {
    if (key.length === 4) return true;
    if (key.length !== 32) return false;
    const { sealingSecret } = this.routes;
    if (sealingSecret === undefined) return true;
    const seal = sealOf(sealingSecret, processId, key.subarray(0, -sealBytes));
    return timingSafeEqual(seal, key.subarray(-sealBytes));
  }

  private async cancelHere(processId: number, key: Buffer): Promise<boolean> {
    const found = this.live.get(processId);
    if (found === undefined || found.key.length !== key.length || !timingSafeEqual(found.key, key))
      return false;
    found.pending ??= found.cancel().finally(() => {
      found.pending = undefined;
    });
    await found.pending;
    return true;
  }

  private freshId(): number {
    const random = randomBytes(4).readUInt32BE(0) >>> (32 - randomBits);
    const { replica, process } = this.routes;
    return ownMark | (((replica << processBits) | process) << randomBits) | random;
  }
}

function sealOf(secret: Buffer, processId: number, random: Buffer): Buffer {
  const place = Buffer.alloc(4);
  place.writeUInt32BE(processId);
  const sealed = createHmac("sha256", secret).update("sallyport cancel key\0").update(place).update(random);
  return sealed.digest().subarray(0, sealBytes);
}

/** Where a process id leads; undefined where it cannot be one of ours. */
function placeIn(processId: number): { readonly replica: number; readonly process: number } | undefined {
  if (processId < ownMark || processId >= 2 * ownMark) return undefined;
  const place = (processId - ownMark) >>> randomBits;
  return { replica: place >>> processBits, process: place & processMax };
}
