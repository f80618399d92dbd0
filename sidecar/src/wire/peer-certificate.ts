import type { TLSSocket } from "node:tls";

/** What of the handle below a TLS socket is used. */
interface VerifyingHandle {
  /** Null where nothing is wrong with what the peer has shown. */
  verifyError(): unknown;
}

/**
 * Whether TLS itself found nothing wrong with the certificate that a client has shown: its chain, algorithms and purpose,
 * and what its authority may certify at all. Node says so of connections of its own servers only, hence the handle, which
 * is no documented interface: where it does not answer, nothing is verified.
 */
export function hasVerifiedPeer(tls: TLSSocket): boolean {
  const handle: unknown = (tls as { readonly _handle?: unknown })._handle;
  return isVerifyingHandle(handle) && (handle.verifyError() ?? null) === null;
}

const isVerifyingHandle = (handle: unknown): handle is VerifyingHandle =>
  typeof (handle as Partial<VerifyingHandle> | null | undefined)?.verifyError === "function";
