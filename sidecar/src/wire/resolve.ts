import { lookup } from "node:dns/promises";
import { isIP } from "node:net";

/** The addresses of a name as this machine knows them, in one spelling each; empty where there are none in time. */
export async function resolveAddresses(host: string, timeoutMs: number): Promise<readonly string[]> {
  if (isIP(host) !== 0) return [plainAddress(host)];
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<readonly string[]>((resolve) => {
    timer = setTimeout(() => resolve([]), timeoutMs);
  });
  const found = lookup(host, { all: true }).then(
    (all) => [...new Set(all.map(({ address }) => plainAddress(address)))],
    () => [],
  );
  return Promise.race([found, late]).finally(() => clearTimeout(timer));
}

/** One spelling for an address: IPv4 inside of IPv6 as IPv4, IPv6 compressed and in lower case, no zone. */
export function plainAddress(address: string): string {
  const [bare = ""] = address.split("%");
  if (isIP(bare) !== 6) return bare;
  // The URL parser knows the one canonical spelling.
  const canonical = new URL(`http://[${bare}]`).hostname.slice(1, -1);
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(canonical);
  if (mapped === null) return canonical;
  const [high, low] = [mapped[1], mapped[2]].map((group) => Number.parseInt(group ?? "0", 16));
  return [(high ?? 0) >> 8, (high ?? 0) & 255, (low ?? 0) >> 8, (low ?? 0) & 255].join(".");
}
