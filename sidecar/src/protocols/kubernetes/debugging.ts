/** Debugging containers: which of them a request adds to a pod, and what they reach there. */
import { isRecord, type PodSecurity, reachingAlso, securityOfContainer } from "./facts.ts";

/** A debugging container that a body speaks of. */
export interface Debugger {
  /** "" where the body does not say. */
  readonly name: string;
  /** The container whose processes it sees; "" for none. */
  readonly target: string;
}

const depthMax = 64;

/** The debugging containers of a body, wherever it holds them; undefined where it cannot be read. */
export function debuggersIn(written: unknown): readonly Debugger[] | undefined {
  if (written === undefined) return undefined;
  const found: Debugger[] = [];
  const visit = (value: unknown, isOne: boolean, depth: number): boolean => {
    if (depth > depthMax) return false;
    if (Array.isArray(value)) return value.every((one) => visit(one, isOne, depth + 1));
    if (!isRecord(value)) return true;
    const { targetContainerName: target, name } = value;
    // In protobuf the fields that all containers have are one message.
    const common = isRecord(value.common) ? value.common.name : undefined;
    if (isOne || target !== undefined) found.push({ name: textOf(name ?? common), target: textOf(target) });
    return Object.entries(value).every(([key, member]) =>
      visit(member, key === "ephemeralContainers", depth + 1),
    );
  };
  if (!visit(written, false, 0)) return undefined;
  // Of a JSON patch a later step may rename what an earlier one adds: its names say nothing.
  return Array.isArray(written) ? found.map((one) => ({ ...one, name: "" })) : found;
}

/** The containers that these are not yet part of a pod: those that are never change. */
export function addedTo(spec: unknown, debuggers: readonly Debugger[]): readonly Debugger[] {
  const list = isRecord(spec) && Array.isArray(spec.ephemeralContainers) ? spec.ephemeralContainers : [];
  const names = new Set(list.filter(isRecord).map(({ name }) => name));
  return debuggers.filter(({ name }) => !names.has(name));
}

/** What a debugging container reaches: what it asks for itself, what the pod reaches, and whom it looks into. */
export function debuggingSecurity(own: PodSecurity, spec: unknown, target: string): PodSecurity {
  return reachingAlso(own, securityOfContainer(spec, target === "" ? noContainer : target));
}

/** No container has this name: only what the pod itself reaches counts. */
const noContainer = "\0";

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}
