import { isIP } from "node:net";

/** Which addresses a placed gateway may dial for its resource; the operator says it beside the resource. */
export interface Reach {
  /** True in a sidecar: the pod's own addresses, and nothing else. */
  readonly ownPod: boolean;
  /** Ranges of the cluster: pods, Services, nodes, API servers. */
  readonly forbidden: readonly string[];
  /** Addresses in these ranges that the resource has a right to. */
  readonly allowed: readonly { readonly range: string; readonly ports?: readonly number[] }[];
}

/** Reads what the operator says; undefined where it is not understood, for the caller to refuse. */
export function readReach(value: unknown): Reach | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { ownPod, forbidden, allowed } = value as Partial<Record<keyof Reach, unknown>>;
  if (typeof ownPod !== "boolean" || !Array.isArray(forbidden) || !Array.isArray(allowed)) return undefined;
  if (!forbidden.every(isRange)) return undefined;
  const isEntry = (entry: unknown): entry is Reach["allowed"][number] => {
    if (typeof entry !== "object" || entry === null) return false;
    const { range, ports } = entry as { readonly range?: unknown; readonly ports?: unknown };
    return isRange(range) && (ports === undefined || (Array.isArray(ports) && ports.every(Number.isInteger)));
  };
  return allowed.every(isEntry) ? { ownPod, forbidden, allowed } : undefined;
}

/** Whether a text is an address with a prefix length, such as `10.96.0.0/12`. */
export function isRange(value: unknown): value is string {
  if (typeof value !== "string") return false;
  const [network = "", bits = "", more] = value.split("/");
  const family = isIP(network);
  if (family === 0 || more !== undefined || !/^\d{1,3}$/.test(bits)) return false;
  return Number(bits) <= (family === 6 ? 128 : 32);
}
