/**
 * Device codes (RFC 8628): whoever cannot open a browser shows a code, a person confirms it elsewhere, and the token is
 * fetched by asking again and again. Nothing of the provider's is trusted to be shown as it came.
 */
import { setTimeout as passed } from "node:timers/promises";
import { fetchDiscovery, isLoopback, objectIn, postForm } from "./bounded-fetch.ts";

/** A provider, and what the gateway is to it: a public client, which has no secret. */
export interface DeviceLoginOptions {
  readonly issuer: string;
  readonly caBundle?: string;
  readonly clientId: string;
  readonly scope: string;
  /** RFC 8707: what the token is for; some providers make its audience of it. */
  readonly resource?: string;
  readonly token: "access_token" | "id_token";
}

/** What a resource says of device codes (`options.deviceLogin`); undefined where it names no client. */
export function deviceLoginOf(value: unknown): Omit<DeviceLoginOptions, "issuer" | "caBundle"> | undefined {
  const given = (typeof value === "object" && value !== null ? value : {}) as Readonly<
    Record<string, unknown>
  >;
  const { clientId, scope, resource, token } = given;
  if (typeof clientId !== "string" || clientId === "") return undefined;
  return {
    clientId,
    scope: typeof scope === "string" ? scope : "openid",
    ...(typeof resource === "string" ? { resource } : {}),
    token: token === "id_token" ? "id_token" : "access_token",
  };
}

/** A login that waits for somebody to confirm it. */
export interface DeviceLogin {
  /** Where to confirm it. */
  readonly url: string;
  /** What to compare or type there. */
  readonly code: string;
  readonly expiresMs: number;
  /** The token once it is confirmed; undefined where it was refused, or nobody did so in time. */
  token(signal: AbortSignal): Promise<string | undefined>;
}

const bytesMax = 256 * 1024;
const timeoutMs = 5_000;
/** RFC 8628, 3.2 and 3.5: what holds where a provider names no interval, and what `slow_down` adds. */
const intervalDefaultSeconds = 5;
const slowDownMs = 5_000;
const lifeMaxMs = 10 * 60_000;

/** Asks the provider for a code. */
export async function beginDeviceLogin(
  options: DeviceLoginOptions,
  signal: AbortSignal,
): Promise<DeviceLogin> {
  const bounds = {
    timeoutMs,
    bytesMax,
    ...(options.caBundle === undefined ? {} : { caBundle: options.caBundle }),
  };
  const discovered = await fetchDiscovery(options.issuer, bounds, secure, signal);
  const begin = secure(discovered.device_authorization_endpoint);
  const tokens = secure(discovered.token_endpoint);
  const form = new URLSearchParams({ client_id: options.clientId, scope: options.scope });
  if (options.resource !== undefined) form.set("resource", options.resource);
  const answer = await postForm(begin, form, bounds, signal);
  const given = objectIn(answer.text);
  const { device_code: deviceCode, user_code: code } = given;
  if (answer.status !== 200 || typeof deviceCode !== "string" || !isShowable(code, 64))
    throw new Error(`the provider gave no device code (${answer.status})`);
  const complete = given.verification_uri_complete ?? given.verification_uri;
  const url = secure(complete).href;
  if (!isShowable(url, 2048)) throw new Error("the provider's address cannot be shown");
  const lifeMs = Math.min(secondsIn(given.expires_in, 300) * 1000, lifeMaxMs);
  const endMs = performance.now() + lifeMs;
  let everyMs = secondsIn(given.interval, intervalDefaultSeconds) * 1000;
  const poll = new URLSearchParams({
    grant_type: "urn:ietf:params:oauth:grant-type:device_code",
    device_code: deviceCode,
    client_id: options.clientId,
  });
  const token = async (until: AbortSignal): Promise<string | undefined> => {
    while (performance.now() < endMs && !until.aborted) {
      const { status, text } = await postForm(tokens, poll, bounds, until);
      const found = objectIn(text);
      const issued = found[options.token];
      if (status === 200) return typeof issued === "string" ? issued : undefined;
      if (found.error === "slow_down") everyMs += slowDownMs;
      else if (found.error !== "authorization_pending") return undefined;
      // Never beyond the code's own life, and never longer than a timer counts.
      const leftMs = Math.max(0, endMs - performance.now());
      await passed(Math.min(everyMs, leftMs), undefined, { signal: until }).catch(() => undefined);
    }
    return undefined;
  };
  return { url, code, expiresMs: lifeMs, token };
}

function secure(value: unknown): URL {
  const url = new URL(String(value));
  const isPlainAllowed = url.protocol === "http:" && isLoopback(url.hostname);
  if (url.protocol !== "https:" && !isPlainAllowed) throw new Error("the provider's address is no https URL");
  if (url.username !== "" || url.password !== "") throw new Error("the provider's address holds credentials");
  return url;
}

/** Printable ASCII alone: it goes to somebody's terminal. */
const isShowable = (value: unknown, lengthMax: number): value is string =>
  typeof value === "string" && value.length <= lengthMax && /^[\x20-\x7e]+$/.test(value);

const secondsIn = (value: unknown, otherwise: number): number =>
  typeof value === "number" && Number.isFinite(value) && value >= 1 ? value : otherwise;
