/** Which addresses a gateway in a cluster may dial: a name is judged by the address that is dialled, at that moment. */
import { type LookupAddress, type LookupOptions, lookup } from "node:dns";
import { BlockList, isIP, type LookupFunction } from "node:net";
import { networkInterfaces } from "node:os";
import type { Reach } from "@sallyport/control";
import { plainAddress } from "./resolve.ts";

/** An address that was not dialled. */
export class AddressForbiddenError extends Error {
  readonly code = "ADDRESS_FORBIDDEN";
  constructor() {
    super("the server's name leads to an address that the resource has no right to");
    this.name = "AddressForbiddenError";
  }
}

/** What leads into this machine, this link, or to many, wherever the gateway runs. */
const never = [
  ...["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "fe80::/10", "fec0::/10"],
  // The metadata services of clouds that are not link-local.
  ...["ff00::/8", "fd00:ec2::/32", "fd20:ce::/32", "100.100.100.200/32", "168.63.129.16/32"],
];

/** Nothing at all: what holds while the operator has not said anything. */
export const noReach: Reach = { ownPod: false, forbidden: ["0.0.0.0/0", "::/0"], allowed: [] };

/** Whether an address may be dialled. */
export function mayDial(reach: Reach, address: string, port: number): boolean {
  const plain = embedded(plainAddress(address));
  if (isIP(plain) === 0) return false;
  if (reach.ownPod) return isOwn(plain);
  if (holds(never, plain)) return false;
  if (!holds(reach.forbidden, plain)) return true;
  return reach.allowed.some(
    (entry) =>
      (entry.ports === undefined || entry.ports.includes(port)) && holds([entry.range], plain, entry),
  );
}

/**
 * A look-up for `net.connect` that gives only addresses which may be dialled. The socket connects to what this gives
 * and looks nothing up again, so that a name which changes between check and dial gains nothing.
 */
export function checkedLookup(reach: Reach, port: number, resolve: Resolve = lookup): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname, { ...options, all: true }, (error, found) => {
      const good = (found ?? []).filter(({ address }) => mayDial(reach, address, port));
      const [first] = good;
      if (error !== null) callback(error, []);
      else if (first === undefined) callback(new AddressForbiddenError(), []);
      else if (options.all === true) callback(null, good);
      else callback(null, first.address, first.family);
    });
  };
}

/** How names are looked up. */
export type Resolve = (
  hostname: string,
  options: LookupOptions & { readonly all: true },
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

const loopback = ["127.0.0.0/8", "::1/128"];

function isOwn(address: string): boolean {
  if (holds(loopback, address)) return true;
  const own = Object.values(networkInterfaces()).flatMap((all) => all ?? []);
  return own.some((one) => plainAddress(one.address) === address);
}

/** IPv4 that is carried in IPv6 by a translator (RFC 6052, RFC 3056) leads to the IPv4 address. */
function embedded(address: string): string {
  if (isIP(address) !== 6) return address;
  const groups = groupsOf(address);
  const [a = 0, b = 0] = groups;
  const isTranslated = a === 0x64 && b === 0xff9b;
  const isCompatible = groups.slice(0, 6).every((group) => group === 0) && (groups[6] ?? 0) > 0;
  const at = a === 0x2002 ? 1 : isTranslated || isCompatible ? 6 : undefined;
  if (at === undefined) return address;
  const [high = 0, low = 0] = groups.slice(at, at + 2);
  return [high >> 8, high & 255, low >> 8, low & 255].join(".");
}

function groupsOf(address: string): readonly number[] {
  const [head = "", tail] = address.split("::");
  const read = (text: string) =>
    text
      .split(":")
      .filter(Boolean)
      .map((group) => Number.parseInt(group, 16));
  const [left, right] = [read(head), read(tail ?? "")];
  const between = tail === undefined ? 0 : 8 - left.length - right.length;
  return [...left, ...Array.from({ length: between }, () => 0), ...right];
}

/** `owner` is what the ranges are kept by: they never change in it. */
function holds(ranges: readonly string[], address: string, owner: object = ranges): boolean {
  const family = isIP(address) === 6 ? "ipv6" : "ipv4";
  return listOf(ranges, owner).check(address, family);
}

const lists = new WeakMap<object, BlockList>();

function listOf(ranges: readonly string[], owner: object): BlockList {
  const known = lists.get(owner);
  if (known !== undefined) return known;
  const list = new BlockList();
  for (const range of ranges) {
    const [network = "", bits = ""] = range.split("/");
    list.addSubnet(network, Number(bits), isIP(network) === 6 ? "ipv6" : "ipv4");
  }
  lists.set(owner, list);
  return list;
}
