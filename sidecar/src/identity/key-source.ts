/** Where a provider's verification keys come from: the manifest itself, or the issuer's discovered JWKS. */
import { createPublicKey, type JsonWebKey, type KeyObject } from "node:crypto";
import {
  createRemoteJWKSet,
  customFetch,
  errors,
  type JWTHeaderParameters,
  type JWTPayload,
  type JWTVerifyOptions,
  jwtVerify,
  type RemoteJWKSet,
} from "jose";
import { type FetchBounds, fetchDiscovery, fetchText } from "./bounded-fetch.ts";
import type { LocalProvider } from "./documents.ts";

/** Signature algorithms that are accepted: asymmetric ones only, so that no public key can serve as a secret. */
export const algorithms: readonly string[] = ["EdDSA", "ES256", "RS256"];

/** Verifies a token's signature and registered claims against a provider's keys. */
export type TokenVerifier = (token: string, options: JWTVerifyOptions) => Promise<JWTPayload>;

/** Raised when keys cannot be had, as opposed to a token that does not verify. */
export class ProviderUnreachable extends Error {}

interface LocalKey {
  readonly kid?: string;
  readonly algorithm: string;
  readonly key: KeyObject;
}

const localKeysMax = 16;

/** The keys of a local provider, and what tells them apart from another provider's. */
export interface LocalVerifier {
  readonly verify: TokenVerifier;
  readonly fingerprints: readonly string[];
}

/** Reads the keys of a local provider; throws with a message for the manifest's author. */
export function localVerifier(provider: LocalProvider): LocalVerifier {
  const keys = [...(provider.publicKeys ?? []).flatMap(pemKeys), ...(provider.jwks?.keys ?? []).map(jwkKey)];
  if (keys.length === 0) throw new Error("no public key is given");
  if (keys.length > localKeysMax) throw new Error(`more than ${localKeysMax} public keys are given`);
  const verify: TokenVerifier = async (token, options) => {
    let failure: unknown = new errors.JWKSNoMatchingKey();
    const header = headerOf(token);
    if (!algorithms.includes(String(header.alg))) throw new errors.JOSEAlgNotAllowed("alg is not accepted");
    for (const { kid, algorithm, key } of keys) {
      if (header.alg !== algorithm) continue;
      if (header.kid !== undefined && kid !== undefined && header.kid !== kid) continue;
      try {
        return (await jwtVerify(token, key, { ...options, algorithms: [algorithm] })).payload;
      } catch (error) {
        failure = error;
        // Any other finding is about a token that this very key signed.
        if (!(error instanceof errors.JWSSignatureVerificationFailed)) throw error;
      }
    }
    throw failure;
  };
  const fingerprints = keys.map(({ key }) => key.export({ type: "spki", format: "der" }).toString("base64"));
  return { verify, fingerprints };
}

function headerOf(token: string): Partial<JWTHeaderParameters> {
  const decoded: unknown = JSON.parse(
    Buffer.from(token.split(".", 1)[0] ?? "", "base64url").toString("utf8"),
  );
  return typeof decoded === "object" && decoded !== null ? decoded : {};
}

function pemKeys(text: string): LocalKey[] {
  if (/PRIVATE KEY/.test(text)) throw new Error("a private key is given where a public key belongs");
  const blocks = text.match(/-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----/g);
  if (blocks === null) throw new Error("not a PEM public key (BEGIN PUBLIC KEY)");
  return blocks.map((block) => localKey(pemKey(block)));
}

function pemKey(block: string): KeyObject {
  try {
    return createPublicKey(block);
  } catch {
    // OpenSSL's words name its decoders, not what to do.
    throw new Error(
      "what stands between BEGIN PUBLIC KEY and END PUBLIC KEY is no public key; paste the whole file",
    );
  }
}

function jwkKey(jwk: object): LocalKey {
  if ("d" in jwk || "k" in jwk) throw new Error("a JWK holds a private or symmetric key");
  const key = localKey(createPublicKey({ key: jwk as JsonWebKey, format: "jwk" }));
  if ("alg" in jwk && jwk.alg !== key.algorithm)
    throw new Error(`a JWK's alg does not fit its key; use one of ${algorithms.join(", ")}`);
  if ("use" in jwk && jwk.use !== "sig") throw new Error("a JWK is not meant for signatures");
  return "kid" in jwk && typeof jwk.kid === "string" ? { ...key, kid: jwk.kid } : key;
}

const rsaBitsMin = 2048;

function localKey(key: KeyObject): LocalKey {
  return { key, algorithm: algorithmOf(key) };
}

/** The one accepted algorithm of a key; throws for keys of other kinds. */
export function algorithmOf(key: KeyObject): string {
  const details = key.asymmetricKeyDetails;
  if (key.asymmetricKeyType === "ed25519") return "EdDSA";
  if (key.asymmetricKeyType === "ec" && details?.namedCurve === "prime256v1") return "ES256";
  if (key.asymmetricKeyType === "rsa") {
    if ((details?.modulusLength ?? 0) < rsaBitsMin) throw new Error("RSA keys need at least 2048 bits");
    return "RS256";
  }
  throw new Error("the key is not Ed25519, P-256 or RSA");
}

/** Where keys are fetched, and how often at most. */
export interface RemoteKeysOptions {
  readonly issuer: string;
  readonly caBundle?: string;
  readonly timeoutMs: number;
  readonly cooldownMs: number;
  readonly clock: () => number;
  /** Throws where a URL may not be fetched. */
  readonly checkUrl: (url: URL) => void;
}

/** Bytes of a discovery document or a key set; real ones have a few thousand. */
const answerBytesMax = 256 * 1024;
const discoveryAgeMaxMs = 3_600_000;
/** How long a failed fetch answers the logins after it, so that a dead provider is not asked once for each. */
const failureMs = 1000;

/** Discovers an issuer's keys on first use; simultaneous logins share one discovery and one key fetch. */
export function remoteVerifier(options: RemoteKeysOptions): TokenVerifier {
  let keys: { readonly set: RemoteJWKSet; readonly url: string; readonly at: number } | undefined;
  let pending: Promise<RemoteJWKSet> | undefined;
  let failed: { readonly at: number; readonly error: ProviderUnreachable } | undefined;
  const bounds = {
    timeoutMs: options.timeoutMs,
    bytesMax: answerBytesMax,
    ...(options.caBundle === undefined ? {} : { caBundle: options.caBundle }),
  };

  const discover = async (): Promise<RemoteJWKSet> => {
    const known = keys;
    if (known !== undefined && options.clock() - known.at < discoveryAgeMaxMs) return known.set;
    try {
      const url = await jwksUrl(options, bounds);
      const set = known?.url === url.href ? known.set : createRemoteJWKSet(url, jwksOptions(options, bounds));
      keys = { set, url: url.href, at: options.clock() };
      return set;
    } catch (error) {
      // The address known so far stays in use; whether its keys can still be had decides.
      if (known === undefined) throw error;
      keys = { ...known, at: options.clock() };
      return known.set;
    }
  };

  const remember = (error: unknown): ProviderUnreachable => {
    const unreachable = new ProviderUnreachable("the provider's keys cannot be fetched", { cause: error });
    failed = { at: options.clock(), error: unreachable };
    return unreachable;
  };

  return async (token, verifyOptions) => {
    if (failed !== undefined && options.clock() - failed.at < failureMs) throw failed.error;
    failed = undefined;
    let set: RemoteJWKSet;
    try {
      pending ??= discover().finally(() => {
        pending = undefined;
      });
      set = await pending;
    } catch (error) {
      throw remember(error);
    }
    const getKey = async (...input: Parameters<RemoteJWKSet>) => {
      try {
        return await set(...input);
      } catch (error) {
        const isAboutToken =
          error instanceof errors.JWKSNoMatchingKey ||
          error instanceof errors.JWKSMultipleMatchingKeys ||
          error instanceof errors.JOSENotSupported;
        throw isAboutToken ? error : remember(error);
      }
    };
    return (await jwtVerify(token, getKey, { ...verifyOptions, algorithms: [...algorithms] })).payload;
  };
}

async function jwksUrl({ issuer, checkUrl }: RemoteKeysOptions, bounds: FetchBounds): Promise<URL> {
  const document = await fetchDiscovery(issuer, bounds, checkUrl);
  if (!("jwks_uri" in document)) throw new Error("the discovery document has no jwks_uri");
  const found = new URL(String(document.jwks_uri));
  checkUrl(found);
  return found;
}

function jwksOptions(options: RemoteKeysOptions, bounds: FetchBounds) {
  return {
    timeoutDuration: options.timeoutMs,
    cooldownDuration: options.cooldownMs,
    [customFetch]: async (url: string, init: { readonly signal: AbortSignal }) =>
      new Response(await fetchText(new URL(url), bounds, init.signal)),
  };
}
