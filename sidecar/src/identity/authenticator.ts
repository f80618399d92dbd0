/**
 * Identity: turns what a client shows into who it is, by the IdentityProviders of the manifests.
 * This folder verifies; it decides nothing about what an identity may do.
 */
import { X509Certificate } from "node:crypto";
import { controlAudience } from "@sallyport/control";
import type { Identity } from "@sallyport/policy";
import { errors, type JWTPayload } from "jose";
import { identityFromClaims } from "./claims.ts";
import { claimsOf, isIssuedBy, isValidAt } from "./client-certificate.ts";
import type { IdentityProblem, IdentityProviderDocument, Revocation } from "./documents.ts";
import { ProviderUnreachable } from "./key-source.ts";
import type { Authentication, Authenticator, Credential } from "./model.ts";
import { conflictsAmong, type Provider, providerFrom } from "./provider.ts";

/** What an authenticator needs: the providers, and how it reaches them. */
export interface AuthenticatorOptions {
  readonly providers: readonly IdentityProviderDocument[];
  /** Milliseconds since the epoch. */
  readonly clock: () => number;
  /** Lets issuers on loopback addresses be plain HTTP; for tests and demos on one machine. Default false. */
  readonly allowHttpLoopback?: boolean;
  /** For each request to an identity provider; default 5 s. */
  readonly fetchTimeoutMs?: number;
  /** Least time between two key fetches for unknown key ids; default 10 s. */
  readonly jwksCooldownMs?: number;
}

/** An authenticator whose providers follow the manifests. */
export interface ReloadableAuthenticator extends Authenticator {
  /** Takes a new set. A broken provider keeps its last accepted form, its new revocations excepted: they hold. */
  reload(providers: readonly IdentityProviderDocument[]): readonly IdentityProblem[];
  /** What the last load found. */
  readonly problems: readonly IdentityProblem[];
  /** Refuses everyone from here on. */
  close(): void;
}

/** Longest token that is looked at. */
export const tokenBytesMax = 16 * 1024;
/** How far clocks may differ, in seconds. */
export const clockSkewSeconds = 30;

/** Makes the gateway's authenticator; never throws for broken providers, see `problems`. */
export function createAuthenticator(options: AuthenticatorOptions): ReloadableAuthenticator {
  const providerOptions = {
    clock: options.clock,
    allowHttpLoopback: options.allowHttpLoopback ?? false,
    fetchTimeoutMs: options.fetchTimeoutMs ?? 5000,
    jwksCooldownMs: options.jwksCooldownMs ?? 10_000,
  };
  let providers: ReadonlyMap<string, Provider> = new Map();
  let problems: readonly IdentityProblem[] = [];
  let isClosed = false;

  const load = (documents: readonly IdentityProviderDocument[]): readonly IdentityProblem[] => {
    const found: IdentityProblem[] = [];
    const candidates = new Map<string, Provider>();
    for (const document of documents) {
      const built = providerFrom(document, providerOptions, providers.get(document.metadata.name));
      if (!Array.isArray(built)) candidates.set(document.metadata.name, built as Provider);
      else found.push(...(built as readonly IdentityProblem[]));
    }
    const conflicts = conflictsAmong([...candidates.values()]);
    for (const { provider } of conflicts) candidates.delete(provider);
    const next = new Map<string, Provider>();
    for (const { metadata, spec } of documents) {
      const accepted = candidates.get(metadata.name);
      const last = providers.get(metadata.name);
      if (accepted !== undefined) next.set(metadata.name, accepted);
      else if (last !== undefined) next.set(metadata.name, withRevocations(last, spec.revocations ?? []));
    }
    // A kept provider may clash with a new one; then neither speaks, for either could be the impostor.
    const clashes = conflictsAmong([...next.values()]);
    for (const { provider } of clashes) next.delete(provider);
    problems = [...found, ...conflicts, ...clashes];
    providers = next;
    return problems;
  };
  load(options.providers);

  return {
    reload: load,
    get problems() {
      return problems;
    },
    close() {
      isClosed = true;
      providers = new Map();
    },
    async authenticate(credential, request) {
      if (isClosed) return refused("the gateway is stopping");
      const allowed = request.providers.flatMap((name) => providers.get(name) ?? []);
      try {
        const outcome =
          credential.kind === "token"
            ? await byToken(credential.token, request.audience, allowed, options.clock)
            : byCertificate(credential, allowed, options.clock);
        if (outcome.kind === "refused") return outcome;
        const now = options.clock() / 1000;
        if (outcome.identity.expiresAt !== undefined && outcome.identity.expiresAt <= now)
          return refused("the token has expired; get a new one");
        // Asked of the providers as they are now: a reload may have come while keys were fetched.
        const current = providers.get(outcome.identity.provider);
        if (isRevokedBy(current, outcome.identity))
          return refused("the token or its subject has been revoked");
        return outcome;
      } catch (error) {
        return refused("the credential could not be checked", plainCause(error));
      }
    },
    isRevoked: (identity) => isRevokedBy(providers.get(identity.provider), identity),
  };
}

async function byToken(
  token: string,
  audience: string,
  providers: readonly Provider[],
  clock: () => number,
): Promise<Authentication> {
  if (token.length > tokenBytesMax) return refused("the token is larger than 16 KiB");
  const issuer = issuerOf(token);
  if (issuer === undefined) return refused("the token is not a signed JSON Web Token that names its issuer");
  // Local providers may share an issuer: the first whose key verifies the signature is the one.
  const candidates = providers.filter((candidate) => candidate.issuer === issuer);
  let outcome = refused("the token's issuer is not trusted for this resource");
  for (const provider of candidates) {
    if (provider.keys === undefined) continue;
    try {
      const claims = await provider.keys.verify(token, {
        issuer,
        audience: [audience, ...provider.audiences],
        clockTolerance: clockSkewSeconds,
        requiredClaims: ["exp", "iss", "aud"],
        currentDate: new Date(clock()),
      });
      return identityIn(token, claims, provider, clock());
    } catch (error) {
      outcome = { ...refused(reasonFor(error), plainCause(error)), ...undecided(error) };
      if (!isAboutKeys(error)) return outcome;
    }
  }
  return outcome;
}

const undecided = (error: unknown) => (error instanceof ProviderUnreachable ? { isUndecided: true } : {});

function isAboutKeys(error: unknown): boolean {
  return error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWSSignatureVerificationFailed;
}

function identityIn(token: string, claims: JWTPayload, provider: Provider, nowMs: number): Authentication {
  // A gateway's own token proves a pod and no person, whatever audiences a provider may name.
  if ([claims.aud].flat().includes(controlAudience)) return refused("the token is a gateway's own");
  if (!isTokenForAccess(token, claims)) return refused("the token is of a kind that grants no access");
  if (claims.iat !== undefined && claims.iat > nowMs / 1000 + clockSkewSeconds)
    return refused("the token is not valid yet");
  const mapping = identityFromClaims(claims, provider.mapping);
  return mapping.kind === "mapped"
    ? { kind: "authenticated", identity: mapping.identity }
    : refused(mapping.publicReason);
}

/** The issuer that a token claims; nothing else of it is believed before the signature has been verified. */
function issuerOf(token: string): string | undefined {
  const parts = token.split(".");
  if (parts.length !== 3 || !parts.every((part) => /^[A-Za-z0-9_-]+$/.test(part))) return undefined;
  const header = jsonIn(parts[0]);
  const issuer = jsonIn(parts[1])?.iss;
  return header !== undefined && typeof issuer === "string" && issuer !== "" ? issuer : undefined;
}

function jsonIn(part: string | undefined): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(part ?? "", "base64url").toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : undefined;
  } catch {
    // Not JSON: the caller says so in its own words.
    return undefined;
  }
}

/** Issuers sign other things with the same keys (logout tokens, proofs); their `typ` or `events` tells. */
function isTokenForAccess(token: string, claims: Readonly<Record<string, unknown>>): boolean {
  const type = jsonIn(token.split(".", 1)[0])?.typ;
  const isPlain =
    type === undefined || (typeof type === "string" && /^(application\/)?(at\+)?jwt$/i.test(type));
  return isPlain && claims.events === undefined;
}

function byCertificate(
  credential: Extract<Credential, { kind: "certificate" }>,
  providers: readonly Provider[],
  clock: () => number,
): Authentication {
  const certificate = new X509Certificate(credential.raw);
  const now = clock();
  const provider = providers.find(({ authorities }) => isIssuedBy(certificate, authorities, now));
  if (provider === undefined) return refused("the certificate's issuer is not trusted for this resource");
  if (!isValidAt(certificate, now)) return refused("the certificate has expired or is not valid yet");
  const claims = claimsOf(certificate);
  if ("refused" in claims) return refused(claims.refused);
  // Asked last, as it has one word for everything: what is known better has been said above.
  if (!credential.isVerified)
    return refused("the certificate is not one that its authority may issue, or is signed too weakly");
  // The same mapping as for tokens, so that names, groups and kinds obey the same rules; names are fixed here.
  const mapping = identityFromClaims(
    {
      sub: claims.user,
      groups: claims.groups,
      iat: claims.notBefore,
      exp: claims.notAfter,
      jti: claims.serial,
    },
    { ...provider.mapping, graceSeconds: 0, claims: certificateMapping(provider) },
  );
  return mapping.kind === "mapped"
    ? { kind: "authenticated", identity: mapping.identity }
    : refused("the certificate's names cannot be used");
}

function certificateMapping(provider: Provider) {
  const kind = provider.mapping.claims.kind;
  return kind === undefined ? {} : { kind };
}

function isRevokedBy(provider: Provider | undefined, identity: Identity): boolean {
  // A provider that is gone vouches for nobody.
  if (provider === undefined) return true;
  return provider.revocations.some((entry) => isMeant(entry, identity, provider.mapping.prefix));
}

function isMeant(entry: Revocation, identity: Identity, prefix: string): boolean {
  if (entry.subject !== undefined) {
    const subject = typeof identity.claims.sub === "string" ? identity.claims.sub : undefined;
    if (entry.subject !== subject && ![entry.subject, prefix + entry.subject].includes(identity.user))
      return false;
  }
  if (entry.tokenId !== undefined && entry.tokenId !== identity.tokenId) return false;
  if (entry.notBefore === undefined) return true;
  const issuedAt = identity.claims.iat;
  // A token that does not say when it was issued may be an old one; an unreadable time revokes.
  return typeof issuedAt !== "number" || !(issuedAt >= Date.parse(entry.notBefore) / 1000);
}

function withRevocations(provider: Provider, revocations: readonly Revocation[]): Provider {
  return { ...provider, revocations: [...provider.revocations, ...revocations].slice(-revocationsMax) };
}

const revocationsMax = 10_000;

function reasonFor(error: unknown): string {
  if (error instanceof ProviderUnreachable)
    return "the identity provider cannot be reached to check the token; try again in a moment";
  if (error instanceof errors.JWTExpired) return "the token has expired; get a new one";
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === "aud") return "the token is meant for another audience, not for this resource";
    if (error.claim === "nbf") return "the token is not valid yet";
    if (error.claim === "exp") return "the token has no expiry";
    return "the token lacks a claim that is required";
  }
  if (error instanceof errors.JOSEAlgNotAllowed || error instanceof errors.JOSENotSupported)
    return "the token is signed in a way that is not accepted";
  if (error instanceof errors.JWKSNoMatchingKey) return "the token is signed by an unknown key";
  return "the token's signature does not verify";
}

/** The error for the log without what jose hangs on it: its claim errors carry the token's payload. */
function plainCause(error: unknown): Error {
  const code = error instanceof errors.JOSEError ? `${error.code}: ` : "";
  const plain = new Error(`${code}${error instanceof Error ? error.message : "unknown failure"}`);
  if (error instanceof ProviderUnreachable && error.cause instanceof Error)
    plain.message += `: ${error.cause.message}`;
  return plain;
}

function refused(publicReason: string, cause?: Error): Authentication {
  return cause === undefined ? { kind: "refused", publicReason } : { kind: "refused", publicReason, cause };
}
