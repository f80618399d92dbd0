/** Facts of pods and of what is written about pods: what rules may read under `command.facts`. */

/** What of a pod reaches out of it. */
export interface PodSecurity {
  readonly privileged: boolean;
  readonly hostNetwork: boolean;
  readonly hostPID: boolean;
  readonly hostIPC: boolean;
  readonly hostPath: boolean;
  readonly capabilities: readonly string[];
  /** Any of these, but for the capability to bind a low port. */
  readonly hostAccess: boolean;
  readonly images: readonly string[];
  /** True where a body could not be read: the other facts then say the worst. */
  readonly opaque: boolean;
}

/** Nothing that reaches out. */
export const plainPod: PodSecurity = {
  privileged: false,
  hostNetwork: false,
  hostPID: false,
  hostIPC: false,
  hostPath: false,
  capabilities: [],
  hostAccess: false,
  images: [],
  opaque: false,
};

/** What nobody could read: a rule that refuses any of these refuses it. */
export const opaquePod: PodSecurity = {
  privileged: true,
  hostNetwork: true,
  hostPID: true,
  hostIPC: true,
  hostPath: true,
  capabilities: ["ALL"],
  hostAccess: true,
  images: [],
  opaque: true,
};

const depthMax = 64;
const listMax = 128;
const nodesMax = 200_000;

/** Facts of an object or a patch, whatever kind it has: what makes a pod privileged is looked for at any depth. */
export function securityOf(body: unknown): PodSecurity {
  const found = new Finder();
  found.visit(body, 0);
  return found.result();
}

/** Facts of a volume that is written: one of type `local` is a path of a node, too. */
export function securityOfVolume(body: unknown): PodSecurity {
  const security = securityOf(body);
  const spec = isRecord(body) && isRecord(body.spec) ? body.spec : {};
  // In protobuf the source of a volume is a message of its own.
  const isLocal = [spec, spec.source].some((source) => isRecord(source) && (source.local ?? null) !== null);
  return isLocal ? { ...security, hostPath: true, hostAccess: true } : security;
}

/** Facts of one container of a pod with what the pod itself reaches; of all containers where none is named. */
export function securityOfContainer(spec: unknown, container: string): PodSecurity {
  if (!isRecord(spec)) return opaquePod;
  const named = ["containers", "initContainers", "ephemeralContainers"].flatMap((key) => {
    const list = spec[key];
    return Array.isArray(list) ? list.filter(isRecord) : [];
  });
  const chosen = container === "" ? named : named.filter(({ name }) => name === container);
  const { containers: _c, initContainers: _i, ephemeralContainers: _e, ...pod } = spec;
  return securityOf({ ...pod, containers: chosen });
}

/** What is written, where what is there already reaches out of the pod, too; its images are those that are written. */
export function reachingAlso(own: PodSecurity, other: PodSecurity): PodSecurity {
  return {
    privileged: own.privileged || other.privileged,
    hostNetwork: own.hostNetwork || other.hostNetwork,
    hostPID: own.hostPID || other.hostPID,
    hostIPC: own.hostIPC || other.hostIPC,
    hostPath: own.hostPath || other.hostPath,
    hostAccess: own.hostAccess || other.hostAccess,
    opaque: own.opaque || other.opaque,
    capabilities: [...new Set([...own.capabilities, ...other.capabilities])],
    images: own.images,
  };
}

/** Which object was found and what of it counts, as a text to compare: under its name another may come to stand. */
export function aboutOf(uid: unknown, counted: unknown): string {
  return JSON.stringify([uid, counted]);
}

/** The container that a server chooses where a request names none: the only one; "" where there are more. */
export function onlyContainer(spec: unknown): string {
  const list = isRecord(spec) && Array.isArray(spec.containers) ? spec.containers : [];
  const [first] = list;
  return list.length === 1 && isRecord(first) && typeof first.name === "string" ? first.name : "";
}

/** A JSON patch as the object that it writes, so that paths count like nested members; undefined where it copies. */
export function writtenBy(patch: unknown): unknown {
  if (!Array.isArray(patch)) return undefined;
  const written: unknown[] = [];
  for (const step of patch) {
    if (!isRecord(step) || typeof step.path !== "string") return undefined;
    if (step.op === "remove" || step.op === "test") continue;
    if (step.op !== "add" && step.op !== "replace") return undefined;
    const keys = step.path
      .split("/")
      .slice(1)
      .map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"));
    if (keys.length > depthMax) return undefined;
    written.push(
      keys.reduceRight<unknown>(
        (value, key) => (/^(\d+|-)$/.test(key) ? [value] : { [key]: value }),
        step.value,
      ),
    );
  }
  return written;
}

class Finder {
  #nodes = 0;
  #isOpaque = false;
  readonly #found = {
    privileged: false,
    hostNetwork: false,
    hostPID: false,
    hostIPC: false,
    hostPath: false,
  };
  readonly #capabilities = new Set<string>();
  readonly #images = new Set<string>();

  visit(value: unknown, depth: number): void {
    this.#nodes += 1;
    if (depth > depthMax || this.#nodes > nodesMax) {
      this.#isOpaque = true;
      return;
    }
    if (Array.isArray(value)) for (const one of value) this.visit(one, depth + 1);
    if (!isRecord(value)) return;
    for (const [key, member] of Object.entries(value)) {
      this.#note(key, member);
      this.visit(member, depth + 1);
    }
  }

  result(): PodSecurity {
    if (this.#isOpaque) return opaquePod;
    const capabilities = [...this.#capabilities];
    const reaches =
      Object.values(this.#found).some((one) => one) || capabilities.some((one) => one !== "NET_BIND_SERVICE");
    return { ...this.#found, capabilities, images: [...this.#images], hostAccess: reaches, opaque: false };
  }

  #note(key: string, member: unknown): void {
    const found = this.#found;
    // Anything but a plain false counts: a patch may bring what the server will convert.
    const isSet = member !== false && member !== null && member !== undefined;
    if (key === "privileged" || key === "hostProcess") found.privileged ||= isSet;
    else if (key === "hostNetwork") found.hostNetwork ||= isSet;
    else if (key === "hostPID") found.hostPID ||= isSet;
    else if (key === "hostIPC") found.hostIPC ||= isSet;
    else if (key === "hostPath") found.hostPath ||= isSet;
    else if (key === "image" && typeof member === "string") this.#add(this.#images, member);
    else if (key === "capabilities" && isRecord(member)) this.#capabilitiesOf(member.add);
    else if (key === "capabilities" && Array.isArray(member)) this.#capabilitiesOf(member);
  }

  #capabilitiesOf(list: unknown): void {
    if (list === undefined || list === null) return;
    // A patch may set one element of the list by its path.
    for (const one of [list].flat(2)) {
      if (typeof one === "string") this.#add(this.#capabilities, one.toUpperCase().replace(/^CAP_/, ""));
      else this.#isOpaque = true;
    }
  }

  #add(set: Set<string>, text: string): void {
    if (set.size >= listMax) this.#isOpaque = true;
    else set.add(text.slice(0, 512));
  }
}

/** True for a JSON object. */
export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
