/** What beside user and groups the API server is told of whom the gateway speaks for. */
import type { Identity } from "@sallyport/policy";
import type { ProtocolHost } from "../protocol.ts";

/** The user's id and extra fields, where the resource asks for them: each needs a right of its own upstream. */
export function marksOf(
  host: ProtocolHost,
  identity: Identity,
  sessionId: string,
): { readonly uid?: string; readonly extra: Readonly<Record<string, string>> } {
  const { impersonate, ownCluster } = host.options;
  const wanted: readonly unknown[] = Array.isArray(impersonate) ? impersonate : [];
  const { sub } = identity.claims;
  // Admission of its own cluster knows the gateway by the mark.
  const isMarked = ownCluster === true || wanted.includes("extra");
  return {
    ...(wanted.includes("uid") && typeof sub === "string" && sub !== "" ? { uid: sub } : {}),
    extra: isMarked ? { "sallyport.dev/session": sessionId } : {},
  };
}
