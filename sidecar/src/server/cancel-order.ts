/** How orders are read from a connection between gateways, whatever proves who sent them. */
import type { Socket } from "node:net";
import type { CancelOrder, DenialOrder } from "./shared-state.ts";

/** Reads an order, with the time of its sender where that says one; undefined where the text is none. */
export function readOrder(text: string): (CancelOrder & { readonly at?: number }) | undefined {
  const found = JSON.parse(text) as Readonly<Record<string, unknown>>;
  const { resource, replica, process, processId, keyHex, at } = found;
  if (typeof resource !== "string" || typeof keyHex !== "string" || !/^([0-9a-f]{2}){4,256}$/.test(keyHex))
    return undefined;
  if (!isNumber(replica) || !isNumber(process) || !isNumber(processId)) return undefined;
  return { resource, replica, process, processId, keyHex, ...(isNumber(at) && { at }) };
}

/** Reads a question for a denial; undefined where the text is none. */
export function readDenialOrder(text: string): DenialOrder | undefined {
  const { kind, resource, digest } = JSON.parse(text) as Readonly<Record<string, unknown>>;
  if (kind !== "denial" || typeof resource !== "string" || typeof digest !== "string") return undefined;
  return /^[0-9a-f]{64}$/.test(digest) ? { resource, digest } : undefined;
}

const isNumber = (value: unknown): value is number => Number.isSafeInteger(value);

/** The next bytes of a socket; undefined where it ends before. */
export function readExactly(socket: Socket, count: number): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const settle = (bytes: Buffer | undefined) => {
      socket.off("readable", onReadable);
      socket.off("end", onOver);
      socket.off("close", onOver);
      resolve(bytes);
    };
    const onReadable = () => {
      const bytes: Buffer | null = socket.read(count);
      if (bytes === null) return;
      settle(bytes.length === count ? bytes : undefined);
    };
    const onOver = () => settle(undefined);
    socket.on("readable", onReadable);
    socket.on("end", onOver);
    socket.on("close", onOver);
    onReadable();
    // Nothing is said of an end that has been: who waits for it then waits for ever.
    if (socket.readableEnded || socket.destroyed) onOver();
  });
}
