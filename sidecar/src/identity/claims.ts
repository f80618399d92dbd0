/** From verified claims to an Identity. Pure; a claim that cannot be mapped safely refuses the login. */
import type { Identity, SubjectKind } from "@sallyport/policy";
import type { ClaimMapping, KindMapping } from "./documents.ts";

/** How one provider maps claims. */
export interface MappingRules {
  readonly provider: string;
  readonly prefix: string;
  readonly claims: ClaimMapping;
  readonly graceSeconds: number;
  /** The subject's name in the cluster; undefined where it gives none for these claims. */
  readonly kubernetesUsername?: (claims: Readonly<Record<string, unknown>>) => string | undefined;
}

/** Whom claims speak for, or why for nobody. */
export type Mapping =
  | { readonly kind: "mapped"; readonly identity: Identity }
  | { readonly kind: "unmapped"; readonly publicReason: string };

/** Maps verified claims; `kind` claims, groups and user are read as the provider's mapping says. */
export function identityFromClaims(claims: Readonly<Record<string, unknown>>, rules: MappingRules): Mapping {
  const userClaim = rules.claims.user ?? "sub";
  const user = nameIn(claims[userClaim], rules.prefix);
  if (user === undefined) return unmapped("the token does not name its user in the claim the provider maps");
  // An address that the provider has not verified is the user's own word for who they are.
  if (userClaim === "email" && "email_verified" in claims && claims.email_verified !== true)
    return unmapped("the token's e-mail address is not verified");
  const groupsClaim = rules.claims.groups ?? "groups";
  // Without them no rule that denies one of them would be found.
  if (isToldElsewhere(claims, groupsClaim))
    return unmapped("the token does not hold its groups, but says that they are told elsewhere");
  const groups = groupsIn(claims[groupsClaim], rules.prefix);
  if (groups === undefined) return unmapped("the token's groups are not a list of names");
  const kind = kindOf(claims, rules.claims.kind);
  const ownerClaim = rules.claims.onBehalfOf;
  const owner = ownerClaim === undefined ? undefined : claims[ownerClaim];
  const onBehalfOf = owner === undefined ? undefined : nameIn(owner, rules.prefix);
  if (owner !== undefined && onBehalfOf === undefined)
    return unmapped("the token does not say in a readable way for whom it acts");
  return {
    kind: "mapped",
    identity: {
      provider: rules.provider,
      user,
      groups,
      kind,
      claims,
      ...(onBehalfOf === undefined ? {} : { onBehalfOf }),
      ...(rules.kubernetesUsername && { kubernetesUsername: usernameIn(rules.kubernetesUsername(claims)) }),
      ...(typeof claims.exp === "number" ? { expiresAt: claims.exp + rules.graceSeconds } : {}),
      ...(typeof claims.jti === "string" ? { tokenId: claims.jti } : {}),
    },
  };
}

const nameLengthMax = 512;
const groupsMax = 1000;

const unseen = /[\p{Cc}\p{Cs}\p{Cf}\p{Zl}\p{Zp}\u115f\u1160\u2800\u3164\uffa0]|\u034f|\u17b4|\u17b5/u;

/** A prefixed name; undefined where it is empty, too long, holds control characters or would be reserved. */
function nameIn(value: unknown, prefix: string): string | undefined {
  if (typeof value !== "string" || value.length === 0 || value.length > nameLengthMax) return undefined;
  // Control characters, lone surrogates, direction marks and letters that nobody sees make one name look like another.
  if (unseen.test(value)) return undefined;
  const name = prefix + value;
  return isReserved(name) ? undefined : name;
}

/** A name without a prefix of ours; null where there is none that could be told from others. */
function usernameIn(name: string | undefined): string | null {
  return nameIn(name, "") ?? null;
}

/** True for names that Kubernetes keeps for itself, whichever way they came about. */
export function isReserved(name: string): boolean {
  return name.toLowerCase().startsWith("system:");
}

function groupsIn(value: unknown, prefix: string): readonly string[] | undefined {
  if (value === undefined || value === null) return [];
  const list: unknown[] = Array.isArray(value) ? value : [value];
  if (list.length > groupsMax) return undefined;
  const groups = list.map((group) => nameIn(group, prefix));
  const named = groups.filter((group) => group !== undefined);
  return named.length === groups.length ? [...new Set(named)] : undefined;
}

/**
 * Distributed claims (OpenID Connect Core, 5.6.2): the token names where they are to be had, as providers do for whoever
 * is in many groups. Entra ID says `hasgroups` in some of its flows.
 */
function isToldElsewhere(claims: Readonly<Record<string, unknown>>, groupsClaim: string): boolean {
  const names = claims._claim_names;
  if (typeof names === "object" && names !== null && Object.hasOwn(names, groupsClaim)) return true;
  return groupsClaim === "groups" && (claims.hasgroups ?? false) !== false;
}

/** A service account of a cluster is nobody's person, whatever its provider's mapping leaves open. */
function kindOf(claims: Readonly<Record<string, unknown>>, mapping: KindMapping | undefined): SubjectKind {
  const kind = mappedKind(claims, mapping);
  const isServiceAccount =
    claims["kubernetes.io"] !== undefined || String(claims.sub).startsWith("system:serviceaccount:");
  return isServiceAccount && kind === "Human" ? "Workload" : kind;
}

/** The most restricted kind wins where a claim holds several values. */
function mappedKind(
  claims: Readonly<Record<string, unknown>>,
  mapping: KindMapping | undefined,
): SubjectKind {
  if (mapping === undefined) return "Human";
  const value = claims[mapping.claim];
  const values: unknown[] = Array.isArray(value) ? value : [value];
  const named = new Map(Object.entries(mapping.values));
  const kinds = values.map((item) => (typeof item === "string" ? named.get(item) : undefined));
  return byRestriction.find((kind) => kinds.includes(kind)) ?? mapping.default ?? "Human";
}

const byRestriction: readonly SubjectKind[] = ["Agent", "Workload", "Human"];

function unmapped(publicReason: string): Mapping {
  return { kind: "unmapped", publicReason };
}
