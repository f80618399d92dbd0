/** How long the certificates live that the operator signs for a gateway. */
import { X509Certificate } from "node:crypto";

/** When two thirds of a certificate's life are over, in milliseconds since the epoch. */
export function renewalOf(pem: string): number {
  const { validFrom, validTo } = new X509Certificate(pem);
  const from = Math.max(Date.parse(validFrom), Date.now() - 60_000);
  return from + ((Date.parse(validTo) - from) * 2) / 3;
}
