/** The protocols that this build speaks, one line each; each is loaded when a resource speaks it. */
import type { Protocol } from "./protocol.ts";

const loaders: ReadonlyMap<string, () => Promise<Protocol>> = new Map([
  ["postgres", async () => (await import("./postgres/index.ts")).postgres],
  ["kubernetes", async () => (await import("./kubernetes/index.ts")).kubernetes],
  ["ssh", async () => (await import("./ssh/index.ts")).ssh],
]);

/** The protocol of that name; undefined where this build does not speak it. */
export async function loadProtocol(name: string): Promise<Protocol | undefined> {
  return loaders.get(name)?.();
}
