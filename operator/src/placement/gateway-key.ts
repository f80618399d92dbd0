import type { ProtectedResource } from "@sallyport/crds";
import type { RenderedObject } from "./model.ts";
import { maskingKeyName, namesOf } from "./names.ts";
import { metadataOf } from "./shared.ts";

/**
 * The secret that all gateways of a resource share: hashes of masks and SSH host keys are derived from it, so that they
 * are the same in every pod and after every rollout. It is made once; the operator cannot read it, nor write it again.
 */
export function renderGatewayKey(resource: ProtectedResource, secret: Buffer): RenderedObject {
  return {
    apiVersion: "v1",
    kind: "Secret",
    metadata: metadataOf(resource, namesOf(resource).key),
    type: "Opaque",
    immutable: true,
    data: { [maskingKeyName]: Buffer.from(secret.toString("hex")).toString("base64") },
  };
}
