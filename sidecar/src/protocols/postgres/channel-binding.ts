/**
 * RFC 5929 tls-server-end-point: the hash of the server's certificate, by the hash of the certificate's own signature.
 *
 *     Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OID, parameters }, … }
 */
import { createHash } from "node:crypto";

/** The binding data; undefined where the signature names no hash (Ed25519) or the bytes are no certificate. */
export function endpointBinding(certificate: Uint8Array): Buffer | undefined {
  const hash = signatureHash(Buffer.from(certificate));
  return hash === undefined ? undefined : createHash(hash).update(certificate).digest();
}

/** MD5 and SHA-1 are replaced by SHA-256, as the RFC says. */
const hashBySignature: ReadonlyMap<string, string> = new Map([
  ["2a864886f70d010104", "sha256"], // md5WithRSAEncryption
  ["2a864886f70d010105", "sha256"], // sha1WithRSAEncryption
  ["2a864886f70d01010e", "sha224"],
  ["2a864886f70d01010b", "sha256"],
  ["2a864886f70d01010c", "sha384"],
  ["2a864886f70d01010d", "sha512"],
  ["2a8648ce3d0401", "sha256"], // ecdsa-with-SHA1
  ["2a8648ce3d040301", "sha224"],
  ["2a8648ce3d040302", "sha256"],
  ["2a8648ce3d040303", "sha384"],
  ["2a8648ce3d040304", "sha512"],
]);

const rsaPss = "2a864886f70d01010a";

const hashByDigest: ReadonlyMap<string, string> = new Map([
  ["2b0e03021a", "sha256"], // SHA-1
  ["608648016503040201", "sha256"],
  ["608648016503040202", "sha384"],
  ["608648016503040203", "sha512"],
  ["608648016503040204", "sha224"],
]);

function signatureHash(certificate: Buffer): string | undefined {
  const outer = elementAt(certificate, 0, 0x30);
  const signed = outer && elementAt(outer.content, 0, 0x30);
  const algorithm = outer && signed && elementAt(outer.content, signed.end, 0x30);
  const name = algorithm && elementAt(algorithm.content, 0, 0x06);
  if (name === undefined) return undefined;
  const oid = name.content.toString("hex");
  if (oid !== rsaPss) return hashBySignature.get(oid);
  // RSASSA-PSS-params ::= SEQUENCE { hashAlgorithm [0] SEQUENCE { OID } DEFAULT sha1, … }
  const parameters = elementAt(algorithm?.content ?? Buffer.alloc(0), name.end, 0x30);
  const tagged = parameters && elementAt(parameters.content, 0, 0xa0);
  if (tagged === undefined) return parameters === undefined ? undefined : "sha256";
  const digest = elementAt(tagged.content, 0, 0x30);
  const digestName = digest && elementAt(digest.content, 0, 0x06);
  return digestName && hashByDigest.get(digestName.content.toString("hex"));
}

/** The DER element of that tag at `at`; undefined where there is another, or it does not fit. */
function elementAt(
  bytes: Buffer,
  at: number,
  tag: number,
): { readonly content: Buffer; readonly end: number } | undefined {
  const first = bytes[at + 1];
  if (bytes[at] !== tag || first === undefined) return undefined;
  const lengthBytes = first < 0x80 ? 0 : first & 0x7f;
  // Four bytes hold any length that fits in memory; 0x80 is BER's indefinite form.
  if (first === 0x80 || lengthBytes > 4 || at + 2 + lengthBytes > bytes.length) return undefined;
  const length = lengthBytes === 0 ? first : bytes.readUIntBE(at + 2, lengthBytes);
  const start = at + 2 + lengthBytes;
  const end = start + length;
  return end > bytes.length ? undefined : { content: bytes.subarray(start, end), end };
}
