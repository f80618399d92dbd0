/** Client certificates as identities. TLS verifies the chain; here the issuer is tied to one provider. */
import { X509Certificate } from "node:crypto";

/** What a certificate says of its holder, before a provider's prefix. */
export interface CertificateClaims {
  readonly user: string;
  readonly groups: readonly string[];
  /** Epoch seconds. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** Serial number in lower-case hex; what `tokenId` revokes. */
  readonly serial: string;
}

/** Reads the authorities of a bundle; throws with a message for the manifest's author. */
export function authoritiesIn(bundle: string): readonly X509Certificate[] {
  const blocks = bundle.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g);
  if (blocks === null) throw new Error("no PEM certificate is given");
  if (blocks.length > authoritiesMax) throw new Error(`more than ${authoritiesMax} certificates are given`);
  const authorities = blocks.map((block) => new X509Certificate(block));
  if (!authorities.every((authority) => authority.ca)) throw new Error("a certificate is not an authority's");
  return authorities;
}

const authoritiesMax = 16;

/** True where one of the authorities, valid now, has signed the certificate itself. */
export function isIssuedBy(
  certificate: X509Certificate,
  authorities: readonly X509Certificate[],
  nowMs: number,
): boolean {
  return authorities.some(
    (authority) =>
      isValidAt(authority, nowMs) &&
      certificate.checkIssued(authority) &&
      certificate.verify(authority.publicKey),
  );
}

/** True between the certificate's own dates. */
export function isValidAt(certificate: X509Certificate, nowMs: number): boolean {
  return certificate.validFromDate.getTime() <= nowMs && nowMs < certificate.validToDate.getTime();
}

const clientAuthentication = "1.3.6.1.5.5.7.3.2";

/**
 * The holder: the only CN, or the only URI SAN where there is no CN; each O and OU is a group. A reason where the
 * certificate is not meant for clients or names nobody, or several.
 */
export function claimsOf(certificate: X509Certificate): CertificateClaims | { readonly refused: string } {
  if (certificate.ca) return { refused: "the certificate is an authority's" };
  // Node's type says string[], its value is undefined where the extension is absent.
  const usages: readonly string[] | undefined = certificate.keyUsage;
  if (usages !== undefined && !usages.includes(clientAuthentication))
    return { refused: "the certificate is not meant for client authentication" };
  const subject: Readonly<Record<string, unknown>> = { ...certificate.toLegacyObject().subject };
  const common = listOf(subject.CN);
  const names = common.length > 0 ? common : urisIn(certificate.subjectAltName);
  const [user] = names;
  if (user === undefined || names.length > 1)
    return { refused: "the certificate does not name exactly one user" };
  return {
    user,
    groups: [...listOf(subject.O), ...listOf(subject.OU)],
    notBefore: Math.floor(certificate.validFromDate.getTime() / 1000),
    notAfter: Math.floor(certificate.validToDate.getTime() / 1000),
    serial: certificate.serialNumber.toLowerCase(),
  };
}

/** Node quotes values that hold a comma or a quote as JSON, so that no value can pretend to be another entry. */
function urisIn(subjectAltName: string | undefined): readonly string[] {
  const uris: string[] = [];
  for (const [, kind, value] of (subjectAltName ?? "").matchAll(
    /([\w ]+):("(?:[^"\\]|\\.)*"|[^,]*)(?:, |$)/gy,
  )) {
    if (kind !== "URI" || value === undefined) continue;
    uris.push(value.startsWith('"') ? String(JSON.parse(value)) : value);
  }
  return uris;
}

function listOf(value: unknown): readonly string[] {
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return list.filter((item) => typeof item === "string");
}
