/**
 * The handle below a socket of Node's. Streams cost a relay some 5 µs a transaction (ticks, events, a request object a
 * write); what is used here instead has been the same since Node 12, but is no documented interface. So this file is
 * the only one that knows it, and gives `undefined` wherever anything is not as expected: then streams do the work.
 */
import type { Socket } from "node:net";

/** What of a handle is used. Calls return 0, or an error number below it. */
export interface NativeHandle {
  /** Called after each read: `readBytes` says how many bytes are in the user buffer, or why there are none. */
  onread: (this: NativeHandle, bytes: ArrayBuffer | undefined) => unknown;
  useUserBuffer(buffer: Uint8Array): void;
  readStart(): number;
  readStop(): number;
  writeBuffer(request: WriteRequest, bytes: Uint8Array): number;
  reading: boolean;
}

/** Stands for one write while the system has not taken all of it. */
export interface WriteRequest {
  oncomplete: (this: WriteRequest, status: number) => void;
  /** The bytes of a write that lasts: the system reads them later, and the handle does not keep them in memory. */
  buffer?: Uint8Array;
}

interface StreamBinding {
  readonly WriteWrap: new () => WriteRequest;
  readonly streamBaseState: Int32Array;
  readonly kReadBytesOrError: number;
  readonly kLastWriteWasAsync: number;
}

/** The native handle of a socket; undefined where it has none that is known to work. */
export function nativeHandle(socket: Socket): NativeHandle | undefined {
  if (binding === undefined) return undefined;
  const handle: unknown = (socket as { readonly _handle?: unknown })._handle;
  return isNativeHandle(handle) ? handle : undefined;
}

/** Bytes of the read that is being told of; below 0 at the end of the stream and for errors. */
export function readBytes(): number {
  return binding === undefined ? 0 : (binding.streamBaseState[binding.kReadBytesOrError] ?? 0);
}

/** Tells Node's own reader of an end (or error) that was kept from it until now. */
export function tellEnd(handle: NativeHandle, tell: NativeHandle["onread"], count: number): void {
  if (binding === undefined) return;
  binding.streamBaseState[binding.kReadBytesOrError] = count;
  tell.call(handle, undefined);
}

/** True where the system has not taken all of the write that was made last; its request will be completed. */
export function isWriteLasting(): boolean {
  return binding !== undefined && binding.streamBaseState[binding.kLastWriteWasAsync] !== 0;
}

/** A request for the next write; may be used again where the write did not last. */
export function writeRequest(oncomplete: (status: number) => void): WriteRequest {
  if (binding === undefined) throw new Error("native streams are not at hand");
  const request = new binding.WriteWrap();
  request.oncomplete = oncomplete;
  return request;
}

const binding = streamBinding();

function streamBinding(): StreamBinding | undefined {
  try {
    const found: unknown = (process as unknown as { binding(name: string): unknown }).binding("stream_wrap");
    return isStreamBinding(found) ? found : undefined;
  } catch {
    // Not there, or not allowed (--permission): streams do the work.
    return undefined;
  }
}

function isStreamBinding(found: unknown): found is StreamBinding {
  if (typeof found !== "object" || found === null) return false;
  const { WriteWrap, streamBaseState, kReadBytesOrError, kLastWriteWasAsync } = found as Record<
    string,
    unknown
  >;
  return (
    typeof WriteWrap === "function" &&
    streamBaseState instanceof Int32Array &&
    typeof kReadBytesOrError === "number" &&
    typeof kLastWriteWasAsync === "number"
  );
}

function isNativeHandle(handle: unknown): handle is NativeHandle {
  if (typeof handle !== "object" || handle === null) return false;
  const { onread, useUserBuffer, readStart, readStop, writeBuffer } = handle as Record<string, unknown>;
  return [onread, useUserBuffer, readStart, readStop, writeBuffer].every(
    (each) => typeof each === "function",
  );
}
