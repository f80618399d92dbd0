import { lookup } from "node:dns/promises";
import { isIP } from "node:net";

/** Lookups under way at once: each holds one of the process's four threads, which recordings are written by, too. */
const underWayMax = 2;
/** Names that wait for their turn. */
const waitingMax = 256;

type Found = readonly { readonly address: string }[];

/**
 * Asks for the addresses of names that clients choose. A name whose servers never answer holds a thread for as long as
 * the system likes, however soon whoever asked gives up: so there are few at once, and one of each who asks.
 */
export class Resolver {
  readonly #lookup: (host: string) => Promise<Found>;
  readonly #underWay = new Set<object>();
  #waiting: { readonly owner: object; readonly begin: () => void }[] = [];

  constructor(lookup: (host: string) => Promise<Found>) {
    this.#lookup = lookup;
  }

  /** The addresses of a name as this machine knows them, in one spelling each; empty where there are none in time. */
  async addresses(host: string, timeoutMs: number, owner: object = {}): Promise<readonly string[]> {
    if (isIP(host.split("%")[0] ?? "") !== 0) return [plainAddress(host)];
    if (this.#waiting.length >= waitingMax) return [];
    const { promise, resolve } = Promise.withResolvers<readonly string[]>();
    const turn = { owner, begin: () => void this.#found(host, owner).then(resolve) };
    this.#waiting.push(turn);
    const timer = setTimeout(() => {
      this.#waiting = this.#waiting.filter((one) => one !== turn);
      resolve([]);
    }, timeoutMs);
    this.#next();
    return promise.finally(() => clearTimeout(timer));
  }

  #next(): void {
    while (this.#underWay.size < underWayMax) {
      const turn = this.#waiting.find(({ owner }) => !this.#underWay.has(owner));
      if (turn === undefined) return;
      this.#waiting = this.#waiting.filter((one) => one !== turn);
      this.#underWay.add(turn.owner);
      turn.begin();
    }
  }

  #found(host: string, owner: object): Promise<readonly string[]> {
    return this.#lookup(host)
      .then(
        (all) => [...new Set(all.map(({ address }) => plainAddress(address)))],
        () => [],
      )
      .finally(() => {
        this.#underWay.delete(owner);
        this.#next();
      });
  }
}

// The threads are the process's, so the bound is too.
const resolver = new Resolver((host) => lookup(host, { all: true }));

/** `Resolver.addresses` of the process. */
export const resolveAddresses = (
  host: string,
  timeoutMs: number,
  owner: object,
): Promise<readonly string[]> => resolver.addresses(host, timeoutMs, owner);

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
