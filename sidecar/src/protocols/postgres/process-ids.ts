import { type BindParts, formatOf } from "./bind.ts";
import { frame, frontend } from "./frames.ts";

/**
 * What the server and the clients call the processes of a resource's live sessions. A client knows its own by the
 * number that BackendKeyData gave it, which is the gateway's; the server's functions and notifications use the server's.
 */
export class ProcessIds {
  private readonly upstreamOf = new Map<number, number>();
  private readonly clientOf = new Map<number, number>();
  private readonly ended: [upstream: number, client: number][] = [];

  add(client: number, upstream: number): void {
    // No system has such processes: a server that says so must not name another session by its client's number.
    if (upstream >= 2 ** 30) return;
    this.upstreamOf.set(client, upstream);
    this.clientOf.set(upstream, client);
  }

  delete(client: number): void {
    const upstream = this.upstreamOf.get(client);
    this.upstreamOf.delete(client);
    if (upstream === undefined) return;
    // Notifications may arrive after their sender has gone.
    this.ended.push([upstream, client]);
    if (this.ended.length <= endedMax) return;
    const [oldUpstream, oldClient] = this.ended.shift() ?? [upstream, client];
    // The server may have given the number to another session already.
    if (this.clientOf.get(oldUpstream) === oldClient) this.clientOf.delete(oldUpstream);
  }

  /** What the client of that process was told that it is called, also for a while after its end; undefined where it was no session here. */
  shown(upstream: number): number | undefined {
    return this.clientOf.get(upstream);
  }

  /** A text that ends or cancels sessions by numbers that clients know, with the server's numbers instead. */
  inText(text: string): string {
    return text.replace(wholeNumbers, (digits) => String(this.upstreamOf.get(Number(digits)) ?? digits));
  }

  /** The Bind of such a text; undefined where none of its parameters is such a number. */
  inBind(bind: BindParts, end: number): Buffer | undefined {
    const { chunk } = bind;
    const pieces: Buffer[] = [chunk.subarray(bind.at + 5, bind.valuesAt)];
    let hasChanged = false;
    let at = bind.valuesAt;
    for (let index = 0; index < bind.valueCount; index += 1) {
      const length = chunk.readInt32BE(at);
      const valueEnd = at + 4 + Math.max(0, length);
      const value = chunk.subarray(at + 4, valueEnd);
      const changed = this.inValue(value, formatOf(bind, index) === 1);
      if (changed !== undefined) hasChanged = true;
      pieces.push(changed === undefined ? chunk.subarray(at, valueEnd) : withLength(changed));
      at = valueEnd;
    }
    return hasChanged ? frame(frontend.bind, Buffer.concat([...pieces, chunk.subarray(at, end)])) : undefined;
  }

  private inValue(value: Buffer, isBinary: boolean): Buffer | undefined {
    if (!isBinary) {
      const text = value.length === digitsInId ? value.toString("latin1") : "";
      const upstream = /^\d+$/.test(text) ? this.upstreamOf.get(Number(text)) : undefined;
      return upstream === undefined ? undefined : Buffer.from(String(upstream));
    }
    const shown =
      value.length === 4
        ? value.readInt32BE()
        : value.length === 8
          ? Number(value.readBigInt64BE())
          : undefined;
    const upstream = shown === undefined ? undefined : this.upstreamOf.get(shown);
    if (upstream === undefined) return undefined;
    const changed = Buffer.alloc(value.length);
    changed.writeInt32BE(upstream, value.length - 4);
    return changed;
  }
}

/** True of texts whose numbers may be those of sessions to be ended or cancelled. */
export function namesProcesses(text: string): boolean {
  return /pg_(?:terminate|cancel)_backend/i.test(text);
}

/** The text with the server's numbers for those that clients know; undefined where it has none of them. */
export function inServersNumbers(text: string, ids: ProcessIds | undefined): string | undefined {
  const changed = ids?.inText(text);
  return changed === text ? undefined : changed;
}

/** Takes a message in place of the one that ends at `end`; what follows it stays behind it. */
export function insteadOf(
  bytes: Buffer,
  { chunk, end }: { readonly chunk: Buffer; readonly end: number },
  take: (chunk: Buffer, at: number, end: number) => Promise<void> | undefined,
): Promise<void> | undefined {
  return take(Buffer.concat([bytes, chunk.subarray(end)]), 0, bytes.length);
}

/** Sessions whose numbers are still known when they are over. */
const endedMax = 100;
// The gateway's numbers lie between 2^30 and 2^31.
const digitsInId = 10;
const wholeNumbers = /(?<![\w$.])[12]\d{9}(?![\w$.])/g;

function withLength(value: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeInt32BE(value.length);
  return Buffer.concat([length, value]);
}
