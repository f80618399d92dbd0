/**
 * Host certificates in ssh2's key exchange, which knows keys only. What the server shows goes into the exchange hash as
 * it came, certificate and all; the signature over that hash is then verified by the key that the certificate is for.
 *
 *     KEXDH_REPLY   string K_S (certificate)   string Q_S   string signature (by the plain algorithm) of H
 *     H = HASH(V_C || V_S || I_C || I_S || K_S || Q_C || Q_S || K)
 */
import { certifiedType, signatureAlgorithm } from "./certificates.ts";
import { type LibraryKeyExchange, type LibraryProtocol, onKeyExchange } from "./library.ts";

/**
 * Makes a client whose server may show a certificate; `expectedKey` says what key must have signed, or undefined where
 * the server is none that is expected. Once a server has been accepted it may show the same again for new keys.
 */
export function certifiedKeysOf(
  expectedKey: (shown: Buffer) => Buffer | undefined,
  make: (hostVerifier: (shown: Buffer) => boolean) => LibraryProtocol,
): LibraryProtocol {
  let accepted: { readonly shown: Buffer; readonly key: Buffer } | undefined;
  const protocol = make((shown) => {
    if (accepted?.shown.equals(shown) === true) return true;
    const key = expectedKey(shown);
    accepted = key === undefined ? undefined : { shown: Buffer.from(shown), key };
    return key !== undefined;
  });
  onKeyExchange(protocol, (exchange) => verifyByCertifiedKey(exchange, () => accepted?.key));
  return protocol;
}

/**
 * The library hashes `_hostKey`, asks for our half of the exchange to hash it too, and then reads `_hostKey` and the
 * algorithm again to verify. Between the two they become the plain ones. Were the order another, the hash or the key
 * would not be what the server has signed by: nobody would be accepted who should not be.
 */
function verifyByCertifiedKey(exchange: LibraryKeyExchange, plainKey: () => Buffer | undefined): void {
  const { negotiated } = exchange;
  const algorithm = negotiated.serverHostKey;
  const type = certifiedType(algorithm);
  if (type === undefined) return;
  // A certificate of an RSA key names no hash; the algorithm does.
  if (type === "ssh-rsa") negotiated.serverHostKey = "ssh-rsa-cert-v01@openssh.com";
  const ownHalf = exchange.getPublicKey.bind(exchange);
  exchange.getPublicKey = () => {
    if (exchange._hostKey !== undefined) {
      exchange._hostKey = plainKey();
      negotiated.serverHostKey = signatureAlgorithm(algorithm);
    }
    return ownHalf();
  };
}
