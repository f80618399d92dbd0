/** Tokens of a `local` provider: keys and signing, for `sallyport token` and tests. */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomUUID,
} from "node:crypto";
import type { SubjectKind } from "@sallyport/policy";
import { SignJWT } from "jose";
import { algorithmOf } from "./key-source.ts";
import { localIssuer } from "./provider.ts";

/** What a token of a local provider is to say. */
export interface LocalTokenRequest {
  /** PEM of the private key (PKCS #8), or the key itself. */
  readonly key: string | KeyObject;
  /** Default `sallyport`, as in the manifest. */
  readonly issuer?: string;
  readonly subject: string;
  readonly groups?: readonly string[];
  /** The resource: `sallyport:<namespace>/<name>`; several make the token good for each. */
  readonly audience: string | readonly string[];
  readonly lifetimeSeconds: number;
  readonly kind?: SubjectKind;
  readonly scope?: string;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** The audience that a resource's tokens carry. */
export function audienceOf(resource: { readonly namespace: string; readonly name: string }): string {
  return `sallyport:${resource.namespace}/${resource.name}`;
}

/** Signs a token with a fresh id; the key decides the algorithm. */
export function issueLocalToken(request: LocalTokenRequest): Promise<string> {
  const key = typeof request.key === "string" ? createPrivateKey(request.key) : request.key;
  const issuedAt = Math.floor(request.now / 1000);
  const { groups, audience, kind, scope } = request;
  return new SignJWT({
    ...(groups === undefined ? {} : { groups: [...groups] }),
    ...(kind === undefined ? {} : { kind }),
    ...(scope === undefined ? {} : { scope }),
  })
    .setProtectedHeader({ alg: algorithmOf(createPublicKey(key)), typ: "JWT" })
    .setIssuer(request.issuer ?? localIssuer)
    .setSubject(request.subject)
    .setAudience(typeof audience === "string" ? audience : [...audience])
    .setIssuedAt(issuedAt)
    .setExpirationTime(issuedAt + request.lifetimeSeconds)
    .setJti(randomUUID())
    .sign(key);
}

/** A new Ed25519 key pair as PEM; the public half goes into the provider's manifest. */
export function generateLocalKey(): { readonly privateKey: string; readonly publicKey: string } {
  return generateKeyPairSync("ed25519", {
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
    publicKeyEncoding: { type: "spki", format: "pem" },
  });
}
