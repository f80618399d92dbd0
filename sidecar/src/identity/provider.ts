/** One IdentityProvider made ready: its manifest checked, its keys at hand. */
import type { X509Certificate } from "node:crypto";
import { durationMs } from "@sallyport/crds/pure";
import { compileClaimText } from "@sallyport/policy";
import { isLoopback } from "./bounded-fetch.ts";
import { isReserved, type MappingRules } from "./claims.ts";
import { authoritiesIn } from "./client-certificate.ts";
import type {
  ClaimMapping,
  IdentityProblem,
  IdentityProviderDocument,
  IdentityProviderSpec,
  OidcProvider,
  Revocation,
} from "./documents.ts";
import { localVerifier, remoteVerifier, type TokenVerifier } from "./key-source.ts";

/** How a provider's tokens are verified; local ones list their keys. */
export interface ProviderKeys {
  readonly verify: TokenVerifier;
  readonly fingerprints?: readonly string[];
}

/** A provider that can authenticate. */
export interface Provider {
  readonly name: string;
  /** The `iss` of its tokens; local providers may share one, their keys tell them apart. */
  readonly issuer: string;
  /** Audiences accepted beside the resource's own. */
  readonly audiences: readonly string[];
  readonly keys?: ProviderKeys;
  readonly authorities: readonly X509Certificate[];
  readonly mapping: MappingRules;
  readonly revocations: readonly Revocation[];
  /** What the key source was made from: the same settings keep their fetched keys over a reload. */
  readonly keySource: string;
}

/** What a provider needs besides its manifest. */
export interface ProviderOptions {
  readonly clock: () => number;
  /** Lets issuers on loopback addresses be plain HTTP; for tests and demos on one machine. */
  readonly allowHttpLoopback: boolean;
  readonly fetchTimeoutMs: number;
  readonly jwksCooldownMs: number;
}

/** The issuer that tokens of a local provider carry where its manifest names none. */
export const localIssuer = "sallyport";

/** Builds a provider from its manifest; `previous` is its last accepted form. Every problem is told at once. */
export function providerFrom(
  document: IdentityProviderDocument,
  options: ProviderOptions,
  previous: Provider | undefined,
): Provider | readonly IdentityProblem[] {
  const { spec } = document;
  const provider = document.metadata.name;
  const problems: IdentityProblem[] = [];
  const problem = (path: string, message: string, reason: IdentityProblem["reason"] = "Invalid") =>
    problems.push({ provider, path, reason, message });
  const attempt = <T>(path: string, read: () => T): T | undefined => {
    try {
      return read();
    } catch (error) {
      problem(path, error instanceof Error ? error.message : "cannot be read");
      return undefined;
    }
  };

  if (!isPrefix(spec.prefix))
    problem("spec.prefix", "must be letters, digits or any of . _ - and end in a colon, like okta:");
  else if (isReserved(spec.prefix)) problem("spec.prefix", "the prefix system: is reserved");

  if (spec.type === "kubernetes" || spec.type === "saml")
    problem("spec.type", `this build cannot check ${spec.type} identities yet`, "NotEnforceable");
  else if (spec[spec.type] === undefined) problem(`spec.${spec.type}`, `is needed for type ${spec.type}`);
  for (const kind of ["local", "oidc", "kubernetes", "saml"] as const)
    if (kind !== spec.type && spec[kind] !== undefined) problem(`spec.${kind}`, `is only for type ${kind}`);

  const grace = spec.session?.grace ?? "0s";
  const graceMs = durationMs(grace);
  if (graceMs === undefined) problem("spec.session.grace", "must be a duration like 30s or 5m");
  for (const [index, revocation] of (spec.revocations ?? []).entries())
    if (revocation.notBefore !== undefined && Number.isNaN(Date.parse(revocation.notBefore)))
      problem(`spec.revocations[${index}].notBefore`, "must be an RFC 3339 time");

  const username =
    spec.kubernetesUsername === undefined ? undefined : compileClaimText(spec.kubernetesUsername);
  if (username?.kind === "invalid") problem("spec.kubernetesUsername", username.message);

  const bundle = spec.clientCertificates?.caBundle;
  const authorities =
    bundle === undefined ? [] : attempt("spec.clientCertificates.caBundle", () => authoritiesIn(bundle));

  const { local, oidc } = spec;
  const keySource = JSON.stringify([local ?? null, oidc?.issuer, oidc?.caBundle]);
  let keys: ProviderKeys | undefined;
  if (previous?.keys !== undefined && previous.keySource === keySource) keys = previous.keys;
  else if (local !== undefined) keys = attempt("spec.local", () => localVerifier(local));
  else if (oidc !== undefined) keys = attempt("spec.oidc.issuer", () => oidcKeys(oidc, options));
  if (problems.length > 0 || graceMs === undefined || authorities === undefined) return problems;
  return {
    name: provider,
    issuer: oidc?.issuer ?? local?.issuer ?? localIssuer,
    audiences: oidc?.audiences ?? [],
    authorities,
    mapping: {
      provider,
      prefix: spec.prefix,
      claims: claimMapping(spec),
      graceSeconds: graceMs / 1000,
      ...(username?.kind === "compiled" && { kubernetesUsername: username.evaluate }),
    },
    revocations: spec.revocations ?? [],
    keySource,
    ...(keys === undefined ? {} : { keys }),
  };
}

function oidcKeys(oidc: OidcProvider, options: ProviderOptions): ProviderKeys {
  const checkUrl = (url: URL) => {
    const isPlainAllowed = options.allowHttpLoopback && url.protocol === "http:" && isLoopback(url.hostname);
    if (url.protocol !== "https:" && !isPlainAllowed) throw new Error("must be an https URL");
    if (url.username !== "" || url.password !== "") throw new Error("must not hold credentials");
  };
  checkUrl(new URL(oidc.issuer));
  const verify = remoteVerifier({
    issuer: oidc.issuer,
    timeoutMs: options.fetchTimeoutMs,
    cooldownMs: options.jwksCooldownMs,
    clock: options.clock,
    checkUrl,
    ...(oidc.caBundle === undefined ? {} : { caBundle: oidc.caBundle }),
  });
  return { verify };
}

/** Tokens of a local provider are our own, so their `kind` claim holds without a mapping. */
function claimMapping(spec: IdentityProviderSpec): ClaimMapping {
  if (spec.type !== "local" || spec.claims?.kind !== undefined) return spec.claims ?? {};
  const values = { Human: "Human", Workload: "Workload", Agent: "Agent" } as const;
  return { ...spec.claims, kind: { claim: "kind", values } };
}

function isPrefix(prefix: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}:$/.test(prefix);
}

/** What must differ between providers, else one could speak for another's subjects. */
export function conflictsAmong(providers: readonly Provider[]): readonly IdentityProblem[] {
  const problems: IdentityProblem[] = [];
  for (const [index, one] of providers.entries())
    for (const other of providers.slice(index + 1)) {
      const conflict = conflictBetween(one, other);
      if (conflict === undefined) continue;
      const message = `${conflict.what} must differ between the providers ${one.name} and ${other.name}`;
      for (const { name } of [one, other])
        problems.push({ provider: name, path: conflict.path, reason: "Invalid", message });
    }
  return problems;
}

function conflictBetween(one: Provider, other: Provider) {
  if (one.mapping.prefix.toLowerCase() === other.mapping.prefix.toLowerCase())
    return { path: "spec.prefix", what: "the prefix" };
  const areLocal = one.keys?.fingerprints !== undefined && other.keys?.fingerprints !== undefined;
  if (one.issuer === other.issuer && !areLocal) return { path: "spec", what: "the issuer" };
  if (one.keys?.fingerprints?.some((key) => other.keys?.fingerprints?.includes(key)))
    return { path: "spec.local", what: "the keys" };
  // By key and not by certificate: an authority that renews its own signs for whoever lists either.
  const keys = new Set(one.authorities.map(keyOf));
  if (other.authorities.some((authority) => keys.has(keyOf(authority))))
    return { path: "spec.clientCertificates.caBundle", what: "certificate authorities" };
  return undefined;
}

const keyOf = ({ publicKey }: X509Certificate): string =>
  publicKey.export({ type: "spki", format: "der" }).toString("base64");
