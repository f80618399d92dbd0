import { createHash } from "node:crypto";

/** The audience of the tokens by which gateways prove themselves; no user's token may carry it. */
export const controlAudience = "control.sallyport.dev";

/** The audience of the tokens by which people and auditors prove themselves to the recorder. */
export const recorderAudience = "recorder.sallyport.dev";

/** The ALPN names of the streams; a change that an older side would misread gets a new one. */
export const controlProtocol = "sallyport-control/1";
export const recordingProtocol = "sallyport-recording/1";
export const peerProtocol = "sallyport-peer/1";

/**
 * Whether the gateways of a resource ask each other: PostgreSQL's cancel requests, and what kubectl asks for a second
 * time, come by another connection.
 */
export function asksPeers(protocol: string): boolean {
  return protocol === "postgres" || protocol === "kubernetes";
}

/** Where gateways that were placed ask each other. */
export const peerPort = 9465;

/**
 * A gateway's number among those of its resource, 0 to 255, as the cancel keys of its clients carry it: from the pod's
 * uid alone, so that nobody has to hand numbers out or remember them. Two may have the same.
 */
export function peerNumber(podUid: string): number {
  return createHash("sha256").update(podUid).digest().readUInt8();
}

/** Whom a gateway's certificate names: the resource it serves and the pod it runs in. */
export interface GatewayName {
  readonly namespace: string;
  readonly resource: string;
  readonly podUid: string;
}

/** The URI in a gateway's certificate. Only the operator writes one, from its own knowledge of the pod. */
export function gatewayUri({ namespace, resource, podUid }: GatewayName): string {
  return `sallyport://gateway/${namespace}/${resource}/${podUid}`;
}

const uriForm = /^sallyport:\/\/gateway\/([a-z0-9.-]{1,63})\/([a-z0-9.-]{1,253})\/([A-Za-z0-9-]{1,64})$/;

/** Reads a certificate's URI; undefined where it names no gateway. */
export function parseGatewayUri(uri: string): GatewayName | undefined {
  const [, namespace, resource, podUid] = uriForm.exec(uri) ?? [];
  if (namespace === undefined || resource === undefined || podUid === undefined) return undefined;
  return { namespace, resource, podUid };
}

/**
 * The recorder that keeps a namespace's recordings, of several: the highest of one hash for each (rendezvous), so
 * that a further recorder takes over its share and moves nothing between the others.
 */
export function recorderFor(namespace: string, recorders: readonly string[]): string | undefined {
  let best: string | undefined;
  let highest = "";
  for (const recorder of recorders) {
    const score = createHash("sha256").update(`${namespace}\n${recorder}`).digest("hex");
    if (best === undefined || score > highest) {
      best = recorder;
      highest = score;
    }
  }
  return best;
}

/** Names a rule by its text: gateways ask by it, and the operator finds the same rule by it or another. */
export function ruleHashOf(ruleText: string): string {
  return `sha256:${createHash("sha256").update(ruleText).digest("hex")}`;
}
