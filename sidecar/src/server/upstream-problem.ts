/** The reason that a status gives for a login that failed behind the gateway; undefined for any other failure. */
export function upstreamProblem(code: string, cause: unknown): string | undefined {
  if (code === "upstreamLoginFailed") return "UpstreamLoginFailed";
  if (code !== "upstreamUnreachable") return undefined;
  const found = (cause as { readonly code?: unknown } | undefined)?.code;
  if (found === "ADDRESS_FORBIDDEN") return "UpstreamNotGranted";
  return typeof found === "string" && ofCertificates.test(found)
    ? "UpstreamCertificate"
    : "UpstreamUnreachable";
}

/** What Node says where a certificate is not trusted: OpenSSL's names (X509_V_ERR_…) without their prefix, and its own. */
const ofCertificates =
  /CERT|SELF_SIGNED|^ERR_TLS_|^UNABLE_TO_|^CRL_|^INVALID_(CA|PURPOSE)$|^PATH_LENGTH_EXCEEDED$|^HOSTNAME_MISMATCH$/;
