import { GatewayError } from "../../wire/gateway-error.ts";
import type { AcceptedClient } from "./accept.ts";
import { issueCertificate } from "./certificates.ts";
import { readPublicKey, type SigningKey } from "./keys.ts";
import { made, message, Reader } from "./messages.ts";
import type { Transport } from "./transport.ts";

/** The global request that carries a public key and is answered by a certificate for it. */
export const certifyRequest = "certify@sallyport.dev";

/** Longest life of a certificate, in seconds, where the token lives longer. */
const lifeMax = 12 * 3600;
/** Clocks of clients and replicas differ. */
const skew = 60;

/** Answers one request for a certificate: it stands for the identity that the client has just proven, no longer. */
export function certify(
  client: Transport,
  { identity, host }: AcceptedClient,
  authority: SigningKey,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (error?: unknown) => {
      signal.removeEventListener("abort", onAbort);
      if (error === undefined) resolve();
      else reject(error);
    };
    const onAbort = () => settle(new GatewayError("identityRefused", { detail: "no key came in time" }));
    client.receiver = {
      message: (payload) => {
        try {
          const reader = new Reader(payload);
          if (reader.byte() !== message.globalRequest || reader.text() !== certifyRequest) {
            throw new GatewayError("protocolViolation", { detail: "only certificates are issued here" });
          }
          reader.boolean();
          const key = readPublicKey(reader.string());
          const now = Math.floor(host.clock.nowMs() / 1000);
          const validBefore = Math.min(identity.expiresAt ?? Number.POSITIVE_INFINITY, now + lifeMax);
          const { namespace, name } = host.resource;
          const principal = `${namespace}/${name}`;
          const validAfter = now - skew;
          const { type, blob } = issueCertificate({
            key,
            identity,
            principal,
            authority,
            validAfter,
            validBefore,
          });
          client.send(made(message.requestSuccess, type, blob, validBefore));
          settle();
        } catch (error) {
          settle(error);
        }
      },
      ended: () => settle(),
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}
