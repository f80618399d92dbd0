/**
 * The keys that a resource pins for its host, as lines of known_hosts: keys, authorities that certify keys, and keys
 * that are revoked.
 *
 *     [names] ssh-ed25519 AAAA…    @cert-authority names ssh-ed25519 AAAA…    @revoked names ssh-ed25519 AAAA…
 */
import { GatewayError } from "../../wire/gateway-error.ts";
import { certifiedType, isWithin, readHostCertificate } from "./certificates.ts";
import { globMatcher } from "./glob.ts";
import { algorithmsOf, type PublicKey, publicKeyOf, signatureAlgorithms } from "./keys.ts";
import { MalformedMessage, Reader } from "./messages.ts";

/** A key by which a host is known. */
export interface PinnedKey extends PublicKey {
  readonly means: "key" | "authority" | "revoked";
  /** Of an authority: hosts that it may certify; nobody else's. */
  readonly names: readonly string[];
}

/** Who is dialled; certificates are for a name, and for a while. */
export interface ExpectedHost {
  readonly keys: readonly PinnedKey[];
  readonly host: string;
  readonly port: number;
  readonly nowMs: number;
}

/** What a host's key is worth; `key` is what it must sign with. */
export type ShownKey =
  | { readonly kind: "expected"; readonly key: Buffer }
  | { readonly kind: "refused"; readonly reason: string | undefined };

/** Reads lines of known_hosts; those that cannot be read are an error of whoever wrote them. */
export function hostKeysFrom(lines: readonly string[]): readonly PinnedKey[] {
  return lines.map((line) => {
    const fields = line.trim().split(/\s+/);
    const means = markers.get(fields[0] ?? "");
    const names = means === undefined ? [] : (fields[1] ?? "").toLowerCase().split(",");
    // `host ssh-ed25519 AAAA…` or without the host.
    const key =
      means === undefined
        ? (publicKeyOf(line) ?? publicKeyOf(fields.slice(1).join(" ")))
        : publicKeyOf(fields.slice(2).join(" "));
    if (key === undefined || names.some((name) => !/^!?[^!?|]+$/.test(name)))
      throw new GatewayError("unsupported", { detail: "a pinned host key cannot be read" });
    return { ...key, means: means ?? "key", names };
  });
}

const markers = new Map([
  ["@cert-authority", "authority"],
  ["@revoked", "revoked"],
] as const) as ReadonlyMap<string, "authority" | "revoked">;

/** What the host is asked to show: a certificate rather than a key, where an authority is pinned. */
export function hostKeyAlgorithms(keys: readonly PinnedKey[]): readonly string[] {
  const plain = keys.filter(({ means }) => means === "key").flatMap(({ type }) => algorithmsOf(type));
  return [...(keys.some(({ means }) => means === "authority") ? certified : []), ...new Set(plain)];
}

const certified = signatureAlgorithms.map((algorithm) => `${algorithm}-cert-v01@openssh.com`);

/** Judges the key or certificate that a host shows; that it can sign by it is proven elsewhere. */
export function judgeHostKey(shown: Buffer, expected: ExpectedHost): ShownKey {
  const is = (means: PinnedKey["means"], blob: Buffer) =>
    expected.keys.some((key) => key.means === means && key.blob.equals(blob));
  try {
    const isCertificate = certifiedType(new Reader(shown).text()) !== undefined;
    if (!isCertificate)
      return is("key", shown) && !is("revoked", shown)
        ? { kind: "expected", key: shown }
        : { kind: "refused", reason: undefined };
    return judgeCertificate(shown, expected, is);
  } catch (error) {
    return refused(error instanceof MalformedMessage ? error.message : "it cannot be read");
  }
}

function judgeCertificate(
  shown: Buffer,
  { keys, host, port, nowMs }: ExpectedHost,
  is: (means: PinnedKey["means"], blob: Buffer) => boolean,
): ShownKey {
  const authorities = keys.filter(({ means, names }) => means === "authority" && covers(names, host, port));
  const certificate = readHostCertificate(
    shown,
    authorities.map(({ blob }) => blob),
  );
  if (is("revoked", certificate.plain) || is("revoked", certificate.signer)) return refused("it is revoked");
  if (!isWithin(certificate, nowMs)) return refused("it has expired or is not valid yet");
  // No principals would mean any host: OpenSSH's trap, which is none here.
  if (host === "" || !certificate.principals.some((name) => plainName(name) === plainName(host)))
    return refused("it is for another host");
  return { kind: "expected", key: certificate.plain };
}

const refused = (reason: string): ShownKey => ({ kind: "refused", reason });

/** As known_hosts names hosts: `*` is any run of characters, `!` takes out, and ports other than 22 may be said. */
function covers(names: readonly string[], host: string, port: number): boolean {
  const spellings = [plainName(host), `[${plainName(host)}]:${port}`];
  const matches = (pattern: string) => spellings.some(globMatcher(pattern));
  if (names.some((name) => name.startsWith("!") && matches(name.slice(1)))) return false;
  return names.some((name) => !name.startsWith("!") && matches(name));
}

const plainName = (host: string) => host.toLowerCase().replace(/\.$/, "");
