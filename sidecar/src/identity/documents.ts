/** What an IdentityProvider manifest says, as far as authentication reads it. Mirrors the custom resource. */
import type { SubjectKind } from "@sallyport/policy";

/** An IdentityProvider as it is read from a manifest; the schema has been checked before. */
export interface IdentityProviderDocument {
  readonly metadata: { readonly name: string };
  readonly spec: IdentityProviderSpec;
}

/** `type` says how subjects prove themselves; the field of the same name configures it. */
export interface IdentityProviderSpec {
  readonly type: "local" | "oidc" | "kubernetes" | "saml";
  /** Stands before every user and group of the provider: `okta:`. */
  readonly prefix: string;
  readonly local?: LocalProvider;
  readonly oidc?: OidcProvider;
  readonly kubernetes?: object;
  readonly saml?: object;
  /** Certificates of these authorities authenticate as well. */
  readonly clientCertificates?: { readonly caBundle: string };
  readonly claims?: ClaimMapping;
  /** CEL over `claims`: the subject's name in the cluster. */
  readonly kubernetesUsername?: string;
  readonly session?: { readonly grace?: string };
  readonly revocations?: readonly Revocation[];
}

/** Tokens signed by keys that the manifest itself holds; for standalone use and CI. */
export interface LocalProvider {
  /** The tokens' `iss`; default `sallyport`. */
  readonly issuer?: string;
  /** PEM public keys (SPKI); several in one text are all read. */
  readonly publicKeys?: readonly string[];
  readonly jwks?: { readonly keys: readonly object[] };
}

/** Tokens of an OpenID Connect issuer, whose keys are discovered. */
export interface OidcProvider {
  readonly issuer: string;
  /** Audiences that are accepted beside the resource's own: client ids. */
  readonly audiences?: readonly string[];
  /** PEM authorities for the issuer's own TLS, where the public ones do not do. */
  readonly caBundle?: string;
}

/** Which claims name the subject. */
export interface ClaimMapping {
  /** Default `sub`. */
  readonly user?: string;
  /** Default `groups`. */
  readonly groups?: string;
  /** The claim that names who an agent acts for. */
  readonly onBehalfOf?: string;
  readonly kind?: KindMapping;
}

/** Classifies subjects by a claim; absent: Human, and for `local` what the claim `kind` says. */
export interface KindMapping {
  readonly claim: string;
  readonly values: Readonly<Record<string, SubjectKind>>;
  /** Where the claim is missing or holds another value; default Human. */
  readonly default?: SubjectKind;
}

/** Every field that is present must hold for an identity to be revoked; an empty entry revokes everyone. */
export interface Revocation {
  /** The subject with or without the provider's prefix. */
  readonly subject?: string;
  readonly tokenId?: string;
  /** Revokes what was issued before this RFC 3339 time. */
  readonly notBefore?: string;
}

/** Why a provider is not, or only with its last accepted configuration, in use. */
export interface IdentityProblem {
  readonly provider: string;
  /** The field at fault: `spec.oidc.issuer`. */
  readonly path: string;
  readonly reason: "Invalid" | "NotEnforceable";
  readonly message: string;
}
