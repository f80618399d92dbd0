import {
  type Authority,
  type AuthorityHistory,
  bundleOf,
  isDue,
  isIssuedFor,
  lifetimes,
  makeAuthority,
  makeKey,
  renewalOf,
  rotated,
  signLeaf,
} from "./authority.ts";

/** Who signs what: servers, gateways towards the control plane, and users. None vouches for another's subjects. */
export type AuthorityName = "server" | "gateway" | "user";

export const authorityNames: readonly AuthorityName[] = ["server", "gateway", "user"];

/** All authorities of an installation. */
export type Authorities = Readonly<Record<AuthorityName, AuthorityHistory>>;

/** A certificate of the control plane's own. */
export interface ServingCertificate {
  readonly certificate: string;
  readonly key: string;
}

/** A Secret's data, decoded. */
export type SecretData = Readonly<Record<string, string>>;

const commonNames: Readonly<Record<AuthorityName, string>> = {
  server: "sallyport server CA",
  gateway: "sallyport gateway CA",
  user: "sallyport user CA",
};

/** The authorities as they should be now: those missing are made, those due are rotated. */
export async function currentAuthorities(stored: Partial<Authorities>, now: number): Promise<Authorities> {
  const one = async (name: AuthorityName): Promise<AuthorityHistory> => {
    const history = stored[name];
    if (history === undefined) return { current: await makeAuthority(commonNames[name], now), previous: [] };
    return rotated(history, commonNames[name], now);
  };
  const [server, gateway, user] = await Promise.all([one("server"), one("gateway"), one("user")]);
  return { server, gateway, user };
}

/** A serving certificate as it should be now: kept while it is good, else issued anew. */
export async function currentServing(
  stored: ServingCertificate | undefined,
  names: readonly string[],
  authorities: Authorities,
  now: number,
): Promise<ServingCertificate> {
  const { current } = authorities.server;
  if (stored !== undefined && !isDue(stored.certificate, now)) {
    if (await isIssuedFor(stored.certificate, names, current.certificate)) return stored;
  }
  const { publicKey, privateKey } = await makeKey();
  const request = { usage: "server", lifeMs: lifetimes.servingMs, now } as const;
  const commonName = names[0] ?? "sallyport";
  const certificate = await signLeaf(current, { ...request, commonName, names, publicKey });
  return { certificate, key: privateKey };
}

/** When something has to be done next, in milliseconds since the epoch. */
export function nextRotation(authorities: Authorities, servings: readonly ServingCertificate[]): number {
  const dates = servings.map(({ certificate }) => renewalOf(certificate));
  for (const { current, next, previous } of Object.values(authorities)) {
    dates.push(next === undefined ? renewalOf(current.certificate) : next.since + lifetimes.overlapMs);
    dates.push(...previous.map(({ since }) => since + lifetimes.servingMs + lifetimes.overlapMs));
  }
  return Math.min(...dates);
}

/** Writes the authorities into a Secret's keys. */
export function storeAuthorities(authorities: Authorities): SecretData {
  const data: Record<string, string> = {};
  for (const name of authorityNames) {
    const { current, next, previous } = authorities[name];
    data[`${name}.json`] = JSON.stringify({ current, ...(next && { next }), previous });
    data[`${name}-bundle.crt`] = bundleOf(authorities[name]);
  }
  return data;
}

/** Reads the authorities of a Secret; what is missing or broken is left out, and made anew. */
export function readAuthorities(data: SecretData): Partial<Authorities> {
  const found: Partial<Record<AuthorityName, AuthorityHistory>> = {};
  for (const name of authorityNames) {
    const history = historyOf(data[`${name}.json`]);
    if (history !== undefined) found[name] = history;
  }
  return found;
}

function historyOf(text: string | undefined): AuthorityHistory | undefined {
  if (text === undefined) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null) return undefined;
    const { current, next, previous } = value as Partial<Record<keyof AuthorityHistory, unknown>>;
    if (!isAuthority(current) || current.key === undefined) return undefined;
    return {
      current,
      ...(isAuthority(next) && { next }),
      previous: Array.isArray(previous) ? previous.filter(isAuthority) : [],
    };
  } catch {
    // Somebody wrote over it: a new authority is made, and gateways learn it from their ConfigMap.
    return undefined;
  }
}

function isAuthority(value: unknown): value is Authority {
  if (typeof value !== "object" || value === null) return false;
  const { certificate, since, key } = value as Partial<Record<keyof Authority, unknown>>;
  return (
    typeof certificate === "string" &&
    typeof since === "number" &&
    (key === undefined || typeof key === "string")
  );
}
