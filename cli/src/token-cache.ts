/** Tokens of people, kept on their own machine until they end: one file for each resource, readable by nobody else. */
import { chmod, mkdir, readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { replacePrivately } from "./private-file.ts";
import type { ResourceName } from "./values.ts";

/** A token, and when it ends where it says so. */
export interface CachedToken {
  readonly token: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt?: number;
}

/** Where tokens lie unless somebody says otherwise. */
export const defaultTokenFolder: string = join(homedir(), ".sallyport/tokens");

/** A token that ends within this is of no use to who is about to use it. */
const marginMs = 10_000;

/** Reads what the cache holds for a resource; undefined where that is nothing that can still be used. */
export async function cachedToken(
  folder: string,
  resource: ResourceName,
  now: number,
): Promise<CachedToken | undefined> {
  const text = await readFile(fileOf(folder, resource), "utf8").catch(() => "");
  return usableToken(text, now);
}

/** A text as a token; undefined where it is none, or over. */
export function usableToken(text: string, now: number): CachedToken | undefined {
  const token = text.trim();
  if (!/^[\x21-\x7e]{1,65536}$/.test(token)) return undefined;
  const expiresAt = expiryOf(token);
  if (expiresAt === undefined) return { token };
  return expiresAt - marginMs <= now ? undefined : { token, expiresAt };
}

/** Keeps a token. */
export async function keepToken(folder: string, resource: ResourceName, token: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await chmod(folder, 0o700);
  await replacePrivately(fileOf(folder, resource), `${token}\n`);
}

/** Names hold no underscore: no two resources share a file. */
const fileOf = (folder: string, { namespace, name }: ResourceName) => join(folder, `${namespace}_${name}`);

/** When a JWT ends, as it says itself: the gateway checks it, this only spares a request. */
function expiryOf(token: string): number | undefined {
  const [, payload = ""] = token.split(".");
  try {
    const { exp } = JSON.parse(Buffer.from(payload, "base64url").toString("utf8")) as { exp?: unknown };
    return typeof exp === "number" && Number.isFinite(exp) ? exp * 1000 : undefined;
  } catch {
    // No JWT: it says nothing of its end.
    return undefined;
  }
}
